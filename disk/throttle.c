/* SPDX-License-Identifier: MIT */
/*
 * throttle: each bucket leaks at its average rate; a request is let in while the bucket is not over
 * its brim, and then poured in whole. The brim is a tenth of a second's worth, or what bursts are
 * allowed; a burst has a second bucket that leaks at the burst's rate. Where several disks wait for
 * the same buckets, each in turn gets one request in, and the rest of them waits.
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

static void leak(struct throttle_group *group, uint64_t now_ns)
{
    double passed_s = (double)(now_ns - group->leaked_ns) / NS_PER_S;
    group->leaked_ns = now_ns;
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        double average = (double)group->limits.bucket[i].average;
        double burst = (double)group->limits.bucket[i].burst;
        group->state[i].level = greater(0, group->state[i].level - average * passed_s);
        group->state[i].burst_level = greater(0, group->state[i].burst_level - burst * passed_s);
    }
}

/* How long until the bucket is no more than full, in seconds. */
static double wait_of(const struct throttle_group *group, unsigned kind)
{
    double average = (double)group->limits.bucket[kind].average;
    double burst = (double)group->limits.bucket[kind].burst;
    double burst_s = (double)group->limits.bucket[kind].burst_s;
    if (average <= 0)
        return 0;
    double brim = burst > 0 ? burst * burst_s : average * BRIM_S;
    double wait_s = greater(0, (group->state[kind].level - brim) / average);
    if (burst > 0 && burst_s > 1)
        wait_s = greater(wait_s, (group->state[kind].burst_level - burst * BRIM_S) / burst);
    return wait_s;
}

static bool is_write(const struct disk_request *request)
{
    return request->op != DISK_READ;
}

static double wait_for(const struct throttle_group *group, bool write)
{
    double wait_s = 0;
    for (unsigned i = 0; i < THROTTLE_KINDS; i += 3)
        wait_s = greater(wait_s, greater(wait_of(group, i), wait_of(group, i + 1 + write)));
    return wait_s;
}

static void pour(struct throttle_group *group, const struct disk_request *request)
{
    bool moves = request->op == DISK_READ || request->op == DISK_WRITE;
    double bytes = moves ? (double)request->bytes : 0, operations = 1;
    uint64_t unit = group->limits.operation_bytes;
    if (unit && moves && request->bytes > unit)
        operations = (double)request->bytes / (double)unit;
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        if (i % 3 && (i % 3 == 2) != is_write(request))
            continue;
        double units = i < THROTTLE_OPS_TOTAL ? bytes : operations;
        group->state[i].level += units;
        group->state[i].burst_level += units;
    }
}

static void arm(struct throttle_group *group)
{
    double soonest_s = NEVER;
    for (unsigned write = 0; write < 2; write++)
        if (group->waiting[write])
            soonest_s = smaller(soonest_s, wait_for(group, write));
    if (soonest_s >= NEVER)
        return;
    /* One more nanosecond, so that rounding does not wake us just before the moment. */
    loop_timer_arm(&group->timer, group->leaked_ns + (uint64_t)(soonest_s * NS_PER_S) + 1);
}

static struct disk_request *first_of(const struct throttle *throttle, unsigned write)
{
    return list_entry(throttle->waiting[write].next, struct disk_request, node);
}

static void admit_first(struct throttle *throttle, unsigned write)
{
    struct disk_request *request = first_of(throttle, write);
    list_remove(&request->node);
    throttle->waiting_count--;
    throttle->group->waiting[write]--;
    disk_admit(throttle->disk, request);
}

/* The others of the group come first from now on. */
static void had_its_turn(struct throttle *throttle)
{
    list_remove(&throttle->node);
    list_push_back(&throttle->group->members, &throttle->node);
}

static struct throttle *next_in_turn(struct throttle_group *group, unsigned write)
{
    list_for_each(node, &group->members)
    {
        struct throttle *throttle = list_entry(node, struct throttle, node);
        if (!list_is_empty(&throttle->waiting[write]))
            return throttle;
    }
    UNREACHABLE("a request waits");
}

static bool admit_next(struct throttle_group *group, unsigned write)
{
    if (!group->waiting[write] || wait_for(group, write) > 0)
        return false;
    struct throttle *throttle = next_in_turn(group, write);
    had_its_turn(throttle);
    group->direction = !write;
    pour(group, first_of(throttle, write));
    admit_first(throttle, write);
    return true;
}

/* Reads and writes in turn, too: they may have a bucket in common. */
void throttle_on_expired(struct loop_timer *timer)
{
    struct throttle_group *group = timer->opaque;
    leak(group, loop_now_ns());
    while (admit_next(group, group->direction) || admit_next(group, !group->direction))
        continue;
    arm(group);
}

bool throttle_delays(struct throttle *throttle, struct disk_request *request)
{
    struct throttle_group *group = throttle->group;
    if (!group || !group->is_on || request->op == DISK_FLUSH || request->op == DISK_STATUS)
        return false;
    unsigned write = is_write(request);
    leak(group, loop_now_ns());
    if (!group->waiting[write] && wait_for(group, write) <= 0) {
        had_its_turn(throttle);
        pour(group, request);
        return false;
    }
    list_push_back(&throttle->waiting[write], &request->node);
    throttle->waiting_count++;
    throttle->delayed++;
    group->waiting[write]++;
    arm(group);
    return true;
}

void throttle_release(struct throttle *throttle)
{
    for (unsigned write = 0; write < 2; write++)
        while (!list_is_empty(&throttle->waiting[write]))
            admit_first(throttle, write);
}

void throttle_init(struct throttle *throttle, struct disk *disk)
{
    throttle->disk = disk;
    list_init(&throttle->node);
    list_init(&throttle->waiting[0]);
    list_init(&throttle->waiting[1]);
}

static void count_waiting(struct throttle *throttle, int sign)
{
    for (unsigned write = 0; write < 2; write++)
        list_for_each(node, &throttle->waiting[write]) throttle->group->waiting[write] +=
            (unsigned)sign;
}

static void leave(struct throttle *throttle)
{
    struct throttle_group *group = throttle->group;
    count_waiting(throttle, -1);
    list_remove(&throttle->node);
    throttle->group = NULL;
    throttle_group_put(group);
}

void throttle_join(struct throttle *throttle, struct throttle_group *group)
{
    if (group == throttle->group)
        return;
    if (throttle->group && !group)
        throttle_release(throttle);
    if (throttle->group)
        leave(throttle);
    if (!group)
        return;
    throttle->group = group;
    group->users++;
    list_push_back(&group->members, &throttle->node);
    count_waiting(throttle, 1);
    if (group->is_on)
        arm(group);
    else
        throttle_release(throttle);
}

void throttle_group_set(struct throttle_group *group, const struct throttle_limits *limits)
{
    group->limits = *limits;
    group->is_on = throttle_is_limited(limits);
    group->leaked_ns = loop_now_ns();
    for (unsigned i = 0; i < THROTTLE_KINDS; i++)
        group->state[i].level = group->state[i].burst_level = 0;
    if (group->is_on) {
        arm(group);
        return;
    }
    list_for_each(node, &group->members) throttle_release(list_entry(node, struct throttle, node));
}
