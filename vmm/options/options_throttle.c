/* SPDX-License-Identifier: MIT */
/* options_throttle: limits as -drive and -object say them, and -object throttle-group. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/throttle.h"
#include "vmm/options/options_private.h"

int options_read_limits(const struct keyval *list, const char *prefix,
                        struct throttle_limits *limits, struct error *err)
{
    char key[64];
    snprintf(key, sizeof(key), "%siops-size", prefix);
    int result = keyval_size(list, key, 1, &limits->operation_bytes, err);
    for (unsigned i = 0; i < THROTTLE_KINDS && !result; i++) {
        snprintf(key, sizeof(key), "%s%s", prefix, throttle_names[i]);
        result = keyval_size(list, key, 1, &limits->bucket[i].average, err);
        snprintf(key, sizeof(key), "%s%s-max", prefix, throttle_names[i]);
        if (!result)
            result = keyval_size(list, key, 1, &limits->bucket[i].burst, err);
        snprintf(key, sizeof(key), "%s%s-max-length", prefix, throttle_names[i]);
        if (!result)
            result = keyval_uint(list, key, 1, UINT32_MAX, &limits->bucket[i].burst_s, err);
    }
    return result;
}

static int set_one(const struct keyval_pair *pair, struct throttle_limits *limits,
                   struct error *err)
{
    static const char folder[] = "limits.";
    const char *key = pair->key, *text = pair->value ? pair->value : "";
    bool is_own = strncmp(key, "x-", 2) == 0;
    bool is_member = strncmp(key, folder, strlen(folder)) == 0;
    const char *name = is_own ? key + 2 : is_member ? key + strlen(folder) : "";
    uint64_t *field = throttle_limits_field(limits, name);
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (!field)
        return error_set(err, EINVAL, "Parameter '%.64s' is unexpected", key);
    if (errno || *end || end == text)
        return error_set(err, EINVAL, "Invalid parameter type for '%s', expected: integer", key);
    if (number < 0 && is_own)
        return error_set(err, EINVAL, "Property values cannot be negative");
    return throttle_limits_put(field, is_own ? key : name, number, err);
}

/* Properties by themselves, and members of ThrottleLimits. */
static int read_group(const struct keyval *list, struct throttle_limits *limits, struct error *err)
{
    int result = 0;
    *limits = throttle_no_limits;
    for (unsigned i = 0; i < list->count && !result; i++)
        if (strcmp(list->pairs[i].key, "qom-type") != 0 && strcmp(list->pairs[i].key, "id") != 0)
            result = set_one(&list->pairs[i], limits, err);
    return result ? result : throttle_check(limits, err);
}

int options_throttle_group_load(struct config_guest *guest, struct keyval *list, struct error *err)
{
    struct throttle_limits limits;
    struct config_throttle_group *group = guest->throttle_groups;
    if (keyval_get(list, "limits"))
        return error_set(err, EINVAL, "Invalid parameter type for 'limits', expected: object");
    int result = read_group(list, &limits, err);
    if (result)
        return result;
    while (group < guest->throttle_groups + CONFIG_THROTTLE_MAX && group->id)
        group++;
    if (group == guest->throttle_groups + CONFIG_THROTTLE_MAX)
        return error_set(err, ENOSPC, "%s: there are %u such objects: remove one first",
                         list->option, CONFIG_THROTTLE_MAX);
    group->id = text_copy(keyval_get(list, "id"));
    group->limits = malloc(sizeof(limits));
    CHECK(group->limits);
    *group->limits = limits;
    return 0;
}

void options_throttle_group_fini(struct config_throttle_group *group)
{
    free(group->id);
    free(group->limits);
    *group = (struct config_throttle_group){0};
}
