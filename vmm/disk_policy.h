/* SPDX-License-Identifier: MIT */
/*
 * disk_policy: what werror= and rerror= of -drive do when a drive's request fails: tell the guest,
 * pretend, or stop the machine and try again when it continues. Each failure is a BLOCK_IO_ERROR.
 */
#ifndef VMM_DISK_POLICY_H
#define VMM_DISK_POLICY_H

#include "devices/virtio_blk.h"

struct machine;

/* One for each drive, by its index in the config. */
struct disk_policy {
    struct machine *machine;
    unsigned drive;
    struct device *device; /* the drive's; NULL: there is none */
    int held_error;        /* the errno for which requests wait for the machine to continue, or 0 */
};

/* virtio_blk_options.on_error; `opaque` is the struct disk_policy. */
enum virtio_blk_action disk_policy_on_error(void *opaque, enum disk_op op, int error);

/* The machine continues: submits again what was held. */
void disk_policy_retry(struct machine *machine);

/* The devices were reset: nothing is held any more. */
void disk_policy_forget(struct machine *machine);

#endif
