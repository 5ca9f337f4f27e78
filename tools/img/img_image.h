/* SPDX-License-Identifier: MIT */
/*
 * img_image: what a person may write for an image: a file name, "file:" and a file name, or, under
 * --image-opts and behind "json:", the options of QEMU's block layer as far as they name one file.
 */
#ifndef TOOLS_IMG_IMG_IMAGE_H
#define TOOLS_IMG_IMG_IMAGE_H

#include <stdbool.h>

#include "tools/img/img_args.h"

struct img_image {
    const char *path;
    const char *format; /* in: from -f; out: from -f or the options. NULL: to be found out */
    bool is_options;    /* in: --image-opts */
    bool no_lock;       /* in: -U; out: -U or force-share=on, file.locking=off */
    bool writable;      /* in */
};

/*
 * Fills `image` from what was given. What it points to lives as long as the program. 0, or 1 after
 * saying what is wrong.
 */
int must_check img_image_take(const char *given, struct img_image *image);

/*
 * The command line of a subcommand of one image: img_parse by the lines of a table, then
 * img_image_take, which wants image->writable: what sets it is the default or one of `args`.
 */
int must_check img_image_parse(int argc, char **argv, const struct img_arg *args, size_t count,
                               void *arguments, struct img_image *image);

/* For files that are going to be made: "file:" and a name, or a name. NULL, and *err set. */
const char *img_image_new_path(const char *given, struct error *err);

#endif
