/* SPDX-License-Identifier: MIT */
/* TCP through the user network with the real libslirp: how connections end, and how long segments
 * are that a guest gets. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "netbackends/packet.h"
#include "netbackends/slirp.h"
#include "tests/fake_nic.h"
#include "tests/frames.h"
#include "tests/guest_tcp.h"
#include "tests/unit/test.h"

static struct loop loop;
static struct net_backend *net;
static struct fake_nic nic;
static struct frames_buffer scratch;

static int set_up(void **state)
{
    (void)state;
    return loop_init(&loop);
}

static int tear_down(void **state)
{
    (void)state;
    fake_nic_close(&nic);
    loop_fini(&loop);
    return 0;
}

static void send_scratch(void)
{
    assert_int_equal(fake_nic_send(&nic, scratch.bytes, scratch.length), 0);
}

static void open_net(const struct net_slirp_options *options)
{
    struct error err = {0};
    assert_int_equal(net_slirp_create(&loop, "net0", options, &net, &err), 0);
    fake_nic_attach(&nic, net);
    guest_tcp_introduce(&nic);
}

static struct guest_tcp make_tcp(uint16_t source_port, uint16_t target_port)
{
    return guest_tcp_to_router(&nic, source_port, target_port);
}

/* Takes so many bytes, in segments no longer than `mss`. */
static void take(struct guest_tcp *tcp, size_t wanted, size_t mss)
{
    size_t at, bytes;
    for (size_t total = 0; total < wanted; total += bytes) {
        guest_tcp_next(tcp, TCP_ACK, &at, &bytes);
        assert_true(bytes <= mss);
        tcp->acknowledged += (uint32_t)bytes;
        guest_tcp_send(tcp, TCP_ACK, NULL, 0);
    }
}

static void reset_by_host(int fd)
{
    const struct linger at_once = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(fd);
}

/* One that breaks off is heard behind its last byte, as a reset. */
static void test_a_host_that_breaks_off(void **state)
{
    (void)state;
    static const char data[30000];
    uint16_t port;
    size_t at, bytes;
    int listener = guest_tcp_listen(&port);
    open_net(&(struct net_slirp_options){0});
    struct guest_tcp tcp = make_tcp(40000, port);
    guest_tcp_connect(&tcp);
    int fd = guest_tcp_accept(&loop, listener);
    assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
    take(&tcp, sizeof(data), 1460);
    reset_by_host(fd);
    guest_tcp_next(&tcp, TCP_RST, &at, &bytes);
    close(listener);
}

/* One that has no more to say hears on. */
static void test_a_host_that_only_listens_on(void **state)
{
    (void)state;
    static char data[30000];
    uint16_t port;
    size_t at, bytes;
    int listener = guest_tcp_listen(&port);
    open_net(&(struct net_slirp_options){0});
    struct guest_tcp tcp = make_tcp(40000, port);
    guest_tcp_connect(&tcp);
    int fd = guest_tcp_accept(&loop, listener);
    assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
    shutdown(fd, SHUT_WR);
    take(&tcp, sizeof(data), 1460);
    const uint8_t *frame = guest_tcp_next(&tcp, TCP_FIN, &at, &bytes);
    assert_int_equal(load_be32(frame + 38) + bytes, tcp.acknowledged);
    tcp.acknowledged++;
    guest_tcp_send(&tcp, TCP_ACK, "still here", 10);
    assert_int_equal(guest_tcp_read(&loop, fd, data, 10), 10);
    assert_memory_equal(data, "still here", 10);
    guest_tcp_send(&tcp, TCP_FIN | TCP_ACK, NULL, 0);
    assert_int_equal(guest_tcp_read(&loop, fd, data, 1), 0);
    close(fd);
    close(listener);
}

