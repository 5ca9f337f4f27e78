/* SPDX-License-Identifier: MIT */
/* What a NIC lets through, and the commands that say so, in whatever pieces they come. */
#include "devices/net_filter.h"

#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/unit/test.h"

#define MAC ((const uint8_t *)"\x52\x54\x00\x12\x34\x56")

static struct net_filter filter;
static uint8_t frame[60];

static int set_up(void **state)
{
    (void)state;
    net_filter_reset(&filter, MAC);
    filter.promiscuous = 0;
    memset(frame, 0, sizeof(frame));
    memcpy(frame, MAC, 6);
    return 0;
}

static bool passes(const char *target)
{
    memcpy(frame, target, 6);
    return net_filter_passes(&filter, frame, sizeof(frame));
}

/* In pieces of `piece` bytes, in memory of exactly their size. */
static bool command(uint8_t class, uint8_t what, const void *data, size_t length, size_t piece)
{
    struct iovec iov[700] = {0};
    size_t count = 0;
    for (size_t at = 0; at < length; at += piece, count++) {
        size_t here = MIN(piece, length - at);
        iov[count] = (struct iovec){malloc(here), here};
        memcpy(iov[count].iov_base, (const char *)data + at, here);
    }
    bool result = net_filter_command(&filter, class, what, iov, count, 0);
    for (size_t i = 0; i < count; i++)
        free(iov[i].iov_base);
    return result;
}

static void test_after_reset_everything_passes(void **state)
{
    (void)state;
    net_filter_reset(&filter, MAC);
    assert_true(passes("\x02\0\0\0\0\x09"));
    assert_true(passes("\x01\0\x5e\0\0\x09"));
    assert_false(net_filter_passes(&filter, frame, 13));
}

static void test_modes(void **state)
{
    (void)state;
    static const struct {
        uint8_t mode;
        const char *target;
        bool before, after;
    } cases[] = {
        {VIRTIO_NET_CTRL_RX_PROMISC, "\x02\0\0\0\0\x09", false, true},
        {VIRTIO_NET_CTRL_RX_ALLUNI, "\x02\0\0\0\0\x09", false, true},
        {VIRTIO_NET_CTRL_RX_ALLUNI, "\x01\0\x5e\0\0\x09", false, false},
        {VIRTIO_NET_CTRL_RX_ALLMULTI, "\x01\0\x5e\0\0\x09", false, true},
        {VIRTIO_NET_CTRL_RX_ALLMULTI, "\x02\0\0\0\0\x09", false, false},
        {VIRTIO_NET_CTRL_RX_NOUNI, "\x52\x54\x00\x12\x34\x56", true, false},
        {VIRTIO_NET_CTRL_RX_NOBCAST, "\xff\xff\xff\xff\xff\xff", true, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        set_up(NULL);
        assert_int_equal(passes(cases[i].target), cases[i].before);
        assert_true(command(VIRTIO_NET_CTRL_RX, cases[i].mode, "\1", 1, 1));
        assert_int_equal(passes(cases[i].target), cases[i].after);
        assert_true(command(VIRTIO_NET_CTRL_RX, cases[i].mode, "\0", 1, 1));
        assert_int_equal(passes(cases[i].target), cases[i].before);
    }
    assert_true(command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, "\1", 1, 1));
    assert_true(command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOMULTI, "\1", 1, 1));
    assert_false(passes("\x01\0\x5e\0\0\x09"));
    assert_false(command(VIRTIO_NET_CTRL_RX, 6, "\1", 1, 1));
    assert_false(command(VIRTIO_NET_CTRL_RX, 0, "", 0, 1));
}

static size_t make_tables(uint8_t *to, uint32_t unicast, uint32_t multicast)
{
    size_t at = 0;
    for (int multi = 0; multi < 2; multi++) {
        uint32_t count = multi ? multicast : unicast;
        store_le32(to + at, count);
        at += 4;
        for (uint32_t i = 0; i < count; i++, at += 6) {
            const uint8_t address[] = {multi ? 1 : 2, 0, 0, 0, (uint8_t)(i >> 8), (uint8_t)i};
            memcpy(to + at, address, 6);
        }
    }
    return at;
}

