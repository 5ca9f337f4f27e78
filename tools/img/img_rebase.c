/* SPDX-License-Identifier: MIT */
/*
 * img_rebase: evisor-img rebase: another backing file for an overlay. In safe mode what the overlay
 * shows stays the same: where old and new backing file differ, the old contents are written into
 * the overlay first.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_header.h"
#include "tools/img/img_image.h"
#include "tools/img/img_progress.h"
#include "tools/img/img_source.h"

#define CHUNK_BYTES (1 * MIB)

struct arguments {
    struct img_image image;
    const char *backing; /* "" for none; NULL if not given */
    const char *backing_format;
    const char *cache, *source_cache;
    bool unsafe, progress, quiet;
};

struct rebase {
    const struct arguments *arguments;
    struct loop *loop;
    char *old_path, *old_format; /* of the backing file as it is; NULL for none */
    uint64_t cluster_bytes;
    struct img_source top, old, new; /* old and new may be closed: zeroes */
    struct map *top_map;
    uint8_t *old_data, *new_data;
};

/* In a header any name that QEMU knows may stand; whether evisor can open it is another matter. */
static bool is_format_name(const char *name)
{
    static const char *const names[] = {"raw",       "qcow2", "qcow",       "qed",  "vdi",
                                        "vmdk",      "vpc",   "vhdx",       "luks", "dmg",
                                        "parallels", "file",  "host_device"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (!strcmp(names[i], name))
            return true;
    return false;
}

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_TEXT('f', NULL, image.format),
    IMG_TEXT('b', NULL, backing),
    IMG_TEXT('F', NULL, backing_format),
    IMG_TEXT('t', NULL, cache),
    IMG_TEXT('T', NULL, source_cache),
    IMG_SWITCH('u', NULL, unsafe),
    IMG_SWITCH('p', NULL, progress),
    IMG_SWITCH('q', NULL, quiet),
    IMG_SWITCH('U', "force-share", image.no_lock),
};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    arguments->image.writable = true;
    int status = img_image_parse(argc, argv, args, ARRAY_SIZE(args), arguments, &arguments->image);
    if (status)
        return status;
    if (!arguments->unsafe && !arguments->backing)
        return img_usage("Must specify backing file (-b) or use unsafe mode (-u)");
    if (img_check_caches(arguments->cache, arguments->source_cache))
        return 1;
    if (arguments->backing_format && !is_format_name(arguments->backing_format))
        return img_error("Invalid format name: '%s'", arguments->backing_format);
    return 0;
}

static const char *new_backing(const struct arguments *arguments)
{
    return arguments->backing && *arguments->backing ? arguments->backing : NULL;
}

/* --- the header --- */

static int cannot_change(const struct arguments *arguments, const char *why)
{
    return img_error("Could not change the backing file to '%s': %s", arguments->backing, why);
}

static int change_header(struct io_file *file, const struct arguments *arguments,
                         struct qcow2_header *header)
{
    const char *backing = new_backing(arguments);
    struct error err = {0};
    if (backing && strlen(backing) > QCOW2_BACKING_PATH_MAX)
        return cannot_change(arguments, "the name is too long");
    header->has_backing = backing;
    snprintf(header->backing_path, sizeof(header->backing_path), "%s", backing ? backing : "");
    header->has_backing_format = backing && arguments->backing_format;
    snprintf(header->backing_format, sizeof(header->backing_format), "%s",
             header->has_backing_format ? arguments->backing_format : "");
    header->autoclear &= QCOW2_AUTOCLEAR_KNOWN;
    int result = io_sync_now(file);
    if (!result)
        result = qcow2_header_write(file, header, &err);
    if (!result)
        result = io_sync_now(file);
    if (!result)
        return 0;
    return img_error("Could not change the backing file of '%s' to '%s': %s", arguments->image.path,
                     backing ? backing : "", err.code ? err.text : strerror(-result));
}

static bool is_itself(const struct arguments *arguments)
{
    char *path = disk_backing_path(arguments->image.path, arguments->backing);
    bool is_same = path && io_is_same_file(path, arguments->image.path);
    free(path);
    return is_same;
}

