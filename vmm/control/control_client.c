/* SPDX-License-Identifier: MIT */
/*
 * control_client: one connection to a monitor: bytes in, bytes out, and its end.
 *
 * A peer that shuts its sending side down still gets its replies, then the connection closes. A
 * peer that has stopped reading may still have sent commands before: they are carried out.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/chardev/chardev.h"
#include "vmm/control/control_private.h"

bool control_client_has_output(const struct control_client *client)
{
    return !client->is_dropped && client->output_at < client->output_end;
}

static void set_interest(struct control_client *client)
{
    if (client->fd < 0 || client->is_dropped)
        return;
    int events = 0;
    if (!client->is_busy && !client->has_ended)
        events |= UV_READABLE;
    if (control_client_has_output(client))
        events |= UV_WRITABLE;
    loop_watch_set(&client->watch, events);
}

static void close_fds(struct control_client *client)
{
    while (client->fd_count)
        close(client->fds[--client->fd_count]);
}

int control_client_take_fd(struct control_client *client)
{
    if (!client->fd_count)
        return -1;
    int fd = client->fds[0];
    client->fd_count--;
    memmove(client->fds, client->fds + 1, client->fd_count * sizeof(*client->fds));
    return fd;
}

static void free_client(struct control_client *client)
{
    struct control *control = client->control;
    close_fds(client);
    list_remove(&client->node);
    control->client_count--;
    free(client->output);
    free(client);
    control_on_handle_closed(control);
}

static void on_watch_closed(struct loop_watch *watch)
{
    free_client(watch->opaque);
}

void control_client_drop(struct control_client *client)
{
    if (client->is_dropped)
        return;
    client->is_dropped = true;
    client->protocol->close(client);
    if (client->fd >= 0) {
        loop_watch_close(&client->watch, on_watch_closed);
        close(client->fd);
    } else {
        char_set_user(client->backend, NULL, NULL);
        free_client(client);
    }
}

/* The peer has said all it will, and has been told all it will take. */
static void drop_if_finished(struct control_client *client)
{
    bool is_finished = client->has_ended && !client->is_busy &&
                       client->input_at == client->input_end && !control_client_has_output(client);
    if (is_finished && client->fd >= 0)
        control_client_drop(client);
}

/* Feeds the session until it wants no more for now. */
static void take_input(struct control_client *client)
{
    if (client->control->is_closing)
        client->input_at = client->input_end;
    while (!client->is_dropped && !client->is_busy && client->input_at < client->input_end)
        client->input_at += client->protocol->on_input(client, client->input + client->input_at,
                                                       client->input_end - client->input_at);
    if (client->is_dropped)
        return;
    if (client->input_at == client->input_end)
        client->input_at = client->input_end = 0;
    set_interest(client);
    loop_task_queue(&client->control->flush);
}

void control_client_resume(struct control_client *client)
{
    client->is_resumed = true;
    loop_task_queue(&client->control->resume);
}

void control_client_go_on(struct control_client *client)
{
    if (client->is_dropped || !client->is_resumed)
        return;
    client->is_resumed = client->is_busy = false;
    take_input(client);
    if (!client->is_dropped && client->backend)
        char_accept_input(client->backend);
}

/* New descriptors replace those that nobody wanted. */
static void keep_fds(struct control_client *client, struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        close_fds(client);
        client->fd_count = (unsigned)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(client->fds, CMSG_DATA(part), client->fd_count * sizeof(int));
    }
}

static ssize_t receive_message(struct control_client *client)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * CONTROL_FDS_MAX)];
    } control;
    struct iovec bytes = {client->input, sizeof(client->input)};
    struct msghdr message = {.msg_iov = &bytes,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof(control.room)};
    ssize_t got = recvmsg(client->fd, &message, MSG_CMSG_CLOEXEC);
    if (got > 0)
        keep_fds(client, &message);
    return got;
}

/* Breaks mean nothing to a monitor. */
static size_t filter(struct control_client *client, size_t length)
{
    unsigned breaks = 0;
    return client->is_telnet
               ? telnet_take(&client->telnet, (uint8_t *)client->input, length, &breaks)
               : length;
}

static void receive(struct control_client *client)
{
    if (client->is_busy || client->has_ended || client->input_at < client->input_end)
        return;
    ssize_t got = receive_message(client);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0)
        client->has_ended = true;
    else
        client->input_end = filter(client, (size_t)got);
    take_input(client);
}

static void on_ready(struct loop_watch *watch, int events)
{
    struct control_client *client = watch->opaque;
    if (events & UV_WRITABLE)
        loop_task_queue(&client->control->flush);
    if (events & UV_READABLE)
        receive(client);
}

static void drop_output(struct control_client *client)
{
    client->output_at = client->output_end = 0;
}

static size_t send_some(struct control_client *client, const char *bytes, size_t length)
{
    if (client->backend)
        return char_write(client->backend, bytes, length);
    ssize_t sent;
    do
        sent = send(client->fd, bytes, length, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN)
        client->has_no_reader = true;
    return sent > 0 ? (size_t)sent : 0;
}

void control_client_flush(struct control_client *client)
{
    while (control_client_has_output(client) && !client->has_no_reader) {
        size_t sent = send_some(client, client->output + client->output_at,
                                client->output_end - client->output_at);
        if (!sent)
            break;
        client->output_at += sent;
    }
    if (client->has_no_reader || client->output_at == client->output_end)
        drop_output(client);
    set_interest(client);
    drop_if_finished(client);
}

