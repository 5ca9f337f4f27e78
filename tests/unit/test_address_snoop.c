/* SPDX-License-Identifier: MIT */
#include "netbackends/address_snoop.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/frames.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

static struct address_snoop snoop;
static struct frames_buffer frame;
static const uint8_t guest_mac[6] = FRAMES_GUEST_MAC;
static const uint8_t other_mac[6] = {2, 2, 2, 2, 2, 2};

#define OUR_IP    FRAMES_IPV4(10, 0, 2, 15)
#define SERVER_IP FRAMES_IPV4(10, 0, 2, 2)

static int set_up(void **state)
{
    (void)state;
    snoop = (struct address_snoop){0};
    return 0;
}

static struct iovec whole_frame(void)
{
    return (struct iovec){frame.bytes, frame.length};
}

static bool sent(int64_t now_s)
{
    const struct iovec iov = whole_frame();
    return address_snoop_wants(&iov, 1) && address_snoop_sent(&snoop, &iov, 1, now_s);
}

static bool received(int64_t now_s)
{
    const struct iovec iov = whole_frame();
    return address_snoop_wants(&iov, 1) && address_snoop_received(&snoop, &iov, 1, now_s);
}

struct dhcp {
    uint8_t op, type;
    uint32_t xid, ciaddr, yiaddr, lease_s, requested;
    const uint8_t *mac;
};

static void make_dhcp(const struct dhcp *dhcp)
{
    uint8_t bootp[300] = {dhcp->op, 1, 6};
    uint8_t *option = bootp + 240;
    store_be32(bootp + 4, dhcp->xid);
    store_be32(bootp + 12, dhcp->ciaddr);
    store_be32(bootp + 16, dhcp->yiaddr);
    memcpy(bootp + 28, dhcp->mac ? dhcp->mac : guest_mac, 6);
    store_be32(bootp + 236, 0x63825363);
    memcpy(option, (const uint8_t[]){0, 53, 1, dhcp->type, 51, 4}, 6);
    store_be32(option + 6, dhcp->lease_s);
    memcpy(option + 10, (const uint8_t[]){50, 4}, 2);
    store_be32(option + 12, dhcp->requested);
    option[16] = 255;
    struct frames_flow flow = {.source_mac = FRAMES_GUEST_MAC,
                               .source = dhcp->op == 1 ? 0 : SERVER_IP,
                               .target = UINT32_MAX,
                               .source_port = dhcp->op == 1 ? 68 : 67,
                               .target_port = dhcp->op == 1 ? 67 : 68};
    frames_udp(&frame, &flow, bootp, sizeof(bootp));
}

static bool request(uint32_t xid)
{
    make_dhcp(&(struct dhcp){.op = 1, .type = 3, .xid = xid});
    return sent(0);
}

static bool acknowledge(uint32_t xid, uint32_t lease_s, int64_t now_s)
{
    make_dhcp(&(struct dhcp){.op = 2, .type = 5, .xid = xid, .yiaddr = OUR_IP, .lease_s = lease_s});
    return received(now_s);
}

static void check_only(enum address_source source, int64_t first_s, int64_t last_s)
{
    static const uint8_t address[] = {10, 0, 2, 15};
    assert_int_equal(snoop.count, 1);
    assert_memory_equal(snoop.entries[0].mac, guest_mac, 6);
    assert_memory_equal(snoop.entries[0].address, address, 4);
    assert_int_equal(snoop.entries[0].source, source);
    assert_int_equal(snoop.entries[0].first_seen_s, first_s);
    assert_int_equal(snoop.entries[0].last_seen_s, last_s);
}

static void test_arp_tells_the_sender(void **state)
{
    (void)state;
    frames_arp_request(&frame, guest_mac, OUR_IP, SERVER_IP);
    assert_true(sent(100));
    assert_false(sent(107));
    check_only(ADDRESS_FROM_ARP, 100, 107);
    assert_int_equal(address_snoop_next_expiry(&snoop), 0);
}

static void test_arp_that_tells_nothing(void **state)
{
    (void)state;
    static const uint32_t useless[] = {0, FRAMES_IPV4(127, 0, 0, 1), FRAMES_IPV4(224, 0, 0, 1),
                                       UINT32_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(useless); i++) {
        frames_arp_request(&frame, guest_mac, useless[i], SERVER_IP);
        assert_false(sent(1));
    }
    frames_arp_request(&frame, guest_mac, OUR_IP, SERVER_IP);
    memcpy(frame.bytes + 6, other_mac, 6); /* one station speaks for another */
    assert_false(sent(1));
    frames_arp_request(&frame, guest_mac, OUR_IP, SERVER_IP);
    assert_false(received(1));
    frame.length = 14 + 27;
    assert_false(sent(1));
    assert_int_equal(snoop.count, 0);
}

