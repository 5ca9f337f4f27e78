/* SPDX-License-Identifier: MIT */
/*
 * network_rules: what nft is told. Machines reach each other and, by NAT, what is outside; from
 * outside comes what was asked for, and what is forwarded. A port of the host's loopback address is
 * forwarded too: the bridge may route that address then, so machines are kept from it themselves.
 */
#include "tools/evctl/network_rules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

#include "base/check.h"
#include "tools/evctl/network_steps.h"

#define TABLE "evisor-"

const char *network_dotted(uint32_t address, char out[INET_ADDRSTRLEN])
{
    struct in_addr in = {htonl(address)};
    CHECK(inet_ntop(AF_INET, &in, out, INET_ADDRSTRLEN));
    return out;
}

bool network_read_address(const char *text, uint32_t *out)
{
    struct in_addr in;
    if (inet_pton(AF_INET, text, &in) != 1)
        return false;
    *out = ntohl(in.s_addr);
    return true;
}

struct network_subnet network_read_subnet(const char *text)
{
    char address[INET_ADDRSTRLEN];
    struct network_subnet subnet = {.bits = (unsigned)strtoul(strchr(text, '/') + 1, NULL, 10)};
    snprintf(address, sizeof(address), "%.*s", (int)strcspn(text, "/"), text);
    CHECK(network_read_address(address, &subnet.address));
    subnet.mask = UINT32_MAX << (32 - subnet.bits);
    subnet.address &= subnet.mask;
    return subnet;
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
    if (colon && *word && !network_read_address(word, address))
        return false;
    unsigned long value = strtoul(number, &end, 10);
    *port = (unsigned)value;
    return *number >= '0' && *number <= '9' && !*end && value >= 1 && value <= 65535;
}

/* The host's side alone. False if it is none. */
static bool read_listener(const char *text, struct forward *out)
{
    out->is_udp = strncmp(text, "udp:", 4) == 0;
    if (out->is_udp || strncmp(text, "tcp:", 4) == 0)
        text += 4;
    return read_end(text, strcspn(text, "-"), &out->host_address, &out->host_port);
}

