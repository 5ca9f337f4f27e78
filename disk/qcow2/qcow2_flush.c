/* SPDX-License-Identifier: MIT */
/*
 * qcow2_flush: the writeback machine, the only writer of metadata.
 *
 * Theory of operation. A cycle copies what is dirty at its start, and writes the copies in three
 * steps with a barrier after each, children before pointers:
 *
 *   ZERO   new tables whose clusters held something before (no barrier: the same step in two parts)
 *   FRESH  tables that nothing points to yet: new refcount blocks, a moved refcount table. Its
 *          barrier is needed only if there are any.
 *   LOWER  refcounts, the refcount table (or the header's pointer to a moved one), slices of new L2
 *          tables, a moved L1 table. The barrier covers guest data as well.
 *   UPPER  slices of L2 tables that are in use, L1 entries, the header's pointer to a moved L1.
 *
 * So an entry reaches the file after its data, its refcount and its table are on the medium; what
 * is unmapped is counted down only in a later cycle. Whatever changes in memory meanwhile is dirty
 * again and belongs to the next cycle. A write that fails leaves everything dirty, to be tried
 * again; a barrier that fails may have lost data that the host will never report again, so the
 * image is poisoned: nothing is written any more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "disk/qcow2/qcow2.h"
#include "disk/qcow2/qcow2_rule.h"

#define ARENA_KEPT_BYTES (1024 * 1024u)

static void step(struct qcow2 *q);

bool qcow2_flush_is_clean(const struct qcow2 *q)
{
    return q->flush.state == QCOW2_FLUSH_IDLE && !q->cache.dirty_count && !q->l1.any_dirty &&
           !q->reftable.any_dirty && !q->header_lower && !q->header_upper && !q->freed.count &&
           !q->in_cycle.count;
}

void qcow2_flush_want(struct qcow2 *q)
{
    q->flush.wanted = true;
    if (q->flush.state == QCOW2_FLUSH_IDLE)
        loop_task_queue(&q->flush.start);
}

void qcow2_flush_request(struct qcow2 *q, struct disk_request *request)
{
    list_push_back(&q->flush.waiting, &request->node);
    qcow2_flush_want(q);
}

void qcow2_flush_wait(struct qcow2 *q, struct qcow2_waiter *waiter)
{
    qcow2_wait(&q->flush.callbacks, waiter);
    qcow2_flush_want(q);
}

static void tell(struct qcow2 *q, int result)
{
    struct list served;
    list_init(&served);
    list_splice_back(&served, &q->flush.served);
    qcow2_wake_all(&q->flush.called, result);
    for (struct list *node; (node = list_pop_front(&served));)
        node_complete(list_entry(node, struct disk_request, node), result);
}

/* The arena is sized before, so this cannot fail. */
static uint8_t *arena_take(struct qcow2_flush *flush, size_t bytes)
{
    uint8_t *at = flush->arena + flush->arena_used;
    flush->arena_used += align_up(bytes, 512);
    CHECK(flush->arena_used <= flush->arena_bytes);
    return at;
}

static void add_chunk(struct qcow2_chunks *chunks, uint64_t host_offset, uint64_t bytes,
                      uint8_t *data)
{
    struct qcow2_chunk *last = chunks->count ? &chunks->items[chunks->count - 1] : NULL;
    /* Copies follow each other in the arena, so neighbours in the file become one write. */
    if (last && last->data && data && last->host_offset + last->bytes == host_offset &&
        last->data + last->bytes == data) {
        last->bytes += bytes;
        return;
    }
    chunks->items[chunks->count++] = (struct qcow2_chunk){host_offset, bytes, data};
}

static struct qcow2_chunks *chunks_of(struct qcow2 *q, const struct qcow2_slice *slice)
{
    bool is_l2 = slice->kind == QCOW2_L2;
    uint64_t entry = (is_l2 ? &q->l1 : &q->reftable)->entries[slice->table];
    bool is_new = entry & QCOW2_UNLINKED;
    if (is_l2)
        return is_new ? &q->flush.lower : &q->flush.upper;
    return is_new && qcow2_rule(NEW_BLOCK_FIRST) ? &q->flush.fresh : &q->flush.lower;
}

