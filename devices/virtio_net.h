/* SPDX-License-Identifier: MIT */
/*
 * virtio_net: a NIC for the guest (virtio 1.2, section 5.1) over a backend of netbackends/net.h.
 *
 * Offers the guest exactly the offloads that the backend has. Frames that the rules of the device
 * forbid are dropped; a guest that breaks the rules of its queues breaks its NIC.
 */
#ifndef DEVICES_VIRTIO_NET_H
#define DEVICES_VIRTIO_NET_H

#include "devices/net_filter.h"
#include "devices/virtio_pci.h"
#include "netbackends/net.h"

struct virtio_net_options {
    uint8_t mac[6];
    uint16_t mtu;          /* told to the guest; 0: not told */
    uint64_t features_off; /* not offered, and so nothing that needs them */
    /* Optional. The guest changed which frames it wants, since virtio_net_read_filter was called.
     */
    void (*on_filter_changed)(void *opaque, struct device *device);
    void *opaque;
};

/* The backend stays the caller's; it is closed after the device, which attaches itself to it. */
int must_check virtio_net_create(const struct virtio_pci_place *place, struct net_backend *backend,
                                 const struct virtio_net_options *options, struct device **out,
                                 struct error *err);

/*
 * Joins a running NIC to another backend (NULL: none, and the carrier is off). The old one is left
 * detached. -EBUSY: the guest uses offloads that the new one lacks.
 */
int must_check virtio_net_swap_backend(struct device *device, struct net_backend *backend,
                                       struct error *err);

/* Which frames the guest wants. The first change after it is told, and no other. */
const struct net_filter *virtio_net_read_filter(struct device *device);

/* Asks the guest to announce itself: after its place in the network changed. */
void virtio_net_announce(struct device *device);

#endif
