/* SPDX-License-Identifier: MIT */
/*
 * antispoof: whether a guest speaks for itself, by what the address snoop knows of it.
 *
 * A frame passes if it comes from the NIC's own MAC address and from an IPv4 address that a DHCP
 * server gave it, or an IPv6 address that it has tried out on the network (duplicate address
 * detection) without anybody objecting. What a guest needs to get its addresses passes always;
 * what makes it a DHCP server or a router never does, nor anything but ARP, IPv4 and IPv6.
 */
#ifndef NETBACKENDS_ANTISPOOF_H
#define NETBACKENDS_ANTISPOOF_H

#include "netbackends/address_snoop.h"

bool antispoof_allows(const struct address_snoop *snoop, const uint8_t mac[6],
                      const struct iovec *iov, size_t iov_count);

#endif
