/* SPDX-License-Identifier: MIT */
/* io_host: what the two engines under io share: the file of the host, and its blocking execution.
 */
#ifndef DISK_IO_HOST_H
#define DISK_IO_HOST_H

#include "disk/io.h"

struct io_ring;

struct io_host {
    struct io_file file;
    struct io_ring *ring; /* NULL: the pool */
    bool direct;          /* opened with O_DIRECT */
    bool no_sync;
    uint32_t alignment; /* of offsets, lengths and memory under O_DIRECT */
    unsigned in_flight; /* requests handed to an engine */
    bool exclusive;     /* an unaligned write runs alone */
    struct list held;   /* requests that wait for the exclusive one, in order */
    struct loop_job closing;
    void (*on_closed)(void *opaque);
    void *opaque;
};

/* Runs the rest of a request (from done_bytes on) with blocking calls. Any thread. 0 or -errno. */
int io_execute(struct io_host *host, struct io_request *request);

/* The request goes to the pool; the answer comes through io_host_finish. */
void io_pool_submit(struct io_request *request);

/* Ends a request: takes it off the books, tells its owner, lets held ones go. */
void io_host_finish(struct io_request *request, int result);

/* The kernel's answer (a length, 0 or -errno): the end, or the pool goes on where it stopped. */
void io_host_answer(struct io_request *request, int result);

/* A ring shared by all files of one loop; NULL with *result = -errno where the host has none. */
struct io_ring *io_ring_get(struct loop *loop, int *result);
void io_ring_put(struct io_ring *ring);
void io_ring_submit(struct io_ring *ring, struct io_request *request);

#endif
