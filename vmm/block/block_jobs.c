/* SPDX-License-Identifier: MIT */
/* block_jobs: the commands that start, list and steer jobs, and the events they cause. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "vmm/block/block_creation.h"
#include "vmm/block/block_private.h"

static json_int_t number(uint64_t value)
{
    return (json_int_t)MIN(value, INT64_MAX);
}

/* --- events --- */

static void emit(struct block *block, const char *event, json_t *data)
{
    block->host.emit(block->host.opaque, event, data);
}

static void on_status(void *opaque, const struct job *job)
{
    emit(opaque, "JOB_STATUS_CHANGE",
         json_pack("{s:s,s:s}", "status", job_status_name(job->status), "id", job->id));
}

static void on_event(void *opaque, const struct job *job, enum job_event event)
{
    static const char *const names[] = {"BLOCK_JOB_READY", "BLOCK_JOB_PENDING",
                                        "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"};
    if (event == JOB_EVENT_PENDING) {
        emit(opaque, names[event],
             json_pack("{s:s,s:s}", "type", job_kind_name(job->options.kind), "id", job->id));
        return;
    }
    json_t *data =
        json_pack("{s:s,s:I,s:I,s:I,s:s}", "device", job->id, "len", number(job_total_bytes(job)),
                  "offset", number(job->offset_bytes), "speed", number(job->options.speed), "type",
                  job_kind_name(job->options.kind));
    if (job->result)
        json_object_set_new(data, "error", json_string(job->err.text));
    emit(opaque, names[event], data);
}

static void on_error(void *opaque, const struct job *job, bool is_read, const char *action,
                     int code)
{
    (void)code;
    emit(opaque, "BLOCK_JOB_ERROR",
         json_pack("{s:s,s:s,s:s}", "device", job->id, "operation", is_read ? "read" : "write",
                   "action", action));
}

/* A pivot left the old chain in the target's handle: nothing of the machine uses it. */
static void on_target_free(void *opaque, struct disk *target, bool has_pivoted)
{
    struct block *block = opaque;
    struct disk *disk;
    const char *id;
    bool is_machines = false;
    for (unsigned i = 0; block->host.disk_at(block->host.opaque, i, &disk, &id); i++)
        is_machines |= disk == target;
    if (is_machines && !has_pivoted)
        return;
    if (is_machines)
        block->host.forget(block->host.opaque, target);
    block_drop_exports(block, target);
    block_close_disk(block, target);
}

static void on_empty(void *opaque)
{
    struct block *block = opaque;
    if (!block->is_closing)
        return;
    block->has_no_jobs = true;
    block_check_closed(block);
}

void block_jobs_init(struct block *block)
{
    const struct job_listener listener = {on_status,      on_event, on_error,
                                          on_target_free, on_empty, block};
    jobs_init(&block->jobs, block->loop, &listener);
}

/* --- starting --- */

static bool is_well_formed(const char *id)
{
    if (!isalpha((unsigned char)*id) || strlen(id) > JOB_ID_MAX)
        return false;
    for (; *id; id++)
        if (!isalnum((unsigned char)*id) && !strchr("-._", *id))
            return false;
    return true;
}

static int check_unused(struct block *block, const char *id, struct error *err)
{
    if (jobs_find(&block->jobs, id) || block_creation_find(block, id))
        return error_set(err, EEXIST, "Job ID '%s' already in use", id);
    return 0;
}

int block_job_check_id(struct block *block, const char *id, struct error *err)
{
    if (!is_well_formed(id))
        return error_set(err, EINVAL, "Invalid job ID '%.64s'", id);
    return check_unused(block, id, err);
}

static int set_id(struct block *block, const json_t *args, struct disk *disk,
                  struct job_options *out, struct error *err)
{
    out->id = block_text(args, "job-id");
    if (out->id)
        return block_job_check_id(block, out->id, err);
    out->id = block_id_of(block, disk);
    return check_unused(block, out->id, err);
}

