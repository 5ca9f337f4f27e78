/* SPDX-License-Identifier: MIT */
/* Frames over a stream socket: against a plain socket that knows the framing, and both ends. */
#include "netbackends/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/fake_nic.h"
#include "tests/unit/test.h"

static struct loop loop;
static struct fake_nic nic, other;
static char folder[] = "/tmp/evisor-stream-XXXXXX";
static char path[64];
static uint8_t frame[70000];

static int set_up(void **state)
{
    (void)state;
    memcpy(strrchr(folder, '-') + 1, "XXXXXX", 6);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/net.sock", folder);
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
    assert_int_equal(access(path, F_OK), -1); /* cleaned up */
    assert_int_equal(rmdir(folder), 0);
    return 0;
}

static void open_stream(struct fake_nic *at, bool is_server, unsigned reconnect_ms)
{
    const struct net_stream_options options = {
        .address.path = path, .is_server = is_server, .reconnect_ms = reconnect_ms};
    struct error err = {0};
    struct net_backend *net;
    if (net_stream_create(&loop, "net0", &options, &net, &err))
        fail_msg("%s", err.text);
    fake_nic_attach(at, net);
}

/* A peer that is a plain socket. */
static int connect_plain(void)
{
    struct error err = {0};
    struct socket_address address;
    const struct net_socket_address where = {.path = path};
    assert_int_equal(socket_address_resolve(&where, &address, &err), 0);
    int fd = socket_address_open(&address, SOCK_STREAM);
    assert_int_equal(connect(fd, &address.at.any, address.length), 0);
    fake_nic_wait(&loop, &nic.link_up);
    return fd;
}

static void write_all(int fd, const void *from, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t count = write(fd, (const char *)from + done, length - done);
        if (count > 0)
            done += (size_t)count;
        else
            loop_run_once(&loop, false);
    }
}

static void read_all(int fd, void *to, size_t length)
{
    size_t done = 0;
    for (int i = 0; i < 200000 && done < length; i++) {
        ssize_t count = read(fd, (char *)to + done, length - done);
        done += count > 0 ? (size_t)count : 0;
        loop_run_once(&loop, false);
        if (count <= 0)
            usleep(100);
    }
    assert_int_equal(done, length);
}

static void write_frame(int fd, size_t length)
{
    uint8_t head[4];
    store_be32(head, (uint32_t)length);
    write_all(fd, head, sizeof(head));
    write_all(fd, frame, length);
}

static void expect(struct fake_nic *at, size_t length)
{
    const struct fake_frame *got = fake_nic_next(at);
    assert_int_equal(got->length, length);
    assert_memory_equal(got->bytes, frame, length);
}

static void wait_link_down(void)
{
    for (int i = 0; i < 200000 && nic.link_up; i++) {
        loop_run_once(&loop, false);
        usleep(100);
    }
    assert_false(nic.link_up);
}

static void test_the_framing_is_qemus(void **state)
{
    (void)state;
    uint8_t got[4 + 442];
    open_stream(&nic, true, 0);
    assert_false(nic.link_up);
    int fd = connect_plain();
    assert_int_equal(fake_nic_send(&nic, frame, 442), 0);
    read_all(fd, got, sizeof(got));
    assert_memory_equal(got, "\x00\x00\x01\xba", 4);
    assert_memory_equal(got + 4, frame, 442);
    write_frame(fd, 60);
    expect(&nic, 60);
    close(fd);
}

static void test_frames_cross_both_ways(void **state)
{
    (void)state;
    open_stream(&nic, true, 0);
    open_stream(&other, false, 0);
    fake_nic_wait(&loop, &nic.link_up);
    fake_nic_wait(&loop, &other.link_up);
    for (size_t length = 14; length < 65000; length = length * 3 + 1) {
        assert_int_equal(fake_nic_send(&nic, frame, length), 0);
        expect(&other, length);
        assert_int_equal(fake_nic_send(&other, frame, length), 0);
        expect(&nic, length);
    }
}

static void test_frames_in_dribbles(void **state)
{
    (void)state;
    uint8_t bytes[2 * 104];
    open_stream(&nic, true, 0);
    int fd = connect_plain();
    for (int i = 0; i < 2; i++) {
        store_be32(bytes + (ptrdiff_t)i * 104, 100);
        memcpy(bytes + (ptrdiff_t)i * 104 + 4, frame, 100);
    }
    for (size_t i = 0; i < sizeof(bytes); i++) {
        write_all(fd, bytes + i, 1);
        loop_run_once(&loop, false);
    }
    expect(&nic, 100);
    expect(&nic, 100);
    close(fd);
}

static void test_a_slow_peer_stops_the_guest_and_loses_nothing(void **state)
{
    (void)state;
    static uint8_t got[4 + 9000];
    unsigned sent = 0;
    open_stream(&nic, true, 0);
    int fd = connect_plain();
    for (;;) {
        int result = fake_nic_send(&nic, frame, 9000);
        if (result == -EAGAIN) {
            fake_nic_run_ms(&loop, 2);
            if (!nic.send_ready)
                break;
            nic.send_ready = 0;
            continue;
        }
        assert_int_equal(result, 0);
        assert_true(++sent < 10000);
    }
    for (unsigned i = 0; i < sent; i++) {
        read_all(fd, got, sizeof(got));
        assert_int_equal(load_be32(got), 9000);
        assert_memory_equal(got + 4, frame, 9000);
    }
    assert_true(nic.send_ready > 0);
    close(fd);
}

