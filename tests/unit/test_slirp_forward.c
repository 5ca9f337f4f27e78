/* SPDX-License-Identifier: MIT */
/* Ways through the NAT: local sockets of the host, services and commands that a guest reaches, IPv6
 * and many connections at once. */
#include "netbackends/slirp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sanitizer/lsan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "netbackends/packet.h"
#include "tests/guest_tcp.h"
#include "tests/unit/test.h"

enum {
    GUEST = FRAMES_IPV4(10, 0, 2, 15),
    ROUTER = FRAMES_IPV4(10, 0, 2, 2),
    SERVICE = FRAMES_IPV4(10, 0, 2, 100),
};

static struct loop loop;
static struct net_backend *net;
static struct fake_nic nic;
static struct frames_buffer frame;
static char folder[] = "/tmp/evisor-forward-XXXXXX";
static const uint8_t guest_mac[] = FRAMES_GUEST_MAC;

static int set_up(void **state)
{
    (void)state;
    memcpy(strrchr(folder, '-') + 1, "XXXXXX", 6);
    assert_non_null(mkdtemp(folder));
    return loop_init(&loop);
}

static int tear_down(void **state)
{
    (void)state;
    fake_nic_close(&nic);
    loop_fini(&loop);
    assert_int_equal(rmdir(folder), 0); /* cleaned up */
    return 0;
}

static void open_net(const struct net_slirp_options *options)
{
    struct error err = {0};
    if (net_slirp_create(&loop, "net0", options, &net, &err))
        fail_msg("%s", err.text);
    fake_nic_attach(&nic, net);
    frames_arp_request(&frame, guest_mac, GUEST, ROUTER);
    assert_int_equal(fake_nic_send(&nic, frame.bytes, frame.length), 0);
    fake_nic_next(&nic);
}

static struct guest_tcp flow_to(uint32_t target, uint16_t port, uint16_t source_port)
{
    struct guest_tcp tcp = {.nic = &nic,
                            .flow = {.source_mac = FRAMES_GUEST_MAC,
                                     .target_mac = {0x52, 0x55, 10, 0, 2, 2},
                                     .source = GUEST,
                                     .target = target,
                                     .source_port = source_port,
                                     .target_port = port}};
    return tcp;
}

/* A neighbour solicitation from fec0::15 for fec0::2 tells the NAT who that is. */
static void greet_ipv6(void)
{
    static const uint8_t group[] = {0x33, 0x33, 0xff, 0, 0, 2};
    memset(frame.bytes, 0, 100);
    frame.length = 14 + 40 + 32;
    memcpy(frame.bytes, group, 6);
    memcpy(frame.bytes + 6, guest_mac, 6);
    store_be16(frame.bytes + 12, PACKET_TYPE_IPV6);
    uint8_t *ip = frame.bytes + 14, *icmp = ip + 40;
    ip[0] = 0x60;
    store_be16(ip + 4, 32);
    ip[6] = PACKET_ICMPV6;
    ip[7] = 255;
    store_be16(ip + 8, 0xfec0);
    ip[23] = 15;
    store_be16(ip + 24, 0xff02);
    ip[35] = 1;
    ip[36] = 0xff;
    ip[39] = 2;
    icmp[0] = 135;
    store_be16(icmp + 8, 0xfec0);
    icmp[23] = 2;
    icmp[24] = 1;
    icmp[25] = 1;
    memcpy(icmp + 26, guest_mac, 6);
    struct packet packet;
    assert_true(packet_parse_ip(frame.bytes, frame.length, &packet));
    packet_finish_checksum(frame.bytes, &packet, icmp + 2);
    assert_int_equal(fake_nic_send(&nic, frame.bytes, frame.length), 0);
}

static void path_in(char path[100], const char *name)
{
    snprintf(path, 100, "%s/%s", folder, name);
}

static int local_socket(const char *path, bool listens)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (listens) {
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(fd, 16), 0);
    } else {
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    }
    return fd;
}