static int by_host_offset(const void *a, const void *b)
{
    const struct qcow2_slice *left = *(struct qcow2_slice *const *)a;
    const struct qcow2_slice *right = *(struct qcow2_slice *const *)b;
    return (left->host_offset > right->host_offset) - (left->host_offset < right->host_offset);
}

static void snapshot_slices(struct qcow2 *q)
{
    struct qcow2_flush *flush = &q->flush;
    flush->slice_count = 0;
    for (struct list *node; (node = list_pop_front(&q->cache.dirty));)
        flush->slices[flush->slice_count++] = list_entry(node, struct qcow2_slice, node);
    qsort(flush->slices, flush->slice_count, sizeof(flush->slices[0]), by_host_offset);
    for (size_t i = 0; i < flush->slice_count; i++) {
        struct qcow2_slice *slice = flush->slices[i];
        uint8_t *copy = arena_take(flush, qcow2_slice_bytes(q));
        memcpy(copy, slice->data, qcow2_slice_bytes(q));
        slice->dirty = false;
        slice->writing = true;
        add_chunk(chunks_of(q, slice), slice->host_offset, qcow2_slice_bytes(q), copy);
    }
    q->cache.dirty_count = 0;
}

static uint8_t *copy_entries(struct qcow2 *q, const struct qcow2_top *top, uint64_t first,
                             uint64_t count)
{
    uint8_t *copy = arena_take(&q->flush, count * 8);
    for (uint64_t i = 0; i < count; i++)
        store_be64(copy + i * 8, top->entries[first + i] & ~QCOW2_FLAGS);
    return copy;
}

static void snapshot_top(struct qcow2 *q, struct qcow2_top *top, struct qcow2_chunks *chunks)
{
    uint64_t sectors = (top->count + 63u) / 64;
    for (uint64_t i = 0; top->any_dirty && i < sectors; i++) {
        uint64_t first = i * 64, count = MIN(64, top->count - first);
        bool is_dirty = top->dirty[i / 64] >> (i % 64) & 1;
        if (is_dirty || top->moved)
            add_chunk(chunks, top->offset + first * 8, count * 8,
                      copy_entries(q, top, first, count));
        top->dirty[i / 64] &= ~(UINT64_C(1) << (i % 64));
    }
    top->any_dirty = false;
    top->moved = false;
}

static void store_reftable(struct qcow2 *q, uint8_t *sector)
{
    store_be64(sector + QCOW2_OFF_REFTABLE_OFFSET, q->reftable.offset);
    store_be32(sector + QCOW2_OFF_REFTABLE_CLUSTERS,
               (uint32_t)((uint64_t)q->reftable.count * 8 >> q->cluster_bits));
}

static void store_upper(struct qcow2 *q, uint8_t *sector)
{
    store_be64(sector + QCOW2_OFF_L1_OFFSET, q->l1.offset);
    store_be32(sector + QCOW2_OFF_L1_SIZE, q->l1.count);
    store_be64(sector + QCOW2_OFF_SIZE, q->header.size_bytes);
}

static void snapshot_header(struct qcow2 *q)
{
    struct qcow2_flush *flush = &q->flush;
    memcpy(flush->header_lower, q->header_sector, sizeof(flush->header_lower));
    store_reftable(q, flush->header_lower);
    memcpy(flush->header_upper, flush->header_lower, sizeof(flush->header_upper));
    store_upper(q, flush->header_upper);
    if (flush->writes_lower)
        add_chunk(&flush->lower, 0, sizeof(flush->header_lower), flush->header_lower);
    if (flush->writes_upper)
        add_chunk(&flush->upper, 0, sizeof(flush->header_upper), flush->header_upper);
}

