/* SPDX-License-Identifier: MIT */
/* img_check: evisor-img check: is an image consistent; exit 0 clean, 2 corrupt, 3 leaks only. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "disk/foreign/foreign_check.h"
#include "disk/qcow2/qcow2_check.h"
#include "tools/img/img.h"
#include "tools/img/img_image.h"
#include "tools/img/img_source.h"

enum {
    STATUS_FAILED = 1,
    STATUS_CORRUPT = 2,
    STATUS_LEAKS = 3,
    STATUS_UNSUPPORTED = 63,
};

struct arguments {
    struct img_image image;
    enum img_output output;
    enum qcow2_repair repair;
    const char *cache; /* how the host caches reads makes no difference here */
    bool quiet;
};

static int on_repair(void *opaque, const char *value)
{
    struct arguments *arguments = opaque;
    arguments->image.writable = true;
    if (!strcmp(value, "leaks"))
        arguments->repair = QCOW2_REPAIR_LEAKS;
    else if (!strcmp(value, "all"))
        arguments->repair = QCOW2_REPAIR_ALL;
    else
        return img_usage("Unknown option value for -r (expecting 'leaks' or 'all'): %s", value);
    return 0;
}

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_TEXT('f', "format", image.format),
    IMG_CALL('r', "repair", on_repair),
    IMG_OUTPUT("output", output),
    IMG_TEXT('T', NULL, cache),
    IMG_SWITCH('q', NULL, quiet),
    IMG_SWITCH('U', "force-share", image.no_lock),
};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    int status = img_image_parse(argc, argv, args, ARRAY_SIZE(args), arguments, &arguments->image);
    return status ? status : img_check_caches(NULL, arguments->cache);
}

static void on_message(void *opaque, const char *line)
{
    const struct arguments *arguments = opaque;
    if (!arguments->quiet)
        fprintf(stderr, "%s\n", line);
}

/* --- output --- */

static void print_human(const struct qcow2_check_result *r)
{
    if (!r->corruptions && !r->leaks && !r->check_errors)
        puts("No errors were found on the image.");
    if (r->corruptions)
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               r->corruptions);
    if (r->leaks)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               r->leaks);
    if (r->check_errors)
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n", r->check_errors);
    if (r->total_clusters && r->allocated_clusters)
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
               "%0.2f%% compressed clusters\n",
               r->allocated_clusters, r->total_clusters,
               (double)r->allocated_clusters * 100.0 / (double)r->total_clusters,
               (double)r->fragmented_clusters * 100.0 / (double)r->allocated_clusters,
               (double)r->compressed_clusters * 100.0 / (double)r->allocated_clusters);
    if (r->image_end_offset)
        printf("Image end offset: %" PRIu64 "\n", r->image_end_offset);
}

