/* SPDX-License-Identifier: MIT */
/*
 * recovery: what production makes of a state that a power cut left: opens, reads, writes and closes
 * it; repairs it; and loses power again while doing so.
 */
#ifndef TESTS_CRASH_SIM_RECOVERY_H
#define TESTS_CRASH_SIM_RECOVERY_H

#include "tests/crash_sim/scene.h"

/* `world->checker` has opened the state, which was found good. */
void recovery_try(struct scene *scene, const struct cell_file *state, uint32_t time, uint64_t seed);

#endif
