/* SPDX-License-Identifier: MIT */
/*
 * io_uring: the ring that all files of a loop share. Requests of one loop turn are queued and go to
 * the kernel together, in the submit stage; what the kernel finishes at once (page cache hits) is
 * taken in the same stage, the rest is announced by an eventfd. What the kernel does in part, or
 * not at all, is finished in the pool.
 *
 * Memory that its owner keeps resident is registered (io_register_memory), so that its pages need
 * not be pinned each time. Files are not: the kernel would keep those of a killed process open, and
 * their locks with them, for up to a tenth of a second. Where the kernel defers its completions to
 * our own calls (Linux 6.1), answers cannot come behind our back, and so the eventfd is silenced
 * while we look at the ring anyway: during a submission, and while the loop waits actively.
 */
#include "build/config.h"
#include "disk/io_host.h"

#include <errno.h>

#ifdef HAVE_IO_URING

#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/spinner.h"

#define RING_ENTRIES 256u
#define BUFFER_MAX   (UINT64_C(1) << 30) /* the kernel takes no longer ones */
/* Of O_DIRECT in one call: three and more the kernel keeps from the disk until all are prepared. */
#define DIRECT_BATCH 2u

struct io_ring {
    struct list node; /* in rings */
    struct loop *loop;
    unsigned users;
    struct io_uring uring;
    struct loop_event completed;
    struct loop_task submit;
    struct list queued; /* requests that the kernel has not seen */
    unsigned in_kernel;
    bool defers; /* completions appear only in our own calls */
    struct spinner spinner;
    struct iovec *pieces; /* of registered memory */
    unsigned piece_count;
};

/* One ring for each loop, found by the loop: loops know nothing of disks. Loop thread only. */
static struct list rings = {&rings, &rings};

/* The registered piece in which all of `iov` lies, or -1. */
static int find_piece(const struct io_ring *ring, const struct iovec *iov)
{
    uintptr_t at = (uintptr_t)iov->iov_base;
    for (unsigned i = 0; i < ring->piece_count; i++) {
        uintptr_t base = (uintptr_t)ring->pieces[i].iov_base;
        if (at >= base && range_fits(at - base, iov->iov_len, ring->pieces[i].iov_len))
            return (int)i;
    }
    return -1;
}

