/* SPDX-License-Identifier: MIT */
/*
 * guard: what may pass from a guest into libslirp, whose parsers have a history.
 *
 * Only well-formed ARP, IPv4 and IPv6 pass: lengths that agree, no IP options or extension headers,
 * no fragmented TCP, no loopback destinations, no TFTP unless it is configured. Urgent data is made
 * plain, and the MSS that a SYN asks for goes to whoever cuts the segments. Pure functions over one
 * frame.
 */
#ifndef NETBACKENDS_GUARD_H
#define NETBACKENDS_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "netbackends/mss.h"

#define GUARD_FRAME_MAX (14 + 65535)

struct guard {
    bool allows_tftp;
    bool refuses_new_flows; /* the host runs short of descriptors */
    bool host_only;         /* nothing but these two, DHCP and neighbour discovery */
    uint8_t host[4], host6[16];
    struct mss_table *mss; /* or NULL: the option stays as it is */
};

/* True if the frame may pass. May rewrite the TCP header (URG off, MSS, checksum adjusted). */
bool guard_check(const struct guard *guard, uint8_t *frame, size_t length);

#endif
