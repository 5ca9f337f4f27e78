/* SPDX-License-Identifier: MIT */
/* commands_block: the QMP commands about disks, in QEMU's shapes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "disk/dirty.h"
#include "disk/disk.h"
#include "disk/histogram.h"
#include "disk/throttle.h"
#include "vmm/control/commands.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/options/disk_path.h"

static void add_snapshots(json_t *image, const struct disk *disk)
{
    json_t *list = json_array();
    for (size_t i = 0; i < disk_snapshot_count(disk); i++) {
        struct disk_snapshot_info info;
        disk_snapshot_get(disk, i, &info);
        json_array_append_new(list,
                              json_pack("{s:I,s:s,s:I,s:I,s:I,s:s,s:I}", "vm-clock-nsec",
                                        (json_int_t)(info.vm_clock_ns % 1000000000), "name",
                                        info.name, "date-sec", (json_int_t)info.date_sec,
                                        "date-nsec", (json_int_t)info.date_nsec, "vm-clock-sec",
                                        (json_int_t)(info.vm_clock_ns / 1000000000), "id", info.id,
                                        "vm-state-size", (json_int_t)info.vmstate_bytes));
    }
    if (json_array_size(list))
        json_object_set(image, "snapshots", list);
    json_decref(list);
}

static json_t *image_object(const struct disk *disk, unsigned depth)
{
    struct stat status;
    json_t *image = json_pack("{s:I,s:s*,s:s}", "virtual-size", (json_int_t)disk_size_bytes(disk),
                              "filename", disk_path(disk), "format", disk_format(disk));
    if (image && disk_path(disk) && stat(disk_path(disk), &status) == 0)
        json_object_set_new(image, "actual-size", json_integer((json_int_t)status.st_blocks * 512));
    if (image)
        add_snapshots(image, disk);
    const struct disk *backing = disk_backing(disk);
    if (image && backing && depth < DISK_BACKING_DEPTH_MAX) {
        json_object_set_new(image, "backing-filename", json_string(disk_path(backing)));
        json_object_set_new(image, "full-backing-filename", json_string(disk_path(backing)));
        json_object_set_new(image, "backing-filename-format", json_string(disk_format(backing)));
        json_object_set_new(image, "backing-image", image_object(backing, depth + 1));
    }
    return image;
}

json_t *commands_image(const struct disk *disk)
{
    return image_object(disk, 0);
}

/* As block_set_io_throttle has them: the drive's, not its nodes'. */
static void add_limits(json_t *node, const struct disk *disk)
{
    static const char *const names[THROTTLE_KINDS] = {"bps",  "bps_rd",  "bps_wr",
                                                      "iops", "iops_rd", "iops_wr"};
    const struct throttle_limits *limits = disk_get_limits(disk);
    char key[32];
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        const uint64_t burst = limits->bucket[i].burst;
        json_object_set_new(node, names[i], json_integer((json_int_t)limits->bucket[i].average));
        if (!burst)
            continue;
        snprintf(key, sizeof(key), "%s_max", names[i]);
        json_object_set_new(node, key, json_integer((json_int_t)burst));
        snprintf(key, sizeof(key), "%s_max_length", names[i]);
        json_object_set_new(node, key, json_integer((json_int_t)limits->bucket[i].burst_s));
    }
    if (limits->operation_bytes)
        json_object_set_new(node, "iops_size", json_integer((json_int_t)limits->operation_bytes));
    if (disk_throttle_group(disk))
        json_object_set_new(node, "group", json_string(disk_throttle_group(disk)));
}

/* A job's own bitmap has no name, and is nobody else's business. */
static void add_bitmaps(json_t *node, const struct disk *disk)
{
    json_t *list = json_array();
    list_for_each(entry, disk_bitmaps((struct disk *)disk))
    {
        const struct dirty_bitmap *bitmap = list_entry(entry, struct dirty_bitmap, node);
        if (!*bitmap->name)
            continue;
        json_t *one = json_pack("{s:s,s:b,s:b,s:b,s:I,s:I}", "name", bitmap->name, "recording",
                                bitmap->enabled, "persistent", bitmap->persistent, "busy", 0,
                                "granularity", (json_int_t)1 << bitmap->granularity_bits, "count",
                                (json_int_t)dirty_bitmap_count_bytes(bitmap));
        if (bitmap->inconsistent)
            json_object_set_new(one, "inconsistent", json_true());
        json_array_append_new(list, one);
    }
    if (json_array_size(list))
        json_object_set(node, "dirty-bitmaps", list);
    json_decref(list);
}