static bool is_written(const struct qcow2_flush *flush, enum qcow2_kind kind, uint32_t index)
{
    for (size_t i = 0; i < flush->slice_count; i++)
        if (flush->slices[i]->kind == kind && flush->slices[i]->table == index)
            return true;
    return false;
}

/* A table that is still empty reads as zeroes past the end of the file, but a check takes what
 * points there for a corruption: the file gets its first sector. */
static void extend_to(struct qcow2 *q, uint64_t host_offset)
{
    uint8_t *zeroes = arena_take(&q->flush, 512);
    memset(zeroes, 0, 512);
    add_chunk(&q->flush.fresh, host_offset, 512, zeroes);
}

static void snapshot_new_tables(struct qcow2 *q)
{
    struct qcow2_flush *flush = &q->flush;
    flush->new_tables = q->new_table_count;
    for (size_t i = 0; i < q->new_table_count; i++) {
        const struct qcow2_new_table *new = &q->new_tables[i];
        uint64_t entry = (new->kind == QCOW2_L2 ? &q->l1 : &q->reftable)->entries[new->index];
        if (new->is_linked)
            continue;
        if (new->kind == QCOW2_REFBLOCK)
            flush->fresh_needs_sync = true;
        if (new->needs_zeroes && qcow2_rule(TABLE_ZEROED))
            add_chunk(&flush->zero, entry & QCOW2_ENTRY_OFFSET_MASK, q->cluster_bytes, NULL);
        else if (entry & QCOW2_BLANK && !is_written(flush, new->kind, new->index))
            extend_to(q, entry & QCOW2_ENTRY_OFFSET_MASK);
    }
}

static void *arena_grow(void *memory, size_t *room, size_t wanted)
{
    if (*room >= wanted)
        return memory;
    free(memory);
    *room = 0;
    if (posix_memalign(&memory, 4096, wanted))
        return NULL;
    *room = wanted;
    return memory;
}

/* Memory for all that a cycle can need, found before anything is taken off the books. */
static int make_room(struct qcow2 *q)
{
    struct qcow2_flush *flush = &q->flush;
    size_t slices = q->cache.dirty_count, sectors = 0;
    if (q->l1.any_dirty)
        sectors += (q->l1.count + 63u) / 64;
    if (q->reftable.any_dirty)
        sectors += (q->reftable.count + 63u) / 64;
    size_t chunks = slices + sectors + q->new_table_count + 2,
           lists = 3 * chunks + q->new_table_count;
    size_t lists_bytes = slices * sizeof(flush->slices[0]) + lists * sizeof(struct qcow2_chunk);
    size_t data_bytes =
        slices * align_up(qcow2_slice_bytes(q), 512) + (sectors + q->new_table_count) * 512;
    flush->arena = arena_grow(flush->arena, &flush->arena_bytes,
                              align_up(data_bytes, 512) + align_up(lists_bytes, 512) + 5 * 512);
    flush->arena_used = 0;
    if (!flush->arena || qcow2_extents_reserve(&q->in_cycle, q->freed.count))
        return -ENOMEM;
    struct qcow2_chunks *all[] = {&flush->fresh, &flush->lower, &flush->upper};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        *all[i] = (struct qcow2_chunks){
            (void *)arena_take(flush, chunks * sizeof(struct qcow2_chunk)), 0};
    flush->zero = (struct qcow2_chunks){
        (void *)arena_take(flush, (q->new_table_count + 1) * sizeof(struct qcow2_chunk)), 0};
    flush->slices = (void *)arena_take(flush, slices * sizeof(flush->slices[0]) + 1);
    return 0;
}

