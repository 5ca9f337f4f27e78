/* SPDX-License-Identifier: MIT */
/*
 * qcow2_release: the quarantine of clusters that nothing points to any more.
 *
 * A cluster goes freed (unmapped in memory) -> in_cycle (its unmapping is being written) -> durable
 * (the medium has it) -> release, where it waits until all operations that may have seen the old
 * map have ended, is punched out of the file if the person wants that, and only then loses its
 * reference. So neither a late write, nor a late punch, nor a crash can touch what a cluster
 * becomes next.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "disk/qcow2/qcow2.h"
#include "disk/qcow2/qcow2_rule.h"

int qcow2_extents_reserve(struct qcow2_extents *extents, size_t more)
{
    if (extents->room - extents->count >= more)
        return 0;
    size_t room = MAX(extents->room * 2, extents->count + more + 16);
    void *larger = realloc(extents->items, room * sizeof(extents->items[0]));
    if (!larger)
        return -ENOMEM;
    extents->items = larger;
    extents->room = room;
    return 0;
}

int qcow2_extents_move(struct qcow2_extents *to, struct qcow2_extents *from)
{
    int result = qcow2_extents_reserve(to, from->count);
    if (result || !from->count)
        return result;
    memcpy(to->items + to->count, from->items, from->count * sizeof(from->items[0]));
    to->count += from->count;
    from->count = 0;
    return 0;
}

bool qcow2_release_is_idle(const struct qcow2 *q)
{
    return !q->release.running && !q->durable.count;
}

static uint64_t oldest_operation(const struct qcow2 *q)
{
    if (list_is_empty(&q->active))
        return UINT64_MAX;
    return list_entry(q->active.next, const struct qcow2_op, node)->sequence;
}

static void on_punched(struct io_request *io, int result)
{
    struct qcow2 *q = container_of(io, struct qcow2, release.punch);
    (void)result; /* space not given back is no harm */
    q->release.busy = false;
    qcow2_release_step(q);
}

static void punch(struct qcow2 *q, uint64_t first, uint64_t count)
{
    q->release.punched = count;
    q->release.busy = true;
    q->release.punch = (struct io_request){
        .kind = IO_PUNCH,
        .offset = first << q->cluster_bits,
        .bytes = count << q->cluster_bits,
        .on_done = on_punched,
    };
    io_submit(q->node.file, &q->release.punch);
}

/* How many clusters from `first` on have refcount 1, within one slice. */
static uint64_t last_references(const struct qcow2 *q, const struct qcow2_slice *slice,
                                uint64_t first, uint64_t count)
{
    uint64_t per_slice = UINT64_C(1) << (q->slice_bits + 3 - q->refcount_order);
    uint64_t n = 0, most = MIN(count, per_slice - (first & (per_slice - 1)));
    while (n < most && qcow2_refcount(q, slice, first + n) == 1)
        n++;
    return n;
}

static void drop_reference(struct qcow2 *q, struct qcow2_slice *slice, uint64_t cluster,
                           bool is_table)
{
    uint64_t refcount = slice ? qcow2_refcount(q, slice, cluster) : 0;
    if (!refcount) {
        log_limited("%s: freed cluster %" PRIu64 " has no reference; run evisor-img check",
                    q->node.path, cluster);
        return;
    }
    qcow2_refcount_change(q, slice, cluster, refcount - 1);
    if (refcount == 1 && is_table)
        qcow2_table_forget(q, cluster << q->cluster_bits);
    if (refcount == 1)
        q->free_hint = MIN(q->free_hint, cluster);
}

static void on_slice(struct qcow2_waiter *waiter, int result)
{
    struct qcow2 *q = container_of(waiter, struct qcow2, release.waiter);
    q->release.busy = false;
    if (result) {
        /* What cannot be counted down is leaked, which a check gives back. */
        q->release.done++;
        q->release.punched -= q->release.punched > 0;
    }
    qcow2_release_step(q);
}

/* One slice's worth of the current extent. False if it has to wait. */
static bool release_some(struct qcow2 *q, const struct qcow2_extent *extent)
{
    struct qcow2_release *release = &q->release;
    struct qcow2_slice *slice;
    uint64_t first = extent->first + release->done, left = extent->count - release->done;
    release->waiter.wake = on_slice;
    int result = qcow2_refcount_slice(q, first, &release->waiter, &slice);
    if (result == -EINPROGRESS) {
        release->busy = true;
        return false;
    }
    uint64_t last = !result && slice ? last_references(q, slice, first, left) : 0;
    if (extent->punch && last && !release->punched) {
        punch(q, first, last);
        if (qcow2_rule(PUNCH_FIRST))
            return false;
    }
    uint64_t count = MAX(last, 1);
    if (release->punched)
        count = MIN(count, release->punched);
    for (uint64_t i = 0; i < count && !result; i++)
        drop_reference(q, slice, first + i, extent->is_table);
    release->done += count;
    release->punched -= MIN(release->punched, count);
    return true;
}

static void start_release(struct qcow2 *q)
{
    struct qcow2_extents empty = q->release.items;
    q->release.items = q->durable;
    q->durable = empty;
    q->durable.count = 0;
    q->release.index = 0;
    q->release.done = q->release.punched = 0;
    q->release.barrier = q->sequence;
    q->release.running = true;
}

void qcow2_release_step(struct qcow2 *q)
{
    struct qcow2_release *release = &q->release;
    if (release->busy)
        return;
    if (q->settle.failed) {
        release->running = false;
        q->durable.count = 0;
        qcow2_settle_step(q);
        return;
    }
    if (!release->running && q->durable.count)
        start_release(q);
    if (!release->running || (oldest_operation(q) < release->barrier && qcow2_rule(DRAIN)))
        return;
    while (release->index < release->items.count) {
        const struct qcow2_extent *extent = &release->items.items[release->index];
        if (release->done == extent->count) {
            release->index++;
            release->done = 0;
        } else if (!release_some(q, extent)) {
            return;
        }
    }
    release->running = false;
    release->items.count = 0;
    if (q->durable.count)
        qcow2_release_step(q);
    else if (q->settle.wanted)
        qcow2_settle_step(q);
}
