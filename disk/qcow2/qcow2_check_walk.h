/* SPDX-License-Identifier: MIT */
/*
 * qcow2_check_walk: the counting half of the check, shared with the half that judges and repairs.
 * Private to qcow2_check*.c.
 */
#ifndef DISK_QCOW2_QCOW2_CHECK_WALK_H
#define DISK_QCOW2_QCOW2_CHECK_WALK_H

#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_header.h"

enum qcow2_block_mark {
    QCOW2_BLOCK_UNUSABLE = 1 << 0, /* not to be read or written */
    QCOW2_BLOCK_RESERVED = 1 << 1, /* reserved bits of its entry are set */
};

/* What a cluster is there for. Snapshots share L2 tables and data, and nothing else is shared. */
enum qcow2_use {
    QCOW2_USE_NONE,
    QCOW2_USE_L2,
    QCOW2_USE_DATA,
    QCOW2_USE_ALONE, /* a table or a part of one, for one reference only */
    QCOW2_USE_CLASH, /* more than one of these: one overwrites the other some day */
};

struct qcow2_checker {
    struct io_file *file;
    const char *path;
    const struct qcow2_check_options *options;
    struct qcow2_check_result *result;
    struct qcow2_header header;

    uint64_t cluster_bytes;
    uint64_t file_bytes;
    uint64_t clusters; /* of the file, and one more that may stick out of it */
    uint32_t *counts;  /* references found, per cluster of the file */
    uint8_t *uses;     /* enum qcow2_use of each of them */
    /* A table could not be read: what it refers to is not in `counts`, and looks leaked. */
    bool is_incomplete;
    uint8_t *is_one; /* bit per cluster: its refcount in the file is exactly 1 */

    uint64_t *reftable; /* offsets of the blocks, without reserved bits */
    uint64_t reftable_entries;
    uint8_t *block_marks; /* per entry: enum qcow2_block_mark */
    bool must_rebuild;    /* the refcount structure itself cannot be mended in place */

    uint64_t next_contiguous;
    bool copied_is_wrong; /* some COPIED flag disagrees: the second pass tells which */
    uint8_t *table;       /* scratch of one cluster, for L2 tables */
    uint8_t *block;       /* scratch of one cluster, for refcount blocks */
};

void qcow2_checker_say(struct qcow2_checker *checker, const char *format, ...) printf_like(2, 3);

/* Counts a reference to every cluster of the range. A range that leaves the file is a corruption,
 * and false. */
bool qcow2_checker_count(struct qcow2_checker *checker, enum qcow2_use use, uint64_t offset,
                         uint64_t bytes);

/* Counts all that header, L1 tables, snapshots and bitmaps refer to; repairs flags of L2 entries
 * that are wrong by themselves, if asked. Refcount structures are not counted. */
int must_check qcow2_checker_walk(struct qcow2_checker *checker, struct error *err);

/* Reports (or repairs) the COPIED flags of the active L1 table against is_one. */
int must_check qcow2_checker_walk_copied(struct qcow2_checker *checker, bool repair,
                                         struct error *err);

#endif
