/* SPDX-License-Identifier: MIT */
/*
 * img_info: evisor-img info: what an image says about itself. Opens the file named and, only if
 * asked by --backing-chain, the files below it; never a data file. A VMDK in several files is one
 * image: its extents, which lie in the same folder, are looked at too.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "disk/lock.h"
#include "disk/qcow2/qcow2_bitmaps.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_snapshots.h"
#include "tools/img/img.h"
#include "tools/img/img_info_foreign.h"
#include "tools/img/img_image.h"
#include "tools/img/img_snapshot_list.h"

struct arguments {
    struct img_image image;
    enum img_output output;
    bool whole_chain;
};

/* What is known of one image. */
struct info {
    char *path;
    const char *format;
    uint64_t size_bytes;
    uint64_t host_bytes;
    struct stat identity;
    bool is_qcow2;
    uint64_t cluster_bytes;           /* 0: it has no clusters */
    struct img_info_foreign *foreign; /* what a VMDK tells of itself, or NULL */
    struct qcow2_header header;
    struct qcow2_snapshots snapshots;
    struct qcow2_bitmaps bitmaps;
    char *backing_path; /* resolved; NULL for none */
};

static const struct img_arg args[] = {
    IMG_SWITCH(0, "image-opts", image.is_options),
    IMG_TEXT('f', "format", image.format),
    IMG_OUTPUT("output", output),
    IMG_SWITCH(0, "backing-chain", whole_chain),
    IMG_SWITCH('U', "force-share", image.no_lock),
};

static int parse(struct arguments *arguments, int argc, char **argv)
{
    return img_image_parse(argc, argv, args, ARRAY_SIZE(args), arguments, &arguments->image);
}

/* --- collecting --- */

static void info_fini(struct info *info)
{
    if (info->is_qcow2) {
        qcow2_snapshots_free(&info->snapshots);
        qcow2_bitmaps_free(&info->bitmaps);
        qcow2_header_fini(&info->header);
    }
    img_info_foreign_free(info->foreign);
    free(info->path);
    free(info->backing_path);
}

static int collect_qcow2(struct io_file *file, struct info *info)
{
    struct error err = {0};
    if (qcow2_header_read(file, info->path, &info->header, &err))
        return img_error("%s", err.text);
    info->is_qcow2 = true;
    info->size_bytes = info->header.size_bytes;
    info->cluster_bytes = qcow2_cluster_bytes(&info->header);
    if (info->header.has_backing) {
        info->backing_path = disk_backing_path(info->path, info->header.backing_path);
        if (!info->backing_path)
            return img_error("out of memory");
    }
    if (qcow2_snapshots_read(file, &info->header, &info->snapshots, &err) ||
        qcow2_bitmaps_read(file, &info->header, &info->bitmaps, &err))
        return img_error("Could not open '%s': %s", info->path, err.text);
    return 0;
}

static int collect_foreign(struct io_file *file, struct info *info)
{
    struct img_info_sizes sizes = {0};
    int status = img_info_foreign_collect(file, info->path, info->format, &sizes, &info->foreign);
    info->size_bytes = sizes.disk_bytes;
    info->host_bytes = sizes.host_bytes;
    info->cluster_bytes = sizes.cluster_bytes;
    return status;
}

static int collect_open(struct io_file *file, const char *format, struct info *info)
{
    int result = io_length(file, &info->size_bytes);
    if (result || fstat(file->fd, &info->identity))
        return img_error("Could not open '%s': Could not find its length: %s", info->path,
                         strerror(result ? -result : errno));
    info->host_bytes = (uint64_t)info->identity.st_blocks * 512;
    if (img_find_format(file, info->path, format, &info->format))
        return 1;
    if (!strcmp(info->format, "qcow2"))
        return collect_qcow2(file, info);
    if (!img_format_is_native(info->format))
        return collect_foreign(file, info);
    info->size_bytes = (info->size_bytes + 511) / 512 * 512;
    return 0;
}

