/* SPDX-License-Identifier: MIT */
/*
 * fragment: each piece is sent from where its data lies in the frame: the headers are written
 * before it, over data that has been sent already.
 */
#include "netbackends/fragment.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "netbackends/packet.h"

enum {
    HEADERS = PACKET_ETHERNET_BYTES + PACKET_IPV4_BYTES,
    MORE_FRAGMENTS = 0x2000,
    DO_NOT_FRAGMENT = 0x4000,
    OFFSET_MASK = 0x1fff,
};

int fragment_ipv4(uint8_t *frame, size_t length, size_t mtu, offload_emit_fn *emit, void *opaque)
{
    struct packet packet;
    uint8_t headers[HEADERS];
    if (!packet_parse_ip(frame, length, &packet) || packet.is_ipv6 || mtu < PACKET_IPV4_BYTES + 8)
        return -EINVAL;
    uint16_t before = load_be16(frame + packet.ip + 6);
    if (before & DO_NOT_FRAGMENT)
        return -EINVAL;
    size_t room = (mtu - PACKET_IPV4_BYTES) & ~(size_t)7, payload = packet.end - HEADERS;
    memcpy(headers, frame, sizeof(headers));
    for (size_t offset = 0; offset < payload; offset += room) {
        size_t bytes = MIN(room, payload - offset);
        bool is_last = offset + bytes == payload;
        uint8_t *piece = frame + offset, *ip = piece + PACKET_ETHERNET_BYTES;
        memcpy(piece, headers, sizeof(headers));
        store_be16(ip + 2, (uint16_t)(PACKET_IPV4_BYTES + bytes));
        store_be16(ip + 6, (uint16_t)((before & OFFSET_MASK) + offset / 8) |
                               (is_last ? before & MORE_FRAGMENTS : MORE_FRAGMENTS));
        store_be16(ip + 10, 0);
        store_be16(ip + 10, packet_fold(packet_sum(ip, PACKET_IPV4_BYTES, 0)));
        int result = emit(opaque, piece, HEADERS + bytes);
        if (result)
            return result;
    }
    return 0;
}
