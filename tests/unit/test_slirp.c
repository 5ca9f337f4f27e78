/* SPDX-License-Identifier: MIT */
/* The user network with the real libslirp: a guest made of hand-written frames, servers on the
 * host's loopback. */
#include "netbackends/slirp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "netbackends/packet.h"
#include "tests/fake_nic.h"
#include "tests/frames.h"
#include "tests/guest_tcp.h"
#include "tests/unit/test.h"

enum { GUEST = FRAMES_IPV4(10, 0, 2, 15), ROUTER = FRAMES_IPV4(10, 0, 2, 2) };

static struct loop loop;
static struct net_backend *net;
static struct frames_buffer scratch;
static const uint8_t guest_mac[] = FRAMES_GUEST_MAC;

static struct fake_nic nic;

static void open_net(const struct net_slirp_options *options)
{
    struct error err = {0};
    assert_int_equal(net_slirp_create(&loop, "net0", options, &net, &err), 0);
    fake_nic_attach(&nic, net);
}

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

static void turn(void)
{
    loop_run_once(&loop, false);
    usleep(100);
}

static void run_for_ms(unsigned ms)
{
    fake_nic_run_ms(&loop, ms);
}

static const struct fake_frame *next_frame(void)
{
    return fake_nic_next(&nic);
}

static int send_meta(const struct net_meta *meta)
{
    const struct iovec iov = {scratch.bytes, scratch.length};
    return net_send(net, meta, &iov, 1);
}

static int send_scratch(void)
{
    return send_meta(NULL);
}

/* Says who the guest is, as its own traffic would have. */
static void greet(void)
{
    frames_arp_request(&scratch, guest_mac, GUEST, ROUTER);
    assert_int_equal(send_scratch(), 0);
    next_frame();
}

static struct frames_flow flow_to(uint32_t target, uint16_t port)
{
    return (struct frames_flow){
        .source_mac = FRAMES_GUEST_MAC,
        .target_mac = {0x52, 0x55, 10, 0, 2, 2},
        .source = GUEST,
        .target = target,
        .source_port = 40000,
        .target_port = port,
    };
}