static int set_errors(const json_t *args, struct job_options *out, struct error *err)
{
    static const char choices[] = "report|ignore|stop|enospc";
    unsigned source, target;
    const char *source_key = json_object_get(args, "on-error") ? "on-error" : "on-source-error";
    int result = block_choice(args, source_key, choices, JOB_ERROR_REPORT, &source, err);
    if (result)
        return result;
    const char *target_key = json_object_get(args, "on-error") ? "on-error" : "on-target-error";
    result = block_choice(args, target_key, choices, JOB_ERROR_REPORT, &target, err);
    out->on_source_error = (enum job_on_error)source;
    out->on_target_error = (enum job_on_error)target;
    return result;
}

int block_job_options(struct block *block, const json_t *args, struct disk *disk,
                      struct job_options *out, struct error *err)
{
    out->disk = disk;
    if (json_integer_value(json_object_get(args, "speed")) < 0)
        return error_set(err, EINVAL, "Parameter 'speed' expects a non-negative value");
    out->speed = block_uint(args, "speed", 0);
    out->manual_finalize = !block_bool(args, "auto-finalize", true);
    out->manual_dismiss = !block_bool(args, "auto-dismiss", true);
    out->unmap = block_bool(args, "unmap", true);
    int result = set_id(block, args, disk, out, err);
    if (!result)
        result = set_errors(args, out, err);
    if (!result)
        result = block_check_free(disk, err);
    return result;
}

static void start(struct block_call *call, const struct job_options *options)
{
    struct error err = {0};
    struct job *job;
    int result = call->block->is_closing ? error_set(&err, ECANCELED, "the machine ends")
                                         : job_start(&call->block->jobs, options, &job, &err);
    bool is_made = !strncmp(block_text(call->args, ""), "drive", 5);
    if (result && is_made)
        block_close_disk(call->block, options->target);
    block_finish(call, result, &err);
}

/* Of a disk whose chain is being changed, the job begins afterwards, with the chain of then. */
struct late_start {
    struct disk *disk;
    void (*begin)(void *opaque);
    void *opaque;
};

static void on_quiet(void *opaque)
{
    struct late_start late = *(struct late_start *)opaque;
    free(opaque);
    late.begin(late.opaque);
    graph_resume(late.disk);
}

static void begin_after_changes(struct block_call *call, void (*begin)(void *opaque), void *opaque)
{
    struct error ignored = {0};
    struct node *node;
    struct disk *disk = block_find(call->block, block_text(call->args, "device"), &node, &ignored);
    struct late_start *late = disk && graph_is_held(disk) ? malloc(sizeof(*late)) : NULL;
    if (late) {
        *late = (struct late_start){disk, begin, opaque};
        if (!graph_quiesce(disk, on_quiet, late))
            return;
        free(late);
    }
    begin(opaque);
}

int block_describe_target(const json_t *args, const struct disk *disk,
                          const struct job_options *job, const char *backing,
                          struct block_image *image, struct error *err)
{
    const char *format = block_text(args, "format"), *target = block_text(args, "target");
    unsigned mode;
    int result = block_choice(args, "mode", "absolute-paths|existing", 0, &mode, err);
    if (result)
        return result;
    if (!format && mode == 1)
        return error_set(err, EINVAL,
                         "Parameter 'format' is missing: the format of '%s' is not guessed",
                         target);
    *image = (struct block_image){
        .path = target,
        .format = format ? format : disk_format(disk),
        .node_name = block_text(args, "node-name"),
        .backing_path = backing,
        .backing_format = backing ? disk_format(disk_backing(disk)) : NULL,
        .is_existing = mode == 1,
        .size_bytes = disk_size_bytes(disk),
        .no_backing = job->kind == JOB_MIRROR && job->sync == JOB_SYNC_FULL,
    };
    return 0;
}

int block_take_target(struct block *block, const json_t *args, const struct block_making *making,
                      const struct block_image *image, struct job_options *job, struct error *err)
{
    if (image->path)
        return block_image_open(making, job->disk, image, &job->target, err);
    job->target = block_find_root(block, block_text(args, "target"), err);
    if (!job->target)
        return -ENODEV;
    if (job->target == job->disk)
        return error_set(err, EINVAL, "%s",
                         job->kind == JOB_MIRROR ? "Can't mirror node into itself"
                                                 : "Source and target cannot be the same");
    if (disk_is_read_only(job->target))
        return error_set(err, EROFS, "Node '%s' is read only", disk_node_name(job->target));
    return block_check_free(job->target, err);
}

