/* SPDX-License-Identifier: MIT */
/*
 * change: set, attach and detach. They change the description, which the next start follows; with
 * --live the running machine first, and the description only where that went well.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "tools/evctl/cloud.h"
#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/live.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network.h"
#include "tools/evctl/tell.h"

/* A machine that is being changed. `qmp` is open where the change is to be live. */
struct change {
    struct machine machine;
    struct qmp qmp;
    bool is_live, can_be_live;
};

static int begin(const struct evctl_call *call, struct change *change, struct error *err)
{
    *change = (struct change){.can_be_live = true};
    int result = machine_open(call->arguments[0], MACHINE_LOCK, &change->machine, err);
    if (result)
        return result;
    change->is_live = call_has(call, "live") && machine_pid(change->machine.folder_fd);
    if (change->is_live)
        result = qmp_open(&change->machine, &change->qmp, err);
    if (result)
        machine_close(&change->machine);
    return result;
}

/* What is changed is saved by now. */
static int end(struct change *change, int result)
{
    struct machine *machine = &change->machine;
    if (!result && !change->is_live && machine_pid(machine->folder_fd))
        tell_note("'%s' is running; the change takes effect at its next start%s", machine->name,
                  change->can_be_live ? ", or at once with --live" : "");
    if (!result)
        tell_json(json_deep_copy(machine->config));
    if (change->is_live)
        qmp_close(&change->qmp);
    machine_close(machine);
    return result;
}

static int finish(struct change *change, int result, struct error *err)
{
    return end(change, result ? result : machine_save(&change->machine, err));
}

/* --- set --- */

static void keep(json_t *fresh, const json_t *old, const char *key)
{
    if (json_object_get(old, key))
        json_object_set(fresh, key, json_object_get(old, key));
}

/* Makes `old` what `fresh` is, but for what belongs to the NIC and not to where it is on. */
static void move_nic(json_t *old, json_t *fresh, bool keeps_mac)
{
    bool has_forwards = json_array_size(json_object_get(old, "forwards"));
    bool can = network_forwards(fresh) && network_forwards(old);
    keep(fresh, old, "id");
    keep(fresh, old, "link");
    if (keeps_mac)
        keep(fresh, old, "mac");
    if (can && !json_object_get(fresh, "forwards"))
        keep(fresh, old, "forwards");
    if (has_forwards && !can)
        tell_note("'%s' forwards no ports any more", model_text(old, "id"));
    network_forward_forget(old);
    json_object_clear(old);
    json_object_update(old, fresh);
}

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
    if (!result)
        move_nic(old, fresh, !strstr(equals, ",mac="));
    json_decref(scratch);
    return result;
}

/* "net0=off" */
static int set_link(struct change *change, const char *text, struct error *err)
{
    char id[32] = "";
    const char *equals = strchr(text, '=');
    snprintf(id, sizeof(id), "%.*s", (int)MIN(strcspn(text, "="), 31u), text);
    json_t *nic = model_find(change->machine.config, "nics", id);
    if (!nic)
        return error_set(err, ENODEV, "--link %s: '%s' has no NIC '%s'; 'evctl info' shows them",
                         text, change->machine.name, id);
    if (!equals || (strcmp(equals, "=on") != 0 && strcmp(equals, "=off") != 0))
        return error_set(err, EINVAL, "--link %s: write NIC=on or NIC=off", text);
    model_set_text(nic, "link", strcmp(equals, "=off") == 0 ? "off" : "");
    return change->is_live ? live_set_link(&change->qmp, id, strcmp(equals, "=on") == 0, err) : 0;
}

/* What a running machine cannot change is refused before anything is changed. */
static int check_live(const struct evctl_call *call, struct error *err)
{
    static const char *const can[] = {"cpus", "memory", "link", "live",
                                      "user", "os",     "json", "quiet"};
    for (unsigned i = 0; i < call->value_count; i++) {
        bool is_fine = false;
        for (unsigned k = 0; k < ARRAY_SIZE(can); k++)
            is_fine |= strcmp(call->values[i].option->name, can[k]) == 0;
        if (!is_fine)
            return error_set(err, ENOTSUP,
                             "--%s cannot change while the machine runs; leave out --live and the "
                             "next start follows it",
                             call->values[i].option->name);
    }
    return 0;
}

static int set_live(const struct evctl_call *call, struct change *change, struct error *err)
{
    const json_t *config = change->machine.config;
    int result = 0;
    if (call_has(call, "cpus"))
        result = live_set_cpus(&change->qmp, model_number(config, "cpus"), err);
    if (!result && call_has(call, "memory"))
        result = live_set_memory(&change->qmp, model_number(config, "memory-mib"), err);
    return result;
}

