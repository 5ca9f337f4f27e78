/* SPDX-License-Identifier: MIT */
/* live_disks: QMP transactions and jobs over all disks of a machine. */
#include "tools/evctl/live_disks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/evctl/disks.h"
#include "tools/evctl/interrupt.h"
#include "tools/evctl/model.h"
#include "tools/evctl/qmp.h"
#include "tools/evctl/run.h"
#include "tools/evctl/tell.h"

#define PATIENCE_MS 600000
#define LOOK_MS     100

static bool is_disk(const json_t *disk)
{
    return strcmp(model_text(disk, "kind"), "disk") == 0;
}

static int open_patiently(const struct machine *machine, struct qmp *qmp, struct error *err)
{
    int result = qmp_open(machine, qmp, err);
    qmp->timeout_ms = PATIENCE_MS;
    return result;
}

static bool has_block(const json_t *blocks, const char *id)
{
    size_t i;
    json_t *block;
    json_array_foreach(blocks, i, block)
    {
        const json_t *inserted = json_object_get(block, "inserted");
        if (strcmp(model_text(block, "device"), id) == 0 ||
            strcmp(model_text(inserted, "node-name"), id) == 0)
            return true;
    }
    return false;
}

/* A disk that was attached for the next start is not there yet. */
static int open_whole(const struct machine *machine, struct qmp *qmp, struct error *err)
{
    json_t *blocks = NULL, *disk;
    size_t i;
    int result = open_patiently(machine, qmp, err);
    if (result)
        return result;
    result = qmp_execute(qmp, "query-block", NULL, &blocks, err);
    json_array_foreach(json_object_get(machine->config, "disks"), i, disk)
    {
        if (result || !is_disk(disk) || has_block(blocks, model_text(disk, "id")))
            continue;
        result = error_set(err, EISCONN,
                           "'%s' of '%s' comes with its next start: stop the machine first (evctl "
                           "stop), or detach the disk and attach it with --live",
                           model_text(disk, "id"), machine->name);
    }
    json_decref(blocks);
    if (result)
        qmp_close(qmp);
    return result;
}

static int run_transaction(struct qmp *qmp, json_t *actions, struct error *err)
{
    return qmp_execute(qmp, "transaction", json_pack("{s:o}", "actions", actions), NULL, err);
}

/* --- snapshots --- */

int live_disks_snapshot(const struct machine *machine, const char *name, struct error *err)
{
    struct qmp qmp;
    json_t *actions = json_array(), *disk;
    size_t i;
    int result = open_whole(machine, &qmp, err);
    json_array_foreach(json_object_get(machine->config, "disks"), i, disk) if (is_disk(disk))
        json_array_append_new(actions, json_pack("{s:s, s:{s:s, s:s}}", "type",
                                                 "blockdev-snapshot-internal-sync", "data",
                                                 "device", model_text(disk, "id"), "name", name));
    if (result) {
        json_decref(actions);
        return result;
    }
    result = run_transaction(&qmp, actions, err);
    qmp_close(&qmp);
    /* evisor goes on with what it has been told. */
    if (result == -EINTR)
        error_set(err, EINTR,
                  "interrupted; '%s' may have the snapshot '%s' all the same: evctl snapshot list",
                  machine->name, name);
    return result;
}

int live_disks_delete_snapshot(const struct machine *machine, const json_t *ids, const char *name,
                               struct error *err)
{
    struct qmp qmp;
    json_t *id;
    size_t i;
    int result = open_patiently(machine, &qmp, err);
    if (result)
        return result;
    json_array_foreach(ids, i, id) if (!result) result =
        qmp_execute(&qmp, "blockdev-snapshot-delete-internal-sync",
                    json_pack("{s:O, s:s}", "device", id, "name", name), NULL, err);
    qmp_close(&qmp);
    return result;
}

/* --- copies --- */

/* Jobs of one kind, one for each disk: "copy-disk0". */
struct jobs {
    struct qmp qmp;
    const char *prefix, *doing;
    size_t left;
};

static json_t *copy_action(const struct machine *to, json_t *disk)
{
    char file[64];
    const char *id = model_text(disk, "id");
    snprintf(file, sizeof(file), "%.40s.qcow2", id);
    char *target = machine_path(to, file);
    json_t *action =
        json_pack("{s:s, s:{s:s, s:o, s:s, s:s, s:s, s:s}}", "type", "drive-backup", "data",
                  "device", id, "job-id", json_sprintf("copy-%s", id), "target", target, "format",
                  "qcow2", "sync", "full", "mode", "absolute-paths");
    json_object_set_new(disk, "file", json_string(file));
    json_object_set_new(disk, "format", json_string("qcow2"));
    json_object_del(disk, "base");
    json_object_del(disk, "layers");
    free(target);
    return action;
}

