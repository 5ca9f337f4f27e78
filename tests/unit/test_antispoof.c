/* SPDX-License-Identifier: MIT */
/* Who a guest may say it is, frame by frame, with the snoop learning as it does in a machine. */
#include "netbackends/antispoof.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "netbackends/packet.h"
#include "tests/frames.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

enum { OWN = FRAMES_IPV4(10, 0, 2, 15), OTHER = FRAMES_IPV4(10, 0, 2, 16) };

static const uint8_t mac[] = FRAMES_GUEST_MAC, foreign[] = {0x52, 0x54, 0, 0, 0, 9};
static const uint8_t everybody[] = {255, 255, 255, 255, 255, 255};
static struct address_snoop snoop;
static struct frames_buffer frame;

static int set_up(void **state)
{
    (void)state;
    snoop = (struct address_snoop){0};
    return 0;
}

/* A frame that may be sent teaches the snoop, as in a machine. */
static bool sends(void)
{
    uint8_t *copy = malloc(frame.length + !frame.length);
    memcpy(copy, frame.bytes, frame.length);
    const struct iovec iov = {copy, frame.length};
    bool result = antispoof_allows(&snoop, mac, &iov, 1);
    if (result)
        address_snoop_sent(&snoop, &iov, 1, 1000);
    free(copy);
    return result;
}

static void make_udp(uint32_t source, uint16_t source_port, uint16_t target_port)
{
    const struct frames_flow flow = {.source_mac = FRAMES_GUEST_MAC,
                                     .source = source,
                                     .target = OTHER,
                                     .source_port = source_port,
                                     .target_port = target_port};
    frames_udp(&frame, &flow, "data", 4);
}

static void receive_dhcp(uint8_t kind, uint32_t address)
{
    frames_dhcp(&frame, mac, kind, 0);
    frame.bytes[42] = 2; /* an answer */
    store_be32(frame.bytes + 42 + 16, address);
    store_be16(frame.bytes + 34, 67);
    store_be16(frame.bytes + 36, 68);
    frames_fix_checksums(&frame);
    const struct iovec iov = {frame.bytes, frame.length};
    address_snoop_received(&snoop, &iov, 1, 1000);
}

static void get_lease(void)
{
    frames_dhcp(&frame, mac, 3, OWN);
    assert_true(sends());
    receive_dhcp(5, OWN);
    assert_int_equal(snoop.count, 1);
}

static void test_nothing_but_dhcp_without_a_lease(void **state)
{
    (void)state;
    make_udp(OWN, 1000, 53);
    assert_false(sends());
    make_udp(0, 1000, 67);
    assert_false(sends());
    frames_arp_request(&frame, mac, OWN, OTHER);
    assert_false(sends());
    frames_arp_request(&frame, mac, 0, OWN); /* is it free? */
    assert_true(sends());
    get_lease();
    make_udp(OWN, 1000, 53);
    assert_true(sends());
    frames_arp_request(&frame, mac, OWN, OTHER);
    assert_true(sends());
}

static void test_no_other_address_than_the_leased_one(void **state)
{
    (void)state;
    get_lease();
    make_udp(OTHER, 1000, 53);
    assert_false(sends());
    frames_arp_request(&frame, mac, OTHER, OWN);
    assert_false(sends());
    frames_arp_request(&frame, mac, OWN, OTHER);
    memcpy(frame.bytes + 22, foreign, 6); /* inside */
    assert_false(sends());
    make_udp(OWN, 1000, 53);
    memcpy(frame.bytes + 6, foreign, 6);
    assert_false(sends());
    frames_dhcp(&frame, foreign, 1, 0);
    assert_false(sends());
}

static void test_a_lease_that_ends_takes_the_address_along(void **state)
{
    (void)state;
    get_lease();
    address_snoop_clear(&snoop);
    make_udp(OWN, 1000, 53);
    assert_false(sends());
}

static void test_a_guest_is_no_server(void **state)
{
    (void)state;
    get_lease();
    make_udp(OWN, 67, 68);
    assert_false(sends());
    make_udp(OWN, 1000, 53);
    store_be16(frame.bytes + 12, 0x8100); /* nor anything else */
    assert_false(sends());
}

static void make_nd(uint8_t type, uint8_t source, uint8_t target)
{
    frames_nd(&frame, mac, everybody, type, source, target);
}

static void test_ipv6_addresses_are_tried_out_first(void **state)
{
    (void)state;
    make_nd(135, 15, 2);
    assert_false(sends());
    make_nd(136, 15, 15);
    assert_false(sends());
    make_nd(133, 0, 0);
    assert_true(sends());
    make_nd(135, 0, 15); /* is it free? */
    assert_true(sends());
    make_nd(135, 15, 2);
    assert_true(sends());
    make_nd(136, 15, 15);
    assert_true(sends());
    make_nd(136, 15, 2); /* somebody else's */
    assert_false(sends());
    make_nd(135, 16, 2);
    assert_false(sends());
    make_nd(134, 15, 2); /* a router */
    assert_false(sends());
    make_nd(137, 15, 2);
    assert_false(sends());
    make_nd(128, 0, 2); /* data from nowhere */
    assert_false(sends());
    make_nd(134, 15, 2); /* behind a header */
    frame.bytes[14 + 6] = 60;
    assert_false(sends());
    make_nd(0, 0, 0); /* joining a group */
    frame.bytes[14 + 6] = 0;
    assert_true(sends());
}

static void test_truncated_and_random_frames(void **state)
{
    (void)state;
    struct random random = {3};
    get_lease();
    make_udp(OWN, 1000, 53);
    size_t whole = frame.length;
    for (frame.length = 0; frame.length < 38; frame.length++)
        assert_false(sends());
    for (int i = 0; i < 20000; i++) {
        frame.length = random_below(&random, (unsigned)whole + 60);
        frame.bytes[random_below(&random, 60)] = (uint8_t)random_next(&random);
        sends();
        memcpy(frame.bytes + 6, mac, 6);
    }
}

#define antispoof_test(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        antispoof_test(test_nothing_but_dhcp_without_a_lease),
        antispoof_test(test_no_other_address_than_the_leased_one),
        antispoof_test(test_a_lease_that_ends_takes_the_address_along),
        antispoof_test(test_a_guest_is_no_server),
        antispoof_test(test_ipv6_addresses_are_tried_out_first),
        antispoof_test(test_truncated_and_random_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
