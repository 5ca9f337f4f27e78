/* SPDX-License-Identifier: MIT */
/* Merging and cutting are each other's inverse: what merge makes of segments, offload cuts back. */
#include "netbackends/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "netbackends/offload.h"
#include "netbackends/packet.h"
#include "tests/frames.h"
#include "tests/unit/test.h"

enum { MSS = 1000, SEGMENTS = 200 };

static struct frame_queue queue;
static struct merge merge;
static struct frames_buffer segments[SEGMENTS];
static uint8_t data[SEGMENTS * MSS];
static struct frames_flow flow = {
    .source_mac = {0x52, 0x55, 10, 0, 2, 2},
    .target_mac = FRAMES_GUEST_MAC,
    .source = FRAMES_IPV4(10, 0, 2, 2),
    .target = FRAMES_IPV4(10, 0, 2, 15),
    .source_port = 80,
    .target_port = 40000,
};

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 11 + i / 257);
    flow.is_ipv6 = false;
    merge = (struct merge){.offloads = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6};
    return frame_queue_init(&queue, 1 << 20);
}

static int tear_down(void **state)
{
    (void)state;
    frame_queue_fini(&queue);
    return 0;
}

/* Segment `index` of the stream, of `length` bytes. */
static struct frames_buffer *make(size_t index, size_t length, uint8_t flags)
{
    struct frames_buffer *frame = &segments[index];
    frames_tcp(frame, &flow, flags, (uint32_t)(0xfffff000 + index * MSS), 77, data + index * MSS,
               length);
    if (!flow.is_ipv6) {
        store_be16(frame->bytes + 18, (uint16_t)(100 + index));
        frames_fix_checksums(frame);
    }
    return frame;
}

static struct net_meta cut;

static void push(const struct frames_buffer *frame)
{
    assert_int_equal(merge_push(&merge, &queue, frame->bytes, frame->length, &cut), 0);
}

static size_t cut_count;

/* Each piece must be the segment that once went in, byte for byte. */
static int on_piece(void *opaque, uint8_t *frame, size_t length)
{
    (void)opaque;
    assert_int_equal(length, segments[cut_count].length);
    assert_memory_equal(frame, segments[cut_count].bytes, length);
    cut_count++;
    return 0;
}

static void cut_front(size_t expected)
{
    static uint8_t room[OFFLOAD_SEGMENT_ROOM];
    struct frame *front = frame_queue_front(&queue);
    assert_non_null(front);
    cut_count = 0;
    assert_int_equal(
        offload_segment(&front->meta, front->bytes, front->length, room, on_piece, NULL), 0);
    assert_int_equal(cut_count, expected);
    frame_queue_pop(&queue);
}

static void merge_and_cut(void)
{
    for (size_t i = 0; i < 10; i++)
        push(make(i, i == 9 ? 321 : MSS, i == 9 ? TCP_ACK | TCP_PSH : TCP_ACK));
    merge_close(&merge, &queue);
    const struct frame *front = frame_queue_front(&queue);
    assert_int_equal(front->meta.gso_type, flow.is_ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4);
    assert_int_equal(front->meta.gso_size, MSS);
    assert_int_equal(front->meta.flags, NET_NEEDS_CSUM);
    assert_int_equal(front->meta.csum_start, flow.is_ipv6 ? 54 : 34);
    assert_int_equal(front->meta.hdr_len, flow.is_ipv6 ? 74 : 54);
    assert_int_equal(queue.count, 1);
    cut_front(10);
}

static void test_ipv4_there_and_back(void **state)
{
    (void)state;
    merge_and_cut();
}

static void test_ipv6_there_and_back(void **state)
{
    (void)state;
    flow.is_ipv6 = true;
    merge_and_cut();
}

/* The half-done checksum of a merged frame is what a device that adds the rest expects. */
static void test_merged_frame_has_the_pseudo_header_sum(void **state)
{
    (void)state;
    push(make(0, MSS, TCP_ACK));
    push(make(1, MSS, TCP_ACK));
    merge_close(&merge, &queue);
    struct frame *front = frame_queue_front(&queue);
    const struct net_meta *meta = &front->meta;
    uint8_t *field = front->bytes + meta->csum_start + meta->csum_offset;
    uint64_t sum = packet_sum(front->bytes + meta->csum_start, front->length - meta->csum_start, 0);
    store_be16(field, packet_fold(sum));
    assert_true(frames_are_checksums_right(front->bytes, front->length));
}

