/* SPDX-License-Identifier: MIT */
/* histogram: how long a disk's requests take, counted by ranges that a person chose. */
#ifndef DISK_HISTOGRAM_H
#define DISK_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "disk/disk.h"

#define DISK_HISTOGRAM_MAX 1024 /* boundaries */

struct disk_histogram {
    size_t count;        /* of boundaries; there is one bin more */
    uint64_t total_ns;   /* of all that was counted */
    uint64_t *bins;      /* counts */
    uint64_t boundary[]; /* in ns, growing; then the bins' memory */
};

void disk_histogram_add(struct disk_histogram *histogram, uint64_t took_ns);

/* Starts to count, from zero; no boundaries: stops. -EINVAL: they do not grow, or are too many. */
int must_check disk_set_histogram(struct disk *disk, enum disk_op op, const uint64_t *boundaries_ns,
                                  size_t count);
/* NULL: not counted. */
const struct disk_histogram *disk_get_histogram(const struct disk *disk, enum disk_op op);

#endif