/* A socket on the host's loopback. */
static int host_socket(int type, uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static int host_connect(int type, uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static uint16_t free_port(int type)
{
    uint16_t port;
    close(host_socket(type, &port));
    return port;
}

static const uint8_t *next_tcp(uint8_t flags, size_t *payload, size_t *payload_bytes)
{
    for (;;) {
        const struct fake_frame *frame = next_frame();
        struct packet packet;
        if (!packet_parse_ip(frame->bytes, frame->length, &packet) ||
            !packet_parse_tcp(frame->bytes, &packet, payload))
            continue;
        if ((frame->bytes[packet.transport + 13] & flags) != flags)
            continue;
        *payload_bytes = packet.end - *payload;
        return frame->bytes;
    }
}

static void tcp_connect(struct guest_tcp *tcp, uint16_t port)
{
    *tcp = (struct guest_tcp){.nic = &nic, .flow = flow_to(ROUTER, port)};
    guest_tcp_connect(tcp);
}

static void test_arp(void **state)
{
    (void)state;
    open_net(&(struct net_slirp_options){0});
    frames_arp_request(&scratch, guest_mac, GUEST, ROUTER);
    assert_int_equal(send_scratch(), 0);
    assert_int_equal(nic.count, 0); /* never from inside send */
    const struct fake_frame *answer = next_frame();
    assert_true(answer->length >= 42);
    assert_int_equal(load_be16(answer->bytes + 20), 2);
    assert_int_equal(load_be32(answer->bytes + 28), ROUTER);
    assert_memory_equal(answer->bytes, guest_mac, 6);
}

static void make_dhcp(uint8_t kind)
{
    frames_dhcp(&scratch, guest_mac, kind, kind == 3 ? GUEST : 0);
}

static const uint8_t *dhcp_option(const uint8_t *frame, uint8_t wanted)
{
    const uint8_t *option = frames_dhcp_option(frame, FRAMES_MAX, wanted);
    assert_non_null(option);
    return option;
}

static void test_dhcp(void **state)
{
    (void)state;
    open_net(&(struct net_slirp_options){.hostname = "box", .domainname = "example.org"});
    make_dhcp(1);
    assert_int_equal(send_scratch(), 0);
    const uint8_t *offer = next_frame()->bytes;
    assert_int_equal(dhcp_option(offer, 53)[0], 2);
    assert_int_equal(load_be32(offer + 42 + 16), GUEST);
    make_dhcp(3);
    assert_int_equal(send_scratch(), 0);
    const uint8_t *ack = next_frame()->bytes;
    assert_int_equal(dhcp_option(ack, 53)[0], 5);
    assert_int_equal(load_be32(dhcp_option(ack, 3)), ROUTER);
    assert_int_equal(load_be32(dhcp_option(ack, 6)), FRAMES_IPV4(10, 0, 2, 3));
    assert_int_equal(load_be32(dhcp_option(ack, 1)), 0xffffff00);
    assert_memory_equal(dhcp_option(ack, 12), "box", 3);
    assert_memory_equal(dhcp_option(ack, 15), "example.org", 11);
}

static void test_dhcp_in_another_net(void **state)
{
    (void)state;
    open_net(&(struct net_slirp_options){.net = "192.168.7.0/24", .dhcpstart = "192.168.7.100"});
    make_dhcp(1);
    assert_int_equal(send_scratch(), 0);
    const uint8_t *offer = next_frame()->bytes;
    assert_int_equal(load_be32(offer + 42 + 16), FRAMES_IPV4(192, 168, 7, 100));
    assert_int_equal(load_be32(dhcp_option(offer, 3)), FRAMES_IPV4(192, 168, 7, 2));
}

static void test_udp_to_the_host_and_back(void **state)
{
    (void)state;
    uint16_t port;
    int fd = host_socket(SOCK_DGRAM, &port);
    char text[16] = "";
    struct sockaddr_in from;
    socklen_t length = sizeof(from);
    open_net(&(struct net_slirp_options){0});
    greet();
    const struct frames_flow flow = flow_to(ROUTER, port);
    frames_udp(&scratch, &flow, "ping", 4);
    assert_int_equal(send_scratch(), 0);
    assert_int_equal(recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&from, &length), 4);
    assert_memory_equal(text, "ping", 4);
    assert_int_equal(sendto(fd, "pong!", 5, 0, (struct sockaddr *)&from, length), 5);
    const struct fake_frame *answer = next_frame();
    assert_true(frames_are_checksums_right(answer->bytes, answer->length));
    assert_int_equal(load_be16(answer->bytes + 36), 40000);
    assert_memory_equal(answer->bytes + 42, "pong!", 5);
    close(fd);
}

static void test_tcp_to_the_host_and_back(void **state)
{
    (void)state;
    uint16_t port;
    int listener = host_socket(SOCK_STREAM, &port);
    char text[64] = "";
    size_t at, bytes;
    struct guest_tcp tcp;
    open_net(&(struct net_slirp_options){0});
    greet();
    tcp_connect(&tcp, port);
    int fd = guest_tcp_accept(&loop, listener);
    guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, "hello from the guest", 20);
    assert_int_equal(guest_tcp_read(&loop, fd, text, 20), 20);
    assert_memory_equal(text, "hello from the guest", 20);
    assert_int_equal(write(fd, "hello from the host", 19), 19);
    const uint8_t *frame;
    do
        frame = next_tcp(TCP_ACK, &at, &bytes);
    while (!bytes);
    assert_int_equal(bytes, 19);
    assert_memory_equal(frame + at, "hello from the host", 19);
    close(fd);
    next_tcp(TCP_FIN, &at, &bytes);
    close(listener);
}

