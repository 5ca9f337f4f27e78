/* SPDX-License-Identifier: MIT */
/* Where frames go on a shared network, and what a neighbour there may not say. */
#include "netbackends/shared_rules.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "netbackends/packet.h"
#include "tests/frames.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

enum {
    OWN = FRAMES_IPV4(10, 0, 2, 15),
    OTHER = FRAMES_IPV4(10, 0, 2, 16),
    HOST = FRAMES_IPV4(10, 0, 2, 2),
    DNS = FRAMES_IPV4(10, 0, 2, 3),
};
enum { BOTH = SHARED_TO_ENGINE | SHARED_TO_OTHERS };

static const uint8_t own_mac[] = FRAMES_GUEST_MAC, other_mac[] = {0x52, 0x54, 0, 0, 0, 9};
static const uint8_t host_mac[] = {0x52, 0x55, 10, 0, 2, 2}, host6_mac[] = {0x52, 0x56, 0, 0, 0, 2};
static struct shared_rules rules;
static struct frames_buffer frame;

static int set_up(void **state)
{
    (void)state;
    rules = (struct shared_rules){.net.s_addr = htonl(FRAMES_IPV4(10, 0, 2, 0)),
                                  .mask.s_addr = htonl(0xffffff00),
                                  .host.s_addr = htonl(HOST),
                                  .dns.s_addr = htonl(DNS)};
    inet_pton(AF_INET6, "fec0::2", &rules.host6);
    inet_pton(AF_INET6, "fec0::3", &rules.dns6);
    return 0;
}

/* The rules see a frame's head, in memory of exactly its size. */
static uint8_t *head_of(size_t *length)
{
    *length = MIN(frame.length, (size_t)SHARED_HEAD_BYTES);
    uint8_t *head = malloc(*length + !*length);
    memcpy(head, frame.bytes, *length);
    return head;
}

static unsigned sent(void)
{
    size_t length;
    uint8_t *head = head_of(&length);
    unsigned ways = shared_rules_sent(&rules, head, length);
    free(head);
    return ways;
}

static bool received(void)
{
    size_t length;
    uint8_t *head = head_of(&length);
    bool result = shared_rules_received(&rules, head, length);
    free(head);
    return result;
}

static void make_udp(const uint8_t *source_mac, const uint8_t *target_mac, uint32_t source,
                     uint16_t source_port, uint16_t target_port)
{
    struct frames_flow flow = {
        .source = source, .target = OTHER, .source_port = source_port, .target_port = target_port};
    memcpy(flow.source_mac, source_mac, 6);
    memcpy(flow.target_mac, target_mac, 6);
    frames_udp(&frame, &flow, "data", 4);
}

static const uint8_t all[] = {255, 255, 255, 255, 255, 255}, all6[] = {0x33, 0x33, 0, 0, 0, 1};

static void test_frames_go_where_they_belong(void **state)
{
    (void)state;
    make_udp(own_mac, host_mac, OWN, 1000, 53);
    assert_int_equal(sent(), SHARED_TO_ENGINE);
    make_udp(own_mac, host6_mac, OWN, 1000, 53);
    assert_int_equal(sent(), SHARED_TO_ENGINE);
    make_udp(own_mac, other_mac, OWN, 1000, 53);
    assert_int_equal(sent(), SHARED_TO_OTHERS);
    make_udp(own_mac, all, OWN, 1000, 5353);
    assert_int_equal(sent(), SHARED_TO_OTHERS);
    frames_arp_request(&frame, own_mac, OWN, OTHER);
    assert_int_equal(sent(), BOTH);
    frames_nd(&frame, other_mac, all6, 133, 15, 0);
    assert_int_equal(sent(), SHARED_TO_ENGINE);
    frames_nd(&frame, other_mac, all6, 135, 15, 2);
    assert_int_equal(sent(), BOTH);
    frame.length = 13;
    assert_int_equal(sent(), 0);
}

static void test_a_machine_has_one_lease(void **state)
{
    (void)state;
    frames_dhcp(&frame, own_mac, 1, 0);
    assert_int_equal(sent(), SHARED_TO_ENGINE);
    frames_dhcp(&frame, other_mac, 1, 0);
    assert_int_equal(sent(), 0);
    frames_dhcp(&frame, own_mac, 3, OWN);
    assert_int_equal(sent(), SHARED_TO_ENGINE);
}

static void test_neighbours_may_talk(void **state)
{
    (void)state;
    make_udp(other_mac, own_mac, OTHER, 1000, 53);
    assert_true(received());
    frames_arp_request(&frame, other_mac, OTHER, OWN);
    assert_true(received());
    frames_nd(&frame, other_mac, all6, 135, 16, 15);
    assert_true(received());
    frames_nd(&frame, other_mac, own_mac, 136, 16, 16);
    assert_true(received());
}

