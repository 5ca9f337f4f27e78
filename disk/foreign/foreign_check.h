/* SPDX-License-Identifier: MIT */
/* foreign_check: whether all that a foreign image maps lies in its file, and only once. Blocks. */
#ifndef DISK_FOREIGN_FOREIGN_CHECK_H
#define DISK_FOREIGN_FOREIGN_CHECK_H

#include "disk/foreign/foreign.h"

struct foreign_check_options {
    const char *path;
    const char *format;
    bool no_lock;
    void (*on_message)(void *opaque, const char *line); /* one for each corruption, up to a limit */
    void *opaque;
};

struct foreign_check_result {
    uint64_t corruptions;
};

/* `file` stays the caller's. */
int must_check foreign_check(struct io_file *file, const struct foreign_check_options *options,
                             struct foreign_check_result *out, struct error *err);

#endif
