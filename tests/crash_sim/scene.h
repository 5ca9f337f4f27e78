/* SPDX-License-Identifier: MIT */
/*
 * scene: one workload on one image, run once on the production engine over a simulated disk, and
 * then judged in every state that a power cut may have left.
 */
#ifndef TESTS_CRASH_SIM_SCENE_H
#define TESTS_CRASH_SIM_SCENE_H

#include "tests/crash_sim/origin.h"
#include "tests/crash_sim/powercut.h"

#define SCENE_OPS_MAX 64u
#define SCENE_FAILED  3 /* exit status */

enum scene_op_kind {
    SCENE_WRITE,
    SCENE_ZERO,
    SCENE_ZERO_UNMAP,
    SCENE_DISCARD,
    SCENE_FLUSH,
    SCENE_READ,
    SCENE_RESIZE, /* to `first` sectors */
    SCENE_REOPEN,
    SCENE_SNAPSHOT_CREATE,
    SCENE_SNAPSHOT_DELETE, /* the newest there is, as apply */
    SCENE_SNAPSHOT_APPLY,
};

struct scene_op {
    enum scene_op_kind kind;
    uint32_t first, count; /* sectors */
    bool is_fua;
    bool is_alone; /* starts when all before it have ended */
    bool is_live;  /* of snapshots: on the disk in use, not on the closed image */
};

struct scene_plan {
    struct origin_config config;
    struct scene_op ops[SCENE_OPS_MAX];
    unsigned op_count;
    bool has_bitmap; /* the engine keeps a persistent dirty bitmap */
    uint64_t seed;   /* of the disk's order and of the states that are sampled */
    struct simdisk_fault fault;
    bool fails_alloc, alloc_stays;
    uint64_t alloc_after;
    struct powercut_options cuts;
    unsigned slow_one_in, slow_most; /* of the disk's requests (simdisk.h); 0: as usual */
    unsigned recover_one_in;         /* states that production repairs and opens again; 0: none */
};

/* What scenes of one process share. */
struct scene_world {
    struct loop loop;
    struct checker checker, second;             /* the second for states within states */
    struct checker layers[SIMDISK_CLOCK_DISKS]; /* of chains */
    struct origin_cache origins;
    /* Counted over all scenes. */
    uint64_t scenes, states, recoveries, repairs, nested, faults;
    const char *replay; /* what to tell a person who wants to see a failure again */
    int report_fd;      /* where failures are told: standard error is full of the engine's words */
};

struct scene {
    struct scene_world *world;
    const struct scene_plan *plan;
    const struct origin *origin;
    struct model model;
    struct cell_arena arena;
    struct simdisk *sim, *base_sim;
    struct disk *disk;
    uint32_t next_version, next_snapshot;
    uint32_t sectors; /* of the disk now */
    unsigned in_flight;
    uint64_t random, states;
    int resize_result, flush_result; /* of the last one */
    bool has_failed;                 /* something did, and so may the rest */
    bool is_untrusted; /* a snapshot failed half-way: the engine writes nothing any more */
};

void scene_world_init(struct scene_world *world);
void scene_world_fini(struct scene_world *world);

/* Runs the workload and judges all states. Ends the process with SCENE_FAILED at the first bad one.
 * Returns how many operations of the host's disk (or allocations) the plan's fault could hit. */
uint64_t scene_run(struct scene_world *world, const struct scene_plan *plan);

/* Prints what is wrong and how to see it again; ends the process. */
void scene_fail(const struct scene *scene, const char *what, const char *detail, uint32_t time)
    __attribute__((noreturn));

/* The engine's handle of the image on `sim`, with the scene's backing; NULL if it will not open. */
struct disk *scene_open(struct scene *scene, struct simdisk *sim, struct error *err);

#endif
