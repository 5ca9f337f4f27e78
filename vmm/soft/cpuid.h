/* SPDX-License-Identifier: MIT */
/*
 * cpuid: the CPU model of the software CPU: which features it has, what CPUID says.
 *
 * The vendor is AMD: guests then leave out the page table isolation that Intel's CPUs need, and C
 * libraries refuse vendors that they do not know. A feature that is executed by the host's own
 * instruction is offered only where the host has it.
 */
#ifndef VMM_SOFT_CPUID_H
#define VMM_SOFT_CPUID_H

#include <stdint.h>

#include "vmm/soft/cpu.h"

/* As KVM_GET_SUPPORTED_CPUID. */
void soft_supported_cpuid(struct accel_cpuid *out);

/* The CPUID instruction: EAX, EBX, ECX, EDX of a leaf as this vCPU sees it now. */
void soft_cpuid(const struct soft_cpu *cpu, uint32_t function, uint32_t index, uint32_t out[4]);

#endif
