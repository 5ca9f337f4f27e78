/* SPDX-License-Identifier: MIT */
/*
 * histogram: counts of values in buckets that grow with the value: 32 for each doubling, so that
 * any percentile is right to 3 %.
 */
#ifndef TOOLS_BENCH_HISTOGRAM_H
#define TOOLS_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS   32u
#define HISTOGRAM_BUCKETS (60u * HISTOGRAM_STEPS)

struct histogram {
    uint64_t count;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value);
/* The smallest value that a bucket counts. */
uint64_t histogram_floor(unsigned bucket);
void histogram_merge(struct histogram *histogram, const struct histogram *other);
/* The value below which `parts_per_million` of all values lie; 0 without values. */
uint64_t histogram_percentile(const struct histogram *histogram, uint64_t parts_per_million);

#endif