static void test_lease_comes_and_ends(void **state)
{
    (void)state;
    assert_false(request(7));
    assert_true(acknowledge(7, 3600, 1000));
    check_only(ADDRESS_FROM_DHCP, 1000, 1000);
    assert_int_equal(address_snoop_next_expiry(&snoop), 4600);
    frames_arp_request(&frame, guest_mac, OUR_IP, SERVER_IP);
    assert_false(sent(1001));
    check_only(ADDRESS_FROM_DHCP, 1000, 1001);
    assert_false(request(8));
    assert_false(acknowledge(8, 3600, 2000)); /* renewed */
    assert_false(address_snoop_expire(&snoop, 5599));
    assert_true(address_snoop_expire(&snoop, 5600));
    assert_int_equal(snoop.count, 0);
}

static void test_lease_without_end(void **state)
{
    (void)state;
    request(7);
    assert_true(acknowledge(7, UINT32_MAX, 1000));
    assert_int_equal(address_snoop_next_expiry(&snoop), 0);
    assert_false(address_snoop_expire(&snoop, INT64_MAX));
}

static void test_answers_for_others(void **state)
{
    (void)state;
    assert_false(acknowledge(7, 3600, 1)); /* nobody asked */
    request(7);
    assert_false(acknowledge(8, 3600, 1));
    make_dhcp(&(struct dhcp){.op = 2, .type = 5, .xid = 7, .yiaddr = OUR_IP, .mac = other_mac});
    assert_false(received(1));
    make_dhcp(&(struct dhcp){.op = 2, .type = 2, .xid = 7, .yiaddr = OUR_IP}); /* an offer */
    assert_false(received(1));
    assert_int_equal(snoop.count, 0);
}

static void test_release_decline_and_refusal(void **state)
{
    (void)state;
    const struct dhcp ends[] = {
        {.op = 1, .type = 7, .ciaddr = OUR_IP},
        {.op = 1, .type = 4, .requested = OUR_IP},
        {.op = 2, .type = 6, .xid = 7},
    };
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        request(7);
        assert_true(acknowledge(7, 3600, 1));
        make_dhcp(&ends[i]);
        assert_true(ends[i].op == 1 ? sent(2) : received(2));
        assert_int_equal(snoop.count, 0);
    }
}

static void test_options_that_overrun(void **state)
{
    (void)state;
    request(7);
    make_dhcp(&(struct dhcp){.op = 2, .type = 5, .xid = 7, .yiaddr = OUR_IP});
    size_t options = 14 + 20 + 8 + 240;
    frame.bytes[options + 5] = 200; /* longer than what is left */
    assert_false(received(1));
    frame.bytes[options + 1] = 255; /* ends before its type */
    assert_false(received(1));
}

/* A neighbour message; the flow's UDP header becomes ICMPv6's. */
static void make_nd(uint8_t type, bool from_nowhere, uint8_t last)
{
    uint8_t body[16] = {0};
    struct frames_flow flow = {.is_ipv6 = true, .source_mac = FRAMES_GUEST_MAC, .source = 15};
    frames_udp(&frame, &flow, body, sizeof(body));
    frame.bytes[14 + 6] = 58;
    uint8_t *icmp = frame.bytes + 14 + 40;
    memset(icmp, 0, 24);
    icmp[0] = type;
    memcpy(icmp + 8, (const uint8_t[]){0xfd, 0, 0, 1}, 4);
    icmp[8 + 15] = last;
    if (from_nowhere)
        memset(frame.bytes + 14 + 8, 0, 16);
}

static void test_neighbours(void **state)
{
    (void)state;
    make_nd(136, false, 9); /* an advertisement speaks for its target */
    assert_true(sent(5));
    assert_int_equal(snoop.entries[0].address[0], 0xfd);
    assert_int_equal(snoop.entries[0].address[15], 9);
    assert_int_equal(snoop.entries[0].source, ADDRESS_FROM_ND);
    make_nd(135, false, 10); /* a solicitation for its source */
    assert_true(sent(6));
    assert_int_equal(snoop.entries[1].address[0], 0xfe);
    make_nd(135, true, 11); /* or, from nowhere, for what it tries */
    assert_true(sent(7));
    assert_int_equal(snoop.entries[2].address[15], 11);
    memset(frame.bytes + 14 + 40 + 8, 0xff, 16);
    assert_false(sent(8)); /* no group */
    assert_int_equal(snoop.count, 3);
}

