/* SPDX-License-Identifier: MIT */
/*
 * throttle: a disk's limits on bytes and operations, as leaky buckets. A request waits until all of
 * its buckets have room; the moment is computed, and one timer set for exactly it: nothing is
 * looked at in steps. Requests of a direction stay in order.
 */
#ifndef DISK_THROTTLE_H
#define DISK_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "base/error.h"
#include "base/loop.h"

struct disk;
struct disk_request;

enum throttle_kind { /* total, read, write of each */
                     THROTTLE_BPS_TOTAL,
                     THROTTLE_BPS_READ,
                     THROTTLE_BPS_WRITE,
                     THROTTLE_OPS_TOTAL,
                     THROTTLE_OPS_READ,
                     THROTTLE_OPS_WRITE,
                     THROTTLE_KINDS,
};

/* In units a second; 0: no limit. As throttling.* of qemu(1). */
struct throttle_limits {
    struct {
        uint64_t average, burst;
        uint64_t burst_s; /* how long a burst may last; at least 1 where there is one */
    } bucket[THROTTLE_KINDS];
    uint64_t operation_bytes; /* requests count as one operation for each so many; 0: as one */
};

struct throttle {
    struct disk *disk;
    struct throttle_limits limits;
    bool is_on, has_timer, is_closing;
    struct loop_timer timer;
    struct {
        double level, burst_level;
    } state[THROTTLE_KINDS];
    uint64_t leaked_ns;
    struct list waiting[2]; /* reads, writes */
    uint64_t waiting_count, delayed;
    void (*on_closed)(void *opaque);
    void *opaque;
};

/* 0 or -errno. */
int must_check disk_set_limits(struct disk *disk, const struct throttle_limits *limits);
const struct throttle_limits *disk_get_limits(const struct disk *disk);

/* In QEMU's words. */
int must_check throttle_check(const struct throttle_limits *limits, struct error *err);

void throttle_init(struct throttle *throttle, struct disk *disk);
/* New limits; what waits is looked at again. -errno: no timer. */
int must_check throttle_set(struct throttle *throttle, struct loop *loop,
                            const struct throttle_limits *limits);
/* True: the request waits, and disk_admit follows. */
bool throttle_delays(struct throttle *throttle, struct disk_request *request);
/* Lets everything through at once: the machine stops or ends. */
void throttle_release(struct throttle *throttle);
/* False if there is nothing to close. Nothing waits. */
bool throttle_close(struct throttle *throttle, void (*on_closed)(void *opaque), void *opaque);

#endif