static int read_header(struct rebase *rebase, struct io_file *file, struct qcow2_header *header)
{
    const struct arguments *arguments = rebase->arguments;
    const char *format;
    struct error err = {0};
    if (img_find_format(file, arguments->image.path, arguments->image.format, &format))
        return 1;
    if (strcmp(format, "qcow2"))
        return img_error("'%s': images of format %s have no backing file", arguments->image.path,
                         format);
    if (new_backing(arguments) && !arguments->backing_format)
        return cannot_change(arguments, "backing format must be specified");
    /* -u asks nothing: scripts that build chains in strange orders rely on that. */
    if (!arguments->unsafe && new_backing(arguments) && is_itself(arguments))
        return cannot_change(arguments, "it is the image itself");
    if (qcow2_header_read(file, arguments->image.path, header, &err))
        return img_error("%s", err.text);
    if (header->incompatible & QCOW2_INCOMPAT_CORRUPT) {
        qcow2_header_fini(header);
        return img_error("Could not open '%s': the image is marked corrupt; run evisor-img check "
                         "-r all",
                         arguments->image.path);
    }
    rebase->cluster_bytes = qcow2_cluster_bytes(header);
    if (header->has_backing)
        rebase->old_path = disk_backing_path(arguments->image.path, header->backing_path);
    if (header->has_backing_format)
        rebase->old_format = strdup(header->backing_format);
    return 0;
}

/* With the image locked for writing: looks, or changes the name at the end. */
static int with_header(struct rebase *rebase, bool change)
{
    const struct img_file_options options = {.writable = true};
    struct qcow2_header header;
    struct io_file *file = img_open_file(rebase->loop, rebase->arguments->image.path, &options);
    if (!file)
        return 1;
    free(rebase->old_path);
    free(rebase->old_format);
    rebase->old_path = rebase->old_format = NULL;
    int status = read_header(rebase, file, &header);
    if (!status) {
        if (change)
            status = change_header(file, rebase->arguments, &header);
        qcow2_header_fini(&header);
    }
    io_close_wait(file);
    return status;
}

/* --- safe mode --- */

/* What a backing file shows at a range: zeroes where there is none, or where it has ended. */
static int read_backing(struct img_source *source, uint64_t offset, uint8_t *data, uint64_t bytes)
{
    uint64_t size = source->disk ? disk_size_bytes(source->disk) : 0;
    uint64_t there = offset < size ? MIN(bytes, size - offset) : 0;
    memset(data + there, 0, bytes - there);
    if (!there)
        return 0;
    struct iovec iov = {data, there};
    struct disk_request request = {
        .op = DISK_READ, .offset = offset, .bytes = there, .iov = &iov, .iov_count = 1};
    return disk_run(source->disk, &request);
}

static int write_top(struct rebase *rebase, uint64_t offset, uint8_t *data, uint64_t bytes)
{
    struct iovec iov = {data, bytes};
    struct disk_request request = {
        .op = DISK_WRITE, .offset = offset, .bytes = bytes, .iov = &iov, .iov_count = 1};
    return disk_run(rebase->top.disk, &request);
}

/* Writes those clusters of the range that the new backing file shows otherwise. */
static int keep_contents(struct rebase *rebase, uint64_t offset, uint64_t bytes)
{
    int result = read_backing(&rebase->old, offset, rebase->old_data, bytes);
    if (!result)
        result = read_backing(&rebase->new, offset, rebase->new_data, bytes);
    for (uint64_t at = 0; at < bytes && !result;) {
        uint64_t cluster_end =
            align_down(offset + at, rebase->cluster_bytes) + rebase->cluster_bytes - offset;
        uint64_t piece = MIN(cluster_end, bytes) - at;
        if (memcmp(rebase->old_data + at, rebase->new_data + at, piece))
            result = write_top(rebase, offset + at, rebase->old_data + at, piece);
        at += piece;
    }
    return result;
}

static int cannot_copy(const struct rebase *rebase, int result)
{
    return img_error("Error while writing to COW image '%s': %s; it keeps its backing file",
                     rebase->arguments->image.path, strerror(-result));
}

static int copy_differences(struct rebase *rebase)
{
    uint64_t size = map_size_bytes(rebase->top_map);
    struct error err = {0};
    for (uint64_t at = 0; at < size;) {
        struct map_extent extent;
        if (map_find(rebase->top_map, at, size, 1, &extent, &err))
            return img_error("error while reading image metadata: %s", err.text);
        if (extent.kind == MAP_ABSENT) {
            extent.bytes = MIN(extent.bytes, CHUNK_BYTES);
            int result = keep_contents(rebase, at, extent.bytes);
            if (result)
                return cannot_copy(rebase, result);
        }
        at += extent.bytes;
        img_progress_report(NULL, at, size);
        if (img_progress_is_cancelled(NULL))
            return img_error("interrupted; '%s' keeps its backing file",
                             rebase->arguments->image.path);
    }
    struct disk_request flush = {.op = DISK_FLUSH};
    int result = disk_run(rebase->top.disk, &flush);
    return result ? cannot_copy(rebase, result) : 0;
}

