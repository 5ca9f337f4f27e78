/* SPDX-License-Identifier: MIT */
/*
 * qmp: QEMU's machine protocol with one client: greeting, negotiation, requests, replies, events.
 *
 * (docs/interop/qmp-spec: the shapes and the words of errors are QEMU's, since clients match them.)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/limits.h"
#include "vmm/control/commands.h"
#include "vmm/control/qmp_framer.h"

struct qmp_session {
    struct qmp_framer framer;
    bool is_negotiated;
    bool has_oob;          /* exec-oob may come */
    struct qmp_call *call; /* under way */
};

/* Takes `message` over. */
static void send_message(struct control_client *client, json_t *message)
{
    size_t flags = JSON_ENSURE_ASCII | (client->monitor->pretty ? JSON_INDENT(4) : 0);
    char *text = json_dumps(message, flags);
    CHECK(text);
    control_client_write(client, text, strlen(text));
    control_client_write(client, "\r\n", 2);
    free(text);
    json_decref(message);
}

void qmp_send_reply(struct control_client *client, json_t *reply)
{
    send_message(client, reply);
}

static void send_error(struct control_client *client, json_t *id, const char *class,
                       const char *text)
{
    json_t *reply = json_pack("{s:{s:s,s:s}}", "error", "class", class, "desc", text);
    if (id)
        json_object_set(reply, "id", id);
    send_message(client, reply);
}

static void *open_session(struct control_client *client)
{
    (void)client;
    struct qmp_session *session = calloc(1, sizeof(*session));
    CHECK(session);
    qmp_framer_init(&session->framer);
    return session;
}

static void greet(struct control_client *client)
{
    send_message(client, json_pack("{s:{s:o,s:[s]}}", "QMP", "version", qmp_version(),
                                   "capabilities", "oob"));
}

static void close_session(struct control_client *client)
{
    struct qmp_session *session = client->session;
    if (session->call)
        session->call->client = NULL;
    qmp_framer_fini(&session->framer);
    free(session);
    client->session = NULL;
}

static const char *find_refused(const json_t *list)
{
    size_t index;
    json_t *value;
    json_array_foreach(list, index, value)
    {
        const char *name = json_string_value(value);
        if (!name || strcmp(name, "oob") != 0)
            return name ? name : "";
    }
    return NULL;
}

/*
 * What the enable list of qmp_capabilities may hold: "oob". Clients take it for a sign that
 * descriptors can be passed; no command here needs to overtake another.
 */
static char *check_capabilities(json_t *arguments)
{
    char *text = NULL;
    const char *key;
    json_t *value;
    json_object_foreach(arguments, key, value)
    {
        const char *first = json_is_array(value) ? find_refused(value) : NULL;
        if (strcmp(key, "enable") != 0)
            CHECK(asprintf(&text, "Parameter '%s' is unexpected", key) > 0);
        else if (!json_is_array(value) || (first && !*first))
            CHECK(asprintf(&text, "Invalid parameter type for 'enable', expected: array") > 0);
        else if (first)
            CHECK(asprintf(&text, "Capability '%s' not available", first) > 0);
        if (text)
            break;
    }
    return text;
}

static void negotiate(struct control_client *client, json_t *arguments, json_t *id)
{
    struct qmp_session *session = client->session;
    if (session->is_negotiated) {
        send_error(client, id, QMP_NOT_FOUND,
                   "Capabilities negotiation is already complete, command ignored");
        return;
    }
    char *text = check_capabilities(arguments);
    if (text) {
        send_error(client, id, QMP_GENERIC, text);
        free(text);
        return;
    }
    session->is_negotiated = true;
    session->has_oob = json_array_size(json_object_get(arguments, "enable")) > 0;
    json_t *reply = json_pack("{s:{}}", "return");
    if (id)
        json_object_set(reply, "id", id);
    send_message(client, reply);
}

