/* SPDX-License-Identifier: MIT */
/*
 * blk_set: the disks of one run: each with a device and a driver of its own, in one guest on one
 * loop.
 */
#ifndef TOOLS_BENCH_BLK_SET_H
#define TOOLS_BENCH_BLK_SET_H

#include "tools/bench/blk_driver.h"

struct blk_set {
    struct fake_guest guest;
    const struct path_options *options;
    struct blk_driver drivers[PATH_DISKS_MAX];
    struct path_result
        results[PATH_DISKS_MAX]; /* by disk: each is counted on its driver's thread */
};

void blk_set_init(struct blk_set *set, const struct path_options *options);
/* Opens disk `index` and brings its device up; in their order. */
int must_check blk_set_open(struct blk_set *set, unsigned index, struct error *err);
/* Adds the figures of all disks up; what belongs to the loop is taken once. */
void blk_set_take_figures(struct blk_set *set, struct path_result *result);
/* Closes all, takes and adds up their figures. */
int must_check blk_set_close(struct blk_set *set, struct path_result *result, struct error *err);

#endif
