/* SPDX-License-Identifier: MIT */
/* img_bitmaps: the persistent bitmaps of one image copied into another, for convert --bitmaps. */
#ifndef TOOLS_IMG_IMG_BITMAPS_H
#define TOOLS_IMG_IMG_BITMAPS_H

#include <stdbool.h>

#include "base/loop.h"
#include "disk/disk.h"
#include "disk/dirty.h"

/* Before anything is copied: 1 after saying that one of `from` cannot be, unless broken ones are
 * skipped. */
int img_bitmaps_check(struct disk *from, bool skip_broken);

/* Into an image that is complete and closed. 0, or 1 after saying what is wrong. */
int img_bitmaps_copy(struct loop *loop, struct disk *from, const char *target_path,
                     const char *target_format, bool skip_broken);

/* NULL after setting err: there is none of that name, or (if it is to be used) it is broken. */
struct dirty_bitmap *img_bitmaps_find(struct disk *disk, const char *name, bool use,
                                      struct error *err);

#endif
