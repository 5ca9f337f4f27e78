/* SPDX-License-Identifier: MIT */
/* machine_inspect: looks into a machine that stands still for a moment, without any event of it. */
#ifndef VMM_MACHINE_INSPECT_H
#define VMM_MACHINE_INSPECT_H

#include "devices/bus.h"
#include "vmm/machine.h"

/*
 * on_done is called, later, on the loop, while no vCPU runs: their state may be read until it
 * returns. Then those that ran go on, unless something else stops them.
 */
void machine_inspect(struct machine *machine, machine_done_fn *on_done, void *opaque);

/* An access to a port, as a CPU makes it; *value is written or read. */
void machine_access_port(struct machine *machine, uint16_t port, unsigned size_bytes, bool is_write,
                         uint64_t *value);

enum machine_range_kind { MACHINE_RANGE_DEVICE, MACHINE_RANGE_RAM, MACHINE_RANGE_ROM };

/* A range of the guest's physical memory or of its ports. */
struct machine_range {
    const char *name; /* that of the device's region, or QEMU's for memory */
    uint64_t base, size_bytes;
    enum machine_range_kind kind;
    const char *alias_of; /* memory of which this is a part, from there on; or NULL */
    uint64_t offset_bytes;
};

/* Calls `visit` for each range of the space, in the order of addresses. */
void machine_for_each_range(const struct machine *machine, enum bus_space space,
                            void (*visit)(void *opaque, const struct machine_range *range),
                            void *opaque);

#endif
