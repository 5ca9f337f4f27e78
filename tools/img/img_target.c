/* SPDX-License-Identifier: MIT */
/*
 * img_target: from option lists to a new image file. A table names the options of each format with
 * their types; they are printed in the table's order, which is qemu-img's.
 */
#include "tools/img/img_target.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/lock.h"
#include "disk/probe.h"
#include "disk/qcow2/qcow2_header.h"

enum value_type {
    VALUE_TEXT,
    VALUE_SWITCH,
    VALUE_SIZE,
    VALUE_NUMBER,
};

struct option_type {
    const char *name;
    enum value_type type;
    const char *initial; /* printed if nothing is given; NULL for not printed */
    const char *help;
};

static const struct option_type qcow2_options[] = {
    {"encryption", VALUE_SWITCH, NULL, "off; evisor does not encrypt images"},
    {"cluster_size", VALUE_SIZE, "65536", "qcow2 cluster size"},
    {"extended_l2", VALUE_SWITCH, "off", "Extended L2 tables"},
    {"preallocation", VALUE_TEXT, NULL,
     "Preallocation mode (allowed values: off, metadata, falloc, full)"},
    {"compression_type", VALUE_TEXT, "zlib",
     "Compression method used for image cluster compression"},
    {"size", VALUE_SIZE, NULL, "Virtual disk size"},
    {"compat", VALUE_TEXT, NULL, "Compatibility level (v2 [0.10] or v3 [1.1])"},
    {"data_file", VALUE_TEXT, NULL, "File name of an external data file"},
    {"data_file_raw", VALUE_SWITCH, NULL, "The external data file must stay valid as a raw image"},
    {"backing_file", VALUE_TEXT, NULL, "File name of a base image"},
    {"backing_fmt", VALUE_TEXT, NULL, "Image format of the base image"},
    {"lazy_refcounts", VALUE_SWITCH, "off", "Postpone refcount updates"},
    {"refcount_bits", VALUE_NUMBER, "16", "Width of a reference count entry in bits"},
    {"nocow", VALUE_SWITCH, NULL, "Turn off copy-on-write (valid only on btrfs)"},
    {"extent_size_hint", VALUE_SIZE, NULL, "Extent size hint for the image file, 0 to disable"},
};

static const struct option_type raw_options[] = {
    {"size", VALUE_SIZE, NULL, "Virtual disk size"},
    {"preallocation", VALUE_TEXT, NULL, "Preallocation mode (allowed values: off, falloc, full)"},
    {"nocow", VALUE_SWITCH, NULL, "Turn off copy-on-write (valid only on btrfs)"},
    {"extent_size_hint", VALUE_SIZE, NULL, "Extent size hint for the image file, 0 to disable"},
};

static const struct option_type vmdk_options[] = {
    {"size", VALUE_SIZE, NULL, "Virtual disk size"},
    {"subformat", VALUE_TEXT, NULL,
     "VMDK kind, can be one of {monolithicSparse (default) | streamOptimized}"},
};

/* vpc and vhdx. */
static const struct option_type vhd_options[] = {
    {"size", VALUE_SIZE, NULL, "Virtual disk size"},
    {"subformat", VALUE_TEXT, NULL, "Type of virtual hard disk: dynamic (the default)"},
};

static const struct option_type vdi_options[] = {
    {"size", VALUE_SIZE, NULL, "Virtual disk size"},
};

struct option_table {
    const struct option_type *types;
    size_t count;
};

static struct option_table table_of(const char *format)
{
    if (!strcmp(format, "qcow2"))
        return (struct option_table){qcow2_options, ARRAY_SIZE(qcow2_options)};
    if (!strcmp(format, "vmdk"))
        return (struct option_table){vmdk_options, ARRAY_SIZE(vmdk_options)};
    if (!strcmp(format, "vpc") || !strcmp(format, "vhdx"))
        return (struct option_table){vhd_options, ARRAY_SIZE(vhd_options)};
    if (!strcmp(format, "vdi"))
        return (struct option_table){vdi_options, ARRAY_SIZE(vdi_options)};
    return (struct option_table){raw_options, ARRAY_SIZE(raw_options)};
}

static const struct option_type *find_type(const char *format, const char *name)
{
    struct option_table table = table_of(format);
    for (size_t i = 0; i < table.count; i++)
        if (!strcmp(table.types[i].name, name))
            return &table.types[i];
    return NULL;
}

void img_target_init(struct img_target *target)
{
    memset(target, 0, sizeof(*target));
    qcow2_create_defaults(&target->qcow2);
}

