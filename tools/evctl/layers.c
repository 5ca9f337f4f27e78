/* SPDX-License-Identifier: MIT */
/*
 * layers: pushing images on top of a machine's own, and disk flatten, which takes what a disk
 * builds on into it.
 */
#include "tools/evctl/layers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/live_disks.h"
#include "tools/evctl/model.h"
#include "tools/evctl/run.h"
#include "tools/evctl/tell.h"

/* --- freezing --- */

/* An image that shows what the old one holds. Its size is given, for the old one may be in use. */
static int make_layer(const struct machine *machine, const json_t *disk, const json_t *info,
                      const char *file, struct error *err)
{
    char size[32], *path = machine_path(machine, file);
    snprintf(size, sizeof(size), "%llu", (unsigned long long)model_number(info, "virtual-size"));
    int result = run_img(json_pack("[s, s, s, s, s, s, s, s, s, s, s]", "create", "-q", "-u", "-f",
                                   "qcow2", "-b", model_text(disk, "file"), "-F",
                                   model_text(disk, "format"), path, size),
                         NULL, NULL, err);
    free(path);
    return result;
}

/* Whether the top image has nothing of its own yet, so that the one below can be built on again. */
static bool is_unwritten(const struct machine *machine, const json_t *disk)
{
    char *path = machine_path(machine, model_text(disk, "file")), *output = NULL;
    json_t *check = NULL;
    if (json_array_size(json_object_get(disk, "layers")) &&
        run_img(json_pack("[s, s, s, s, s]", "check", "-f", "qcow2", "--output=json", path), NULL,
                &output, NULL) == 0)
        check = json_loads(output, 0, NULL);
    bool is_it = check && model_number(check, "allocated-clusters") == 0;
    json_decref(check);
    free(output);
    free(path);
    return is_it;
}

static void note_frozen(const struct machine *machine, json_t *frozen, const json_t *disk,
                        const char *file, const char *format)
{
    char *path = machine_path(machine, file);
    json_object_set_new(frozen, model_text(disk, "id"),
                        json_pack("{s:s, s:s}", "file", path, "format", format));
    free(path);
}

/* The disk's description with the new image on top; the action that puts it there. */
static int push_layer(const struct machine *machine, json_t *disk, const json_t *info,
                      json_t *actions, struct error *err)
{
    char file[DISKS_FILE_BYTES];
    disks_free_file(machine, model_text(disk, "id"), file);
    int result = make_layer(machine, disk, info, file, err);
    if (result)
        return result;
    json_array_append_new(actions, json_pack("{s:s, s:{s:s, s:s, s:s, s:s}}", "type",
                                             "blockdev-snapshot-sync", "data", "device",
                                             model_text(disk, "id"), "snapshot-file", file,
                                             "format", "qcow2", "mode", "existing"));
    if (!json_object_get(disk, "layers"))
        json_object_set_new(disk, "layers", json_array());
    if (!strchr(model_text(disk, "file"), '/'))
        json_array_append(json_object_get(disk, "layers"), json_object_get(disk, "file"));
    json_object_set_new(disk, "file", json_string(file));
    json_object_set_new(disk, "format", json_string("qcow2"));
    return 0;
}