static void test_neighbours_may_not_be_the_router(void **state)
{
    (void)state;
    make_udp(host_mac, own_mac, OTHER, 1000, 53); /* its MAC */
    assert_false(received());
    make_udp(host6_mac, own_mac, OTHER, 1000, 53);
    assert_false(received());
    make_udp(other_mac, own_mac, HOST, 1000, 53); /* its address */
    assert_false(received());
    make_udp(other_mac, own_mac, DNS, 53, 1000);
    assert_false(received());
    frames_arp_request(&frame, other_mac, HOST, OWN);
    assert_false(received());
    frames_nd(&frame, other_mac, own_mac, 136, 16, 2);
    assert_false(received());
    frames_nd(&frame, other_mac, all6, 135, 2, 15);
    assert_false(received());
    frames_nd(&frame, other_mac, all6, 134, 16, 0); /* advertise routes, redirect */
    assert_false(received());
    frames_nd(&frame, other_mac, own_mac, 137, 16, 16);
    assert_false(received());
    frames_nd(&frame, other_mac, all6, 134, 16, 0); /* behind a header */
    frame.bytes[14 + 6] = 60;
    assert_false(received());
    make_udp(other_mac, own_mac, OTHER, 67, 68); /* hand out addresses */
    assert_false(received());
    make_udp(other_mac, own_mac, OTHER, 547, 546);
    assert_false(received());
}

static void test_nothing_hides_in_vlan_0(void **state)
{
    (void)state;
    make_udp(other_mac, own_mac, OTHER, 67, 68);
    store_be16(frame.bytes + 12, 0x8100);
    store_be16(frame.bytes + 14, 0x6000);
    assert_false(received());
    store_be16(frame.bytes + 14, 0x6007);
    assert_true(received());
}

static void test_truncated_heads_are_not_believed(void **state)
{
    (void)state;
    frames_arp_request(&frame, other_mac, HOST, OWN);
    for (frame.length = 0; frame.length < 42; frame.length++)
        assert_false(received());
    make_udp(other_mac, own_mac, HOST, 1000, 53);
    for (frame.length = 0; frame.length < 34; frame.length++)
        assert_false(received());
    frames_nd(&frame, other_mac, own_mac, 136, 16, 2);
    for (frame.length = 0; frame.length < 78; frame.length++)
        assert_false(received());
}

static void test_the_router_is_hidden(void **state)
{
    (void)state;
    frames_dhcp(&frame, own_mac, 2, 0);
    uint8_t *options = frame.bytes + 42 + 240 + 3; /* behind the kind */
    static const uint8_t ways[] = {3, 4, 10, 0, 2, 2, 51, 4, 0, 0, 0, 9, 6, 4, 10, 0, 2, 3, 255};
    memcpy(options, ways, sizeof(ways));
    store_be16(frame.bytes + 34, 67);
    store_be16(frame.bytes + 36, 68);
    frames_fix_checksums(&frame);
    assert_true(shared_rules_hide_router(frame.bytes, frame.length));
    assert_null(frames_dhcp_option(frame.bytes, frame.length, 3));
    assert_null(frames_dhcp_option(frame.bytes, frame.length, 6));
    assert_int_equal(frames_dhcp_option(frame.bytes, frame.length, 51)[3], 9);
    assert_true(frames_are_checksums_right(frame.bytes, frame.length));
    assert_false(shared_rules_hide_router(frame.bytes, frame.length));
    options[0] = 3;
    options[1] = 255; /* beyond the end */
    assert_false(shared_rules_hide_router(frame.bytes, frame.length));
    frames_nd(&frame, other_mac, all6, 134, 2, 0);
    memset(frame.bytes + 54 + 4, 0xff, 12);
    static const uint8_t dns[] = {25, 2, 0, 0, 0, 0, 2, 88};
    memcpy(frame.bytes + 54 + 16, dns, sizeof(dns));
    assert_true(shared_rules_hide_router(frame.bytes, frame.length));
    assert_int_equal(load_be16(frame.bytes + 54 + 6), 0);
    assert_int_equal(load_be32(frame.bytes + 54 + 20), 0);
    frames_nd(&frame, other_mac, all6, 135, 2, 0);
    assert_false(shared_rules_hide_router(frame.bytes, frame.length));
}

static void test_random_frames(void **state)
{
    (void)state;
    struct random random = {7};
    for (int i = 0; i < 20000; i++) {
        frames_nd(&frame, other_mac, all6, (uint8_t)(133 + random_below(&random, 6)), 2, 2);
        frame.length = random_below(&random, 120);
        for (unsigned changes = random_below(&random, 6); changes; changes--)
            frame.bytes[random_below(&random, 110)] = (uint8_t)random_below(&random, 256);
        sent();
        received();
        uint8_t *copy = malloc(frame.length + 1);
        memcpy(copy, frame.bytes, frame.length);
        shared_rules_hide_router(copy, frame.length);
        free(copy);
    }
}

#define rules_test(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        rules_test(test_frames_go_where_they_belong),
        rules_test(test_a_machine_has_one_lease),
        rules_test(test_neighbours_may_talk),
        rules_test(test_neighbours_may_not_be_the_router),
        rules_test(test_nothing_hides_in_vlan_0),
        rules_test(test_truncated_heads_are_not_believed),
        rules_test(test_the_router_is_hidden),
        rules_test(test_random_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
