/* SPDX-License-Identifier: MIT */
/*
 * loop: libuv with tasks that run once a turn.
 *
 * A turn of libuv is timers, idle, poll, check, closing. Tasks run in our check handle, so they see
 * everything that the poll of the same turn brought. While a task is queued an idle handle is
 * active, which makes libuv poll without waiting.
 */
#include "base/loop.h"

#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/side_loop.h"
#include "base/spinner.h"

static void on_idle(uv_idle_t *idle)
{
    (void)idle;
}

static void run_stage(struct loop *loop, enum loop_stage stage)
{
    struct list batch;
    loop_forget_time(loop);
    list_init(&batch);
    list_splice_back(&batch, &loop->tasks[stage]);
    for (struct list *node; (node = list_pop_front(&batch));) {
        struct loop_task *task = list_entry(node, struct loop_task, node);
        if (--loop->tasks_queued == 0)
            uv_idle_stop(&loop->idle);
        task->run(task);
    }
}

/* Before the poll. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct loop *loop = prepare->data;
    loop->is_changed = false;
    bool found = side_loops_settle(loop);
    found |= spinner_run(loop, loop->tasks_queued || found);
    /* Those that the spinners' work took. */
    found |= side_loops_settle(loop);
    loop_forget_time(loop);
    if (!found)
        return;
    loop->stays_awake = true;
    uv_idle_start(&loop->idle, on_idle);
}

static void on_check(uv_check_t *check)
{
    struct loop *loop = check->data;
    loop->turns++;
    side_loops_turn(loop);
    if (loop->stays_awake && !loop->tasks_queued)
        uv_idle_stop(&loop->idle);
    loop->stays_awake = false;
    for (int stage = 0; loop->tasks_queued && stage < LOOP_STAGE_COUNT; stage++)
        run_stage(loop, (enum loop_stage)stage);
}

static unsigned count_cpus(void)
{
    cpu_set_t allowed;
    return sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? (unsigned)CPU_COUNT(&allowed) : 1;
}

int loop_init(struct loop *loop)
{
    loop->uv.backend_fd = -1;
    int result = uv_loop_init(&loop->uv);
    if (result) {
        if (loop->uv.backend_fd >= 0)
            close(loop->uv.backend_fd); /* libuv 1.44 leaves it open */
        return result;
    }
    loop->residents = 0;
    loop->thread = pthread_self();
    loop->side = NULL;
    list_init(&loop->taken);
    atomic_init(&loop->is_wanted, false);
    loop->is_changed = false;
    for (int i = 0; i < LOOP_STAGE_COUNT; i++)
        list_init(&loop->tasks[i]);
    loop->tasks_queued = 0;
    loop->turns = 0;
    loop->time_ns = 0;
    uv_check_init(&loop->uv, &loop->check);
    loop->check.data = loop;
    uv_check_start(&loop->check, on_check);
    uv_unref((uv_handle_t *)&loop->check);
    uv_idle_init(&loop->uv, &loop->idle);
    uv_prepare_init(&loop->uv, &loop->prepare);
    loop->prepare.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_unref((uv_handle_t *)&loop->prepare);
    list_init(&loop->spinners);
    loop->companions = 0;
    loop->host_cpus = count_cpus();
    loop->stays_awake = false;
    return 0;
}

