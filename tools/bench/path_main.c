/* SPDX-License-Identifier: MIT */
/*
 * path_main: the command behind evisor-bench: one run of one path, its figures as a JSON object.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/bench/path.h"

static const struct option long_options[] = {
    {"block", required_argument, NULL, 'b'},
    {"check", no_argument, NULL, 'c'},
    {"depth", required_argument, NULL, 'd'},
    {"direct", no_argument, NULL, 't'},
    {"direction", required_argument, NULL, 'n'},
    {"disks", required_argument, NULL, 'm'},
    {"format", required_argument, NULL, 'f'},
    {"image", required_argument, NULL, 'i'},
    {"iothreads", no_argument, NULL, 'h'},
    {"queues", required_argument, NULL, 'q'},
    {"random", no_argument, NULL, 'r'},
    {"read-percent", required_argument, NULL, 'p'},
    {"registered", no_argument, NULL, 'g'},
    {"seconds", required_argument, NULL, 's'},
    {"seed", required_argument, NULL, 'e'},
    {"skip", required_argument, NULL, 'o'},
    {"socket", required_argument, NULL, 'k'},
    {"span", required_argument, NULL, 'a'},
    {"verify", no_argument, NULL, 'v'},
    {"write", no_argument, NULL, 'w'},
    {0},
};

static int parse_number(const char *name, const char *text, uint64_t max, uint64_t *out)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno || end == text || *end || value == 0 || value > max) {
        fprintf(stderr, "evisor-bench: --%s: '%s' is no number from 1 to %" PRIu64 "\n", name, text,
                max);
        return 1;
    }
    *out = value;
    return 0;
}

static int set_count(unsigned *count, const char *name, const char *text, unsigned max)
{
    uint64_t number = 0;
    int status = parse_number(name, text, max, &number);
    *count = status ? *count : (unsigned)number;
    return status;
}

/* Those given by name are as many as there are. */
static int add_name(const char **names, const char *name, unsigned *disks)
{
    unsigned count = 0;
    while (count < PATH_DISKS_MAX && names[count])
        count++;
    if (count == PATH_DISKS_MAX) {
        fprintf(stderr, "evisor-bench: there are at most %d disks\n", PATH_DISKS_MAX);
        return 1;
    }
    names[count] = name;
    *disks = count + 1;
    return 0;
}

static int set_flag(struct path_options *options, int letter)
{
    switch (letter) {
    case 'c':
        options->is_check = true;
        return 0;
    case 'g':
        options->is_registered = true;
        return 0;
    case 'h':
        options->has_io_threads = true;
        return 0;
    case 'r':
        options->is_random = true;
        return 0;
    case 't':
        options->is_direct = true;
        return 0;
    case 'v':
        options->verifies = true;
        return 0;
    case 'w':
        options->is_write = true;
        return 0;
    default:
        return 1;
    }
}

static int set_direction(struct path_options *options, const char *text)
{
    static const char *const names[] = {
        [PATH_SEND] = "send", [PATH_RECEIVE] = "receive", [PATH_BOTH] = "both"};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(text, names[i]))
            continue;
        options->direction = (enum path_direction)i;
        return 0;
    }
    fprintf(stderr, "evisor-bench: the direction is 'send', 'receive' or 'both'\n");
    return 1;
}

static int set_option(struct path_options *options, const struct option *option, const char *text)
{
    const char *name = option->name;
    switch (option->val) {
    case 'a':
        return parse_number(name, text, UINT64_MAX, &options->span_bytes);
    case 'b':
        return parse_number(name, text, PATH_BLOCK_MAX, &options->block_bytes);
    case 'd':
        return set_count(&options->depth, name, text, PATH_DEPTH_MAX);
    case 'e':
        return parse_number(name, text, UINT64_MAX, &options->seed);
    case 'f':
        options->format = text;
        return 0;
    case 'i':
        return add_name(options->images, text, &options->disks);
    case 'k':
        return add_name(options->sockets, text, &options->disks);
    case 'm':
        return set_count(&options->disks, name, text, PATH_DISKS_MAX);
    case 'n':
        return set_direction(options, text);
    case 'o':
        return parse_number(name, text, UINT64_MAX, &options->skip_bytes);
    case 'p':
        options->is_mixed = true;
        return set_count(&options->read_percent, name, text, 99);
    case 'q':
        return set_count(&options->queues, name, text, PATH_QUEUES_MAX);
    case 's':
        return set_count(&options->seconds, name, text, 3600);
    default:
        return set_flag(options, option->val);
    }
}

static const struct path {
    const char *name;
    int (*run)(const struct path_options *options, struct path_result *result, struct error *err);
    bool has_queue;
} paths[] = {{"blk", path_run_blk, true},
             {"disk", path_run_disk, false},
             {"kick", path_run_kick, true},
             {"vhost", path_run_vhost, true},
             {"net", path_run_net, false}};

static const struct path *find_path(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
        if (strcmp(paths[i].name, name) == 0)
            return &paths[i];
    return NULL;
}

