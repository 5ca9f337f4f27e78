/* SPDX-License-Identifier: MIT */
/*
 * qcow2_snapshot: snapshots share clusters by their reference counts.
 *
 * Theory of operation. A snapshot is a copy of the L1 table; every L2 table and cluster below it
 * has one more reference. Increments become durable before anything refers to what they protect;
 * one write of the header's first sector switches; decrements come after it. The COPIED flags of
 * the active tables say "my reference is the only one": they are cleared after increments and set
 * after decrements, from the counts. All space is taken from the host before the first of them: a
 * full host leaves the file as it was. What fails between there and the switch is taken back.
 */
#include "disk/qcow2/qcow2_snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_edit.h"
#include "disk/qcow2/qcow2_snapshots.h"
#include "disk/qcow2/qcow2_rule.h"

#define NAME_BYTES_MAX 255

struct session {
    struct qcow2_edit edit;
    struct qcow2_snapshots snapshots;
    struct qcow2_edit_region new_l1, new_table; /* taken for this change; 0 bytes: not needed */
    uint8_t *l2;                                /* scratch */
};

struct l1 {
    uint64_t *entries;
    uint32_t count;
};

static int session_open(struct io_file *file, const char *path, struct session *session,
                        struct error *err)
{
    memset(session, 0, sizeof(*session));
    int result = qcow2_edit_open(file, path, &session->edit, err);
    if (result)
        return result;
    session->l2 = malloc(session->edit.cluster_bytes);
    result = session->l2
                 ? qcow2_snapshots_read(file, &session->edit.header, &session->snapshots, err)
                 : error_set(err, ENOMEM, "out of memory");
    if (result) {
        error_prefix(err, "image '%s'", path);
        free(session->l2);
        qcow2_edit_close(&session->edit);
    }
    return result;
}

static void session_close(struct session *session)
{
    qcow2_snapshots_free(&session->snapshots);
    qcow2_edit_close(&session->edit);
    free(session->l2);
}

/* --- L1 tables --- */

static int read_l1(struct session *session, uint64_t offset, uint32_t entries, struct l1 *out,
                   struct error *err)
{
    uint64_t bytes = (uint64_t)entries * 8;
    if (bytes > QCOW2_L1_BYTES_MAX || !is_aligned(offset, session->edit.cluster_bytes))
        return error_set(err, EIO, "'%s' is corrupt: bad L1 table; run evisor-img check",
                         session->edit.path);
    out->count = entries;
    out->entries = malloc(bytes + 8);
    if (!out->entries)
        return error_set(err, ENOMEM, "out of memory for an L1 table");
    int result = qcow2_edit_read(&session->edit, offset, out->entries, bytes, err);
    for (uint32_t i = 0; i < entries; i++)
        out->entries[i] = load_be64(&out->entries[i]);
    return result;
}

/* Without COPIED flags: who takes it over decides on those. */
static int write_l1(struct session *session, uint64_t offset, const struct l1 *l1, uint32_t count,
                    uint64_t keep, struct error *err)
{
    uint64_t *table = calloc((size_t)count + 1, 8);
    if (!table)
        return error_set(err, ENOMEM, "out of memory for an L1 table");
    for (uint32_t i = 0; i < count && i < l1->count; i++)
        store_be64(&table[i], l1->entries[i] & (QCOW2_ENTRY_OFFSET_MASK | keep));
    int result = qcow2_edit_write(&session->edit, offset, table, (uint64_t)count * 8, err);
    free(table);
    return result;
}

static uint64_t entry_bytes(const struct session *session)
{
    return qcow2_has_extended_l2(&session->edit.header) ? 16 : 8;
}

static int ref_entry(struct session *session, uint64_t entry, int delta, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    if (entry & QCOW2_ENTRY_COMPRESSED) {
        unsigned shift = 62 - (edit->header.cluster_bits - 8);
        uint64_t offset = entry & ((UINT64_C(1) << shift) - 1);
        uint64_t sectors = (entry & (QCOW2_ENTRY_COMPRESSED - 1)) >> shift;
        return qcow2_edit_ref(edit, offset, (sectors + 1) * 512 - (offset & 511), delta, err);
    }
    uint64_t offset = entry & QCOW2_ENTRY_OFFSET_MASK;
    return offset ? qcow2_edit_ref(edit, offset, edit->cluster_bytes, delta, err) : 0;
}

