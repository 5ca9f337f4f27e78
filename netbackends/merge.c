/* SPDX-License-Identifier: MIT */
/*
 * merge: GRO for frames whose checksums we know to be right.
 *
 * A segment joins the newest frame if both have the same headers but for length, identification,
 * sequence number and checksum, if it continues the sequence, and if it is not longer than the
 * first. A shorter or a pushed one is the last. A long segment counts as the many that it will be
 * cut into.
 */
#include "netbackends/merge.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "netbackends/packet.h"

enum { IP_BYTES_MAX = 65535 };

struct segment {
    struct packet packet;
    size_t headers; /* up to the payload */
    size_t payload;
    size_t mss;
    uint32_t sequence;
    uint8_t flags;
};

static bool parse_segment(const struct merge *merge, const uint8_t *frame, size_t length,
                          struct segment *out)
{
    if (!packet_parse_ip(frame, length, &out->packet) ||
        !packet_parse_tcp(frame, &out->packet, &out->headers))
        return false;
    const uint8_t *tcp = frame + out->packet.transport;
    out->payload = out->packet.end - out->headers;
    out->mss = mss_of(&merge->mss, frame, &out->packet);
    out->sequence = load_be32(tcp + 4);
    out->flags = tcp[13];
    return true;
}

static bool is_mergeable(const struct merge *merge, const struct segment *segment)
{
    unsigned needed = segment->packet.is_ipv6 ? NET_OFFLOAD_TSO6 : NET_OFFLOAD_TSO4;
    uint8_t may_have = segment->payload > segment->mss ? TCP_PSH | TCP_FIN : TCP_PSH;
    return (merge->offloads & needed) && (merge->offloads & NET_OFFLOAD_CSUM) && segment->payload &&
           (segment->flags & ~may_have) == TCP_ACK;
}

static bool are_ip_headers_alike(const uint8_t *a, const uint8_t *b, bool is_ipv6)
{
    if (is_ipv6)
        return !memcmp(a, b, 4) && !memcmp(a + 6, b + 6, 34);
    return a[1] == b[1] && !memcmp(a + 6, b + 6, 4) && !memcmp(a + 12, b + 12, 8);
}

static bool continues(const struct merge *merge, const struct frame *newest, const uint8_t *frame,
                      const struct segment *segment)
{
    const uint8_t *a = newest->bytes + merge->transport, *b = frame + merge->transport;
    size_t options = merge->headers - merge->transport - PACKET_TCP_BYTES;
    size_t ip_bytes = newest->length + segment->payload - PACKET_ETHERNET_BYTES;
    return merge->is_open && merge->is_ipv6 == segment->packet.is_ipv6 &&
           merge->headers == segment->headers && merge->next_sequence == segment->sequence &&
           (segment->payload <= merge->segment_bytes || segment->mss == merge->segment_bytes) &&
           ip_bytes <= IP_BYTES_MAX && !memcmp(newest->bytes, frame, PACKET_ETHERNET_BYTES) &&
           are_ip_headers_alike(newest->bytes + PACKET_ETHERNET_BYTES,
                                frame + PACKET_ETHERNET_BYTES, merge->is_ipv6) &&
           !memcmp(a, b, 4) && !memcmp(a + 8, b + 8, 5) && !memcmp(a + 14, b + 14, 2) &&
           !memcmp(a + PACKET_TCP_BYTES, b + PACKET_TCP_BYTES, options);
}

static bool is_last(const struct merge *merge, const struct segment *segment)
{
    return segment->payload % merge->segment_bytes || (segment->flags & (TCP_PSH | TCP_FIN));
}

static bool join(struct merge *merge, struct frame_queue *queue, const uint8_t *frame,
                 const struct segment *segment)
{
    struct frame *newest = frame_queue_newest(queue);
    if (!newest || !continues(merge, newest, frame, segment))
        return false;
    size_t at = newest->length;
    if (!frame_queue_grow(queue, segment->payload))
        return false;
    memcpy(newest->bytes + at, frame + segment->headers, segment->payload);
    newest->bytes[merge->transport + 13] |= segment->flags;
    merge->is_merged = true;
    merge->next_sequence += (uint32_t)segment->payload;
    if (is_last(merge, segment))
        merge_close(merge, queue);
    return true;
}

static void open_for_more(struct merge *merge, struct frame_queue *queue,
                          const struct segment *segment)
{
    merge->is_open = true;
    merge->is_merged = segment->payload > segment->mss;
    merge->is_ipv6 = segment->packet.is_ipv6;
    merge->transport = segment->packet.transport;
    merge->headers = segment->headers;
    merge->segment_bytes = MIN(segment->payload, segment->mss);
    merge->next_sequence = segment->sequence + (uint32_t)segment->payload;
    if (is_last(merge, segment))
        merge_close(merge, queue);
}

static struct net_meta how_to_cut(const struct segment *segment)
{
    return (struct net_meta){
        .gso_type = segment->packet.is_ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4,
        .gso_size = (uint16_t)segment->mss,
    };
}

int merge_push(struct merge *merge, struct frame_queue *queue, const uint8_t *frame, size_t length,
               struct net_meta *cut)
{
    struct segment segment;
    bool is_tcp = parse_segment(merge, frame, length, &segment);
    bool mergeable = is_tcp && is_mergeable(merge, &segment);
    if (mergeable && join(merge, queue, frame, &segment))
        return 0;
    merge_close(merge, queue);
    if (is_tcp && !mergeable && segment.payload > segment.mss) {
        *cut = how_to_cut(&segment);
        return -EMSGSIZE;
    }
    /* Padding must not end up between two segments. */
    if (mergeable)
        length = segment.packet.end;
    struct frame *pushed = frame_queue_push(queue, length);
    if (!pushed)
        return -ENOBUFS;
    memcpy(pushed->bytes, frame, length);
    if (is_tcp && (merge->offloads & NET_OFFLOAD_CSUM))
        pushed->meta.flags = NET_DATA_VALID;
    if (mergeable)
        open_for_more(merge, queue, &segment);
    return 0;
}

static void finish_ip(struct merge *merge, struct frame *frame)
{
    uint8_t *ip = frame->bytes + PACKET_ETHERNET_BYTES;
    if (merge->is_ipv6) {
        store_be16(ip + 4, (uint16_t)(frame->length - merge->transport));
        return;
    }
    store_be16(ip + 2, (uint16_t)(frame->length - PACKET_ETHERNET_BYTES));
    store_be16(ip + 10, 0);
    store_be16(ip + 10, packet_fold(packet_sum(ip, PACKET_IPV4_BYTES, 0)));
}

void merge_close(struct merge *merge, struct frame_queue *queue)
{
    bool is_merged = merge->is_open && merge->is_merged;
    merge->is_open = false;
    if (!is_merged)
        return;
    struct frame *frame = frame_queue_newest(queue);
    const struct packet packet = {
        .is_ipv6 = merge->is_ipv6,
        .protocol = PACKET_TCP,
        .ip = PACKET_ETHERNET_BYTES,
    };
    finish_ip(merge, frame);
    uint64_t pseudo = packet_pseudo_sum(frame->bytes, &packet, frame->length - merge->transport);
    store_be16(frame->bytes + merge->transport + 16, (uint16_t)~packet_fold(pseudo));
    frame->meta = (struct net_meta){
        .flags = NET_NEEDS_CSUM,
        .gso_type = merge->is_ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4,
        .hdr_len = (uint16_t)merge->headers,
        .gso_size = (uint16_t)merge->segment_bytes,
        .csum_start = (uint16_t)merge->transport,
        .csum_offset = 16,
    };
}
