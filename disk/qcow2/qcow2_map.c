/* SPDX-License-Identifier: MIT */
/*
 * qcow2_map: what L2 entries mean, and how they change.
 *
 * Planning changes nothing: it looks at resident slices and says what the start of a range is, as
 * far as it is the same. Without extended L2 a cluster has one subcluster, itself; all code here
 * thinks in subclusters. Entries come from a hostile file, so each is checked where it is used.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2.h"

#define ALL_ZERO (UINT64_C(0xffffffff) << 32)

enum sub_type {
    SUB_UNALLOCATED,
    SUB_ZERO,
    SUB_DATA,
    SUB_PACKED,
    SUB_INVALID,
};

/* A guest offset within a resident slice. */
struct place {
    struct qcow2_slice *slice;
    unsigned index;   /* of its cluster in the slice */
    unsigned entries; /* in the slice */
};

static uint32_t l1_index_of(const struct qcow2 *q, uint64_t offset)
{
    return (uint32_t)(offset >> (q->cluster_bits + q->l2_bits));
}

static uint64_t entry_at(const struct qcow2 *q, const struct qcow2_slice *slice, unsigned index)
{
    return load_be64(slice->data + ((size_t)index << q->entry_bits));
}

static uint64_t bitmap_at(const struct qcow2 *q, const struct qcow2_slice *slice, unsigned index)
{
    return q->extended ? load_be64(slice->data + ((size_t)index << q->entry_bits) + 8) : 0;
}

static void set_entry(struct qcow2 *q, struct qcow2_slice *slice, unsigned index, uint64_t entry,
                      uint64_t bitmap)
{
    uint8_t *at = slice->data + ((size_t)index << q->entry_bits);
    store_be64(at, entry);
    if (q->extended)
        store_be64(at + 8, bitmap);
}

static bool entry_is_sound(const struct qcow2 *q, uint64_t entry)
{
    uint64_t reserved = QCOW2_L2_RESERVED;
    /* Any bits describe some compressed data; the flag above them is not set, but nobody looks. */
    if (entry & QCOW2_ENTRY_COMPRESSED)
        return true;
    if (q->header.version == 2 || q->extended)
        reserved |= QCOW2_L2_ZERO;
    return !(entry & reserved) && is_aligned(entry & QCOW2_ENTRY_OFFSET_MASK, q->cluster_bytes);
}

/* Offset 0 is a place only in an external data file, and is told by the flag. */
static bool has_host(const struct qcow2 *q, uint64_t entry)
{
    return entry & (QCOW2_ENTRY_OFFSET_MASK | (q->external ? QCOW2_ENTRY_COPIED : 0));
}

static enum sub_type sub_type_of(const struct qcow2 *q, uint64_t entry, uint64_t bitmap,
                                 unsigned sub)
{
    if (!entry_is_sound(q, entry))
        return SUB_INVALID;
    if (entry & QCOW2_ENTRY_COMPRESSED)
        return SUB_PACKED;
    bool has_place = has_host(q, entry);
    if (!q->extended) {
        if (entry & QCOW2_L2_ZERO)
            return SUB_ZERO;
        return has_place ? SUB_DATA : SUB_UNALLOCATED;
    }
    bool has_data = bitmap >> sub & 1, is_zero = bitmap >> (32 + sub) & 1;
    if ((has_data && is_zero) || (has_data && !has_place))
        return SUB_INVALID;
    if (has_data)
        return SUB_DATA;
    return is_zero ? SUB_ZERO : SUB_UNALLOCATED;
}

/* Where the entry of `offset` is in its table. */
static uint64_t l2_byte_of(const struct qcow2 *q, uint64_t offset)
{
    return ((offset >> q->cluster_bits) & ((UINT64_C(1) << q->l2_bits) - 1)) << q->entry_bits;
}

