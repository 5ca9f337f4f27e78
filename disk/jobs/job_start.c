/* SPDX-License-Identifier: MIT */
/*
 * job_start: what a job needs before it copies: its bitmap, a base that can be written to, a filter
 * that keeps what the guest is about to change; and finding out what is to be copied.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/jobs/job_private.h"

#define GRANULE_DEFAULT UINT32_C(65536)
#define SCAN_BYTES      (UINT64_C(1) << 30)

static void scan_from(struct job *job);

/* The first node that the scan does not ask any more. */
static struct node *scan_end(const struct job *job)
{
    if (job->options.kind == JOB_COMMIT || job->options.kind == JOB_STREAM)
        return job->options.base;
    return graph_top(job->options.disk)->backing;
}

static void scan_next(struct job *job, bool is_marked)
{
    if (is_marked)
        dirty_bitmap_mark(job->todo, job->scan_at, job->scan_bytes);
    else if (job_counts_all(job))
        job->offset_bytes += job->scan_bytes;
    job->scan_at += job->scan_bytes;
    job_copy_kick(job);
    scan_from(job);
}

/* A layer that is shorter than what is above it shows zeroes there, whatever lies below; without it
 * the base would show through, as far as that reaches. */
static void scan_beyond(struct job *job)
{
    const struct node *base = job->options.base;
    bool shows = base && job->scan_at < base->size_bytes;
    if (shows)
        job->scan_bytes = MIN(job->scan_bytes, base->size_bytes - job->scan_at);
    scan_next(job, shows);
}

/* Asks the next layer below. */
static void scan_layer(struct job *job)
{
    if (job->scan_node == scan_end(job)) {
        scan_next(job, false);
        return;
    }
    if (job->scan_node->size_bytes <= job->scan_at) {
        scan_beyond(job);
        return;
    }
    job->scan_bytes = MIN(job->scan_bytes, job->scan_node->size_bytes - job->scan_at);
    job->scan = (struct disk_request){
        .op = DISK_STATUS,
        .flags = DISK_ONE_NODE,
        .offset = job->scan_at,
        .bytes = job->scan_bytes,
        .on_done = job->scan.on_done,
    };
    graph_submit(job->options.disk, job->scan_node, &job->scan);
}

static void on_scanned(struct disk_request *request, int result)
{
    struct job *job = container_of(request, struct job, scan);
    bool streams = job->options.kind == JOB_STREAM;
    bool is_top = job->scan_node == job->destination;
    if (result) {
        job->is_scanning = false;
        job_fail(job, result, NULL);
        return;
    }
    job->scan_bytes = MIN(job->scan_bytes, request->extent.bytes);
    if (!request->extent.is_absent) {
        /* What a stream's top has, stays. */
        scan_next(job, !(streams && is_top));
        return;
    }
    job->scan_node = job->scan_node->backing;
    scan_layer(job);
}

static void scan_from(struct job *job)
{
    uint64_t size = job->todo->size_bytes;
    if (job->scan_at >= size || job->is_forced || job->result) {
        job->is_scanning = false;
        job_copy_kick(job);
        return;
    }
    job->scan_bytes = MIN(SCAN_BYTES, size - job->scan_at);
    job->scan_node = job->options.kind == JOB_COMMIT   ? job->source
                     : job->options.kind == JOB_STREAM ? job->destination
                                                       : graph_top(job->options.disk);
    job->scan.on_done = on_scanned;
    scan_layer(job);
}

static void scan(struct job *job)
{
    enum job_kind kind = job->options.kind;
    job->has_started = true;
    if (kind == JOB_COMMIT || kind == JOB_STREAM ||
        (kind == JOB_MIRROR && job->options.sync == JOB_SYNC_TOP) ||
        (kind == JOB_BACKUP && job->options.sync == JOB_SYNC_TOP)) {
        job->is_scanning = true;
        scan_from(job);
    }
    job_copy_kick(job);
}

/* --- what needs a quiet disk --- */

