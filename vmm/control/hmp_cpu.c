/* SPDX-License-Identifier: MIT */
/*
 * hmp_cpu: the human monitor about CPUs: which one it looks at, its registers, and expressions that
 * name them. A running guest stands still for the moment of a look, and hears nothing of it.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/control/hmp_expression.h"
#include "vmm/control/hmp_private.h"
#include "vmm/machine_inspect.h"

struct accel_vcpu *hmp_current_cpu(struct hmp_call *call)
{
    if (!machine_has_cpu(call->control->machine, call->cpu))
        call->cpu = 0;
    return machine_accel_vcpu(call->control->machine, call->cpu);
}

/* --- standing still --- */

static void on_still(void *opaque, int result, const struct error *err)
{
    struct hmp_call *call = opaque;
    if (!result)
        call->look(call);
    hmp_call_done(call, result, err);
}

void hmp_inspect(struct hmp_call *call, void (*look)(struct hmp_call *call))
{
    call->look = look;
    call->is_pending = true;
    machine_inspect(call->control->machine, on_still, call);
}

/* --- expressions --- */

bool hmp_read_expression(struct hmp_call *call, int64_t *out)
{
    struct accel_vcpu *cpu = hmp_current_cpu(call);
    struct accel_vcpu_state state;
    struct hmp_expression expression = {.at = call->rest};
    if (!cpu->vm->ops->vcpu_get_state(cpu, ACCEL_STATE_REGS | ACCEL_STATE_SREGS, &state))
        expression.state = &state;
    bool ok = hmp_expression_read(&expression, out);
    call->rest = expression.at;
    if (!ok)
        fprintf(call->out, "%s\r\nTry \"help %s\" for more information\r\n", expression.error,
                call->words[0]);
    return ok;
}

bool hmp_read_end(struct hmp_call *call)
{
    if (!*call->rest)
        return true;
    fprintf(call->out,
            "%s: extraneous characters at the end of line\r\n"
            "Try \"help %s\" for more information\r\n",
            call->command->names, call->words[0]);
    return false;
}

/* --- commands --- */

void hmp_cpu(struct hmp_call *call)
{
    int64_t index;
    if (!hmp_read_number(call, call->words[1], &index))
        return;
    if (machine_has_cpu(call->control->machine, index))
        call->cpu = (unsigned)index;
    else
        fprintf(call->out, "invalid CPU index\r\n");
}

void hmp_info_cpus(struct hmp_call *call)
{
    struct machine *machine = call->control->machine;
    hmp_current_cpu(call);
    for (unsigned i = 0; i < vm_config_max_cpus(machine_config(machine)); i++) {
        struct machine_cpu_info cpu;
        machine_get_cpu(machine, i, &cpu);
        if (cpu.is_present)
            fprintf(call->out, "%s CPU #%u: thread_id=%d\r\n", i == call->cpu ? "*" : " ",
                    cpu.index, cpu.thread_id);
    }
}

static void print_all(struct hmp_call *call)
{
    struct machine *machine = call->control->machine;
    for (unsigned i = 0; i < vm_config_max_cpus(machine_config(machine)); i++)
        if (machine_has_cpu(machine, i))
            hmp_print_registers(call->out, machine_accel_vcpu(machine, i));
}

static void print_current(struct hmp_call *call)
{
    hmp_print_registers(call->out, hmp_current_cpu(call));
}

/* Which CPU is read again once all stand still: it may have gone meanwhile. */
static void print_named(struct hmp_call *call)
{
    int64_t index = strtoll(call->words[1], NULL, 0);
    if (machine_has_cpu(call->control->machine, index))
        hmp_print_registers(call->out, machine_accel_vcpu(call->control->machine, (unsigned)index));
    else
        fprintf(call->out, "CPU#%lld not available\r\n", (long long)index);
}

void hmp_info_registers(struct hmp_call *call)
{
    const char *which = call->words[1];
    int64_t index;
    if (!which)
        hmp_inspect(call, print_current);
    else if (strcmp(which, "-a") == 0)
        hmp_inspect(call, print_all);
    else if (hmp_read_number(call, which, &index))
        hmp_inspect(call, print_named);
}
