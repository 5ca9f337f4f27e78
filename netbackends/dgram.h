/* SPDX-License-Identifier: MIT */
/*
 * dgram: one frame per datagram, over a local (unix) or UDP socket, as QEMU's -netdev dgram has it.
 * No offloads. A peer that is not there yet, or left, is a wire with nobody at its end: frames are
 * dropped, and flow again when it comes. If the remote end is an IPv4 multicast group, all who
 * joined it are the peers.
 */
#ifndef NETBACKENDS_DGRAM_H
#define NETBACKENDS_DGRAM_H

#include "netbackends/net.h"
#include "netbackends/socket_address.h"

struct net_dgram_options {
    /* Where the peer finds us; with a group only the host matters: whose interface, if given. */
    struct net_socket_address local;
    struct net_socket_address remote;
};

int must_check net_dgram_create(struct loop *loop, const char *id,
                                const struct net_dgram_options *options, struct net_backend **out,
                                struct error *err);

#endif
