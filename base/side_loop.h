/* SPDX-License-Identifier: MIT */
/*
 * side_loop: a loop that a thread of its own turns, beside the machine's loop, its home.
 *
 * One thread at a time uses a loop, and all that lives on it. The home's thread may use a side loop
 * whenever it likes: with its first call that checks the thread (loop_check_thread) it takes the
 * loop, which waits for the end of the turn that is under way there, and has it for the rest of its
 * own turn. While `stays` tells so it keeps the loop for longer, and turns it as a part of its own
 * turns: what lives there then finds itself on a machine of one thread.
 *
 * So code that runs on the side's thread touches nothing of the home's and never waits for the
 * home, which may be waiting for it. What would call back from a side loop into the home's affairs
 * is what `stays` must know of; it is asked only while the home has the loop, so what begins on the
 * side's thread and needs the home calls it (side_loop_call_home).
 *
 * Everything here belongs to the home's thread unless its comment says otherwise.
 */
#ifndef BASE_SIDE_LOOP_H
#define BASE_SIDE_LOOP_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/check.h"

struct loop;
struct side_loop;

struct side_loop_options {
    const char *name; /* of the thread; Linux keeps 15 characters */
    /* Asked at the end of each turn in which the home has the loop; may take others. NULL: never.
     */
    bool (*stays)(void *opaque);
    /* The home has the loop, for which side_loop_call_home was called. NULL: that is not. */
    void (*on_called)(void *opaque);
    void *opaque;
};

/* The home has the loop until a thread was started, and then as `stays` tells. 0 or -errno. */
int must_check side_loop_create(struct loop *home, const struct side_loop_options *options,
                                struct side_loop **out);
int must_check side_loop_start(struct side_loop *side);
/* Nothing lives on it any more but what is closing. Ends the thread, if there is one; `on_closed`
 * comes later. */
void side_loop_close(struct side_loop *side, void (*on_closed)(void *opaque), void *opaque);

/* Any thread: there is something that only the home can do. */
void side_loop_call_home(struct side_loop *side);

struct loop *side_loop_of(struct side_loop *side);
/* As the host knows it; 0: not started. */
pid_t side_loop_thread_id(const struct side_loop *side);

/* For loop.c. */
void side_loop_take(struct side_loop *side);
bool side_loop_is_taken(const struct side_loop *side);
/* Before the home waits: keeps those that stay, lets go of the others. True: it must not wait. */
bool side_loops_settle(struct loop *home);
/* After that: turns those that stay. */
void side_loops_turn(struct loop *home);

#endif