static void prepare_transfer(struct io_ring *ring, struct io_uring_sqe *sqe,
                             struct io_request *request)
{
    int fd = request->file->fd;
    const struct iovec *iov = request->iov;
    unsigned count = (unsigned)MIN(request->iov_count, (size_t)IOV_MAX);
    bool is_one = count == 1 && iov->iov_len <= UINT32_MAX;
    int piece = is_one ? find_piece(ring, iov) : -1;
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

static void prepare(struct io_ring *ring, struct io_uring_sqe *sqe, struct io_request *request)
{
    int fd = request->file->fd;
    int zero_mode = request->kind == IO_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    switch (request->kind) {
    case IO_READ:
    case IO_WRITE:
        prepare_transfer(ring, sqe, request);
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
    ring->users++;                /* a completion may close the last file */
    loop_forget_time(ring->loop); /* the kernel may have copied for long */
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
    struct io_ring *ring = container_of(event, struct io_ring, completed);
    reap(ring);
    spinner_signalled(&ring->spinner);
}

/* There is something to reap, if only in the kernel's hands. */
static bool has_answers(const struct io_ring *ring)
{
    return io_uring_cq_ready(&ring->uring) ||
           __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN;
}

/*
 * The kernel sets IORING_SQ_TASKRUN by a locked operation and then looks at this flag; we set the
 * flag, fence, and look at that: one of us sees the other.
 */
static void set_eventfd(struct io_ring *ring, bool on)
{
    if (!ring->defers)
        return;
    unused_result(io_uring_cq_eventfd_toggle(&ring->uring, on));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static bool poll_ring(struct spinner *spinner)
{
    struct io_ring *ring = container_of(spinner, struct io_ring, spinner);
    if (!ring->in_kernel || !has_answers(ring))
        return false;
    reap(ring);
    return true;
}

static void on_turned(struct spinner *spinner, bool on)
{
    set_eventfd(container_of(spinner, struct io_ring, spinner), !on);
}

static bool is_direct(const struct io_request *request)
{
    return container_of(request->file, struct io_host, file)->direct;
}

/* Prepares what goes to the kernel in one call, as far as there is room. True if that is all. */
static bool fill(struct io_ring *ring)
{
    unsigned direct = 0;
    struct io_uring_sqe *sqe;
    /* No more in the kernel than there is room for their answers. */
    while (!list_is_empty(&ring->queued) && ring->in_kernel < 2 * RING_ENTRIES) {
        struct io_request *request = list_entry(ring->queued.next, struct io_request, node);
        direct += is_direct(request);
        if (direct > DIRECT_BATCH)
            return false;
        if (!(sqe = io_uring_get_sqe(&ring->uring)))
            return true;
        list_remove(&request->node);
        prepare(ring, sqe, request);
        ring->in_kernel++;
    }
    return true;
}

static void check_submitted(int result)
{
    CHECK(result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR);
}

static void on_submit(struct loop_task *task)
{
    struct io_ring *ring = container_of(task, struct io_ring, submit);
    ring->users++; /* a completion may close the last file */
    set_eventfd(ring, false);
    int result = 0;
    while (result >= 0 && !fill(ring))
        check_submitted(result = io_uring_submit(&ring->uring));
    check_submitted(ring->defers ? io_uring_submit_and_get_events(&ring->uring)
                                 : io_uring_submit(&ring->uring));
    reap(ring);
    set_eventfd(ring, !ring->spinner.is_on);
    if (io_uring_sq_ready(&ring->uring) || (ring->defers && has_answers(ring)))
        loop_task_queue(&ring->submit);
    io_ring_put(ring);
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

static int queue_init(struct io_ring *ring)
{
    const unsigned defer =
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    ring->defers = io_uring_queue_init(RING_ENTRIES, &ring->uring, defer) == 0;
    return ring->defers ? 0 : io_uring_queue_init(RING_ENTRIES, &ring->uring, 0);
}

/* Undoes itself on failure, freeing the ring. */
static int ring_start(struct io_ring *ring, struct loop *loop)
{
    int result = queue_init(ring);
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
    spinner_init(&ring->spinner, loop, poll_ring, on_turned);
    list_push_back(&rings, &ring->node);
    return ring;
}

static struct io_ring *find_ring(const struct loop *loop)
{
    list_for_each(node, &rings)
    {
        struct io_ring *ring = list_entry(node, struct io_ring, node);
        if (ring->loop == loop)
            return ring;
    }
    return NULL;
}

struct io_ring *io_ring_get(struct loop *loop, int *result)
{
    struct io_ring *ring = find_ring(loop);
    if (!ring)
        ring = ring_create(loop, result);
    if (ring)
        ring->users++;
    return ring;
}

static void forget_memory(struct io_ring *ring)
{
    if (ring->piece_count)
        CHECK(io_uring_unregister_buffers(&ring->uring) == 0);
    free(ring->pieces);
    ring->pieces = NULL;
    ring->piece_count = 0;
}

bool io_register_memory(struct loop *loop, void *base, uint64_t bytes)
{
    struct io_ring *ring = find_ring(loop);
    uint64_t count = (bytes + BUFFER_MAX - 1) / BUFFER_MAX;
    if (!ring || ring->pieces || count > IO_MEMORY_PIECES_MAX)
        return false;
    ring->pieces = calloc(count, sizeof(*ring->pieces));
    CHECK(ring->pieces);
    for (uint64_t i = 0; i < count; i++)
        ring->pieces[i] =
            (struct iovec){(char *)base + i * BUFFER_MAX, MIN(bytes - i * BUFFER_MAX, BUFFER_MAX)};
    int result = io_uring_register_buffers(&ring->uring, ring->pieces, (unsigned)count);
    if (result == 0)
        ring->piece_count = (unsigned)count;
    else
        forget_memory(ring);
    return result == 0;
}

void io_forget_memory(struct loop *loop)
{
    struct io_ring *ring = find_ring(loop);
    if (ring)
        forget_memory(ring);
}

void io_ring_put(struct io_ring *ring)
{
    CHECK(ring->users > 0);
    if (--ring->users)
        return;
    CHECK(!ring->in_kernel && list_is_empty(&ring->queued));
    loop_task_cancel(&ring->submit);
    spinner_fini(&ring->spinner);
    list_remove(&ring->node);
    forget_memory(ring);
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

bool io_register_memory(struct loop *loop, void *base, uint64_t bytes)
{
    (void)loop;
    (void)base;
    (void)bytes;
    return false;
}

void io_forget_memory(struct loop *loop)
{
    (void)loop;
}

#endif
