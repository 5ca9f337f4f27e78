/* SPDX-License-Identifier: MIT */
/*
 * task: hardware task switches of 32-bit protected mode (Intel SDM volume 3, chapter 8; AMD APM
 * volume 2, section 12.3). Long mode has none.
 */
#ifndef VMM_SOFT_TASK_H
#define VMM_SOFT_TASK_H

#include "vmm/soft/exception.h"

/* Are these descriptors what JMP, CALL and IDT entries switch tasks with? */
bool task_is_gate(uint64_t descriptor);
bool task_is_tss(uint64_t descriptor);

/*
 * Far jump or call to a TSS or task gate whose descriptor is read; cpu->rip is the next
 * instruction's. False: an exception of the old task. True with cpu->pending set: one of the new.
 */
bool task_branch(struct soft_cpu *cpu, uint16_t selector, uint64_t descriptor, bool is_call);

/* IRET with NT set: back along the link of the running task. Results as above. */
bool task_return(struct soft_cpu *cpu);

/* An exception or interrupt through an IDT task gate that was checked. Results as above. */
bool task_deliver(struct soft_cpu *cpu, const struct exception *exception, uint16_t selector);

#endif
