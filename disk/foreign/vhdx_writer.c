/* SPDX-License-Identifier: MIT */
/*
 * vhdx_writer: new dynamic VHDX images: 1 MiB of headers, an empty log of 1 MiB, the block table,
 * the metadata, the blocks. Source: [MS-VHDX].
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "disk/foreign/foreign_writer_private.h"
#include "disk/foreign/vhdx.h"

#define VHDX_BLOCK_BYTES  (2u * 1024 * 1024)
#define VHDX_LOG_OFFSET   (1u * 1024 * 1024)
#define VHDX_LOG_BYTES    (1u * 1024 * 1024)
#define VHDX_BAT_OFFSET   (2u * 1024 * 1024)
#define VHDX_META_BYTES   (1u * 1024 * 1024)
#define VHDX_SECTOR_BYTES 512u
#define VHDX_CHUNK_RATIO  ((UINT64_C(1) << 23) * VHDX_SECTOR_BYTES / VHDX_BLOCK_BYTES)

/* Flags of a metadata item. */
#define ITEM_OF_DISK  2u
#define ITEM_REQUIRED 4u

struct vhdx_writer {
    uint8_t *bat; /* as in the file */
    uint64_t bat_bytes, metadata_offset;
};

static int vhdx_start(struct foreign_writer *writer, const struct foreign_writer_options *options,
                      struct error *err)
{
    uint64_t size = align_up(options->size_bytes, VHDX_SECTOR_BYTES);
    if (options->subformat && strcmp(options->subformat, "dynamic"))
        return error_set(err, ENOTSUP, "VHDX subformat '%s' is not written; use dynamic",
                         options->subformat);
    if (!size || size > VHDX_DISK_MAX)
        return error_set(err, EFBIG, "a VHDX image holds 512 bytes to 64 TiB");
    struct vhdx_writer *vhdx = writer->format = calloc(1, sizeof(*vhdx));
    if (!vhdx)
        return error_set(err, ENOMEM, "no memory to write '%s'", options->path);
    uint64_t blocks = (size - 1) / VHDX_BLOCK_BYTES + 1;
    vhdx->bat_bytes = align_up((blocks + (blocks - 1) / VHDX_CHUNK_RATIO) * 8, MIB);
    vhdx->bat = calloc(1, vhdx->bat_bytes);
    if (!vhdx->bat)
        return error_set(err, ENOMEM, "no memory to write '%s'", options->path);
    vhdx->metadata_offset = VHDX_BAT_OFFSET + vhdx->bat_bytes;
    writer->size_bytes = size;
    writer->unit_bytes = VHDX_BLOCK_BYTES;
    writer->end = vhdx->metadata_offset + VHDX_META_BYTES;
    return 0;
}

static int vhdx_place(struct foreign_writer *writer, uint64_t index, uint32_t bytes,
                      uint64_t *host_offset)
{
    struct vhdx_writer *vhdx = writer->format;
    uint64_t entry = index + index / VHDX_CHUNK_RATIO;
    store_le64(vhdx->bat + entry * 8, writer->end | VHDX_PRESENT);
    *host_offset = writer->end;
    writer->end += bytes;
    return 0;
}

static void add_region(uint8_t *entry, const uint8_t *guid, uint64_t offset, uint64_t bytes)
{
    memcpy(entry, guid, VHDX_GUID_BYTES);
    store_le64(entry + 16, offset);
    store_le32(entry + 24, (uint32_t)bytes);
    store_le32(entry + 28, 1); /* required */
}

static int write_regions(struct foreign_writer *writer)
{
    const struct vhdx_writer *vhdx = writer->format;
    uint8_t *table = calloc(1, VHDX_TABLE_BYTES);
    if (!table)
        return -ENOMEM;
    memcpy(table, "regi", 4);
    store_le32(table + 8, 2);
    add_region(table + 16, vhdx_region_bat, VHDX_BAT_OFFSET, vhdx->bat_bytes);
    add_region(table + 48, vhdx_region_metadata, vhdx->metadata_offset, VHDX_META_BYTES);
    store_le32(table + 4, vhdx_checksum(table, VHDX_TABLE_BYTES, 4));
    int result = io_write_now(writer->file, VHDX_AT_REGIONS_1, table, VHDX_TABLE_BYTES);
    if (!result)
        result = io_write_now(writer->file, VHDX_AT_REGIONS_2, table, VHDX_TABLE_BYTES);
    free(table);
    return result;
}

