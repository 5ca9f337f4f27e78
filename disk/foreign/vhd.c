/* SPDX-License-Identifier: MIT */
/*
 * vhd: Microsoft's Virtual Hard Disk ("vpc" on the command line, as in QEMU): fixed images end in a
 * footer, dynamic ones begin with a copy of it, a header and a table of blocks. Differencing images
 * are refused. Source: Virtual Hard Disk Image Format Specification, version 1.0, 2006.
 *
 * Old makers rounded the disk to cylinders, and their guests saw that size; newer ones mean the
 * size field. Which is which is told by the maker's name, with QEMU's list.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/foreign/foreign_private.h"

#define VHD_FOOTER_BYTES     512u
#define VHD_HEADER_BYTES     1024u
#define VHD_ABSENT           0xffffffffu
#define VHD_SECTORS_MAX      UINT64_C(0xff000000)         /* 2040 GiB */
#define VHD_GEOMETRY_SECTORS (UINT64_C(65535) * 16 * 255) /* "as large as geometry can say" */

enum {
    VHD_AT_DATA_OFFSET = 16,
    VHD_AT_MAKER = 28,
    VHD_AT_CURRENT_SIZE = 48,
    VHD_AT_CYLINDERS = 56,
    VHD_AT_HEADS = 58,
    VHD_AT_SECTORS = 59,
    VHD_AT_TYPE = 60,
    VHD_AT_CHECKSUM = 64,
    /* The dynamic header. */
    VHD_AT_TABLE = 16,
    VHD_AT_TABLE_ENTRIES = 28,
    VHD_AT_BLOCK_BYTES = 32,
    VHD_AT_HEADER_CHECKSUM = 36,
};

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC, VHD_DIFFERENCING };

struct vhd {
    bool is_fixed;
    uint64_t table_offset;
    uint32_t block_bytes, bitmap_bytes;
};

/* The ones' complement of the sum of all bytes but the checksum's. */
static bool is_checksum_right(const uint8_t *data, size_t bytes, size_t at)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < bytes; i++)
        if (i < at || i >= at + 4)
            sum += data[i];
    return load_be32(data + at) == ~sum;
}

static bool trusts_geometry(const uint8_t *maker)
{
    static const char newer[][5] = {"win ", "qem2", "d2v ", "CTXS", "tap", "wa\0"};
    for (size_t i = 0; i < ARRAY_SIZE(newer); i++)
        if (!memcmp(maker, newer[i], 4))
            return false;
    return true;
}

static uint64_t size_sectors(const uint8_t *footer)
{
    uint64_t geometry = (uint64_t)load_be16(footer + VHD_AT_CYLINDERS) * footer[VHD_AT_HEADS] *
                        footer[VHD_AT_SECTORS];
    if (trusts_geometry(footer + VHD_AT_MAKER) && geometry != VHD_GEOMETRY_SECTORS)
        return geometry;
    return load_be64(footer + VHD_AT_CURRENT_SIZE) / 512;
}

static int read_footer(struct foreign *foreign, uint8_t *footer, struct error *err)
{
    uint64_t length = foreign->files[0].length_bytes;
    int result = foreign_read(foreign, 0, 0, footer, VHD_FOOTER_BYTES, err);
    if (result)
        return result;
    if (memcmp(footer, "conectix", 8)) {
        result = foreign_read(foreign, 0, length - VHD_FOOTER_BYTES, footer, VHD_FOOTER_BYTES, err);
        if (result)
            return result;
        if (memcmp(footer, "conectix", 8) || load_be32(footer + VHD_AT_TYPE) != VHD_FIXED)
            return foreign_refuse(foreign, err,
                                  "it is not in VHD format, or cut short; use the format that it "
                                  "has");
    }
    if (!is_checksum_right(footer, VHD_FOOTER_BYTES, VHD_AT_CHECKSUM))
        return foreign_refuse(foreign, err,
                              "the checksum of its VHD footer is wrong; take another copy of it");
    return 0;
}

static int check_table(struct foreign *foreign, const struct vhd *vhd, uint32_t entries,
                       struct error *err)
{
    if (!is_power_of_2(vhd->block_bytes) || vhd->block_bytes < 512 || vhd->block_bytes > 256 * MIB)
        return foreign_refuse(foreign, err, "its block size of %u bytes is not allowed",
                              vhd->block_bytes);
    if ((uint64_t)entries * vhd->block_bytes < foreign->size_bytes)
        return foreign_refuse(foreign, err, "its block table is too small for %llu bytes",
                              (unsigned long long)foreign->size_bytes);
    if (vhd->table_offset % 512)
        return foreign_refuse(foreign, err, "its block table is not aligned to sectors");
    if (!range_fits(vhd->table_offset, (uint64_t)entries * 4, foreign->files[0].length_bytes))
        return foreign_refuse(foreign, err,
                              "it is cut short: its block table ends after the file; "
                              "take another copy of it");
    return 0;
}

