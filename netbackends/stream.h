/* SPDX-License-Identifier: MIT */
/*
 * stream: frames over one stream socket, as QEMU's -netdev stream and socket, passt and gvproxy
 * speak it: a big-endian 32-bit length, then the frame. No offloads.
 *
 * The carrier follows the connection. A server serves one peer at a time and waits for the next; a
 * client tries again if reconnect_ms says so. A peer that breaks the framing is disconnected.
 */
#ifndef NETBACKENDS_STREAM_H
#define NETBACKENDS_STREAM_H

#include "netbackends/net.h"
#include "netbackends/socket_address.h"

struct net_stream_options {
    struct net_socket_address address;
    bool is_server;
    unsigned reconnect_ms; /* client: 0 for a single try */
};

int must_check net_stream_create(struct loop *loop, const char *id,
                                 const struct net_stream_options *options, struct net_backend **out,
                                 struct error *err);

#endif
