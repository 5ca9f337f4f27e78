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
#include "disk/io_queue.h"

#include <errno.h>

#ifdef HAVE_IO_URING

#include <pthread.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/spinner.h"

#define BUFFER_MAX (UINT64_C(1) << 30) /* the kernel takes no longer ones */

struct io_ring {
    struct list node; /* in rings */
    struct loop *loop;
    unsigned users;
    struct io_queue queue;
    struct loop_event completed;
    struct loop_task submit;
    struct spinner spinner;
};

/* One ring for each loop, found by the loop: loops know nothing of disks. */
static struct list rings = {&rings, &rings};
static pthread_mutex_t rings_lock = PTHREAD_MUTEX_INITIALIZER;

static void reap(struct io_ring *ring)
{
    struct io_request *request;
    int result;
    ring->users++;                /* a completion may close the last file */
    loop_forget_time(ring->loop); /* the kernel may have copied for long */
    while (io_queue_answer(&ring->queue, &request, &result))
        io_host_answer(request, result);
    if (!list_is_empty(&ring->queue.queued))
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
    return io_uring_cq_ready(&ring->queue.uring) ||
           __atomic_load_n(ring->queue.uring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN;
}

/*
 * The kernel sets IORING_SQ_TASKRUN by a locked operation and then looks at this flag; we set the
 * flag, fence, and look at that: one of us sees the other.
 */
static void set_eventfd(struct io_ring *ring, bool on)
{
    if (!ring->queue.defers)
        return;
    unused_result(io_uring_cq_eventfd_toggle(&ring->queue.uring, on));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static bool poll_ring(struct spinner *spinner)
{
    struct io_ring *ring = container_of(spinner, struct io_ring, spinner);
    if (!ring->queue.in_kernel || !has_answers(ring))
        return false;
    reap(ring);
    return true;
}

static void on_turned(struct spinner *spinner, bool on)
{
    set_eventfd(container_of(spinner, struct io_ring, spinner), !on);
}

static void on_submit(struct loop_task *task)
{
    struct io_ring *ring = container_of(task, struct io_ring, submit);
    ring->users++; /* a completion may close the last file */
    set_eventfd(ring, false);
    io_queue_submit(&ring->queue);
    reap(ring);
    set_eventfd(ring, !ring->spinner.is_on);
    if (io_uring_sq_ready(&ring->queue.uring) || (ring->queue.defers && has_answers(ring)))
        loop_task_queue(&ring->submit);
    io_ring_put(ring);
}

void io_ring_submit(struct io_ring *ring, struct io_request *request)
{
    list_push_back(&ring->queue.queued, &request->node);
    loop_task_queue(&ring->submit);
}

static void on_event_closed(struct loop_event *event)
{
    free(container_of(event, struct io_ring, completed));
}

/* Undoes itself on failure, freeing the ring. */
static int ring_start(struct io_ring *ring, struct loop *loop)
{
    int result = io_queue_start(&ring->queue, loop->side);
    if (result) {
        free(ring);
        return result;
    }
    result = loop_event_init(loop, &ring->completed, on_completed);
    if (result) {
        io_uring_queue_exit(&ring->queue.uring);
        free(ring);
        return result;
    }
    result = io_uring_register_eventfd(&ring->queue.uring, ring->completed.fd);
    if (result) {
        io_uring_queue_exit(&ring->queue.uring);
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
    io_queue_init(&ring->queue);
    loop_task_init(loop, &ring->submit, LOOP_STAGE_SUBMIT, on_submit);
    spinner_init(&ring->spinner, loop, poll_ring, on_turned);
    pthread_mutex_lock(&rings_lock);
    list_push_back(&rings, &ring->node);
    pthread_mutex_unlock(&rings_lock);
    return ring;
}

static struct io_ring *find_ring(const struct loop *loop)
{
    struct io_ring *found = NULL;
    pthread_mutex_lock(&rings_lock);
    list_for_each(node, &rings)
    {
        struct io_ring *ring = list_entry(node, struct io_ring, node);
        if (ring->loop == loop)
            found = ring;
    }
    pthread_mutex_unlock(&rings_lock);
    return found;
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
    if (ring->queue.piece_count)
        CHECK(io_uring_unregister_buffers(&ring->queue.uring) == 0);
    free(ring->queue.pieces);
    ring->queue.pieces = NULL;
    ring->queue.piece_count = 0;
}

bool io_register_memory(struct loop *loop, void *base, uint64_t bytes)
{
    struct io_ring *ring = find_ring(loop);
    uint64_t count = (bytes + BUFFER_MAX - 1) / BUFFER_MAX;
    if (!ring || ring->queue.pieces || count > IO_MEMORY_PIECES_MAX)
        return false;
    ring->queue.pieces = calloc(count, sizeof(*ring->queue.pieces));
    CHECK(ring->queue.pieces);
    for (uint64_t i = 0; i < count; i++)
        ring->queue.pieces[i] =
            (struct iovec){(char *)base + i * BUFFER_MAX, MIN(bytes - i * BUFFER_MAX, BUFFER_MAX)};
    int result = io_uring_register_buffers(&ring->queue.uring, ring->queue.pieces, (unsigned)count);
    if (result == 0)
        ring->queue.piece_count = (unsigned)count;
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
    CHECK(!ring->queue.in_kernel && list_is_empty(&ring->queue.queued));
    loop_task_cancel(&ring->submit);
    spinner_fini(&ring->spinner);
    pthread_mutex_lock(&rings_lock);
    list_remove(&ring->node);
    pthread_mutex_unlock(&rings_lock);
    forget_memory(ring);
    io_uring_queue_exit(&ring->queue.uring);
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
