/* SPDX-License-Identifier: MIT */
/* hmp_block: the human monitor about disks: what they are, their jobs and their snapshots. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "disk/disk.h"
#include "disk/throttle.h"
#include "vmm/control/commands.h"
#include "vmm/control/hmp_private.h"
#include "vmm/machine_block.h"
#include "vmm/options/disk_path.h"

static struct machine *machine_of(struct hmp_call *call)
{
    return call->control->machine;
}

static unsigned chain_depth(const struct disk *disk)
{
    unsigned depth = 0;
    while ((disk = disk_backing(disk)))
        depth++;
    return depth;
}

static const char *cache_name(const struct disk_cache_mode *cache)
{
    if (cache->no_flush)
        return "writeback, ignore flushes";
    if (cache->direct)
        return cache->writeback ? "writeback, direct" : "writethrough, direct";
    return cache->writeback ? "writeback" : "writethrough";
}

/* The device as query-block names it. */
static void print_attached(FILE *out, const struct config_disk *drive, unsigned index)
{
    char path[DISK_PATH_BYTES];
    if (!drive->is_attached)
        return;
    disk_path_print(drive, index, path);
    fprintf(out, "    Attached to:      %s\r\n", path);
}

struct block_look {
    const char *wanted; /* a drive or node; NULL: all */
    bool has_nodes, is_verbose;
};

/* As evisor-img info prints sizes. */
static void print_size(FILE *out, const char *label, uint64_t bytes, bool has_bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    for (; value > 999.5 && unit + 1 < ARRAY_SIZE(units); unit++)
        value /= 1024;
    fprintf(out, "%s: %.3g %s", label, value, units[unit]);
    if (has_bytes)
        fprintf(out, " (%llu bytes)", (unsigned long long)bytes);
    fprintf(out, "\r\n");
}

static void print_member(FILE *out, const json_t *image, const char *key, const char *label)
{
    const char *text = json_string_value(json_object_get(image, key));
    if (text)
        fprintf(out, "%s: %s\r\n", label, text);
}

static void print_images(FILE *out, const json_t *image)
{
    fprintf(out, "\r\nImages:\r\n");
    for (; image; image = json_object_get(image, "backing-image")) {
        const json_t *actual = json_object_get(image, "actual-size");
        print_member(out, image, "filename", "image");
        print_member(out, image, "format", "file format");
        print_size(out, "virtual size",
                   (uint64_t)json_integer_value(json_object_get(image, "virtual-size")), true);
        if (actual)
            print_size(out, "disk size", (uint64_t)json_integer_value(actual), false);
        print_member(out, image, "backing-filename", "backing file");
        print_member(out, image, "backing-filename-format", "backing file format");
    }
}

/* As QEMU has them: the bursts' lengths are not among them. */
static void print_limits(FILE *out, const struct disk *disk)
{
    static const char *const names[THROTTLE_KINDS] = {"bps",  "bps_rd",  "bps_wr",
                                                      "iops", "iops_rd", "iops_wr"};
    const struct throttle_limits *limits = disk_get_limits(disk);
    if (!throttle_is_limited(limits))
        return;
    fprintf(out, "    I/O throttling:  ");
    for (unsigned unit = 0; unit < THROTTLE_KINDS; unit += THROTTLE_OPS_TOTAL) {
        for (unsigned i = unit; i < unit + THROTTLE_OPS_TOTAL; i++)
            fprintf(out, " %s=%llu", names[i], (unsigned long long)limits->bucket[i].average);
        for (unsigned i = unit; i < unit + THROTTLE_OPS_TOTAL; i++)
            fprintf(out, " %s_max=%llu", names[i], (unsigned long long)limits->bucket[i].burst);
    }
    fprintf(out, " iops_size=%llu group=%s\r\n", (unsigned long long)limits->operation_bytes,
            disk_throttle_group(disk));
}

