/* SPDX-License-Identifier: MIT */
/*
 * virtqueue: pops and pushes descriptor chains of a split ring.
 *
 * Theory of operation. The rings are guest memory that the guest may rewrite at any moment. So an
 * index or a descriptor is copied once (load16, load_descriptor), the copy is checked, and only the
 * copy is used. Each head carries two bits: *taken* from its pop until its used entry is published,
 * and *popped* until its push. A head that is offered while taken breaks the queue, which also
 * bounds what is in flight, and what is pending, by the queue's size.
 *
 * Pushes collect in `pending`, in our memory. Once a turn they are written to the used ring in one
 * go: entries, then the index, then one look at what the driver wants to know, then at most one
 * interrupt. The full fences pair with those of the driver: we publish, then read its event; it
 * publishes its event, then reads our index. The same holds for kicks, the other way round: before
 * a pop reports "none" it asks for a kick, fences, and looks once more.
 *
 * While chains are being found no kick is asked for. With VIRTIO_F_EVENT_IDX that costs nothing:
 * avail_event simply stays behind. Without it VRING_USED_F_NO_NOTIFY is set and cleared.
 */
#include "devices/virtqueue.h"

#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define AVAIL_FLAGS          0
#define AVAIL_INDEX          2
#define AVAIL_RING           4
#define USED_FLAGS           0
#define USED_INDEX           2
#define USED_RING            4
#define USED_ENTRY           8
#define DESCRIPTOR           sizeof(struct vring_desc)
#define AVAIL_BYTES(size)    (AVAIL_RING + 2 * (uint64_t)(size) + 2)
#define USED_BYTES(size)     (USED_RING + USED_ENTRY * (uint64_t)(size) + 2)
#define AVAIL_USED_EVENT(vq) (AVAIL_RING + 2u * (vq)->layout.size)
#define USED_AVAIL_EVENT(vq) (USED_RING + USED_ENTRY * (vq)->layout.size)

/* x86-64 is little-endian as the rings are. */
static uint16_t load16(const uint8_t *ring, size_t offset)
{
    return __atomic_load_n((const uint16_t *)(const void *)(ring + offset), __ATOMIC_ACQUIRE);
}

/* Stores in the used ring and tells of it. */
static void store16_used(struct virtqueue *vq, size_t offset, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)(vq->used + offset), value, __ATOMIC_RELEASE);
    guest_mem_written(vq->mem, vq->layout.used_gpa + offset, sizeof(value));
}

static bool test_bit(const uint64_t *bits, unsigned at)
{
    return bits[at / 64] >> at % 64 & 1;
}

static void set_bit(uint64_t *bits, unsigned at)
{
    bits[at / 64] |= UINT64_C(1) << at % 64;
}

static void clear_bit(uint64_t *bits, unsigned at)
{
    bits[at / 64] &= ~(UINT64_C(1) << at % 64);
}

static void on_notify(struct loop_task *task)
{
    virtqueue_publish(container_of(task, struct virtqueue, notify));
}

void virtqueue_init(struct virtqueue *vq, struct loop *loop, const struct guest_mem *mem,
                    const struct virtqueue_ops *ops, unsigned index, uint16_t size_max)
{
    CHECK(is_power_of_2(size_max) && size_max <= VIRTQUEUE_SIZE_MAX);
    *vq = (struct virtqueue){
        .loop = loop, .mem = mem, .ops = ops, .index = index, .size_max = size_max};
    vq->layout.size = size_max;
    vq->pending = calloc(size_max, sizeof(*vq->pending));
    CHECK(vq->pending);
    loop_task_init(loop, &vq->notify, LOOP_STAGE_NOTIFY, on_notify);
}

void virtqueue_fini(struct virtqueue *vq)
{
    CHECK(vq->in_flight == 0);
    loop_task_cancel(&vq->notify);
    free(vq->pending);
    vq->pending = NULL;
}

/* Turns the latched addresses into pointers. False if they are not all RAM. */
static bool resolve(struct virtqueue *vq)
{
    const struct virtqueue_layout *layout = &vq->layout;
    vq->desc = guest_mem_span(vq->mem, layout->desc_gpa, DESCRIPTOR * layout->size);
    vq->avail = guest_mem_span(vq->mem, layout->avail_gpa, AVAIL_BYTES(layout->size));
    vq->used = guest_mem_span(vq->mem, layout->used_gpa, USED_BYTES(layout->size));
    return vq->desc && vq->avail && vq->used;
}