void qcow2_map_expect(const struct node *node, uint64_t offset)
{
    const struct qcow2 *q = container_of(node, const struct qcow2, node);
    uint32_t l1_index = l1_index_of(q, offset);
    /* L1 may be changing its size with the disk just now. */
    if (l1_index < q->l1.count && q->l1.entries[l1_index])
        qcow2_table_expect(q, q->l1.entries[l1_index], l2_byte_of(q, offset));
}

/* The slice of `offset`; the L2 table must exist. */
static int find_place(struct qcow2 *q, uint64_t offset, struct qcow2_waiter *waiter,
                      struct place *place)
{
    uint32_t l1_index = l1_index_of(q, offset);
    uint64_t entry = q->l1.entries[l1_index];
    if (entry & QCOW2_BAD)
        return qcow2_corrupt(q, "L1 entry %" PRIu32 " is invalid", l1_index);
    uint64_t byte = l2_byte_of(q, offset);
    int result = qcow2_table_get(q, QCOW2_L2, l1_index, entry, byte, waiter, &place->slice);
    place->index = (unsigned)((byte & (qcow2_slice_bytes(q) - 1)) >> q->entry_bits);
    place->entries = qcow2_slice_bytes(q) >> q->entry_bits;
    return result;
}

/* In an external data file everything is at its guest offset, and nothing is compressed. */
static bool is_misplaced(const struct qcow2 *q, uint64_t entry, uint64_t offset)
{
    if (!q->external)
        return false;
    return entry & QCOW2_ENTRY_COMPRESSED ||
           (has_host(q, entry) &&
            (entry & QCOW2_ENTRY_OFFSET_MASK) != align_down(offset, q->cluster_bytes));
}

static int invalid_entry(struct qcow2 *q, uint64_t offset, uint64_t entry)
{
    return qcow2_corrupt(q, "the L2 entry of guest offset %" PRIu64 " is invalid (%#" PRIx64 ")",
                         offset, entry);
}

/* What lies under an unallocated range: the backing file as far as it goes, then zeroes. */
static void plan_unallocated(const struct qcow2 *q, uint64_t offset, struct qcow2_plan *plan)
{
    uint64_t below = q->node.backing ? q->node.backing->size_bytes : 0;
    plan->is_absent = true;
    plan->kind = offset < below ? QCOW2_PLAN_BACKING : QCOW2_PLAN_ZERO;
    if (offset < below)
        plan->bytes = MIN(plan->bytes, below - offset);
}

static enum qcow2_plan_kind plan_kind_of(enum sub_type type)
{
    switch (type) {
    case SUB_DATA:
        return QCOW2_PLAN_AT;
    case SUB_PACKED:
        return QCOW2_PLAN_PACKED;
    case SUB_ZERO:
    case SUB_UNALLOCATED:
    case SUB_INVALID:
        break;
    }
    return QCOW2_PLAN_ZERO;
}

/* How far from `offset` on the type stays the same and, for data, one piece of the file. */
static uint64_t run_of(const struct qcow2 *q, const struct place *place, uint64_t offset,
                       uint64_t bytes, enum sub_type type)
{
    uint64_t sub_bytes = UINT64_C(1) << q->sub_bits;
    uint64_t done = sub_bytes - (offset & (sub_bytes - 1));
    uint64_t first = align_down(offset, q->cluster_bytes);
    uint64_t first_host = entry_at(q, place->slice, place->index) & QCOW2_ENTRY_OFFSET_MASK;
    while (done < bytes) {
        uint64_t at = offset + done;
        unsigned index = place->index + (unsigned)((at - first) >> q->cluster_bits);
        if (index >= place->entries)
            break;
        uint64_t entry = entry_at(q, place->slice, index);
        unsigned sub = (unsigned)((at & (q->cluster_bytes - 1)) >> q->sub_bits);
        if (sub_type_of(q, entry, bitmap_at(q, place->slice, index), sub) != type)
            break;
        uint64_t host = entry & QCOW2_ENTRY_OFFSET_MASK;
        if (type == SUB_DATA && host - first_host != (uint64_t)(index - place->index)
                                                         << q->cluster_bits)
            break;
        done += sub_bytes;
    }
    return MIN(done, bytes);
}

