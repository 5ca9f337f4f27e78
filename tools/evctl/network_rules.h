/* SPDX-License-Identifier: MIT */
/*
 * network_rules: the addresses, the forwarded ports and the nftables table of a network of the
 * host's kernel. One table holds all, so that one command takes all of it away.
 */
#ifndef TOOLS_EVCTL_NETWORK_RULES_H
#define TOOLS_EVCTL_NETWORK_RULES_H

#include <arpa/inet.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct network_subnet {
    uint32_t address, mask; /* in host byte order */
    unsigned bits;
};

struct network_rules {
    const char *name, *bridge;
    bool is_nat;
    struct network_subnet subnet;
    const char *subnet6; /* "" if there is none */
};

const char *network_dotted(uint32_t address, char out[INET_ADDRSTRLEN]);
bool network_read_address(const char *text, uint32_t *out);
/* Of a text "ADDRESS/BITS" that has been checked. */
struct network_subnet network_read_subnet(const char *text);

/* Whether all are as they should be, before anything is made. */
int must_check network_rules_check(const struct network_rules *rules, const json_t *forwards,
                                   struct error *err);
/* Whether both take the same port of the host; the guest's side may be incomplete. */
bool network_rules_collide(const char *a, const char *b);
/* Each of `forwards` is "[tcp:|udp:][ADDRESS:]PORT-ADDRESS:PORT". */
int must_check network_rules_up(json_t *undo, const struct network_rules *rules,
                                const json_t *forwards, struct error *err);
/* Gives a network that is up these forwards in place of those it had: all or none. */
int must_check network_rules_forward(const struct network_rules *rules, const json_t *forwards,
                                     struct error *err);

#endif
