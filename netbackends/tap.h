/* SPDX-License-Identifier: MIT */
/*
 * tap: frames to and from a TAP interface of the host, with the kernel's checksum and segmentation
 * offloads both ways where the interface has a vnet header.
 *
 * The interface is opened by name (made if the process may), taken over as a descriptor, or handed
 * over by a helper that speaks qemu-bridge-helper's protocol. If it is removed while the machine
 * runs, the carrier goes down and the machine runs on.
 */
#ifndef NETBACKENDS_TAP_H
#define NETBACKENDS_TAP_H

#include "netbackends/net.h"

#define NET_TAP_HELPER "/usr/lib/qemu/qemu-bridge-helper"

struct net_tap_options {
    const char *ifname; /* NULL: the kernel names it */
    int fd;             /* an open TAP that the backend takes over; -1: none */
    const char *bridge; /* make a TAP on this bridge, or have the helper do it */
    const char *helper; /* NULL: NET_TAP_HELPER, where it takes more rights than ours */
    bool vnet_hdr_off;
};

int must_check net_tap_create(struct loop *loop, const char *id,
                              const struct net_tap_options *options, struct net_backend **out,
                              struct error *err);

/* The interface's name on the host. */
const char *net_tap_ifname(const struct net_backend *backend);

#endif
