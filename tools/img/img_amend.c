/* SPDX-License-Identifier: MIT */
/* img_amend: evisor-img amend: changes options of a qcow2 image after its creation. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_amend.h"
#include "tools/img/img_args.h"
#include "tools/img/img_image.h"
#include "tools/img/img_progress.h"
#include "tools/img/img_source.h"

struct arguments {
    struct img_image image;
    struct img_options options;
    const char *cache;
    bool progress, quiet;
    bool force; /* matters for encrypted images only */
};

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_OPTIONS('o', NULL, options),
    IMG_TEXT('f', NULL, image.format),
    IMG_TEXT('t', NULL, cache),
    IMG_SWITCH('p', NULL, progress),
    IMG_SWITCH('q', NULL, quiet),
    IMG_SWITCH(0, "force", force),
};
static const struct img_syntax syntax = {args, ARRAY_SIZE(args), 0, SIZE_MAX, NULL};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    struct img_names names;
    int status = img_parse(argc, argv, &syntax, arguments, &names);
    if (status)
        return status;
    if (!arguments->options.count)
        return img_usage("Must specify options (-o)");
    if (img_options_wants_help(&arguments->options) && arguments->image.format)
        return 0;
    if (names.count != 1)
        return img_error("Expecting one image file name");
    if (img_check_caches(arguments->cache, NULL))
        return 1;
    arguments->image.writable = true;
    return img_image_take(names.list[0], &arguments->image);
}

/* --- options --- */

struct request {
    struct qcow2_amend_options amend;
    bool changes_header;
    bool has_size;
    uint64_t size_bytes;
};

static int parse_compat(const char *value, struct request *out)
{
    if (!strcmp(value, "0.10") || !strcmp(value, "v2"))
        out->amend.version = 2;
    else if (!strcmp(value, "1.1") || !strcmp(value, "v3"))
        out->amend.version = 3;
    else
        return img_error("Unknown compatibility level %s", value);
    return 0;
}

static int parse_lazy(const char *value, struct request *out)
{
    if (strcmp(value, "on") && strcmp(value, "off"))
        return img_error("Parameter 'lazy_refcounts' expects 'on' or 'off'");
    out->amend.sets_lazy_refcounts = true;
    out->amend.lazy_refcounts = !strcmp(value, "on");
    return 0;
}

static int parse_width(const char *value, struct request *out)
{
    char *end;
    errno = 0;
    out->amend.refcount_width = strtoull(value, &end, 0);
    if (errno || *end || end == value || *value == '-')
        return img_error("Parameter 'refcount_bits' expects a number");
    if (!is_power_of_2(out->amend.refcount_width) || out->amend.refcount_width > 64)
        return img_error("Refcount width must be a power of two and may not exceed 64 bits");
    return 0;
}

static int parse_size(const char *value, struct request *out)
{
    if (img_parse_size(value, 1, &out->size_bytes) || out->size_bytes > (uint64_t)INT64_MAX - 511)
        return img_error("Parameter 'size' %s", img_size_hint);
    out->has_size = true;
    out->size_bytes = align_up(out->size_bytes, 512);
    return 0;
}

static int refuse(const char *key)
{
    static const char *const at_creation[] = {
        "cluster_size",     "preallocation", "extended_l2",
        "compression_type", "nocow",         "extent_size_hint",
    };
    if (!strncmp(key, "backing_", 8))
        return img_error("Cannot amend the backing file\nYou can use 'evisor-img rebase' instead.");
    if (!strncmp(key, "data_file", 9))
        return img_error("data-file can only be set for images that use an external data file");
    for (size_t i = 0; i < ARRAY_SIZE(at_creation); i++)
        if (!strcmp(key, at_creation[i]))
            return img_error("Invalid parameter '%s'\nThis option is only supported for image "
                             "creation",
                             key);
    return img_error("Invalid parameter '%s'", key);
}

