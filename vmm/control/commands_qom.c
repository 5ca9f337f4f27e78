/* SPDX-License-Identifier: MIT */
/* commands_qom: the QMP commands that look at the machine as a tree of objects. */
#include <string.h>

#include "vmm/control/commands.h"
#include "vmm/control/qom.h"

static const char *argument(const struct qmp_call *call, const char *name)
{
    return json_string_value(json_object_get(call->arguments, name));
}

/* Fails the call if there is no such object. */
static bool find_object(struct qmp_call *call, struct qom_object *object)
{
    const char *path = argument(call, "path");
    bool is_ambiguous;
    if (qom_find(call->control->machine, path, object, &is_ambiguous))
        return true;
    if (is_ambiguous)
        qmp_call_fail(call, QMP_GENERIC, "Path '%.128s' does not uniquely identify an object",
                      path);
    else
        qmp_call_fail(call, "DeviceNotFound", "Device '%.128s' not found", path);
    return false;
}

static json_t *describe(const struct qom_property *property)
{
    return json_pack("{s:s,s:s,s:s*}", "name", property->name, "type", property->kind,
                     "description", property->about);
}

struct listing {
    json_t *list;
    const char *parent;
};

/* Adds the object if it stands directly below the parent. */
static bool add_child(void *opaque, const struct qom_object *object)
{
    struct listing *listing = opaque;
    size_t length = strlen(listing->parent);
    const char *rest = object->path + length;
    if (strcmp(listing->parent, "/") == 0)
        rest = object->path;
    else if (strncmp(object->path, listing->parent, length) != 0)
        return true;
    if (*rest != '/' || !rest[1] || strchr(rest + 1, '/'))
        return true;
    char type[64];
    snprintf(type, sizeof(type), "child<%s>", object->type->name);
    json_array_append_new(listing->list, json_pack("{s:s,s:s}", "name", rest + 1, "type", type));
    return true;
}

void qmp_qom_list(struct qmp_call *call)
{
    struct qom_object object;
    if (!find_object(call, &object))
        return;
    struct listing listing = {json_array(), object.path};
    json_array_append_new(listing.list, json_pack("{s:s,s:s}", "name", "type", "type", "string"));
    for (const struct qom_property *property = object.type->properties; property->name; property++)
        json_array_append_new(
            listing.list, json_pack("{s:s,s:s}", "name", property->name, "type", property->kind));
    qom_walk(call->control->machine, add_child, &listing);
    qmp_call_return(call, listing.list);
}

static const struct qom_property *find_property(struct qmp_call *call,
                                                const struct qom_object *object)
{
    const char *name = argument(call, "property");
    for (const struct qom_property *property = object->type->properties; property->name; property++)
        if (strcmp(property->name, name) == 0)
            return property;
    qmp_call_fail(call, QMP_GENERIC, "Property '%s.%.64s' not found", object->type->name, name);
    return NULL;
}

void qmp_qom_get(struct qmp_call *call)
{
    struct qom_object object;
    if (!find_object(call, &object))
        return;
    if (strcmp(argument(call, "property"), "type") == 0) {
        qmp_call_return(call, json_string(object.type->name));
        return;
    }
    const struct qom_property *property = find_property(call, &object);
    if (property)
        qmp_call_return(call, property->read(call->control->machine, &object));
}

/* All properties that can be set are numbers, but those of throttle-group, which look themselves.
 */
static void set_property(struct qmp_call *call, const struct qom_object *object,
                         const struct qom_property *property)
{
    json_t *value = json_object_get(call->arguments, "value");
    struct error err = {0};
    if (!json_is_integer(value) && object->type->properties != qom_throttle_properties) {
        qmp_call_fail(call, QMP_GENERIC, "Invalid parameter type for '%s', expected: integer",
                      property->name);
        return;
    }
    int result = property->write(call->control->machine, object, value, &err);
    qmp_call_done(call, result, &err);
}

void qmp_qom_set(struct qmp_call *call)
{
    struct qom_object object;
    if (!find_object(call, &object))
        return;
    const char *name = argument(call, "property");
    if (strcmp(name, "type") == 0) {
        qmp_call_fail(call, QMP_GENERIC, "Property '%s.type' is not writable", object.type->name);
        return;
    }
    const struct qom_property *property = find_property(call, &object);
    if (!property)
        return;
    if (property->write)
        set_property(call, &object, property);
    else if (property->is_fixed && object.type->is_device)
        qmp_call_fail(call, QMP_GENERIC,
                      "Attempt to set property '%s' on device '%s' (type '%s') after it was "
                      "realized",
                      name, strrchr(object.path, '/') + 1, object.type->name);
    else
        qmp_call_fail(call, QMP_GENERIC, "Property '%s.%s' is not writable", object.type->name,
                      name);
}

void qmp_qom_list_types(struct qmp_call *call)
{
    const char *implements = argument(call, "implements");
    json_t *list = json_array();
    for (unsigned i = 0; i < qom_type_count; i++) {
        const struct qom_type *type = &qom_types[i];
        bool is_wanted = !implements || strcmp(implements, type->name) == 0 ||
                         strcmp(implements, type->parent) == 0 ||
                         strcmp(implements, "object") == 0 ||
                         (type->is_device && strcmp(implements, "device") == 0);
        if (is_wanted)
            json_array_append_new(
                list, json_pack("{s:s,s:s}", "name", type->name, "parent", type->parent));
    }
    qmp_call_return(call, list);
}

/* What an object of the type has, and for devices what -device takes. */
static void list_properties(struct qmp_call *call, bool wants_device)
{
    const char *name = argument(call, "typename");
    const struct qom_type *type = qom_find_type(name);
    if (!type) {
        qmp_call_fail(call, "DeviceNotFound",
                      wants_device ? "Device '%.64s' not found" : "Class '%.64s' not found", name);
        return;
    }
    if (wants_device && !type->is_device) {
        qmp_call_fail(call, QMP_GENERIC, "Parameter 'typename' expects a device");
        return;
    }
    json_t *list = json_array();
    if (!wants_device)
        json_array_append_new(list, json_pack("{s:s,s:s}", "name", "type", "type", "string"));
    for (const struct qom_property *property = type->properties; property->name; property++)
        if (!wants_device || strcmp(property->name, "realized") != 0)
            json_array_append_new(list, describe(property));
    qmp_call_return(call, list);
}

void qmp_device_list_properties(struct qmp_call *call)
{
    list_properties(call, true);
}

void qmp_qom_list_properties(struct qmp_call *call)
{
    list_properties(call, false);
}
