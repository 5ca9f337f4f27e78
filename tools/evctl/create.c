/* SPDX-License-Identifier: MIT */
/* create: create and clone; what fails half-way leaves nothing behind. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/interrupt.h"
#include "tools/evctl/live_disks.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network.h"
#include "tools/evctl/run.h"
#include "tools/evctl/tell.h"
#include "base/suggest.h"

/* --- the members that create and set share --- */

static int set_file(json_t *config, const char *key, const char *path, struct error *err)
{
    char *absolute = *path ? realpath(path, NULL) : strdup("");
    if (!absolute || (*absolute && access(absolute, R_OK) < 0)) {
        free(absolute);
        return error_set(err, errno == EINVAL ? EIO : errno, "--%s %s: %s", key, path,
                         strerror(errno));
    }
    model_set_text(config, key, absolute);
    free(absolute);
    return 0;
}

static int set_os(json_t *config, const char *os, struct error *err)
{
    struct suggest suggest;
    suggest_init(&suggest, os);
    for (unsigned n = 0; model_nth_os(n); n++)
        suggest_offer(&suggest, model_nth_os(n)->name);
    if (!model_find_os(os))
        return error_set(err, EINVAL, "--os %s is not known; %s%s%s 'evctl list --os-types'", os,
                         suggest.best ? "did you mean '" : "",
                         suggest.best ? suggest.best : "they are in",
                         suggest.best ? "'? See also" : "");
    model_set_text(config, "os", os);
    return 0;
}

static int set_texts(const struct evctl_call *call, json_t *config, struct error *err)
{
    static const char *const files[] = {"kernel", "initrd", "bios"};
    static const char *const texts[] = {"append", "boot", "user", "accel"};
    int result = 0;
    for (unsigned i = 0; !result && i < ARRAY_SIZE(files); i++)
        if (call_has(call, files[i]))
            result = set_file(config, files[i], call_get(call, files[i]), err);
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
        if (call_has(call, texts[i]))
            model_set_text(config, texts[i], call_get(call, texts[i]));
    if (!result && call_has(call, "os"))
        result = set_os(config, call_get(call, "os"), err);
    return result;
}

/* What it may grow to while it runs; never less than what it has. */
static int apply_room(const struct evctl_call *call, json_t *config, struct error *err)
{
    uint64_t cpus = model_number(config, "cpus"), memory_mib = model_number(config, "memory-mib");
    uint64_t max_cpus = MAX(model_number(config, "cpus-max"), cpus);
    uint64_t max_memory = MAX(model_number(config, "memory-max-mib"), memory_mib) << 20;
    int result = call_uint(call, "max-cpus", cpus, VCPU_MAX, &max_cpus, err);
    if (!result)
        result = call_size(call, "max-memory", &max_memory, err);
    max_memory >>= 20;
    if (!result && (max_memory < memory_mib || max_memory > RAM_MAX_GIB * 1024))
        result =
            error_set(err, EINVAL, "--max-memory %s: it must be from %lluM, the memory, to %dG",
                      call_get(call, "max-memory"), (unsigned long long)memory_mib, RAM_MAX_GIB);
    if (result)
        return result;
    if (json_object_get(config, "cpus-max") || max_cpus > cpus)
        json_object_set_new(config, "cpus-max", json_integer((json_int_t)max_cpus));
    if (json_object_get(config, "memory-max-mib") || max_memory > memory_mib)
        json_object_set_new(config, "memory-max-mib", json_integer((json_int_t)max_memory));
    return 0;
}

int create_apply(const struct evctl_call *call, json_t *config, struct error *err)
{
    uint64_t cpus = model_number(config, "cpus");
    uint64_t memory = model_number(config, "memory-mib") << 20;
    int result = call_uint(call, "cpus", 1, VCPU_MAX, &cpus, err);
    if (!result)
        result = call_size(call, "memory", &memory, err);
    memory >>= 20;
    if (!result && (memory < RAM_MIN_MIB || memory > RAM_MAX_GIB * 1024))
        result = error_set(err, EINVAL, "--memory %s: it must be from %dM to %dG",
                           call_get(call, "memory"), RAM_MIN_MIB, RAM_MAX_GIB);
    if (result)
        return result;
    json_object_set_new(config, "cpus", json_integer((json_int_t)cpus));
    json_object_set_new(config, "memory-mib", json_integer((json_int_t)memory));
    result = apply_room(call, config, err);
    return result ? result : set_texts(call, config, err);
}

