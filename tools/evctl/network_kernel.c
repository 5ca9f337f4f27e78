/* SPDX-License-Identifier: MIT */
/*
 * network_kernel: NAT and host-only. The order is: what could be wrong is looked at, then bridge,
 * address, firewall, and only then forwarding and DHCP, so that nothing passes unfiltered.
 */
#include "tools/evctl/network_kernel.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/random.h>

#include "tools/evctl/model.h"
#include "tools/evctl/network_dhcp.h"
#include "tools/evctl/network_rules.h"
#include "tools/evctl/network_steps.h"

/* The interface that has a route into it already; "" if none. */
static void find_collision(const struct network_subnet *subnet, char interface[IFNAMSIZ])
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

static int choose_subnet(const char *mode, const char *asked, struct network_subnet *out,
                         struct error *err)
{
    char interface[IFNAMSIZ], text[32];
    if (asked) {
        *out = network_read_subnet(asked);
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
        *out = network_read_subnet(text);
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

/* It stays, as a bridge's own changes with its ports. */
static void make_fresh_mac(char out[18])
{
    uint8_t random[3];
    CHECK(getrandom(random, sizeof(random), 0) == sizeof(random));
    snprintf(out, 18, "52:54:00:%02x:%02x:%02x", random[0], random[1], random[2]);
}

static int make_bridge(json_t *undo, const char *bridge, const struct network_subnet *subnet,
                       struct error *err)
{
    char mac[18], gateway[INET_ADDRSTRLEN], address[32];
    make_fresh_mac(mac);
    snprintf(address, sizeof(address), "%s/%u", network_dotted(subnet->address + 1, gateway),
             subnet->bits);
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

/* --- IPv6 --- */

/* The interface that has a route into the prefix already; "" if none. */
static void find_collision6(const struct in6_addr *prefix, char interface[IFNAMSIZ])
{
    char line[256];
    FILE *routes = fopen("/proc/net/ipv6_route", "re");
    *interface = '\0';
    while (routes && !*interface && fgets(line, sizeof(line), routes)) {
        char name[IFNAMSIZ];
        unsigned char to[8];
        unsigned bits, common;
        bool is_same = true;
        if (sscanf(line,
                   "%2hhx%2hhx%2hhx%2hhx%2hhx%2hhx%2hhx%2hhx%*16s %x %*s %*s %*s %*s %*s %*s "
                   "%*s %15s",
                   &to[0], &to[1], &to[2], &to[3], &to[4], &to[5], &to[6], &to[7], &bits,
                   name) != 10 ||
            !bits || strcmp(name, "lo") == 0)
            continue;
        common = MIN(bits, 64u);
        for (unsigned i = 0; i < common; i++)
            is_same &= !((to[i / 8] ^ prefix->s6_addr[i / 8]) & 0x80 >> i % 8);
        if (is_same)
            snprintf(interface, IFNAMSIZ, "%s", name);
    }
    if (routes)
        fclose(routes);
}

/* "auto" is a prefix of our own (RFC 4193). Without IPv6 both texts are empty. */
static int choose_subnet6(const char *asked, char subnet[64], char gateway[INET6_ADDRSTRLEN],
                          struct error *err)
{
    struct in6_addr prefix = {.s6_addr = {0xfd}};
    char address[INET6_ADDRSTRLEN], interface[IFNAMSIZ];
    *subnet = *gateway = '\0';
    if (!asked)
        return 0;
    if (strcmp(asked, "auto") == 0) {
        CHECK(getrandom(prefix.s6_addr + 1, 5, 0) == 5);
    } else {
        static const uint8_t none[8];
        snprintf(address, sizeof(address), "%.*s", (int)strcspn(asked, "/"), asked);
        if (strcmp(asked + strcspn(asked, "/"), "/64") != 0 ||
            inet_pton(AF_INET6, address, &prefix) != 1 || memcmp(prefix.s6_addr + 8, none, 8) != 0)
            return error_set(err, EINVAL,
                             "--ipv6 %s: write auto, or a prefix such as fd00:1:2:3::/64", asked);
    }
    find_collision6(&prefix, interface);
    if (*interface)
        return error_set(err, EEXIST,
                         "--ipv6 %s: the host has a route there already, by %s; choose another",
                         asked, interface);
    CHECK(inet_ntop(AF_INET6, &prefix, address, sizeof(address)));
    snprintf(subnet, 64, "%s/64", address);
    prefix.s6_addr[15] = 1;
    CHECK(inet_ntop(AF_INET6, &prefix, gateway, INET6_ADDRSTRLEN));
    return 0;
}

static int write_for(json_t *undo, const char *family, const char *interface, const char *file,
                     const char *value, struct error *err)
{
    char path[512];
    snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s", family, interface, file);
    return steps_write(undo, path, value, err);
}

static int give_address6(const char *bridge, const char *gateway, struct error *err)
{
    char address[INET6_ADDRSTRLEN + 4];
    snprintf(address, sizeof(address), "%s/64", gateway);
    int result = write_for(NULL, "ipv6", bridge, "disable_ipv6", "0", err);
    if (!result)
        result = write_for(NULL, "ipv6", bridge, "accept_ra", "0", err);
    return result ? result
                  : steps_run(NULL,
                              steps_words("ip", "-6", "address", "add", address, "dev", bridge,
                                          "nodad", NULL),
                              NULL, err);
}

static bool says(const char *interface, const char *file, char value)
{
    char path[512];
    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/%s", interface, file);
    FILE *from = fopen(path, "re");
    int now = from ? fgetc(from) : EOF;
    if (from)
        fclose(from);
    return now == value;
}

/*
 * A host that forwards no longer listens to routers, unless an interface says so: those that did
 * listen go on. Turning forwarding on or off for all sets each, so each is remembered first.
 */
static int forward_ipv6(json_t *undo, const char *bridge, struct error *err)
{
    DIR *folder = opendir("/proc/sys/net/ipv6/conf");
    int result = folder ? 0 : error_set_errno(err, errno, "this host has no IPv6");
    bool is_on = says("all", "forwarding", '1');
    for (struct dirent *entry; !is_on && !result && (entry = readdir(folder));) {
        const char *name = entry->d_name;
        char path[512];
        if (*name == '.' || strcmp(name, "all") == 0 || strcmp(name, bridge) == 0)
            continue;
        snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/forwarding", name);
        if (says(name, "forwarding", '1'))
            steps_keep(undo, path);
        else if (says(name, "accept_ra", '1'))
            result = write_for(undo, "ipv6", name, "accept_ra", "2", err);
    }
    if (folder)
        closedir(folder);
    return result ? result : write_for(undo, "ipv6", "all", "forwarding", "1", err);
}

/* --- all of it --- */

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

struct plan {
    struct network_rules rules;
    struct network_dhcp dhcp;
    const struct network_kernel_options *options;
    const char *gateway6;
};

static int do_steps(json_t *undo, const struct plan *plan, struct error *err)
{
    const char *bridge = plan->rules.bridge;
    bool has_ipv6 = *plan->rules.subnet6, is_nat = plan->rules.is_nat;
    int result = network_rules_check(&plan->rules, plan->options->forwards, err);
    if (!result)
        result = make_bridge(undo, bridge, &plan->rules.subnet, err);
    if (!result && has_ipv6)
        result = give_address6(bridge, plan->gateway6, err);
    if (!result)
        result = network_rules_up(undo, &plan->rules, plan->options->forwards, err);
    if (!result && is_nat)
        result = write_for(NULL, "ipv4", bridge, "route_localnet", "1", err);
    if (!result && is_nat)
        result = steps_write(undo, "/proc/sys/net/ipv4/ip_forward", "1", err);
    if (!result && is_nat && has_ipv6)
        result = forward_ipv6(undo, bridge, err);
    if (!result && !plan->options->no_dhcp)
        result = network_dhcp_start(undo, &plan->dhcp, err);
    return result;
}

static void keep_texts(json_t *network, const char *key, json_t *texts)
{
    if (json_array_size(texts))
        json_object_set(network, key, texts);
}

static void keep(json_t *network, const struct plan *plan, json_t *undo)
{
    char address[INET_ADDRSTRLEN];
    const struct network_subnet *subnet = &plan->rules.subnet;
    json_object_set_new(network, "kernel", json_true());
    json_object_set_new(network, "bridge", json_string(plan->rules.bridge));
    json_object_set_new(network, "gateway",
                        json_string(network_dotted(subnet->address + 1, address)));
    json_object_set_new(
        network, "subnet",
        json_sprintf("%s/%u", network_dotted(subnet->address, address), subnet->bits));
    if (*plan->rules.subnet6)
        json_object_set_new(network, "ipv6", json_string(plan->rules.subnet6));
    json_object_set_new(network, "dhcp", json_boolean(!plan->options->no_dhcp));
    keep_texts(network, "forwards", plan->options->forwards);
    keep_texts(network, "leases", plan->options->leases);
    keep_texts(network, "pins", plan->options->pins);
    json_object_set_new(network, "undo", undo);
}

int network_kernel_up(const char *name, const char *mode, const char *folder,
                      const struct network_kernel_options *options, json_t *network,
                      struct error *err)
{
    char bridge[IFNAMSIZ], subnet6[64], gateway6[INET6_ADDRSTRLEN];
    struct plan plan = {.options = options, .gateway6 = gateway6};
    struct network_subnet subnet;
    int result = check_programs(!options->no_dhcp, err);
    if (!result)
        result = network_bridge_name(name, options->bridge, bridge, err);
    if (!result)
        result = choose_subnet(mode, options->subnet, &subnet, err);
    if (!result)
        result = choose_subnet6(options->ipv6, subnet6, gateway6, err);
    if (result)
        return result;
    plan.rules = (struct network_rules){name, bridge, strcmp(mode, "nat") == 0, subnet, subnet6};
    plan.dhcp = (struct network_dhcp){folder,  bridge,          plan.rules.is_nat, subnet,
                                      subnet6, options->leases, options->pins};
    json_t *undo = json_array();
    result = do_steps(undo, &plan, err);
    if (!result) {
        keep(network, &plan, undo);
        return 0;
    }
    steps_undo(undo);
    json_decref(undo);
    return result;
}

/* --- changes to one that is up --- */

static void recall(const char *name, const char *folder, const json_t *network,
                   struct network_rules *rules, struct network_dhcp *dhcp)
{
    const char *bridge = model_text(network, "bridge"), *subnet6 = model_text(network, "ipv6");
    struct network_subnet subnet = network_read_subnet(model_text(network, "subnet"));
    bool is_nat = strcmp(model_text(network, "mode"), "nat") == 0;
    *rules = (struct network_rules){name, bridge, is_nat, subnet, subnet6};
    *dhcp = (struct network_dhcp){folder,
                                  bridge,
                                  is_nat,
                                  subnet,
                                  subnet6,
                                  json_object_get(network, "leases"),
                                  json_object_get(network, "pins")};
}

int network_kernel_mend(const char *name, const char *folder, const json_t *network,
                        struct error *err)
{
    struct network_rules rules;
    struct network_dhcp dhcp;
    if (json_is_false(json_object_get(network, "dhcp")) || network_dhcp_is_alive(folder))
        return 0;
    recall(name, folder, network, &rules, &dhcp);
    return network_dhcp_restart(&dhcp, err);
}

int network_kernel_forward(const char *name, const char *folder, const json_t *network,
                           const json_t *forwards, bool is_up, struct error *err)
{
    struct network_rules rules;
    struct network_dhcp dhcp;
    recall(name, folder, network, &rules, &dhcp);
    return is_up ? network_rules_forward(&rules, forwards, err)
                 : network_rules_check(&rules, forwards, err);
}

int network_kernel_pin(const char *name, const char *folder, json_t *network, const char *mac,
                       bool is_up, char address[16], struct error *err)
{
    struct network_rules rules;
    struct network_dhcp dhcp;
    uint32_t found;
    recall(name, folder, network, &rules, &dhcp);
    int result = network_dhcp_address(&dhcp, mac, &found, err);
    if (result)
        return result;
    network_dotted(found, address);
    json_t *pin = json_sprintf("%s=%s", mac, address), *known;
    size_t i;
    bool is_known = false;
    json_array_foreach(dhcp.leases, i, known) is_known |= json_equal(known, pin);
    json_array_foreach(dhcp.pins, i, known) is_known |= json_equal(known, pin);
    if (is_known || json_is_false(json_object_get(network, "dhcp"))) {
        json_decref(pin);
        return 0;
    }
    if (!dhcp.pins)
        json_object_set_new(network, "pins", json_array());
    json_array_append_new(json_object_get(network, "pins"), pin);
    recall(name, folder, network, &rules, &dhcp);
    return is_up ? network_dhcp_restart(&dhcp, err) : 0;
}
