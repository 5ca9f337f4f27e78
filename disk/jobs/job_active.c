/* SPDX-License-Identifier: MIT */
/*
 * job_active: a mirror's copy-mode write-blocking: a guest's write goes to the target first, and
 * then to the source; when the guest hears of it, both have it.
 *
 * Theory of operation. The bitmap is not marked by the disk then, but here: a write unmarks its
 * whole granules when it begins, and marks them again if either side failed. Of two changes of one
 * place only one is under way, be it the guest's or the background's, so that both sides see them
 * in one order. A guest may change its memory meanwhile: what it writes is copied once, a piece at
 * a time, and both sides get the copy. A discard may leave anything behind: it is marked, before
 * and after, and copied in the background.
 */
#include <errno.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "disk/jobs/job_private.h"

static bool is_mirrored(const struct job *job)
{
    return !job->result && !job->is_forced && job->has_started;
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
    if ((request->op != DISK_WRITE && request->op != DISK_ZERO) || request->flags & DISK_VMSTATE)
        return false;
    list_push_back(&job->waiting, &request->node);
    loop_task_queue(&job->work);
    return true;
}

/* Of a discard: what was copied meanwhile may be older. */
void job_active_done(void *opaque, struct disk_request *request, int result)
{
    (void)result;
    mark(opaque, request);
}

static void end(struct job_op *op, int result)
{
    struct disk_request *guest = op->guest;
    if (op->target_result)
        job_op_failed(op, false, op->target_result);
    else
        job_op_finish(op, result != 0);
    node_complete(guest, result);
}

static void begin_piece(struct job_op *op);

static void on_source_done(struct disk_request *request, int result)
{
    struct job_op *op = container_of(request, struct job_op, request);
    op->guest_at += request->bytes;
    if (result || op->guest_at == op->bytes)
        end(op, result);
    else
        begin_piece(op);
}

/* The source's flags are the guest's; how the target gives space back, the job's options say. */
static void write_to_source(struct job_op *op)
{
    const struct disk_request *guest = op->guest;
    struct disk *disk = op->job->options.disk;
    op->request.flags = (guest->flags & DISK_MAY_UNMAP) | (guest->durable ? DISK_FUA : 0);
    op->request.on_done = on_source_done;
    graph_submit(disk, graph_top(disk), &op->request);
}

static void on_target_done(struct disk_request *request, int result)
{
    struct job_op *op = container_of(request, struct job_op, request);
    op->target_result = result;
    write_to_source(op);
}

static void begin_piece(struct job_op *op)
{
    const struct disk_request *guest = op->guest;
    bool is_zero = guest->op == DISK_ZERO;
    uint64_t left = guest->bytes - op->guest_at;
    op->iov = (struct iovec){op->buffer, MIN(left, JOB_PIECE_BYTES)};
    op->request = (struct disk_request){
        .op = guest->op,
        .flags = guest->flags & DISK_MAY_UNMAP && op->job->options.unmap ? DISK_MAY_UNMAP : 0,
        .offset = guest->offset + op->guest_at,
        .bytes = is_zero ? left : op->iov.iov_len,
        .iov = is_zero ? NULL : &op->iov,
        .iov_count = !is_zero,
        .on_done = on_target_done,
    };
    if (!is_zero)
        iov_read(guest->iov, guest->iov_count, op->guest_at, op->buffer, op->iov.iov_len);
    if (op->target_result)
        write_to_source(op);
    else
        graph_submit(op->job->destination_disk, op->job->destination, &op->request);
}

static void start(struct job *job, struct disk_request *guest)
{
    struct job_op *op = list_entry(list_pop_front(&job->idle), struct job_op, node);
    list_push_back(&job->active, &op->node);
    job->active_count++;
    job->guest_count++;
    op->state = JOB_OP_GUEST;
    op->guest = guest;
    op->guest_at = 0;
    op->target_result = 0;
    op->offset = guest->offset;
    op->bytes = guest->bytes;
    dirty_bitmap_clear_range(job->todo, op->offset, op->bytes);
    begin_piece(op);
}

void job_active_serve(struct job *job)
{
    list_for_each(node, &job->waiting)
    {
        struct disk_request *guest = list_entry(node, struct disk_request, node);
        bool is_lost = !is_mirrored(job);
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
