/* SPDX-License-Identifier: MIT */
/*
 * side_loop: whose turn it is, under one lock that nobody holds while a loop turns.
 *
 * The thread waits for events outside of the loop, by polling the loop's own descriptor, and turns
 * the loop only if it finds it free. The home says that it wants the loop and waits for the end of
 * a turn; the thread lets it go first, or a busy loop would never be taken.
 */
#include "base/side_loop.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/thread.h"

#define THREAD_NAME_MAX 15 /* Linux's */

struct side_loop {
    struct loop loop;
    struct loop *home;
    struct side_loop_options options;
    struct list node;         /* home->taken */
    bool has_settled;         /* at home, for longer than a turn */
    struct loop_watch watch;  /* the home's, of the loop's descriptor */
    struct loop_event called; /* the home's */
    struct loop_event wake;   /* the loop's own */
    struct loop_task ending;  /* the home's */
    void (*on_closed)(void *opaque);
    void *opaque;
    pthread_t thread;
    char name[THREAD_NAME_MAX + 1];
    /* Before `started` is posted the thread's, then to be read only. */
    sem_t started;
    pid_t thread_id;
    /* Both sides', under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t is_free_for_home, is_free_for_thread;
    bool is_turning; /* by the thread */
    bool is_taken;   /* by the home, which alone changes it */
    bool ends;
};

static bool is_wanted(const struct side_loop *side)
{
    return atomic_load_explicit(&side->loop.is_wanted, memory_order_relaxed);
}

/* Under the lock. */
static void set_thread(struct side_loop *side, pthread_t thread)
{
    atomic_store_explicit(&side->loop.thread, thread, memory_order_relaxed);
}

/* --- The thread --- */

static bool begin_turn(struct side_loop *side)
{
    pthread_mutex_lock(&side->lock);
    while ((side->is_taken || is_wanted(side)) && !side->ends)
        pthread_cond_wait(&side->is_free_for_thread, &side->lock);
    bool goes_on = !side->ends;
    side->is_turning = goes_on;
    if (goes_on)
        set_thread(side, pthread_self());
    pthread_mutex_unlock(&side->lock);
    return goes_on;
}

static void end_turn(struct side_loop *side)
{
    pthread_mutex_lock(&side->lock);
    side->is_turning = false;
    set_thread(side, 0);
    if (is_wanted(side))
        pthread_cond_signal(&side->is_free_for_home);
    pthread_mutex_unlock(&side->lock);
}

/* Until the loop has nothing to do, or the home wants it. True: there is nothing to do. */
static bool turn(struct side_loop *side)
{
    bool is_idle;
    do {
        loop_run_once(&side->loop, false);
        is_idle = !loop_has_work(&side->loop);
    } while (!is_idle && !is_wanted(side));
    return is_idle;
}

static void *run(void *opaque)
{
    struct side_loop *side = opaque;
    struct pollfd events = {.fd = uv_backend_fd(&side->loop.uv), .events = POLLIN};
    pthread_setname_np(pthread_self(), side->name);
    side->thread_id = gettid();
    sem_post(&side->started);
    while (begin_turn(side)) {
        bool is_idle = turn(side);
        end_turn(side);
        if (is_idle)
            unused_result(poll(&events, 1, -1));
    }
    return NULL;
}

/* --- The home --- */

/* Loops run only while something keeps them alive, which what was taken does. */
static void keep_alive(struct loop *home)
{
    uv_handle_t *prepare = (uv_handle_t *)&home->prepare;
    if (list_is_empty(&home->taken))
        uv_unref(prepare);
    else
        uv_ref(prepare);
}

void side_loop_take(struct side_loop *side)
{
    CHECK(loop_is_on_thread(side->home) && !side->is_taken);
    pthread_mutex_lock(&side->lock);
    atomic_store_explicit(&side->loop.is_wanted, true, memory_order_relaxed);
    while (side->is_turning)
        pthread_cond_wait(&side->is_free_for_home, &side->lock);
    atomic_store_explicit(&side->loop.is_wanted, false, memory_order_relaxed);
    side->is_taken = true;
    set_thread(side, pthread_self());
    pthread_mutex_unlock(&side->lock);
    loop_forget_time(&side->loop);
    list_push_back(&side->home->taken, &side->node);
    keep_alive(side->home);
}

bool side_loop_is_taken(const struct side_loop *side)
{
    return side->is_taken;
}

/* The thread may sleep in its poll, and what was queued here wakes nobody. */
static void let_go(struct side_loop *side)
{
    bool has_work = loop_has_work(&side->loop);
    side->has_settled = false;
    loop_watch_set(&side->watch, 0);
    pthread_mutex_lock(&side->lock);
    side->is_taken = false;
    set_thread(side, 0);
    pthread_cond_signal(&side->is_free_for_thread);
    pthread_mutex_unlock(&side->lock);
    if (has_work)
        loop_event_signal(&side->wake);
}

static bool stays(const struct side_loop *side)
{
    const struct side_loop_options *options = &side->options;
    return !side->thread_id || (options->stays && options->stays(options->opaque));
}

/* One that was asked may have taken another. */
static bool all_have_settled(const struct loop *home)
{
    list_for_each(node, &home->taken)
    {
        if (!list_entry(node, struct side_loop, node)->has_settled)
            return false;
    }
    return true;
}