static void go_on(struct job *job, int result, const struct error *err)
{
    job->is_starting = false;
    if (result)
        job_fail(job, result, err && err->code ? err->text : NULL);
    graph_resume(job->options.disk);
    scan(job);
}

static void on_base_grown(void *opaque, int result, const struct error *err)
{
    go_on(opaque, result, err);
}

static void on_quiet_for_commit(void *opaque)
{
    struct job *job = opaque;
    struct error err = {0};
    uint64_t size = job->source->size_bytes;
    int result =
        graph_reopen(job->options.disk, job->options.base, false, &job->options.base, &err);
    job->destination = job->options.base;
    if (!result && job->destination->size_bytes < size)
        job->destination->ops->resize(job->destination, size, on_base_grown, job);
    else
        go_on(job, result, &err);
}

/* An image below the top is opened for writing while data streams into it. */
static void on_quiet_for_stream(void *opaque)
{
    struct job *job = opaque;
    struct error err = {0};
    int result = graph_reopen(job->options.disk, job->destination, false, &job->destination, &err);
    job->options.top = job->destination;
    go_on(job, result, &err);
}

static void begin_mirror(struct job *job)
{
    struct node *top = graph_top(job->options.disk);
    graph_set_filter(job->options.disk, &job->filter);
    job->has_filter = true;
    list_push_back(&top->bitmaps, &job->todo->node);
    if (job->options.sync == JOB_SYNC_FULL)
        dirty_bitmap_mark(job->todo, 0, job->todo->size_bytes);
}

/* The bitmap does not see a write's end: none may be under way when it begins. */
static void on_quiet_for_mirror(void *opaque)
{
    struct job *job = opaque;
    begin_mirror(job);
    go_on(job, 0, NULL);
}

/* Everything the backup has to show is unmarked or kept from now on. */
static void begin_backup(struct job *job)
{
    struct dirty_bitmap *bitmap = job->options.bitmap;
    if (job->options.sync == JOB_SYNC_FULL || job->options.sync == JOB_SYNC_NONE)
        dirty_bitmap_mark(job->todo, 0, job->todo->size_bytes);
    if (bitmap) {
        if (job->options.sync == JOB_SYNC_BITMAP)
            dirty_bitmap_merge(job->todo, bitmap);
        dirty_bitmap_merge(job->taken, bitmap);
        dirty_bitmap_clear(bitmap);
    }
    graph_set_filter(job->options.disk, &job->filter);
    job->has_filter = true;
}

static void on_quiet_for_backup(void *opaque)
{
    struct job *job = opaque;
    begin_backup(job);
    go_on(job, 0, NULL);
}

static void on_hold(void *opaque, bool is_held)
{
    (void)is_held;
    job_copy_kick(opaque);
}

static int begin(struct job *job)
{
    struct disk *disk = job->options.disk;
    job->filter =
        (struct disk_filter){.intercept = job_copy_intercept, .on_hold = on_hold, .opaque = job};
    if (job->options.is_write_blocking) {
        job->filter.on_done = job_active_done;
        job->todo->enabled = false;
    }
    if (job->options.kind == JOB_BACKUP && job->options.is_quiet) {
        begin_backup(job);
        job->is_starting = false;
        scan(job);
        return 0;
    }
    if (job->options.kind == JOB_BACKUP)
        return graph_quiesce(disk, on_quiet_for_backup, job);
    if (job->options.is_write_blocking)
        return graph_quiesce(disk, on_quiet_for_mirror, job);
    if (job->options.kind == JOB_MIRROR) {
        begin_mirror(job);
        job->is_starting = false;
        scan(job);
        return 0;
    }
    graph_set_filter(disk, &job->filter);
    job->has_filter = true;
    if (job->options.kind == JOB_COMMIT)
        return graph_quiesce(disk, on_quiet_for_commit, job);
    if (job->options.kind == JOB_STREAM && job->destination->read_only)
        return graph_quiesce(disk, on_quiet_for_stream, job);
    job->is_starting = false;
    scan(job);
    return 0;
}

