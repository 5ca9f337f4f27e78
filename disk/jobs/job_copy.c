/* SPDX-License-Identifier: MIT */
/*
 * job_copy: moves what is marked from source to destination.
 *
 * Theory of operation. A piece is unmarked when it is begun, so that a guest's write meanwhile
 * marks it again; two pieces in flight never overlap, or an older content could overtake a newer
 * one. What is known to read as zeroes is not read. A backup's guest must wait: a write to what is
 * still marked, or being copied, is kept until the copy is on its way to the target no more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/jobs/job_private.h"
#include "disk/qcow2/qcow2_rule.h"

static void on_step(struct disk_request *request, int result);

bool job_copy_is_idle(const struct job *job)
{
    return !job->active_count && !job->is_scanning;
}

static bool overlaps(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

static const struct job_op *find_active(const struct job *job, uint64_t offset, uint64_t bytes)
{
    list_for_each(node, &job->active)
    {
        const struct job_op *op = list_entry(node, struct job_op, node);
        if (overlaps(op->offset, op->bytes, offset, bytes))
            return op;
    }
    return NULL;
}

/* The first marked piece in [at, end), of whole granules, that nobody is copying. */
static bool find_piece(const struct job *job, uint64_t at, uint64_t end, uint64_t *bytes,
                       uint64_t *offset)
{
    uint64_t granule = UINT64_C(1) << job->todo->granularity_bits;
    while (at < end) {
        bool is_dirty;
        uint64_t stop = dirty_bitmap_run(job->todo, at, end, &is_dirty);
        const struct job_op *op = is_dirty ? find_active(job, at, granule) : NULL;
        if (op)
            stop = MIN(stop, align_up(op->offset + op->bytes, granule));
        if (!is_dirty || op) {
            at = stop;
            continue;
        }
        *offset = at;
        *bytes = MIN(stop - at, JOB_PIECE_BYTES);
        list_for_each(node, &job->active)
        {
            const struct job_op *other = list_entry(node, struct job_op, node);
            if (other->offset > at)
                *bytes = MIN(*bytes, align_down(other->offset, granule) - at);
        }
        return true;
    }
    return false;
}

static bool has_marks(const struct job *job)
{
    bool is_dirty;
    uint64_t size = job->todo->size_bytes;
    return size && (dirty_bitmap_run(job->todo, 0, size, &is_dirty) < size || is_dirty);
}

bool job_has_work(const struct job *job)
{
    return job->is_scanning || job->active_count > job->guest_count || has_marks(job);
}

/* A backing file may be shorter than what it backs. */
static uint64_t bytes_in_source(const struct job_op *op)
{
    uint64_t size = op->job->source->size_bytes;
    return op->offset < size ? MIN(op->bytes, size - op->offset) : 0;
}

/* So may be what is committed into it: beyond its end there is nothing but zeroes to write. */
static uint64_t bytes_in_destination(const struct job_op *op)
{
    uint64_t size = op->job->destination->size_bytes;
    CHECK(op->offset < size);
    return MIN(op->bytes, size - op->offset);
}

static void submit_to(struct job *job, struct disk *disk, struct node *node,
                      struct disk_request *request)
{
    request->flags |= job->is_quiet && disk == job->options.disk ? DISK_IN_QUIET : 0;
    graph_submit(disk, node, request);
}

static void read_piece(struct job_op *op);

static void begin(struct job *job, uint64_t offset, uint64_t bytes)
{
    struct job_op *op = list_entry(list_pop_front(&job->idle), struct job_op, node);
    list_push_back(&job->active, &op->node);
    job->active_count++;
    dirty_bitmap_clear_range(job->todo, offset, bytes);
    op->offset = offset;
    op->bytes = bytes;
    op->state = JOB_OP_STATUS;
    op->request = (struct disk_request){
        .op = DISK_STATUS, .offset = offset, .bytes = bytes_in_source(op), .on_done = on_step};
    if (job->options.speed) {
        uint64_t now_ns = loop_now_ns();
        job->allowed_ns = MAX(job->allowed_ns, now_ns) +
                          (uint64_t)((double)bytes * 1e9 / (double)job->options.speed);
    }
    if (op->request.bytes)
        submit_to(job, job->options.disk, job->source, &op->request);
    else
        read_piece(op);
}

bool job_overlaps_active(const struct job *job, uint64_t offset, uint64_t bytes)
{
    return find_active(job, offset, bytes) != NULL;
}

void job_op_finish(struct job_op *op, bool again)
{
    struct job *job = op->job;
    if (again)
        dirty_bitmap_mark(job->todo, op->offset, op->bytes);
    else
        job->offset_bytes += op->bytes;
    list_remove(&op->node);
    list_push_back(&job->idle, &op->node);
    job->guest_count -= op->state == JOB_OP_GUEST;
    job->active_count--;
    job_copy_kick(job);
}

