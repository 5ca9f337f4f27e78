/* SPDX-License-Identifier: MIT */
/* guard: the checks before libslirp. What is not known to be good is dropped. */
#include "netbackends/guard.h"

#include <string.h>

#include "base/bytes.h"
#include "netbackends/packet.h"

enum { PORT_TFTP = 69 };
enum { BOOTP_MIN_BYTES = 240 }; /* the fixed part and the magic cookie */
enum { ICMP_MIN_BYTES = 8 };

static bool check_arp(const uint8_t *frame, size_t length)
{
    static const uint8_t ethernet_ipv4[] = {0, 1, 8, 0, 6, 4};
    return length >= PACKET_ETHERNET_BYTES + PACKET_ARP_BYTES &&
           !memcmp(frame + PACKET_ETHERNET_BYTES, ethernet_ipv4, sizeof(ethernet_ipv4));
}

/* No wire carries these, but connect() on the host would take them for the host itself. */
static bool is_host_itself(const uint8_t *frame, const struct packet *packet)
{
    static const uint8_t zeros[10];
    if (!packet->is_ipv6) {
        uint8_t first = frame[packet->ip + 16];
        return first == 0 || first == 127;
    }
    /* ::, ::1, IPv4-compatible and IPv4-mapped. */
    return !memcmp(frame + packet->ip + 24, zeros, sizeof(zeros));
}

static bool check_tcp_options(const uint8_t *option, const uint8_t *end)
{
    while (option < end && option[0] != 0) {
        if (option[0] == 1) {
            option++;
            continue;
        }
        if (end - option < 2 || option[1] < 2 || option[1] > end - option)
            return false;
        option += option[1];
    }
    return true;
}

static void clear_urgent(uint8_t *tcp)
{
    uint16_t before = load_be16(tcp + 12);
    if (!(before & TCP_URG))
        return;
    uint16_t after = before & (uint16_t)~TCP_URG;
    store_be16(tcp + 12, after);
    packet_adjust_checksum(tcp + 16, before, after);
    packet_adjust_checksum(tcp + 16, load_be16(tcp + 18), 0);
    store_be16(tcp + 18, 0);
}

static bool check_tcp(const struct guard *guard, uint8_t *frame, const struct packet *packet)
{
    uint8_t *tcp = frame + packet->transport;
    size_t payload;
    if (!packet_parse_tcp(frame, packet, &payload) ||
        !check_tcp_options(tcp + PACKET_TCP_BYTES, frame + payload))
        return false;
    if (guard->refuses_new_flows && (tcp[13] & (TCP_SYN | TCP_ACK)) == TCP_SYN)
        return false;
    clear_urgent(tcp);
    if (guard->mss && (tcp[13] & TCP_SYN))
        mss_take_syn(guard->mss, frame, packet, payload);
    return true;
}

static bool check_udp(const struct guard *guard, const uint8_t *frame, const struct packet *packet)
{
    if (packet->is_late_fragment)
        return true; /* its first fragment passed here, or it is never put together */
    const uint8_t *udp = frame + packet->transport;
    size_t room = packet->end - packet->transport;
    if (room < PACKET_UDP_BYTES)
        return false;
    size_t length = load_be16(udp + 4);
    if (length < PACKET_UDP_BYTES || (length > room && !packet->is_fragment))
        return false;
    uint16_t port = load_be16(udp + 2);
    if (port == PACKET_DHCP_SERVER)
        return !packet->is_fragment && length >= PACKET_UDP_BYTES + BOOTP_MIN_BYTES;
    return !guard->refuses_new_flows && (port != PORT_TFTP || guard->allows_tftp);
}

/* On a host-only network: whether it goes no further than the host. */
static bool stays_on_host(const struct guard *guard, const uint8_t *frame,
                          const struct packet *packet)
{
    static const uint8_t everybody[] = {255, 255, 255, 255};
    const uint8_t *target = frame + packet->ip + (packet->is_ipv6 ? 24 : 16);
    if (packet->is_ipv6)
        return !memcmp(target, guard->host6, sizeof(guard->host6)) ||
               (packet->protocol == PACKET_ICMPV6 &&
                (target[0] == 0xff || (target[0] == 0xfe && (target[1] & 0xc0) == 0x80)));
    return !memcmp(target, guard->host, sizeof(guard->host)) ||
           (!memcmp(target, everybody, sizeof(everybody)) && packet->protocol == PACKET_UDP &&
            !packet->is_fragment && packet->end - packet->transport >= PACKET_UDP_BYTES &&
            load_be16(frame + packet->transport + 2) == PACKET_DHCP_SERVER);
}

static bool check_ip(const struct guard *guard, uint8_t *frame, size_t length)
{
    struct packet packet;
    if (!packet_parse_ip(frame, length, &packet) || is_host_itself(frame, &packet))
        return false;
    if (guard->host_only && !stays_on_host(guard, frame, &packet))
        return false;
    switch (packet.protocol) {
    case PACKET_TCP:
        return check_tcp(guard, frame, &packet);
    case PACKET_UDP:
        return check_udp(guard, frame, &packet);
    case PACKET_ICMP:
        return !packet.is_ipv6 && packet.end - packet.transport >= ICMP_MIN_BYTES;
    case PACKET_ICMPV6:
        return packet.is_ipv6 && packet.end - packet.transport >= ICMP_MIN_BYTES;
    default:
        return false;
    }
}

bool guard_check(const struct guard *guard, uint8_t *frame, size_t length)
{
    if (length < PACKET_ETHERNET_BYTES || length > GUARD_FRAME_MAX)
        return false;
    if (load_be16(frame + 12) == PACKET_TYPE_ARP)
        return check_arp(frame, length);
    return check_ip(guard, frame, length);
}
