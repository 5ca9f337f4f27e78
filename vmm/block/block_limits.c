/* SPDX-License-Identifier: MIT */
/* block_limits: block_set_io_throttle and block-latency-histogram-set. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/histogram.h"
#include "disk/throttle.h"
#include "vmm/block/block_private.h"

/* "device" is a drive's; "id" is its device's, and evisor takes the drive's there too. */
static struct disk *find_device(struct block_call *call, struct error *err)
{
    const char *device = block_text(call->args, "device"), *id = block_text(call->args, "id");
    if ((device != NULL) == (id != NULL)) {
        error_set(err, EINVAL, "Need exactly one of 'device' and 'id'");
        return NULL;
    }
    struct node *node;
    struct error ignored = {0};
    const struct block_host *host = &call->block->host;
    struct disk *disk = id ? host->of_device(host->opaque, id) : NULL;
    if (!disk)
        disk = block_find(call->block, device ? device : id, &node, &ignored);
    if (!disk)
        error_set(err, ENODEV, "Device '%s' not found", device ? device : id);
    return disk;
}

/* A negative number becomes one that is too large. */
static uint64_t limit_of(const json_t *args, const char *name, json_int_t otherwise)
{
    const json_t *value = json_object_get(args, name);
    return (uint64_t)(value ? json_integer_value(value) : otherwise);
}

static void read_limits(const json_t *args, struct throttle_limits *limits)
{
    static const char *const names[THROTTLE_KINDS] = {"bps",  "bps_rd",  "bps_wr",
                                                      "iops", "iops_rd", "iops_wr"};
    char key[32];
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        const char *rest = strchr(names[i], '_');
        limits->bucket[i].average = limit_of(args, names[i], 0);
        snprintf(key, sizeof(key), "%s%s%s", i < 3 ? "bps" : "iops", rest ? rest : "", "_max");
        limits->bucket[i].burst = limit_of(args, key, 0);
        snprintf(key, sizeof(key), "%s%s%s", i < 3 ? "bps" : "iops", rest ? rest : "",
                 "_max_length");
        limits->bucket[i].burst_s = limit_of(args, key, 1);
    }
    limits->operation_bytes = limit_of(args, "iops_size", 0);
}

static void finish(struct block_call *call, int result, const struct error *err)
{
    if (err->code == ENODEV)
        block_fail(call, BLOCK_NOT_FOUND, "%s", err->text);
    else
        block_finish(call, result, err);
}

/* A disk that is in no group yet gets one by the name that was said. */
static int set_limits(struct block_call *call, struct disk *disk,
                      const struct throttle_limits *limits)
{
    const char *group = block_text(call->args, "group");
    const char *device = block_text(call->args, "device");
    if (!group && !disk_throttle_group(disk))
        group = device ? device : block_text(call->args, "id");
    if (group && throttle_is_limited(limits))
        return throttle_groups_join(call->block->host.throttle_groups, disk, group, limits);
    return disk_set_limits(disk, limits);
}

void block_set_throttle(struct block_call *call)
{
    struct error err = {0};
    struct throttle_limits limits;
    struct disk *disk = find_device(call, &err);
    int result = disk ? 0 : err.code == EINVAL ? -EINVAL : -ENODEV;
    read_limits(call->args, &limits);
    if (!result)
        result = throttle_check(&limits, &err);
    if (!result)
        result = set_limits(call, disk, &limits);
    finish(call, result, &err);
}

static int set_one(struct disk *disk, enum disk_op op, const json_t *list, struct error *err)
{
    size_t count = json_array_size(list);
    uint64_t *boundaries = calloc(count + 1, sizeof(*boundaries));
    if (!boundaries)
        return error_set(err, ENOMEM, "no memory for a histogram");
    for (size_t i = 0; i < count; i++) {
        json_int_t value = json_integer_value(json_array_get(list, i));
        boundaries[i] = value > 0 ? (uint64_t)value : 0;
    }
    int result = disk_set_histogram(disk, op, boundaries, count);
    free(boundaries);
    return result;
}

/* No boundaries at all: all histograms go. */
void block_set_histogram(struct block_call *call)
{
    static const struct {
        const char *key, *what;
        enum disk_op op;
    } ops[] = {{"boundaries-read", "read", DISK_READ},
               {"boundaries-write", "write", DISK_WRITE},
               {"boundaries-flush", "flush", DISK_FLUSH}};
    struct error err = {0};
    struct disk *disk = find_device(call, &err);
    const json_t *all = json_object_get(call->args, "boundaries");
    bool has_none = !all;
    int result = disk ? 0 : -ENODEV;
    for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
        has_none &= !json_object_get(call->args, ops[i].key);
    for (size_t i = 0; i < ARRAY_SIZE(ops) && !result; i++) {
        const json_t *list = json_object_get(call->args, ops[i].key);
        list = list ? list : all;
        if (!list && !has_none)
            continue;
        result = set_one(disk, ops[i].op, list, &err);
        if (result == -EINVAL)
            error_set(&err, EINVAL, "Device '%s' set %s boundaries fail",
                      block_text(call->args, "id"), ops[i].what);
    }
    finish(call, result, &err);
}
