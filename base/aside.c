/* SPDX-License-Identifier: MIT */
/* aside: thread and loop share the aside; who lets go of it last frees it. */
#include "base/aside.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/thread.h"

struct aside {
    struct aside_work work;
    /* The thread's, until it has signalled. */
    int result;
    struct error err;

    pthread_mutex_t mutex; /* of these two */
    bool is_done, is_cancelled;

    atomic_uint users;
    struct loop_event event;
    aside_done_fn *on_done;
    void *opaque;
};

static void let_go(struct aside *aside)
{
    if (atomic_fetch_sub(&aside->users, 1) > 1)
        return;
    aside->work.release(aside->work.data);
    pthread_mutex_destroy(&aside->mutex);
    free(aside);
}

static void *thread_main(void *opaque)
{
    struct aside *aside = opaque;
    aside->result = aside->work.run(aside->work.data, &aside->err);
    pthread_mutex_lock(&aside->mutex);
    aside->is_done = true;
    if (!aside->is_cancelled)
        loop_event_signal(&aside->event);
    pthread_mutex_unlock(&aside->mutex);
    let_go(aside);
    return NULL;
}

static void on_event_closed(struct loop_event *event)
{
    struct aside *aside = event->opaque;
    const struct error cancelled = {ECANCELED, "the machine ends"};
    if (aside->is_cancelled)
        aside->on_done(aside->opaque, -ECANCELED, &cancelled);
    else
        aside->on_done(aside->opaque, aside->result, &aside->err);
    let_go(aside);
}

static void on_signal(struct loop_event *event)
{
    loop_event_close(event, on_event_closed);
}

static int start_thread(struct aside *aside)
{
    pthread_t thread;
    int result = thread_start(&thread, thread_main, aside);
    if (!result)
        pthread_detach(thread);
    return result;
}

int aside_start(struct loop *loop, const struct aside_work *work, aside_done_fn *on_done,
                void *opaque, struct aside **out, struct error *err)
{
    struct aside *aside = calloc(1, sizeof(*aside));
    CHECK(aside);
    aside->work = *work;
    aside->on_done = on_done;
    aside->opaque = opaque;
    int result = loop_event_init(loop, &aside->event, on_signal);
    if (result) {
        free(aside);
        return error_set_errno(err, -result, "cannot wait for a thread");
    }
    aside->event.opaque = aside;
    pthread_mutex_init(&aside->mutex, NULL);
    atomic_init(&aside->users, 2);
    result = start_thread(aside);
    if (result) {
        aside->is_done = true;
        aside->result = error_set_errno(&aside->err, -result, "cannot make a thread");
        loop_event_signal(&aside->event);
        let_go(aside);
    }
    *out = aside;
    return 0;
}

void aside_cancel(struct aside *aside)
{
    pthread_mutex_lock(&aside->mutex);
    bool was_cancelled = aside->is_cancelled, was_done = aside->is_done;
    aside->is_cancelled = true;
    pthread_mutex_unlock(&aside->mutex);
    /* One that is done has signalled, and may be closing already. */
    if (!was_cancelled && !was_done)
        loop_event_close(&aside->event, on_event_closed);
}
