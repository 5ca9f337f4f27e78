/* SPDX-License-Identifier: MIT */
/*
 * qcow2_check_walk: follows every pointer of an image and counts what it meets.
 *
 * Tables that lie outside the file are reported and not followed; entries that make no sense are
 * reported and not counted. Nothing here looks at refcounts, but for the COPIED flags.
 */
#include "disk/qcow2/qcow2_check_walk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_bitmaps.h"
#include "disk/qcow2/qcow2_refcount.h"
#include "disk/qcow2/qcow2_snapshots.h"

void qcow2_checker_say(struct qcow2_checker *checker, const char *format, ...)
{
    char line[512];
    va_list args;
    if (!checker->options->on_message)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    checker->options->on_message(checker->options->opaque, line);
}

#define say qcow2_checker_say

static void note_use(struct qcow2_checker *checker, uint64_t cluster, enum qcow2_use use)
{
    uint8_t *known = &checker->uses[cluster];
    bool is_clash = *known && (*known != use || use == QCOW2_USE_ALONE);
    *known = is_clash ? QCOW2_USE_CLASH : (uint8_t)use;
}

bool qcow2_checker_count(struct qcow2_checker *checker, enum qcow2_use use, uint64_t offset,
                         uint64_t bytes)
{
    uint32_t bits = checker->header.cluster_bits;
    uint64_t max = qcow2_refcount_max(checker->header.refcount_order);
    if (!bytes)
        return true;
    if (offset > (uint64_t)INT64_MAX - bytes ||
        offset + bytes >= checker->file_bytes + checker->cluster_bytes) {
        say(checker,
            "ERROR: counting reference for region exceeding the end of the file by one cluster or "
            "more: offset 0x%" PRIx64 " size 0x%" PRIx64,
            offset, bytes);
        checker->result->corruptions++;
        return false;
    }
    for (uint64_t cluster = offset >> bits; cluster <= (offset + bytes - 1) >> bits; cluster++) {
        note_use(checker, cluster, use);
        if (checker->counts[cluster] >= max || checker->counts[cluster] == UINT32_MAX) {
            say(checker, "ERROR: overflow cluster offset=0x%" PRIx64, cluster << bits);
            say(checker,
                "Use evisor-img amend to increase the refcount entry width or evisor-img "
                "convert to create a clean copy if the image cannot be opened for writing");
            checker->result->corruptions++;
            continue;
        }
        checker->counts[cluster]++;
    }
    return true;
}

/* --- L2 entries --- */

enum entry_kind {
    ENTRY_UNALLOCATED,
    ENTRY_ZERO,
    ENTRY_ALLOCATED, /* data, or zero with a cluster set aside */
    ENTRY_COMPRESSED,
};

static enum entry_kind entry_kind(const struct qcow2_checker *checker, uint64_t entry)
{
    bool is_external = checker->header.incompatible & QCOW2_INCOMPAT_DATA_FILE;
    if (entry & QCOW2_ENTRY_COMPRESSED)
        return ENTRY_COMPRESSED;
    if (entry & QCOW2_ENTRY_OFFSET_MASK || (is_external && entry & QCOW2_ENTRY_COPIED))
        return ENTRY_ALLOCATED;
    if (entry & QCOW2_L2_ZERO && !qcow2_has_extended_l2(&checker->header))
        return ENTRY_ZERO;
    return ENTRY_UNALLOCATED;
}

/* One walk over one L1 table. */
struct walk {
    struct qcow2_checker *checker;
    bool is_active; /* the disk's own L1 table, not a snapshot's */
    bool repair;
    bool table_changed;
};

static bool is_one(const struct qcow2_checker *checker, uint64_t offset)
{
    uint64_t cluster = offset >> checker->header.cluster_bits;
    return cluster < checker->clusters && checker->is_one[cluster / 8] >> (cluster % 8) & 1;
}

