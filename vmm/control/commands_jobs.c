/* SPDX-License-Identifier: MIT */
/* commands_jobs: the QMP commands that change images in use go to the machine's vmm/block. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* As commands: their shapes stand in tables, with what they must and may have. */
static const struct qmp_command action_shape = {
    "", "", NULL, {{"type", QMP_STRING, false}, {"data", QMP_OBJECT, false}}};
static const struct qmp_command abort_shape = {"", "", NULL, {{0}}};
static const struct qmp_command properties_shape = {
    "", "", NULL, {{"completion-mode", QMP_STRING, true}}};

/* An action takes what the command of its name takes. Of a type that is none the machine tells. */
static char *check_action(json_t *action, size_t index)
{
    char where[48], *text;
    snprintf(where, sizeof(where), "actions[%zu]", index);
    if (!json_is_object(action)) {
        CHECK(asprintf(&text, "Invalid parameter type for '%s', expected: object", where) > 0);
        return text;
    }
    snprintf(where, sizeof(where), "actions[%zu].", index);
    text = commands_check(&action_shape, action, where);
    if (text)
        return text;
    const char *type = json_string_value(json_object_get(action, "type"));
    const struct qmp_command *command =
        strcmp(type, "abort") == 0 ? &abort_shape : commands_find(type);
    snprintf(where, sizeof(where), "actions[%zu].data.", index);
    return command ? commands_check(command, json_object_get(action, "data"), where) : NULL;
}

void qmp_transaction(struct qmp_call *call)
{
    json_t *properties = json_object_get(call->arguments, "properties"), *action;
    char *text = properties ? commands_check(&properties_shape, properties, "properties.") : NULL;
    size_t index;
    json_array_foreach(json_object_get(call->arguments, "actions"), index, action)
    {
        if (!text)
            text = check_action(action, index);
    }
    if (!text) {
        qmp_block(call);
        return;
    }
    qmp_call_fail(call, QMP_GENERIC, "%s", text);
    free(text);
}
