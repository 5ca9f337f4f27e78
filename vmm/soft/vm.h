/* SPDX-License-Identifier: MIT */
/* vm: what the vCPUs of one machine share. */
#ifndef VMM_SOFT_VM_H
#define VMM_SOFT_VM_H

#include "vmm/accel.h"
#include "vmm/soft/ioevent.h"
#include "vmm/soft/lapic.h"
#include "vmm/soft/physmem.h"

struct soft_cpu;

struct soft_vm {
    struct accel_vm accel;
    struct physmem mem;
    struct ioevent_table ioevents;
    struct lapic_hub hub;
    struct soft_cpu *cpus[VCPU_MAX];
    _Atomic unsigned cpu_count;
    /* Splits of locked accesses over cache lines, which the host must not see as such. */
    pthread_mutex_t split_lock;
    _Atomic bool extint; /* the PIC's output */
    /* IOAPIC pins with a level-triggered route: their EOIs leave the accelerator. */
    uint64_t tsc_base; /* the host's TSC when the machine began */
    struct clock *clock;
};

/* For tests and tools that look inside. */
struct soft_cpu *soft_cpu_of(struct accel_vcpu *vcpu);

#endif
