/* SPDX-License-Identifier: MIT */
/* commands_guest: the QMP commands about the guest's memory: balloon and memory devices. */
#include <string.h>

#include "vmm/control/commands.h"
#include "vmm/machine_guest.h"

static const char no_balloon[] = "No balloon device has been activated";

void qmp_query_balloon(struct qmp_call *call)
{
    struct machine_balloon balloon;
    if (machine_get_balloon(call->control->machine, &balloon))
        qmp_call_return(call, json_pack("{s:I}", "actual", (json_int_t)balloon.actual_bytes));
    else
        qmp_call_fail(call, "DeviceNotActive", "%s", no_balloon);
}

static json_t *memdev(const char *id, uint64_t bytes, bool has_prealloc, bool is_shared)
{
    return json_pack("{s:s*,s:I,s:b,s:b,s:b,s:b,s:b,s:[],s:s}", "id", id, "size", (json_int_t)bytes,
                     "merge", 1, "dump", 1, "prealloc", has_prealloc, "share", is_shared, "reserve",
                     1, "host-nodes", "policy", "default");
}

json_t *commands_memdevs(const struct machine *machine)
{
    const struct vm_config *config = machine_config(machine);
    json_t *list = json_array();
    if (!config->guest.ram_backend)
        json_array_append_new(list,
                              memdev("pc.ram", config->ram_bytes, config->mem_prealloc, false));
    for (unsigned i = 0; i < CONFIG_MEM_MAX; i++) {
        const struct config_memory_backend *backend = &config->guest.memory_backends[i];
        if (backend->id)
            json_array_append_new(list, memdev(backend->id, backend->size_bytes, backend->prealloc,
                                               backend->is_shared));
    }
    return list;
}

void qmp_query_memdev(struct qmp_call *call)
{
    qmp_call_return(call, commands_memdevs(call->control->machine));
}

/* Guests here do not sleep. */
void qmp_query_current_machine(struct qmp_call *call)
{
    qmp_call_return(call, json_pack("{s:b}", "wakeup-suspend-support", 0));
}

void qmp_balloon(struct qmp_call *call)
{
    json_int_t bytes = json_integer_value(json_object_get(call->arguments, "value"));
    struct machine_balloon balloon;
    if (!machine_get_balloon(call->control->machine, &balloon))
        qmp_call_fail(call, "DeviceNotActive", "%s", no_balloon);
    else if (bytes <= 0 || machine_set_balloon(call->control->machine, (uint64_t)bytes))
        qmp_call_fail(call, QMP_GENERIC, "Parameter 'target' expects a size");
    else
        qmp_call_return(call, NULL);
}

static json_t *describe_mem(const struct config_mem *config, const struct machine_mem *mem)
{
    char memdev[128];
    snprintf(memdev, sizeof(memdev), "/objects/%s", config->memdev);
    return json_pack("{s:s,s:{s:s*,s:s,s:I,s:I,s:I,s:I,s:I,s:i}}", "type", "virtio-mem", "data",
                     "id", config->qdev_id, "memdev", memdev, "memaddr", (json_int_t)mem->gpa,
                     "requested-size", (json_int_t)mem->requested_bytes, "size",
                     (json_int_t)mem->plugged_bytes, "max-size", (json_int_t)mem->size_bytes,
                     "block-size", (json_int_t)mem->block_bytes, "node", 0);
}

void qmp_query_memory_devices(struct qmp_call *call)
{
    const struct config_guest *config = &machine_config(call->control->machine)->guest;
    json_t *list = json_array();
    for (unsigned i = 0; i < config->mem_count; i++) {
        struct machine_mem mem;
        if (machine_get_mem(call->control->machine, i, &mem))
            json_array_append_new(list, describe_mem(&config->mems[i], &mem));
    }
    qmp_call_return(call, list);
}

uint64_t commands_plugged_bytes(const struct machine *machine)
{
    uint64_t plugged = 0;
    for (unsigned i = 0; i < machine_config(machine)->guest.mem_count; i++) {
        struct machine_mem mem;
        if (machine_get_mem(machine, i, &mem))
            plugged += mem.plugged_bytes;
    }
    return plugged;
}

void qmp_query_memory_size_summary(struct qmp_call *call)
{
    const struct machine *machine = call->control->machine;
    qmp_call_return(call, json_pack("{s:I,s:I}", "base-memory",
                                    (json_int_t)machine_config(machine)->ram_bytes,
                                    "plugged-memory", (json_int_t)commands_plugged_bytes(machine)));
}

/* No guest here sleeps: there is no S3. */
void qmp_system_wakeup(struct qmp_call *call)
{
    qmp_call_fail(call, QMP_GENERIC, "Unable to wake up: guest is not in suspended state");
}
