/* SPDX-License-Identifier: MIT */
/* flow: addresses and ports, found in a frame and compared. */
#include "netbackends/flow.h"

#include "base/bytes.h"

_Static_assert(sizeof(struct flow) == 38, "a flow has padding");

void flow_find(const uint8_t *frame, const struct packet *packet, bool is_from_guest,
               struct flow *out)
{
    size_t bytes = packet->is_ipv6 ? 16 : 4;
    const uint8_t *source = frame + packet->ip + (packet->is_ipv6 ? 8 : 12);
    const uint8_t *target = source + bytes, *tcp = frame + packet->transport;
    uint16_t from = load_be16(tcp), to = load_be16(tcp + 2);
    *out = (struct flow){.is_ipv6 = packet->is_ipv6};
    memcpy(out->guest, is_from_guest ? source : target, bytes);
    memcpy(out->remote, is_from_guest ? target : source, bytes);
    out->guest_port = is_from_guest ? from : to;
    out->remote_port = is_from_guest ? to : from;
}

uint32_t flow_hash(const struct flow *flow)
{
    const uint8_t *byte = (const uint8_t *)flow;
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < sizeof(*flow); i++)
        hash = (hash ^ byte[i]) * 16777619u;
    return hash ^ hash >> 16;
}

bool flow_equals(const struct flow *a, const struct flow *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}
