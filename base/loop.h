/* SPDX-License-Identifier: MIT */
/*
 * loop: the event loop of a machine, over libuv, and its house rules.
 *
 * Callbacks enqueue; work is done once per loop turn. A `loop_task` is that "once per turn": queued
 * any number of times, it runs once, in its stage, after the poll of the turn in which it was
 * queued. A task queued again while its stage runs waits for the next turn, so nothing starves the
 * poll. Everything here belongs to the loop's thread unless its comment says otherwise. A loop may
 * have side loops, which its thread takes for a while when it needs them (base/side_loop.h).
 *
 * Closing is asynchronous: the memory of a watch or timer may be reused only from its on_closed.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/list.h"

/* In the order in which they run within one turn. */
enum loop_stage {
    LOOP_STAGE_DRAIN,    /* pop what guests, peers and clients queued; start requests */
    LOOP_STAGE_COMPLETE, /* completions that need no I/O */
    LOOP_STAGE_SUBMIT,   /* one submission to the host for all of the turn */
    LOOP_STAGE_NOTIFY,   /* publish used entries, decide interrupts, write replies */
    LOOP_STAGE_COUNT,
};

struct side_loop;

struct loop {
    uv_loop_t uv;
    unsigned residents; /* files, and whatever else has to go before the loop may */
    /* Private. */
    _Atomic(pthread_t) thread; /* that may use it; 0: none at the moment */
    struct side_loop *side;    /* what it is the loop of; or NULL */
    struct list taken;         /* side loops that this one's thread has taken */
    atomic_bool is_wanted;     /* a side loop: by the thread of its home */
    bool is_changed;           /* what is polled: the poll does not know yet */
    uv_prepare_t prepare;
    struct list spinners; /* those that are on: base/spinner.h */
    unsigned companions, host_cpus;
    bool stays_awake;
    uv_check_t check;
    uv_idle_t idle;
    struct list tasks[LOOP_STAGE_COUNT];
    unsigned tasks_queued;
    uint64_t turns;
    uint64_t time_ns; /* 0: not read yet */
};

struct loop_task {
    void (*run)(struct loop_task *task);
    enum loop_stage stage;
    /* Private. */
    struct list node;
    struct loop *loop;
};

/* The calling thread becomes the loop's thread. 0 or -errno. */
int must_check loop_init(struct loop *loop);

/* Runs until nothing is active any more. May be called again. */
void loop_run(struct loop *loop);

/* Runs one turn; waits for an event only if `wait` and no task is queued. */
void loop_run_once(struct loop *loop, bool wait);

/* Something is to be done that no descriptor tells of: the next turn must not wait. */
bool loop_has_work(const struct loop *loop);

/* All watches and timers must be closed; runs the pending close callbacks. CHECKs that none leaked.
 */
void loop_fini(struct loop *loop);

/*
 * CHECKs that the caller is on the loop's thread: for the choke points of every layer. The thread of
 * a side loop's home takes the side loop by it.
 */
void loop_check_thread(struct loop *loop);
/* Whether the caller is on it, now. */
bool loop_is_on_thread(const struct loop *loop);

/* In the child of a fork, before anything is watched: the loop is the child's own. 0 or -errno. */
int must_check loop_forked(struct loop *loop);

/* Monotonic time in nanoseconds; any thread. */
uint64_t loop_now_ns(void);

/*
 * The same, read once for each stage of a turn: for what is stamped by the hundred. A call that
 * works for long in between has it read anew by loop_forget_time.
 */
uint64_t loop_time_ns(struct loop *loop);
void loop_forget_time(struct loop *loop);

void loop_task_init(struct loop *loop, struct loop_task *task, enum loop_stage stage,
                    void (*run)(struct loop_task *task));
/* Idempotent until the task runs. */
void loop_task_queue(struct loop_task *task);
/* Takes the task back if it is queued. */
void loop_task_cancel(struct loop_task *task);
bool loop_task_is_queued(const struct loop_task *task);

/* A file descriptor that is polled; the watch does not own it. */
struct loop_watch {
    void (*on_ready)(struct loop_watch *watch, int events); /* UV_READABLE | UV_WRITABLE | ... */
    void *opaque;
    /* Private. */
    uv_poll_t poll;
    int interest;
    void (*on_closed)(struct loop_watch *watch);
};

/* `fd` must be pollable (no regular file). Starts with no interest. 0 or -errno. */
int must_check loop_watch_init(struct loop *loop, struct loop_watch *watch, int fd,
                               void (*on_ready)(struct loop_watch *watch, int events));
/* Sets the events waited for; 0 for none. Cheap if unchanged. */
void loop_watch_set(struct loop_watch *watch, int events);
/* `on_closed` may be NULL. The descriptor may be closed as soon as this returns. */
void loop_watch_close(struct loop_watch *watch, void (*on_closed)(struct loop_watch *watch));

/* A one-shot timer on the monotonic clock, in nanoseconds (a timerfd: libuv's own are in ms). */
struct loop_timer {
    void (*on_expired)(struct loop_timer *timer);
    void *opaque;
    /* Private. */
    struct loop_watch watch;
    int fd;
    bool armed;
    void (*on_closed)(struct loop_timer *timer);
};

int must_check loop_timer_init(struct loop *loop, struct loop_timer *timer,
                               void (*on_expired)(struct loop_timer *timer));
/* Expires once at loop_now_ns() >= deadline_ns; a deadline in the past expires on the next turn. */
void loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns);
void loop_timer_disarm(struct loop_timer *timer);
void loop_timer_close(struct loop_timer *timer, void (*on_closed)(struct loop_timer *timer));

/*
 * An eventfd that the loop drains: any thread may signal it, any number of signals before the loop
 * looks give one call.
 */
struct loop_event {
    void (*on_signal)(struct loop_event *event);
    void *opaque;
    int fd; /* may be handed out, for example as an ioeventfd */
    /* Private. */
    struct loop_watch watch;
    void (*on_closed)(struct loop_event *event);
};

int must_check loop_event_init(struct loop *loop, struct loop_event *event,
                               void (*on_signal)(struct loop_event *event));
/* Any thread. */
void loop_event_signal(struct loop_event *event);
void loop_event_close(struct loop_event *event, void (*on_closed)(struct loop_event *event));

/* A leaf job for the pool. `work` runs on a pool thread and touches only its own job. */
struct loop_job {
    void (*work)(struct loop_job *job);
    void (*on_done)(struct loop_job *job); /* on the loop */
    /* Private. */
    uv_work_t request;
};

void loop_job_submit(struct loop *loop, struct loop_job *job);

#endif