static int check_sizes(const struct job_options *job, struct error *err)
{
    if (disk_size_bytes(job->disk) != disk_size_bytes(job->target))
        return error_set(err, EINVAL, "Source and target image have different sizes");
    return 0;
}

static int set_sizes(const json_t *args, struct job_options *job, struct error *err)
{
    uint64_t granularity = block_uint(args, "granularity", 0);
    if (granularity && (granularity < 512 || granularity > (UINT64_C(64) << 20)))
        return error_set(err, EINVAL,
                         "Parameter 'granularity' expects a value in range [512B, 64MB]");
    if (granularity && !is_power_of_2(granularity))
        return error_set(err, EINVAL, "Parameter 'granularity' expects a power of 2");
    job->granularity_bytes = (uint32_t)granularity;
    int64_t buffer_bytes = (int64_t)json_integer_value(json_object_get(args, "buf-size"));
    if (buffer_bytes < 0)
        return error_set(err, EINVAL, "Invalid parameter 'buf-size'");
    job->buffer_bytes = (uint64_t)buffer_bytes;
    return 0;
}

/* The node that a mirror takes the place of at its end: only the disk's own can be. */
static int check_replaces(const json_t *args, const struct disk *disk, struct error *err)
{
    const char *name = block_text(args, "replaces");
    if (!name)
        return 0;
    if (!strncmp(block_text(args, ""), "drive", 5) && !block_text(args, "node-name"))
        return error_set(err, EINVAL,
                         "a node-name must be provided when replacing a named node of the graph");
    if (strcmp(name, disk_node_name(disk)) != 0)
        return error_set(err, EINVAL,
                         "Only the node that is mirrored ('%s') can be replaced by its copy",
                         disk_node_name(disk));
    return 0;
}

/* A mirror of the top alone stands on what the source stands on. */
static int prepare_mirror(struct block *block, const json_t *args, struct job_options *job,
                          struct block_image *image, struct error *err)
{
    unsigned sync = JOB_SYNC_FULL, mode = 0;
    struct disk *disk = block_find_root(block, block_text(args, "device"), err);
    if (!disk)
        return -ENODEV;
    int result = block_choice(args, "sync", "full|top|none|incremental|bitmap", 0, &sync, err);
    if (!result && sync > JOB_SYNC_NONE)
        result = error_set(err, EINVAL, "Sync mode '%s' not supported", block_text(args, "sync"));
    if (!result)
        result = block_choice(args, "copy-mode", "background|write-blocking", 0, &mode, err);
    if (!result)
        result = check_replaces(args, disk, err);
    job->is_write_blocking = mode;
    job->sync = (enum job_sync)sync;
    if (!disk_backing(disk) && sync == JOB_SYNC_TOP)
        job->sync = JOB_SYNC_FULL;
    if (!result)
        result = block_job_options(block, args, disk, job, err);
    if (!result)
        result = set_sizes(args, job, err);
    if (result)
        return result;
    if (strcmp(block_text(args, ""), "drive-mirror") != 0)
        return 0;
    const struct disk *below = disk_backing(disk);
    const char *backing = job->sync != JOB_SYNC_FULL && below ? disk_path(below) : NULL;
    if (job->sync == JOB_SYNC_NONE)
        backing = disk_path(disk);
    return block_describe_target(args, disk, job, backing, image, err);
}

struct mirror_start {
    struct block_call *call;
    struct block_making *making; /* of drive-mirror's file */
};

static void end_start(struct mirror_start *mirror)
{
    block_making_end(mirror->making);
    free(mirror);
}

