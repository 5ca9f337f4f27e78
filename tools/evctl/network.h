/* SPDX-License-Identifier: MIT */
/*
 * network: networks by name, each a file ROOT/.networks/NAME.json: {mode, subnet, restrict,
 * bridge}. An internal network's machines meet in the folder ROOT/.networks/NAME.
 */
#ifndef TOOLS_EVCTL_NETWORK_H
#define TOOLS_EVCTL_NETWORK_H

#include <jansson.h>

#include "base/error.h"

/* NULL with err set (ENODEV if there is none of that name). */
json_t *network_load(const char *name, struct error *err);

/* What follows -netdev for a NIC of this machine, without id and forwards; the caller frees it. */
char *network_netdev(const json_t *nic, struct error *err);

#endif
