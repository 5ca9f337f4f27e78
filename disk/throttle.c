/* SPDX-License-Identifier: MIT */
/*
 * throttle: each bucket leaks at its average rate; a request is let in while the bucket is not over
 * its brim, and then poured in whole. The brim is a tenth of a second's worth, or what bursts are
 * allowed; a burst has a second bucket that leaks at the burst's rate.
 */
#include "disk/throttle.h"

#include <errno.h>

#include "disk/disk_private.h"

#define NS_PER_S 1e9
#define BRIM_S   0.1
#define NEVER    1e9 /* seconds */

static double greater(double a, double b)
{
    return a > b ? a : b;
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

static void leak(struct throttle *throttle, uint64_t now_ns)
{
    double passed_s = (double)(now_ns - throttle->leaked_ns) / NS_PER_S;
    throttle->leaked_ns = now_ns;
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        double average = (double)throttle->limits.bucket[i].average;
        double burst = (double)throttle->limits.bucket[i].burst;
        throttle->state[i].level = greater(0, throttle->state[i].level - average * passed_s);
        throttle->state[i].burst_level =
            greater(0, throttle->state[i].burst_level - burst * passed_s);
    }
}

/* How long until the bucket is no more than full, in seconds. */
static double wait_of(const struct throttle *throttle, unsigned kind)
{
    double average = (double)throttle->limits.bucket[kind].average;
    double burst = (double)throttle->limits.bucket[kind].burst;
    double burst_s = (double)throttle->limits.bucket[kind].burst_s;
    if (average <= 0)
        return 0;
    double brim = burst > 0 ? burst * burst_s : average * BRIM_S;
    double wait_s = greater(0, (throttle->state[kind].level - brim) / average);
    if (burst > 0 && burst_s > 1)
        wait_s = greater(wait_s, (throttle->state[kind].burst_level - burst * BRIM_S) / burst);
    return wait_s;
}

static bool is_write(const struct disk_request *request)
{
    return request->op != DISK_READ;
}

static double wait_for(const struct throttle *throttle, bool write)
{
    double wait_s = 0;
    for (unsigned i = 0; i < THROTTLE_KINDS; i += 3)
        wait_s = greater(wait_s, greater(wait_of(throttle, i), wait_of(throttle, i + 1 + write)));
    return wait_s;
}

static void pour(struct throttle *throttle, const struct disk_request *request)
{
    bool moves = request->op == DISK_READ || request->op == DISK_WRITE;
    double bytes = moves ? (double)request->bytes : 0, operations = 1;
    uint64_t unit = throttle->limits.operation_bytes;
    if (unit && moves && request->bytes > unit)
        operations = (double)request->bytes / (double)unit;
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        if (i % 3 && (i % 3 == 2) != is_write(request))
            continue;
        double units = i < THROTTLE_OPS_TOTAL ? bytes : operations;
        throttle->state[i].level += units;
        throttle->state[i].burst_level += units;
    }
}

static void arm(struct throttle *throttle)
{
    double soonest_s = NEVER;
    for (unsigned write = 0; write < 2; write++)
        if (!list_is_empty(&throttle->waiting[write]))
            soonest_s = smaller(soonest_s, wait_for(throttle, write));
    if (throttle->is_closing || soonest_s >= NEVER)
        return;
    /* One more nanosecond, so that rounding does not wake us just before the moment. */
    loop_timer_arm(&throttle->timer, throttle->leaked_ns + (uint64_t)(soonest_s * NS_PER_S) + 1);
}

static void admit_first(struct throttle *throttle, unsigned write)
{
    struct list *node = list_pop_front(&throttle->waiting[write]);
    throttle->waiting_count--;
    disk_admit(throttle->disk, list_entry(node, struct disk_request, node));
}

static void on_expired(struct loop_timer *timer)
{
    struct throttle *throttle = timer->opaque;
    leak(throttle, loop_now_ns());
    for (bool goes_on = true; goes_on;) {
        goes_on = false;
        for (unsigned write = 0; write < 2; write++) {
            struct list *waiting = &throttle->waiting[write];
            if (list_is_empty(waiting) || wait_for(throttle, write) > 0)
                continue;
            pour(throttle, list_entry(waiting->next, struct disk_request, node));
            admit_first(throttle, write);
            goes_on = true;
        }
    }
    arm(throttle);
}

bool throttle_delays(struct throttle *throttle, struct disk_request *request)
{
    if (!throttle->is_on || request->op == DISK_FLUSH || request->op == DISK_STATUS)
        return false;
    unsigned write = is_write(request);
    leak(throttle, loop_now_ns());
    if (list_is_empty(&throttle->waiting[write]) && wait_for(throttle, write) <= 0) {
        pour(throttle, request);
        return false;
    }
    list_push_back(&throttle->waiting[write], &request->node);
    throttle->waiting_count++;
    throttle->delayed++;
    arm(throttle);
    return true;
}

void throttle_release(struct throttle *throttle)
{
    for (unsigned write = 0; write < 2; write++)
        while (!list_is_empty(&throttle->waiting[write]))
            admit_first(throttle, write);
}

static bool is_limited(const struct throttle_limits *limits)
{
    for (unsigned i = 0; i < THROTTLE_KINDS; i++)
        if (limits->bucket[i].average)
            return true;
    return false;
}

void throttle_init(struct throttle *throttle, struct disk *disk)
{
    throttle->disk = disk;
    list_init(&throttle->waiting[0]);
    list_init(&throttle->waiting[1]);
    for (unsigned i = 0; i < THROTTLE_KINDS; i++)
        throttle->limits.bucket[i].burst_s = 1;
}

int throttle_set(struct throttle *throttle, struct loop *loop, const struct throttle_limits *limits)
{
    bool is_on = is_limited(limits);
    if (is_on && !throttle->has_timer) {
        int result = loop_timer_init(loop, &throttle->timer, on_expired);
        if (result)
            return result;
        throttle->timer.opaque = throttle;
        throttle->has_timer = true;
    }
    throttle->limits = *limits;
    throttle->is_on = is_on;
    throttle->leaked_ns = loop_now_ns();
    for (unsigned i = 0; i < THROTTLE_KINDS; i++)
        throttle->state[i].level = throttle->state[i].burst_level = 0;
    if (!is_on)
        throttle_release(throttle);
    else
        arm(throttle);
    return 0;
}

static void on_timer_closed(struct loop_timer *timer)
{
    struct throttle *throttle = timer->opaque;
    throttle->has_timer = false;
    throttle->on_closed(throttle->opaque);
}

bool throttle_close(struct throttle *throttle, void (*on_closed)(void *opaque), void *opaque)
{
    if (!throttle->has_timer)
        return false;
    CHECK(!throttle->waiting_count);
    throttle->is_closing = true;
    throttle->on_closed = on_closed;
    throttle->opaque = opaque;
    loop_timer_close(&throttle->timer, on_timer_closed);
    return true;
}
