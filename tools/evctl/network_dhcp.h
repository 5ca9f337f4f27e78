/* SPDX-License-Identifier: MIT */
/*
 * network_dhcp: dnsmasq for a network of the host's kernel: addresses, names where there is an
 * outside, and router advertisements where there is IPv6.
 */
#ifndef TOOLS_EVCTL_NETWORK_DHCP_H
#define TOOLS_EVCTL_NETWORK_DHCP_H

#include "tools/evctl/network_rules.h"

struct network_dhcp {
    const char *folder, *bridge;
    bool is_nat;
    struct network_subnet subnet;
    const char *subnet6;         /* "" if there is none */
    const json_t *leases, *pins; /* texts, "MAC=ADDRESS": what was asked for, what we gave */
};

int must_check network_dhcp_start(json_t *undo, const struct network_dhcp *dhcp, struct error *err);
/* In place of the one that runs, if one does; what it leased it goes on leasing. */
int must_check network_dhcp_restart(const struct network_dhcp *dhcp, struct error *err);
bool network_dhcp_is_alive(const char *folder);

/* The address that this machine has, or one that nobody has. */
int must_check network_dhcp_address(const struct network_dhcp *dhcp, const char *mac, uint32_t *out,
                                    struct error *err);

#endif
