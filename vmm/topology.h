/* SPDX-License-Identifier: MIT */
/*
 * topology: how many sockets, cores and threads the guest sees, and how CPUID tells it.
 *
 * APIC ids are the CPU's index. vmm/options accepts only counts for which that holds: threads and,
 * with several sockets, cores are powers of two.
 */
#ifndef VMM_TOPOLOGY_H
#define VMM_TOPOLOGY_H

#include "vmm/accel.h"

struct topology {
    unsigned sockets, cores, threads;
};

/* Adapts what the accelerator supports to CPU `index`: topology leaves, APIC id, hypervisor bit. */
void topology_apply(const struct topology *topology, unsigned index, struct accel_cpuid *cpuid);

#endif
