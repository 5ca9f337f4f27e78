/* SPDX-License-Identifier: MIT */
/*
 * guest_clock: the machine's own monotonic time, which stands still while the machine is stopped,
 * and the timers of its devices on that time.
 *
 * One host timer serves all of them. After a stop no timer has anything to catch up with. A test
 * leaves the clock stopped and moves it by hand. Loop's thread.
 */
#ifndef DEVICES_GUEST_CLOCK_H
#define DEVICES_GUEST_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/closing.h"
#include "base/list.h"
#include "base/loop.h"

struct guest_clock {
    struct loop *loop;
    /* UTC in nanoseconds since 1970; the host's unless a test puts another here. */
    int64_t (*wall_now_ns)(void);
    /* Private. */
    bool is_running;
    uint64_t elapsed_ns; /* guest time at the last start or stop */
    uint64_t started_ns; /* host time at the last start */
    struct list timers;  /* armed ones, by deadline */
    struct loop_timer host_timer;
    struct closing closing;
};

struct guest_timer {
    void (*on_expired)(struct guest_timer *timer);
    /* Private. */
    struct guest_clock *clock;
    struct list node;
    uint64_t deadline_ns;
};

/* Stopped, at 0. 0 or -errno. */
int must_check guest_clock_init(struct guest_clock *clock, struct loop *loop);
/* All timers must be disarmed. The memory may go from on_closed on. */
void guest_clock_close(struct guest_clock *clock, void (*on_closed)(void *opaque), void *opaque);

/* With the vCPUs. Starting what runs and stopping what stands does nothing. */
void guest_clock_start(struct guest_clock *clock);
void guest_clock_stop(struct guest_clock *clock);
uint64_t guest_clock_now_ns(const struct guest_clock *clock);

/* For restoring a machine and for tests, while stopped: sets the time, runs what is due by then. */
void guest_clock_advance(struct guest_clock *clock, uint64_t by_ns);

void guest_timer_init(struct guest_clock *clock, struct guest_timer *timer,
                      void (*on_expired)(struct guest_timer *timer));
/* Expires once, on the loop, never from inside; a deadline in the past on the next turn. */
void guest_timer_arm(struct guest_timer *timer, uint64_t deadline_ns);
void guest_timer_disarm(struct guest_timer *timer);
bool guest_timer_is_armed(const struct guest_timer *timer);

#endif
