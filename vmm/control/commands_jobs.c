/* SPDX-License-Identifier: MIT */
/* commands_jobs: the QMP commands that change images in use go to the machine's vmm/block. */
#include "vmm/control/commands.h"
#include "vmm/machine_block.h"

static void on_done(void *opaque, json_t *value, const char *class, const char *text)
{
    if (class)
        qmp_call_fail(opaque, class, "%s", text);
    else
        qmp_call_return(opaque, value);
}

void qmp_block(struct qmp_call *call)
{
    machine_block_command(call->control->machine, call->command->name, call->arguments, on_done,
                          call);
}
