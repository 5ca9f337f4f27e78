/* SPDX-License-Identifier: MIT */
/*
 * shared_rules: the addresses of an engine are known beforehand: libslirp's MAC addresses are 52:55
 * and an IPv4 address, or 52:56 and the end of an IPv6 address.
 */
#include "netbackends/shared_rules.h"

#include <string.h>

#include "base/bytes.h"
#include "netbackends/packet.h"

enum { TYPE_VLAN = 0x8100, TYPE_SERVICE_VLAN = 0x88a8, VLAN_ID_MASK = 0xfff };
enum { BOOTP_CHADDR = 28, BOOTP_OPTIONS = 240 };
enum { OPTION_PAD = 0, OPTION_ROUTER = 3, OPTION_DNS = 6, OPTION_END = 255 };
enum { RA_LIFETIME = 6, RA_OPTIONS = 16, ND_OPTION_DNS = 25 };

static bool is_engine_mac(const struct shared_rules *rules, const uint8_t *mac)
{
    struct in_addr address;
    if (mac[0] != 0x52)
        return false;
    memcpy(&address, mac + 2, sizeof(address));
    if (mac[1] == 0x55)
        return (address.s_addr & rules->mask.s_addr) == rules->net.s_addr;
    return mac[1] == 0x56 && (!memcmp(mac + 2, rules->host6.s6_addr + 12, 4) ||
                              !memcmp(mac + 2, rules->dns6.s6_addr + 12, 4));
}

static bool is_engine_ipv4(const struct shared_rules *rules, const uint8_t *address)
{
    return !memcmp(address, &rules->host, 4) || !memcmp(address, &rules->dns, 4);
}

/* Also by the link-local addresses that libslirp has: fe80::2 and fe80::3. */
static bool is_engine_ipv6(const struct shared_rules *rules, const uint8_t *address)
{
    static const uint8_t link_local[15] = {0xfe, 0x80};
    return !memcmp(address, &rules->host6, 16) || !memcmp(address, &rules->dns6, 16) ||
           (!memcmp(address, link_local, sizeof(link_local)) &&
            (address[15] == 2 || address[15] == 3));
}

/* The ports of a UDP packet; false if it is none. */
static bool read_ports(const uint8_t *head, size_t length, uint16_t *source, uint16_t *target)
{
    size_t at = PACKET_ETHERNET_BYTES;
    if (load_be16(head + 12) == PACKET_TYPE_IPV4 && length >= at + PACKET_IPV4_BYTES) {
        if (head[at + 9] != PACKET_UDP || (load_be16(head + at + 6) & 0x1fff))
            return false;
        at += (size_t)(head[at] & 0xf) * 4;
    } else if (load_be16(head + 12) == PACKET_TYPE_IPV6 && length >= at + PACKET_IPV6_BYTES) {
        if (head[at + 6] != PACKET_UDP)
            return false;
        at += PACKET_IPV6_BYTES;
    } else {
        return false;
    }
    if (length < at + 4)
        return false;
    *source = load_be16(head + at);
    *target = load_be16(head + at + 2);
    return true;
}

static bool is_dhcp_port(uint16_t port)
{
    return port == PACKET_DHCP_SERVER || port == PACKET_DHCP_CLIENT ||
           port == PACKET_DHCPV6_CLIENT || port == PACKET_DHCPV6_SERVER;
}

static bool is_dhcp(const uint8_t *head, size_t length)
{
    uint16_t source, target;
    return read_ports(head, length, &source, &target) &&
           (is_dhcp_port(source) || is_dhcp_port(target));
}

/* The type of a neighbour discovery message, or 0. */
static uint8_t nd_type(const uint8_t *head, size_t length)
{
    const uint8_t *ip = head + PACKET_ETHERNET_BYTES;
    if (load_be16(head + 12) != PACKET_TYPE_IPV6 ||
        length < PACKET_ETHERNET_BYTES + PACKET_IPV6_BYTES + 1 || ip[6] != PACKET_ICMPV6)
        return 0;
    uint8_t type = ip[PACKET_IPV6_BYTES];
    return type >= PACKET_ND_ROUTER_SOLICITATION && type <= PACKET_ND_REDIRECT ? type : 0;
}

/* A second client behind the NIC would get what another machine has claimed. */
static bool may_ask_for_lease(struct shared_rules *rules, const uint8_t *head, size_t length)
{
    size_t at = PACKET_ETHERNET_BYTES + PACKET_IPV4_BYTES + PACKET_UDP_BYTES + BOOTP_CHADDR;
    if (load_be16(head + 12) != PACKET_TYPE_IPV4 || length < at + 6)
        return false;
    if (!rules->has_client)
        memcpy(rules->client, head + at, sizeof(rules->client));
    rules->has_client = true;
    return !memcmp(rules->client, head + at, sizeof(rules->client));
}

unsigned shared_rules_sent(struct shared_rules *rules, const uint8_t *head, size_t length)
{
    if (length < PACKET_ETHERNET_BYTES)
        return 0;
    if (is_dhcp(head, length))
        return may_ask_for_lease(rules, head, length) ? SHARED_TO_ENGINE : 0;
    if (!(head[0] & 1))
        return is_engine_mac(rules, head) ? SHARED_TO_ENGINE : SHARED_TO_OTHERS;
    if (load_be16(head + 12) == PACKET_TYPE_ARP)
        return SHARED_TO_ENGINE | SHARED_TO_OTHERS;
    switch (nd_type(head, length)) {
    case PACKET_ND_ROUTER_SOLICITATION:
        return SHARED_TO_ENGINE;
    case PACKET_ND_SOLICITATION:
    case PACKET_ND_ADVERTISEMENT:
        return SHARED_TO_ENGINE | SHARED_TO_OTHERS;
    default:
        return SHARED_TO_OTHERS;
    }
}