void img_target_fini(struct img_target *target)
{
    img_options_free(&target->given);
    free(target->backing_path);
    free(target->backing_format);
    free(target->data_file_name);
}

int img_target_check_format(const struct img_target *target, struct error *err)
{
    if (!img_format_is_writable(target->format))
        return error_set(err, EINVAL, "Unknown file format '%s'", target->format);
    return 0;
}

/* --- values --- */

static int parse_switch(const char *name, const char *value, bool *out, struct error *err)
{
    if (!strcmp(value, "on") || !strcmp(value, "off")) {
        *out = !strcmp(value, "on");
        return 0;
    }
    return error_set(err, EINVAL, "Parameter '%s' expects 'on' or 'off'", name);
}

static int parse_number(const struct option_type *type, const char *value, uint64_t *out,
                        struct error *err)
{
    if (type->type == VALUE_SIZE) {
        int result = img_parse_size(value, 1, out);
        if (result)
            return error_set(err, EINVAL, "Parameter '%s' %s", type->name, img_size_hint);
        return 0;
    }
    char *end;
    errno = 0;
    *out = strtoull(value, &end, 0);
    if (errno || *end || end == value) /* -1 is a number, too, and too large for anything */
        return error_set(err, EINVAL, "Parameter '%s' expects a number", type->name);
    return 0;
}

static int refuse_value(const char *name, const char *value, struct error *err)
{
    return error_set(err, EINVAL, "Parameter '%s' does not accept value '%s'", name, value);
}

static void store_number(struct img_target *target, const char *name, uint64_t number)
{
    if (!strcmp(name, "cluster_size"))
        target->qcow2.cluster_bytes = number;
    else if (!strcmp(name, "refcount_bits"))
        target->qcow2.refcount_width = number;
    else if (!strcmp(name, "size"))
        target->size_bytes = number;
}

static void store_switch(struct img_target *target, const char *name, bool on)
{
    if (!strcmp(name, "extended_l2"))
        target->qcow2.extended_l2 = on;
    else if (!strcmp(name, "lazy_refcounts"))
        target->qcow2.lazy_refcounts = on;
    else if (!strcmp(name, "data_file_raw"))
        target->qcow2.data_file_raw = on;
}

static int parse_given(struct img_target *target, const struct img_option *option,
                       struct error *err)
{
    const struct option_type *type = find_type(target->format, option->key);
    uint64_t number;
    bool on = false;
    int result;
    if (!strcmp(option->key, "encryption") && !strcmp(option->value, "off"))
        return 0;
    if (!strncmp(option->key, "encrypt", 7))
        return error_set(err, ENOTSUP,
                         "'%s': images are not encrypted by evisor; encrypt the host's disk or the "
                         "guest's file system instead",
                         option->key);
    if (!type)
        return error_set(err, EINVAL, "Invalid parameter '%s'", option->key);
    switch (type->type) {
    case VALUE_SWITCH:
        result = parse_switch(type->name, option->value, &on, err);
        if (!result)
            store_switch(target, type->name, on);
        return result;
    case VALUE_SIZE:
    case VALUE_NUMBER:
        result = parse_number(type, option->value, &number, err);
        if (!result)
            store_number(target, type->name, number);
        return result;
    case VALUE_TEXT:
        return 0;
    }
    return 0;
}

static char *copy_option(const struct img_options *options, const char *key)
{
    const char *value = img_options_get(options, key);
    return value ? strdup(value) : NULL;
}

static int keep_options(struct img_target *target, const struct img_options *options)
{
    target->given.list = calloc(options->count + 1, sizeof(*target->given.list));
    if (!target->given.list)
        return -ENOMEM;
    for (size_t i = 0; i < options->count; i++) {
        struct img_option *copy = &target->given.list[target->given.count++];
        copy->key = strdup(options->list[i].key);
        copy->value = strdup(options->list[i].value);
        if (!copy->key || !copy->value)
            return -ENOMEM;
    }
    return 0;
}

