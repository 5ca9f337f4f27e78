/* SPDX-License-Identifier: MIT */
/*
 * powercut: every state that losing power may leave of a disk, from its trace.
 *
 * After each event of the trace the medium holds what is durable, and any part of what is not:
 * each subset of the changes that are pending (all of them while they are few, else a sample), and
 * torn ones, sector by sector. States that were seen before between the same two notes of the
 * workload are not given again.
 */
#ifndef TESTS_CRASH_SIM_POWERCUT_H
#define TESTS_CRASH_SIM_POWERCUT_H

#include "tests/crash_sim/simdisk.h"

struct powercut_options {
    uint64_t seed;
    unsigned all_of;  /* up to so many pending changes every subset, ... */
    unsigned samples; /* ... else so many */
    unsigned torn;    /* torn states beside, at most */
    unsigned one_in;  /* cuts only after so many events, on the average; 0 and 1: after each */
};

/*
 * Calls `check` for each state: the file as a power cut left it, and the time of the cut (all
 * events before it happened). Until `check` returns false. Returns the number of states given.
 */
uint64_t powercut_each(const struct simdisk_trace *trace, const struct powercut_options *options,
                       bool (*check)(void *opaque, const struct cell_file *file, uint32_t time),
                       void *opaque);

/*
 * The same for files that lose power together, whose traces have one clock (simdisk_join): at each
 * cut, `samples` states of all of them.
 */
uint64_t powercut_several(const struct simdisk_trace *const *traces, unsigned count,
                          const struct powercut_options *options,
                          bool (*check)(void *opaque, const struct cell_file *const *files,
                                        uint32_t time),
                          void *opaque);

#endif
