/* SPDX-License-Identifier: MIT */
/* offload: checksums and TCP segmentation in software. */
#include "netbackends/offload.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "netbackends/packet.h"

static unsigned needed_offloads(const struct net_meta *meta)
{
    unsigned checksum = meta->flags & NET_NEEDS_CSUM ? NET_OFFLOAD_CSUM : 0;
    return checksum | net_gso_offloads(meta->gso_type);
}

bool offload_check_meta(const struct net_meta *meta, size_t length, unsigned offloads)
{
    bool needs_checksum = meta->flags & NET_NEEDS_CSUM;
    if ((meta->flags & ~(NET_NEEDS_CSUM | NET_DATA_VALID)) || (needed_offloads(meta) & ~offloads))
        return false;
    if (needs_checksum && (size_t)meta->csum_start + meta->csum_offset + 2 > length)
        return false;
    return !meta->gso_type || (needs_checksum && meta->gso_size && meta->hdr_len <= length);
}

int offload_finish_checksum(const struct net_meta *meta, uint8_t *frame, size_t length)
{
    size_t start = meta->csum_start, field = start + meta->csum_offset;
    struct packet packet;
    if (!(meta->flags & NET_NEEDS_CSUM))
        return 0;
    if (field + 2 > length || start < PACKET_ETHERNET_BYTES)
        return -EINVAL;
    bool is_usual = packet_parse_ip(frame, length, &packet) && !packet.is_fragment &&
                    start == packet.transport && field + 2 <= packet.end;
    if (is_usual && ((packet.protocol == PACKET_TCP && meta->csum_offset == 16) ||
                     (packet.protocol == PACKET_UDP && meta->csum_offset == 6)))
        /* From scratch: drivers disagree about the length in a partial pseudo-header sum. */
        packet_finish_checksum(frame, &packet, frame + field);
    else
        store_be16(frame + field, packet_fold(packet_sum(frame + start, length - start, 0)));
    return 0;
}

static void set_ip_length(uint8_t *frame, const struct packet *packet, size_t end, size_t index)
{
    uint8_t *ip = frame + packet->ip;
    if (packet->is_ipv6) {
        store_be16(ip + 4, (uint16_t)(end - packet->transport));
        return;
    }
    store_be16(ip + 2, (uint16_t)(end - packet->ip));
    store_be16(ip + 4, (uint16_t)(load_be16(ip + 4) + index));
    store_be16(ip + 10, 0);
    store_be16(ip + 10, packet_fold(packet_sum(ip, PACKET_IPV4_BYTES, 0)));
}

/* The urgent pointer counts from the piece's own start; behind it nothing is urgent. */
static void move_urgent(uint8_t *tcp, size_t offset)
{
    size_t pointer = load_be16(tcp + 18);
    if (pointer <= offset)
        tcp[13] &= (uint8_t)~TCP_URG;
    store_be16(tcp + 18, (uint16_t)(pointer > offset ? pointer - offset : 0));
}

/* Everything but the payload of piece number `index`, which is at [offset, offset + bytes). */
static void finish_piece(const uint8_t *frame, const struct packet *packet, size_t headers,
                         size_t index, size_t offset, size_t bytes, bool is_last, uint8_t *room)
{
    struct packet piece = *packet;
    piece.end = headers + bytes;
    memcpy(room, frame, headers);
    set_ip_length(room, packet, piece.end, index);
    uint8_t *tcp = room + packet->transport;
    store_be32(tcp + 4, load_be32(tcp + 4) + (uint32_t)offset);
    if (!is_last)
        tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (tcp[13] & TCP_URG)
        move_urgent(tcp, offset);
    packet_finish_checksum(room, &piece, tcp + 16);
}

int offload_segment(const struct net_meta *meta, const uint8_t *frame, size_t length, uint8_t *room,
                    offload_emit_fn *emit, void *opaque)
{
    struct packet packet;
    size_t headers;
    uint8_t type = meta->gso_type & (uint8_t)~NET_GSO_ECN;
    if (!packet_parse_ip(frame, length, &packet) || !packet_parse_tcp(frame, &packet, &headers) ||
        type != (packet.is_ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4) || !meta->gso_size)
        return -EINVAL;
    size_t payload = packet.end - headers, offset = 0;
    /* A frame cut byte by byte would hold up the loop. */
    if (payload > (size_t)meta->gso_size * OFFLOAD_PIECES_MAX)
        return -EINVAL;
    for (size_t index = 0; offset < payload || index == 0; index++) {
        size_t bytes = MIN(payload - offset, meta->gso_size);
        memcpy(room + headers, frame + headers + offset, bytes);
        finish_piece(frame, &packet, headers, index, offset, bytes, offset + bytes == payload,
                     room);
        int result = emit(opaque, room, headers + bytes);
        if (result)
            return result;
        offset += bytes;
    }
    return 0;
}
