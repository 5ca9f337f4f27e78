/* SPDX-License-Identifier: MIT */
/*
 * qcow2_bitmap_store: new tables and a new directory are written beside the old ones, then the
 * header is switched over, then the old ones are given back. Bitmaps that did not change keep their
 * tables. Order: counts, barrier, data and tables and directory, barrier, header, barrier, counts.
 */
#include "disk/qcow2/qcow2_bitmap_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/dirty.h"
#include "disk/qcow2/qcow2_bitmaps.h"
#include "disk/qcow2/qcow2_edit.h"
#include "disk/qcow2/qcow2_rule.h"

#define SECTOR              512u
#define ALL_ONES            UINT64_C(1) /* a table entry without a cluster */
#define DIRECTORY_BYTES_MAX ((uint64_t)QCOW2_BITMAPS_MAX * 1024)

/* A bitmap on its way into the file. */
struct entry {
    const struct dirty_bitmap *bitmap;
    const struct qcow2_bitmap *old; /* that keeps its table; else NULL */
    uint64_t *table;                /* of the new one */
    uint64_t table_offset;
    uint32_t table_entries;
};

struct store {
    struct qcow2_edit edit;
    struct qcow2_bitmaps old;
    struct entry *entries;
    size_t count;
    uint8_t *directory;
    uint64_t directory_bytes, directory_offset;
    uint64_t old_directory_bytes, old_directory_offset;
    uint8_t *cluster;
};

/* --- the directory --- */

static uint64_t entry_bytes(const char *name)
{
    return align_up(QCOW2_BITMAP_FIXED_BYTES + strlen(name), 8);
}

static uint8_t *put_entry(uint8_t *at, const struct entry *entry)
{
    const struct dirty_bitmap *bitmap = entry->bitmap;
    uint32_t flags = bitmap->enabled ? QCOW2_BITMAP_AUTO : 0;
    if (bitmap->inconsistent)
        flags = QCOW2_BITMAP_IN_USE | (entry->old ? entry->old->flags : 0);
    store_be64(at + QCOW2_BITMAP_TABLE_OFFSET, entry->table_offset);
    store_be32(at + QCOW2_BITMAP_TABLE_SIZE, entry->table_entries);
    store_be32(at + QCOW2_BITMAP_FLAGS, flags);
    at[QCOW2_BITMAP_TYPE] = 1;
    at[QCOW2_BITMAP_GRANULARITY_BITS] = (uint8_t)bitmap->granularity_bits;
    store_be16(at + QCOW2_BITMAP_NAME_BYTES, (uint16_t)strlen(bitmap->name));
    memcpy(at + QCOW2_BITMAP_FIXED_BYTES, bitmap->name, strlen(bitmap->name));
    return at + entry_bytes(bitmap->name);
}

static int build_directory(struct store *store, struct error *err)
{
    for (size_t i = 0; i < store->count; i++)
        store->directory_bytes += entry_bytes(store->entries[i].bitmap->name);
    store->directory = calloc(1, store->directory_bytes + 1);
    if (!store->directory)
        return error_set(err, ENOMEM, "out of memory for the bitmap directory");
    uint8_t *at = store->directory;
    for (size_t i = 0; i < store->count; i++)
        at = put_entry(at, &store->entries[i]);
    return 0;
}

