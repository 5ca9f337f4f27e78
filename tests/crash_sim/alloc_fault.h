/* SPDX-License-Identifier: MIT */
/*
 * alloc_fault: lets the n-th allocation of the code under test fail, once or from then on. The
 * program is linked with --wrap for malloc, calloc, realloc and posix_memalign.
 *
 * It also runs the jobs of the pool on the loop (--wrap for loop_job_submit), so that nothing
 * depends on threads and a seed replays exactly.
 */
#ifndef TESTS_CRASH_SIM_ALLOC_FAULT_H
#define TESTS_CRASH_SIM_ALLOC_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* The allocation number `after` from now on fails; UINT64_MAX: none, they are only counted. */
void alloc_fault_arm(uint64_t after, bool stays);
/* Returns how many allocations there were since it was armed; *failed says how many failed. */
uint64_t alloc_fault_disarm(uint64_t *failed);
bool alloc_fault_has_struck(void);

/* The simulator's own allocations between the two do not count. */
void alloc_fault_pause(void);
void alloc_fault_resume(void);

#endif
