/* SPDX-License-Identifier: MIT */
/*
 * img_commit: evisor-img commit: writes what an overlay holds into an image below it.
 *
 * The overlay stays locked for writing throughout. It is emptied only after all its data is durable
 * in the base.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_snapshot.h"
#include "tools/img/img_image.h"
#include "tools/img/img_progress.h"
#include "tools/img/img_rate.h"
#include "tools/img/img_source.h"

#define CHUNK_BYTES (2 * MIB)

struct arguments {
    struct img_image image;
    const char *base;
    struct img_rate rate;
    const char *cache;
    bool keep, progress, quiet; /* keep: -d, do not empty the overlay */
};

/* An image of the chain, from the top down. */
struct level {
    char *path;
    char *format;
};

struct commit {
    const struct arguments *arguments;
    struct loop *loop;
    struct level below; /* where it goes */
    unsigned depth;     /* layers that are committed */
    struct img_source top, base;
    struct img_rate rate;
    struct error err;
};

static int on_rate(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return img_rate_parse(&arguments->rate, value);
}

static int on_base(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    arguments->base = value;
    arguments->keep = true; /* what lies between may be needed still */
    return 0;
}

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_TEXT('f', NULL, image.format),
    IMG_TEXT('t', NULL, cache),
    IMG_CALL('b', NULL, on_base),
    IMG_SWITCH('d', NULL, keep),
    IMG_SWITCH('p', NULL, progress),
    IMG_SWITCH('q', NULL, quiet),
    IMG_CALL('r', NULL, on_rate),
};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    arguments->image.writable = true;
    int status = img_image_parse(argc, argv, args, ARRAY_SIZE(args), arguments, &arguments->image);
    return status ? status : img_check_caches(arguments->cache, NULL);
}

/* --- finding the base --- */

static void level_fini(struct level *level)
{
    free(level->path);
    free(level->format);
}

/* What the image at `level` is backed by, if anything. */
static int look_below(struct loop *loop, const struct level *level, struct level *out)
{
    const struct img_file_options options = {.no_lock = true};
    struct qcow2_header header;
    struct error err = {0};
    memset(out, 0, sizeof(*out));
    struct io_file *file = img_open_file(loop, level->path, &options);
    if (!file)
        return 1;
    const char *format;
    int status = img_find_format(file, level->path, level->format, &format);
    if (!status && !strcmp(format, "qcow2")) {
        if (qcow2_header_read(file, level->path, &header, &err)) {
            status = img_error("%s", err.text);
        } else {
            if (header.has_backing)
                out->path = disk_backing_path(level->path, header.backing_path);
            if (header.has_backing_format)
                out->format = strdup(header.backing_format);
            qcow2_header_fini(&header);
        }
    }
    io_close_wait(file);
    return status;
}

/* A relative name counts from the folder of the image above, as it would in that image. */
static bool is_base(const char *wanted, const char *above, const char *path)
{
    char *resolved = disk_backing_path(above, wanted);
    bool is_same = resolved && io_is_same_file(resolved, path);
    free(resolved);
    return is_same;
}

static int find_base(struct commit *commit)
{
    const struct arguments *arguments = commit->arguments;
    struct level level = {.path = strdup(arguments->image.path),
                          .format =
                              arguments->image.format ? strdup(arguments->image.format) : NULL};
    for (;;) {
        int status = level.path ? look_below(commit->loop, &level, &commit->below) : 1;
        bool found = !status && commit->below.path &&
                     (!arguments->base || is_base(arguments->base, level.path, commit->below.path));
        level_fini(&level);
        if (status)
            return status;
        commit->depth++;
        if (!commit->below.path) {
            level_fini(&commit->below);
            memset(&commit->below, 0, sizeof(commit->below));
            if (commit->depth == 1)
                return img_error("Image does not have a backing file");
            return img_error("Did not find '%s' in the backing chain of '%s'", arguments->base,
                             arguments->image.path);
        }
        if (found)
            return 0;
        if (commit->depth == DISK_BACKING_DEPTH_MAX)
            return img_error("'%s': the backing chain is too long", arguments->image.path);
        level = commit->below;
    }
}

/* --- copying --- */

static int on_disk(struct disk *disk, enum disk_op op, uint64_t offset, void *data, uint64_t bytes)
{
    struct iovec iov = {data, bytes};
    struct disk_request request = {
        .op = op, .flags = op == DISK_ZERO ? DISK_MAY_UNMAP : 0, .offset = offset, .bytes = bytes};
    if (data) {
        request.iov = &iov;
        request.iov_count = 1;
    }
    return disk_run(disk, &request);
}