int qcow2_bitmaps_set_in_use(struct io_file *file, const struct qcow2_header *header,
                             struct error *err)
{
    uint64_t bytes = header->bitmaps.directory_bytes, at = 0;
    uint8_t *directory = malloc(bytes + 1);
    if (!directory)
        return error_set(err, ENOMEM, "out of memory for the bitmap directory");
    int result = io_read_now(file, header->bitmaps.directory_offset, directory, bytes);
    for (uint32_t i = 0; i < header->bitmaps.count && !result; i++) {
        uint8_t *entry = directory + at;
        if (bytes - at < QCOW2_BITMAP_FIXED_BYTES) {
            result = -EINVAL;
            break;
        }
        store_be32(entry + QCOW2_BITMAP_FLAGS,
                   load_be32(entry + QCOW2_BITMAP_FLAGS) | QCOW2_BITMAP_IN_USE);
        at += align_up(QCOW2_BITMAP_FIXED_BYTES + load_be16(entry + QCOW2_BITMAP_NAME_BYTES) +
                           (uint64_t)load_be32(entry + QCOW2_BITMAP_EXTRA_BYTES),
                       8);
        if (at > bytes)
            result = -EINVAL;
    }
    if (!result)
        result = io_write_now(file, header->bitmaps.directory_offset, directory, bytes);
    if (!result && qcow2_rule(BITMAPS_IN_USE))
        result = io_sync_now(file);
    free(directory);
    return result ? error_set_errno(err, -result, "Could not mark bitmaps as in use") : 0;
}

/* --- planning: what each bitmap needs --- */

static const struct qcow2_bitmap *find_old(const struct store *store, const char *name)
{
    for (size_t i = 0; i < store->old.count; i++)
        if (!strcmp(store->old.list[i].name, name))
            return &store->old.list[i];
    return NULL;
}

static bool is_all(const uint8_t *bytes, uint64_t length, int value)
{
    return bytes[0] == value && !memcmp(bytes, bytes + 1, length - 1);
}

/* 0 or ALL_ONES if no cluster is needed; past the end of the bits anything may stand. */
static uint64_t trivial_entry(const struct store *store, uint64_t length, bool *is_trivial)
{
    bool zeroes = is_all(store->cluster, length, 0), ones = is_all(store->cluster, length, 0xff);
    *is_trivial = zeroes || ones;
    return ones ? ALL_ONES : 0;
}

static int plan_table(struct store *store, struct entry *entry, struct error *err)
{
    struct qcow2_edit *edit = &store->edit;
    uint64_t bytes = dirty_bitmap_bytes(entry->bitmap), cluster_bytes = edit->cluster_bytes;
    entry->table_entries = (uint32_t)qcow2_bitmap_clusters(&edit->header, entry->bitmap);
    entry->table = calloc(entry->table_entries + 1, sizeof(entry->table[0]));
    if (!entry->table)
        return error_set(err, ENOMEM, "out of memory for bitmap '%s'", entry->bitmap->name);
    int result = 0;
    for (uint64_t i = 0; i < entry->table_entries && !result; i++) {
        bool is_trivial;
        dirty_bitmap_save(entry->bitmap, i * cluster_bytes, store->cluster, cluster_bytes);
        entry->table[i] =
            trivial_entry(store, MIN(cluster_bytes, bytes - i * cluster_bytes), &is_trivial);
        if (!is_trivial)
            result = qcow2_edit_alloc(edit, cluster_bytes, &entry->table[i], err);
    }
    if (!result && entry->table_entries)
        result =
            qcow2_edit_alloc(edit, (uint64_t)entry->table_entries * 8, &entry->table_offset, err);
    return result;
}

static int plan_entry(struct store *store, const struct dirty_bitmap *bitmap, struct error *err)
{
    struct entry *entry = &store->entries[store->count++];
    const struct qcow2_bitmap *old = find_old(store, bitmap->name);
    entry->bitmap = bitmap;
    if (!old || (bitmap->changed && !bitmap->inconsistent))
        return plan_table(store, entry, err);
    entry->old = old;
    entry->table_offset = old->table_offset;
    entry->table_entries = old->table_entries;
    return 0;
}

