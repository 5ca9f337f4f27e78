/* SPDX-License-Identifier: MIT */
/* slirp_options: parses and checks what a person typed; knows nothing of libslirp. */
#include "netbackends/slirp_options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"

enum { HOSTNAME_MAX_BYTES = 32, BOOTFILE_MAX_BYTES = 127, LABEL_MAX_BYTES = 255 };

static int parse_ipv4(const char *name, const char *text, struct in_addr *out, struct error *err)
{
    if (inet_pton(AF_INET, text, out) == 1)
        return 0;
    return error_set(err, EINVAL, "%s='%s' is not an IPv4 address: write it as in %s=10.0.2.2",
                     name, text, name);
}

static bool parse_bits(const char *text, unsigned max, unsigned *bits)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    *bits = (unsigned)value;
    return text[0] >= '0' && text[0] <= '9' && !*end && value <= max;
}

/* Splits "address/rest"; the rest is "" if there is no slash. False if the address is too long. */
static bool split_at_slash(const char *text, char *address, size_t size, const char **rest)
{
    const char *slash = strchr(text, '/');
    size_t length = slash ? (size_t)(slash - text) : strlen(text);
    if (length >= size)
        return false;
    memcpy(address, text, length);
    address[length] = '\0';
    *rest = slash ? slash + 1 : "";
    return true;
}

static uint32_t classful_mask(uint32_t net)
{
    return net >> 31 == 0 ? 0xff000000 : net >> 30 == 2 ? 0xffff0000 : 0xffffff00;
}

/* A prefix length, or a netmask that is one run of ones. */
static bool parse_mask(const char *text, uint32_t *mask)
{
    unsigned bits;
    struct in_addr dotted;
    if (parse_bits(text, 30, &bits) && bits >= 4) {
        *mask = UINT32_MAX << (32 - bits);
        return true;
    }
    if (inet_pton(AF_INET, text, &dotted) != 1)
        return false;
    *mask = ntohl(dotted.s_addr);
    return *mask && is_power_of_2((uint64_t) ~*mask + 1);
}

static int parse_net(const char *text, uint32_t *net, uint32_t *mask, struct error *err)
{
    char address[INET_ADDRSTRLEN];
    const char *rest;
    struct in_addr parsed;
    if (!split_at_slash(text, address, sizeof(address), &rest) ||
        inet_pton(AF_INET, address, &parsed) != 1)
        return error_set(err, EINVAL,
                         "net='%s' is not an IPv4 network: write it as in net=10.0.2.0/24", text);
    *net = ntohl(parsed.s_addr);
    *mask = classful_mask(*net);
    if (*rest && !parse_mask(rest, mask))
        return error_set(err, EINVAL,
                         "net='%s' has a bad netmask: give 4 to 30 bits, as in net=10.0.2.0/24",
                         text);
    *net &= *mask;
    return 0;
}

static int pick_address(const char *name, const char *text, uint32_t usual, uint32_t net,
                        uint32_t mask, struct in_addr *out, struct error *err)
{
    out->s_addr = htonl(net | (usual & ~mask));
    if (text) {
        int result = parse_ipv4(name, text, out, err);
        if (result)
            return result;
    }
    uint32_t address = ntohl(out->s_addr);
    char shown[INET_ADDRSTRLEN], network[INET_ADDRSTRLEN];
    struct in_addr net_address = {htonl(net)};
    inet_ntop(AF_INET, out, shown, sizeof(shown));
    inet_ntop(AF_INET, &net_address, network, sizeof(network));
    if ((address & mask) != net || address == net || address == (net | ~mask))
        return error_set(err, EINVAL,
                         "%s=%s is not a usable address of the network %s/%d: choose another %s= "
                         "or a larger net=",
                         name, shown, network, __builtin_popcount(mask), name);
    return 0;
}

/* Where the addresses lie in a network that is large enough, and which network it is. */
struct usual_addresses {
    const char *net;
    uint32_t host, dns, dhcpstart;
};

static const struct usual_addresses usual_nat = {"10.0.2.0/24", 0x0202, 0x0203, 0x020f};
static const struct usual_addresses usual_host_only = {"192.168.56.0/24", 1, 3, 101};

