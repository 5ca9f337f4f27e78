/* SPDX-License-Identifier: MIT */
/* img_resize: evisor-img resize: another virtual size for an image. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tools/img/img_args.h"
#include "tools/img/img_image.h"
#include "tools/img/img_preallocate.h"
#include "tools/img/img_source.h"

struct arguments {
    struct img_image image;
    const char *size_text;
    const char *preallocation;
    bool quiet, shrink;
};

static int on_preallocation(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    arguments->preallocation = strcmp(value, "off") ? value : NULL;
    if (arguments->preallocation && strcmp(value, "metadata") && strcmp(value, "falloc") &&
        strcmp(value, "full"))
        return img_error("Invalid preallocation mode '%s'", value);
    return 0;
}

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_TEXT('f', NULL, image.format),
    IMG_SWITCH('q', NULL, quiet),
    IMG_CALL(0, "preallocation", on_preallocation),
    IMG_SWITCH(0, "shrink", shrink),
};
static const struct img_syntax syntax = {args, ARRAY_SIZE(args), 1, 1,
                                         "Expecting image file name and size"};

/* The size is taken off first: "-2M" is no option. */
static int parse(struct arguments *arguments, int argc, char **argv)
{
    struct img_names names;
    if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
        return img_parse(argc, argv, &syntax, arguments, &names); /* prints it */
    if (argc < 3)
        return img_usage("Not enough arguments");
    arguments->size_text = argv[--argc];
    int status = img_parse(argc, argv, &syntax, arguments, &names);
    if (status)
        return status;
    arguments->image.writable = true;
    return img_image_take(names.list[0], &arguments->image);
}

static int new_size(const char *text, uint64_t old, uint64_t *out)
{
    char sign = *text == '+' || *text == '-' ? *text : 0;
    uint64_t bytes;
    if (img_parse_size(text + (sign != 0), 1, &bytes) || bytes > (uint64_t)INT64_MAX)
        return img_error("Parameter 'size' %s", img_size_hint);
    if (sign == '+')
        bytes = old > (uint64_t)INT64_MAX - bytes ? UINT64_MAX : old + bytes;
    else if (sign == '-')
        bytes = bytes >= old ? 0 : old - bytes;
    if (bytes > (uint64_t)INT64_MAX)
        return img_error("The new image size is too large");
    if (!bytes)
        return img_error("New image size must be positive");
    *out = bytes;
    return 0;
}

static int check_change(const struct arguments *arguments, const struct img_source *source,
                        uint64_t size)
{
    uint64_t old = disk_size_bytes(source->disk);
    if (size <= old && arguments->preallocation)
        return img_error("Preallocation can only be used for growing images");
    if (size < old && !arguments->shrink) {
        img_error("Use the --shrink option to perform a shrink operation.");
        return img_error("warning: Shrinking an image will delete all data beyond the shrunken "
                         "image's end. Before performing such an operation, make sure there is no "
                         "important data there.");
    }
    if (arguments->preallocation && !strcmp(arguments->preallocation, "metadata") &&
        !strcmp(source->format, "raw"))
        return img_error("Unsupported preallocation mode: metadata");
    return 0;
}

static int resize(struct loop *loop, const struct arguments *arguments, struct img_source *source,
                  uint64_t *new_bytes)
{
    uint64_t old = disk_size_bytes(source->disk), size = 0;
    struct error err = {0};
    if (new_size(arguments->size_text, old, &size) || check_change(arguments, source, size))
        return 1;
    if (disk_resize_wait(source->disk, align_up(size, 512), &err))
        return img_error("Could not resize '%s': %s", arguments->image.path, err.text);
    *new_bytes = size;
    if (!arguments->preallocation)
        return 0;
    int result =
        img_preallocate(loop, source, arguments->image.path, arguments->preallocation, old);
    return result ? img_error("Could not preallocate '%s': %s", arguments->image.path,
                              strerror(-result))
                  : 0;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {0};
    struct img_source source;
    if (parse(&arguments, argc, argv))
        return 1;
    const struct img_source_options options = {
        .path = arguments.image.path, .format = arguments.image.format, .writable = true};
    if (img_source_open(loop, &options, &source))
        return 1;
    uint64_t size = 0;
    bool is_raw = !strcmp(source.format, "raw");
    int status = resize(loop, &arguments, &source, &size);
    int result = img_source_close(&source);
    /* The engine counts in sectors; a raw file may end within one. */
    if (!status && !result && is_raw && size % 512 && truncate(arguments.image.path, (off_t)size))
        result = -errno;
    if (!status && result)
        status = img_error("Could not resize '%s': %s", arguments.image.path, strerror(-result));
    if (!status && !arguments.quiet)
        puts("Image resized.");
    return status;
}

const struct img_command img_resize_command = {
    .name = "resize",
    .synopsis = "[--image-opts] [-f FMT] [--preallocation=MODE] [-q] [--shrink] FILENAME [+|-]SIZE",
    .help = "Changes the virtual size of an image. The guest's partitions stay as they are.\n"
            "  -f FMT                the format (default: found out from the file)\n"
            "  --shrink              allow a smaller size: what lies beyond it is lost\n"
            "  --preallocation=MODE  off, metadata (qcow2), falloc or full: give the new part its\n"
            "                        place in the file at once\n"
            "  -q                    say nothing\n"
            "Examples:\n"
            "  evisor-img resize disk.qcow2 +10G\n"
            "  evisor-img resize --shrink -f raw disk.raw 5G\n",
    .run = run,
};
