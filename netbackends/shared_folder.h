/* SPDX-License-Identifier: MIT */
/*
 * shared_folder: what the machines of a shared network must agree on, kept in the network's folder:
 * its kind and its addresses, as the first machine said them.
 */
#ifndef NETBACKENDS_SHARED_FOLDER_H
#define NETBACKENDS_SHARED_FOLDER_H

#include "base/error.h"
#include "netbackends/slirp_options.h"

#define SHARED_NETWORK_FILE "network"

/*
 * Makes the folder where it is missing. The first machine's options are written down; whoever comes
 * later and names no addresses gets the network as it is, and is refused if it wants another one.
 * `options` is only read: the addresses come out in `addresses`.
 */
int must_check shared_folder_agree(const char *folder, const struct net_slirp_options *options,
                                   struct slirp_addresses *addresses, struct error *err);

#endif