static bool arp_is_honest(const struct shared_rules *rules, const uint8_t *head, size_t length)
{
    return length >= PACKET_ETHERNET_BYTES + PACKET_ARP_BYTES &&
           !is_engine_ipv4(rules, head + PACKET_ETHERNET_BYTES + PACKET_ARP_SENDER_IP);
}

static bool ipv6_is_honest(const struct shared_rules *rules, const uint8_t *head, size_t length)
{
    const uint8_t *ip = head + PACKET_ETHERNET_BYTES;
    if (length < PACKET_ETHERNET_BYTES + PACKET_IPV6_BYTES)
        return false;
    /* Behind these headers a router advertisement could hide. */
    if (ip[6] == PACKET_IPV6_HOP_BY_HOP || ip[6] == PACKET_IPV6_ROUTING ||
        ip[6] == PACKET_IPV6_DESTINATION)
        return false;
    if (ip[6] == PACKET_ICMPV6 && length == PACKET_ETHERNET_BYTES + PACKET_IPV6_BYTES)
        return false;
    switch (nd_type(head, length)) {
    case PACKET_ND_ROUTER_ADVERTISEMENT:
    case PACKET_ND_REDIRECT:
        return false;
    case PACKET_ND_ADVERTISEMENT:
        return length >= PACKET_ETHERNET_BYTES + PACKET_IPV6_BYTES + PACKET_ND_TARGET + 16 &&
               !is_engine_ipv6(rules, ip + PACKET_IPV6_BYTES + PACKET_ND_TARGET);
    default:
        return !is_engine_ipv6(rules, ip + 8);
    }
}

bool shared_rules_received(const struct shared_rules *rules, const uint8_t *head, size_t length)
{
    if (length < PACKET_ETHERNET_BYTES || is_engine_mac(rules, head + 6) || is_dhcp(head, length))
        return false;
    switch (load_be16(head + 12)) {
    case PACKET_TYPE_ARP:
        return arp_is_honest(rules, head, length);
    case PACKET_TYPE_IPV4:
        return length >= PACKET_ETHERNET_BYTES + PACKET_IPV4_BYTES &&
               !is_engine_ipv4(rules, head + PACKET_ETHERNET_BYTES + 12);
    case PACKET_TYPE_IPV6:
        return ipv6_is_honest(rules, head, length);
    case TYPE_VLAN:
    case TYPE_SERVICE_VLAN:
        /* VLAN 0 is the plain network, where any of the above could hide. */
        return length >= PACKET_ETHERNET_BYTES + 4 && (load_be16(head + 14) & VLAN_ID_MASK);
    default:
        return true;
    }
}

static bool hide_in_dhcp(uint8_t *frame, const struct packet *packet)
{
    uint8_t *udp = frame + packet->transport, *end = frame + packet->end;
    bool has_changed = false;
    if (packet->end - packet->transport < PACKET_UDP_BYTES + BOOTP_OPTIONS ||
        load_be16(udp) != PACKET_DHCP_SERVER)
        return false;
    for (uint8_t *option = udp + PACKET_UDP_BYTES + BOOTP_OPTIONS;
         option < end && *option != OPTION_END;) {
        if (*option == OPTION_PAD) {
            option++;
            continue;
        }
        if (end - option < 2 || end - option < 2 + option[1])
            break;
        uint8_t *next = option + 2 + option[1];
        if (*option == OPTION_ROUTER || *option == OPTION_DNS) {
            memset(option, OPTION_PAD, (size_t)(next - option));
            has_changed = true;
        }
        option = next;
    }
    if (has_changed)
        packet_finish_checksum(frame, packet, udp + 6);
    return has_changed;
}

static bool hide_in_advertisement(uint8_t *frame, const struct packet *packet)
{
    uint8_t *icmp = frame + packet->transport, *end = frame + packet->end;
    if (end - icmp < RA_OPTIONS || icmp[0] != PACKET_ND_ROUTER_ADVERTISEMENT)
        return false;
    store_be16(icmp + RA_LIFETIME, 0);
    for (uint8_t *option = icmp + RA_OPTIONS; end - option >= 8 && option[1];) {
        if (end - option < 8 * option[1])
            break;
        if (option[0] == ND_OPTION_DNS)
            store_be32(option + 4, 0); /* its lifetime */
        option += 8 * option[1];
    }
    packet_finish_checksum(frame, packet, icmp + 2);
    return true;
}

bool shared_rules_hide_router(uint8_t *frame, size_t length)
{
    struct packet packet;
    if (!packet_parse_ip(frame, length, &packet) || packet.is_fragment)
        return false;
    if (!packet.is_ipv6 && packet.protocol == PACKET_UDP)
        return hide_in_dhcp(frame, &packet);
    return packet.is_ipv6 && packet.protocol == PACKET_ICMPV6 &&
           hide_in_advertisement(frame, &packet);
}
