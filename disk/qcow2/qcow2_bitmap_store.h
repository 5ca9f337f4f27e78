/* SPDX-License-Identifier: MIT */
/*
 * qcow2_bitmap_store: persistent bitmaps written into an image, and marked as in use while it is
 * open for writing, so that a crash leaves them known to be useless. Blocks; qcow2.c calls it when
 * the image is opened, and from the pool when it is closed.
 */
#ifndef DISK_QCOW2_QCOW2_BITMAP_STORE_H
#define DISK_QCOW2_QCOW2_BITMAP_STORE_H

#include "base/error.h"
#include "base/list.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_header.h"

/* Durable when it returns. */
int must_check qcow2_bitmaps_set_in_use(struct io_file *file, const struct qcow2_header *header,
                                        struct error *err);

/*
 * The persistent ones of `bitmaps` become the image's bitmaps, not in use; any others it had are
 * gone. Inconsistent ones stay as they are in the file. The image is otherwise closed already.
 * Whatever moment the host dies at, the image has the old directory or the new one, and leaks at
 * worst; where the two would be told apart by more than one sector, it has none in between. Where the
 * host has no space, the file is as it was; -EIO if it may not be.
 */
int must_check qcow2_bitmaps_store(struct io_file *file, const char *path,
                                   const struct list *bitmaps, struct error *err);

/* Whether one more bitmap could be stored; in the words of qemu-img. */
int must_check qcow2_bitmaps_check_new(const struct qcow2_header *header, uint64_t size_bytes,
                                       const struct list *bitmaps, const char *name,
                                       uint64_t granularity_bytes, struct error *err);

#endif