int qcow2_plan_read(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct qcow2_waiter *waiter,
                    struct qcow2_plan *plan)
{
    struct place place;
    uint64_t table_bytes = UINT64_C(1) << (q->cluster_bits + q->l2_bits);
    *plan = (struct qcow2_plan){.bytes = bytes};
    if (!q->l1.entries[l1_index_of(q, offset)]) {
        plan->bytes = MIN(bytes, table_bytes - (offset & (table_bytes - 1)));
        plan_unallocated(q, offset, plan);
        return 0;
    }
    int result = find_place(q, offset, waiter, &place);
    if (result)
        return result;
    uint64_t entry = entry_at(q, place.slice, place.index);
    uint64_t in_cluster = offset & (q->cluster_bytes - 1);
    enum sub_type type = sub_type_of(q, entry, bitmap_at(q, place.slice, place.index),
                                     (unsigned)(in_cluster >> q->sub_bits));
    if (type == SUB_INVALID || is_misplaced(q, entry, offset))
        return invalid_entry(q, offset, entry);
    plan->kind = plan_kind_of(type);
    plan->entry = entry;
    plan->host_offset = (entry & QCOW2_ENTRY_OFFSET_MASK) + in_cluster;
    if (type == SUB_PACKED)
        plan->bytes = MIN(bytes, q->cluster_bytes - in_cluster);
    else
        plan->bytes = run_of(q, &place, offset, bytes, type);
    if (type == SUB_UNALLOCATED)
        plan_unallocated(q, offset, plan);
    return 0;
}

/* Whether the cluster is the file's own, uncompressed: its place can be written to. In an external
 * data file every cluster has its place from the start. */
static bool is_ours(const struct qcow2 *q, uint64_t entry)
{
    return q->external || ((entry & QCOW2_ENTRY_COPIED) && !(entry & QCOW2_ENTRY_COMPRESSED) &&
                           (entry & QCOW2_ENTRY_OFFSET_MASK));
}

/* Whether [offset, end) of one cluster is data already, and ours. */
static bool is_in_place(const struct qcow2 *q, uint64_t entry, uint64_t bitmap, uint64_t offset,
                        uint64_t end)
{
    if (!is_ours(q, entry))
        return false;
    for (uint64_t at = offset; at < end;
         at = align_down(at, UINT64_C(1) << q->sub_bits) + (UINT64_C(1) << q->sub_bits)) {
        unsigned sub = (unsigned)((at & (q->cluster_bytes - 1)) >> q->sub_bits);
        if (sub_type_of(q, entry, bitmap, sub) != SUB_DATA)
            return false;
    }
    return true;
}

/* Whether a new cluster must take over all of the old one, not only the subclusters written to. */
static bool must_copy_whole(const struct qcow2 *q, uint64_t entry)
{
    return !is_ours(q, entry) && entry & (QCOW2_ENTRY_COMPRESSED | QCOW2_ENTRY_OFFSET_MASK);
}

/* Whether the `distance`th entry after `first` can be written together with it. */
static bool goes_on(const struct qcow2 *q, uint64_t first, uint64_t entry, unsigned distance)
{
    if (q->external)
        return true;
    if (is_ours(q, entry) != is_ours(q, first))
        return false;
    return !is_ours(q, entry) ||
           ((entry - first) & QCOW2_ENTRY_OFFSET_MASK) == (uint64_t)distance << q->cluster_bits;
}

