/* SPDX-License-Identifier: MIT */
/* block_image: images that commands make and open: overlays, targets of mirrors and backups. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/io.h"
#include "disk/lock.h"
#include "disk/qcow2/qcow2_create.h"
#include "disk/qcow2/qcow2_rule.h"
#include "vmm/block/block_private.h"

/* The name is on the medium too: after a power cut the image is found. */
static int sync_folder(const char *path, struct error *err)
{
    char *copy = strdup(path);
    int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int result = fd < 0 || fsync(fd) ? -errno : 0;
    if (fd >= 0)
        close(fd);
    free(copy);
    /* Not every file system can. */
    if (!result || result == -EINVAL)
        return 0;
    return error_set_errno(err, -result, "Could not make the folder of '%s' durable", path);
}

static int make_file(const char *path, struct error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
    if (fd < 0)
        return error_set(err, errno, "Could not create '%s': %s", path, strerror(errno));
    close(fd);
    return 0;
}

static bool is_device(const struct io_file *file)
{
    struct stat info;
    return file->fd >= 0 && !fstat(file->fd, &info) && S_ISBLK(info.st_mode);
}

int block_image_open_empty(struct loop *loop, const char *path, bool is_new, struct io_file **out,
                           struct error *err)
{
    const struct io_options io = {.aio = DISK_AIO_THREADS};
    int result = is_new ? make_file(path, err) : 0;
    if (!result)
        result = io_open(loop, path, &io, out, err);
    if (!result)
        result = lock_image(*out, path, false, err);
    if (!result && (is_new || !is_device(*out)) && (result = io_truncate_now(*out, 0)))
        error_set_errno(err, -result, "Could not create '%s'", path);
    return result;
}

/* A disk's newest data may be in it soon, and a guest that flushes nothing more relies on what was
 * flushed before. */
int block_image_sync(struct io_file *file, const char *path, bool is_new, struct error *err)
{
    int result = qcow2_rule(JOB_IMAGE_FIRST) ? io_sync_now(file) : 0;
    if (result)
        return error_set_errno(err, -result, "Could not write '%s'", path);
    return is_new ? sync_folder(path, err) : 0;
}

static int make(struct loop *loop, const struct block_image *image, struct io_file **out,
                struct error *err)
{
    const char *path = image->path;
    int result = block_image_open_empty(loop, path, true, out, err);
    struct io_file *file = *out;
    if (!result && !strcmp(image->format, "raw")) {
        result = io_truncate_now(file, image->size_bytes);
        if (result)
            error_set_errno(err, -result, "Could not resize file '%s'", path);
    } else if (!result) {
        struct qcow2_create_options options;
        qcow2_create_defaults(&options);
        options.size_bytes = image->size_bytes;
        options.backing_path = image->backing_path;
        options.backing_format = image->backing_format;
        result = qcow2_create(file, NULL, &options, err);
    }
    return result ? result : block_image_sync(file, path, true, err);
}

int block_image_make(struct loop *loop, const struct block_image *image, struct error *err)
{
    struct io_file *file = NULL;
    int result = make(loop, image, &file, err);
    io_close_wait(file);
    return result;
}

int block_image_check(const struct block_image *image, struct error *err)
{
    if (strcmp(image->format, "qcow2") != 0 && strcmp(image->format, "raw") != 0)
        return error_set(err, EINVAL, "Unknown file format '%s'", image->format);
    if (!image->is_existing && image->backing_path && strcmp(image->format, "raw") == 0)
        return error_set(err, EINVAL, "Backing file not supported for file format 'raw'");
    return 0;
}

int block_image_open(const struct block_making *making, const struct disk *like,
                     const struct block_image *image, struct disk **out, struct error *err)
{
    const struct disk_options options = {
        .path = image->path,
        .format = image->format,
        .discard_unmap = true,
        .no_backing = image->no_backing,
        .cache = *graph_cache(like),
        .aio = graph_aio(like),
        .idle_writeback_ms = 1000,
    };
    int result = block_making_check(making, image, err);
    if (!result)
        result = disk_open(disk_loop(like), &options, out, err);
    if (!result && image->node_name)
        disk_set_node_name(*out, image->node_name);
    return result;
}
