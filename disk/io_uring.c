/* SPDX-License-Identifier: MIT */
/*
 * io_uring: the ring that all files of a loop share. Requests of one loop turn are queued and go to
 * the kernel together, in the submit stage; what the kernel finishes at once (page cache hits) is
 * taken in the same stage, the rest is announced by an eventfd. What the kernel does in part, or
 * not at all, is finished in the pool.
 */
#include "build/config.h"
#include "disk/io_host.h"

#include <errno.h>

#ifdef HAVE_IO_URING

#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <stdlib.h>

#define RING_ENTRIES 256u

struct io_ring {
    struct list node; /* in rings */
    struct loop *loop;
    unsigned users;
    struct io_uring uring;
    struct loop_event completed;
    struct loop_task submit;
    struct list queued; /* requests that the kernel has not seen */
    unsigned in_kernel;
};

/* One ring for each loop, found by the loop: loops know nothing of disks. Loop thread only. */
static struct list rings = {&rings, &rings};

static void prepare(struct io_uring_sqe *sqe, struct io_request *request)
{
    int fd = request->file->fd;
    unsigned count = (unsigned)MIN(request->iov_count, (size_t)IOV_MAX);
    int zero_mode = request->kind == IO_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    switch (request->kind) {
    case IO_READ:
        io_uring_prep_readv(sqe, fd, request->iov, count, request->offset);
        break;
    case IO_WRITE:
        io_uring_prep_writev(sqe, fd, request->iov, count, request->offset);
        break;
    case IO_SYNC:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    case IO_ZERO:
    case IO_PUNCH:
        io_uring_prep_fallocate(sqe, fd, zero_mode | FALLOC_FL_KEEP_SIZE, (off_t)request->offset,
                                (off_t)request->bytes);
        break;
    case IO_TRUNCATE:
        UNREACHABLE("the pool truncates");
    }
    io_uring_sqe_set_data(sqe, request);
}

/* The kernel's answer: the end of the request, or the pool goes on where the kernel stopped. */
static void complete(struct io_request *request, int result)
{
    bool is_transfer = request->kind == IO_READ || request->kind == IO_WRITE;
    bool is_short = is_transfer && result >= 0 && (uint64_t)result < request->bytes;
    bool may_work_there = result == -EINTR || result == -EAGAIN ||
                          (result < 0 && !is_transfer && request->kind != IO_SYNC);
    if (is_short || may_work_there) {
        request->done_bytes = is_short ? (uint64_t)result : 0;
        io_pool_submit(request);
    } else {
        io_host_finish(request, MIN(result, 0));
    }
}

static void reap(struct io_ring *ring)
{
    struct io_uring_cqe *cqe;
    ring->users++; /* a completion may close the last file */
    while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        struct io_request *request = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&ring->uring, cqe);
        ring->in_kernel--;
        complete(request, result);
    }
    if (!list_is_empty(&ring->queued))
        loop_task_queue(&ring->submit);
    io_ring_put(ring);
}

static void on_completed(struct loop_event *event)
{
    reap(container_of(event, struct io_ring, completed));
}

static void on_submit(struct loop_task *task)
{
    struct io_ring *ring = container_of(task, struct io_ring, submit);
    struct io_uring_sqe *sqe;
    /* No more in the kernel than there is room for their answers. */
    while (!list_is_empty(&ring->queued) && ring->in_kernel < 2 * RING_ENTRIES &&
           (sqe = io_uring_get_sqe(&ring->uring))) {
        struct list *node = list_pop_front(&ring->queued);
        prepare(sqe, list_entry(node, struct io_request, node));
        ring->in_kernel++;
    }
    int result = io_uring_submit(&ring->uring);
    CHECK(result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR);
    reap(ring);
    if (io_uring_sq_ready(&ring->uring))
        loop_task_queue(&ring->submit);
}

void io_ring_submit(struct io_ring *ring, struct io_request *request)
{
    list_push_back(&ring->queued, &request->node);
    loop_task_queue(&ring->submit);
}

static void on_event_closed(struct loop_event *event)
{
    free(container_of(event, struct io_ring, completed));
}

/* Undoes itself on failure, freeing the ring. */
static int ring_start(struct io_ring *ring, struct loop *loop)
{
    int result = io_uring_queue_init(RING_ENTRIES, &ring->uring, 0);
    if (result) {
        free(ring);
        return result;
    }
    result = loop_event_init(loop, &ring->completed, on_completed);
    if (result) {
        io_uring_queue_exit(&ring->uring);
        free(ring);
        return result;
    }
    result = io_uring_register_eventfd(&ring->uring, ring->completed.fd);
    if (result) {
        io_uring_queue_exit(&ring->uring);
        loop_event_close(&ring->completed, on_event_closed);
    }
    return result;
}

static struct io_ring *ring_create(struct loop *loop, int *result)
{
    struct io_ring *ring = calloc(1, sizeof(*ring));
    *result = ring ? ring_start(ring, loop) : -ENOMEM;
    if (*result)
        return NULL;
    ring->loop = loop;
    list_init(&ring->queued);
    loop_task_init(loop, &ring->submit, LOOP_STAGE_SUBMIT, on_submit);
    list_push_back(&rings, &ring->node);
    return ring;
}

struct io_ring *io_ring_get(struct loop *loop, int *result)
{
    struct io_ring *found = NULL;
    list_for_each(node, &rings)
    {
        struct io_ring *ring = list_entry(node, struct io_ring, node);
        if (ring->loop == loop)
            found = ring;
    }
    if (!found)
        found = ring_create(loop, result);
    if (found)
        found->users++;
    return found;
}

void io_ring_put(struct io_ring *ring)
{
    CHECK(ring->users > 0);
    if (--ring->users)
        return;
    CHECK(!ring->in_kernel && list_is_empty(&ring->queued));
    loop_task_cancel(&ring->submit);
    list_remove(&ring->node);
    io_uring_queue_exit(&ring->uring);
    loop_event_close(&ring->completed, on_event_closed);
}

#else

struct io_ring *io_ring_get(struct loop *loop, int *result)
{
    (void)loop;
    *result = -ENOSYS;
    return NULL;
}

void io_ring_put(struct io_ring *ring)
{
    (void)ring;
}

void io_ring_submit(struct io_ring *ring, struct io_request *request)
{
    (void)ring;
    (void)request;
    UNREACHABLE("built without io_uring");
}

#endif
