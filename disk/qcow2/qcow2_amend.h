/* SPDX-License-Identifier: MIT */
/* qcow2_amend: changes what an image's header promises. Blocks: for tools; nothing else has the
 * image open. */
#ifndef DISK_QCOW2_QCOW2_AMEND_H
#define DISK_QCOW2_QCOW2_AMEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/io.h"

struct qcow2_amend_options {
    uint32_t version; /* 2 or 3; 0 keeps it */
    bool sets_lazy_refcounts;
    bool lazy_refcounts;
    uint64_t refcount_width; /* 0 keeps it */
};

int must_check qcow2_amend(struct io_file *file, const char *path,
                           const struct qcow2_amend_options *options, struct error *err);

#endif
