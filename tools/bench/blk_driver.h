/* SPDX-License-Identifier: MIT */
/*
 * blk_driver: a driver's side of virtio-blk in memory (virtio 1.2, sections 2.7 and 5.2), before
 * the real device. Kicks and interrupts follow event_idx as Linux's driver does.
 */
#ifndef TOOLS_BENCH_BLK_DRIVER_H
#define TOOLS_BENCH_BLK_DRIVER_H

#include "devices/virtio_blk.h"
#include "tools/bench/path.h"
#include "tools/bench/ring.h"

struct blk_slot {
    uint64_t header_gpa, data_gpa, status_gpa;
    uint64_t offset, started_ns;
};

struct blk_driver {
    struct path_run run;
    struct fake_guest *guest;
    struct device *device;
    struct fake_device driver;
    unsigned first_vector;
    struct ring rings[PATH_QUEUES_MAX];
    struct blk_slot slots[PATH_DEPTH_MAX]; /* slot n belongs to ring n % options->queues */
    unsigned in_flight;
};

/* Describes the chains of all slots in rings that are ready. */
void blk_driver_describe(struct blk_driver *driver);
/* Opens the disk and brings the device up. Guest, run.image, .options and .result are set. */
int must_check blk_driver_open(struct blk_driver *driver, struct error *err);
/* Makes a slot's next request available. */
void blk_driver_offer(struct blk_driver *driver, unsigned index);
/* Takes what is used and, until the run is over, offers as much again. */
void blk_driver_take(struct blk_driver *driver);
/* Takes the figures, verifies, closes device and disk. */
int must_check blk_driver_close(struct blk_driver *driver, struct error *err);

#endif
