/* SPDX-License-Identifier: MIT */
/*
 * fake_disk: stands in for disk/disk.h behind a device under test: the image is an array, requests
 * can be held back, reordered and failed. Link it before libdisk.
 */
#ifndef TESTS_FAKE_DISK_H
#define TESTS_FAKE_DISK_H

#include "disk/disk.h"

struct disk {
    struct loop *loop;
    uint8_t *bytes;
    uint64_t size_bytes;
    bool read_only;
    bool hold;      /* requests wait for fake_disk_release */
    bool backwards; /* the youngest request completes first */
    int fail;       /* -errno for every request from now on; 0: none */
    unsigned counts[DISK_STATUS + 1];
    unsigned submitted;
    unsigned expected;          /* calls of disk_expect */
    unsigned expected_at_first; /* the same when the first request came */
    unsigned flags_seen;        /* of all requests together */
    unsigned in_flight;
    struct list requests;
    struct loop_task complete;
    void (*on_resize)(void *opaque);
    void *opaque;
};

struct disk *fake_disk_create(struct loop *loop, uint64_t size_bytes, bool read_only);
void fake_disk_destroy(struct disk *disk);
/* Ends the hold: everything completes on the next turn. */
void fake_disk_release(struct disk *disk);
void fake_disk_resize(struct disk *disk, uint64_t size_bytes);

#endif
