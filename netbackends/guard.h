/* SPDX-License-Identifier: MIT */
/*
 * guard: what may pass from a guest into libslirp, whose parsers have a history.
 *
 * Only well-formed ARP, IPv4 and IPv6 pass: lengths that agree, no IP options or extension headers,
 * no fragmented TCP, no loopback destinations, no TFTP unless it is configured. Urgent data is made
 * plain. Pure functions over one frame.
 */
#ifndef NETBACKENDS_GUARD_H
#define NETBACKENDS_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUARD_FRAME_MAX (14 + 65535)

struct guard {
    bool allows_tftp;
    bool refuses_new_flows; /* the host runs short of descriptors */
    bool host_only;         /* nothing but these two, DHCP and neighbour discovery */
    uint8_t host[4], host6[16];
};

/* True if the frame may pass. May rewrite the TCP header (URG off, checksum adjusted). */
bool guard_check(const struct guard *guard, uint8_t *frame, size_t length);

#endif
