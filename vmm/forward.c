/* SPDX-License-Identifier: MIT */
/* forward: parses rules of port forwarding. */
#include "vmm/forward.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/keyval.h"

bool forward_is_ipv4(const char *text, size_t length)
{
    char copy[INET_ADDRSTRLEN];
    struct in_addr address;
    if (length >= sizeof(copy))
        return false;
    memcpy(copy, text, length);
    copy[length] = 0;
    return inet_pton(AF_INET, copy, &address) == 1;
}

/* Reads "[address]:port", up to `end`; the address goes to *address unless it is empty. */
static bool read_endpoint(const char *text, const char *end, char **address, uint16_t *port)
{
    const char *colon = memchr(text, ':', (size_t)(end - text));
    if (!colon)
        return false;
    char digits[8];
    size_t length = (size_t)(end - colon - 1);
    if (length >= sizeof(digits))
        return false;
    memcpy(digits, colon + 1, length);
    digits[length] = 0;
    uint64_t number;
    if (!keyval_text_to_uint(digits, &number) || number < 1 || number > UINT16_MAX)
        return false;
    *port = (uint16_t)number;
    if (colon == text)
        return true;
    if (!forward_is_ipv4(text, (size_t)(colon - text)))
        return false;
    *address = strndup(text, (size_t)(colon - text));
    CHECK(*address);
    return true;
}

bool forward_parse(const char *text, bool has_guest, struct config_forward *out)
{
    memset(out, 0, sizeof(*out));
    out->is_udp = strncmp(text, "udp:", 4) == 0;
    if (out->is_udp || strncmp(text, "tcp:", 4) == 0)
        text += 4;
    else if (*text == ':')
        text++;
    else
        return false;
    const char *end = text + strcspn(text, "-");
    if ((*end == '-') != has_guest ||
        !read_endpoint(text, end, &out->host_address, &out->host_port))
        return false;
    return !has_guest ||
           read_endpoint(end + 1, end + strlen(end), &out->guest_address, &out->guest_port);
}

void forward_fini(struct config_forward *forward)
{
    free(forward->host_address);
    free(forward->guest_address);
}
