/* SPDX-License-Identifier: MIT */
/* commands_stats: query-stats-schemas: which counters query-stats has, told from what it tells. */
#include <string.h>

#include "vmm/control/commands.h"

struct schema_walk {
    json_t *vm, *vcpu; /* arrays of the targets' counters */
};

static bool has_counter(const json_t *list, const char *name)
{
    const json_t *entry;
    size_t index;
    json_array_foreach(list, index,
                       entry) if (strcmp(json_string_value(json_object_get(entry, "name")), name) ==
                                  0) return true;
    return false;
}

/* Times are told in nanoseconds. */
static void on_stat(void *opaque, const char *group, const char *name, uint64_t value)
{
    const struct schema_walk *walk = opaque;
    json_t *list = strncmp(group, "vcpu", 4) == 0 ? walk->vcpu : walk->vm;
    const char *dash = strrchr(name, '-');
    (void)value;
    if (has_counter(list, name))
        return;
    json_t *entry = json_pack("{s:s,s:s,s:i}", "name", name, "type", "cumulative", "exponent", 0);
    if (dash && strcmp(dash, "-ns") == 0) {
        json_object_set_new(entry, "unit", json_string("seconds"));
        json_object_set_new(entry, "base", json_integer(10));
        json_object_set_new(entry, "exponent", json_integer(-9));
    }
    json_array_append_new(list, entry);
}

void qmp_query_stats_schemas(struct qmp_call *call)
{
    const char *provider = json_string_value(json_object_get(call->arguments, "provider"));
    const struct schema_walk walk = {json_array(), json_array()};
    machine_for_each_stat(call->control->machine, on_stat, (void *)&walk);
    json_t *schemas =
        json_pack("[{s:s,s:s,s:O},{s:s,s:s,s:O}]", "provider", "evisor", "target", "vm", "stats",
                  walk.vm, "provider", "evisor", "target", "vcpu", "stats", walk.vcpu);
    json_decref(walk.vm);
    json_decref(walk.vcpu);
    if (!provider || strcmp(provider, "evisor") == 0) {
        qmp_call_return(call, schemas);
        return;
    }
    json_decref(schemas);
    qmp_call_fail(call, QMP_GENERIC, "Parameter 'provider' does not accept value '%.64s'",
                  provider);
}
