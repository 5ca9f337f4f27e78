/* SPDX-License-Identifier: MIT */
/*
 * img_bitmap: evisor-img bitmap: changes the persistent bitmaps of an image, one action after the
 * other, in the order in which they were given.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/dirty.h"
#include "tools/img/img_args.h"
#include "tools/img/img_bitmaps.h"
#include "tools/img/img_image.h"
#include "tools/img/img_source.h"

#define ACTIONS_MAX 64

enum kind { ADD, REMOVE, CLEAR, ENABLE, DISABLE, MERGE };

static const char *const kind_names[] = {"add", "remove", "clear", "enable", "disable", "merge"};

struct action {
    enum kind kind;
    const char *source; /* MERGE */
};

struct arguments {
    struct img_image image;
    const char *name;
    const char *source_path, *source_format; /* of the image with the bitmaps to merge */
    uint64_t granularity_bytes;
    bool adds, merges;
    struct action actions[ACTIONS_MAX];
    size_t action_count;
};

static int append(struct arguments *arguments, enum kind kind, const char *source)
{
    if (arguments->action_count == ACTIONS_MAX)
        return img_error("At most %d actions at once", ACTIONS_MAX);
    arguments->actions[arguments->action_count++] = (struct action){kind, source};
    arguments->adds |= kind == ADD;
    arguments->merges |= kind == MERGE;
    return 0;
}

static int on_add(void *opaque, const char *value)
{
    (void)value;
    return append(opaque, ADD, NULL);
}

static int on_remove(void *opaque, const char *value)
{
    (void)value;
    return append(opaque, REMOVE, NULL);
}

static int on_clear(void *opaque, const char *value)
{
    (void)value;
    return append(opaque, CLEAR, NULL);
}

static int on_enable(void *opaque, const char *value)
{
    (void)value;
    return append(opaque, ENABLE, NULL);
}

static int on_disable(void *opaque, const char *value)
{
    (void)value;
    return append(opaque, DISABLE, NULL);
}

static int on_merge(void *opaque, const char *value)
{
    return append(opaque, MERGE, value);
}

static int on_granularity(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    if (img_parse_size(value, 1, &arguments->granularity_bytes) ||
        arguments->granularity_bytes > (uint64_t)INT64_MAX)
        return img_error("Invalid granularity specified. You may use k, M, G, T, P or E suffixes "
                         "for\nevisor-img: kilobytes, megabytes, gigabytes, terabytes, petabytes "
                         "and exabytes.");
    if (!arguments->granularity_bytes)
        return img_error("Invalid granularity specified: it must not be 0");
    return 0;
}

static int parse(struct arguments *arguments, int argc, char **argv)
{
    static const struct img_arg args[] = {
        IMG_CALL_0(0, "add", on_add),
        IMG_CALL_0(0, "remove", on_remove),
        IMG_CALL_0(0, "clear", on_clear),
        IMG_CALL_0(0, "enable", on_enable),
        IMG_CALL_0(0, "disable", on_disable),
        IMG_CALL(0, "merge", on_merge),
        IMG_TEXT('b', "source-file", source_path),
        IMG_TEXT('F', "source-format", source_format),
        IMG_TEXT('f', NULL, image.format),
        IMG_CALL('g', "granularity", on_granularity),
        IMG_SWITCH(0, "image-opts", image.is_options),
    };
    static const struct img_syntax syntax = {args, ARRAY_SIZE(args), 2, 2,
                                             "Expecting filename and bitmap name"};
    struct img_names names;
    int status = img_parse(argc, argv, &syntax, arguments, &names);
    if (status)
        return status;
    arguments->image.writable = true;
    arguments->name = names.list[1];
    if (!arguments->action_count)
        return img_error("Need at least one of --add, --remove, --clear, --enable, --disable, or "
                         "--merge");
    if (arguments->granularity_bytes && !arguments->adds)
        return img_error("granularity only supported with --add");
    if (arguments->source_path && !arguments->merges)
        return img_error("Merge bitmap source file only supported with --merge");
    if (arguments->source_format && !arguments->source_path)
        return img_error("-F only supported with -b");
    return img_image_take(names.list[0], &arguments->image);
}

/* --- work --- */