static void test_refused_connection_is_reset(void **state)
{
    (void)state;
    size_t at, bytes;
    open_net(&(struct net_slirp_options){0});
    greet();
    struct guest_tcp tcp = {
        .nic = &nic, .flow = flow_to(ROUTER, free_port(SOCK_STREAM)), .sequence = 7};
    guest_tcp_send(&tcp, TCP_SYN, NULL, 0);
    next_tcp(TCP_RST, &at, &bytes);
}

static void test_disable_host_loopback(void **state)
{
    (void)state;
    uint16_t port;
    int listener = host_socket(SOCK_STREAM, &port);
    open_net(&(struct net_slirp_options){.disable_host_loopback = true});
    greet();
    struct guest_tcp tcp = {.nic = &nic, .flow = flow_to(ROUTER, port), .sequence = 7};
    guest_tcp_send(&tcp, TCP_SYN, NULL, 0);
    run_for_ms(50);
    assert_int_equal(accept(listener, NULL, NULL), -1);
    /* Nor by naming the loopback outright. */
    tcp.flow.target = FRAMES_IPV4(127, 0, 0, 1);
    frames_tcp(&scratch, &tcp.flow, TCP_SYN, 7, 0, NULL, 0);
    assert_int_equal(send_scratch(), -EPERM);
    close(listener);
}

static void test_restrict(void **state)
{
    (void)state;
    uint16_t port;
    int listener = host_socket(SOCK_STREAM, &port);
    open_net(&(struct net_slirp_options){.restrict_access = true});
    greet();
    struct guest_tcp tcp = {.nic = &nic, .flow = flow_to(ROUTER, port), .sequence = 7};
    guest_tcp_send(&tcp, TCP_SYN, NULL, 0);
    run_for_ms(50);
    assert_int_equal(accept(listener, NULL, NULL), -1);
    close(listener);
}

/* The guest accepts a connection that came by a forward. */
static void accept_in_guest(struct guest_tcp *tcp, uint16_t guest_port)
{
    size_t at, bytes;
    const uint8_t *syn = next_tcp(TCP_SYN, &at, &bytes);
    assert_int_equal(load_be16(syn + 36), guest_port);
    *tcp = (struct guest_tcp){
        .nic = &nic,
        .flow = flow_to(load_be32(syn + 26), load_be16(syn + 34)),
        .sequence = 5000,
        .acknowledged = load_be32(syn + 38) + 1,
    };
    tcp->flow.source_port = guest_port;
    guest_tcp_send(tcp, TCP_SYN | TCP_ACK, NULL, 0);
    next_tcp(TCP_ACK, &at, &bytes);
}

static void test_tcp_forward(void **state)
{
    (void)state;
    const struct net_forward forward = {.host_port = free_port(SOCK_STREAM), .guest_port = 22};
    const struct net_slirp_options options = {.forwards = &forward, .forward_count = 1};
    struct guest_tcp tcp;
    char text[8] = "";
    open_net(&options);
    greet();
    turn();
    int fd = host_connect(SOCK_STREAM, forward.host_port);
    accept_in_guest(&tcp, 22);
    guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, "SSH-2.0", 7);
    assert_int_equal(guest_tcp_read(&loop, fd, text, 7), 7);
    assert_memory_equal(text, "SSH-2.0", 7);
    close(fd);
}

static void test_many_connections_wait_at_a_forward(void **state)
{
    (void)state;
    const struct net_forward forward = {.host_port = free_port(SOCK_STREAM), .guest_port = 80};
    int fds[60];
    struct guest_tcp tcp;
    open_net(&(struct net_slirp_options){.forwards = &forward, .forward_count = 1});
    greet();
    turn();
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) /* connect() would hang at a full backlog */
        fds[i] = host_connect(SOCK_STREAM, forward.host_port);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        accept_in_guest(&tcp, 80);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        close(fds[i]);
}

