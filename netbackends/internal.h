/* SPDX-License-Identifier: MIT */
/*
 * internal: a network of machines on this host, without a daemon and without root.
 *
 * The network is a folder. Each NIC on it binds a datagram socket there and sees the others come
 * and go. Who may use the folder may join. Frames go straight to the machine that has their target
 * address, once it is known, and to all otherwise; large frames and unfinished checksums travel as
 * they are between machines that take them. A slow or dead machine does not hold up the others.
 */
#ifndef NETBACKENDS_INTERNAL_H
#define NETBACKENDS_INTERNAL_H

#include "netbackends/net.h"

struct net_internal_options {
    const char *folder; /* made, for its owner only, if it is not there */
    const char *name;   /* of the machine, for people who look into the folder; may be NULL */
};

int must_check net_internal_create(struct loop *loop, const char *id,
                                   const struct net_internal_options *options,
                                   struct net_backend **out, struct error *err);

/* How many others are on the network now. */
size_t net_internal_peer_count(const struct net_backend *backend);

#endif
