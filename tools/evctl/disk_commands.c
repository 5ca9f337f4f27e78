/* SPDX-License-Identifier: MIT */
/* disk_commands: disk create, resize and info; snapshots of a machine's disks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/live_disks.h"
#include "tools/evctl/model.h"
#include "tools/evctl/qmp.h"
#include "tools/evctl/run.h"
#include "tools/evctl/tell.h"

/* --- disk --- */

static int read_bytes(const char *text, char bytes[32], struct error *err)
{
    uint64_t size;
    if (!parse_size(text, 1 << 20, &size))
        return error_set(err, EINVAL, "'%s' is no size; write one such as 512M or 20G", text);
    snprintf(bytes, 32, "%llu", (unsigned long long)size);
    return 0;
}

int cmd_disk_create(struct evctl_call *call, struct error *err)
{
    char bytes[32];
    const char *format = call_get(call, "format"), *path = call->arguments[0];
    int result = read_bytes(call->arguments[1], bytes, err);
    format = format ? format : "qcow2";
    if (!result)
        result = run_img(
            json_pack("[s, s, s, s, s, s, s]", "create", "-q", "-f", format, "--", path, bytes),
            "making the image", NULL, err);
    if (result)
        return result;
    tell_note("%s is made; a machine gets it with: evctl attach NAME disk %s", path, path);
    tell_json(json_pack("{s:s, s:s, s:s}", "file", path, "format", format, "bytes", bytes));
    return 0;
}

static json_t *find_disk(const struct machine *machine, const char *id, struct error *err)
{
    json_t *disk = model_find(machine->config, "disks", id);
    if (!disk)
        error_set(err, ENODEV, "the machine '%s' has no disk '%s'; 'evctl info' shows them",
                  machine->name, id);
    return disk;
}

static int resize_live(const struct machine *machine, const char *id, const char *bytes,
                       struct error *err)
{
    struct qmp qmp;
    int result = qmp_open(machine, &qmp, err);
    if (result)
        return result;
    result = qmp_execute(
        &qmp, "block_resize",
        json_pack("{s:s, s:I}", "device", id, "size", (json_int_t)strtoull(bytes, NULL, 10)), NULL,
        err);
    qmp_close(&qmp);
    return result;
}

static int resize_cold(const struct machine *machine, const json_t *disk, const char *bytes,
                       bool may_shrink, struct error *err)
{
    char *path = machine_path(machine, model_text(disk, "file"));
    json_t *words = json_pack("[s, s, s, s]", "resize", "-q", "-f", model_text(disk, "format"));
    if (may_shrink)
        json_array_append_new(words, json_string("--shrink"));
    json_array_append_new(words, json_string("--"));
    json_array_append_new(words, json_string(path));
    json_array_append_new(words, json_string(bytes));
    free(path);
    return run_img(words, "resizing the image", NULL, err);
}

/* Less than it has: the end is lost, so it must be said. */
static int check_shrink(const struct machine *machine, const json_t *disk, const char *bytes,
                        bool may_shrink, struct error *err)
{
    json_t *info = disks_info(machine, disk, err);
    if (!info)
        return -err->code;
    uint64_t now = model_number(info, "virtual-size");
    json_decref(info);
    if (strtoull(bytes, NULL, 10) >= now || may_shrink)
        return 0;
    return error_set(err, EINVAL,
                     "'%s' has %llu bytes already; what lies beyond the new end would be lost: add "
                     "--shrink if that is meant",
                     model_text(disk, "id"), (unsigned long long)now);
}

int cmd_disk_resize(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    char bytes[32];
    const char *id = call->arguments[1];
    bool may_shrink = call_has(call, "shrink");
    int result = read_bytes(call->arguments[2], bytes, err);
    if (!result)
        result = machine_open(call->arguments[0], MACHINE_LOCK, &machine, err);
    if (result)
        return result;
    json_t *disk = find_disk(&machine, id, err);
    result = disk ? check_shrink(&machine, disk, bytes, may_shrink, err) : -ENODEV;
    if (!result)
        result = machine_pid(machine.folder_fd)
                     ? resize_live(&machine, id, bytes, err)
                     : resize_cold(&machine, disk, bytes, may_shrink, err);
    if (!result) {
        tell_note("'%s' of '%s' has %s bytes now; the guest's file system must follow", id,
                  machine.name, bytes);
        tell_json(json_pack("{s:s, s:s}", "disk", id, "bytes", bytes));
    }
    machine_close(&machine);
    return result;
}

static json_t *info_row(const struct machine *machine, const json_t *disk, struct error *err)
{
    char size[TELL_SIZE_BYTES], used[TELL_SIZE_BYTES];
    json_t *info = disks_info(machine, disk, err);
    if (!info)
        return NULL;
    json_object_set(info, "id", json_object_get(disk, "id"));
    json_object_set(info, "kind", json_object_get(disk, "kind"));
    json_object_set_new(info, "size",
                        json_string(tell_size(model_number(info, "virtual-size"), size)));
    json_object_set_new(info, "used",
                        json_string(tell_size(model_number(info, "actual-size"), used)));
    return info;
}

int cmd_disk_info(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    size_t i;
    json_t *disk;
    const char *id = call->argument_count > 1 ? call->arguments[1] : NULL;
    int result = machine_open(call->arguments[0], 0, &machine, err);
    if (result)
        return result;
    json_t *rows = json_array();
    if (id && !find_disk(&machine, id, err))
        result = -ENODEV;
    json_array_foreach(json_object_get(machine.config, "disks"), i, disk)
    {
        json_t *row = result || (id && strcmp(id, model_text(disk, "id")) != 0)
                          ? NULL
                          : info_row(&machine, disk, err);
        if (row)
            json_array_append_new(rows, row);
        else if (err->code)
            result = -err->code;
    }
    if (!result)
        tell_table(rows, "id:DISK kind:KIND format:FORMAT size:SIZE used:USED filename:FILE");
    if (!result)
        tell_json(rows);
    else
        json_decref(rows);
    machine_close(&machine);
    return result;
}

