/* SPDX-License-Identifier: MIT */
/* opener: the thread has a loop of its own, and opens the image read-only and without locks. */
#include "vmm/opener.h"

#include <stdlib.h>
#include <string.h>

#include "base/fdset.h"
#include "base/text.h"
#include "vmm/drive_format.h"

static void release(void *data)
{
    struct disk_options *options = data;
    free((char *)options->path);
    free((char *)options->format);
    free((char *)options->backing_path);
    free((char *)options->backing_format);
    free((char *)options->data_file_path);
    free(options);
}

static int open_and_close(void *data, struct error *err)
{
    struct loop loop;
    struct disk *disk;
    struct disk_options options = *(struct disk_options *)data;
    /* A descriptor that was passed is open already, and perhaps only in the way the machine wants.
     */
    if (fdset_is_path(options.path))
        return 0;
    int result = loop_init(&loop);
    if (result)
        return error_set_errno(err, -result, "cannot make a loop to open '%s'", options.path);
    if (!options.format)
        result = drive_format_tell(options.path, &options.format, err);
    if (!result)
        result = disk_open(&loop, &options, &disk, err);
    if (!result)
        unused_result(disk_close_wait(disk));
    loop_fini(&loop);
    return result;
}

static struct disk_options *copy_options(const struct disk_options *options)
{
    struct disk_options *own = calloc(1, sizeof(*own));
    CHECK(own);
    *own = (struct disk_options){
        .path = text_copy(options->path),
        .format = text_copy(options->format),
        .backing_path = text_copy(options->backing_path),
        .backing_format = text_copy(options->backing_format),
        .data_file_path = text_copy(options->data_file_path),
        .no_data_file_name = options->no_data_file_name,
        .no_backing = options->no_backing,
        .read_only = true,
        .no_lock = true,
        .aio = DISK_AIO_THREADS,
        .cache.writeback = true,
    };
    return own;
}

int opener_start(struct loop *loop, const struct disk_options *options, aside_done_fn *on_done,
                 void *opaque, struct aside **out, struct error *err)
{
    const struct aside_work work = {open_and_close, release, copy_options(options)};
    int result = aside_start(loop, &work, on_done, opaque, out, err);
    if (result)
        release(work.data);
    return result;
}