/* `path` becomes the info's. Nothing is to be freed if this fails. */
static int collect(struct loop *loop, char *path, const char *format, bool no_lock,
                   struct info *info)
{
    const struct img_file_options options = {.no_lock = no_lock, .may_be_written = true};
    memset(info, 0, sizeof(*info));
    info->path = path;
    struct io_file *file = path ? img_open_file(loop, path, &options) : NULL;
    int status = file ? collect_open(file, format, info) : 1;
    /* A raw image may be written while this looks; one with metadata may not. */
    if (!status && info->is_qcow2 && !no_lock) {
        struct error err = {0};
        if (lock_image(file, path, true, &err))
            status = img_error("%s", err.text);
    }
    io_close_wait(file);
    if (status)
        info_fini(info);
    return status;
}

/* --- human --- */

static const char *on_or_off(bool value)
{
    return value ? "true" : "false";
}

static const char *compression_name(const struct qcow2_header *header)
{
    return header->compression_type == QCOW2_COMPRESSION_ZSTD ? "zstd" : "zlib";
}

struct flag_name {
    uint32_t bit;
    const char *name;
};
static const struct flag_name bitmap_flags[] = {
    {QCOW2_BITMAP_IN_USE, "in-use"},
    {QCOW2_BITMAP_AUTO, "auto"},
};

static void print_bitmaps(const struct qcow2_bitmaps *bitmaps)
{
    if (!bitmaps->count)
        return;
    puts("    bitmaps:");
    for (size_t i = 0; i < bitmaps->count; i++) {
        const struct qcow2_bitmap *bitmap = &bitmaps->list[i];
        size_t shown = 0;
        printf("        [%zu]:\n            flags:\n", i);
        for (size_t f = 0; f < ARRAY_SIZE(bitmap_flags); f++)
            if (bitmap->flags & bitmap_flags[f].bit)
                printf("                [%zu]: %s\n", shown++, bitmap_flags[f].name);
        printf("            name: %s\n            granularity: %" PRIu64 "\n", bitmap->name,
               UINT64_C(1) << bitmap->granularity_bits);
    }
}

static void print_specific(const struct info *info)
{
    const struct qcow2_header *header = &info->header;
    bool is_v3 = header->version >= 3;
    printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
           is_v3 ? "1.1" : "0.10", compression_name(header));
    if (is_v3)
        printf("    lazy refcounts: %s\n",
               on_or_off(header->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS));
    print_bitmaps(&info->bitmaps);
    printf("    refcount bits: %u\n", 1u << header->refcount_order);
    if (header->has_data_file_name)
        printf("    data file: %s\n", header->data_file_name);
    if (header->incompatible & QCOW2_INCOMPAT_DATA_FILE)
        printf("    data file raw: %s\n", on_or_off(header->autoclear & QCOW2_AUTOCLEAR_RAW_DATA));
    if (is_v3)
        printf("    corrupt: %s\n    extended l2: %s\n",
               on_or_off(header->incompatible & QCOW2_INCOMPAT_CORRUPT),
               on_or_off(qcow2_has_extended_l2(header)));
}

static void print_backing(const struct info *info)
{
    const struct qcow2_header *header = &info->header;
    if (!header->has_backing)
        return;
    printf("backing file: %s", header->backing_path);
    if (strcmp(header->backing_path, info->backing_path))
        printf(" (actual path: %s)", info->backing_path);
    putchar('\n');
    if (header->has_backing_format)
        printf("backing file format: %s\n", header->backing_format);
}

static void print_human(const struct info *info)
{
    char virtual[IMG_SIZE_TEXT_BYTES], host[IMG_SIZE_TEXT_BYTES];
    printf("image: %s\nfile format: %s\nvirtual size: %s (%" PRIu64 " bytes)\ndisk size: %s\n",
           info->path, info->format, img_size_text(info->size_bytes, virtual), info->size_bytes,
           img_size_text(info->host_bytes, host));
    if (info->cluster_bytes && !info->is_qcow2)
        printf("cluster_size: %" PRIu64 "\n", info->cluster_bytes);
    if (info->foreign)
        img_info_foreign_print(info->foreign);
    if (!info->is_qcow2)
        return;
    if (info->header.crypt_method != QCOW2_CRYPT_NONE)
        puts("encrypted: yes");
    printf("cluster_size: %" PRIu64 "\n", qcow2_cluster_bytes(&info->header));
    if (info->header.incompatible & QCOW2_INCOMPAT_DIRTY)
        puts("cleanly shut down: no");
    print_backing(info);
    if (info->snapshots.count)
        img_snapshot_list_print(&info->snapshots);
    print_specific(info);
}