static int merge(struct disk *disk, struct disk *source, struct dirty_bitmap *bitmap,
                 const char *name, struct error *err)
{
    const struct dirty_bitmap *from = img_bitmaps_find(source ? source : disk, name, true, err);
    if (!from)
        return -EINVAL;
    if (from->size_bytes != bitmap->size_bytes)
        return error_set(err, EINVAL,
                         "Bitmaps are of different sizes (destination size is %llu and source size "
                         "is %llu) and can't be merged",
                         (unsigned long long)bitmap->size_bytes,
                         (unsigned long long)from->size_bytes);
    dirty_bitmap_merge(bitmap, from);
    return 0;
}

static int act(const struct arguments *arguments, const struct action *action, struct disk *disk,
               struct disk *source, struct error *err)
{
    struct dirty_bitmap *bitmap;
    if (action->kind == ADD)
        return disk_add_bitmap(disk, arguments->name, arguments->granularity_bytes, true, &bitmap,
                               err);
    bitmap = img_bitmaps_find(disk, arguments->name, action->kind != REMOVE, err);
    if (!bitmap)
        return -EINVAL;
    switch (action->kind) {
    case REMOVE:
        list_remove(&bitmap->node);
        dirty_bitmap_destroy(bitmap);
        break;
    case CLEAR:
        dirty_bitmap_clear(bitmap);
        break;
    case ENABLE:
    case DISABLE:
        bitmap->enabled = action->kind == ENABLE;
        break;
    case MERGE:
        return merge(disk, source, bitmap, action->source, err);
    case ADD:
        break;
    }
    return 0;
}

static int act_on(const struct arguments *arguments, struct disk *disk, struct disk *source)
{
    struct error err = {0};
    for (size_t i = 0; i < arguments->action_count; i++)
        if (act(arguments, &arguments->actions[i], disk, source, &err))
            return img_error("Operation %s on bitmap %s failed: %s",
                             kind_names[arguments->actions[i].kind], arguments->name, err.text);
    return 0;
}

static int open_source(struct loop *loop, const struct arguments *arguments,
                       struct img_source *source)
{
    const struct img_source_options options = {.path = arguments->source_path,
                                               .format = arguments->source_format,
                                               .no_backing = true,
                                               .no_map = true};
    return arguments->source_path ? img_source_open(loop, &options, source) : 0;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {0};
    struct img_source target = {0}, source = {0};
    if (parse(&arguments, argc, argv))
        return 1;
    const struct img_source_options options = {.path = arguments.image.path,
                                               .format = arguments.image.format,
                                               .no_lock = arguments.image.no_lock,
                                               .writable = true};
    if (img_source_open(loop, &options, &target))
        return 1;
    int status = open_source(loop, &arguments, &source);
    if (!status)
        status = act_on(&arguments, target.disk, source.disk);
    if (source.disk)
        (void)!img_source_close(&source);
    int result = img_source_close(&target);
    if (!status && result)
        status = img_error("Could not close '%s': %s", arguments.image.path, strerror(-result));
    return status;
}

const struct img_command img_bitmap_command = {
    .name = "bitmap",
    .synopsis = "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)...\n"
                "          [-b SOURCE_FILE [-F SOURCE_FMT]] [-g GRANULARITY] [--image-opts | -f "
                "FMT]\n          FILENAME BITMAP",
    .help =
        "Changes a persistent bitmap of a qcow2 image that is not in use. The actions are done\n"
        "in their order.\n"
        "  --add                 make it, empty and recording writes\n"
        "  --remove              delete it; the only thing that can be done with an\n"
        "                        inconsistent one\n"
        "  --clear               forget all that was recorded\n"
        "  --enable, --disable   record writes from now on, or do not\n"
        "  --merge SOURCE        add what the bitmap SOURCE has recorded\n"
        "  -b SOURCE_FILE        the image that has it (the same one); -F tells its format\n"
        "  -g GRANULARITY        with --add: bytes for each bit (the cluster size, at most 64k)\n"
        "  -f FMT                the format (default: found out from the file)\n"
        "Example:\n"
        "  evisor-img bitmap --add -g 64k disk.qcow2 backup0\n",
    .run = run,
};
