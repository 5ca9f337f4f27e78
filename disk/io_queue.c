/* SPDX-License-Identifier: MIT */
/* io_queue: turns requests into the entries of io_uring, call by call. */
#include "disk/io_queue.h"

#ifdef HAVE_IO_URING

#include <errno.h>
#include <fcntl.h>
#include <limits.h>

#include "base/bytes.h"

/* Of O_DIRECT in one call: three and more the kernel keeps from the disk until all are prepared. */
#define DIRECT_BATCH 2u

/* The registered piece in which all of `iov` lies, or -1. */
static int find_piece(const struct io_queue *queue, const struct iovec *iov)
{
    uintptr_t at = (uintptr_t)iov->iov_base;
    for (unsigned i = 0; i < queue->piece_count; i++) {
        uintptr_t base = (uintptr_t)queue->pieces[i].iov_base;
        if (at >= base && range_fits(at - base, iov->iov_len, queue->pieces[i].iov_len))
            return (int)i;
    }
    return -1;
}

static void prepare_transfer(struct io_queue *queue, struct io_uring_sqe *sqe,
                             struct io_request *request)
{
    int fd = request->file->fd;
    const struct iovec *iov = request->iov;
    unsigned count = (unsigned)MIN(request->iov_count, (size_t)IOV_MAX);
    bool is_one = count == 1 && iov->iov_len <= UINT32_MAX;
    int piece = is_one ? find_piece(queue, iov) : -1;
    int operation = request->kind == IO_READ ? IORING_OP_READV : IORING_OP_WRITEV;
    if (piece >= 0)
        operation = request->kind == IO_READ ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;
    else if (is_one)
        operation = request->kind == IO_READ ? IORING_OP_READ : IORING_OP_WRITE;
    io_uring_prep_rw(operation, sqe, fd, is_one ? iov->iov_base : iov,
                     is_one ? (unsigned)iov->iov_len : count, request->offset);
    if (piece >= 0)
        sqe->buf_index = (uint16_t)piece;
}

static void prepare(struct io_queue *queue, struct io_uring_sqe *sqe, struct io_request *request)
{
    int fd = request->file->fd;
    int zero_mode = request->kind == IO_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    switch (request->kind) {
    case IO_READ:
    case IO_WRITE:
        prepare_transfer(queue, sqe, request);
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

static bool is_direct(const struct io_request *request)
{
    return container_of(request->file, struct io_host, file)->direct;
}

/* Prepares what goes to the kernel in one call, as far as there is room. True if that is all. */
static bool fill(struct io_queue *queue)
{
    unsigned direct = 0;
    struct io_uring_sqe *sqe;
    /* No more in the kernel than there is room for their answers. */
    while (!list_is_empty(&queue->queued) && queue->in_kernel < IO_QUEUE_MAX) {
        struct io_request *request = list_entry(queue->queued.next, struct io_request, node);
        direct += is_direct(request);
        if (direct > DIRECT_BATCH)
            return false;
        if (!(sqe = io_uring_get_sqe(&queue->uring)))
            return true;
        list_remove(&request->node);
        prepare(queue, sqe, request);
        queue->in_kernel++;
    }
    return true;
}

static void check_submitted(int result)
{
    CHECK(result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR);
}

void io_queue_submit(struct io_queue *queue)
{
    struct io_uring *uring = &queue->uring;
    int result = 0;
    while (result >= 0 && !fill(queue))
        check_submitted(result = io_uring_submit(uring));
    if (queue->defers)
        check_submitted(io_uring_submit_and_get_events(uring));
    else
        check_submitted(io_uring_submit(uring));
}

bool io_queue_answer(struct io_queue *queue, struct io_request **request, int *result)
{
    struct io_uring_cqe *cqe;
    if (io_uring_peek_cqe(&queue->uring, &cqe))
        return false;
    *request = io_uring_cqe_get_data(cqe);
    *result = cqe->res;
    io_uring_cqe_seen(&queue->uring, cqe);
    queue->in_kernel--;
    return true;
}

void io_queue_init(struct io_queue *queue)
{
    list_init(&queue->queued);
}

/* The kernel defers only for one thread, for good. */
int io_queue_start(struct io_queue *queue, bool is_shared)
{
    const unsigned defer =
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    queue->defers = !is_shared && io_uring_queue_init(IO_QUEUE_ENTRIES, &queue->uring, defer) == 0;
    return queue->defers ? 0 : io_uring_queue_init(IO_QUEUE_ENTRIES, &queue->uring, 0);
}

#endif
