/* SPDX-License-Identifier: MIT */
/*
 * nic_addresses: which IP addresses the guest has on one NIC, and word of it when they change.
 *
 * Leases end by themselves. Changes are told at most once a second, so that a guest that changes
 * its addresses all the time keeps nobody busy. Everything runs on the loop's thread.
 */
#ifndef VMM_NIC_ADDRESSES_H
#define VMM_NIC_ADDRESSES_H

#include "base/loop.h"
#include "netbackends/address_snoop.h"
#include "netbackends/net.h"

struct nic_addresses {
    struct net_observer observer;
    struct loop *loop;
    struct address_snoop snoop;
    void (*on_changed)(struct nic_addresses *addresses);
    void *opaque;
    /* Private. */
    uint8_t guarded_mac[6];
    struct loop_timer timer;
    uint64_t told_ns; /* when a change was last told */
    bool has_news;
    void (*on_closed)(struct nic_addresses *addresses);
};

/* Watches what passes the backend until it is closed. 0 or -errno. */
int must_check nic_addresses_init(struct nic_addresses *addresses, struct loop *loop,
                                  struct net_backend *backend,
                                  void (*on_changed)(struct nic_addresses *addresses));
/* From now on the guest may only send as itself: see netbackends/antispoof.h. */
void nic_addresses_guard(struct nic_addresses *addresses, const uint8_t mac[6]);
/* The guest starts anew. */
void nic_addresses_clear(struct nic_addresses *addresses);
/* After the backend has gone. */
void nic_addresses_close(struct nic_addresses *addresses,
                         void (*on_closed)(struct nic_addresses *addresses));

#endif