static void test_tables_in_any_pieces(void **state)
{
    (void)state;
    static uint8_t tables[2000];
    static const size_t pieces[] = {1, 3, 4, 5, 6, 7, 1000};
    size_t length = make_tables(tables, 64, 3);
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        set_up(NULL);
        assert_true(command(VIRTIO_NET_CTRL_MAC, 0, tables, length, pieces[i]));
        assert_true(passes("\x02\0\0\0\0\x3f"));
        assert_false(passes("\x02\0\0\0\0\x40"));
        assert_true(passes("\x01\0\0\0\0\x02"));
        assert_false(passes("\x01\0\0\0\0\x03"));
    }
    length = make_tables(tables, 0, 0);
    assert_true(command(VIRTIO_NET_CTRL_MAC, 0, tables, length, 8));
    assert_false(passes("\x02\0\0\0\0\x3f"));
}

static void test_too_many_addresses_open_the_filter(void **state)
{
    (void)state;
    static uint8_t tables[2000];
    size_t length = make_tables(tables, 65, 2);
    assert_true(command(VIRTIO_NET_CTRL_MAC, 0, tables, length, 100));
    assert_true(passes("\x02\0\0\0\xff\xff"));
    assert_false(passes("\x01\0\0\0\xff\xff"));
}

static void test_cut_short_tables_change_nothing(void **state)
{
    (void)state;
    static uint8_t tables[2000];
    size_t length = make_tables(tables, 1, 1);
    assert_true(command(VIRTIO_NET_CTRL_MAC, 0, tables, length, 100));
    length = make_tables(tables, 5, 5);
    for (size_t end = 0; end < length; end++) {
        assert_false(command(VIRTIO_NET_CTRL_MAC, 0, tables, end, 100));
        assert_true(passes("\x02\0\0\0\0\0"));
        assert_false(passes("\x02\0\0\0\0\1"));
    }
    store_le32(tables, UINT32_MAX);
    assert_false(command(VIRTIO_NET_CTRL_MAC, 0, tables, length, 100));
}

static void test_own_address(void **state)
{
    (void)state;
    assert_false(command(VIRTIO_NET_CTRL_MAC, 1, "\2\0\0\0\0", 5, 5));
    assert_true(command(VIRTIO_NET_CTRL_MAC, 1, "\2\0\0\0\0\7", 6, 4));
    assert_true(passes("\2\0\0\0\0\7"));
    assert_false(passes("\x52\x54\x00\x12\x34\x56"));
    assert_false(command(VIRTIO_NET_CTRL_MAC, 2, "\2\0\0\0\0\7", 6, 6));
}

static void test_vlans(void **state)
{
    (void)state;
    memcpy(frame + 12, "\x81\x00\x20\x05", 4); /* priority 1, VLAN 5 */
    assert_true(passes("\x52\x54\x00\x12\x34\x56"));
    assert_true(net_filter_has_vlan(&filter, 5));
    filter.checks_vlan = 1;
    assert_false(net_filter_has_vlan(&filter, 5));
    assert_false(passes("\x52\x54\x00\x12\x34\x56"));
    assert_true(command(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, "\5\0", 2, 1));
    assert_true(net_filter_has_vlan(&filter, 5));
    assert_true(passes("\x52\x54\x00\x12\x34\x56"));
    assert_true(command(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, "\xff\x0f", 2, 2));
    assert_true(command(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, "\5\0", 2, 2));
    assert_false(passes("\x52\x54\x00\x12\x34\x56"));
    assert_false(command(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, "\0\x10", 2, 2));
    assert_false(command(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, "\0", 1, 1));
    assert_false(command(VIRTIO_NET_CTRL_VLAN, 2, "\5\0", 2, 2));
    assert_false(command(VIRTIO_NET_CTRL_MQ, 0, "\1\0", 2, 2));
    filter.promiscuous = 1;
    assert_true(passes("\x52\x54\x00\x12\x34\x56"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_after_reset_everything_passes, set_up),
        cmocka_unit_test_setup(test_modes, set_up),
        cmocka_unit_test_setup(test_tables_in_any_pieces, set_up),
        cmocka_unit_test_setup(test_too_many_addresses_open_the_filter, set_up),
        cmocka_unit_test_setup(test_cut_short_tables_change_nothing, set_up),
        cmocka_unit_test_setup(test_own_address, set_up),
        cmocka_unit_test_setup(test_vlans, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
