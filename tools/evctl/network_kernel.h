/* SPDX-License-Identifier: MIT */
/*
 * network_kernel: networks of the host's kernel, made by root: a bridge with an address, DHCP by
 * dnsmasq, and for NAT forwarding and translation in an nftables table of its own; or a bridge with
 * one of the host's interfaces in it (network_uplink.c).
 *
 * `network` is what is kept of it (tools/evctl/network.h); the members that these functions add are
 *   kernel: true, bridge, gateway, uplink, undo: what takes it down again (network_steps.h),
 *   and of what was asked for what is needed to make it again: ipv6, dhcp, forwards, leases, pins
 *   (addresses that we gave for good), move-ip.
 */
#ifndef TOOLS_EVCTL_NETWORK_KERNEL_H
#define TOOLS_EVCTL_NETWORK_KERNEL_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

struct network_kernel_options {
    const char *subnet; /* NULL: the first that no route of the host overlaps */
    const char *bridge; /* NULL: named after the network */
    const char *ipv6;   /* NULL: none; "auto", or a prefix of 64 bits */
    const char *uplink; /* bridged: the host's interface that joins */
    bool moves_ip;
    bool no_dhcp;
    json_t *forwards;      /* texts, "[tcp:|udp:][ADDRESS:]PORT-ADDRESS:PORT" */
    json_t *leases, *pins; /* texts, "MAC=ADDRESS" */
};

/*
 * `mode` is nat or hostonly, `folder` is the network's own, which exists. On failure the host is as
 * it was.
 */
int must_check network_kernel_up(const char *name, const char *mode, const char *folder,
                                 const struct network_kernel_options *options, json_t *network,
                                 struct error *err);

/* network_life.c: any of them, by what network["mode"] and the options say; what became of it is
 * kept. */
int must_check network_bring_up(const char *name, const struct network_kernel_options *options,
                                json_t *network, struct error *err);

/* Of one that is up: its DHCP server again, if that has ended. */
int must_check network_kernel_mend(const char *name, const char *folder, const json_t *network,
                                   struct error *err);

/* These forwards in place of those that it has; of one that is down they are only checked. */
int must_check network_kernel_forward(const char *name, const char *folder, const json_t *network,
                                      const json_t *forwards, bool is_up, struct error *err);

/* The address of the machine with that MAC address, which from now on stays its own. */
int must_check network_kernel_pin(const char *name, const char *folder, json_t *network,
                                  const char *mac, bool is_up, char address[16], struct error *err);

/* network_uplink.c: a bridge with the host's interface `uplink` in it, on the same terms. */
int must_check network_uplink_up(const char *name, const char *uplink, const char *bridge,
                                 bool moves_ip, json_t *network, struct error *err);

/* The bridge's name: the one asked for, or one made of the network's. -EEXIST if it is there. */
int must_check network_bridge_name(const char *name, const char *asked, char out[16],
                                   struct error *err);

#endif