static int ipv4_addresses(const struct net_slirp_options *options, struct slirp_addresses *out,
                          struct error *err)
{
    const struct usual_addresses *usual = options->host_only ? &usual_host_only : &usual_nat;
    uint32_t net = 0, mask = 0;
    int result = parse_net(options->net ? options->net : usual->net, &net, &mask, err);
    if (!result)
        result = pick_address("host", options->host, usual->host, net, mask, &out->host, err);
    if (!result)
        result = pick_address("dns", options->dns, usual->dns, net, mask, &out->dns, err);
    if (!result)
        result = pick_address("dhcpstart", options->dhcpstart, usual->dhcpstart, net, mask,
                              &out->dhcpstart, err);
    if (result)
        return result;
    out->net.s_addr = htonl(net);
    out->mask.s_addr = htonl(mask);
    if (out->host.s_addr == out->dns.s_addr || out->host.s_addr == out->dhcpstart.s_addr ||
        out->dns.s_addr == out->dhcpstart.s_addr)
        return error_set(err, EINVAL,
                         "host, dns and dhcpstart must be three different addresses of the net");
    return 0;
}

static bool is_in_prefix(const struct in6_addr *address, const struct slirp_addresses *addresses)
{
    for (unsigned bit = 0; bit < addresses->prefix6_bits; bit++)
        if ((address->s6_addr[bit / 8] ^ addresses->prefix6.s6_addr[bit / 8]) & 0x80u >> bit % 8)
            return false;
    return true;
}

static int pick_ipv6(const char *name, const char *text, uint8_t usual,
                     const struct slirp_addresses *addresses, struct in6_addr *out,
                     struct error *err)
{
    *out = addresses->prefix6;
    out->s6_addr[15] |= usual;
    if (!text || (inet_pton(AF_INET6, text, out) == 1 && is_in_prefix(out, addresses)))
        return 0;
    return error_set(err, EINVAL, "%s='%s' is not an IPv6 address of the network's prefix", name,
                     text);
}

static int ipv6_addresses(const struct net_slirp_options *options, struct slirp_addresses *out,
                          struct error *err)
{
    const char *text = options->ipv6_prefix ? options->ipv6_prefix : "fec0::/64", *rest;
    char address[INET6_ADDRSTRLEN];
    unsigned bits = 64;
    if (!split_at_slash(text, address, sizeof(address), &rest) ||
        inet_pton(AF_INET6, address, &out->prefix6) != 1 ||
        (*rest && (!parse_bits(rest, 126, &bits) || bits == 0)))
        return error_set(err, EINVAL,
                         "ipv6-prefix='%s' is not an IPv6 prefix: write it as in fec0::/64", text);
    out->prefix6_bits = (uint8_t)bits;
    for (unsigned bit = bits; bit < 128; bit++)
        out->prefix6.s6_addr[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
    int result = pick_ipv6("ipv6-host", options->ipv6_host, 2, out, &out->host6, err);
    if (!result)
        result = pick_ipv6("ipv6-dns", options->ipv6_dns, 3, out, &out->dns6, err);
    if (!result && !memcmp(&out->host6, &out->dns6, sizeof(out->dns6)))
        return error_set(err, EINVAL, "ipv6-host and ipv6-dns must be two different addresses");
    return result;
}

int slirp_options_addresses(const struct net_slirp_options *options, struct slirp_addresses *out,
                            struct error *err)
{
    if (options->ipv4_off && options->ipv6_off)
        return error_set(err, EINVAL, "ipv4=off and ipv6=off leave no network: keep one of them");
    int result = ipv4_addresses(options, out, err);
    return result ? result : ipv6_addresses(options, out, err);
}

static int check_length(const char *name, const char *text, size_t max, struct error *err)
{
    if (!text || strlen(text) <= max)
        return 0;
    return error_set(err, EINVAL, "%s= is %zu bytes long: at most %zu fit into a DHCP answer", name,
                     strlen(text), max);
}

int slirp_options_check_strings(const struct net_slirp_options *options, struct error *err)
{
    struct stat info;
    int result = check_length("hostname", options->hostname, HOSTNAME_MAX_BYTES, err);
    if (!result)
        result = check_length("bootfile", options->bootfile, BOOTFILE_MAX_BYTES, err);
    if (!result)
        result = check_length("domainname", options->domainname, LABEL_MAX_BYTES, err);
    if (!result)
        result = check_length("dnssearch", options->dnssearch, LABEL_MAX_BYTES, err);
    if (result || !options->tftp)
        return result;
    if (stat(options->tftp, &info) < 0)
        return error_set_errno(err, errno, "tftp='%s' cannot be used", options->tftp);
    if (!S_ISDIR(info.st_mode))
        return error_set(err, ENOTDIR,
                         "tftp='%s' is not a folder: name the folder that holds the boot files",
                         options->tftp);
    return 0;
}

char *slirp_options_split(const char *list, const char *names[SLIRP_DNSSEARCH_MAX + 1])
{
    size_t count = 0;
    names[0] = NULL;
    if (!list)
        return NULL;
    char *copy = strdup(list), *rest = copy;
    CHECK(copy);
    for (char *name; count < SLIRP_DNSSEARCH_MAX && (name = strsep(&rest, ","));)
        if (*name)
            names[count++] = name;
    names[count] = NULL;
    return copy;
}

static bool parse_socket(const char *text, uint16_t port, struct sockaddr_storage *out,
                         socklen_t *length)
{
    struct sockaddr_in *ipv4 = (struct sockaddr_in *)(void *)out;
    struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)(void *)out;
    memset(out, 0, sizeof(*out));
    if (inet_pton(AF_INET, text, &ipv4->sin_addr) == 1) {
        ipv4->sin_family = AF_INET;
        ipv4->sin_port = htons(port);
        *length = sizeof(*ipv4);
        return true;
    }
    if (inet_pton(AF_INET6, text, &ipv6->sin6_addr) != 1)
        return false;
    ipv6->sin6_family = AF_INET6;
    ipv6->sin6_port = htons(port);
    *length = sizeof(*ipv6);
    return true;
}