int img_target_parse(struct img_target *target, const struct img_options *options,
                     struct error *err)
{
    bool had_size = target->has_size;
    uint64_t size_bytes = target->size_bytes;
    for (size_t i = 0; i < options->count; i++) {
        int result = parse_given(target, &options->list[i], err);
        if (result)
            return result;
    }
    if (had_size && img_options_get(options, "size"))
        return error_set(err, EINVAL, "The image size must be specified only once");
    if (had_size)
        target->size_bytes = size_bytes;
    target->has_size = had_size || img_options_get(options, "size");
    target->backing_path = copy_option(options, "backing_file");
    target->backing_format = copy_option(options, "backing_fmt");
    target->data_file_name = copy_option(options, "data_file");
    if (keep_options(target, options))
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

/* A file that is emptied to become a part of the image cannot be what is below it. */
static int check_backing_stays(const struct img_target *target, struct error *err)
{
    const char *data_file = target->data_file_name;
    char *backing = disk_backing_path(target->path, target->backing_path);
    int result = 0;
    if (!backing)
        result = error_set(err, ENOMEM, "out of memory");
    else if (!strcmp(target->backing_path, target->path) || io_is_same_file(backing, target->path))
        result = error_set(
            err, EINVAL,
            "Error: Trying to create an image with the same filename as the backing file");
    else if (data_file && io_is_same_file(backing, data_file))
        result = error_set(err, EINVAL,
                           "Error: Trying to make the backing file '%s' the data file of the image",
                           data_file);
    free(backing);
    return result;
}

int img_target_set_backing(struct img_target *target, const char *path, const char *format,
                           struct error *err)
{
    if ((path || format) && strcmp(target->format, "qcow2"))
        return error_set(err, ENOTSUP, "Backing file not supported for file format '%s'",
                         target->format);
    if (path) {
        free(target->backing_path);
        target->backing_path = strdup(path);
    }
    if (format) {
        free(target->backing_format);
        target->backing_format = strdup(format);
    }
    if (target->backing_path && !*target->backing_path)
        return error_set(err, EINVAL, "Expected backing file name, got empty string");
    return target->backing_path ? check_backing_stays(target, err) : 0;
}

/* --- the backing file --- */

static int measure_foreign(struct loop *loop, const char *path, const char *format,
                           uint64_t *size_bytes, struct error *err)
{
    const struct disk_options options = {
        .path = path, .format = format, .read_only = true, .no_lock = true};
    struct disk *disk;
    int result = disk_open(loop, &options, &disk, err);
    if (result)
        return result;
    *size_bytes = disk_size_bytes(disk);
    return disk_close_wait(disk);
}

static int measure_backing(struct io_file *file, const char *path, const char *format,
                           uint64_t *size_bytes, struct error *err)
{
    struct qcow2_header header;
    if (!strcmp(format, "raw")) {
        int result = io_length(file, size_bytes);
        *size_bytes = align_up(*size_bytes, 512);
        return result ? error_set_errno(err, -result, "Could not measure '%s'", path) : 0;
    }
    int result = qcow2_header_read(file, path, &header, err);
    if (result)
        return result;
    *size_bytes = header.size_bytes;
    qcow2_header_fini(&header);
    return 0;
}

static int look_at_backing(struct io_file *file, const struct img_target *target, const char *path,
                           uint64_t *size_bytes, struct error *err)
{
    const char *looks_like;
    if (!target->backing_format) {
        int result = probe_format(file, path, &looks_like, err);
        if (result)
            return result;
        return error_set(err, EINVAL,
                         "Backing file specified without backing format\n"
                         "Detected format of %s. (Say -F %s if that is right.)",
                         looks_like, looks_like);
    }
    if (!img_format_is_known(target->backing_format))
        return error_set(err, EINVAL, "Unknown driver '%s'\nCould not open backing image.",
                         target->backing_format);
    int result = lock_image(file, path, true, err);
    if (result)
        return result;
    if (!img_format_is_native(target->backing_format))
        return measure_foreign(file->loop, path, target->backing_format, size_bytes, err);
    return measure_backing(file, path, target->backing_format, size_bytes, err);
}

static int open_backing(struct loop *loop, const struct img_target *target, uint64_t *size_bytes,
                        struct error *err)
{
    const struct io_options io = {.read_only = true, .aio = DISK_AIO_THREADS};
    struct error why = {0};
    struct io_file *file;
    char *path = disk_backing_path(target->path, target->backing_path);
    if (!path)
        return error_set(err, ENOMEM, "out of memory");
    int result = io_open(loop, path, &io, &file, &why);
    if (result) {
        error_set(err, -result, "Could not open '%s': %s\nCould not open backing image.", path,
                  strerror(-result));
    } else {
        result = look_at_backing(file, target, path, size_bytes, err);
        io_close_wait(file);
    }
    free(path);
    return result;
}

int img_target_settle(struct loop *loop, struct img_target *target, bool open_it, struct error *err)
{
    uint64_t backing_bytes = 0;
    if (target->backing_path && open_it) {
        int result = open_backing(loop, target, &backing_bytes, err);
        if (result)
            return result;
        if (!target->has_size)
            target->size_bytes = backing_bytes;
        target->has_size = true;
    } else if (target->backing_path && !target->backing_format) {
        return error_set(err, EINVAL, "Backing file specified without backing format");
    }
    if (!target->has_size)
        return error_set(err, EINVAL, "Image creation needs a size parameter");
    return 0;
}

/* --- printing --- */

static void print_text(const char *value)
{
    for (; *value; value++) {
        if (*value == ',')
            putchar(',');
        putchar(*value);
    }
}

static void print_value(const struct img_target *target, const struct option_type *type)
{
    const char *given = img_options_get(&target->given, type->name);
    uint64_t number;
    if (!strcmp(type->name, "size")) {
        printf(" size=%" PRIu64, target->size_bytes);
        return;
    }
    if (!strcmp(type->name, "backing_file"))
        given = target->backing_path;
    if (!strcmp(type->name, "backing_fmt"))
        given = target->backing_format;
    if (!given)
        given = type->initial;
    if (!given)
        return;
    printf(" %s=", type->name);
    if ((type->type == VALUE_SIZE || type->type == VALUE_NUMBER) && *given != '-' &&
        !parse_number(type, given, &number, NULL))
        printf("%" PRIu64, number);
    else
        print_text(given);
}

void img_target_print(const struct img_target *target)
{
    struct option_table table = table_of(target->format);
    printf("Formatting '%s', fmt=%s", target->given_path ? target->given_path : target->path,
           target->format);
    for (size_t i = 0; i < table.count; i++)
        print_value(target, &table.types[i]);
    putchar('\n');
    fflush(stdout);
}

static int compare_types(const void *a, const void *b)
{
    const struct option_type *const *first = a, *const *second = b;
    return strcmp((*first)->name, (*second)->name);
}

/* What a person may use: what is only taken off hands stays unsaid. In qemu-img's layout. */
static void print_types(const struct option_table *table, bool is_for_file)
{
    static const char *const type_names[] = {"str", "bool (on/off)", "size", "num"};
    const struct option_type *sorted[ARRAY_SIZE(qcow2_options)];
    for (size_t i = 0; i < table->count; i++)
        sorted[i] = &table->types[i];
    qsort(sorted, table->count, sizeof(sorted[0]), compare_types);
    for (size_t i = 0; i < table->count; i++) {
        char name[64];
        bool is_hint =
            !strcmp(sorted[i]->name, "nocow") || !strcmp(sorted[i]->name, "extent_size_hint");
        if (!strncmp(sorted[i]->name, "encrypt", 7) || (is_hint && !is_for_file))
            continue;
        snprintf(name, sizeof(name), "%s=<%s>", sorted[i]->name, type_names[sorted[i]->type]);
        printf("  %-22s - %s\n", name, sorted[i]->help);
    }
}

int img_target_print_options(const char *format, bool is_for_file)
{
    if (!img_format_is_known(format))
        return img_error("Unknown file format '%s'", format);
    struct option_table table = table_of(format);
    if (is_for_file)
        puts("Supported options:");
    else
        printf("Supported %s options:\n", format);
    print_types(&table, is_for_file);
    if (!is_for_file)
        puts("\nThe protocol level may support further options.\n"
             "Specify the target filename to include those options.");
    return 0;
}

/* --- creating --- */

static const char *const preallocations[] = {
    [QCOW2_PREALLOC_OFF] = "off",
    [QCOW2_PREALLOC_METADATA] = "metadata",
    [QCOW2_PREALLOC_FALLOC] = "falloc",
    [QCOW2_PREALLOC_FULL] = "full",
};

static int find_preallocation(const struct img_target *target, enum qcow2_preallocation *mode,
                              struct error *err)
{
    const char *given = img_options_get(&target->given, "preallocation");
    *mode = QCOW2_PREALLOC_OFF;
    for (size_t i = 0; given && i < ARRAY_SIZE(preallocations); i++)
        if (!strcmp(preallocations[i], given)) {
            *mode = (enum qcow2_preallocation)i;
            return 0;
        }
    return given ? refuse_value("preallocation", given, err) : 0;
}

static int find_compat(const char *given, uint32_t *version, struct error *err)
{
    if (!given || !strcmp(given, "1.1") || !strcmp(given, "v3"))
        *version = 3;
    else if (!strcmp(given, "0.10") || !strcmp(given, "v2"))
        *version = 2;
    else
        return refuse_value("version", given, err);
    return 0;
}

static int find_compression(const char *given, enum qcow2_compression *type, struct error *err)
{
    if (!given || !strcmp(given, "zlib"))
        *type = QCOW2_COMPRESSION_ZLIB;
    else if (!strcmp(given, "zstd"))
        *type = QCOW2_COMPRESSION_ZSTD;
    else
        return refuse_value("compression-type", given, err);
    return 0;
}

int img_target_qcow2_options(const struct img_target *target, struct qcow2_create_options *options,
                             struct error *err)
{
    *options = target->qcow2;
    options->size_bytes = target->size_bytes;
    options->backing_path = target->backing_path;
    options->backing_format = target->backing_format;
    options->data_file_name = target->data_file_name;
    int result = find_compat(img_options_get(&target->given, "compat"), &options->version, err);
    if (!result)
        result = find_compression(img_options_get(&target->given, "compression_type"),
                                  &options->compression_type, err);
    if (!result)
        result = find_preallocation(target, &options->preallocation, err);
    return result ? result : qcow2_create_check(options, err);
}

static int create_qcow2(struct loop *loop, const struct img_target *target,
                        const struct qcow2_create_options *options, struct io_file *file,
                        struct error *err)
{
    const char *name = target->data_file_name;
    struct io_file *data_file = NULL;
    bool is_new = name && access(name, F_OK);
    if (name) {
        data_file = img_create_file(loop, name, err);
        if (!data_file)
            return -EIO;
    }
    int result = qcow2_create(file, data_file, options, err);
    io_close_wait(data_file);
    if (result && name)
        img_target_abandon(name, is_new);
    return result;
}

static int fill_raw(struct io_file *file, enum qcow2_preallocation mode, uint64_t bytes)
{
    static const uint64_t chunk_bytes = 1 * MIB;
    if (mode == QCOW2_PREALLOC_FALLOC)
        return bytes ? -posix_fallocate(file->fd, 0, (off_t)bytes) : 0;
    if (mode != QCOW2_PREALLOC_FULL)
        return 0;
    void *zeroes = calloc(1, chunk_bytes);
    int result = zeroes ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < bytes && !result; at += chunk_bytes)
        result = io_write_now(file, at, zeroes, MIN(chunk_bytes, bytes - at));
    free(zeroes);
    return result;
}

