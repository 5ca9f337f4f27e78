/* SPDX-License-Identifier: MIT */
/* disk_commands: disk create, resize and info. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
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
    if (!result && faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        result =
            error_set(err, EEXIST, "%s is there already; remove it or choose another name", path);
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
