/* SPDX-License-Identifier: MIT */
/* qmp: lines of JSON over a unix socket in the machine's folder. */
#include "tools/evctl/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/evctl/interrupt.h"
#include "tools/evctl/tell.h"

#define MESSAGE_MAX_BYTES (8u << 20)
#define LOOK_MS           250

int qmp_connect(int folder_fd, const char *socket_name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* By way of the descriptor no folder's path is too long. */
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", folder_fd,
             socket_name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int result = -errno;
    close(fd);
    return result;
}

/* --- receiving --- */

/* Takes the first line out of the buffer: 1 and the message, 0 if there is no whole line. */
static int take_line(struct qmp *qmp, json_t **message)
{
    char *end = qmp->length ? memchr(qmp->buffer, '\n', qmp->length) : NULL;
    if (!end)
        return 0;
    size_t used = (size_t)(end - qmp->buffer) + 1;
    *message = json_loadb(qmp->buffer, used, 0, NULL);
    memmove(qmp->buffer, qmp->buffer + used, qmp->length - used);
    qmp->length -= used;
    return *message ? 1 : -EPROTO;
}

static int read_more(struct qmp *qmp)
{
    if (qmp->length == qmp->capacity) {
        size_t capacity = qmp->capacity ? 2 * qmp->capacity : 4096;
        char *buffer = capacity > MESSAGE_MAX_BYTES ? NULL : realloc(qmp->buffer, capacity);
        if (!buffer)
            return -EMSGSIZE;
        qmp->buffer = buffer;
        qmp->capacity = capacity;
    }
    ssize_t got = read(qmp->fd, qmp->buffer + qmp->length, qmp->capacity - qmp->length);
    if (got > 0)
        qmp->length += (size_t)got;
    if (got > 0)
        return 1;
    return got == 0 ? -ENOTCONN : errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

int qmp_receive(struct qmp *qmp, json_t **message)
{
    for (;;) {
        int result = take_line(qmp, message);
        if (result)
            return result;
        result = read_more(qmp);
        if (result <= 0)
            return result == -ECONNRESET ? -ENOTCONN : result;
    }
}

/* Waits for the next message. */
static int next_message(struct qmp *qmp, uint64_t until_ns, json_t **message)
{
    for (;;) {
        int result = qmp_receive(qmp, message);
        if (result)
            return result < 0 ? result : 0;
        uint64_t now_ns = tell_now_ns();
        if (interrupt_is_pending())
            return -EINTR;
        if (now_ns >= until_ns)
            return -ETIMEDOUT;
        struct pollfd ready = {.fd = qmp->fd, .events = POLLIN};
        unused_result(poll(&ready, 1, (int)MIN((until_ns - now_ns) / 1000000 + 1, 1000)));
    }
}

/* The next message, in pieces of the time, so that a person sees what is waited for. */
static int next_message_shown(struct qmp *qmp, struct tell_progress *progress, uint64_t until_ns,
                              json_t **message)
{
    for (;;) {
        uint64_t piece_ns = MIN(until_ns, tell_now_ns() + LOOK_MS * 1000000ull);
        int result = next_message(qmp, piece_ns, message);
        if (result != -ETIMEDOUT || tell_now_ns() >= until_ns)
            return result;
        tell_progress_update(progress, -1);
    }
}

static int next_reply(struct qmp *qmp, json_t **message)
{
    struct tell_progress progress;
    uint64_t until_ns = tell_now_ns() + qmp->timeout_ms * 1000000ull;
    tell_progress_begin(&progress, "waiting for the machine's answer");
    int result = 0;
    while (!(result = next_message_shown(qmp, &progress, until_ns, message)) &&
           json_object_get(*message, "event"))
        json_array_append_new(qmp->events, *message);
    tell_progress_end(&progress);
    return result;
}

int qmp_wait_event(struct qmp *qmp, uint64_t until_ns, json_t **event)
{
    if (json_array_size(qmp->events)) {
        *event = json_incref(json_array_get(qmp->events, 0));
        json_array_remove(qmp->events, 0);
        return 0;
    }
    return next_message(qmp, until_ns, event);
}

/* --- sending --- */

static int send_all(struct qmp *qmp, const char *text, size_t length)
{
    while (length) {
        ssize_t done = send(qmp->fd, text, length, MSG_NOSIGNAL);
        if (done > 0) {
            text += done;
            length -= (size_t)done;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            return errno == EPIPE || errno == ECONNRESET ? -ENOTCONN : -errno;
        struct pollfd ready = {.fd = qmp->fd, .events = POLLOUT};
        if (poll(&ready, 1, QMP_TIMEOUT_MS) == 0)
            return -ETIMEDOUT;
    }
    return 0;
}

static int set_transport_error(const struct qmp *qmp, int result, struct error *err)
{
    if (result == -EINTR)
        return error_set(err, EINTR, "interrupted");
    if (result == -ENOTCONN)
        return error_set(err, ENOTCONN, "the machine '%s' has ended; see: evctl logs", qmp->name);
    if (result == -ETIMEDOUT)
        return error_set(err, ETIMEDOUT,
                         "the machine '%s' does not answer on its control socket; end it with: "
                         "evctl stop --force",
                         qmp->name);
    return error_set_errno(err, -result, "the control socket of the machine '%s'", qmp->name);
}

static int take_reply(const struct qmp *qmp, json_t *message, json_t **reply, struct error *err)
{
    json_t *value = json_object_get(message, "return"),
           *problem = json_object_get(message, "error");
    const char *class = json_string_value(json_object_get(problem, "class"));
    int result = 0;
    class = class ? class : "";
    if (value && reply)
        *reply = json_incref(value);
    else if (problem)
        result = error_set(err, strcmp(class, "DeviceNotFound") == 0 ? ENODEV : EPROTO, "%s: %s",
                           qmp->name,
                           json_string_value(json_object_get(problem, "desc"))
                               ? json_string_value(json_object_get(problem, "desc"))
                               : "an error without a sentence");
    json_decref(message);
    return result;
}

int qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, json_t **reply,
                struct error *err)
{
    json_t *request = json_pack("{s:s}", "execute", command), *message = NULL;
    if (arguments)
        json_object_set_new(request, "arguments", arguments);
    char *text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    CHECK(text);
    int result = send_all(qmp, text, strlen(text));
    free(text);
    if (!result)
        result = next_reply(qmp, &message);
    if (result)
        return set_transport_error(qmp, result, err);
    return take_reply(qmp, message, reply, err);
}

char *qmp_monitor(struct qmp *qmp, const char *line, struct error *err)
{
    json_t *reply = NULL;
    if (qmp_execute(qmp, "human-monitor-command", json_pack("{s:s}", "command-line", line), &reply,
                    err))
        return NULL;
    char *text = strdup(json_is_string(reply) ? json_string_value(reply) : "");
    json_decref(reply);
    return text;
}

int qmp_open(const struct machine *machine, struct qmp *qmp, struct error *err)
{
    json_t *greeting = NULL;
    *qmp = (struct qmp){.name = machine->name,
                        .fd = qmp_connect(machine->folder_fd, "qmp"),
                        .timeout_ms = QMP_TIMEOUT_MS};
    qmp->events = json_array();
    int result = qmp->fd < 0 ? qmp->fd : 0;
    if (result == -ENOENT || result == -ECONNREFUSED)
        result = -ENOTCONN;
    if (!result)
        result = next_reply(qmp, &greeting);
    json_decref(greeting);
    if (result)
        result = set_transport_error(qmp, result, err);
    else
        result = qmp_execute(qmp, "qmp_capabilities", NULL, NULL, err);
    if (result)
        qmp_close(qmp);
    return result;
}

void qmp_close(struct qmp *qmp)
{
    if (qmp->fd >= 0)
        close(qmp->fd);
    free(qmp->buffer);
    json_decref(qmp->events);
    *qmp = (struct qmp){.fd = -1};
}
