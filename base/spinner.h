/* SPDX-License-Identifier: MIT */
/*
 * spinner: a source of work that the loop waits for actively, a little, before it sleeps.
 *
 * A source tells of each signal that reached the loop by its poll (spinner_signalled). Where
 * signals follow each other quickly the spinner is turned on: from then on the loop asks `poll` in
 * every turn, and waits for WINDOW before it would sleep. Its other side need not signal while
 * is_on. A wait in vain turns all spinners off, and each one that brought nothing makes the next
 * attempt rarer; an idle loop sleeps for good. Nothing spins where the waiting would take a CPU
 * from those whose work it waits for.
 */
#ifndef BASE_SPINNER_H
#define BASE_SPINNER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct loop;

struct spinner {
    /* Handles what has come, or queues a task for it, without waiting. True if there was some. */
    bool (*poll)(struct spinner *spinner);
    /* Optional. It is turned on or off: `poll` is called once more after turning off. */
    void (*on_turned)(struct spinner *spinner, bool on);
    /* Other threads read it after they have handed something over (sequentially consistent). */
    atomic_bool is_on;
    /* Private. */
    struct loop *loop;
    struct list node; /* of loop->spinners, while on */
    uint64_t signalled_ns;
    unsigned quick; /* signals since the last attempt */
    unsigned backoff;
    bool has_found; /* since it was turned on */
};

void spinner_init(struct spinner *spinner, struct loop *loop, bool (*poll)(struct spinner *spinner),
                  void (*on_turned)(struct spinner *spinner, bool on));
/* Off for good; on_turned is not called. */
void spinner_fini(struct spinner *spinner);

/* A signal of this source reached the loop. */
void spinner_signalled(struct spinner *spinner);

/* How many threads besides the loop want a CPU of their own, as vCPUs do. */
void spinner_set_companions(struct loop *loop, unsigned count);

/* For loop.c: polls all, waiting unless `is_busy`. True if the loop must not sleep now. */
bool spinner_run(struct loop *loop, bool is_busy);

#endif