static int make_memory(struct job *job, struct error *err)
{
    struct disk *disk = job->options.disk;
    uint32_t granule = job->options.granularity_bytes;
    if (!granule)
        granule = MIN(MAX(graph_top(disk)->discard_granularity, 4096u), GRANULE_DEFAULT);
    granule = (uint32_t)MIN(granule, JOB_PIECE_BYTES);
    const struct node *whole =
        job->options.kind == JOB_STREAM && job->options.top ? job->options.top : graph_top(disk);
    int result =
        dirty_bitmap_create("", whole->size_bytes, (uint32_t)__builtin_ctz(granule), &job->todo);
    if (!result && job->options.bitmap)
        result = dirty_bitmap_create("", graph_top(disk)->size_bytes,
                                     job->options.bitmap->granularity_bits, &job->taken);
    for (unsigned i = 0; i < JOB_OPS && !result; i++)
        result = posix_memalign((void **)&job->ops[i].buffer, 4096, JOB_PIECE_BYTES) ? -ENOMEM : 0;
    job->id = strdup(job->options.id);
    job->base_name = job->options.base_name ? strdup(job->options.base_name) : NULL;
    if (!result && (!job->id || (job->options.base_name && !job->base_name)))
        result = -ENOMEM;
    return result ? error_set_errno(err, -result, "cannot start job '%s'", job->options.id) : 0;
}

static void on_expired(struct loop_timer *timer)
{
    job_copy_kick(timer->opaque);
}

static void set_ends(struct job *job)
{
    struct disk *disk = job->options.disk;
    struct node *top = graph_top(disk);
    job->source = top;
    job->destination_disk = disk;
    if (job->options.kind == JOB_STREAM && job->options.top)
        top = job->options.top;
    switch (job->options.kind) {
    case JOB_MIRROR:
    case JOB_BACKUP:
        job->destination_disk = job->options.target;
        job->destination = graph_top(job->options.target);
        break;
    case JOB_COMMIT:
        job->source = job->options.top ? job->options.top : top;
        job->is_active_commit = job->source == top;
        job->destination = job->options.base;
        break;
    case JOB_STREAM:
        job->source = top->backing;
        job->destination = top;
        break;
    }
}

static void free_unstarted(struct job *job)
{
    dirty_bitmap_destroy(job->todo);
    dirty_bitmap_destroy(job->taken);
    for (unsigned i = 0; i < JOB_OPS; i++)
        free(job->ops[i].buffer);
    free(job->id);
    free(job->base_name);
    free(job);
}

int job_start(struct jobs *jobs, const struct job_options *options, struct job **out,
              struct error *err)
{
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        return error_set(err, ENOMEM, "no memory for job '%s'", options->id);
    job->jobs = jobs;
    job->options = *options;
    list_init(&job->node);
    list_init(&job->group_node);
    job_copy_init(job);
    int result = make_memory(job, err);
    if (!result) {
        result = loop_timer_init(jobs->loop, &job->timer, on_expired);
        if (result)
            error_set_errno(err, -result, "cannot start job '%s'", options->id);
    }
    if (result) {
        free_unstarted(job);
        return result;
    }
    job->timer.opaque = job;
    set_ends(job);
    job->is_starting = true;
    snprintf(job->user, sizeof(job->user), "block device is in use by block job: %s",
             job_kind_name(options->kind));
    graph_set_user(options->disk, job->user);
    if (options->target)
        graph_set_user(options->target, job->user);
    list_push_back(&jobs->list, &job->node);
    job_group_join(job);
    job_set_status(job, JOB_CREATED);
    job_set_status(job, JOB_RUNNING);
    if (job->is_active_commit)
        list_push_back(&graph_top(options->disk)->bitmaps, &job->todo->node);
    result = begin(job);
    if (result) {
        job->is_starting = false;
        job_fail(job, result, NULL);
    }
    *out = job;
    return 0;
}
