/* SPDX-License-Identifier: MIT */
/* fragment: cuts IPv4 packets that are too long for a wire into fragments (RFC 791, section 3.2).
 */
#ifndef NETBACKENDS_FRAGMENT_H
#define NETBACKENDS_FRAGMENT_H

#include "netbackends/offload.h"

/*
 * `frame` holds an IPv4 packet of more than `mtu` bytes; each fragment has at most that many. 0,
 * -EINVAL if it cannot be cut (no IPv4, options, "don't fragment"), or what emit answered.
 */
int must_check fragment_ipv4(uint8_t *frame, size_t length, size_t mtu, offload_emit_fn *emit,
                             void *opaque);

#endif
