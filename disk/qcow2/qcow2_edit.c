/* SPDX-License-Identifier: MIT */
/* qcow2_edit: reference counts of a whole image in memory, and their way back into the file. */
#include "disk/qcow2/qcow2_edit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_refcount.h"
#include "disk/qcow2/qcow2_rule.h"

static uint64_t per_block(const struct qcow2_edit *edit)
{
    return qcow2_refcount_entries(edit->header.cluster_bits, edit->header.refcount_order);
}

int qcow2_edit_read(struct qcow2_edit *edit, uint64_t offset, void *data, uint64_t bytes,
                    struct error *err)
{
    int result = bytes ? io_read_now(edit->file, offset, data, bytes) : 0;
    return result ? error_set_errno(err, -result, "Could not read '%s'", edit->path) : 0;
}

int qcow2_edit_write(struct qcow2_edit *edit, uint64_t offset, const void *data, uint64_t bytes,
                     struct error *err)
{
    int result = bytes ? io_write_now(edit->file, offset, data, bytes) : 0;
    return result ? error_set_errno(err, -result, "Could not write '%s'", edit->path) : 0;
}

int qcow2_edit_sync(struct qcow2_edit *edit, struct error *err)
{
    int result = io_sync_now(edit->file);
    if (!result)
        return 0;
    error_set_errno(err, -result, "Could not flush '%s'", edit->path);
    return -EIO;
}

int qcow2_edit_write_header(struct qcow2_edit *edit, struct error *err)
{
    uint8_t fixed[QCOW2_V3_BYTES];
    edit->header.autoclear &= QCOW2_AUTOCLEAR_KNOWN;
    qcow2_header_store_fixed(&edit->header, fixed);
    int result = qcow2_rule(SNAPSHOT_HEADER_AFTER) ? qcow2_edit_sync(edit, err) : 0;
    if (!result && qcow2_edit_write(edit, 0, fixed, qcow2_fixed_bytes(&edit->header), err))
        result = -EIO;
    return result || !qcow2_rule(SNAPSHOT_HEADER_SAFE) ? result : qcow2_edit_sync(edit, err);
}

/* --- loading --- */

static int corrupt(struct qcow2_edit *edit, const char *what, struct error *err)
{
    return error_set(err, EIO, "'%s' is corrupt: %s; run evisor-img check -r all", edit->path,
                     what);
}

static int grow_counts(struct qcow2_edit *edit, uint64_t clusters, struct error *err)
{
    uint64_t blocks = clusters / per_block(edit) + 2;
    uint64_t had_blocks = edit->clusters ? edit->clusters / per_block(edit) + 2 : 0;
    uint32_t *counts = realloc(edit->counts, clusters * sizeof(*counts));
    if (counts)
        edit->counts = counts;
    uint8_t *is_changed = realloc(edit->is_changed, blocks);
    if (is_changed)
        edit->is_changed = is_changed;
    if (!counts || !is_changed)
        return error_set(err, ENOMEM, "out of memory for the refcounts of '%s'", edit->path);
    memset(counts + edit->clusters, 0, (clusters - edit->clusters) * sizeof(*counts));
    if (blocks > had_blocks)
        memset(is_changed + had_blocks, 0, blocks - had_blocks);
    edit->clusters = clusters;
    return 0;
}

static int load_block(struct qcow2_edit *edit, uint64_t index, struct error *err)
{
    uint64_t first = index * per_block(edit);
    uint64_t offset = edit->reftable[index];
    if (!offset || first >= edit->clusters)
        return 0;
    if (!is_aligned(offset, edit->cluster_bytes))
        return corrupt(edit, "a refcount block is not aligned", err);
    int result = qcow2_edit_read(edit, offset, edit->cluster, edit->cluster_bytes, err);
    if (result)
        return result;
    uint64_t count = MIN(per_block(edit), edit->clusters - first);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t value = qcow2_refcount_get(edit->cluster, edit->header.refcount_order, i);
        if (value > UINT32_MAX)
            return corrupt(edit, "a refcount is beyond all bounds", err);
        edit->counts[first + i] = (uint32_t)value;
    }
    return 0;
}

static int load(struct qcow2_edit *edit, struct error *err)
{
    uint64_t bytes = (uint64_t)edit->header.reftable_clusters << edit->header.cluster_bits;
    int result = io_length(edit->file, &edit->file_bytes);
    if (result)
        return error_set_errno(err, -result, "Could not measure '%s'", edit->path);
    edit->cluster = malloc(edit->cluster_bytes);
    edit->reftable = malloc(bytes);
    edit->reftable_entries = bytes / 8;
    if (!edit->cluster || !edit->reftable)
        return error_set(err, ENOMEM, "out of memory for the refcounts of '%s'", edit->path);
    result = grow_counts(edit, (edit->file_bytes >> edit->header.cluster_bits) + 2, err);
    if (!result)
        result = qcow2_edit_read(edit, edit->header.reftable_offset, edit->reftable, bytes, err);
    for (uint64_t i = 0; i < edit->reftable_entries && !result; i++) {
        edit->reftable[i] = load_be64(&edit->reftable[i]) & QCOW2_REFTABLE_OFFSET_MASK;
        result = load_block(edit, i, err);
    }
    return result;
}