/* --- snapshots --- */

static int check_snapshot_name(const char *name, struct error *err)
{
    if (store_check_name(name, NULL) == 0 && name[strspn(name, "0123456789")])
        return 0;
    return error_set(err, EINVAL,
                     "'%s' cannot be a snapshot's name: use 1 to 64 bytes, not digits alone, "
                     "neither '.' nor '-' first",
                     name);
}

static int apply_to_disk(const struct machine *machine, const json_t *disk, const char *action,
                         const char *name, struct error *err)
{
    char *path = machine_path(machine, model_text(disk, "file"));
    int result = run_img(json_pack("[s, s, s, s]", "snapshot", action, name, path),
                         "working on the snapshot", NULL, err);
    if (result)
        error_prefix(err, "the disk '%s' of '%s'", model_text(disk, "id"), machine->name);
    free(path);
    return result;
}

static bool has_snapshots(const json_t *disk)
{
    return strcmp(model_text(disk, "kind"), "disk") == 0;
}

/* All disks or, where making fails half-way, none. */
static int apply(const struct machine *machine, const char *action, const char *name,
                 struct error *err)
{
    size_t i, done;
    json_t *disk, *disks = json_object_get(machine->config, "disks");
    int result = 0;
    for (done = 0; !result && done < json_array_size(disks); done++)
        if (has_snapshots(json_array_get(disks, done)))
            result = apply_to_disk(machine, json_array_get(disks, done), action, name, err);
    if (result && strcmp(action, "-c") == 0)
        json_array_foreach(disks, i, disk) if (i + 1 < done && has_snapshots(disk))
            unused_result(apply_to_disk(machine, disk, "-d", name, NULL));
    return result;
}

static bool is_listed(const json_t *list, const char *name)
{
    size_t i;
    json_t *snapshot;
    json_array_foreach(list, i,
                       snapshot) if (strcmp(model_text(snapshot, "name"), name) == 0) return true;
    return false;
}

static int check_listed(const struct machine *machine, const char *name, bool should_be,
                        struct error *err)
{
    json_t *list = disks_snapshots(machine, err);
    if (!list)
        return -err->code;
    bool is_there = is_listed(list, name);
    json_decref(list);
    if (is_there && !should_be)
        return error_set(err, EEXIST, "'%s' has a snapshot '%s' already", machine->name, name);
    if (!is_there && should_be)
        return error_set(err, ENODEV, "'%s' has no snapshot '%s'; see: evctl snapshot list",
                         machine->name, name);
    return 0;
}

/* Of a running machine's disks: only back, under a guest that uses them, is no way. */
static int apply_live(const struct machine *machine, const char *action, const char *name,
                      struct error *err)
{
    if (strcmp(action, "-c") == 0)
        return live_disks_snapshot(machine, name, err);
    if (strcmp(action, "-d") == 0)
        return live_disks_delete_snapshot(machine, name, err);
    return error_set(
        err, EISCONN,
        "the machine '%s' is running; stop it (evctl stop), revert, and start it again",
        machine->name);
}

static int snapshot(struct evctl_call *call, const char *action, const char *done,
                    struct error *err)
{
    struct machine machine;
    const char *name = call->arguments[1];
    bool makes = strcmp(action, "-c") == 0;
    int result = makes ? check_snapshot_name(name, err) : 0;
    if (!result)
        result = machine_open(call->arguments[0], MACHINE_LOCK, &machine, err);
    if (result)
        return result;
    bool is_live = machine_pid(machine.folder_fd);
    if (!result)
        result = disks_check_snapshots(&machine, err);
    if (!result)
        result = check_listed(&machine, name, !makes, err);
    if (!result && strcmp(action, "-a") == 0)
        result = disks_check_unlinked(&machine, "the way back", false, err);
    if (!result)
        result =
            is_live ? apply_live(&machine, action, name, err) : apply(&machine, action, name, err);
    if (!result && is_live && makes)
        tell_note("it holds the disks as a power cut would leave them, and not the memory");
    if (!result) {
        tell_note("the snapshot '%s' of '%s' is %s", name, machine.name, done);
        tell_json(
            json_pack("{s:s, s:s, s:s}", "machine", machine.name, "snapshot", name, "done", done));
    }
    machine_close(&machine);
    return result;
}

int cmd_snapshot_create(struct evctl_call *call, struct error *err)
{
    return snapshot(call, "-c", "made", err);
}

int cmd_snapshot_revert(struct evctl_call *call, struct error *err)
{
    return snapshot(call, "-a", "back in place", err);
}

int cmd_snapshot_delete(struct evctl_call *call, struct error *err)
{
    return snapshot(call, "-d", "deleted", err);
}

int cmd_snapshot_list(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    size_t i;
    json_t *snapshot;
    int result = machine_open(call->arguments[0], 0, &machine, err);
    if (result)
        return result;
    json_t *list = disks_snapshots(&machine, err);
    json_array_foreach(list, i, snapshot)
    {
        char text[32];
        time_t seconds = (time_t)model_number(snapshot, "date-sec");
        strftime(text, sizeof(text), "%Y-%m-%d_%H:%M:%S", localtime(&seconds));
        json_object_set_new(snapshot, "made", json_string(text));
    }
    if (list && json_array_size(list))
        tell_table(list, "name:NAME made:MADE");
    else if (list)
        tell_note("'%s' has no snapshots", machine.name);
    result = list ? 0 : -err->code;
    if (list)
        tell_json(list);
    machine_close(&machine);
    return result;
}
