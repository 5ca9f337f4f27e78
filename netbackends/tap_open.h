/* SPDX-License-Identifier: MIT */
/* tap_open: gets a TAP descriptor, by name or from a bridge helper, and learns what it can do. */
#ifndef NETBACKENDS_TAP_OPEN_H
#define NETBACKENDS_TAP_OPEN_H

#include <net/if.h>

#include "netbackends/tap.h"

struct tap_device {
    int fd;
    char ifname[IFNAMSIZ];
    bool has_vnet_hdr;
    unsigned offloads; /* of enum net_offloads: what the kernel does */
    unsigned mtu;      /* 0: not known */
};

/* Blocks while a helper runs: start-up. */
int must_check tap_open(const struct net_tap_options *options, struct tap_device *out,
                        struct error *err);

/* What the kernel may hand to us. 0 or -errno. */
int must_check tap_set_offloads(int fd, unsigned offloads);

#endif
