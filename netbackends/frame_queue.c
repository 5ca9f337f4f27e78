/* SPDX-License-Identifier: MIT */
/*
 * frame_queue: frames in an arena that wraps between frames, never inside one.
 *
 *   tail >= head:  [ free | head ... tail | free ]
 *   tail <  head:  [ ... tail | free | head ... wrap | unused ]
 *
 * tail == head only in an empty queue: a push always leaves at least one byte free.
 */
#include "netbackends/frame_queue.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/bytes.h"

static size_t footprint(size_t length)
{
    return align_up(sizeof(struct frame) + length, _Alignof(struct frame));
}

static struct frame *frame_at(struct frame_queue *queue, size_t offset)
{
    return (struct frame *)(void *)(queue->arena + offset);
}

int frame_queue_init(struct frame_queue *queue, size_t capacity_bytes)
{
    void *arena =
        mmap(NULL, capacity_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED)
        return -errno;
    *queue = (struct frame_queue){.arena = arena, .capacity = capacity_bytes};
    return 0;
}

void frame_queue_fini(struct frame_queue *queue)
{
    if (queue->arena)
        munmap(queue->arena, queue->capacity);
    *queue = (struct frame_queue){0};
}

/* Where `size` contiguous bytes are free behind the newest frame, or SIZE_MAX. */
static size_t find_room(struct frame_queue *queue, size_t size)
{
    if (queue->tail < queue->head)
        return queue->head - queue->tail > size ? queue->tail : SIZE_MAX;
    if (queue->capacity - queue->tail >= size)
        return queue->tail;
    if (queue->head > size) {
        queue->wrap = queue->tail;
        return 0;
    }
    return SIZE_MAX;
}

struct frame *frame_queue_push(struct frame_queue *queue, size_t length)
{
    size_t size = footprint(length);
    size_t at = find_room(queue, size);
    if (at == SIZE_MAX)
        return NULL;
    queue->newest = at;
    queue->tail = at + size;
    queue->count++;
    queue->bytes += length;
    struct frame *frame = frame_at(queue, at);
    frame->meta = (struct net_meta){0};
    frame->length = (uint32_t)length;
    return frame;
}

bool frame_queue_grow(struct frame_queue *queue, size_t more)
{
    CHECK(queue->count);
    struct frame *frame = frame_at(queue, queue->newest);
    size_t end = queue->newest + footprint(frame->length + more);
    size_t limit = queue->tail < queue->head ? queue->head - 1 : queue->capacity;
    if (end > limit)
        return false;
    queue->tail = end;
    queue->bytes += more;
    frame->length += (uint32_t)more;
    return true;
}

struct frame *frame_queue_front(struct frame_queue *queue)
{
    return queue->count ? frame_at(queue, queue->head) : NULL;
}

struct frame *frame_queue_newest(struct frame_queue *queue)
{
    return queue->count ? frame_at(queue, queue->newest) : NULL;
}

void frame_queue_pop(struct frame_queue *queue)
{
    CHECK(queue->count);
    const struct frame *frame = frame_at(queue, queue->head);
    queue->bytes -= frame->length;
    if (--queue->count == 0) {
        queue->head = queue->tail = 0;
        return;
    }
    bool wrapped = queue->tail < queue->head;
    queue->head += footprint(frame->length);
    if (wrapped && queue->head == queue->wrap)
        queue->head = 0;
}

void frame_queue_clear(struct frame_queue *queue)
{
    queue->head = queue->tail = queue->count = queue->bytes = 0;
}
