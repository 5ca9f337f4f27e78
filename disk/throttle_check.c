/* SPDX-License-Identifier: MIT */
/* throttle_check: which limits go together; needs no disk. */
#include <errno.h>

#include "disk/throttle.h"

#define LIMIT_MAX UINT64_C(1000000000000000)

int throttle_check(const struct throttle_limits *limits, struct error *err)
{
    for (unsigned i = 0; i < THROTTLE_KINDS; i += 3) {
        const uint64_t total = limits->bucket[i].average;
        if (total && (limits->bucket[i + 1].average || limits->bucket[i + 2].average))
            return error_set(err, EINVAL,
                             "bps/iops/max total values and read/write values cannot be used at "
                             "the same time");
        if (limits->bucket[i].burst && (limits->bucket[i + 1].burst || limits->bucket[i + 2].burst))
            return error_set(err, EINVAL,
                             "bps/iops/max total values and read/write values cannot be used at "
                             "the same time");
    }
    if (limits->operation_bytes && !limits->bucket[THROTTLE_OPS_TOTAL].average &&
        !limits->bucket[THROTTLE_OPS_READ].average && !limits->bucket[THROTTLE_OPS_WRITE].average)
        return error_set(err, EINVAL, "iops size requires an iops value to be set");
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        uint64_t average = limits->bucket[i].average, burst = limits->bucket[i].burst;
        if (average > LIMIT_MAX || burst > LIMIT_MAX)
            return error_set(err, EINVAL, "bps/iops/max values must be within [0, %llu]",
                             (unsigned long long)LIMIT_MAX);
        if (!limits->bucket[i].burst_s)
            return error_set(err, EINVAL, "the burst length cannot be 0");
        if (limits->bucket[i].burst_s > 1 && !burst)
            return error_set(err, EINVAL, "burst length set without burst rate");
        if (burst && limits->bucket[i].burst_s > LIMIT_MAX / burst)
            return error_set(err, EINVAL, "burst length too high for this burst rate");
        if (burst && !average)
            return error_set(err, EINVAL, "bps_max/iops_max require corresponding bps/iops values");
        if (burst && burst < average)
            return error_set(err, EINVAL, "bps_max/iops_max cannot be lower than bps/iops");
    }
    return 0;
}
