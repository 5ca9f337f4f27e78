/* SPDX-License-Identifier: MIT */
/* What the guard lets through to libslirp: each rule with a frame that keeps it and one that breaks
 * it. */
#include "netbackends/guard.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "netbackends/packet.h"
#include "tests/frames.h"
#include "tests/unit/test.h"

enum { IP = 14, TRANSPORT = 34, TRANSPORT6 = 54 };

static struct frames_buffer frame;
static const struct guard strict;
static const struct frames_flow flow = {
    .source_mac = FRAMES_GUEST_MAC,
    .target_mac = {0x52, 0x55, 10, 0, 2, 2},
    .source = FRAMES_IPV4(10, 0, 2, 15),
    .target = FRAMES_IPV4(10, 0, 2, 2),
    .source_port = 40000,
    .target_port = 80,
};

/* In memory of exactly its size, so that a read past the end is seen. */
static bool passes_with(const struct guard *guard)
{
    uint8_t *exact = malloc(frame.length + !frame.length);
    memcpy(exact, frame.bytes, frame.length);
    bool result = guard_check(guard, exact, frame.length);
    memcpy(frame.bytes, exact, frame.length);
    free(exact);
    return result;
}

static bool passes(void)
{
    return passes_with(&strict);
}

static void make_tcp(uint8_t flags)
{
    frames_tcp(&frame, &flow, flags, 1, 1, "data", flags & TCP_SYN ? 0 : 4);
}

static void make_udp(uint16_t port, size_t bytes)
{
    static const uint8_t data[1500];
    struct frames_flow other = flow;
    other.target_port = port;
    frames_udp(&frame, &other, data, bytes);
}

static void test_well_formed_frames_pass(void **state)
{
    (void)state;
    const uint8_t mac[] = FRAMES_GUEST_MAC;
    struct frames_flow ipv6 = flow;
    ipv6.is_ipv6 = true;
    make_tcp(TCP_SYN);
    assert_true(passes());
    make_tcp(TCP_ACK | TCP_PSH);
    assert_true(passes());
    assert_true(frames_are_checksums_right(frame.bytes, frame.length));
    make_udp(53, 30);
    assert_true(passes());
    frames_arp_request(&frame, mac, flow.source, flow.target);
    assert_true(passes());
    frames_tcp(&frame, &ipv6, TCP_ACK, 1, 1, "data", 4);
    assert_true(passes());
    make_udp(53, 30);
    frame.bytes[IP + 9] = PACKET_ICMP;
    assert_true(passes());
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        const uint8_t mac[] = FRAMES_GUEST_MAC;
        for (size_t length = 0;; length++) {
            if (kind == 0)
                make_tcp(TCP_SYN);
            else if (kind == 1)
                make_udp(53, 9);
            else
                frames_arp_request(&frame, mac, flow.source, flow.target);
            if (length == frame.length)
                break;
            frame.length = length;
            assert_false(passes());
        }
    }
}

static void test_padding_passes(void **state)
{
    (void)state;
    make_udp(53, 1);
    frame.length = 60;
    assert_true(passes());
}

static void test_other_ethertypes_are_refused(void **state)
{
    (void)state;
    const uint16_t types[] = {0x88f8, 0x8100, 0x0000, 0x88cc, 0x86dc};
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        make_tcp(TCP_ACK);
        store_be16(frame.bytes + 12, types[i]);
        assert_false(passes());
    }
}

static void test_urgent_data_becomes_plain(void **state)
{
    (void)state;
    make_tcp(TCP_ACK | TCP_URG);
    store_be16(frame.bytes + TRANSPORT + 18, 4);
    frames_fix_checksums(&frame);
    assert_true(passes());
    assert_int_equal(frame.bytes[TRANSPORT + 13], TCP_ACK);
    assert_int_equal(load_be16(frame.bytes + TRANSPORT + 18), 0);
    assert_true(frames_are_checksums_right(frame.bytes, frame.length));
}

static void test_ip_header_rules(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
    } breaks[] = {
        {0, 0x46}, /* options */
        {0, 0x44}, /* header too short */
        {0, 0x65}, /* version */
        {3, 19},   /* total below a header */
        {2, 0xff}, /* total beyond the frame */
        {6, 0x20}, /* more fragments, TCP */
        {7, 1},    /* late fragment, TCP */
        {9, 2},    /* IGMP */
        {9, 41},   /* IPv6 in IPv4 */
        {16, 127}, /* the host's loopback */
        {16, 0},   /* 0.0.0.0/8: as good as the loopback to connect() */
    };
    for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
        make_tcp(TCP_ACK);
        frame.bytes[IP + breaks[i].at] = breaks[i].value;
        if (passes())
            fail_msg("break %zu passed", i);
    }
}

static void test_tcp_header_rules(void **state)
{
    (void)state;
    make_tcp(TCP_ACK);
    frame.bytes[TRANSPORT + 12] = 4 << 4; /* shorter than a header */
    assert_false(passes());
    make_tcp(TCP_ACK);
    frame.bytes[TRANSPORT + 12] = 15 << 4; /* longer than the packet */
    assert_false(passes());
    make_tcp(TCP_SYN);
    frame.bytes[TRANSPORT + 21] = 1; /* an option shorter than itself */
    assert_false(passes());
    make_tcp(TCP_SYN);
    frame.bytes[TRANSPORT + 21] = 5; /* an option beyond the header */
    assert_false(passes());
    make_tcp(TCP_SYN);
    memset(frame.bytes + TRANSPORT + 20, 1, 3); /* a lone kind without its length */
    assert_false(passes());
}

