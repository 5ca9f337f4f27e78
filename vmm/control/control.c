/* SPDX-License-Identifier: MIT */
/*
 * control: listens, accepts, spreads events, closes.
 *
 * Theory of operation. Each monitor of the config is a listening socket of ours, or sits on a
 * chardev of the machine (stdio, pty). A connection becomes a client with a session of its
 * protocol. Input is taken in once a turn and fed to the session until it is used up or a command
 * is under way; the command's answer resumes it, so each client has one command at a time and its
 * replies stay in order. Output, replies and events alike, is queued and leaves in the loop's last
 * stage. The machine tells events from the loop, before it answers the command that caused them,
 * so an event stands before that reply in each client's queue.
 *
 * Nothing is freed from inside: dropping a client closes its handle, and its memory goes when that
 * is done. A command that outlives its client finishes and its answer is thrown away.
 */
#include "vmm/control/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/socket.h"
#include "vmm/control/commands.h"
#include "vmm/control/control_private.h"

static void on_linger_closed(struct loop_timer *timer)
{
    control_on_handle_closed(timer->opaque);
}

static void on_event(void *opaque, enum machine_event event, enum machine_shutdown_cause cause)
{
    struct control *control = opaque;
    list_for_each(node, &control->clients)
    {
        struct control_client *client = list_entry(node, struct control_client, node);
        if (!client->is_dropped && client->protocol->on_event)
            client->protocol->on_event(client, event, cause);
    }
    if (event == MACHINE_EVENT_SHUTDOWN)
        commands_answer_quits(control);
}

static void on_block_error(void *opaque, const struct machine_block_error *error)
{
    struct control *control = opaque;
    list_for_each(node, &control->clients)
    {
        struct control_client *client = list_entry(node, struct control_client, node);
        if (!client->is_dropped && client->protocol->on_block_error)
            client->protocol->on_block_error(client, error);
    }
}

static void on_nic_addresses(void *opaque, unsigned nic)
{
    struct control *control = opaque;
    list_for_each(node, &control->clients)
    {
        struct control_client *client = list_entry(node, struct control_client, node);
        if (!client->is_dropped && client->protocol->on_nic_addresses)
            client->protocol->on_nic_addresses(client, nic);
    }
}

static void on_named_event(void *opaque, const char *name, json_t *data)
{
    struct control *control = opaque;
    list_for_each(node, &control->clients)
    {
        struct control_client *client = list_entry(node, struct control_client, node);
        if (!client->is_dropped && client->protocol->on_named_event)
            client->protocol->on_named_event(client, name, data);
    }
}

static void resume_clients(struct loop_task *task)
{
    struct control *control = container_of(task, struct control, resume);
    list_for_each(node, &control->clients)
        control_client_go_on(list_entry(node, struct control_client, node));
}

/* Everybody has what was for them, or the time is up. */
static void drop_all(struct control *control)
{
    if (control->has_dropped_all)
        return;
    control->has_dropped_all = true;
    list_for_each(node, &control->clients)
        control_client_drop(list_entry(node, struct control_client, node));
    loop_timer_close(&control->linger, on_linger_closed);
}

static void flush_clients(struct loop_task *task)
{
    struct control *control = container_of(task, struct control, flush);
    bool has_output = false;
    list_for_each(node, &control->clients)
    {
        struct control_client *client = list_entry(node, struct control_client, node);
        control_client_flush(client);
        has_output |= control_client_has_output(client);
    }
    if (control->is_closing && !has_output)
        drop_all(control);
}

static bool is_waiting(const struct control *control)
{
    for (unsigned i = 0; i < control->listener_count; i++)
        if (control->listeners[i].is_waiting)
            return true;
    return false;
}

static void run_ready(struct loop_task *task)
{
    struct control *control = container_of(task, struct control, ready);
    void (*on_ready)(void *opaque) = control->on_ready;
    if (!on_ready || is_waiting(control) || control->is_closing)
        return;
    control->on_ready = NULL;
    on_ready(control->ready_opaque);
}

void control_when_ready(struct control *control, void (*on_ready)(void *opaque), void *opaque)
{
    control->on_ready = on_ready;
    control->ready_opaque = opaque;
    loop_task_queue(&control->ready);
}

static void on_connection(struct loop_watch *watch, int events)
{
    (void)events;
    struct control_listener *listener = watch->opaque;
    struct control *control = listener->control;
    int fd = socket_accept(listener->fd);
    if (fd == -EPERM)
        log_limited("monitor %s: turned away a client of another user", listener->path);
    if (fd < 0)
        return;
    if (control->client_count >= CONTROL_CLIENTS_MAX) {
        log_limited("monitors: turned away a client; %d are connected", CONTROL_CLIENTS_MAX);
        close(fd);
        return;
    }
    listener->is_waiting = false;
    loop_task_queue(&control->ready);
    control_client_open_socket(control, listener->monitor, fd);
}