static void test_claimed_by_another(void **state)
{
    (void)state;
    make_nd(135, true, 11);
    assert_true(sent(1));
    make_nd(136, false, 11);
    assert_false(received(2)); /* its own, come back */
    memcpy(frame.bytes + 6, other_mac, 6);
    assert_true(received(2));
    assert_int_equal(snoop.count, 0);
}

static void test_oldest_leaves_when_full(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= ADDRESS_SNOOP_MAX; i++) {
        frames_arp_request(&frame, guest_mac, OUR_IP + i, SERVER_IP);
        assert_true(sent(100 + i));
    }
    assert_int_equal(snoop.count, ADDRESS_SNOOP_MAX);
    for (unsigned i = 0; i < snoop.count; i++)
        assert_true(snoop.entries[i].last_seen_s > 100);
    assert_true(address_snoop_clear(&snoop));
    assert_false(address_snoop_clear(&snoop));
}

static void test_scattered_frames(void **state)
{
    (void)state;
    frames_arp_request(&frame, guest_mac, OUR_IP, SERVER_IP);
    struct iovec parts[3] = {
        {frame.bytes, 13}, {frame.bytes + 13, 10}, {frame.bytes + 23, frame.length - 23}};
    assert_true(address_snoop_wants(parts, 3));
    assert_true(address_snoop_sent(&snoop, parts, 3, 1));
    check_only(ADDRESS_FROM_ARP, 1, 1);
    assert_false(address_snoop_wants(parts, 1));
    assert_false(address_snoop_wants(NULL, 0));
}

static void test_data_is_not_looked_at(void **state)
{
    (void)state;
    struct frames_flow flow = {.source_mac = FRAMES_GUEST_MAC,
                               .source = OUR_IP,
                               .target = SERVER_IP,
                               .source_port = 1000,
                               .target_port = 67};
    uint8_t data[64] = {0};
    frames_udp(&frame, &flow, data, sizeof(data));
    struct iovec iov = whole_frame();
    assert_false(address_snoop_wants(&iov, 1));
    frames_tcp(&frame, &flow, 16, 1, 1, data, sizeof(data));
    iov = whole_frame();
    assert_false(address_snoop_wants(&iov, 1));
}

/* Whatever bytes change and wherever a frame ends: nothing outside it is read (under ASan). */
static void test_rubbish(void **state)
{
    (void)state;
    struct random random = {7};
    for (unsigned round = 0; round < 30000; round++) {
        switch (round % 3) {
        case 0:
            make_dhcp(&(struct dhcp){.op = (uint8_t)(1 + round % 2), .type = 5, .xid = 7});
            break;
        case 1:
            make_nd((uint8_t)(135 + round % 2), false, 3);
            break;
        default:
            frames_arp_request(&frame, guest_mac, OUR_IP, SERVER_IP);
        }
        for (unsigned i = 0; i < 3; i++)
            frame.bytes[random_below(&random, (unsigned)frame.length)] =
                (uint8_t)random_next(&random);
        size_t length = random_below(&random, (unsigned)frame.length + 1);
        uint8_t *copy = malloc(length + 1);
        memcpy(copy, frame.bytes, length);
        const struct iovec iov = {copy, length};
        address_snoop_sent(&snoop, &iov, 1, round);
        address_snoop_received(&snoop, &iov, 1, round);
        assert_true(snoop.count <= ADDRESS_SNOOP_MAX);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_arp_tells_the_sender, set_up),
        cmocka_unit_test_setup(test_arp_that_tells_nothing, set_up),
        cmocka_unit_test_setup(test_lease_comes_and_ends, set_up),
        cmocka_unit_test_setup(test_lease_without_end, set_up),
        cmocka_unit_test_setup(test_answers_for_others, set_up),
        cmocka_unit_test_setup(test_release_decline_and_refusal, set_up),
        cmocka_unit_test_setup(test_options_that_overrun, set_up),
        cmocka_unit_test_setup(test_neighbours, set_up),
        cmocka_unit_test_setup(test_claimed_by_another, set_up),
        cmocka_unit_test_setup(test_oldest_leaves_when_full, set_up),
        cmocka_unit_test_setup(test_scattered_frames, set_up),
        cmocka_unit_test_setup(test_data_is_not_looked_at, set_up),
        cmocka_unit_test_setup(test_rubbish, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