static void check_compressed(struct walk *walk, uint8_t *at, uint64_t entry, uint64_t bitmap)
{
    struct qcow2_checker *checker = walk->checker;
    unsigned size_shift = 62 - (checker->header.cluster_bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << size_shift) - 1);
    uint64_t sectors = (entry & (QCOW2_ENTRY_COMPRESSED - 1)) >> size_shift;
    uint64_t bytes = (sectors + 1) * 512 - (offset & 511);
    if (entry & QCOW2_ENTRY_COPIED) {
        say(checker,
            "ERROR: coffset=0x%" PRIx64 ": copied flag must never be set for compressed clusters",
            entry & QCOW2_ENTRY_OFFSET_MASK);
        if (walk->repair) {
            store_be64(at, entry & ~QCOW2_ENTRY_COPIED);
            walk->table_changed = true;
            checker->result->corruptions_fixed++;
        } else {
            checker->result->corruptions++;
        }
    }
    if (checker->header.incompatible & QCOW2_INCOMPAT_DATA_FILE) {
        say(checker, "ERROR compressed cluster with data file, entry=0x%" PRIx64, entry);
        checker->result->corruptions++;
        return;
    }
    if (bitmap) {
        say(checker,
            "ERROR compressed cluster with non-zero subcluster allocation bitmap, entry=0x%" PRIx64,
            entry);
        checker->result->corruptions++;
        return;
    }
    if (walk->is_active) {
        checker->result->allocated_clusters++;
        checker->result->compressed_clusters++;
        checker->result->fragmented_clusters++; /* compressed clusters are fragmented by nature */
    }
    (void)!qcow2_checker_count(checker, QCOW2_USE_DATA, offset, bytes);
}

static void note_allocated(struct walk *walk, uint64_t offset)
{
    struct qcow2_checker *checker = walk->checker;
    if (!walk->is_active)
        return;
    checker->result->allocated_clusters++;
    if (checker->next_contiguous && offset != checker->next_contiguous)
        checker->result->fragmented_clusters++;
    checker->next_contiguous = offset + checker->cluster_bytes;
}

/* A zero cluster needs no address: a bad one can be dropped without loss. True if it was. */
static bool drop_unaligned(struct walk *walk, uint8_t *at, uint64_t entry, uint64_t bitmap)
{
    struct qcow2_checker *checker = walk->checker;
    uint64_t offset = entry & QCOW2_ENTRY_OFFSET_MASK;
    bool is_extended = qcow2_has_extended_l2(&checker->header);
    bool is_zero = is_extended ? !(bitmap & UINT32_MAX) : (entry & QCOW2_L2_ZERO) != 0;
    if (!is_zero) {
        say(checker,
            "ERROR offset=%" PRIx64 ": Data cluster is not properly aligned; L2 entry corrupted.",
            offset);
        checker->result->corruptions++;
        return false;
    }
    say(checker,
        "%s offset=%" PRIx64 ": Preallocated cluster is not properly aligned; L2 entry corrupted.",
        walk->repair ? "Repairing" : "ERROR", offset);
    if (!walk->repair) {
        checker->result->corruptions++;
        return false;
    }
    store_be64(at, is_extended ? 0 : QCOW2_L2_ZERO); /* an extended entry's bitmap holds as it is */
    walk->table_changed = true;
    checker->result->corruptions_fixed++;
    return true;
}

static void check_allocated(struct walk *walk, uint8_t *at, uint64_t entry, uint64_t bitmap)
{
    struct qcow2_checker *checker = walk->checker;
    bool is_external = checker->header.incompatible & QCOW2_INCOMPAT_DATA_FILE;
    uint64_t offset = entry & QCOW2_ENTRY_OFFSET_MASK;
    if (entry & QCOW2_L2_RESERVED) {
        say(checker, "ERROR found l2 entry with reserved bits set: %" PRIx64, entry);
        checker->result->corruptions++;
    }
    if (bitmap >> 32 & bitmap & UINT32_MAX) {
        say(checker,
            "ERROR offset=%" PRIx64
            ": Allocated cluster has corrupted subcluster allocation bitmap",
            offset);
        checker->result->corruptions++;
        return;
    }
    note_allocated(walk, offset);
    if (!is_aligned(offset, checker->cluster_bytes) && drop_unaligned(walk, at, entry, bitmap))
        return;
    /* One that stays is counted, so that nothing else is put where it may have its data. */
    if (walk->is_active && !is_external && !(entry & QCOW2_ENTRY_COPIED) == is_one(checker, offset))
        checker->copied_is_wrong = true;
    if (!is_external)
        (void)!qcow2_checker_count(checker, QCOW2_USE_DATA, offset, checker->cluster_bytes);
}