static int open_new_backing(struct rebase *rebase)
{
    const struct arguments *arguments = rebase->arguments;
    if (!new_backing(arguments))
        return 0;
    char *path = disk_backing_path(arguments->image.path, arguments->backing);
    const struct img_source_options options = {.path = path,
                                               .format = arguments->backing_format,
                                               .cache = arguments->source_cache,
                                               .no_lock = arguments->image.no_lock};
    int status = path ? img_source_open(rebase->loop, &options, &rebase->new) : 1;
    free(path);
    return status;
}

static int open_old_backing(struct rebase *rebase)
{
    const struct img_source_options options = {.path = rebase->old_path,
                                               .format = rebase->old_format,
                                               .cache = rebase->arguments->source_cache,
                                               .no_lock = rebase->arguments->image.no_lock};
    return rebase->old_path ? img_source_open(rebase->loop, &options, &rebase->old) : 0;
}

static int open_all(struct rebase *rebase)
{
    const struct arguments *arguments = rebase->arguments;
    const struct img_source_options top = {.path = arguments->image.path,
                                           .format = "qcow2",
                                           .cache = arguments->cache,
                                           .writable = true};
    const struct map_options map = {.path = arguments->image.path, .format = "qcow2"};
    struct error err = {0};
    rebase->old_data = malloc(CHUNK_BYTES);
    rebase->new_data = malloc(CHUNK_BYTES);
    if (!rebase->old_data || !rebase->new_data)
        return img_error("out of memory");
    if (open_new_backing(rebase) || open_old_backing(rebase) ||
        img_source_open(rebase->loop, &top, &rebase->top))
        return 1;
    if (map_open(rebase->loop, &map, &rebase->top_map, &err))
        return img_error("%s", err.text);
    return 0;
}

static int copy_safely(struct rebase *rebase)
{
    int status = open_all(rebase);
    if (!status) {
        img_progress_start(rebase->arguments->progress && !rebase->arguments->quiet);
        status = copy_differences(rebase);
        img_progress_end(!status);
    }
    map_close(rebase->top_map);
    int result = img_source_close(&rebase->top);
    (void)!img_source_close(&rebase->old);
    (void)!img_source_close(&rebase->new);
    free(rebase->old_data);
    free(rebase->new_data);
    if (!status && result)
        status =
            img_error("Could not close '%s': %s", rebase->arguments->image.path, strerror(-result));
    return status;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {0};
    struct rebase rebase = {.arguments = &arguments, .loop = loop};
    if (parse(&arguments, argc, argv))
        return 1;
    int status = with_header(&rebase, false);
    if (!status && !arguments.unsafe)
        status = copy_safely(&rebase);
    if (!status)
        status = with_header(&rebase, true);
    free(rebase.old_path);
    free(rebase.old_format);
    return status;
}

const struct img_command img_rebase_command = {
    .name = "rebase",
    .synopsis =
        "[--image-opts] [-f FMT] [-t CACHE] [-T CACHE] [-p] [-q] [-u] [-U] -b BACKING_FILE\n"
        "          [-F BACKING_FMT] FILENAME",
    .help =
        "Gives an overlay another backing file; what the overlay shows stays the same.\n"
        "  -b FILE    the new backing file; \"\" for none\n"
        "  -F FMT     its format\n"
        "  -u         change the name only: for a backing file that was moved. If the contents\n"
        "             differ, the overlay shows rubbish\n"
        "  -f FMT     the overlay's format (default: found out from the file)\n"
        "  -t CACHE, -T CACHE  for the overlay, and for the backing files\n"
        "  -p         show the progress\n"
        "  -U         read backing files although another process uses them\n"
        "Examples:\n"
        "  evisor-img rebase -b new-base.qcow2 -F qcow2 overlay.qcow2\n"
        "  evisor-img rebase -b '' overlay.qcow2\n"
        "  evisor-img rebase -u -b /new/place/base.qcow2 -F qcow2 overlay.qcow2\n",
    .run = run,
};
