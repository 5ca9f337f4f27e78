/* SPDX-License-Identifier: MIT */
/* img_preallocate: gives the new part of an image that has grown its place in the file at once. */
#ifndef TOOLS_IMG_IMG_PREALLOCATE_H
#define TOOLS_IMG_IMG_PREALLOCATE_H

#include "tools/img/img_source.h"

/*
 * `mode` is metadata, falloc or full; `source` is open for writing and its last bytes, from
 * `start` on, are new. 0 or -errno.
 */
int img_preallocate(struct loop *loop, const struct img_source *source, const char *path,
                    const char *mode, uint64_t start);

#endif