static int copy_extent(struct commit *commit, const struct map_extent *extent, void *data)
{
    uint64_t end = extent->offset + extent->bytes;
    int result = 0;
    if (extent->kind == MAP_ZERO || extent->kind == MAP_ABSENT)
        return on_disk(commit->base.disk, DISK_ZERO, extent->offset, NULL, extent->bytes);
    for (uint64_t at = extent->offset; at < end && !result; at += CHUNK_BYTES) {
        uint64_t bytes = MIN(CHUNK_BYTES, end - at);
        img_rate_wait(&commit->rate, bytes);
        result = on_disk(commit->top.disk, DISK_READ, at, data, bytes);
        if (!result)
            result = on_disk(commit->base.disk, DISK_WRITE, at, data, bytes);
    }
    return result;
}

static int copy_all(struct commit *commit)
{
    uint64_t size = map_size_bytes(commit->top.map);
    uint8_t *data = malloc(CHUNK_BYTES);
    int result = data ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < size && !result;) {
        struct map_extent extent;
        if (map_find(commit->top.map, at, size, commit->depth, &extent, &commit->err))
            result = -commit->err.code;
        else if (extent.kind != MAP_ABSENT || extent.is_hidden)
            result = copy_extent(commit, &extent, data);
        at += result ? 0 : extent.bytes;
        img_progress_report(NULL, at, size);
        if (!result && img_progress_is_cancelled(NULL))
            result = -EINTR;
    }
    if (!result)
        result = on_disk(commit->base.disk, DISK_FLUSH, 0, NULL, 0);
    free(data);
    if (result)
        error_set_errno(&commit->err, -result, "Could not copy into '%s'", commit->below.path);
    return result;
}

static int grow_base(struct commit *commit)
{
    struct error err = {0};
    uint64_t size = disk_size_bytes(commit->top.disk);
    if (disk_size_bytes(commit->base.disk) >= size)
        return 0;
    int result = disk_resize_wait(commit->base.disk, size, &err);
    return result ? error_set(&commit->err, -result, "Could not resize '%s': %s",
                              commit->below.path, err.text)
                  : 0;
}

static int copy_into_base(struct commit *commit)
{
    const struct arguments *arguments = commit->arguments;
    const struct img_source_options top = {
        .path = arguments->image.path, .format = arguments->image.format, .no_lock = true};
    const struct img_source_options base = {.path = commit->below.path,
                                            .format = commit->below.format,
                                            .cache = arguments->cache,
                                            .writable = true};
    if (img_source_open(commit->loop, &base, &commit->base) ||
        img_source_open(commit->loop, &top, &commit->top))
        return 1;
    img_progress_start(arguments->progress && !arguments->quiet);
    int result = grow_base(commit);
    if (!result)
        result = copy_all(commit);
    img_progress_end(!result);
    return result ? img_error("%s", commit->err.text) : 0;
}

static int commit_locked(struct commit *commit, struct io_file *file)
{
    int status = copy_into_base(commit);
    int result = img_source_close(&commit->base);
    (void)!img_source_close(&commit->top);
    if (!status && result)
        status = img_error("Could not close '%s': %s", commit->below.path, strerror(-result));
    if (!status && !commit->arguments->keep &&
        qcow2_snapshot_empty_disk(file, commit->arguments->image.path, &commit->err))
        status =
            img_error("Could not empty %s: %s", commit->arguments->image.path, commit->err.text);
    return status;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {0};
    struct commit commit = {.arguments = &arguments, .loop = loop};
    const struct img_file_options options = {.writable = true};
    if (parse(&arguments, argc, argv))
        return 1;
    commit.rate = arguments.rate;
    struct io_file *file = img_open_file(loop, arguments.image.path, &options);
    if (!file)
        return 1;
    int status = find_base(&commit);
    if (!status)
        status = commit_locked(&commit, file);
    io_close_wait(file);
    level_fini(&commit.below);
    if (!status && !arguments.quiet)
        puts("Image committed.");
    return status;
}

const struct img_command img_commit_command = {
    .name = "commit",
    .synopsis = "[--image-opts] [-f FMT] [-t CACHE] [-b BASE] [-r RATE] [-d] [-p] [-q] FILENAME",
    .help = "Writes the changes in an overlay into its backing file, then empties the overlay.\n"
            "  -f FMT    the overlay's format (default: found out from the file)\n"
            "  -b BASE   into this image of the chain; the overlay is not emptied\n"
            "  -d        do not empty the overlay\n"
            "  -t CACHE  none, writeback (default), writethrough, directsync, unsafe\n"
            "  -r RATE   no more than so many bytes per second\n"
            "  -p        show the progress\n"
            "  -q        say nothing\n"
            "Example:\n"
            "  evisor-img commit overlay.qcow2\n",
    .run = run,
};
