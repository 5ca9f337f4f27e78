/* SPDX-License-Identifier: MIT */
/*
 * img_copy: moves the contents of images into another one, many pieces at a time, skipping what is
 * known or found to be zero. The heart of convert.
 */
#ifndef TOOLS_IMG_IMG_COPY_H
#define TOOLS_IMG_IMG_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/disk.h"
#include "disk/foreign/foreign_writer.h"
#include "disk/map.h"
#include "disk/qcow2/qcow2_pack.h"
#include "disk/qcow2/qcow2_writer.h"
#include "tools/img/img_rate.h"

#define IMG_COPY_DEPTH_MAX 16

struct img_copy_source {
    struct disk *disk;
    struct map *map;
    uint64_t start; /* where its contents begin in the target */
};

struct img_copy {
    struct loop *loop;
    struct img_copy_source *sources; /* in the order of their starts, without gaps */
    size_t source_count;
    uint64_t size_bytes;   /* of all sources together */
    unsigned depth;        /* pieces in flight, 1 to IMG_COPY_DEPTH_MAX */
    uint64_t sparse_bytes; /* runs of zeroes at least this long are not written; 0: write all */
    unsigned map_depth;    /* layers of a source that count as its contents; 0: all */

    /* Exactly one of these three is the target. */
    struct disk *target;
    bool target_is_zero; /* it reads as zeroes already */
    struct qcow2_writer *writer;
    struct foreign_writer *foreign; /* needs writer_file only */

    /* With a writer. */
    struct io_file *writer_file;
    uint64_t cluster_bytes;
    bool has_backing; /* zeroes must hide what the backing file holds */
    bool can_zero;    /* the format has zero clusters */
    bool compress;
    enum qcow2_compression compression_type;

    struct img_rate rate; /* of reading */
    bool salvage;         /* what cannot be read becomes zeroes, sector by sector */
    /* Called for each sector that is lost so; may be NULL. */
    void (*on_lost)(void *opaque, uint64_t offset, int error);
    bool counts_data; /* progress is of the data alone; else of the whole disk */
    /* Called now and then; may be NULL. */
    void (*on_progress)(void *opaque, uint64_t done_bytes, uint64_t total_bytes);
    /* True to give up, with -ECANCELED. May be NULL. */
    bool (*is_cancelled)(void *opaque);
    void *opaque;
};

/* Runs the loop until all is copied; does not finish the writer nor flush the target. */
int must_check img_copy_run(struct img_copy *copy, struct error *err);

#endif