static int open_dynamic(struct foreign *foreign, struct vhd *vhd, uint64_t header_offset,
                        struct error *err)
{
    uint8_t header[VHD_HEADER_BYTES];
    int result = foreign_read(foreign, 0, header_offset, header, sizeof(header), err);
    if (result)
        return result;
    if (memcmp(header, "cxsparse", 8))
        return foreign_refuse(foreign, err, "its dynamic header is missing; take another copy");
    if (!is_checksum_right(header, sizeof(header), VHD_AT_HEADER_CHECKSUM))
        return foreign_refuse(foreign, err,
                              "the checksum of its dynamic header is wrong; take another copy");
    vhd->table_offset = load_be64(header + VHD_AT_TABLE);
    vhd->block_bytes = load_be32(header + VHD_AT_BLOCK_BYTES);
    vhd->bitmap_bytes = (uint32_t)align_up(vhd->block_bytes / (512 * 8), 512);
    if (vhd->block_bytes < 512 * 8)
        vhd->bitmap_bytes = 512;
    foreign->cluster_bytes = vhd->block_bytes;
    return check_table(foreign, vhd, load_be32(header + VHD_AT_TABLE_ENTRIES), err);
}

static int open_kind(struct foreign *foreign, struct vhd *vhd, const uint8_t *footer,
                     struct error *err)
{
    uint32_t type = load_be32(footer + VHD_AT_TYPE);
    vhd->is_fixed = type == VHD_FIXED;
    if (type == VHD_DIFFERENCING)
        return foreign_refuse(foreign, err,
                              "it is a differencing VHD, which holds only what differs from its "
                              "parent; merge them first (Hyper-V: Merge-VHD)");
    if (type == VHD_DYNAMIC)
        return open_dynamic(foreign, vhd, load_be64(footer + VHD_AT_DATA_OFFSET), err);
    if (!vhd->is_fixed)
        return foreign_refuse(foreign, err, "VHD type %u is not known", type);
    if (foreign->size_bytes > foreign->files[0].length_bytes)
        return foreign_refuse(foreign, err,
                              "it is cut short: the disk has %llu bytes, the file fewer; take "
                              "another copy of it",
                              (unsigned long long)foreign->size_bytes);
    return 0;
}

static int vhd_open(struct foreign *foreign, const struct foreign_options *options,
                    struct error *err)
{
    uint8_t footer[VHD_FOOTER_BYTES];
    (void)options;
    int result = read_footer(foreign, footer, err);
    if (result)
        return result;
    uint64_t sectors = size_sectors(footer);
    if (sectors > VHD_SECTORS_MAX)
        return foreign_refuse(foreign, err, "its size is above the 2040 GiB that VHD allows");
    struct vhd *vhd = foreign->format = calloc(1, sizeof(*vhd));
    if (!vhd)
        return error_set(err, ENOMEM, "no memory to open '%s'", foreign_path(foreign));
    foreign->size_bytes = sectors * 512;
    return open_kind(foreign, vhd, footer, err);
}

static int vhd_locate(struct foreign *foreign, uint64_t offset, uint64_t bytes,
                      struct foreign_extent *out)
{
    const struct vhd *vhd = foreign->format;
    const uint8_t *entry;
    if (vhd->is_fixed) {
        int fixed = foreign_data(foreign, 0, offset, bytes, out);
        out->is_flat = true;
        return fixed;
    }
    uint64_t block = offset / vhd->block_bytes, in_block = offset % vhd->block_bytes;
    int result = foreign_entry(foreign, 0, vhd->table_offset + block * 4, 4, &entry);
    if (result)
        return result;
    uint32_t sector = load_be32(entry);
    bytes = MIN(bytes, vhd->block_bytes - in_block);
    if (sector != VHD_ABSENT)
        return foreign_data(foreign, 0, (uint64_t)sector * 512 + vhd->bitmap_bytes + in_block,
                            bytes, out);
    *out = (struct foreign_extent){.kind = FOREIGN_ZERO, .bytes = bytes};
    return 0;
}

static void vhd_free(struct foreign *foreign)
{
    free(foreign->format);
}

const struct foreign_ops foreign_vpc_ops = {
    .name = "vpc",
    .open = vhd_open,
    .locate = vhd_locate,
    .free = vhd_free,
};
