/* SPDX-License-Identifier: MIT */
/* qcow2_snapshots: decodes and encodes the snapshot table; every length is checked before use. */
#include "disk/qcow2/qcow2_snapshots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define KNOWN_EXTRA_BYTES 24

struct cursor {
    struct io_file *file;
    uint64_t at;
    uint64_t end; /* the table may not reach past this */
    size_t entry; /* for messages */
};

static int take(struct cursor *cursor, void *to, uint64_t bytes, struct error *err)
{
    if (bytes > cursor->end - cursor->at)
        return error_set(err, EFBIG, "Snapshot table is too big");
    int result = io_read_now(cursor->file, cursor->at, to, bytes);
    if (result)
        return error_set_errno(err, -result, "Failed to read snapshot table");
    cursor->at += bytes;
    return 0;
}

static char *take_string(struct cursor *cursor, uint32_t bytes, struct error *err)
{
    char *text = calloc(1, bytes + 1);
    if (!text)
        error_set(err, ENOMEM, "out of memory for the snapshot table");
    else if (!take(cursor, text, bytes, err))
        return text;
    free(text);
    return NULL;
}

static int take_extra(struct cursor *cursor, const struct qcow2_header *header, uint32_t bytes,
                      struct qcow2_snapshot *out, struct error *err)
{
    uint8_t extra[QCOW2_SNAPSHOT_EXTRA_MAX];
    if (bytes > sizeof(extra))
        return error_set(err, EFBIG, "Too much extra metadata in snapshot table entry %zu",
                         cursor->entry);
    int result = take(cursor, extra, bytes, err);
    if (result)
        return result;
    out->disk_bytes = header->size_bytes;
    out->icount = UINT64_MAX;
    if (bytes >= 8)
        out->vmstate_bytes = load_be64(extra + QCOW2_SNAP_EXTRA_VMSTATE_BYTES);
    if (bytes >= 16)
        out->disk_bytes = load_be64(extra + QCOW2_SNAP_EXTRA_DISK_BYTES);
    if (bytes >= KNOWN_EXTRA_BYTES)
        out->icount = load_be64(extra + QCOW2_SNAP_EXTRA_ICOUNT);
    if (bytes <= KNOWN_EXTRA_BYTES)
        return 0;
    out->unknown_extra_bytes = bytes - KNOWN_EXTRA_BYTES;
    out->unknown_extra = malloc(out->unknown_extra_bytes);
    if (!out->unknown_extra)
        return error_set(err, ENOMEM, "out of memory for the snapshot table");
    memcpy(out->unknown_extra, extra + KNOWN_EXTRA_BYTES, out->unknown_extra_bytes);
    return 0;
}

static int take_entry(struct cursor *cursor, const struct qcow2_header *header,
                      struct qcow2_snapshot *out, struct error *err)
{
    uint8_t fixed[QCOW2_SNAP_FIXED_BYTES];
    cursor->at = align_up(cursor->at, 8);
    int result = take(cursor, fixed, sizeof(fixed), err);
    if (result)
        return result;
    out->l1_offset = load_be64(fixed + QCOW2_SNAP_L1_OFFSET);
    out->l1_entries = load_be32(fixed + QCOW2_SNAP_L1_SIZE);
    out->date_sec = load_be32(fixed + QCOW2_SNAP_DATE_SEC);
    out->date_nsec = load_be32(fixed + QCOW2_SNAP_DATE_NSEC);
    out->vm_clock_ns = load_be64(fixed + QCOW2_SNAP_VM_CLOCK);
    out->vmstate_bytes = load_be32(fixed + QCOW2_SNAP_VMSTATE_BYTES32);
    result = take_extra(cursor, header, load_be32(fixed + QCOW2_SNAP_EXTRA_BYTES), out, err);
    if (result)
        return result;
    out->id = take_string(cursor, load_be16(fixed + QCOW2_SNAP_ID_BYTES), err);
    if (out->id)
        out->name = take_string(cursor, load_be16(fixed + QCOW2_SNAP_NAME_BYTES), err);
    return out->name ? 0 : -EIO;
}

int qcow2_snapshots_read(struct io_file *file, const struct qcow2_header *header,
                         struct qcow2_snapshots *out, struct error *err)
{
    struct cursor cursor = {.file = file, .at = header->snapshots_offset};
    uint64_t file_bytes;
    memset(out, 0, sizeof(*out));
    if (!header->snapshot_count)
        return 0;
    int result = io_length(file, &file_bytes);
    if (result)
        return error_set_errno(err, -result, "Failed to read snapshot table");
    cursor.end = MIN(align_up(file_bytes, 8), cursor.at + QCOW2_SNAPSHOT_TABLE_BYTES_MAX);
    if (header->snapshot_count > QCOW2_SNAPSHOTS_MAX || cursor.at > cursor.end)
        return error_set(err, EFBIG, "Snapshot table is too big");
    out->list = calloc(header->snapshot_count, sizeof(*out->list));
    if (!out->list)
        return error_set(err, ENOMEM, "out of memory for the snapshot table");
    for (; cursor.entry < header->snapshot_count && !result; cursor.entry++) {
        result = take_entry(&cursor, header, &out->list[cursor.entry], err);
        out->count++; /* counted even if broken, so that what it owns is freed */
    }
    out->table_bytes = cursor.at - header->snapshots_offset;
    if (result)
        qcow2_snapshots_free(out);
    return result;
}

void qcow2_snapshot_fini(struct qcow2_snapshot *snapshot)
{
    free(snapshot->id);
    free(snapshot->name);
    free(snapshot->unknown_extra);
}

