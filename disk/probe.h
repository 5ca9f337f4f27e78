/* SPDX-License-Identifier: MIT */
/*
 * probe: guesses an image's format from its first bytes. For tools that a person points at a file;
 * never for a guest's writable disk: a guest can write any header into its raw image.
 */
#ifndef DISK_PROBE_H
#define DISK_PROBE_H

#include "base/error.h"
#include "disk/io.h"

/* Sets *format to a constant name: "qcow2", "raw", or that of a known format that evisor may not
 * open ("vmdk", "vdi", "vpc", "vhdx", "qed", "luks"). Blocks. */
int must_check probe_format(struct io_file *file, const char *path, const char **format,
                            struct error *err);

#endif
