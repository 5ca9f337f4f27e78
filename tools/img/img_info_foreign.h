/* SPDX-License-Identifier: MIT */
/* img_info_foreign: the part of evisor-img info that speaks of VDI, VMDK, VHD and VHDX images. */
#ifndef TOOLS_IMG_IMG_INFO_FOREIGN_H
#define TOOLS_IMG_IMG_INFO_FOREIGN_H

#include <jansson.h>
#include <stdint.h>

#include "disk/io.h"

struct img_info_foreign;

struct img_info_sizes {
    uint64_t disk_bytes;
    uint64_t host_bytes;    /* of all files of the image */
    uint64_t cluster_bytes; /* 0: it has no clusters */
};

/* *out stays NULL for formats that tell no more than their size. 1 after saying what is wrong. */
int img_info_foreign_collect(struct io_file *file, const char *path, const char *format,
                             struct img_info_sizes *sizes, struct img_info_foreign **out);
void img_info_foreign_free(struct img_info_foreign *info);

/* "Format specific information:" and what follows. */
void img_info_foreign_print(const struct img_info_foreign *info);
json_t *img_info_foreign_json(const struct img_info_foreign *info);

#endif