static int plan(struct store *store, const struct list *bitmaps, struct error *err)
{
    size_t count = 0;
    int result = 0;
    list_for_each(node, bitmaps) count++;
    store->entries = calloc(count + 1, sizeof(store->entries[0]));
    store->cluster = malloc(store->edit.cluster_bytes);
    if (!store->entries || !store->cluster)
        return error_set(err, ENOMEM, "out of memory for bitmaps");
    list_for_each(node, bitmaps)
    {
        const struct dirty_bitmap *bitmap = list_entry(node, struct dirty_bitmap, node);
        if (!result && bitmap->persistent)
            result = plan_entry(store, bitmap, err);
    }
    if (!result)
        result = build_directory(store, err);
    if (!result && store->count)
        result =
            qcow2_edit_alloc(&store->edit, store->directory_bytes, &store->directory_offset, err);
    return result;
}

/* --- writing --- */

static int write_table(struct store *store, const struct entry *entry, struct error *err)
{
    struct qcow2_edit *edit = &store->edit;
    uint64_t cluster_bytes = edit->cluster_bytes;
    int result = 0;
    for (uint64_t i = 0; i < entry->table_entries && !result; i++) {
        uint64_t offset = entry->table[i] & ~ALL_ONES;
        if (offset) {
            dirty_bitmap_save(entry->bitmap, i * cluster_bytes, store->cluster, cluster_bytes);
            result = qcow2_edit_write(edit, offset, store->cluster, cluster_bytes, err);
        }
        store_be64(&entry->table[i], entry->table[i]);
    }
    if (!result)
        result = qcow2_edit_write(edit, entry->table_offset, entry->table,
                                  (uint64_t)entry->table_entries * 8, err);
    return result;
}

static int write_all(struct store *store, struct error *err)
{
    int result = qcow2_edit_flush(&store->edit, err);
    for (size_t i = 0; i < store->count && !result; i++)
        if (!store->entries[i].old)
            result = write_table(store, &store->entries[i], err);
    if (!result && store->count)
        result = qcow2_edit_write(&store->edit, store->directory_offset, store->directory,
                                  store->directory_bytes, err);
    return result || !qcow2_rule(BITMAPS_FIRST) ? result : qcow2_edit_sync(&store->edit, err);
}

static int write_sector(struct store *store, const uint8_t *header, uint64_t at, struct error *err)
{
    int result = qcow2_edit_write(&store->edit, at, header + at, SECTOR, err);
    return result ? result : qcow2_edit_sync(&store->edit, err);
}

/* The header as it was, but for sector 0: bitmaps do not count, the backing file's name is where
 * the new header has it. */
static int write_interim(struct store *store, uint8_t *old, const uint8_t *new, struct error *err)
{
    store_be64(old + QCOW2_OFF_AUTOCLEAR,
               load_be64(old + QCOW2_OFF_AUTOCLEAR) & ~QCOW2_AUTOCLEAR_BITMAPS);
    store_be64(old + QCOW2_OFF_BACKING_OFFSET, load_be64(new + QCOW2_OFF_BACKING_OFFSET));
    return write_sector(store, old, 0, err);
}

/* Where extensions grow, the name behind them moves. It goes to where neither header has anything,
 * and is there before anything points to it. */
static int move_name(struct store *store, const uint8_t *old, uint8_t *new, struct error *err)
{
    uint64_t from = load_be64(new + QCOW2_OFF_BACKING_OFFSET);
    uint64_t bytes = load_be32(new + QCOW2_OFF_BACKING_BYTES);
    uint64_t was_at = load_be64(old + QCOW2_OFF_BACKING_OFFSET);
    uint64_t to = align_up(MAX(from, was_at) + bytes, SECTOR);
    int result = 0;
    if (!from || from == was_at || to + bytes > store->edit.cluster_bytes)
        return 0;
    memcpy(new + to, new + from, bytes);
    store_be64(new + QCOW2_OFF_BACKING_OFFSET, to);
    store->edit.header.backing_offset = to;
    for (uint64_t at = to; at < to + bytes && !result; at += SECTOR)
        result = write_sector(store, new, at, err);
    return result;
}

