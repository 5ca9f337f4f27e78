/* SPDX-License-Identifier: MIT */
/* msr: the model-specific registers. */
#ifndef VMM_SOFT_MSR_H
#define VMM_SOFT_MSR_H

#include "vmm/soft/cpu.h"

/* As RDMSR and WRMSR; false: #GP. Unknown ones are refused. */
bool msr_read(struct soft_cpu *cpu, uint32_t index, uint64_t *value);
bool msr_write(struct soft_cpu *cpu, uint32_t index, uint64_t value);
/* For restoring: without the rules that only bind the guest. */
bool msr_restore(struct soft_cpu *cpu, uint32_t index, uint64_t value);
void msr_reset(struct soft_cpu *cpu);

#endif
