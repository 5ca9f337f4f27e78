/* SPDX-License-Identifier: MIT */
/*
 * job_active: a mirror's copy-mode write-blocking: a guest's write goes to the target first, and
 * then to the source; when the guest hears of it, both have it.
 *
 * Theory of operation. The bitmap is not marked by the disk then, but here: what failed on either
 * side is marked, whole granules that both have are not. Of two changes of one place only one is
 * under way, be it the guest's or the background's, so that both sides see them in one order. A
 * discard may leave anything behind: it is marked, before and after, and copied in the background.
 */
#include <errno.h>

#include "base/bytes.h"
#include "disk/jobs/job.h"

static bool is_mirrored(const struct job *job, const struct disk_request *request)
{
    return !job->result && !job->is_forced && job->has_started &&
           (request->op == DISK_WRITE || request->op == DISK_ZERO) &&
           !(request->flags & DISK_VMSTATE);
}

static void mark(struct job *job, const struct disk_request *request)
{
    uint64_t size = job->todo->size_bytes;
    if (request->offset < size)
        dirty_bitmap_mark(job->todo, request->offset, MIN(request->bytes, size - request->offset));
}

bool job_active_intercept(struct job *job, struct disk_request *request)
{
    if (request->op == DISK_DISCARD) {
        mark(job, request);
        request->flags |= DISK_FILTERED;
    }
    if (request->op == DISK_READ || request->op == DISK_FLUSH || request->op == DISK_STATUS ||
        request->op == DISK_DISCARD || request->flags & DISK_VMSTATE)
        return false;
    list_push_back(&job->waiting, &request->node);
    loop_task_queue(&job->work);
    return true;
}

static void on_target_done(struct disk_request *request, int result)
{
    struct job_op *op = container_of(request, struct job_op, request);
    op->guest_result = result;
    graph_continue(op->job->options.disk, op->guest);
}

static void start(struct job *job, struct disk_request *guest)
{
    struct job_op *op = list_entry(list_pop_front(&job->idle), struct job_op, node);
    list_push_back(&job->active, &op->node);
    job->active_count++;
    job->guest_count++;
    op->state = JOB_OP_GUEST;
    op->guest = guest;
    guest->flags |= DISK_FILTERED;
    op->offset = guest->offset;
    op->bytes = guest->bytes;
    op->request = (struct disk_request){
        .op = guest->op,
        .flags = guest->flags & DISK_MAY_UNMAP && job->options.unmap ? DISK_MAY_UNMAP : 0,
        .offset = guest->offset,
        .bytes = guest->bytes,
        .iov = guest->iov,
        .iov_count = guest->iov_count,
        .on_done = on_target_done,
    };
    graph_submit(job->destination_disk, job->destination, &op->request);
}

void job_active_serve(struct job *job)
{
    list_for_each(node, &job->waiting)
    {
        struct disk_request *guest = list_entry(node, struct disk_request, node);
        bool is_lost = !is_mirrored(job, guest);
        if (!is_lost &&
            (list_is_empty(&job->idle) || job_overlaps_active(job, guest->offset, guest->bytes)))
            return; /* in their order: two of them may overlap */
        list_remove(&guest->node);
        if (!is_lost) {
            start(job, guest);
            continue;
        }
        mark(job, guest);
        graph_continue(job->options.disk, guest);
    }
}

static struct job_op *op_of(struct job *job, const struct disk_request *guest)
{
    list_for_each(node, &job->active)
    {
        struct job_op *op = list_entry(node, struct job_op, node);
        if (op->state == JOB_OP_GUEST && op->guest == guest)
            return op;
    }
    return NULL;
}

void job_active_done(void *opaque, struct disk_request *request, int result)
{
    struct job *job = opaque;
    struct job_op *op = op_of(job, request);
    if (!op) {
        mark(job, request); /* what was copied meanwhile may be older */
        return;
    }
    if (op->guest_result) {
        job_op_failed(op, false, op->guest_result);
        return;
    }
    if (!result)
        dirty_bitmap_clear_range(job->todo, op->offset, op->bytes);
    job_op_finish(op, result != 0);
}
