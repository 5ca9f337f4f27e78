/* SPDX-License-Identifier: MIT */
/* hmp_guest: the human monitor about the guest's memory, saved states, objects and descriptors. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fdset.h"
#include "vmm/control/commands.h"
#include "vmm/control/hmp_private.h"
#include "vmm/control/qom.h"
#include "vmm/machine_guest.h"
#include "vmm/options/keyval.h"

static const char no_balloon[] = "Error: No balloon device has been activated\r\n";

/* As QEMU does: the number counts MiB. */
void hmp_balloon(struct hmp_call *call)
{
    uint64_t bytes = 0;
    struct machine_balloon balloon;
    if (call->word_count != 2) {
        fprintf(call->out, "balloon: integer expected\r\nTry \"help balloon\" for more "
                           "information\r\n");
        return;
    }
    if (!keyval_text_to_size(call->words[1], MIB, &bytes) || !bytes)
        fprintf(call->out, "Error: Parameter 'target' expects a size\r\n");
    else if (!machine_get_balloon(call->control->machine, &balloon) ||
             machine_set_balloon(call->control->machine, bytes))
        fputs(no_balloon, call->out);
}

void hmp_info_balloon(struct hmp_call *call)
{
    struct machine_balloon balloon;
    if (machine_get_balloon(call->control->machine, &balloon))
        fprintf(call->out, "balloon: actual=%llu\r\n",
                (unsigned long long)(balloon.actual_bytes / MIB));
    else
        fputs(no_balloon, call->out);
}

static void print_mem(FILE *out, const struct config_mem *config, const struct machine_mem *mem)
{
    fprintf(out,
            "Memory device [virtio-mem]: \"%s\"\r\n"
            "  memaddr: 0x%llx\r\n"
            "  node: 0\r\n"
            "  requested-size: %llu\r\n"
            "  size: %llu\r\n"
            "  max-size: %llu\r\n"
            "  block-size: %llu\r\n"
            "  memdev: /objects/%s\r\n",
            config->qdev_id ? config->qdev_id : "", (unsigned long long)mem->gpa,
            (unsigned long long)mem->requested_bytes, (unsigned long long)mem->plugged_bytes,
            (unsigned long long)mem->size_bytes, (unsigned long long)mem->block_bytes,
            config->memdev);
}

void hmp_info_memory_devices(struct hmp_call *call)
{
    const struct config_guest *config = &machine_config(call->control->machine)->guest;
    for (unsigned i = 0; i < config->mem_count; i++) {
        struct machine_mem mem;
        if (machine_get_mem(call->control->machine, i, &mem))
            print_mem(call->out, &config->mems[i], &mem);
    }
}

void hmp_info_memory_size_summary(struct hmp_call *call)
{
    const struct machine *machine = call->control->machine;
    fprintf(call->out, "base memory: %llu\r\nplugged memory: %llu\r\n",
            (unsigned long long)machine_config(machine)->ram_bytes,
            (unsigned long long)commands_plugged_bytes(machine));
}

static const char *word_of(const json_t *memdev, const char *member)
{
    return json_is_true(json_object_get(memdev, member)) ? "true" : "false";
}

void hmp_info_memdev(struct hmp_call *call)
{
    json_t *list = commands_memdevs(call->control->machine), *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        fprintf(call->out,
                "memory backend: %s\r\n  size:  %lld\r\n  merge: %s\r\n  dump: %s\r\n"
                "  prealloc: %s\r\n  share: %s\r\n  reserve: %s\r\n  policy: %s\r\n"
                "  host nodes: \r\n",
                json_string_value(json_object_get(one, "id")),
                (long long)json_integer_value(json_object_get(one, "size")), word_of(one, "merge"),
                word_of(one, "dump"), word_of(one, "prealloc"), word_of(one, "share"),
                word_of(one, "reserve"), json_string_value(json_object_get(one, "policy")));
    }
    fprintf(call->out, "\r\n");
    json_decref(list);
}

/* As in QEMU: memory that can grow makes a node, of all there is. */
void hmp_info_numa(struct hmp_call *call)
{
    const struct machine *machine = call->control->machine;
    const struct vm_config *config = machine_config(machine);
    const uint64_t plugged = commands_plugged_bytes(machine);
    bool has_node = config->guest.max_ram_bytes;
    fprintf(call->out, "%d nodes\r\n", has_node);
    if (!has_node)
        return;
    fprintf(call->out, "node 0 cpus:");
    for (unsigned i = 0; i < vm_config_max_cpus(config); i++)
        if (machine_has_cpu(machine, i))
            fprintf(call->out, " %u", i);
    fprintf(call->out, "\r\nnode 0 size: %llu MB\r\nnode 0 plugged: %llu MB\r\n",
            (unsigned long long)((config->ram_bytes + plugged) / MIB),
            (unsigned long long)(plugged / MIB));
}

/* savevm: the state of a running machine is not saved. */
void hmp_no_vmstate(struct hmp_call *call)
{
    fprintf(call->out,
            "Error: no block device can store vmstate for snapshot: evisor saves disks only; use "
            "evctl snapshot, or evisor-img snapshot while the machine is off\r\n");
}

void hmp_system_wakeup(struct hmp_call *call)
{
    fprintf(call->out, "Error: Unable to wake up: guest is not in suspended state\r\n");
}

void hmp_getfd(struct hmp_call *call)
{
    /* A monitor for people has no message that could carry one. */
    fprintf(call->out, "Error: No file descriptor supplied via SCM_RIGHTS\r\n");
}

void hmp_closefd(struct hmp_call *call)
{
    const char *name = call->words[1] ? call->words[1] : "";
    int fd = fdset_take(name);
    if (fd >= 0)
        close(fd);
    else
        fprintf(call->out, "Error: File descriptor named '%s' not found\r\n", name);
}

