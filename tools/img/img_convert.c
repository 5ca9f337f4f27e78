/* SPDX-License-Identifier: MIT */
/*
 * img_convert: evisor-img convert: the contents of one or more images as another image.
 *
 * A new qcow2 image is built by qcow2_writer, from start to end; everything else (raw, an existing
 * target, preallocation, a data file) is created first and then written through disk.h. A target
 * that was made here and could not be completed is removed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/img/img_args.h"
#include "tools/img/img_bitmaps.h"
#include "tools/img/img_copy.h"
#include "tools/img/img_image.h"
#include "tools/img/img_progress.h"
#include "tools/img/img_source.h"
#include "tools/img/img_target.h"

#define SPARSE_MAX (16 * 1024 * 1024)

struct arguments {
    char **sources;
    size_t source_count;
    const char *target_given; /* as the person wrote it */
    const char *target;
    const char *format;
    const char *snapshot;
    struct img_rate rate;
    const char *target_format;
    const char *backing_path;
    const char *backing_format;
    const char *cache;
    const char *source_cache;
    struct img_options options;
    uint64_t sparse_bytes;
    unsigned depth;
    bool compress;
    bool progress;
    bool quiet;
    bool keep_target; /* -n */
    bool target_is_zero;
    bool no_lock;
    bool image_opts, target_image_opts;
    bool has_sparse; /* -S was given */
    bool salvage, bitmaps, skip_broken_bitmaps;
    bool offload, out_of_order; /* -C, -W: make no difference to the result */
};

struct conversion {
    struct loop *loop;
    const struct arguments *arguments;
    struct img_source *sources;
    struct img_target target;
    bool is_target_new; /* there was no such file before */
    struct img_copy copy;
    struct error err;
};

/* --- arguments --- */

static int parse_depth(const char *text, unsigned *depth)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*end || end == text || value < 1 || value > IMG_COPY_DEPTH_MAX)
        return img_error("Invalid number of coroutines. Allowed number of coroutines is between "
                         "1 and %d",
                         IMG_COPY_DEPTH_MAX);
    *depth = (unsigned)value;
    return 0;
}

static int parse_sparse(const char *text, uint64_t *bytes)
{
    if (img_parse_named_size(text, "buffer size for sparse output", bytes))
        return 1;
    if (*bytes % 512 || *bytes > SPARSE_MAX)
        return img_error("Invalid buffer size for sparse output specified. Valid sizes are "
                         "multiples of 512 up to %d. Select 0 to disable sparse detection "
                         "(fully allocates output).",
                         SPARSE_MAX);
    return 0;
}

static int on_sparse(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    arguments->has_sparse = true;
    return parse_sparse(value, &arguments->sparse_bytes);
}

static int on_depth(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return parse_depth(value, &arguments->depth);
}

static int on_rate(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return img_rate_parse(&arguments->rate, value);
}

static const struct img_arg args[] = {
    IMG_TEXT('f', NULL, format),
    IMG_TEXT('O', NULL, target_format),
    IMG_TEXT('B', NULL, backing_path),
    IMG_TEXT('F', NULL, backing_format),
    IMG_OPTIONS('o', NULL, options),
    IMG_CALL('S', NULL, on_sparse),
    IMG_TEXT('t', NULL, cache),
    IMG_TEXT('T', NULL, source_cache),
    IMG_CALL('m', NULL, on_depth),
    IMG_SWITCH('c', NULL, compress),
    IMG_SWITCH('n', NULL, keep_target),
    IMG_SWITCH('p', NULL, progress),
    IMG_SWITCH('q', NULL, quiet),
    IMG_SWITCH('U', "force-share", no_lock),
    IMG_SWITCH('C', NULL, offload),
    IMG_SWITCH('W', NULL, out_of_order),
    IMG_TEXT('l', NULL, snapshot),
    IMG_CALL('r', NULL, on_rate),
    IMG_SWITCH(0, "target-is-zero", target_is_zero),
    IMG_SWITCH(0, "image-opts", image_opts),
    IMG_SWITCH(0, "target-image-opts", target_image_opts),
    IMG_SWITCH(0, "salvage", salvage),
    IMG_SWITCH(0, "bitmaps", bitmaps),
    IMG_SWITCH(0, "skip-broken-bitmaps", skip_broken_bitmaps),
};
static const struct img_syntax syntax = {args, ARRAY_SIZE(args), 0, SIZE_MAX, NULL};

