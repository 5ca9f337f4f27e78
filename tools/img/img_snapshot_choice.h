/* SPDX-License-Identifier: MIT */
/* img_snapshot_choice: what -l SNAPSHOT of convert and measure means in an image. */
#ifndef TOOLS_IMG_IMG_SNAPSHOT_CHOICE_H
#define TOOLS_IMG_IMG_SNAPSHOT_CHOICE_H

#include "disk/io.h"

/*
 * `given` is an id or a name, or "snapshot.id=ID,snapshot.name=NAME" with either or both. Sets *out
 * to what disk_options.snapshot takes; the caller frees it. 0, or 1 after saying what is wrong.
 */
int img_snapshot_choose(struct io_file *file, const char *path, const char *given, char **out);

#endif
