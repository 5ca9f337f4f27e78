/* SPDX-License-Identifier: MIT */
/* disk_options_try: whether an image opens with its options; it is closed again at once. */
#include "disk/disk.h"

int disk_options_try(struct loop *loop, const struct disk_options *options, struct error *err)
{
    const struct disk_options quiet = {
        .path = options->path,
        .format = options->format,
        .backing_path = options->backing_path,
        .backing_format = options->backing_format,
        .data_file_path = options->data_file_path,
        .no_data_file_name = options->no_data_file_name,
        .no_backing = options->no_backing,
        .read_only = true,
        .no_lock = true,
        .aio = DISK_AIO_THREADS,
        .cache.writeback = true,
    };
    struct disk *disk;
    int result = disk_open(loop, &quiet, &disk, err);
    if (!result)
        unused_result(disk_close_wait(disk));
    return result;
}
