/* SPDX-License-Identifier: MIT */
/* img_measure: evisor-img measure: how large a new image would become. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_bitmaps.h"
#include "tools/img/img_args.h"
#include "tools/img/img_image.h"
#include "tools/img/img_source.h"
#include "tools/img/img_target.h"

struct arguments {
    struct img_image image;
    const char *target_format;
    const char *snapshot;
    struct img_options options;
    enum img_output output;
    uint64_t size_bytes;
    bool has_size;
};

struct measure {
    uint64_t required;
    uint64_t full;
    uint64_t bitmaps;
    bool has_bitmaps;
};

static int on_size(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    arguments->has_size = true;
    return img_parse_image_size(value, &arguments->size_bytes) ? 1 : 0;
}

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_TEXT('f', NULL, image.format),
    IMG_TEXT('O', NULL, target_format),
    IMG_OPTIONS('o', NULL, options),
    IMG_TEXT('l', NULL, snapshot),
    IMG_OUTPUT("output", output),
    IMG_CALL(0, "size", on_size),
    IMG_SWITCH('U', "force-share", image.no_lock),
};
static const struct img_syntax syntax = {args, ARRAY_SIZE(args), 0, SIZE_MAX, NULL};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    struct img_names names;
    int status = img_parse(argc, argv, &syntax, arguments, &names);
    if (status)
        return status;
    if (names.count > 1)
        return img_error("At most one filename argument is allowed.");
    bool is_named = names.count;
    if (!is_named &&
        (arguments->image.is_options || arguments->image.format || arguments->snapshot))
        return img_error("--image-opts, -f, and -l require a filename argument.");
    if (is_named && arguments->has_size)
        return img_error("--size N cannot be used together with a filename.");
    if (!is_named && !arguments->has_size)
        return img_error("Either --size N or one filename must be specified.");
    return is_named ? img_image_take(names.list[0], &arguments->image) : 0;
}

/* The data of the source, in whole clusters of the target. */
static int sum_data(struct map *map, uint64_t cluster_bytes, uint64_t *sum, struct error *err)
{
    uint64_t size = map_size_bytes(map), counted_to = 0;
    *sum = 0;
    for (uint64_t at = 0; at < size;) {
        struct map_extent extent;
        int result = map_find(map, at, size, 0, &extent, err);
        if (result)
            return result;
        uint64_t end = align_up(at + extent.bytes, cluster_bytes);
        uint64_t start = MAX(counted_to, align_down(at, cluster_bytes));
        if ((extent.kind == MAP_DATA || extent.kind == MAP_COMPRESSED) && end > start) {
            *sum += end - start;
            counted_to = end;
        }
        at += extent.bytes;
    }
    return 0;
}

/* What the source's persistent bitmaps would take in the target. */
static uint64_t sum_bitmaps(const struct qcow2_bitmaps *bitmaps, uint64_t size, uint64_t cluster)
{
    uint64_t directory = 0, sum = 0;
    for (size_t i = 0; i < bitmaps->count; i++) {
        uint64_t granularity = UINT64_C(1) << bitmaps->list[i].granularity_bits;
        uint64_t bits = size / granularity + (size % granularity != 0);
        uint64_t data = align_up((bits + 7) / 8, cluster);
        sum += data + align_up(data / cluster * 8, cluster);
        directory += align_up(QCOW2_BITMAP_FIXED_BYTES + strlen(bitmaps->list[i].name), 8);
    }
    return sum + align_up(directory, cluster);
}

static int measure_bitmaps(struct loop *loop, const char *path, uint64_t cluster_bytes,
                           struct measure *out)
{
    const struct img_file_options options = {.no_lock = true};
    struct qcow2_header header;
    struct qcow2_bitmaps bitmaps;
    struct error err = {0};
    struct io_file *file = img_open_file(loop, path, &options);
    if (!file)
        return 1;
    int result = qcow2_header_read(file, path, &header, &err);
    if (!result) {
        result = qcow2_bitmaps_read(file, &header, &bitmaps, &err);
        out->has_bitmaps = true;
        if (!result)
            out->bitmaps = sum_bitmaps(&bitmaps, header.size_bytes, cluster_bytes);
        if (!result)
            qcow2_bitmaps_free(&bitmaps);
        qcow2_header_fini(&header);
    }
    io_close_wait(file);
    return result ? img_error("%s", err.text) : 0;
}