int cmd_set(struct evctl_call *call, struct error *err)
{
    struct change change;
    const char *text;
    if (call->value_count == 0 || (call->value_count == 1 && call_has(call, "live")))
        return error_set(err, EINVAL, "set: say what, as --cpus 2; see: evctl set --help");
    int result = begin(call, &change, err);
    if (result)
        return result;
    change.can_be_live = check_live(call, NULL) == 0;
    if (change.is_live)
        result = check_live(call, err);
    if (!result)
        result = create_apply(call, change.machine.config, err);
    for (unsigned n = 0; !result && (text = call_nth(call, "net", n)); n++)
        result = replace_nic(change.machine.config, text, err);
    if (!result)
        result = cloud_apply(call, &change.machine, err);
    if (!result && change.is_live)
        result = set_live(call, &change, err);
    for (unsigned n = 0; !result && (text = call_nth(call, "link", n)); n++)
        result = set_link(&change, text, err);
    return finish(&change, result, err);
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

/*
 * The description names it before the machine has it: should all end in between, the next start
 * has it. Undone where the machine does not take it, with an image that was made for it.
 */
static int attach_last(struct change *change, json_t *list, bool is_nic, bool is_made,
                       struct error *err)
{
    const struct machine *machine = &change->machine;
    const json_t *entry = json_array_get(list, json_array_size(list) - 1);
    int result = machine_save(&change->machine, err);
    bool is_saved = !result;
    if (!result && change->is_live)
        result = is_nic ? live_attach_nic(&change->qmp, entry, err)
                        : live_attach_disk(&change->qmp, entry, err);
    if (!result)
        return 0;
    if (is_made)
        unlinkat(machine->folder_fd, model_text(entry, "file"), 0);
    json_array_remove(list, json_array_size(list) - 1);
    if (is_saved)
        unused_result(machine_save(&change->machine, NULL));
    return result;
}

int cmd_attach(struct evctl_call *call, struct error *err)
{
    struct change change;
    const char *kind = call->arguments[1], *what = call->arguments[2];
    bool is_nic = strcmp(kind, "nic") == 0;
    if (!is_nic && strcmp(kind, "disk") != 0 && strcmp(kind, "iso") != 0)
        return error_set(err, EINVAL, "attach: '%s' is none of disk, iso and nic", kind);
    int result = begin(call, &change, err);
    if (result)
        return result;
    struct machine *machine = &change.machine;
    json_t *list = json_object_get(machine->config, is_nic ? "nics" : "disks");
    size_t count = json_array_size(list);
    bool is_made = strcmp(kind, "disk") == 0 && access(what, F_OK) < 0;
    result = check_room(machine, kind, err);
    if (!result)
        result = is_nic ? model_add_nic(machine->config, what, err)
                        : disks_add(machine, kind, what, err);
    if (!result && is_nic && json_array_size(list) != count + 1)
        result = error_set(err, EINVAL,
                           "attach: '%s' is no network; to take a NIC off: evctl detach", what);
    if (!result)
        result = attach_last(&change, list, is_nic, is_made, err);
    if (!result)
        tell_line("%s", model_text(json_array_get(list, count), "id"));
    return end(&change, result);
}

/* After the machine is without it: its image, and those in the folder that only it built on. */
static int remove_images(const struct machine *machine, const json_t *disk, struct error *err)
{
    size_t i;
    json_t *layer;
    const char *file = model_text(disk, "file");
    if (unlinkat(machine->folder_fd, file, 0) < 0 && errno != ENOENT)
        return error_set_errno(err, errno, "cannot remove %s", file);
    json_array_foreach(json_object_get(disk, "layers"), i, layer)
        unlinkat(machine->folder_fd, json_string_value(layer), 0);
    return 0;
}

static int check_removal(const struct change *change, const json_t *disk, struct error *err)
{
    const char *file = model_text(disk, "file");
    if (strchr(file, '/'))
        return error_set(err, EINVAL, "%s lies outside the machine's folder; remove it yourself",
                         file);
    if (!change->is_live && machine_pid(change->machine.folder_fd))
        return error_set(err, EISCONN,
                         "%s is in use; stop the machine first (evctl stop), or add --live", file);
    int result = disks_check_unlinked(&change->machine, "its deletion", true, err);
    return result ? result : disks_check_known(&change->machine, err);
}

/* A new disk would be all that remains of it, were it not said where it is. */
static void tell_kept(const struct machine *machine, const json_t *disk)
{
    char *path = machine_path(machine, model_text(disk, "file"));
    if (!strchr(model_text(disk, "file"), '/') && strcmp(model_text(disk, "kind"), "disk") == 0)
        tell_note("its image stays, and may be attached again: %s", path);
    free(path);
}

int cmd_detach(struct evctl_call *call, struct error *err)
{
    struct change change;
    const char *id = call->arguments[1];
    int result = begin(call, &change, err);
    if (result)
        return result;
    json_t *config = change.machine.config;
    json_t *disk = json_incref(model_find(config, "disks", id));
    json_t *nic = json_incref(model_find(config, "nics", id));
    bool is_nic = nic, deletes = disk && call_has(call, "delete");
    if (deletes)
        result = check_removal(&change, disk, err);
    if (!result && change.is_live && (disk || is_nic))
        result = live_detach(&change.qmp, id, is_nic, err);
    if (!result)
        result = model_remove(config, is_nic ? "nics" : "disks", id, err);
    if (!result)
        result = machine_save(&change.machine, err);
    if (!result && deletes)
        result = remove_images(&change.machine, disk, err);
    if (!result && disk && !deletes)
        tell_kept(&change.machine, disk);
    if (!result && nic)
        network_forward_forget(nic);
    json_decref(disk);
    json_decref(nic);
    return end(&change, result);
}