static void make_room(struct control_client *client, size_t length)
{
    size_t waiting = client->output_end - client->output_at;
    if (client->output_at) {
        memmove(client->output, client->output + client->output_at, waiting);
        client->output_at = 0;
        client->output_end = waiting;
    }
    if (waiting + length <= client->output_capacity)
        return;
    client->output_capacity = MAX(client->output_capacity * 2, waiting + length);
    client->output = realloc(client->output, client->output_capacity);
    CHECK(client->output);
}

/* A reader that does not read: whoever is at a chardev loses output, a connection is closed. */
static void on_overflow(struct control_client *client)
{
    drop_output(client);
    if (client->backend)
        return;
    log_limited("monitor: dropped a client that left more than %d bytes unread",
                CONTROL_OUTPUT_MAX_BYTES);
    control_client_drop(client);
}

static void queue_output(struct control_client *client, const char *bytes, size_t length)
{
    if (client->is_dropped || client->has_no_reader)
        return;
    if (client->output_end - client->output_at + length > CONTROL_OUTPUT_MAX_BYTES) {
        on_overflow(client);
        return;
    }
    if (client->output_end + length > client->output_capacity)
        make_room(client, length);
    memcpy(client->output + client->output_end, bytes, length);
    client->output_end += length;
    loop_task_queue(&client->control->flush);
}

void control_client_write(struct control_client *client, const char *bytes, size_t length)
{
    uint8_t escaped[512];
    if (!client->is_telnet) {
        queue_output(client, bytes, length);
        return;
    }
    for (size_t done = 0, taken; done < length; done += taken) {
        size_t made = telnet_escape((const uint8_t *)bytes + done, length - done, escaped,
                                    sizeof(escaped), &taken);
        queue_output(client, (const char *)escaped, made);
    }
}

static void greet(struct control_client *client)
{
    client->is_greeted = true;
    if (client->is_telnet)
        queue_output(client, (const char *)telnet_greeting, sizeof(telnet_greeting));
    client->protocol->greet(client);
}

static struct control_client *create_client(struct control *control,
                                            const struct config_monitor *monitor)
{
    struct control_client *client = calloc(1, sizeof(*client));
    CHECK(client);
    client->control = control;
    client->monitor = monitor;
    client->protocol = monitor->kind == MONITOR_QMP ? &qmp_protocol : &hmp_protocol;
    client->fd = -1;
    list_push_back(&control->clients, &client->node);
    control->client_count++;
    return client;
}

void control_client_open_socket(struct control *control, const struct config_monitor *monitor,
                                int fd)
{
    struct control_client *client = create_client(control, monitor);
    client->fd = fd;
    CHECK(loop_watch_init(control->loop, &client->watch, fd, on_ready) == 0);
    client->watch.opaque = client;
    client->is_telnet = machine_config(control->machine)->chardevs[monitor->chardev].is_telnet;
    telnet_init(&client->telnet);
    client->session = client->protocol->open(client);
    greet(client);
    set_interest(client);
}

static size_t chardev_input_room(void *user)
{
    struct control_client *client = user;
    return client->is_busy ? 0 : sizeof(client->input) - client->input_end;
}

static void on_chardev_input(void *user, const uint8_t *bytes, size_t length)
{
    struct control_client *client = user;
    CHECK(length <= sizeof(client->input) - client->input_end);
    memcpy(client->input + client->input_end, bytes, length);
    client->input_end += length;
    take_input(client);
}

static void on_chardev_writable(void *user)
{
    struct control_client *client = user;
    loop_task_queue(&client->control->flush);
}

/* Whoever comes next starts anew. */
static void on_chardev_close(void *user)
{
    struct control_client *client = user;
    client->protocol->close(client);
    client->input_at = client->input_end = 0;
    client->is_busy = client->is_resumed = client->is_greeted = false;
    drop_output(client);
    client->session = client->protocol->open(client);
}

static void on_chardev_open(void *user)
{
    struct control_client *client = user;
    if (client->has_input)
        greet(client);
}

static void on_chardev_focus(void *user, bool has_focus)
{
    struct control_client *client = user;
    client->has_input = has_focus;
    if (!has_focus)
        return;
    if (!client->is_greeted)
        greet(client);
    else if (client->protocol->on_focus)
        client->protocol->on_focus(client);
}

static const struct char_user_ops chardev_user_ops = {
    .input_room = chardev_input_room,
    .on_input = on_chardev_input,
    .on_writable = on_chardev_writable,
    .on_open = on_chardev_open,
    .on_close = on_chardev_close,
    .on_focus = on_chardev_focus,
};

/* The first user of a shared terminal has its input: the serial port, or the first monitor. */
static bool is_first_user(const struct control *control, const struct config_monitor *monitor)
{
    const struct vm_config *config = machine_config(control->machine);
    const struct config_monitor *first = config->monitors;
    while (first->chardev != monitor->chardev)
        first++;
    return first == monitor && config->serial_chardev != (int)monitor->chardev;
}

int control_client_open_chardev(struct control *control, const struct config_monitor *monitor,
                                struct error *err)
{
    struct char_backend *backend;
    int result = chardev_attach(machine_chardev(control->machine, monitor->chardev), &backend, err);
    if (result)
        return result;
    struct control_client *client = create_client(control, monitor);
    client->backend = backend;
    client->session = client->protocol->open(client);
    char_set_user(backend, &chardev_user_ops, client);
    client->has_input = is_first_user(control, monitor);
    if (client->has_input && backend->is_open)
        greet(client);
    return 0;
}
