/* SPDX-License-Identifier: MIT */
/*
 * device: what the machine can do with any device: reset it, save it, restore it, close it.
 *
 * A device is created by its own *_create function with its backends handed in; it opens no file,
 * socket or /dev/kvm. It embeds a struct device as its first member.
 */
#ifndef DEVICES_DEVICE_H
#define DEVICES_DEVICE_H

#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"
#include "devices/state.h"

struct device;

struct device_ops {
    const char *kind; /* "serial", "virtio-blk-pci" */

    /* Back to the state after power-on. May leave I/O in flight whose completion is then dropped.
     */
    void (*reset)(struct device *device);

    /* The fields of the struct that embeds `device`. May be NULL for a stateless device. */
    const struct state_table *state;
    /* Optional: bring fields up to date before saving; act on them after restoring. */
    void (*before_save)(struct device *device);
    int (*after_restore)(struct device *device, struct error *err);

    /*
     * Drains what is in flight, unmaps, closes loop state, frees; then calls on_closed, later,
     * never from inside.
     */
    void (*close)(struct device *device, void (*on_closed)(void *opaque), void *opaque);
};

struct device {
    const struct device_ops *ops;
    char id[64]; /* unique in its machine; "" if the user gave none */
    struct list node;
};

/*
 * For the close of a device with nothing in flight: frees `device` (the start of its allocation)
 * and calls on_closed, on a later turn of the loop.
 */
void device_close_later(struct loop *loop, struct device *device, void (*on_closed)(void *opaque),
                        void *opaque);

#endif
