/* SPDX-License-Identifier: MIT */
/*
 * seedimage: the images that workloads start from, laid out by hand (not by disk/), so that tables
 * are as full, and clusters as shared, as a test wants them.
 */
#ifndef TESTS_CRASH_SIM_SEEDIMAGE_H
#define TESTS_CRASH_SIM_SEEDIMAGE_H

#include "tests/crash_sim/cell.h"

enum seedimage_kind {
    SEEDIMAGE_NONE,
    SEEDIMAGE_DATA,
    SEEDIMAGE_PACKED,    /* compressed; neighbours share a host cluster where they fit */
    SEEDIMAGE_ZERO,      /* reads as zeroes */
    SEEDIMAGE_ZERO_KEPT, /* likewise, with a cluster set aside */
};

struct seedimage_options {
    unsigned cluster_bits, version, refcount_order;
    bool is_extended, is_lazy, has_backing;
    uint64_t sectors;     /* of the disk */
    bool has_snapshot;    /* "s0", which shares all */
    uint64_t stale;       /* free clusters amid the others, full of what was there once */
    bool fills_blocks;    /* leaked clusters leave no room in the refcount blocks, ... */
    bool fills_reftable;  /* ... and the refcount table none for another block ... */
    uint64_t spare;       /* ... but for so many clusters */
    const uint8_t *kinds; /* of `kind_count` clusters of the disk; those after are NONE */
    uint64_t kind_count;
    const uint32_t *offsets; /* sectors of a cluster that hold data; the others are zero */
    uint32_t offset_count;
    uint32_t data_version;
};

/* Fills `out`, whose memory the caller gives back; cells live in `arena`. Returns how many clusters
 * are leaked. */
uint64_t seedimage_make(const struct seedimage_options *options, struct cell_arena *arena,
                        struct cell_file *out);

#endif
