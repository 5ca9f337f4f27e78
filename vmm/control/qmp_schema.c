/* SPDX-License-Identifier: MIT */
/*
 * qmp_schema: query-qmp-schema, as QAPI's introspection has it (QEMU's qapi/introspect.json): made
 * from the table that checks the arguments, and the types of answers that this table names.
 */
#include "vmm/control/commands.h"

#include <string.h>

#include "vmm/control/qmp_types.h"

#define ANY   "any"
#define EMPTY "0"

struct event {
    const char *name;
    struct qmp_argument members[8];
};

static const struct event events[] = {
    {"ACPI_DEVICE_OST", {{"info", QMP_OBJECT, false}}},
    {"BALLOON_CHANGE", {{"actual", QMP_INT, false}}},
    {"BLOCK_EXPORT_DELETED", {{"id", QMP_STRING, false}}},
    {"BLOCK_IO_ERROR",
     {{"device", QMP_STRING, false},
      {"node-name", QMP_STRING, true},
      {"operation", QMP_STRING, false},
      {"action", QMP_STRING, false},
      {"nospace", QMP_BOOL, true},
      {"reason", QMP_STRING, false}}},
    {"BLOCK_JOB_CANCELLED",
     {{"device", QMP_STRING, false},
      {"len", QMP_INT, false},
      {"offset", QMP_INT, false},
      {"speed", QMP_INT, false},
      {"type", QMP_STRING, false}}},
    {"BLOCK_JOB_COMPLETED",
     {{"device", QMP_STRING, false},
      {"len", QMP_INT, false},
      {"offset", QMP_INT, false},
      {"speed", QMP_INT, false},
      {"type", QMP_STRING, false},
      {"error", QMP_STRING, true}}},
    {"BLOCK_JOB_ERROR",
     {{"device", QMP_STRING, false},
      {"operation", QMP_STRING, false},
      {"action", QMP_STRING, false}}},
    {"BLOCK_JOB_PENDING", {{"type", QMP_STRING, false}, {"id", QMP_STRING, false}}},
    {"BLOCK_JOB_READY",
     {{"device", QMP_STRING, false},
      {"len", QMP_INT, false},
      {"offset", QMP_INT, false},
      {"speed", QMP_INT, false},
      {"type", QMP_STRING, false}}},
    {"DEVICE_DELETED", {{"device", QMP_STRING, true}, {"path", QMP_STRING, false}}},
    {"DEVICE_UNPLUG_GUEST_ERROR", {{"device", QMP_STRING, true}, {"path", QMP_STRING, false}}},
    {"GUEST_PANICKED", {{"action", QMP_STRING, false}}},
    {"JOB_STATUS_CHANGE", {{"status", QMP_STRING, false}, {"id", QMP_STRING, false}}},
    {"MEMORY_DEVICE_SIZE_CHANGE",
     {{"id", QMP_STRING, true}, {"size", QMP_INT, false}, {"qom-path", QMP_STRING, false}}},
    {"NIC_IP_CHANGED",
     {{"id", QMP_STRING, false}, {"nic", QMP_STRING, true}, {"addresses", QMP_ARRAY, false}}},
    {"NIC_RX_FILTER_CHANGED", {{"name", QMP_STRING, true}, {"path", QMP_STRING, false}}},
    {"POWERDOWN", {{0}}},
    {"RESET",
     {{"guest", QMP_BOOL, false}, {"reason", QMP_STRING, false}, {"detail", QMP_STRING, true}}},
    {"RESUME", {{0}}},
    {"SHUTDOWN",
     {{"guest", QMP_BOOL, false}, {"reason", QMP_STRING, false}, {"detail", QMP_STRING, true}}},
    {"STOP", {{0}}},
    {"VSERPORT_CHANGE", {{"id", QMP_STRING, false}, {"open", QMP_BOOL, false}}},
};

static const char *type_name(enum qmp_type type)
{
    static const char *const names[] = {
        [QMP_STRING] = "str", [QMP_INT] = "int",         [QMP_BOOL] = "bool",
        [QMP_OBJECT] = ANY,   [QMP_ARRAY] = "[" ANY "]", [QMP_ANY] = ANY};
    return names[type];
}

static const char *member_type(const char *owner, const struct qmp_argument *member)
{
    const char *type = qmp_argument_type(owner, member->name);
    return type ? type : type_name(member->type);
}

static json_t *describe_members(const char *owner, const struct qmp_argument *members)
{
    json_t *list = json_array();
    for (const struct qmp_argument *member = members; member->name; member++) {
        if (strcmp(member->name, "*") == 0)
            continue;
        json_t *entry =
            json_pack("{s:s,s:s}", "name", member->name, "type", member_type(owner, member));
        if (member->is_optional)
            json_object_set_new(entry, "default", json_null());
        json_array_append_new(list, entry);
    }
    return list;
}

/* Adds the object type of these members if there are any; its name goes to `name`. */
static void add_object(json_t *list, const char *owner, const struct qmp_argument *members,
                       char name[static 64])
{
    if (!members->name) {
        snprintf(name, 64, EMPTY);
        return;
    }
    snprintf(name, 64, "%s-arg", owner);
    json_array_append_new(list, json_pack("{s:s,s:s,s:o}", "name", name, "meta-type", "object",
                                          "members", describe_members(owner, members)));
}

