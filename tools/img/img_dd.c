/* SPDX-License-Identifier: MIT */
/* img_dd: evisor-img dd: copies blocks of one image into a new one. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tools/img/img_args.h"
#include "tools/img/img_image.h"
#include "tools/img/img_progress.h"
#include "tools/img/img_source.h"
#include "tools/img/img_target.h"

#define CHUNK_BYTES (1 * MIB)

struct arguments {
    struct img_image input;
    const char *input_given, *output_given, *output, *output_format;
    uint64_t block_bytes, count, skip;
    bool has_count;
};

static int parse_block_size(const char *text, uint64_t *out)
{
    if (img_parse_size(text, 1, out) || !*out || *out > INT32_MAX)
        return img_error("Invalid bs specified. Must be between 1 and %d.", INT32_MAX);
    return 0;
}

static int parse_operand(struct arguments *arguments, char *operand)
{
    char *value = strchr(operand, '=');
    if (!value)
        return img_error("unrecognized operand %s", operand);
    *value++ = '\0';
    if (!strcmp(operand, "if"))
        arguments->input_given = value;
    else if (!strcmp(operand, "of"))
        arguments->output_given = value;
    else if (!strcmp(operand, "bs"))
        return parse_block_size(value, &arguments->block_bytes);
    else if (!strcmp(operand, "skip"))
        return img_parse_named_size(value, "skip", &arguments->skip) ? 1 : 0;
    else if (!strcmp(operand, "count")) {
        arguments->has_count = true;
        return img_parse_named_size(value, "count", &arguments->count) ? 1 : 0;
    } else
        return img_error("unrecognized operand %s", operand);
    return 0;
}

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", input.is_options),
    IMG_TEXT('f', NULL, input.format),
    IMG_TEXT('O', NULL, output_format),
    IMG_SWITCH('U', "force-share", input.no_lock),
};
static const struct img_syntax syntax = {args, ARRAY_SIZE(args), 0, SIZE_MAX, NULL};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    struct img_names names;
    int status = img_parse(argc, argv, &syntax, arguments, &names);
    for (size_t i = 0; !status && i < names.count; i++)
        status = parse_operand(arguments, names.list[i]);
    if (status)
        return status;
    if (!arguments->input_given || !arguments->output_given)
        return img_error("Must specify both input and output files");
    struct error err = {0};
    arguments->output = img_image_new_path(arguments->output_given, &err);
    if (!arguments->output)
        return img_error("%s: %s", arguments->output_given, err.text);
    return img_image_take(arguments->input_given, &arguments->input);
}

/* The part of the input that is copied. Blocks are counted from the start of the input, those that
 * are left out among them, as qemu-img 7.2 does. */
static uint64_t range(const struct arguments *arguments, uint64_t size, uint64_t *start)
{
    uint64_t bs = arguments->block_bytes;
    uint64_t end =
        arguments->has_count && arguments->count <= size / bs ? arguments->count * bs : size;
    *start = arguments->skip <= end / bs ? arguments->skip * bs : end;
    if (arguments->skip > end / bs)
        img_error("%s: cannot skip to specified offset", arguments->input.path);
    return end - *start;
}

static int transfer(struct disk *disk, enum disk_op op, uint64_t offset, void *data, uint64_t bytes)
{
    struct iovec iov = {data, bytes};
    struct disk_request request = {
        .op = op, .offset = offset, .bytes = bytes, .iov = &iov, .iov_count = 1};
    return disk_run(disk, &request);
}

static int copy(const struct arguments *arguments, struct disk *from, struct disk *to,
                uint64_t start, uint64_t bytes)
{
    uint8_t *data = malloc(CHUNK_BYTES);
    int result = data ? 0 : -ENOMEM;
    for (uint64_t done = 0; done < bytes && !result; done += CHUNK_BYTES) {
        if (img_progress_is_cancelled(NULL)) {
            result = -EINTR;
            break;
        }
        uint64_t chunk = MIN(bytes - done, CHUNK_BYTES);
        result = transfer(from, DISK_READ, start + done, data, chunk);
        if (!result)
            result = transfer(to, DISK_WRITE, done, data, chunk);
    }
    free(data);
    if (result)
        return img_error("error while copying %s to %s: %s", arguments->input.path,
                         arguments->output, strerror(-result));
    return 0;
}

static int create_output(struct loop *loop, const struct arguments *arguments, uint64_t bytes)
{
    const struct img_options none = {0};
    struct img_target target;
    struct error err = {0};
    img_target_init(&target);
    target.path = arguments->output;
    target.format = arguments->output_format;
    target.size_bytes = bytes;
    target.has_size = true;
    int result = img_target_check_format(&target, &err);
    if (!result)
        result = img_target_parse(&target, &none, &err);
    if (!result)
        result = img_target_create(loop, &target, &err);
    img_target_fini(&target);
    return result
               ? img_error("%s: error while creating output image: %s", arguments->output, err.text)
               : 0;
}

static int write_output(struct loop *loop, const struct arguments *arguments, struct disk *from)
{
    uint64_t start, bytes = range(arguments, disk_size_bytes(from), &start);
    struct img_source output;
    bool is_new = access(arguments->output, F_OK);
    img_progress_start(false); /* before there is anything to clean up */
    if (create_output(loop, arguments, bytes))
        return 1;
    const struct img_source_options options = {
        .path = arguments->output, .format = arguments->output_format, .writable = true};
    if (img_source_open(loop, &options, &output))
        return 1;
    int status = copy(arguments, from, output.disk, start, bytes);
    int result = img_source_close(&output);
    if (!status && result)
        status = img_error("Could not close '%s': %s", arguments->output, strerror(-result));
    if (status)
        img_target_abandon(arguments->output, is_new);
    return status;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {.output_format = "raw", .block_bytes = 512};
    struct img_source input;
    if (parse(&arguments, argc, argv))
        return 1;
    if (!img_format_is_native(arguments.output_format))
        return img_error("Unknown file format");
    const struct img_source_options options = {.path = arguments.input.path,
                                               .format = arguments.input.format,
                                               .no_lock = arguments.input.no_lock};
    if (img_source_open(loop, &options, &input))
        return 1;
    int status = write_output(loop, &arguments, input.disk);
    (void)!img_source_close(&input);
    return status;
}

const struct img_command img_dd_command = {
    .name = "dd",
    .synopsis =
        "[--image-opts] [-U] [-f FMT] [-O FMT] [bs=SIZE] [count=N] [skip=N] if=INPUT of=OUTPUT",
    .help = "Copies a range of one image into a new image.\n"
            "  -f FMT, -O FMT    formats of input (default: found out) and output (raw)\n"
            "  bs=SIZE           size of a block (512)\n"
            "  skip=N            leave out so many blocks at the start of the input\n"
            "  count=N           stop after so many blocks of the input, with those left out (at "
            "its end)\n"
            "  -U                read although another process uses the image\n"
            "Example:\n"
            "  evisor-img dd -O qcow2 bs=1M skip=1 count=100 if=disk.raw of=part.qcow2\n",
    .run = run,
};