static enum job_on_error policy_of(const struct job *job, bool is_read, int code)
{
    enum job_on_error policy =
        is_read ? job->options.on_source_error : job->options.on_target_error;
    if (policy == JOB_ERROR_ENOSPC)
        return code == ENOSPC ? JOB_ERROR_STOP : JOB_ERROR_REPORT;
    return policy;
}

/* As the person said: the job ends, goes on, or waits to be resumed. */
void job_op_failed(struct job_op *op, bool is_read, int result)
{
    static const char *const actions[] = {"report", "ignore", "stop"};
    struct job *job = op->job;
    struct job_listener *listener = &job->jobs->listener;
    enum job_on_error policy = policy_of(job, is_read, -result);
    if (!job->is_cancelled && !job->result)
        listener->on_error(listener->opaque, job, is_read, actions[policy], -result);
    if (policy == JOB_ERROR_REPORT)
        job_fail(job, result, NULL);
    if (policy == JOB_ERROR_STOP) {
        job->is_stopped_by_error = true;
        job->io_error = -result;
    }
    /* Nothing is lost to "ignore" where the copy must be whole: it is tried again. */
    job_op_finish(op, true);
}

static bool is_all_zero(const uint8_t *bytes, uint64_t count)
{
    return !*bytes && !memcmp(bytes, bytes + 1, count - 1);
}

static void write_piece(struct job_op *op, bool is_zero)
{
    struct job *job = op->job;
    bool streams = job->options.kind == JOB_STREAM;
    is_zero = !streams && (is_zero || is_all_zero(op->buffer, op->bytes));
    op->state = JOB_OP_WRITE;
    op->request = (struct disk_request){
        .op = is_zero ? DISK_ZERO : DISK_WRITE,
        .flags =
            (is_zero && job->options.unmap ? DISK_MAY_UNMAP : 0) | (streams ? DISK_IF_ABSENT : 0),
        .offset = op->offset,
        .bytes = bytes_in_destination(op),
        .iov = is_zero ? NULL : &op->iov,
        .iov_count = !is_zero,
        .on_done = on_step,
    };
    op->iov.iov_len = op->request.bytes;
    submit_to(job, job->destination_disk, job->destination, &op->request);
}

static void write_read(struct job_op *op)
{
    write_piece(op, false);
}

static void read_piece(struct job_op *op)
{
    uint64_t bytes = bytes_in_source(op);
    memset(op->buffer + bytes, 0, op->bytes - bytes);
    op->iov = (struct iovec){op->buffer, bytes};
    if (!bytes) {
        write_read(op);
        return;
    }
    op->state = JOB_OP_READ;
    op->request = (struct disk_request){
        .op = DISK_READ,
        .offset = op->offset,
        .bytes = bytes,
        .iov = &op->iov,
        .iov_count = 1,
        .on_done = on_step,
    };
    submit_to(op->job, op->job->options.disk, op->job->source, &op->request);
}

/* What is all zeroes is not read; where only the start is, the rest is left for another piece. */
static void on_status(struct job_op *op, int result)
{
    bool is_zero = !result && op->request.extent.is_zero;
    uint64_t bytes =
        align_down(op->request.extent.bytes,
                   op->job->todo ? UINT64_C(1) << op->job->todo->granularity_bits : 512);
    bool streams = op->job->options.kind == JOB_STREAM;
    if (is_zero && !streams && op->request.extent.bytes >= op->bytes) {
        write_piece(op, true);
    } else if (is_zero && !streams && bytes) {
        dirty_bitmap_mark(op->job->todo, op->offset + bytes, op->bytes - bytes);
        op->bytes = bytes;
        write_piece(op, true);
    } else {
        read_piece(op);
    }
}

static void on_step(struct disk_request *request, int result)
{
    struct job_op *op = container_of(request, struct job_op, request);
    switch (op->state) {
    case JOB_OP_STATUS:
        on_status(op, result);
        return;
    case JOB_OP_READ:
        if (result)
            job_op_failed(op, true, result);
        else
            write_read(op);
        return;
    case JOB_OP_WRITE:
        if (result)
            job_op_failed(op, false, result);
        else
            job_op_finish(op, false);
        return;
    case JOB_OP_GUEST:
        return;
    }
}

/* --- the guest's writes that a backup keeps waiting --- */

static bool must_wait(const struct job *job, const struct disk_request *request)
{
    uint64_t at = request->offset, size = job->todo->size_bytes;
    uint64_t end = MIN(request->offset + request->bytes, size);
    bool is_dirty = false;
    if (!qcow2_rule(JOB_COPY_FIRST))
        return false;
    if (at >= end || job->result || job->is_cancelled)
        return at < end && find_active(job, at, end - at);
    uint64_t stop = dirty_bitmap_run(job->todo, at, end, &is_dirty);
    return is_dirty || stop < end || find_active(job, at, end - at);
}