/* What options exclude each other, in qemu-img's order. */
static int check_options(const struct arguments *arguments)
{
    if (arguments->skip_broken_bitmaps && !arguments->bitmaps)
        return img_error("Use of --skip-broken-bitmaps requires --bitmaps");
    if (arguments->offload && arguments->compress)
        return img_error("Cannot enable copy offloading when -c is used");
    if (arguments->offload && arguments->has_sparse)
        return img_error("Cannot enable copy offloading when -S is used");
    if (arguments->offload && arguments->salvage)
        return img_error("Cannot use copy offloading in salvaging mode");
    if (arguments->target_image_opts && !arguments->keep_target)
        return img_error("--target-image-opts requires use of -n flag");
    if (arguments->keep_target && arguments->options.count)
        return img_error("-o has no effect when skipping image creation");
    if (arguments->target_is_zero && !arguments->keep_target)
        return img_error("--target-is-zero requires use of -n flag");
    return 0;
}

static bool has_preallocation(const struct img_options *options)
{
    const char *mode = img_options_get(options, "preallocation");
    return mode && strcmp(mode, "off");
}

/* What depends on the target's format. */
static int check_target(const struct arguments *arguments)
{
    const char *format = arguments->target_format;
    bool has_backing =
        arguments->backing_path || img_options_get(&arguments->options, "backing_file");
    if (!(arguments->keep_target ? img_format_is_native : img_format_is_writable)(format))
        return img_error("Unknown file format '%s'", format);
    if (arguments->backing_path && strcmp(format, "qcow2"))
        return img_error("Backing file not supported for file format '%s'", format);
    if (has_backing && arguments->target_is_zero)
        return img_error("Cannot use --target-is-zero when the destination image has a backing "
                         "file");
    if (has_backing && arguments->source_count > 1)
        return img_error("Having a backing file for the target makes no sense when concatenating "
                         "multiple input images");
    if (has_backing && !arguments->keep_target && !arguments->backing_format &&
        !img_options_get(&arguments->options, "backing_fmt"))
        return img_error("Use of backing file requires explicit backing format");
    if (arguments->compress && strcmp(format, "qcow2") && strcmp(format, "vmdk"))
        return img_error("Compression not supported for this file format");
    if (arguments->compress && has_preallocation(&arguments->options))
        return img_error("Compression and preallocation not supported at the same time");
    if (arguments->compress && arguments->keep_target)
        return img_error("-c writes new images only: leave out -n");
    if (arguments->bitmaps && arguments->source_count > 1)
        return img_error("Copying bitmaps only possible with single source");
    if (arguments->bitmaps && strcmp(format, "qcow2"))
        return img_error("Format driver '%s' does not support bitmaps", format);
    return 0;
}

static int take_target(struct arguments *arguments)
{
    struct img_image image = {.is_options = arguments->target_image_opts, .writable = true};
    struct error err = {0};
    if (arguments->target_image_opts) {
        if (img_image_take(arguments->target_given, &image))
            return 1;
        arguments->target = image.path;
        if (image.format)
            arguments->target_format = image.format;
        return 0;
    }
    arguments->target = img_image_new_path(arguments->target_given, &err);
    return arguments->target ? 0 : img_error("%s", err.text);
}

static int parse(struct arguments *arguments, int argc, char **argv)
{
    struct img_names names;
    int status = img_parse(argc, argv, &syntax, arguments, &names);
    if (!status)
        status = check_options(arguments);
    if (!status && names.count)
        arguments->target_given = names.list[names.count - 1];
    if (status || img_options_wants_help(&arguments->options))
        return status;
    if (names.count < 2)
        return img_error("Must specify image file name");
    arguments->sources = names.list;
    arguments->source_count = names.count - 1;
    if (img_check_caches(NULL, arguments->source_cache) || img_check_caches(arguments->cache, NULL))
        return 1;
    if (arguments->snapshot && arguments->source_count > 1)
        return img_error("No support for concatenating multiple snapshot");
    return take_target(arguments);
}

/* --- sources --- */

