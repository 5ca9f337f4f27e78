/* SPDX-License-Identifier: MIT */
/* run: the life of a vCPU between two exits. */
#ifndef VMM_SOFT_RUN_H
#define VMM_SOFT_RUN_H

#include "vmm/soft/cpu.h"

/* As accel_ops.vcpu_run. */
void run_vcpu(struct soft_cpu *cpu, struct accel_exit *exit);

/* The state after power-on (is_init: after INIT), but for the LAPIC, MSRs and FPU. */
void run_reset_registers(struct soft_cpu *cpu);

#endif