bool virtqueue_enable(struct virtqueue *vq, bool event_idx, bool indirect)
{
    const struct virtqueue_layout *layout = &vq->layout;
    loop_check_thread(vq->loop);
    CHECK(!vq->enabled && vq->in_flight == 0);
    if (!is_power_of_2(layout->size) || layout->size > vq->size_max ||
        !is_aligned(layout->desc_gpa, VRING_DESC_ALIGN_SIZE) ||
        !is_aligned(layout->avail_gpa, VRING_AVAIL_ALIGN_SIZE) ||
        !is_aligned(layout->used_gpa, VRING_USED_ALIGN_SIZE) || !resolve(vq))
        return false;
    vq->event_idx = event_idx;
    vq->indirect = indirect;
    /* The first pop that finds nothing writes what asks for kicks, whatever the ring holds now. */
    vq->kicks_on = false;
    vq->enabled = true;
    return true;
}

void virtqueue_reset(struct virtqueue *vq)
{
    CHECK(vq->in_flight == 0);
    loop_task_cancel(&vq->notify);
    vq->layout = (struct virtqueue_layout){.size = vq->size_max};
    vq->enabled = false;
    vq->broken = vq->starved = false;
    vq->avail_at = vq->avail_seen = vq->used_at = 0;
    vq->pending_count = 0;
    memset(vq->taken, 0, sizeof(vq->taken));
}

void virtqueue_restore(struct virtqueue *vq, uint16_t avail_at, uint16_t used_at)
{
    CHECK(vq->enabled && vq->in_flight == 0 && vq->pending_count == 0);
    vq->avail_at = vq->avail_seen = avail_at;
    vq->used_at = used_at;
}

void virtqueue_break(struct virtqueue *vq)
{
    vq->broken = true;
    vq->pending_count = 0;
    loop_task_cancel(&vq->notify);
}

static void give_up(struct virtqueue *vq, const char *why)
{
    virtqueue_break(vq);
    vq->ops->broken(vq, why);
}

static bool is_usable(const struct virtqueue *vq)
{
    return vq->enabled && !vq->broken && !vq->held;
}

void virtqueue_hold(struct virtqueue *vq, bool hold)
{
    vq->held = hold;
    if (!is_usable(vq))
        return;
    if (!resolve(vq)) {
        give_up(vq, "the rings are no longer in RAM");
        return;
    }
    if (vq->pending_count)
        loop_task_queue(&vq->notify);
}

/* Learns how far the driver has come. True if there is something to pop. */
static bool look(struct virtqueue *vq)
{
    uint16_t index = load16(vq->avail, AVAIL_INDEX);
    if ((uint16_t)(index - vq->avail_at) > vq->layout.size) {
        give_up(vq, "the available index is ahead by more than the queue's size");
        return false;
    }
    vq->avail_seen = index;
    return index != vq->avail_at;
}

