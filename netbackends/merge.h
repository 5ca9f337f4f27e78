/* SPDX-License-Identifier: MIT */
/*
 * merge: consecutive TCP segments of one flow become one large frame with a GSO meta, and so does a
 * segment that is longer than its connection's MSS.
 *
 * Works on the newest frame of a frame_queue: what the peer receives in one piece costs it one
 * trip through its stack instead of forty.
 */
#ifndef NETBACKENDS_MERGE_H
#define NETBACKENDS_MERGE_H

#include "netbackends/frame_queue.h"
#include "netbackends/mss.h"

struct merge {
    unsigned offloads; /* what the receiver takes, of enum net_offloads */
    struct mss_table mss;
    /* Private: the newest frame, while it may still grow. */
    bool is_open;
    bool is_merged;
    bool is_ipv6;
    size_t transport;
    size_t headers;
    size_t segment_bytes;
    uint32_t next_sequence;
};

/*
 * Queues a frame, alone or as a part of the newest one. 0; -ENOBUFS: the queue is full; -EMSGSIZE:
 * it is longer than an MSS, and the receiver does not cut it: offload_segment does, by `cut`, and
 * each piece is pushed.
 */
int must_check merge_push(struct merge *merge, struct frame_queue *queue, const uint8_t *frame,
                          size_t length, struct net_meta *cut);

/* The newest frame is complete: before it is taken out of the queue. */
void merge_close(struct merge *merge, struct frame_queue *queue);

#endif