static int create_raw(struct io_file *file, const struct img_target *target,
                      enum qcow2_preallocation mode, struct error *err)
{
    uint64_t bytes = align_up(target->size_bytes, 512);
    uint64_t length = 0;
    int result = io_length(file, &length);
    if (!result && length && length < bytes)
        return error_set(err, ENOSPC, "'%s' is too small: %" PRIu64 " bytes", target->path, length);
    if (!result && !length)
        result = io_truncate_now(file, bytes);
    if (!result)
        result = fill_raw(file, mode, bytes);
    return result ? error_set_errno(err, -result, "Could not resize '%s'", target->path) : 0;
}

int img_target_start_foreign(const struct img_target *target, struct io_file *file,
                             struct foreign_writer **out, struct error *err)
{
    const struct foreign_writer_options options = {
        .format = target->format,
        .subformat = img_options_get(&target->given, "subformat"),
        .path = target->path,
        .size_bytes = target->size_bytes,
    };
    return foreign_writer_create(file, &options, out, err);
}

static int create_foreign(struct io_file *file, const struct img_target *target, struct error *err)
{
    struct foreign_writer *writer;
    int result = img_target_start_foreign(target, file, &writer, err);
    if (result)
        return result;
    result = foreign_writer_finish(writer, err);
    foreign_writer_destroy(writer);
    return result;
}