static int read_forward(const char *text, const struct network_subnet *subnet, struct forward *out,
                        struct error *err)
{
    const char *dash = strchr(text, '-');
    if (!dash || !read_listener(text, out) ||
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

bool network_rules_collide(const char *a, const char *b)
{
    struct forward one, other;
    return read_listener(a, &one) && read_listener(b, &other) && one.is_udp == other.is_udp &&
           one.host_port == other.host_port &&
           (!one.host_address || !other.host_address || one.host_address == other.host_address);
}

int network_rules_check(const struct network_rules *rules, const json_t *forwards,
                        struct error *err)
{
    size_t i;
    json_t *text;
    struct forward forward;
    json_array_foreach(forwards, i, text)
    {
        int result = read_forward(json_string_value(text), &rules->subnet, &forward, err);
        if (result)
            return result;
    }
    return 0;
}

/* One for what comes by the wires, one for what this host itself sends. */
static int add_forwards(FILE *to, const struct network_rules *rules, const json_t *forwards,
                        struct error *err)
{
    static const char *const chains[] = {"prerouting", "output"};
    char host[INET_ADDRSTRLEN], guest[INET_ADDRSTRLEN];
    size_t i;
    json_t *text;
    struct forward forward;
    json_array_foreach(forwards, i, text)
    {
        int result = read_forward(json_string_value(text), &rules->subnet, &forward, err);
        if (result)
            return result;
        network_dotted(forward.host_address, host);
        network_dotted(forward.guest_address, guest);
        for (unsigned k = 0; k < ARRAY_SIZE(chains); k++)
            fprintf(to,
                    "add rule inet " TABLE "%s %s fib daddr type local %s%s meta nfproto ipv4 %s "
                    "dport %u dnat ip to %s:%u\n",
                    rules->name, chains[k], forward.host_address ? "ip daddr " : "",
                    forward.host_address ? host : "", forward.is_udp ? "udp" : "tcp",
                    forward.host_port, guest, forward.guest_port);
    }
    return 0;
}

static void add_filter(FILE *to, const struct network_rules *rules, const char *net)
{
    const char *bridge = rules->bridge, *net6 = rules->subnet6;
    fprintf(to, "  chain forward { type filter hook forward priority filter; policy accept;\n");
    fprintf(to, "    iifname \"%s\" oifname \"%s\" accept\n", bridge, bridge);
    if (rules->is_nat) {
        fprintf(to, "    oifname \"%s\" ip daddr %s ct state established,related accept\n", bridge,
                net);
        fprintf(to, "    oifname \"%s\" ip daddr %s ct status dnat accept\n", bridge, net);
        fprintf(to, "    iifname \"%s\" ip saddr %s accept\n", bridge, net);
    }
    if (rules->is_nat && *net6) {
        fprintf(to, "    oifname \"%s\" ip6 daddr %s ct state established,related accept\n", bridge,
                net6);
        fprintf(to, "    iifname \"%s\" ip6 saddr %s accept\n", bridge, net6);
    }
    fprintf(to, "    iifname \"%s\" reject\n    oifname \"%s\" reject\n  }\n", bridge, bridge);
}

static void add_translation(FILE *to, const struct network_rules *rules, const char *net)
{
    fprintf(to, "  chain guard { type filter hook prerouting priority raw; policy accept;\n");
    fprintf(to, "    iifname \"%s\" ip daddr 127.0.0.0/8 counter drop\n  }\n", rules->bridge);
    fprintf(to, "  chain postrouting { type nat hook postrouting priority srcnat; policy "
                "accept;\n");
    fprintf(to, "    ip saddr %s ip daddr { 224.0.0.0/24, 255.255.255.255 } return\n", net);
    fprintf(to, "    ip saddr %s ip daddr != %s masquerade\n", net, net);
    fprintf(to, "    oifname \"%s\" ip saddr 127.0.0.0/8 masquerade\n", rules->bridge);
    if (*rules->subnet6)
        fprintf(to, "    ip6 saddr %s ip6 daddr != { %s, ff00::/8 } masquerade\n", rules->subnet6,
                rules->subnet6);
    fprintf(to, "  }\n  chain prerouting { type nat hook prerouting priority dstnat; policy "
                "accept; }\n");
    fprintf(to, "  chain output { type nat hook output priority -100; policy accept; }\n");
}

/* Closes `stream`, whose text is then in *text, and has nft take it; or not, after a failure. */
static int hand_over(FILE *stream, char **text, int result, json_t *undo, json_t *reverse,
                     struct error *err)
{
    fclose(stream);
    if (result)
        json_decref(reverse);
    else
        result = steps_run(undo, steps_words("nft", *text, NULL), reverse, err);
    free(*text);
    return result;
}

int network_rules_up(json_t *undo, const struct network_rules *rules, const json_t *forwards,
                     struct error *err)
{
    char *text = NULL, net[32], table[64], address[INET_ADDRSTRLEN];
    size_t size;
    FILE *to = open_memstream(&text, &size);
    int result = 0;
    CHECK(to);
    snprintf(net, sizeof(net), "%s/%u", network_dotted(rules->subnet.address, address),
             rules->subnet.bits);
    snprintf(table, sizeof(table), TABLE "%s", rules->name);
    fprintf(to, "table inet %s {\n", table);
    add_filter(to, rules, net);
    if (rules->is_nat)
        add_translation(to, rules, net);
    fprintf(to, "}\n");
    if (rules->is_nat)
        result = add_forwards(to, rules, forwards, err);
    return hand_over(to, &text, result, undo,
                     steps_words("nft", "delete", "table", "inet", table, NULL), err);
}

int network_rules_forward(const struct network_rules *rules, const json_t *forwards,
                          struct error *err)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    CHECK(to);
    fprintf(to, "flush chain inet " TABLE "%s prerouting\nflush chain inet " TABLE "%s output\n",
            rules->name, rules->name);
    int result = add_forwards(to, rules, forwards, err);
    return hand_over(to, &text, result, NULL, NULL, err);
}
