/* SPDX-License-Identifier: MIT */
/*
 * socket: listening stream sockets for control, chardevs and disk exports, local only.
 *
 * All descriptors are non-blocking and close-on-exec.
 */
#ifndef BASE_SOCKET_H
#define BASE_SOCKET_H

#include <stdint.h>

#include "base/error.h"

/*
 * The descriptor, or -errno. The socket file gets mode 0600. A socket file that nobody listens on
 * any more is replaced; one with a listener, or any other file, is refused.
 */
int must_check socket_listen_unix(const char *path, struct error *err);

/* `host` must be a loopback address, "localhost", or NULL or "" for 127.0.0.1. */
int must_check socket_listen_tcp(const char *host, uint16_t port, struct error *err);

/*
 * The next connection, or -errno; -EAGAIN when there is none. On a unix socket a peer of another
 * user is turned away (-EPERM; root may always come); call again for the next.
 */
int must_check socket_accept(int listener);

/* Whoever is at the other end hears a reset, or the end on a unix socket, which knows none. The
 * descriptor stays open. */
void socket_break_off(int fd);

#endif