static void add_commands(json_t *list)
{
    unsigned count;
    const struct qmp_command *table = commands_table(&count);
    for (unsigned i = 0; i < count; i++) {
        char arguments[64];
        if (qmp_arguments_type(table[i].name))
            snprintf(arguments, sizeof(arguments), "%s", qmp_arguments_type(table[i].name));
        else
            add_object(list, table[i].name, table[i].arguments, arguments);
        json_array_append_new(list,
                              json_pack("{s:s,s:s,s:s,s:s}", "name", table[i].name, "meta-type",
                                        "command", "arg-type", arguments, "ret-type",
                                        table[i].returns ? table[i].returns : EMPTY));
    }
}

static void add_events(json_t *list)
{
    for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
        char arguments[64];
        add_object(list, events[i].name, events[i].members, arguments);
        json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "name", events[i].name, "meta-type",
                                              "event", "arg-type", arguments));
    }
}

static void add_builtins(json_t *list)
{
    static const char *const builtins[][2] = {
        {"str", "string"}, {"int", "int"}, {"bool", "boolean"}, {"null", "null"}, {ANY, "value"}};
    for (size_t i = 0; i < ARRAY_SIZE(builtins); i++)
        json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "name", builtins[i][0], "meta-type",
                                              "builtin", "json-type", builtins[i][1]));
    json_array_append_new(
        list, json_pack("{s:s,s:s,s:[]}", "name", EMPTY, "meta-type", "object", "members"));
}

/* --- types that have a name --- */

static void add_enum(json_t *list, const struct qmp_enum_type *type)
{
    json_t *members = json_array(), *values = json_array();
    const char *value;
    for (unsigned i = 0; (value = type->value(i)); i++) {
        json_array_append_new(members, json_pack("{s:s}", "name", value));
        json_array_append_new(values, json_string(value));
    }
    json_array_append_new(list, json_pack("{s:s,s:s,s:o,s:o}", "name", type->name, "meta-type",
                                          "enum", "members", members, "values", values));
}

static json_t *describe_answer(const struct qmp_object_type *type)
{
    json_t *list = json_array();
    for (const struct qmp_member *member = type->members; member->name; member++) {
        json_t *entry = json_pack("{s:s,s:s}", "name", member->name, "type", member->type);
        if (member->is_optional)
            json_object_set_new(entry, "default", json_null());
        json_array_append_new(list, entry);
    }
    return list;
}

static json_t *describe_variants(const struct qmp_variant *variant)
{
    json_t *list = json_array();
    for (; variant->value; variant++)
        json_array_append_new(
            list, json_pack("{s:s,s:s}", "case", variant->value, "type", variant->type));
    return list;
}

static void add_answer(json_t *list, const struct qmp_object_type *type)
{
    json_t *entry = json_pack("{s:s,s:s,s:o}", "name", type->name, "meta-type", "object", "members",
                              describe_answer(type));
    if (type->tag) {
        json_object_set_new(entry, "tag", json_string(type->tag));
        json_object_set_new(entry, "variants", describe_variants(type->variants));
    }
    json_array_append_new(list, entry);
}

static void add_alternate(json_t *list, const struct qmp_alternate_type *type)
{
    json_t *members = json_array();
    for (unsigned i = 0; i < ARRAY_SIZE(type->types) && type->types[i]; i++)
        json_array_append_new(members, json_pack("{s:s}", "type", type->types[i]));
    json_array_append_new(list, json_pack("{s:s,s:s,s:o}", "name", type->name, "meta-type",
                                          "alternate", "members", members));
}

/* The type of a list, once, however often it is named. */
static void add_list(json_t *list, json_t *known, const char *name)
{
    if (!name || *name != '[' || json_object_get(known, name))
        return;
    json_object_set_new(known, name, json_true());
    json_array_append_new(list, json_pack("{s:s,s:s,s:s#}", "name", name, "meta-type", "array",
                                          "element-type", name + 1, (int)strlen(name) - 2));
}

static void add_lists_of(json_t *list, json_t *known, const struct qmp_object_type *types,
                         size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (const struct qmp_member *member = types[i].members; member->name; member++)
            add_list(list, known, member->type);
}

static void add_lists(json_t *list)
{
    unsigned count;
    const struct qmp_command *table = commands_table(&count);
    json_t *known = json_object();
    add_list(list, known, type_name(QMP_ARRAY));
    for (unsigned i = 0; i < count; i++) {
        add_list(list, known, table[i].returns);
        for (const struct qmp_argument *member = table[i].arguments; member->name; member++)
            add_list(list, known, qmp_argument_type(table[i].name, member->name));
    }
    add_lists_of(list, known, qmp_object_types, qmp_object_type_count);
    add_lists_of(list, known, qmp_argument_objects, qmp_argument_object_count);
    json_decref(known);
}

void qmp_query_qmp_schema(struct qmp_call *call)
{
    json_t *list = json_array();
    add_commands(list);
    add_events(list);
    add_builtins(list);
    for (size_t i = 0; i < qmp_enum_type_count; i++)
        add_enum(list, &qmp_enum_types[i]);
    for (size_t i = 0; i < qmp_object_type_count; i++)
        add_answer(list, &qmp_object_types[i]);
    for (size_t i = 0; i < qmp_argument_object_count; i++)
        add_answer(list, &qmp_argument_objects[i]);
    for (size_t i = 0; i < qmp_alternate_type_count; i++)
        add_alternate(list, &qmp_alternate_types[i]);
    add_lists(list);
    qmp_call_return(call, list);
}
