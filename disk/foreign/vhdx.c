/* SPDX-License-Identifier: MIT */
/*
 * vhdx: Hyper-V's Virtual Hard Disk v2. Two headers (the newer valid one counts), two copies of the
 * region table, a metadata region, a block allocation table in which each chunk of payload blocks
 * is followed by a sector bitmap entry. Differencing images are refused. A log that was not
 * replayed is replayed in memory. Source: [MS-VHDX], Virtual Hard Disk v2 File Format.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/foreign/foreign_private.h"
#include "disk/foreign/vhdx.h"

#define VHDX_REGIONS_MAX   2047u
#define VHDX_ITEMS_MAX     2047u
#define VHDX_LOG_BYTES_MAX (64 * MIB)

const uint8_t vhdx_region_bat[VHDX_GUID_BYTES] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                                  0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
const uint8_t vhdx_region_metadata[VHDX_GUID_BYTES] = {
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
const uint8_t vhdx_item_parameters[VHDX_GUID_BYTES] = {
    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b};
const uint8_t vhdx_item_disk_size[VHDX_GUID_BYTES] = {
    0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8};
const uint8_t vhdx_item_page83[VHDX_GUID_BYTES] = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
                                                   0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46};
const uint8_t vhdx_item_logical[VHDX_GUID_BYTES] = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
                                                    0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f};
const uint8_t vhdx_item_physical[VHDX_GUID_BYTES] = {
    0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56};

struct region {
    uint64_t offset;
    uint32_t bytes;
};

struct vhdx {
    struct region bat, metadata;
    struct vhdx_log_place log;
    uint32_t block_bytes, sector_bytes, flags;
    uint64_t chunk_ratio; /* payload blocks to one sector bitmap block */
    uint8_t *log_memory;
};

/* --- headers --- */

/* 0 with *sequence, or -EINVAL if this copy does not count. */
static int read_header(struct foreign *foreign, uint64_t at, uint8_t *header, uint64_t *sequence)
{
    if (foreign_read(foreign, 0, at, header, VHDX_HEADER_BYTES, NULL) ||
        memcmp(header, "head", 4) ||
        vhdx_checksum(header, VHDX_HEADER_BYTES, 4) != load_le32(header + 4))
        return -EINVAL;
    *sequence = load_le64(header + 8);
    return 0;
}

static int check_header(struct foreign *foreign, struct vhdx *vhdx, const uint8_t *header,
                        struct error *err)
{
    if (load_le16(header + 66) != 1 || load_le16(header + 64))
        return foreign_refuse(foreign, err, "VHDX version %u with log version %u is not known",
                              load_le16(header + 66), load_le16(header + 64));
    memcpy(vhdx->log.guid, header + 48, 16);
    vhdx->log.bytes = load_le32(header + 68);
    vhdx->log.offset = load_le64(header + 72);
    if (vhdx->log.bytes % MIB || vhdx->log.offset % MIB || vhdx->log.offset < MIB ||
        vhdx->log.bytes > VHDX_LOG_BYTES_MAX ||
        !range_fits(vhdx->log.offset, vhdx->log.bytes, foreign->files[0].length_bytes))
        return foreign_refuse(foreign, err,
                              "the place of its log is not allowed; take another "
                              "copy of it");
    return 0;
}

static int read_headers(struct foreign *foreign, struct vhdx *vhdx, struct error *err)
{
    static const uint8_t no_log[16];
    uint8_t first[VHDX_HEADER_BYTES], second[VHDX_HEADER_BYTES];
    uint64_t first_sequence = 0, second_sequence = 0;
    int no_first = read_header(foreign, VHDX_AT_HEADER_1, first, &first_sequence);
    int no_second = read_header(foreign, VHDX_AT_HEADER_2, second, &second_sequence);
    if (no_first && no_second)
        return foreign_refuse(foreign, err,
                              "neither of its VHDX headers is valid; take another copy of it");
    if (!no_first && !no_second && first_sequence == second_sequence &&
        memcmp(first, second, sizeof(first)))
        return foreign_refuse(foreign, err, "its two VHDX headers contradict each other");
    bool takes_second = no_first || (!no_second && second_sequence > first_sequence);
    int result = check_header(foreign, vhdx, takes_second ? second : first, err);
    if (result || !memcmp(vhdx->log.guid, no_log, sizeof(no_log)))
        return result;
    return vhdx_log_read(foreign, &vhdx->log, &vhdx->log_memory, err);
}

/* --- regions --- */

