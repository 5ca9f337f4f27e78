/* SPDX-License-Identifier: MIT */
/*
 * origin: what workloads start from: kinds of images, made once and kept, and what the model knows
 * of them.
 *
 * The disk's first clusters are of every kind that there is (mapped, unmapped, compressed, zeroes,
 * with a cluster set aside or not). Only some sectors of large clusters hold data and are followed.
 */
#ifndef TESTS_CRASH_SIM_ORIGIN_H
#define TESTS_CRASH_SIM_ORIGIN_H

#include "tests/crash_sim/model.h"

#define ORIGIN_OFFSETS 24u

enum origin_backing {
    ORIGIN_NO_BACKING,
    ORIGIN_RAW_BACKING,
    ORIGIN_QCOW2_BACKING,
};

enum origin_fullness {
    ORIGIN_ROOMY,
    ORIGIN_FULL_BLOCKS,   /* the next cluster but a few needs a new refcount block */
    ORIGIN_FULL_REFTABLE, /* ... which needs a longer refcount table */
};

struct origin_config {
    unsigned cluster_bits, version, refcount_order;
    enum origin_backing backing;
    bool is_lazy, is_extended, has_snapshot;
    enum origin_fullness fullness;
    unsigned spare; /* clusters before it is full */
};

/* The images that workloads of one configuration start from. */
struct origin {
    struct origin_config config;
    struct cell_arena arena;
    struct cell_file file, base;
    uint64_t ballast;
};

/* Zeroed memory is an empty one. */
struct origin_cache {
    struct origin *items;
    unsigned count;
};

/* Guest clusters of the disk at the start, and in which of their sectors there is data. */
uint32_t origin_clusters(const struct origin_config *config);
uint32_t origin_offsets(const struct origin_config *config, uint32_t offsets[ORIGIN_OFFSETS]);
/* The most that a workload may grow the disk to, in clusters. */
uint32_t origin_clusters_max(const struct origin_config *config);

uint32_t origin_per_cluster(const struct origin_config *config);
/* Whether the sector was compressed at the start. */
bool origin_is_packed(const struct origin_config *config, uint32_t lba);

/* Made, or found. When too many were kept all of them go first, with their cells: *forgot then. */
const struct origin *origin_get(struct origin_cache *cache, const struct origin_config *config,
                                bool *forgot);
void origin_cache_fini(struct origin_cache *cache);

/* Fills a new model with what there is at the start; returns the sectors of the disk. */
uint32_t origin_start_model(const struct origin *origin, struct model *model);

#endif