static void test_a_merged_frame_never_outgrows_ip(void **state)
{
    (void)state;
    size_t total = 0;
    for (size_t i = 0; i < SEGMENTS; i++)
        push(make(i, MSS, TCP_ACK));
    merge_close(&merge, &queue);
    assert_int_equal(queue.count, 4);
    for (struct frame *frame; (frame = frame_queue_front(&queue)); frame_queue_pop(&queue)) {
        assert_true(frame->length <= 14 + 65535);
        assert_memory_equal(frame->bytes + 54, data + total, frame->length - 54);
        total += frame->length - 54;
    }
    assert_int_equal(total, SEGMENTS * MSS);
}

static void test_a_short_or_pushed_segment_is_the_last(void **state)
{
    (void)state;
    push(make(0, MSS, TCP_ACK));
    push(make(1, MSS, TCP_ACK | TCP_PSH));
    push(make(2, MSS, TCP_ACK));
    assert_int_equal(queue.count, 2);
    cut_front(2);
}

/* Each of these changes ends the merging. */
static void test_what_differs_is_not_merged(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t flip;
    } changes[] = {
        {0, 2},     /* Ethernet target */
        {15, 4},    /* type of service */
        {20, 0x40}, /* do not fragment */
        {22, 1},    /* time to live */
        {29, 1},    /* source address */
        {35, 1},    /* source port */
        {37, 1},    /* target port */
        {41, 1},    /* sequence */
        {45, 1},    /* acknowledged */
        {47, TCP_URG}, {47, TCP_FIN}, {47, TCP_RST}, {47, TCP_SYN},
        {47, 0x40},    {47, 0x80},    {49, 1}, /* window */
    };
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        push(make(0, MSS, TCP_ACK));
        struct frames_buffer *second = make(1, MSS, TCP_ACK);
        second->bytes[changes[i].at] ^= changes[i].flip;
        push(second);
        merge_close(&merge, &queue);
        if (queue.count != 2)
            fail_msg("change %zu was merged", i);
        frame_queue_clear(&queue);
    }
}

/* A segment at any place of the stream, for those that `make` does not make. */
static void push_at(size_t offset, size_t length, uint8_t flags, size_t padding)
{
    struct frames_buffer *frame = &segments[0];
    frames_tcp(frame, &flow, flags, (uint32_t)offset, 77, data + offset, length);
    memset(frame->bytes + frame->length, 0xaa, padding);
    frame->length += padding;
    push(frame);
}

static void test_longer_segments_and_pure_acks_stand_alone(void **state)
{
    (void)state;
    push_at(0, 999, TCP_ACK, 0);
    push_at(999, 1000, TCP_ACK, 0);
    push_at(1999, 0, TCP_ACK, 0);
    push_at(1999, 0, TCP_ACK, 0);
    push_at(1999, 1000, TCP_ACK | TCP_PSH, 0);
    push_at(2999, 1000, TCP_ACK, 0);
    assert_int_equal(queue.count, 6);
}

/* A segment of many times the MSS is one frame for whoever cuts it; with the last byte goes FIN. */
static void test_a_long_segment_is_described_by_its_mss(void **state)
{
    (void)state;
    static const uint8_t kinds[] = {TCP_ACK, TCP_ACK | TCP_PSH, TCP_ACK | TCP_FIN};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        flow.is_ipv6 = i == 1;
        push_at(0, 20000, kinds[i], 0);
        merge_close(&merge, &queue);
        const struct frame *front = frame_queue_front(&queue);
        assert_int_equal(front->meta.gso_type, i == 1 ? NET_GSO_TCPV6 : NET_GSO_TCPV4);
        assert_int_equal(front->meta.gso_size, i == 1 ? 1440 : 1460);
        assert_int_equal(front->meta.flags, NET_NEEDS_CSUM);
        assert_int_equal(front->meta.hdr_len, front->length - 20000);
        assert_int_equal(front->bytes[front->meta.csum_start + 13], kinds[i]);
        frame_queue_pop(&queue);
    }
}

