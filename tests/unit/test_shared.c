/* SPDX-License-Identifier: MIT */
/* Machines on one shared NAT or host-only network: some in this loop, one in a process of its own
 * that is killed. */
#include "netbackends/shared.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "netbackends/packet.h"
#include "tests/fake_nic.h"
#include "tests/frames.h"
#include "tests/guest_tcp.h"
#include "tests/unit/test.h"

enum { MACHINES = 4, FIRST = FRAMES_IPV4(10, 0, 2, 15), ROUTER = FRAMES_IPV4(10, 0, 2, 2) };

static struct loop loop;
static struct fake_nic nics[MACHINES];
static char folder[] = "/tmp/evisor-shared-XXXXXX";
static struct frames_buffer frame;
static uint8_t engine_mac[6];

static int set_up(void **state)
{
    (void)state;
    memcpy(strrchr(folder, '-') + 1, "XXXXXX", 6);
    assert_non_null(mkdtemp(folder));
    return loop_init(&loop);
}

static unsigned count_files(const char *suffix, bool removes)
{
    unsigned count = 0;
    DIR *open = opendir(folder);
    for (struct dirent *entry; (entry = readdir(open));) {
        char path[512];
        size_t length = strlen(entry->d_name), end = strlen(suffix);
        if (entry->d_name[0] == '.' || length < end ||
            strcmp(entry->d_name + length - end, suffix) != 0)
            continue;
        count++;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (removes)
            unlink(path);
    }
    closedir(open);
    return count;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MACHINES; i++)
        fake_nic_close(&nics[i]);
    loop_fini(&loop);
    assert_int_equal(count_files(".evnet", false), 0);
    count_files(".lease", true);
    count_files("network", true);
    assert_int_equal(rmdir(folder), 0);
    return 0;
}

static void mac_of(unsigned machine, uint8_t mac[6])
{
    static const uint8_t base[] = {0x52, 0x54, 0, 0x12, 0x34, 0};
    memcpy(mac, base, 6);
    mac[5] = (uint8_t)machine;
}

static int create(unsigned machine, const struct net_slirp_options *nat, struct net_backend **net,
                  struct error *err)
{
    char name[16];
    snprintf(name, sizeof(name), "vm%u", machine);
    const struct net_shared_options options = {.folder = folder, .name = name, .nat = *nat};
    return net_shared_create(&loop, "net0", &options, net, err);
}

static void join(unsigned machine, const struct net_slirp_options *nat)
{
    struct error err = {0};
    struct net_backend *net;
    if (create(machine, nat, &net, &err))
        fail_msg("%s", err.text);
    fake_nic_attach(&nics[machine], net);
}

static void send_frame(unsigned machine)
{
    assert_int_equal(fake_nic_send(&nics[machine], frame.bytes, frame.length), 0);
}

/* Asks for an address; the offer is left in *offer. */
static uint32_t ask_for_address(unsigned machine, const struct fake_frame **offer)
{
    uint8_t mac[6];
    mac_of(machine, mac);
    frames_dhcp(&frame, mac, 1, 0);
    send_frame(machine);
    do
        *offer = fake_nic_next(&nics[machine]);
    while (!((*offer)->length > 290 && load_be16((*offer)->bytes + 34) == 67));
    memcpy(engine_mac, (*offer)->bytes + 6, 6);
    return load_be32((*offer)->bytes + 42 + 16);
}

static uint32_t address_of(unsigned machine)
{
    const struct fake_frame *offer;
    return ask_for_address(machine, &offer);
}

/* One TCP connection of a machine to a server on the host, by the router's address. */
struct link {
    struct guest_tcp tcp;
    int fd;
};

/* ARP tells the engine who the guest is. */
static void greet(unsigned machine, uint32_t address, uint32_t router)
{
    uint8_t mac[6];
    mac_of(machine, mac);
    frames_arp_request(&frame, mac, address, router);
    send_frame(machine);
}

static struct link connect_to_host(unsigned machine, uint32_t router)
{
    struct link link = {.tcp = {.nic = &nics[machine]}};
    struct frames_flow *flow = &link.tcp.flow;
    int listener = guest_tcp_listen(&flow->target_port);
    flow->source_port = (uint16_t)(40000 + machine);
    flow->source = address_of(machine);
    flow->target = router;
    mac_of(machine, flow->source_mac);
    memcpy(flow->target_mac, engine_mac, 6);
    greet(machine, flow->source, router);
    guest_tcp_connect(&link.tcp);
    link.fd = guest_tcp_accept(&loop, listener);
    close(listener);
    return link;
}