static int take_region(struct foreign *foreign, struct vhdx *vhdx, const uint8_t *entry,
                       struct error *err)
{
    struct region region = {load_le64(entry + 16), load_le32(entry + 24)};
    struct region *out = NULL;
    if (!memcmp(entry, vhdx_region_bat, 16))
        out = &vhdx->bat;
    else if (!memcmp(entry, vhdx_region_metadata, 16))
        out = &vhdx->metadata;
    if (!out && load_le32(entry + 28) & 1)
        return foreign_refuse(foreign, err, "it needs a kind of region that is not known");
    if (!out)
        return 0;
    if (out->bytes)
        return foreign_refuse(foreign, err, "a region is listed twice");
    if (region.offset < MIB || region.offset % MIB || !region.bytes || region.bytes % MIB ||
        !range_fits(region.offset, region.bytes, foreign->files[0].length_bytes))
        return foreign_refuse(foreign, err,
                              "it is cut short: a region lies outside of the file; "
                              "take another copy of it");
    *out = region;
    return 0;
}

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a_bytes && b_bytes && ranges_overlap(a, a_bytes, b, b_bytes);
}

static int take_regions(struct foreign *foreign, struct vhdx *vhdx, const uint8_t *table,
                        struct error *err)
{
    uint32_t count = load_le32(table + 8);
    if (count > VHDX_REGIONS_MAX)
        return foreign_refuse(foreign, err, "its region table has %u entries", count);
    for (uint32_t i = 0; i < count; i++) {
        int result = take_region(foreign, vhdx, table + 16 + i * 32, err);
        if (result)
            return result;
    }
    if (!vhdx->bat.bytes || !vhdx->metadata.bytes)
        return foreign_refuse(foreign, err, "its region table lacks a region");
    if (overlap(vhdx->bat.offset, vhdx->bat.bytes, vhdx->metadata.offset, vhdx->metadata.bytes) ||
        overlap(vhdx->bat.offset, vhdx->bat.bytes, vhdx->log.offset, vhdx->log.bytes) ||
        overlap(vhdx->metadata.offset, vhdx->metadata.bytes, vhdx->log.offset, vhdx->log.bytes))
        return foreign_refuse(foreign, err, "its regions overlap");
    return 0;
}

static int read_regions(struct foreign *foreign, struct vhdx *vhdx, struct error *err)
{
    static const uint64_t places[] = {VHDX_AT_REGIONS_1, VHDX_AT_REGIONS_2};
    uint8_t *table = malloc(VHDX_TABLE_BYTES);
    int result = table ? -EINVAL : -ENOMEM;
    for (size_t i = 0; i < ARRAY_SIZE(places) && result == -EINVAL; i++)
        if (!foreign_read(foreign, 0, places[i], table, VHDX_TABLE_BYTES, NULL) &&
            !memcmp(table, "regi", 4) &&
            vhdx_checksum(table, VHDX_TABLE_BYTES, 4) == load_le32(table + 4))
            result = 0;
    if (result)
        result = foreign_refuse(foreign, err,
                                "neither copy of its region table is valid; take "
                                "another copy of it");
    else
        result = take_regions(foreign, vhdx, table, err);
    free(table);
    return result;
}

/* --- metadata --- */

static int take_item(struct foreign *foreign, struct vhdx *vhdx, const uint8_t *entry,
                     struct error *err)
{
    uint8_t value[8] = {0};
    bool is_parameters = !memcmp(entry, vhdx_item_parameters, 16);
    bool is_size = !memcmp(entry, vhdx_item_disk_size, 16);
    bool is_sector = !memcmp(entry, vhdx_item_logical, 16);
    uint32_t offset = load_le32(entry + 16), bytes = load_le32(entry + 20);
    if (!is_parameters && !is_size && !is_sector) {
        bool is_known =
            !memcmp(entry, vhdx_item_page83, 16) || !memcmp(entry, vhdx_item_physical, 16);
        /* A parent locator is a required item as well, but the parameters tell of it first. */
        if (!is_known && load_le32(entry + 24) & 4 && !(vhdx->flags & 2))
            return foreign_refuse(foreign, err, "it needs metadata of a kind that is not known");
        return 0;
    }
    if (bytes < (is_sector ? 4u : 8u) || !range_fits(offset, 8, vhdx->metadata.bytes))
        return foreign_refuse(foreign, err, "an item of its metadata is out of place");
    int result =
        foreign_read(foreign, 0, vhdx->metadata.offset + offset, value, sizeof(value), err);
    if (is_size)
        foreign->size_bytes = load_le64(value);
    if (is_sector)
        vhdx->sector_bytes = load_le32(value);
    if (is_parameters) {
        vhdx->block_bytes = load_le32(value);
        vhdx->flags = load_le32(value + 4);
    }
    return result;
}

