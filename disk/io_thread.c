/* SPDX-License-Identifier: MIT */
/*
 * io_thread: two boxes of requests between the loop and the thread, under one lock that is held
 * while lists are moved and no longer. The loop fills the inbox once a turn; the thread takes all
 * of it, hands it to the kernel in few calls, and leaves what the kernel answered in the outbox.
 * Whoever waits is woken by the other: the loop by an event, when the outbox was empty; the thread
 * by an eventfd that it reads through its own ring, when it had said that it would sleep.
 */
#include "disk/io_thread.h"

#include <errno.h>
#include <string.h>

#include "base/thread.h"
#include "disk/io_queue.h"

#ifdef HAVE_IO_URING

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define THREAD_NAME_MAX 15 /* Linux's */

struct io_thread {
    struct loop *loop;
    unsigned users; /* files, and requests that are not answered */
    struct list queued;
    struct loop_task hand_over;
    struct loop_event answered;
    void (*on_closed)(void *opaque);
    void *opaque;
    pthread_t thread;
    int wake_fd;
    char name[THREAD_NAME_MAX + 1];
    /* Before `started` is posted the thread's, then to be read only. */
    sem_t started;
    int start_result;
    pid_t id;
    /* The thread's. */
    struct io_queue queue;
    bool awaits_wake; /* a read of wake_fd is in the kernel */
    uint64_t wakes;
    /* Both sides', under the lock. */
    pthread_mutex_t lock;
    struct list inbox, outbox;
    bool asleep; /* the thread waits, or is about to, and has seen an empty inbox */
    bool stops;
};

/* What the loop handed over is the thread's now. False if it is to end. */
static bool take(struct io_thread *thread)
{
    pthread_mutex_lock(&thread->lock);
    list_splice_back(&thread->queue.queued, &thread->inbox);
    thread->asleep = list_is_empty(&thread->queue.queued);
    bool goes_on = !thread->stops;
    pthread_mutex_unlock(&thread->lock);
    return goes_on;
}

static void give(struct io_thread *thread, struct list *answers)
{
    if (list_is_empty(answers))
        return;
    pthread_mutex_lock(&thread->lock);
    bool was_empty = list_is_empty(&thread->outbox);
    list_splice_back(&thread->outbox, answers);
    pthread_mutex_unlock(&thread->lock);
    if (was_empty)
        loop_event_signal(&thread->answered);
}

static void await_wake(struct io_thread *thread)
{
    struct io_uring_sqe *sqe = thread->awaits_wake ? NULL : io_uring_get_sqe(&thread->queue.uring);
    if (!sqe)
        return;
    io_uring_prep_read(sqe, thread->wake_fd, &thread->wakes, sizeof(thread->wakes), 0);
    io_uring_sqe_set_data(sqe, NULL);
    thread->awaits_wake = true;
}

/* One call for what is queued; or, with nothing to say to the kernel, a wait for its answers. */
static void submit(struct io_thread *thread)
{
    struct io_queue *queue = &thread->queue;
    bool waits = list_is_empty(&queue->queued) || queue->in_kernel == IO_QUEUE_MAX;
    await_wake(thread);
    io_queue_submit(queue, waits);
}

static void reap(struct io_thread *thread)
{
    struct io_request *request;
    struct list answers;
    int result;
    list_init(&answers);
    while (io_queue_answer(&thread->queue, &request, &result)) {
        if (!request) {
            thread->awaits_wake = false;
            continue;
        }
        request->result = result;
        list_push_back(&answers, &request->node);
    }
    give(thread, &answers);
}

static void *run(void *opaque)
{
    struct io_thread *thread = opaque;
    pthread_setname_np(pthread_self(), thread->name);
    thread->id = gettid();
    thread->start_result = io_queue_start(&thread->queue);
    int result = thread->start_result;
    sem_post(&thread->started);
    if (result)
        return NULL;
    while (take(thread)) {
        submit(thread);
        reap(thread);
    }
    io_uring_queue_exit(&thread->queue.uring);
    return NULL;
}

static void wake(struct io_thread *thread)
{
    const uint64_t one = 1;
    CHECK(write(thread->wake_fd, &one, sizeof(one)) == sizeof(one));
}

static void on_hand_over(struct loop_task *task)
{
    struct io_thread *thread = container_of(task, struct io_thread, hand_over);
    pthread_mutex_lock(&thread->lock);
    list_splice_back(&thread->inbox, &thread->queued);
    bool was_asleep = thread->asleep;
    thread->asleep = false;
    pthread_mutex_unlock(&thread->lock);
    if (was_asleep)
        wake(thread);
}

static void on_answered(struct loop_event *event)
{
    struct io_thread *thread = container_of(event, struct io_thread, answered);
    struct list answers;
    list_init(&answers);
    pthread_mutex_lock(&thread->lock);
    list_splice_back(&answers, &thread->outbox);
    pthread_mutex_unlock(&thread->lock);
    for (struct list *node; (node = list_pop_front(&answers));) {
        struct io_request *request = list_entry(node, struct io_request, node);
        thread->users--;
        io_host_answer(request, request->result);
    }
}

