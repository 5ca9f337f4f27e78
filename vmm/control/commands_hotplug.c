/* SPDX-License-Identifier: MIT */
/*
 * commands_hotplug: the QMP commands by which devices, networks, images, objects and CPUs come and
 * go. Their arguments become the lists that the command line's options take.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control/commands.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/options/keyval_json.h"

int qmp_arguments_to_keyval(const struct qmp_call *call, struct keyval *list, struct error *err)
{
    return keyval_from_json(list, call->command->name, call->arguments, err);
}

static void answer(struct qmp_call *call, int result, const struct error *err)
{
    if (!result)
        qmp_call_return(call, NULL);
    else
        qmp_call_fail(call, result == -ENODEV ? "DeviceNotFound" : QMP_GENERIC, "%s", err->text);
}

static void run_with_list(struct qmp_call *call, int (*run)(struct machine *machine,
                                                            struct keyval *list, struct error *err))
{
    struct keyval list;
    struct error err = {0};
    int result = qmp_arguments_to_keyval(call, &list, &err);
    if (!result) {
        result = run(call->control->machine, &list, &err);
        keyval_fini(&list);
    }
    answer(call, result, &err);
}

static void run_with_name(struct qmp_call *call, const char *key,
                          int (*run)(struct machine *machine, const char *name, struct error *err))
{
    struct error err = {0};
    const char *name = json_string_value(json_object_get(call->arguments, key));
    int result = run(call->control->machine, name, &err);
    answer(call, result, &err);
}

/* Answers when what has that name is closed. */
static void close_with_name(struct qmp_call *call, const char *key,
                            int (*run)(struct machine *machine, const char *name,
                                       machine_done_fn *on_done, void *opaque, struct error *err))
{
    struct error err = {0};
    const char *name = json_string_value(json_object_get(call->arguments, key));
    int result = run(call->control->machine, name, qmp_call_done, call, &err);
    if (result)
        answer(call, result, &err);
}

void qmp_device_add(struct qmp_call *call)
{
    run_with_list(call, machine_device_add);
}

void qmp_device_del(struct qmp_call *call)
{
    run_with_name(call, "id", machine_device_del);
}

void qmp_netdev_add(struct qmp_call *call)
{
    run_with_list(call, machine_netdev_add);
}

void qmp_netdev_del(struct qmp_call *call)
{
    close_with_name(call, "id", machine_netdev_del);
}

void qmp_blockdev_add(struct qmp_call *call)
{
    struct keyval list;
    struct error err = {0};
    int result = qmp_arguments_to_keyval(call, &list, &err);
    if (!result) {
        result = machine_blockdev_add(call->control->machine, &list, qmp_call_done, call, &err);
        keyval_fini(&list);
    }
    if (result)
        answer(call, result, &err);
}

void qmp_blockdev_del(struct qmp_call *call)
{
    close_with_name(call, "node-name", machine_blockdev_del);
}

void qmp_object_add(struct qmp_call *call)
{
    run_with_list(call, machine_object_add);
}

void qmp_object_del(struct qmp_call *call)
{
    run_with_name(call, "id", machine_object_del);
}

void qmp_nic_set_netdev(struct qmp_call *call)
{
    struct error err = {0};
    const char *nic = json_string_value(json_object_get(call->arguments, "id"));
    const char *netdev = json_string_value(json_object_get(call->arguments, "netdev"));
    answer(call, machine_nic_set_netdev(call->control->machine, nic, netdev, &err), &err);
}

/* As QEMU lists them: the last one first. */
void qmp_query_hotpluggable_cpus(struct qmp_call *call)
{
    struct machine *machine = call->control->machine;
    char type[64];
    json_t *list = json_array();
    machine_cpu_type(machine, type, sizeof(type));
    for (unsigned i = vm_config_max_cpus(machine_config(machine)); i-- > 0;) {
        struct machine_cpu_info cpu;
        char path[96];
        machine_get_cpu(machine, i, &cpu);
        qmp_cpu_path(&cpu, path, sizeof(path));
        json_array_append_new(list,
                              json_pack("{s:{s:i,s:i,s:i,s:i},s:i,s:s*,s:s}", "props", "core-id",
                                        (int)cpu.core, "thread-id", (int)cpu.thread, "die-id", 0,
                                        "socket-id", (int)cpu.socket, "vcpus-count", 1, "qom-path",
                                        cpu.is_present ? path : NULL, "type", type));
    }
    qmp_call_return(call, list);
}
