/* SPDX-License-Identifier: MIT */
/* base64: three bytes are four letters. */
#include "vmm/control/base64.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const uint8_t *bytes, size_t length)
{
    char *text = malloc((length + 2) / 3 * 4 + 1), *at = text;
    CHECK(text);
    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t group = (uint32_t)bytes[i] << 16;
        group |= left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        group |= left > 2 ? bytes[i + 2] : 0;
        *at++ = letters[group >> 18];
        *at++ = letters[group >> 12 & 63];
        *at++ = left > 1 ? letters[group >> 6 & 63] : '=';
        *at++ = left > 2 ? letters[group & 63] : '=';
    }
    *at = 0;
    return text;
}

bool base64_decode(char *text, size_t *length)
{
    size_t letters_in = strlen(text), padding = 0;
    uint8_t *to = (uint8_t *)text;
    if (letters_in % 4)
        return false;
    while (padding < 2 && padding < letters_in && text[letters_in - padding - 1] == '=')
        padding++;
    for (size_t i = 0; i < letters_in; i += 4) {
        uint32_t group = 0;
        for (size_t k = i; k < i + 4; k++) {
            const char *found = text[k] ? strchr(letters, text[k]) : NULL;
            if (!found && k < letters_in - padding)
                return false;
            group = group << 6 | (found ? (uint32_t)(found - letters) : 0);
        }
        *to++ = (uint8_t)(group >> 16);
        *to++ = (uint8_t)(group >> 8);
        *to++ = (uint8_t)group;
    }
    *length = letters_in / 4 * 3 - padding;
    return true;
}
