/* SPDX-License-Identifier: MIT */
/* commands_run: the QMP commands that do something to the machine. */
#include <stdlib.h>
#include <string.h>

#include "netbackends/net.h"
#include "vmm/commands.h"
#include "vmm/hmp.h"

void qmp_stop(struct qmp_call *call)
{
    machine_stop(call->control->machine, qmp_call_done, call);
}

void qmp_cont(struct qmp_call *call)
{
    machine_cont(call->control->machine, qmp_call_done, call);
}

void qmp_system_powerdown(struct qmp_call *call)
{
    machine_powerdown(call->control->machine);
    qmp_call_return(call, NULL);
}

void qmp_system_reset(struct qmp_call *call)
{
    machine_reset(call->control->machine, SHUTDOWN_HOST_QMP_SYSTEM_RESET, qmp_call_done, call);
}

void qmp_quit(struct qmp_call *call)
{
    list_push_back(&call->control->quits, &call->node);
    machine_quit(call->control->machine, SHUTDOWN_HOST_QMP_QUIT);
}

static bool is_named(const char *a, const char *name)
{
    return a && strcmp(a, name) == 0;
}

void qmp_set_link(struct qmp_call *call)
{
    const char *name = json_string_value(json_object_get(call->arguments, "name"));
    const struct vm_config *config = machine_config(call->control->machine);
    for (unsigned i = 0; i < config->nic_count; i++) {
        const struct config_nic *nic = &config->nics[i];
        struct net_backend *backend = machine_net_backend(call->control->machine, i);
        if (!backend || (!is_named(nic->netdev_id, name) && !is_named(nic->qdev_id, name)))
            continue;
        net_set_link(backend, json_is_true(json_object_get(call->arguments, "up")));
        qmp_call_return(call, NULL);
        return;
    }
    qmp_call_fail(call, "DeviceNotFound", "Device '%s' not found", name);
}

static void on_hmp_done(void *opaque, const char *output)
{
    struct qmp_call *call = opaque;
    json_t *text = json_string(output);
    qmp_call_return(call, text ? text : json_string(""));
}

void qmp_human_monitor_command(struct qmp_call *call)
{
    hmp_run(call->control, json_string_value(json_object_get(call->arguments, "command-line")),
            on_hmp_done, call);
}
