/* SPDX-License-Identifier: MIT */
/*
 * qcow2_snapshot: creates, applies and deletes internal snapshots of an image that nothing else has
 * open. Blocks: for tools. Whatever moment the host dies at, the image has the state before or
 * after, and leaks at worst.
 */
#ifndef DISK_QCOW2_QCOW2_SNAPSHOT_H
#define DISK_QCOW2_QCOW2_SNAPSHOT_H

#include "base/error.h"
#include "disk/io.h"

struct qcow2_snapshot_new {
    const char *name;
    uint64_t vm_clock_ns;
    uint64_t vmstate_bytes; /* behind the disk, from the first L1 entry that it does not use */
};

int must_check qcow2_snapshot_create(struct io_file *file, const char *path, const char *name,
                                     struct error *err);
int must_check qcow2_snapshot_create_with(struct io_file *file, const char *path,
                                          const struct qcow2_snapshot_new *new, struct error *err);
/* -ENOENT if there is none of this id or name; nothing is said then. */
int must_check qcow2_snapshot_apply(struct io_file *file, const char *path, const char *id_or_name,
                                    struct error *err);
int must_check qcow2_snapshot_delete(struct io_file *file, const char *path, const char *id_or_name,
                                     struct error *err);

/* Unmaps everything that the active disk maps, so that all of it reads as its backing file. */
int must_check qcow2_snapshot_empty_disk(struct io_file *file, const char *path, struct error *err);

#endif