/* An extension is there before sector 0 or a pointer to it says so, and goes after that. */
static int write_in_order(struct store *store, uint8_t *old, uint8_t *new, struct error *err)
{
    uint64_t autoclear = load_be64(new + QCOW2_OFF_AUTOCLEAR);
    uint64_t sectors = store->edit.cluster_bytes / SECTOR;
    bool is_growing = store->count != 0;
    int result = move_name(store, old, new, err);
    if (!result)
        result = write_interim(store, old, new, err);
    store_be64(new + QCOW2_OFF_AUTOCLEAR, autoclear & ~QCOW2_AUTOCLEAR_BITMAPS);
    for (uint64_t i = 0; i < sectors && !result; i++) {
        uint64_t at = (is_growing ? sectors - 1 - i : i) * SECTOR;
        if (memcmp(old + at, new + at, SECTOR))
            result = write_sector(store, new, at, err);
    }
    store_be64(new + QCOW2_OFF_AUTOCLEAR, autoclear);
    if (!result && autoclear & QCOW2_AUTOCLEAR_BITMAPS)
        result = write_sector(store, new, 0, err);
    return result;
}

/* Writes a header that differs in one sector at once; else bitmaps do not count while its parts are
 * written. */
static int write_header(struct store *store, uint8_t *old, uint8_t *new, struct error *err)
{
    uint64_t differs = 0, last = 0;
    for (uint64_t at = 0; at < store->edit.cluster_bytes; at += SECTOR)
        if (memcmp(old + at, new + at, SECTOR)) {
            differs++;
            last = at;
        }
    if (!differs)
        return 0;
    return differs == 1 ? write_sector(store, new, last, err)
                        : write_in_order(store, old, new, err);
}

static int switch_over(struct store *store, struct error *err)
{
    struct qcow2_header *header = &store->edit.header;
    uint64_t bytes = store->edit.cluster_bytes;
    uint8_t *old = malloc(bytes), *new = malloc(bytes);
    int result = old && new ? qcow2_edit_read(&store->edit, 0, old, bytes, err)
                            : error_set(err, ENOMEM, "out of memory for the image header");
    header->has_bitmaps = store->count != 0;
    header->bitmaps.count = (uint32_t)store->count;
    header->bitmaps.directory_bytes = store->directory_bytes;
    header->bitmaps.directory_offset = store->directory_offset;
    header->autoclear &= QCOW2_AUTOCLEAR_KNOWN & ~QCOW2_AUTOCLEAR_BITMAPS;
    if (store->count)
        header->autoclear |= QCOW2_AUTOCLEAR_BITMAPS;
    if (!result)
        result = qcow2_header_serialise(header, new, err);
    if (!result)
        result = write_header(store, old, new, err);
    free(old);
    free(new);
    return result;
}

/* --- giving back --- */

static bool is_kept(const struct store *store, const struct qcow2_bitmap *old)
{
    for (size_t i = 0; i < store->count; i++)
        if (store->entries[i].old == old)
            return true;
    return false;
}

static int release_table(struct store *store, const struct qcow2_bitmap *old, struct error *err)
{
    struct qcow2_edit *edit = &store->edit;
    uint64_t *table;
    int result = qcow2_bitmap_table_read(edit->file, old, &table, err);
    if (result)
        return result;
    for (uint32_t i = 0; i < old->table_entries && !result; i++)
        if (table[i] & QCOW2_BITMAP_OFFSET_MASK)
            result = qcow2_edit_ref(edit, table[i] & QCOW2_BITMAP_OFFSET_MASK, edit->cluster_bytes,
                                    -1, err);
    free(table);
    if (!result)
        result = qcow2_edit_ref(edit, old->table_offset, (uint64_t)old->table_entries * 8, -1, err);
    return result;
}

static int release_old(struct store *store, struct error *err)
{
    int result = qcow2_edit_ref(&store->edit, store->old_directory_offset,
                                store->old_directory_bytes, -1, err);
    for (size_t i = 0; i < store->old.count && !result; i++)
        if (!is_kept(store, &store->old.list[i]))
            result = release_table(store, &store->old.list[i], err);
    return result ? result : qcow2_edit_flush(&store->edit, err);
}

