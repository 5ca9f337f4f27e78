/* SPDX-License-Identifier: MIT */
/*
 * job_end: what is copied becomes what is used.
 *
 * Theory of operation. A job that has copied all waits for job_finalize, or not. Then the disk goes
 * quiet, what a guest wrote last is copied, the destination is flushed; only then does anything
 * point to it: in memory, and for a commit below the top and a stream in the header of the image
 * above. Until then the old chain shows the disk, on the medium too. A job that fails leaves it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/jobs/job_private.h"
#include "disk/qcow2/qcow2_rule.h"

static void on_freed(void *opaque, int result);

static void leave_quiet(struct job *job)
{
    if (!job->is_quiet)
        return;
    job->is_quiet = false;
    graph_resume(job->options.disk);
}

/* The guest waits no longer, its writes are marked no more. */
static void detach(struct job *job)
{
    struct disk *disk = job->options.disk;
    if (job->has_filter) {
        job->has_filter = false;
        graph_set_filter(disk, NULL);
        for (struct list *node; (node = list_pop_front(&job->waiting));)
            graph_continue(disk, list_entry(node, struct disk_request, node));
    }
    list_remove(&job->todo->node);
    graph_set_user(disk, NULL);
}

/* A sync bitmap knows afterwards what the backup does not hold. */
static void settle_bitmap(struct job *job, bool is_good)
{
    struct dirty_bitmap *bitmap = job->options.bitmap;
    enum job_bitmap_mode mode = job->options.bitmap_mode;
    if (!bitmap || !job->has_started)
        return;
    if (job->options.sync == JOB_SYNC_TOP && job->scan_at < job->todo->size_bytes)
        dirty_bitmap_mark(job->todo, job->scan_at, job->todo->size_bytes - job->scan_at);
    if (mode == JOB_BITMAP_NEVER || (mode == JOB_BITMAP_ON_SUCCESS && !is_good))
        dirty_bitmap_merge(bitmap, job->taken);
    else if (!is_good)
        dirty_bitmap_merge(bitmap, job->todo);
}

static void tell_end(struct job *job, bool is_good)
{
    struct job_listener *listener = &job->jobs->listener;
    bool was_cancelled = !is_good && job->is_cancelled && !job->result;
    listener->on_event(listener->opaque, job,
                       was_cancelled ? JOB_EVENT_CANCELLED : JOB_EVENT_COMPLETED);
}

static void conclude(struct job *job)
{
    struct error ignored = {0};
    bool is_good = !job->result && !job->is_forced;
    struct disk *target = job->options.target;
    settle_bitmap(job, is_good);
    detach(job);
    leave_quiet(job);
    if (!is_good)
        job_group_cancel_others(job);
    job_group_leave(job);
    if (!is_good)
        job_set_status(job, JOB_ABORTING);
    /* The length that the events tell stays. */
    uint64_t left = job_total_bytes(job) - job->offset_bytes;
    dirty_bitmap_destroy(job->todo);
    job->todo = NULL;
    job->left_bytes = left;
    if (target) {
        graph_set_user(target, NULL);
        job->jobs->listener.on_target_free(job->jobs->listener.opaque, target, job->has_pivoted);
    }
    tell_end(job, is_good);
    job_set_status(job, JOB_CONCLUDED);
    if (!job->options.manual_dismiss)
        unused_result(job_dismiss(job, &ignored));
}

/* --- a base or an overlay that was opened for writing only for this --- */

static void on_quiet_to_freeze(void *opaque)
{
    struct job *job = opaque;
    job->is_quiet = true;
    job->destination->ops->freeze(job->destination, on_freed, job);
}

/* The job failed; its base is only read again. */
static void give_up(struct job *job)
{
    bool has_base = (job->options.kind == JOB_COMMIT || job->options.kind == JOB_STREAM) &&
                    job->destination != graph_top(job->options.disk) &&
                    !job->destination->read_only;
    if (!has_base)
        conclude(job);
    else if (job->is_quiet)
        on_quiet_to_freeze(job);
    else if (graph_quiesce(job->options.disk, on_quiet_to_freeze, job))
        conclude(job);
}

static void on_freed(void *opaque, int result)
{
    struct job *job = opaque;
    if (result && !job->result)
        job->result = result;
    conclude(job);
}

/* --- the pivots --- */

static void on_dropped(void *opaque, int result)
{
    struct job *job = opaque;
    (void)result; /* of images that nobody needs any more */
    job->has_pivoted = true;
    if (job->options.kind == JOB_COMMIT && !job->is_active_commit)
        job->destination->ops->freeze(job->destination, on_freed, job);
    else
        conclude(job);
}

static void drop_between(struct job *job, struct node *above)
{
    graph_drop_to(job->options.disk, above, job->options.base, on_dropped, job);
}

static struct node *overlay_of(const struct job *job)
{
    if (job->options.kind == JOB_STREAM)
        return job->destination;
    return graph_above(job->options.disk, job->source);
}

