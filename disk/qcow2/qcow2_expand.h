/* SPDX-License-Identifier: MIT */
/*
 * qcow2_expand: an image without zero clusters, for version 2 knows none (docs/interop/qcow2.txt,
 * "Cluster mapping": bit 0 of a standard cluster descriptor). What reads as zeroes stays so in the
 * disk and in every snapshot. Blocks: for tools; nothing else has the image open.
 */
#ifndef DISK_QCOW2_QCOW2_EXPAND_H
#define DISK_QCOW2_QCOW2_EXPAND_H

#include "base/error.h"
#include "disk/io.h"

/* Refuses images with extended L2 entries, an external data file, or snapshots of another size than
 * the disk's, which version 2 cannot express. A power cut leaves a valid image. */
int must_check qcow2_expand_zeroes(struct io_file *file, const char *path, struct error *err);

#endif
