/* SPDX-License-Identifier: MIT */
/*
 * qom_throttle: the properties of a throttle-group: all limits at once, which may be changed while
 * disks use them, and each by itself, to look at.
 */
#include <errno.h>
#include <string.h>

#include "vmm/control/qom.h"
#include "vmm/machine_throttle.h"

static const struct throttle_limits *limits_of(struct machine *machine,
                                               const struct qom_object *object)
{
    return machine_throttle_limits(machine, object->index);
}

static void show(json_t *limits, const char *name, const char *suffix, uint64_t value)
{
    char key[64];
    snprintf(key, sizeof(key), "%s%s", name, suffix);
    json_object_set_new(limits, key, json_integer((json_int_t)value));
}

static json_t *read_limits(struct machine *machine, const struct qom_object *object)
{
    const struct throttle_limits *limits = limits_of(machine, object);
    json_t *value = json_object();
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        show(value, throttle_names[i], "", limits->bucket[i].average);
        show(value, throttle_names[i], "-max", limits->bucket[i].burst);
        show(value, throttle_names[i], "-max-length", limits->bucket[i].burst_s);
    }
    show(value, "iops-size", "", limits->operation_bytes);
    return value;
}

static int set_one(struct throttle_limits *limits, const char *key, const json_t *value,
                   struct error *err)
{
    uint64_t *field = throttle_limits_field(limits, key);
    if (!field)
        return error_set(err, EINVAL, "Parameter 'limits.%.64s' is unexpected", key);
    if (!json_is_integer(value))
        return error_set(err, EINVAL, "Invalid parameter type for 'limits.%s', expected: integer",
                         key);
    return throttle_limits_put(field, key, json_integer_value(value), err);
}

/* What is not said stays. */
static int write_limits(struct machine *machine, const struct qom_object *object, json_t *value,
                        struct error *err)
{
    struct throttle_limits limits = *limits_of(machine, object);
    const char *key;
    const json_t *one;
    int result = 0;
    if (!json_is_object(value))
        return error_set(err, EINVAL, "Invalid parameter type for 'limits', expected: object");
    json_object_foreach(value, key, one)
    {
        if (!result)
            result = set_one(&limits, key, one, err);
    }
    if (!result)
        result = throttle_check(&limits, err);
    if (!result)
        machine_set_throttle_limits(machine, object->index, &limits);
    return result;
}

static int refuse_write(struct machine *machine, const struct qom_object *object, json_t *value,
                        struct error *err)
{
    (void)machine, (void)object, (void)value;
    return error_set(err, EPERM, "Property cannot be set after initialization");
}

static json_t *read_operation_bytes(struct machine *machine, const struct qom_object *object)
{
    return json_integer((json_int_t)limits_of(machine, object)->operation_bytes);
}

#define READER(name, kind, field)                                                                  \
    static json_t *name(struct machine *machine, const struct qom_object *object)                  \
    {                                                                                              \
        return json_integer((json_int_t)limits_of(machine, object)->bucket[kind].field);           \
    }
#define READERS(name, kind)                                                                        \
    READER(read_##name, kind, average)                                                             \
    READER(read_##name##_burst, kind, burst)                                                       \
    READER(read_##name##_length, kind, burst_s)

READERS(bps_total, THROTTLE_BPS_TOTAL)
READERS(bps_read, THROTTLE_BPS_READ)
READERS(bps_write, THROTTLE_BPS_WRITE)
READERS(iops_total, THROTTLE_OPS_TOTAL)
READERS(iops_read, THROTTLE_OPS_READ)
READERS(iops_write, THROTTLE_OPS_WRITE)

#define ENTRY(name, reader)                                                                        \
    {                                                                                              \
        name, "int", NULL, reader, refuse_write, false                                             \
    }
#define ENTRIES(name, reader)                                                                      \
    ENTRY("x-" name, read_##reader), ENTRY("x-" name "-max", read_##reader##_burst),               \
        ENTRY("x-" name "-max-length", read_##reader##_length)

const struct qom_property qom_throttle_properties[] = {
    {"limits", "ThrottleLimits", NULL, read_limits, write_limits, false},
    ENTRIES("bps-read", bps_read),
    ENTRIES("bps-total", bps_total),
    ENTRIES("bps-write", bps_write),
    ENTRIES("iops-read", iops_read),
    ENTRY("x-iops-size", read_operation_bytes),
    ENTRIES("iops-total", iops_total),
    ENTRIES("iops-write", iops_write),
    {0}};
