/* SPDX-License-Identifier: MIT */
/* block_new_image: reads what blockdev-create wants, on the loop, and makes it, on a thread. */
#include "vmm/block/block_new_image.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fdset.h"
#include "base/text.h"
#include "vmm/block/block_private.h"

/* QEMU's, of which two can be made here. */
#define DRIVERS                                                                                    \
    "file|qcow2|blkdebug|blklogwrites|blkreplay|blkverify|bochs|cloop|compress|copy-before-write|" \
    "copy-on-read|dmg|snapshot-access|ftp|ftps|gluster|host_cdrom|host_device|http|https|iscsi|"   \
    "luks|nbd|nfs|null-aio|null-co|nvme|parallels|preallocate|qcow|qed|quorum|raw|rbd|"            \
    "replication|ssh|throttle|vdi|vhdx|vmdk|vpc|vvfat"
enum { DRIVER_FILE, DRIVER_QCOW2 };

/* As QEMU reads them: what is too large for the format is told by the job. */
static uint64_t number(const json_t *options, const char *key, uint64_t otherwise)
{
    const json_t *value = json_object_get(options, key);
    return value ? (uint64_t)json_integer_value(value) : otherwise;
}

/* A node's name, or a file that is described here. */
static int read_file(const json_t *file, struct block_new_image *image, struct error *err)
{
    if (json_is_string(file)) {
        image->node = text_copy(json_string_value(file));
        return 0;
    }
    if (!json_is_object(file))
        return error_set(err, EINVAL, "Invalid parameter type for 'file', expected: BlockdevRef");
    unsigned driver;
    const char *path = block_text(file, "filename");
    int result = block_choice(file, "driver", "file|host_device", 0, &driver, err);
    if (result)
        return result;
    if (!block_text(file, "driver") || !path)
        return error_set(err, EINVAL, "Parameter 'file.%s' is missing",
                         path ? "driver" : "filename");
    if (json_object_size(file) > 2)
        return error_set(err, ENOTSUP,
                         "A file within 'file' takes 'driver' and 'filename' alone: name a node of "
                         "blockdev-add for more");
    image->path = text_copy(path);
    return 0;
}

static int read_backing(const json_t *options, struct block_new_image *image, struct error *err)
{
    const char *path = block_text(options, "backing-file");
    unsigned ignored;
    image->backing_path = path && *path ? text_copy(path) : NULL;
    image->backing_format = text_copy(block_text(options, "backing-fmt"));
    image->options.backing_path = image->backing_path;
    image->options.backing_format = image->backing_format;
    return block_choice(options, "backing-fmt", DRIVERS, 0, &ignored, err);
}

static int refuse_parts(const json_t *options, struct error *err)
{
    static const char *const parts[] = {"data-file", "encrypt"};
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        if (json_object_get(options, parts[i]))
            return error_set(err, ENOTSUP, "Parameter '%s' is not supported by blockdev-create: %s",
                             parts[i],
                             i ? "images are not encrypted here"
                               : "make such images with evisor-img create -o data_file=FILE");
    return 0;
}

static int read_qcow2(const json_t *options, struct block_new_image *image, struct error *err)
{
    struct qcow2_create_options *qcow2 = &image->options;
    unsigned version = 1, compression = 0;
    int result = refuse_parts(options, err);
    if (!result)
        result = read_file(json_object_get(options, "file"), image, err);
    if (!result)
        result = block_choice(options, "version", "v2|v3", 1, &version, err);
    if (!result)
        result = block_choice(options, "compression-type", "zlib|zstd", 0, &compression, err);
    if (!result)
        result = read_backing(options, image, err);
    qcow2->version = 2 + version;
    qcow2->compression_type = compression ? QCOW2_COMPRESSION_ZSTD : QCOW2_COMPRESSION_ZLIB;
    qcow2->cluster_bytes = number(options, "cluster-size", qcow2->cluster_bytes);
    qcow2->refcount_width = number(options, "refcount-bits", qcow2->refcount_width);
    qcow2->lazy_refcounts = block_bool(options, "lazy-refcounts", false);
    qcow2->extended_l2 = block_bool(options, "extended-l2", false);
    qcow2->data_file_raw = block_bool(options, "data-file-raw", false);
    return result;
}

