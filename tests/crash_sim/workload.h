/* SPDX-License-Identifier: MIT */
/*
 * workload: the list of all that the simulator runs, by number: every sequence of one and two
 * operations, chosen ones of three, each single operation with each fault at each place, on every
 * kind of image; after those, random ones without end.
 */
#ifndef TESTS_CRASH_SIM_WORKLOAD_H
#define TESTS_CRASH_SIM_WORKLOAD_H

#include "tests/crash_sim/scene.h"

/* The item that comes at `position`: listed ones well mixed, with random ones in between. */
uint64_t workload_order(uint64_t position);
/* Runs an item. `seed` varies what is drawn in it. */
void workload_run(struct scene_world *world, uint64_t item, uint64_t seed);
/* What has been covered when the items before this position are done. */
const char *workload_coverage(uint64_t position);
/* In a word or two. */
const char *workload_family(uint64_t item);

#endif