int qcow2_edit_open_tables(struct io_file *file, const char *path, struct qcow2_edit *edit,
                           struct error *err)
{
    memset(edit, 0, sizeof(*edit));
    edit->file = file;
    edit->path = path;
    int result = qcow2_header_read(file, path, &edit->header, err);
    if (result)
        return result;
    edit->cluster_bytes = qcow2_cluster_bytes(&edit->header);
    if (edit->header.incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT))
        result = corrupt(edit, "it was not closed well", err);
    else
        result = load(edit, err);
    if (result)
        qcow2_edit_close(edit);
    return result;
}

int qcow2_edit_open(struct io_file *file, const char *path, struct qcow2_edit *edit,
                    struct error *err)
{
    int result = qcow2_edit_open_tables(file, path, edit, err);
    if (!result && edit->header.incompatible & QCOW2_INCOMPAT_DATA_FILE) {
        qcow2_edit_close(edit);
        result =
            error_set(err, ENOTSUP, "'%s' keeps its data in another file: not supported", path);
    }
    return result;
}

void qcow2_edit_close(struct qcow2_edit *edit)
{
    qcow2_header_fini(&edit->header);
    free(edit->counts);
    free(edit->reftable);
    free(edit->is_changed);
    free(edit->fresh);
    free(edit->cluster);
    memset(edit, 0, sizeof(*edit));
}

/* --- counting --- */

uint64_t qcow2_edit_count(const struct qcow2_edit *edit, uint64_t offset)
{
    uint64_t cluster = offset >> edit->header.cluster_bits;
    return cluster < edit->clusters ? edit->counts[cluster] : 0;
}

int qcow2_edit_ref(struct qcow2_edit *edit, uint64_t offset, uint64_t bytes, int delta,
                   struct error *err)
{
    uint32_t bits = edit->header.cluster_bits;
    uint64_t max = MIN(qcow2_refcount_max(edit->header.refcount_order), UINT32_MAX);
    if (!bytes)
        return 0;
    if (!range_fits(offset, bytes, edit->clusters << bits))
        return corrupt(edit, "something is outside the file", err);
    for (uint64_t i = offset >> bits; i <= (offset + bytes - 1) >> bits; i++) {
        if (delta < 0 && !edit->counts[i])
            return corrupt(edit, "a refcount is too low", err);
        if (delta > 0 && edit->counts[i] >= max)
            return error_set(err, EOVERFLOW,
                             "'%s': a refcount of %" PRIu64 " cannot grow in %u bits; convert the "
                             "image with a larger refcount_bits",
                             edit->path, max, 1u << edit->header.refcount_order);
        edit->counts[i] += (uint32_t)delta;
        edit->is_changed[i / per_block(edit)] = 1;
    }
    return 0;
}

/* One that follows the last is a part of it. */
static int note_fresh(struct qcow2_edit *edit, uint64_t offset, uint64_t bytes, struct error *err)
{
    struct qcow2_edit_region *last = edit->fresh ? &edit->fresh[edit->fresh_count - 1] : NULL;
    if (last && last->offset + last->bytes == offset) {
        last->bytes += bytes;
        return 0;
    }
    struct qcow2_edit_region *fresh =
        realloc(edit->fresh, (edit->fresh_count + 1) * sizeof(fresh[0]));
    if (!fresh)
        return error_set(err, ENOMEM, "out of memory for the refcounts of '%s'", edit->path);
    edit->fresh = fresh;
    fresh[edit->fresh_count++] = (struct qcow2_edit_region){offset, bytes};
    return 0;
}

int qcow2_edit_alloc(struct qcow2_edit *edit, uint64_t bytes, uint64_t *offset, struct error *err)
{
    uint32_t bits = edit->header.cluster_bits;
    uint64_t count = align_up(bytes, edit->cluster_bytes) >> bits;
    uint64_t run = 0, at = edit->cursor;
    for (; run < count; at++) {
        if (at >= edit->clusters) {
            int result = grow_counts(edit, at + count + 64, err);
            if (result)
                return result;
        }
        run = edit->counts[at] ? 0 : run + 1;
    }
    *offset = (at - count) << bits;
    if (count == 1)
        edit->cursor = at; /* all before it are taken */
    int result = note_fresh(edit, *offset, count << bits, err);
    return result ? result : qcow2_edit_ref(edit, *offset, count << bits, 1, err);
}

/* --- writing --- */

/* Makes the refcount table reach to block `last`, at a new place. */
static int move_reftable(struct qcow2_edit *edit, uint64_t last, struct error *err)
{
    uint64_t old_bytes = edit->reftable_entries * 8;
    uint64_t bytes = align_up((last + 2) * 8, edit->cluster_bytes);
    if (bytes > QCOW2_REFTABLE_BYTES_MAX)
        return error_set(err, EFBIG, "'%s': the refcount table cannot grow any more", edit->path);
    uint64_t *table = realloc(edit->reftable, bytes);
    if (!table)
        return error_set(err, ENOMEM, "out of memory for the refcounts of '%s'", edit->path);
    memset((uint8_t *)table + old_bytes, 0, bytes - old_bytes);
    edit->reftable = table;
    edit->reftable_entries = bytes / 8;
    edit->old_reftable = edit->header.reftable_offset;
    edit->old_reftable_bytes = old_bytes;
    edit->header.reftable_clusters = (uint32_t)(bytes >> edit->header.cluster_bits);
    return qcow2_edit_alloc(edit, bytes, &edit->header.reftable_offset, err);
}

