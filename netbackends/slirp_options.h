/* SPDX-License-Identifier: MIT */
/* slirp_options: the words of -netdev user made into addresses, checked against each other. */
#ifndef NETBACKENDS_SLIRP_OPTIONS_H
#define NETBACKENDS_SLIRP_OPTIONS_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/error.h"
#include "netbackends/slirp.h"

#define SLIRP_DNSSEARCH_MAX 16

struct slirp_addresses {
    struct in_addr net, mask, host, dns, dhcpstart;
    struct in6_addr prefix6, host6, dns6;
    uint8_t prefix6_bits;
};

int must_check slirp_options_addresses(const struct net_slirp_options *options,
                                       struct slirp_addresses *out, struct error *err);

/* Strings that libslirp would cut short or abort over. */
int must_check slirp_options_check_strings(const struct net_slirp_options *options,
                                           struct error *err);

/*
 * Splits a copy of "a,b,c" into `names`, ended by NULL; returns the copy, which owns them (NULL for
 * a NULL list).
 */
char *slirp_options_split(const char *list, const char *names[SLIRP_DNSSEARCH_MAX + 1]);

/* Both ends of a forward; of one family. */
struct slirp_forward_addresses {
    struct sockaddr_storage host, guest;
    socklen_t host_length, guest_length;
};

int must_check slirp_options_forward(const struct net_forward *forward,
                                     struct slirp_forward_addresses *out, struct error *err);

/* "tcp 127.0.0.1:2222", "unix /run/guest.sock" */
#define SLIRP_FORWARD_NAME_BYTES 128
void slirp_options_forward_name(const struct net_forward *forward,
                                char name[SLIRP_FORWARD_NAME_BYTES]);

#endif
