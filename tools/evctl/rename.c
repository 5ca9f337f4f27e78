/* SPDX-License-Identifier: MIT */
/*
 * rename: a machine gets another name, and with it another folder. The disks of linked clones name
 * that folder, so they are told; a clone that runs, or that another command works on, forbids it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/model.h"
#include "tools/evctl/run.h"
#include "tools/evctl/tell.h"

struct clones {
    struct machine *list; /* locked and stopped */
    size_t count;
};

static void close_clones(struct clones *clones)
{
    for (size_t i = 0; i < clones->count; i++)
        machine_close(&clones->list[i]);
    free(clones->list);
    *clones = (struct clones){0};
}

static int open_clones(const struct machine *machine, struct clones *clones, struct error *err)
{
    json_t *names = disks_clones_of(machine, err), *name;
    size_t i;
    int result = names ? 0 : -err->code;
    clones->list = calloc(json_array_size(names) + 1, sizeof(*clones->list));
    CHECK(clones->list);
    json_array_foreach(names, i, name)
    {
        struct machine *clone = &clones->list[clones->count];
        if (!result)
            result =
                machine_open(json_string_value(name), MACHINE_LOCK | MACHINE_STOPPED, clone, err);
        clones->count += !result;
    }
    if (result && clones->count < json_array_size(names))
        error_prefix(err, "a linked clone of '%s' must follow", machine->name);
    json_decref(names);
    return result;
}

/* The image of the clone that names ours is the lowest of the clone's own. */
static int tell_disk(const struct machine *clone, json_t *disk, const char *base, struct error *err)
{
    const char *layer = json_string_value(json_array_get(json_object_get(disk, "layers"), 0));
    char *path = machine_path(clone, layer ? layer : model_text(disk, "file"));
    char *format = disks_probe(base, err);
    int result = format ? run_img(json_pack("[s, s, s, s, s, s, s, s, s]", "rebase", "-u", "-f",
                                            "qcow2", "-b", base, "-F", format, path),
                                  NULL, NULL, err)
                        : -err->code;
    if (!result)
        json_object_set_new(disk, "base", json_string(base));
    free(format);
    free(path);
    return result;
}

static int tell_clone(struct machine *clone, const char *old, const char *folder, struct error *err)
{
    size_t i, length = strlen(old);
    json_t *disk;
    int result = 0;
    json_array_foreach(json_object_get(clone->config, "disks"), i, disk)
    {
        char *base = NULL;
        if (result || !disks_is_inside(model_text(disk, "base"), old))
            continue;
        CHECK(asprintf(&base, "%s%s", folder, model_text(disk, "base") + length) > 0);
        result = tell_disk(clone, disk, base, err);
        free(base);
    }
    if (!result)
        result = machine_save(clone, err);
    if (result)
        error_prefix(err, "the disk of the linked clone '%s' still names %s", clone->name, old);
    return result;
}

/* The folder first: where that fails, nothing has changed. */
static int move(struct machine *machine, const char *name, struct clones *clones, struct error *err)
{
    char *folder = store_path(name, err), *old = machine->folder;
    if (!folder)
        return -err->code;
    if (renameat2(AT_FDCWD, old, AT_FDCWD, folder, RENAME_NOREPLACE) < 0) {
        int result = errno == EEXIST
                         ? error_set(err, EEXIST, "there is a machine '%s' already", name)
                         : error_set_errno(err, errno, "cannot rename %s", old);
        free(folder);
        return result;
    }
    machine->folder = folder;
    json_object_set_new(machine->config, "name", json_string(name));
    int result = machine_save(machine, err);
    for (size_t i = 0; !result && i < clones->count; i++)
        result = tell_clone(&clones->list[i], old, folder, err);
    free(old);
    return result;
}

int cmd_rename(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    struct clones clones = {0};
    const char *name = call->arguments[1];
    int result = store_check_name(name, err);
    if (!result)
        result = machine_open(call->arguments[0], MACHINE_LOCK | MACHINE_STOPPED, &machine, err);
    if (result)
        return result;
    result = open_clones(&machine, &clones, err);
    if (!result)
        result = move(&machine, name, &clones, err);
    if (!result) {
        tell_note("'%s' is '%s' now", machine.name, name);
        tell_json(json_pack("{s:s, s:s}", "was", machine.name, "name", name));
    }
    close_clones(&clones);
    machine_close(&machine);
    return result;
}
