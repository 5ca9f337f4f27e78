/* SPDX-License-Identifier: MIT */
/* histogram: buckets of the value's leading bits. */
#include "tools/bench/histogram.h"

#include "base/check.h"

static unsigned bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - 5u;
    unsigned bucket = (shift + 1) * HISTOGRAM_STEPS + (unsigned)(value >> shift) - HISTOGRAM_STEPS;
    return MIN(bucket, HISTOGRAM_BUCKETS - 1);
}

uint64_t histogram_floor(unsigned bucket)
{
    if (bucket < HISTOGRAM_STEPS)
        return bucket;
    return (uint64_t)(HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS) << (bucket / HISTOGRAM_STEPS - 1);
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->count++;
    histogram->buckets[bucket_of(value)]++;
}

void histogram_merge(struct histogram *histogram, const struct histogram *other)
{
    histogram->count += other->count;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        histogram->buckets[i] += other->buckets[i];
}

uint64_t histogram_percentile(const struct histogram *histogram, uint64_t parts_per_million)
{
    unsigned __int128 wanted = (unsigned __int128)histogram->count * parts_per_million / 1000000;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen > wanted)
            return histogram_floor(i);
    }
    return 0;
}