static void check_entry(struct walk *walk, uint8_t *at)
{
    struct qcow2_checker *checker = walk->checker;
    uint64_t entry = load_be64(at);
    uint64_t bitmap = qcow2_has_extended_l2(&checker->header) ? load_be64(at + 8) : 0;
    switch (entry_kind(checker, entry)) {
    case ENTRY_COMPRESSED:
        check_compressed(walk, at, entry, bitmap);
        break;
    case ENTRY_ALLOCATED:
        check_allocated(walk, at, entry, bitmap);
        break;
    case ENTRY_UNALLOCATED:
        if (bitmap & UINT32_MAX) {
            say(checker, "ERROR: Unallocated cluster has non-zero subcluster allocation map");
            checker->result->corruptions++;
        }
        break;
    case ENTRY_ZERO:
        if (entry & (QCOW2_L2_RESERVED & ~QCOW2_L2_ZERO)) {
            say(checker, "ERROR found l2 entry with reserved bits set: %" PRIx64, entry);
            checker->result->corruptions++;
        }
        break;
    }
}

/* --- tables --- */

static void cannot_read(struct qcow2_checker *checker)
{
    checker->result->check_errors++;
    checker->is_incomplete = true;
}

static int write_back(struct walk *walk, uint64_t offset, struct error *err)
{
    struct qcow2_checker *checker = walk->checker;
    if (!walk->table_changed)
        return 0;
    walk->table_changed = false;
    int result = io_write_now(checker->file, offset, checker->table, checker->cluster_bytes);
    if (result)
        return error_set_errno(err, -result, "Could not write an L2 table of '%s'", checker->path);
    return 0;
}

/* Calls `on_entry` for each entry of the L2 table, if the table can be read. */
static int each_entry(struct walk *walk, uint64_t l2_offset,
                      void (*on_entry)(struct walk *walk, uint8_t *at), struct error *err)
{
    struct qcow2_checker *checker = walk->checker;
    uint64_t entry_bytes = qcow2_has_extended_l2(&checker->header) ? 16 : 8;
    int result = io_read_now(checker->file, l2_offset, checker->table, checker->cluster_bytes);
    if (result) {
        say(checker, "ERROR: I/O error in check_refcounts_l2");
        cannot_read(checker);
        return 0;
    }
    checker->next_contiguous = 0;
    for (uint64_t at = 0; at < checker->cluster_bytes; at += entry_bytes)
        on_entry(walk, checker->table + at);
    return write_back(walk, l2_offset, err);
}

static uint8_t *read_l1(struct qcow2_checker *checker, uint64_t offset, uint64_t bytes)
{
    uint8_t *l1 = malloc(bytes);
    if (l1 && !io_read_now(checker->file, offset, l1, bytes))
        return l1;
    say(checker, "ERROR: I/O error in check_refcounts_l1");
    cannot_read(checker);
    free(l1);
    return NULL;
}

static int check_l1_entry(struct walk *walk, uint64_t entry, struct error *err)
{
    struct qcow2_checker *checker = walk->checker;
    uint64_t l2_offset = entry & QCOW2_ENTRY_OFFSET_MASK;
    if (!entry)
        return 0;
    if (entry & QCOW2_L1_RESERVED) {
        say(checker, "ERROR found L1 entry with reserved bits set: %" PRIx64, entry);
        checker->result->corruptions++;
    }
    if (!l2_offset)
        return 0;
    bool is_inside = qcow2_checker_count(checker, QCOW2_USE_L2, l2_offset, checker->cluster_bytes);
    if (!is_aligned(l2_offset, checker->cluster_bytes)) {
        say(checker,
            "ERROR l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 entry corrupted",
            l2_offset);
        checker->result->corruptions++;
    }
    if (walk->is_active && !(entry & QCOW2_ENTRY_COPIED) == is_one(checker, l2_offset))
        checker->copied_is_wrong = true;
    return is_inside ? each_entry(walk, l2_offset, check_entry, err) : 0;
}

static int check_l1(struct walk *walk, uint64_t offset, uint32_t entries, struct error *err)
{
    struct qcow2_checker *checker = walk->checker;
    uint64_t bytes = (uint64_t)entries * 8;
    if (!bytes)
        return 0;
    if (!qcow2_checker_count(checker, QCOW2_USE_ALONE, offset, bytes)) {
        checker->is_incomplete = true;
        return 0;
    }
    uint8_t *l1 = read_l1(checker, offset, bytes);
    int result = 0;
    for (uint32_t i = 0; l1 && i < entries && !result; i++)
        result = check_l1_entry(walk, load_be64(l1 + (size_t)i * 8), err);
    free(l1);
    return result;
}

/* --- snapshots, bitmaps --- */