static void begin_mirror(void *opaque)
{
    struct mirror_start *mirror = opaque;
    struct block_call *call = mirror->call;
    struct error err = {0};
    struct block_image image = {0};
    struct job_options job = {.kind = JOB_MIRROR};
    int result = prepare_mirror(call->block, call->args, &job, &image, &err);
    if (!result)
        result = block_take_target(call->block, call->args, mirror->making, &image, &job, &err);
    bool is_open = !result && image.path;
    if (!result)
        result = check_sizes(&job, &err);
    if (result && is_open)
        block_close_disk(call->block, job.target);
    end_start(mirror);
    if (result)
        block_finish(call, result, &err);
    else
        start(call, &job);
}

static void on_made(void *opaque, int result, const struct error *err)
{
    struct mirror_start *mirror = opaque;
    struct block_call *call = mirror->call;
    if (!result) {
        begin_after_changes(call, begin_mirror, mirror);
        return;
    }
    end_start(mirror);
    block_finish(call, result, err);
}

void block_mirror(struct block_call *call)
{
    struct error err = {0};
    struct block_image image = {0};
    struct job_options job = {.kind = JOB_MIRROR};
    struct mirror_start *mirror = calloc(1, sizeof(*mirror));
    CHECK(mirror);
    mirror->call = call;
    if (strcmp(block_text(call->args, ""), "drive-mirror") != 0) {
        begin_after_changes(call, begin_mirror, mirror);
        return;
    }
    int result = prepare_mirror(call->block, call->args, &job, &image, &err);
    if (!result)
        result = block_making_start(call->block, &image, on_made, mirror, &mirror->making, &err);
    if (result) {
        free(mirror);
        block_finish(call, result, &err);
    }
}

/* A node of the disk's chain by "KEY" (a file) or "KEY-node"; *out stays if neither is given. */
static int find_in_chain(const json_t *args, const char *key, const struct disk *disk,
                         struct node **out, struct error *err)
{
    char node_key[32];
    snprintf(node_key, sizeof(node_key), "%s-node", key);
    const char *path = block_text(args, key), *name = block_text(args, node_key);
    bool is_commit = strcmp(block_text(args, ""), "block-commit") == 0;
    if (path && name && is_commit)
        return error_set(err, EINVAL, "'%s' and '%s' are mutually exclusive", node_key, key);
    if (path && name)
        return error_set(err, EINVAL, "'%s' and '%s' cannot be specified at the same time", key,
                         node_key);
    if (!path && !name)
        return 0;
    *out = graph_find(disk, path ? path : name, path != NULL);
    if (*out)
        return 0;
    if (path && strcmp(key, "top") == 0)
        return error_set(err, ENOENT, "Top image file %s not found", path);
    if (path)
        return error_set(err, ENOENT, "Can't find '%s' in the backing chain", path);
    return error_set(err, ENOENT, "Cannot find device='' nor node-name='%s'", name);
}

static struct node *bottom_of(const struct disk *disk)
{
    struct node *node = graph_top(disk);
    while (node->backing)
        node = node->backing;
    return node;
}

static bool is_below(const struct node *base, const struct node *above)
{
    const struct node *node = above->backing;
    while (node && node != base)
        node = node->backing;
    return node;
}

static int prepare_commit(struct block *block, const json_t *args, struct job_options *job,
                          struct error *err)
{
    struct disk *disk = block_find_root(block, block_text(args, "device"), err);
    if (!disk && err->code == ENODEV)
        return block_say_instead(err, ENODEV, "Device '%s' not found", block_text(args, "device"));
    if (!disk)
        return -EINVAL;
    job->top = graph_top(disk);
    job->base = bottom_of(disk);
    job->sync = JOB_SYNC_TOP;
    job->base_name = block_text(args, "backing-file");
    int result = find_in_chain(args, "top", disk, &job->top, err);
    if (!result)
        result = find_in_chain(args, "base", disk, &job->base, err);
    if (!result && block_text(args, "base") && !is_below(job->base, job->top))
        result = error_set(err, ENOENT, "Can't find '%s' in the backing chain",
                           block_text(args, "base"));
    if (result)
        return result;
    if (job->top == job->base)
        return error_set(err, EINVAL, "cannot commit an image into itself");
    struct node *node = job->top;
    while (node && node != job->base)
        node = node->backing;
    if (!node)
        return error_set(err, EINVAL, "'%s' is not in the backing chain of '%s'", job->base->path,
                         job->top->path);
    if (job->base_name && job->top == graph_top(disk))
        return error_set(err, EINVAL, "'backing-file' specified, but 'top' is the active layer");
    if (!job->base->ops->freeze)
        return error_set(err, ENOTSUP, "image '%s' is %s, which is only read", job->base->path,
                         job->base->ops->name);
    return block_job_options(block, args, disk, job, err);
}