static void check_link(struct link *link)
{
    char text[8] = "";
    guest_tcp_send(&link->tcp, TCP_ACK | TCP_PSH, "ping", 4);
    assert_int_equal(guest_tcp_read(&loop, link->fd, text, 4), 4);
    assert_string_equal(text, "ping");
    assert_int_equal(write(link->fd, "pong", 4), 4);
    guest_tcp_expect(&link->tcp, "pong");
}

/* A frame from one machine to the other, which hears it within its own network. */
static void check_neighbours(unsigned from, unsigned to)
{
    struct frames_flow flow = {
        .source = FIRST + from, .target = FIRST + to, .source_port = 7, .target_port = 9};
    mac_of(from, flow.source_mac);
    mac_of(to, flow.target_mac);
    frames_udp(&frame, &flow, "neighbour", 9);
    send_frame(from);
    const struct fake_frame *got;
    do
        got = fake_nic_next(&nics[to]);
    while (got->length != frame.length || memcmp(got->bytes, frame.bytes, frame.length) != 0);
}

static const struct net_slirp_options nat = {0}, host_only = {.host_only = true};

static void test_two_machines_share_a_nat(void **state)
{
    (void)state;
    join(0, &nat);
    join(1, &nat);
    fake_nic_run_ms(&loop, 5);
    assert_int_equal(address_of(0), FIRST);
    assert_int_equal(address_of(1), FIRST + 1);
    check_neighbours(0, 1);
    check_neighbours(1, 0);
    struct link first = connect_to_host(0, ROUTER), second = connect_to_host(1, ROUTER);
    check_link(&first);
    check_link(&second);
    close(first.fd);
    close(second.fd);
}

static void test_a_machine_keeps_its_address(void **state)
{
    (void)state;
    join(0, &nat);
    join(1, &nat);
    fake_nic_close(&nics[0]);
    join(2, &nat); /* a new machine takes a new address while there are some */
    assert_int_equal(address_of(2), FIRST + 2);
    join(0, &nat);
    assert_int_equal(address_of(0), FIRST);
    assert_int_equal(count_files(".lease", false), 3);
}

static void test_addresses_end(void **state)
{
    (void)state;
    struct error err = {0};
    struct net_backend *net;
    const struct net_slirp_options small = {
        .net = "10.0.9.0/29", .host = "10.0.9.1", .dns = "10.0.9.4", .dhcpstart = "10.0.9.2"};
    join(0, &small); /* .2 */
    join(1, &small); /* .3 */
    join(2, &small); /* .5, past the name server */
    assert_int_equal(address_of(2), FRAMES_IPV4(10, 0, 9, 5));
    join(3, &small); /* .6 */
    assert_int_equal(create(8, &small, &net, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "netdev 'net0': no address is left on network '"));
    fake_nic_close(&nics[1]);
    join(1, &small);
    fake_nic_close(&nics[1]);
    usleep(50000); /* for file systems with coarse clocks */
    fake_nic_close(&nics[3]);
    err = (struct error){0}; /* a stranger gets the one that was given back first */
    if (create(9, &small, &net, &err))
        fail_msg("%s", err.text);
    fake_nic_attach(&nics[1], net);
    assert_int_equal(address_of(1), FRAMES_IPV4(10, 0, 9, 3));
}

/* In a process of its own: joins, says so, and runs until it is killed. */
static pid_t start_process(unsigned machine)
{
    int ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child) {
        close(ends[1]);
        assert_int_equal(read(ends[0], &byte, 1), 1);
        close(ends[0]);
        return child;
    }
    if (loop_init(&loop)) /* the parent keeps its own */
        _exit(1);
    join(machine, &nat);
    byte = (char)(address_of(machine) & 255);
    if (write(ends[1], &byte, 1) == 1)
        for (;;)
            loop_run_once(&loop, true);
    _exit(1);
}

static void test_a_killed_machine_takes_nothing_along(void **state)
{
    (void)state;
    pid_t first = start_process(0);
    join(1, &nat);
    join(2, &nat);
    fake_nic_run_ms(&loop, 5);
    struct link link = connect_to_host(1, ROUTER);
    assert_int_equal(link.tcp.flow.source, FIRST + 1);
    check_link(&link);
    assert_int_equal(kill(first, SIGKILL), 0);
    assert_int_equal(waitpid(first, NULL, 0), first);
    check_link(&link);      /* the connection lives on, */
    check_neighbours(1, 2); /* and so do the neighbours, */
    struct link next = connect_to_host(2, ROUTER);
    check_link(&next); /* new connections, */
    join(0, &nat);
    assert_int_equal(address_of(0), FIRST); /* and the address is free for its return */
    close(link.fd);
    close(next.fd);
}

