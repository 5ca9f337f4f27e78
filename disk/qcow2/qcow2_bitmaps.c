/* SPDX-License-Identifier: MIT */
/* qcow2_bitmaps: decodes the bitmap directory and tables; the header's bounds on the directory hold
 * already, all else is checked here. */
#include "disk/qcow2/qcow2_bitmaps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define TABLE_BYTES_MAX (UINT64_C(512) << 20)

static int decode_entry(const uint8_t *bytes, uint64_t room, uint64_t *used,
                        struct qcow2_bitmap *out, struct error *err)
{
    if (room < QCOW2_BITMAP_FIXED_BYTES)
        return error_set(err, EINVAL, "Bitmap directory is cut off");
    uint64_t name_bytes = load_be16(bytes + QCOW2_BITMAP_NAME_BYTES);
    uint64_t extra_bytes = load_be32(bytes + QCOW2_BITMAP_EXTRA_BYTES);
    *used = align_up(QCOW2_BITMAP_FIXED_BYTES + extra_bytes + name_bytes, 8);
    if (*used > room)
        return error_set(err, EINVAL, "Bitmap directory is cut off");
    out->table_offset = load_be64(bytes + QCOW2_BITMAP_TABLE_OFFSET);
    out->table_entries = load_be32(bytes + QCOW2_BITMAP_TABLE_SIZE);
    out->flags = load_be32(bytes + QCOW2_BITMAP_FLAGS);
    out->granularity_bits = bytes[QCOW2_BITMAP_GRANULARITY_BITS];
    out->extra_bytes = (uint32_t)extra_bytes;
    if (bytes[QCOW2_BITMAP_TYPE] != 1 || out->granularity_bits > DIRTY_GRANULARITY_BITS_MAX ||
        (uint64_t)out->table_entries * 8 > TABLE_BYTES_MAX)
        return error_set(err, EINVAL, "Bitmap directory entry is not valid");
    out->name = strndup((const char *)bytes + QCOW2_BITMAP_FIXED_BYTES + extra_bytes, name_bytes);
    return out->name ? 0 : error_set(err, ENOMEM, "out of memory for the bitmap directory");
}

static int decode(const uint8_t *bytes, uint64_t length, uint32_t count, struct qcow2_bitmaps *out,
                  struct error *err)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t used = 0;
        int result = decode_entry(bytes + at, length - at, &used, &out->list[i], err);
        if (result)
            return result;
        out->count++;
        at += used;
    }
    if (at != length)
        return error_set(err, EINVAL, "Less bitmaps found than specified in header extension");
    return 0;
}

