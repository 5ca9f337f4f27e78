/* SPDX-License-Identifier: MIT */
/*
 * qcow2_check: is an image consistent, and making it so. Blocks: for tools and for opening.
 *
 * Every reference to a cluster that the tables hold is counted and compared with the refcounts.
 * A count too high is a leak (space lost, data safe), one too low a corruption (the cluster may be
 * handed out again). Memory is in proportion to the file, not to what the image claims.
 */
#ifndef DISK_QCOW2_QCOW2_CHECK_H
#define DISK_QCOW2_QCOW2_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/io.h"

enum qcow2_repair {
    QCOW2_REPAIR_NONE,
    QCOW2_REPAIR_LEAKS,
    QCOW2_REPAIR_ALL,
};

struct qcow2_check_options {
    enum qcow2_repair repair;
    /* One line of text per finding, without newline; NULL for none. */
    void (*on_message)(void *opaque, const char *line);
    void *opaque;
};

struct qcow2_check_result {
    uint64_t corruptions;
    uint64_t leaks;
    uint64_t check_errors; /* what could not be looked at */
    uint64_t corruptions_fixed;
    uint64_t leaks_fixed;
    uint64_t image_end_offset;
    uint64_t total_clusters; /* of the virtual disk */
    uint64_t allocated_clusters;
    uint64_t compressed_clusters;
    uint64_t fragmented_clusters;
};

/* 0 if the check ran to its end, whatever it found; -errno if it could not. */
int must_check qcow2_check(struct io_file *file, const char *path,
                           const struct qcow2_check_options *options,
                           struct qcow2_check_result *result, struct error *err);

/* Rewrites the refcounts of a clean image in entries of another width. */
int must_check qcow2_check_set_refcount_order(struct io_file *file, const char *path,
                                              uint32_t order, struct error *err);

/* For a dirty image that is opened for writing: rebuilds refcounts, clears the dirty bit. */
int must_check qcow2_repair_now(struct io_file *file, const char *path, struct error *err);

#endif