static int open_sources(struct conversion *conversion)
{
    const struct arguments *arguments = conversion->arguments;
    struct img_copy *copy = &conversion->copy;
    conversion->sources = calloc(arguments->source_count, sizeof(*conversion->sources));
    copy->sources = calloc(arguments->source_count, sizeof(*copy->sources));
    if (!conversion->sources || !copy->sources)
        return img_error("out of memory");
    for (size_t i = 0; i < arguments->source_count; i++) {
        struct img_image image = {.format = arguments->format,
                                  .no_lock = arguments->no_lock,
                                  .is_options = arguments->image_opts};
        if (img_image_take(arguments->sources[i], &image))
            return 1;
        const struct img_source_options options = {
            .path = image.path,
            .format = image.format,
            .no_lock = image.no_lock,
            .snapshot = arguments->snapshot,
            .cache = arguments->source_cache,
        };
        if (img_source_open(conversion->loop, &options, &conversion->sources[i]))
            return 1;
        struct disk *disk = conversion->sources[i].disk;
        copy->sources[i] =
            (struct img_copy_source){disk, conversion->sources[i].map, copy->size_bytes};
        copy->size_bytes += disk_size_bytes(disk);
        copy->source_count++;
    }
    return 0;
}

static void close_sources(struct conversion *conversion)
{
    for (size_t i = 0; i < conversion->copy.source_count; i++)
        (void)!img_source_close(&conversion->sources[i]);
    free(conversion->sources);
    free(conversion->copy.sources);
}

/* --- targets --- */

static void on_lost(void *opaque, uint64_t offset, int error)
{
    const struct conversion *conversion = opaque;
    if (!conversion->arguments->quiet)
        img_error("warning: error while reading offset %" PRIu64 ": %s", offset, strerror(-error));
}

static int run_copy(struct conversion *conversion)
{
    struct img_copy *copy = &conversion->copy;
    copy->counts_data = conversion->arguments->progress && !conversion->arguments->quiet;
    copy->on_progress = img_progress_report;
    copy->is_cancelled = img_progress_is_cancelled;
    copy->on_lost = on_lost;
    copy->opaque = conversion;
    return img_copy_run(copy, &conversion->err);
}

static int finish_writer(struct conversion *conversion, bool durable)
{
    struct img_copy *copy = &conversion->copy;
    int result = durable ? io_sync_now(copy->writer_file) : 0;
    if (!result)
        result = qcow2_writer_finish(copy->writer, &conversion->err);
    if (!result && durable)
        result = io_sync_now(copy->writer_file);
    if (result)
        error_set_errno(&conversion->err, -result, "Could not flush the target");
    return result;
}

/* A new qcow2 image, written in one go. */
static int convert_by_writer(struct conversion *conversion,
                             const struct qcow2_create_options *options)
{
    struct img_copy *copy = &conversion->copy;
    const struct arguments *arguments = conversion->arguments;
    copy->cluster_bytes = options->cluster_bytes;
    copy->can_zero = options->version >= 3;
    copy->has_backing = options->backing_path;
    copy->map_depth = copy->has_backing ? 1 : 0;
    copy->compress = arguments->compress;
    copy->compression_type = options->compression_type;
    copy->writer_file = img_create_file(conversion->loop, arguments->target, &conversion->err);
    if (!copy->writer_file)
        return -EIO;
    int result = qcow2_writer_create(copy->writer_file, options, &copy->writer, &conversion->err);
    if (!result)
        result = run_copy(conversion);
    if (!result)
        result = finish_writer(conversion, strcmp(arguments->cache, "unsafe"));
    qcow2_writer_destroy(copy->writer);
    io_close_wait(copy->writer_file);
    return result;
}

static int finish_foreign(struct conversion *conversion, bool durable)
{
    struct img_copy *copy = &conversion->copy;
    int result = durable ? io_sync_now(copy->writer_file) : 0;
    if (!result)
        result = foreign_writer_finish(copy->foreign, &conversion->err);
    if (!result && durable)
        result = io_sync_now(copy->writer_file);
    if (result)
        error_set_errno(&conversion->err, -result, "Could not flush the target");
    return result;
}

/* A new image in a foreign format, written in one go. */
static int convert_to_foreign(struct conversion *conversion)
{
    struct img_copy *copy = &conversion->copy;
    const struct arguments *arguments = conversion->arguments;
    copy->writer_file = img_create_file(conversion->loop, arguments->target, &conversion->err);
    if (!copy->writer_file)
        return -EIO;
    int result = img_target_start_foreign(&conversion->target, copy->writer_file, &copy->foreign,
                                          &conversion->err);
    if (!result) {
        copy->cluster_bytes = foreign_writer_unit(copy->foreign);
        result = run_copy(conversion);
    }
    if (!result)
        result = finish_foreign(conversion, strcmp(arguments->cache, "unsafe"));
    foreign_writer_destroy(copy->foreign);
    io_close_wait(copy->writer_file);
    return result;
}

