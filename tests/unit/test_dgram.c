/* SPDX-License-Identifier: MIT */
/* One frame a datagram, between two backends and against plain sockets. */
#include "netbackends/dgram.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/fake_nic.h"
#include "tests/unit/test.h"

static struct loop loop;
static struct fake_nic nic, other;
static char folder[] = "/tmp/evisor-dgram-XXXXXX";
static char here[64], there[64];
static uint8_t frame[70000];

static int set_up(void **state)
{
    (void)state;
    memcpy(strrchr(folder, '-') + 1, "XXXXXX", 6);
    assert_non_null(mkdtemp(folder));
    snprintf(here, sizeof(here), "%s/here", folder);
    snprintf(there, sizeof(there), "%s/there", folder);
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 3 + i / 256);
    return loop_init(&loop);
}

static int tear_down(void **state)
{
    (void)state;
    fake_nic_close(&nic);
    fake_nic_close(&other);
    loop_fini(&loop);
    assert_int_equal(rmdir(folder), 0); /* cleaned up */
    return 0;
}

static void open_dgram(struct fake_nic *at, const struct net_dgram_options *options)
{
    struct error err = {0};
    struct net_backend *net;
    if (net_dgram_create(&loop, "net0", options, &net, &err))
        fail_msg("%s", err.text);
    fake_nic_attach(at, net);
}

static void open_local(struct fake_nic *at, const char *local, const char *remote)
{
    open_dgram(at, &(struct net_dgram_options){.local.path = local, .remote.path = remote});
}

static void expect(struct fake_nic *at, size_t length)
{
    const struct fake_frame *got = fake_nic_next(at);
    assert_int_equal(got->length, length);
    assert_memory_equal(got->bytes, frame, length);
}

static void test_frames_cross_both_ways(void **state)
{
    (void)state;
    open_local(&nic, here, there);
    open_local(&other, there, here);
    for (size_t length = 14; length < 65562; length = length * 3 + 1) {
        assert_int_equal(fake_nic_send(&nic, frame, length), 0);
        expect(&other, length);
        assert_int_equal(fake_nic_send(&other, frame, length), 0);
        expect(&nic, length);
    }
}

static void test_udp(void **state)
{
    (void)state;
    uint16_t port = (uint16_t)(20000 + getpid() % 20000);
    struct net_dgram_options options = {.local = {.port = port}, .remote = {.port = port + 1}};
    open_dgram(&nic, &options);
    fake_nic_send(&nic, frame, 100); /* nobody there: ICMP says so, and nothing comes of it */
    options.local.port = port + 1;
    options.remote.port = port;
    open_dgram(&other, &options);
    fake_nic_run_ms(&loop, 5);
    for (int i = 0; i < 3 && !other.count; i++) {
        fake_nic_send(&nic, frame, 1514);
        fake_nic_run_ms(&loop, 2);
    }
    expect(&other, 1514);
    assert_int_equal(fake_nic_send(&other, frame, 9000), 0);
    expect(&nic, 9000);
}

static void test_a_peer_may_come_late_and_leave(void **state)
{
    (void)state;
    open_local(&nic, here, there);
    assert_true(fake_nic_send(&nic, frame, 100) < 0);
    for (int i = 0; i < 3; i++) {
        open_local(&other, there, here);
        int result = fake_nic_send(&nic, frame, 100);
        if (result) /* this one found that the old peer is gone */
            result = fake_nic_send(&nic, frame, 100);
        assert_int_equal(result, 0);
        expect(&other, 100);
        fake_nic_close(&other);
        assert_true(fake_nic_send(&nic, frame, 100) < 0);
    }
    assert_true(nic.net->stats.tx_dropped >= 4);
}

