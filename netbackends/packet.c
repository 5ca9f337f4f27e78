/* SPDX-License-Identifier: MIT */
/* packet: header offsets of a frame and Internet checksums (RFC 1071, RFC 1624). */
#include "netbackends/packet.h"

#include "base/bytes.h"

static bool parse_ipv4(const uint8_t *frame, size_t length, struct packet *out)
{
    const uint8_t *ip = frame + PACKET_ETHERNET_BYTES;
    size_t room = length - PACKET_ETHERNET_BYTES;
    if (room < PACKET_IPV4_BYTES || ip[0] != 0x45)
        return false;
    size_t total = load_be16(ip + 2);
    if (total < PACKET_IPV4_BYTES || total > room)
        return false;
    uint16_t fragment = load_be16(ip + 6);
    *out = (struct packet){
        .protocol = ip[9],
        .is_fragment = (fragment & 0x3fff) != 0,
        .is_late_fragment = (fragment & 0x1fff) != 0,
        .ip = PACKET_ETHERNET_BYTES,
        .transport = PACKET_ETHERNET_BYTES + PACKET_IPV4_BYTES,
        .end = PACKET_ETHERNET_BYTES + total,
    };
    return true;
}

static bool parse_ipv6(const uint8_t *frame, size_t length, struct packet *out)
{
    const uint8_t *ip = frame + PACKET_ETHERNET_BYTES;
    size_t room = length - PACKET_ETHERNET_BYTES;
    if (room < PACKET_IPV6_BYTES || ip[0] >> 4 != 6)
        return false;
    size_t payload = load_be16(ip + 4);
    if (payload > room - PACKET_IPV6_BYTES)
        return false;
    *out = (struct packet){
        .is_ipv6 = true,
        .protocol = ip[6],
        .ip = PACKET_ETHERNET_BYTES,
        .transport = PACKET_ETHERNET_BYTES + PACKET_IPV6_BYTES,
        .end = PACKET_ETHERNET_BYTES + PACKET_IPV6_BYTES + payload,
    };
    return true;
}

bool packet_parse_ip(const uint8_t *frame, size_t length, struct packet *out)
{
    if (length < PACKET_ETHERNET_BYTES)
        return false;
    switch (load_be16(frame + 12)) {
    case PACKET_TYPE_IPV4:
        return parse_ipv4(frame, length, out);
    case PACKET_TYPE_IPV6:
        return parse_ipv6(frame, length, out);
    default:
        return false;
    }
}

bool packet_parse_tcp(const uint8_t *frame, const struct packet *packet, size_t *payload)
{
    size_t room = packet->end - packet->transport;
    if (packet->protocol != PACKET_TCP || packet->is_fragment || room < PACKET_TCP_BYTES)
        return false;
    size_t header = (size_t)(frame[packet->transport + 12] >> 4) * 4;
    if (header < PACKET_TCP_BYTES || header > room)
        return false;
    *payload = packet->transport + header;
    return true;
}

static uint64_t load_word(const uint8_t *from)
{
    uint64_t word;
    memcpy(&word, from, sizeof(word));
    return word;
}

uint64_t packet_sum(const uint8_t *bytes, size_t length, uint64_t sum)
{
    /* Summed in the host's byte order, eight bytes a step, and swapped at the end (RFC 1071). */
    unsigned __int128 even = 0, odd = 0;
    size_t i = 0;
    for (; i + 32 <= length; i += 32) {
        even += (unsigned __int128)load_word(bytes + i) + load_word(bytes + i + 16);
        odd += (unsigned __int128)load_word(bytes + i + 8) + load_word(bytes + i + 24);
    }
    even += odd;
    uint64_t rest = (uint32_t)even + (uint64_t)(uint32_t)(even >> 32) + (uint64_t)(even >> 64);
    for (; i + 2 <= length; i += 2) {
        uint16_t word;
        memcpy(&word, bytes + i, sizeof(word));
        rest += word;
    }
    if (i < length)
        rest += bytes[i];
    return sum + htobe16((uint16_t)~packet_fold(rest));
}

uint16_t packet_fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

uint64_t packet_pseudo_sum(const uint8_t *frame, const struct packet *packet, size_t payload_bytes)
{
    const uint8_t *ip = frame + packet->ip;
    uint64_t sum = packet->protocol + (uint64_t)payload_bytes;
    return packet->is_ipv6 ? packet_sum(ip + 8, 32, sum) : packet_sum(ip + 12, 8, sum);
}

void packet_finish_checksum(uint8_t *frame, const struct packet *packet, uint8_t *field)
{
    size_t bytes = packet->end - packet->transport;
    store_be16(field, 0);
    uint64_t sum = packet_pseudo_sum(frame, packet, bytes);
    uint16_t checksum = packet_fold(packet_sum(frame + packet->transport, bytes, sum));
    store_be16(field, !checksum && packet->protocol == PACKET_UDP ? 0xffff : checksum);
}

void packet_adjust_checksum(uint8_t *field, uint16_t before, uint16_t after)
{
    uint64_t sum = (uint16_t)~load_be16(field);
    store_be16(field, packet_fold(sum + (uint16_t)~before + after));
}