static int snapshot(struct qcow2 *q)
{
    struct qcow2_flush *flush = &q->flush;
    int result = make_room(q);
    if (result)
        return result;
    flush->moved_reftable = q->reftable.moved;
    flush->moved_l1 = q->l1.moved;
    flush->writes_lower = q->header_lower || q->reftable.moved;
    flush->writes_upper = q->header_upper || q->l1.moved;
    flush->fresh_needs_sync = q->reftable.moved;
    snapshot_slices(q);
    snapshot_new_tables(q);
    snapshot_header(q);
    bool reftable_first = flush->moved_reftable && qcow2_rule(MOVED_REFTABLE_FIRST);
    bool l1_first = flush->moved_l1 && qcow2_rule(MOVED_L1_FIRST);
    snapshot_top(q, &q->reftable, reftable_first ? &flush->fresh : &flush->lower);
    snapshot_top(q, &q->l1, l1_first ? &flush->lower : &flush->upper);
    q->header_lower = q->header_upper = false;
    flush->unsynced |= flush->zero.count || flush->fresh.count;
    result = qcow2_extents_move(&q->in_cycle, &q->freed);
    if (!qcow2_rule(QUARANTINE)) {
        unused_result(qcow2_extents_move(&q->durable, &q->in_cycle));
        qcow2_release_step(q);
    }
    return result;
}

static void on_written(struct io_request *io, int result)
{
    struct qcow2_write *write = container_of(io, struct qcow2_write, io);
    struct qcow2 *q = write->q;
    write->busy = false;
    q->flush.writes_left--;
    if (result && !q->flush.result)
        q->flush.result = result;
    step(q);
}

static void start_write(struct qcow2 *q, struct qcow2_write *write, const struct qcow2_chunk *chunk)
{
    write->q = q;
    write->busy = true;
    write->iov = (struct iovec){chunk->data, chunk->bytes};
    write->io = (struct io_request){
        .kind = chunk->data ? IO_WRITE : IO_ZERO,
        .offset = chunk->host_offset,
        .bytes = chunk->bytes,
        .iov = &write->iov,
        .iov_count = chunk->data ? 1 : 0,
        .on_done = on_written,
    };
    q->flush.writes_left++;
    io_submit(q->node.file, &write->io);
}

/* Keeps as many writes going as there are places for. True when all chunks are written. */
static bool write_chunks(struct qcow2 *q, const struct qcow2_chunks *chunks)
{
    struct qcow2_flush *flush = &q->flush;
    for (size_t i = 0; i < QCOW2_WRITES && flush->next_chunk < chunks->count; i++)
        if (!flush->writes[i].busy && !flush->result)
            start_write(q, &flush->writes[i], &chunks->items[flush->next_chunk++]);
    return !flush->writes_left && (flush->result || flush->next_chunk == chunks->count);
}

static void poison(struct qcow2 *q, int result)
{
    if (q->poisoned || !qcow2_rule(POISON))
        return;
    q->poisoned = -EIO;
    log_error("%s: the host could not bring data to the medium (%s); nothing more is written to "
              "this image: check the host's disk, then run evisor-img check",
              q->node.path, strerror(-result));
}

/*
 * The tables of a kind are on the medium, with all that this cycle had for them. What comes next
 * may make the file point to them, even if the cycle fails then: they are in use from here on.
 */
static void link_tables(struct qcow2 *q, enum qcow2_kind kind)
{
    struct qcow2_top *top = kind == QCOW2_L2 ? &q->l1 : &q->reftable;
    for (size_t i = 0; i < q->flush.new_tables; i++) {
        struct qcow2_new_table *new = &q->new_tables[i];
        if (new->kind != kind)
            continue;
        new->is_linked = true;
        top->entries[new->index] &= ~(QCOW2_UNLINKED | QCOW2_BLANK);
    }
    if (kind == QCOW2_L2)
        q->flush.moved_l1 = false;
    else
        q->flush.moved_reftable = false;
}

static void forget_new_tables(struct qcow2 *q)
{
    size_t kept = 0;
    for (size_t i = 0; i < q->new_table_count; i++)
        if (!q->new_tables[i].is_linked)
            q->new_tables[kept++] = q->new_tables[i];
    q->new_table_count = kept;
}