/* --- create --- */

static int add_nics(const struct evctl_call *call, json_t *config, struct error *err)
{
    const char *text;
    int result = 0;
    if (!call_has(call, "net"))
        result = model_add_nic(config, "user", err);
    for (unsigned n = 0; !result && (text = call_nth(call, "net", n)); n++)
        result = model_add_nic(config, text, err);
    for (unsigned n = 0; !result && (text = call_nth(call, "forward", n)); n++) {
        json_t *nic = json_array_get(json_object_get(config, "nics"), 0);
        char *rule = model_read_forward(text, err);
        if (!rule)
            return -EINVAL;
        if (!network_forwards(nic))
            result = error_set(err, EINVAL, "--forward wants a first NIC behind NAT: --net user");
        else if (!json_object_get(nic, "forwards"))
            json_object_set_new(nic, "forwards", json_array());
        json_array_append_new(json_object_get(nic, "forwards"), json_string(rule));
        free(rule);
    }
    return result;
}

static int add_disks(const struct evctl_call *call, struct machine *machine, struct error *err)
{
    const char *text, *image = call_get(call, "image");
    int result = 0;
    if (image)
        result =
            disks_add_copy(machine, image, call_has(call, "linked"), call_get(call, "disk"), err);
    for (unsigned n = image ? 1 : 0; !result && (text = call_nth(call, "disk", n)); n++)
        result = disks_add(machine, "disk", text, err);
    for (unsigned n = 0; !result && (text = call_nth(call, "iso", n)); n++)
        result = disks_add(machine, "iso", text, err);
    return result;
}

int create_fill(const struct evctl_call *call, struct machine *machine, struct error *err)
{
    json_decref(machine->config);
    machine->config = model_new(machine->name, "linux");
    int result = create_apply(call, machine->config, err);
    if (!result)
        result = add_nics(call, machine->config, err);
    if (!result)
        result = add_disks(call, machine, err);
    if (!result && call_has(call, "user-data"))
        result = disks_add_seed(machine, call_get(call, "user-data"), err);
    return result ? result : machine_save(machine, err);
}

int cmd_create(struct evctl_call *call, struct error *err)
{
    struct machine machine;
    int result = machine_make(call->arguments[0], &machine, err);
    if (result) {
        machine_close(&machine);
        return result;
    }
    result = create_fill(call, &machine, err);
    if (result) {
        unused_result(machine_remove(&machine, NULL));
    } else {
        tell_line("'%s' is made, UUID %s", machine.name, model_text(machine.config, "uuid"));
        tell_line("its description: %s/%s", machine.folder, STORE_CONFIG_FILE);
        tell_json(json_deep_copy(machine.config));
    }
    machine_close(&machine);
    return result;
}

/* --- clone --- */

/* `frozen` has the images of a running machine that nobody writes to any more; else it is NULL. */
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

/* Snapshots stay in the old images, where the running machine would not find them any more. */
static int freeze(struct machine *from, json_t *frozen, struct error *err)
{
    json_t *snapshots = disks_snapshots(from, err);
    size_t count = json_array_size(snapshots);
    if (!snapshots)
        return -err->code;
    json_decref(snapshots);
    if (count)
        return error_set(err, EISCONN,
                         "'%s' is running and has snapshots, which a linked clone would part from "
                         "it; stop it first, or leave out --linked",
                         from->name);
    return live_disks_freeze(from, frozen, err);
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
            result = machine_save(&to, err);
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
    if (call_has(call, "linked") && machine_pid(from.folder_fd))
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
