/* SPDX-License-Identifier: MIT */
/* block: finding disks by their names, dispatching commands, and the end of the room. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vmm/block/block_creation.h"
#include "vmm/block/block_private.h"

static const struct {
    const char *name;
    block_command_fn *run;
} commands[] = {
    {"block-commit", block_commit},
    {"block-dirty-bitmap-add", block_single_action},
    {"block-dirty-bitmap-clear", block_single_action},
    {"block-dirty-bitmap-disable", block_single_action},
    {"block-dirty-bitmap-enable", block_single_action},
    {"block-dirty-bitmap-merge", block_single_action},
    {"block-dirty-bitmap-remove", block_single_action},
    {"block-export-add", block_export_add},
    {"block-export-del", block_export_del},
    {"block-job-cancel", block_job_verb},
    {"block-job-complete", block_job_verb},
    {"block-job-dismiss", block_job_verb},
    {"block-job-finalize", block_job_verb},
    {"block-job-pause", block_job_verb},
    {"block-job-resume", block_job_verb},
    {"block-job-set-speed", block_job_verb},
    {"block-latency-histogram-set", block_set_histogram},
    {"block-stream", block_stream},
    {"block_set_io_throttle", block_set_throttle},
    {"blockdev-backup", block_single_action},
    {"blockdev-create", block_create_image},
    {"blockdev-mirror", block_mirror},
    {"blockdev-snapshot", block_single_action},
    {"blockdev-snapshot-delete-internal-sync", block_snapshot_delete},
    {"blockdev-snapshot-internal-sync", block_single_action},
    {"blockdev-snapshot-sync", block_single_action},
    {"change-backing-file", block_change_backing},
    {"drive-backup", block_single_action},
    {"drive-mirror", block_mirror},
    {"job-cancel", block_job_verb},
    {"job-complete", block_job_verb},
    {"job-dismiss", block_job_verb},
    {"job-finalize", block_job_verb},
    {"job-pause", block_job_verb},
    {"job-resume", block_job_verb},
    {"nbd-server-add", block_nbd_add},
    {"nbd-server-remove", block_nbd_remove},
    {"nbd-server-start", block_nbd_start},
    {"nbd-server-stop", block_nbd_stop},
    {"query-block-exports", block_query_exports},
    {"query-block-jobs", block_query_block_jobs},
    {"query-jobs", block_query_jobs},
    {"transaction", block_transaction},
};

static void end_call(struct block_call *call, json_t *value, const char *class, const char *text)
{
    block_done_fn *done = call->done;
    void *opaque = call->opaque;
    struct block *block = call->block;
    json_decref(call->args);
    free(call);
    done(opaque, value, class, text);
    block->calls--;
    block_check_closed(block);
}

void block_return(struct block_call *call, json_t *value)
{
    end_call(call, value, NULL, NULL);
}

void block_fail(struct block_call *call, const char *class, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    end_call(call, NULL, class, text);
}

void block_finish(struct block_call *call, int result, const struct error *err)
{
    if (!result)
        block_return(call, NULL);
    else
        block_fail(call, BLOCK_GENERIC, "%s", err && err->code ? err->text : strerror(-result));
}

int block_say_instead(struct error *err, int code, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    *err = (struct error){0};
    return error_set(err, code, "%s", text);
}

const char *block_text(const json_t *args, const char *name)
{
    return json_string_value(json_object_get(args, name));
}

bool block_bool(const json_t *args, const char *name, bool otherwise)
{
    const json_t *value = json_object_get(args, name);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

uint64_t block_uint(const json_t *args, const char *name, uint64_t otherwise)
{
    const json_t *value = json_object_get(args, name);
    json_int_t number = json_integer_value(value);
    return json_is_integer(value) && number >= 0 ? (uint64_t)number : otherwise;
}

int block_choice(const json_t *args, const char *name, const char *choices, unsigned otherwise,
                 unsigned *out, struct error *err)
{
    const char *text = block_text(args, name);
    *out = otherwise;
    if (!text)
        return 0;
    unsigned index = 0;
    for (const char *at = choices; *at; index++) {
        size_t length = strcspn(at, "|");
        if (strlen(text) == length && !memcmp(text, at, length)) {
            *out = index;
            return 0;
        }
        at += length + (at[length] == '|');
    }
    return error_set(err, EINVAL, "Parameter '%s' does not accept value '%.64s'", name, text);
}

struct disk *block_find(struct block *block, const char *name, struct node **node,
                        struct error *err)
{
    struct disk *disk;
    const char *id;
    name = name ? name : "";
    for (unsigned i = 0; block->host.disk_at(block->host.opaque, i, &disk, &id); i++)
        if (disk && id && !strcmp(id, name)) {
            *node = graph_top(disk);
            return disk;
        }
    for (unsigned i = 0; block->host.disk_at(block->host.opaque, i, &disk, &id); i++)
        if (disk && (*node = graph_find(disk, name, false)))
            return disk;
    error_set(err, ENODEV, "Cannot find device='%s' nor node-name='%s'", name, name);
    return NULL;
}

bool block_has_node(struct block *block, const char *name)
{
    struct disk *disk;
    const char *id;
    for (unsigned i = 0; block->host.disk_at(block->host.opaque, i, &disk, &id); i++)
        if (disk && graph_find(disk, name, false))
            return true;
    return false;
}

struct disk *block_find_root(struct block *block, const char *name, struct error *err)
{
    struct node *node;
    struct disk *disk = block_find(block, name, &node, err);
    if (!disk || node == graph_top(disk))
        return disk;
    error_set(err, EINVAL, "Need a root block node");
    return NULL;
}

int block_check_free(struct disk *disk, struct error *err)
{
    const char *user = graph_user(disk);
    if (!user)
        return 0;
    return error_set(err, EBUSY, "Node '%s' is busy: %s", disk_node_name(disk), user);
}

const char *block_id_of(const struct block *block, const struct disk *wanted)
{
    struct disk *disk;
    const char *id;
    for (unsigned i = 0; block->host.disk_at(block->host.opaque, i, &disk, &id); i++)
        if (disk == wanted)
            return id;
    return disk_node_name(wanted);
}

void block_run(struct block *block, const char *command, const json_t *arguments,
               block_done_fn *done, void *opaque)
{
    struct block_call *call = calloc(1, sizeof(*call));
    CHECK(call);
    *call = (struct block_call){block, json_deep_copy(arguments), done, opaque};
    CHECK(call->args);
    block->calls++;
    json_object_set_new(call->args, "", json_string(command));
    if (block->is_closing) {
        block_fail(call, BLOCK_GENERIC, "the machine is ending");
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (!strcmp(commands[i].name, command)) {
            commands[i].run(call);
            return;
        }
    block_fail(call, "CommandNotFound", "The command %s has not been found", command);
}

int block_create(struct loop *loop, const struct block_host *host, struct block **out,
                 struct error *err)
{
    struct block *block = calloc(1, sizeof(*block));
    if (!block)
        return error_set(err, ENOMEM, "no memory for block jobs");
    block->loop = loop;
    block->host = *host;
    list_init(&block->exports);
    list_init(&block->makings);
    list_init(&block->creations);
    block_jobs_init(block);
    *out = block;
    return 0;
}

/* --- ends --- */