/* One reference more or less to all that an L1 table reaches. */
static int ref_all(struct session *session, const struct l1 *l1, int delta, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    for (uint32_t i = 0; i < l1->count; i++) {
        uint64_t l2 = l1->entries[i] & QCOW2_ENTRY_OFFSET_MASK;
        if (!l2)
            continue;
        int result = qcow2_edit_read(edit, l2, session->l2, edit->cluster_bytes, err);
        for (uint64_t at = 0; at < edit->cluster_bytes && !result; at += entry_bytes(session))
            result = ref_entry(session, load_be64(session->l2 + at), delta, err);
        if (!result)
            result = qcow2_edit_ref(edit, l2, edit->cluster_bytes, delta, err);
        if (result)
            return result;
    }
    return 0;
}

static uint64_t with_copied(const struct session *session, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_ENTRY_OFFSET_MASK;
    if (!offset || entry & QCOW2_ENTRY_COMPRESSED)
        return entry;
    bool is_only = qcow2_edit_count(&session->edit, offset) == 1;
    return is_only ? entry | QCOW2_ENTRY_COPIED : entry & ~QCOW2_ENTRY_COPIED;
}

static int set_copied_in_l2(struct session *session, uint64_t l2, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    bool changed = false;
    int result = qcow2_edit_read(edit, l2, session->l2, edit->cluster_bytes, err);
    for (uint64_t at = 0; at < edit->cluster_bytes && !result; at += entry_bytes(session)) {
        uint64_t entry = load_be64(session->l2 + at);
        uint64_t right = with_copied(session, entry);
        changed |= right != entry;
        store_be64(session->l2 + at, right);
    }
    if (!result && changed)
        result = qcow2_edit_write(edit, l2, session->l2, edit->cluster_bytes, err);
    return result;
}

/* Makes the flags of the active tables agree with the counts. */
static int set_copied(struct session *session, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    struct l1 l1 = {0};
    int result = read_l1(session, edit->header.l1_offset, edit->header.l1_entries, &l1, err);
    for (uint32_t i = 0; i < l1.count && !result; i++) {
        uint64_t l2 = l1.entries[i] & QCOW2_ENTRY_OFFSET_MASK;
        l1.entries[i] = with_copied(session, l1.entries[i]);
        if (l2)
            result = set_copied_in_l2(session, l2, err);
    }
    if (!result)
        result = write_l1(session, edit->header.l1_offset, &l1, l1.count, QCOW2_ENTRY_COPIED, err);
    if (!result)
        result = qcow2_edit_sync(edit, err);
    free(l1.entries);
    return result;
}

/* --- the table --- */

/* Reserves room for the table as it is in memory. */
static int reserve_table(struct session *session, struct error *err)
{
    struct qcow2_edit_region *table = &session->new_table;
    table->bytes = qcow2_snapshots_bytes(&session->snapshots);
    if (table->bytes > QCOW2_SNAPSHOT_TABLE_BYTES_MAX)
        return error_set(err, EFBIG, "'%s': too many snapshots; delete some", session->edit.path);
    return table->bytes ? qcow2_edit_alloc(&session->edit, table->bytes, &table->offset, err) : 0;
}

static int write_table(struct session *session, struct error *err)
{
    const struct qcow2_edit_region *table = &session->new_table;
    uint8_t *bytes = malloc(table->bytes + 1);
    if (!bytes)
        return error_set(err, ENOMEM, "out of memory for the snapshot table");
    qcow2_snapshots_serialise(&session->snapshots, bytes);
    int result = qcow2_edit_write(&session->edit, table->offset, bytes, table->bytes, err);
    free(bytes);
    return result;
}

/* Switches to the table, and gives the old one back in memory. */
static int switch_table(struct session *session, uint64_t old_bytes, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    uint64_t old_offset = edit->header.snapshots_offset;
    edit->header.snapshots_offset = session->new_table.offset;
    edit->header.snapshot_count = (uint32_t)session->snapshots.count;
    int result = qcow2_edit_write_header(edit, err);
    return result ? result : qcow2_edit_ref(edit, old_offset, old_bytes, -1, err);
}

