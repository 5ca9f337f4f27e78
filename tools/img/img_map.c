/* SPDX-License-Identifier: MIT */
/* img_map: evisor-img map: where the contents of an image are, in it and in the images below. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/img/img_image.h"
#include "tools/img/img_source.h"

struct arguments {
    struct img_image image;
    enum img_output output;
    uint64_t start, length;
};

static int on_start(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return img_parse_named_size(value, "start offset", &arguments->start) ? 1 : 0;
}

static int on_length(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    return img_parse_named_size(value, "max length", &arguments->length) ? 1 : 0;
}

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_TEXT('f', "format", image.format),
    IMG_OUTPUT("output", output),
    IMG_CALL('s', "start-offset", on_start),
    IMG_CALL('l', "max-length", on_length),
    IMG_SWITCH('U', "force-share", image.no_lock),
};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    return img_image_parse(argc, argv, args, ARRAY_SIZE(args), arguments, &arguments->image);
}

static bool is_data(const struct map_extent *extent)
{
    return extent->kind == MAP_DATA || extent->kind == MAP_COMPRESSED;
}

static void print_json(const struct map_extent *extent, bool is_first)
{
    bool zero = !is_data(extent);
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
           ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
           is_first ? "[" : ",\n", extent->offset, extent->bytes, extent->depth,
           extent->kind == MAP_ABSENT ? "false" : "true", zero ? "true" : "false",
           zero ? "false" : "true");
    if (extent->has_host)
        printf(", \"offset\": %" PRIu64, extent->host_offset);
    putchar('}');
}

static void print_hex(uint64_t value, int width)
{
    char text[24];
    snprintf(text, sizeof(text), value ? "0x%" PRIx64 : "0", value);
    printf("%-*s", width, text);
}

/* Only what can be found in a file at a place of its own. 1 if it is compressed there. */
static int print_human(const struct map_extent *extent)
{
    if (extent->kind == MAP_COMPRESSED)
        return img_error("File contains external, encrypted or compressed clusters.");
    if (extent->kind != MAP_DATA)
        return 0;
    print_hex(extent->offset, 16);
    print_hex(extent->bytes, 16);
    print_hex(extent->host_offset, 16);
    puts(extent->path);
    return 0;
}

static bool can_merge(const struct map_extent *last, const struct map_extent *next)
{
    return last->kind == next->kind && last->depth == next->depth &&
           last->has_host == next->has_host &&
           (!last->has_host || last->host_offset + last->bytes == next->host_offset);
}

struct printer {
    const struct arguments *arguments;
    struct map_extent last; /* not printed yet: the next one may continue it */
    bool has_last, printed_any;
};

static int flush(struct printer *printer)
{
    int status = 0;
    if (!printer->has_last)
        return 0;
    if (printer->arguments->output == IMG_OUTPUT_JSON)
        print_json(&printer->last, !printer->printed_any);
    else
        status = print_human(&printer->last);
    printer->printed_any = true;
    printer->has_last = false;
    return status;
}

static int add(struct printer *printer, const struct map_extent *extent)
{
    if (printer->has_last && can_merge(&printer->last, extent)) {
        printer->last.bytes += extent->bytes;
        return 0;
    }
    int status = flush(printer);
    printer->last = *extent;
    printer->has_last = true;
    return status;
}

static int print_map(const struct arguments *arguments, struct map *map)
{
    struct printer printer = {.arguments = arguments};
    struct error err = {0};
    uint64_t size = map_size_bytes(map);
    uint64_t end = size;
    if (arguments->length && arguments->start <= size)
        end = MIN(size, arguments->start + arguments->length);
    if (arguments->output == IMG_OUTPUT_HUMAN)
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    for (uint64_t at = arguments->start; at < end;) {
        struct map_extent extent;
        if (map_find(map, at, end, 0, &extent, &err))
            return img_error("%s", err.text);
        if (add(&printer, &extent))
            return 1;
        at += extent.bytes;
    }
    int status = flush(&printer);
    if (arguments->output == IMG_OUTPUT_JSON)
        puts(printer.printed_any ? "]" : "[]");
    return status;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {0};
    struct img_source source;
    if (parse(&arguments, argc, argv))
        return 1;
    const struct img_source_options options = {.path = arguments.image.path,
                                               .format = arguments.image.format,
                                               .no_lock = arguments.image.no_lock};
    if (img_source_open(loop, &options, &source))
        return 1;
    int status = print_map(&arguments, source.map);
    (void)!img_source_close(&source);
    return status;
}

const struct img_command img_map_command = {
    .name = "map",
    .synopsis =
        "[--image-opts] [-f FMT] [--output=human|json] [-s OFFSET] [-l LENGTH] [-U] FILENAME",
    .help = "Shows which parts of an image hold data, and where in which file.\n"
            "  -f FMT                  the format (default: found out from the file)\n"
            "  --output=json           everything, also zeroes and holes, for programs\n"
            "  -s, --start-offset N    from here\n"
            "  -l, --max-length N      so much\n"
            "  -U                      look although another process uses the image\n"
            "Example:\n"
            "  evisor-img map --output=json overlay.qcow2\n",
    .run = run,
};