static int parse_request(const struct img_options *options, struct request *out)
{
    for (size_t i = 0; i < options->count; i++) {
        const char *key = options->list[i].key, *value = options->list[i].value;
        int status;
        if (!strcmp(key, "compat"))
            status = parse_compat(value, out);
        else if (!strcmp(key, "lazy_refcounts"))
            status = parse_lazy(value, out);
        else if (!strcmp(key, "refcount_bits"))
            status = parse_width(value, out);
        else if (!strcmp(key, "size"))
            status = parse_size(value, out);
        else
            status = refuse(key);
        if (status)
            return status;
        out->changes_header |= strcmp(key, "size") != 0;
    }
    return 0;
}

/* --- work --- */

static int amend_header(struct io_file *file, const struct arguments *arguments,
                        const struct request *request)
{
    const char *format;
    struct error err = {0};
    if (img_find_format(file, arguments->image.path, arguments->image.format, &format))
        return 1;
    if (strcmp(format, "qcow2"))
        return img_error("Format driver '%s' does not support option amendment", format);
    if (request->changes_header && qcow2_amend(file, arguments->image.path, &request->amend, &err))
        return img_error("%s", err.text);
    return 0;
}

static int resize(struct loop *loop, const struct arguments *arguments, uint64_t size_bytes)
{
    const struct img_source_options options = {
        .path = arguments->image.path, .format = "qcow2", .writable = true};
    struct img_source source;
    struct error err = {0};
    if (img_source_open(loop, &options, &source))
        return 1;
    int resized = disk_resize_wait(source.disk, size_bytes, &err);
    int closed = img_source_close(&source);
    if (!resized && !closed)
        return 0;
    return img_error("Could not resize '%s': %s", arguments->image.path,
                     resized ? err.text : strerror(-closed));
}

static int amend(struct loop *loop, const struct arguments *arguments,
                 const struct request *request)
{
    const struct img_file_options options = {.writable = true};
    struct io_file *file = img_open_file(loop, arguments->image.path, &options);
    if (!file)
        return 1;
    img_progress_start(arguments->progress && !arguments->quiet);
    int status = amend_header(file, arguments, request);
    io_close_wait(file);
    if (!status && request->has_size)
        status = resize(loop, arguments, request->size_bytes);
    img_progress_end(!status);
    return status;
}

/* "-o help": the format is the one given, or that of the image. */
static int print_options(struct loop *loop, const struct arguments *arguments)
{
    const struct img_file_options options = {.no_lock = true};
    const char *format = arguments->image.format;
    if (!format) {
        struct io_file *file = img_open_file(loop, arguments->image.path, &options);
        int status = file ? img_find_format(file, arguments->image.path, NULL, &format) : 1;
        io_close_wait(file);
        if (status)
            return status;
    }
    if (!img_format_is_known(format))
        return img_error("Unknown file format '%s'", format);
    if (strcmp(format, "qcow2"))
        return img_error("Format driver '%s' does not support option amendment", format);
    puts("Amend options for 'qcow2':\n"
         "  compat=<str>           - Compatibility level (v2 [0.10] or v3 [1.1])\n"
         "  lazy_refcounts=<bool (on/off)> - Postpone refcount updates\n"
         "  refcount_bits=<num>    - Width of a reference count entry in bits\n"
         "  size=<size>            - Virtual disk size");
    return 0;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {0};
    struct request request = {0};
    int status = parse(&arguments, argc, argv);
    if (!status && img_options_wants_help(&arguments.options)) {
        status = print_options(loop, &arguments);
        img_options_free(&arguments.options);
        return status;
    }
    if (!status)
        status = parse_request(&arguments.options, &request);
    if (!status)
        status = amend(loop, &arguments, &request);
    img_options_free(&arguments.options);
    return status;
}

const struct img_command img_amend_command = {
    .name = "amend",
    .synopsis = "[--image-opts] [-p] [-q] [-f FMT] [-t CACHE] [--force] -o OPTIONS FILENAME",
    .help = "Changes options of a qcow2 image that is not in use.\n"
            "  -o compat=0.10|1.1        the version\n"
            "  -o lazy_refcounts=on|off  write refcounts late; repaired after a crash\n"
            "  -o refcount_bits=N        width of the refcounts\n"
            "  -o size=SIZE              as resize does\n"
            "  -f FMT                    the format (default: found out from the file)\n"
            "  -p                        show the progress\n"
            "Example:\n"
            "  evisor-img amend -o compat=1.1,lazy_refcounts=on disk.qcow2\n",
    .run = run,
};
