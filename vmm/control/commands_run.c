/* SPDX-License-Identifier: MIT */
/* commands_run: the QMP commands that do something to the machine. */
#include "vmm/control/commands.h"
#include "vmm/control/hmp.h"

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

static void on_hmp_done(void *opaque, const char *output)
{
    struct qmp_call *call = opaque;
    json_t *text = json_string(output);
    qmp_call_return(call, text ? text : json_string(""));
}

void qmp_human_monitor_command(struct qmp_call *call)
{
    struct machine *machine = call->control->machine;
    json_int_t index = json_integer_value(json_object_get(call->arguments, "cpu-index"));
    struct machine_cpu_info cpu = {0};
    if (index >= 0 && index < vm_config_max_cpus(machine_config(machine)))
        machine_get_cpu(machine, (unsigned)index, &cpu);
    if (!cpu.is_present)
        qmp_call_fail(call, QMP_GENERIC, "Parameter 'cpu-index' expects a CPU number");
    else
        hmp_run(call->control, json_string_value(json_object_get(call->arguments, "command-line")),
                (unsigned)index, on_hmp_done, call);
}