void qcow2_snapshots_free(struct qcow2_snapshots *snapshots)
{
    for (size_t i = 0; i < snapshots->count; i++)
        qcow2_snapshot_fini(&snapshots->list[i]);
    free(snapshots->list);
    memset(snapshots, 0, sizeof(*snapshots));
}

/* An icount is written where there is one or where unknown data follows its place. */
static uint32_t extra_bytes(const struct qcow2_snapshot *snapshot)
{
    if (snapshot->unknown_extra_bytes)
        return KNOWN_EXTRA_BYTES + snapshot->unknown_extra_bytes;
    return KNOWN_EXTRA_BYTES;
}

static uint64_t entry_bytes(const struct qcow2_snapshot *snapshot)
{
    return align_up(QCOW2_SNAP_FIXED_BYTES + extra_bytes(snapshot) + strlen(snapshot->id) +
                        strlen(snapshot->name),
                    8);
}

uint64_t qcow2_snapshots_bytes(const struct qcow2_snapshots *snapshots)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < snapshots->count; i++)
        bytes += entry_bytes(&snapshots->list[i]);
    return bytes;
}

static void put_entry(const struct qcow2_snapshot *snapshot, uint8_t *out)
{
    size_t id_bytes = strlen(snapshot->id);
    size_t name_bytes = strlen(snapshot->name);
    memset(out, 0, entry_bytes(snapshot));
    store_be64(out + QCOW2_SNAP_L1_OFFSET, snapshot->l1_offset);
    store_be32(out + QCOW2_SNAP_L1_SIZE, snapshot->l1_entries);
    store_be16(out + QCOW2_SNAP_ID_BYTES, (uint16_t)id_bytes);
    store_be16(out + QCOW2_SNAP_NAME_BYTES, (uint16_t)name_bytes);
    store_be32(out + QCOW2_SNAP_DATE_SEC, snapshot->date_sec);
    store_be32(out + QCOW2_SNAP_DATE_NSEC, snapshot->date_nsec);
    store_be64(out + QCOW2_SNAP_VM_CLOCK, snapshot->vm_clock_ns);
    store_be32(out + QCOW2_SNAP_VMSTATE_BYTES32,
               snapshot->vmstate_bytes <= UINT32_MAX ? (uint32_t)snapshot->vmstate_bytes : 0);
    store_be32(out + QCOW2_SNAP_EXTRA_BYTES, extra_bytes(snapshot));
    uint8_t *extra = out + QCOW2_SNAP_FIXED_BYTES;
    store_be64(extra + QCOW2_SNAP_EXTRA_VMSTATE_BYTES, snapshot->vmstate_bytes);
    store_be64(extra + QCOW2_SNAP_EXTRA_DISK_BYTES, snapshot->disk_bytes);
    store_be64(extra + QCOW2_SNAP_EXTRA_ICOUNT, snapshot->icount);
    if (snapshot->unknown_extra_bytes)
        memcpy(extra + KNOWN_EXTRA_BYTES, snapshot->unknown_extra, snapshot->unknown_extra_bytes);
    uint8_t *names = extra + extra_bytes(snapshot);
    memcpy(names, snapshot->id, id_bytes);
    memcpy(names + id_bytes, snapshot->name, name_bytes);
}

void qcow2_snapshots_serialise(const struct qcow2_snapshots *snapshots, uint8_t *out)
{
    for (size_t i = 0; i < snapshots->count; i++) {
        put_entry(&snapshots->list[i], out);
        out += entry_bytes(&snapshots->list[i]);
    }
}

struct qcow2_snapshot *qcow2_snapshots_find(struct qcow2_snapshots *snapshots,
                                            const char *id_or_name)
{
    for (size_t i = 0; i < snapshots->count; i++)
        if (!strcmp(snapshots->list[i].id, id_or_name))
            return &snapshots->list[i];
    for (size_t i = 0; i < snapshots->count; i++)
        if (!strcmp(snapshots->list[i].name, id_or_name))
            return &snapshots->list[i];
    return NULL;
}

static int check_l1(const struct qcow2_header *header, const struct qcow2_snapshot *snapshot,
                    struct error *err)
{
    if (!is_aligned(snapshot->l1_offset, qcow2_cluster_bytes(header)))
        return error_set(err, EINVAL, "Failed to load snapshot: Snapshot L1 table offset invalid");
    if (snapshot->l1_entries > QCOW2_L1_BYTES_MAX / 8)
        return error_set(err, EFBIG, "Failed to load snapshot: Snapshot L1 table too large");
    if (snapshot->disk_bytes > INT64_MAX ||
        snapshot->l1_entries < qcow2_l1_entries_for(header, snapshot->disk_bytes))
        return error_set(err, EINVAL,
                         "Failed to load snapshot: Snapshot L1 table is too small for its disk");
    return 0;
}

int qcow2_snapshots_enter(struct io_file *file, struct qcow2_header *header, const char *id_or_name,
                          struct error *err)
{
    struct qcow2_snapshots snapshots;
    int result = qcow2_snapshots_read(file, header, &snapshots, err);
    if (result)
        return result;
    const struct qcow2_snapshot *snapshot = qcow2_snapshots_find(&snapshots, id_or_name);
    result = snapshot ? check_l1(header, snapshot, err)
                      : error_set(err, ENOENT, "Failed to load snapshot: Can't find snapshot");
    if (!result) {
        header->l1_offset = snapshot->l1_offset;
        header->l1_entries = snapshot->l1_entries;
        header->size_bytes = snapshot->disk_bytes;
    }
    qcow2_snapshots_free(&snapshots);
    return result;
}