/* --- failing --- */

/*
 * Nothing points to what was to come: the counts that were raised for it go down again, and the
 * flags follow. What the medium does not take of that is leaked. -EIO if nobody knows what is on
 * the medium, which then is left alone; `result` otherwise.
 */
static int take_back(struct session *session, const struct l1 *l1, int result)
{
    struct qcow2_edit *edit = &session->edit;
    const struct qcow2_edit_region *new_l1 = &session->new_l1, *table = &session->new_table;
    if (result == -EIO)
        return result;
    int failed = l1 ? ref_all(session, l1, -1, NULL) : 0;
    if (!failed)
        failed = qcow2_edit_ref(edit, new_l1->offset, new_l1->bytes, -1, NULL);
    if (!failed)
        failed = qcow2_edit_ref(edit, table->offset, table->bytes, -1, NULL);
    if (!failed)
        failed = qcow2_edit_flush(edit, NULL);
    if (!failed)
        failed = set_copied(session, NULL);
    if (!failed)
        qcow2_edit_cut(edit);
    return failed == -EIO ? failed : result;
}

/* After the switch there is no way back, and what is still to be done needs no new space: a medium
 * that has none for it either cannot be written to at all. */
static int after_switch(int result)
{
    return result == -ENOSPC || result == -EDQUOT ? -EIO : result;
}

/* --- create --- */

static char *new_id(const struct qcow2_snapshots *snapshots)
{
    unsigned long highest = 0;
    char text[24];
    for (size_t i = 0; i < snapshots->count; i++) {
        unsigned long id = strtoul(snapshots->list[i].id, NULL, 10);
        highest = MAX(highest, id);
    }
    snprintf(text, sizeof(text), "%lu", highest + 1);
    return strdup(text);
}

static int append(struct session *session, const struct qcow2_snapshot_new *new, struct error *err)
{
    const char *name = new->name;
    struct qcow2_snapshots *snapshots = &session->snapshots;
    struct timespec now;
    if (strlen(name) > NAME_BYTES_MAX)
        return error_set(err, EINVAL, "the name is longer than %d bytes", NAME_BYTES_MAX);
    if (snapshots->count >= QCOW2_SNAPSHOTS_MAX)
        return error_set(err, EFBIG, "'%s': too many snapshots; delete some", session->edit.path);
    struct qcow2_snapshot *list = realloc(snapshots->list, (snapshots->count + 1) * sizeof(*list));
    if (!list)
        return error_set(err, ENOMEM, "out of memory for the snapshot table");
    snapshots->list = list;
    clock_gettime(CLOCK_REALTIME, &now);
    char *id = new_id(snapshots);
    list[snapshots->count++] = (struct qcow2_snapshot){
        .l1_entries = session->edit.header.l1_entries,
        .date_sec = (uint32_t)now.tv_sec,
        .date_nsec = (uint32_t)now.tv_nsec,
        .disk_bytes = session->edit.header.size_bytes,
        .vm_clock_ns = new->vm_clock_ns,
        .vmstate_bytes = new->vmstate_bytes,
        .id = id,
        .name = strdup(name),
    };
    return id && list[snapshots->count - 1].name ? 0 : error_set(err, ENOMEM, "out of memory");
}

/* In memory, and room for all of it on the medium. */
static int prepare_create(struct session *session, const struct l1 *l1, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    struct qcow2_edit_region *new_l1 = &session->new_l1;
    new_l1->bytes = MAX((uint64_t)l1->count * 8, 1);
    int result = ref_all(session, l1, 1, err);
    if (!result)
        result = qcow2_edit_alloc(edit, new_l1->bytes, &new_l1->offset, err);
    session->snapshots.list[session->snapshots.count - 1].l1_offset = new_l1->offset;
    if (!result)
        result = reserve_table(session, err);
    return result ? result : qcow2_edit_reserve(edit, err);
}

/* All that must be on the medium before the header's switch. */
static int write_create(struct session *session, const struct l1 *l1, struct error *err)
{
    int result = qcow2_edit_flush(&session->edit, err);
    if (!result && qcow2_rule(SNAPSHOT_COPIED_FIRST))
        result = set_copied(session, err);
    if (!result)
        result = write_l1(session, session->new_l1.offset, l1, l1->count, 0, err);
    if (!result)
        result = write_table(session, err);
    return result ? take_back(session, l1, result) : 0;
}

