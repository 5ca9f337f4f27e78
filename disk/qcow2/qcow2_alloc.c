/* SPDX-License-Identifier: MIT */
/*
 * qcow2_alloc: refcounts, and the clusters that they say are free.
 *
 * Theory of operation. The refcounts in memory are never below what the file's map needs: a cluster
 * is counted when it is reserved, and uncounted (qcow2_release.c) only when its unmapping is on the
 * medium. So whatever part of the dirty slices reaches the file before a crash, the worst is a
 * leak.
 *
 * Free clusters are looked for upwards from free_hint, one resident slice at a time; a missing
 * refcount block is made on the way, in the first cluster of the range that it counts, and counts
 * itself. A refcount table that is too short grows at the end of the file, together with the blocks
 * that count it (qcow2_alloc_region). New tables are empty in memory and need no load.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2.h"
#include "disk/qcow2/qcow2_refcount.h"

#define HOST_OFFSET_MAX (UINT64_C(1) << 55)

static uint64_t refcounts_per_slice(const struct qcow2 *q)
{
    return UINT64_C(1) << (q->slice_bits + 3 - q->refcount_order);
}

int qcow2_refcount_slice(struct qcow2 *q, uint64_t cluster, struct qcow2_waiter *waiter,
                         struct qcow2_slice **out)
{
    uint64_t block = cluster >> q->refblock_bits;
    *out = NULL;
    if (block >= q->reftable.count || !q->reftable.entries[block])
        return 0;
    uint64_t entry = q->reftable.entries[block];
    if (entry & QCOW2_BAD)
        return qcow2_corrupt(q, "refcount table entry %" PRIu64 " is invalid", block);
    uint64_t index = cluster & ((UINT64_C(1) << q->refblock_bits) - 1);
    return qcow2_table_get(q, QCOW2_REFBLOCK, (uint32_t)block, entry,
                           index << q->refcount_order >> 3, waiter, out);
}

uint64_t qcow2_refcount(const struct qcow2 *q, const struct qcow2_slice *slice, uint64_t cluster)
{
    return qcow2_refcount_get(slice->data, q->refcount_order,
                              cluster & (refcounts_per_slice(q) - 1));
}

void qcow2_refcount_change(struct qcow2 *q, struct qcow2_slice *slice, uint64_t cluster,
                           uint64_t value)
{
    qcow2_refcount_set(slice->data, q->refcount_order, cluster & (refcounts_per_slice(q) - 1),
                       value);
    qcow2_table_dirty(q, slice);
}

static bool in_table(const struct qcow2_top *top, uint64_t host_offset, uint64_t bytes)
{
    return top->count && ranges_overlap(host_offset, bytes, top->offset, (uint64_t)top->count * 8);
}

bool qcow2_overlaps_metadata(const struct qcow2 *q, uint64_t host_offset, uint64_t bytes)
{
    const struct qcow2_header *header = &q->header;
    if (q->overlap_check == DISK_OVERLAP_NONE)
        return false;
    if (host_offset < q->cluster_bytes || in_table(&q->l1, host_offset, bytes) ||
        in_table(&q->reftable, host_offset, bytes))
        return true;
    if (header->snapshot_count && ranges_overlap(host_offset, bytes, header->snapshots_offset, 1))
        return true;
    return q->overlap_check == DISK_OVERLAP_CACHED &&
           qcow2_table_is_cached(q, align_down(host_offset, q->cluster_bytes));
}

static void note_new_table(struct qcow2 *q, enum qcow2_kind kind, uint32_t index, bool fresh)
{
    CHECK(q->new_table_count < q->new_table_room);
    q->new_tables[q->new_table_count++] = (struct qcow2_new_table){
        .index = index,
        .kind = (uint8_t)kind,
        .needs_zeroes = !fresh,
    };
}

/* One more than asked for is kept for a copy on its way. */
static int reserve_new_tables(struct qcow2 *q, size_t more)
{
    if (q->new_table_room - q->new_table_count > more)
        return 0;
    size_t room = MAX(q->new_table_room * 2, q->new_table_count + more + 16);
    void *larger = realloc(q->new_tables, room * sizeof(q->new_tables[0]));
    if (!larger)
        return -ENOMEM;
    q->new_tables = larger;
    q->new_table_room = room;
    return 0;
}

static void note_use(struct qcow2 *q, uint64_t end_cluster)
{
    q->high_water = MAX(q->high_water, end_cluster);
}