/* The first cluster decides; those after it join as long as they are alike and, in place, next. */
static int plan_clusters(struct qcow2 *q, const struct place *place, uint64_t offset,
                         uint64_t bytes, struct qcow2_plan *plan)
{
    uint64_t first = align_down(offset, q->cluster_bytes), end = offset + bytes, at = offset;
    uint64_t first_entry = entry_at(q, place->slice, place->index), last_entry = first_entry;
    unsigned index = place->index;
    bool in_place = false;
    for (; at < end && index < place->entries; index++) {
        uint64_t entry = entry_at(q, place->slice, index);
        uint64_t bitmap = bitmap_at(q, place->slice, index);
        uint64_t cluster_end =
            MIN(end, first + ((uint64_t)(index - place->index + 1) << q->cluster_bits));
        if (!entry_is_sound(q, entry) || is_misplaced(q, entry, at))
            return invalid_entry(q, at, entry);
        bool this_in_place = is_in_place(q, entry, bitmap, at, cluster_end);
        if (index == place->index)
            in_place = this_in_place;
        else if (this_in_place != in_place || !goes_on(q, first_entry, entry, index - place->index))
            break;
        last_entry = entry;
        at = cluster_end;
    }
    uint64_t sub_bytes = UINT64_C(1) << q->sub_bits;
    plan->kind = in_place ? QCOW2_PLAN_AT : QCOW2_PLAN_ALLOCATE;
    plan->bytes = at - offset;
    plan->clusters = index - place->index;
    plan->reuses = is_ours(q, first_entry);
    plan->host_offset = q->external ? first : first_entry & QCOW2_ENTRY_OFFSET_MASK;
    if (in_place)
        plan->host_offset += offset - first;
    plan->cow_start = must_copy_whole(q, first_entry) ? first : align_down(offset, sub_bytes);
    plan->cow_end = align_up(at, must_copy_whole(q, last_entry) ? q->cluster_bytes : sub_bytes);
    return 0;
}

int qcow2_plan_write(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct qcow2_waiter *waiter,
                     struct qcow2_plan *plan)
{
    struct place place;
    *plan = (struct qcow2_plan){.kind = QCOW2_PLAN_NO_TABLE};
    if (!(q->l1.entries[l1_index_of(q, offset)] & QCOW2_ENTRY_COPIED))
        return 0;
    int result = find_place(q, offset, waiter, &place);
    if (result)
        return result;
    plan->slice = place.slice;
    plan->index = place.index;
    return plan_clusters(q, &place, offset, bytes, plan);
}

static uint64_t entry_extent(const struct qcow2 *q, uint64_t entry, uint64_t *first_cluster)
{
    uint64_t host = entry & QCOW2_ENTRY_OFFSET_MASK, bytes = host ? q->cluster_bytes : 0;
    if (entry & QCOW2_ENTRY_COMPRESSED) {
        unsigned shift = 62 - (q->cluster_bits - 8);
        host = entry & ((UINT64_C(1) << shift) - 1);
        uint64_t sectors = ((entry & QCOW2_PACKED_BITS) >> shift) + 1;
        bytes = sectors * 512 - (host & 511);
    }
    *first_cluster = host >> q->cluster_bits;
    return bytes ? ((host + bytes - 1) >> q->cluster_bits) - *first_cluster + 1 : 0;
}

static void drop_old(struct qcow2 *q, uint64_t entry, bool requested)
{
    uint64_t first, count = entry_extent(q, entry, &first);
    if (entry & QCOW2_ENTRY_COMPRESSED)
        qcow2_codec_invalidate(q, entry);
    if (count && requested)
        qcow2_free_requested(q, first, count);
    else if (count)
        qcow2_free(q, first, count, false);
}

/* A bit for each subcluster of the op's `i`th cluster that the op wrote. */
static uint64_t written_mask(const struct qcow2 *q, const struct qcow2_op *op, uint32_t i)
{
    uint64_t cluster = align_down(op->offset, q->cluster_bytes) + ((uint64_t)i << q->cluster_bits);
    uint64_t start = MAX(op->cow_start, cluster) - cluster;
    uint64_t end = MIN(op->cow_end, cluster + q->cluster_bytes) - cluster;
    uint64_t first = start >> q->sub_bits, count = (end - start) >> q->sub_bits;
    return ((UINT64_C(1) << count) - 1) << first;
}

