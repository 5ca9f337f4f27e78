/* SPDX-License-Identifier: MIT */
/* net_filter: receive filtering of a NIC. Pure functions over their struct. */
#include "devices/net_filter.h"

#include <linux/virtio_net.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/iov.h"

enum { ETHERNET_BYTES = 14, TYPE_VLAN = 0x8100 };

void net_filter_reset(struct net_filter *filter, const uint8_t mac[6])
{
    *filter = (struct net_filter){.promiscuous = 1};
    memcpy(filter->mac, mac, 6);
}

static bool has_address(const struct net_filter_table *table, const uint8_t *address)
{
    for (uint32_t i = 0; i < table->count; i++)
        if (!memcmp(table->addresses + (size_t)i * 6, address, 6))
            return true;
    return table->overflowed;
}

bool net_filter_has_vlan(const struct net_filter *filter, unsigned vlan)
{
    return !filter->checks_vlan || filter->vlans[vlan / 8] & 1 << vlan % 8;
}

static bool passes_vlan(const struct net_filter *filter, const uint8_t *frame, size_t length)
{
    if (length < ETHERNET_BYTES + 4 || load_be16(frame + 12) != TYPE_VLAN)
        return true;
    return net_filter_has_vlan(filter, load_be16(frame + 14) & 0xfff);
}

bool net_filter_passes(const struct net_filter *filter, const uint8_t *frame, size_t length)
{
    static const uint8_t broadcast[] = {255, 255, 255, 255, 255, 255};
    if (length < ETHERNET_BYTES)
        return false;
    if (filter->promiscuous)
        return true;
    if (!passes_vlan(filter, frame, length))
        return false;
    if (!memcmp(frame, broadcast, 6))
        return !filter->no_broadcast;
    if (frame[0] & 1)
        return !filter->no_multicast &&
               (filter->all_multicast || has_address(&filter->multicast, frame));
    return !filter->no_unicast && (filter->all_unicast || !memcmp(frame, filter->mac, 6) ||
                                   has_address(&filter->unicast, frame));
}

static bool set_mode(struct net_filter *filter, uint8_t command, const struct iovec *iov,
                     size_t iov_count, size_t offset)
{
    uint8_t *const modes[] = {
        [VIRTIO_NET_CTRL_RX_PROMISC] = &filter->promiscuous,
        [VIRTIO_NET_CTRL_RX_ALLMULTI] = &filter->all_multicast,
        [VIRTIO_NET_CTRL_RX_ALLUNI] = &filter->all_unicast,
        [VIRTIO_NET_CTRL_RX_NOMULTI] = &filter->no_multicast,
        [VIRTIO_NET_CTRL_RX_NOUNI] = &filter->no_unicast,
        [VIRTIO_NET_CTRL_RX_NOBCAST] = &filter->no_broadcast,
    };
    uint8_t on;
    if (command >= ARRAY_SIZE(modes) || iov_read(iov, iov_count, offset, &on, 1) != 1)
        return false;
    *modes[command] = on != 0;
    return true;
}

/* One table: a count and that many addresses. Moves `*offset` behind it. */
static bool read_table(struct net_filter_table *table, const struct iovec *iov, size_t iov_count,
                       size_t *offset)
{
    uint8_t bytes[4];
    if (iov_read(iov, iov_count, *offset, bytes, 4) != 4)
        return false;
    uint32_t count = load_le32(bytes);
    size_t at = *offset + 4, room = iov_size(iov, iov_count);
    if (!range_fits(at, (uint64_t)count * 6, room))
        return false;
    *offset = at + (size_t)count * 6;
    *table = (struct net_filter_table){.overflowed = count > NET_FILTER_ADDRESSES_MAX};
    if (table->overflowed)
        return true;
    table->count = count;
    return iov_read(iov, iov_count, at, table->addresses, (size_t)count * 6) == (size_t)count * 6;
}

static bool set_tables(struct net_filter *filter, const struct iovec *iov, size_t iov_count,
                       size_t offset)
{
    struct net_filter_table unicast, multicast;
    if (!read_table(&unicast, iov, iov_count, &offset) ||
        !read_table(&multicast, iov, iov_count, &offset))
        return false;
    filter->unicast = unicast;
    filter->multicast = multicast;
    return true;
}

static bool set_mac(struct net_filter *filter, const struct iovec *iov, size_t iov_count,
                    size_t offset)
{
    uint8_t mac[6];
    if (iov_read(iov, iov_count, offset, mac, 6) != 6)
        return false;
    memcpy(filter->mac, mac, 6);
    return true;
}

static bool set_vlan(struct net_filter *filter, bool on, const struct iovec *iov, size_t iov_count,
                     size_t offset)
{
    uint8_t bytes[2];
    if (iov_read(iov, iov_count, offset, bytes, 2) != 2)
        return false;
    unsigned vlan = load_le16(bytes);
    if (vlan >= NET_FILTER_VLANS)
        return false;
    uint8_t bit = (uint8_t)(1u << vlan % 8), *byte = &filter->vlans[vlan / 8];
    *byte = on ? *byte | bit : *byte & (uint8_t)~bit;
    return true;
}

bool net_filter_command(struct net_filter *filter, uint8_t class, uint8_t command,
                        const struct iovec *iov, size_t iov_count, size_t offset)
{
    switch (class) {
    case VIRTIO_NET_CTRL_RX:
        return set_mode(filter, command, iov, iov_count, offset);
    case VIRTIO_NET_CTRL_MAC:
        if (command == VIRTIO_NET_CTRL_MAC_TABLE_SET)
            return set_tables(filter, iov, iov_count, offset);
        return command == VIRTIO_NET_CTRL_MAC_ADDR_SET && set_mac(filter, iov, iov_count, offset);
    case VIRTIO_NET_CTRL_VLAN:
        return command <= VIRTIO_NET_CTRL_VLAN_DEL &&
               set_vlan(filter, command == VIRTIO_NET_CTRL_VLAN_ADD, iov, iov_count, offset);
    default:
        return false;
    }
}