static void link_block(struct qcow2 *q, uint64_t block, uint64_t cluster, bool fresh)
{
    q->reftable.entries[block] = cluster << q->cluster_bits | QCOW2_UNLINKED | QCOW2_BLANK;
    qcow2_top_dirty(&q->reftable, (uint32_t)block);
    note_new_table(q, QCOW2_REFBLOCK, (uint32_t)block, fresh);
    note_use(q, cluster + 1);
}

/* A block for a range that has none, in the first cluster of the range. */
static int make_block(struct qcow2 *q, uint64_t block, struct qcow2_waiter *waiter)
{
    uint64_t cluster = block << q->refblock_bits, offset = cluster << q->cluster_bits;
    struct qcow2_slice *slice;
    if (qcow2_overlaps_metadata(q, offset, q->cluster_bytes))
        return qcow2_corrupt(q, "the refcounts of the cluster at %" PRIu64 " are missing", offset);
    int result = reserve_new_tables(q, 1);
    if (!result)
        result = qcow2_table_get(q, QCOW2_REFBLOCK, (uint32_t)block, offset | QCOW2_BLANK, 0,
                                 waiter, &slice);
    if (result)
        return result;
    link_block(q, block, cluster, cluster >= q->high_water);
    qcow2_refcount_change(q, slice, cluster, 1);
    return 0;
}

/* Counts a run of free clusters of the slice of free_hint; 0 clusters if the slice has none. */
static int take_from_slice(struct qcow2 *q, struct qcow2_slice *slice, uint64_t wanted,
                           uint64_t *first, uint64_t *count)
{
    uint64_t end = align_down(q->free_hint, refcounts_per_slice(q)) + refcounts_per_slice(q);
    uint64_t at = q->free_hint;
    while (at < end && qcow2_refcount(q, slice, at))
        at++;
    uint64_t start = at;
    while (at < end && at - start < wanted && !qcow2_refcount(q, slice, at)) {
        if (qcow2_overlaps_metadata(q, at << q->cluster_bits, q->cluster_bytes))
            return qcow2_corrupt(q, "the cluster at %" PRIu64 " is in use but counted as free",
                                 at << q->cluster_bits);
        qcow2_refcount_change(q, slice, at++, 1);
    }
    q->free_hint = at;
    *first = start;
    *count = at - start;
    return 0;
}

int qcow2_alloc(struct qcow2 *q, uint64_t wanted, struct qcow2_waiter *waiter, uint64_t *first,
                uint64_t *count, bool *fresh)
{
    for (*count = 0; *count == 0;) {
        uint64_t block = q->free_hint >> q->refblock_bits;
        struct qcow2_slice *slice = NULL;
        int result = 0;
        if (q->free_hint >= HOST_OFFSET_MAX >> q->cluster_bits)
            return -EFBIG;
        if (block >= q->reftable.count) {
            uint64_t nothing;
            result = qcow2_alloc_region(q, 0, waiter, &nothing);
        } else if (!q->reftable.entries[block]) {
            result = make_block(q, block, waiter);
        } else {
            result = qcow2_refcount_slice(q, q->free_hint, waiter, &slice);
        }
        if (!result && slice)
            result = take_from_slice(q, slice, wanted, first, count);
        if (result)
            return result;
    }
    *fresh = *first >= q->high_water;
    note_use(q, *first + *count);
    return 0;
}

/* What a region at the end of the file consists of. */
struct region {
    uint64_t start;          /* cluster */
    uint64_t payload;        /* clusters asked for */
    uint64_t table_clusters; /* of a longer refcount table; 0 if it need not grow */
    uint64_t table_entries;
    uint64_t blocks; /* new refcount blocks, at the end of the region */
};

static uint64_t region_end(const struct region *region)
{
    return region->start + region->payload + region->table_clusters + region->blocks;
}

static bool has_block(const struct qcow2 *q, uint64_t block)
{
    return block < q->reftable.count && q->reftable.entries[block];
}

