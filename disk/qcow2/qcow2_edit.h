/* SPDX-License-Identifier: MIT */
/*
 * qcow2_edit: changes to the metadata of an image that nothing else has open: reference counts in
 * memory, allocation, and writing both back in an order that leaves leaks at worst. Blocks: tools.
 */
#ifndef DISK_QCOW2_QCOW2_EDIT_H
#define DISK_QCOW2_QCOW2_EDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_header.h"

struct qcow2_edit_region {
    uint64_t offset, bytes;
};

struct qcow2_edit {
    struct io_file *file; /* writable, not owned */
    const char *path;
    struct qcow2_header header;
    uint64_t cluster_bytes;
    /* Private. */
    uint32_t *counts; /* per host cluster */
    uint64_t clusters;
    uint64_t *reftable;
    uint64_t reftable_entries;
    bool reftable_changed;
    uint64_t old_reftable; /* moved: the place and size to be given back */
    uint64_t old_reftable_bytes;
    uint8_t *is_changed; /* per refcount block */
    uint64_t cursor;
    uint64_t file_bytes;             /* as it was found */
    struct qcow2_edit_region *fresh; /* allocated since it was found, in rising pieces */
    size_t fresh_count;
    uint8_t *cluster; /* scratch */
};

/* Refuses images that are dirty, marked corrupt, or have an external data file. */
int must_check qcow2_edit_open(struct io_file *file, const char *path, struct qcow2_edit *edit,
                               struct error *err);
/* The same for tables alone, also where the guest's data is in another file. */
int must_check qcow2_edit_open_tables(struct io_file *file, const char *path,
                                      struct qcow2_edit *edit, struct error *err);
void qcow2_edit_close(struct qcow2_edit *edit);

/* Adds or takes one reference to every cluster of the range; in memory. */
int must_check qcow2_edit_ref(struct qcow2_edit *edit, uint64_t offset, uint64_t bytes, int delta,
                              struct error *err);
uint64_t qcow2_edit_count(const struct qcow2_edit *edit, uint64_t offset);

/* Clusters in a row with a count of 1 each, for `bytes` (not 0); in memory. What was given back
 * since the last flush may be among them: give back last. */
int must_check qcow2_edit_alloc(struct qcow2_edit *edit, uint64_t bytes, uint64_t *offset,
                                struct error *err);

/* Makes the host give all the space that was allocated, and that writing the counts takes, before
 * anything that counts is written: where it has too little, the file is left as it was found. */
int must_check qcow2_edit_reserve(struct qcow2_edit *edit, struct error *err);

/* Gives back what the file has grown by, if nothing of that is in use. */
void qcow2_edit_cut(struct qcow2_edit *edit);

/* Writes the counts; they are durable afterwards. */
int must_check qcow2_edit_flush(struct qcow2_edit *edit, struct error *err);

/* Writes the fixed fields of the header, between two barriers. -EIO if it fails, and for every
 * barrier that does: nobody knows then what is on the medium. */
int must_check qcow2_edit_write_header(struct qcow2_edit *edit, struct error *err);

/* As io_*_now, with a sentence. */
int must_check qcow2_edit_read(struct qcow2_edit *edit, uint64_t offset, void *data, uint64_t bytes,
                               struct error *err);
int must_check qcow2_edit_write(struct qcow2_edit *edit, uint64_t offset, const void *data,
                                uint64_t bytes, struct error *err);
int must_check qcow2_edit_sync(struct qcow2_edit *edit, struct error *err);

#endif
