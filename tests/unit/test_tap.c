/* SPDX-License-Identifier: MIT */
/* A TAP in a network namespace of the test's own; the host's side of it is a packet socket. */
#include "netbackends/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "netbackends/packet.h"
#include "tests/fake_nic.h"
#include "tests/frames.h"
#include "tests/unit/test.h"

enum { TYPE_TEST = 0x88b5, HEADER = sizeof(struct virtio_net_hdr) };
#define ALL_OFFLOADS (NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN)

static struct loop loop;
static struct fake_nic nic;
static int host = -1; /* the packet socket */
static uint8_t frame[70000];

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 3 + i / 256);
    memset(frame, 0xff, 6);
    frame[6] = 2;
    store_be16(frame + 12, TYPE_TEST);
    return loop_init(&loop);
}

static int tear_down(void **state)
{
    (void)state;
    fake_nic_close(&nic);
    loop_fini(&loop);
    if (host >= 0)
        close(host);
    host = -1;
    return 0;
}

static void bring_up(const char *ifname)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), on = 1;
    snprintf(request.ifr_name, IFNAMSIZ, "%s", ifname);
    assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &request), 0);
    request.ifr_flags |= IFF_UP;
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    close(fd);
    host = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
    const struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                        .sll_protocol = htons(ETH_P_ALL),
                                        .sll_ifindex = (int)if_nametoindex(ifname)};
    assert_int_equal(bind(host, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(setsockopt(host, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0);
}

static void open_tap(const struct net_tap_options *options)
{
    struct error err = {0};
    struct net_backend *net;
    if (net_tap_create(&loop, "net0", options, &net, &err))
        fail_msg("%s", err.text);
    fake_nic_attach(&nic, net);
    bring_up(net_tap_ifname(net));
}

static void host_send(const struct virtio_net_hdr *header, const void *bytes, size_t length)
{
    const struct virtio_net_hdr plain = {0};
    struct iovec iov[] = {{(void *)(header ? header : &plain), HEADER}, {(void *)bytes, length}};
    assert_int_equal(writev(host, iov, 2), HEADER + length);
}

/* The next frame of ethertype `type`; the kernel says things of its own. */
static const struct fake_frame *next_of_type(uint16_t type)
{
    const struct fake_frame *got;
    do
        got = fake_nic_next(&nic);
    while (load_be16(got->bytes + 12) != type);
    return got;
}

static size_t host_receive(uint16_t type, struct virtio_net_hdr *header, uint8_t *to, size_t size)
{
    for (int i = 0; i < 200000; i++) {
        struct iovec iov[] = {{header, HEADER}, {to, size}};
        ssize_t count = readv(host, iov, 2);
        if (count > HEADER && load_be16(to + 12) == type)
            return (size_t)count - HEADER;
        loop_run_once(&loop, false);
        if (count < 0)
            usleep(100);
    }
    fail_msg("nothing came");
    return 0;
}

static void test_frames_cross_both_ways(void **state)
{
    (void)state;
    static uint8_t got[2000];
    struct virtio_net_hdr header;
    const struct net_tap_options options[] = {{.ifname = "evtap0", .fd = -1},
                                              {.fd = -1, .vnet_hdr_off = true}};
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        open_tap(&options[i]);
        if (options[i].ifname)
            assert_string_equal(net_tap_ifname(nic.net), "evtap0");
        assert_int_equal(net_offloads(nic.net), options[i].vnet_hdr_off ? 0 : ALL_OFFLOADS);
        assert_int_equal(fake_nic_send(&nic, frame, 1514), 0);
        assert_int_equal(host_receive(TYPE_TEST, &header, got, sizeof(got)), 1514);
        assert_memory_equal(got, frame, 1514);
        host_send(NULL, frame, 1000);
        const struct fake_frame *back = next_of_type(TYPE_TEST);
        assert_int_equal(back->length, 1000);
        assert_memory_equal(back->bytes, frame, 1000);
        fake_nic_close(&nic);
        close(host);
    }
    host = -1;
}

static struct frames_buffer large;

static void make_large(void)
{
    const struct frames_flow flow = {.source_mac = FRAMES_GUEST_MAC,
                                     .target_mac = {2, 0, 0, 0, 0, 9},
                                     .source = FRAMES_IPV4(192, 0, 2, 1),
                                     .target = FRAMES_IPV4(192, 0, 2, 2),
                                     .source_port = 1000,
                                     .target_port = 2000};
    frames_tcp(&large, &flow, TCP_ACK, 1, 1, frame, 30000);
}

static void test_large_frames_go_out_whole(void **state)
{
    (void)state;
    struct virtio_net_hdr header;
    static uint8_t got[65536];
    open_tap(&(struct net_tap_options){.fd = -1});
    make_large();
    const struct net_meta meta = {NET_NEEDS_CSUM, NET_GSO_TCPV4, 54, 1460, 34, 16};
    const struct iovec iov = {large.bytes, large.length};
    assert_int_equal(net_send(nic.net, &meta, &iov, 1), 0);
    assert_int_equal(host_receive(ETH_P_IP, &header, got, sizeof(got)), large.length);
    assert_int_equal(header.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    assert_int_equal(header.gso_size, 1460);
}

static void send_large_from_host(void)
{
    const struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                          .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                          .hdr_len = 54,
                                          .gso_size = 1460,
                                          .csum_start = 34,
                                          .csum_offset = 16};
    struct packet packet;
    make_large();
    assert_true(packet_parse_ip(large.bytes, large.length, &packet));
    uint64_t sum = packet_pseudo_sum(large.bytes, &packet, packet.end - packet.transport);
    store_be16(large.bytes + 50, (uint16_t)~packet_fold(sum));
    host_send(&header, large.bytes, large.length);
}

static void test_the_host_sends_what_the_guest_takes(void **state)
{
    (void)state;
    open_tap(&(struct net_tap_options){.fd = -1});
    net_set_guest_offloads(nic.net, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    send_large_from_host();
    const struct fake_frame *whole = next_of_type(ETH_P_IP);
    assert_int_equal(whole->length, large.length);
    assert_int_equal(whole->meta.gso_type, NET_GSO_TCPV4);
    assert_int_equal(whole->meta.gso_size, 1460);
    assert_int_equal(whole->meta.csum_start, 34);
    net_set_guest_offloads(nic.net, 0);
    send_large_from_host();
    for (size_t total = 0; total < 30000;) {
        const struct fake_frame *piece = next_of_type(ETH_P_IP);
        assert_true(piece->length <= 54 + 1460);
        assert_int_equal(piece->meta.gso_type, 0);
        assert_true(frames_are_checksums_right(piece->bytes, piece->length));
        total += piece->length - 54;
    }
}

/* However much of a frame fits into the guest at once, it arrives whole. */
static void test_frames_go_straight_to_where_there_is_room(void **state)
{
    static const size_t rooms[] = {30000, 500, 20000, 60000};
    (void)state;
    open_tap(&(struct net_tap_options){.fd = -1});
    net_set_guest_offloads(nic.net, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
        unsigned before = nic.in_place;
        nic.lends = rooms[i];
        send_large_from_host();
        const struct fake_frame *whole = next_of_type(ETH_P_IP);
        assert_int_equal(whole->length, large.length);
        assert_memory_equal(whole->bytes, large.bytes, large.length);
        assert_int_equal(whole->meta.gso_size, 1460);
        assert_int_equal(nic.in_place - before, large.length <= NET_HEAD_BYTES + rooms[i] ? 1 : 0);
    }
}

/* What fills the guest's buffers is told before more is read. */
static void test_a_turn_ends_where_room_is_scarce(void **state)
{
    (void)state;
    open_tap(&(struct net_tap_options){.fd = -1});
    net_set_guest_offloads(nic.net, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    nic.lends = 60000;
    fake_nic_run_ms(&loop, 5);
    nic.is_scarce = true;
    for (int i = 0; i < 3; i++)
        send_large_from_host();
    unsigned turns = 0;
    for (size_t i = 0, before = nic.count; i < 3; before = nic.count) {
        loop_run_once(&loop, false);
        assert_true(turns++ < 1000000);
        assert_true(nic.count - before <= 1);
        for (size_t k = before; k < nic.count; k++)
            i += nic.frames[k].length == large.length;
    }
}

/* After many small frames a large one is no longer expected; it comes whole, and changes that. */
static void test_small_frames_need_no_room(void **state)
{
    (void)state;
    open_tap(&(struct net_tap_options){.fd = -1});
    net_set_guest_offloads(nic.net, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    nic.lends = 60000;
    for (int i = 0; i < 100; i++) {
        host_send(NULL, frame, 100);
        next_of_type(TYPE_TEST);
        fake_nic_forget_read(&nic);
    }
    unsigned begun = nic.begun;
    host_send(NULL, frame, 100);
    next_of_type(TYPE_TEST);
    assert_int_equal(nic.begun, begun);
    for (unsigned i = 0; i < 2; i++) {
        send_large_from_host();
        const struct fake_frame *whole = next_of_type(ETH_P_IP);
        assert_int_equal(whole->length, large.length);
        assert_memory_equal(whole->bytes, large.bytes, large.length);
        assert_int_equal(nic.in_place, i);
    }
}

static void test_a_full_guest_is_waited_for(void **state)
{
    (void)state;
    open_tap(&(struct net_tap_options){.fd = -1});
    fake_nic_run_ms(&loop, 5);
    nic.is_full = true;
    for (uint8_t i = 0; i < 5; i++) {
        frame[20] = i;
        host_send(NULL, frame, 100);
    }
    fake_nic_run_ms(&loop, 10);
    struct pollfd ready = {.fd = uv_backend_fd(&loop.uv), .events = POLLIN};
    assert_int_equal(nic.refused, 1);
    assert_int_equal(poll(&ready, 1, 0), 0); /* what waits keeps nobody awake */
    fake_nic_make_room(&nic);
    for (uint8_t i = 0; i < 5; i++)
        assert_int_equal(next_of_type(TYPE_TEST)->bytes[20], i);
}

static void delete_interface(const char *ifname)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {
        .header = {.nlmsg_len = sizeof(request),
                   .nlmsg_type = RTM_DELLINK,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .info.ifi_index = (int)if_nametoindex(ifname),
    };
    char answer[256];
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    assert_int_equal(send(fd, &request, sizeof(request), 0), sizeof(request));
    assert_true(recv(fd, answer, sizeof(answer), 0) > 0);
    close(fd);
    assert_int_equal(if_nametoindex(ifname), 0);
}

static void test_a_removed_interface_is_a_carrier_lost(void **state)
{
    (void)state;
    char text[100];
    open_tap(&(struct net_tap_options){.ifname = "evtap1", .fd = -1});
    assert_true(nic.link_up);
    delete_interface("evtap1");
    fake_nic_run_ms(&loop, 20);
    assert_false(nic.link_up);
    assert_int_equal(fake_nic_send(&nic, frame, 100), -ENETDOWN);
    nic.net->ops->describe(nic.net, text, sizeof(text));
    assert_non_null(strstr(text, "removed"));
    struct pollfd ready = {.fd = uv_backend_fd(&loop.uv), .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 0), 0); /* its descriptor keeps nobody awake */
}

static void test_an_open_descriptor_is_taken_over(void **state)
{
    (void)state;
    struct virtio_net_hdr header;
    uint8_t got[200];
    struct ifreq request = {.ifr_name = "evtap2", .ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
    open_tap(&(struct net_tap_options){.fd = fd});
    assert_string_equal(net_tap_ifname(nic.net), "evtap2");
    assert_int_equal(net_offloads(nic.net), 0);
    assert_int_equal(fake_nic_send(&nic, frame, 100), 0);
    assert_int_equal(host_receive(TYPE_TEST, &header, got, sizeof(got)), 100);
}

/* Made for several queues, as for other machine monitors: one of them is enough. */
static void test_one_queue_of_several(void **state)
{
    struct ifreq request = {.ifr_name = "evtap6",
                            .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE};
    struct virtio_net_hdr header;
    uint8_t got[200];
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    (void)state;
    assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
    assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
    close(fd);
    open_tap(&(struct net_tap_options){.ifname = "evtap6", .fd = -1});
    assert_int_equal(net_offloads(nic.net), ALL_OFFLOADS);
    assert_int_equal(fake_nic_send(&nic, frame, 100), 0);
    assert_int_equal(host_receive(TYPE_TEST, &header, got, sizeof(got)), 100);
    host_send(NULL, frame, 100);
    assert_int_equal(next_of_type(TYPE_TEST)->length, 100);
}

static void check_error(const struct net_tap_options *options, const char *text)
{
    struct error err = {0};
    struct net_backend *net;
    assert_true(net_tap_create(&loop, "net9", options, &net, &err) < 0);
    if (!strstr(err.text, text) || strncmp(err.text, "netdev 'net9': ", 15))
        fail_msg("'%s' is not in '%s'", text, err.text);
}

static void test_errors_say_what_to_do(void **state)
{
    (void)state;
    struct ifreq request = {.ifr_name = "evtun3", .ifr_flags = IFF_TUN | IFF_NO_PI};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC),
        tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    assert_int_equal(ioctl(tun, TUNSETIFF, &request), 0);
    check_error(&(struct net_tap_options){.ifname = "a-name-that-is-long", .fd = -1}, "too long");
    check_error(&(struct net_tap_options){.fd = null}, "is not a TAP interface");
    check_error(&(struct net_tap_options){.fd = tun}, "is not a TAP without packet information");
    check_error(&(struct net_tap_options){.ifname = "lo", .fd = -1}, "'lo' is not a TAP");
    open_tap(&(struct net_tap_options){.ifname = "evtap4", .fd = -1});
    check_error(&(struct net_tap_options){.ifname = "evtap4", .fd = -1}, "in use");
    check_error(&(struct net_tap_options){.bridge = "br0", .helper = "/nowhere/helper", .fd = -1},
                "cannot run the bridge helper '/nowhere/helper'");
    check_error(&(struct net_tap_options){.bridge = "br0", .helper = "/bin/false", .fd = -1},
                "'allow br0' in /etc/qemu/bridge.conf");
    close(null);
    close(tun);
}

/* A helper in the words of qemu-bridge-helper: this program again, see main. */
static void test_a_helper_hands_over_its_tap(void **state)
{
    (void)state;
    struct virtio_net_hdr header;
    uint8_t got[200];
    open_tap(&(struct net_tap_options){.bridge = "br7", .helper = "/proc/self/exe", .fd = -1});
    assert_string_equal(net_tap_ifname(nic.net), "evhelp-br7");
    assert_int_equal(net_offloads(nic.net), ALL_OFFLOADS);
    assert_int_equal(fake_nic_send(&nic, frame, 100), 0);
    assert_int_equal(host_receive(TYPE_TEST, &header, got, sizeof(got)), 100);
}

static int be_helper(const char *fd_word, const char *bridge_word)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int tap = open("/dev/net/tun", O_RDWR),
        socket = (int)strtol(fd_word + strlen("--fd="), NULL, 10);
    char byte = 0;
    struct iovec iov = {&byte, 1};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    snprintf(request.ifr_name, IFNAMSIZ, "evhelp-%s", bridge_word + strlen("--br="));
    if (ioctl(tap, TUNSETIFF, &request) < 0)
        return 1;
    memcpy(CMSG_DATA(&control.header), &tap, sizeof(tap));
    return sendmsg(socket, &message, 0) == 1 ? 0 : 1;
}

/* Why the test cannot run here, or NULL. */
static const char *enter_namespace(void)
{
    if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET) < 0)
        return "no network namespace may be made here";
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return "/dev/net/tun cannot be opened";
    close(fd);
    return NULL;
}

#define tap_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int count, char **words)
{
    const struct CMUnitTest tests[] = {
        tap_test(test_frames_cross_both_ways),
        tap_test(test_large_frames_go_out_whole),
        tap_test(test_the_host_sends_what_the_guest_takes),
        tap_test(test_frames_go_straight_to_where_there_is_room),
        tap_test(test_a_turn_ends_where_room_is_scarce),
        tap_test(test_small_frames_need_no_room),
        tap_test(test_a_full_guest_is_waited_for),
        tap_test(test_a_removed_interface_is_a_carrier_lost),
        tap_test(test_an_open_descriptor_is_taken_over),
        tap_test(test_one_queue_of_several),
        tap_test(test_errors_say_what_to_do),
        tap_test(test_a_helper_hands_over_its_tap),
    };
    if (count == 4 && !strcmp(words[1], "--use-vnet"))
        return be_helper(words[2], words[3]);
    const char *why_not = enter_namespace();
    if (why_not) {
        printf("[  SKIPPED ] tap: %s\n", why_not);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
