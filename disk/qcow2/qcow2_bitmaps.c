/* SPDX-License-Identifier: MIT */
/* qcow2_bitmaps: decodes the bitmap directory; the header's bounds on it hold already. */
#include "disk/qcow2/qcow2_bitmaps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define GRANULARITY_BITS_MAX 31
#define TABLE_BYTES_MAX      (UINT64_C(512) << 20)

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
    if (bytes[QCOW2_BITMAP_TYPE] != 1 || out->granularity_bits > GRANULARITY_BITS_MAX ||
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