static void refuse_command(struct control_client *client, const char *name, json_t *id)
{
    struct qmp_session *session = client->session;
    const char *near = commands_suggest(name);
    char *text;
    if (!session->is_negotiated)
        CHECK(asprintf(&text, "Expecting capabilities negotiation with 'qmp_capabilities'") > 0);
    else
        CHECK(asprintf(&text, "The command %.64s has not been found%s%s%s", name,
                       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "") > 0);
    send_error(client, id, QMP_NOT_FOUND, text);
    free(text);
}

static void run_command(struct control_client *client, const char *name, json_t *arguments,
                        json_t *id)
{
    struct qmp_session *session = client->session;
    const struct qmp_command *command = session->is_negotiated ? commands_find(name) : NULL;
    if (!command) {
        refuse_command(client, name, id);
        return;
    }
    char *text = commands_check(command, arguments, "");
    if (text) {
        send_error(client, id, QMP_GENERIC, text);
        free(text);
        return;
    }
    struct qmp_call *call = calloc(1, sizeof(*call));
    CHECK(call);
    *call = (struct qmp_call){.control = client->control,
                              .client = client,
                              .command = command,
                              .arguments = json_incref(arguments),
                              .id = json_incref(id)};
    list_init(&call->node);
    session->call = call;
    client->is_busy = true;
    commands_start(call);
}

/* The next request comes a turn later, so a client that sends many does not hold the loop. */
void qmp_call_finished(struct control_client *client)
{
    struct qmp_session *session = client->session;
    session->call = NULL;
    control_client_resume(client);
}

/* The first member that no request has, or NULL. */
static const char *find_unexpected(json_t *request, bool has_oob)
{
    const char *key;
    json_t *value;
    json_object_foreach(request, key, value)
    {
        if (strcmp(key, "execute") != 0 && strcmp(key, "arguments") != 0 &&
            strcmp(key, "id") != 0 && !(has_oob && strcmp(key, "exec-oob") == 0))
            return key;
    }
    return NULL;
}

static void handle_request(struct control_client *client, json_t *request)
{
    json_t *id = json_object_get(request, "id");
    json_t *execute = json_object_get(request, "execute");
    json_t *arguments = json_object_get(request, "arguments");
    const struct qmp_session *session = client->session;
    const json_t *oob = session->has_oob ? json_object_get(request, "exec-oob") : NULL;
    const char *unexpected = find_unexpected(request, session->has_oob);
    char text[128] = "";
    if (!json_is_object(request))
        snprintf(text, sizeof(text), "QMP input must be a JSON object");
    else if (unexpected)
        snprintf(text, sizeof(text), "QMP input member '%.64s' is unexpected", unexpected);
    else if (oob && execute)
        snprintf(text, sizeof(text), "QMP input member 'execute' clashes with 'exec-oob'");
    else if (oob && json_is_string(oob))
        snprintf(text, sizeof(text), "The command %.64s does not support OOB",
                 json_string_value(oob));
    else if (!execute)
        snprintf(text, sizeof(text), "QMP input lacks member 'execute'");
    else if (!json_is_string(execute))
        snprintf(text, sizeof(text), "QMP input member 'execute' must be a string");
    else if (arguments && !json_is_object(arguments))
        snprintf(text, sizeof(text), "QMP input member 'arguments' must be an object");
    if (*text) {
        send_error(client, id, QMP_GENERIC, text);
        return;
    }
    json_t *empty = arguments ? NULL : json_object();
    arguments = arguments ? arguments : empty;
    if (strcmp(json_string_value(execute), "qmp_capabilities") == 0)
        negotiate(client, arguments, id);
    else
        run_command(client, json_string_value(execute), arguments, id);
    json_decref(empty);
}

static const char *parse_error_text(const json_error_t *error)
{
    switch (json_error_code(error)) {
    case json_error_duplicate_key:
        return "JSON parse error, duplicate key";
    case json_error_invalid_utf8:
        return "JSON parse error, invalid UTF-8 sequence in string";
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "JSON parse error, NUL in string";
    case json_error_numeric_overflow:
        return "JSON parse error, number out of range";
    default:
        return "JSON parse error, invalid syntax";
    }
}

