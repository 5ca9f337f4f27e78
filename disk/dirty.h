/* SPDX-License-Identifier: MIT */
/*
 * dirty: which parts of a disk were written since a moment, one bit for each granule. A bitmap
 * hangs on a node of the graph (format.h), whose disk marks it; persistent ones are kept in the
 * image.
 */
#ifndef DISK_DIRTY_H
#define DISK_DIRTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "base/list.h"

#define DIRTY_GRANULARITY_BITS_MIN 9
#define DIRTY_GRANULARITY_BITS_MAX 31
#define DIRTY_NAME_MAX             1023
#define DIRTY_BYTES_MAX            (UINT64_C(512) << 20) /* of one bitmap */

struct dirty_bitmap {
    struct list node;
    char *name;
    uint64_t size_bytes; /* of the disk */
    uint32_t granularity_bits;
    bool enabled;      /* marked by writes */
    bool persistent;   /* kept in the image when it is closed */
    bool inconsistent; /* the image was not closed well: good for nothing but removal */
    bool changed;      /* since it was made or loaded */
    /* Private: bit 0 of byte 0 is the first granule; a multiple of 8 bytes, zeroes at the end. */
    uint8_t *bits;
    uint64_t bit_count;
};

/* 0, -EFBIG or -ENOMEM. An empty bitmap, enabled, in no list. */
int must_check dirty_bitmap_create(const char *name, uint64_t size_bytes, uint32_t granularity_bits,
                                   struct dirty_bitmap **out);
/* Not in a list any more; or NULL. */
void dirty_bitmap_destroy(struct dirty_bitmap *bitmap);

/* Ranges inside the disk. */
void dirty_bitmap_mark(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t bytes);
void dirty_bitmap_clear(struct dirty_bitmap *bitmap);
/* Granules that lie wholly in the range, or reach beyond the disk's end, are clean. */
void dirty_bitmap_clear_range(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t bytes);
/* Whether `offset` is dirty, and where (at most `end`) that changes. */
uint64_t dirty_bitmap_run(const struct dirty_bitmap *bitmap, uint64_t offset, uint64_t end,
                          bool *is_dirty);
uint64_t dirty_bitmap_count_bytes(const struct dirty_bitmap *bitmap);
/* Adds what is dirty in `from`, a bitmap of any granularity. */
void dirty_bitmap_merge(struct dirty_bitmap *to, const struct dirty_bitmap *from);
/* What is new is clean. 0, -EFBIG or -ENOMEM, which leave it as it is. */
int must_check dirty_bitmap_resize(struct dirty_bitmap *bitmap, uint64_t size_bytes);

/* The bits as bytes, for storing and loading: from byte `first` on; the rest of `out` is zeroes. */
uint64_t dirty_bitmap_bytes(const struct dirty_bitmap *bitmap);
void dirty_bitmap_save(const struct dirty_bitmap *bitmap, uint64_t first, uint8_t *out,
                       uint64_t bytes);
void dirty_bitmap_load(struct dirty_bitmap *bitmap, uint64_t first, const uint8_t *from,
                       uint64_t bytes);

#endif