static void set_if(json_t *object, const char *key, uint64_t value)
{
    if (value)
        json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void print_json(const struct arguments *arguments, const struct qcow2_check_result *r,
                       const char *format)
{
    json_t *object = json_object();
    set_if(object, "image-end-offset", r->image_end_offset);
    set_if(object, "total-clusters", r->total_clusters);
    set_if(object, "corruptions", r->corruptions);
    set_if(object, "corruptions-fixed", r->corruptions_fixed);
    set_if(object, "leaks", r->leaks);
    set_if(object, "leaks-fixed", r->leaks_fixed);
    json_object_set_new(object, "check-errors", json_integer((json_int_t)r->check_errors));
    set_if(object, "allocated-clusters", r->allocated_clusters);
    set_if(object, "fragmented-clusters", r->fragmented_clusters);
    set_if(object, "compressed-clusters", r->compressed_clusters);
    json_object_set_new(object, "filename", json_string(arguments->image.path));
    json_object_set_new(object, "format", json_string(format));
    json_dumpf(object, stdout, JSON_INDENT(4));
    putchar('\n');
    json_decref(object);
}

static void print_repairs(const struct qcow2_check_result *r)
{
    printf("The following inconsistencies were found and repaired:\n\n"
           "    %" PRIu64 " leaked clusters\n"
           "    %" PRIu64 " corruptions\n\n"
           "Double checking the fixed image now...\n",
           r->leaks_fixed, r->corruptions_fixed);
}

/* --- work --- */

static int check(struct io_file *file, struct arguments *arguments,
                 struct qcow2_check_result *result, struct error *err)
{
    struct qcow2_check_options options = {
        .repair = arguments->repair, .on_message = on_message, .opaque = arguments};
    int failed = qcow2_check(file, arguments->image.path, &options, result, err);
    if (failed || (!result->corruptions_fixed && !result->leaks_fixed))
        return failed;
    struct qcow2_check_result repaired = *result;
    if (arguments->output == IMG_OUTPUT_HUMAN && !arguments->quiet)
        print_repairs(result);
    options.repair = QCOW2_REPAIR_NONE;
    failed = qcow2_check(file, arguments->image.path, &options, result, err);
    result->corruptions_fixed = repaired.corruptions_fixed;
    result->leaks_fixed = repaired.leaks_fixed;
    return failed;
}

static int report(const struct arguments *arguments, const struct qcow2_check_result *result,
                  const char *format)
{
    if (arguments->output == IMG_OUTPUT_JSON)
        print_json(arguments, result, format);
    else if (!arguments->quiet)
        print_human(result);
    if (result->check_errors)
        return img_error("Check failed");
    if (result->corruptions)
        return STATUS_CORRUPT;
    return result->leaks ? STATUS_LEAKS : 0;
}

static int check_foreign(struct io_file *file, struct arguments *arguments, const char *format)
{
    struct qcow2_check_result result = {0};
    struct foreign_check_result found;
    struct error err = {0};
    if (arguments->repair != QCOW2_REPAIR_NONE) {
        img_error("%s images are only read: convert it, then check and repair the copy", format);
        return STATUS_UNSUPPORTED;
    }
    const struct foreign_check_options options = {.path = arguments->image.path,
                                                  .format = format,
                                                  .no_lock = arguments->image.no_lock,
                                                  .on_message = on_message,
                                                  .opaque = arguments};
    if (foreign_check(file, &options, &found, &err))
        return img_error("Check failed: %s", err.text);
    result.corruptions = found.corruptions;
    return report(arguments, &result, format);
}

static int check_file(struct io_file *file, struct arguments *arguments)
{
    struct qcow2_check_result result;
    struct error err = {0};
    const char *format;
    if (img_find_format(file, arguments->image.path, arguments->image.format, &format))
        return STATUS_FAILED;
    if (!strcmp(format, "raw")) {
        img_error("This image format does not support checks");
        return STATUS_UNSUPPORTED;
    }
    if (!img_format_is_native(format))
        return check_foreign(file, arguments, format);
    if (check(file, arguments, &result, &err))
        return img_error(strncmp(err.text, "Could not open", 14) ? "Check failed: %s" : "%s",
                         err.text);
    return report(arguments, &result, format);
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {0};
    if (parse(&arguments, argc, argv))
        return STATUS_FAILED;
    const struct img_file_options options = {.writable = arguments.repair != QCOW2_REPAIR_NONE,
                                             .no_lock = arguments.image.no_lock};
    struct io_file *file = img_open_file(loop, arguments.image.path, &options);
    if (!file)
        return STATUS_FAILED;
    int status = check_file(file, &arguments);
    io_close_wait(file);
    return status;
}

const struct img_command img_check_command = {
    .name = "check",
    .synopsis =
        "[--image-opts] [-q] [-f FMT] [--output=human|json] [-r leaks|all] [-T CACHE] [-U]\n"
        "          FILENAME",
    .help = "Checks a qcow2 image for lost and doubly used clusters, and the tables of VDI, VMDK,\n"
            "VHD and VHDX images.\n"
            "  -f FMT          the format (default: found out from the file)\n"
            "  -r leaks        give lost space back\n"
            "  -r all          repair everything that can be repaired; make a copy first\n"
            "  --output=json   the result for programs\n"
            "  -q              no output but the exit status\n"
            "  -U              look although another process uses the image\n"
            "Exit status: 0 clean, 1 the check could not be done, 2 corrupt, 3 leaks only,\n"
            "63 the format has no checks.\n"
            "Examples:\n"
            "  evisor-img check disk.qcow2\n"
            "  evisor-img check -r all disk.qcow2\n",
    .run = run,
};
