/* SPDX-License-Identifier: MIT */
/* create: a new machine, and the members of a description that create, set and up share. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "tools/evctl/cloud.h"
#include "tools/evctl/disks.h"
#include "tools/evctl/evctl.h"
#include "tools/evctl/model.h"
#include "tools/evctl/network.h"
#include "tools/evctl/tell.h"
#include "base/suggest.h"

/* --- the members that create and set share --- */

static int set_file(json_t *config, const char *key, const char *path, struct error *err)
{
    char *absolute = *path ? realpath(path, NULL) : strdup("");
    struct stat status;
    int code = !absolute || (*absolute && access(absolute, R_OK) < 0) ? errno : 0;
    if (!code && *absolute && stat(absolute, &status) == 0 && !S_ISREG(status.st_mode))
        code = EISDIR;
    if (!code)
        model_set_text(config, key, absolute);
    free(absolute);
    if (code == EISDIR)
        return error_set(err, EISDIR, "--%s %s: it is no file", key, path);
    return code ? error_set_errno(err, code, "--%s %s", key, path) : 0;
}

static bool are_accels(const char *text)
{
    static const char *const known[] = {"kvm", "soft", "tcg"};
    char copy[64], *rest = copy, *one;
    snprintf(copy, sizeof(copy), "%s", text);
    while ((one = strsep(&rest, ":"))) {
        bool is_known = false;
        for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
            is_known |= strcmp(one, known[i]) == 0;
        if (!is_known)
            return false;
    }
    return true;
}

/* As evisor will have it, but told before there is a machine that does not start. */
static int check_text(const char *key, const char *text, struct error *err)
{
    if (strcmp(key, "accel") == 0 && *text && !are_accels(text))
        return error_set(err, EINVAL, "--accel %s: write kvm, soft or kvm:soft", text);
    if (strcmp(key, "console") == 0 && strcmp(text, "serial") != 0 && strcmp(text, "hvc") != 0)
        return error_set(err, EINVAL, "--console %s: write serial or hvc", text);
    if (strcmp(key, "boot") == 0 && !strchr(text, '=') && text[strspn(text, "cd")])
        return error_set(err, EINVAL,
                         "--boot %s: write c for the disks and d for ISO images, in their order, "
                         "as dc",
                         text);
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

/* Firmware starts what it finds, and has no use for these. */
static int check_kernel(const struct evctl_call *call, const json_t *config, struct error *err)
{
    static const char *const texts[] = {"initrd", "append"};
    bool is_asked =
        call_has(call, "kernel") || call_has(call, texts[0]) || call_has(call, texts[1]);
    if (!is_asked || *model_text(config, "kernel"))
        return 0;
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
        if (*model_text(config, texts[i]))
            return error_set(err, EINVAL,
                             "--%s goes with a kernel: name that with --kernel, or take the text "
                             "away with: --%s ''",
                             texts[i], texts[i]);
    return 0;
}

static int set_texts(const struct evctl_call *call, json_t *config, struct error *err)
{
    static const char *const files[] = {"kernel", "initrd", "bios"};
    static const char *const texts[] = {"append", "boot", "user", "accel", "console"};
    int result = 0;
    for (unsigned i = 0; !result && i < ARRAY_SIZE(files); i++)
        if (call_has(call, files[i]))
            result = set_file(config, files[i], call_get(call, files[i]), err);
    for (unsigned i = 0; !result && i < ARRAY_SIZE(texts); i++)
        if (call_has(call, texts[i])) {
            result = check_text(texts[i], call_get(call, texts[i]), err);
            model_set_text(config, texts[i], call_get(call, texts[i]));
        }
    if (!result && call_has(call, "os"))
        result = set_os(config, call_get(call, "os"), err);
    return result ? result : check_kernel(call, config, err);
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

/* The NIC that has this end at the host, "tcp:127.0.0.1:8080-", and at which place; or NULL. */
static json_t *find_forward(const json_t *config, const char *rule, size_t *place)
{
    size_t i, k, end = strcspn(rule, "-") + 1;
    json_t *nic, *known, *found = NULL;
    json_array_foreach(json_object_get(config, "nics"), i, nic)
        json_array_foreach(json_object_get(nic, "forwards"), k, known)
    {
        if (strncmp(json_string_value(known), rule, end) != 0)
            continue;
        found = nic;
        *place = k;
    }
    return found;
}

/* Makes room for the rule, where another one has its end at the host. */
static int take_back(json_t *config, const char *rule, bool replaces, struct error *err)
{
    size_t place;
    json_t *nic = find_forward(config, rule, &place);
    if (!nic)
        return 0;
    json_t *forwards = json_object_get(nic, "forwards");
    const char *known = json_string_value(json_array_get(forwards, place));
    if (!replaces)
        return error_set(err, EINVAL, "--forward: '%.*s' is forwarded twice",
                         (int)strcspn(rule, "-"), rule);
    int result = network_is_kernel_nat(nic) ? network_forward_del(nic, known, err) : 0;
    if (!result)
        json_array_remove(forwards, place);
    return result;
}

static int add_forward(json_t *config, const char *rule, bool replaces, struct error *err)
{
    json_t *nic = json_array_get(json_object_get(config, "nics"), 0);
    char *whole = NULL;
    int result = 0;
    bool is_kernel = network_is_kernel_nat(nic);
    if (!is_kernel && !network_forwards(nic))
        return error_set(err, EINVAL, "--forward wants a first NIC behind NAT: --net user");
    result = take_back(config, rule, replaces, err);
    if (!result && is_kernel)
        result = network_forward_add(nic, rule, &whole, err);
    if (result)
        return result;
    if (!json_object_get(nic, "forwards"))
        json_object_set_new(nic, "forwards", json_array());
    json_array_append_new(json_object_get(nic, "forwards"), json_string(whole ? whole : rule));
    free(whole);
    return 0;
}

int create_forward(json_t *config, const char *text, bool replaces, struct error *err)
{
    size_t place;
    char *rule = model_read_forward(text, err);
    json_t *nic = rule ? find_forward(config, rule, &place) : NULL;
    const char *known =
        nic ? json_string_value(json_array_get(json_object_get(nic, "forwards"), place)) : NULL;
    /* What the kernel forwards stands with the guest's address before the port. */
    bool is_there = known && strcmp(strrchr(known, ':'), strrchr(rule, ':')) == 0 &&
                    (strstr(rule, "-:") || strcmp(known, rule) == 0);
    int result = !rule                  ? -EINVAL
                 : replaces && is_there ? 0
                                        : add_forward(config, rule, replaces, err);
    free(rule);
    return result;
}

static int add_nics(const struct evctl_call *call, json_t *config, struct error *err)
{
    const char *text;
    int result = 0;
    if (!call_has(call, "net"))
        result = model_add_nic(config, "user", err);
    for (unsigned n = 0; !result && (text = call_nth(call, "net", n)); n++)
        result = model_add_nic(config, text, err);
    for (unsigned n = 0; !result && (text = call_nth(call, "forward", n)); n++)
        result = create_forward(config, text, false, err);
    return result;
}

static int add_disks(const struct evctl_call *call, struct machine *machine, struct error *err)
{
    const char *text, *image = call_get(call, "image");
    int result = 0;
    if (!image && call_has(call, "linked"))
        return error_set(err, EINVAL, "--linked goes with --image, on which the disk is to build");
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
    if (!result)
        result = cloud_apply(call, machine, err);
    if (!result)
        result = machine_publish(machine, err);
    if (result)
        network_forward_forget_all(machine->config);
    return result;
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
