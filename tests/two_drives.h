/* SPDX-License-Identifier: MIT */
/*
 * two_drives: a fake guest with two disks, one to be mistreated and one to watch that nothing
 * reaches it, and an entropy device beside them.
 */
#ifndef TESTS_TWO_DRIVES_H
#define TESTS_TWO_DRIVES_H

#include <linux/virtio_ring.h>

#include "devices/virtio_blk.h"
#include "tests/fake_disk.h"
#include "tools/bench/fake_guest.h"

#define TWO_DRIVES_QUEUE_SIZE 16
#define TWO_DRIVES_FEATURES                                                                        \
    (VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |            \
     VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX))

struct drive {
    struct disk *disk;
    struct device *device;
    struct fake_device fd;
    struct fake_queue queue;
};

struct two_drives {
    enum virtio_blk_action on_error;
    struct fake_guest guest;
    struct drive victim, witness;
    struct device *rng;
    uint64_t header, data, status, table;
    uint64_t first_free_gpa;
};

/* Both live, queue 0 of each with TWO_DRIVES_QUEUE_SIZE entries. Disks hold 'v' and 'w'. */
void two_drives_start(struct two_drives *f);
void two_drives_stop(struct two_drives *f);
/* Reset, negotiation, queue 0, DRIVER_OK. */
void two_drives_set_up(struct drive *drive);
/* Fills in the header that two_drives_offer_read uses. */
void two_drives_set_header(struct two_drives *f, uint32_t type, uint64_t sector);
/* Adds a read of sector 1; does not kick. */
void two_drives_offer_read(struct two_drives *f, struct drive *drive);
/* Reads and finds `byte`. */
void two_drives_assert_works(struct two_drives *f, struct drive *drive, char byte);

#endif
