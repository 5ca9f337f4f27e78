/* SPDX-License-Identifier: MIT */
/*
 * frame_queue: a bounded first-in-first-out of frames in one arena.
 *
 * Frames lie contiguously; the newest one can grow in place, which is how segments are merged. An
 * empty queue starts over at the front of its arena, so a queue that is drained at once touches few
 * pages, however large its bound is.
 */
#ifndef NETBACKENDS_FRAME_QUEUE_H
#define NETBACKENDS_FRAME_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "netbackends/net.h"

struct frame {
    struct net_meta meta;
    uint32_t length;
    uint8_t bytes[];
};

struct frame_queue {
    /* Private. */
    uint8_t *arena;
    size_t capacity;
    size_t head;   /* of the oldest frame */
    size_t tail;   /* behind the newest */
    size_t wrap;   /* where the part before the wrap ends, if tail < head */
    size_t newest; /* its offset; valid unless the queue is empty */
    size_t count;
    size_t bytes; /* of all frames */
};

/* `capacity_bytes` includes a few bytes of overhead a frame. -ENOMEM. */
int must_check frame_queue_init(struct frame_queue *queue, size_t capacity_bytes);
void frame_queue_fini(struct frame_queue *queue);

/* NULL if it is full. The new frame's meta is zero, its bytes are not set. */
struct frame *frame_queue_push(struct frame_queue *queue, size_t length);
/* Makes the newest frame longer; false if it cannot grow where it lies. */
bool frame_queue_grow(struct frame_queue *queue, size_t more);

/* NULL if it is empty. */
struct frame *frame_queue_front(struct frame_queue *queue);
struct frame *frame_queue_newest(struct frame_queue *queue);
void frame_queue_pop(struct frame_queue *queue);
void frame_queue_clear(struct frame_queue *queue);

static inline size_t frame_queue_bytes(const struct frame_queue *queue)
{
    return queue->bytes;
}

#endif
