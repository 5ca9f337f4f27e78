/* SPDX-License-Identifier: MIT */
/*
 * vmdk: VMware's disk images: what the descriptor (vmdk_descriptor.c) and the sparse extents
 * (vmdk.c) share. Source: VMware Virtual Disk Format 1.1 (Virtual Disk Format 5.0).
 */
#ifndef DISK_FOREIGN_VMDK_H
#define DISK_FOREIGN_VMDK_H

#include "disk/foreign/foreign_private.h"

#define VMDK_NAME_MAX 512

enum vmdk_kind {
    VMDK_FLAT,
    VMDK_SPARSE,
    VMDK_ZERO,
};

struct vmdk_extent {
    enum vmdk_kind kind;
    uint64_t start, bytes; /* of the disk */
    uint32_t file;
    const char *type;
    uint64_t flat_offset; /* FLAT */
    /* SPARSE */
    uint64_t directory_offset;
    uint64_t directory_entries;
    uint32_t grain_bytes, table_entries;
    bool is_packed, has_marker, has_zero_grains;
};

struct vmdk {
    struct vmdk_extent *extents; /* in the order of the disk, without gaps */
    uint32_t extent_count, hint;
    bool has_descriptor;
    uint32_t cid, parent_cid;
    char create_type[64];
};

/* One line "RW 4192256 SPARSE "disk-s001.vmdk"" of a descriptor. */
struct vmdk_line {
    uint64_t sectors;
    char type[16];
    char name[VMDK_NAME_MAX];
    uint64_t offset_sectors;
};

/* `text` is the descriptor, with a NUL at its end. Fills cid, parent_cid, create_type. */
int must_check vmdk_descriptor_read(struct foreign *foreign, struct vmdk *vmdk, const char *text,
                                    struct error *err);
/* Finds the next extent from *at on; false if there is none. *is_bad: it cannot be understood. */
bool vmdk_descriptor_next(const char **at, struct vmdk_line *out, bool *is_bad);

#endif