/* Its size depends on the blocks, and their number on its size: grows until it holds itself. */
static int plan_region(const struct qcow2 *q, uint64_t payload, struct region *region)
{
    *region = (struct region){.payload = payload};
    region->start = MAX(q->high_water, q->free_hint);
    for (;;) {
        uint64_t last_block =
            (region_end(region) - (region_end(region) > region->start)) >> q->refblock_bits;
        uint64_t blocks = 0, entries = last_block + 1;
        for (uint64_t b = region->start >> q->refblock_bits; b <= last_block; b++)
            blocks += !has_block(q, b);
        if (entries > q->reftable.count && entries + entries / 2 > region->table_entries) {
            uint64_t per_cluster = q->cluster_bytes / 8;
            region->table_clusters = (entries + entries / 2 + per_cluster) / per_cluster;
            region->table_entries = region->table_clusters * per_cluster;
            continue;
        }
        if (region_end(region) > HOST_OFFSET_MAX >> q->cluster_bits ||
            region->table_entries * 8 > QCOW2_REFTABLE_BYTES_MAX)
            return -EFBIG;
        if (blocks == region->blocks)
            return 0;
        region->blocks = blocks;
    }
}

static int grow_reftable(struct qcow2 *q, const struct region *region)
{
    uint64_t words = (region->table_entries / 64 + 63) / 64 + 1;
    uint64_t *entries = calloc(region->table_entries, sizeof(entries[0]));
    uint64_t *dirty = calloc(words, sizeof(dirty[0]));
    if (!entries || !dirty || qcow2_free_reserve(q, 1)) {
        free(entries);
        free(dirty);
        return -ENOMEM;
    }
    memcpy(entries, q->reftable.entries, q->reftable.count * sizeof(entries[0]));
    uint64_t old_bytes = (uint64_t)q->reftable.count * 8;
    qcow2_free(q, q->reftable.offset >> q->cluster_bits,
               align_up(old_bytes, q->cluster_bytes) >> q->cluster_bits, false);
    qcow2_free_unreserve(q, 1);
    free(q->reftable.entries);
    free(q->reftable.dirty);
    q->reftable = (struct qcow2_top){
        .entries = entries,
        .dirty = dirty,
        .count = (uint32_t)region->table_entries,
        .offset = (region->start + region->payload) << q->cluster_bits,
        .any_dirty = true,
        .moved = true,
    };
    return 0;
}

/* Loads what exists of the refcounts of a region. */
static int load_region(struct qcow2 *q, const struct region *region, struct qcow2_waiter *waiter)
{
    struct qcow2_slice *slice;
    uint64_t step = refcounts_per_slice(q);
    uint64_t slices = (region_end(region) - region->start) / step + 2 + region->blocks;
    if (slices > q->cache.capacity / 2)
        return -EFBIG;
    int result = qcow2_table_room(q, (uint32_t)slices, waiter);
    for (uint64_t c = align_down(region->start, step); !result && c < region_end(region); c += step)
        result = qcow2_refcount_slice(q, c, waiter, &slice);
    return result;
}

int qcow2_alloc_region(struct qcow2 *q, uint64_t count, struct qcow2_waiter *waiter,
                       uint64_t *first)
{
    struct region region;
    struct qcow2_slice *slice;
    int result = plan_region(q, count, &region);
    if (!result)
        result = load_region(q, &region, waiter);
    if (!result)
        result = reserve_new_tables(q, region.blocks);
    if (!result && region.table_clusters)
        result = grow_reftable(q, &region);
    if (result)
        return result;
    uint64_t block_cluster = region_end(&region) - region.blocks;
    uint64_t last_block =
        (region_end(&region) - (region_end(&region) > region.start)) >> q->refblock_bits;
    for (uint64_t b = region.start >> q->refblock_bits; b <= last_block; b++)
        if (!has_block(q, b))
            link_block(q, b, block_cluster++, true);
    for (uint64_t c = region.start; !result && c < region_end(&region); c++) {
        result = qcow2_refcount_slice(q, c, waiter, &slice);
        if (!result)
            qcow2_refcount_change(q, slice, c, 1);
    }
    note_use(q, region_end(&region));
    *first = region.start;
    return result;
}

int qcow2_free_reserve(struct qcow2 *q, size_t count)
{
    int result = qcow2_extents_reserve(&q->freed, q->free_reserved + count);
    if (!result)
        q->free_reserved += count;
    return result;
}

void qcow2_free_unreserve(struct qcow2 *q, size_t count)
{
    CHECK(q->free_reserved >= count);
    q->free_reserved -= count;
}

static void add_freed(struct qcow2 *q, uint64_t first_cluster, uint64_t count, bool is_table,
                      bool punch)
{
    struct qcow2_extents *freed = &q->freed;
    struct qcow2_extent *last = freed->count ? &freed->items[freed->count - 1] : NULL;
    if (last && last->first + last->count == first_cluster && last->is_table == is_table &&
        last->punch == punch) {
        last->count += count;
        return;
    }
    CHECK(freed->count < freed->room);
    freed->items[freed->count++] = (struct qcow2_extent){first_cluster, count, is_table, punch};
}