static int check_snapshot(struct walk *walk, const struct qcow2_snapshot *snapshot,
                          struct error *err)
{
    struct qcow2_checker *checker = walk->checker;
    if (!is_aligned(snapshot->l1_offset, checker->cluster_bytes)) {
        say(checker,
            "ERROR snapshot %s (%s) l1_offset=%#" PRIx64
            ": L1 table is not cluster aligned; snapshot table entry corrupted",
            snapshot->id, snapshot->name, snapshot->l1_offset);
        checker->result->corruptions++;
        return 0;
    }
    if (snapshot->l1_entries > QCOW2_L1_BYTES_MAX / 8) {
        say(checker,
            "ERROR snapshot %s (%s) l1_size=%#" PRIx32
            ": L1 table is too large; snapshot table entry corrupted",
            snapshot->id, snapshot->name, snapshot->l1_entries);
        checker->result->corruptions++;
        return 0;
    }
    return check_l1(walk, snapshot->l1_offset, snapshot->l1_entries, err);
}

static int check_snapshots(struct walk *walk, struct error *err)
{
    struct qcow2_checker *checker = walk->checker;
    struct qcow2_snapshots snapshots;
    struct error why = {0};
    if (qcow2_snapshots_read(checker->file, &checker->header, &snapshots, &why)) {
        say(checker, "ERROR failed to read the snapshot table: %s", why.text);
        cannot_read(checker);
        return 0;
    }
    if (snapshots.count && checker->header.incompatible & QCOW2_INCOMPAT_DATA_FILE) {
        say(checker, "ERROR %zu snapshots in image with data file", snapshots.count);
        checker->result->corruptions++;
    }
    int result = 0;
    for (size_t i = 0; i < snapshots.count && !result; i++)
        result = check_snapshot(walk, &snapshots.list[i], err);
    (void)!qcow2_checker_count(checker, QCOW2_USE_ALONE, checker->header.snapshots_offset,
                               snapshots.table_bytes);
    qcow2_snapshots_free(&snapshots);
    return result;
}

static void count_bitmap(struct qcow2_checker *checker, const struct qcow2_bitmap *bitmap)
{
    uint64_t bytes = (uint64_t)bitmap->table_entries * 8;
    if (!bytes || !qcow2_checker_count(checker, QCOW2_USE_ALONE, bitmap->table_offset, bytes))
        return;
    uint8_t *table = malloc(bytes);
    if (!table || io_read_now(checker->file, bitmap->table_offset, table, bytes)) {
        say(checker, "ERROR: I/O error in the table of bitmap '%s'", bitmap->name);
        cannot_read(checker);
        free(table);
        return;
    }
    for (uint32_t i = 0; i < bitmap->table_entries; i++) {
        uint64_t entry = load_be64(table + (size_t)i * 8);
        uint64_t offset = entry & QCOW2_BITMAP_OFFSET_MASK;
        if (entry & QCOW2_BITMAP_ENTRY_RESERVED || !is_aligned(offset, checker->cluster_bytes))
            checker->result->corruptions++;
        else if (offset)
            (void)!qcow2_checker_count(checker, QCOW2_USE_ALONE, offset, checker->cluster_bytes);
    }
    free(table);
}