static int backing_depth(const struct disk *disk)
{
    int depth = 0;
    while ((disk = disk_backing(disk)))
        depth++;
    return depth;
}

/* BlockDeviceInfo. Node names are the drives' ids: evisor has one node a drive to speak of. */
static json_t *node_object(const struct config_disk *config, const struct disk *disk)
{
    const struct disk_cache_mode *cache = &config->options.cache;
    json_t *node = json_pack(
        "{s:i,s:s,s:o,s:i,s:b,s:s,s:i,s:s,s:i,s:i,s:i,s:b,s:i,s:i,s:{s:b,s:b,s:b},s:s*}", "iops_rd",
        0, "detect_zeroes", "off", "image", image_object(disk, 0), "iops_wr", 0, "ro",
        disk_is_read_only(disk), "node-name", disk_node_name(disk), "backing_file_depth",
        backing_depth(disk), "drv", disk_format(disk), "iops", 0, "bps_wr", 0, "write_threshold", 0,
        "encrypted", 0, "bps", 0, "bps_rd", 0, "cache", "no-flush", cache->no_flush, "direct",
        cache->direct, "writeback", cache->writeback, "file", disk_path(disk));
    const struct disk *backing = disk_backing(disk);
    if (node) {
        add_bitmaps(node, disk);
    }
    if (node && backing)
        json_object_set_new(node, "backing_file", json_string(disk_path(backing)));
    return node;
}

/* query-block and query-blockstats name drives, and nodes that a device uses; `path` is the
 * device's. */
static bool is_listed(const struct machine *machine, unsigned index, char path[DISK_PATH_BYTES])
{
    const struct config_disk *disk = &machine_config(machine)->disks[index];
    if (!machine_disk(machine, index) || (disk->is_node && !disk->is_attached))
        return false;
    disk_path_print(disk, index, path);
    return true;
}

static const char *io_status(const struct machine *machine, unsigned index)
{
    switch (machine_disk_error(machine, index)) {
    case 0:
        return "ok";
    case ENOSPC:
        return "nospace";
    default:
        return "failed";
    }
}

void qmp_query_block(struct qmp_call *call)
{
    struct machine *machine = call->control->machine;
    const struct vm_config *config = machine_config(machine);
    json_t *list = json_array();
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct config_disk *disk = &config->disks[i];
        char path[DISK_PATH_BYTES];
        if (!is_listed(machine, i, path))
            continue;
        json_t *inserted = node_object(disk, machine_disk(machine, i));
        if (inserted)
            add_limits(inserted, machine_disk(machine, i));
        json_t *entry = json_pack("{s:s,s:s,s:b,s:b,s:o*,s:s*,s:s}", "io-status",
                                  io_status(machine, i), "device", disk->is_node ? "" : disk->id,
                                  "locked", 0, "removable", 0, "inserted", inserted, "qdev",
                                  disk->is_attached ? path : NULL, "type", "unknown");
        if (entry)
            json_array_append_new(list, entry);
    }
    qmp_call_return(call, list);
}

void qmp_query_named_block_nodes(struct qmp_call *call)
{
    const struct vm_config *config = machine_config(call->control->machine);
    json_t *list = json_array();
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct disk *disk = machine_disk(call->control->machine, i);
        json_t *node = disk ? node_object(&config->disks[i], disk) : NULL;
        if (node)
            json_array_append_new(list, node);
    }
    qmp_call_return(call, list);
}

static void set_counter(json_t *stats, const char *prefix, const char *name, uint64_t value)
{
    char key[64];
    snprintf(key, sizeof(key), prefix, name);
    json_object_set_new(stats, key, json_integer((json_int_t)MIN(value, INT64_MAX)));
}