static int freeze_disk(const struct machine *machine, json_t *disk, json_t *frozen, json_t *actions,
                       struct error *err)
{
    json_t *info = disks_info(machine, disk, err), *layers = json_object_get(disk, "layers");
    if (!info)
        return -err->code;
    int result = 0;
    if (!machine_pid(machine->folder_fd) && is_unwritten(machine, disk)) {
        note_frozen(machine, frozen, disk,
                    json_string_value(json_array_get(layers, json_array_size(layers) - 1)),
                    model_text(info, "backing-filename-format"));
    } else {
        note_frozen(machine, frozen, disk, model_text(disk, "file"), model_text(disk, "format"));
        result = push_layer(machine, disk, info, actions, err);
    }
    json_decref(info);
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
int layers_freeze(struct machine *machine, json_t *frozen, struct error *err)
{
    json_t *before = json_deep_copy(machine->config), *actions = json_array(), *disk;
    size_t i;
    int result = 0;
    json_array_foreach(json_object_get(machine->config, "disks"), i,
                       disk) if (!result && strcmp(model_text(disk, "kind"), "disk") == 0) result =
        freeze_disk(machine, disk, frozen, actions, err);
    if (!result && json_array_size(actions))
        result = machine_save(machine, err);
    if (!result && json_array_size(actions) && machine_pid(machine->folder_fd))
        result = live_disks_push(machine, json_incref(actions), err);
    if (result)
        undo_freeze(machine, before);
    json_decref(actions);
    json_decref(before);
    return result;
}

/* --- disk flatten --- */

static bool builds_on_others(const json_t *disk)
{
    return strcmp(model_text(disk, "kind"), "disk") == 0 &&
           (*model_text(disk, "base") || json_array_size(json_object_get(disk, "layers")));
}

/* The images of other machines that disks of others build on. NULL with err set. */
static json_t *all_bases(struct error *err)
{
    json_t *names = disks_check_known(NULL, err) ? NULL : store_names(err), *name, *disk;
    json_t *bases = names ? json_array() : NULL;
    size_t i, k;
    json_array_foreach(names, i, name)
    {
        struct machine other;
        if (machine_open(json_string_value(name), 0, &other, NULL))
            continue;
        json_array_foreach(json_object_get(other.config, "disks"), k,
                           disk) if (*model_text(disk, "base"))
            json_array_append(bases, json_object_get(disk, "base"));
        machine_close(&other);
    }
    json_decref(names);
    return bases;
}

static bool is_in(const json_t *texts, const char *text)
{
    size_t i;
    json_t *one;
    json_array_foreach(texts, i, one) if (strcmp(json_string_value(one), text) == 0) return true;
    return false;
}

/*
 * The images below the top that nobody needs: those above the highest that a clone builds on. Their
 * names leave the description; they are in `unused`. What a clone builds on still has its own base.
 */
static void drop_layers(const struct machine *machine, json_t *disk, const json_t *bases,
                        json_t *unused)
{
    json_t *layers = json_object_get(disk, "layers");
    for (size_t i = json_array_size(layers); i-- > 0;) {
        char *path = machine_path(machine, json_string_value(json_array_get(layers, i)));
        bool is_needed = is_in(bases, path);
        free(path);
        if (is_needed) {
            tell_note("%s stays, with what it builds on: a linked clone of '%s' needs it",
                      json_string_value(json_array_get(layers, i)), machine->name);
            return;
        }
        json_array_append(unused, json_array_get(layers, i));
        json_array_remove(layers, i);
    }
    json_object_del(disk, "layers");
    json_object_del(disk, "base");
}

static int flatten_stopped(const struct machine *machine, const json_t *disks, struct error *err)
{
    size_t i;
    json_t *disk;
    int result = 0;
    json_array_foreach(disks, i, disk) if (!result)
    {
        char *path = machine_path(machine, model_text(disk, "file"));
        result = run_img(
            json_pack("[s, s, s, s, s, s, s]", "rebase", "-p", "-f", "qcow2", "-b", "", path),
            "flattening", NULL, err);
        free(path);
    }
    return result;
}

/* A snapshot sees through holes in its image to what is below. */
static int check_snapshots(const struct machine *machine, struct error *err)
{
    json_t *snapshots = disks_snapshots(machine, err);
    size_t count = json_array_size(snapshots);
    if (!snapshots)
        return -err->code;
    json_decref(snapshots);
    return count ? error_set(err, ENOTSUP,
                             "'%s' has snapshots, which build on the same images as its disks; "
                             "delete them first: evctl snapshot delete",
                             machine->name)
                 : 0;
}

static int flatten(struct machine *machine, json_t *disks, struct error *err)
{
    json_t *unused = json_array(), *disk, *file;
    size_t i;
    int result = check_snapshots(machine, err);
    json_t *bases = result ? NULL : all_bases(err);
    if (!result && !bases)
        result = -err->code;
    if (!result)
        result = machine_pid(machine->folder_fd) ? live_disks_stream(machine, disks, err)
                                                 : flatten_stopped(machine, disks, err);
    if (!result)
        json_array_foreach(disks, i, disk) drop_layers(machine, disk, bases, unused);
    if (!result)
        result = machine_save(machine, err);
    if (!result)
        json_array_foreach(unused, i, file)
            unlinkat(machine->folder_fd, json_string_value(file), 0);
    json_decref(unused);
    json_decref(bases);
    return result;
}

int cmd_disk_flatten(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    const char *id = call->argument_count > 1 ? call->arguments[1] : NULL;
    int result = machine_open(call->arguments[0], MACHINE_LOCK, &machine, err);
    if (result)
        return result;
    json_t *disks = json_array(), *disk;
    size_t i;
    json_array_foreach(json_object_get(machine.config, "disks"), i,
                       disk) if (builds_on_others(disk) &&
                                 (!id || strcmp(id, model_text(disk, "id")) == 0))
        json_array_append(disks, disk);
    if (id && !model_find(machine.config, "disks", id))
        result =
            error_set(err, ENODEV, "the machine '%s' has no disk '%s'; 'evctl info' shows them",
                      machine.name, id);
    else if (json_array_size(disks))
        result = flatten(&machine, disks, err);
    if (!result && json_array_size(disks))
        tell_note("the disks of '%s' build on no others now", machine.name);
    else if (!result)
        tell_note("it builds on no other image");
    if (!result)
        tell_json(json_pack("{s:s, s:i}", "machine", machine.name, "flattened",
                            (int)json_array_size(disks)));
    json_decref(disks);
    machine_close(&machine);
    return result;
}
