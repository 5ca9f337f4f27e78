/* SPDX-License-Identifier: MIT */
/* img_bench: evisor-img bench: a simple measurement of an image's speed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/img/img_image.h"
#include "tools/img/img_source.h"

#define DEPTH_MAX 1024

struct arguments {
    struct img_image image;
    const char *cache;
    uint64_t count, depth, offset, bytes, step, flush_interval, pattern;
    bool quiet, no_drain, stats;
    bool native; /* -n and -i: the engine picks the best way by itself */
    const char *aio;
};

struct bench;

struct bench_request {
    struct bench *bench;
    struct disk_request request;
    struct iovec iov;
};

struct bench {
    const struct arguments *arguments;
    struct loop *loop;
    struct disk *disk;
    struct bench_request *requests; /* `depth` of them */
    uint8_t *data;
    uint64_t submitted, finished, in_flight;
    uint64_t offset;
    uint64_t unflushed; /* writes since the last flush */
    int result;
};

static int parse_number(const char *text, const char *name, uint64_t max, uint64_t *out)
{
    if (img_parse_size(text, 1, out) || *out > max)
        return img_error("Invalid %s specified", name);
    return 0;
}

static int parse_bytes(const char *text, const char *name, uint64_t max, uint64_t *out)
{
    if (img_parse_named_size(text, name, out))
        return 1;
    if (*out > max)
        return img_error("Invalid %s specified. Must be between 0 and %llu.", name,
                         (unsigned long long)max);
    return 0;
}

static int on_count(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return parse_number(value, "request count", INT32_MAX, &arguments->count);
}

static int on_depth(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return parse_number(value, "queue depth", DEPTH_MAX, &arguments->depth);
}

static int on_offset(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return parse_bytes(value, "offset", INT64_MAX, &arguments->offset);
}

static int on_size(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return parse_bytes(value, "buffer size", INT32_MAX, &arguments->bytes);
}

static int on_step(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return parse_bytes(value, "step_size", INT32_MAX, &arguments->step);
}

static int on_pattern(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return parse_number(value, "pattern byte", 255, &arguments->pattern);
}

static int on_flush_interval(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return parse_number(value, "flush interval", INT32_MAX, &arguments->flush_interval);
}

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_CALL('c', NULL, on_count),
    IMG_CALL('d', NULL, on_depth),
    IMG_TEXT('f', NULL, image.format),
    IMG_SWITCH('n', NULL, native),
    IMG_TEXT('i', NULL, aio),
    IMG_CALL('o', NULL, on_offset),
    IMG_SWITCH('q', NULL, quiet),
    IMG_CALL('s', NULL, on_size),
    IMG_CALL('S', NULL, on_step),
    IMG_TEXT('t', NULL, cache),
    IMG_SWITCH('w', NULL, image.writable),
    IMG_SWITCH('U', "force-share", image.no_lock),
    IMG_CALL(0, "pattern", on_pattern),
    IMG_CALL(0, "flush-interval", on_flush_interval),
    IMG_SWITCH(0, "no-drain", no_drain),
    IMG_SWITCH(0, "stats", stats),
};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    int status = img_image_parse(argc, argv, args, ARRAY_SIZE(args), arguments, &arguments->image);
    if (status)
        return status;
    struct disk_cache_mode mode;
    if (arguments->cache && img_parse_cache(arguments->cache, &mode))
        return img_error("Invalid cache mode");
    if (arguments->aio && strcmp(arguments->aio, "threads") && strcmp(arguments->aio, "native") &&
        strcmp(arguments->aio, "io_uring"))
        return img_error("Invalid aio option: %s", arguments->aio);
    if (!arguments->image.writable && arguments->flush_interval)
        return img_error("--flush-interval is only available in write tests");
    if (arguments->flush_interval && arguments->flush_interval < arguments->depth)
        return img_error("Flush interval can't be smaller than depth");
    if (!arguments->depth || !arguments->bytes)
        return img_error("The queue depth and the buffer size must not be 0");
    if (!arguments->step)
        arguments->step = arguments->bytes;
    return 0;
}

static void on_done(struct disk_request *request, int result)
{
    struct bench_request *own = container_of(request, struct bench_request, request);
    struct bench *bench = own->bench;
    bench->in_flight--;
    if (request->op != DISK_FLUSH)
        bench->finished++;
    if (result && !bench->result)
        bench->result = result;
    own->bench = NULL; /* free again */
}

static struct bench_request *free_request(struct bench *bench)
{
    for (uint64_t i = 0; i < bench->arguments->depth; i++)
        if (!bench->requests[i].bench)
            return &bench->requests[i];
    return NULL;
}

static void submit(struct bench *bench, struct bench_request *own, enum disk_op op)
{
    const struct arguments *arguments = bench->arguments;
    size_t index = (size_t)(own - bench->requests);
    own->bench = bench;
    own->request = (struct disk_request){.op = op, .on_done = on_done};
    if (op != DISK_FLUSH) {
        own->iov = (struct iovec){bench->data + index * arguments->bytes, arguments->bytes};
        own->request.offset = bench->offset;
        own->request.bytes = arguments->bytes;
        own->request.iov = &own->iov;
        own->request.iov_count = 1;
        /* Round and round, as qemu-img does: not the same places each time. */
        bench->offset = (bench->offset + arguments->step) % disk_size_bytes(bench->disk);
        if (bench->offset + arguments->bytes > disk_size_bytes(bench->disk))
            bench->offset = 0;
        bench->submitted++;
        bench->unflushed++;
    }
    bench->in_flight++;
    disk_submit(bench->disk, &own->request);
}

