/* SPDX-License-Identifier: MIT */
/*
 * network_kernel: NAT and host-only. The order is: what could be wrong is looked at, then bridge,
 * address, firewall, and only then forwarding and DHCP, so that nothing passes unfiltered.
 */
#include "tools/evctl/network_kernel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "tools/evctl/network_steps.h"

#define TABLE_PREFIX    "evisor-"
#define RULES_MAX_BYTES 8192

struct subnet {
    uint32_t address, mask; /* in host byte order */
    unsigned bits;
};

static const char *dotted(uint32_t address, char out[INET_ADDRSTRLEN])
{
    struct in_addr in = {htonl(address)};
    CHECK(inet_ntop(AF_INET, &in, out, INET_ADDRSTRLEN));
    return out;
}

static bool read_address(const char *text, uint32_t *out)
{
    struct in_addr in;
    if (inet_pton(AF_INET, text, &in) != 1)
        return false;
    *out = ntohl(in.s_addr);
    return true;
}

static struct subnet read_subnet(const char *text)
{
    char address[INET_ADDRSTRLEN];
    struct subnet subnet = {.bits = (unsigned)strtoul(strchr(text, '/') + 1, NULL, 10)};
    snprintf(address, sizeof(address), "%.*s", (int)strcspn(text, "/"), text);
    CHECK(read_address(address, &subnet.address));
    subnet.mask = UINT32_MAX << (32 - subnet.bits);
    subnet.address &= subnet.mask;
    return subnet;
}

/* The interface that has a route into it already; "" if none. */
static void find_collision(const struct subnet *subnet, char interface[IFNAMSIZ])
{
    char line[256];
    FILE *routes = fopen("/proc/net/route", "re");
    *interface = '\0';
    while (routes && !*interface && fgets(line, sizeof(line), routes)) {
        char name[IFNAMSIZ];
        unsigned destination, gateway, flags, mask;
        if (sscanf(line, "%15s %x %x %x %*s %*s %*s %x", name, &destination, &gateway, &flags,
                   &mask) != 5 ||
            !mask)
            continue;
        uint32_t common = ntohl(mask) & subnet->mask;
        if ((ntohl(destination) & common) == (subnet->address & common))
            snprintf(interface, IFNAMSIZ, "%s", name);
    }
    if (routes)
        fclose(routes);
}

static int choose_subnet(const char *mode, const char *asked, struct subnet *out, struct error *err)
{
    char interface[IFNAMSIZ], text[32];
    if (asked) {
        *out = read_subnet(asked);
        find_collision(out, interface);
        return *interface ? error_set(err, EEXIST,
                                      "--subnet %s: the host has a route there already, by %s; "
                                      "choose another",
                                      asked, interface)
                          : 0;
    }
    unsigned first = strcmp(mode, "nat") == 0 ? 122 : 56;
    for (unsigned i = 0; i < 256; i++) {
        snprintf(text, sizeof(text), "192.168.%u.0/24", (first + i) % 256);
        *out = read_subnet(text);
        find_collision(out, interface);
        if (!*interface)
            return 0;
    }
    return error_set(err, EEXIST, "all of 192.168.0.0/16 is in use here; name one with --subnet");
}

int network_bridge_name(const char *name, const char *asked, char out[16], struct error *err)
{
    if (asked && (strlen(asked) >= IFNAMSIZ || !*asked || strpbrk(asked, "/ \"")))
        return error_set(err, EINVAL, "--bridge %s: an interface's name has 1 to %d letters", asked,
                         IFNAMSIZ - 1);
    if (asked)
        snprintf(out, IFNAMSIZ, "%s", asked);
    else
        snprintf(out, IFNAMSIZ, "ev-%.12s", name);
    if (steps_interface_exists(out))
        return error_set(err, EEXIST,
                         "there is an interface '%s' already; name another with --bridge", out);
    return 0;
}

void network_fresh_mac(char out[18])
{
    uint8_t random[3];
    CHECK(getrandom(random, sizeof(random), 0) == sizeof(random));
    snprintf(out, 18, "52:54:00:%02x:%02x:%02x", random[0], random[1], random[2]);
}

static int make_bridge(json_t *undo, const char *bridge, const struct subnet *subnet,
                       struct error *err)
{
    char mac[18], gateway[INET_ADDRSTRLEN], address[32];
    network_fresh_mac(mac);
    snprintf(address, sizeof(address), "%s/%u", dotted(subnet->address + 1, gateway), subnet->bits);
    int result = steps_run(undo,
                           steps_words("ip", "link", "add", "name", bridge, "address", mac, "type",
                                       "bridge", "stp_state", "0", "forward_delay", "0", NULL),
                           steps_words("ip", "link", "del", "dev", bridge, NULL), err);
    if (!result)
        result = steps_run(
            undo,
            steps_words("ip", "address", "add", address, "broadcast", "+", "dev", bridge, NULL),
            NULL, err);
    return result ? result
                  : steps_run(undo, steps_words("ip", "link", "set", "dev", bridge, "up", NULL),
                              NULL, err);
}

/* Firewall: one table, so that one command takes all of it away. */

