/* SPDX-License-Identifier: MIT */
/*
 * shared_rules: where a frame belongs on a network that several machines share: to the machine's
 * own engine (router, DHCP, name server), to the other machines, or nowhere.
 *
 * Each machine brings its own engine under the same addresses. So what is for the engine stays in
 * the machine, and what only an engine may say is not believed from the others. Pure functions over
 * the first bytes of a frame; frames are hostile.
 */
#ifndef NETBACKENDS_SHARED_RULES_H
#define NETBACKENDS_SHARED_RULES_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHARED_HEAD_BYTES 96 /* as much of a frame as the rules look at */

enum shared_way { SHARED_TO_ENGINE = 1, SHARED_TO_OTHERS = 2 };

struct shared_rules {
    struct in_addr net, mask, host, dns;
    struct in6_addr host6, dns6;
    bool has_client; /* a machine has one lease: the first that asks for it */
    uint8_t client[6];
};

/* A set of shared_way; 0: the frame is dropped. `length` is that of the head. */
unsigned shared_rules_sent(struct shared_rules *rules, const uint8_t *head, size_t length);
/* False if none of the other machines may send this. */
bool shared_rules_received(const struct shared_rules *rules, const uint8_t *head, size_t length);

/*
 * On a network that leads nowhere: takes the router and the name server out of what the engine
 * tells the guest. True if the frame changed.
 */
bool shared_rules_hide_router(uint8_t *frame, size_t length);

#endif
