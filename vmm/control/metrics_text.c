/* SPDX-License-Identifier: MIT */
/* metrics_text: the counters of disks, networks, vCPUs and loop as lines of text. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/disk.h"
#include "disk/histogram.h"
#include "netbackends/net.h"
#include "vmm/control/metrics.h"

/* A label's value: quotes, backslashes and newlines are escaped. */
static void put_label(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", out);
        else if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

static void put_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP evisor_%s %s\n# TYPE evisor_%s %s\n", name, help, name, type);
}

static const char *const op_names[] = {"read", "write", "zero", "discard", "flush"};

enum disk_value { DISK_VALUE_OPERATIONS, DISK_VALUE_BYTES, DISK_VALUE_FAILED, DISK_VALUE_SECONDS };

static void put_disk(FILE *out, const char *name, enum disk_value value, const char *id,
                     const struct disk_stats *stats)
{
    for (unsigned op = 0; op < ARRAY_SIZE(op_names); op++) {
        fprintf(out, "evisor_%s{disk=\"", name);
        put_label(out, id);
        fprintf(out, "\",op=\"%s\"} ", op_names[op]);
        uint64_t numbers[] = {stats->by_op[op].operations, stats->by_op[op].bytes,
                              stats->by_op[op].failed};
        if (value == DISK_VALUE_SECONDS)
            fprintf(out, "%.9f\n", (double)stats->by_op[op].total_ns / 1e9);
        else
            fprintf(out, "%" PRIu64 "\n", numbers[value]);
    }
}

static void put_disks(FILE *out, const struct machine *machine)
{
    static const struct {
        const char *name, *help;
    } values[] = {{"disk_operations_total", "Requests of the guest."},
                  {"disk_bytes_total", "Bytes of these requests."},
                  {"disk_failed_total", "Requests that failed."},
                  {"disk_seconds_total", "Time that requests took, added up."}};
    const struct vm_config *config = machine_config(machine);
    for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
        put_head(out, values[v].name, "counter", values[v].help);
        for (unsigned i = 0; i < config->disk_count; i++) {
            struct disk_stats stats;
            const struct disk *disk = machine_disk(machine, i);
            if (!disk)
                continue;
            disk_get_stats(disk, &stats);
            put_disk(out, values[v].name, (enum disk_value)v, config->disks[i].id, &stats);
        }
    }
}

static void put_buckets(FILE *out, const char *id, const char *op,
                        const struct disk_histogram *histogram, uint64_t total_ns)
{
    uint64_t below = 0;
    for (size_t i = 0; i <= histogram->count; i++) {
        below += histogram->bins[i];
        fputs("evisor_disk_latency_seconds_bucket{disk=\"", out);
        put_label(out, id);
        fprintf(out, "\",op=\"%s\",le=\"", op);
        if (i < histogram->count)
            fprintf(out, "%.9g\"} %" PRIu64 "\n", (double)histogram->boundary[i] / 1e9, below);
        else
            fprintf(out, "+Inf\"} %" PRIu64 "\n", below);
    }
    fputs("evisor_disk_latency_seconds_sum{disk=\"", out);
    put_label(out, id);
    fprintf(out, "\",op=\"%s\"} %.9f\n", op, (double)total_ns / 1e9);
    fputs("evisor_disk_latency_seconds_count{disk=\"", out);
    put_label(out, id);
    fprintf(out, "\",op=\"%s\"} %" PRIu64 "\n", op, below);
}

/* Only where block-latency-histogram-set asked for it. */
static void put_histograms(FILE *out, const struct machine *machine)
{
    const struct vm_config *config = machine_config(machine);
    bool has_head = false;
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct disk *disk = machine_disk(machine, i);
        for (unsigned op = 0; disk && op < ARRAY_SIZE(op_names); op++) {
            const struct disk_histogram *histogram = disk_get_histogram(disk, (enum disk_op)op);
            if (!histogram)
                continue;
            if (!has_head)
                put_head(out, "disk_latency_seconds", "histogram", "How long requests take.");
            has_head = true;
            put_buckets(out, config->disks[i].id, op_names[op], histogram, histogram->total_ns);
        }
    }
}

static void put_networks(FILE *out, const struct machine *machine)
{
    static const struct {
        const char *name, *help;
        size_t at;
    } values[] = {
        {"net_transmit_frames_total", "Frames of the guest.",
         offsetof(struct net_stats, tx_frames)},
        {"net_transmit_bytes_total", "Bytes of the guest.", offsetof(struct net_stats, tx_bytes)},
        {"net_transmit_dropped_total", "Frames of the guest that were lost.",
         offsetof(struct net_stats, tx_dropped)},
        {"net_receive_frames_total", "Frames to the guest.",
         offsetof(struct net_stats, rx_frames)},
        {"net_receive_bytes_total", "Bytes to the guest.", offsetof(struct net_stats, rx_bytes)},
        {"net_receive_dropped_total", "Frames to the guest that were lost.",
         offsetof(struct net_stats, rx_dropped)},
    };
    for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
        put_head(out, values[v].name, "counter", values[v].help);
        for (unsigned i = 0; i < machine_config(machine)->nic_count; i++) {
            const struct net_backend *backend = machine_net_backend(machine, i);
            uint64_t value;
            if (!backend)
                continue;
            memcpy(&value, (const char *)&backend->stats + values[v].at, sizeof(value));
            fprintf(out, "evisor_%s{netdev=\"", values[v].name);
            put_label(out, backend->id);
            fprintf(out, "\"} %" PRIu64 "\n", value);
        }
    }
}

static void put_stat(void *opaque, const char *group, const char *name, uint64_t value)
{
    FILE *out = opaque;
    fputs("evisor_counter_total{group=\"", out);
    put_label(out, group);
    fprintf(out, "\",name=\"%s\"} %" PRIu64 "\n", name, value);
}

char *metrics_text(struct machine *machine, size_t *length)
{
    machine_take_io_threads(machine);
    char *text = NULL;
    FILE *out = open_memstream(&text, length);
    if (!out)
        return NULL;
    put_head(out, "running", "gauge", "1 while the guest runs.");
    fprintf(out, "evisor_running %d\n", machine_get_state(machine) == MACHINE_RUNNING);
    put_disks(out, machine);
    put_histograms(out, machine);
    put_networks(out, machine);
    put_head(out, "counter_total", "counter", "Exits of vCPUs, queues and the loop: query-stats.");
    machine_for_each_stat(machine, put_stat, out);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}