void io_thread_submit(struct io_thread *thread, struct io_request *request)
{
    thread->users++;
    list_push_back(&thread->queued, &request->node);
    loop_task_queue(&thread->hand_over);
}

static void on_event_closed(struct loop_event *event)
{
    struct io_thread *thread = container_of(event, struct io_thread, answered);
    void (*on_closed)(void *) = thread->on_closed;
    void *opaque = thread->opaque;
    close(thread->wake_fd);
    pthread_mutex_destroy(&thread->lock);
    sem_destroy(&thread->started);
    free(thread);
    if (on_closed)
        on_closed(opaque);
}

static int start_thread(struct io_thread *thread)
{
    int result = thread_start(&thread->thread, run, thread);
    if (result)
        return result;
    while (sem_wait(&thread->started) && errno == EINTR)
        continue;
    if (thread->start_result)
        pthread_join(thread->thread, NULL);
    return thread->start_result;
}

static int init(struct io_thread *thread, struct loop *loop, const char *id)
{
    thread->loop = loop;
    snprintf(thread->name, sizeof(thread->name), "IO %s", id);
    list_init(&thread->queued);
    list_init(&thread->inbox);
    list_init(&thread->outbox);
    io_queue_init(&thread->queue);
    loop_task_init(loop, &thread->hand_over, LOOP_STAGE_SUBMIT, on_hand_over);
    CHECK(pthread_mutex_init(&thread->lock, NULL) == 0 && sem_init(&thread->started, 0, 0) == 0);
    thread->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (thread->wake_fd < 0)
        return -errno;
    return loop_event_init(loop, &thread->answered, on_answered);
}

static int undo_init(struct io_thread *thread, int result)
{
    if (thread->wake_fd >= 0)
        close(thread->wake_fd);
    free(thread);
    return result;
}

static int make(struct loop *loop, const char *id, struct io_thread **out)
{
    struct io_thread *thread = calloc(1, sizeof(*thread));
    if (!thread)
        return -ENOMEM;
    int result = init(thread, loop, id);
    if (result)
        return undo_init(thread, result);
    result = start_thread(thread);
    if (result) {
        loop_event_close(&thread->answered, on_event_closed);
        return result;
    }
    *out = thread;
    return 0;
}

int io_thread_create(struct loop *loop, const char *id, struct io_thread **out, struct error *err)
{
    loop_check_thread(loop);
    int result = make(loop, id, out);
    if (result)
        return error_set(err, -result,
                         "cannot start I/O thread '%s', which needs io_uring: %s; leave -object "
                         "iothread and iothread= out",
                         id, strerror(-result));
    return 0;
}

void io_thread_close(struct io_thread *thread, void (*on_closed)(void *opaque), void *opaque)
{
    loop_check_thread(thread->loop);
    CHECK(!thread->users && list_is_empty(&thread->queued));
    thread->on_closed = on_closed;
    thread->opaque = opaque;
    pthread_mutex_lock(&thread->lock);
    thread->stops = true;
    pthread_mutex_unlock(&thread->lock);
    wake(thread);
    pthread_join(thread->thread, NULL); /* it has nothing to wait for */
    loop_task_cancel(&thread->hand_over);
    loop_event_close(&thread->answered, on_event_closed);
}

pid_t io_thread_id(const struct io_thread *thread)
{
    return thread->id;
}

void io_thread_get(struct io_thread *thread)
{
    thread->users++;
}

void io_thread_put(struct io_thread *thread)
{
    CHECK(thread->users > 0);
    thread->users--;
}

unsigned io_thread_users(const struct io_thread *thread)
{
    return thread->users;
}

#else

int io_thread_create(struct loop *loop, const char *id, struct io_thread **out, struct error *err)
{
    (void)loop;
    (void)out;
    return error_set(err, ENOSYS,
                     "cannot start I/O thread '%s': this evisor was built without io_uring; leave "
                     "-object iothread and iothread= out",
                     id);
}

/* There is none to call these with. */

void io_thread_close(struct io_thread *thread, void (*on_closed)(void *opaque), void *opaque)
{
    (void)thread;
    (void)on_closed;
    (void)opaque;
    UNREACHABLE("no I/O thread was made");
}

pid_t io_thread_id(const struct io_thread *thread)
{
    (void)thread;
    UNREACHABLE("no I/O thread was made");
}

void io_thread_get(struct io_thread *thread)
{
    (void)thread;
    UNREACHABLE("no I/O thread was made");
}

void io_thread_put(struct io_thread *thread)
{
    (void)thread;
    UNREACHABLE("no I/O thread was made");
}

unsigned io_thread_users(const struct io_thread *thread)
{
    (void)thread;
    UNREACHABLE("no I/O thread was made");
}

void io_thread_submit(struct io_thread *thread, struct io_request *request)
{
    (void)thread;
    (void)request;
    UNREACHABLE("no I/O thread was made");
}

#endif
