/* SPDX-License-Identifier: MIT */
/* hmp_hotplug: the commands of the human monitor by which devices, drives and networks come and go.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control/hmp_private.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/machine_chardev.h"

static void print_error(struct hmp_call *call, int result, const struct error *err)
{
    if (result)
        fprintf(call->out, "Error: %s\r\n", err->text);
}

/* Reads the option list at `word`; false if that failed, and has been said. */
static bool read_list(struct hmp_call *call, unsigned word, const char *implied,
                      struct keyval *list)
{
    struct error err = {0};
    if (call->word_count <= word) {
        fprintf(call->out, "usage: %s %s...\r\n", call->words[0],
                implied ? "KIND,id=ID,KEY=VALUE," : "0 if=none,id=ID,file=PATH,");
        return false;
    }
    int result = keyval_parse(list, call->words[0], call->words[word], implied, &err);
    print_error(call, result, &err);
    return !result;
}

static void run_with_list(struct hmp_call *call, const char *implied,
                          int (*run)(struct machine *machine, struct keyval *list,
                                     struct error *err))
{
    struct keyval list;
    struct error err = {0};
    if (!read_list(call, 1, implied, &list))
        return;
    print_error(call, run(call->control->machine, &list, &err), &err);
    keyval_fini(&list);
}

static void run_with_name(struct hmp_call *call,
                          int (*run)(struct machine *machine, const char *name, struct error *err))
{
    struct error err = {0};
    if (call->word_count != 2)
        fprintf(call->out, "usage: %s ID\r\n", call->words[0]);
    else
        print_error(call, run(call->control->machine, call->words[1], &err), &err);
}

static void close_with_name(struct hmp_call *call,
                            int (*run)(struct machine *machine, const char *name,
                                       machine_done_fn *on_done, void *opaque, struct error *err))
{
    struct error err = {0};
    int result = -EINVAL;
    if (call->word_count != 2)
        fprintf(call->out, "usage: %s ID\r\n", call->words[0]);
    else
        result = run(call->control->machine, call->words[1], hmp_call_done, call, &err);
    if (call->word_count == 2)
        print_error(call, result, &err);
    call->is_pending = !result;
}

void hmp_device_add(struct hmp_call *call)
{
    run_with_list(call, "driver", machine_device_add);
}

void hmp_device_del(struct hmp_call *call)
{
    run_with_name(call, machine_device_del);
}

void hmp_netdev_add(struct hmp_call *call)
{
    run_with_list(call, "type", machine_netdev_add);
}

void hmp_netdev_del(struct hmp_call *call)
{
    close_with_name(call, machine_netdev_del);
}

void hmp_chardev_add(struct hmp_call *call)
{
    run_with_list(call, "backend", machine_chardev_add);
}

void hmp_chardev_remove(struct hmp_call *call)
{
    close_with_name(call, machine_chardev_remove);
}

void hmp_object_add(struct hmp_call *call)
{
    run_with_list(call, "qom-type", machine_object_add);
}

void hmp_object_del(struct hmp_call *call)
{
    run_with_name(call, machine_object_del);
}

static void on_drive_added(void *opaque, int result, const struct error *err)
{
    struct hmp_call *call = opaque;
    if (!result)
        fprintf(call->out, "OK\r\n");
    hmp_call_done(call, result, err);
}

void hmp_drive_add(struct hmp_call *call)
{
    struct keyval list;
    struct error err = {0};
    if (!read_list(call, 2, NULL, &list))
        return;
    int result = machine_drive_add(call->control->machine, &list, on_drive_added, call, &err);
    keyval_fini(&list);
    print_error(call, result, &err);
    call->is_pending = !result;
}

void hmp_drive_del(struct hmp_call *call)
{
    close_with_name(call, machine_drive_del);
}

void hmp_info_hotpluggable_cpus(struct hmp_call *call)
{
    struct machine *machine = call->control->machine;
    char type[64];
    machine_cpu_type(machine, type, sizeof(type));
    fprintf(call->out, "Hotpluggable CPUs:\r\n");
    for (unsigned i = vm_config_max_cpus(machine_config(machine)); i-- > 0;) {
        struct machine_cpu_info cpu;
        machine_get_cpu(machine, i, &cpu);
        fprintf(call->out, "  type: \"%s\"\r\n  vcpus_count: \"1\"\r\n", type);
        if (cpu.is_present && *cpu.id)
            fprintf(call->out, "  qom_path: \"/machine/peripheral/%s\"\r\n", cpu.id);
        else if (cpu.is_present)
            fprintf(call->out, "  qom_path: \"/machine/unattached/device[%u]\"\r\n", i);
        fprintf(call->out,
                "  CPUInstance Properties:\r\n    socket-id: \"%u\"\r\n    die-id: \"0\"\r\n"
                "    core-id: \"%u\"\r\n    thread-id: \"%u\"\r\n",
                cpu.socket, cpu.core, cpu.thread);
    }
}
