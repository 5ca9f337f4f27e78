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

/* `text`: what is wrong with the arguments, or NULL; freed. */
static void answer_or_run(struct qmp_call *call, char *text)
{
    if (!text) {
        qmp_block(call);
        return;
    }
    qmp_call_fail(call, QMP_GENERIC, "%s", text);
    free(text);
}

/* As commands: their shapes stand in tables, with what they must and may have. */
static const struct qmp_command action_shape = {
    "", "", NULL, NULL, {{"type", QMP_STRING, false}, {"data", QMP_OBJECT, false}}};
static const struct qmp_command abort_shape = {"", "", NULL, NULL, {{0}}};
static const struct qmp_command properties_shape = {
    "", "", NULL, NULL, {{"completion-mode", QMP_STRING, true}}};

/* An action takes what the command of its name takes. Of a type that is none the machine tells. */
static char *check_action(json_t *action, size_t index)
{
    char where[48], *text = commands_check_entry(&action_shape, action, "actions", index);
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
    answer_or_run(call, text);
}

/* --- blockdev-create: each driver has its own options --- */

static const struct qmp_command new_file_shape = {"file",
                                                  "",
                                                  NULL,
                                                  NULL,
                                                  {{"driver", QMP_STRING, false},
                                                   {"filename", QMP_STRING, false},
                                                   {"size", QMP_INT, false},
                                                   {"preallocation", QMP_STRING, true},
                                                   {"nocow", QMP_BOOL, true}}};
static const struct qmp_command new_qcow2_shape = {"qcow2",
                                                   "",
                                                   NULL,
                                                   NULL,
                                                   {{"driver", QMP_STRING, false},
                                                    {"file", QMP_ANY, false},
                                                    {"data-file", QMP_ANY, true},
                                                    {"data-file-raw", QMP_BOOL, true},
                                                    {"extended-l2", QMP_BOOL, true},
                                                    {"size", QMP_INT, false},
                                                    {"version", QMP_STRING, true},
                                                    {"backing-file", QMP_STRING, true},
                                                    {"backing-fmt", QMP_STRING, true},
                                                    {"encrypt", QMP_OBJECT, true},
                                                    {"cluster-size", QMP_INT, true},
                                                    {"preallocation", QMP_STRING, true},
                                                    {"lazy-refcounts", QMP_BOOL, true},
                                                    {"refcount-bits", QMP_INT, true},
                                                    {"compression-type", QMP_STRING, true}}};
/* The room of the jobs refuses it by name. */
static const struct qmp_command other_shape = {
    "", "", NULL, NULL, {{"driver", QMP_STRING, false}, QMP_ANY_OTHERS}};

/* QEMU says this of sizes, which are unsigned there, in other words. */
static char *check_sizes(json_t *options)
{
    static const char *const sizes[] = {"size", "cluster-size"};
    char *text = NULL;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes) && !text; i++) {
        const json_t *size = json_object_get(options, sizes[i]);
        if (size && !json_is_integer(size))
            CHECK(asprintf(&text, "Parameter 'options.%s' expects uint64", sizes[i]) > 0);
    }
    return text;
}

void qmp_blockdev_create(struct qmp_call *call)
{
    json_t *options = json_object_get(call->arguments, "options");
    const char *driver = json_string_value(json_object_get(options, "driver"));
    const struct qmp_command *shape = &other_shape;
    if (driver && strcmp(driver, new_file_shape.name) == 0)
        shape = &new_file_shape;
    else if (driver && strcmp(driver, new_qcow2_shape.name) == 0)
        shape = &new_qcow2_shape;
    char *text = shape == &other_shape ? NULL : check_sizes(options);
    if (!text)
        text = commands_check(shape, options, "options.");
    answer_or_run(call, text);
}
