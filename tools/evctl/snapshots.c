/* SPDX-License-Identifier: MIT */
/* snapshots: of all of a machine's disks: made, listed, gone back to, deleted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/live_disks.h"
#include "tools/evctl/model.h"
#include "tools/evctl/run.h"
#include "tools/evctl/tell.h"

static int check_snapshot_name(const char *name, struct error *err)
{
    if (store_check_name(name, NULL) == 0 && name[strspn(name, "0123456789")])
        return 0;
    return error_set(err, EINVAL,
                     "'%s' cannot be a snapshot's name: use 1 to 64 bytes without '/', not "
                     "digits alone, neither '.' nor '-' first",
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

/* Those of `ids`, or where making fails half-way, none. */
static int apply(const struct machine *machine, const json_t *ids, const char *action,
                 const char *name, struct error *err)
{
    size_t i, done;
    json_t *id;
    int result = 0;
    for (done = 0; !result && done < json_array_size(ids); done++)
        result = apply_to_disk(
            machine,
            model_find(machine->config, "disks", json_string_value(json_array_get(ids, done))),
            action, name, err);
    if (result && strcmp(action, "-c") == 0)
        json_array_foreach(ids, i, id) if (i + 1 < done) unused_result(
            apply_to_disk(machine, model_find(machine->config, "disks", json_string_value(id)),
                          "-d", name, NULL));
    return result;
}

/* The ids of the disks that this snapshot is of, or is to be of; NULL with err set. */
static json_t *choose_disks(const struct machine *machine, const char *name, struct error *err)
{
    size_t i;
    json_t *entry, *list = disks_snapshots(machine, err), *ids = NULL;
    json_array_foreach(list, i, entry) if (strcmp(model_text(entry, "name"), name) == 0) ids =
        json_incref(json_object_get(entry, "disks"));
    if (list && !ids)
        error_set(err, ENODEV, "'%s' has no snapshot '%s'; see: evctl snapshot list", machine->name,
                  name);
    json_decref(list);
    return ids;
}

static json_t *all_disks(const struct machine *machine)
{
    size_t i;
    json_t *disk, *ids = json_array();
    json_array_foreach(json_object_get(machine->config, "disks"), i,
                       disk) if (strcmp(model_text(disk, "kind"), "disk") == 0)
        json_array_append(ids, json_object_get(disk, "id"));
    return ids;
}

static int make_snapshot(struct machine *machine, const char *name, struct error *err)
{
    struct error ignored = {0};
    json_t *ids = choose_disks(machine, name, &ignored);
    if (ids) {
        json_decref(ids);
        return error_set(err, EEXIST, "'%s' has a snapshot '%s' already", machine->name, name);
    }
    if (ignored.code != ENODEV) {
        *err = ignored;
        return -err->code;
    }
    if (machine_pid(machine->folder_fd)) {
        int result = live_disks_snapshot(machine, name, err);
        if (!result)
            tell_note("it holds the disks as a power cut would leave them, and not the memory");
        return result;
    }
    ids = all_disks(machine);
    int result = apply(machine, ids, "-c", name, err);
    json_decref(ids);
    return result;
}

/* Where it is: making it may have been interrupted, or a disk have come later. */
static int delete_snapshot(struct machine *machine, const char *name, struct error *err)
{
    json_t *ids = choose_disks(machine, name, err);
    int result = !ids ? -err->code
                 : machine_pid(machine->folder_fd)
                     ? live_disks_delete_snapshot(machine, ids, name, err)
                     : apply(machine, ids, "-d", name, err);
    json_decref(ids);
    return result;
}

static int check_way_back(const struct machine *machine, const json_t *ids, const char *name,
                          struct error *err)
{
    size_t i, k;
    json_t *all = all_disks(machine), *id, *has;
    const char *missing = NULL;
    json_array_foreach(all, i, id)
    {
        bool is_there = false;
        json_array_foreach(ids, k, has) is_there |= json_equal(id, has);
        missing = is_there ? missing : json_string_value(id);
    }
    int result = !missing ? 0
                          : error_set(err, ENOTSUP,
                                      "the disk '%s' of '%s' has no snapshot '%s'; if it came "
                                      "later, detach it first",
                                      missing, machine->name, name);
    json_decref(all);
    return result ? result : disks_check_unlinked(machine, "the way back", false, err);
}

/* The description says where the machine is on its way to, for a way that is interrupted. */
static int revert(struct machine *machine, const char *name, struct error *err)
{
    if (machine_pid(machine->folder_fd))
        return error_set(err, EISCONN,
                         "the machine '%s' is running; stop it (evctl stop), revert, and start it "
                         "again",
                         machine->name);
    json_t *ids = choose_disks(machine, name, err);
    int result = ids ? check_way_back(machine, ids, name, err) : -err->code;
    bool is_marked = !result && json_array_size(ids) > 1;
    if (is_marked) {
        model_set_text(machine->config, "reverting", name);
        result = machine_save(machine, err);
    }
    if (!result)
        result = apply(machine, ids, "-a", name, err);
    if (!result && *model_text(machine->config, "reverting")) {
        model_set_text(machine->config, "reverting", "");
        result = machine_save(machine, err);
    }
    json_decref(ids);
    return result;
}

static int snapshot(struct evctl_call *call, const char *done,
                    int (*act)(struct machine *machine, const char *name, struct error *err),
                    struct error *err)
{
    struct machine machine;
    const char *name = call->arguments[1];
    int result = machine_open(call->arguments[0], MACHINE_LOCK, &machine, err);
    if (result)
        return result;
    result = disks_check_snapshots(&machine, err);
    if (!result)
        result = act(&machine, name, err);
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
    int result = check_snapshot_name(call->arguments[1], err);
    return result ? result : snapshot(call, "made", make_snapshot, err);
}

int cmd_snapshot_revert(struct evctl_call *call, struct error *err)
{
    return snapshot(call, "back in place", revert, err);
}

int cmd_snapshot_delete(struct evctl_call *call, struct error *err)
{
    return snapshot(call, "deleted", delete_snapshot, err);
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
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", localtime(&seconds));
        json_object_set_new(snapshot, "made", json_string(text));
        if (json_array_size(json_object_get(snapshot, "missing")))
            tell_note("'%s' is not of all disks: one came later, or making it was interrupted",
                      model_text(snapshot, "name"));
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
