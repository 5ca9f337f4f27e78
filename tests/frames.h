/* SPDX-License-Identifier: MIT */
/* frames: Ethernet frames made and read by hand, for the tests of everything that carries them. */
#ifndef TESTS_FRAMES_H
#define TESTS_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAMES_MAX 65600

struct frames_buffer {
    size_t length;
    uint8_t bytes[FRAMES_MAX];
};

/* A flow between two ends; IPv4 addresses in host byte order. IPv6 ends are fec0::X. */
struct frames_flow {
    bool is_ipv6;
    uint8_t source_mac[6], target_mac[6];
    uint32_t source, target;
    uint16_t source_port, target_port;
};

#define FRAMES_GUEST_MAC                                                                           \
    {                                                                                              \
        0x52, 0x54, 0, 0x12, 0x34, 0x56                                                            \
    }
#define FRAMES_IPV4(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))

void frames_arp_request(struct frames_buffer *out, const uint8_t mac[6], uint32_t source,
                        uint32_t target);
void frames_udp(struct frames_buffer *out, const struct frames_flow *flow, const void *data,
                size_t length);
/* `flags` are TCP_* of packet.h. A SYN carries an MSS option of 1460. */
void frames_tcp(struct frames_buffer *out, const struct frames_flow *flow, uint8_t flags,
                uint32_t sequence, uint32_t acknowledged, const void *data, size_t length);

/* ICMPv6 from fec0::`source` about fec0::`target` (RFC 4861), with eight bytes of options and no
 * checksum; a source of 0 is "::". */
void frames_nd(struct frames_buffer *out, const uint8_t source_mac[6], const uint8_t target_mac[6],
               uint8_t type, uint8_t source, uint8_t target);

/* DHCP (RFC 2131) from a client to everybody. `requested` is 0 for none. */
void frames_dhcp(struct frames_buffer *out, const uint8_t mac[6], uint8_t kind, uint32_t requested);
/* The data of an option in a DHCP frame, or NULL. */
const uint8_t *frames_dhcp_option(const uint8_t *frame, size_t length, uint8_t wanted);

/* Fills the IPv4 header checksum and the TCP or UDP checksum again, after a test's changes. */
void frames_fix_checksums(struct frames_buffer *frame);
/* Both checksums of a TCP or UDP frame are right. */
bool frames_are_checksums_right(const uint8_t *frame, size_t length);

#endif
