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
    int result = open_patiently(machine, &qmp, err);
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
    return result;
}

int live_disks_delete_snapshot(const struct machine *machine, const char *name, struct error *err)
{
    struct qmp qmp;
    json_t *disk;
    size_t i;
    int result = open_patiently(machine, &qmp, err);
    if (result)
        return result;
    json_array_foreach(json_object_get(machine->config, "disks"), i,
                       disk) if (!result && is_disk(disk)) result =
        qmp_execute(&qmp, "blockdev-snapshot-delete-internal-sync",
                    json_pack("{s:s, s:s}", "device", model_text(disk, "id"), "name", name), NULL,
                    err);
    qmp_close(&qmp);
    return result;
}

/* --- copies --- */

struct copies {
    struct qmp qmp;
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
static int take_event(struct copies *copies, const json_t *event, struct error *err)
{
    const json_t *data = json_object_get(event, "data");
    const char *name = model_text(event, "event"), *problem = model_text(data, "error");
    bool is_ours = strncmp(model_text(data, "device"), "copy-", 5) == 0;
    if (is_ours && strcmp(name, "BLOCK_JOB_COMPLETED") == 0 && !*problem)
        copies->left--;
    else if (is_ours && strncmp(name, "BLOCK_JOB_C", 11) == 0)
        return error_set(err, EIO, "copying the disk '%s' of '%s' failed: %s",
                         model_text(data, "device") + 5, copies->qmp.name,
                         *problem ? problem : "it was cancelled");
    return 0;
}

static int wait_copies(struct copies *copies, struct error *err)
{
    struct tell_progress progress;
    int result = 0;
    tell_progress_begin(&progress, "copying the disks of the running machine");
    while (!result && copies->left) {
        json_t *event = NULL;
        result = qmp_wait_event(&copies->qmp, tell_now_ns() + LOOK_MS * 1000000ull, &event);
        if (!result)
            result = take_event(copies, event, err);
        else if (result == -ETIMEDOUT)
            result = interrupt_check(err);
        else
            result = error_set(err, -result, "the machine '%s' has ended", copies->qmp.name);
        json_decref(event);
        tell_progress_update(&progress, progress.is_shown ? percent_done(&copies->qmp) : -1);
    }
    tell_progress_end(&progress);
    return result;
}

static void cancel_copies(struct qmp *qmp, const json_t *disks)
{
    size_t i;
    json_t *disk;
    json_array_foreach(disks, i, disk) if (is_disk(disk)) unused_result(qmp_execute(
        qmp, "block-job-cancel",
        json_pack("{s:o}", "device", json_sprintf("copy-%s", model_text(disk, "id"))), NULL, NULL));
}

int live_disks_copy(const struct machine *machine, struct machine *to, struct error *err)
{
    struct copies copies = {0};
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
    copies.left = json_array_size(actions);
    if (!result && copies.left)
        result = open_patiently(machine, &copies.qmp, err);
    if (result || !copies.left) {
        json_decref(actions);
        return result;
    }
    result = run_transaction(&copies.qmp, actions, err);
    if (!result)
        result = wait_copies(&copies, err);
    if (result)
        cancel_copies(&copies.qmp, disks);
    qmp_close(&copies.qmp);
    return result;
}

/* --- freezing --- */

/* The first "disk0-1.qcow2" that is not there. */
static void free_file(const struct machine *machine, const char *id, char file[64])
{
    for (unsigned n = 1;; n++) {
        snprintf(file, 64, "%.40s-%u.qcow2", id, n);
        if (faccessat(machine->folder_fd, file, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
            return;
    }
}

/* An image that shows what the old one holds. Its size is given, for the old one is in use. */
static int make_layer(const struct machine *machine, const json_t *disk, const char *file,
                      struct error *err)
{
    char size[32];
    json_t *info = disks_info(machine, disk, err);
    if (!info)
        return -err->code;
    snprintf(size, sizeof(size), "%llu", (unsigned long long)model_number(info, "virtual-size"));
    json_decref(info);
    char *path = machine_path(machine, file);
    int result = run_img(json_pack("[s, s, s, s, s, s, s, s, s, s, s]", "create", "-q", "-u", "-f",
                                   "qcow2", "-b", model_text(disk, "file"), "-F",
                                   model_text(disk, "format"), path, size),
                         NULL, NULL, err);
    free(path);
    return result;
}

/* The disk's description with the new image on top; the action that puts it there. */
static int freeze_disk(const struct machine *machine, json_t *disk, json_t *frozen, json_t *actions,
                       struct error *err)
{
    char file[64], *path = machine_path(machine, model_text(disk, "file"));
    free_file(machine, model_text(disk, "id"), file);
    int result = make_layer(machine, disk, file, err);
    if (!result) {
        json_array_append_new(actions, json_pack("{s:s, s:{s:s, s:s, s:s, s:s}}", "type",
                                                 "blockdev-snapshot-sync", "data", "device",
                                                 model_text(disk, "id"), "snapshot-file", file,
                                                 "format", "qcow2", "mode", "existing"));
        json_object_set_new(
            frozen, model_text(disk, "id"),
            json_pack("{s:s, s:s}", "file", path, "format", model_text(disk, "format")));
        if (!json_object_get(disk, "layers"))
            json_object_set_new(disk, "layers", json_array());
        if (!strchr(model_text(disk, "file"), '/'))
            json_array_append(json_object_get(disk, "layers"), json_object_get(disk, "file"));
        json_object_set_new(disk, "file", json_string(file));
        json_object_set_new(disk, "format", json_string("qcow2"));
    }
    free(path);
    return result;
}

static void undo_freeze(struct machine *machine, json_t *before)
{
    size_t i;
    json_t *disk;
    json_array_foreach(json_object_get(machine->config, "disks"), i, disk)
    {
        const json_t *old = json_array_get(json_object_get(before, "disks"), i);
        if (strcmp(model_text(disk, "file"), model_text(old, "file")) != 0)
            unlinkat(machine->folder_fd, model_text(disk, "file"), 0);
    }
    json_decref(machine->config);
    machine->config = json_incref(before);
    unused_result(machine_save(machine, NULL));
}

/*
 * The description names the new images before the machine uses them: should all end in between,
 * they show what the old ones hold.
 */
int live_disks_freeze(struct machine *machine, json_t *frozen, struct error *err)
{
    struct qmp qmp;
    json_t *before = json_deep_copy(machine->config), *actions = json_array(), *disk;
    size_t i;
    int result = open_patiently(machine, &qmp, err);
    if (result) {
        json_decref(actions);
        json_decref(before);
        return result;
    }
    json_array_foreach(json_object_get(machine->config, "disks"), i,
                       disk) if (!result && is_disk(disk)) result =
        freeze_disk(machine, disk, frozen, actions, err);
    if (!result)
        result = machine_save(machine, err);
    if (!result && json_array_size(actions))
        result = run_transaction(&qmp, json_incref(actions), err);
    if (result)
        undo_freeze(machine, before);
    qmp_close(&qmp);
    json_decref(actions);
    json_decref(before);
    return result;
}
