/* SPDX-License-Identifier: MIT */
/*
 * qcow2_keeper: the persistent bitmaps of an open image: loaded and marked as in use when it is
 * opened, stored when it is closed.
 */
#ifndef DISK_QCOW2_QCOW2_KEEPER_H
#define DISK_QCOW2_QCOW2_KEEPER_H

#include "disk/qcow2/qcow2.h"

/* Blocks. With `loads` the bitmaps hang on the node afterwards, and if they may change the file
 * says that they are in use. */
int must_check qcow2_keeper_open(struct qcow2 *q, bool loads, struct error *err);

/* Everything else of the image is on the medium. `on_stored` may come at once. */
void qcow2_keeper_store(struct qcow2 *q, void (*on_stored)(struct qcow2 *q, int result));

void qcow2_keeper_close(struct qcow2 *q);

/* As format_ops.check_bitmap. */
int must_check qcow2_keeper_check_bitmap(const struct node *node, const char *name,
                                         uint64_t granularity_bytes, struct error *err);

#endif
