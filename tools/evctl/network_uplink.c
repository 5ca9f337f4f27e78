/* SPDX-License-Identifier: MIT */
/*
 * network_uplink: a bridge that one of the host's interfaces joins, so that machines are on its
 * wire; with --move-ip the interface's addresses and routes go to the bridge.
 *
 * Undoing runs backwards. What gives the interface its own back therefore comes first in the list,
 * before anything is taken from it: routes, then addresses, then the bridge.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/evctl/model.h"
#include "tools/evctl/network_kernel.h"
#include "tools/evctl/network_steps.h"
#include "tools/evctl/tell.h"

enum { GATEWAY_TRIES = 100, GATEWAY_WAIT_US = 100000 };

struct uplink {
    const char *name;
    char mac[18];
    json_t *addresses;             /* global ones, as `ip -json address` tells of them */
    json_t *routes;                /* that are not the kernel's own, both families */
    char gateway[INET_ADDRSTRLEN]; /* "" if there is none */
    bool is_only_way;              /* no other interface has a default route */
    bool is_by_dhcp;
};

static void uplink_fini(struct uplink *uplink)
{
    json_decref(uplink->addresses);
    json_decref(uplink->routes);
}

static bool has_file(const char *interface, const char *file)
{
    char path[128];
    snprintf(path, sizeof(path), "/sys/class/net/%s/%s", interface, file);
    return access(path, F_OK) == 0;
}

static int learn_addresses(struct uplink *uplink, struct error *err)
{
    size_t i;
    json_t *address;
    json_t *links =
        steps_ask(steps_words("ip", "-json", "address", "show", "dev", uplink->name, NULL), err);
    json_t *link = json_array_get(links, 0);
    snprintf(uplink->mac, sizeof(uplink->mac), "%s", model_text(link, "address"));
    uplink->addresses = json_array();
    json_array_foreach(json_object_get(link, "addr_info"), i, address)
    {
        if (strcmp(model_text(address, "scope"), "global") != 0)
            continue;
        json_array_append(uplink->addresses, address);
        uplink->is_by_dhcp |= json_is_true(json_object_get(address, "dynamic"));
    }
    json_decref(links);
    return links ? 0 : -err->code;
}

static int learn_routes(struct uplink *uplink, const char *family, struct error *err)
{
    size_t i;
    json_t *route,
        *routes = steps_ask(steps_words("ip", family, "-json", "route", "show", NULL), err);
    json_array_foreach(routes, i, route)
    {
        bool is_ours = strcmp(model_text(route, "dev"), uplink->name) == 0;
        bool is_default = strcmp(model_text(route, "dst"), "default") == 0;
        if (is_default && !is_ours)
            uplink->is_only_way = false;
        if (!is_ours || strcmp(model_text(route, "protocol"), "kernel") == 0)
            continue;
        json_object_set_new(route, "family", json_string(family));
        json_array_append(uplink->routes, route);
        if (is_default && strcmp(family, "-4") == 0)
            snprintf(uplink->gateway, sizeof(uplink->gateway), "%s", model_text(route, "gateway"));
    }
    json_decref(routes);
    return routes ? 0 : -err->code;
}

static int learn(struct uplink *uplink, struct error *err)
{
    uplink->routes = json_array();
    uplink->is_only_way = true;
    int result = learn_addresses(uplink, err);
    if (!result)
        result = learn_routes(uplink, "-4", err);
    if (!result)
        result = learn_routes(uplink, "-6", err);
    uplink->is_only_way &= json_array_size(uplink->routes) > 0;
    return result;
}

static int check(const struct uplink *uplink, bool moves_ip, struct error *err)
{
    if (moves_ip || !json_array_size(uplink->addresses))
        return 0;
    const char *address = model_text(json_array_get(uplink->addresses, 0), "local");
    if (uplink->is_only_way)
        return error_set(err, EPERM,
                         "%s is this host's only way out; in a bridge its address %s would stop "
                         "working: --move-ip moves addresses and routes to the bridge",
                         uplink->name, address);
    return error_set(err, EPERM,
                     "%s has the address %s, which would stop working in a bridge: --move-ip moves "
                     "it to the bridge",
                     uplink->name, address);
}