static int create(struct session *session, const struct qcow2_snapshot_new *new, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    struct l1 l1 = {0};
    uint64_t old_bytes = session->snapshots.table_bytes;
    int result = append(session, new, err);
    if (!result)
        result = read_l1(session, edit->header.l1_offset, edit->header.l1_entries, &l1, err);
    if (!result)
        result = prepare_create(session, &l1, err);
    if (!result)
        result = write_create(session, &l1, err);
    if (!result)
        result = switch_table(session, old_bytes, err);
    if (!result)
        result = after_switch(qcow2_edit_flush(edit, err));
    free(l1.entries);
    return result;
}

int qcow2_snapshot_create_with(struct io_file *file, const char *path,
                               const struct qcow2_snapshot_new *new, struct error *err)
{
    struct session session;
    int result = session_open(file, path, &session, err);
    if (result)
        return result;
    result = create(&session, new, err);
    session_close(&session);
    return result;
}

int qcow2_snapshot_create(struct io_file *file, const char *path, const char *name,
                          struct error *err)
{
    const struct qcow2_snapshot_new new = {.name = name};
    return qcow2_snapshot_create_with(file, path, &new, err);
}

/* --- delete --- */

static void drop_from_list(struct qcow2_snapshots *snapshots, struct qcow2_snapshot *snapshot)
{
    size_t index = (size_t)(snapshot - snapshots->list);
    qcow2_snapshot_fini(snapshot);
    memmove(snapshot, snapshot + 1, (snapshots->count - index - 1) * sizeof(*snapshot));
    snapshots->count--;
}

/* The table without it: all that must be on the medium before the header's switch. */
static int write_shorter_table(struct session *session, struct error *err)
{
    int result = reserve_table(session, err);
    if (!result)
        result = qcow2_edit_reserve(&session->edit, err);
    if (result)
        return result;
    result = qcow2_edit_flush(&session->edit, err);
    if (!result)
        result = write_table(session, err);
    return result ? take_back(session, NULL, result) : 0;
}

static int release(struct session *session, const struct l1 *l1, uint64_t l1_offset,
                   struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    int result = ref_all(session, l1, -1, err);
    if (!result)
        result = qcow2_edit_ref(edit, l1_offset, (uint64_t)l1->count * 8, -1, err);
    if (!result)
        result = qcow2_edit_flush(edit, err);
    if (!result)
        result = set_copied(session, err);
    return after_switch(result);
}

static int delete (struct session *session, struct qcow2_snapshot *snapshot, struct error *err)
{
    uint64_t old_bytes = session->snapshots.table_bytes, l1_offset = snapshot->l1_offset;
    struct l1 l1 = {0};
    int result = read_l1(session, l1_offset, snapshot->l1_entries, &l1, err);
    drop_from_list(&session->snapshots, snapshot);
    if (!result)
        result = write_shorter_table(session, err);
    if (!result)
        result = switch_table(session, old_bytes, err);
    if (!result)
        result = release(session, &l1, l1_offset, err);
    free(l1.entries);
    return result;
}

/* Opens the image and finds the snapshot. */
static int with_snapshot(struct io_file *file, const char *path, const char *id_or_name,
                         int (*act)(struct session *session, struct qcow2_snapshot *snapshot,
                                    struct error *err),
                         struct error *err)
{
    struct session session;
    int result = session_open(file, path, &session, err);
    if (result)
        return result;
    struct qcow2_snapshot *snapshot = qcow2_snapshots_find(&session.snapshots, id_or_name);
    result = snapshot ? act(&session, snapshot, err) : -ENOENT;
    session_close(&session);
    return result;
}

int qcow2_snapshot_delete(struct io_file *file, const char *path, const char *id_or_name,
                          struct error *err)
{
    return with_snapshot(file, path, id_or_name, delete, err);
}

/* --- apply --- */

