/* SPDX-License-Identifier: MIT */
/*
 * chardev: the other end of a char_backend: a terminal, file, pty or socket of the host.
 *
 * All descriptors are non-blocking and all buffers bounded: a reader that never reads costs its own
 * output, never the machine's time. A raw terminal is put back on every way out of the process that
 * can be caught: exit, abort, fatal signals.
 *
 * A multiplexed one (config's is_mux) has several users who share its input; Ctrl-a is its escape:
 * Ctrl-a h help, x quit, c next user, b break, Ctrl-a itself.
 */
#ifndef VMM_CHARDEV_CHARDEV_H
#define VMM_CHARDEV_CHARDEV_H

#include "base/error.h"
#include "base/loop.h"
#include "devices/char.h"
#include "vmm/config.h"

struct chardev;

#define CHARDEV_USERS_MAX 4

/*
 * Opens it. Start-up: may block, and does where a server waits for its client. Prints the line
 * about a new pty that people and tools look for. `config` must outlive the chardev.
 */
int must_check chardev_create(struct loop *loop, const struct config_chardev *config,
                              struct chardev **out, struct error *err);

/*
 * A backend for one more user; it lives as long as the chardev. -EBUSY if the chardev is not
 * multiplexed and has one already, -ENOSPC beyond CHARDEV_USERS_MAX. The first one gets the input.
 */
int must_check chardev_attach(struct chardev *chardev, struct char_backend **out,
                              struct error *err);

/* Its user is gone (char_set_user to NULL): the place is free for another. */
void chardev_detach(struct char_backend *backend);

/* Ctrl-a x. Until it is set the key does nothing. */
void chardev_on_quit(struct chardev *chardev, void (*on_quit)(void *opaque), void *opaque);

/* For query-chardev: "pty:/dev/pts/3", "unix:/run/a.sock,server=on". */
const char *chardev_filename(const struct chardev *chardev);

/* A ringbuf keeps the newest output for whoever reads it, and takes it out. */
bool chardev_is_ringbuf(const struct chardev *chardev);
size_t chardev_ringbuf_read(struct chardev *chardev, void *to, size_t length);
void chardev_ringbuf_write(struct chardev *chardev, const void *bytes, size_t length);
/* A break on the line, for the user who has the input. */
void chardev_send_break(struct chardev *chardev);


/* Writes what can be written at once, restores the terminal, frees; then on_closed, later. */
void chardev_close(struct chardev *chardev, void (*on_closed)(void *opaque), void *opaque);

#endif