static void barrier_ended(struct qcow2 *q, int result)
{
    if (result) {
        q->flush.result = -EIO;
        poison(q, result);
    }
    if (--q->flush.syncs_left)
        return;
    if (!q->flush.result && q->flush.state == QCOW2_FLUSH_FRESH_SYNC)
        link_tables(q, QCOW2_REFBLOCK);
    if (!q->flush.result && q->flush.state == QCOW2_FLUSH_LOWER_SYNC)
        link_tables(q, QCOW2_L2);
    q->flush.state++;
    q->flush.next_chunk = 0;
    step(q);
}

static void on_synced(struct io_request *io, int result)
{
    barrier_ended(container_of(io, struct qcow2, flush.sync), result);
}

static void on_data_synced(struct io_request *io, int result)
{
    barrier_ended(container_of(io, struct qcow2, flush.data_sync), result);
}

/* An external data file is covered by the barrier of LOWER, beside the image's own. */
static void start_sync(struct qcow2 *q, enum qcow2_flush_state state)
{
    struct qcow2_flush *flush = &q->flush;
    bool with_data = flush->data_unsynced && state == QCOW2_FLUSH_LOWER_SYNC;
    bool with_image = !with_data || flush->unsynced || flush->lower.count;
    flush->state = state;
    flush->syncs_left = (unsigned)with_data + (unsigned)with_image;
    if (with_image) {
        flush->unsynced = false;
        flush->sync = (struct io_request){.kind = IO_SYNC, .on_done = on_synced};
        io_submit(q->node.file, &flush->sync);
    }
    if (with_data) {
        flush->data_unsynced = false;
        flush->data_sync = (struct io_request){.kind = IO_SYNC, .on_done = on_data_synced};
        io_submit(q->node.data_file, &flush->data_sync);
    }
}

static void mark_all_dirty(struct qcow2_top *top, bool moved)
{
    for (uint64_t i = 0; i < top->count; i += 64)
        qcow2_top_dirty(top, (uint32_t)i);
    top->moved |= moved;
}

static void undo(struct qcow2 *q)
{
    mark_all_dirty(&q->l1, q->flush.moved_l1);
    mark_all_dirty(&q->reftable, q->flush.moved_reftable);
    q->header_lower |= q->flush.writes_lower;
    q->header_upper |= q->flush.writes_upper;
    q->flush.unsynced = true;
}

static void end_cycle(struct qcow2 *q, int result)
{
    struct qcow2_flush *flush = &q->flush;
    flush->state = QCOW2_FLUSH_IDLE;
    for (size_t i = 0; i < flush->slice_count; i++)
        qcow2_table_written(q, flush->slices[i], result);
    flush->slice_count = 0;
    forget_new_tables(q);
    if (result && qcow2_rule(UNDO)) {
        undo(q);
    } else {
        memcpy(q->header_sector, flush->header_upper, sizeof(q->header_sector));
        /* Without memory they stay for the end of the next cycle; whoever closes does not wait for
         * that: they are leaked, which a check gives back. */
        if (qcow2_extents_move(&q->durable, &q->in_cycle) && q->settle.wanted)
            q->in_cycle.count = 0;
    }
    if (flush->arena_bytes > ARENA_KEPT_BYTES) {
        free(flush->arena);
        flush->arena = NULL;
        flush->arena_bytes = 0;
    }
    if (!list_is_empty(&flush->waiting) || !list_is_empty(&flush->callbacks) ||
        (flush->wanted && !result))
        loop_task_queue(&flush->start);
    qcow2_wake_all(&q->cache.waiters, result);
    qcow2_release_step(q);
    tell(q, result);
}

/* It covers guest data too, even where no metadata changed. */
static bool needs_lower_barrier(const struct qcow2_flush *flush)
{
    return (flush->unsynced || flush->data_unsynced || flush->lower.count) &&
           qcow2_rule(LOWER_BARRIER);
}