/* --- objects --- */

static bool find_object(struct hmp_call *call, struct qom_object *object)
{
    bool is_ambiguous;
    const char *path = call->words[1] ? call->words[1] : "/";
    if (qom_find(call->control->machine, path, object, &is_ambiguous))
        return true;
    fprintf(call->out, "Error: Device '%s' not found\r\n", path);
    return false;
}

struct listing {
    FILE *out;
    const char *parent;
};

/* What the object is called in its parent; NULL if that is another. */
static const char *name_in(const char *parent, const struct qom_object *object)
{
    size_t length = strcmp(parent, "/") == 0 ? 0 : strlen(parent);
    const char *rest = object->path + length;
    bool is_child = strncmp(object->path, parent, length) == 0 && *rest == '/' && rest[1] &&
                    !strchr(rest + 1, '/');
    return is_child ? rest + 1 : NULL;
}

static bool print_child(void *opaque, const struct qom_object *object)
{
    const struct listing *listing = opaque;
    const char *name = name_in(listing->parent, object);
    if (name)
        fprintf(listing->out, "%s (child<%s>)\r\n", name, object->type->name);
    return true;
}

struct branch {
    struct hmp_call *call;
    const char *parent;
    int depth;
};

/* The tree is few levels deep, and is walked anew for each object in it. */
static bool print_branch(void *opaque, const struct qom_object *object)
{
    const struct branch *branch = opaque;
    const char *name = name_in(branch->parent, object);
    if (!name)
        return true;
    fprintf(branch->call->out, "%*s/%s (%s)\r\n", 2 * branch->depth, "", name, object->type->name);
    struct branch below = {branch->call, object->path, branch->depth + 1};
    qom_walk(branch->call->control->machine, print_branch, &below);
    return true;
}

void hmp_info_qom_tree(struct hmp_call *call)
{
    struct qom_object object;
    bool is_ambiguous;
    const char *path = call->words[1] ? call->words[1] : "/machine";
    if (!qom_find(call->control->machine, path, &object, &is_ambiguous)) {
        fprintf(call->out,
                is_ambiguous ? "Path '%s' is ambiguous.\r\n"
                             : "Path '%s' could not be resolved.\r\n",
                path);
        return;
    }
    const char *name = strrchr(object.path, '/');
    fprintf(call->out, "%s (%s)\r\n", name, object.type->name);
    struct branch below = {call, object.path, 1};
    qom_walk(call->control->machine, print_branch, &below);
}

void hmp_qom_list(struct hmp_call *call)
{
    struct qom_object object;
    if (!find_object(call, &object))
        return;
    fprintf(call->out, "type (string)\r\n");
    for (const struct qom_property *property = object.type->properties; property->name; property++)
        fprintf(call->out, "%s (%s)\r\n", property->name, property->kind);
    struct listing listing = {call->out, object.path};
    qom_walk(call->control->machine, print_child, &listing);
}

static const struct qom_property *find_property(struct hmp_call *call,
                                                const struct qom_object *object)
{
    const char *name = call->word_count > 2 ? call->words[2] : "";
    for (const struct qom_property *property = object->type->properties; property->name; property++)
        if (strcmp(property->name, name) == 0)
            return property;
    fprintf(call->out, "Error: Property '%s.%s' not found\r\n", object->type->name, name);
    return NULL;
}

/* Every object has a type, which is in no table; NULL after an error. */
static json_t *read_property(struct hmp_call *call)
{
    struct qom_object object;
    if (!find_object(call, &object))
        return NULL;
    if (call->word_count > 2 && strcmp(call->words[2], "type") == 0)
        return json_string(object.type->name);
    const struct qom_property *property = find_property(call, &object);
    return property ? property->read(call->control->machine, &object) : NULL;
}

void hmp_qom_get(struct hmp_call *call)
{
    json_t *value = read_property(call);
    if (!value)
        return;
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    fprintf(call->out, "%s\r\n", text ? text : "null");
    free(text);
    json_decref(value);
}

/* With -j a value is JSON; else a number, which may have the usual suffixes. */
static json_t *read_value(bool is_json, const char *text)
{
    uint64_t number;
    if (is_json)
        return json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    return keyval_text_to_size(text, 1, &number) && number <= INT64_MAX
               ? json_integer((json_int_t)number)
               : NULL;
}

static void set_property(struct hmp_call *call, bool is_json)
{
    struct qom_object object;
    const struct qom_property *property;
    if (!find_object(call, &object) || !(property = find_property(call, &object)))
        return;
    json_t *value = read_value(is_json, call->words[3]);
    struct error err = {0};
    int result = 0;
    bool has_limits = object.type->properties == qom_throttle_properties;
    if (!property->write || !(json_is_integer(value) || (value && has_limits)))
        fprintf(call->out, "Error: Property '%s.%s' %s\r\n", object.type->name, property->name,
                !property->write ? "is not writable"
                : has_limits     ? "takes JSON: qom-set -j"
                                 : "takes a number");
    else
        result = property->write(call->control->machine, &object, value, &err);
    if (result)
        fprintf(call->out, "Error: %s\r\n", *err.text ? err.text : strerror(-result));
    json_decref(value);
}

void hmp_qom_set(struct hmp_call *call)
{
    bool is_json = call->word_count == 5 && strcmp(call->words[1], "-j") == 0;
    if (!is_json && call->word_count != 4) {
        fprintf(call->out, "usage: qom-set [-j] PATH PROPERTY VALUE\r\n");
        return;
    }
    if (is_json)
        memmove(call->words + 1, call->words + 2, 4 * sizeof(*call->words));
    set_property(call, is_json);
}