static void test_udp_rules(void **state)
{
    (void)state;
    const struct guard with_tftp = {.allows_tftp = true};
    make_udp(53, 4);
    store_be16(frame.bytes + TRANSPORT + 4, 7);
    assert_false(passes());
    make_udp(53, 4);
    store_be16(frame.bytes + TRANSPORT + 4, 13);
    assert_false(passes());
    make_udp(69, 30);
    assert_false(passes());
    assert_true(passes_with(&with_tftp));
    make_udp(67, 239); /* shorter than any BOOTP packet */
    assert_false(passes());
    make_udp(67, 300);
    assert_true(passes());
    store_be16(frame.bytes + IP + 6, 0x2000);
    assert_false(passes());
}

static void test_udp_fragments(void **state)
{
    (void)state;
    make_udp(53, 800);
    store_be16(frame.bytes + TRANSPORT + 4, 3000); /* the whole, of which this is the first part */
    assert_false(passes());
    store_be16(frame.bytes + IP + 6, 0x2000);
    assert_true(passes());
    store_be16(frame.bytes + IP + 6, 0x2000 | 100);
    assert_true(passes());
    make_udp(69, 800);
    store_be16(frame.bytes + IP + 6, 0x2000);
    assert_false(passes());
}

static void test_ipv6_rules(void **state)
{
    (void)state;
    struct frames_flow ipv6 = flow;
    ipv6.is_ipv6 = true;
    static const uint8_t mapped[16] = {[10] = 255, [11] = 255, [12] = 127, [15] = 1};
    static const uint8_t loopback[16] = {[15] = 1};
    frames_tcp(&frame, &ipv6, TCP_ACK, 1, 1, "data", 4);
    memcpy(frame.bytes + IP + 24, mapped, 16);
    assert_false(passes());
    memcpy(frame.bytes + IP + 24, loopback, 16);
    assert_false(passes());
    frames_tcp(&frame, &ipv6, TCP_ACK, 1, 1, "data", 4);
    frame.bytes[IP + 6] = 0; /* hop-by-hop options */
    assert_false(passes());
    frames_tcp(&frame, &ipv6, TCP_ACK, 1, 1, "data", 4);
    store_be16(frame.bytes + IP + 4, 25); /* one byte more than there is */
    assert_false(passes());
    frames_tcp(&frame, &ipv6, TCP_ACK | TCP_URG, 1, 1, "data", 4);
    assert_true(passes());
    assert_int_equal(frame.bytes[TRANSPORT6 + 13], TCP_ACK);
    assert_true(frames_are_checksums_right(frame.bytes, frame.length));
}

static void test_arp_of_other_kinds_is_refused(void **state)
{
    (void)state;
    const uint8_t mac[] = FRAMES_GUEST_MAC;
    for (size_t at = 14; at < 20; at++) {
        frames_arp_request(&frame, mac, flow.source, flow.target);
        frame.bytes[at] ^= 1;
        assert_false(passes());
    }
}

static void test_short_of_descriptors_no_new_flow_passes(void **state)
{
    (void)state;
    const struct guard full = {.refuses_new_flows = true};
    make_tcp(TCP_SYN);
    assert_false(passes_with(&full));
    make_tcp(TCP_ACK);
    assert_true(passes_with(&full));
    make_tcp(TCP_SYN | TCP_ACK);
    assert_true(passes_with(&full));
    make_udp(53, 10);
    assert_false(passes_with(&full));
    make_udp(67, 300); /* answered here, without a descriptor */
    assert_true(passes_with(&full));
}

/* No input reads out of bounds; what passes is whole. */
static void test_random_frames(void **state)
{
    (void)state;
    srandom(1);
    unsigned passed = 0;
    for (int i = 0; i < 200000; i++) {
        make_tcp(i % 2 ? TCP_SYN : TCP_ACK);
        if (i % 3 == 0)
            make_udp(53, 20);
        if (i % 5 == 0)
            frame.length = (size_t)random() % (frame.length + 1);
        for (long n = random() % 4; n >= 0 && frame.length; n--)
            frame.bytes[(size_t)random() % frame.length] = (uint8_t)random();
        passed += passes();
    }
    assert_in_range(passed, 1000, 199000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_well_formed_frames_pass),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_padding_passes),
        cmocka_unit_test(test_other_ethertypes_are_refused),
        cmocka_unit_test(test_urgent_data_becomes_plain),
        cmocka_unit_test(test_ip_header_rules),
        cmocka_unit_test(test_tcp_header_rules),
        cmocka_unit_test(test_udp_rules),
        cmocka_unit_test(test_udp_fragments),
        cmocka_unit_test(test_ipv6_rules),
        cmocka_unit_test(test_arp_of_other_kinds_is_refused),
        cmocka_unit_test(test_short_of_descriptors_no_new_flow_passes),
        cmocka_unit_test(test_random_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