static int flush_target(struct conversion *conversion)
{
    struct disk_request flush = {.op = DISK_FLUSH};
    if (!strcmp(conversion->arguments->cache, "unsafe"))
        return 0;
    int result = disk_run(conversion->copy.target, &flush);
    return result ? error_set_errno(&conversion->err, -result, "Could not flush the target") : 0;
}

/* Through disk.h, into an image that exists by now. */
static int convert_by_disk(struct conversion *conversion)
{
    struct img_copy *copy = &conversion->copy;
    const struct arguments *arguments = conversion->arguments;
    struct disk_options options = {
        .path = arguments->target, .format = arguments->target_format, .discard_unmap = true};
    (void)!img_parse_cache(arguments->cache, &options.cache);
    int result = disk_open(conversion->loop, &options, &copy->target, &conversion->err);
    if (result)
        return result;
    if (disk_size_bytes(copy->target) < copy->size_bytes)
        result = error_set(&conversion->err, EINVAL, "output file is smaller than input file");
    if (!result)
        result = run_copy(conversion);
    if (!result)
        result = flush_target(conversion);
    int closed = disk_close_wait(copy->target);
    if (!result && closed)
        result = error_set_errno(&conversion->err, -closed, "Could not close the target");
    return result;
}

static bool is_for_writer(const struct qcow2_create_options *options)
{
    return options->preallocation == QCOW2_PREALLOC_OFF && !options->data_file_name;
}

static int create_and_convert(struct conversion *conversion)
{
    const struct arguments *arguments = conversion->arguments;
    struct img_target *target = &conversion->target;
    struct qcow2_create_options options;
    if (!img_format_is_native(target->format))
        return convert_to_foreign(conversion);
    if (!strcmp(target->format, "qcow2")) {
        int result = img_target_qcow2_options(target, &options, &conversion->err);
        if (result)
            return result;
        if (arguments->compress && !qcow2_pack_is_supported(options.compression_type))
            return error_set(&conversion->err, ENOTSUP, "this build has no zstd");
        if (is_for_writer(&options))
            return convert_by_writer(conversion, &options);
        const char *reason = options.data_file_name ? "an external data file" : "preallocation";
        if (arguments->compress)
            return error_set(&conversion->err, EINVAL,
                             "Compression and %s not supported at the same time", reason);
        if (options.backing_path && options.preallocation != QCOW2_PREALLOC_OFF)
            return error_set(&conversion->err, EINVAL,
                             "Backing file and preallocation not supported at the same time");
        conversion->copy.has_backing = options.backing_path;
        conversion->copy.map_depth = options.backing_path ? 1 : 0;
        conversion->copy.can_zero = true;
    }
    int result = img_target_create(conversion->loop, target, &conversion->err);
    if (result)
        return result;
    conversion->copy.target_is_zero = !conversion->copy.has_backing;
    return convert_by_disk(conversion);
}

static int prepare_target(struct conversion *conversion)
{
    const struct arguments *arguments = conversion->arguments;
    struct img_target *target = &conversion->target;
    struct error *err = &conversion->err;
    int result = img_target_check_format(target, err);
    if (!result)
        result = img_target_parse(target, &arguments->options, err);
    if (!result)
        result =
            img_target_set_backing(target, arguments->backing_path, arguments->backing_format, err);
    if (!target->has_size)
        target->size_bytes = conversion->copy.size_bytes;
    target->has_size = true;
    if (!result && target->size_bytes < conversion->copy.size_bytes)
        result = error_set(err, EINVAL, "the size given is smaller than the input");
    if (!result)
        result = img_target_settle(conversion->loop, target, true, err);
    return result;
}

static int convert(struct conversion *conversion)
{
    const struct arguments *arguments = conversion->arguments;
    struct img_target *target = &conversion->target;
    int result;
    img_progress_start(arguments->progress &&
                       !arguments->quiet); /* before there is anything to clean up */
    target->path = arguments->target;
    target->format = arguments->target_format;
    if (arguments->keep_target && access(arguments->target, F_OK)) {
        img_progress_end(false);
        return img_error("Could not open '%s': Could not open '%s': %s", arguments->target_given,
                         arguments->target, strerror(errno));
    }
    if (arguments->keep_target) {
        conversion->copy.target_is_zero = arguments->target_is_zero;
        result = convert_by_disk(conversion);
    } else {
        result = prepare_target(conversion);
        if (result) {
            img_progress_end(false);
            return img_error("%s: %s", arguments->target, conversion->err.text);
        }
        conversion->is_target_new = access(arguments->target, F_OK);
        result = create_and_convert(conversion);
    }
    img_progress_end(!result);
    if (!result)
        return 0;
    if (!arguments->keep_target)
        img_target_abandon(arguments->target, conversion->is_target_new);
    if (arguments->keep_target)
        return img_error("%s", conversion->err.text);
    return img_error("%s: error while converting %s: %s", arguments->target, target->format,
                     conversion->err.text);
}