/* QEMU's shape: as a drive, or, with -n, as a node. */
static void print_disk(FILE *out, const struct block_look *look, const struct config_disk *drive,
                       unsigned index, const struct disk *disk)
{
    const char *node = disk_node_name(disk);
    bool has_node = !look->has_nodes && *node && strcmp(node, drive->id) != 0;
    fprintf(out, "%s%s%s%s: %s (%s%s)\r\n", look->has_nodes && *node ? node : drive->id,
            has_node ? " (" : "", has_node ? node : "", has_node ? ")" : "", disk_path(disk),
            disk_format(disk), disk_is_read_only(disk) ? ", read-only" : "");
    if (!look->has_nodes)
        print_attached(out, drive, index);
    fprintf(out, "    Cache mode:       %s\r\n", cache_name(&drive->options.cache));
    if (disk_backing(disk))
        fprintf(out, "    Backing file:     %s (chain depth: %u)\r\n",
                disk_path(disk_backing(disk)), chain_depth(disk));
    if (!look->has_nodes)
        print_limits(out, disk);
    if (look->is_verbose) {
        json_t *image = commands_image(disk);
        print_images(out, image);
        json_decref(image);
    }
}

/* -n and -v in any order, then a name. */
static bool read_look(struct hmp_call *call, struct block_look *look)
{
    for (unsigned i = 1; i < call->word_count; i++) {
        const char *word = call->words[i];
        if (*word == '-' && word[1] && !strchr("nv", word[1])) {
            fprintf(call->out,
                    "block: unsupported option %s\r\n"
                    "Try \"help info block\" for more information\r\n",
                    word);
            return false;
        }
        look->has_nodes |= strcmp(word, "-n") == 0;
        look->is_verbose |= strcmp(word, "-v") == 0;
        if (*word != '-')
            look->wanted = word;
    }
    return true;
}

void hmp_info_block(struct hmp_call *call)
{
    const struct vm_config *config = machine_config(machine_of(call));
    struct block_look look = {0};
    bool is_first = true;
    if (!read_look(call, &look))
        return;
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct config_disk *drive = &config->disks[i];
        const struct disk *disk = machine_disk(machine_of(call), i);
        if (!disk || (look.wanted && strcmp(look.wanted, drive->id) != 0 &&
                      !(look.has_nodes && strcmp(look.wanted, disk_node_name(disk)) == 0)))
            continue;
        fputs(is_first ? "" : "\r\n", call->out);
        print_disk(call->out, &look, drive, i, disk);
        is_first = false;
    }
    if (look.wanted && is_first)
        fprintf(call->out, "Error: Device '%s' not found\r\n", look.wanted);
}

void hmp_info_blockstats(struct hmp_call *call)
{
    const struct vm_config *config = machine_config(machine_of(call));
    for (unsigned i = 0; i < config->disk_count; i++) {
        struct disk_stats stats;
        if (!machine_disk(machine_of(call), i))
            continue;
        disk_get_stats(machine_disk(machine_of(call), i), &stats);
        fprintf(call->out,
                "%s: rd_bytes=%llu wr_bytes=%llu rd_operations=%llu wr_operations=%llu "
                "flush_operations=%llu wr_total_time_ns=%llu rd_total_time_ns=%llu "
                "flush_total_time_ns=%llu\r\n",
                config->disks[i].id, (unsigned long long)stats.by_op[DISK_READ].bytes,
                (unsigned long long)stats.by_op[DISK_WRITE].bytes,
                (unsigned long long)stats.by_op[DISK_READ].operations,
                (unsigned long long)stats.by_op[DISK_WRITE].operations,
                (unsigned long long)stats.by_op[DISK_FLUSH].operations,
                (unsigned long long)stats.by_op[DISK_WRITE].total_ns,
                (unsigned long long)stats.by_op[DISK_READ].total_ns,
                (unsigned long long)stats.by_op[DISK_FLUSH].total_ns);
    }
}

/* --- jobs --- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void on_jobs(void *opaque, json_t *jobs, const char *class, const char *text)
{
    struct hmp_call *call = opaque;
    size_t i;
    json_t *job;
    if (class)
        fprintf(call->out, "Error: %s\r\n", text);
    json_array_foreach(jobs, i, job)
    {
        bool streams = strcmp(text_of(job, "type"), "stream") == 0;
        fprintf(call->out,
                "%s%s%sevice %s: Completed %lld of %lld bytes, speed limit %lld bytes/s\r\n",
                streams ? "Streaming" : "Type ", streams ? "" : text_of(job, "type"),
                streams ? " d" : ", d", text_of(job, "device"), number_of(job, "offset"),
                number_of(job, "len"), number_of(job, "speed"));
    }
    if (!class && json_array_size(jobs) == 0)
        fprintf(call->out, "No active jobs\r\n");
    json_decref(jobs);
    hmp_finish(call);
}

void hmp_info_block_jobs(struct hmp_call *call)
{
    call->is_pending = true;
    json_t *arguments = json_object();
    machine_block_command(machine_of(call), "query-block-jobs", arguments, on_jobs, call);
    json_decref(arguments);
}

/* --- snapshots --- */