bool side_loops_settle(struct loop *home)
{
    bool is_busy = false;
    struct list batch;
    if (likely(list_is_empty(&home->taken)))
        return false;
    list_init(&batch);
    list_splice_back(&batch, &home->taken);
    for (struct list *node; (node = list_pop_front(&batch));) {
        struct side_loop *side = list_entry(node, struct side_loop, node);
        if (stays(side)) {
            list_push_back(&home->taken, node);
            loop_watch_set(&side->watch, UV_READABLE);
            loop_forget_time(&side->loop); /* the home may wait for long */
            side->has_settled = true;
            is_busy |= loop_has_work(&side->loop);
        } else {
            let_go(side);
        }
    }
    keep_alive(home);
    return is_busy || !all_have_settled(home);
}

void side_loops_turn(struct loop *home)
{
    struct list batch; /* a turn may take and close any of them */
    if (likely(list_is_empty(&home->taken)))
        return;
    list_init(&batch);
    list_splice_back(&batch, &home->taken);
    for (struct list *node; (node = list_pop_front(&batch));) {
        struct side_loop *side = list_entry(node, struct side_loop, node);
        list_push_back(&home->taken, node);
        if (side->has_settled)
            loop_run_once(&side->loop, false);
    }
}

static void on_called(struct loop_event *event)
{
    struct side_loop *side = container_of(event, struct side_loop, called);
    loop_check_thread(&side->loop);
    side->options.on_called(side->options.opaque);
}

void side_loop_call_home(struct side_loop *side)
{
    CHECK(side->options.on_called);
    loop_event_signal(&side->called);
}

struct loop *side_loop_of(struct side_loop *side)
{
    return &side->loop;
}

pid_t side_loop_thread_id(const struct side_loop *side)
{
    return side->thread_id;
}

/* --- From beginning to end --- */

/* The next turn begins after it. */
static void on_wake(struct loop_event *event)
{
    (void)event;
}

/* It is turned after the poll. */
static void on_ready(struct loop_watch *watch, int events)
{
    (void)watch, (void)events;
}

static void on_called_closed(struct loop_event *event)
{
    struct side_loop *side = container_of(event, struct side_loop, called);
    void (*on_closed)(void *) = side->on_closed;
    void *opaque = side->opaque;
    free(side);
    if (on_closed)
        on_closed(opaque);
}

static void on_watch_closed(struct loop_watch *watch)
{
    struct side_loop *side = container_of(watch, struct side_loop, watch);
    loop_event_close(&side->called, on_called_closed);
}

static void end_thread(struct side_loop *side)
{
    pthread_mutex_lock(&side->lock);
    side->ends = true;
    pthread_cond_signal(&side->is_free_for_thread);
    pthread_mutex_unlock(&side->lock);
    loop_event_signal(&side->wake);
    if (side->thread_id)
        pthread_join(side->thread, NULL);
}

/* A task, since a close may be called for from within a turn of the loop. */
static void on_ending(struct loop_task *task)
{
    struct side_loop *side = container_of(task, struct side_loop, ending);
    loop_check_thread(&side->loop);
    end_thread(side);
    list_remove(&side->node);
    keep_alive(side->home);
    loop_watch_close(&side->watch, on_watch_closed); /* before its descriptor is another's */
    loop_event_close(&side->wake, NULL);
    loop_fini(&side->loop);
    pthread_cond_destroy(&side->is_free_for_home);
    pthread_cond_destroy(&side->is_free_for_thread);
    pthread_mutex_destroy(&side->lock);
    sem_destroy(&side->started);
}

void side_loop_close(struct side_loop *side, void (*on_closed)(void *opaque), void *opaque)
{
    side->on_closed = on_closed;
    side->opaque = opaque;
    loop_task_queue(&side->ending);
}

int side_loop_start(struct side_loop *side)
{
    CHECK(!side->thread_id);
    int result = thread_start(&side->thread, run, side);
    while (!result && sem_wait(&side->started) && errno == EINTR)
        continue;
    return result;
}

static void on_refused(struct loop_event *event)
{
    free(container_of(event, struct side_loop, called));
}

/* With the loop's own descriptor to be watched at home. */
static int make_loop(struct side_loop *side, struct loop *home)
{
    int result = loop_init(&side->loop);
    if (result)
        return result;
    result = loop_event_init(&side->loop, &side->wake, on_wake);
    if (!result) {
        result = loop_watch_init(home, &side->watch, uv_backend_fd(&side->loop.uv), on_ready);
        if (result)
            loop_event_close(&side->wake, NULL);
    }
    if (result)
        loop_fini(&side->loop);
    return result;
}

/* Frees it where that fails. */
static int make(struct side_loop *side, struct loop *home)
{
    int result = loop_event_init(home, &side->called, on_called);
    if (result) {
        free(side);
        return result;
    }
    result = make_loop(side, home);
    if (result)
        loop_event_close(&side->called, on_refused);
    return result;
}

int side_loop_create(struct loop *home, const struct side_loop_options *options,
                     struct side_loop **out)
{
    loop_check_thread(home);
    struct side_loop *side = calloc(1, sizeof(*side));
    if (!side)
        return -ENOMEM;
    side->home = home;
    side->options = *options;
    side->is_taken = true;
    snprintf(side->name, sizeof(side->name), "%s", options->name);
    loop_task_init(home, &side->ending, LOOP_STAGE_DRAIN, on_ending);
    CHECK(pthread_mutex_init(&side->lock, NULL) == 0 && sem_init(&side->started, 0, 0) == 0);
    CHECK(pthread_cond_init(&side->is_free_for_home, NULL) == 0 &&
          pthread_cond_init(&side->is_free_for_thread, NULL) == 0);
    int result = make(side, home);
    if (result)
        return result;
    side->loop.side = side;
    list_push_back(&home->taken, &side->node);
    keep_alive(home);
    *out = side;
    return 0;
}