static void add_option(json_t *words, const json_t *from, const char *key, const char *word)
{
    const json_t *value = json_object_get(from, key);
    if (!value)
        return;
    json_array_append_new(words, json_string(word));
    json_array_append_new(words, json_is_integer(value)
                                     ? json_sprintf("%lld", (long long)json_integer_value(value))
                                     : json_string(json_string_value(value)));
}

static json_t *address_words(const json_t *address, const char *interface)
{
    json_t *words = steps_words("ip", "address", "replace", NULL);
    json_array_append_new(
        words, json_sprintf("%s/%lld", model_text(address, "local"),
                            (long long)json_integer_value(json_object_get(address, "prefixlen"))));
    add_option(words, address, "broadcast", "broadcast");
    json_array_append_new(words, json_string("dev"));
    json_array_append_new(words, json_string(interface));
    return words;
}

static json_t *route_words(const json_t *route, const char *interface)
{
    json_t *words = steps_words("ip", model_text(route, "family"), "route", "replace",
                                model_text(route, "dst"), NULL);
    add_option(words, route, "gateway", "via");
    json_array_append_new(words, json_string("dev"));
    json_array_append_new(words, json_string(interface));
    add_option(words, route, "metric", "metric");
    add_option(words, route, "prefsrc", "src");
    add_option(words, route, "scope", "scope");
    return words;
}

/* Routes without a gateway first: those through one need them. */
static json_t *in_order(const json_t *routes)
{
    size_t i;
    json_t *route, *sorted = json_array();
    for (int has_gateway = 0; has_gateway < 2; has_gateway++)
        json_array_foreach(routes, i, route) if (!!json_object_get(route, "gateway") == has_gateway)
            json_array_append(sorted, route);
    return sorted;
}

static void promise_to_give_back(const struct uplink *uplink, json_t *undo)
{
    size_t i;
    json_t *address, *sorted = in_order(uplink->routes);
    for (size_t left = json_array_size(sorted); left-- > 0;)
        json_array_append_new(
            undo,
            json_pack("{s:o}", "run", route_words(json_array_get(sorted, left), uplink->name)));
    json_array_foreach(uplink->addresses, i, address) json_array_append_new(
        undo, json_pack("{s:o}", "run", address_words(address, uplink->name)));
    json_decref(sorted);
}

static int move_addresses(const struct uplink *uplink, const char *bridge, struct error *err)
{
    size_t i;
    json_t *one, *sorted = in_order(uplink->routes);
    int result = 0;
    json_array_foreach(uplink->addresses, i, one) if (!result) result =
        steps_run(NULL, address_words(one, bridge), NULL, err);
    json_array_foreach(sorted, i, one) if (!result) result =
        steps_run(NULL, route_words(one, bridge), NULL, err);
    json_decref(sorted);
    return result;
}

/* Whether the gateway's MAC address is known at `interface` now. */
static bool knows_gateway(const char *gateway, const char *interface)
{
    char line[256], address[64], device[64];
    unsigned flags;
    bool is_known = false;
    FILE *table = fopen("/proc/net/arp", "re");
    while (table && fgets(line, sizeof(line), table))
        if (sscanf(line, "%63s %*s %x %*s %*s %63s", address, &flags, device) == 3)
            is_known |=
                (flags & 2) && strcmp(address, gateway) == 0 && strcmp(device, interface) == 0;
    if (table)
        fclose(table);
    return is_known;
}

/* Has the kernel look for the gateway: a datagram to its discard port. */
static bool finds_gateway(const char *gateway, const char *interface, int tries)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    CHECK(inet_pton(AF_INET, gateway, &to.sin_addr) == 1);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (int i = 0; i < tries && !knows_gateway(gateway, interface); i++) {
        if (i % 10 == 0)
            unused_result(sendto(fd, "", 1, 0, (struct sockaddr *)&to, sizeof(to)));
        usleep(GATEWAY_WAIT_US);
    }
    if (fd >= 0)
        close(fd);
    return knows_gateway(gateway, interface);
}