int qcow2_bitmaps_read(struct io_file *file, const struct qcow2_header *header,
                       struct qcow2_bitmaps *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    if (!header->has_bitmaps || !(header->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return 0;
    uint64_t length = header->bitmaps.directory_bytes;
    if ((uint64_t)header->bitmaps.count * QCOW2_BITMAP_FIXED_BYTES > length)
        return error_set(err, EINVAL, "Bitmap directory is cut off");
    uint8_t *bytes = malloc(length);
    out->list = calloc(header->bitmaps.count, sizeof(*out->list));
    int result = bytes && out->list ? 0 : error_set(err, ENOMEM, "out of memory for bitmaps");
    if (!result) {
        result = io_read_now(file, header->bitmaps.directory_offset, bytes, length);
        if (result)
            error_set_errno(err, -result, "Failed to read the bitmap directory");
    }
    if (!result)
        result = decode(bytes, length, header->bitmaps.count, out, err);
    free(bytes);
    if (result)
        qcow2_bitmaps_free(out);
    return result;
}

void qcow2_bitmaps_free(struct qcow2_bitmaps *bitmaps)
{
    for (size_t i = 0; i < bitmaps->count; i++)
        free(bitmaps->list[i].name);
    free(bitmaps->list);
    memset(bitmaps, 0, sizeof(*bitmaps));
}

/* --- bits --- */

uint64_t qcow2_bitmap_clusters(const struct qcow2_header *header, const struct dirty_bitmap *bitmap)
{
    return align_up(dirty_bitmap_bytes(bitmap), qcow2_cluster_bytes(header)) >>
           header->cluster_bits;
}

int qcow2_bitmap_table_read(struct io_file *file, const struct qcow2_bitmap *bitmap, uint64_t **out,
                            struct error *err)
{
    uint64_t bytes = (uint64_t)bitmap->table_entries * 8;
    uint64_t *table = malloc(bytes + 8);
    if (!table)
        return error_set(err, ENOMEM, "out of memory for bitmap '%s'", bitmap->name);
    int result = bytes ? io_read_now(file, bitmap->table_offset, table, bytes) : 0;
    if (result) {
        free(table);
        return error_set_errno(err, -result, "Could not read the table of bitmap '%s'",
                               bitmap->name);
    }
    for (uint32_t i = 0; i < bitmap->table_entries; i++)
        table[i] = load_be64(&table[i]);
    *out = table;
    return 0;
}

static int load_cluster(struct io_file *file, uint64_t entry, uint64_t cluster_bytes,
                        uint8_t *buffer, const char *name, struct error *err)
{
    uint64_t offset = entry & QCOW2_BITMAP_OFFSET_MASK;
    if (entry & QCOW2_BITMAP_ENTRY_RESERVED || !is_aligned(offset, cluster_bytes) ||
        (offset && entry & 1))
        return error_set(err, EINVAL, "The table of bitmap '%s' is not valid", name);
    if (!offset) {
        memset(buffer, entry & 1 ? 0xff : 0, cluster_bytes);
        return 0;
    }
    int result = io_read_now(file, offset, buffer, cluster_bytes);
    return result ? error_set_errno(err, -result, "Could not read bitmap '%s'", name) : 0;
}

static int load_bits(struct io_file *file, const struct qcow2_header *header,
                     const struct qcow2_bitmap *entry, struct dirty_bitmap *bitmap,
                     struct error *err)
{
    uint64_t cluster_bytes = qcow2_cluster_bytes(header), *table = NULL;
    if (entry->table_entries != qcow2_bitmap_clusters(header, bitmap))
        return error_set(err, EINVAL, "The table of bitmap '%s' does not fit the disk's size",
                         entry->name);
    uint8_t *buffer = malloc(cluster_bytes);
    int result = buffer ? qcow2_bitmap_table_read(file, entry, &table, err)
                        : error_set(err, ENOMEM, "out of memory for bitmap '%s'", entry->name);
    for (uint32_t i = 0; i < entry->table_entries && !result; i++) {
        /* Clusters of zeroes are what there is already. */
        if (!table[i])
            continue;
        result = load_cluster(file, table[i], cluster_bytes, buffer, entry->name, err);
        if (!result)
            dirty_bitmap_load(bitmap, i * cluster_bytes, buffer, cluster_bytes);
    }
    free(table);
    free(buffer);
    return result;
}

static int check_entry(const struct qcow2_bitmap *entry, struct error *err)
{
    if (!*entry->name || strlen(entry->name) > DIRTY_NAME_MAX)
        return error_set(err, EINVAL, "A bitmap has a name that is not valid");
    if (entry->extra_bytes)
        return error_set(err, ENOTSUP, "Bitmap extra data is not supported (bitmap '%s')",
                         entry->name);
    if (entry->flags & ~(QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO))
        return error_set(err, ENOTSUP, "Bitmap '%s' has unknown flags", entry->name);
    if (entry->granularity_bits < DIRTY_GRANULARITY_BITS_MIN)
        return error_set(err, ENOTSUP, "The granularity of bitmap '%s' is too fine", entry->name);
    return 0;
}

static int load_one(struct io_file *file, const struct qcow2_header *header,
                    const struct qcow2_bitmap *entry, uint64_t size_bytes, struct list *out,
                    struct error *err)
{
    struct dirty_bitmap *bitmap;
    bool in_use = entry->flags & QCOW2_BITMAP_IN_USE;
    int result = check_entry(entry, err);
    if (result)
        return result;
    result =
        dirty_bitmap_create(entry->name, in_use ? 0 : size_bytes, entry->granularity_bits, &bitmap);
    if (result)
        return error_set_errno(err, -result, "Could not load bitmap '%s'", entry->name);
    bitmap->persistent = true;
    bitmap->inconsistent = in_use;
    bitmap->enabled = !in_use && entry->flags & QCOW2_BITMAP_AUTO;
    if (!in_use)
        result = load_bits(file, header, entry, bitmap, err);
    bitmap->changed = false;
    if (result)
        dirty_bitmap_destroy(bitmap);
    else
        list_push_back(out, &bitmap->node);
    return result;
}

int qcow2_bitmaps_load(struct io_file *file, const struct qcow2_header *header, uint64_t size_bytes,
                       struct list *out, struct error *err)
{
    struct qcow2_bitmaps bitmaps;
    struct list loaded;
    list_init(&loaded);
    int result = qcow2_bitmaps_read(file, header, &bitmaps, err);
    if (result)
        return result;
    for (size_t i = 0; i < bitmaps.count && !result; i++) {
        for (size_t k = 0; k < i && !result; k++)
            if (!strcmp(bitmaps.list[i].name, bitmaps.list[k].name))
                result = error_set(err, EINVAL, "Two bitmaps are named '%s'", bitmaps.list[i].name);
        if (!result)
            result = load_one(file, header, &bitmaps.list[i], size_bytes, &loaded, err);
    }
    if (!result)
        list_splice_back(out, &loaded);
    for (struct list *node; (node = list_pop_front(&loaded));)
        dirty_bitmap_destroy(list_entry(node, struct dirty_bitmap, node));
    qcow2_bitmaps_free(&bitmaps);
    return result;
}