/* What came in from outside is answered by the guest. */
static struct guest_tcp answer_syn(void)
{
    for (;;) {
        const struct fake_frame *got = fake_nic_next(&nic);
        struct packet packet;
        size_t payload;
        if (!packet_parse_ip(got->bytes, got->length, &packet) ||
            !packet_parse_tcp(got->bytes, &packet, &payload))
            continue;
        const uint8_t *header = got->bytes + packet.transport;
        struct guest_tcp tcp = flow_to(load_be32(got->bytes + 26), load_be16(header), 22);
        tcp.flow.source_port = load_be16(header + 2);
        tcp.sequence = 1000;
        tcp.acknowledged = load_be32(header + 4) + 1;
        guest_tcp_send(&tcp, TCP_SYN | TCP_ACK, NULL, 0);
        return tcp;
    }
}

static void test_a_local_socket_leads_to_the_guest(void **state)
{
    (void)state;
    char path[100], text[8] = "";
    struct error err = {0};
    struct stat info;
    path_in(path, "guest.sock");
    const struct net_forward forward = {.host_path = path, .guest_port = 22};
    open_net(&(struct net_slirp_options){.forwards = &forward, .forward_count = 1});
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    int fd = local_socket(path, false);
    struct guest_tcp tcp = answer_syn();
    assert_int_equal(tcp.flow.source_port, 22);
    assert_int_equal(write(fd, "hello", 5), 5);
    guest_tcp_expect(&tcp, "hello");
    guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, "there", 5);
    assert_int_equal(guest_tcp_read(&loop, fd, text, 5), 5);
    assert_string_equal(text, "there");
    close(fd);
    assert_int_equal(net_slirp_forward_add(net, &forward, &err), -EEXIST);
    assert_int_equal(net_slirp_forward_remove(net, &forward, &err), 0);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(net_slirp_forward_remove(net, &forward, &err), -ENOENT);
    err = (struct error){0};
    assert_int_equal(net_slirp_forward_add(net, &forward, &err), 0);
}

static void test_a_dead_local_socket_is_replaced_a_live_one_is_not(void **state)
{
    (void)state;
    char path[100], live[100];
    struct error err = {0};
    path_in(path, "dead");
    path_in(live, "live");
    close(local_socket(path, true));
    int server = local_socket(live, true);
    open_net(&(struct net_slirp_options){0});
    const struct net_forward forward = {.host_path = path, .guest_port = 22},
                             other = {.host_path = live, .guest_port = 22};
    assert_int_equal(net_slirp_forward_add(net, &forward, &err), 0);
    close(local_socket(path, false));
    assert_int_equal(net_slirp_forward_add(net, &other, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, "cannot forward unix "));
    close(server);
    unlink(live);
}

static void expect_forward(const struct net_guest_forward *forward)
{
    struct error err = {0};
    if (net_slirp_guest_forward_add(net, forward, &err))
        fail_msg("%s", err.text);
}

/* Through the service at 10.0.2.100 to `listener`, and back, and the ends of both. */
static void check_service(int listener, uint16_t source_port)
{
    char text[8] = "";
    size_t at, bytes;
    struct guest_tcp tcp = flow_to(SERVICE, 80, source_port);
    guest_tcp_connect(&tcp);
    int fd = guest_tcp_accept(&loop, listener);
    guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, "ping", 4);
    assert_int_equal(guest_tcp_read(&loop, fd, text, 4), 4);
    assert_string_equal(text, "ping");
    assert_int_equal(write(fd, "pong", 4), 4);
    guest_tcp_expect(&tcp, "pong");
    guest_tcp_send(&tcp, TCP_ACK | TCP_FIN, NULL, 0); /* half an end */
    assert_int_equal(guest_tcp_read(&loop, fd, text, 1), 0);
    assert_int_equal(write(fd, "last", 4), 4);
    guest_tcp_expect(&tcp, "last");
    close(fd);
    guest_tcp_next(&tcp, TCP_FIN, &at, &bytes);
}

