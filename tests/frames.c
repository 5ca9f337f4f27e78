/* SPDX-License-Identifier: MIT */
/* frames: a second, plain implementation of headers and checksums, so that ours is checked by it.
 */
#include "tests/frames.h"

#include <string.h>

#include "base/bytes.h"

enum { TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd, TCP = 6, UDP = 17, ICMPV6 = 58, SYN = 2 };

static uint32_t sum_words(const uint8_t *bytes, size_t length, uint32_t sum)
{
    for (size_t i = 0; i < length; i++) {
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static bool is_ipv6(const uint8_t *frame)
{
    return load_be16(frame + 12) == TYPE_IPV6;
}

static size_t transport_at(const uint8_t *frame)
{
    return is_ipv6(frame) ? 54 : 14 + (size_t)(frame[14] & 15) * 4;
}

static uint8_t protocol_of(const uint8_t *frame)
{
    return is_ipv6(frame) ? frame[20] : frame[23];
}

static size_t end_of(const uint8_t *frame)
{
    return is_ipv6(frame) ? 54u + load_be16(frame + 18) : 14u + load_be16(frame + 16);
}

static uint32_t sum_transport(const uint8_t *frame)
{
    size_t at = transport_at(frame), length = end_of(frame) - at;
    uint32_t sum = protocol_of(frame);
    sum = is_ipv6(frame) ? sum_words(frame + 22, 32, sum) : sum_words(frame + 26, 8, sum);
    uint8_t bytes[4];
    store_be32(bytes, (uint32_t)length);
    return sum_words(frame + at, length, sum_words(bytes, 4, sum));
}

void frames_fix_checksums(struct frames_buffer *frame)
{
    uint8_t *bytes = frame->bytes;
    uint8_t *field = bytes + transport_at(bytes) + (protocol_of(bytes) == TCP ? 16 : 6);
    if (!is_ipv6(bytes)) {
        store_be16(bytes + 24, 0);
        store_be16(bytes + 24, (uint16_t)~sum_words(bytes + 14, transport_at(bytes) - 14, 0));
    }
    store_be16(field, 0);
    store_be16(field, (uint16_t)~sum_transport(bytes));
}

bool frames_are_checksums_right(const uint8_t *frame, size_t length)
{
    if (end_of(frame) > length)
        return false;
    bool ip = is_ipv6(frame) || sum_words(frame + 14, transport_at(frame) - 14, 0) == 0xffff;
    return ip && sum_transport(frame) == 0xffff;
}

void frames_arp_request(struct frames_buffer *out, const uint8_t mac[6], uint32_t source,
                        uint32_t target)
{
    static const uint8_t kind[] = {0, 1, 8, 0, 6, 4, 0, 1};
    memset(out->bytes, 0, 60);
    memset(out->bytes, 0xff, 6);
    memcpy(out->bytes + 6, mac, 6);
    store_be16(out->bytes + 12, 0x0806);
    memcpy(out->bytes + 14, kind, sizeof(kind));
    memcpy(out->bytes + 22, mac, 6);
    store_be32(out->bytes + 28, source);
    store_be32(out->bytes + 38, target);
    out->length = 42;
}

static uint8_t *start(struct frames_buffer *out, const struct frames_flow *flow, uint8_t protocol,
                      size_t payload)
{
    uint8_t *bytes = out->bytes, *ip = bytes + 14;
    memset(bytes, 0, 80);
    memcpy(bytes, flow->target_mac, 6);
    memcpy(bytes + 6, flow->source_mac, 6);
    store_be16(bytes + 12, flow->is_ipv6 ? TYPE_IPV6 : TYPE_IPV4);
    out->length = (flow->is_ipv6 ? 54 : 34) + payload;
    if (flow->is_ipv6) {
        ip[0] = 0x60;
        store_be16(ip + 4, (uint16_t)payload);
        ip[6] = protocol;
        ip[7] = 64;
        store_be16(ip + 8, 0xfec0);
        store_be32(ip + 20, flow->source);
        store_be16(ip + 24, 0xfec0);
        store_be32(ip + 36, flow->target);
        return ip + 40;
    }
    ip[0] = 0x45;
    store_be16(ip + 2, (uint16_t)(20 + payload));
    ip[8] = 64;
    ip[9] = protocol;
    store_be32(ip + 12, flow->source);
    store_be32(ip + 16, flow->target);
    return ip + 20;
}

void frames_udp(struct frames_buffer *out, const struct frames_flow *flow, const void *data,
                size_t length)
{
    uint8_t *udp = start(out, flow, UDP, 8 + length);
    store_be16(udp, flow->source_port);
    store_be16(udp + 2, flow->target_port);
    store_be16(udp + 4, (uint16_t)(8 + length));
    memcpy(udp + 8, data, length);
    frames_fix_checksums(out);
}

void frames_tcp(struct frames_buffer *out, const struct frames_flow *flow, uint8_t flags,
                uint32_t sequence, uint32_t acknowledged, const void *data, size_t length)
{
    static const uint8_t mss[] = {2, 4, 1460 >> 8, 1460 & 255};
    size_t options = flags & SYN ? sizeof(mss) : 0;
    uint8_t *tcp = start(out, flow, TCP, 20 + options + length);
    store_be16(tcp, flow->source_port);
    store_be16(tcp + 2, flow->target_port);
    store_be32(tcp + 4, sequence);
    store_be32(tcp + 8, acknowledged);
    tcp[12] = (uint8_t)((20 + options) / 4 << 4);
    tcp[13] = flags;
    store_be16(tcp + 14, 65535);
    memcpy(tcp + 20, mss, options);
    if (length)
        memcpy(tcp + 20 + options, data, length);
    frames_fix_checksums(out);
}

void frames_nd(struct frames_buffer *out, const uint8_t source_mac[6], const uint8_t target_mac[6],
               uint8_t type, uint8_t source, uint8_t target)
{
    uint8_t *ip = out->bytes + 14;
    memset(out->bytes, 0, 90);
    out->length = 14 + 40 + 32;
    memcpy(out->bytes, target_mac, 6);
    memcpy(out->bytes + 6, source_mac, 6);
    store_be16(out->bytes + 12, TYPE_IPV6);
    ip[0] = 0x60;
    store_be16(ip + 4, 32);
    ip[6] = ICMPV6;
    ip[7] = 255;
    store_be16(ip + 8, source ? 0xfec0 : 0);
    ip[23] = source;
    store_be16(ip + 24, 0xff02);
    ip[39] = 0x16;
    ip[40] = type;
    store_be16(ip + 48, 0xfec0);
    ip[63] = target;
}

void frames_dhcp(struct frames_buffer *out, const uint8_t mac[6], uint8_t kind, uint32_t requested)
{
    uint8_t packet[300] = {1, 1, 6, 0, 1, 2, 3, 4};
    const uint8_t options[] = {99, 130, 83, 99, 53, 1, kind, 55, 3, 1, 3, 6};
    struct frames_flow flow = {.target_mac = {255, 255, 255, 255, 255, 255},
                               .target = UINT32_MAX,
                               .source_port = 68,
                               .target_port = 67};
    memcpy(flow.source_mac, mac, 6);
    memcpy(packet + 28, mac, 6);
    memcpy(packet + 236, options, sizeof(options));
    uint8_t *end = packet + 236 + sizeof(options);
    if (requested) {
        end[0] = 50;
        end[1] = 4;
        store_be32(end + 2, requested);
        end += 6;
    }
    *end = 255;
    frames_udp(out, &flow, packet, sizeof(packet));
}

const uint8_t *frames_dhcp_option(const uint8_t *frame, size_t length, uint8_t wanted)
{
    const uint8_t *end = frame + length;
    for (const uint8_t *at = frame + 42 + 240; at < end && *at != 255;) {
        if (*at == wanted)
            return at + 2;
        at += *at ? 2 + at[1] : 1;
    }
    return NULL;
}
