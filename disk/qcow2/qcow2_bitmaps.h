/* SPDX-License-Identifier: MIT */
/*
 * qcow2_bitmaps: the directory of persistent bitmaps, and their bits in memory (disk/dirty.h).
 * Reads only, and blocks: for opening and for tools. qcow2_bitmap_store.h writes.
 */
#ifndef DISK_QCOW2_QCOW2_BITMAPS_H
#define DISK_QCOW2_QCOW2_BITMAPS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"
#include "disk/dirty.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_header.h"

struct qcow2_bitmap {
    uint64_t table_offset;
    uint32_t table_entries;
    uint32_t flags;
    uint32_t granularity_bits;
    uint32_t extra_bytes; /* of data that nothing is known of */
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

/* Appends a struct dirty_bitmap to `out` for each bitmap; those in use are inconsistent and have no
 * bits. On failure nothing is appended. */
int must_check qcow2_bitmaps_load(struct io_file *file, const struct qcow2_header *header,
                                  uint64_t size_bytes, struct list *out, struct error *err);

/* A bitmap's table: entries as in the file, in the host's byte order. The caller frees it. */
int must_check qcow2_bitmap_table_read(struct io_file *file, const struct qcow2_bitmap *bitmap,
                                       uint64_t **out, struct error *err);

/* Clusters that the bits of a bitmap take. */
uint64_t qcow2_bitmap_clusters(const struct qcow2_header *header,
                               const struct dirty_bitmap *bitmap);

#endif