/* One step of the cycle after another, until one has to wait. */
static void step(struct qcow2 *q)
{
    struct qcow2_flush *flush = &q->flush;
    for (;;) {
        if (q->poisoned && !flush->result)
            flush->result = q->poisoned;
        if (flush->result && !flush->writes_left) {
            end_cycle(q, flush->result);
            return;
        }
        switch (flush->state) {
        case QCOW2_FLUSH_ZERO:
            if (!write_chunks(q, &flush->zero))
                return;
            flush->next_chunk = 0;
            flush->state = flush->result ? flush->state : QCOW2_FLUSH_FRESH;
            break;
        case QCOW2_FLUSH_FRESH:
            if (!write_chunks(q, &flush->fresh))
                return;
            if (!flush->result && flush->fresh_needs_sync && qcow2_rule(FRESH_BARRIER)) {
                start_sync(q, QCOW2_FLUSH_FRESH_SYNC);
                return;
            }
            flush->next_chunk = 0;
            flush->state = flush->result ? flush->state : QCOW2_FLUSH_LOWER;
            break;
        case QCOW2_FLUSH_LOWER:
            if (!write_chunks(q, &flush->lower))
                return;
            if (!flush->result && needs_lower_barrier(flush)) {
                start_sync(q, QCOW2_FLUSH_LOWER_SYNC);
                return;
            }
            /* An earlier barrier has covered the new tables, if there are any. */
            if (!flush->result)
                link_tables(q, QCOW2_L2);
            flush->next_chunk = 0;
            flush->state = flush->result ? flush->state : QCOW2_FLUSH_UPPER;
            break;
        case QCOW2_FLUSH_UPPER:
            if (!write_chunks(q, &flush->upper))
                return;
            if (!flush->result && flush->upper.count && qcow2_rule(UPPER_BARRIER)) {
                start_sync(q, QCOW2_FLUSH_UPPER_SYNC);
                return;
            }
            if (flush->result)
                break;
            end_cycle(q, 0);
            return;
        case QCOW2_FLUSH_DONE:
            end_cycle(q, flush->result);
            return;
        case QCOW2_FLUSH_IDLE:
        case QCOW2_FLUSH_FRESH_SYNC:
        case QCOW2_FLUSH_LOWER_SYNC:
        case QCOW2_FLUSH_UPPER_SYNC:
            UNREACHABLE("a barrier's end moves on to the next state");
        }
    }
}

static bool is_nothing_to_do(const struct qcow2 *q)
{
    return !q->flush.unsynced && !q->flush.data_unsynced && qcow2_flush_is_clean(q);
}

static void on_start(struct loop_task *task)
{
    struct qcow2 *q = container_of(task, struct qcow2, flush.start);
    struct qcow2_flush *flush = &q->flush;
    if (flush->state != QCOW2_FLUSH_IDLE)
        return;
    flush->wanted = false;
    list_splice_back(&flush->served, &flush->waiting);
    list_splice_back(&flush->called, &flush->callbacks);
    int result = q->poisoned;
    if (!result && is_nothing_to_do(q)) {
        qcow2_wake_all(&q->cache.waiters, 0);
        tell(q, 0);
        return;
    }
    if (!result)
        result = snapshot(q);
    if (result) {
        qcow2_wake_all(&q->cache.waiters, result);
        tell(q, result);
        return;
    }
    flush->result = 0;
    flush->next_chunk = 0;
    flush->state = QCOW2_FLUSH_ZERO;
    step(q);
}

bool qcow2_flush_is_idle(const struct qcow2 *q)
{
    return q->flush.state == QCOW2_FLUSH_IDLE && !loop_task_is_queued(&q->flush.start);
}

void qcow2_flush_move(struct qcow2 *q, struct loop *loop)
{
    loop_task_init(loop, &q->flush.start, LOOP_STAGE_COMPLETE, on_start);
}

void qcow2_flush_init(struct qcow2 *q)
{
    list_init(&q->flush.waiting);
    list_init(&q->flush.served);
    list_init(&q->flush.callbacks);
    list_init(&q->flush.called);
    qcow2_flush_move(q, q->node.loop);
}

void qcow2_flush_fini(struct qcow2 *q)
{
    loop_task_cancel(&q->flush.start);
    free(q->flush.arena);
}
