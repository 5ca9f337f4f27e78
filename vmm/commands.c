/* SPDX-License-Identifier: MIT */
/* commands: the table of QMP commands, the check of arguments, and how a call ends. */
#include "vmm/commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"

static void query_commands(struct qmp_call *call);

/* For clients that look for it in query-commands; qmp.c answers it, before and after. */
static void qmp_capabilities(struct qmp_call *call)
{
    qmp_call_return(call, NULL);
}

static const struct qmp_command table[] = {
    {"block_resize",
     "Makes a disk larger or smaller; the guest sees it at once.",
     qmp_block_resize,
     {{"device", QMP_STRING, true}, {"node-name", QMP_STRING, true}, {"size", QMP_INT, false}}},
    {"cont", "Starts the guest, or goes on with it.", qmp_cont, {{0}}},
    {"human-monitor-command",
     "Runs a command of the human monitor and returns its text.",
     qmp_human_monitor_command,
     {{"command-line", QMP_STRING, false}, {"cpu-index", QMP_INT, true}}},
    {"qmp_capabilities",
     "Ends the negotiation; the first command of every client.",
     qmp_capabilities,
     {{"enable", QMP_ARRAY, true}}},
    {"query-balloon", "Says that there is no balloon.", qmp_query_balloon, {{0}}},
    {"query-block", "The disks and their images.", qmp_query_block, {{0}}},
    {"query-blockstats",
     "Counters of the disks.",
     qmp_query_blockstats,
     {{"query-nodes", QMP_BOOL, true}}},
    {"query-chardev", "Terminals and sockets.", qmp_query_chardev, {{0}}},
    {"query-commands", "The names of these commands.", query_commands, {{0}}},
    {"query-cpus-fast", "The CPUs and their host threads.", qmp_query_cpus_fast, {{0}}},
    {"query-iothreads", "An empty list: there are none.", qmp_query_iothreads, {{0}}},
    {"query-kvm", "Whether KVM runs the guest.", qmp_query_kvm, {{0}}},
    {"query-name", "The machine's name.", qmp_query_name, {{0}}},
    {"query-named-block-nodes",
     "The images, each under its drive's id.",
     qmp_query_named_block_nodes,
     {{"flat", QMP_BOOL, true}}},
    {"query-nic-addresses",
     "The IP addresses that the guest uses on each NIC, as seen in its frames.",
     qmp_query_nic_addresses,
     {{0}}},
    {"query-qmp-schema",
     "All commands and events with the types of their arguments.",
     qmp_query_qmp_schema,
     {{0}}},
    {"query-stats",
     "evisor's own counters: exits by kind, queues, loop.",
     qmp_query_stats,
     {{"target", QMP_STRING, true}, {"providers", QMP_ARRAY, true}}},
    {"query-status", "Whether the guest runs.", qmp_query_status, {{0}}},
    {"query-target", "The guest's architecture.", qmp_query_target, {{0}}},
    {"query-uuid", "The machine's UUID.", qmp_query_uuid, {{0}}},
    {"query-version",
     "The level of QEMU's protocol, and evisor's version.",
     qmp_query_version,
     {{0}}},
    {"quit", "Ends the machine at once.", qmp_quit, {{0}}},
    {"set_link",
     "Plugs the cable of a NIC in or out.",
     qmp_set_link,
     {{"name", QMP_STRING, false}, {"up", QMP_BOOL, false}}},
    {"stop", "Stops the guest.", qmp_stop, {{0}}},
    {"system_powerdown", "Presses the power button.", qmp_system_powerdown, {{0}}},
    {"system_reset", "Resets the machine.", qmp_system_reset, {{0}}},
};

const struct qmp_command *commands_table(unsigned *count)
{
    *count = ARRAY_SIZE(table);
    return table;
}

const struct qmp_command *commands_find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

const char *commands_suggest(const char *name)
{
    struct suggest suggest;
    suggest_init(&suggest, name);
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        suggest_offer(&suggest, table[i].name);
    return suggest.best;
}

static const struct {
    const char *name;
    json_type type;
} types[] = {
    [QMP_STRING] = {"string", JSON_STRING}, [QMP_INT] = {"integer", JSON_INTEGER},
    [QMP_BOOL] = {"boolean", JSON_TRUE},    [QMP_OBJECT] = {"object", JSON_OBJECT},
    [QMP_ARRAY] = {"array", JSON_ARRAY},
};

static bool has_type(const json_t *value, enum qmp_type type)
{
    return type == QMP_BOOL ? json_is_boolean(value) : json_typeof(value) == types[type].type;
}

static const struct qmp_argument *find_argument(const struct qmp_command *command, const char *name)
{
    for (const struct qmp_argument *argument = command->arguments; argument->name; argument++)
        if (strcmp(argument->name, name) == 0)
            return argument;
    return NULL;
}

char *commands_check(const struct qmp_command *command, json_t *arguments)
{
    char *text = NULL;
    for (const struct qmp_argument *argument = command->arguments; argument->name; argument++) {
        const json_t *value = json_object_get(arguments, argument->name);
        if (!value && !argument->is_optional)
            CHECK(asprintf(&text, "Parameter '%s' is missing", argument->name) > 0);
        else if (value && !has_type(value, argument->type))
            CHECK(asprintf(&text, "Invalid parameter type for '%s', expected: %s", argument->name,
                           types[argument->type].name) > 0);
        if (text)
            return text;
    }
    const char *key;
    json_t *value;
    json_object_foreach(arguments, key, value)
    {
        if (find_argument(command, key))
            continue;
        CHECK(asprintf(&text, "Parameter '%.64s' is unexpected", key) > 0);
        break;
    }
    return text;
}

/* Sends { member: value, id } and frees the call; takes `value` over. */
static void finish(struct qmp_call *call, const char *member, json_t *value)
{
    list_remove(&call->node);
    if (call->client) {
        json_t *reply = json_object();
        json_object_set(reply, member, value);
        if (call->id)
            json_object_set(reply, "id", call->id);
        qmp_send_reply(call->client, reply);
    }
    /* Sending may have dropped the client: then it has left the call. */
    if (call->client)
        qmp_call_finished(call->client);
    json_decref(value);
    json_decref(call->arguments);
    json_decref(call->id);
    free(call);
}

void qmp_call_return(struct qmp_call *call, json_t *value)
{
    finish(call, "return", value ? value : json_object());
}

void qmp_call_fail(struct qmp_call *call, const char *class, const char *format, ...)
{
    va_list args;
    char *text;
    va_start(args, format);
    CHECK(vasprintf(&text, format, args) >= 0);
    va_end(args);
    json_t *desc = json_string(text);
    free(text);
    finish(call, "error",
           json_pack("{s:s,s:o}", "class", class, "desc",
                     desc ? desc : json_string("the text of the error is not UTF-8")));
}

void qmp_call_done(void *opaque, int result, const struct error *err)
{
    struct qmp_call *call = opaque;
    if (!result)
        qmp_call_return(call, NULL);
    else
        qmp_call_fail(call, QMP_GENERIC, "%s", err && *err->text ? err->text : strerror(-result));
}

void commands_answer_quits(struct control *control)
{
    while (!list_is_empty(&control->quits)) {
        struct list *node = list_pop_front(&control->quits);
        qmp_call_return(list_entry(node, struct qmp_call, node), NULL);
    }
}

static void query_commands(struct qmp_call *call)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        json_array_append_new(list, json_pack("{s:s}", "name", table[i].name));
    qmp_call_return(call, list);
}
