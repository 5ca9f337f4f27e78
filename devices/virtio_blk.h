/* SPDX-License-Identifier: MIT */
/*
 * virtio_blk: a disk for the guest (virtio 1.2, section 5.2) over disk/disk.h.
 *
 * Data moves straight between guest memory and the disk. What the disk answers becomes the status
 * byte; whatever the guest asks, each request is answered exactly once.
 */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

#include "devices/virtio_pci.h"
#include "disk/disk.h"

struct virtio_blk_options {
    const char *serial;   /* NULL: empty; at most 20 bytes count */
    unsigned queue_count; /* 0: 1 */
};

/* The disk stays the caller's; it is closed after the device. Read-only disks make the device so.
 */
int must_check virtio_blk_create(const struct virtio_pci_place *place, struct disk *disk,
                                 const struct virtio_blk_options *options, struct device **out,
                                 struct error *err);

#endif
