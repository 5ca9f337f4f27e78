/* SPDX-License-Identifier: MIT */
/* kvmclock: the paravirtual clock that Linux guests take from a page the CPU fills. */
#ifndef VMM_SOFT_KVMCLOCK_H
#define VMM_SOFT_KVMCLOCK_H

#include "vmm/soft/cpu.h"

/* Writes the vCPU's time page, if the guest has named one. */
void kvmclock_update(struct soft_cpu *cpu);
/* As early as possible: from then on the TSC's frequency is measured. Any number of times. */
void kvmclock_start(void);
/* Writes the time of day at the machine's start to where MSR 0x4b564d00 says. */
void kvmclock_write_wall_clock(struct soft_cpu *cpu);

/* The host's TSC in kHz, measured once. */
uint32_t kvmclock_tsc_khz(void);
/* TSC ticks to nanoseconds, as a 32.32 multiplication after a shift, and the way back. */
uint64_t kvmclock_ticks_to_ns(uint64_t ticks);

static inline uint64_t kvmclock_host_tsc(void)
{
    return __builtin_ia32_rdtsc();
}

#endif