/* --- JSON --- */

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* A name in an image may be any bytes; JSON takes UTF-8 only. */
static json_t *text(const char *value)
{
    json_t *string = json_string(value);
    if (string)
        return string;
    char *copy = strdup(value);
    for (char *c = copy; c && *c; c++)
        if (*c & 0x80)
            *c = '?';
    string = json_string(copy ? copy : "");
    free(copy);
    return string;
}

static json_t *bitmaps_json(const struct qcow2_bitmaps *bitmaps)
{
    json_t *array = json_array();
    for (size_t i = 0; i < bitmaps->count; i++) {
        const struct qcow2_bitmap *bitmap = &bitmaps->list[i];
        json_t *flags = json_array();
        for (size_t f = 0; f < ARRAY_SIZE(bitmap_flags); f++)
            if (bitmap->flags & bitmap_flags[f].bit)
                json_array_append_new(flags, json_string(bitmap_flags[f].name));
        json_t *object = json_object();
        json_object_set_new(object, "flags", flags);
        json_object_set_new(object, "name", text(bitmap->name));
        json_object_set_new(object, "granularity", number(UINT64_C(1) << bitmap->granularity_bits));
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *specific_json(const struct info *info)
{
    const struct qcow2_header *header = &info->header;
    bool is_v3 = header->version >= 3;
    json_t *data = json_object();
    json_object_set_new(data, "compat", json_string(is_v3 ? "1.1" : "0.10"));
    json_object_set_new(data, "compression-type", json_string(compression_name(header)));
    if (is_v3)
        json_object_set_new(data, "lazy-refcounts",
                            json_boolean(header->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS));
    if (info->bitmaps.count)
        json_object_set_new(data, "bitmaps", bitmaps_json(&info->bitmaps));
    json_object_set_new(data, "refcount-bits", number(1u << header->refcount_order));
    if (header->has_data_file_name)
        json_object_set_new(data, "data-file", text(header->data_file_name));
    if (header->incompatible & QCOW2_INCOMPAT_DATA_FILE)
        json_object_set_new(data, "data-file-raw",
                            json_boolean(header->autoclear & QCOW2_AUTOCLEAR_RAW_DATA));
    if (is_v3) {
        json_object_set_new(data, "corrupt",
                            json_boolean(header->incompatible & QCOW2_INCOMPAT_CORRUPT));
        json_object_set_new(data, "extended-l2", json_boolean(qcow2_has_extended_l2(header)));
    }
    json_t *specific = json_object();
    json_object_set_new(specific, "type", json_string("qcow2"));
    json_object_set_new(specific, "data", data);
    return specific;
}

static json_t *snapshot_json(const struct qcow2_snapshot *snapshot)
{
    json_t *object = json_object();
    if (snapshot->icount != UINT64_MAX)
        json_object_set_new(object, "icount", number(snapshot->icount));
    json_object_set_new(object, "vm-clock-nsec", number(snapshot->vm_clock_ns % 1000000000));
    json_object_set_new(object, "name", text(snapshot->name));
    json_object_set_new(object, "date-sec", number(snapshot->date_sec));
    json_object_set_new(object, "date-nsec", number(snapshot->date_nsec));
    json_object_set_new(object, "vm-clock-sec", number(snapshot->vm_clock_ns / 1000000000));
    json_object_set_new(object, "id", text(snapshot->id));
    json_object_set_new(object, "vm-state-size", number(snapshot->vmstate_bytes));
    return object;
}

/* In the order in which qemu-img prints them: its tests compare the text. */
static json_t *info_json(const struct info *info)
{
    const struct qcow2_header *header = &info->header;
    json_t *object = json_object();
    if (header->has_backing && header->has_backing_format)
        json_object_set_new(object, "backing-filename-format", text(header->backing_format));
    if (info->snapshots.count) {
        json_t *snapshots = json_array();
        for (size_t i = 0; i < info->snapshots.count; i++)
            json_array_append_new(snapshots, snapshot_json(&info->snapshots.list[i]));
        json_object_set_new(object, "snapshots", snapshots);
    }
    json_object_set_new(object, "virtual-size", number(info->size_bytes));
    json_object_set_new(object, "filename", text(info->path));
    if (info->cluster_bytes)
        json_object_set_new(object, "cluster-size", number(info->cluster_bytes));
    json_object_set_new(object, "format", json_string(info->format));
    json_object_set_new(object, "actual-size", number(info->host_bytes));
    if (header->crypt_method != QCOW2_CRYPT_NONE)
        json_object_set_new(object, "encrypted", json_true());
    if (info->is_qcow2)
        json_object_set_new(object, "format-specific", specific_json(info));
    if (info->foreign)
        json_object_set_new(object, "format-specific", img_info_foreign_json(info->foreign));
    if (header->has_backing) {
        json_object_set_new(object, "full-backing-filename", text(info->backing_path));
        json_object_set_new(object, "backing-filename", text(header->backing_path));
    }
    json_object_set_new(object, "dirty-flag",
                        json_boolean(header->incompatible & QCOW2_INCOMPAT_DIRTY));
    return object;
}

/* --- the chain --- */

struct chain {
    struct info images[DISK_BACKING_DEPTH_MAX];
    size_t count;
};

static bool is_in_chain(const struct chain *chain, const char *path)
{
    struct stat identity;
    if (stat(path, &identity))
        return false;
    for (size_t i = 0; i < chain->count; i++)
        if (chain->images[i].identity.st_dev == identity.st_dev &&
            chain->images[i].identity.st_ino == identity.st_ino)
            return true;
    return false;
}

static int collect_chain(struct loop *loop, const struct arguments *arguments, struct chain *chain)
{
    char *path = strdup(arguments->image.path);
    const char *format = arguments->image.format;
    while (path) {
        if (is_in_chain(chain, path)) {
            img_error("Backing file '%s' creates an infinite loop.", path);
            free(path);
            return 1;
        }
        if (chain->count == ARRAY_SIZE(chain->images)) {
            free(path);
            return img_error("'%s': the backing chain is longer than %d images",
                             arguments->image.path, DISK_BACKING_DEPTH_MAX);
        }
        struct info *info = &chain->images[chain->count];
        if (collect(loop, path, format, arguments->image.no_lock, info))
            return 1;
        chain->count++;
        bool goes_on = arguments->whole_chain && info->backing_path;
        path = goes_on ? strdup(info->backing_path) : NULL;
        format = info->header.has_backing_format ? info->header.backing_format : NULL;
    }
    return 0;
}

static void print_chain(const struct arguments *arguments, const struct chain *chain)
{
    if (arguments->output == IMG_OUTPUT_HUMAN) {
        for (size_t i = 0; i < chain->count; i++) {
            if (i)
                putchar('\n');
            print_human(&chain->images[i]);
        }
        return;
    }
    json_t *root = arguments->whole_chain ? json_array() : info_json(&chain->images[0]);
    for (size_t i = 0; arguments->whole_chain && i < chain->count; i++)
        json_array_append_new(root, info_json(&chain->images[i]));
    json_dumpf(root, stdout, JSON_INDENT(4));
    putchar('\n');
    json_decref(root);
}

static int run(struct loop *loop, int argc, char **argv)
{
    struct arguments arguments = {0};
    if (parse(&arguments, argc, argv))
        return 1;
    struct chain *chain = calloc(1, sizeof(*chain));
    if (!chain)
        return img_error("out of memory");
    int status = collect_chain(loop, &arguments, chain);
    if (!status)
        print_chain(&arguments, chain);
    for (size_t i = 0; i < chain->count; i++)
        info_fini(&chain->images[i]);
    free(chain);
    return status;
}

const struct img_command img_info_command = {
    .name = "info",
    .synopsis = "[--image-opts] [-f FMT] [--output=human|json] [--backing-chain] [-U] FILENAME",
    .help = "Shows format, sizes, backing file, snapshots and features of an image.\n"
            "  -f FMT            the format (default: found out from the file)\n"
            "  --output=json     for programs\n"
            "  --backing-chain   also the images below it\n"
            "  -U                look although another process uses the image\n"
            "Examples:\n"
            "  evisor-img info disk.qcow2\n"
            "  evisor-img info --output=json --backing-chain overlay.qcow2\n",
    .run = run,
};