static void test_a_service_of_the_host_for_the_guest(void **state)
{
    (void)state;
    uint16_t port;
    int listener = guest_tcp_listen(&port);
    const struct net_guest_forward forward = {.guest_address = "10.0.2.100",
                                              .guest_port = 80,
                                              .target = {.host = "127.0.0.1", .port = port}};
    open_net(&(struct net_slirp_options){
        .restrict_access = true, .guest_forwards = &forward, .guest_forward_count = 1});
    frames_arp_request(&frame, guest_mac, GUEST, SERVICE);
    assert_int_equal(fake_nic_send(&nic, frame.bytes, frame.length), 0);
    assert_int_equal(load_be32(fake_nic_next(&nic)->bytes + 28), SERVICE); /* somebody is there */
    check_service(listener, 40000);
    check_service(listener, 40001);
    close(listener);
}

static void test_a_local_service_for_the_guest(void **state)
{
    (void)state;
    char path[100];
    path_in(path, "service");
    int listener = local_socket(path, true);
    const struct net_guest_forward forward = {
        .guest_address = "10.0.2.100", .guest_port = 80, .target = {.path = path}};
    open_net(&(struct net_slirp_options){0});
    expect_forward(&forward);
    check_service(listener, 40000);
    close(listener);
    unlink(path);
}

static void test_a_command_for_each_connection(void **state)
{
    (void)state;
    open_net(&(struct net_slirp_options){0});
    expect_forward(&(struct net_guest_forward){
        .guest_address = "10.0.2.100", .guest_port = 80, .command = "sh -c 'echo hello; cat'"});
    for (uint16_t i = 0; i < 2; i++) {
        struct guest_tcp tcp = flow_to(SERVICE, 80, (uint16_t)(40000 + i));
        size_t at, bytes;
        guest_tcp_connect(&tcp);
        guest_tcp_expect(&tcp, "hello\n");
        guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, "again", 5);
        guest_tcp_expect(&tcp, "again");
        guest_tcp_send(&tcp, TCP_ACK | TCP_FIN, NULL, 0);
        guest_tcp_next(&tcp, TCP_FIN, &at, &bytes);
    }
}

static void test_a_service_that_is_not_there(void **state)
{
    (void)state;
    uint16_t port;
    size_t at, bytes;
    char path[100];
    path_in(path, "nobody");
    close(guest_tcp_listen(&port));
    open_net(&(struct net_slirp_options){0});
    expect_forward(&(struct net_guest_forward){
        .guest_address = "10.0.2.100", .guest_port = 80, .target = {.port = port}});
    expect_forward(&(struct net_guest_forward){
        .guest_address = "10.0.2.100", .guest_port = 81, .target = {.path = path}});
    for (uint16_t i = 0; i < 2; i++) {
        struct guest_tcp tcp = flow_to(SERVICE, (uint16_t)(80 + i), (uint16_t)(40000 + i));
        guest_tcp_connect(&tcp);
        guest_tcp_next(&tcp, TCP_FIN, &at, &bytes);
    }
}

static void test_guest_forwards_come_and_go(void **state)
{
    (void)state;
    uint16_t port;
    struct error err = {0};
    size_t at, bytes;
    int listener = guest_tcp_listen(&port);
    const struct net_guest_forward forward = {
        .guest_address = "10.0.2.100", .guest_port = 80, .target = {.port = port}};
    open_net(&(struct net_slirp_options){0});
    for (uint16_t i = 0; i < 3; i++) {
        __lsan_disable(); /* libslirp forgets the path of a forward that is removed */
        expect_forward(&forward);
        __lsan_enable();
        struct guest_tcp tcp = flow_to(SERVICE, 80, (uint16_t)(40000 + i));
        guest_tcp_connect(&tcp);
        int fd = guest_tcp_accept(&loop, listener);
        assert_int_equal(net_slirp_guest_forward_add(net, &forward, &err), -EEXIST);
        err = (struct error){0};
        assert_int_equal(net_slirp_guest_forward_remove(net, &forward, &err), 0);
        guest_tcp_next(&tcp, 0, &at, &bytes); /* ended */
        close(fd);
    }
    assert_int_equal(net_slirp_guest_forward_remove(net, &forward, &err), -ENOENT);
    close(listener);
}

