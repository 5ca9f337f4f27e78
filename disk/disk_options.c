/* SPDX-License-Identifier: MIT */
/* disk_options: the texts of an image's options, apart from the image. */
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