/* Also where libslirp learns of it by writing, or after the guest has said all. */
static void test_a_host_that_breaks_off_is_never_at_its_end(void **state)
{
    (void)state;
    static const char data[1000];
    uint16_t port;
    size_t at, bytes;
    int listener = guest_tcp_listen(&port);
    open_net(&(struct net_slirp_options){0});
    for (int has_ended = 0; has_ended < 2; has_ended++) {
        struct guest_tcp tcp = make_tcp((uint16_t)(40000 + has_ended), port);
        guest_tcp_connect(&tcp);
        int fd = guest_tcp_accept(&loop, listener);
        assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
        take(&tcp, sizeof(data), 1460);
        if (has_ended) {
            guest_tcp_send(&tcp, TCP_FIN | TCP_ACK, NULL, 0);
            guest_tcp_next(&tcp, TCP_ACK, &at, &bytes);
        }
        reset_by_host(fd);
        if (!has_ended)
            guest_tcp_send(&tcp, TCP_ACK, data, sizeof(data));
        const uint8_t *header = guest_tcp_next(&tcp, TCP_ACK, &at, &bytes) + 34;
        while (!(header[13] & (TCP_RST | TCP_FIN)))
            header = guest_tcp_next(&tcp, TCP_ACK, &at, &bytes) + 34;
        assert_int_equal(header[13], TCP_RST | TCP_ACK);
        assert_int_equal(load_be32(header + 4), tcp.acknowledged);
    }
    close(listener);
    /* libslirp has forgotten both. */
    fake_nic_run_ms(&loop, 20);
    char *table = net_slirp_connections(net);
    assert_null(strstr(table, "TCP["));
    free(table);
}

/* A guest's reset is no end of the text; after the guest's end a reset takes nothing of it away. */
static void test_a_guest_that_breaks_off(void **state)
{
    (void)state;
    static char data[1000];
    uint16_t port;
    size_t at, bytes;
    int listener = guest_tcp_listen(&port);
    open_net(&(struct net_slirp_options){0});
    for (int has_ended = 0; has_ended < 2; has_ended++) {
        struct guest_tcp tcp = make_tcp((uint16_t)(40000 + has_ended), port);
        guest_tcp_connect(&tcp);
        int fd = guest_tcp_accept(&loop, listener);
        guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, data, sizeof(data));
        guest_tcp_next(&tcp, TCP_ACK, &at, &bytes);
        if (has_ended) {
            guest_tcp_send(&tcp, TCP_FIN | TCP_ACK, NULL, 0);
            guest_tcp_next(&tcp, TCP_ACK, &at, &bytes);
        }
        guest_tcp_send(&tcp, TCP_RST, NULL, 0);
        fake_nic_run_ms(&loop, 20);
        if (has_ended)
            assert_int_equal(guest_tcp_read(&loop, fd, data, sizeof(data)), sizeof(data));
        errno = 0;
        while (read(fd, data, sizeof(data)) > 0) {
        }
        assert_int_equal(errno, has_ended ? 0 : ECONNRESET);
        close(fd);
    }
    close(listener);
}

/* The host's end of a connection; it takes little before it is read. */
static int connect_to_little_room(struct guest_tcp *tcp)
{
    uint16_t port;
    int small = 4096;
    int listener = guest_tcp_listen(&port);
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    open_net(&(struct net_slirp_options){0});
    *tcp = make_tcp(40000, port);
    guest_tcp_connect(tcp);
    int fd = guest_tcp_accept(&loop, listener);
    close(listener);
    return fd;
}

/* What the window has no room for is no part of the text yet: neither is the end behind it. */
static void test_an_end_waits_for_what_is_before_it(void **state)
{
    (void)state;
    enum { PIECE = 60000 };
    static char data[PIECE];
    struct guest_tcp tcp;
    int fd = connect_to_little_room(&tcp);
    size_t at, bytes, room = 0;
    uint32_t taken;
    do {
        guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, data, PIECE);
        const uint8_t *header = guest_tcp_next(&tcp, TCP_ACK, &at, &bytes) + 34;
        taken = load_be32(header + 8);
        room = load_be16(header + 14);
    } while (taken == tcp.sequence && room >= PIECE);
    tcp.sequence = taken;
    guest_tcp_send(&tcp, TCP_FIN | TCP_ACK, data, PIECE);
    ssize_t count;
    for (int i = 0; i < 300; i++) {
        while ((count = read(fd, data, PIECE)) > 0) {
        }
        assert_int_not_equal(count, 0);
        fake_nic_run_ms(&loop, 1);
    }
    close(fd);
}

