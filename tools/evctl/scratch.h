/* SPDX-License-Identifier: MIT */
/*
 * scratch: folders that are nobody's: what is being made in them gets its name when it is whole,
 * and what is being removed has lost it. The process that works in one holds the lock on the file
 * `lock` in it; where nobody does, that process was killed, and the next one clears up.
 */
#ifndef TOOLS_EVCTL_SCRATCH_H
#define TOOLS_EVCTL_SCRATCH_H

#include "base/check.h"
#include "base/error.h"

/*
 * Makes the folder, in place of one that a killed process left. The descriptor that holds its lock,
 * -EBUSY without err set where another process works in it, or another -errno with err set.
 */
int must_check scratch_make(const char *path, struct error *err);
/* Removes what killed processes left in the folder of all machines. */
void scratch_sweep(const char *folder);
/* Removes a folder with all that is in it, following no links. 0 or -errno. */
int scratch_remove_tree(const char *folder);

#endif
