/* SPDX-License-Identifier: MIT */
/*
 * char: a stream of bytes to a person or a program outside, as a device sees it.
 *
 * A backend (vmm/chardev; in tests a buffer) has at most one user. Nothing here blocks or waits,
 * and the backend never calls its user from inside a call of the user's. Loop's thread.
 */
#ifndef DEVICES_CHAR_H
#define DEVICES_CHAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct char_backend;

struct char_backend_ops {
    /*
     * Takes up to `length` bytes and returns how many. Fewer: its buffer is full, on_writable
     * follows when there is room. With nobody at the other end it takes and drops all.
     */
    size_t (*write)(struct char_backend *backend, const void *bytes, size_t length);
    /* The user has room again; input comes later, on the loop. May be called at any time. */
    void (*accept_input)(struct char_backend *backend);
};

struct char_user_ops {
    /* How many bytes on_input may bring now. While 0 the backend stops reading its source. */
    size_t (*input_room)(void *user);
    void (*on_input)(void *user, const uint8_t *bytes, size_t length);
    /* The rest is optional. */
    void (*on_writable)(void *user);
    void (*on_break)(void *user);
    /* Somebody came to or left the other end. Where is_open is true already, no on_open comes. */
    void (*on_open)(void *user);
    void (*on_close)(void *user);
    /* Of several users of one stream, this one now gets the input, or does no longer. */
    void (*on_focus)(void *user, bool has_focus);
};

/* Embedded in each implementation. */
struct char_backend {
    const struct char_backend_ops *ops;
    const struct char_user_ops *user_ops; /* NULL: no user; input is then left at the source */
    void *user;
    bool is_open;
};

static inline void char_set_user(struct char_backend *backend, const struct char_user_ops *ops,
                                 void *user)
{
    backend->user_ops = ops;
    backend->user = user;
    backend->ops->accept_input(backend);
}

static inline size_t char_write(struct char_backend *backend, const void *bytes, size_t length)
{
    return backend->ops->write(backend, bytes, length);
}

static inline void char_accept_input(struct char_backend *backend)
{
    backend->ops->accept_input(backend);
}

#endif