int block_new_image_read(const json_t *options, struct block_new_image **out, struct error *err)
{
    unsigned driver, preallocation = 0;
    int result = block_choice(options, "driver", DRIVERS, 0, &driver, err);
    if (result)
        return result;
    if (driver != DRIVER_FILE && driver != DRIVER_QCOW2)
        return error_set(err, ENOTSUP, "Driver does not support blockdev-create");
    struct block_new_image *image = calloc(1, sizeof(*image));
    CHECK(image);
    qcow2_create_defaults(&image->options);
    image->is_qcow2 = driver == DRIVER_QCOW2;
    image->no_cow = block_bool(options, "nocow", false);
    image->options.size_bytes = number(options, "size", 0);
    result =
        block_choice(options, "preallocation", "off|metadata|falloc|full", 0, &preallocation, err);
    image->options.preallocation = (enum qcow2_preallocation)preallocation;
    if (!result && image->is_qcow2)
        result = read_qcow2(options, image, err);
    else if (!result)
        image->path = text_copy(block_text(options, "filename"));
    if (result)
        block_new_image_free(image);
    else
        *out = image;
    return result;
}

void block_new_image_free(void *data)
{
    struct block_new_image *image = data;
    free(image->node);
    free(image->path);
    free(image->backing_path);
    free(image->backing_format);
    free(image);
}

/* --- on the thread --- */

/* It is emptied to become the image. */
static bool is_backing_itself(const struct block_new_image *image)
{
    char *below = image->path && image->backing_path
                      ? disk_backing_path(image->path, image->backing_path)
                      : NULL;
    bool is_same = below && io_is_same_file(below, image->path);
    free(below);
    return is_same;
}

/* Before anything is touched. */
static int check(const struct block_new_image *image, struct error *err)
{
    const struct qcow2_create_options *options = &image->options;
    if (image->refusal.code) {
        *err = image->refusal;
        return -err->code;
    }
    if (is_backing_itself(image))
        return error_set(err, EINVAL, "'%s' cannot be its own backing file", image->path);
    if (image->is_qcow2 && options->size_bytes % 512)
        return error_set(err, EINVAL, "Image size must be a multiple of 512 bytes");
    if (image->is_qcow2)
        return qcow2_create_check(options, err);
    if (options->preallocation == QCOW2_PREALLOC_METADATA)
        return error_set(err, ENOTSUP, "Unsupported preallocation mode: metadata");
    if (options->size_bytes > INT64_MAX)
        return error_set(err, EINVAL, "Could not resize file: %s", strerror(EINVAL));
    return 0;
}

/* What was asked for is a wish: not every file system can. */
static void drop_cow(const struct io_file *file)
{
    int flags;
    if (file->fd < 0 || ioctl(file->fd, FS_IOC_GETFLAGS, &flags))
        return;
    flags |= FS_NOCOW_FL;
    unused_result(ioctl(file->fd, FS_IOC_SETFLAGS, &flags));
}

static int fill(struct io_file *file, const struct block_new_image *image, struct error *err)
{
    const struct qcow2_create_options *options = &image->options;
    if (image->is_qcow2)
        return qcow2_create(file, NULL, options, err);
    if (image->no_cow)
        drop_cow(file);
    int result = qcow2_create_extend(file, options->preallocation, 0, options->size_bytes);
    return result ? error_set(err, -result, "Could not resize file: %s", strerror(-result)) : 0;
}

int block_new_image_make(void *data, struct error *err)
{
    const struct block_new_image *image = data;
    bool is_new = !image->is_qcow2 && !fdset_is_path(image->path);
    struct io_file *file = NULL;
    struct loop loop;
    int result = check(image, err);
    if (result)
        return result;
    result = loop_init(&loop);
    if (result)
        return error_set_errno(err, -result, "Could not open '%s'", image->path);
    result = block_image_open_empty(&loop, image->path, is_new, &file, err);
    if (!result)
        result = fill(file, image, err);
    if (!result)
        result = block_image_sync(file, image->path, is_new, err);
    io_close_wait(file);
    loop_fini(&loop);
    return result;
}