static void test_udp_forward(void **state)
{
    (void)state;
    const struct net_forward forward = {
        .is_udp = true, .host_port = free_port(SOCK_DGRAM), .guest_port = 53};
    struct error err = {0};
    char text[8] = "";
    open_net(&(struct net_slirp_options){0});
    greet();
    assert_int_equal(net_slirp_forward_add(net, &forward, &err), 0);
    int fd = host_connect(SOCK_DGRAM, forward.host_port);
    assert_int_equal(write(fd, "query", 5), 5);
    const struct fake_frame *query = next_frame();
    assert_int_equal(load_be16(query->bytes + 36), 53);
    assert_memory_equal(query->bytes + 42, "query", 5);
    struct frames_flow flow = flow_to(load_be32(query->bytes + 26), load_be16(query->bytes + 34));
    flow.source_port = 53;
    frames_udp(&scratch, &flow, "reply", 5);
    assert_int_equal(send_scratch(), 0);
    assert_int_equal(guest_tcp_read(&loop, fd, text, 5), 5);
    assert_memory_equal(text, "reply", 5);
    close(fd);
}

static void test_forwards_come_and_go(void **state)
{
    (void)state;
    struct net_forward forward = {.host_port = free_port(SOCK_STREAM), .guest_port = 22};
    struct error err = {0};
    open_net(&(struct net_slirp_options){0});
    assert_int_equal(net_slirp_forward_add(net, &forward, &err), 0);
    assert_int_equal(net_slirp_forward_add(net, &forward, &err), -EEXIST);
    assert_non_null(strstr(err.text, "already forwarded by netdev 'net0'"));
    err = (struct error){0};
    assert_int_equal(net_slirp_forward_remove(net, &forward, &err), 0);
    assert_int_equal(net_slirp_forward_remove(net, &forward, &err), -ENOENT);
    assert_non_null(strstr(err.text, "is not forwarded"));
    err = (struct error){0};
    assert_int_equal(net_slirp_forward_add(net, &forward, &err), 0);
    forward.is_udp = true;
    assert_int_equal(net_slirp_forward_remove(net, &forward, &err), -ENOENT);
}

static void check_forward_error(const struct net_forward *forward, int code, const char *text)
{
    struct error err = {0};
    assert_int_equal(net_slirp_forward_add(net, forward, &err), code);
    if (!strstr(err.text, text))
        fail_msg("'%s' is not in '%s'", text, err.text);
    assert_null(strchr(err.text, '\n'));
}

static void test_bad_forwards(void **state)
{
    (void)state;
    uint16_t port, udp_port;
    int listener = host_socket(SOCK_STREAM, &port);
    int udp = host_socket(SOCK_DGRAM, &udp_port);
    open_net(&(struct net_slirp_options){0});
    check_forward_error(&(struct net_forward){.host_port = port, .guest_port = 22}, -EADDRINUSE,
                        "in use by another program");
    check_forward_error(
        &(struct net_forward){.is_udp = true, .host_port = udp_port, .guest_port = 22}, -EADDRINUSE,
        "in use by another program");
    check_forward_error(
        &(struct net_forward){.host_address = "192.0.2.1", .host_port = 2222, .guest_port = 22},
        -EADDRNOTAVAIL, "no network interface");
    check_forward_error(
        &(struct net_forward){.host_address = "localhost", .host_port = 2222, .guest_port = 22},
        -EINVAL, "'localhost' is not an address");
    check_forward_error(&(struct net_forward){.guest_port = 22}, -EINVAL, "needs a host port");
    check_forward_error(
        &(struct net_forward){.host_port = 2222, .guest_address = "::1", .guest_port = 22}, -EINVAL,
        "same family");
    close(listener);
    close(udp);
}

