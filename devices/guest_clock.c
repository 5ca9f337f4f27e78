/* SPDX-License-Identifier: MIT */
/*
 * guest_clock: a sorted list of timers over one host timer.
 *
 * The host timer is armed for the earliest deadline while the clock runs. What is due when it
 * expires runs once; a timer that is armed again from its own callback, even in the past, waits for
 * the next turn of the loop.
 */
#include "devices/guest_clock.h"

#include <time.h>

static int64_t host_wall_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint64_t guest_clock_now_ns(const struct guest_clock *clock)
{
    if (!clock->is_running)
        return clock->elapsed_ns;
    return clock->elapsed_ns + (loop_now_ns() - clock->started_ns);
}

static struct guest_timer *to_timer(struct list *node)
{
    return list_entry(node, struct guest_timer, node);
}

static void arm_host_timer(struct guest_clock *clock)
{
    if (!clock->is_running || list_is_empty(&clock->timers)) {
        loop_timer_disarm(&clock->host_timer);
        return;
    }
    uint64_t deadline_ns = to_timer(clock->timers.next)->deadline_ns;
    uint64_t ahead_ns = deadline_ns - MIN(deadline_ns, clock->elapsed_ns);
    /* Beyond what a host timer can hold is "never". */
    ahead_ns = MIN(ahead_ns, (uint64_t)INT64_MAX / 2);
    loop_timer_arm(&clock->host_timer, clock->started_ns + ahead_ns);
}

static void run_due(struct guest_clock *clock)
{
    uint64_t now_ns = guest_clock_now_ns(clock);
    struct list due;
    list_init(&due);
    while (!list_is_empty(&clock->timers) && to_timer(clock->timers.next)->deadline_ns <= now_ns)
        list_push_back(&due, list_pop_front(&clock->timers));
    for (struct list *node; (node = list_pop_front(&due));)
        to_timer(node)->on_expired(to_timer(node));
}

static void on_host_timer(struct loop_timer *host_timer)
{
    struct guest_clock *clock = container_of(host_timer, struct guest_clock, host_timer);
    run_due(clock);
    arm_host_timer(clock);
}

int guest_clock_init(struct guest_clock *clock, struct loop *loop)
{
    *clock = (struct guest_clock){.loop = loop, .wall_now_ns = host_wall_now_ns};
    list_init(&clock->timers);
    return loop_timer_init(loop, &clock->host_timer, on_host_timer);
}

static void on_host_timer_closed(struct loop_timer *host_timer)
{
    struct guest_clock *clock = container_of(host_timer, struct guest_clock, host_timer);
    closing_tell(clock->closing);
}

void guest_clock_close(struct guest_clock *clock, void (*on_closed)(void *opaque), void *opaque)
{
    CHECK(list_is_empty(&clock->timers));
    clock->closing = (struct closing){on_closed, opaque};
    loop_timer_close(&clock->host_timer, on_host_timer_closed);
}

void guest_clock_start(struct guest_clock *clock)
{
    loop_check_thread(clock->loop);
    if (clock->is_running)
        return;
    clock->started_ns = loop_now_ns();
    clock->is_running = true;
    arm_host_timer(clock);
}

void guest_clock_stop(struct guest_clock *clock)
{
    loop_check_thread(clock->loop);
    if (!clock->is_running)
        return;
    clock->elapsed_ns = guest_clock_now_ns(clock);
    clock->is_running = false;
    arm_host_timer(clock);
}

void guest_clock_advance(struct guest_clock *clock, uint64_t by_ns)
{
    CHECK(!clock->is_running);
    clock->elapsed_ns += by_ns;
    run_due(clock);
}

void guest_timer_init(struct guest_clock *clock, struct guest_timer *timer,
                      void (*on_expired)(struct guest_timer *timer))
{
    timer->on_expired = on_expired;
    timer->clock = clock;
    timer->deadline_ns = 0;
    list_init(&timer->node);
}

void guest_timer_arm(struct guest_timer *timer, uint64_t deadline_ns)
{
    struct guest_clock *clock = timer->clock;
    loop_check_thread(clock->loop);
    list_remove(&timer->node);
    timer->deadline_ns = deadline_ns;
    struct list *after = clock->timers.prev;
    while (after != &clock->timers && to_timer(after)->deadline_ns > deadline_ns)
        after = after->prev;
    list_push_front(after, &timer->node);
    if (clock->timers.next == &timer->node)
        arm_host_timer(clock);
}

void guest_timer_disarm(struct guest_timer *timer)
{
    struct guest_clock *clock = timer->clock;
    loop_check_thread(clock->loop);
    bool was_first = clock->timers.next == &timer->node;
    list_remove(&timer->node);
    if (was_first)
        arm_host_timer(clock);
}

bool guest_timer_is_armed(const struct guest_timer *timer)
{
    return !list_is_empty(&timer->node);
}
