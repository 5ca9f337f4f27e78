/* SPDX-License-Identifier: MIT */
/*
 * model: what a guest may find on its disk after a power cut at any time of a workload.
 *
 * Only the places of the disk on a palette are followed. Each has versions, with the times at which
 * their write was submitted and had ended. A version may be found from its submission on, until a
 * flush that was submitted after the end of a later write has ended: old or new, flushed exactly,
 * never anything else. The size of the disk, and the set of snapshots, follow the same rule.
 */
#ifndef TESTS_CRASH_SIM_MODEL_H
#define TESTS_CRASH_SIM_MODEL_H

#include "tests/crash_sim/checker.h"

#define MODEL_NEVER     UINT32_MAX
#define MODEL_SNAPSHOTS 32u

struct model_version {
    uint32_t value;
    uint32_t submitted, ended;
    uint32_t durable; /* when the write was on the medium for certain; MODEL_NEVER */
    uint32_t expired; /* filled by model_close */
    bool has_failed;
};

struct model_place {
    uint32_t lba;
    uint32_t backing; /* what the backing file has there: CELL_BACKING or CELL_ZERO */
    struct model_version *versions;
    uint32_t count, room;
};

/* Is there from `created` (after that: for certain) until `deleted` (after: for certain not). */
struct model_snapshot {
    char name[16];
    uint32_t create_submitted, created, delete_submitted, deleted;
    uint32_t size;    /* sectors */
    uint32_t *values; /* of the places when it was made */
};

struct model_flush {
    uint32_t submitted, ended;
};

struct model_leak {
    uint32_t time;
    uint64_t clusters;
};

struct model {
    uint32_t sectors_per_cluster;
    struct model_place *places; /* by lba */
    uint32_t place_count;
    struct model_place size; /* of the disk; values are sectors */
    struct model_snapshot snapshots[MODEL_SNAPSHOTS];
    uint32_t snapshot_count;
    struct model_flush *flushes;
    uint32_t flush_count, flush_room;
    struct model_leak *leaks;
    uint32_t leak_count, leak_room;
    uint64_t ballast; /* clusters leaked before the first operation */
    char why[240];
};

/* What became of a state; the worst first. */
enum model_verdict {
    MODEL_GOOD,
    MODEL_CORRUPT,
    MODEL_LOST,    /* a place has a version that it may not have any more, or not yet */
    MODEL_FOREIGN, /* a place has what was never written to it */
    MODEL_LEAKED,  /* more clusters are lost than what was in flight */
};

/* `lbas` in rising order. All of them read as zeroes at first, and have no backing. */
void model_init(struct model *model, const uint32_t *lbas, uint32_t count,
                uint32_t sectors_per_cluster);
void model_fini(struct model *model);
void model_start_with(struct model *model, uint32_t lba, uint32_t value, uint32_t backing);
void model_start_size(struct model *model, uint32_t sectors);

/* All places of the range get a new version; ends with model_end of the same range, which is given
 * the time of the beginning. */
void model_begin(struct model *model, uint32_t first, uint32_t count, uint32_t value,
                 uint32_t time);
void model_end(struct model *model, uint32_t first, uint32_t count, uint32_t began, uint32_t time,
               bool is_good, bool is_durable);
void model_flushed(struct model *model, uint32_t submitted, uint32_t ended);
/* From the size that the disk says it has, which a resize that failed leaves as it was. */
void model_resize_begin(struct model *model, uint32_t old, uint32_t sectors, uint32_t time);
void model_resize_end(struct model *model, uint32_t began, uint32_t time, bool is_good);
/* So many clusters more may be leaked from now on. */
void model_may_leak(struct model *model, uint32_t time, uint64_t clusters);

/* The caller fills in the values. */
struct model_snapshot *model_snapshot_begin(struct model *model, const char *name, uint32_t time);
struct model_snapshot *model_snapshot_find(struct model *model, const char *name);
/* Applying it began: all places go back to what they were at its creation. */
void model_apply_begin(struct model *model, const struct model_snapshot *snapshot, uint32_t time);
void model_apply_end(struct model *model, uint32_t began, uint32_t time, bool is_good);

/* True if a read that ran from `submitted` to `ended` may have given this. Before model_close. */
bool model_read_is_good(const struct model *model, uint32_t lba, uint32_t value, uint32_t submitted,
                        uint32_t ended);
/* The workload has ended: finds out when versions expire. */
void model_close(struct model *model);

/* What the places hold in a table of an image, in the order of the places. */
void model_collect(const struct model *model, struct checker *checker,
                   const struct checker_table *table, uint32_t *values);

/* Whether the place may be found to hold this after a power cut at `time`. After model_close. */
bool model_may_have(const struct model_place *place, uint32_t value, uint32_t time);

/* Judges what `checker` has opened, as the state after a power cut at `time`. */
enum model_verdict model_judge(struct model *model, struct checker *checker, uint32_t time);

#endif