static const char *host_address(const struct net_forward *forward)
{
    return forward->host_address && *forward->host_address ? forward->host_address : "127.0.0.1";
}

static int forward_of_path(const struct net_forward *forward, struct slirp_forward_addresses *out,
                           struct error *err)
{
    const struct net_socket_address where = {.path = forward->host_path};
    const char *guest =
        forward->guest_address && *forward->guest_address ? forward->guest_address : "0.0.0.0";
    struct socket_address host;
    int result = socket_address_resolve(&where, &host, err);
    if (result)
        return result;
    if (forward->is_udp || !forward->guest_port ||
        !parse_socket(guest, forward->guest_port, &out->guest, &out->guest_length))
        return error_set(err, EINVAL,
                         "forward of '%s': it leads to a TCP port of the guest, from 1 to 65535",
                         forward->host_path);
    memset(&out->host, 0, sizeof(out->host));
    memcpy(&out->host, &host.at.local, sizeof(host.at.local));
    /* As getsockname tells it: libslirp compares. */
    out->host_length =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(forward->host_path) + 1);
    return 0;
}

int slirp_options_forward(const struct net_forward *forward, struct slirp_forward_addresses *out,
                          struct error *err)
{
    const char *host = host_address(forward), *guest = forward->guest_address;
    if (forward->host_path)
        return forward_of_path(forward, out, err);
    if (!forward->host_port || !forward->guest_port)
        return error_set(err, EINVAL,
                         "a forward needs a host port and a guest port from 1 to 65535");
    if (!parse_socket(host, forward->host_port, &out->host, &out->host_length))
        return error_set(
            err, EINVAL,
            "forward of port %u: '%s' is not an address of this host: write 127.0.0.1, "
            "or 0.0.0.0 to let others in",
            forward->host_port, host);
    if (!guest || !*guest)
        guest = out->host.ss_family == AF_INET6 ? "::" : "0.0.0.0";
    if (!parse_socket(guest, forward->guest_port, &out->guest, &out->guest_length) ||
        out->guest.ss_family != out->host.ss_family)
        return error_set(err, EINVAL,
                         "forward of port %u: guest address '%s' is not one of the same family as "
                         "'%s': leave it out to mean the first DHCP address",
                         forward->host_port, guest, host);
    return 0;
}

void slirp_options_forward_name(const struct net_forward *forward,
                                char name[SLIRP_FORWARD_NAME_BYTES])
{
    const char *host = host_address(forward);
    if (forward->host_path) {
        snprintf(name, SLIRP_FORWARD_NAME_BYTES, "unix %s", forward->host_path);
        return;
    }
    bool is_ipv6 = strchr(host, ':') != NULL;
    snprintf(name, SLIRP_FORWARD_NAME_BYTES, "%s %s%.50s%s:%u", forward->is_udp ? "udp" : "tcp",
             is_ipv6 ? "[" : "", host, is_ipv6 ? "]" : "", forward->host_port);
}