static int make_bridge(json_t *undo, const struct uplink *uplink, const char *bridge,
                       struct error *err)
{
    /* The interface's own MAC address: leases and neighbours' tables stay right. */
    int result =
        steps_run(undo,
                  steps_words("ip", "link", "add", "name", bridge, "address", uplink->mac, "type",
                              "bridge", "stp_state", "0", "forward_delay", "0", NULL),
                  steps_words("ip", "link", "del", "dev", bridge, NULL), err);
    return result ? result
                  : steps_run(undo, steps_words("ip", "link", "set", "dev", bridge, "up", NULL),
                              NULL, err);
}

static int do_steps(json_t *undo, const struct uplink *uplink, const char *bridge, bool moves_ip,
                    struct error *err)
{
    bool must_find = moves_ip && *uplink->gateway &&
                     finds_gateway(uplink->gateway, uplink->name, GATEWAY_TRIES / 2);
    if (moves_ip)
        promise_to_give_back(uplink, undo);
    int result = make_bridge(undo, uplink, bridge, err);
    if (!result && moves_ip)
        result = steps_run(
            undo,
            steps_words("ip", "address", "flush", "dev", uplink->name, "scope", "global", NULL),
            NULL, err);
    if (!result)
        result = steps_run(
            undo,
            steps_words("ip", "link", "set", "dev", uplink->name, "up", "master", bridge, NULL),
            steps_words("ip", "link", "set", "dev", uplink->name, "nomaster", NULL), err);
    if (!result && moves_ip)
        result = move_addresses(uplink, bridge, err);
    if (!result && must_find && !finds_gateway(uplink->gateway, bridge, GATEWAY_TRIES))
        result = error_set(err, EHOSTUNREACH,
                           "behind the bridge the gateway %s does not answer any more: all is as "
                           "it was; does the switch allow more than one MAC address on %s's port?",
                           uplink->gateway, uplink->name);
    return result;
}

static int make(const char *name, struct uplink *uplink, const char *asked, bool moves_ip,
                json_t *network, struct error *err)
{
    char bridge[IFNAMSIZ];
    int result = learn(uplink, err);
    if (!result)
        result = check(uplink, moves_ip, err);
    if (!result)
        result = network_bridge_name(name, asked, bridge, err);
    if (result)
        return result;
    json_t *undo = json_array();
    result = do_steps(undo, uplink, bridge, moves_ip, err);
    if (result) {
        steps_undo(undo);
        json_decref(undo);
        return result;
    }
    if (moves_ip && uplink->is_by_dhcp)
        tell_note("the address of %s came by DHCP: have the host's DHCP client serve %s instead",
                  uplink->name, bridge);
    json_object_set_new(network, "kernel", json_true());
    json_object_set_new(network, "bridge", json_string(bridge));
    json_object_set_new(network, "uplink", json_string(uplink->name));
    json_object_set_new(network, "move-ip", json_boolean(moves_ip));
    json_object_set_new(network, "undo", undo);
    return 0;
}

int network_uplink_up(const char *name, const char *uplink_name, const char *bridge, bool moves_ip,
                      json_t *network, struct error *err)
{
    struct uplink uplink = {.name = uplink_name};
    if (strlen(uplink_name) >= IFNAMSIZ || strchr(uplink_name, '/') ||
        !steps_interface_exists(uplink_name))
        return error_set(err, ENODEV, "--uplink %s: there is no such interface; see: ip link",
                         uplink_name);
    if (has_file(uplink_name, "wireless") || has_file(uplink_name, "phy80211"))
        return error_set(err, ENOTSUP,
                         "--uplink %s is wireless, and cannot carry other MAC addresses than its "
                         "own: use --mode nat",
                         uplink_name);
    if (has_file(uplink_name, "master"))
        return error_set(err, EBUSY,
                         "--uplink %s is part of another interface already; if that is a bridge, "
                         "name it with --bridge and without --uplink",
                         uplink_name);
    int result = make(name, &uplink, bridge, moves_ip, network, err);
    uplink_fini(&uplink);
    return result;
}