static void test_a_slow_peer_stops_the_guest_and_loses_nothing(void **state)
{
    (void)state;
    unsigned sent = 0;
    open_local(&nic, here, there);
    open_local(&other, there, here);
    other.is_full = true;
    while (fake_nic_send(&nic, frame, 9000) != -EAGAIN)
        assert_true(++sent < 10000);
    fake_nic_run_ms(&loop, 5);
    struct pollfd ready = {.fd = uv_backend_fd(&loop.uv), .events = POLLIN};
    while (fake_nic_send(&nic, frame, 9000) != -EAGAIN)
        assert_true(++sent < 10000);
    fake_nic_run_ms(&loop, 5);
    assert_int_equal(poll(&ready, 1, 0), 0);
    assert_int_equal(other.refused, 1);
    nic.send_ready = 0;
    fake_nic_make_room(&other);
    for (unsigned i = 0; i < sent; i++)
        expect(&other, 9000);
    fake_nic_run_ms(&loop, 5);
    assert_true(nic.send_ready > 0);
    assert_int_equal(nic.net->stats.tx_dropped, 0);
}

static void test_odd_datagrams_are_dropped(void **state)
{
    (void)state;
    struct error err = {0};
    struct socket_address from, to;
    open_local(&nic, here, there);
    assert_int_equal(
        socket_address_resolve(&(struct net_socket_address){.path = there}, &from, &err), 0);
    assert_int_equal(socket_address_resolve(&(struct net_socket_address){.path = here}, &to, &err),
                     0);
    int fd = socket_address_bind(&from, SOCK_DGRAM, &err);
    static const size_t lengths[] = {0, 1, 13, 65563, 70000};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        assert_int_equal(sendto(fd, frame, lengths[i], 0, &to.at.any, to.length), lengths[i]);
        fake_nic_run_ms(&loop, 1);
        assert_int_equal(nic.net->stats.rx_dropped, i + 1);
    }
    assert_int_equal(sendto(fd, frame, 65562, 0, &to.at.any, to.length), 65562);
    expect(&nic, 65562);
    assert_int_equal(fake_nic_send(&nic, frame, 13), -EMSGSIZE);
    close(fd);
    unlink(there);
}

/* As QEMU's -netdev dgram and socket,mcast= do; on this host alone. */
static void test_a_group_hears_all_but_itself(void **state)
{
    const struct net_dgram_options options = {
        .local.host = "127.0.0.1",
        .remote = {.host = "239.7.7.7", .port = (uint16_t)(20000 + getpid() % 20000)},
    };
    (void)state;
    open_dgram(&nic, &options);
    open_dgram(&other, &options);
    for (size_t length = 14; length < 9000; length = length * 3 + 1) {
        assert_int_equal(fake_nic_send(&nic, frame, length), 0);
        expect(&other, length);
        assert_int_equal(fake_nic_send(&other, frame, length), 0);
        expect(&nic, length);
    }
    fake_nic_run_ms(&loop, 5);
    assert_int_equal(nic.count - nic.read + other.count - other.read, 0);
}

static void check_error(const struct net_dgram_options *options, const char *text)
{
    struct error err = {0};
    struct net_backend *net;
    assert_true(net_dgram_create(&loop, "net9", options, &net, &err) < 0);
    if (!strstr(err.text, text) || strncmp(err.text, "netdev 'net9': ", 15))
        fail_msg("'%s' is not in '%s'", text, err.text);
}

static void test_errors_say_what_to_do(void **state)
{
    (void)state;
    open_local(&nic, here, there);
    check_error(&(struct net_dgram_options){.local.path = here, .remote.path = there}, "in use");
    check_error(&(struct net_dgram_options){.local.path = there, .remote.port = 5000},
                "of one kind");
    check_error(&(struct net_dgram_options){.local.host = "192.0.2.77",
                                            .remote = {.host = "230.0.0.1", .port = 5001}},
                "cannot join the multicast group");
    check_error(&(struct net_dgram_options){.local.host = "nowhere"}, "not a numeric address");
    check_error(&(struct net_dgram_options){.local.path = "", .remote.path = there}, "0 bytes");
}

#define dgram_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        dgram_test(test_frames_cross_both_ways),
        dgram_test(test_udp),
        dgram_test(test_a_peer_may_come_late_and_leave),
        dgram_test(test_a_slow_peer_stops_the_guest_and_loses_nothing),
        dgram_test(test_odd_datagrams_are_dropped),
        dgram_test(test_a_group_hears_all_but_itself),
        dgram_test(test_errors_say_what_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