void loop_run(struct loop *loop)
{
    loop_check_thread(loop);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void loop_run_once(struct loop *loop, bool wait)
{
    loop_check_thread(loop);
    uv_run(&loop->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

void loop_fini(struct loop *loop)
{
    CHECK(!loop->tasks_queued && list_is_empty(&loop->spinners) && list_is_empty(&loop->taken));
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&loop->uv) == 0);
}

bool loop_has_work(const struct loop *loop)
{
    /* A spinner that is on gets no signals: it must have given up before a loop sleeps. */
    return loop->is_changed || !list_is_empty(&loop->spinners) ||
           uv_backend_timeout(&loop->uv) == 0;
}

bool loop_is_on_thread(const struct loop *loop)
{
    return atomic_load_explicit(&loop->thread, memory_order_relaxed) == pthread_self();
}

void loop_check_thread(struct loop *loop)
{
    if (likely(loop_is_on_thread(loop)))
        return;
    CHECK(loop->side);
    side_loop_take(loop->side);
}

int loop_forked(struct loop *loop)
{
    loop->thread = pthread_self();
    return uv_loop_fork(&loop->uv);
}

uint64_t loop_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t loop_time_ns(struct loop *loop)
{
    if (!loop->time_ns)
        loop->time_ns = loop_now_ns();
    return loop->time_ns;
}

void loop_forget_time(struct loop *loop)
{
    loop->time_ns = 0;
}

void loop_task_init(struct loop *loop, struct loop_task *task, enum loop_stage stage,
                    void (*run)(struct loop_task *task))
{
    task->run = run;
    task->stage = stage;
    task->loop = loop;
    list_init(&task->node);
}

void loop_task_queue(struct loop_task *task)
{
    struct loop *loop = task->loop;
    loop_check_thread(loop);
    if (loop_task_is_queued(task))
        return;
    list_push_back(&loop->tasks[task->stage], &task->node);
    if (loop->tasks_queued++ == 0)
        uv_idle_start(&loop->idle, on_idle);
}

void loop_task_cancel(struct loop_task *task)
{
    struct loop *loop = task->loop;
    loop_check_thread(loop);
    if (!loop_task_is_queued(task))
        return;
    list_remove(&task->node);
    if (--loop->tasks_queued == 0)
        uv_idle_stop(&loop->idle);
}

bool loop_task_is_queued(const struct loop_task *task)
{
    return !list_is_empty(&task->node);
}

static struct loop *loop_of(const struct loop_watch *watch)
{
    return container_of(watch->poll.loop, struct loop, uv);
}

static void poll_changes(struct loop_watch *watch)
{
    struct loop *loop = loop_of(watch);
    loop_check_thread(loop);
    loop->is_changed = true;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct loop_watch *watch = poll->data;
    /* libuv reports POLLERR as UV_EBADF: let the owner's read or write find the real error. */
    watch->on_ready(watch, status < 0 ? watch->interest : events);
}

int loop_watch_init(struct loop *loop, struct loop_watch *watch, int fd,
                    void (*on_ready)(struct loop_watch *watch, int events))
{
    loop_check_thread(loop);
    int result = uv_poll_init(&loop->uv, &watch->poll, fd);
    if (result)
        return result;
    watch->poll.data = watch;
    watch->on_ready = on_ready;
    watch->interest = 0;
    return 0;
}

void loop_watch_set(struct loop_watch *watch, int events)
{
    bool stopped = !uv_is_active((uv_handle_t *)&watch->poll);
    if (events == watch->interest && stopped == !events)
        return;
    watch->interest = events;
    poll_changes(watch);
    if (events)
        uv_poll_start(&watch->poll, events, on_poll);
    else
        uv_poll_stop(&watch->poll);
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct loop_watch *watch = handle->data;
    if (watch->on_closed)
        watch->on_closed(watch);
}

void loop_watch_close(struct loop_watch *watch, void (*on_closed)(struct loop_watch *watch))
{
    watch->on_closed = on_closed;
    poll_changes(watch);
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

static void on_timer_ready(struct loop_watch *watch, int events)
{
    struct loop_timer *timer = container_of(watch, struct loop_timer, watch);
    uint64_t expirations;
    (void)events;
    if (read(timer->fd, &expirations, sizeof(expirations)) != sizeof(expirations) || !timer->armed)
        return;
    timer->armed = false;
    timer->on_expired(timer);
}

int loop_timer_init(struct loop *loop, struct loop_timer *timer,
                    void (*on_expired)(struct loop_timer *timer))
{
    timer->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timer->fd < 0)
        return -errno;
    timer->on_expired = on_expired;
    timer->armed = false;
    int result = loop_watch_init(loop, &timer->watch, timer->fd, on_timer_ready);
    if (result) {
        close(timer->fd);
        return result;
    }
    loop_watch_set(&timer->watch, UV_READABLE);
    return 0;
}

static void timer_set(struct loop_timer *timer, uint64_t deadline_ns)
{
    struct itimerspec when = {
        .it_value.tv_sec = (time_t)(deadline_ns / 1000000000u),
        .it_value.tv_nsec = (long)(deadline_ns % 1000000000u),
    };
    loop_check_thread(loop_of(&timer->watch));
    CHECK(timerfd_settime(timer->fd, TFD_TIMER_ABSTIME, &when, NULL) == 0);
}

void loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns)
{
    timer->armed = true;
    /* A zero value would disarm; one second short of 2^63 ns keeps tv_sec in range. */
    timer_set(timer, MIN(MAX(deadline_ns, 1), (uint64_t)INT64_MAX - 1000000000u));
}

void loop_timer_disarm(struct loop_timer *timer)
{
    if (!timer->armed)
        return;
    timer->armed = false;
    timer_set(timer, 0);
}

static void on_timer_watch_closed(struct loop_watch *watch)
{
    struct loop_timer *timer = container_of(watch, struct loop_timer, watch);
    if (timer->on_closed)
        timer->on_closed(timer);
}

void loop_timer_close(struct loop_timer *timer, void (*on_closed)(struct loop_timer *timer))
{
    timer->on_closed = on_closed;
    timer->armed = false;
    loop_watch_close(&timer->watch, on_timer_watch_closed);
    close(timer->fd);
}

static void on_event_ready(struct loop_watch *watch, int events)
{
    struct loop_event *event = container_of(watch, struct loop_event, watch);
    uint64_t count;
    (void)events;
    if (read(event->fd, &count, sizeof(count)) == sizeof(count))
        event->on_signal(event);
}

int loop_event_init(struct loop *loop, struct loop_event *event,
                    void (*on_signal)(struct loop_event *event))
{
    event->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (event->fd < 0)
        return -errno;
    event->on_signal = on_signal;
    int result = loop_watch_init(loop, &event->watch, event->fd, on_event_ready);
    if (result) {
        close(event->fd);
        return result;
    }
    loop_watch_set(&event->watch, UV_READABLE);
    return 0;
}

void loop_event_signal(struct loop_event *event)
{
    uint64_t one = 1;
    /* EAGAIN means that the counter is full, hence already readable. */
    unused_result(write(event->fd, &one, sizeof(one)) != sizeof(one));
}

static void on_event_watch_closed(struct loop_watch *watch)
{
    struct loop_event *event = container_of(watch, struct loop_event, watch);
    if (event->on_closed)
        event->on_closed(event);
}

void loop_event_close(struct loop_event *event, void (*on_closed)(struct loop_event *event))
{
    event->on_closed = on_closed;
    loop_watch_close(&event->watch, on_event_watch_closed);
    close(event->fd);
}

static void on_work(uv_work_t *request)
{
    struct loop_job *job = container_of(request, struct loop_job, request);
    job->work(job);
}

static void on_after_work(uv_work_t *request, int status)
{
    struct loop_job *job = container_of(request, struct loop_job, request);
    (void)status;
    job->on_done(job);
}

void loop_job_submit(struct loop *loop, struct loop_job *job)
{
    loop_check_thread(loop);
    CHECK(uv_queue_work(&loop->uv, &job->request, on_work, on_after_work) == 0);
}
