/* SPDX-License-Identifier: MIT */
/*
 * qcow2_idle: what is done when nobody asks for it: metadata is written back a bounded time after
 * it changed, so that discarded space goes back to the host without a flush of the guest; and
 * tables that have not been used for an interval leave the cache, with their memory.
 *
 * One timer serves both, and is armed only while there is something that it would do.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2.h"

#define NS_PER_MS UINT64_C(1000000)
/* Changes that give nothing back may wait longer than those that do. */
#define SLOW_FACTOR 5

static void arm(struct qcow2_idle *idle)
{
    uint64_t next = MIN(idle->writeback_ns, idle->clean_ns);
    if (next == UINT64_MAX)
        loop_timer_disarm(idle->timer);
    else
        loop_timer_arm(idle->timer, next);
}

static void want_writeback(struct qcow2 *q, uint64_t delay_ms)
{
    struct qcow2_idle *idle = &q->idle;
    if (!idle->timer || !idle->writeback_ms)
        return;
    uint64_t at = loop_now_ns() + delay_ms * NS_PER_MS;
    if (at >= idle->writeback_ns)
        return;
    idle->writeback_ns = at;
    arm(idle);
}

void qcow2_idle_dirty(struct qcow2 *q)
{
    want_writeback(q, (uint64_t)q->idle.writeback_ms * SLOW_FACTOR);
}

void qcow2_idle_freed(struct qcow2 *q)
{
    want_writeback(q, q->idle.writeback_ms);
}

void qcow2_idle_loaded(struct qcow2 *q)
{
    struct qcow2_idle *idle = &q->idle;
    if (!idle->timer || !idle->interval_ns || idle->clean_ns != UINT64_MAX)
        return;
    idle->clean_ns = loop_now_ns() + idle->interval_ns;
    arm(idle);
}

static void on_expired(struct loop_timer *timer)
{
    struct qcow2 *q = timer->opaque;
    struct qcow2_idle *idle = &q->idle;
    uint64_t now = loop_now_ns();
    if (now >= idle->writeback_ns) {
        idle->writeback_ns = UINT64_MAX;
        if (!q->poisoned && !q->settle.wanted && !qcow2_flush_is_clean(q))
            qcow2_flush_want(q);
    }
    if (now >= idle->clean_ns) {
        bool is_left = qcow2_cache_clean(q);
        idle->clean_ns = is_left ? now + idle->interval_ns : UINT64_MAX;
    }
    arm(idle);
}

/* Without a timer a flush of the guest does what it would have done. */
static void make_timer(struct qcow2 *q)
{
    if (!q->idle.writeback_ms && !q->idle.interval_ns)
        return;
    struct loop_timer *timer = malloc(sizeof(*timer));
    if (!timer || loop_timer_init(q->node.loop, timer, on_expired)) {
        free(timer);
        return;
    }
    timer->opaque = q;
    q->idle.timer = timer;
}

void qcow2_idle_init(struct qcow2 *q, const struct disk_options *options)
{
    struct qcow2_idle *idle = &q->idle;
    idle->writeback_ns = idle->clean_ns = UINT64_MAX;
    idle->writeback_ms = options->read_only ? 0 : options->idle_writeback_ms;
    idle->interval_ns = (uint64_t)options->cache_clean_s * 1000 * NS_PER_MS;
    make_timer(q);
}

static void on_timer_closed(struct loop_timer *timer)
{
    free(timer);
}

void qcow2_idle_fini(struct qcow2 *q)
{
    if (q->idle.timer)
        loop_timer_close(q->idle.timer, on_timer_closed);
    q->idle.timer = NULL;
}

void qcow2_idle_move(struct qcow2 *q)
{
    qcow2_idle_fini(q);
    make_timer(q);
    if (q->idle.timer)
        arm(&q->idle);
}
