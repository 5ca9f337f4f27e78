/* SPDX-License-Identifier: MIT */
/*
 * merge: consecutive TCP segments of one flow become one large frame with a GSO meta.
 *
 * Works on the newest frame of a frame_queue: what the peer receives in one piece costs it one
 * trip through its stack instead of forty.
 */
#ifndef NETBACKENDS_MERGE_H
#define NETBACKENDS_MERGE_H

#include "netbackends/frame_queue.h"

struct merge {
    unsigned offloads; /* what the receiver takes, of enum net_offloads */
    /* Private: the newest frame, while it may still grow. */
    bool is_open;
    bool is_merged;
    bool is_ipv6;
    size_t transport;
    size_t headers;
    size_t segment_bytes;
    uint32_t next_sequence;
};

/* Queues a frame, alone or as a part of the newest one. False: the queue is full. */
bool must_check merge_push(struct merge *merge, struct frame_queue *queue, const uint8_t *frame,
                           size_t length);

/* The newest frame is complete: before it is taken out of the queue. */
void merge_close(struct merge *merge, struct frame_queue *queue);

#endif
