/* SPDX-License-Identifier: MIT */
/* What is known of a NIC's addresses, told when it changes, and held against what the guest sends.
 */
#include "vmm/nic_addresses.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/fake_nic.h"
#include "tests/frames.h"
#include "tests/unit/test.h"

enum { OWN = FRAMES_IPV4(10, 0, 2, 15), OTHER = FRAMES_IPV4(10, 0, 2, 16) };

static const uint8_t mac[] = FRAMES_GUEST_MAC;
static struct loop loop;
static struct net_backend net;
static struct nic_addresses addresses;
static struct frames_buffer frame;
static unsigned told;
static bool is_closed;

static int on_send(struct net_backend *backend, const struct net_meta *meta,
                   const struct iovec *iov, size_t iov_count)
{
    (void)backend;
    (void)meta;
    (void)iov;
    (void)iov_count;
    return 0;
}

static int on_receive(void *nic, const struct net_meta *meta, const struct iovec *iov,
                      size_t iov_count)
{
    (void)nic;
    (void)meta;
    (void)iov;
    (void)iov_count;
    return 0;
}

static void on_changed(struct nic_addresses *changed)
{
    assert_ptr_equal(changed, &addresses);
    told++;
}

static void on_closed(struct nic_addresses *closed)
{
    (void)closed;
    is_closed = true;
}

static int set_up(void **state)
{
    (void)state;
    static const struct net_backend_ops ops = {.kind = "test", .send = on_send};
    static const struct net_peer_ops nic_ops = {.receive = on_receive};
    told = 0;
    is_closed = false;
    assert_int_equal(loop_init(&loop), 0);
    net_backend_init(&net, &ops, &loop, "net0");
    net_attach(&net, &nic_ops, &told);
    return nic_addresses_init(&addresses, &loop, &net, on_changed);
}

static int tear_down(void **state)
{
    (void)state;
    nic_addresses_close(&addresses, on_closed);
    fake_nic_wait(&loop, &is_closed);
    loop_fini(&loop);
    return 0;
}

static int send_frame(void)
{
    const struct iovec iov = {frame.bytes, frame.length};
    return net_send(&net, NULL, &iov, 1);
}

static int say_by_arp(uint32_t address)
{
    frames_arp_request(&frame, mac, address, OTHER);
    return send_frame();
}

static void get_lease(uint32_t lease_s)
{
    frames_dhcp(&frame, mac, 3, OWN);
    assert_int_equal(send_frame(), 0);
    frames_dhcp(&frame, mac, 5, OWN);
    frame.bytes[42] = 2; /* an answer */
    store_be32(frame.bytes + 42 + 16, OWN);
    uint8_t *option = frame.bytes + 42 + 240 + 3; /* behind the kind */
    option[0] = 51;
    option[1] = 4;
    store_be32(option + 2, lease_s);
    option[6] = 255;
    store_be16(frame.bytes + 34, 67);
    store_be16(frame.bytes + 36, 68);
    frames_fix_checksums(&frame);
    const struct iovec iov = {frame.bytes, frame.length};
    assert_int_equal(net_receive(&net, NULL, &iov, 1), 0);
}

static void wait_told(unsigned times)
{
    for (int i = 0; i < 100000 && told < times; i++)
        fake_nic_run_ms(&loop, 1);
    assert_int_equal(told, times);
}

static void test_a_lease_ends_by_itself(void **state)
{
    (void)state;
    get_lease(1);
    assert_int_equal(addresses.snoop.count, 1);
    assert_int_equal(told, 1);
    wait_told(2);
    assert_int_equal(addresses.snoop.count, 0);
}

static void test_news_come_at_a_bounded_rate(void **state)
{
    (void)state;
    uint64_t begin_ns = loop_now_ns();
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(say_by_arp(OWN + i % 20), 0);
    assert_true(told <= 2 + (loop_now_ns() - begin_ns) / 1000000000);
    for (int i = 0; i < 100000 && addresses.has_news; i++)
        fake_nic_run_ms(&loop, 1);
    assert_false(addresses.has_news); /* nothing is kept back for good */
}

static void test_a_reset_forgets_all(void **state)
{
    (void)state;
    get_lease(1000);
    nic_addresses_clear(&addresses);
    assert_int_equal(addresses.snoop.count, 0);
    wait_told(2);
    nic_addresses_clear(&addresses); /* no news */
    fake_nic_run_ms(&loop, 5);
    assert_int_equal(told, 2);
}

static void test_a_guarded_guest_sends_as_itself(void **state)
{
    (void)state;
    assert_int_equal(say_by_arp(OTHER), 0); /* not guarded yet */
    nic_addresses_guard(&addresses, mac);
    assert_int_equal(say_by_arp(OTHER), -EPERM); /* what it said itself is no proof */
    assert_int_equal(say_by_arp(OWN), -EPERM);
    get_lease(1000);
    assert_int_equal(say_by_arp(OWN), 0);
    assert_int_equal(say_by_arp(OTHER), -EPERM);
    assert_int_equal(net.stats.tx_dropped, 3);
    nic_addresses_clear(&addresses);
    assert_int_equal(say_by_arp(OWN), -EPERM);
}

#define addresses_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        addresses_test(test_a_lease_ends_by_itself),
        addresses_test(test_news_come_at_a_bounded_rate),
        addresses_test(test_a_reset_forgets_all),
        addresses_test(test_a_guarded_guest_sends_as_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
