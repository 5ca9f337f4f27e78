/* SPDX-License-Identifier: MIT */
/* io_queue: one instance of io_uring and the requests on their way into it. */
#ifndef DISK_IO_QUEUE_H
#define DISK_IO_QUEUE_H

#include "build/config.h"
#include "disk/io_host.h"

#ifdef HAVE_IO_URING

#include <liburing.h>

#define IO_QUEUE_ENTRIES 256u
#define IO_QUEUE_MAX     (2 * IO_QUEUE_ENTRIES) /* requests in the kernel's hands */

struct io_queue {
    struct io_uring uring;
    struct list queued; /* requests that the kernel has not seen */
    unsigned in_kernel;
    bool defers;          /* answers appear only in the owner's own calls (Linux 6.1) */
    struct iovec *pieces; /* of registered memory */
    unsigned piece_count;
};

void io_queue_init(struct io_queue *queue);

/* Opens the instance; `is_shared`: for other threads, too, which take turns. 0 or -errno. */
int must_check io_queue_start(struct io_queue *queue, bool is_shared);

/* To the kernel, in as few calls as it should be: what is queued, as far as there is room. */
void io_queue_submit(struct io_queue *queue);

/* The next answer. False: there is none. */
bool io_queue_answer(struct io_queue *queue, struct io_request **request, int *result);

#endif
#endif