static bool must_flush(const struct bench *bench)
{
    uint64_t interval = bench->arguments->flush_interval;
    return interval && bench->unflushed >= interval;
}

static void fill_queue(struct bench *bench)
{
    struct bench_request *own;
    while (!bench->result && bench->in_flight < bench->arguments->depth) {
        if (must_flush(bench)) {
            if (!bench->arguments->no_drain && bench->in_flight)
                return;
            bench->unflushed = 0;
            if ((own = free_request(bench)))
                submit(bench, own, DISK_FLUSH);
            if (!bench->arguments->no_drain)
                return;
            continue;
        }
        if (bench->submitted == bench->arguments->count || !(own = free_request(bench)))
            return;
        submit(bench, own, bench->arguments->image.writable ? DISK_WRITE : DISK_READ);
    }
}

/* How much work on the host's files the requests made. */
static void print_stats(const struct disk *disk)
{
    struct disk_stats stats;
    disk_get_stats(disk, &stats);
    printf("%llu reads, %llu writes and %llu flushes of the host for %llu of the guest\n",
           (unsigned long long)stats.host_reads, (unsigned long long)stats.host_writes,
           (unsigned long long)stats.host_flushes,
           (unsigned long long)stats.by_op[DISK_FLUSH].operations);
}

static int measure(struct bench *bench)
{
    const struct arguments *arguments = bench->arguments;
    uint64_t size = disk_size_bytes(bench->disk);
    if (size < arguments->bytes || arguments->offset > size - arguments->bytes)
        return img_error("'%s' is too small for a request at offset %llu", arguments->image.path,
                         (unsigned long long)arguments->offset);
    if (!arguments->quiet)
        printf("Sending %llu %s requests, %llu bytes each, %llu in parallel (starting at offset "
               "%llu, step size %llu)\n",
               (unsigned long long)arguments->count, arguments->image.writable ? "write" : "read",
               (unsigned long long)arguments->bytes, (unsigned long long)arguments->depth,
               (unsigned long long)arguments->offset, (unsigned long long)arguments->step);
    uint64_t start_ns = loop_now_ns();
    while (bench->in_flight || (!bench->result && bench->finished < arguments->count)) {
        fill_queue(bench);
        loop_run_once(bench->loop, true);
    }
    if (bench->result)
        return img_error("Failed request: %s", strerror(-bench->result));
    if (!arguments->quiet)
        printf("Run completed in %.3f seconds.\n", (double)(loop_now_ns() - start_ns) / 1e9);
    if (arguments->stats)
        print_stats(bench->disk);
    return 0;
}

static int run_on(struct loop *loop, const struct arguments *arguments, struct disk *disk)
{
    struct bench bench = {
        .arguments = arguments, .loop = loop, .disk = disk, .offset = arguments->offset};
    bench.requests = calloc(arguments->depth, sizeof(*bench.requests));
    bench.data = aligned_alloc(4096, align_up(arguments->depth * arguments->bytes, 4096));
    int status = 1;
    if (bench.requests && bench.data) {
        memset(bench.data, (int)arguments->pattern, arguments->depth * arguments->bytes);
        status = measure(&bench);
    } else {
        img_error("out of memory for %llu buffers", (unsigned long long)arguments->depth);
    }
    free(bench.requests);
    free(bench.data);
    return status;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {.count = 75000, .depth = 64, .bytes = 4096};
    struct img_source source;
    if (parse(&arguments, argc, argv))
        return 1;
    const struct img_source_options options = {.path = arguments.image.path,
                                               .format = arguments.image.format,
                                               .cache = arguments.cache,
                                               .aio = arguments.aio,
                                               .writable = arguments.image.writable,
                                               .no_lock = arguments.image.no_lock};
    if (img_source_open(loop, &options, &source))
        return 1;
    int status = run_on(loop, &arguments, source.disk);
    int result = img_source_close(&source);
    if (!status && result)
        status = img_error("Could not close '%s': %s", arguments.image.path, strerror(-result));
    return status;
}

const struct img_command img_bench_command = {
    .name = "bench",
    .synopsis = "[--image-opts] [-c COUNT] [-d DEPTH] [-f FMT] [-o OFFSET] [-s SIZE] [-S STEP]\n"
                "          [-t CACHE] [-w] [--flush-interval=N [--no-drain]] [--pattern=BYTE] "
                "[--stats] [-n]\n"
                "          [-i AIO] [-q] [-U] FILENAME",
    .help = "Sends requests one after the other and takes the time.\n"
            "  -c COUNT              requests (75000)\n"
            "  -d DEPTH              in flight at once (64)\n"
            "  -s SIZE               bytes of each (4096)\n"
            "  -S STEP               distance of their offsets (SIZE)\n"
            "  -o OFFSET             of the first (0)\n"
            "  -w                    write (this overwrites the image!)\n"
            "  --pattern=BYTE        what to write (0)\n"
            "  --flush-interval=N    flush after every N writes\n"
            "  --no-drain            do not wait for the writes before a flush\n"
            "  -t CACHE              none, writeback (default), writethrough, directsync, unsafe\n"
            "  --stats               print how many operations of the host it took\n"
            "  -n, -i AIO            accepted; the best way is found by itself\n"
            "Example:\n"
            "  evisor-img bench -t none -d 32 -S 1M disk.qcow2\n",
    .run = run,
};
