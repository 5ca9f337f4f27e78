/* SPDX-License-Identifier: MIT */
/*
 * simfolder: files with names, on simulated disks that lose power together, for code that opens its
 * files itself. The program is linked with --wrap for io_open and open: while there is a folder,
 * both know its names and nothing else; and for aside_start, whose work is done on the loop.
 */
#ifndef TESTS_CRASH_SIM_SIMFOLDER_H
#define TESTS_CRASH_SIM_SIMFOLDER_H

#include "tests/crash_sim/simdisk.h"

struct simfolder {
    struct loop *loop;
    struct cell_arena *arena;
    struct simdisk_clock clock;
    const char *names[SIMDISK_CLOCK_DISKS];
    unsigned opened; /* handles that are not closed */
};

/* Empty files of these names; one folder at a time. */
void simfolder_init(struct simfolder *folder, struct loop *loop, struct cell_arena *arena,
                    const char *const *names, unsigned count, uint64_t seed);
void simfolder_fini(struct simfolder *folder);
/* What the files hold now is on the medium; the trace begins here. Nothing is open. */
void simfolder_settle(struct simfolder *folder, uint64_t seed);

unsigned simfolder_find(const struct simfolder *folder, const char *name);
uint32_t simfolder_note(struct simfolder *folder);
uint32_t simfolder_now(const struct simfolder *folder);

#endif
