/* SPDX-License-Identifier: MIT */
/* antispoof: pure over the first bytes of a frame; what is too short to be judged is refused. */
#include "netbackends/antispoof.h"

#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "netbackends/packet.h"

enum { HEAD_BYTES = 96, MAC_AT = 6, MLD_REPORT = 0x16 };

struct judged {
    const struct address_snoop *snoop;
    const uint8_t *mac, *payload; /* behind the Ethernet header */
    size_t length;                /* of the payload's head */
};

static bool is_zero(const uint8_t *bytes, size_t length)
{
    return !bytes[0] && !memcmp(bytes, bytes + 1, length - 1);
}

static bool has_ipv4(const struct judged *judged, const uint8_t *address)
{
    for (unsigned i = 0; i < judged->snoop->count; i++) {
        const struct address_entry *entry = &judged->snoop->entries[i];
        /* What it said by ARP itself is no proof. */
        if (entry->source == ADDRESS_FROM_DHCP && !memcmp(entry->mac, judged->mac, 6) &&
            !memcmp(entry->address, address, 4))
            return true;
    }
    return false;
}

static bool has_ipv6(const struct judged *judged, const uint8_t *address)
{
    for (unsigned i = 0; i < judged->snoop->count; i++) {
        const struct address_entry *entry = &judged->snoop->entries[i];
        if (entry->is_ipv6 && !memcmp(entry->mac, judged->mac, 6) &&
            !memcmp(entry->address, address, 16))
            return true;
    }
    return false;
}

static bool allows_arp(const struct judged *judged)
{
    const uint8_t *sender_ip = judged->payload + PACKET_ARP_SENDER_IP;
    return judged->length >= PACKET_ARP_BYTES &&
           !memcmp(judged->payload + PACKET_ARP_SENDER_MAC, judged->mac, 6) &&
           (is_zero(sender_ip, 4) || has_ipv4(judged, sender_ip));
}

static bool allows_ipv4(const struct judged *judged)
{
    const uint8_t *ip = judged->payload;
    if (judged->length < PACKET_IPV4_BYTES)
        return false;
    size_t header = (size_t)(ip[0] & 0xf) * 4;
    bool has_ports = ip[9] == PACKET_UDP && !(load_be16(ip + 6) & 0x1fff);
    if (has_ports && (header < PACKET_IPV4_BYTES || judged->length < header + 4))
        return false;
    uint16_t source = has_ports ? load_be16(ip + header) : 0;
    if (source == PACKET_DHCP_SERVER)
        return false;
    if (is_zero(ip + 12, 4))
        return source == PACKET_DHCP_CLIENT && load_be16(ip + header + 2) == PACKET_DHCP_SERVER;
    return has_ipv4(judged, ip + 12);
}

/* The type of an ICMPv6 message, or 0. */
static uint8_t icmp_type(const struct judged *judged)
{
    const uint8_t *ip = judged->payload;
    return ip[6] == PACKET_ICMPV6 && judged->length > PACKET_IPV6_BYTES ? ip[PACKET_IPV6_BYTES] : 0;
}

/* From nowhere: looking for a router, trying out an address, joining its group. */
static bool may_come_from_nowhere(const struct judged *judged)
{
    static const uint8_t mld_group[16] = {0xff, 2, [15] = MLD_REPORT};
    const uint8_t *ip = judged->payload;
    uint8_t type = icmp_type(judged);
    if (ip[6] == PACKET_IPV6_HOP_BY_HOP)
        return !memcmp(ip + 24, mld_group, sizeof(mld_group));
    return type == PACKET_ND_SOLICITATION || type == PACKET_ND_ROUTER_SOLICITATION;
}

static bool allows_ipv6(const struct judged *judged)
{
    const uint8_t *ip = judged->payload;
    if (judged->length < PACKET_IPV6_BYTES + 4 || ip[6] == PACKET_IPV6_ROUTING ||
        ip[6] == PACKET_IPV6_DESTINATION || (ip[6] == PACKET_IPV6_HOP_BY_HOP && ip[24] != 0xff))
        return false;
    uint8_t type = icmp_type(judged);
    if (type == PACKET_ND_ROUTER_ADVERTISEMENT || type == PACKET_ND_REDIRECT ||
        (ip[6] == PACKET_UDP && load_be16(ip + PACKET_IPV6_BYTES) == PACKET_DHCPV6_SERVER))
        return false;
    if (is_zero(ip + 8, 16))
        return may_come_from_nowhere(judged);
    if (type == PACKET_ND_ADVERTISEMENT &&
        (judged->length < PACKET_IPV6_BYTES + PACKET_ND_TARGET + 16 ||
         !has_ipv6(judged, ip + PACKET_IPV6_BYTES + PACKET_ND_TARGET)))
        return false;
    return has_ipv6(judged, ip + 8);
}

bool antispoof_allows(const struct address_snoop *snoop, const uint8_t mac[6],
                      const struct iovec *iov, size_t iov_count)
{
    uint8_t head[HEAD_BYTES];
    size_t length = iov_read(iov, iov_count, 0, head, sizeof(head));
    if (length < PACKET_ETHERNET_BYTES || memcmp(head + MAC_AT, mac, 6) != 0)
        return false;
    const struct judged judged = {snoop, mac, head + PACKET_ETHERNET_BYTES,
                                  length - PACKET_ETHERNET_BYTES};
    switch (load_be16(head + 12)) {
    case PACKET_TYPE_ARP:
        return allows_arp(&judged);
    case PACKET_TYPE_IPV4:
        return allows_ipv4(&judged);
    case PACKET_TYPE_IPV6:
        return allows_ipv6(&judged);
    default:
        return false;
    }
}
