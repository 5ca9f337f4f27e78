/* SPDX-License-Identifier: MIT */
/*
 * qcow2_create: new images. Blocks: for tools.
 *
 * The header is written last, so an image whose creation was cut short is no qcow2 image at all.
 */
#ifndef DISK_QCOW2_QCOW2_CREATE_H
#define DISK_QCOW2_QCOW2_CREATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_format.h"

struct qcow2_header;

enum qcow2_preallocation {
    QCOW2_PREALLOC_OFF,
    QCOW2_PREALLOC_METADATA, /* every cluster is mapped; the file stays sparse */
    QCOW2_PREALLOC_FALLOC,   /* and the host has set its space aside */
    QCOW2_PREALLOC_FULL,     /* and it is written with zeroes */
};

struct qcow2_create_options {
    uint64_t size_bytes;     /* rounded up to 512 */
    uint32_t version;        /* 2 or 3 */
    uint64_t cluster_bytes;  /* as a person gave them: checked here */
    uint64_t refcount_width; /* in bits */
    bool lazy_refcounts;
    bool extended_l2;
    enum qcow2_compression compression_type;
    enum qcow2_preallocation preallocation;
    const char *backing_path; /* NULL for none */
    const char *backing_format;
    const char *data_file_name; /* NULL for none */
    bool data_file_raw;
};

/* What `evisor-img create -f qcow2` uses when nothing is said; size_bytes is 0. */
void qcow2_create_defaults(struct qcow2_create_options *options);

/* Refuses what cannot be created, before anything is touched. */
int must_check qcow2_create_check(const struct qcow2_create_options *options, struct error *err);

/* The header that such an image will have, tables not yet placed; l1_entries covers the size. */
int must_check qcow2_create_header(const struct qcow2_create_options *options,
                                   struct qcow2_header *header, struct error *err);

/* How much of the file such an image takes besides its data once all of it is written. */
int must_check qcow2_create_measure(const struct qcow2_create_options *options,
                                    uint64_t *metadata_bytes, struct error *err);

/*
 * `file` is empty or a block device. `data_file` is the external one, or NULL, and becomes as large
 * as the disk. On failure their contents are undefined.
 */
int must_check qcow2_create(struct io_file *file, struct io_file *data_file,
                            const struct qcow2_create_options *options, struct error *err);

/* Makes any file reach to offset + bytes, with as much space set aside as the mode asks. */
int must_check qcow2_create_extend(struct io_file *file, enum qcow2_preallocation mode,
                                   uint64_t offset, uint64_t bytes);

#endif