static void ask_for_kicks(struct virtqueue *vq)
{
    if (vq->event_idx)
        store16_used(vq, USED_AVAIL_EVENT(vq), vq->avail_at);
    else
        store16_used(vq, USED_FLAGS, 0);
    vq->kicks_on = true;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void stop_kicks(struct virtqueue *vq)
{
    if (!vq->kicks_on)
        return;
    vq->kicks_on = false;
    if (!vq->event_idx)
        store16_used(vq, USED_FLAGS, VRING_USED_F_NO_NOTIFY);
}

/* True if there is a chain to pop; otherwise the driver will kick. */
static bool has_next(struct virtqueue *vq)
{
    if (vq->avail_at != vq->avail_seen || look(vq))
        return true;
    if (vq->broken)
        return false;
    vq->starved = true;
    if (vq->kicks_on || vq->polled)
        return false;
    ask_for_kicks(vq);
    return look(vq);
}

bool virtqueue_has_chain(struct virtqueue *vq)
{
    return is_usable(vq) && (vq->avail_at != vq->avail_seen || look(vq));
}

unsigned virtqueue_offered(struct virtqueue *vq)
{
    return is_usable(vq) && look(vq) ? (uint16_t)(vq->avail_seen - vq->avail_at) : 0;
}

void virtqueue_set_polled(struct virtqueue *vq, bool polled)
{
    vq->polled = polled;
    if (!polled && vq->starved && !vq->kicks_on && is_usable(vq))
        ask_for_kicks(vq);
}

bool virtqueue_is_due(struct virtqueue *vq)
{
    return vq->starved && virtqueue_has_chain(vq);
}

/* The barrier keeps the compiler from reading guest memory again behind our back. */
static struct vring_desc load_descriptor(const uint8_t *table, unsigned index)
{
    struct vring_desc copy;
    memcpy(&copy, table + DESCRIPTOR * index, sizeof(copy));
    __asm__ volatile("" ::: "memory");
    return copy;
}

/* NULL, or why the descriptor is refused. */
static const char *add_buffer(const struct virtqueue *vq, struct virtqueue_chain *chain,
                              const struct vring_desc *descriptor)
{
    bool is_in = descriptor->flags & VRING_DESC_F_WRITE;
    if (chain->in_count && !is_in)
        return "a readable buffer follows a writable one";
    if (chain->out_count + chain->in_count == chain->iov_max)
        return "a chain has more buffers than the device takes";
    if ((uint64_t)chain->out_bytes + chain->in_bytes + descriptor->len > UINT32_MAX)
        return "a chain is longer than 4 GiB";
    void *host = guest_mem_span(vq->mem, descriptor->addr, descriptor->len);
    if (!host)
        return descriptor->len ? "a buffer is not in RAM" : "a buffer has no length";
    chain->iov[chain->out_count + chain->in_count] = (struct iovec){host, descriptor->len};
    if (is_in) {
        chain->in_count++;
        chain->in_bytes += descriptor->len;
    } else {
        chain->out_count++;
        chain->out_bytes += descriptor->len;
    }
    return NULL;
}

struct descriptor_table {
    const uint8_t *host;
    unsigned count;
    bool is_indirect;
};

static const char *enter_indirect(const struct virtqueue *vq, struct descriptor_table *table,
                                  const struct vring_desc *descriptor)
{
    if (!vq->indirect)
        return "an indirect table without VIRTIO_F_INDIRECT_DESC";
    if (table->is_indirect)
        return "an indirect table inside an indirect table";
    if (descriptor->flags & VRING_DESC_F_NEXT)
        return "an indirect table with a successor";
    if (descriptor->len == 0 || descriptor->len % DESCRIPTOR ||
        descriptor->len / DESCRIPTOR > VIRTQUEUE_INDIRECT_MAX)
        return "an indirect table of an illegal length";
    table->host = guest_mem_span(vq->mem, descriptor->addr, descriptor->len);
    table->count = (unsigned)(descriptor->len / DESCRIPTOR);
    table->is_indirect = true;
    return table->host ? NULL : "an indirect table is not in RAM";
}

/* Walks the chain from `head` and fills in `chain`. NULL, or why it is refused. */
static const char *gather(const struct virtqueue *vq, struct virtqueue_chain *chain, unsigned head)
{
    struct descriptor_table table = {vq->desc, vq->layout.size, false};
    unsigned index = head, hops = 0;
    for (;;) {
        if (index >= table.count)
            return "a descriptor index beyond its table";
        if (hops++ == table.count)
            return "a descriptor loop";
        struct vring_desc descriptor = load_descriptor(table.host, index);
        const char *why;
        if (descriptor.flags & VRING_DESC_F_INDIRECT) {
            if ((why = enter_indirect(vq, &table, &descriptor)))
                return why;
            index = hops = 0;
            continue;
        }
        if ((why = add_buffer(vq, chain, &descriptor)))
            return why;
        if (!(descriptor.flags & VRING_DESC_F_NEXT))
            return NULL;
        index = descriptor.next;
    }
}

bool virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
    loop_check_thread(vq->loop);
    if (!is_usable(vq) || !has_next(vq))
        return false;
    vq->starved = false;
    stop_kicks(vq);
    unsigned at = vq->avail_at & (vq->layout.size - 1u);
    uint16_t head = load16(vq->avail, AVAIL_RING + 2 * at);
    chain->out_count = chain->in_count = 0;
    chain->out_bytes = chain->in_bytes = 0;
    chain->head = head;
    const char *why = head >= vq->layout.size     ? "a head beyond the queue's size"
                      : test_bit(vq->taken, head) ? "a head that is still in flight"
                                                  : gather(vq, chain, head);
    if (why) {
        give_up(vq, why);
        return false;
    }
    set_bit(vq->taken, head);
    set_bit(vq->popped, head);
    vq->in_flight++;
    vq->avail_at++;
    vq->stats.chains++;
    return true;
}

