/* SPDX-License-Identifier: MIT */
/* img_source: opens an image for reading or writing, as the subcommands that move data need it. */
#include "tools/img/img_source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/probe.h"
#include "tools/img/img_snapshot_choice.h"

int img_parse_cache(const char *name, struct disk_cache_mode *mode)
{
    static const struct {
        const char *name;
        struct disk_cache_mode mode;
    } modes[] = {
        {"none", {.direct = true, .writeback = true}},
        {"off", {.direct = true, .writeback = true}},
        {"writeback", {.writeback = true}},
        {"writethrough", {.writeback = false}},
        {"directsync", {.direct = true}},
        {"unsafe", {.no_flush = true, .writeback = true}},
    };
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
        if (!strcmp(modes[i].name, name)) {
            *mode = modes[i].mode;
            return 0;
        }
    return -1;
}

int img_check_caches(const char *cache, const char *source_cache)
{
    struct disk_cache_mode mode;
    if (cache && img_parse_cache(cache, &mode))
        return img_error("Invalid cache option: %s", cache);
    if (source_cache && img_parse_cache(source_cache, &mode))
        return img_error("Invalid source cache option: %s", source_cache);
    return 0;
}

static int parse_aio(const char *name, enum disk_aio *aio)
{
    if (!name)
        *aio = DISK_AIO_AUTO;
    else if (!strcmp(name, "threads"))
        *aio = DISK_AIO_THREADS;
    else if (!strcmp(name, "io_uring") || !strcmp(name, "native"))
        *aio = DISK_AIO_IO_URING; /* Linux' older interface would serve no purpose beside it */
    else
        return img_error("Invalid aio option: %s", name);
    return 0;
}

static int parse_discard(const char *name, bool *unmaps)
{
    if (name && (!strcmp(name, "ignore") || !strcmp(name, "off")))
        *unmaps = false;
    else if (name && strcmp(name, "unmap") && strcmp(name, "on"))
        return img_error("Invalid discard option: %s", name);
    return 0;
}

/* Looks into the file, without locks: the image is opened and locked right after. */
static int find_format(struct loop *loop, const struct img_source_options *options,
                       const char **format, char **snapshot)
{
    const struct img_file_options open_options = {.no_lock = true};
    struct io_file *file = img_open_file(loop, options->path, &open_options);
    if (!file)
        return 1;
    int status = img_find_format(file, options->path, options->format, format);
    if (!status && options->snapshot && strcmp(*format, "qcow2"))
        status = img_error("Failed to load snapshot: Block format '%s' used by device '' does not "
                           "support temporarily loading internal snapshots",
                           *format);
    else if (!status && options->snapshot)
        status = img_snapshot_choose(file, options->path, options->snapshot, snapshot);
    io_close_wait(file);
    return status;
}

static int say(const char *path, const struct error *err)
{
    if (!strncmp(err->text, "Could not open", 14) || !strncmp(err->text, "Failed to load", 14))
        return img_error("%s", err->text);
    return img_error("Could not open '%s': %s", path, err->text);
}

static int open_both(struct loop *loop, const struct img_source_options *options,
                     const char *snapshot, struct img_source *out)
{
    struct disk_options disk_options = {
        .path = options->path,
        .read_only = !options->writable,
        .no_lock = options->no_lock,
        .no_backing = options->no_backing,
        .snapshot = snapshot,
        .cache = {.writeback = true},
        .discard_unmap = options->writable,
    };
    struct error err = {0};
    if (options->cache && img_parse_cache(options->cache, &disk_options.cache))
        return img_error("Invalid cache option: %s", options->cache);
    if (parse_aio(options->aio, &disk_options.aio) ||
        parse_discard(options->discard, &disk_options.discard_unmap))
        return 1;
    disk_options.format = out->format;
    const struct map_options map_options = {.path = options->path,
                                            .format = out->format,
                                            .snapshot = snapshot,
                                            .whole_chain = !options->no_backing};
    if (disk_open(loop, &disk_options, &out->disk, &err))
        return say(options->path, &err);
    if (!options->writable && !options->no_map && map_open(loop, &map_options, &out->map, &err)) {
        (void)!img_source_close(out);
        return say(options->path, &err);
    }
    return 0;
}

int img_source_open(struct loop *loop, const struct img_source_options *options,
                    struct img_source *out)
{
    char *snapshot = NULL;
    memset(out, 0, sizeof(*out));
    int status = find_format(loop, options, &out->format, &snapshot);
    if (!status)
        status = open_both(loop, options, snapshot, out);
    free(snapshot);
    return status;
}

int img_source_close(struct img_source *source)
{
    map_close(source->map);
    int result = source->disk ? disk_close_wait(source->disk) : 0;
    memset(source, 0, sizeof(*source));
    return result;
}
