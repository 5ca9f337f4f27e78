/* SPDX-License-Identifier: MIT */
/* flow: the two ends of a TCP connection between a guest and somebody behind a NAT. */
#ifndef NETBACKENDS_FLOW_H
#define NETBACKENDS_FLOW_H

#include "netbackends/packet.h"

struct flow {
    uint8_t guest[16], remote[16];
    uint16_t guest_port, remote_port;
    uint16_t is_ipv6; /* as wide as these: no padding, it is compared as a whole */
};

/* Of a frame that packet_parse_tcp knows. */
void flow_find(const uint8_t *frame, const struct packet *packet, bool is_from_guest,
               struct flow *out);
uint32_t flow_hash(const struct flow *flow);
bool flow_equals(const struct flow *a, const struct flow *b);

#endif
