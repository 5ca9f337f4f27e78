/* SPDX-License-Identifier: MIT */
/*
 * io_queue: one instance of io_uring and the requests on their way into it: what the loop's ring
 * (io_uring.c) and the I/O threads (io_thread.c) have in common. It belongs to the thread that
 * started it.
 */
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
    struct iovec *pieces; /* of registered memory */
    unsigned piece_count;
};

void io_queue_init(struct io_queue *queue);

/*
 * Opens the instance, for the calling thread. 0 or -errno. *defers: answers appear only in that
 * thread's own calls (Linux 6.1).
 */
int must_check io_queue_start(struct io_queue *queue, bool *defers);

/*
 * Prepares what is queued, as far as there is room, and submits all of it but the last call's
 * share, which the caller submits together with what else that call is to do.
 */
void io_queue_prepare(struct io_queue *queue);

/* CHECKs that a submission succeeded, or failed for reasons that pass. */
void io_queue_check(int result);

#endif
#endif
