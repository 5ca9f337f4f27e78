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
/* The same where a NIC is to be on it: the error tells what else it may be on. */
json_t *network_load_for_nic(const char *name, struct error *err);

/* Appends what --net may be: modes and the networks that are there. */
void network_add_names(json_t *names);

/* What follows -netdev for a NIC of this machine, without id and forwards; the caller frees it. */
char *network_netdev(const json_t *nic, struct error *err);

/* A network that root made and that is gone, as after the host's restart, is made again; for others
 * than root the error names the command. */
int must_check network_ensure(const json_t *nic, struct error *err);

/* Whether ports of the host are forwarded to it by evisor: it is behind NAT, or on a network that
 * evisor itself makes. */
bool network_forwards(const json_t *nic);

/*
 * network_forward.c: ports forwarded by the host's kernel, to a NIC on a nat network that root
 * made. The rule, as model_read_forward gives it, is completed with the guest's address, which
 * stays.
 */
bool network_is_kernel_nat(const json_t *nic);
int must_check network_forward_add(const json_t *nic, const char *rule, char **whole,
                                   struct error *err);
int must_check network_forward_del(const json_t *nic, const char *rule, struct error *err);
/* The NIC goes, and with it what was kept for it. */
void network_forward_forget(const json_t *nic);
/* The same for all of a machine's; config may be NULL. */
void network_forward_forget_all(const json_t *config);

#endif