struct rules {
    char text[RULES_MAX_BYTES];
    size_t length;
};

static void add_rule(struct rules *rules, const char *format, ...) printf_like(2, 3);

static void add_rule(struct rules *rules, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = sizeof(rules->text) - rules->length;
    int length = vsnprintf(rules->text + rules->length, room, format, args);
    va_end(args);
    rules->length += MIN((size_t)length, room - 1);
}

struct forward {
    bool is_udp;
    uint32_t host_address; /* 0: any */
    uint32_t guest_address;
    unsigned host_port, guest_port;
};

/* "ADDRESS:PORT", or "PORT" where the address may be missing. */
static bool read_end(const char *text, size_t length, uint32_t *address, unsigned *port)
{
    char word[64], *end;
    snprintf(word, sizeof(word), "%.*s", (int)MIN(length, sizeof(word) - 1), text);
    char *colon = strrchr(word, ':');
    const char *number = colon ? colon + 1 : word;
    *address = 0;
    if (colon)
        *colon = '\0';
    if (colon && *word && !read_address(word, address))
        return false;
    *port = (unsigned)strtoul(number, &end, 10);
    return *number >= '0' && *number <= '9' && !*end && *port >= 1 && *port <= 65535;
}

static int read_forward(const char *text, const struct subnet *subnet, struct forward *out,
                        struct error *err)
{
    const char *at = text;
    out->is_udp = strncmp(at, "udp:", 4) == 0;
    if (out->is_udp || strncmp(at, "tcp:", 4) == 0)
        at += 4;
    const char *dash = strchr(at, '-');
    if (!dash || !read_end(at, (size_t)(dash - at), &out->host_address, &out->host_port) ||
        !read_end(dash + 1, strlen(dash + 1), &out->guest_address, &out->guest_port))
        return error_set(err, EINVAL,
                         "--forward %s: write [tcp:|udp:][ADDRESS:]PORT-ADDRESS:PORT, as "
                         "8080-192.168.122.10:80",
                         text);
    if ((out->guest_address & subnet->mask) != subnet->address)
        return error_set(err, EINVAL, "--forward %s: the machine's address is outside the subnet",
                         text);
    return 0;
}

static void add_forward(struct rules *rules, const struct forward *forward)
{
    char host[INET_ADDRSTRLEN], guest[INET_ADDRSTRLEN];
    dotted(forward->host_address, host);
    add_rule(rules, "    fib daddr type local ip daddr %s%s %s dport %u dnat ip to %s:%u\n",
             forward->host_address ? "" : "!= ", forward->host_address ? host : "127.0.0.0/8",
             forward->is_udp ? "udp" : "tcp", forward->host_port,
             dotted(forward->guest_address, guest), forward->guest_port);
}

static int add_forwards(struct rules *rules, const char *chain, const json_t *forwards,
                        const struct subnet *subnet, struct error *err)
{
    size_t i;
    json_t *text;
    struct forward forward;
    add_rule(rules, "  chain %s { type nat hook %s priority -100; policy accept;\n", chain,
             chain);
    json_array_foreach(forwards, i, text)
    {
        int result = read_forward(json_string_value(text), subnet, &forward, err);
        if (result)
            return result;
        add_forward(rules, &forward);
    }
    add_rule(rules, "  }\n");
    return 0;
}

static int write_rules(struct rules *rules, const char *name, const char *bridge, bool is_nat,
                       const struct subnet *subnet, const json_t *forwards, struct error *err)
{
    char net[32], address[INET_ADDRSTRLEN];
    int result = 0;
    snprintf(net, sizeof(net), "%s/%u", dotted(subnet->address, address), subnet->bits);
    add_rule(rules, "table inet " TABLE_PREFIX "%s {\n", name);
    add_rule(rules, "  chain forward { type filter hook forward priority filter; policy accept;\n");
    add_rule(rules, "    iifname \"%s\" oifname \"%s\" accept\n", bridge, bridge);
    if (is_nat) {
        add_rule(rules, "    oifname \"%s\" ip daddr %s ct state established,related accept\n",
                 bridge, net);
        add_rule(rules, "    oifname \"%s\" ip daddr %s ct status dnat accept\n", bridge, net);
        add_rule(rules, "    iifname \"%s\" ip saddr %s accept\n", bridge, net);
    }
    add_rule(rules, "    iifname \"%s\" reject\n    oifname \"%s\" reject\n  }\n", bridge, bridge);
    if (is_nat) {
        add_rule(rules, "  chain postrouting { type nat hook postrouting priority srcnat; policy "
                        "accept;\n");
        add_rule(rules, "    ip saddr %s ip daddr { 224.0.0.0/24, 255.255.255.255 } return\n", net);
        add_rule(rules, "    ip saddr %s ip daddr != %s masquerade\n  }\n", net, net);
        result = add_forwards(rules, "prerouting", forwards, subnet, err);
        if (!result)
            result = add_forwards(rules, "output", forwards, subnet, err);
    }
    add_rule(rules, "}\n");
    if (!result && rules->length + 1 >= sizeof(rules->text))
        result = error_set(err, E2BIG, "too many --forward for one network");
    return result;
}