/* A disk that is written to, and that snapshots can be of. */
static const struct disk *snapshot_disk(struct hmp_call *call, unsigned index)
{
    const struct disk *disk = machine_disk(machine_of(call), index);
    return disk && !disk_is_read_only(disk) ? disk : NULL;
}

static bool has_snapshot(const struct disk *disk, const char *name)
{
    for (size_t i = 0; i < disk_snapshot_count(disk); i++) {
        struct disk_snapshot_info info;
        disk_snapshot_get(disk, i, &info);
        if (strcmp(info.name, name) == 0)
            return true;
    }
    return false;
}

static bool all_have(struct hmp_call *call, const char *name)
{
    for (unsigned i = 0; i < machine_config(machine_of(call))->disk_count; i++)
        if (snapshot_disk(call, i) && !has_snapshot(snapshot_disk(call, i), name))
            return false;
    return true;
}

/* The table's columns are those of evisor-img snapshot -l. */
#define SNAPSHOT_ROW "%-10s%-17s%8s%20s%13s%11s\r\n"

static void print_snapshot(FILE *out, const struct disk_snapshot_info *info)
{
    char size[32] = "0 B", date[32], clock[40];
    time_t seconds = (time_t)info->date_sec;
    struct tm broken;
    unsigned long long ms = info->vm_clock_ns / 1000000, s = ms / 1000;
    if (info->vmstate_bytes)
        snprintf(size, sizeof(size), "%.3g MiB", (double)info->vmstate_bytes / 1048576.0);
    strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &broken));
    snprintf(clock, sizeof(clock), "%02llu:%02llu:%02llu.%03llu", s / 3600, s / 60 % 60, s % 60,
             ms % 1000);
    fprintf(out, SNAPSHOT_ROW, "--", info->name, size, date, clock, "");
}

void hmp_info_snapshots(struct hmp_call *call)
{
    const struct vm_config *config = machine_config(machine_of(call));
    const struct disk *first = NULL;
    bool is_first = true;
    for (unsigned i = 0; i < config->disk_count && !first; i++)
        first = snapshot_disk(call, i);
    for (size_t i = 0; first && i < disk_snapshot_count(first); i++) {
        struct disk_snapshot_info info;
        disk_snapshot_get(first, i, &info);
        if (!all_have(call, info.name))
            continue;
        if (is_first)
            fprintf(call->out, "List of snapshots present on all disks:\r\n" SNAPSHOT_ROW, "ID",
                    "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
        is_first = false;
        print_snapshot(call->out, &info);
    }
    if (is_first)
        fprintf(call->out, "There is no snapshot available.\r\n");
}

void hmp_loadvm(struct hmp_call *call)
{
    const char *name = call->words[1] ? call->words[1] : "";
    if (all_have(call, name) && *name)
        fprintf(call->out, "Error: This is a disk-only snapshot. Revert to it offline: evctl "
                           "snapshot revert, or evisor-img snapshot -a\r\n");
    else
        fprintf(call->out, "Error: Snapshot '%s' does not exist in one or more devices\r\n", name);
}

/* One disk after the other, until none has it. */
static void delete_next(struct hmp_call *call);

static void on_deleted(void *opaque, json_t *value, const char *class, const char *text)
{
    struct hmp_call *call = opaque;
    json_decref(value);
    if (!class) {
        delete_next(call);
        return;
    }
    fprintf(call->out, "Error: %s\r\n", text);
    hmp_finish(call);
}

static void delete_next(struct hmp_call *call)
{
    const struct vm_config *config = machine_config(machine_of(call));
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct disk *disk = snapshot_disk(call, i);
        if (!disk || !has_snapshot(disk, call->words[1]))
            continue;
        json_t *arguments =
            json_pack("{s:s,s:s}", "device", config->disks[i].id, "name", call->words[1]);
        machine_block_command(machine_of(call), "blockdev-snapshot-delete-internal-sync", arguments,
                              on_deleted, call);
        json_decref(arguments);
        return;
    }
    hmp_finish(call);
}

void hmp_delvm(struct hmp_call *call)
{
    if (!call->words[1]) {
        fprintf(call->out, "delvm: string expected\r\nTry \"help delvm\" for more information\r\n");
        return;
    }
    call->is_pending = true;
    delete_next(call);
}