static int convert_with_bitmaps(struct conversion *conversion)
{
    const struct arguments *arguments = conversion->arguments;
    bool skip = arguments->skip_broken_bitmaps;
    if (!arguments->bitmaps)
        return convert(conversion);
    struct disk *source = conversion->copy.sources[0].disk;
    if (img_bitmaps_check(source, skip) || convert(conversion))
        return 1;
    return img_bitmaps_copy(conversion->loop, source, arguments->target, arguments->target_format,
                            skip);
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {
        .target_format = "raw", .cache = "unsafe", .sparse_bytes = 4096, .depth = 8};
    struct conversion conversion = {.loop = loop, .arguments = &arguments};
    int status = parse(&arguments, argc, argv);
    if (!status && img_options_wants_help(&arguments.options)) {
        status = img_target_print_options(arguments.target_format, arguments.target_given);
    } else if (!status) {
        img_target_init(&conversion.target);
        conversion.copy.loop = loop;
        conversion.copy.depth = arguments.depth;
        conversion.copy.sparse_bytes = arguments.sparse_bytes;
        conversion.copy.rate = arguments.rate;
        conversion.copy.salvage = arguments.salvage;
        status = open_sources(&conversion);
        if (!status && arguments.bitmaps && strcmp(conversion.sources[0].format, "qcow2"))
            status = img_error("Source lacks bitmap support");
        if (!status)
            status = check_target(&arguments);
        if (!status)
            status = convert_with_bitmaps(&conversion);
        close_sources(&conversion);
        img_target_fini(&conversion.target);
    }
    img_options_free(&arguments.options);
    return status;
}

const struct img_command img_convert_command = {
    .name = "convert",
    .synopsis = "[--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps\n"
                "          [--skip-broken-bitmaps]] [-U] [-C] [-c] [-p] [-q] [-n] [-f FMT] [-t "
                "CACHE] [-T CACHE]\n"
                "          [-O FMT] [-B BACKING_FILE [-F FMT]] [-o OPTIONS] [-l SNAPSHOT] [-S "
                "SIZE] [-r RATE]\n"
                "          [-m N] [-W] [--salvage] FILENAME... OUTPUT",
    .help =
        "Copies the contents of images (one behind the other) into a new image.\n"
        "  -f FMT            format of the sources (default: found out from the files)\n"
        "  -O FMT            format of the output: raw (the default), qcow2, vmdk, vdi,\n"
            "                    vpc or vhdx\n"
        "  -c                compress (qcow2; zlib, or -o compression_type=zstd)\n"
        "  -o KEY=VALUE,...  options of the output's format; '-o help' lists them\n"
        "  -B FILE -F FMT    write only what differs from FILE, and name it as backing file\n"
        "  -n                write into an output that exists\n"
        "  --target-is-zero  and that is known to be zero all over\n"
        "  -S SIZE           leave out runs of zeroes from this length on (4k); 0: leave out\n"
        "                    nothing\n"
        "  -l SNAPSHOT       the disk as an internal snapshot has it (ID, NAME, or\n"
        "                    snapshot.id=ID,snapshot.name=NAME)\n"
        "  --bitmaps         take the persistent bitmaps along; --skip-broken-bitmaps: but for\n"
        "                    those that are marked inconsistent\n"
        "  --salvage         take zeroes for what cannot be read, and go on\n"
        "  -r RATE           no more than so many bytes per second\n"
        "  -C, -W            offload, out of order: accepted; the result is the same\n"
        "  -m N              pieces in flight, 1 to 16 (default 8)\n"
        "  -t CACHE          none, writeback, writethrough, directsync, unsafe (default)\n"
        "  -T CACHE          the same, for the sources\n"
        "  -p                show the progress (SIGUSR1 shows it once)\n"
        "  -U                read although another process uses the image\n"
        "Examples:\n"
        "  evisor-img convert -O qcow2 disk.raw disk.qcow2\n"
        "  evisor-img convert -p -c -O qcow2 disk.qcow2 small.qcow2\n"
        "  evisor-img convert disk.qcow2 disk.raw\n",
    .run = run,
};
