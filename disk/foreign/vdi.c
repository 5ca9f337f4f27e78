/* SPDX-License-Identifier: MIT */
/*
 * vdi: VirtualBox's disk image, version 1.1: a header, one array of block numbers, the blocks.
 * The layout is that of the public header of the format (forums.virtualbox.org, "Tutorial: All
 * about VDIs"). Differencing and undo images are refused.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/foreign/foreign_private.h"

#define VDI_HEADER_BYTES 512u
#define VDI_VERSION      0x00010001u
#define VDI_BLOCKS_MAX   0x3fffffffu

enum {
    VDI_AT_SIGNATURE = 0x40,
    VDI_AT_VERSION = 0x44,
    VDI_AT_TYPE = 0x4c,
    VDI_AT_MAP = 0x154,
    VDI_AT_DATA = 0x158,
    VDI_AT_SECTOR_BYTES = 0x168,
    VDI_AT_DISK_BYTES = 0x170,
    VDI_AT_BLOCK_BYTES = 0x178,
    VDI_AT_BLOCK_EXTRA = 0x17c,
    VDI_AT_BLOCKS = 0x180,
    VDI_AT_UUID_LINK = 0x1a8,
    VDI_AT_UUID_PARENT = 0x1b8,
};

enum vdi_type { VDI_DYNAMIC = 1, VDI_STATIC, VDI_UNDO, VDI_DIFFERENCING };

/* Entries of the map that are no block numbers. */
#define VDI_ABSENT    0xffffffffu
#define VDI_DISCARDED 0xfffffffeu

struct vdi {
    uint64_t map_offset, data_offset;
    uint32_t block_bytes, blocks;
    bool is_static;
};

static bool is_null(const uint8_t *uuid)
{
    static const uint8_t null[16];
    return !memcmp(uuid, null, sizeof(null));
}

static int check_kind(const struct foreign *foreign, const uint8_t *header, struct error *err)
{
    if (load_le32(header + VDI_AT_SIGNATURE) != 0xbeda107f)
        return foreign_refuse(foreign, err, "it is not in VDI format; use the format that it has");
    if (load_le32(header + VDI_AT_VERSION) != VDI_VERSION)
        return foreign_refuse(foreign, err,
                              "VDI version %u.%u is not known; clone it with VBoxManage "
                              "clonemedium",
                              load_le32(header + VDI_AT_VERSION) >> 16,
                              load_le32(header + VDI_AT_VERSION) & 0xffff);
    uint32_t type = load_le32(header + VDI_AT_TYPE);
    if (type == VDI_UNDO || type == VDI_DIFFERENCING || !is_null(header + VDI_AT_UUID_LINK) ||
        !is_null(header + VDI_AT_UUID_PARENT))
        return foreign_refuse(foreign, err,
                              "it is a differencing VDI, which holds only what differs from its "
                              "parent; merge them with VBoxManage clonemedium");
    if (type != VDI_DYNAMIC && type != VDI_STATIC)
        return foreign_refuse(foreign, err, "VDI type %u is not known", type);
    return 0;
}

static int check_layout(struct foreign *foreign, const struct vdi *vdi, const uint8_t *header,
                        struct error *err)
{
    uint64_t length = foreign->files[0].length_bytes;
    if (load_le32(header + VDI_AT_SECTOR_BYTES) != 512)
        return foreign_refuse(foreign, err, "its sector size of %u is not 512",
                              load_le32(header + VDI_AT_SECTOR_BYTES));
    if (!is_power_of_2(vdi->block_bytes) || vdi->block_bytes < 4 * KIB ||
        vdi->block_bytes > 256 * MIB || load_le32(header + VDI_AT_BLOCK_EXTRA))
        return foreign_refuse(foreign, err, "its block size of %u bytes is not allowed",
                              vdi->block_bytes);
    if (vdi->map_offset % 512 || vdi->data_offset % 512)
        return foreign_refuse(foreign, err, "its tables are not aligned to sectors");
    if (vdi->blocks > VDI_BLOCKS_MAX ||
        foreign->size_bytes > (uint64_t)vdi->blocks * vdi->block_bytes)
        return foreign_refuse(foreign, err, "its size of %llu bytes does not fit %u blocks",
                              (unsigned long long)foreign->size_bytes, vdi->blocks);
    if (!range_fits(vdi->map_offset, (uint64_t)vdi->blocks * 4, length))
        return foreign_refuse(foreign, err,
                              "it is cut short: its block map ends after the file; "
                              "take another copy of it");
    if (ranges_overlap(vdi->map_offset, (uint64_t)vdi->blocks * 4, vdi->data_offset, UINT32_MAX) ||
        vdi->map_offset < 0x190)
        return foreign_refuse(foreign, err, "its block map overlaps its data or its header");
    return 0;
}

static int vdi_open(struct foreign *foreign, const struct foreign_options *options,
                    struct error *err)
{
    uint8_t header[VDI_HEADER_BYTES];
    (void)options;
    int result = foreign_read(foreign, 0, 0, header, sizeof(header), err);
    if (!result)
        result = check_kind(foreign, header, err);
    if (result)
        return result;
    struct vdi *vdi = foreign->format = calloc(1, sizeof(*vdi));
    if (!vdi)
        return error_set(err, ENOMEM, "no memory to open '%s'", foreign_path(foreign));
    vdi->map_offset = load_le32(header + VDI_AT_MAP);
    vdi->data_offset = load_le32(header + VDI_AT_DATA);
    vdi->block_bytes = load_le32(header + VDI_AT_BLOCK_BYTES);
    vdi->blocks = load_le32(header + VDI_AT_BLOCKS);
    vdi->is_static = load_le32(header + VDI_AT_TYPE) == VDI_STATIC;
    uint64_t size = load_le64(header + VDI_AT_DISK_BYTES);
    if (size > FOREIGN_SIZE_MAX)
        return foreign_refuse(foreign, err, "its size of %llu bytes is too large",
                              (unsigned long long)size);
    foreign->size_bytes = align_up(size, 512);
    foreign->cluster_bytes = vdi->block_bytes;
    return check_layout(foreign, vdi, header, err);
}

static int vdi_locate(struct foreign *foreign, uint64_t offset, uint64_t bytes,
                      struct foreign_extent *out)
{
    const struct vdi *vdi = foreign->format;
    uint64_t block = offset / vdi->block_bytes, in_block = offset % vdi->block_bytes;
    const uint8_t *entry;
    int result = foreign_entry(foreign, 0, vdi->map_offset + block * 4, 4, &entry);
    if (result)
        return result;
    uint32_t place = load_le32(entry);
    bytes = MIN(bytes, vdi->block_bytes - in_block);
    if (place == VDI_ABSENT || place == VDI_DISCARDED) {
        *out = (struct foreign_extent){.kind = FOREIGN_ZERO, .bytes = bytes};
        return 0;
    }
    result = foreign_data(
        foreign, 0, vdi->data_offset + (uint64_t)place * vdi->block_bytes + in_block, bytes, out);
    out->is_flat = vdi->is_static;
    return result;
}

static void vdi_free(struct foreign *foreign)
{
    free(foreign->format);
}

const struct foreign_ops foreign_vdi_ops = {
    .name = "vdi",
    .open = vdi_open,
    .locate = vdi_locate,
    .free = vdi_free,
};