void qcow2_map_publish(struct qcow2 *q, const struct qcow2_op *op)
{
    for (uint32_t i = 0; i < op->clusters; i++) {
        unsigned index = op->index + i;
        uint64_t old = entry_at(q, op->slice, index);
        uint64_t bitmap = bitmap_at(q, op->slice, index);
        uint64_t host = op->host_offset + ((uint64_t)i << q->cluster_bits);
        if (!op->reuses)
            drop_old(q, old, false);
        if (q->extended) {
            uint64_t mask = written_mask(q, op, i);
            if (old & QCOW2_ENTRY_COMPRESSED)
                bitmap = 0;
            bitmap = (bitmap | mask) & ~(mask << 32);
        }
        set_entry(q, op->slice, index, host | QCOW2_ENTRY_COPIED, bitmap);
    }
    qcow2_table_dirty(q, op->slice);
}

static bool reads_as_zero(const struct qcow2 *q, uint64_t offset, uint64_t entry, uint64_t bitmap)
{
    bool backed = q->node.backing && offset < q->node.backing->size_bytes;
    if (q->extended)
        return !entry && (bitmap == ALL_ZERO || (!bitmap && !backed));
    return entry == QCOW2_L2_ZERO || (!entry && !backed);
}

static void zero_cluster(struct qcow2 *q, struct qcow2_slice *slice, unsigned index,
                         uint64_t offset, bool unmap)
{
    uint64_t entry = entry_at(q, slice, index), bitmap = bitmap_at(q, slice, index);
    bool has_flag = q->header.version >= 3;
    if (reads_as_zero(q, offset, entry, bitmap))
        return;
    uint64_t zero = has_flag && !q->extended ? QCOW2_L2_ZERO : 0;
    if ((!unmap || q->external) && has_flag && is_ours(q, entry)) {
        zero |= entry & (QCOW2_ENTRY_OFFSET_MASK | QCOW2_ENTRY_COPIED);
        if (zero == entry && bitmap == (q->extended ? ALL_ZERO : 0))
            return;
    } else {
        drop_old(q, entry, true);
    }
    set_entry(q, slice, index, zero, ALL_ZERO);
    qcow2_table_dirty(q, slice);
}

int qcow2_map_zero(struct qcow2 *q, uint64_t offset, uint64_t bytes, bool unmap,
                   struct qcow2_waiter *waiter, uint64_t *settled_bytes)
{
    struct place place;
    uint32_t l1_index = l1_index_of(q, offset);
    uint64_t table_bytes = UINT64_C(1) << (q->cluster_bits + q->l2_bits);
    bool backed = q->node.backing && offset < q->node.backing->size_bytes;
    if (!q->l1.entries[l1_index] && !backed) {
        *settled_bytes = MIN(bytes, table_bytes - (offset & (table_bytes - 1)));
        return 0;
    }
    int result = qcow2_table_own(q, l1_index, waiter);
    if (!result)
        result = find_place(q, offset, waiter, &place);
    if (result)
        return result;
    uint64_t clusters = (bytes + q->cluster_bytes - 1) >> q->cluster_bits;
    clusters = MIN(clusters, place.entries - place.index);
    for (unsigned i = 0; i < clusters; i++) {
        uint64_t entry = entry_at(q, place.slice, place.index + i);
        uint64_t at = offset + ((uint64_t)i << q->cluster_bits);
        if (!entry_is_sound(q, entry) || is_misplaced(q, entry, at))
            return invalid_entry(q, at, entry);
    }
    result = qcow2_free_reserve(q, clusters);
    if (result)
        return result;
    for (unsigned i = 0; i < clusters; i++) {
        uint64_t at = offset + ((uint64_t)i << q->cluster_bits);
        zero_cluster(q, place.slice, place.index + i, at, unmap);
    }
    qcow2_free_unreserve(q, clusters);
    *settled_bytes = MIN(bytes, clusters << q->cluster_bits);
    return 0;
}