/* Both have ended; what the guest said last still waits for room in the host's socket. */
static void test_the_last_bytes_outlive_both_ends(void **state)
{
    (void)state;
    enum { PIECE = 1000 };
    static char data[PIECE];
    struct guest_tcp tcp;
    size_t at, bytes, sent = 0;
    int fd = connect_to_little_room(&tcp);
    for (size_t room = 65535; room > 40000; sent += PIECE) {
        guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, data, PIECE);
        room = load_be16(guest_tcp_next(&tcp, TCP_ACK, &at, &bytes) + 48);
    }
    guest_tcp_send(&tcp, TCP_FIN | TCP_ACK, NULL, 0);
    shutdown(fd, SHUT_WR);
    fake_nic_run_ms(&loop, 20);
    tcp.acknowledged++; /* the host's FIN, if it was told */
    guest_tcp_send(&tcp, TCP_ACK, NULL, 0);
    size_t got = 0;
    for (size_t count; (count = guest_tcp_read(&loop, fd, data, PIECE)); got += count) {
    }
    assert_int_equal(got, sent);
    close(fd);
}

/* A reset that libslirp does not believe (its number is far ahead) harms nothing. */
static void test_a_reset_that_is_not_believed(void **state)
{
    (void)state;
    char data[10] = {0};
    uint16_t port;
    size_t at, bytes;
    int listener = guest_tcp_listen(&port);
    open_net(&(struct net_slirp_options){0});
    struct guest_tcp tcp = make_tcp(40000, port), stale;
    guest_tcp_connect(&tcp);
    int fd = guest_tcp_accept(&loop, listener);
    stale = tcp;
    stale.sequence += 1000000;
    guest_tcp_send(&stale, TCP_RST, NULL, 0);
    guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, "still here", 10);
    guest_tcp_next(&tcp, TCP_ACK, &at, &bytes);
    guest_tcp_send(&tcp, TCP_FIN | TCP_ACK, NULL, 0);
    assert_int_equal(guest_tcp_read(&loop, fd, data, 10), 10);
    assert_int_equal(guest_tcp_read(&loop, fd, data, 1), 0);
    close(fd);
    close(listener);
}

static int connect_to_forward(uint16_t port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const void *)&address, sizeof(address)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* The guest's end of a connection that a forward asks for. */
static struct guest_tcp take_syn(void)
{
    const uint8_t *syn;
    do
        syn = fake_nic_next(&nic)->bytes;
    while (syn[47] != TCP_SYN);
    struct guest_tcp tcp = make_tcp(80, load_be16(syn + 34));
    tcp.acknowledged = load_be32(syn + 38) + 1;
    tcp.sequence = 1000;
    return tcp;
}

static void expect_reset(int fd)
{
    static char data[1 << 16];
    int code = EAGAIN;
    for (int i = 0; i < 10000 && code == EAGAIN; i++) {
        ssize_t count = read(fd, data, sizeof(data));
        code = count < 0 ? errno : count ? EAGAIN : 0;
        fake_nic_run_ms(&loop, count < 0);
    }
    assert_int_equal(code, ECONNRESET);
    close(fd);
}

/* Runs the loop until libslirp knows so many that wait for the guest's first answer, and no other
 * but the forward. */
static void wait_for_connections(unsigned waiting, unsigned forwards)
{
    for (int i = 0; i < 30000; i++) {
        char *table = net_slirp_connections(net);
        unsigned all = 0, syns = 0;
        for (const char *at = table; (at = strstr(at, "TCP[")); at++, all++)
            syns += strncmp(at, "TCP[SYN_SENT]", 13) == 0;
        free(table);
        if (syns == waiting && all == waiting + forwards)
            return;
        fake_nic_run_ms(&loop, 1);
    }
    fail_msg("libslirp keeps connections of a guest that is gone");
}

/* In the middle of a download that waits for the guest, of an upload that waits for the host, and
 * of a connection that came in: all hear of it, and the guest's next life starts with nothing. */
