/* SPDX-License-Identifier: MIT */
/* clone: a machine once more, with an identity of its own. */
#include <errno.h>
#include <string.h>

#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/interrupt.h"
#include "tools/evctl/layers.h"
#include "tools/evctl/live_disks.h"
#include "tools/evctl/model.h"
#include "tools/evctl/tell.h"

/* `frozen` has the images that nobody writes to any more, by the disk's id. */
static int clone_disks(const struct machine *from, struct machine *to, bool is_linked,
                       const json_t *frozen, struct error *err)
{
    size_t i;
    json_t *disk;
    int result = 0;
    if (!is_linked && machine_pid(from->folder_fd))
        return live_disks_copy(from, to, err);
    json_array_foreach(json_object_get(to->config, "disks"), i, disk)
    {
        json_t *base = json_object_get(frozen, model_text(disk, "id"));
        if (base)
            json_object_update(disk, base);
        if (!result)
            result = disks_clone(from, to, disk, is_linked, err);
    }
    return result;
}

/*
 * Snapshots stay in the old images, where the machine would not find them any more: a stopped
 * machine that has some is built on as it is, and does not start as long as there are clones.
 */
static int freeze(struct machine *from, json_t *frozen, struct error *err)
{
    json_t *snapshots = disks_snapshots(from, err);
    size_t count = json_array_size(snapshots);
    if (!snapshots)
        return -err->code;
    json_decref(snapshots);
    if (count && machine_pid(from->folder_fd))
        return error_set(err, EISCONN,
                         "'%s' is running and has snapshots, which a linked clone would part from "
                         "it; stop it first, or leave out --linked",
                         from->name);
    if (count) {
        tell_note("'%s' has snapshots: it does not start as long as there are linked clones of it",
                  from->name);
        return 0;
    }
    return layers_freeze(from, frozen, err);
}

/* Two machines must not listen on one port of the host. */
static void drop_forwards(json_t *config)
{
    size_t i;
    json_t *nic;
    bool had_some = false;
    json_array_foreach(json_object_get(config, "nics"), i, nic)
    {
        had_some |= json_array_size(json_object_get(nic, "forwards")) > 0;
        json_object_del(nic, "forwards");
    }
    if (had_some)
        tell_note("the forwarded ports stay with the original; give the copy its own: evctl "
                  "forward add");
}

static int clone_to(const struct evctl_call *call, const struct machine *from, const char *name,
                    const json_t *frozen, struct error *err)
{
    struct machine to;
    int result = machine_make(name, &to, err);
    if (!result) {
        json_decref(to.config);
        to.config = json_deep_copy(from->config);
        model_renew(to.config, name);
        drop_forwards(to.config);
        result = clone_disks(from, &to, call_has(call, "linked"), frozen, err);
        if (!result)
            result = machine_publish(&to, err);
        if (result)
            unused_result(machine_remove(&to, NULL));
    }
    if (!result)
        tell_line("'%s' is a %s of '%s', UUID %s", name,
                  call_has(call, "linked") ? "linked clone" : "clone", from->name,
                  model_text(to.config, "uuid"));
    machine_close(&to);
    return result;
}

int cmd_clone(struct evctl_call *call, struct error *err)
{
    struct machine from;
    int result = machine_open(call->arguments[0], MACHINE_LOCK, &from, err);
    if (result)
        return result;
    json_t *made = json_array(), *frozen = json_object();
    if (call_has(call, "linked"))
        result = freeze(&from, frozen, err);
    for (unsigned i = 1; !result && i < call->argument_count; i++) {
        result = clone_to(call, &from, call->arguments[i], frozen, err);
        if (!result && i + 1 < call->argument_count)
            result = interrupt_check(err);
        json_array_append_new(made, json_string(call->arguments[i]));
    }
    if (!result)
        tell_json(json_pack("{s:s, s:b, s:o}", "from", from.name, "linked",
                            call_has(call, "linked"), "made", made));
    else
        json_decref(made);
    json_decref(frozen);
    machine_close(&from);
    return result;
}
