/* SPDX-License-Identifier: MIT */
/*
 * rename: a machine gets another name, and with it another folder. The disks of linked clones name
 * that folder, so they are told; a clone that runs, or that another command works on, forbids it.
 * Until they are, the file `renamed-from` in the folder says where they look: a rename that was
 * interrupted ends when it is given again.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* Those that look for their base in this folder. */
static int open_clones(const struct machine *machine, const char *folder, struct clones *clones,
                       struct error *err)
{
    json_t *names = disks_clones_of(folder, err), *name;
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

/* --- the mark --- */

#define MARK "renamed-from"

static int write_mark(const struct machine *machine, struct error *err)
{
    int fd = openat(machine->folder_fd, MARK, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t length = (ssize_t)strlen(machine->folder);
    int result = 0;
    errno = 0;
    if (fd < 0 || write(fd, machine->folder, (size_t)length) != length || fsync(fd) < 0)
        result = error_set_errno(err, errno ? errno : ENOSPC, "cannot write %s/%s", machine->folder,
                                 MARK);
    if (fd >= 0)
        close(fd);
    if (result)
        unlinkat(machine->folder_fd, MARK, 0);
    return result;
}

/* Where the clones of this machine still look, if that is not where it is; the caller frees it. */
static char *read_mark(const struct machine *machine)
{
    struct error ignored = {0};
    char *path = machine_path(machine, MARK);
    char *old = store_read_file(path, PATH_MAX, NULL, &ignored);
    free(path);
    return old;
}

/* --- the rename --- */

static int tell_clones(struct machine *machine, const char *old, struct error *err)
{
    struct clones clones = {0};
    int result = open_clones(machine, old, &clones, err);
    for (size_t i = 0; !result && i < clones.count; i++)
        result = tell_clone(&clones.list[i], old, machine->folder, err);
    close_clones(&clones);
    json_object_set_new(machine->config, "name", json_string(machine->name));
    if (!result)
        result = machine_save(machine, err);
    if (!result)
        unlinkat(machine->folder_fd, MARK, 0);
    return result;
}

/* The folder first: where that fails, nothing has changed. */
static int move(struct machine *machine, const char *name, struct error *err)
{
    char *folder = store_path(name, err);
    int result = folder ? write_mark(machine, err) : -err->code;
    if (!result && renameat2(AT_FDCWD, machine->folder, AT_FDCWD, folder, RENAME_NOREPLACE) < 0) {
        result = errno == EEXIST ? error_set(err, EEXIST, "there is a machine '%s' already", name)
                                 : error_set_errno(err, errno, "cannot rename %s", machine->folder);
        unlinkat(machine->folder_fd, MARK, 0);
    }
    if (result) {
        free(folder);
        return result;
    }
    free(machine->folder);
    free(machine->name);
    machine->folder = folder;
    machine->name = strdup(name);
    return 0;
}

static int rename_machine(struct machine *machine, const char *name, struct error *err)
{
    struct clones clones = {0};
    char *old = strdup(machine->folder);
    int result = open_clones(machine, old, &clones, err);
    if (!result)
        result = move(machine, name, err);
    close_clones(&clones);
    if (!result)
        result = tell_clones(machine, old, err);
    free(old);
    return result;
}

/* True where `name` has become `fresh` already, and its clones may not know: `machine` is open. */
static bool was_moved(const char *name, const char *fresh, struct machine *machine)
{
    char *folder = store_path(name, NULL), *mark = NULL;
    bool is_it = folder && access(folder, F_OK) < 0 &&
                 machine_open(fresh, MACHINE_LOCK | MACHINE_STOPPED, machine, NULL) == 0;
    if (is_it) {
        mark = read_mark(machine);
        is_it = mark && strcmp(mark, folder) == 0;
        if (!is_it)
            machine_close(machine);
    }
    free(mark);
    free(folder);
    return is_it;
}

static int find_and_rename(const char *was, const char *name, struct error *err)
{
    struct machine machine;
    char *old = store_path(was, err);
    int result = old ? 0 : -err->code;
    bool is_moved = !result && was_moved(was, name, &machine);
    if (!result && !is_moved)
        result = machine_open(was, MACHINE_LOCK | MACHINE_STOPPED, &machine, err);
    if (!result) {
        result = is_moved ? tell_clones(&machine, old, err) : rename_machine(&machine, name, err);
        machine_close(&machine);
    }
    free(old);
    return result;
}

int cmd_rename(struct evctl_call *call, struct error *err)
{
    const char *was = call->arguments[0], *name = call->arguments[1];
    int result = store_check_name(was, err);
    if (!result)
        result = store_check_name(name, err);
    if (!result)
        result = find_and_rename(was, name, err);
    if (result)
        return result;
    tell_note("'%s' is '%s' now", was, name);
    tell_json(json_pack("{s:s, s:s}", "was", was, "name", name));
    return 0;
}
