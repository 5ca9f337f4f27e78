/* SPDX-License-Identifier: MIT */
/* network_private: what the files of networks by name share. */
#ifndef TOOLS_EVCTL_NETWORK_PRIVATE_H
#define TOOLS_EVCTL_NETWORK_PRIVATE_H

#include "tools/evctl/network.h"

/* "ROOT/.networks/NAME" and what follows; the caller frees it. */
char *network_path(const char *name, const char *suffix, struct error *err);
/* Of all networks. */
json_t *network_names(void);
/* The machines that have a NIC on it. */
json_t *network_users(const char *name);
/* Keeps what has changed: whole or not at all. */
int must_check network_replace(const char *name, const json_t *network, struct error *err);
void network_forget(const char *name);

/* Root made it on this host, and it is there. */
bool network_is_up(const json_t *network);
bool network_is_kernel(const json_t *network);

#endif