static void on_all_closed(struct loop_task *task)
{
    struct block *block = container_of(task, struct block, closed);
    void (*on_closed)(void *) = block->on_closed;
    void *opaque = block->opaque;
    free(block);
    on_closed(opaque);
}

void block_check_closed(struct block *block)
{
    if (!block->is_closing || !block->has_no_jobs || block->nbd || block->closing_disks ||
        block->calls || !list_is_empty(&block->creations))
        return;
    block->is_closing = false;
    loop_task_init(block->loop, &block->closed, LOOP_STAGE_DRAIN, on_all_closed);
    loop_task_queue(&block->closed);
}

static void on_disk_closed(void *opaque, int result)
{
    struct block *block = opaque;
    if (result)
        log_error("closing an image failed: %s", strerror(-result));
    block->closing_disks--;
    block_check_closed(block);
}

void block_close_disk(struct block *block, struct disk *disk)
{
    block->closing_disks++;
    disk_close(disk, on_disk_closed, block);
}

int block_release_disk(struct block *block, struct disk *disk, struct error *err)
{
    int result = block_check_free(disk, err);
    if (!result && block_exports_disk(block, disk))
        result = error_set(err, EBUSY, "Node '%s' is busy: node is used as backing hd of an export",
                           disk_node_name(disk));
    return result;
}

static void on_nbd_closed(void *opaque)
{
    struct block *block = opaque;
    block->nbd = NULL;
    block_check_closed(block);
}

bool block_is_busy(const struct block *block)
{
    return block->calls || block->closing_disks || block->is_closing || block->nbd ||
           !list_is_empty(&block->jobs.list) || !list_is_empty(&block->exports);
}

void block_close(struct block *block, void (*on_closed)(void *opaque), void *opaque)
{
    block->is_closing = true;
    block->on_closed = on_closed;
    block->opaque = opaque;
    block_drop_exports(block, NULL);
    if (block->nbd && !block->is_stopping_nbd)
        nbd_server_close(block->nbd, on_nbd_closed, block);
    block_making_cancel_all(block);
    block_creation_end_all(block);
    jobs_cancel_all(&block->jobs);
}