static void test_a_neighbour_is_not_the_router(void **state)
{
    (void)state;
    uint8_t mac[6];
    join(0, &nat);
    join(1, &nat);
    fake_nic_run_ms(&loop, 5);
    mac_of(1, mac);
    frames_arp_request(&frame, mac, ROUTER, FIRST);
    send_frame(1);
    check_neighbours(1, 0); /* came behind it, so it was dropped */
    for (size_t i = 0; i < nics[0].count; i++)
        assert_int_not_equal(load_be16(nics[0].frames[i].bytes + 12), PACKET_TYPE_ARP);
    assert_int_equal(nics[0].net->stats.rx_dropped, 1);
}

static void test_a_full_guest_loses_nothing(void **state)
{
    (void)state;
    join(0, &nat);
    join(1, &nat);
    fake_nic_run_ms(&loop, 5);
    nics[0].is_full = true;
    struct frames_flow flow = {.source = FIRST + 1, .target = FIRST, .source_port = 7};
    mac_of(1, flow.source_mac);
    mac_of(0, flow.target_mac);
    for (int i = 0; i < 5; i++) {
        frames_udp(&frame, &flow, &i, sizeof(i));
        send_frame(1);
    }
    uint8_t mac[6];
    mac_of(0, mac);
    frames_dhcp(&frame, mac, 1, 0);
    send_frame(0);
    fake_nic_run_ms(&loop, 5);
    assert_int_equal(nics[0].count, 0);
    fake_nic_make_room(&nics[0]);
    for (int i = 0; i < 6; i++)
        fake_nic_next(&nics[0]);
}

static void test_host_only_reaches_the_host_alone(void **state)
{
    (void)state;
    const uint32_t host = FRAMES_IPV4(192, 168, 56, 1);
    const struct fake_frame *offer;
    join(0, &host_only);
    join(1, &host_only);
    fake_nic_run_ms(&loop, 5);
    assert_int_equal(ask_for_address(0, &offer), FRAMES_IPV4(192, 168, 56, 101));
    assert_null(frames_dhcp_option(offer->bytes, offer->length, 3)); /* leads nowhere */
    assert_null(frames_dhcp_option(offer->bytes, offer->length, 6));
    assert_true(frames_are_checksums_right(offer->bytes, offer->length));
    assert_int_equal(address_of(1), FRAMES_IPV4(192, 168, 56, 102));
    check_neighbours(0, 1);
    struct link link = connect_to_host(0, host);
    check_link(&link);
    static const uint32_t outside[] = {FRAMES_IPV4(192, 0, 2, 1), FRAMES_IPV4(192, 168, 56, 3),
                                       FRAMES_IPV4(8, 8, 8, 8)};
    for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
        struct frames_flow flow = link.tcp.flow;
        flow.target = outside[i];
        frames_tcp(&frame, &flow, TCP_SYN, 1, 0, NULL, 0);
        assert_int_equal(fake_nic_send(&nics[0], frame.bytes, frame.length), -EPERM);
        flow.target_port = i == 2 ? 67 : 53; /* DHCP's port opens no way out either */
        frames_udp(&frame, &flow, "out", 3);
        assert_int_equal(fake_nic_send(&nics[0], frame.bytes, frame.length), -EPERM);
    }
    close(link.fd);
}

static void test_only_the_host_comes_into_a_host_only_network(void **state)
{
    (void)state;
    uint16_t port;
    struct error err = {0};
    close(guest_tcp_listen(&port));
    struct net_forward forward = {.host_address = "0.0.0.0", .host_port = port, .guest_port = 22};
    const struct net_guest_forward guest_forward = {.guest_port = 80, .command = "cat"};
    join(0, &host_only);
    struct net_backend *engine = net_shared_nat(nics[0].net);
    assert_int_equal(net_slirp_forward_add(engine, &forward, &err), -EINVAL);
    assert_non_null(strstr(err.text, "only the host reaches a machine on a host-only network"));
    err = (struct error){0};
    forward.host_address = "127.0.0.1";
    assert_int_equal(net_slirp_forward_add(engine, &forward, &err), 0);
    assert_int_equal(net_slirp_guest_forward_add(engine, &guest_forward, &err), -EINVAL);
}

