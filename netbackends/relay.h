/* SPDX-License-Identifier: MIT */
/*
 * relay: takes connections on a private local socket and passes each on to a TCP or local one.
 *
 * libslirp connects a guest's forwarded connections by itself, and would wait for a server that
 * does not accept. What it connects to is this, which always accepts; the connection further on
 * is made without waiting. A server that is not there ends the connection.
 */
#ifndef NETBACKENDS_RELAY_H
#define NETBACKENDS_RELAY_H

#include "base/loop.h"
#include "netbackends/socket_address.h"

struct relay;

int must_check relay_create(struct loop *loop, const char *id,
                            const struct net_socket_address *target, struct relay **out,
                            struct error *err);

/* Where this process connects to; no other process can. */
const char *relay_path(const struct relay *relay);

/* Takes in who waits; happens by itself once a loop turn. */
void relay_accept(struct relay *relay);

/* Connections that are open now; each takes two descriptors. */
size_t relay_count(const struct relay *relay);

/* Ends all connections. `on_closed` may be NULL; it is never called from inside. */
void relay_close(struct relay *relay, void (*on_closed)(void *opaque), void *opaque);

#endif
