/* SPDX-License-Identifier: MIT */
/* commands_capabilities: what programs that manage machines ask first: what could be asked for. */
#include <string.h>

#include "base/limits.h"
#include "vmm/control/commands.h"
#include "vmm/options/machine_types.h"
#include "vmm/options/options_groups.h"

void qmp_query_machines(struct qmp_call *call)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < MACHINE_TYPES; i++) {
        const struct machine_type *type = &machine_types[i];
        json_t *machine = json_pack("{s:s,s:s,s:i,s:b,s:b,s:b,s:s,s:s}", "name", type->name,
                                    "alias", type->alias, "cpu-max", VCPU_MAX, "hotpluggable-cpus",
                                    1, "numa-mem-supported", 0, "deprecated", 0, "default-cpu-type",
                                    "host-x86_64-cpu", "default-ram-id", "pc.ram");
        if (i == 0)
            json_object_set_new(machine, "is-default", json_true());
        json_array_append_new(list, machine);
    }
    qmp_call_return(call, list);
}

static void on_missing(void *opaque, const char *feature)
{
    json_array_append_new(opaque, json_string(feature));
}

/* Vendor, family and caches are the host's in every model: none is the same on another host. */
static json_t *describe_model(const char *name, struct accel_cpuid *offered)
{
    struct cpu_model model;
    json_t *missing = json_array();
    CHECK(cpu_model_find(name, &model));
    cpu_model_missing(&model, offered, on_missing, missing);
    return json_pack("{s:s,s:o,s:o,s:b,s:b,s:b}", "name", name, "typename",
                     json_sprintf("%s-x86_64-cpu", name), "unavailable-features", missing, "static",
                     0, "migration-safe", 0, "deprecated", 0);
}

void qmp_query_cpu_definitions(struct qmp_call *call)
{
    struct accel_cpuid offered;
    json_t *list = json_array();
    int result = machine_offered_cpuid(call->control->machine, &offered);
    for (unsigned i = 0; !result && cpu_model_name(i); i++)
        json_array_append_new(list, describe_model(cpu_model_name(i), &offered));
    if (!result) {
        qmp_call_return(call, list);
        return;
    }
    json_decref(list);
    qmp_call_fail(call, QMP_GENERIC, "cannot ask %s for its CPU model: %s",
                  machine_accel_name(call->control->machine), strerror(-result));
}

/* A key of several backends is one parameter. */
static bool is_listed(const json_t *parameters, const char *key)
{
    size_t i;
    const json_t *one;
    json_array_foreach(parameters, i, one)
    {
        if (strcmp(json_string_value(json_object_get(one, "name")), key) == 0)
            return true;
    }
    return false;
}

static json_t *describe_group(const struct options_group *group)
{
    json_t *parameters = json_array();
    for (unsigned i = 0; group->tables && group->tables[i]; i++)
        for (const struct keyval_known *known = group->tables[i]; known->key; known++)
            if (!is_listed(parameters, known->key))
                json_array_append_new(parameters,
                                      json_pack("{s:s,s:s}", "name", known->key, "type",
                                                options_group_type(group->name, known->key)));
    return json_pack("{s:s,s:o}", "option", group->name, "parameters", parameters);
}

void qmp_query_command_line_options(struct qmp_call *call)
{
    const char *name = json_string_value(json_object_get(call->arguments, "option"));
    json_t *list = json_array();
    for (unsigned i = 0; i < OPTIONS_GROUPS; i++)
        if (!name || strcmp(name, options_groups[i].name) == 0)
            json_array_append_new(list, describe_group(&options_groups[i]));
    if (json_array_size(list)) {
        qmp_call_return(call, list);
        return;
    }
    json_decref(list);
    qmp_call_fail(call, QMP_GENERIC, "invalid option name: %s", name);
}
