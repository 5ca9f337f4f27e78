/* SPDX-License-Identifier: MIT */
/*
 * qcow2_tables: what of an image is resident from its opening on: the header, L1, the refcount
 * table and the list of snapshots. Loading blocks and touches only what it fills, so that it may
 * run in the pool.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2.h"

/* Reads a table of pointers; entries that cannot be right are marked, so that nobody follows them.
 */
static int load_top(const struct qcow2 *q, struct qcow2_top *top, uint64_t offset, uint64_t count,
                    uint64_t reserved, const char *name, struct error *err)
{
    uint64_t bad = 0;
    top->offset = offset;
    top->count = (uint32_t)count;
    top->entries = calloc(MAX(count, 1), sizeof(top->entries[0]));
    top->dirty = calloc(count / 4096 + 1, sizeof(top->dirty[0]));
    if (!top->entries || !top->dirty)
        return error_set(err, ENOMEM, "no memory to open '%s'", q->node.path);
    int result = io_read_now(q->node.file, offset, top->entries, count * 8);
    if (result)
        return error_set_errno(err, -result, "cannot read the %s table of '%s'", name,
                               q->node.path);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t entry = load_be64(&top->entries[i]);
        uint64_t at = entry & QCOW2_ENTRY_OFFSET_MASK;
        bool is_bad = entry & reserved || !is_aligned(at, q->cluster_bytes) || (entry && !at);
        top->entries[i] = is_bad ? QCOW2_BAD | QCOW2_ENTRY_COPIED : entry;
        bad += is_bad;
    }
    if (bad && !q->node.read_only)
        return error_set(err, EIO,
                         "image '%s' has %" PRIu64 " invalid entries in its %s table; repair it "
                         "with evisor-img check -r all, or open it read-only",
                         q->node.path, bad, name);
    return 0;
}

static int load_tops(const struct qcow2 *q, struct qcow2_tables *out, struct error *err)
{
    const struct qcow2_header *header = &out->header;
    uint64_t length, reftable = (uint64_t)header->reftable_clusters << (q->cluster_bits - 3);
    /* Above what any file offset uses, and below 512. */
    uint64_t reftable_reserved = ~QCOW2_ENTRY_OFFSET_MASK;
    int result = io_length(q->node.file, &length);
    if (result)
        return error_set_errno(err, -result, "cannot find the length of '%s'", q->node.path);
    out->high_water = (length + q->cluster_bytes - 1) >> q->cluster_bits;
    result =
        load_top(q, &out->l1, header->l1_offset, header->l1_entries, QCOW2_L1_RESERVED, "L1", err);
    if (result || q->node.read_only)
        return result;
    return load_top(q, &out->reftable, header->reftable_offset, reftable, reftable_reserved,
                    "refcount", err);
}

static void tables_fini(struct qcow2_tables *tables)
{
    qcow2_header_fini(&tables->header);
    qcow2_snapshots_free(&tables->snapshots);
    free(tables->l1.entries);
    free(tables->l1.dirty);
    free(tables->reftable.entries);
    free(tables->reftable.dirty);
}

int qcow2_tables_load(const struct qcow2 *q, const char *snapshot, struct qcow2_tables *out,
                      struct error *err)
{
    memset(out, 0, sizeof(*out));
    int result = qcow2_header_read(q->node.file, q->node.path, &out->header, err);
    if (result)
        return result;
    result = io_read_now(q->node.file, 0, out->sector, sizeof(out->sector));
    if (result)
        error_set_errno(err, -result, "cannot read the header of '%s'", q->node.path);
    else if (snapshot)
        result = qcow2_snapshots_enter(q->node.file, &out->header, snapshot, err);
    if (!result)
        result = load_tops(q, out, err);
    /* A list that cannot be read is empty: the disk itself does not need it. */
    if (!result && qcow2_snapshots_read(q->node.file, &out->header, &out->snapshots, NULL))
        out->snapshots = (struct qcow2_snapshots){0};
    if (result)
        tables_fini(out);
    return result;
}

void qcow2_tables_adopt(struct qcow2 *q, struct qcow2_tables *tables)
{
    struct qcow2_tables old = {
        .header = q->header, .snapshots = q->snapshots, .l1 = q->l1, .reftable = q->reftable};
    tables_fini(&old);
    q->header = tables->header;
    q->snapshots = tables->snapshots;
    q->l1 = tables->l1;
    q->reftable = tables->reftable;
    memcpy(q->header_sector, tables->sector, sizeof(q->header_sector));
    q->high_water = tables->high_water;
    q->free_hint = 0;
    q->node.size_bytes = align_up(q->header.size_bytes, 512);
    q->node.vmstate_bytes = 0;
    qcow2_cache_forget_all(q);
    qcow2_codec_forget_all(q);
}

void qcow2_tables_fini(struct qcow2 *q)
{
    struct qcow2_tables own = {
        .header = q->header, .snapshots = q->snapshots, .l1 = q->l1, .reftable = q->reftable};
    tables_fini(&own);
}
