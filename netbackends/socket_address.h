/* SPDX-License-Identifier: MIT */
/* socket_address: where a stream or dgram backend's sockets are, and how they are opened. */
#ifndef NETBACKENDS_SOCKET_ADDRESS_H
#define NETBACKENDS_SOCKET_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/error.h"

/* Either a path, or a numeric host ("localhost" counts) and a port. */
struct net_socket_address {
    const char *path;
    const char *host;
    uint16_t port;
};

struct socket_address {
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        struct sockaddr_in ipv4;
        struct sockaddr_in6 ipv6;
    } at;
    socklen_t length;
    char name[128]; /* for people: the path, or "host:port" */
};

int must_check socket_address_resolve(const struct net_socket_address *from,
                                      struct socket_address *out, struct error *err);

/* Non-blocking and close-on-exec; -errno. */
int must_check socket_address_open(const struct socket_address *address, int type);

/*
 * Opens and binds; the file of a local socket is for its owner only, and one that nobody listens on
 * any more is replaced. A descriptor, or -errno with the sentence set.
 */
int must_check socket_address_bind(const struct socket_address *address, int type,
                                   struct error *err);

/* Whether it is a local socket whose owner is gone. */
bool socket_address_is_stale(const struct socket_address *address, int type);

/* Removes the file that bind made. */
void socket_address_unlink(const struct socket_address *address);

#endif