/* Whole multiples of the MSS may go on; anything else is the last. */
static void test_long_segments_are_joined_too(void **state)
{
    (void)state;
    push_at(0, 14600, TCP_ACK, 0);
    push_at(14600, 14600, TCP_ACK, 0);
    push_at(29200, 1460, TCP_ACK, 0);
    push_at(30660, 2000, TCP_ACK, 0);
    assert_int_equal(queue.count, 1);
    push_at(32660, 1460, TCP_ACK, 0);
    assert_int_equal(queue.count, 2);
    const struct frame *front = frame_queue_front(&queue);
    assert_int_equal(front->length, 54 + 32660);
    assert_int_equal(front->meta.gso_size, 1460);
    assert_memory_equal(front->bytes + 54, data, 32660);
    frame_queue_pop(&queue);
    assert_int_equal(frame_queue_front(&queue)->length, 54 + 1460);
}

/* The guest's own wish, by its SYN: one connection's, not the others'. */
static void test_a_smaller_mss_is_honoured(void **state)
{
    (void)state;
    struct frames_flow back = flow;
    struct frames_buffer *syn = &segments[1];
    struct packet packet;
    size_t payload;
    back.source = flow.target;
    back.target = flow.source;
    back.source_port = flow.target_port;
    back.target_port = flow.source_port;
    frames_tcp(syn, &back, TCP_SYN, 1, 0, NULL, 0);
    store_be16(syn->bytes + 56, 700);
    assert_true(packet_parse_ip(syn->bytes, syn->length, &packet));
    assert_true(packet_parse_tcp(syn->bytes, &packet, &payload));
    mss_take_syn(&merge.mss, syn->bytes, &packet, payload);
    push_at(0, 7000, TCP_ACK, 0);
    merge_close(&merge, &queue);
    assert_int_equal(frame_queue_front(&queue)->meta.gso_size, 700);
    frame_queue_pop(&queue);
    flow.target_port++;
    push_at(0, 7000, TCP_ACK, 0);
    flow.target_port--;
    merge_close(&merge, &queue);
    assert_int_equal(frame_queue_front(&queue)->meta.gso_size, 1460);
}

static size_t piece_count, piece_bytes;

static int on_any_piece(void *opaque, uint8_t *frame, size_t length)
{
    size_t at = piece_bytes;
    (void)opaque;
    assert_true(frames_are_checksums_right(frame, length));
    assert_true(length <= 54 + 1460);
    assert_memory_equal(frame + 54, data + at, length - 54);
    assert_int_equal(load_be32(frame + 38), at);
    piece_bytes += length - 54;
    bool is_last = piece_bytes == 4000;
    assert_int_equal((frame[47] & TCP_FIN) != 0, is_last);
    /* 1500 bytes of it are urgent: all of the first piece and 40 of the second. */
    assert_int_equal((frame[47] & TCP_URG) != 0, at < 1500);
    assert_int_equal(load_be16(frame + 52), at < 1500 ? 1500 - at : 0);
    piece_count++;
    return 0;
}

/* Who takes no offload, or none for such a segment, has it cut: and that is said how. */
static void test_what_the_guest_does_not_cut_is_cut(void **state)
{
    (void)state;
    static uint8_t room[OFFLOAD_SEGMENT_ROOM];
    for (int is_plain = 0; is_plain < 2; is_plain++) {
        struct frames_buffer *frame = &segments[0];
        if (is_plain)
            merge.offloads = 0;
        frames_tcp(frame, &flow, TCP_ACK | TCP_FIN | TCP_URG, 0, 77, data, 4000);
        store_be16(frame->bytes + 52, 1500);
        frames_fix_checksums(frame);
        assert_int_equal(merge_push(&merge, &queue, frame->bytes, frame->length, &cut), -EMSGSIZE);
        assert_int_equal(cut.gso_size, 1460);
        piece_count = piece_bytes = 0;
        assert_int_equal(
            offload_segment(&cut, frame->bytes, frame->length, room, on_any_piece, NULL), 0);
        assert_int_equal(piece_count, 3);
        assert_int_equal(piece_bytes, 4000);
        assert_int_equal(queue.count, 0);
    }
}

static void test_padding_does_not_get_between(void **state)
{
    (void)state;
    push_at(0, 2, TCP_ACK, 4);
    push_at(2, 2, TCP_ACK, 4);
    merge_close(&merge, &queue);
    const struct frame *front = frame_queue_front(&queue);
    assert_int_equal(queue.count, 1);
    assert_int_equal(front->length, 54 + 4);
    assert_memory_equal(front->bytes + 54, data, 4);
}

