/* SPDX-License-Identifier: MIT */
/*
 * memory_backing: where the memory of a guest comes from: the host's own, or a file.
 *
 * Memory of the host lies at a huge page's boundary, as the guest's does, so that the host can map
 * it in huge pages: it does so for private memory as it is delivered, for files only if told to.
 */
#ifndef VMM_MEMORY_BACKING_H
#define VMM_MEMORY_BACKING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct memory_backing {
    void *host;
    uint64_t size;
    int fd; /* -1: memory of the host */
};

/*
 * Takes no memory yet. `path`: a file, which is empty or of this size and nobody else's; a folder
 * for a file without a name (hugetlbfs); or NULL for memory of the host. `is_reserved`: the host
 * says now, not by a signal later, that a file's huge pages do not suffice. `what` is named by
 * errors.
 */
int must_check memory_backing_init(struct memory_backing *backing, uint64_t size, const char *path,
                                   bool is_reserved, const char *what, struct error *err);
void memory_backing_fini(struct memory_backing *backing);

#endif
