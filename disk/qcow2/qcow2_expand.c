/* SPDX-License-Identifier: MIT */
/*
 * qcow2_expand: table by table: new clusters are zeroed and counted, then the table points to them,
 * then what it pointed to is given back. A table shared with snapshots is changed for all of them,
 * so its new clusters get as many references as it has.
 */
#include "disk/qcow2/qcow2_expand.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_edit.h"
#include "disk/qcow2/qcow2_snapshots.h"

struct expand {
    struct qcow2_edit edit;
    uint8_t *old, *table; /* an L2 table as it was, and as it shall be */
    uint8_t *zeroes;      /* a cluster of them */
    uint64_t sharers;     /* of the table */
};

static bool is_zero_entry(uint64_t entry)
{
    return !(entry & QCOW2_ENTRY_COMPRESSED) && entry & QCOW2_L2_ZERO;
}

static int allocate(struct expand *expand, uint64_t *entry, struct error *err)
{
    struct qcow2_edit *edit = &expand->edit;
    uint64_t offset;
    int result = qcow2_edit_alloc(edit, edit->cluster_bytes, &offset, err);
    for (uint64_t i = 1; i < expand->sharers && !result; i++)
        result = qcow2_edit_ref(edit, offset, edit->cluster_bytes, 1, err);
    if (!result)
        result = qcow2_edit_write(edit, offset, expand->zeroes, edit->cluster_bytes, err);
    *entry = offset | (expand->sharers == 1 ? QCOW2_ENTRY_COPIED : 0);
    return result;
}

/* Its own cluster can take the zeroes if nothing else refers to it. */
static int expand_entry(struct expand *expand, uint64_t *entry, struct error *err)
{
    struct qcow2_edit *edit = &expand->edit;
    uint64_t offset = *entry & QCOW2_ENTRY_OFFSET_MASK;
    if (offset && qcow2_edit_count(edit, offset) == 1) {
        int result = io_zero_now(edit->file, offset, edit->cluster_bytes);
        *entry = offset | QCOW2_ENTRY_COPIED;
        return result ? error_set_errno(err, -result, "'%s': cannot write zeroes", edit->path) : 0;
    }
    if (edit->header.has_backing)
        return allocate(expand, entry, err);
    *entry = 0;
    return 0;
}

static int expand_entries(struct expand *expand, bool *changed, struct error *err)
{
    int result = 0;
    for (uint64_t at = 0; at < expand->edit.cluster_bytes && !result; at += 8) {
        uint64_t entry = load_be64(expand->old + at);
        if (!is_zero_entry(entry))
            continue;
        *changed = true;
        result = expand_entry(expand, &entry, err);
        store_be64(expand->table + at, entry);
    }
    return result;
}

/* The clusters that zero entries kept and the new table does not use. */
static int give_back(struct expand *expand, struct error *err)
{
    struct qcow2_edit *edit = &expand->edit;
    int result = 0;
    for (uint64_t at = 0; at < edit->cluster_bytes && !result; at += 8) {
        uint64_t entry = load_be64(expand->old + at);
        uint64_t offset = entry & QCOW2_ENTRY_OFFSET_MASK;
        bool is_kept = offset == (load_be64(expand->table + at) & QCOW2_ENTRY_OFFSET_MASK);
        for (uint64_t i = 0; is_zero_entry(entry) && offset && !is_kept; i++) {
            if (i == expand->sharers || result)
                break;
            result = qcow2_edit_ref(edit, offset, edit->cluster_bytes, -1, err);
        }
    }
    return result;
}

static int expand_table(struct expand *expand, uint64_t offset, struct error *err)
{
    struct qcow2_edit *edit = &expand->edit;
    bool changed = false;
    int result = qcow2_edit_read(edit, offset, expand->old, edit->cluster_bytes, err);
    if (result)
        return result;
    memcpy(expand->table, expand->old, edit->cluster_bytes);
    expand->sharers = qcow2_edit_count(edit, offset);
    result = expand_entries(expand, &changed, err);
    if (result || !changed)
        return result;
    result = qcow2_edit_flush(edit, err);
    if (!result)
        result = qcow2_edit_write(edit, offset, expand->table, edit->cluster_bytes, err);
    if (!result)
        result = qcow2_edit_sync(edit, err);
    return result ? result : give_back(expand, err);
}

static int expand_l1(struct expand *expand, uint64_t l1_offset, uint32_t entries, struct error *err)
{
    struct qcow2_edit *edit = &expand->edit;
    uint64_t bytes = (uint64_t)entries * 8;
    if (bytes > QCOW2_L1_BYTES_MAX || !is_aligned(l1_offset, edit->cluster_bytes))
        return error_set(err, EIO, "'%s' is corrupt: bad L1 table; run evisor-img check",
                         edit->path);
    uint64_t *l1 = malloc(bytes + 8);
    int result = l1 ? qcow2_edit_read(edit, l1_offset, l1, bytes, err)
                    : error_set(err, ENOMEM, "out of memory for an L1 table");
    for (uint32_t i = 0; i < entries && !result; i++) {
        uint64_t offset = load_be64(&l1[i]) & QCOW2_ENTRY_OFFSET_MASK;
        if (offset)
            result = expand_table(expand, offset, err);
    }
    free(l1);
    return result;
}

static int expand_all(struct expand *expand, struct error *err)
{
    const struct qcow2_header *header = &expand->edit.header;
    struct qcow2_snapshots snapshots;
    int result = qcow2_snapshots_read(expand->edit.file, header, &snapshots, err);
    if (result) {
        error_prefix(err, "image '%s'", expand->edit.path);
        return result;
    }
    for (size_t i = 0; i < snapshots.count && !result; i++)
        if (snapshots.list[i].disk_bytes != header->size_bytes ||
            snapshots.list[i].vmstate_bytes > UINT32_MAX)
            result = error_set(err, ENOTSUP, "Internal snapshots prevent downgrade of image");
    if (!result)
        result = expand_l1(expand, header->l1_offset, header->l1_entries, err);
    for (size_t i = 0; i < snapshots.count && !result; i++)
        result = expand_l1(expand, snapshots.list[i].l1_offset, snapshots.list[i].l1_entries, err);
    qcow2_snapshots_free(&snapshots);
    return result ? result : qcow2_edit_flush(&expand->edit, err);
}

int qcow2_expand_zeroes(struct io_file *file, const char *path, struct error *err)
{
    struct expand expand = {0};
    int result = qcow2_edit_open(file, path, &expand.edit, err);
    if (result)
        return result;
    expand.old = malloc(expand.edit.cluster_bytes);
    expand.table = malloc(expand.edit.cluster_bytes);
    expand.zeroes = calloc(1, expand.edit.cluster_bytes);
    result = expand.old && expand.table && expand.zeroes
                 ? expand_all(&expand, err)
                 : error_set(err, ENOMEM, "out of memory for tables");
    free(expand.old);
    free(expand.table);
    free(expand.zeroes);
    qcow2_edit_close(&expand.edit);
    return result;
}
