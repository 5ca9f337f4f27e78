/* SPDX-License-Identifier: MIT */
/* The words of -netdev user: what they come to, and what is said about those that cannot be. */
#include "netbackends/slirp_options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/test.h"

static void check_address(struct in_addr found, const char *expected)
{
    char text[INET_ADDRSTRLEN];
    assert_string_equal(inet_ntop(AF_INET, &found, text, sizeof(text)), expected);
}

static void test_usual_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *net, *mask, *host, *dns, *dhcpstart;
    } cases[] = {
        {NULL, "255.255.255.0", "10.0.2.2", "10.0.2.3", "10.0.2.15"},
        {"192.168.7.0/24", "255.255.255.0", "192.168.7.2", "192.168.7.3", "192.168.7.15"},
        {"192.168.7.77/24", "255.255.255.0", "192.168.7.2", "192.168.7.3", "192.168.7.15"},
        {"192.168.7.0/255.255.255.0", "255.255.255.0", "192.168.7.2", "192.168.7.3",
         "192.168.7.15"},
        {"172.20.0.0/16", "255.255.0.0", "172.20.2.2", "172.20.2.3", "172.20.2.15"},
        {"10.0.0.0", "255.0.0.0", "10.0.2.2", "10.0.2.3", "10.0.2.15"},
        {"192.168.7.64/27", "255.255.255.224", "192.168.7.66", "192.168.7.67", "192.168.7.79"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct net_slirp_options options = {.net = cases[i].net};
        struct slirp_addresses found;
        struct error err = {0};
        assert_int_equal(slirp_options_addresses(&options, &found, &err), 0);
        check_address(found.mask, cases[i].mask);
        check_address(found.host, cases[i].host);
        check_address(found.dns, cases[i].dns);
        check_address(found.dhcpstart, cases[i].dhcpstart);
    }
}

static void test_ipv6_prefix(void **state)
{
    (void)state;
    const struct net_slirp_options options = {.ipv6_prefix = "2001:db8:1:2:3:4:5:6/48"};
    struct slirp_addresses found;
    struct error err = {0};
    char text[INET6_ADDRSTRLEN];
    assert_int_equal(slirp_options_addresses(&options, &found, &err), 0);
    assert_int_equal(found.prefix6_bits, 48);
    assert_string_equal(inet_ntop(AF_INET6, &found.prefix6, text, sizeof(text)), "2001:db8:1::");
    assert_string_equal(inet_ntop(AF_INET6, &found.host6, text, sizeof(text)), "2001:db8:1::2");
    assert_string_equal(inet_ntop(AF_INET6, &found.dns6, text, sizeof(text)), "2001:db8:1::3");
}

static void test_search_lists_are_split(void **state)
{
    (void)state;
    const char *names[SLIRP_DNSSEARCH_MAX + 1];
    free(slirp_options_split("a.example,,b.example", names));
    char *owner = slirp_options_split("a.example,,b.example", names);
    assert_string_equal(names[0], "a.example");
    assert_string_equal(names[1], "b.example");
    assert_null(names[2]);
    free(owner);
    assert_null(slirp_options_split(NULL, names));
    assert_null(names[0]);
    owner = slirp_options_split("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18", names);
    assert_string_equal(names[15], "16");
    assert_null(names[16]);
    free(owner);
}

static void test_names_of_forwards(void **state)
{
    (void)state;
    char name[SLIRP_FORWARD_NAME_BYTES];
    slirp_options_forward_name(&(struct net_forward){.host_port = 22}, name);
    assert_string_equal(name, "tcp 127.0.0.1:22");
    slirp_options_forward_name(
        &(struct net_forward){.is_udp = true, .host_address = "::1", .host_port = 53}, name);
    assert_string_equal(name, "udp [::1]:53");
}

static struct loop loop;

static void check_error(const struct net_slirp_options *options, const char *text)
{
    struct error err = {0};
    struct net_backend *made;
    assert_true(net_slirp_create(&loop, "net7", options, &made, &err) < 0);
    if (!strstr(err.text, text) || strncmp(err.text, "netdev 'net7': ", 15))
        fail_msg("'%s' is not in '%s'", text, err.text);
    assert_null(strchr(err.text, '\n'));
}

static void test_errors_say_what_to_do(void **state)
{
    (void)state;
    char hostname[80], bootfile[200];
    memset(hostname, 'h', 79);
    hostname[79] = '\0';
    memset(bootfile, 'b', 199);
    bootfile[199] = '\0';
    assert_int_equal(loop_init(&loop), 0);
    check_error(&(struct net_slirp_options){.net = "10.0.2"}, "not an IPv4 network");
    check_error(&(struct net_slirp_options){.net = ""}, "not an IPv4 network");
    check_error(&(struct net_slirp_options){.net = "10.0.2.0/33"}, "bad netmask");
    check_error(&(struct net_slirp_options){.net = "10.0.2.0/3"}, "bad netmask");
    check_error(&(struct net_slirp_options){.net = "10.0.2.0/ 24"}, "bad netmask");
    check_error(&(struct net_slirp_options){.net = "10.0.2.0/255.0.255.0"}, "bad netmask");
    check_error(&(struct net_slirp_options){.net = "10.0.2.0/24/1"}, "bad netmask");
    check_error(&(struct net_slirp_options){.net = "10.0.2.0/28"}, "or a larger net=");
    check_error(&(struct net_slirp_options){.host = "10.0.3.2"}, "not a usable address");
    check_error(&(struct net_slirp_options){.dns = "10.0.2.255"}, "not a usable address");
    check_error(&(struct net_slirp_options){.host = "10.0.2.0"}, "not a usable address");
    check_error(&(struct net_slirp_options){.dhcpstart = "x"}, "not an IPv4 address");
    check_error(&(struct net_slirp_options){.dns = "10.0.2.2"}, "three different");
    check_error(&(struct net_slirp_options){.ipv4_off = true, .ipv6_off = true},
                "leave no network");
    check_error(&(struct net_slirp_options){.ipv6_prefix = "fec0::/129"}, "IPv6 prefix");
    check_error(&(struct net_slirp_options){.ipv6_prefix = "fec0::/0"}, "IPv6 prefix");
    check_error(&(struct net_slirp_options){.hostname = hostname}, "79 bytes");
    check_error(&(struct net_slirp_options){.bootfile = bootfile}, "199 bytes");
    check_error(&(struct net_slirp_options){.tftp = "/nowhere"}, "tftp='/nowhere'");
    check_error(&(struct net_slirp_options){.tftp = "/dev/null"}, "not a folder");
    loop_fini(&loop);
}

/* A network whose forward fails leaves nothing behind. */
static void test_a_used_port_fails_the_start(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    const struct net_forward used = {.host_port = ntohs(address.sin_port), .guest_port = 22};
    assert_int_equal(loop_init(&loop), 0);
    check_error(&(struct net_slirp_options){.forwards = &used, .forward_count = 1}, "in use");
    loop_fini(&loop);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usual_addresses),
        cmocka_unit_test(test_ipv6_prefix),
        cmocka_unit_test(test_search_lists_are_split),
        cmocka_unit_test(test_names_of_forwards),
        cmocka_unit_test(test_errors_say_what_to_do),
        cmocka_unit_test(test_a_used_port_fails_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