static void handle_text(struct control_client *client)
{
    struct qmp_session *session = client->session;
    json_error_t error;
    json_t *request =
        json_loadb(session->framer.text, session->framer.length, JSON_REJECT_DUPLICATES, &error);
    if (!request) {
        send_error(client, NULL, QMP_GENERIC, parse_error_text(&error));
        return;
    }
    handle_request(client, request);
    json_decref(request);
}

static size_t on_input(struct control_client *client, const char *bytes, size_t length)
{
    struct qmp_session *session = client->session;
    enum qmp_frame frame;
    size_t taken = qmp_framer_feed(&session->framer, bytes, length, &frame);
    if (frame == QMP_FRAME_TEXT)
        handle_text(client);
    else if (frame == QMP_FRAME_ERROR)
        send_error(client, NULL, QMP_GENERIC, session->framer.error);
    return taken;
}

static json_t *event_data(struct control_client *client, enum machine_event event,
                          enum machine_shutdown_cause cause)
{
    const struct vm_config *config = machine_config(client->control->machine);
    const char *detail = machine_shutdown_cause_detail(cause);
    if (event == MACHINE_EVENT_GUEST_PANICKED)
        return json_pack("{s:s}", "action", config->no_shutdown ? "pause" : "poweroff");
    if (event != MACHINE_EVENT_RESET && event != MACHINE_EVENT_SHUTDOWN)
        return NULL;
    return json_pack("{s:b,s:s,s:s*}", "guest", machine_shutdown_cause_is_guest(cause), "reason",
                     machine_shutdown_cause_name(cause), "detail", detail);
}

/* Takes `data`, which may be NULL, over. */
static void send_event(struct control_client *client, const char *name, json_t *data)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    json_t *message = json_pack("{s:{s:I,s:I},s:s}", "timestamp", "seconds", (json_int_t)now.tv_sec,
                                "microseconds", (json_int_t)now.tv_usec, "event", name);
    if (data)
        json_object_set_new(message, "data", data);
    send_message(client, message);
}

static void on_event(struct control_client *client, enum machine_event event,
                     enum machine_shutdown_cause cause)
{
    static const char *const names[] = {
        [MACHINE_EVENT_STOP] = "STOP",           [MACHINE_EVENT_RESUME] = "RESUME",
        [MACHINE_EVENT_POWERDOWN] = "POWERDOWN", [MACHINE_EVENT_RESET] = "RESET",
        [MACHINE_EVENT_SHUTDOWN] = "SHUTDOWN",   [MACHINE_EVENT_GUEST_PANICKED] = "GUEST_PANICKED",
    };
    const struct qmp_session *session = client->session;
    if (session->is_negotiated)
        send_event(client, names[event], event_data(client, event, cause));
}

static void on_block_error(struct control_client *client, const struct machine_block_error *error)
{
    const struct vm_config *config = machine_config(client->control->machine);
    const struct qmp_session *session = client->session;
    const char *id = config->disks[error->disk].id;
    if (session->is_negotiated)
        send_event(client, "BLOCK_IO_ERROR",
                   json_pack("{s:s,s:s,s:s,s:s,s:b,s:s}", "device", id, "node-name", id,
                             "operation", error->is_read ? "read" : "write", "action",
                             error->action, "nospace", error->code == ENOSPC, "reason",
                             strerror(error->code)));
}

static void on_nic_addresses(struct control_client *client, unsigned nic)
{
    const struct qmp_session *session = client->session;
    if (session->is_negotiated)
        send_event(client, "NIC_IP_CHANGED", qmp_nic_addresses(client->control->machine, nic));
}

static void on_named_event(struct control_client *client, const char *name, json_t *data)
{
    const struct qmp_session *session = client->session;
    if (session->is_negotiated)
        send_event(client, name, json_incref(data));
}

const struct control_protocol qmp_protocol = {
    .open = open_session,
    .greet = greet,
    .on_input = on_input,
    .on_event = on_event,
    .on_block_error = on_block_error,
    .on_nic_addresses = on_nic_addresses,
    .on_named_event = on_named_event,
    .close = close_session,
};
