/* SPDX-License-Identifier: MIT */
/*
 * shared: a NAT or host-only network that several machines of one user share, without a daemon and
 * without root.
 *
 * The network is a folder. The machines reach each other through it as on an internal network, and
 * the outside, or the host alone, through an engine of libslirp's. Each machine has an engine of
 * its own under the same addresses: whichever machine leaves or is killed, the others keep their
 * router and their connections. The DHCP address of each machine is claimed in the folder, so that
 * no two get the same, and the same machine gets its own again.
 */
#ifndef NETBACKENDS_SHARED_H
#define NETBACKENDS_SHARED_H

#include "netbackends/slirp.h"

struct net_shared_options {
    const char *folder; /* made, for its owner only, if it is not there */
    const char *name;   /* of the machine: keeps its address; may be NULL */
    /* host_only makes it a host-only network; there, forwards listen on the host's loopback only.
     * `dhcpstart` is the first machine's address. */
    struct net_slirp_options nat;
};

int must_check net_shared_create(struct loop *loop, const char *id,
                                 const struct net_shared_options *options, struct net_backend **out,
                                 struct error *err);


/*
 * The NAT that takes forwards (net_slirp_forward_add and the like): the backend itself where it is
 * one of net_slirp_create, the engine of a shared network, or NULL.
 */
struct net_backend *net_shared_nat(struct net_backend *backend);

#endif