static void test_a_machine_that_is_reset(void **state)
{
    (void)state;
    static char data[1 << 20];
    uint16_t port, forwarded;
    int listener = guest_tcp_listen(&port);
    close(guest_tcp_listen(&forwarded));
    const struct net_forward forward = {.host_port = forwarded, .guest_port = 80};
    open_net(&(struct net_slirp_options){.forwards = &forward, .forward_count = 1});
    for (unsigned life = 0; life < 3; life++) {
        struct guest_tcp down = make_tcp(40000, port), up = make_tcp(40001, port);
        guest_tcp_connect(&down);
        int down_fd = guest_tcp_accept(&loop, listener);
        guest_tcp_connect(&up);
        int up_fd = guest_tcp_accept(&loop, listener);
        int in_fd = connect_to_forward(forwarded);
        struct guest_tcp in = take_syn();
        guest_tcp_send(&in, TCP_SYN | TCP_ACK, NULL, 0);
        guest_tcp_send(&in, TCP_ACK, NULL, 0);
        assert_true(write(down_fd, data, sizeof(data)) > 0);
        assert_true(write(in_fd, data, sizeof(data)) > 0);
        for (unsigned i = 0; i < 40; i++)
            guest_tcp_send(&up, TCP_ACK, data, 60000);
        int waiting_fd = connect_to_forward(forwarded);
        struct guest_tcp waiting = take_syn();
        nic.is_full = true;
        fake_nic_run_ms(&loop, 5);
        assert_true(nic.refused > life);
        net_guest_reset(net);
        const size_t before = nic.count;
        fake_nic_make_room(&nic);
        expect_reset(down_fd);
        expect_reset(up_fd);
        expect_reset(in_fd);
        wait_for_connections(1, 1);
        assert_int_equal(nic.count, before); /* nothing of this life */
        guest_tcp_send(&waiting, TCP_RST | TCP_ACK, NULL, 0);
        fake_nic_run_ms(&loop, 5);
        close(waiting_fd);
        nic.read = nic.count;
        fake_nic_forget_read(&nic);
    }
    close(listener);
}

/* The options of a SYN that guest_tcp makes, with another MSS. */
static void send_syn(struct guest_tcp *tcp, uint8_t flags, uint16_t mss)
{
    frames_tcp(&scratch, &tcp->flow, flags, 1000, tcp->acknowledged, NULL, 0);
    store_be16(scratch.bytes + 56, mss);
    frames_fix_checksums(&scratch);
    send_scratch();
    tcp->sequence = 1001;
}

/* libslirp forgets what the guest asked for where it connects it. */
static void test_a_smaller_mss_is_honoured(void **state)
{
    (void)state;
    static const char data[5000];
    uint16_t port;
    size_t at, bytes;
    int listener = guest_tcp_listen(&port);
    open_net(&(struct net_slirp_options){0});
    struct guest_tcp tcp = make_tcp(40000, port);
    send_syn(&tcp, TCP_SYN, 300);
    const uint8_t *answer = guest_tcp_next(&tcp, TCP_SYN | TCP_ACK, &at, &bytes);
    tcp.acknowledged = load_be32(answer + 38) + 1;
    guest_tcp_send(&tcp, TCP_ACK, NULL, 0);
    int fd = guest_tcp_accept(&loop, listener);
    assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
    take(&tcp, sizeof(data), 300);
    close(fd);
    close(listener);
}

/* What comes in by a forward goes through libslirp, in long segments that are cut. */
static void test_a_smaller_mss_is_honoured_by_a_forward(void **state)
{
    (void)state;
    static const char data[50000];
    uint16_t port;
    close(guest_tcp_listen(&port));
    const struct net_forward forward = {.host_port = port, .guest_port = 80};
    open_net(&(struct net_slirp_options){.forwards = &forward, .forward_count = 1});
    for (unsigned mss = 300; mss <= 1460; mss += 1160) {
        int fd = connect_to_forward(port);
        struct guest_tcp tcp = take_syn();
        send_syn(&tcp, TCP_SYN | TCP_ACK, (uint16_t)mss);
        guest_tcp_send(&tcp, TCP_ACK, NULL, 0);
        assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
        take(&tcp, sizeof(data), mss);
        guest_tcp_send(&tcp, TCP_RST, NULL, 0);
        close(fd);
    }
}

#define tcp_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        tcp_test(test_a_host_that_breaks_off),
        tcp_test(test_a_host_that_only_listens_on),
        tcp_test(test_a_host_that_breaks_off_is_never_at_its_end),
        tcp_test(test_a_guest_that_breaks_off),
        tcp_test(test_an_end_waits_for_what_is_before_it),
        tcp_test(test_the_last_bytes_outlive_both_ends),
        tcp_test(test_a_reset_that_is_not_believed),
        tcp_test(test_a_machine_that_is_reset),
        tcp_test(test_a_smaller_mss_is_honoured),
        tcp_test(test_a_smaller_mss_is_honoured_by_a_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
