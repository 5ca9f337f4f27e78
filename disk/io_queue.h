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
    bool defers;          /* answers appear only in the owner's own calls (Linux 6.1) */
    struct iovec *pieces; /* of registered memory */
    unsigned piece_count;
};

void io_queue_init(struct io_queue *queue);

/* Opens the instance, for the calling thread. 0 or -errno. */
int must_check io_queue_start(struct io_queue *queue);

/*
 * To the kernel, in as few calls as it should be: what is queued, as far as there is room, and what
 * the caller prepared itself. With `waits` until there is an answer.
 */
void io_queue_submit(struct io_queue *queue, bool waits);

/* The next answer; without a request if it is to what the caller prepared. False: there is none. */
bool io_queue_answer(struct io_queue *queue, struct io_request **request, int *result);

#endif
#endif
