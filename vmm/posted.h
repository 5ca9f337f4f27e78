/* SPDX-License-Identifier: MIT */
/*
 * posted: writes of index registers, which a vCPU need not wait for.
 *
 * A register that only says what the next access is about (configuration address, IOAPIC and RTC
 * index) has no effect of its own. Its write is kept here, and the vCPU goes on at once; the loop
 * makes up for it before the next exit of any vCPU, and before one parks. There is one place for
 * the whole machine, so that writes of several vCPUs keep the order that the guest gave them; a
 * later write of the same register replaces the one that waits.
 */
#ifndef VMM_POSTED_H
#define VMM_POSTED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/accel.h"

struct posted {
    /* Private: the register and the value; 0: none waits. */
    _Atomic uint64_t word;
};

/* Any thread. False: not such a write, or another register's waits; the exit is handed over. */
bool posted_put(struct posted *posted, const struct accel_exit *exit);

/* Loop: the write that waits as the exit it was, with its value in *data. False: none. */
bool posted_take(struct posted *posted, struct accel_exit *exit, uint32_t *data);

#endif
