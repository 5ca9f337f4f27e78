/* SPDX-License-Identifier: MIT */
/*
 * qcow2_data_file: the file in which an image with the external-data-file feature keeps the guest's
 * data, each cluster at its own guest offset and without refcounts.
 *
 * Its name comes from the image, which may be hostile: it is followed only where the person has
 * said that the image is qcow2, it must be the name of a file, and what it names is opened as raw
 * bytes, with the access, the cache mode and the locks of the image itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/lock.h"
#include "disk/qcow2/qcow2.h"

static int find_path(const struct qcow2 *q, const struct disk_options *options, char **path,
                     struct error *err)
{
    const char *name = q->header.data_file_name;
    if (options->data_file_path) {
        *path = strdup(options->data_file_path);
    } else if (!q->header.has_data_file_name || !name[0]) {
        return error_set(err, EINVAL,
                         "image '%s' keeps its data in another file, but does not name it; give it "
                         "with data-file.filename=FILE",
                         options->path);
    } else if (options->no_data_file_name) {
        return error_set(
            err, EINVAL,
            "image '%s' keeps its data in the file '%s'; to follow that name, say that "
            "the image is to be trusted: format=qcow2",
            options->path, name);
    } else if (chain_names_a_protocol(name)) {
        return error_set(err, EINVAL,
                         "image '%s' names '%s' as its data file, which is no file name; give "
                         "one with data-file.filename=FILE",
                         options->path, name);
    } else {
        *path = strdup(name);
    }
    return *path ? 0 : error_set(err, ENOMEM, "no memory to open '%s'", options->path);
}

static int open_path(struct qcow2 *q, const char *path, const struct disk_options *options,
                     struct error *err)
{
    const struct io_options io = {
        .read_only = options->read_only,
        .direct = options->cache.direct,
        .no_sync = options->cache.no_flush,
        .aio = options->aio,
    };
    struct io_file *file;
    int result = io_open(q->node.loop, path, &io, &file, err);
    if (result)
        return result;
    if (file->device == q->node.file->device && file->inode == q->node.file->inode)
        result = error_set(err, EINVAL, "'%s' is the image itself", path);
    if (!result && !options->no_lock)
        result = lock_image(file, path, options->read_only, err);
    if (result)
        io_close(file, NULL, NULL);
    else
        q->node.data_file = file;
    return result;
}

int qcow2_data_file_open(struct qcow2 *q, const struct disk_options *options, struct error *err)
{
    char *path = NULL;
    if (!(q->header.incompatible & QCOW2_INCOMPAT_DATA_FILE)) {
        if (options->data_file_path)
            return error_set(err, EINVAL,
                             "image '%s' keeps its data in itself; leave out data-file.filename",
                             options->path);
        return 0;
    }
    int result = find_path(q, options, &path, err);
    if (result)
        return result;
    result = open_path(q, path, options, err);
    if (result)
        error_prefix(err, "data file of '%s'", options->path);
    free(path);
    q->external = true;
    q->raw_data = q->header.autoclear & QCOW2_AUTOCLEAR_RAW_DATA;
    return result;
}

/* A block device keeps its length; it only must be long enough. */
static bool must_truncate(const struct qcow2 *q)
{
    uint64_t length;
    return io_length(q->node.data_file, &length) || length != q->resize.new_size_bytes;
}

bool qcow2_data_file_resize(struct qcow2 *q,
                            void (*on_done)(struct io_request *request, int result))
{
    if (!q->external || !must_truncate(q))
        return false;
    q->resize.truncate = (struct io_request){
        .kind = IO_TRUNCATE, .offset = q->resize.new_size_bytes, .on_done = on_done};
    io_submit(q->node.data_file, &q->resize.truncate);
    return true;
}
