/* SPDX-License-Identifier: MIT */
/*
 * change: set, attach and detach. They change the description, which the next start follows; a
 * running machine itself has nothing yet that could be plugged in or out.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/model.h"
#include "tools/evctl/tell.h"

static int refuse_live(const struct evctl_call *call, const char *what, struct error *err)
{
    if (!call_has(call, "live"))
        return 0;
    return error_set(err, ENOTSUP,
                     "%s cannot change while a machine runs; leave out --live and the next start "
                     "follows it",
                     what);
}

static int open_for_change(const struct evctl_call *call, const char *what, struct machine *machine,
                           struct error *err)
{
    int result = refuse_live(call, what, err);
    return result ? result : machine_open(call->arguments[0], MACHINE_LOCK, machine, err);
}

static int finish(struct machine *machine, int result, struct error *err)
{
    if (!result)
        result = machine_save(machine, err);
    if (!result && machine_pid(machine->folder_fd))
        tell_note("'%s' is running; the change takes effect at its next start", machine->name);
    if (!result)
        tell_json(json_deep_copy(machine->config));
    machine_close(machine);
    return result;
}

/* --- set --- */

/* "net0=user": the NIC keeps its id and its MAC address. */
static int replace_nic(json_t *config, const char *text, struct error *err)
{
    char id[32] = "";
    const char *equals = strchr(text, '=');
    if (equals)
        snprintf(id, sizeof(id), "%.*s", (int)MIN(equals - text, 31), text);
    json_t *old = equals ? model_find(config, "nics", id) : NULL;
    if (!old)
        return error_set(err, ENODEV,
                         "--net %s: write NIC=NET with a NIC that is there, as net0=user; 'evctl "
                         "attach' adds one",
                         text);
    json_t *scratch = json_pack("{s:[]}", "nics");
    int result = model_add_nic(scratch, equals + 1, err);
    json_t *fresh = json_array_get(json_object_get(scratch, "nics"), 0);
    if (!result && !fresh)
        result = error_set(err, EINVAL, "--net %s: to take a NIC off use: evctl detach", text);
    if (!result) {
        json_t *mac = json_incref(json_object_get(old, "mac"));
        if (!strstr(equals, ",mac="))
            json_object_set(fresh, "mac", mac);
        json_object_set_new(fresh, "id", json_string(id));
        json_object_clear(old);
        json_object_update(old, fresh);
        json_decref(mac);
    }
    json_decref(scratch);
    return result;
}

int cmd_set(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    const char *text;
    if (call->value_count == 0)
        return error_set(err, EINVAL, "set: say what, as --cpus 2; see: evctl set --help");
    int result = open_for_change(call, "CPUs, memory, NICs and boot", &machine, err);
    if (result)
        return result;
    result = create_apply(call, machine.config, err);
    for (unsigned n = 0; !result && (text = call_nth(call, "net", n)); n++)
        result = replace_nic(machine.config, text, err);
    return finish(&machine, result, err);
}

/* --- attach, detach --- */

static int check_room(const struct machine *machine, const char *kind, struct error *err)
{
    bool is_nic = strcmp(kind, "nic") == 0;
    size_t count = json_array_size(json_object_get(machine->config, is_nic ? "nics" : "disks"));
    size_t limit = is_nic ? NIC_MAX : DISK_MAX;
    return count < limit ? 0
                         : error_set(err, E2BIG, "'%s' has %zu of them, and no more can be",
                                     machine->name, count);
}

int cmd_attach(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    const char *kind = call->arguments[1], *what = call->arguments[2];
    bool is_nic = strcmp(kind, "nic") == 0;
    if (!is_nic && strcmp(kind, "disk") != 0 && strcmp(kind, "iso") != 0)
        return error_set(err, EINVAL, "attach: '%s' is none of disk, iso and nic", kind);
    int result = open_for_change(call, "disks and NICs", &machine, err);
    if (result)
        return result;
    result = check_room(&machine, kind, err);
    if (!result)
        result = is_nic ? model_add_nic(machine.config, what, err)
                        : disks_add(&machine, kind, what, err);
    json_t *list = json_object_get(machine.config, is_nic ? "nics" : "disks");
    if (!result)
        tell_line("%s", model_text(json_array_get(list, json_array_size(list) - 1), "id"));
    return finish(&machine, result, err);
}

static int remove_image(const struct machine *machine, const json_t *disk, struct error *err)
{
    const char *file = model_text(disk, "file");
    if (strchr(file, '/'))
        return error_set(err, EINVAL, "%s lies outside the machine's folder; remove it yourself",
                         file);
    if (machine_pid(machine->folder_fd))
        return error_set(err, EISCONN, "%s is in use; stop the machine first: evctl stop", file);
    if (disks_check_unlinked(machine, "its deletion", true, err))
        return -err->code;
    if (unlinkat(machine->folder_fd, file, 0) < 0 && errno != ENOENT)
        return error_set_errno(err, errno, "cannot remove %s", file);
    return 0;
}

int cmd_detach(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    const char *id = call->arguments[1];
    int result = open_for_change(call, "disks and NICs", &machine, err);
    if (result)
        return result;
    json_t *disk = model_find(machine.config, "disks", id);
    if (disk && call_has(call, "delete"))
        result = remove_image(&machine, disk, err);
    if (!result)
        result = model_remove(machine.config,
                              model_find(machine.config, "nics", id) ? "nics" : "disks", id, err);
    return finish(&machine, result, err);
}