bool job_copy_intercept(void *opaque, struct disk_request *request)
{
    struct job *job = opaque;
    if (job->options.is_write_blocking)
        return job_active_intercept(job, request);
    if (job->options.kind != JOB_BACKUP || request->op == DISK_READ || request->op == DISK_FLUSH ||
        request->op == DISK_STATUS || request->flags & DISK_VMSTATE || !must_wait(job, request))
        return false;
    list_push_back(&job->waiting, &request->node);
    loop_task_queue(&job->work);
    return true;
}

/* Whole granules: what is unmarked must have been copied. */
static void copy_for(struct job *job, const struct disk_request *request)
{
    uint64_t granule = UINT64_C(1) << job->todo->granularity_bits, offset, bytes;
    uint64_t at = align_down(request->offset, granule);
    uint64_t end = MIN(align_up(request->offset + request->bytes, granule), job->todo->size_bytes);
    while (!list_is_empty(&job->idle) && find_piece(job, at, end, &bytes, &offset)) {
        begin(job, offset, bytes);
        at = offset + bytes;
    }
}

static void serve_waiting(struct job *job)
{
    if (job->options.is_write_blocking) {
        job_active_serve(job);
        return;
    }
    list_for_each(node, &job->waiting)
    {
        struct disk_request *request = list_entry(node, struct disk_request, node);
        if (must_wait(job, request)) {
            if (!job->result && !job->is_cancelled)
                copy_for(job, request);
            continue;
        }
        list_remove(&request->node);
        graph_continue(job->options.disk, request);
    }
}

/* --- the background --- */

static bool may_copy(struct job *job)
{
    bool is_held = graph_is_held(job->options.disk) && !job->is_quiet;
    return job->has_started && !job->result && !job->is_forced && !job_is_paused(job) && !is_held &&
           !(job->options.kind == JOB_BACKUP && job->options.sync == JOB_SYNC_NONE);
}

static bool has_room(const struct job *job)
{
    uint64_t most =
        job->options.buffer_bytes ? job->options.buffer_bytes / JOB_PIECE_BYTES : JOB_OPS;
    return !list_is_empty(&job->idle) && job->active_count < MAX(most, 1);
}

static void copy_more(struct job *job)
{
    uint64_t offset, bytes, size = job->todo->size_bytes;
    while (has_room(job)) {
        if (job->options.speed && loop_now_ns() < job->allowed_ns) {
            loop_timer_arm(&job->timer, job->allowed_ns);
            return;
        }
        if (!find_piece(job, job->cursor, size, &bytes, &offset) &&
            !find_piece(job, 0, size, &bytes, &offset))
            return;
        job->cursor = (offset + bytes) % MAX(size, 1);
        begin(job, offset, bytes);
    }
}

static void note_pause(struct job *job)
{
    if (!job_is_paused(job) || job->active_count > job->guest_count)
        return;
    if (job->status == JOB_RUNNING)
        job_set_status(job, JOB_PAUSED);
    else if (job->status == JOB_READY)
        job_set_status(job, JOB_STANDBY);
}

static bool has_ready(const struct job *job)
{
    return job->options.kind == JOB_MIRROR || job->is_active_commit;
}

static void become_ready(struct job *job)
{
    struct job_listener *listener = &job->jobs->listener;
    job->is_ready = true;
    job_set_status(job, JOB_READY);
    listener->on_event(listener->opaque, job, JOB_EVENT_READY);
}

static bool is_over(const struct job *job)
{
    if (job->result || job->is_forced)
        return job_copy_is_idle(job);
    if (has_ready(job))
        return job->is_ready && (job->wants_complete || job->is_cancelled);
    if (job->options.kind == JOB_BACKUP && job->options.sync == JOB_SYNC_NONE)
        return job->is_cancelled;
    return !job_has_work(job);
}

void job_copy_kick(struct job *job)
{
    if (job->status < JOB_CONCLUDED)
        loop_task_queue(&job->work);
}

static void on_work(struct loop_task *task)
{
    struct job *job = container_of(task, struct job, work);
    if (job->is_starting)
        return;
    if (job->has_filter)
        serve_waiting(job);
    if (may_copy(job))
        copy_more(job);
    note_pause(job);
    if (!job->has_started && !job->result && !job->is_forced)
        return;
    if (has_ready(job) && !job->is_ready && !job->result && !job->is_forced && !job_has_work(job))
        become_ready(job);
    if (job->is_ending || (!job->is_ending && is_over(job) && !job_is_paused(job)))
        job_end(job);
}

void job_copy_init(struct job *job)
{
    list_init(&job->idle);
    list_init(&job->active);
    list_init(&job->waiting);
    for (unsigned i = 0; i < JOB_OPS; i++) {
        job->ops[i].job = job;
        list_push_back(&job->idle, &job->ops[i].node);
    }
    loop_task_init(job->jobs->loop, &job->work, LOOP_STAGE_DRAIN, on_work);
}
