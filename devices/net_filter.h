/* SPDX-License-Identifier: MIT */
/*
 * net_filter: which frames a NIC lets through to its guest (virtio 1.2, sections 5.1.6.5.1 to 3):
 * receive modes, the table of addresses, VLANs; and the commands that set them.
 */
#ifndef DEVICES_NET_FILTER_H
#define DEVICES_NET_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define NET_FILTER_ADDRESSES_MAX 64
#define NET_FILTER_VLANS         4096

struct net_filter_table {
    uint32_t count;
    uint8_t overflowed; /* more than fit: all pass */
    uint8_t addresses[NET_FILTER_ADDRESSES_MAX * 6];
};

/* Integers only, so that it is part of the device's state as it lies. */
struct net_filter {
    uint8_t mac[6];
    uint8_t promiscuous;
    uint8_t all_multicast, all_unicast;
    uint8_t no_multicast, no_unicast, no_broadcast;
    uint8_t checks_vlan;
    struct net_filter_table unicast, multicast;
    uint8_t vlans[NET_FILTER_VLANS / 8];
};

/* Everything passes until the driver says otherwise. */
void net_filter_reset(struct net_filter *filter, const uint8_t mac[6]);

/* Looks at no more than `length` bytes, the start of a frame. */
bool net_filter_passes(const struct net_filter *filter, const uint8_t *frame, size_t length);

/* Whether frames of it pass, in a NIC that is not promiscuous. */
bool net_filter_has_vlan(const struct net_filter *filter, unsigned vlan);

/*
 * Does a command of one of the classes VIRTIO_NET_CTRL_RX, _MAC and _VLAN; its data starts at
 * `offset` of the list. False: unknown or malformed, nothing changed.
 */
bool net_filter_command(struct net_filter *filter, uint8_t class, uint8_t command,
                        const struct iovec *iov, size_t iov_count, size_t offset);

#endif
