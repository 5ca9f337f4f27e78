/* SPDX-License-Identifier: MIT */
/* chardev_mux: the users of a chardev: whose turn it is, and what Ctrl-a means. */
#include <errno.h>
#include <stdio.h>

#include "vmm/chardev/chardev_private.h"

#define ESCAPE 0x01

static size_t on_write(struct char_backend *backend, const void *bytes, size_t length)
{
    struct chardev_user *user = container_of(backend, struct chardev_user, backend);
    size_t taken = chardev_queue_output(user->chardev, bytes, length);
    if (taken < length)
        user->wants_writable = true;
    return taken;
}

static void on_accept_input(struct char_backend *backend)
{
    struct chardev_user *user = container_of(backend, struct chardev_user, backend);
    loop_task_queue(&user->chardev->deliver);
}

static const struct char_backend_ops backend_ops = {on_write, on_accept_input};

void chardev_init_users(struct chardev *chardev)
{
    for (unsigned i = 0; i < CHARDEV_USERS_MAX; i++) {
        struct chardev_user *user = &chardev->users[i];
        user->backend.ops = &backend_ops;
        user->chardev = chardev;
        user->input =
            (struct chardev_ring){.bytes = user->input_bytes, .capacity = CHARDEV_INPUT_BYTES};
    }
}

int chardev_attach(struct chardev *chardev, struct char_backend **out, struct error *err)
{
    unsigned limit = chardev->config->is_mux ? CHARDEV_USERS_MAX : 1;
    unsigned i = 0;
    while (i < limit && chardev->users[i].is_attached)
        i++;
    if (i == limit)
        return error_set(err, limit == 1 ? EBUSY : ENOSPC, "chardev '%s' is in use already%s",
                         chardev->config->id, limit == 1 ? "; give it mux=on to share it" : "");
    struct chardev_user *user = &chardev->users[i];
    chardev->user_count = MAX(chardev->user_count, i + 1);
    user->is_attached = true;
    *out = &user->backend;
    return 0;
}

static struct chardev_user *focused(const struct chardev *chardev)
{
    return (struct chardev_user *)&chardev->users[chardev->focus];
}

size_t chardev_input_room(const struct chardev *chardev)
{
    const struct chardev_user *user = focused(chardev);
    return user->backend.user_ops ? ring_room(&user->input) : 0;
}

void chardev_detach(struct char_backend *backend)
{
    struct chardev_user *user = container_of(backend, struct chardev_user, backend);
    struct chardev *chardev = user->chardev;
    CHECK(user->is_attached && !backend->user_ops);
    user->is_attached = user->wants_writable = false;
    user->input.start = user->input.count = 0;
    while (chardev->user_count && !chardev->users[chardev->user_count - 1].is_attached)
        chardev->user_count--;
    if (chardev->focus >= chardev->user_count)
        chardev->focus = 0;
}

static void tell_focus(struct chardev_user *user, bool has_focus)
{
    const struct char_user_ops *ops = user->backend.user_ops;
    if (ops && ops->on_focus)
        ops->on_focus(user->backend.user, has_focus);
}

static void switch_focus(struct chardev *chardev)
{
    unsigned next = (chardev->focus + 1) % MAX(chardev->user_count, 1u);
    if (next == chardev->focus)
        return;
    struct chardev_user *old = focused(chardev);
    chardev->focus = next;
    tell_focus(old, false);
    tell_focus(focused(chardev), true);
}

static void send_break(const struct chardev_user *user)
{
    const struct char_user_ops *ops = user->backend.user_ops;
    if (ops && ops->on_break)
        ops->on_break(user->backend.user);
}

void chardev_send_break(struct chardev *chardev)
{
    send_break(focused(chardev));
}

static void print_help(struct chardev *chardev)
{
    static const char help[] = "\r\n"
                               "Ctrl-a h   this help\r\n"
                               "Ctrl-a x   end the machine\r\n"
                               "Ctrl-a c   switch between console and monitor\r\n"
                               "Ctrl-a b   send a break\r\n"
                               "Ctrl-a Ctrl-a   send Ctrl-a\r\n";
    chardev_queue_output(chardev, help, sizeof(help) - 1);
}

static void act_on_escape(struct chardev *chardev, uint8_t byte)
{
    struct chardev_user *user = focused(chardev);
    switch (byte) {
    case ESCAPE:
        ring_put(&user->input, &byte, 1);
        break;
    case 'h':
    case '?':
        print_help(chardev);
        break;
    case 'x':
        if (chardev->on_quit)
            chardev->on_quit(chardev->on_quit_opaque);
        break;
    case 'c':
        switch_focus(chardev);
        break;
    case 'b':
        send_break(user);
        break;
    default:
        break;
    }
}

static void take_muxed_byte(struct chardev *chardev, uint8_t byte)
{
    if (chardev->has_escape) {
        chardev->has_escape = false;
        act_on_escape(chardev, byte);
    } else if (byte == ESCAPE) {
        chardev->has_escape = true;
    } else {
        ring_put(&focused(chardev)->input, &byte, 1);
    }
}

void chardev_take_input(struct chardev *chardev, const uint8_t *bytes, size_t length)
{
    if (chardev->config->is_mux) {
        for (size_t i = 0; i < length; i++)
            take_muxed_byte(chardev, bytes[i]);
    } else {
        ring_put(&focused(chardev)->input, bytes, length);
    }
    loop_task_queue(&chardev->deliver);
}

static void deliver_to(struct chardev_user *user)
{
    while (user->input.count > 0 && user->backend.user_ops) {
        const uint8_t *bytes;
        size_t run = ring_run(&user->input, &bytes);
        run = MIN(run, user->backend.user_ops->input_room(user->backend.user));
        if (run == 0)
            break;
        user->backend.user_ops->on_input(user->backend.user, bytes, run);
        ring_drop(&user->input, run);
    }
}

void chardev_deliver(struct chardev *chardev)
{
    for (unsigned i = 0; i < chardev->user_count; i++)
        deliver_to(&chardev->users[i]);
}

void chardev_tell_writable(struct chardev *chardev)
{
    for (unsigned i = 0; i < chardev->user_count; i++) {
        struct chardev_user *user = &chardev->users[i];
        const struct char_user_ops *ops = user->backend.user_ops;
        if (!user->wants_writable)
            continue;
        user->wants_writable = false;
        if (ops && ops->on_writable)
            ops->on_writable(user->backend.user);
    }
}

void chardev_tell_open(struct chardev *chardev, bool is_open)
{
    for (unsigned i = 0; i < CHARDEV_USERS_MAX; i++) {
        struct chardev_user *user = &chardev->users[i];
        const struct char_user_ops *ops = user->backend.user_ops;
        if (user->backend.is_open == is_open)
            continue;
        user->backend.is_open = is_open;
        if (is_open && ops && ops->on_open)
            ops->on_open(user->backend.user);
        else if (!is_open && ops && ops->on_close)
            ops->on_close(user->backend.user);
    }
}
