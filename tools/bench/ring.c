/* SPDX-License-Identifier: MIT */
/* ring: both event indices of one queue, from the driver's side (virtio 1.2, section 2.7.10). */
#include "tools/bench/ring.h"

#include <linux/virtio_ring.h>

#include "base/bytes.h"

bool ring_must_kick(struct ring *ring)
{
    struct fake_queue *queue = &ring->queue;
    uint16_t now = queue->avail_at, before = ring->kicked_at;
    uint64_t event_gpa = queue->used + 4 + 8u * queue->size;
    atomic_thread_fence(memory_order_seq_cst);
    ring->kicked_at = now;
    uint16_t event = load_le16(fake_guest_at(queue->fd->guest, event_gpa, 2));
    return vring_need_event(event, now, before);
}

bool ring_await(struct ring *ring)
{
    struct fake_queue *queue = &ring->queue;
    uint64_t event_gpa = queue->avail + 4 + 2u * queue->size;
    store_le16(fake_guest_at(queue->fd->guest, event_gpa, 2), queue->used_at);
    atomic_thread_fence(memory_order_seq_cst);
    return fake_queue_used_index(queue) != queue->used_at;
}
