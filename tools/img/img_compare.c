/* SPDX-License-Identifier: MIT */
/* img_compare: evisor-img compare: do two images read the same; 0 yes, 1 no, 2 to 4 not known. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/img/img_args.h"
#include "tools/img/img_image.h"
#include "tools/img/img_progress.h"
#include "tools/img/img_source.h"

#define CHUNK_BYTES (2 * MIB)

enum {
    STATUS_DIFFERENT = 1,
    STATUS_NOT_OPENED = 2,
    STATUS_NO_MAP = 3,
    STATUS_NOT_READ = 4,
};

struct arguments {
    struct img_image images[2];
    const char *cache;
    bool progress, quiet, strict, no_lock, image_opts;
};

struct side {
    const char *path;
    struct img_source source;
    uint64_t size_bytes;
    uint8_t *data;
    struct map_extent extent; /* around the present offset; bytes count from there */
};

struct comparison {
    const struct arguments *arguments;
    struct side sides[2];
};

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image_opts), IMG_TEXT('f', NULL, images[0].format),
    IMG_TEXT('F', NULL, images[1].format),   IMG_TEXT('T', NULL, cache),
    IMG_SWITCH('p', NULL, progress),         IMG_SWITCH('q', NULL, quiet),
    IMG_SWITCH('s', NULL, strict),           IMG_SWITCH('U', "force-share", no_lock),
};
static const struct img_syntax syntax = {args, ARRAY_SIZE(args), 2, 2,
                                         "Expecting two image file names"};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    struct img_names names;
    int status = img_parse(argc, argv, &syntax, arguments, &names);
    if (status)
        return status;
    if (img_check_caches(NULL, arguments->cache))
        return STATUS_NOT_OPENED;
    for (size_t i = 0; i < 2 && !status; i++) {
        arguments->images[i].is_options = arguments->image_opts;
        arguments->images[i].no_lock = arguments->no_lock;
        if (img_image_take(names.list[i], &arguments->images[i]))
            status = STATUS_NOT_OPENED;
    }
    return status;
}

static void say(const struct arguments *arguments, const char *format, uint64_t offset)
{
    if (arguments->quiet)
        return;
    printf(format, offset);
    putchar('\n');
}

static int read_side(struct side *side, uint64_t offset, uint64_t bytes)
{
    struct iovec iov = {side->data, bytes};
    struct disk_request request = {
        .op = DISK_READ, .offset = offset, .bytes = bytes, .iov = &iov, .iov_count = 1};
    int result = disk_run(side->source.disk, &request);
    if (!result)
        return 0;
    img_error("Error while reading offset %" PRIu64 " of %s: %s", offset, side->path,
              strerror(-result));
    return STATUS_NOT_READ;
}

/* The first sector at which `bytes` differ, or `bytes`. NULL stands for zeroes. */
static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t bytes)
{
    static const uint8_t zeroes[512];
    for (uint64_t at = 0; at < bytes; at += 512) {
        size_t length = (size_t)MIN(512, bytes - at);
        if (memcmp(a + at, b ? b + at : zeroes, length))
            return at;
    }
    return bytes;
}

static bool has_data(const struct side *side)
{
    return side->extent.kind == MAP_DATA || side->extent.kind == MAP_COMPRESSED;
}

static int find_extents(struct comparison *comparison, uint64_t offset, uint64_t *bytes)
{
    for (size_t i = 0; i < 2; i++) {
        struct side *side = &comparison->sides[i];
        struct error err = {0};
        if (offset >= side->size_bytes) {
            side->extent = (struct map_extent){.kind = MAP_ABSENT};
            continue;
        }
        if (map_find(side->source.map, offset, side->size_bytes, 0, &side->extent, &err)) {
            img_error("Sector allocation test failed for %s: %s", side->path, err.text);
            return STATUS_NO_MAP;
        }
        *bytes = MIN(*bytes, side->extent.bytes);
    }
    return 0;
}

/* Where both have data both are read; where one has none, it counts as zeroes. */
static int compare_piece(struct comparison *comparison, uint64_t offset, uint64_t bytes)
{
    struct side *a = &comparison->sides[0], *b = &comparison->sides[1];
    if (!has_data(a)) {
        struct side *other = a;
        a = b;
        b = other;
    }
    if (!has_data(a))
        return 0;
    int status = read_side(a, offset, bytes);
    if (!status && has_data(b))
        status = read_side(b, offset, bytes);
    if (status)
        return status;
    uint64_t at = first_difference(a->data, has_data(b) ? b->data : NULL, bytes);
    if (at == bytes)
        return 0;
    say(comparison->arguments, "Content mismatch at offset %" PRIu64 "!", offset + at);
    return STATUS_DIFFERENT;
}