static void test_a_full_guest_stops_the_peer_and_loses_nothing(void **state)
{
    (void)state;
    open_stream(&nic, true, 0);
    int fd = connect_plain();
    nic.is_full = true;
    for (int i = 0; i < 50; i++)
        write_frame(fd, 1500);
    fake_nic_run_ms(&loop, 10);
    assert_int_equal(nic.refused, 1);
    assert_int_equal(nic.count, 0);
    fake_nic_make_room(&nic);
    for (int i = 0; i < 50; i++)
        expect(&nic, 1500);
    close(fd);
}

static void check_bad_length(uint32_t length)
{
    uint8_t head[4];
    char byte;
    int fd = connect_plain();
    write_frame(fd, 60);
    store_be32(head, length);
    write_all(fd, head, sizeof(head));
    expect(&nic, 60);
    wait_link_down();
    assert_int_equal(read(fd, &byte, 1), 0);
    close(fd);
}

static void test_a_bad_length_ends_the_connection_not_the_server(void **state)
{
    (void)state;
    open_stream(&nic, true, 0);
    check_bad_length(0);
    check_bad_length(69633);
    check_bad_length(UINT32_MAX);
    int fd = connect_plain();
    write_frame(fd, 13); /* a runt is dropped, the framing is whole */
    write_frame(fd, 64);
    expect(&nic, 64);
    close(fd);
}

static void test_nothing_is_sent_without_a_peer(void **state)
{
    (void)state;
    open_stream(&nic, true, 0);
    assert_int_equal(fake_nic_send(&nic, frame, 60), -ENETDOWN);
    int fd = connect_plain();
    assert_int_equal(fake_nic_send(&nic, frame, 13), -EMSGSIZE);
    assert_int_equal(fake_nic_send(&nic, frame, 69633), -EMSGSIZE);
    close(fd);
    wait_link_down();
    assert_int_equal(fake_nic_send(&nic, frame, 60), -ENETDOWN);
}

static void test_a_client_tries_again(void **state)
{
    (void)state;
    open_stream(&nic, false, 5);
    assert_false(nic.link_up);
    for (int i = 0; i < 2; i++) {
        open_stream(&other, true, 0);
        fake_nic_wait(&loop, &nic.link_up);
        fake_nic_wait(&loop, &other.link_up);
        assert_int_equal(fake_nic_send(&nic, frame, 100), 0);
        expect(&other, 100);
        fake_nic_close(&other);
        wait_link_down();
    }
}

static void check_error(const struct net_stream_options *options, const char *text)
{
    struct error err = {0};
    struct net_backend *net;
    assert_true(net_stream_create(&loop, "net9", options, &net, &err) < 0);
    if (!strstr(err.text, text) || strncmp(err.text, "netdev 'net9': ", 15))
        fail_msg("'%s' is not in '%s'", text, err.text);
    fake_nic_run_ms(&loop, 1);
}

static void test_errors_say_what_to_do(void **state)
{
    (void)state;
    char long_path[200];
    memset(long_path, 'p', sizeof(long_path));
    long_path[199] = '\0';
    check_error(&(struct net_stream_options){.address.path = path}, "start the other side first");
    check_error(&(struct net_stream_options){.address.path = long_path}, "199 bytes");
    check_error(&(struct net_stream_options){.address.host = "example.org"}, "numeric address");
    open_stream(&nic, true, 0);
    check_error(&(struct net_stream_options){.address.path = path, .is_server = true},
                "in use by another program");
}

static void test_a_stale_socket_is_replaced(void **state)
{
    (void)state;
    struct stat info;
    struct error err = {0};
    struct socket_address address;
    const struct net_socket_address where = {.path = path};
    assert_int_equal(socket_address_resolve(&where, &address, &err), 0);
    close(socket_address_bind(&address, SOCK_STREAM, &err));
    open_stream(&nic, true, 0);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
}

static void test_tcp(void **state)
{
    (void)state;
    struct error err = {0};
    struct net_backend *net;
    struct net_stream_options options = {.address.host = "127.0.0.1", .is_server = true};
    for (uint16_t port = 20000 + (uint16_t)(getpid() % 20000);; port++) {
        options.address.port = port;
        err = (struct error){0};
        if (!net_stream_create(&loop, "a", &options, &net, &err))
            break;
    }
    fake_nic_attach(&nic, net);
    options.is_server = false;
    assert_int_equal(net_stream_create(&loop, "b", &options, &net, &err), 0);
    fake_nic_attach(&other, net);
    fake_nic_wait(&loop, &nic.link_up);
    fake_nic_wait(&loop, &other.link_up);
    assert_int_equal(fake_nic_send(&other, frame, 1514), 0);
    expect(&nic, 1514);
}

#define stream_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        stream_test(test_the_framing_is_qemus),
        stream_test(test_frames_cross_both_ways),
        stream_test(test_frames_in_dribbles),
        stream_test(test_a_slow_peer_stops_the_guest_and_loses_nothing),
        stream_test(test_a_full_guest_stops_the_peer_and_loses_nothing),
        stream_test(test_a_bad_length_ends_the_connection_not_the_server),
        stream_test(test_nothing_is_sent_without_a_peer),
        stream_test(test_a_client_tries_again),
        stream_test(test_errors_say_what_to_do),
        stream_test(test_a_stale_socket_is_replaced),
        stream_test(test_tcp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
