/* SPDX-License-Identifier: MIT */
/* netdev: the network backend that a NIC's config describes. Start-up. */
#ifndef VMM_NETDEV_H
#define VMM_NETDEV_H

#include "base/error.h"
#include "base/loop.h"
#include "vmm/config.h"

struct net_backend;

/* `machine_name` may be NULL; it is for people who look into an internal network's folder. */
int must_check netdev_create(struct loop *loop, const struct config_nic *nic,
                             const char *machine_name, struct net_backend **out, struct error *err);

#endif