static int compare_range(struct comparison *comparison, uint64_t start, uint64_t end,
                         uint64_t total)
{
    const struct side *sides = comparison->sides;
    for (uint64_t offset = start; offset < end;) {
        uint64_t bytes = end - offset;
        int status = find_extents(comparison, offset, &bytes);
        if (status)
            return status;
        if (comparison->arguments->strict && sides[0].extent.kind != sides[1].extent.kind) {
            say(comparison->arguments, "Strict mode: Offset %" PRIu64 " block status mismatch!",
                offset);
            return STATUS_DIFFERENT;
        }
        if (has_data(&sides[0]) || has_data(&sides[1]))
            bytes = MIN(bytes, CHUNK_BYTES);
        status = compare_piece(comparison, offset, bytes);
        if (status)
            return status;
        offset += bytes;
        img_progress_report(NULL, offset, total);
        if (img_progress_is_cancelled(NULL)) {
            img_error("interrupted");
            return STATUS_NOT_READ;
        }
    }
    return 0;
}

/* What both have first; then what only one has. */
static int compare_contents(struct comparison *comparison)
{
    const struct arguments *arguments = comparison->arguments;
    uint64_t a = comparison->sides[0].size_bytes, b = comparison->sides[1].size_bytes;
    uint64_t total = MAX(a, b);
    int status = compare_range(comparison, 0, MIN(a, b), total);
    if (status || a == b)
        return status;
    say(arguments, "Warning: Image size mismatch!", 0);
    return compare_range(comparison, MIN(a, b), total, total);
}

static int compare(struct comparison *comparison)
{
    const struct arguments *arguments = comparison->arguments;
    const struct side *sides = comparison->sides;
    if (arguments->strict && sides[0].size_bytes != sides[1].size_bytes) {
        say(arguments, "Strict mode: Image size mismatch!", 0);
        return STATUS_DIFFERENT;
    }
    img_progress_start(arguments->progress && !arguments->quiet);
    int status = compare_contents(comparison);
    if (!status) {
        img_progress_report(NULL, 1, 1);
        say(arguments, "Images are identical.", 0);
    }
    img_progress_end(false);
    return status;
}

static int open_side(struct loop *loop, const struct arguments *arguments, size_t index,
                     struct side *side)
{
    const struct img_source_options options = {
        .path = arguments->images[index].path,
        .format = arguments->images[index].format,
        .no_lock = arguments->images[index].no_lock,
        .cache = arguments->cache,
    };
    side->path = options.path;
    side->data = malloc(CHUNK_BYTES);
    if (!side->data || img_source_open(loop, &options, &side->source))
        return STATUS_NOT_OPENED;
    side->size_bytes = disk_size_bytes(side->source.disk);
    return 0;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {0};
    struct comparison comparison = {.arguments = &arguments};
    int status = parse(&arguments, argc, argv);
    for (size_t i = 0; i < 2 && !status; i++)
        status = open_side(loop, &arguments, i, &comparison.sides[i]);
    if (!status)
        status = compare(&comparison);
    for (size_t i = 0; i < 2; i++) {
        (void)!img_source_close(&comparison.sides[i].source);
        free(comparison.sides[i].data);
    }
    return status;
}

const struct img_command img_compare_command = {
    .name = "compare",
    .synopsis = "[--image-opts] [-f FMT] [-F FMT] [-T CACHE] [-p] [-q] [-s] [-U] FILENAME1\n"
                "          FILENAME2",
    .help = "Tells whether two images read the same. Where one is longer, the rest must be zero.\n"
            "  -f FMT, -F FMT    the formats (default: found out from the files)\n"
            "  -s                strict: sizes and what is allocated must be the same, too\n"
            "  -p                show the progress\n"
            "  -q                no output but the exit status\n"
            "  -T CACHE          none, writeback, ...\n"
            "  -U                read although another process uses an image\n"
            "Exit status: 0 identical, 1 different, 2 not opened, 3 no map, 4 not read.\n"
            "Example:\n"
            "  evisor-img compare disk.raw disk.qcow2\n",
    .run = run,
};
