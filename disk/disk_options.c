/* SPDX-License-Identifier: MIT */
/* disk_options: the options of an image apart from it: their texts, and whether they serve. */
#include <stdlib.h>

#include "base/text.h"
#include "disk/disk.h"

#define TEXTS_OF(options)                                                                          \
    {                                                                                              \
        &(options)->path, &(options)->format, &(options)->snapshot, &(options)->backing_path,      \
            &(options)->backing_format, &(options)->data_file_path                                 \
    }

void disk_options_own(struct disk_options *options)
{
    const char **texts[] = TEXTS_OF(options);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        *texts[i] = text_copy(*texts[i]);
}

void disk_options_fini(struct disk_options *options)
{
    const char **texts[] = TEXTS_OF(options);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        free((char *)*texts[i]);
        *texts[i] = NULL;
    }
}

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