static bool is_in_use(const struct qcow2_edit *edit, uint64_t block)
{
    uint64_t first = block * per_block(edit);
    for (uint64_t i = first; i < edit->clusters && i < first + per_block(edit); i++)
        if (edit->counts[i])
            return true;
    return false;
}

/* Gives every block that has something to say a cluster; a new block may need another one. */
static int place_blocks(struct qcow2_edit *edit, struct error *err)
{
    for (uint64_t i = 0; i * per_block(edit) < edit->clusters; i++) {
        if (!edit->is_changed[i] || (i < edit->reftable_entries && edit->reftable[i]) ||
            !is_in_use(edit, i))
            continue;
        int result = 0;
        if (i >= edit->reftable_entries)
            result = move_reftable(edit, i, err);
        if (!result)
            result = qcow2_edit_alloc(edit, edit->cluster_bytes, &edit->reftable[i], err);
        if (result)
            return result;
        edit->reftable_changed = true;
        i = UINT64_MAX; /* from the start: a block before may have changed */
    }
    return 0;
}

static int zero_fresh(struct qcow2_edit *edit, const struct qcow2_edit_region *region,
                      struct error *err)
{
    int result = 0;
    memset(edit->cluster, 0, edit->cluster_bytes);
    for (uint64_t at = 0; at < region->bytes && !result; at += edit->cluster_bytes)
        result =
            qcow2_edit_write(edit, region->offset + at, edit->cluster, edit->cluster_bytes, err);
    return result;
}

static void shorten(struct qcow2_edit *edit)
{
    uint64_t length;
    if (!io_length(edit->file, &length) && length > edit->file_bytes &&
        io_truncate_now(edit->file, edit->file_bytes))
        return; /* too long a file is no harm */
}

int qcow2_edit_reserve(struct qcow2_edit *edit, struct error *err)
{
    int result = place_blocks(edit, err);
    if (result)
        return result;
    for (size_t i = 0; i < edit->fresh_count && !result; i++)
        result = zero_fresh(edit, &edit->fresh[i], err);
    if (result)
        shorten(edit);
    return result;
}

void qcow2_edit_cut(struct qcow2_edit *edit)
{
    uint64_t first = align_up(edit->file_bytes, edit->cluster_bytes) >> edit->header.cluster_bits;
    for (uint64_t i = first; i < edit->clusters; i++)
        if (edit->counts[i])
            return;
    shorten(edit);
}

static int write_block(struct qcow2_edit *edit, uint64_t index, struct error *err)
{
    uint64_t first = index * per_block(edit);
    memset(edit->cluster, 0, edit->cluster_bytes);
    for (uint64_t i = 0; i < per_block(edit) && first + i < edit->clusters; i++)
        qcow2_refcount_set(edit->cluster, edit->header.refcount_order, i, edit->counts[first + i]);
    edit->is_changed[index] = 0;
    return qcow2_edit_write(edit, edit->reftable[index], edit->cluster, edit->cluster_bytes, err);
}

static int write_reftable(struct qcow2_edit *edit, struct error *err)
{
    uint64_t *table = malloc(edit->reftable_entries * 8);
    if (!table)
        return error_set(err, ENOMEM, "out of memory for the refcounts of '%s'", edit->path);
    for (uint64_t i = 0; i < edit->reftable_entries; i++)
        store_be64(&table[i], edit->reftable[i]);
    int result = qcow2_edit_write(edit, edit->header.reftable_offset, table,
                                  edit->reftable_entries * 8, err);
    free(table);
    edit->reftable_changed = false;
    return result ? result : qcow2_edit_write_header(edit, err);
}

static int write_changed(struct qcow2_edit *edit, struct error *err)
{
    for (uint64_t i = 0; i < edit->reftable_entries; i++) {
        if (i * per_block(edit) >= edit->clusters)
            break;
        if (!edit->is_changed[i] || !edit->reftable[i])
            continue;
        int result = write_block(edit, i, err);
        if (result)
            return result;
    }
    return qcow2_rule(SNAPSHOT_COUNTS_FIRST) ? qcow2_edit_sync(edit, err) : 0;
}

int qcow2_edit_flush(struct qcow2_edit *edit, struct error *err)
{
    int result = place_blocks(edit, err);
    if (!result)
        result = write_changed(edit, err);
    if (!result && edit->reftable_changed)
        result = write_reftable(edit, err);
    if (result || !edit->old_reftable_bytes)
        return result;
    uint64_t bytes = edit->old_reftable_bytes;
    edit->old_reftable_bytes = 0;
    result = qcow2_edit_ref(edit, edit->old_reftable, bytes, -1, err);
    return result ? result : write_changed(edit, err);
}