/* The file is unlinked at the end, when the working directory may be another one. */
static char *absolute_path(const char *path)
{
    char *absolute = NULL, *folder = *path == '/' ? NULL : getcwd(NULL, 0);
    if (asprintf(&absolute, "%s%s%s", folder ? folder : "", folder ? "/" : "", path) < 0)
        absolute = NULL;
    free(folder);
    return absolute;
}

static int listen_on(struct control *control, const struct config_monitor *monitor,
                     const struct config_chardev *chardev, struct error *err)
{
    struct control_listener *listener = &control->listeners[control->listener_count];
    bool is_unix = chardev->kind == CHARDEV_UNIX;
    int fd = is_unix ? socket_listen_unix(chardev->path, err)
                     : socket_listen_tcp(chardev->host, chardev->port, err);
    if (fd < 0)
        return fd;
    *listener = (struct control_listener){.control = control,
                                          .monitor = monitor,
                                          .fd = fd,
                                          .path = is_unix ? absolute_path(chardev->path) : NULL,
                                          .is_waiting = chardev->wait};
    int result = loop_watch_init(control->loop, &listener->watch, fd, on_connection);
    if (result) {
        close(fd);
        free(listener->path);
        return error_set_errno(err, -result, "monitor %s", chardev->id);
    }
    listener->watch.opaque = listener;
    loop_watch_set(&listener->watch, UV_READABLE);
    control->listener_count++;
    return 0;
}

static int open_monitor(struct control *control, const struct config_monitor *monitor,
                        struct error *err)
{
    const struct vm_config *config = machine_config(control->machine);
    const struct config_chardev *chardev = &config->chardevs[monitor->chardev];
    if ((chardev->kind == CHARDEV_UNIX || chardev->kind == CHARDEV_TCP) && chardev->is_server)
        return listen_on(control, monitor, chardev, err);
    return control_client_open_chardev(control, monitor, err);
}

static void ignore_closed(void *opaque)
{
    (void)opaque;
}

int control_create(struct loop *loop, struct machine *machine, struct control **out,
                   struct error *err)
{
    struct control *control = calloc(1, sizeof(*control));
    CHECK(control);
    control->loop = loop;
    control->machine = machine;
    list_init(&control->clients);
    list_init(&control->quits);
    control->format = (struct hmp_format){.letter = 'x', .size = 4};
    loop_task_init(loop, &control->resume, LOOP_STAGE_DRAIN, resume_clients);
    loop_task_init(loop, &control->flush, LOOP_STAGE_NOTIFY, flush_clients);
    loop_task_init(loop, &control->ready, LOOP_STAGE_COMPLETE, run_ready);
    const struct vm_config *config = machine_config(machine);
    int result = 0;
    for (unsigned i = 0; i < config->monitor_count && !result; i++)
        result = open_monitor(control, &config->monitors[i], err);
    const struct machine_listener listener = {on_event, on_block_error, on_nic_addresses,
                                              on_named_event, control};
    machine_set_listener(machine, &listener);
    if (result)
        control_close(control, ignore_closed, NULL);
    else
        *out = control;
    return result;
}

static void finish_close(struct loop_task *task)
{
    struct control *control = container_of(task, struct control, ready);
    void (*on_closed)(void *opaque) = control->on_closed;
    void *opaque = control->closed_opaque;
    loop_task_cancel(&control->resume);
    loop_task_cancel(&control->flush);
    free(control);
    on_closed(opaque);
}

void control_on_handle_closed(struct control *control)
{
    if (!control->is_closing || --control->open_handles)
        return;
    loop_task_cancel(&control->ready);
    loop_task_init(control->loop, &control->ready, LOOP_STAGE_COMPLETE, finish_close);
    loop_task_queue(&control->ready);
}

static void on_listener_closed(struct loop_watch *watch)
{
    struct control_listener *listener = watch->opaque;
    control_on_handle_closed(listener->control);
}

static void close_listener(struct control_listener *listener)
{
    loop_watch_close(&listener->watch, on_listener_closed);
    close(listener->fd);
    if (listener->path)
        unlink(listener->path);
    free(listener->path);
    listener->path = NULL;
}

static void on_lingered(struct loop_timer *timer)
{
    drop_all(timer->opaque);
}

void control_close(struct control *control, void (*on_closed)(void *opaque), void *opaque)
{
    machine_set_listener(control->machine, &(struct machine_listener){0});
    commands_answer_quits(control);
    control->on_closed = on_closed;
    control->closed_opaque = opaque;
    control->is_closing = true;
    control->open_handles = control->listener_count + control->client_count + 1;
    for (unsigned i = 0; i < control->listener_count; i++)
        close_listener(&control->listeners[i]);
    CHECK(loop_timer_init(control->loop, &control->linger, on_lingered) == 0);
    control->linger.opaque = control;
    loop_timer_arm(&control->linger, loop_now_ns() + CONTROL_LINGER_MS * UINT64_C(1000000));
    loop_task_queue(&control->flush);
}