static void count_bitmaps(struct qcow2_checker *checker)
{
    struct qcow2_bitmaps bitmaps;
    struct error why = {0};
    if (!checker->header.has_bitmaps || !(checker->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return;
    if (!qcow2_checker_count(checker, QCOW2_USE_ALONE, checker->header.bitmaps.directory_offset,
                             checker->header.bitmaps.directory_bytes))
        return;
    int result = qcow2_bitmaps_read(checker->file, &checker->header, &bitmaps, &why);
    if (result) {
        say(checker, "ERROR %s", why.text);
        if (result == -EINVAL)
            checker->result->corruptions++;
        else
            cannot_read(checker);
        return;
    }
    for (size_t i = 0; i < bitmaps.count; i++)
        count_bitmap(checker, &bitmaps.list[i]);
    qcow2_bitmaps_free(&bitmaps);
}

int qcow2_checker_walk(struct qcow2_checker *checker, struct error *err)
{
    const struct qcow2_header *header = &checker->header;
    struct walk walk = {
        .checker = checker,
        .is_active = true,
        .repair = checker->options->repair == QCOW2_REPAIR_ALL,
    };
    (void)!qcow2_checker_count(checker, QCOW2_USE_ALONE, 0, checker->cluster_bytes);
    int result = check_l1(&walk, header->l1_offset, header->l1_entries, err);
    if (result)
        return result;
    walk.is_active = false;
    result = check_snapshots(&walk, err);
    if (header->has_crypto_header)
        (void)!qcow2_checker_count(checker, QCOW2_USE_ALONE, header->crypto_header.offset,
                                   header->crypto_header.bytes);
    count_bitmaps(checker);
    return result;
}

/* --- COPIED flags --- */

static uint64_t refcount_for_text(const struct qcow2_checker *checker, uint64_t offset)
{
    uint64_t cluster = offset >> checker->header.cluster_bits;
    uint64_t per_block =
        qcow2_refcount_entries(checker->header.cluster_bits, checker->header.refcount_order);
    uint64_t block = cluster / per_block;
    if (block >= checker->reftable_entries || !checker->reftable[block] ||
        checker->block_marks[block] & QCOW2_BLOCK_UNUSABLE ||
        io_read_now(checker->file, checker->reftable[block], checker->block,
                    checker->cluster_bytes))
        return 0;
    return qcow2_refcount_get(checker->block, checker->header.refcount_order, cluster % per_block);
}

static void correct_copied(struct walk *walk, uint8_t *at, uint64_t entry)
{
    struct qcow2_checker *checker = walk->checker;
    if (!walk->repair) {
        checker->result->corruptions++;
        return;
    }
    store_be64(at, entry ^ QCOW2_ENTRY_COPIED);
    walk->table_changed = true;
    checker->result->corruptions_fixed++;
}

static void check_copied(struct walk *walk, uint8_t *at)
{
    struct qcow2_checker *checker = walk->checker;
    uint64_t entry = load_be64(at);
    uint64_t offset = entry & QCOW2_ENTRY_OFFSET_MASK;
    if (entry_kind(checker, entry) != ENTRY_ALLOCATED ||
        checker->header.incompatible & QCOW2_INCOMPAT_DATA_FILE ||
        !is_aligned(offset, checker->cluster_bytes) ||
        !(entry & QCOW2_ENTRY_COPIED) != is_one(checker, offset))
        return;
    say(checker, "%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64,
        walk->repair ? "Repairing" : "ERROR", entry, refcount_for_text(checker, offset));
    correct_copied(walk, at, entry);
}

static bool check_copied_l1(struct walk *walk, uint8_t *at, uint32_t index)
{
    struct qcow2_checker *checker = walk->checker;
    uint64_t entry = load_be64(at);
    uint64_t offset = entry & QCOW2_ENTRY_OFFSET_MASK;
    if (!(entry & QCOW2_ENTRY_COPIED) != is_one(checker, offset))
        return false;
    say(checker, "%s OFLAG_COPIED L2 cluster: l1_index=%u l1_entry=%" PRIx64 " refcount=%" PRIu64,
        walk->repair ? "Repairing" : "ERROR", index, entry, refcount_for_text(checker, offset));
    correct_copied(walk, at, entry);
    bool changed = walk->table_changed;
    walk->table_changed = false;
    return changed;
}

static int walk_copied(struct walk *walk, uint8_t *l1, bool *l1_changed, struct error *err)
{
    struct qcow2_checker *checker = walk->checker;
    for (uint32_t i = 0; i < checker->header.l1_entries; i++) {
        uint64_t offset = load_be64(l1 + (size_t)i * 8) & QCOW2_ENTRY_OFFSET_MASK;
        if (!offset)
            continue;
        if (check_copied_l1(walk, l1 + (size_t)i * 8, i))
            *l1_changed = true;
        if (offset >= checker->file_bytes)
            continue;
        int result = each_entry(walk, offset, check_copied, err);
        if (result)
            return result;
    }
    return 0;
}

int qcow2_checker_walk_copied(struct qcow2_checker *checker, bool repair, struct error *err)
{
    struct walk walk = {.checker = checker, .is_active = true, .repair = repair};
    uint64_t bytes = (uint64_t)checker->header.l1_entries * 8;
    bool l1_changed = false;
    uint8_t *l1 = read_l1(checker, checker->header.l1_offset, bytes);
    if (!l1)
        return 0;
    int result = walk_copied(&walk, l1, &l1_changed, err);
    if (!result && l1_changed) {
        result = io_write_now(checker->file, checker->header.l1_offset, l1, bytes);
        if (result)
            error_set_errno(err, -result, "Could not write the L1 table of '%s'", checker->path);
    }
    free(l1);
    return result;
}
