/* SPDX-License-Identifier: MIT */
/*
 * mss: how long the TCP segments may be that a guest receives, connection by connection. (RFC 9293,
 * section 3.7.1.)
 *
 * The other end is told that the guest takes MSS_OFFERED, so that it builds few long segments; what
 * the guest really asked for is kept here, for whoever cuts them. Only wishes below the usual are
 * kept, in a table of fixed size: the oldest leaves, and from then on no unknown connection gets
 * longer segments than it had asked for. Pure functions on the caller's memory.
 */
#ifndef NETBACKENDS_MSS_H
#define NETBACKENDS_MSS_H

#include "netbackends/flow.h"

enum {
    MSS_MTU = 1500,      /* the guest's wire, whatever it says */
    MSS_OFFERED = 16060, /* eleven segments of that MTU, of IPv4 */
    MSS_LEAST = 48,
    MSS_SETS = 128,
    MSS_WAYS = 4,
};

struct mss_entry {
    struct flow flow;
    uint16_t bytes; /* 0: free */
    uint32_t age;   /* the larger, the later */
};

/* All zero is empty. */
struct mss_table {
    size_t count;
    uint32_t newest;
    uint16_t forgotten; /* the smallest that had to leave; 0: none had */
    struct mss_entry entries[MSS_SETS][MSS_WAYS];
};

/* A frame from the guest with TCP_SYN, whose options packet_parse_tcp and the guard have found to
 * be whole: keeps its wish and rewrites it. */
void mss_take_syn(struct mss_table *table, uint8_t *frame, const struct packet *packet,
                  size_t payload);

/* The longest payload of one segment for the guest; `frame` has the headers, from the remote end.
 */
size_t mss_of(const struct mss_table *table, const uint8_t *frame, const struct packet *packet);

#endif