/* --- all of it --- */

static int read_old(struct store *store, struct error *err)
{
    const struct qcow2_header *header = &store->edit.header;
    if (!header->has_bitmaps || !(header->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return 0; /* what there is counts for nothing, and leaks until the next check */
    store->old_directory_bytes = header->bitmaps.directory_bytes;
    store->old_directory_offset = header->bitmaps.directory_offset;
    return qcow2_bitmaps_read(store->edit.file, header, &store->old, err);
}

static void store_fini(struct store *store)
{
    for (size_t i = 0; i < store->count; i++)
        free(store->entries[i].table);
    free(store->entries);
    free(store->directory);
    free(store->cluster);
    qcow2_bitmaps_free(&store->old);
    qcow2_edit_close(&store->edit);
}

/* From here on the file is not what it was, whatever fails. */
static int change(struct store *store, struct error *err)
{
    int result = write_all(store, err);
    if (!result)
        result = switch_over(store, err);
    if (!result)
        result = release_old(store, err);
    return result ? -EIO : 0;
}

int qcow2_bitmaps_store(struct io_file *file, const char *path, const struct list *bitmaps,
                        struct error *err)
{
    struct store store = {0};
    int result = qcow2_edit_open_tables(file, path, &store.edit, err);
    if (result)
        return result;
    result = read_old(&store, err);
    if (!result)
        result = plan(&store, bitmaps, err);
    if (!result)
        result = qcow2_edit_reserve(&store.edit, err);
    if (!result)
        result = change(&store, err);
    store_fini(&store);
    return result;
}

/* --- what can be stored --- */

static int check_granularity(uint64_t size_bytes, uint64_t granularity_bytes, struct error *err)
{
    uint64_t most = UINT64_C(1) << DIRTY_GRANULARITY_BITS_MAX;
    uint64_t least = UINT64_C(1) << DIRTY_GRANULARITY_BITS_MIN;
    if (granularity_bytes > most)
        return error_set(err, EINVAL, "Granularity exceeds maximum (%llu bytes)",
                         (unsigned long long)most);
    if (granularity_bytes < least)
        return error_set(err, EINVAL, "Granularity is under minimum (%llu bytes)",
                         (unsigned long long)least);
    uint64_t bits = (size_bytes + granularity_bytes - 1) / granularity_bytes;
    if (bits / 8 > DIRTY_BYTES_MAX)
        return error_set(err, EINVAL,
                         "Too much space will be occupied by the bitmap. Use larger granularity");
    return 0;
}

int qcow2_bitmaps_check_new(const struct qcow2_header *header, uint64_t size_bytes,
                            const struct list *bitmaps, const char *name,
                            uint64_t granularity_bytes, struct error *err)
{
    uint64_t count = 0, bytes = 0;
    if (header->version < 3)
        return error_set(err, ENOTSUP, "Cannot store dirty bitmaps in qcow2 v2 files");
    list_for_each(node, bitmaps)
    {
        const struct dirty_bitmap *bitmap = list_entry(node, struct dirty_bitmap, node);
        if (!bitmap->persistent)
            continue;
        count++;
        bytes += entry_bytes(bitmap->name);
    }
    if (strlen(name) > DIRTY_NAME_MAX)
        return error_set(err, EINVAL, "Name length exceeds maximum (%u characters)",
                         DIRTY_NAME_MAX);
    if (count >= QCOW2_BITMAPS_MAX)
        return error_set(err, EINVAL, "Maximum number of persistent bitmaps is already reached");
    if (bytes + entry_bytes(name) > DIRECTORY_BYTES_MAX)
        return error_set(err, EINVAL, "Not enough space in the bitmap directory");
    return check_granularity(size_bytes, granularity_bytes, err);
}
