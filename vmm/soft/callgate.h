/* SPDX-License-Identifier: MIT */
/* callgate: far calls and jumps through call gates. */
#ifndef VMM_SOFT_CALLGATE_H
#define VMM_SOFT_CALLGATE_H

#include "vmm/soft/cpu.h"

/* True if the system descriptor is a call gate that the present mode knows. */
bool callgate_is_one(const struct soft_cpu *cpu, uint64_t descriptor);

/* `selector` named the gate, `low` is its first half; cpu->rip is where a call returns to. */
bool callgate_enter(struct soft_cpu *cpu, uint16_t selector, uint64_t low, bool is_call);

#endif
