/* SPDX-License-Identifier: MIT */
/* qcow2_bitmaps: the directory of persistent bitmaps, read only. Blocks: for tools. */
#ifndef DISK_QCOW2_QCOW2_BITMAPS_H
#define DISK_QCOW2_QCOW2_BITMAPS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_header.h"

struct qcow2_bitmap {
    uint64_t table_offset;
    uint32_t table_entries;
    uint32_t flags;
    uint32_t granularity_bits;
    char *name;
};

struct qcow2_bitmaps {
    struct qcow2_bitmap *list;
    size_t count;
};

/* Empty if the image has none, or if its bitmaps are no longer valid (autoclear bit not set). */
int must_check qcow2_bitmaps_read(struct io_file *file, const struct qcow2_header *header,
                                  struct qcow2_bitmaps *out, struct error *err);
void qcow2_bitmaps_free(struct qcow2_bitmaps *bitmaps);

#endif
