/* SPDX-License-Identifier: MIT */
/*
 * network: networks by name, each a file ROOT/.networks/NAME.json: {mode, subnet, restrict,
 * bridge}, and for what root made what network_kernel.h says. The machines of an internal network,
 * and of a shared one without root, meet in the folder ROOT/.networks/NAME.
 */
#ifndef TOOLS_EVCTL_NETWORK_H
#define TOOLS_EVCTL_NETWORK_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

/* NULL with err set (ENODEV if there is none of that name). */
json_t *network_load(const char *name, struct error *err);

/* Appends what --net may be: modes and the networks that are there. */
void network_add_names(json_t *names);

/* What follows -netdev for a NIC of this machine, without id and forwards; the caller frees it. */
char *network_netdev(const json_t *nic, struct error *err);

/* Whether ports of the host are forwarded to it by evisor: it is behind NAT, or on a network that
 * evisor itself makes. */
bool network_forwards(const json_t *nic);

#endif