static void begin_commit(void *opaque)
{
    struct block_call *call = opaque;
    struct error err = {0};
    struct job_options job = {.kind = JOB_COMMIT};
    int result = prepare_commit(call->block, call->args, &job, &err);
    if (result == -ENODEV)
        block_fail(call, BLOCK_NOT_FOUND, "%s", err.text);
    else if (result)
        block_finish(call, result, &err);
    else
        start(call, &job);
}

void block_commit(struct block_call *call)
{
    begin_after_changes(call, begin_commit, call);
}

/* `bottom`: the last image that goes into the others; its backing is the base. */
static int find_bottom(const json_t *args, const struct disk *disk, struct job_options *job,
                       struct error *err)
{
    const char *name = block_text(args, "bottom");
    if (!name)
        return 0;
    if (block_text(args, "base") || block_text(args, "base-node"))
        return error_set(err, EINVAL, "'bottom' and '%s' cannot be specified at the same time",
                         block_text(args, "base") ? "base" : "base-node");
    const struct node *bottom = graph_find(disk, name, false);
    if (!bottom)
        return error_set(err, ENOENT, "Cannot find device='' nor node-name='%s'", name);
    if (!is_below(bottom, job->top))
        return error_set(err, EINVAL, "Node '%s' is not in a chain starting from '%s'", name,
                         job->top->name);
    job->base = bottom->backing;
    return 0;
}

static int prepare_stream(struct block *block, const json_t *args, struct job_options *job,
                          struct error *err)
{
    struct disk *disk = block_find(block, block_text(args, "device"), &job->top, err);
    if (!disk)
        return -ENODEV;
    job->base_name = block_text(args, "backing-file");
    int result = find_in_chain(args, "base", disk, &job->base, err);
    if (!result)
        result = find_bottom(args, disk, job, err);
    if (!result && job->base && !is_below(job->base, job->top))
        result = error_set(err, ENOENT, "Can't find '%s' in the backing chain", job->base->path);
    if (result)
        return result;
    if (job->top != graph_top(disk) && (!job->top->ops->set_backing || !job->top->backing))
        return error_set(err, EINVAL, "Node '%s' has no backing image to stream from",
                         job->top->name);
    if (job->base_name && !job->base)
        return error_set(err, EINVAL, "backing file specified, but streaming the entire chain");
    if (disk_is_read_only(disk))
        return error_set(err, EROFS, "Block node is read-only");
    return block_job_options(block, args, disk, job, err);
}

static void begin_stream(void *opaque)
{
    struct block_call *call = opaque;
    struct error err = {0};
    struct job_options job = {.kind = JOB_STREAM};
    int result = prepare_stream(call->block, call->args, &job, &err);
    if (result)
        block_finish(call, result, &err);
    else
        start(call, &job);
}

void block_stream(struct block_call *call)
{
    begin_after_changes(call, begin_stream, call);
}

/* --- looking and steering --- */

static bool is_ready(const struct job *job)
{
    return job->status == JOB_READY || job->status == JOB_STANDBY;
}

const char *block_job_status(unsigned index)
{
    return index <= JOB_NULL ? job_status_name(index) : NULL;
}

/* Beside the jobs of disks there is that of blockdev-create. */
const char *block_job_type(unsigned index)
{
    if (index <= JOB_BACKUP)
        return job_kind_name(index);
    return index == JOB_BACKUP + 1 ? BLOCK_CREATION_TYPE : NULL;
}