static void test_forwards_are_the_machines_own(void **state)
{
    (void)state;
    uint16_t port;
    close(guest_tcp_listen(&port));
    const struct net_forward forward = {.host_port = port, .guest_port = 22};
    struct error err = {0};
    join(0, &nat);
    join(1, &nat);
    assert_int_equal(net_slirp_forward_add(net_shared_nat(nics[1].net), &forward, &err), 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    greet(1, address_of(1), ROUTER);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    const struct fake_frame *got;
    do
        got = fake_nic_next(&nics[1]);
    while (load_be16(got->bytes + 12) != PACKET_TYPE_IPV4 || got->bytes[23] != PACKET_TCP);
    assert_int_equal(load_be32(got->bytes + 30), FIRST + 1);
    assert_int_equal(load_be16(got->bytes + 36), 22);
    close(fd);
}

static void check_refused(unsigned machine, const struct net_slirp_options *options,
                          const char *text)
{
    struct error err = {0};
    struct net_backend *net;
    assert_true(create(machine, options, &net, &err) < 0);
    if (!strstr(err.text, text) || strncmp(err.text, "netdev 'net0': ", 15))
        fail_msg("'%s' is not in '%s'", text, err.text);
    fake_nic_run_ms(&loop, 1);
}

static void test_the_machines_agree_on_the_network(void **state)
{
    (void)state;
    const struct net_slirp_options other = {.net = "10.9.0.0/24"};
    char path[100];
    join(0, &other);
    join(1, &nat); /* has no wishes */
    join(2, &other);
    assert_int_equal(address_of(1), FRAMES_IPV4(10, 9, 0, 16));
    check_refused(3, &(struct net_slirp_options){.net = "10.0.2.0/24"},
                  "is there already, as 'nat 10.9.0.0/");
    check_refused(3, &host_only, "is of type nat, not hostonly");
    check_refused(3, &(struct net_slirp_options){.net = "rubbish"}, "is not an IPv4 network");
    snprintf(path, sizeof(path), "%s/network", folder);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(write(fd, "nat 1.2.3.4 host", 16), 16);
    close(fd);
    check_refused(3, &nat, "does not describe a network");
}

static void test_errors_say_what_to_do(void **state)
{
    (void)state;
    struct error err = {0};
    struct net_backend *net;
    struct net_shared_options options = {.folder = "/dev/null"};
    assert_int_equal(net_shared_create(&loop, "net0", &options, &net, &err), -ENOTDIR);
    assert_non_null(strstr(err.text, "network '/dev/null' is not a folder: name another one"));
    err = (struct error){0};
    options.folder = "/nowhere/at/all";
    assert_true(net_shared_create(&loop, "net0", &options, &net, &err) < 0);
    assert_non_null(strstr(err.text, "cannot make the folder of network '/nowhere/at/all'"));
    uint16_t port;
    int taken = guest_tcp_listen(&port);
    const struct net_forward forward = {.host_port = port, .guest_port = 22};
    check_refused(0, &(struct net_slirp_options){.forwards = &forward, .forward_count = 1},
                  "the port is in use by another program");
    close(taken);
}

static void test_describe(void **state)
{
    (void)state;
    char text[256];
    join(0, &nat);
    join(1, &nat);
    fake_nic_run_ms(&loop, 5);
    nics[1].net->ops->describe(nics[1].net, text, sizeof(text));
    assert_string_equal(nics[1].net->ops->kind, "nat");
    assert_non_null(
        strstr(text, "type=nat,net=10.0.2.0,lease=10.0.2.16,folder=/tmp/evisor-shared-"));
    assert_non_null(strstr(text, ",peers=1"));
}

#define shared_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        shared_test(test_two_machines_share_a_nat),
        shared_test(test_a_machine_keeps_its_address),
        shared_test(test_addresses_end),
        shared_test(test_a_killed_machine_takes_nothing_along),
        shared_test(test_a_neighbour_is_not_the_router),
        shared_test(test_a_full_guest_loses_nothing),
        shared_test(test_host_only_reaches_the_host_alone),
        shared_test(test_only_the_host_comes_into_a_host_only_network),
        shared_test(test_forwards_are_the_machines_own),
        shared_test(test_the_machines_agree_on_the_network),
        shared_test(test_errors_say_what_to_do),
        shared_test(test_describe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
