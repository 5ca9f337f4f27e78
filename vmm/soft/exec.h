/* SPDX-License-Identifier: MIT */
/* exec: runs decoded operations. */
#ifndef VMM_SOFT_EXEC_H
#define VMM_SOFT_EXEC_H

#include "vmm/soft/cpu.h"

/* Once per process, before any decoding. */
void soft_exec_init(void);

/*
 * Both start at cpu->rip and return with it at the next instruction to run; if cpu->pending is set,
 * that is the one that did not complete. soft_run goes on until the poll word is set, soft_step
 * does one instruction (of a repeated string instruction one iteration) and leaves the poll word
 * set.
 */
void soft_run(struct soft_cpu *cpu);
void soft_step(struct soft_cpu *cpu);

#endif