void block_query_block_jobs(struct block_call *call)
{
    json_t *list = json_array();
    list_for_each(node, &call->block->jobs.list)
    {
        const struct job *job = list_entry(node, struct job, node);
        if (job->status == JOB_NULL)
            continue;
        const char *io = !job->io_error ? "ok" : job->io_error == ENOSPC ? "nospace" : "failed";
        json_t *entry =
            json_pack("{s:b,s:s,s:s,s:b,s:b,s:I,s:I,s:s,s:b,s:I,s:b,s:s}", "auto-finalize",
                      !job->options.manual_finalize, "io-status", io, "device", job->id,
                      "auto-dismiss", !job->options.manual_dismiss, "busy", job->active_count > 0,
                      "len", number(job_total_bytes(job)), "offset", number(job->offset_bytes),
                      "status", job_status_name(job->status), "paused", job_is_paused(job), "speed",
                      number(job->options.speed), "ready", is_ready(job), "type",
                      job_kind_name(job->options.kind));
        if (job->result)
            json_object_set_new(entry, "error", json_string(job->err.text));
        json_array_append_new(list, entry);
    }
    block_return(call, list);
}

void block_query_jobs(struct block_call *call)
{
    json_t *list = json_array();
    list_for_each(node, &call->block->jobs.list)
    {
        const struct job *job = list_entry(node, struct job, node);
        if (job->status == JOB_NULL)
            continue;
        json_t *entry = json_pack("{s:I,s:s,s:I,s:s,s:s}", "current-progress",
                                  number(job->offset_bytes), "status", job_status_name(job->status),
                                  "total-progress", number(job_total_bytes(job)), "type",
                                  job_kind_name(job->options.kind), "id", job->id);
        if (job->result)
            json_object_set_new(entry, "error", json_string(job->err.text));
        json_array_append_new(list, entry);
    }
    block_creation_list(call->block, list);
    block_return(call, list);
}

static int cancel(struct job *job, const json_t *args, struct error *err)
{
    bool is_block = block_text(args, "device") != NULL;
    if (is_block && job_is_paused(job) && !block_bool(args, "force", false))
        return error_set(err, EPERM, "The block job for device '%s' is currently paused", job->id);
    return job_cancel(job, !is_block || block_bool(args, "force", false), err);
}

static int set_speed(struct job *job, const json_t *args, struct error *err)
{
    if (json_integer_value(json_object_get(args, "speed")) < 0)
        return error_set(err, EINVAL, "Parameter 'speed' expects a non-negative value");
    return job_set_speed(job, block_uint(args, "speed", 0), err);
}

/* job-VERB and block-job-VERB: the name before the last words says which. */
void block_job_verb(struct block_call *call)
{
    const char *command = block_text(call->args, ""), *verb = strstr(command, "job-") + 4;
    const char *id = block_text(call->args, "id"), *device = block_text(call->args, "device");
    bool is_block = !strncmp(command, "block-", 6);
    const char *name = id ? id : device ? device : "";
    struct job *job = *name ? jobs_find(&call->block->jobs, name) : NULL;
    struct block_creation *creation = is_block ? NULL : block_creation_find(call->block, name);
    struct error err = {0};
    int result;
    if (creation) {
        block_creation_verb(call, creation, verb);
        return;
    }
    if (!job && is_block)
        block_fail(call, BLOCK_NOT_ACTIVE, "Block job '%s' not found", name);
    else if (!job)
        block_fail(call, BLOCK_GENERIC, "Job not found");
    if (!job)
        return;
    if (!strcmp(verb, "pause"))
        result = job_pause(job, &err);
    else if (!strcmp(verb, "resume"))
        result = job_resume(job, &err);
    else if (!strcmp(verb, "cancel"))
        result = cancel(job, call->args, &err);
    else if (!strcmp(verb, "complete"))
        result = job_complete(job, &err);
    else if (!strcmp(verb, "finalize"))
        result = job_finalize(job, &err);
    else if (!strcmp(verb, "dismiss"))
        result = job_dismiss(job, &err);
    else
        result = set_speed(job, call->args, &err);
    block_finish(call, result, &err);
}
