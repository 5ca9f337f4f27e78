/* SPDX-License-Identifier: MIT */
/*
 * leases: which machine has which address of a network that several share, without a daemon.
 *
 * Each address is a file in the network's folder, "10.0.2.15.lease"; whoever holds its lock has the
 * address. A process that ends, however it ends, gives it back. The file keeps the name of its last
 * holder, who gets the same address again while nobody else needs it.
 */
#ifndef NETBACKENDS_LEASES_H
#define NETBACKENDS_LEASES_H

#include <netinet/in.h>

#include "base/error.h"

#define LEASES_MAX 256 /* addresses that are tried */

struct leases_pool {
    struct in_addr net, mask;
    struct in_addr first;    /* and all that follow it in the net, */
    struct in_addr taken[2]; /* but for these */
};

/*
 * Claims an address of the pool for `holder` ("" is nobody in particular). A descriptor for
 * leases_give_back, or -errno.
 */
int must_check leases_claim(const char *folder, const struct leases_pool *pool, const char *holder,
                            struct in_addr *out, struct error *err);
void leases_give_back(int fd);

#endif
