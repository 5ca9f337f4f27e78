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

/* What becomes of a request that the disk failed. */
enum virtio_blk_action {
    VIRTIO_BLK_REPORT,    /* the guest gets the error */
    VIRTIO_BLK_IGNORE,    /* the guest is told that all went well; it reads zeroes */
    VIRTIO_BLK_HOLD,      /* the request waits for virtio_blk_retry; the guest should be stopped */
    VIRTIO_BLK_ASK_AGAIN, /* it waits for virtio_blk_decide */
};

struct virtio_blk_options {
    const char *serial;   /* NULL: empty; at most 20 bytes count */
    unsigned queue_count; /* 0: 1 */
    /*
     * Optional; without it errors are reported. Asked while the driver waits for an answer, not
     * during a reset. `error` is a positive errno.
     */
    enum virtio_blk_action (*on_error)(void *opaque, enum disk_op op, int error);
    void *on_error_opaque;
};

/* The disk stays the caller's; it is closed after the device. Read-only disks make the device so.
 */
int must_check virtio_blk_create(const struct virtio_pci_place *place, struct disk *disk,
                                 const struct virtio_blk_options *options, struct device **out,
                                 struct error *err);

/* Submits again, in their order, the requests that were held. Before the guest continues. */
void virtio_blk_retry(struct device *device);
/* Asks again, in their order, what becomes of the requests for which it was to be asked again. */
void virtio_blk_decide(struct device *device);

#endif
