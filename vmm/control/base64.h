/* SPDX-License-Identifier: MIT */
/* base64: bytes as text (RFC 4648, section 4). */
#ifndef VMM_CONTROL_BASE64_H
#define VMM_CONTROL_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The text, which the caller frees. */
char *base64_encode(const uint8_t *bytes, size_t length);
/* In place of the text; false if it is none. */
bool base64_decode(char *text, size_t *length);

#endif