static void test_without_offloads_nothing_changes(void **state)
{
    (void)state;
    const unsigned weak[] = {0, NET_OFFLOAD_CSUM, NET_OFFLOAD_TSO4,
                             NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO6};
    for (size_t i = 0; i < ARRAY_SIZE(weak); i++) {
        merge = (struct merge){.offloads = weak[i]};
        push(make(0, MSS, TCP_ACK));
        push(make(1, MSS, TCP_ACK));
        merge_close(&merge, &queue);
        assert_int_equal(queue.count, 2);
        const struct frame *front = frame_queue_front(&queue);
        assert_memory_equal(front->bytes, segments[0].bytes, segments[0].length);
        assert_int_equal(front->meta.gso_type, NET_GSO_NONE);
        assert_int_equal(front->meta.flags, weak[i] & NET_OFFLOAD_CSUM ? NET_DATA_VALID : 0);
        frame_queue_clear(&queue);
    }
}

static void test_cutting_refuses_nonsense(void **state)
{
    (void)state;
    static uint8_t room[OFFLOAD_SEGMENT_ROOM];
    struct frames_buffer *frame = make(0, MSS, TCP_ACK);
    const struct net_meta metas[] = {
        {.gso_type = NET_GSO_TCPV4},                  /* no size */
        {.gso_type = NET_GSO_TCPV6, .gso_size = 100}, /* the other family */
        {.gso_type = NET_GSO_NONE, .gso_size = 100},
    };
    for (size_t i = 0; i < ARRAY_SIZE(metas); i++)
        assert_int_equal(
            offload_segment(&metas[i], frame->bytes, frame->length, room, on_piece, NULL), -EINVAL);
    const struct net_meta good = {.gso_type = NET_GSO_TCPV4, .gso_size = 100};
    assert_int_equal(offload_segment(&good, frame->bytes, 53, room, on_piece, NULL), -EINVAL);
    frame->bytes[46] = 0xf0;
    frame->bytes[17] = 40;
    frame->bytes[16] = 0;
    assert_int_equal(offload_segment(&good, frame->bytes, frame->length, room, on_piece, NULL),
                     -EINVAL);
    const struct net_meta tiny = {.gso_type = NET_GSO_TCPV4, .gso_size = 1};
    frame = make(0, OFFLOAD_PIECES_MAX + 1, TCP_ACK);
    assert_int_equal(offload_segment(&tiny, frame->bytes, frame->length, room, on_piece, NULL),
                     -EINVAL);
}

static void test_checksums_are_finished(void **state)
{
    (void)state;
    for (int is_udp = 0; is_udp < 2; is_udp++) {
        struct frames_buffer *frame = &segments[0];
        struct net_meta meta = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
        frames_tcp(frame, &flow, TCP_ACK, 1, 1, "abcde", 5);
        if (is_udp) {
            frames_udp(frame, &flow, "abcde", 5);
            meta.csum_offset = 6;
        }
        store_be16(frame->bytes + meta.csum_start + meta.csum_offset, 0xbeef);
        assert_int_equal(offload_finish_checksum(&meta, frame->bytes, frame->length), 0);
        assert_true(frames_are_checksums_right(frame->bytes, frame->length));
    }
}

static void test_sums_of_any_alignment_and_length(void **state)
{
    (void)state;
    for (size_t start = 0; start < 9; start++)
        for (size_t length = 0; length < 150; length++) {
            uint64_t plain = 0;
            for (size_t i = 0; i < length; i++)
                plain += i % 2 ? data[start + i] : (uint64_t)data[start + i] << 8;
            assert_int_equal(packet_fold(packet_sum(data + start, length, 5)),
                             packet_fold(plain + 5));
        }
}

#define merge_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        merge_test(test_ipv4_there_and_back),
        merge_test(test_ipv6_there_and_back),
        merge_test(test_merged_frame_has_the_pseudo_header_sum),
        merge_test(test_a_merged_frame_never_outgrows_ip),
        merge_test(test_a_short_or_pushed_segment_is_the_last),
        merge_test(test_what_differs_is_not_merged),
        merge_test(test_longer_segments_and_pure_acks_stand_alone),
        merge_test(test_a_long_segment_is_described_by_its_mss),
        merge_test(test_long_segments_are_joined_too),
        merge_test(test_a_smaller_mss_is_honoured),
        merge_test(test_what_the_guest_does_not_cut_is_cut),
        merge_test(test_padding_does_not_get_between),
        merge_test(test_without_offloads_nothing_changes),
        merge_test(test_cutting_refuses_nonsense),
        merge_test(test_checksums_are_finished),
        merge_test(test_sums_of_any_alignment_and_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