static int read_metadata(struct foreign *foreign, struct vhdx *vhdx, struct error *err)
{
    uint8_t *table = malloc(VHDX_TABLE_BYTES);
    if (!table)
        return error_set(err, ENOMEM, "no memory to open '%s'", foreign_path(foreign));
    int result = foreign_read(foreign, 0, vhdx->metadata.offset, table, VHDX_TABLE_BYTES, err);
    uint32_t count = load_le16(table + 10);
    if (!result && (memcmp(table, "metadata", 8) || count > VHDX_ITEMS_MAX))
        result = foreign_refuse(foreign, err, "its metadata table is not valid; take another copy");
    for (int pass = 0; pass < 2; pass++) /* the parameters decide how others are seen */
        for (uint32_t i = 0; i < count && !result; i++) {
            const uint8_t *entry = table + 32 + i * 32;
            if (!memcmp(entry, vhdx_item_parameters, 16) == !pass)
                result = take_item(foreign, vhdx, entry, err);
        }
    free(table);
    return result;
}

static int check_metadata(struct foreign *foreign, struct vhdx *vhdx, struct error *err)
{
    uint64_t size = foreign->size_bytes, block = vhdx->block_bytes;
    if (vhdx->flags & 2)
        return foreign_refuse(foreign, err,
                              "it is a differencing VHDX, which holds only what differs from its "
                              "parent; merge them first (Hyper-V: Merge-VHD)");
    if (vhdx->sector_bytes != 512 && vhdx->sector_bytes != 4096)
        return foreign_refuse(foreign, err, "its sector size of %u bytes is not allowed",
                              vhdx->sector_bytes);
    if (!is_power_of_2(block) || block < MIB || block > 256 * MIB)
        return foreign_refuse(foreign, err, "its block size of %u bytes is not allowed",
                              vhdx->block_bytes);
    if (!size || size > VHDX_DISK_MAX || size % vhdx->sector_bytes)
        return foreign_refuse(foreign, err, "its size of %llu bytes is not allowed",
                              (unsigned long long)size);
    vhdx->chunk_ratio = (UINT64_C(1) << 23) * vhdx->sector_bytes / block;
    uint64_t blocks = (size - 1) / block + 1;
    if ((blocks + (blocks - 1) / vhdx->chunk_ratio) * 8 > vhdx->bat.bytes)
        return foreign_refuse(foreign, err, "its block table is too small for %llu bytes",
                              (unsigned long long)size);
    foreign->cluster_bytes = vhdx->block_bytes;
    return 0;
}

static int vhdx_open(struct foreign *foreign, const struct foreign_options *options,
                     struct error *err)
{
    char signature[8];
    (void)options;
    int result = foreign_read(foreign, 0, 0, signature, sizeof(signature), err);
    if (result)
        return result;
    if (memcmp(signature, "vhdxfile", 8))
        return foreign_refuse(foreign, err, "it is not in VHDX format; use the format that it has");
    struct vhdx *vhdx = foreign->format = calloc(1, sizeof(*vhdx));
    if (!vhdx)
        return error_set(err, ENOMEM, "no memory to open '%s'", foreign_path(foreign));
    result = read_headers(foreign, vhdx, err);
    if (!result)
        result = read_regions(foreign, vhdx, err);
    if (!result)
        result = read_metadata(foreign, vhdx, err);
    return result ? result : check_metadata(foreign, vhdx, err);
}

static int vhdx_locate(struct foreign *foreign, uint64_t offset, uint64_t bytes,
                       struct foreign_extent *out)
{
    const struct vhdx *vhdx = foreign->format;
    uint64_t block = offset / vhdx->block_bytes, in_block = offset % vhdx->block_bytes;
    uint64_t index = block + block / vhdx->chunk_ratio;
    const uint8_t *bytes_of_entry;
    int result = foreign_entry(foreign, 0, vhdx->bat.offset + index * 8, 8, &bytes_of_entry);
    if (result)
        return result;
    uint64_t entry = load_le64(bytes_of_entry), place = align_down(entry, MIB);
    *out = (struct foreign_extent){.kind = FOREIGN_ZERO,
                                   .bytes = MIN(bytes, vhdx->block_bytes - in_block)};
    switch (entry & 7) {
    case VHDX_NOT_PRESENT:
    case VHDX_UNDEFINED:
    case VHDX_ZERO:
    case VHDX_UNMAPPED:
        return 0;
    case VHDX_PRESENT:
        if (place > (uint64_t)INT64_MAX - vhdx->block_bytes || place < MIB)
            break;
        return foreign_data(foreign, 0, place + in_block, out->bytes, out);
    }
    return foreign_corrupt(foreign, "block %llu has the invalid entry %#llx",
                           (unsigned long long)block, (unsigned long long)entry);
}

static void vhdx_free(struct foreign *foreign)
{
    struct vhdx *vhdx = foreign->format;
    free(vhdx->log_memory);
    free(vhdx);
}

const struct foreign_ops foreign_vhdx_ops = {
    .name = "vhdx",
    .open = vhdx_open,
    .locate = vhdx_locate,
    .free = vhdx_free,
};