static void check_refused(const struct net_guest_forward *forward, const char *text)
{
    struct error err = {0};
    assert_true(net_slirp_guest_forward_add(net, forward, &err) < 0);
    if (!strstr(err.text, text))
        fail_msg("'%s' is not in '%s'", text, err.text);
}

static void test_bad_guest_forwards(void **state)
{
    (void)state;
    open_net(&(struct net_slirp_options){0});
    struct net_guest_forward forward = {
        .guest_address = "10.0.2.2", .guest_port = 80, .target = {.port = 9}};
    check_refused(&forward, "10.0.2.2 is not a free address");
    forward.guest_address = "10.0.2.3";
    check_refused(&forward, "10.0.2.3 is not a free address");
    forward.guest_address = "10.0.3.1";
    check_refused(&forward, "10.0.3.1 is not a free address");
    forward.guest_address = "tree";
    check_refused(&forward, "'tree' is not an IPv4 address");
    forward.guest_address = "10.0.2.9";
    forward.target.host = "tree";
    check_refused(&forward, "'tree' is not a numeric address");
    forward.guest_port = 0;
    check_refused(&forward, "10.0.2.9 needs a port");
    struct error err = {0};
    const struct net_slirp_options options = {.guest_forwards = &forward, .guest_forward_count = 1};
    struct net_backend *other;
    assert_true(net_slirp_create(&loop, "net1", &options, &other, &err) < 0);
    assert_non_null(strstr(err.text, "netdev 'net1': guest forward: "));
}

static void test_a_start_that_fails_leaves_nothing(void **state)
{
    (void)state;
    char path[100];
    struct error err = {0};
    path_in(path, "guest.sock");
    const struct net_forward forward = {.host_path = path, .guest_port = 22};
    const struct net_guest_forward guest_forwards[] = {{.guest_port = 80, .target = {.port = 9}},
                                                       {.guest_port = 80, .target = {.port = 9}}};
    const struct net_slirp_options options = {.forwards = &forward,
                                              .forward_count = 1,
                                              .guest_forwards = guest_forwards,
                                              .guest_forward_count = 2};
    assert_int_equal(net_slirp_create(&loop, "net0", &options, &net, &err), -EEXIST);
    fake_nic_run_ms(&loop, 1);
}

/* A long datagram of the host's comes to the guest in fragments that its wire can carry. */
static void test_long_datagrams_are_cut(void **state)
{
    (void)state;
    enum { BYTES = 5000 };
    static uint8_t data[BYTES], got[BYTES + 8];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    for (int i = 0; i < BYTES; i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    open_net(&(struct net_slirp_options){0});
    const struct guest_tcp to_host = flow_to(ROUTER, ntohs(address.sin_port), 40000);
    frames_udp(&frame, &to_host.flow, "ask", 3);
    assert_int_equal(fake_nic_send(&nic, frame.bytes, frame.length), 0);
    assert_int_equal(recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&address, &length), 3);
    assert_int_equal(sendto(fd, data, BYTES, 0, (struct sockaddr *)&address, length), BYTES);
    for (size_t done = 0; done < BYTES + 8;) {
        const struct fake_frame *piece = fake_nic_next(&nic);
        const uint8_t *ip = piece->bytes + 14;
        size_t bytes = (size_t)load_be16(ip + 2) - 20;
        assert_true(piece->length <= 1514);
        assert_int_equal(packet_fold(packet_sum(ip, 20, 0)), 0);
        assert_int_equal((load_be16(ip + 6) & 0x1fff) * 8, done);
        assert_int_equal(!(load_be16(ip + 6) & 0x2000), done + bytes == BYTES + 8);
        memcpy(got + done, ip + 20, bytes);
        done += bytes;
    }
    assert_memory_equal(got + 8, data, BYTES);
    close(fd);
}

