/* SPDX-License-Identifier: MIT */
/*
 * virtio_balloon: memory that the guest gives back and takes again (virtio 1.2, section 5.5).
 *
 * Pages that the guest puts into the balloon, and with free page reporting those it does not use,
 * are given back to the host; touched again they read as zero. The guest decides what becomes of
 * the target. What it says of its own size is never trusted beyond that.
 */
#ifndef DEVICES_VIRTIO_BALLOON_H
#define DEVICES_VIRTIO_BALLOON_H

#include "devices/virtio_pci.h"

#define VIRTIO_BALLOON_STATS 10 /* tags of section 5.5.6.3 that are known */

struct virtio_balloon_options {
    uint64_t ram_bytes; /* what the guest has with an empty balloon */
    bool deflate_on_oom;
    bool free_page_reporting;
    /* Both optional. The guest told another size of its balloon; it brought statistics. */
    void (*on_changed)(void *opaque);
    void (*on_stats)(void *opaque);
    void *opaque;
};

int must_check virtio_balloon_create(const struct virtio_pci_place *place,
                                     const struct virtio_balloon_options *options,
                                     struct device **out, struct error *err);

/* How much memory the guest should be left with; more than it has: all. */
void virtio_balloon_set_target(struct device *device, uint64_t bytes);
/* How much the guest has outside the balloon, by its own word. */
uint64_t virtio_balloon_actual(const struct device *device);

/* Asks for statistics. False if the guest has not the buffer out that it answers with. */
bool virtio_balloon_ask_stats(struct device *device);
/* The last ones, by tag; UINT64_MAX where the guest told none. */
const uint64_t *virtio_balloon_stats(const struct device *device);

/* Bytes given back to the host so far. */
uint64_t virtio_balloon_released(const struct device *device);

#endif
