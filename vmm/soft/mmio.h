/* SPDX-License-Identifier: MIT */
/*
 * mmio: what is behind physical addresses that are not RAM, and I/O ports: the LAPIC, ioeventfds,
 * and everything else by leaving vcpu_run.
 */
#ifndef VMM_SOFT_MMIO_H
#define VMM_SOFT_MMIO_H

#include "vmm/soft/cpu.h"

/* `data` is read or written. False: an exit is noted, the instruction runs again with the answer.
 */
bool mmio_access(struct soft_cpu *cpu, uint64_t gpa, void *data, unsigned length, bool is_write);
/* `size` 1, 2 or 4. */
bool mmio_port(struct soft_cpu *cpu, uint16_t port, void *data, unsigned size, bool is_write);

/* The exit has been answered: keeps the answer for the second run of the instruction. */
void mmio_answered(struct soft_cpu *cpu);
/* That run is over. */
void mmio_forget(struct soft_cpu *cpu);

#endif
