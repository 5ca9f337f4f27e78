/* SPDX-License-Identifier: MIT */
/* throttle_check: what limits are called, and which go together; needs no disk. */
#include <errno.h>
#include <string.h>

#include "disk/throttle.h"

#define LIMIT_MAX UINT64_C(1000000000000000)

const char *const throttle_names[THROTTLE_KINDS] = {"bps-total",  "bps-read",  "bps-write",
                                                    "iops-total", "iops-read", "iops-write"};

const struct throttle_limits throttle_no_limits = {
    .bucket = {{0, 0, 1}, {0, 0, 1}, {0, 0, 1}, {0, 0, 1}, {0, 0, 1}, {0, 0, 1}}};

uint64_t *throttle_limits_field(struct throttle_limits *limits, const char *key)
{
    if (strcmp(key, "iops-size") == 0)
        return &limits->operation_bytes;
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        size_t length = strlen(throttle_names[i]);
        if (strncmp(key, throttle_names[i], length) != 0)
            continue;
        if (!key[length])
            return &limits->bucket[i].average;
        if (strcmp(key + length, "-max") == 0)
            return &limits->bucket[i].burst;
        if (strcmp(key + length, "-max-length") == 0)
            return &limits->bucket[i].burst_s;
    }
    return NULL;
}

/* A negative number becomes too large, which throttle_check tells. */
int throttle_limits_put(uint64_t *field, const char *shown, int64_t number, struct error *err)
{
    if (strstr(shown, "-length") && (number < 0 || number > UINT32_MAX))
        return error_set(err, EINVAL, "%s value must be in the range [0, %u]", shown, UINT32_MAX);
    *field = (uint64_t)number;
    return 0;
}

bool throttle_is_limited(const struct throttle_limits *limits)
{
    for (unsigned i = 0; i < THROTTLE_KINDS; i++)
        if (limits->bucket[i].average)
            return true;
    return false;
}

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