static int set_firewall(json_t *undo, const char *name, const struct rules *rules,
                        struct error *err)
{
    char table[64];
    snprintf(table, sizeof(table), TABLE_PREFIX "%s", name);
    return steps_run(undo, steps_words("nft", rules->text, NULL),
                     steps_words("nft", "delete", "table", "inet", table, NULL), err);
}

/* DHCP, and names for networks that have an outside. */

static int add_leases(json_t *words, const json_t *leases, const struct subnet *subnet,
                      struct error *err)
{
    size_t i;
    json_t *text;
    json_array_foreach(leases, i, text)
    {
        const char *lease = json_string_value(text), *equals = strchr(lease, '=');
        uint32_t address = 0;
        if (!equals || equals - lease != 17 || strspn(lease, "0123456789abcdefABCDEF:") != 17 ||
            !read_address(equals + 1, &address) || (address & subnet->mask) != subnet->address)
            return error_set(err, EINVAL,
                             "--lease %s: write MAC=ADDRESS, with an address of the subnet", lease);
        json_array_append_new(words, json_sprintf("--dhcp-host=%.17s,%s", lease, equals + 1));
    }
    return 0;
}

static int start_dhcp(json_t *undo, const char *folder, const char *bridge, bool is_nat,
                      const struct subnet *subnet, const json_t *leases, struct error *err)
{
    char first[INET_ADDRSTRLEN], last[INET_ADDRSTRLEN], pid_file[4096];
    snprintf(pid_file, sizeof(pid_file), "%s/dnsmasq.pid", folder);
    json_t *words =
        steps_words("dnsmasq", "--conf-file=", "--bind-dynamic", "--except-interface=lo",
                    "--dhcp-authoritative", "--dhcp-no-override", "--strict-order", "--no-hosts",
                    is_nat ? "--port=53" : "--port=0", is_nat ? NULL : "--dhcp-option=3", NULL);
    json_array_append_new(words, json_sprintf("--interface=%s", bridge));
    json_array_append_new(words, json_sprintf("--pid-file=%s", pid_file));
    json_array_append_new(words, json_sprintf("--dhcp-leasefile=%s/leases", folder));
    json_array_append_new(words,
                          json_sprintf("--dhcp-range=%s,%s,12h", dotted(subnet->address + 2, first),
                                       dotted((subnet->address | ~subnet->mask) - 1, last)));
    int result = add_leases(words, leases, subnet, err);
    if (result) {
        json_decref(words);
        return result;
    }
    /* It goes to the background once it listens, so a failure is known here. */
    result = steps_run(undo, words, NULL, err);
    if (!result)
        steps_end_process(undo, "dnsmasq", pid_file);
    return result;
}

static int check_programs(bool has_dhcp, struct error *err)
{
    static const char *const programs[] = {"ip", "nft", "dnsmasq"};
    for (size_t i = 0; i < ARRAY_SIZE(programs) - !has_dhcp; i++) {
        char *found = steps_find(programs[i], err);
        if (!found)
            return -ENOENT;
        free(found);
    }
    return 0;
}

static int do_steps(json_t *undo, const char *name, const char *folder, const char *bridge,
                    bool is_nat, const struct subnet *subnet,
                    const struct network_kernel_options *options, struct error *err)
{
    struct rules rules = {.length = 0};
    int result = write_rules(&rules, name, bridge, is_nat, subnet, options->forwards, err);
    if (!result)
        result = make_bridge(undo, bridge, subnet, err);
    if (!result)
        result = set_firewall(undo, name, &rules, err);
    if (!result && is_nat)
        result = steps_write(undo, "/proc/sys/net/ipv4/ip_forward", "1", err);
    if (!result && !options->no_dhcp)
        result = start_dhcp(undo, folder, bridge, is_nat, subnet, options->leases, err);
    return result;
}

int network_kernel_up(const char *name, const char *mode, const char *folder,
                      const struct network_kernel_options *options, json_t *network,
                      struct error *err)
{
    char bridge[IFNAMSIZ], address[INET_ADDRSTRLEN];
    struct subnet subnet;
    bool is_nat = strcmp(mode, "nat") == 0;
    int result = check_programs(!options->no_dhcp, err);
    if (!result)
        result = network_bridge_name(name, options->bridge, bridge, err);
    if (!result)
        result = choose_subnet(mode, options->subnet, &subnet, err);
    if (result)
        return result;
    json_t *undo = json_array();
    result = do_steps(undo, name, folder, bridge, is_nat, &subnet, options, err);
    if (result) {
        steps_undo(undo);
        json_decref(undo);
        return result;
    }
    json_object_set_new(network, "kernel", json_true());
    json_object_set_new(network, "bridge", json_string(bridge));
    json_object_set_new(network, "gateway", json_string(dotted(subnet.address + 1, address)));
    json_object_set_new(network, "subnet",
                        json_sprintf("%s/%u", dotted(subnet.address, address), subnet.bits));
    json_object_set_new(network, "undo", undo);
    return 0;
}