/* A host that floods a guest without buffers is slowed down; nothing is lost. */
static void test_backpressure(void **state)
{
    (void)state;
    uint16_t port;
    int listener = host_socket(SOCK_STREAM, &port);
    static char data[20000], got[20000];
    size_t total = 0, at, bytes;
    struct guest_tcp tcp;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(i * 7 + i / 251);
    open_net(&(struct net_slirp_options){0});
    greet();
    tcp_connect(&tcp, port);
    int fd = guest_tcp_accept(&loop, listener);
    nic.is_full = true;
    assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
    run_for_ms(30);
    assert_int_equal(nic.refused, 1); /* asked once, then waited to be told */
    fake_nic_make_room(&nic);
    while (total < sizeof(data)) {
        const uint8_t *frame = next_tcp(TCP_ACK, &at, &bytes);
        if (load_be32(frame + 38) != tcp.acknowledged)
            continue;
        memcpy(got + total, frame + at, bytes);
        total += bytes;
        tcp.acknowledged += (uint32_t)bytes;
        guest_tcp_send(&tcp, TCP_ACK, NULL, 0);
    }
    assert_memory_equal(got, data, sizeof(data));
    close(fd);
    close(listener);
}

static void test_segments_are_merged_for_a_guest_that_takes_them(void **state)
{
    (void)state;
    uint16_t port;
    int listener = host_socket(SOCK_STREAM, &port);
    static char data[14600], got[14600];
    size_t total = 0, at, bytes;
    bool was_merged = false;
    struct guest_tcp tcp;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(i * 13 + i / 255);
    open_net(&(struct net_slirp_options){0});
    net_set_guest_offloads(net, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    greet();
    tcp_connect(&tcp, port);
    int fd = guest_tcp_accept(&loop, listener);
    assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
    while (total < sizeof(data)) {
        const uint8_t *frame = next_tcp(TCP_ACK, &at, &bytes);
        const struct net_meta *meta = &nic.frames[nic.read - 1].meta;
        if (bytes > 1460) {
            assert_int_equal(meta->gso_type, NET_GSO_TCPV4);
            assert_in_range(meta->gso_size, 1400, 1460);
            was_merged = true;
        }
        memcpy(got + total, frame + at, bytes);
        total += bytes;
        tcp.acknowledged += (uint32_t)bytes;
        guest_tcp_send(&tcp, TCP_ACK, NULL, 0);
    }
    assert_true(was_merged);
    assert_memory_equal(got, data, sizeof(data));
    close(fd);
    close(listener);
}

/* A driver that gives up an offload never sees a frame that needs it, not even one in the queue. */
static void test_offloads_given_up_take_their_frames_along(void **state)
{
    (void)state;
    uint16_t port;
    int listener = host_socket(SOCK_STREAM, &port);
    static char data[180000];
    size_t total = 0, at, bytes;
    struct guest_tcp tcp;
    open_net(&(struct net_slirp_options){0});
    net_set_guest_offloads(net, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    greet();
    tcp_connect(&tcp, port);
    int fd = guest_tcp_accept(&loop, listener);
    assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
    while (total < sizeof(data) / 3) {
        next_tcp(TCP_ACK, &at, &bytes);
        total += bytes;
        tcp.acknowledged += (uint32_t)bytes;
        nic.is_full = total >= sizeof(data) / 3;
        guest_tcp_send(&tcp, TCP_ACK, NULL, 0);
    }
    run_for_ms(10);
    assert_true(nic.refused > 0);
    net_set_guest_offloads(net, 0);
    size_t before = nic.count;
    fake_nic_make_room(&nic);
    run_for_ms(10);
    for (; before < nic.count; before++)
        assert_int_equal(nic.frames[before].meta.gso_type, NET_GSO_NONE);
    close(fd);
    close(listener);
}

/* Datagrams for a guest without buffers pile up on the host's side of the socket, not here. */
static void test_a_flood_is_not_read_in(void **state)
{
    (void)state;
    uint16_t port;
    int host = host_socket(SOCK_DGRAM, &port);
    static const char data[1400];
    struct sockaddr_in from;
    socklen_t length = sizeof(from);
    char byte;
    open_net(&(struct net_slirp_options){0});
    greet();
    const struct frames_flow flow = flow_to(ROUTER, port);
    frames_udp(&scratch, &flow, "x", 1);
    assert_int_equal(send_scratch(), 0);
    assert_int_equal(recvfrom(host, &byte, 1, 0, (struct sockaddr *)&from, &length), 1);
    nic.is_full = true;
    for (int i = 0; i < 1500; i++) {
        unused_result(sendto(host, data, sizeof(data), 0, (struct sockaddr *)&from, length) < 0);
        loop_run_once(&loop, false);
    }
    assert_int_equal(net->stats.rx_dropped, 0);
    struct pollfd ready = {.fd = uv_backend_fd(&loop.uv), .events = POLLIN};
    run_for_ms(5);
    assert_int_equal(poll(&ready, 1, 0), 0); /* what waits there does not keep the loop awake */
    fake_nic_make_room(&nic);
    run_for_ms(20);
    assert_in_range(nic.count, 150, 1499);
    close(host);
}

static void test_writing_to_a_peer_that_left_is_no_end(void **state)
{
    (void)state;
    uint16_t port;
    int listener = host_socket(SOCK_STREAM, &port);
    const struct linger reset_at_close = {.l_onoff = 1};
    struct guest_tcp tcp;
    signal(SIGPIPE, SIG_DFL);
    open_net(&(struct net_slirp_options){0});
    assert_ptr_equal(signal(SIGPIPE, SIG_IGN), SIG_IGN); /* libslirp sends without MSG_NOSIGNAL */
    greet();
    tcp_connect(&tcp, port);
    int fd = guest_tcp_accept(&loop, listener);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset_at_close, sizeof(reset_at_close));
    close(fd);
    guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, "a", 1);
    guest_tcp_send(&tcp, TCP_ACK | TCP_PSH, "b", 1);
    run_for_ms(10);
    close(listener);
}