static double percent_done(struct qmp *qmp)
{
    json_t *jobs = NULL, *job;
    size_t i;
    double done = 0, all = 0;
    if (qmp_execute(qmp, "query-block-jobs", NULL, &jobs, NULL))
        return -1;
    json_array_foreach(jobs, i, job)
    {
        done += (double)model_number(job, "offset");
        all += (double)model_number(job, "len");
    }
    json_decref(jobs);
    return all > 0 ? 100 * done / all : -1;
}

/* One event of a job: another is done, or all has failed. */
static int take_event(struct jobs *jobs, const json_t *event, struct error *err)
{
    const json_t *data = json_object_get(event, "data");
    const char *name = model_text(event, "event"), *problem = model_text(data, "error");
    size_t length = strlen(jobs->prefix);
    bool is_ours = strncmp(model_text(data, "device"), jobs->prefix, length) == 0;
    if (is_ours && strcmp(name, "BLOCK_JOB_COMPLETED") == 0 && !*problem)
        jobs->left--;
    else if (is_ours && strncmp(name, "BLOCK_JOB_C", 11) == 0)
        return error_set(err, EIO, "%s the disk '%s' of '%s' failed: %s", jobs->doing,
                         model_text(data, "device") + length, jobs->qmp.name,
                         *problem ? problem : "it was cancelled");
    return 0;
}

static int wait_jobs(struct jobs *jobs, struct error *err)
{
    struct tell_progress progress;
    int result = 0;
    tell_progress_begin(&progress, jobs->doing);
    while (!result && jobs->left) {
        json_t *event = NULL;
        result = qmp_wait_event(&jobs->qmp, tell_now_ns() + LOOK_MS * 1000000ull, &event);
        if (!result)
            result = take_event(jobs, event, err);
        else if (result == -ETIMEDOUT || result == -EINTR)
            result = interrupt_check(err);
        else
            result = error_set(err, -result, "the machine '%s' has ended", jobs->qmp.name);
        json_decref(event);
        tell_progress_update(&progress, progress.is_shown ? percent_done(&jobs->qmp) : -1);
    }
    tell_progress_end(&progress);
    return result;
}

static void cancel_jobs(struct jobs *jobs, const json_t *disks)
{
    size_t i;
    json_t *disk;
    json_array_foreach(disks, i, disk) if (is_disk(disk)) unused_result(qmp_execute(
        &jobs->qmp, "block-job-cancel",
        json_pack("{s:o}", "device", json_sprintf("%s%s", jobs->prefix, model_text(disk, "id"))),
        NULL, NULL));
}

/* All that began is waited for, or cancelled after a failure. */
static int end_jobs(struct jobs *jobs, const json_t *disks, int result, struct error *err)
{
    if (!result)
        result = wait_jobs(jobs, err);
    if (result)
        cancel_jobs(jobs, disks);
    qmp_close(&jobs->qmp);
    return result;
}

int live_disks_copy(const struct machine *machine, struct machine *to, struct error *err)
{
    struct jobs jobs = {.prefix = "copy-", .doing = "copying"};
    json_t *actions = json_array(), *disks = json_object_get(to->config, "disks"), *disk;
    size_t i;
    int result = 0;
    json_array_foreach(disks, i, disk)
    {
        if (is_disk(disk))
            json_array_append_new(actions, copy_action(to, disk));
        else if (!result)
            result = disks_clone(machine, to, disk, false, err);
    }
    jobs.left = json_array_size(actions);
    if (!result && jobs.left)
        result = open_whole(machine, &jobs.qmp, err);
    if (result || !jobs.left) {
        json_decref(actions);
        return result;
    }
    result = run_transaction(&jobs.qmp, actions, err);
    return end_jobs(&jobs, disks, result, err);
}

int live_disks_stream(const struct machine *machine, const json_t *disks, struct error *err)
{
    struct jobs jobs = {.prefix = "flatten-", .doing = "flattening"};
    size_t i;
    json_t *disk;
    int result = open_patiently(machine, &jobs.qmp, err);
    if (result)
        return result;
    json_array_foreach(disks, i, disk) if (!result)
    {
        const char *id = model_text(disk, "id");
        result = qmp_execute(
            &jobs.qmp, "block-stream",
            json_pack("{s:s, s:o}", "device", id, "job-id", json_sprintf("%s%s", jobs.prefix, id)),
            NULL, err);
        jobs.left += !result;
    }
    return end_jobs(&jobs, disks, result, err);
}

int live_disks_push(const struct machine *machine, json_t *actions, struct error *err)
{
    struct qmp qmp;
    int result = open_whole(machine, &qmp, err);
    if (result) {
        json_decref(actions);
        return result;
    }
    result = run_transaction(&qmp, actions, err);
    qmp_close(&qmp);
    return result;
}
