/* SPDX-License-Identifier: MIT */
/* commands_run: the QMP commands that do something to the machine. */
#include <string.h>

#include "base/bytes.h"
#include "vmm/accel.h"
#include "vmm/control/commands.h"
#include "vmm/control/hmp.h"
#include "vmm/machine_inspect.h"

/* Of a LAPIC: Intel SDM volume 3, 11.5.1 and 11.11. */
#define LVT_LINT1    0x360
#define LVT_MASKED   (1u << 16)
#define DELIVERY     0x700u
#define DELIVERY_NMI 0x400u
#define MSI_ADDRESS  UINT64_C(0xfee00000)
#define MSI_ID_SHIFT 12

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
    if (!machine_has_cpu(machine, index))
        qmp_call_fail(call, QMP_GENERIC, "Parameter 'cpu-index' expects a CPU number");
    else
        hmp_run(call->control, json_string_value(json_object_get(call->arguments, "command-line")),
                (unsigned)index, on_hmp_done, call);
}

/* --- inject-nmi --- */

/* The button is wired to all LAPICs' LINT1, of which a guest usually lets one take it as an NMI. */
static void press(struct accel_vcpu *cpu)
{
    struct accel_vcpu_state state;
    if (cpu->vm->ops->vcpu_get_state(cpu, ACCEL_STATE_LAPIC, &state))
        return;
    const uint32_t lint1 = load_le32((const uint8_t *)state.lapic.regs + LVT_LINT1);
    if (!(lint1 & LVT_MASKED) && (lint1 & DELIVERY) == DELIVERY_NMI)
        cpu->vm->ops->msi(cpu->vm, MSI_ADDRESS | (uint64_t)cpu->index << MSI_ID_SHIFT,
                          DELIVERY_NMI);
}

static void on_still(void *opaque, int result, const struct error *err)
{
    struct qmp_call *call = opaque;
    struct machine *machine = call->control->machine;
    for (unsigned i = 0; !result && i < vm_config_max_cpus(machine_config(machine)); i++)
        if (machine_has_cpu(machine, i))
            press(machine_accel_vcpu(machine, i));
    qmp_call_done(call, result, err);
}

void qmp_inject_nmi(struct qmp_call *call)
{
    machine_inspect(call->control->machine, on_still, call);
}

/* The words were checked; what is left out stays. */
void qmp_set_action(struct qmp_call *call)
{
    const struct vm_config *config = machine_config(call->control->machine);
    const char *reboot = json_string_value(json_object_get(call->arguments, "reboot"));
    const char *shutdown = json_string_value(json_object_get(call->arguments, "shutdown"));
    machine_set_actions(call->control->machine,
                        reboot ? strcmp(reboot, "shutdown") == 0 : config->no_reboot,
                        shutdown ? strcmp(shutdown, "pause") == 0 : config->no_shutdown);
    qmp_call_return(call, NULL);
}