static int measure_qcow2(struct loop *loop, const struct arguments *arguments,
                         const struct img_source *source, struct img_target *target,
                         struct measure *out)
{
    struct qcow2_create_options options;
    struct error err = {0};
    uint64_t metadata = 0, data = 0;
    int result = img_target_qcow2_options(target, &options, &err);
    if (!result)
        result = qcow2_create_measure(&options, &metadata, &err);
    if (!result && source)
        result = sum_data(source->map, options.cluster_bytes, &data, &err);
    if (result)
        return img_error("%s", err.text);
    out->full = metadata + align_up(options.size_bytes, options.cluster_bytes);
    out->required = metadata + data;
    if (options.preallocation == QCOW2_PREALLOC_FALLOC ||
        options.preallocation == QCOW2_PREALLOC_FULL)
        out->required = out->full;
    if (source && options.version >= 3 && !strcmp(source->format, "qcow2"))
        return measure_bitmaps(loop, arguments->image.path, options.cluster_bytes, out);
    return 0;
}

static void print(const struct arguments *arguments, const struct measure *measure)
{
    if (arguments->output == IMG_OUTPUT_HUMAN) {
        printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", measure->required,
               measure->full);
        if (measure->has_bitmaps)
            printf("bitmaps size: %" PRIu64 "\n", measure->bitmaps);
        return;
    }
    json_t *object = json_object();
    if (measure->has_bitmaps)
        json_object_set_new(object, "bitmaps", json_integer((json_int_t)measure->bitmaps));
    json_object_set_new(object, "required", json_integer((json_int_t)measure->required));
    json_object_set_new(object, "fully-allocated", json_integer((json_int_t)measure->full));
    json_dumpf(object, stdout, JSON_INDENT(4));
    putchar('\n');
    json_decref(object);
}

static int measure(struct loop *loop, const struct arguments *arguments,
                   const struct img_source *source, struct img_target *target)
{
    struct measure out = {0};
    struct error err = {0};
    target->path = "";
    target->format = arguments->target_format;
    if (img_target_check_format(target, &err) ||
        img_target_parse(target, &arguments->options, &err))
        return img_error("%s", err.text);
    if (!img_format_is_native(target->format))
        return img_error("Format driver '%s' does not support size measurement", target->format);
    target->size_bytes = source ? disk_size_bytes(source->disk) : arguments->size_bytes;
    if (!strcmp(target->format, "raw"))
        out.required = out.full = align_up(target->size_bytes, 512);
    else if (measure_qcow2(loop, arguments, source, target, &out))
        return 1;
    print(arguments, &out);
    return 0;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {.target_format = "raw"};
    struct img_source source = {0};
    struct img_target target;
    int status = parse(&arguments, argc, argv);
    if (!status && arguments.image.path) {
        const struct img_source_options options = {.path = arguments.image.path,
                                                   .format = arguments.image.format,
                                                   .no_lock = arguments.image.no_lock,
                                                   .snapshot = arguments.snapshot};
        status = img_source_open(loop, &options, &source);
    }
    if (!status) {
        img_target_init(&target);
        status = measure(loop, &arguments, arguments.image.path ? &source : NULL, &target);
        img_target_fini(&target);
    }
    (void)!img_source_close(&source);
    img_options_free(&arguments.options);
    return status;
}

const struct img_command img_measure_command = {
    .name = "measure",
    .synopsis = "[--output=human|json] [-O FMT] [-o OPTIONS]\n"
                "          [--size N | [--image-opts] [-f FMT] [-l SNAPSHOT] [-U] FILENAME]",
    .help = "Tells how large the file of a new image would be: with the contents of FILENAME, and\n"
            "when all of it is written.\n"
            "  -O FMT            format of the new image: raw (the default) or qcow2\n"
            "  -o KEY=VALUE,...  its options\n"
            "  --size N          a new, empty disk of this size\n"
            "  -f FMT            format of FILENAME (default: found out from the file)\n"
            "  -l SNAPSHOT       the disk as an internal snapshot of FILENAME has it\n"
            "  --output=json     for programs\n"
            "Example:\n"
            "  evisor-img measure -O qcow2 disk.raw\n",
    .run = run,
};
