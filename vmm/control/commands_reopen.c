/* SPDX-License-Identifier: MIT */
/* commands_reopen: blockdev-reopen: a list of BlockdevOptions, each checked as QEMU's schema does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control/commands.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/options/keyval_json.h"

#define REOPEN_MAX 64

#define FOR_ALL                                                                                    \
    {"driver", QMP_STRING, false}, {"node-name", QMP_STRING, true}, {"read-only", QMP_BOOL, true}, \
        {"auto-read-only", QMP_BOOL, true}, {"force-share", QMP_BOOL, true},                       \
        {"cache", QMP_OBJECT, true}, {"discard", QMP_STRING, true},                                \
    {                                                                                              \
        "detect-zeroes", QMP_STRING, true                                                          \
    }

/* What the drivers take; the words for others than qcow2 and files are those of raw. */
static const struct qmp_command qcow2_options = {
    .arguments = {FOR_ALL,
                  {"file", QMP_ANY, false},
                  {"backing", QMP_ANY, true},
                  {"data-file", QMP_ANY, true},
                  {"lazy-refcounts", QMP_BOOL, true},
                  {"pass-discard-request", QMP_BOOL, true},
                  {"pass-discard-snapshot", QMP_BOOL, true},
                  {"pass-discard-other", QMP_BOOL, true},
                  {"overlap-check", QMP_ANY, true},
                  {"cache-size", QMP_INT, true},
                  {"l2-cache-size", QMP_INT, true},
                  {"l2-cache-entry-size", QMP_INT, true},
                  {"refcount-cache-size", QMP_INT, true},
                  {"cache-clean-interval", QMP_INT, true}}};
static const struct qmp_command image_options = {.arguments = {FOR_ALL, {"file", QMP_ANY, false}}};
static const struct qmp_command file_options = {.arguments = {FOR_ALL,
                                                              {"filename", QMP_STRING, false},
                                                              {"aio", QMP_STRING, true},
                                                              {"locking", QMP_STRING, true}}};
static const struct qmp_command cache_options = {
    .arguments = {{"direct", QMP_BOOL, true}, {"no-flush", QMP_BOOL, true}}};

static const struct qmp_command *options_of(const char *driver)
{
    if (keyval_name_index("file|host_device", driver) >= 0)
        return &file_options;
    if (keyval_name_index("raw|vdi|vmdk|vpc|vhdx", driver) >= 0)
        return &image_options;
    return strcmp(driver, "qcow2") == 0 ? &qcow2_options : NULL;
}

static char *check_value(const json_t *entry, const char *key, const char *values)
{
    const char *value = json_string_value(json_object_get(entry, key));
    char *text = NULL;
    if (value && keyval_name_index(values, value) < 0)
        CHECK(asprintf(&text, "Parameter '%s' does not accept value '%.64s'", key, value) > 0);
    return text;
}

/* NULL if it is fine, else a sentence, which the caller frees. */
static char *check_entry(json_t *entry, size_t index)
{
    static const struct qmp_command driver_only = {
        .arguments = {{"driver", QMP_STRING, false}, QMP_ANY_OTHERS}};
    char where[48], *text = commands_check_entry(&driver_only, entry, "options", index);
    if (text)
        return text;
    const char *driver = json_string_value(json_object_get(entry, "driver"));
    const struct qmp_command *known = options_of(driver);
    if (!known) {
        CHECK(asprintf(&text, "Parameter 'driver' does not accept value '%.64s'", driver) > 0);
        return text;
    }
    text = commands_check_entry(known, entry, "options", index);
    snprintf(where, sizeof(where), "options[%zu].cache.", index);
    if (!text && json_object_get(entry, "cache"))
        text = commands_check(&cache_options, json_object_get(entry, "cache"), where);
    if (!text)
        text = check_value(entry, "discard", "ignore|unmap");
    return text ? text : check_value(entry, "detect-zeroes", "off|on|unmap");
}

static char *check_entries(const json_t *entries)
{
    size_t index;
    json_t *entry;
    char *text = NULL;
    json_array_foreach(entries, index, entry)
    {
        text = check_entry(entry, index);
        if (text)
            break;
    }
    if (!text && json_array_size(entries) > REOPEN_MAX)
        CHECK(asprintf(&text, "more than %d nodes: reopen them in several steps", REOPEN_MAX) > 0);
    return text;
}

void qmp_blockdev_reopen(struct qmp_call *call)
{
    const json_t *entries = json_object_get(call->arguments, "options");
    unsigned count = (unsigned)json_array_size(entries), read = 0;
    struct error err = {0};
    char *text = check_entries(entries);
    if (text) {
        qmp_call_fail(call, QMP_GENERIC, "%s", text);
        free(text);
        return;
    }
    struct keyval *lists = calloc(count + 1, sizeof(*lists));
    CHECK(lists);
    int result = 0;
    while (read < count && !result) {
        result = keyval_from_json(&lists[read], call->command->name, json_array_get(entries, read),
                                  &err);
        read += !result;
    }
    if (!result)
        result = machine_blockdev_reopen(call->control->machine, lists, count, qmp_call_done, call,
                                         &err);
    for (unsigned i = 0; i < read; i++)
        keyval_fini(&lists[i]);
    free(lists);
    if (result)
        qmp_call_done(call, result, &err);
}