/* How many entries `l1` has as the active table of a disk of that size. */
static int active_entries(struct session *session, const struct l1 *l1, uint64_t size_bytes,
                          uint32_t *out, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    uint64_t needed = qcow2_l1_entries_for(&edit->header, size_bytes);
    if (size_bytes > (uint64_t)INT64_MAX || needed > QCOW2_L1_BYTES_MAX / 8)
        return error_set(err, EIO, "'%s' is corrupt: bad size of a snapshot", edit->path);
    *out = MAX((uint32_t)needed, l1->count);
    return 0;
}

/* A copy of `l1`, with its references: all that must be on the medium before the switch. */
static int write_new_l1(struct session *session, const struct l1 *l1, uint32_t count,
                        struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    struct qcow2_edit_region *new_l1 = &session->new_l1;
    new_l1->bytes = (uint64_t)count * 8;
    int result = ref_all(session, l1, 1, err);
    if (!result && count)
        result = qcow2_edit_alloc(edit, new_l1->bytes, &new_l1->offset, err);
    if (!result)
        result = qcow2_edit_reserve(edit, err);
    if (result)
        return result;
    result = qcow2_edit_flush(edit, err);
    if (!result)
        result = write_l1(session, new_l1->offset, l1, count, 0, err);
    return result ? take_back(session, l1, result) : 0;
}

/* Makes the new table the active one of a disk of that size. */
static int switch_l1(struct session *session, const struct l1 *old, uint32_t count,
                     uint64_t size_bytes, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    uint64_t old_offset = edit->header.l1_offset;
    edit->header.l1_offset = session->new_l1.offset;
    edit->header.l1_entries = count;
    edit->header.size_bytes = size_bytes;
    int result = qcow2_edit_write_header(edit, err);
    return result ? result : release(session, old, old_offset, err);
}

static int apply(struct session *session, struct qcow2_snapshot *snapshot, struct error *err)
{
    const struct qcow2_header *header = &session->edit.header;
    uint64_t size_bytes = align_up(snapshot->disk_bytes, 512);
    uint32_t count = 0;
    struct l1 l1 = {0}, old = {0};
    int result = read_l1(session, snapshot->l1_offset, snapshot->l1_entries, &l1, err);
    if (!result)
        result = read_l1(session, header->l1_offset, header->l1_entries, &old, err);
    if (!result)
        result = active_entries(session, &l1, size_bytes, &count, err);
    if (!result)
        result = write_new_l1(session, &l1, count, err);
    if (!result)
        result = switch_l1(session, &old, count, size_bytes, err);
    free(l1.entries);
    free(old.entries);
    return result;
}

int qcow2_snapshot_apply(struct io_file *file, const char *path, const char *id_or_name,
                         struct error *err)
{
    return with_snapshot(file, path, id_or_name, apply, err);
}

/* Gives the space behind the last cluster in use back to the host. */
static int cut_tail(struct session *session, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    uint64_t clusters = edit->clusters, length = 0;
    int result = io_length(edit->file, &length);
    while (clusters && !edit->counts[clusters - 1])
        clusters--;
    if (!result && clusters << edit->header.cluster_bits < length)
        result = io_truncate_now(edit->file, clusters << edit->header.cluster_bits);
    return result ? error_set_errno(err, -result, "Could not shorten '%s'", edit->path) : 0;
}

/* The table is zeroed where it is: every entry that is gone already shows the backing file. */
static int empty_disk(struct session *session, struct error *err)
{
    struct qcow2_edit *edit = &session->edit;
    const struct l1 nothing = {0};
    struct l1 old = {0};
    uint32_t count = edit->header.l1_entries;
    int result = read_l1(session, edit->header.l1_offset, count, &old, err);
    if (!result)
        result = write_l1(session, edit->header.l1_offset, &nothing, count, 0, err);
    if (!result)
        result = qcow2_edit_write_header(edit, err);
    if (!result)
        result = ref_all(session, &old, -1, err);
    if (!result)
        result = qcow2_edit_flush(edit, err);
    if (!result)
        result = cut_tail(session, err);
    free(old.entries);
    return result;
}

int qcow2_snapshot_empty_disk(struct io_file *file, const char *path, struct error *err)
{
    struct session session;
    int result = session_open(file, path, &session, err);
    if (result)
        return result;
    result = empty_disk(&session, err);
    session_close(&session);
    return result;
}