static void send_large(struct guest_tcp *tcp, const char *data, size_t length)
{
    frames_tcp(&scratch, &tcp->flow, TCP_ACK, tcp->sequence, tcp->acknowledged, data, length);
    store_be16(scratch.bytes + 50, 0); /* left to the peer */
    const struct net_meta meta = {.flags = NET_NEEDS_CSUM,
                                  .gso_type = NET_GSO_TCPV4,
                                  .hdr_len = 54,
                                  .gso_size = 1460,
                                  .csum_start = 34,
                                  .csum_offset = 16};
    assert_int_equal(send_meta(&meta), 0);
    tcp->sequence += (uint32_t)length;
}

static void test_large_frames_go_in_whole(void **state)
{
    (void)state;
    uint16_t port;
    int listener = host_socket(SOCK_STREAM, &port);
    static char data[60000], got[60000];
    struct guest_tcp tcp;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(i * 31 + i / 253);
    open_net(&(struct net_slirp_options){0});
    greet();
    tcp_connect(&tcp, port);
    int fd = guest_tcp_accept(&loop, listener);
    send_large(&tcp, data, sizeof(data));
    assert_int_equal(guest_tcp_read(&loop, fd, got, sizeof(got)), sizeof(got));
    assert_memory_equal(got, data, sizeof(data));
    close(fd);
    close(listener);
}

static void test_hostile_metas_are_refused(void **state)
{
    (void)state;
    open_net(&(struct net_slirp_options){0});
    const struct frames_flow flow = flow_to(ROUTER, 9);
    frames_tcp(&scratch, &flow, TCP_ACK, 1, 1, "abc", 3);
    const struct net_meta metas[] = {
        {.flags = NET_NEEDS_CSUM, .csum_start = 65535, .csum_offset = 65535},
        {.flags = NET_NEEDS_CSUM, .csum_start = 56, .csum_offset = 0},
        {.flags = NET_NEEDS_CSUM, .csum_start = 0, .csum_offset = 0},
        {.gso_type = NET_GSO_TCPV6, .gso_size = 10},
        {.gso_type = NET_GSO_UDP, .gso_size = 10},
        {.gso_type = 77},
    };
    for (size_t i = 0; i < ARRAY_SIZE(metas); i++)
        assert_int_equal(send_meta(&metas[i]), -EINVAL);
    scratch.length = 13;
    assert_int_equal(send_scratch(), -EMSGSIZE);
    scratch.length = 65550;
    assert_int_equal(send_scratch(), -EMSGSIZE);
    assert_int_equal(net->stats.tx_dropped, ARRAY_SIZE(metas) + 2);
}