void qcow2_free(struct qcow2 *q, uint64_t first_cluster, uint64_t count, bool is_table)
{
    add_freed(q, first_cluster, count, is_table, q->node.unmap && q->discard_other);
}

void qcow2_free_requested(struct qcow2 *q, uint64_t first_cluster, uint64_t count)
{
    bool punch = q->node.unmap && !q->keep_requested;
    add_freed(q, first_cluster, count, false, punch);
    if (punch)
        qcow2_idle_freed(q);
}

/* Copying a shared table: read it whole, write it to its new cluster, point to that. */
static void copy_ended(struct qcow2 *q, int result)
{
    struct qcow2_table_copy *copy = &q->copy;
    free(copy->buffer);
    copy->buffer = NULL;
    copy->running = false;
    if (result) {
        qcow2_free(q, copy->to >> q->cluster_bits, 1, false);
    } else {
        qcow2_free(q, copy->from >> q->cluster_bits, 1, true);
        q->l1.entries[copy->index] = copy->to | QCOW2_ENTRY_COPIED | QCOW2_UNLINKED;
        qcow2_top_dirty(&q->l1, copy->index);
        note_new_table(q, QCOW2_L2, copy->index, true);
    }
    qcow2_free_unreserve(q, 1);
    qcow2_wake_all(&copy->waiters, result);
}

static void on_copy_written(struct io_request *io, int result)
{
    struct qcow2 *q = container_of(io, struct qcow2, copy.io);
    q->flush.unsynced = true;
    copy_ended(q, result);
}

static void on_copy_read(struct io_request *io, int result)
{
    struct qcow2 *q = container_of(io, struct qcow2, copy.io);
    if (result) {
        copy_ended(q, result);
        return;
    }
    q->copy.io.kind = IO_WRITE;
    q->copy.io.offset = q->copy.to;
    q->copy.io.on_done = on_copy_written;
    io_submit(q->node.file, &q->copy.io);
}

static int start_copy(struct qcow2 *q, uint32_t index, uint64_t to)
{
    struct qcow2_table_copy *copy = &q->copy;
    void *buffer;
    if (posix_memalign(&buffer, 4096, q->cluster_bytes))
        return -ENOMEM;
    copy->buffer = buffer;
    copy->running = true;
    copy->index = index;
    copy->from = q->l1.entries[index] & QCOW2_ENTRY_OFFSET_MASK;
    copy->to = to;
    copy->iov = (struct iovec){buffer, q->cluster_bytes};
    copy->io = (struct io_request){
        .kind = IO_READ,
        .offset = copy->from,
        .bytes = q->cluster_bytes,
        .iov = &copy->iov,
        .iov_count = 1,
        .on_done = on_copy_read,
    };
    io_submit(q->node.file, &copy->io);
    return 0;
}

int qcow2_table_own(struct qcow2 *q, uint32_t index, struct qcow2_waiter *waiter)
{
    uint64_t entry = q->l1.entries[index], first, count;
    bool fresh;
    if (entry & QCOW2_BAD)
        return qcow2_corrupt(q, "L1 entry %" PRIu32 " is invalid", index);
    if (entry & QCOW2_ENTRY_COPIED)
        return 0;
    if (entry && q->copy.running) {
        qcow2_wait(&q->copy.waiters, waiter);
        return -EINPROGRESS;
    }
    int result = qcow2_free_reserve(q, 1);
    if (result)
        return result;
    result = reserve_new_tables(q, 1);
    if (!result)
        result = qcow2_alloc(q, 1, waiter, &first, &count, &fresh);
    /* Allocating may have used what was reserved for blocks of its own. */
    if (!result)
        result = reserve_new_tables(q, 1);
    if (result || !entry)
        qcow2_free_unreserve(q, 1);
    if (result)
        return result;
    if (!entry) {
        q->l1.entries[index] =
            first << q->cluster_bits | QCOW2_ENTRY_COPIED | QCOW2_UNLINKED | QCOW2_BLANK;
        qcow2_top_dirty(&q->l1, index);
        note_new_table(q, QCOW2_L2, index, fresh);
        return 0;
    }
    result = start_copy(q, index, first << q->cluster_bits);
    if (result) {
        qcow2_free(q, first, 1, false);
        qcow2_free_unreserve(q, 1);
        return result;
    }
    qcow2_wait(&q->copy.waiters, waiter);
    return -EINPROGRESS;
}