/* How long requests took, where block-latency-histogram-set asked for it. */
static void add_histogram(json_t *stats, const char *key, const struct disk_histogram *histogram)
{
    if (!histogram)
        return;
    json_t *boundaries = json_array(), *bins = json_array();
    for (size_t i = 0; i < histogram->count; i++)
        json_array_append_new(boundaries, json_integer((json_int_t)histogram->boundary[i]));
    for (size_t i = 0; i <= histogram->count; i++)
        json_array_append_new(bins, json_integer((json_int_t)histogram->bins[i]));
    json_object_set_new(stats, key, json_pack("{s:o,s:o}", "boundaries", boundaries, "bins", bins));
}

/* BlockDeviceStats. Zeroes and discards are what QEMU calls unmap. */
static json_t *stats_object(const struct disk *disk)
{
    static const struct {
        const char *name;
        enum disk_op op;
    } ops[] = {
        {"rd", DISK_READ}, {"wr", DISK_WRITE}, {"unmap", DISK_DISCARD}, {"flush", DISK_FLUSH}};
    struct disk_stats counters;
    disk_get_stats(disk, &counters);
    json_t *stats = json_pack("{s:b,s:b,s:[],s:i}", "account_invalid", 1, "account_failed", 1,
                              "timed_stats", "wr_highest_offset", 0);
    for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
        const char *name = ops[i].name;
        set_counter(stats, "%s_operations", name, counters.by_op[ops[i].op].operations);
        set_counter(stats, "%s_total_time_ns", name, counters.by_op[ops[i].op].total_ns);
        set_counter(stats, "failed_%s_operations", name, counters.by_op[ops[i].op].failed);
        set_counter(stats, "invalid_%s_operations", name, 0);
        if (ops[i].op == DISK_FLUSH)
            continue;
        set_counter(stats, "%s_bytes", name, counters.by_op[ops[i].op].bytes);
        set_counter(stats, "%s_merged", name, 0);
    }
    add_histogram(stats, "rd_latency_histogram", disk_get_histogram(disk, DISK_READ));
    add_histogram(stats, "wr_latency_histogram", disk_get_histogram(disk, DISK_WRITE));
    add_histogram(stats, "flush_latency_histogram", disk_get_histogram(disk, DISK_FLUSH));
    return stats;
}

void qmp_query_blockstats(struct qmp_call *call)
{
    struct machine *machine = call->control->machine;
    const struct vm_config *config = machine_config(machine);
    json_t *list = json_array();
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct config_disk *disk = &config->disks[i];
        char path[DISK_PATH_BYTES];
        if (!is_listed(machine, i, path))
            continue;
        json_t *entry = json_pack("{s:s,s:s,s:o,s:s*}", "device", disk->is_node ? "" : disk->id,
                                  "node-name", disk_node_name(machine_disk(machine, i)), "stats",
                                  stats_object(machine_disk(machine, i)), "qdev",
                                  disk->is_attached ? path : NULL);
        if (entry)
            json_array_append_new(list, entry);
    }
    qmp_call_return(call, list);
}

void qmp_block_resize(struct qmp_call *call)
{
    const char *device = json_string_value(json_object_get(call->arguments, "device"));
    const char *node = json_string_value(json_object_get(call->arguments, "node-name"));
    json_int_t size = json_integer_value(json_object_get(call->arguments, "size"));
    const char *id = device ? device : node;
    struct disk *disk = id ? machine_find_disk(call->control->machine, id) : NULL;
    if (!disk || (device && node))
        qmp_call_fail(call, QMP_GENERIC, "Cannot find device='%s' nor node-name='%s'",
                      device ? device : "", node ? node : "");
    else if (size < 0)
        qmp_call_fail(call, QMP_GENERIC, "Parameter 'size' expects a >0 size");
    else if (size % 512)
        qmp_call_fail(call, QMP_GENERIC, "Parameter 'size' must be a multiple of 512");
    else
        disk_resize(disk, (uint64_t)size, qmp_call_done, call);
}
