/* SPDX-License-Identifier: MIT */
/* histogram: bins between sorted boundaries, found by halving. */
#include "disk/histogram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/disk_private.h"

void disk_histogram_add(struct disk_histogram *histogram, uint64_t took_ns)
{
    size_t low = 0, high = histogram->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (took_ns < histogram->boundary[middle])
            high = middle;
        else
            low = middle + 1;
    }
    histogram->bins[low]++;
    histogram->total_ns += took_ns;
}

int disk_set_histogram(struct disk *disk, enum disk_op op, const uint64_t *boundaries_ns,
                       size_t count)
{
    struct disk_histogram *histogram = NULL;
    if (count > DISK_HISTOGRAM_MAX)
        return -EINVAL;
    for (size_t i = 0; i < count; i++)
        if (boundaries_ns[i] <= (i ? boundaries_ns[i - 1] : 0))
            return -EINVAL;
    if (count) {
        histogram = calloc(1, sizeof(*histogram) + (2 * count + 1) * sizeof(uint64_t));
        if (!histogram)
            return -ENOMEM;
        histogram->count = count;
        histogram->bins = histogram->boundary + count;
        memcpy(histogram->boundary, boundaries_ns, count * sizeof(*boundaries_ns));
    }
    free(disk->histograms[op]);
    disk->histograms[op] = histogram;
    return 0;
}

const struct disk_histogram *disk_get_histogram(const struct disk *disk, enum disk_op op)
{
    return disk->histograms[op];
}
