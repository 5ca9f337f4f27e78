/* SPDX-License-Identifier: MIT */
/*
 * machine_guest: what clients may ask of a machine's balloon, memory devices and virtio ports.
 *
 * Entries are those of the config (vmm/config_guest.h). Loop's thread.
 */
#ifndef VMM_MACHINE_GUEST_H
#define VMM_MACHINE_GUEST_H

#include "vmm/machine.h"

#define MACHINE_BALLOON_STATS 10

struct machine_balloon {
    uint64_t actual_bytes;
    uint64_t stats[MACHINE_BALLOON_STATS]; /* by tag; UINT64_MAX: not told */
    int64_t updated_s;                     /* when; 0: never */
    uint64_t polling_s;
};

/* False if there is none (any more). */
bool machine_get_balloon(const struct machine *machine, struct machine_balloon *out);
/* -ENODEV. More than the guest has means all of it. */
int must_check machine_set_balloon(struct machine *machine, uint64_t bytes);
int must_check machine_set_balloon_polling(struct machine *machine, uint64_t period_s);

struct machine_mem {
    uint64_t gpa, size_bytes, block_bytes, requested_bytes, plugged_bytes;
};

bool machine_get_mem(const struct machine *machine, unsigned index, struct machine_mem *out);
int must_check machine_request_mem(struct machine *machine, unsigned index, uint64_t bytes,
                                   struct error *err);

/* The window of a virtio console's terminal. False if no console is on this chardev. */
bool machine_resize_console(struct machine *machine, const char *chardev, unsigned columns,
                            unsigned rows);

bool machine_port_is_open(const struct machine *machine, unsigned index);

#endif
