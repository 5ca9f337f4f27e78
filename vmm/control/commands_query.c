/* SPDX-License-Identifier: MIT */
/* commands_query: the QMP commands that tell about the machine, in QEMU's shapes. */
#include <string.h>

#include "build/config.h"
#include "vmm/chardev/chardev.h"
#include "vmm/control/commands.h"
#include "vmm/machine_guest.h"
#include "vmm/machine_io_threads.h"

/* Clients choose what they send by this version; the package says who really answers. */
json_t *qmp_version(void)
{
    return json_pack("{s:{s:i,s:i,s:i},s:s}", "qemu", "micro", 0, "minor", 2, "major", 7, "package",
                     "evisor-" EVISOR_VERSION);
}

void qmp_query_version(struct qmp_call *call)
{
    qmp_call_return(call, qmp_version());
}

void qmp_query_status(struct qmp_call *call)
{
    enum machine_state state = machine_get_state(call->control->machine);
    qmp_call_return(call, json_pack("{s:b,s:b,s:s}", "running", state == MACHINE_RUNNING,
                                    "singlestep", 0, "status", machine_state_name(state)));
}

void qmp_query_name(struct qmp_call *call)
{
    const char *name = machine_config(call->control->machine)->name;
    json_t *text = name ? json_string(name) : NULL;
    qmp_call_return(call, text ? json_pack("{s:o}", "name", text) : json_object());
}

void qmp_query_uuid(struct qmp_call *call)
{
    const char *uuid = machine_config(call->control->machine)->uuid;
    qmp_call_return(
        call, json_pack("{s:s}", "UUID", uuid ? uuid : "00000000-0000-0000-0000-000000000000"));
}

void qmp_query_kvm(struct qmp_call *call)
{
    bool is_kvm = strcmp(machine_accel_name(call->control->machine), "kvm") == 0;
    qmp_call_return(call, json_pack("{s:b,s:b}", "enabled", is_kvm, "present", 1));
}

void qmp_query_target(struct qmp_call *call)
{
    qmp_call_return(call, json_pack("{s:s}", "arch", "x86_64"));
}

void qmp_cpu_path(const struct machine_cpu_info *cpu, char *text, size_t size)
{
    if (*cpu->id)
        snprintf(text, size, "/machine/peripheral/%s", cpu->id);
    else
        snprintf(text, size, "/machine/unattached/device[%u]", cpu->index);
}

void qmp_query_cpus_fast(struct qmp_call *call)
{
    const struct vm_config *config = machine_config(call->control->machine);
    json_t *list = json_array();
    for (unsigned i = 0; i < vm_config_max_cpus(config); i++) {
        struct machine_cpu_info cpu;
        char path[96];
        machine_get_cpu(call->control->machine, i, &cpu);
        if (!cpu.is_present)
            continue;
        qmp_cpu_path(&cpu, path, sizeof(path));
        json_array_append_new(list, json_pack("{s:i,s:{s:i,s:i,s:i},s:s,s:i,s:s}", "thread-id",
                                              cpu.thread_id, "props", "core-id", (int)cpu.core,
                                              "thread-id", (int)cpu.thread, "socket-id",
                                              (int)cpu.socket, "qom-path", path, "cpu-index",
                                              (int)cpu.index, "target", "x86_64"));
    }
    qmp_call_return(call, list);
}

/* How QEMU writes a socket of ours. */
static void describe_listener(const struct config_chardev *chardev, char *text, size_t size)
{
    if (chardev->kind == CHARDEV_UNIX)
        snprintf(text, size, "unix:%s,server=on", chardev->path);
    else
        snprintf(text, size, "%s:%s:%u,server=on", chardev->is_telnet ? "telnet" : "tcp",
                 chardev->host && *chardev->host ? chardev->host : "127.0.0.1", chardev->port);
}

static bool has_client(const struct control *control, unsigned chardev)
{
    list_for_each(node, &control->clients)
    {
        const struct control_client *client = list_entry(node, struct control_client, node);
        if (!client->is_dropped && client->monitor->chardev == chardev)
            return true;
    }
    return false;
}

/* A virtio port that the guest has open. */
static bool has_open_port(const struct machine *machine, unsigned chardev)
{
    const struct config_guest *guest = &machine_config(machine)->guest;
    for (unsigned i = 0; i < guest->serial_port_count; i++)
        if (guest->serial_ports[i].is_present && guest->serial_ports[i].chardev == (int)chardev &&
            machine_port_is_open(machine, i))
            return true;
    return false;
}

void qmp_query_chardev(struct qmp_call *call)
{
    const struct vm_config *config = machine_config(call->control->machine);
    json_t *list = json_array();
    for (unsigned i = 0; i < config->chardev_count; i++) {
        struct chardev *chardev = machine_chardev(call->control->machine, i);
        char text[256];
        if (!config->chardevs[i].id)
            continue;
        if (chardev)
            snprintf(text, sizeof(text), "%s", chardev_filename(chardev));
        else
            describe_listener(&config->chardevs[i], text, sizeof(text));
        bool is_open = (int)i == config->serial_chardev || has_client(call->control, i) ||
                       has_open_port(call->control->machine, i);
        json_t *entry = json_pack("{s:s*,s:b,s:s*}", "filename", text, "frontend-open", is_open,
                                  "label", config->chardevs[i].id);
        if (entry)
            json_array_append_new(list, entry);
    }
    qmp_call_return(call, list);
}

void qmp_query_iothreads(struct qmp_call *call)
{
    const struct machine *machine = call->control->machine;
    json_t *list = json_array();
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX; i++) {
        const char *id = machine_config(machine)->guest.io_threads[i];
        if (id)
            json_array_append_new(list,
                                  json_pack("{s:s,s:i,s:i,s:i,s:i,s:i}", "id", id, "thread-id",
                                            machine_io_thread_id(machine, i), "poll-max-ns", 0,
                                            "poll-grow", 0, "poll-shrink", 0, "aio-max-batch", 0));
    }
    qmp_call_return(call, list);
}

struct stats_walk {
    json_t *results;
    json_t *stats; /* of the present group */
    char group[64];
    const char *target; /* NULL: all */
};

static bool is_wanted(const struct stats_walk *walk, const char *group)
{
    bool is_vcpu = strncmp(group, "vcpu", 4) == 0 || strncmp(group, "cpu", 3) == 0;
    return !walk->target || is_vcpu == (strcmp(walk->target, "vcpu") == 0);
}

static void on_stat(void *opaque, const char *group, const char *name, uint64_t value)
{
    struct stats_walk *walk = opaque;
    if (!is_wanted(walk, group))
        return;
    if (!walk->stats || strcmp(walk->group, group) != 0) {
        snprintf(walk->group, sizeof(walk->group), "%s", group);
        walk->stats = json_array();
        json_array_append_new(walk->results, json_pack("{s:s,s:s,s:o}", "provider", "evisor",
                                                       "qom-path", group, "stats", walk->stats));
    }
    json_array_append_new(walk->stats, json_pack("{s:s,s:I}", "name", name, "value",
                                                 (json_int_t)MIN(value, INT64_MAX)));
}

void qmp_query_stats(struct qmp_call *call)
{
    struct stats_walk walk = {
        .results = json_array(),
        .target = json_string_value(json_object_get(call->arguments, "target")),
    };
    machine_for_each_stat(call->control->machine, on_stat, &walk);
    qmp_call_return(call, walk.results);
}
