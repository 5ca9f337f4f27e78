/* SPDX-License-Identifier: MIT */
/*
 * qcow2_resize: another virtual size. The disk holds its requests meanwhile.
 *
 * Growing may need a longer L1 table, which moves to the end of the file; the writeback machine
 * brings it there before it switches the header. What lies past the old end must not show the
 * backing file's bytes, so it is made zero. Shrinking makes zero what is cut off, which gives its
 * clusters back, so that growing again does not bring it back; the L1 table stays as it is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2.h"
#include "disk/qcow2/qcow2_rule.h"

static void ended(struct qcow2 *q, int result, const char *what)
{
    struct error err = {0};
    if (result) {
        q->node.size_bytes = q->resize.old_size_bytes;
        q->header.size_bytes = q->resize.old_size_bytes;
        q->header_upper = true; /* a later writeback may have to take it back */
        error_set_errno(&err, -result, "cannot resize '%s': %s", q->node.path, what);
    }
    if (q->resize.on_reserved)
        q->resize.on_reserved(q, result);
    q->resize.on_reserved = NULL;
    q->resize.vmstate_bytes = 0;
    q->resize.on_done(q->resize.opaque, result, result ? &err : NULL);
}

static void on_cut(struct io_request *request, int result)
{
    struct qcow2 *q = container_of(request, struct qcow2, resize.truncate);
    (void)result; /* a data file that stays too long is no harm */
    ended(q, 0, "");
}

static void on_flushed(struct qcow2_waiter *waiter, int result)
{
    struct qcow2 *q = container_of(waiter, struct qcow2, resize.waiter);
    bool shrinks = q->resize.new_size_bytes < q->resize.old_size_bytes;
    if (result || !shrinks || !qcow2_data_file_resize(q, on_cut))
        ended(q, result, "writing metadata failed");
}

static void set_size(struct qcow2 *q)
{
    q->node.size_bytes = q->resize.new_size_bytes;
    q->header.size_bytes = q->resize.new_size_bytes;
    q->header_upper = true;
    q->resize.waiter.wake = on_flushed;
    qcow2_flush_wait(q, &q->resize.waiter);
}

/* The zeroes are on the medium: a size that shows them must not get there before them. */
static void on_zeroes_safe(struct qcow2_waiter *waiter, int result)
{
    struct qcow2 *q = container_of(waiter, struct qcow2, resize.waiter);
    if (result)
        ended(q, result, "writing metadata failed");
    else
        set_size(q);
}

static void make_zeroes_safe(struct qcow2 *q)
{
    q->resize.waiter.wake = on_zeroes_safe;
    if (qcow2_rule(RESIZE_ZEROES_FIRST))
        qcow2_flush_wait(q, &q->resize.waiter);
    else
        set_size(q);
}

static void on_cut_zeroed(struct disk_request *request, int result)
{
    struct qcow2 *q = container_of(request, struct qcow2, resize.zero);
    if (result)
        ended(q, result, "the part to be cut off cannot be emptied");
    else
        make_zeroes_safe(q);
}

static void on_end_zeroed(struct disk_request *request, int result)
{
    struct qcow2 *q = container_of(request, struct qcow2, resize.zero);
    if (result)
        ended(q, result, "the new part cannot be emptied");
    else
        make_zeroes_safe(q);
}

static void zero(struct qcow2 *q, uint64_t from, uint64_t to,
                 void (*on_done)(struct disk_request *request, int result))
{
    q->resize.zero = (struct disk_request){
        .op = DISK_ZERO,
        .flags = DISK_MAY_UNMAP,
        .offset = from,
        .bytes = to - from,
        .on_done = on_done,
    };
    qcow2_submit(&q->node, &q->resize.zero);
}

