/* SPDX-License-Identifier: MIT */
/*
 * pvpanic: the port by which a guest says that it has panicked; and the POST port 0x80, whose
 * writes mean nothing. (QEMU docs/specs/pvpanic.txt, "ISA Interface".)
 */
#ifndef DEVICES_PVPANIC_H
#define DEVICES_PVPANIC_H

#include "devices/bus.h"
#include "devices/device.h"

#define PVPANIC_PORT         0x505
#define PVPANIC_PANICKED     (1u << 0)
#define PVPANIC_CRASH_LOADED (1u << 1) /* a crash kernel takes over */

struct pvpanic {
    struct device device;
    /* Private. */
    struct bus *bus;
    void (*on_panic)(void *opaque, unsigned events);
    void *opaque;
    struct bus_region region, post_region;
    uint8_t post_code;
};

/* on_panic: PVPANIC_ bits, at least one. Called from inside the guest's write. */
int must_check pvpanic_create(struct bus *bus, void (*on_panic)(void *opaque, unsigned events),
                              void *opaque, struct pvpanic **out, struct error *err);

#endif