/* The chain is the device's no longer. */
static void come_back(struct virtqueue *vq, const struct virtqueue_chain *chain)
{
    loop_check_thread(vq->loop);
    CHECK(chain->head < VIRTQUEUE_SIZE_MAX && test_bit(vq->popped, chain->head));
    clear_bit(vq->popped, chain->head);
    CHECK(vq->in_flight > 0);
    vq->in_flight--;
}

void virtqueue_unpop(struct virtqueue *vq, const struct virtqueue_chain *chain)
{
    come_back(vq, chain);
    clear_bit(vq->taken, chain->head);
    vq->avail_at--;
    vq->stats.chains--;
    if (vq->in_flight == 0)
        vq->ops->idle(vq);
}

void virtqueue_written(const struct virtqueue *vq, const struct iovec *iov, size_t iov_count,
                       size_t bytes)
{
    for (size_t i = 0; i < iov_count && bytes; i++) {
        size_t piece = MIN(bytes, iov[i].iov_len);
        guest_mem_written_host(vq->mem, iov[i].iov_base, piece);
        bytes -= piece;
    }
}

void virtqueue_push(struct virtqueue *vq, const struct virtqueue_chain *chain,
                    uint32_t written_bytes)
{
    CHECK(written_bytes <= chain->in_bytes);
    come_back(vq, chain);
    virtqueue_written(vq, virtqueue_chain_in(chain), chain->in_count, written_bytes);
    if (vq->enabled && !vq->broken) {
        CHECK(vq->pending_count < vq->layout.size);
        vq->pending[vq->pending_count++] = (struct virtqueue_used){chain->head, written_bytes};
        loop_task_queue(&vq->notify);
    }
    if (vq->in_flight == 0)
        vq->ops->idle(vq);
}

/* Writes pending[first ... first + count) to used entries that lie in a row from `at`. */
static void write_used(struct virtqueue *vq, unsigned first, unsigned count, unsigned at)
{
    size_t offset = USED_RING + USED_ENTRY * at;
    for (unsigned i = 0; i < count; i++) {
        const struct virtqueue_used *used = &vq->pending[first + i];
        store_le32(vq->used + offset + USED_ENTRY * i, used->id);
        store_le32(vq->used + offset + USED_ENTRY * i + 4, used->length);
        clear_bit(vq->taken, used->id);
    }
    if (count)
        guest_mem_written(vq->mem, vq->layout.used_gpa + offset, USED_ENTRY * count);
}

/* Does the driver want to hear of the entries from `old` to used_at? */
static bool wants_interrupt(const struct virtqueue *vq, uint16_t old)
{
    if (!vq->event_idx)
        return !(load16(vq->avail, AVAIL_FLAGS) & VRING_AVAIL_F_NO_INTERRUPT);
    return vring_need_event(load16(vq->avail, AVAIL_USED_EVENT(vq)), vq->used_at, old);
}

void virtqueue_publish(struct virtqueue *vq)
{
    loop_check_thread(vq->loop);
    loop_task_cancel(&vq->notify);
    if (!vq->pending_count || !is_usable(vq))
        return;
    uint16_t old = vq->used_at;
    unsigned at = old & (vq->layout.size - 1u);
    unsigned before_wrap = MIN(vq->pending_count, vq->layout.size - at);
    write_used(vq, 0, before_wrap, at);
    write_used(vq, before_wrap, vq->pending_count - before_wrap, 0);
    vq->used_at = (uint16_t)(vq->used_at + vq->pending_count);
    vq->pending_count = 0;
    store16_used(vq, USED_INDEX, vq->used_at);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!wants_interrupt(vq, old)) {
        vq->stats.suppressed++;
        return;
    }
    vq->stats.interrupts++;
    vq->ops->interrupt(vq);
}