static int move_l1(struct qcow2 *q, uint64_t count)
{
    uint64_t bytes = align_up(count * 8, q->cluster_bytes), first;
    uint64_t *entries = calloc(count, sizeof(entries[0]));
    uint64_t *dirty = calloc(count / 4096 + 1, sizeof(dirty[0]));
    int result = entries && dirty ? qcow2_free_reserve(q, 1) : -ENOMEM;
    if (!result) {
        result = qcow2_alloc_region(q, bytes >> q->cluster_bits, &q->resize.waiter, &first);
        if (!result)
            qcow2_free(q, q->l1.offset >> q->cluster_bits,
                       (align_up((uint64_t)q->l1.count * 8, q->cluster_bytes)) >> q->cluster_bits,
                       false);
        qcow2_free_unreserve(q, 1);
    }
    if (result) {
        free(entries);
        free(dirty);
        return result;
    }
    memcpy(entries, q->l1.entries, q->l1.count * sizeof(entries[0]));
    free(q->l1.entries);
    free(q->l1.dirty);
    q->l1 = (struct qcow2_top){
        .entries = entries,
        .dirty = dirty,
        .count = (uint32_t)count,
        .offset = first << q->cluster_bits,
        .any_dirty = true,
        .moved = true,
    };
    return 0;
}

static void grow(struct qcow2 *q);

static void on_wake(struct qcow2_waiter *waiter, int result)
{
    struct qcow2 *q = container_of(waiter, struct qcow2, resize.waiter);
    if (result)
        ended(q, result, "its tables cannot be read");
    else
        grow(q);
}

static void grow(struct qcow2 *q)
{
    unsigned table_bits = q->cluster_bits + q->l2_bits;
    uint64_t mapped = (uint64_t)q->l1.count << table_bits;
    uint64_t count = qcow2_l1_entries_for(&q->header, q->resize.new_size_bytes) +
                     qcow2_l1_entries_for(&q->header, q->resize.vmstate_bytes);
    uint64_t below = q->node.backing ? q->node.backing->size_bytes : 0;
    int result = 0;
    q->resize.waiter.wake = on_wake;
    if (count * 8 > QCOW2_L1_BYTES_MAX)
        result = -EFBIG;
    else if (count > q->l1.count)
        result = move_l1(q, count);
    if (result == -EINPROGRESS)
        return;
    if (result) {
        ended(q, result, "its L1 table cannot grow");
        return;
    }
    /* The rest of the last cluster may hold what a shrink left, what L1 covers beyond the end a
     * machine's state, all after it the backing's bytes. */
    uint64_t old = q->resize.old_size_bytes;
    uint64_t end = MIN(MAX(below, mapped), q->resize.new_size_bytes);
    q->node.size_bytes = q->resize.new_size_bytes;
    if (end > old)
        zero(q, old, end, on_end_zeroed);
    else
        set_size(q);
}

static void on_data_grown(struct io_request *request, int result)
{
    struct qcow2 *q = container_of(request, struct qcow2, resize.truncate);
    if (result)
        ended(q, result, "its data file cannot grow");
    else
        grow(q);
}

static void on_start(struct loop_task *task)
{
    struct qcow2 *q = container_of(task, struct qcow2, resize.start);
    if (!qcow2_data_file_resize(q, on_data_grown))
        grow(q);
}

void qcow2_resize(struct node *node, uint64_t size_bytes,
                  void (*on_done)(void *opaque, int result, const struct error *err), void *opaque)
{
    struct qcow2 *q = qcow2_of(node);
    q->resize.new_size_bytes = size_bytes;
    q->resize.old_size_bytes = node->size_bytes;
    q->resize.on_done = on_done;
    q->resize.opaque = opaque;
    list_init(&q->resize.waiter.node);
    if (size_bytes < node->size_bytes) {
        zero(q, size_bytes, node->size_bytes, on_cut_zeroed);
        return;
    }
    loop_task_init(node->loop, &q->resize.start, LOOP_STAGE_DRAIN, on_start);
    loop_task_queue(&q->resize.start);
}
