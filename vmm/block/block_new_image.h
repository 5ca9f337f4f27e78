/* SPDX-License-Identifier: MIT */
/*
 * block_new_image: the file or the image that blockdev-create asks for (QEMU's
 * BlockdevCreateOptions), and the making of it.
 */
#ifndef VMM_BLOCK_BLOCK_NEW_IMAGE_H
#define VMM_BLOCK_BLOCK_NEW_IMAGE_H

#include <jansson.h>

#include "disk/qcow2/qcow2_create.h"

struct block_new_image {
    bool is_qcow2;        /* within a file that is there; else it is the file that is made */
    char *node;           /* of the file, or NULL */
    char *path;           /* NULL while only the node is known */
    bool no_cow;          /* where the file system can */
    struct error refusal; /* found before, told by the job */
    struct qcow2_create_options options; /* of a file: size and preallocation */
    char *backing_path, *backing_format; /* what the options point to */
};

/* `options` was checked against its driver's shape. */
int must_check block_new_image_read(const json_t *options, struct block_new_image **out,
                                    struct error *err);
/* For aside: takes as long as the file system takes. */
int block_new_image_make(void *image, struct error *err);
void block_new_image_free(void *image);

#endif