static void test_link_down(void **state)
{
    (void)state;
    open_net(&(struct net_slirp_options){0});
    net_set_link(net, false);
    frames_arp_request(&scratch, guest_mac, GUEST, ROUTER);
    assert_int_equal(send_scratch(), -ENETDOWN);
    net_set_link(net, true);
    greet();
}

/* With a forward open and nobody there, the loop must sleep. */
static void test_idle_costs_nothing(void **state)
{
    (void)state;
    const struct net_forward forward = {.host_port = free_port(SOCK_STREAM), .guest_port = 22};
    open_net(&(struct net_slirp_options){0});
    greet();
    run_for_ms(20);
    uint64_t turns = loop.turns;
    unsigned busy = 0;
    for (int i = 0; i < 600; i++) {
        int fd = uv_backend_fd(&loop.uv);
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        busy += poll(&ready, 1, 0) != 0 || uv_backend_timeout(&loop.uv) == 0;
        usleep(2000);
    }
    assert_int_equal(busy, 0);
    assert_int_equal(loop.turns, turns);
    struct error err = {0};
    assert_int_equal(net_slirp_forward_add(net, &forward, &err), 0);
    run_for_ms(20);
}

static void test_closing_while_a_timer_is_due(void **state)
{
    (void)state;
    uint16_t port;
    struct guest_tcp tcp;
    int listener = host_socket(SOCK_STREAM, &port);
    open_net(&(struct net_slirp_options){0});
    greet();
    tcp_connect(&tcp, port);
    run_for_ms(5);
    usleep(1100000); /* longer than any of libslirp's timers for connections */
    fake_nic_close(&nic);
    run_for_ms(5);
    close(listener);
}

static void test_describe(void **state)
{
    (void)state;
    char text[100];
    open_net(&(struct net_slirp_options){.restrict_access = true});
    net->ops->describe(net, text, sizeof(text));
    assert_string_equal(text, "index=0,type=user,net=10.0.2.0,restrict=on");
    char *table = net_slirp_connections(net);
    assert_non_null(strstr(table, "Protocol"));
    free(table);
}

#define slirp_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        slirp_test(test_arp),
        slirp_test(test_dhcp),
        slirp_test(test_dhcp_in_another_net),
        slirp_test(test_udp_to_the_host_and_back),
        slirp_test(test_tcp_to_the_host_and_back),
        slirp_test(test_refused_connection_is_reset),
        slirp_test(test_disable_host_loopback),
        slirp_test(test_restrict),
        slirp_test(test_tcp_forward),
        slirp_test(test_many_connections_wait_at_a_forward),
        slirp_test(test_udp_forward),
        slirp_test(test_forwards_come_and_go),
        slirp_test(test_bad_forwards),
        slirp_test(test_backpressure),
        slirp_test(test_segments_are_merged_for_a_guest_that_takes_them),
        slirp_test(test_offloads_given_up_take_their_frames_along),
        slirp_test(test_a_flood_is_not_read_in),
        slirp_test(test_writing_to_a_peer_that_left_is_no_end),
        slirp_test(test_large_frames_go_in_whole),
        slirp_test(test_hostile_metas_are_refused),
        slirp_test(test_link_down),
        slirp_test(test_idle_costs_nothing),
        slirp_test(test_closing_while_a_timer_is_due),
        slirp_test(test_describe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