/* One item: its entry in the table, its value behind the table. */
static void add_item(uint8_t *metadata, const uint8_t *guid, const void *value, uint32_t bytes,
                     uint32_t flags)
{
    uint16_t index = load_le16(metadata + 10);
    uint8_t *entry = metadata + 32 + index * 32;
    uint32_t offset = VHDX_TABLE_BYTES + index * 64u;
    store_le16(metadata + 10, (uint16_t)(index + 1));
    memcpy(entry, guid, VHDX_GUID_BYTES);
    store_le32(entry + 16, offset);
    store_le32(entry + 20, bytes);
    store_le32(entry + 24, flags);
    memcpy(metadata + offset, value, bytes);
}

static int write_metadata(struct foreign_writer *writer)
{
    const struct vhdx_writer *vhdx = writer->format;
    uint8_t *metadata = calloc(1, VHDX_META_BYTES);
    uint8_t parameters[8] = {0}, size[8], page83[16], logical[4], physical[4];
    if (!metadata)
        return -ENOMEM;
    store_le32(parameters, VHDX_BLOCK_BYTES);
    store_le64(size, writer->size_bytes);
    store_le32(logical, VHDX_SECTOR_BYTES);
    store_le32(physical, 4096);
    int result = getrandom(page83, sizeof(page83), 0) == sizeof(page83) ? 0 : -EIO;
    memcpy(metadata, "metadata", 8);
    add_item(metadata, vhdx_item_parameters, parameters, sizeof(parameters), ITEM_REQUIRED);
    add_item(metadata, vhdx_item_disk_size, size, sizeof(size), ITEM_OF_DISK | ITEM_REQUIRED);
    add_item(metadata, vhdx_item_page83, page83, sizeof(page83), ITEM_OF_DISK | ITEM_REQUIRED);
    add_item(metadata, vhdx_item_logical, logical, sizeof(logical), ITEM_OF_DISK | ITEM_REQUIRED);
    add_item(metadata, vhdx_item_physical, physical, sizeof(physical),
             ITEM_OF_DISK | ITEM_REQUIRED);
    if (!result)
        result = io_write_now(writer->file, vhdx->metadata_offset, metadata, VHDX_META_BYTES);
    free(metadata);
    return result;
}

/* The one that was written last counts; both are alike but for their number. */
static int write_headers(struct foreign_writer *writer)
{
    uint8_t header[VHDX_HEADER_BYTES] = {0};
    memcpy(header, "head", 4);
    if (getrandom(header + 16, 32, 0) != 32) /* of the file's and of the data's last change */
        return -EIO;
    store_le16(header + 66, 1);
    store_le32(header + 68, VHDX_LOG_BYTES);
    store_le64(header + 72, VHDX_LOG_OFFSET);
    static const uint32_t places[] = {VHDX_AT_HEADER_1, VHDX_AT_HEADER_2};
    int result = 0;
    for (size_t i = 0; i < ARRAY_SIZE(places) && !result; i++) {
        store_le64(header + 8, i + 1);
        store_le32(header + 4, vhdx_checksum(header, sizeof(header), 4));
        result = io_write_now(writer->file, places[i], header, sizeof(header));
    }
    return result;
}

static int vhdx_finish(struct foreign_writer *writer)
{
    static const uint8_t identifier[] = {'v', 'h', 'd', 'x', 'f', 'i', 'l', 'e', 'e', 0, 'v',
                                         0,   'i', 0,   's', 0,   'o', 0,   'r', 0,   0, 0};
    const struct vhdx_writer *vhdx = writer->format;
    int result = io_write_now(writer->file, VHDX_BAT_OFFSET, vhdx->bat, vhdx->bat_bytes);
    if (!result)
        result = write_metadata(writer);
    if (!result)
        result = write_regions(writer);
    if (!result)
        result = write_headers(writer);
    if (!result)
        result = io_truncate_now(writer->file, writer->end);
    return result ? result : io_write_now(writer->file, 0, identifier, sizeof(identifier));
}

static void vhdx_writer_free(struct foreign_writer *writer)
{
    struct vhdx_writer *vhdx = writer->format;
    free(vhdx->bat);
    free(vhdx);
}

const struct foreign_writer_ops foreign_vhdx_writer = {
    .format = "vhdx",
    .start = vhdx_start,
    .place = vhdx_place,
    .finish = vhdx_finish,
    .free = vhdx_writer_free,
};