void img_target_abandon(const char *path, bool is_new)
{
    struct stat info;
    /* A file that could not be opened or locked is somebody else's, and stays as it is. */
    if (!img_has_made_file() || stat(path, &info) || !S_ISREG(info.st_mode))
        return;
    if (truncate(path, 0) || is_new)
        unlink(path);
}

int img_target_create(struct loop *loop, const struct img_target *target, struct error *err)
{
    struct qcow2_create_options options;
    enum qcow2_preallocation mode;
    bool is_qcow2 = !strcmp(target->format, "qcow2");
    int result = find_preallocation(target, &mode, err);
    if (!result && is_qcow2)
        result = img_target_qcow2_options(target, &options, err);
    if (!result && !is_qcow2 && mode == QCOW2_PREALLOC_METADATA)
        result = error_set(err, ENOTSUP, "Unsupported preallocation mode: metadata");
    if (result)
        return result;
    bool is_new = access(target->path, F_OK);
    struct io_file *file = img_create_file(loop, target->path, err);
    if (!file)
        return err->code ? -err->code : -EIO;
    if (is_qcow2)
        result = create_qcow2(loop, target, &options, file, err);
    else if (!strcmp(target->format, "raw"))
        result = create_raw(file, target, mode, err);
    else
        result = create_foreign(file, target, err);
    io_close_wait(file);
    if (result)
        img_target_abandon(target->path, is_new);
    return result;
}
