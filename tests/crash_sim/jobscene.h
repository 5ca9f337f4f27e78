/* SPDX-License-Identifier: MIT */
/*
 * jobscene: a guest's writes and flushes while a disk's chain changes, by the commands that QMP
 * runs (vmm/block), over a simulated folder; and the judgement of every state that a power cut may
 * leave of all its files.
 *
 * What a user would open again after a cut, and what must then be there, is this:
 *   - snapshot: the image that was on top, until the command is answered; the overlay from then on,
 *     though nothing may have been written to it yet.
 *   - commit below the top, stream: the same image on top all the time; what it stands on is what
 *     its header names, the old images or the new one, and after BLOCK_JOB_COMPLETED the new one.
 *   - active commit: the image on top, until BLOCK_JOB_COMPLETED; the base from then on.
 *   - mirror: the source until BLOCK_JOB_COMPLETED, the target from then on; after a cancel, the
 *     source, and the target holds the moment of the end.
 *   - backup: the disk all the time; the target after BLOCK_JOB_COMPLETED, which then holds exactly
 *     the moment of the start.
 * Every image of that chain is sound, and each sector holds what the last flush that had ended
 * covered, or something that was written later: never something else, never something older.
 */
#ifndef TESTS_CRASH_SIM_JOBSCENE_H
#define TESTS_CRASH_SIM_JOBSCENE_H

#include "tests/crash_sim/scene.h"

/* What `index` says, drawn from `seed`. Ends the process with SCENE_FAILED at a bad state. */
void jobscene_run(struct scene_world *world, uint64_t index, uint64_t seed);

#endif