static int check(const struct path_options *options, bool has_queue)
{
    const char *wrong = NULL;
    if (options->block_bytes % 512)
        wrong = "the block size must be a multiple of 512";
    else if (align_up(options->block_bytes, 4096) * options->depth * options->disks > PATH_DATA_MAX)
        wrong = "block size times depth must not exceed 6 MiB, of all disks";
    else if (options->depth * options->disks > PATH_DEPTH_MAX)
        wrong = "all disks together have at most 256 requests: use a smaller --depth";
    else if (!has_queue && options->disks > 1)
        wrong = "the engine is measured with one disk; 'blk' and 'kick' take several";
    else if (has_queue && options->depth > 85 * options->queues)
        wrong = "a queue of 256 descriptors holds at most 85 requests: use a smaller --depth";
    else if (options->queues > options->depth)
        wrong = "each queue needs a request: --queues must not exceed --depth";
    else if (!options->images[options->disks - 1] && !options->sockets[options->disks - 1] &&
             strcmp(options->format, "null") != 0)
        wrong = "name an image for each disk by --image, or take --format null";
    else if (options->verifies && (!options->is_write || strcmp(options->format, "null") == 0))
        wrong = "--verify compares what --write has written to an image";
    else if (options->is_mixed && options->is_write)
        wrong = "--read-percent mixes reads and writes: leave --write out";
    else if (options->has_io_threads && options->is_registered)
        wrong = "memory is registered with the ring of one loop: leave --iothreads or --registered "
                "out";
    if (wrong)
        fprintf(stderr, "evisor-bench: %s\n", wrong);
    return wrong ? 1 : 0;
}

static int check_net(const struct path_options *options)
{
    const char *wrong = NULL;
    if (options->block_bytes < 60 || options->block_bytes > PATH_FRAME_MAX)
        wrong = "a frame has 60 to 1514 bytes";
    else if (strcmp(options->format, "null") != 0 && strcmp(options->format, "internal") != 0)
        wrong = "without a guest, the backend is 'null' or 'internal'";
    else if (options->queues > 2)
        wrong = "the driver's memory holds two streams";
    if (wrong)
        fprintf(stderr, "evisor-bench: %s\n", wrong);
    return wrong ? 1 : 0;
}

/* Where a driver shares the loop's thread it would keep a loop of the disk's own at home. */
static int check_io_threads(const struct path_options *options, const struct path *path)
{
    if (!options->has_io_threads || path->run == path_run_kick)
        return 0;
    fprintf(stderr,
            "evisor-bench: only 'kick' has drivers and disks on threads of their own: measure "
            "'kick', or leave --iothreads out\n");
    return 1;
}

/* The clocks are read one after the other: without other threads this may be below 0. */
static uint64_t pool_cpu_ns(const struct path_result *result)
{
    uint64_t ours_ns = result->loop_cpu_ns + result->io_thread_cpu_ns + result->driver_cpu_ns;
    return result->process_cpu_ns > ours_ns ? result->process_cpu_ns - ours_ns : 0;
}

static json_t *describe_latency(const struct histogram *latency_ns)
{
    json_t *buckets = json_array();
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        if (latency_ns->buckets[i])
            json_array_append_new(buckets, json_pack("[I,I]", (json_int_t)histogram_floor(i),
                                                     (json_int_t)latency_ns->buckets[i]));
    return json_pack("{s:I,s:I,s:I,s:o}", "p50",
                     (json_int_t)histogram_percentile(latency_ns, 500000), "p99",
                     (json_int_t)histogram_percentile(latency_ns, 990000), "p99.9",
                     (json_int_t)histogram_percentile(latency_ns, 999000), "buckets", buckets);
}

static void print(const struct path_result *result)
{
    json_t *figures = json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "operations",
        (json_int_t)result->operations, "elapsed-ns", (json_int_t)result->elapsed_ns, "loop-cpu-ns",
        (json_int_t)result->loop_cpu_ns, "iothread-cpu-ns", (json_int_t)result->io_thread_cpu_ns,
        "driver-cpu-ns", (json_int_t)result->driver_cpu_ns, "pool-cpu-ns",
        (json_int_t)pool_cpu_ns(result), "received", (json_int_t)result->received, "loop-turns",
        (json_int_t)result->loop_turns, "kicks", (json_int_t)result->kicks, "interrupts",
        (json_int_t)result->interrupts, "host-operations", (json_int_t)result->host_operations,
        "latency-ns", describe_latency(&result->latency_ns));
    CHECK(json_dumpf(figures, stdout, JSON_COMPACT) == 0);
    putchar('\n');
    json_decref(figures);
}

int main(int argc, char **argv)
{
    static struct path_result result;
    struct path_options options = {.format = "raw",
                                   .block_bytes = 4096,
                                   .depth = 1,
                                   .disks = 1,
                                   .queues = 1,
                                   .seconds = 2,
                                   .seed = 1};
    struct error err = {0};
    const struct path *path = argc > 1 ? find_path(argv[1]) : NULL;
    if (!path) {
        fprintf(stderr, "evisor-bench: the path is 'blk', 'kick', 'vhost', 'disk' or 'net'\n");
        return 1;
    }
    for (int index, letter;
         (letter = getopt_long(argc - 1, argv + 1, "", long_options, &index)) != -1;)
        if (letter == '?' || set_option(&options, &long_options[index], optarg))
            return 1;
    bool is_net = path->run == path_run_net;
    if (check_io_threads(&options, path))
        return 1;
    if (is_net ? check_net(&options) : check(&options, path->has_queue))
        return 1;
    if (options.is_check)
        return 0;
    if (path->run(&options, &result, &err)) {
        fprintf(stderr, "evisor-bench: %s\n", err.text);
        return 1;
    }
    print(&result);
    return 0;
}