/* To fec0::2, in frames of up to 64 KiB as a guest with TSO sends them. */
static void test_large_frames_of_ipv6_go_in_whole(void **state)
{
    (void)state;
    static uint8_t data[60000], got[sizeof(data)];
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 5 + i / 256);
    open_net(&(struct net_slirp_options){0});
    struct guest_tcp tcp = {.nic = &nic,
                            .flow = {.is_ipv6 = true,
                                     .source_mac = FRAMES_GUEST_MAC,
                                     .target_mac = {0x52, 0x56, 0, 0, 0, 2},
                                     .source = 15,
                                     .target = 2,
                                     .source_port = 40000,
                                     .target_port = ntohs(address.sin6_port)}};
    greet_ipv6();
    guest_tcp_connect(&tcp);
    int fd = guest_tcp_accept(&loop, listener);
    const struct net_meta meta = {NET_NEEDS_CSUM, NET_GSO_TCPV6, 74, 1440, 54, 16};
    frames_tcp(&frame, &tcp.flow, TCP_ACK, tcp.sequence, tcp.acknowledged, data, sizeof(data));
    store_be16(frame.bytes + 54 + 16, 0); /* left to the network */
    const struct iovec iov = {frame.bytes, frame.length};
    assert_int_equal(net_send(net, &meta, &iov, 1), 0);
    assert_int_equal(guest_tcp_read(&loop, fd, got, sizeof(got)), sizeof(got));
    assert_memory_equal(got, data, sizeof(data));
    close(fd);
    close(listener);
}

/* Each with data both ways. */
static void test_a_thousand_connections(void **state)
{
    (void)state;
    enum { CONNECTIONS = 1000 };
    static struct guest_tcp tcps[CONNECTIONS];
    static int fds[CONNECTIONS];
    uint16_t port;
    const struct rlimit limit = {512, 4 * CONNECTIONS}; /* the NAT raises it as far as it may */
    int listener = guest_tcp_listen(&port);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    open_net(&(struct net_slirp_options){0});
    for (int i = 0; i < CONNECTIONS; i++) {
        tcps[i] = flow_to(ROUTER, port, (uint16_t)(20000 + i));
        guest_tcp_connect(&tcps[i]);
        fds[i] = guest_tcp_accept(&loop, listener);
        fake_nic_forget_read(&nic);
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        char text[16] = "", wanted[16];
        snprintf(wanted, sizeof(wanted), "c%06d", i);
        guest_tcp_send(&tcps[i], TCP_ACK | TCP_PSH, wanted, 7);
        assert_int_equal(guest_tcp_read(&loop, fds[i], text, 7), 7);
        assert_string_equal(text, wanted);
        assert_int_equal(write(fds[i], text, 7), 7);
        guest_tcp_expect(&tcps[i], wanted);
        fake_nic_forget_read(&nic);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
    close(listener);
}

#define forward_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        forward_test(test_a_local_socket_leads_to_the_guest),
        forward_test(test_a_dead_local_socket_is_replaced_a_live_one_is_not),
        forward_test(test_a_service_of_the_host_for_the_guest),
        forward_test(test_a_local_service_for_the_guest),
        forward_test(test_a_command_for_each_connection),
        forward_test(test_a_service_that_is_not_there),
        forward_test(test_guest_forwards_come_and_go),
        forward_test(test_bad_guest_forwards),
        forward_test(test_a_start_that_fails_leaves_nothing),
        forward_test(test_long_datagrams_are_cut),
        forward_test(test_large_frames_of_ipv6_go_in_whole),
        forward_test(test_a_thousand_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
