/* SPDX-License-Identifier: MIT */
/* img_create: evisor-img create: a new, empty image. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/img/img.h"
#include "tools/img/img_args.h"
#include "tools/img/img_image.h"
#include "tools/img/img_target.h"

struct arguments {
    const char *path_given, *path;
    const char *size_text;
    const char *format;
    const char *backing_path;
    const char *backing_format;
    struct img_options options;
    bool quiet;
    bool unsafe; /* -u: do not look at the backing file */
};

static const struct img_arg args[] = {
    IMG_TEXT('F', NULL, backing_format), IMG_TEXT('b', NULL, backing_path),
    IMG_TEXT('f', NULL, format),         IMG_OPTIONS('o', NULL, options),
    IMG_SWITCH('q', NULL, quiet),        IMG_SWITCH('u', NULL, unsafe),
    IMG_TEXT(0, "size", size_text),
};
static const struct img_syntax syntax = {args, ARRAY_SIZE(args), 0, SIZE_MAX, NULL};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    struct img_names names;
    int status = img_parse(argc, argv, &syntax, arguments, &names);
    if (!status && names.count)
        arguments->path = names.list[0];
    if (status || img_options_wants_help(&arguments->options))
        return status;
    if (!names.count)
        return img_usage("Expecting image file name");
    arguments->path_given = names.list[0];
    if (names.count > 1 && arguments->size_text)
        return img_error("The image size must be specified only once");
    if (names.count > 1)
        arguments->size_text = names.list[1];
    if (names.count > 2)
        return img_usage("Unexpected argument: %s", names.list[2]);
    struct error err = {0};
    arguments->path = img_image_new_path(arguments->path_given, &err);
    return arguments->path ? 0 : img_error("%s: %s", arguments->path_given, err.text);
}

static const char *begun_path;
static bool is_begun_new;

/* Preallocation may take long. There is nothing to save, so it ends at once. */
static void on_signal(int number)
{
    img_target_abandon(begun_path, is_begun_new);
    raise(number); /* the handler is gone by now */
}

static void abandon_on_signal(const char *path)
{
    const struct sigaction action = {.sa_handler = on_signal,
                                     .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};
    begun_path = path;
    is_begun_new = access(path, F_OK);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

static int create(struct loop *loop, const struct arguments *arguments, struct img_target *target)
{
    struct error err = {0};
    target->path = arguments->path;
    target->given_path = arguments->path_given;
    target->format = arguments->format;
    if (img_target_check_format(target, &err))
        return img_error("%s: %s", arguments->path_given, err.text);
    if (arguments->size_text && img_parse_image_size(arguments->size_text, &target->size_bytes))
        return 1;
    target->has_size = arguments->size_text;
    if (img_target_parse(target, &arguments->options, &err) ||
        img_target_set_backing(target, arguments->backing_path, arguments->backing_format, &err) ||
        img_target_settle(loop, target, !arguments->unsafe, &err))
        return img_error("%s: %s", arguments->path_given, err.text);
    if (!arguments->quiet)
        img_target_print(target);
    abandon_on_signal(arguments->path);
    if (img_target_create(loop, target, &err))
        return img_error("%s: %s", arguments->path_given, err.text);
    return 0;
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {.format = "raw"};
    struct img_target target;
    int status = parse(&arguments, argc, argv);
    if (!status && img_options_wants_help(&arguments.options)) {
        status = img_target_print_options(arguments.format, arguments.path);
    } else if (!status) {
        img_target_init(&target);
        status = create(loop, &arguments, &target);
        img_target_fini(&target);
    }
    img_options_free(&arguments.options);
    return status;
}

const struct img_command img_create_command = {
    .name = "create",
    .synopsis = "[-q] [-f FMT] [-b BACKING_FILE -F BACKING_FMT [-u]] [-o OPTIONS] FILENAME\n"
                "          [SIZE | --size SIZE]",
    .help = "Makes an empty image. SIZE may be left out if there is a backing file.\n"
            "  -f FMT            raw (the default), qcow2, vmdk, vdi, vpc or vhdx\n"
            "  -b FILE -F FMT    start from the contents of FILE, which stays as it is\n"
            "  -u                do not open the backing file\n"
            "  --size SIZE       the same as SIZE behind the name\n"
            "  -o KEY=VALUE,...  options of the format; '-o help' lists them\n"
            "  -q                do not say what is made\n"
            "Examples:\n"
            "  evisor-img create -f qcow2 disk.qcow2 10G\n"
            "  evisor-img create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n"
            "  evisor-img create -f qcow2 -o preallocation=metadata,cluster_size=128k d.qcow2 1T\n",
    .run = run,
};