static void on_overlay_frozen(void *opaque, int result)
{
    struct job *job = opaque;
    (void)result;
    drop_between(job, overlay_of(job));
}

static void on_renamed(void *opaque, int result, const struct error *err)
{
    struct job *job = opaque;
    struct node *overlay = overlay_of(job);
    if (result) {
        job_fail(job, result, err->text);
        give_up(job);
    } else if (overlay != graph_top(job->options.disk)) {
        overlay->ops->freeze(overlay, on_overlay_frozen, job);
    } else {
        drop_between(job, overlay);
    }
}

/* The image above names its new backing file before the old ones go. */
static void rename_backing(struct job *job)
{
    struct error err = {0};
    struct node *overlay = overlay_of(job), *base = job->options.base;
    const char *name = job->base_name ? job->base_name : base ? base->path : NULL;
    int result = 0;
    if (overlay->read_only)
        result = graph_reopen(job->options.disk, overlay, false, &overlay, &err);
    if (!result && !overlay->ops->set_backing)
        result = error_set(&err, ENOTSUP, "image '%s' has no backing file", overlay->path);
    if (result) {
        job_fail(job, result, err.text);
        give_up(job);
        return;
    }
    overlay->ops->set_backing(overlay, base ? name : NULL, base ? base->ops->name : NULL,
                              on_renamed, job);
}

static void pivot(struct job *job)
{
    job->is_prepared = false;
    if (job->options.kind == JOB_MIRROR) {
        if (job->wants_complete && !job->is_cancelled) {
            list_remove(&job->todo->node);
            graph_swap(job->options.disk, job->options.target);
            job->has_pivoted = true;
        }
        conclude(job);
    } else if (job->options.kind == JOB_BACKUP) {
        conclude(job);
    } else if (job->is_active_commit && job->is_cancelled) {
        job->destination->ops->freeze(job->destination, on_freed, job);
    } else if (job->is_active_commit) {
        list_remove(&job->todo->node);
        drop_between(job, NULL);
    } else {
        rename_backing(job);
    }
}

static void on_flushed(struct disk_request *request, int result)
{
    struct job *job = container_of(request, struct job, flush);
    /* on_done stays: from here on the job only ends, whatever else wakes it. */
    if (result)
        job_fail(job, result, NULL);
    job->is_prepared = !job->result && !job->is_forced;
    if (!job->is_prepared)
        give_up(job);
    else if (job_group_is_prepared(job))
        job_group_each(job, pivot);
}

static void flush(struct job *job)
{
    bool is_ours = job->is_quiet && job->destination_disk == job->options.disk;
    job->flush = (struct disk_request){
        .op = DISK_FLUSH, .flags = is_ours ? DISK_IN_QUIET : 0, .on_done = on_flushed};
    if (qcow2_rule(JOB_FLUSH_FIRST))
        graph_submit(job->destination_disk, job->destination, &job->flush);
    else
        on_flushed(&job->flush, 0);
}

static void on_quiet(void *opaque)
{
    struct job *job = opaque;
    job->is_quiet = true;
    job_copy_kick(job);
}

static void finish_pending(struct job *job)
{
    if (job->is_finalized || job->result || job->is_forced)
        return;
    job->is_finalized = true;
    if (job->options.kind == JOB_BACKUP)
        flush(job);
    else if (graph_quiesce(job->options.disk, on_quiet, job))
        job_fail(job, -ENOMEM, NULL);
}

void job_finish_pending(struct job *job)
{
    job_group_each(job, finish_pending);
}

static void become_pending(struct job *job)
{
    struct job_listener *listener = &job->jobs->listener;
    job_set_status(job, JOB_PENDING);
    if (job->options.manual_finalize)
        listener->on_event(listener->opaque, job, JOB_EVENT_PENDING);
}

/* All that can be copied is; the others of its group may not be as far. */
static void wait_for_end(struct job *job)
{
    job->is_waiting = true;
    job_set_status(job, JOB_WAITING);
    if (!job_group_is_waiting(job))
        return;
    job_group_each(job, become_pending);
    if (!job_group_is_manual(job))
        job_finish_pending(job);
}

/* Called again whenever something has happened. */
void job_end(struct job *job)
{
    bool is_good = !job->result && !job->is_forced;
    if (job->is_prepared && !is_good) {
        job->is_prepared = false; /* another of the group failed */
        give_up(job);
    }
    if (job->flush.on_done || job->status >= JOB_CONCLUDED)
        return;
    if (!job->is_ending) {
        job->is_ending = true;
        if (!is_good) {
            job->flush.on_done = on_flushed; /* nothing more happens in between */
            give_up(job);
            return;
        }
        wait_for_end(job);
    } else if (!is_good && job_copy_is_idle(job) && (job->is_quiet || !job->is_finalized)) {
        job->flush.on_done = on_flushed;
        give_up(job);
    } else if (job->is_quiet && (!job_has_work(job) || !qcow2_rule(JOB_LAST_WRITES))) {
        flush(job);
    }
}
