/* SPDX-License-Identifier: MIT */
/*
 * packet: where the headers of an Ethernet frame lie, and Internet checksums.
 *
 * A frame is one contiguous run of bytes here. Parsing trusts nothing: every offset that it returns
 * has been checked against the frame's length and the lengths that the headers claim.
 */
#ifndef NETBACKENDS_PACKET_H
#define NETBACKENDS_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PACKET_ETHERNET_BYTES = 14,
    PACKET_IPV4_BYTES = 20,
    PACKET_IPV6_BYTES = 40,
    PACKET_TCP_BYTES = 20,
    PACKET_UDP_BYTES = 8,
    PACKET_ARP_BYTES = 28,
};
enum { PACKET_TYPE_IPV4 = 0x0800, PACKET_TYPE_ARP = 0x0806, PACKET_TYPE_IPV6 = 0x86dd };
enum { PACKET_ICMP = 1, PACKET_TCP = 6, PACKET_UDP = 17, PACKET_ICMPV6 = 58 };
enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16, TCP_URG = 32 };

/* ARP (RFC 826): where the sender is, from the end of the Ethernet header. */
enum { PACKET_ARP_SENDER_MAC = 8, PACKET_ARP_SENDER_IP = 14 };
/* Neighbour discovery (RFC 4861), and where its target is, from the start of the ICMP header. */
enum {
    PACKET_ND_ROUTER_SOLICITATION = 133,
    PACKET_ND_ROUTER_ADVERTISEMENT = 134,
    PACKET_ND_SOLICITATION = 135,
    PACKET_ND_ADVERTISEMENT = 136,
    PACKET_ND_REDIRECT = 137,
    PACKET_ND_TARGET = 8,
};
/* UDP ports (RFC 2131, 8415). */
enum {
    PACKET_DHCP_SERVER = 67,
    PACKET_DHCP_CLIENT = 68,
    PACKET_DHCPV6_CLIENT = 546,
    PACKET_DHCPV6_SERVER = 547,
};
/* IPv6 extension headers (RFC 8200). */
enum { PACKET_IPV6_HOP_BY_HOP = 0, PACKET_IPV6_ROUTING = 43, PACKET_IPV6_DESTINATION = 60 };

/* An IP packet inside a frame. Offsets are from the start of the frame. */
struct packet {
    bool is_ipv6;
    uint8_t protocol;      /* PACKET_TCP, ... */
    bool is_fragment;      /* IPv4 only */
    bool is_late_fragment; /* not the first: there is no transport header */
    size_t ip;             /* the IP header, */
    size_t transport;      /* what follows it, */
    size_t end;            /* and where the packet ends: padding follows */
};

/*
 * True if the frame holds a whole IPv4 packet without options or a whole IPv6 packet without
 * extension headers, as far as the IP header goes.
 */
bool packet_parse_ip(const uint8_t *frame, size_t length, struct packet *out);

/* True if a whole TCP header follows; `*payload` is where its data starts. */
bool packet_parse_tcp(const uint8_t *frame, const struct packet *packet, size_t *payload);

/* The one's complement sum of the bytes as big-endian words, not folded, on top of `sum`. */
uint64_t packet_sum(const uint8_t *bytes, size_t length, uint64_t sum);
/* Folded and complemented: what goes into a checksum field, in host byte order. */
uint16_t packet_fold(uint64_t sum);
/* The sum of the pseudo-header for `payload_bytes` of transport header and data. */
uint64_t packet_pseudo_sum(const uint8_t *frame, const struct packet *packet, size_t payload_bytes);

/* Fills in the checksum of a whole TCP, UDP or ICMPv6 packet, at `field`, from scratch. */
void packet_finish_checksum(uint8_t *frame, const struct packet *packet, uint8_t *field);

/* A header word changed from `before` to `after`: the checksum at `field` follows (RFC 1624). */
void packet_adjust_checksum(uint8_t *field, uint16_t before, uint16_t after);

#endif
