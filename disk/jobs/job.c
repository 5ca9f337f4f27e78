/* SPDX-License-Identifier: MIT */
/* job: the life cycle that all kinds share, and what people may do to a job in each state. */
#include "disk/jobs/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/jobs/job_private.h"

const char *job_kind_name(enum job_kind kind)
{
    static const char *const names[] = {"mirror", "commit", "stream", "backup"};
    return names[kind];
}

const char *job_status_name(enum job_status status)
{
    static const char *const names[] = {"created", "running", "paused",   "ready",     "standby",
                                        "waiting", "pending", "aborting", "concluded", "null"};
    return names[status];
}

void jobs_init(struct jobs *jobs, struct loop *loop, const struct job_listener *listener)
{
    jobs->loop = loop;
    jobs->listener = *listener;
    list_init(&jobs->list);
}

struct job *jobs_find(struct jobs *jobs, const char *id)
{
    list_for_each(node, &jobs->list)
    {
        struct job *job = list_entry(node, struct job, node);
        if (!strcmp(job->id, id))
            return job;
    }
    return NULL;
}

void job_set_status(struct job *job, enum job_status status)
{
    if (job->status == status && status != JOB_CREATED)
        return;
    job->status = status;
    job->jobs->listener.on_status(job->jobs->listener.opaque, job);
}

void job_fail(struct job *job, int result, const char *what)
{
    if (job->result)
        return;
    job->result = result;
    error_set(&job->err, -result, "%s", what ? what : strerror(-result));
    job_copy_kick(job);
}

bool job_is_paused(const struct job *job)
{
    return job->is_paused_by_user || job->is_stopped_by_error;
}

bool job_counts_all(const struct job *job)
{
    return job->options.kind == JOB_STREAM ||
           (job->options.kind == JOB_COMMIT && !job->is_active_commit);
}

uint64_t job_total_bytes(const struct job *job)
{
    uint64_t left = job->todo ? dirty_bitmap_count_bytes(job->todo) : job->left_bytes;
    list_for_each(node, &job->active) left += list_entry(node, struct job_op, node)->bytes;
    if (job->todo && job_counts_all(job))
        left += job->todo->size_bytes - job->scan_at;
    if (job->options.kind == JOB_BACKUP && job->options.sync == JOB_SYNC_NONE)
        left = 0;
    return job->offset_bytes + left;
}

static int refuse(const struct job *job, const char *verb, struct error *err)
{
    return error_set(err, EPERM, "Job '%s' in state '%s' cannot accept command verb '%s'", job->id,
                     job_status_name(job->status), verb);
}

static bool is_at_work(const struct job *job)
{
    return job->status <= JOB_STANDBY;
}

int job_pause(struct job *job, struct error *err)
{
    if (!is_at_work(job))
        return refuse(job, "pause", err);
    if (job->is_paused_by_user)
        return error_set(err, EPERM, "Job is already paused");
    job->is_paused_by_user = true;
    job_copy_kick(job);
    return 0;
}

int job_resume(struct job *job, struct error *err)
{
    if (!is_at_work(job))
        return refuse(job, "resume", err);
    if (!job_is_paused(job))
        return error_set(err, EPERM, "Can't resume a job that was not paused");
    job->is_paused_by_user = job->is_stopped_by_error = false;
    job->io_error = 0;
    if (job->status == JOB_PAUSED)
        job_set_status(job, JOB_RUNNING);
    else if (job->status == JOB_STANDBY)
        job_set_status(job, JOB_READY);
    job_copy_kick(job);
    return 0;
}

/* A mirror that is ready ends well when it is cancelled: its target is whole. */
int job_cancel(struct job *job, bool force, struct error *err)
{
    if (job->status == JOB_ABORTING || job->status >= JOB_CONCLUDED)
        return refuse(job, "cancel", err);
    job->is_paused_by_user = job->is_stopped_by_error = false;
    job->is_cancelled = true;
    job->is_forced = force || !job->is_ready;
    if (job->status == JOB_PENDING && !job->is_finalized)
        job->is_forced = true;
    job_copy_kick(job);
    return 0;
}

int job_complete(struct job *job, struct error *err)
{
    if (job->status != JOB_READY)
        return refuse(job, "complete", err);
    if (job->is_cancelled)
        return error_set(err, EPERM, "The active block job '%s' cannot be completed", job->id);
    job->wants_complete = true;
    job_copy_kick(job);
    return 0;
}

int job_finalize(struct job *job, struct error *err)
{
    if (job->status != JOB_PENDING)
        return refuse(job, "finalize", err);
    job_finish_pending(job);
    return 0;
}

static void on_timer_closed(struct loop_timer *timer)
{
    struct job *job = timer->opaque;
    struct jobs *jobs = job->jobs;
    loop_task_cancel(&job->work);
    dirty_bitmap_destroy(job->taken);
    for (unsigned i = 0; i < JOB_OPS; i++)
        free(job->ops[i].buffer);
    free(job->id);
    free(job->base_name);
    list_remove(&job->node);
    free(job);
    if (list_is_empty(&jobs->list))
        jobs->listener.on_empty(jobs->listener.opaque);
}

int job_dismiss(struct job *job, struct error *err)
{
    if (job->status != JOB_CONCLUDED)
        return refuse(job, "dismiss", err);
    job_set_status(job, JOB_NULL);
    /* Its name is free from now on; the memory goes with the timer. */
    job->id[0] = 0;
    loop_timer_close(&job->timer, on_timer_closed);
    return 0;
}

int job_set_speed(struct job *job, uint64_t speed, struct error *err)
{
    if (!is_at_work(job))
        return refuse(job, "set-speed", err);
    job->options.speed = speed;
    job->allowed_ns = 0;
    job_copy_kick(job);
    return 0;
}

void jobs_cancel_all(struct jobs *jobs)
{
    struct error err = {0};
    list_for_each(node, &jobs->list)
    {
        struct job *job = list_entry(node, struct job, node);
        job->options.manual_dismiss = job->options.manual_finalize = false;
        if (job->status == JOB_CONCLUDED)
            unused_result(job_dismiss(job, &err));
        else if (job->status != JOB_NULL && job->status != JOB_ABORTING)
            unused_result(job_cancel(job, true, &err));
    }
    if (list_is_empty(&jobs->list))
        jobs->listener.on_empty(jobs->listener.opaque);
}
