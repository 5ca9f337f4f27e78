/* SPDX-License-Identifier: MIT */
/*
 * aside: a piece of work on a thread of its own, since it may take for ever: looking up a name, or
 * reading a file, where a file server is gone. One that never ends keeps its thread, and the loop
 * runs on and ends without it. (The pool's few threads would soon all wait.)
 */
#ifndef BASE_ASIDE_H
#define BASE_ASIDE_H

#include "base/error.h"
#include "base/loop.h"

struct aside;

struct aside_work {
    int (*run)(void *data, struct error *err); /* on the thread */
    /* Nobody needs `data` any more; on either thread, maybe long after on_done. */
    void (*release)(void *data);
    void *data;
};

/* On the loop, later; what the work came to. The aside is gone afterwards. */
typedef void aside_done_fn(void *opaque, int result, const struct error *err);

/* On -errno nothing is called, and the data stays the caller's. */
int must_check aside_start(struct loop *loop, const struct aside_work *work, aside_done_fn *on_done,
                           void *opaque, struct aside **out, struct error *err);
/* on_done is called with -ECANCELED, later, whatever the thread does. */
void aside_cancel(struct aside *aside);

#endif
