/* SPDX-License-Identifier: MIT */
/* options_netdev: the kinds of networks that -netdev and -nic know, each with its keys. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdset.h"
#include "base/suggest.h"
#include "vmm/options/forward.h"
#include "vmm/options/options_private.h"

#define FORWARD_SHAPE "hostfwd=tcp::HOSTPORT-:GUESTPORT"

static const char no_script[] = "evisor runs no scripts; set the interface up before, and write "
                                "script=no,downscript=no";
static const char no_vhost[] = "vhost is not there; leave it out";
static const char one_queue[] = "the NIC has one pair of queues; leave it out";

#define COMMON_KEYS                                                                                \
    {"type", NULL, NULL}, {"id", NULL, NULL},                                                      \
    {                                                                                              \
        "antispoof", NULL, NULL                                                                    \
    }

/* Of everything with a NAT engine behind it. */
#define ENGINE_KEYS                                                                                \
    COMMON_KEYS, {"net", NULL, NULL}, {"host", NULL, NULL}, {"dns", NULL, NULL},                   \
        {"dhcpstart", NULL, NULL}, {"hostname", NULL, NULL}, {"tftp", NULL, NULL},                 \
        {"bootfile", NULL, NULL}, {"ipv4", NULL, NULL}, {"ipv6", NULL, NULL},                      \
        {"ipv6-net", NULL, NULL}, {"ipv6-prefix", NULL, NULL}, {"ipv6-prefixlen", NULL, NULL},     \
        {"tftp-server-name", NULL, NULL}, {"hostfwd", NULL, NULL},                                 \
    {                                                                                              \
        "smb", "", "there is no SMB server; copy files over ssh"                                   \
    }
#define NAT_KEYS                                                                                   \
    ENGINE_KEYS, {"dnssearch", NULL, NULL}, {"domainname", NULL, NULL}, {"restrict", NULL, NULL},  \
        {"host-loopback", NULL, NULL},                                                             \
    {                                                                                              \
        "guestfwd", NULL, NULL                                                                     \
    }

static const struct keyval_known user_known[] = {
    NAT_KEYS, {"ipv6-host", NULL, NULL}, {"ipv6-dns", NULL, NULL}, {0}};
static const struct keyval_known nat_known[] = {NAT_KEYS, {"folder", NULL, NULL}, {0}};
static const struct keyval_known host_only_known[] = {ENGINE_KEYS, {"folder", NULL, NULL}, {0}};

static const struct keyval_known tap_known[] = {COMMON_KEYS,
                                                {"ifname", NULL, NULL},
                                                {"fd", NULL, NULL},
                                                {"br", NULL, NULL},
                                                {"helper", NULL, NULL},
                                                {"vnet_hdr", NULL, NULL},
                                                {"script", "no|", no_script},
                                                {"downscript", "no|", no_script},
                                                {"vhost", "off", no_vhost},
                                                {"vhostforce", "off", no_vhost},
                                                {"queues", "1", one_queue},
                                                {"sndbuf", "*", NULL},
                                                {0}};

static const struct keyval_known bridge_known[] = {
    COMMON_KEYS, {"br", NULL, NULL}, {"helper", NULL, NULL}, {0}};

static const struct keyval_known stream_known[] = {
    COMMON_KEYS,
    {"server", NULL, NULL},
    {"addr.type", "inet|unix", "only inet and unix are there"},
    {"addr.host", NULL, NULL},
    {"addr.port", NULL, NULL},
    {"addr.path", NULL, NULL},
    {"reconnect", NULL, NULL},
    {"reconnect-ms", NULL, NULL},
    {0}};

static const struct keyval_known dgram_known[] = {
    COMMON_KEYS,
    {"local.type", "inet|unix", "only inet and unix are there"},
    {"local.host", NULL, NULL},
    {"local.port", NULL, NULL},
    {"local.path", NULL, NULL},
    {"remote.type", "inet|unix", "only inet and unix are there"},
    {"remote.host", NULL, NULL},
    {"remote.port", NULL, NULL},
    {"remote.path", NULL, NULL},
    {0}};

static const struct keyval_known socket_known[] = {COMMON_KEYS,
                                                   {"listen", NULL, NULL},
                                                   {"connect", NULL, NULL},
                                                   {"udp", NULL, NULL},
                                                   {"localaddr", NULL, NULL},
                                                   {"mcast", NULL, NULL},
                                                   {0}};

static const struct keyval_known internal_known[] = {COMMON_KEYS, {"folder", NULL, NULL}, {0}};

/* "10.0.2.0" or "10.0.2.0/24" or "10.0.2.0/255.255.255.0" */
static bool is_network(const char *text)
{
    size_t length = strcspn(text, "/");
    uint64_t bits;
    if (!forward_is_ipv4(text, length))
        return false;
    const char *mask = text + length + 1;
    return !text[length] || forward_is_ipv4(mask, strlen(mask)) ||
           (keyval_text_to_uint(mask, &bits) && bits >= 1 && bits <= 30);
}

static int read_addresses(struct config_net_user *user, const struct keyval *list,
                          struct error *err)
{
    const struct {
        const char *key;
        char **out;
    } addresses[] = {{"host", &user->host}, {"dns", &user->dns}, {"dhcpstart", &user->dhcpstart}};
    const char *net = keyval_get(list, "net");
    if (net && !is_network(net))
        return error_set(err, EINVAL, "%s: net=%s: say a network such as 10.0.2.0/24", list->option,
                         net);
    keyval_string(list, "net", &user->net);
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++) {
        const char *value = keyval_get(list, addresses[i].key);
        if (!value || !*value)
            continue;
        if (!forward_is_ipv4(value, strlen(value)))
            return error_set(err, EINVAL, "%s: %s=%s: say an IPv4 address such as 10.0.2.3",
                             list->option, addresses[i].key, value);
        keyval_string(list, addresses[i].key, addresses[i].out);
    }
    return 0;
}

/* ipv6-net=fec0::/64, or ipv6-prefix=fec0:: and ipv6-prefixlen=64. The backend checks addresses. */
static int read_ipv6(struct config_net_user *user, const struct keyval *list, struct error *err)
{
    const char *net = keyval_get(list, "ipv6-net"), *prefix = keyval_get(list, "ipv6-prefix");
    uint64_t bits = 64;
    if (net && prefix)
        return error_set(err, EINVAL, "%s: give ipv6-net or ipv6-prefix, not both", list->option);
    if (keyval_get(list, "ipv6-prefixlen") && (!prefix || strchr(prefix, '/')))
        return error_set(err, EINVAL, "%s: ipv6-prefixlen goes with ipv6-prefix=ADDRESS",
                         list->option);
    int result = keyval_uint(list, "ipv6-prefixlen", 1, 126, &bits, err);
    if (result)
        return result;
    if (prefix && !strchr(prefix, '/'))
        CHECK(asprintf(&user->ipv6_prefix, "%s/%u", prefix, (unsigned)bits) > 0);
    else if (net || prefix)
        user->ipv6_prefix = text_copy(net ? net : prefix);
    keyval_string(list, "ipv6-host", &user->ipv6_host);
    keyval_string(list, "ipv6-dns", &user->ipv6_dns);
    return 0;
}

static bool is_same_forward(const struct config_forward *a, const struct config_forward *b)
{
    const char *one = a->host_address ? a->host_address : "127.0.0.1";
    const char *other = b->host_address ? b->host_address : "127.0.0.1";
    if (a->host_path || b->host_path)
        return a->host_path && b->host_path && strcmp(a->host_path, b->host_path) == 0;
    return a->is_udp == b->is_udp && a->host_port == b->host_port && strcmp(one, other) == 0;
}

static int add_forward(struct config_net_user *user, const struct keyval *list, const char *text,
                       struct error *err)
{
    user->forwards = options_grow(user->forwards, user->forward_count, sizeof(*user->forwards));
    struct config_forward *forward = &user->forwards[user->forward_count++];
    if (!forward_parse(text, true, forward))
        return error_set(err, EINVAL,
                         "%s: hostfwd=%s: say " FORWARD_SHAPE " (or udp), or "
                         "hostfwd=unix:PATH-:GUESTPORT",
                         list->option, text);
    for (unsigned i = 0; i + 1 < user->forward_count; i++)
        if (is_same_forward(&user->forwards[i], forward))
            return error_set(err, EEXIST, "%s: hostfwd=%s: %s is forwarded twice", list->option,
                             text, forward->host_path ? "that path" : "that port");
    return 0;
}

static int add_guest_forward(struct config_net_user *user, const struct keyval *list,
                             const char *text, struct error *err)
{
    user->guest_forwards = options_grow(user->guest_forwards, user->guest_forward_count,
                                        sizeof(*user->guest_forwards));
    if (forward_parse_guest(text, true, &user->guest_forwards[user->guest_forward_count++]))
        return 0;
    return error_set(err, EINVAL,
                     "%s: guestfwd=%s: say guestfwd=tcp:ADDRESS:PORT-cmd:COMMAND, "
                     "-tcp:HOST:PORT, -unix:PATH or -chardev:ID",
                     list->option, text);
}

static void add_search_domain(struct config_net_user *user, const char *domain)
{
    if (!*domain)
        return;
    char *joined;
    CHECK(asprintf(&joined, "%s%s%s", user->dnssearch ? user->dnssearch : "",
                   user->dnssearch ? "," : "", domain) > 0);
    free(user->dnssearch);
    user->dnssearch = joined;
}

static int read_repeated(struct config_net_user *user, const struct keyval *list, struct error *err)
{
    int result = 0;
    for (unsigned i = 0; i < list->count && !result; i++) {
        const struct keyval_pair *pair = &list->pairs[i];
        if (strcmp(pair->key, "hostfwd") == 0)
            result = add_forward(user, list, pair->value, err);
        else if (strcmp(pair->key, "guestfwd") == 0)
            result = add_guest_forward(user, list, pair->value, err);
        else if (strcmp(pair->key, "dnssearch") == 0)
            add_search_domain(user, pair->value);
    }
    return result;
}

static int read_user(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    struct config_net_user *user = &nic->user;
    bool ipv4 = true, ipv6 = true;
    nic->kind = NET_KIND_USER;
    int result = read_addresses(user, list, err);
    if (!result)
        result = read_ipv6(user, list, err);
    if (!result)
        result = keyval_bool(list, "restrict", &user->restrict_access, err);
    if (!result)
        result = keyval_bool(list, "host-loopback", &user->host_loopback, err);
    if (!result)
        result = keyval_bool(list, "ipv4", &ipv4, err);
    if (!result)
        result = keyval_bool(list, "ipv6", &ipv6, err);
    if (!result && !ipv4 && !ipv6)
        result = error_set(err, EINVAL, "%s: both IPv4 and IPv6 are off", list->option);
    user->ipv4_off = !ipv4;
    user->ipv6_off = !ipv6;
    keyval_string(list, "hostname", &user->hostname);
    keyval_string(list, "domainname", &user->domainname);
    keyval_string(list, "tftp", &user->tftp);
    keyval_string(list, "tftp-server-name", &user->tftp_server_name);
    keyval_string(list, "bootfile", &user->bootfile);
    return result ? result : read_repeated(user, list, err);
}

/* A number, or the name of a descriptor that was passed by getfd. */
static int read_fd(struct config_net_tap *tap, const struct keyval *list, struct error *err)
{
    const char *text = keyval_get(list, "fd");
    uint64_t fd = 0;
    tap->fd = -1;
    if (!text)
        return 0;
    if (*text >= '0' && *text <= '9') {
        int result = keyval_uint(list, "fd", 0, INT32_MAX, &fd, err);
        tap->fd = result ? -1 : (int)fd;
        return result;
    }
    tap->fd = fdset_take(text);
    if (tap->fd >= 0)
        return 0;
    tap->fd = -1;
    return error_set(err, ENOENT, "%s: File descriptor named '%s' has not been found", list->option,
                     text);
}

static int read_tap(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    struct config_net_tap *tap = &nic->tap;
    bool has_header = true;
    nic->kind = NET_KIND_TAP;
    keyval_string(list, "ifname", &tap->ifname);
    keyval_string(list, "br", &tap->bridge);
    keyval_string(list, "helper", &tap->helper);
    int result = read_fd(tap, list, err);
    if (!result)
        result = keyval_bool(list, "vnet_hdr", &has_header, err);
    tap->vnet_hdr_off = !has_header;
    if (!result && (tap->ifname != NULL) + (tap->fd >= 0) + (tap->bridge != NULL) > 1)
        result = error_set(err, EINVAL, "%s: only one of ifname, fd and br can be", list->option);
    return result;
}

static int read_bridge(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    int result = read_tap(nic, list, err);
    if (!result && !nic->tap.bridge)
        nic->tap.bridge = text_copy("br0");
    return result;
}

/* PREFIX.path, or PREFIX.host and PREFIX.port. Leaves all empty if none of them is there. */
static int read_address(struct config_net_address *address, const struct keyval *list,
                        const char *prefix, struct error *err)
{
    char path[32], host[32], port[32];
    uint64_t number = 0;
    snprintf(path, sizeof(path), "%s.path", prefix);
    snprintf(host, sizeof(host), "%s.host", prefix);
    snprintf(port, sizeof(port), "%s.port", prefix);
    keyval_string(list, path, &address->path);
    keyval_string(list, host, &address->host);
    int result = keyval_uint(list, port, 1, UINT16_MAX, &number, err);
    address->port = (uint16_t)number;
    if (!result && ((address->path && address->host) || (!address->host != !address->port)))
        result =
            error_set(err, EINVAL, "%s: give %s, or %s and %s", list->option, path, host, port);
    return result;
}

static bool is_empty(const struct config_net_address *address)
{
    return !address->path && !address->host;
}

static int read_stream(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    struct config_net_socket *socket = &nic->socket;
    uint64_t seconds = 0, ms = 0;
    nic->kind = NET_KIND_STREAM;
    int result = keyval_bool(list, "server", &socket->is_server, err);
    struct config_net_address *address = socket->is_server ? &socket->local : &socket->remote;
    if (!result)
        result = read_address(address, list, "addr", err);
    if (!result)
        result = keyval_uint(list, "reconnect", 0, 3600, &seconds, err);
    if (!result)
        result = keyval_uint(list, "reconnect-ms", 0, 3600000, &ms, err);
    socket->reconnect_ms = (unsigned)(ms ? ms : 1000 * seconds);
    if (!result && is_empty(address))
        result = error_set(err, EINVAL,
                           "%s: say where: addr.type=unix,addr.path=PATH, or "
                           "addr.type=inet,addr.host=HOST,addr.port=PORT",
                           list->option);
    return result;
}

/* Everybody who joins is a peer, and no port of ours is needed. */
static bool is_group(const struct config_net_address *address)
{
    struct in_addr in;
    return address->host && inet_pton(AF_INET, address->host, &in) == 1 &&
           IN_MULTICAST(ntohl(in.s_addr));
}

static int read_dgram(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    struct config_net_socket *socket = &nic->socket;
    nic->kind = NET_KIND_DGRAM;
    int result = read_address(&socket->remote, list, "remote", err);
    if (!result && is_group(&socket->remote)) {
        keyval_string(list, "local.host", &socket->local.host);
        return 0;
    }
    if (!result)
        result = read_address(&socket->local, list, "local", err);
    if (!result && (is_empty(&socket->local) || is_empty(&socket->remote) ||
                    !socket->local.path != !socket->remote.path))
        result = error_set(err, EINVAL,
                           "%s: give local.path and remote.path, or local.host, local.port, "
                           "remote.host and remote.port, or of a multicast group remote.host "
                           "and remote.port alone",
                           list->option);
    return result;
}

/* "[host]:port" */
static int split_address(struct config_net_address *address, const struct keyval *list,
                         const char *key, struct error *err)
{
    const char *text = keyval_get(list, key), *colon = strrchr(text, ':');
    uint64_t port;
    if (!colon || !keyval_text_to_uint(colon + 1, &port) || port < 1 || port > UINT16_MAX)
        return error_set(err, EINVAL, "%s: %s=%s: say an address such as 127.0.0.1:1234",
                         list->option, key, text);
    address->port = (uint16_t)port;
    address->host =
        colon == text ? text_copy("127.0.0.1") : strndup(text, (size_t)(colon - text));
    CHECK(address->host);
    return 0;
}

static int read_mcast(struct config_net_socket *socket, const struct keyval *list,
                      struct error *err)
{
    int result = split_address(&socket->remote, list, "mcast", err);
    if (!result && !is_group(&socket->remote))
        result = error_set(err, EINVAL,
                           "%s: mcast=%s: a group has an address from 224.0.0.0 to "
                           "239.255.255.255",
                           list->option, keyval_get(list, "mcast"));
    if (!result)
        keyval_string(list, "localaddr", &socket->local.host);
    return result;
}

/* The old spelling of stream and dgram. */
static int read_socket(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    struct config_net_socket *socket = &nic->socket;
    bool listens = keyval_get(list, "listen"), connects = keyval_get(list, "connect");
    bool is_udp = keyval_get(list, "udp") && keyval_get(list, "localaddr");
    bool is_mcast = keyval_get(list, "mcast");
    if (listens + connects + is_udp + is_mcast != 1)
        return error_set(err, EINVAL,
                         "%s: give listen=:PORT, connect=HOST:PORT, mcast=GROUP:PORT, or "
                         "udp=HOST:PORT with localaddr=HOST:PORT",
                         list->option);
    nic->kind = is_udp || is_mcast ? NET_KIND_DGRAM : NET_KIND_STREAM;
    socket->is_server = listens;
    if (listens)
        return split_address(&socket->local, list, "listen", err);
    if (connects)
        return split_address(&socket->remote, list, "connect", err);
    if (is_mcast)
        return read_mcast(socket, list, err);
    int result = split_address(&socket->local, list, "localaddr", err);
    return result ? result : split_address(&socket->remote, list, "udp", err);
}

static int read_folder(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    keyval_string(list, "folder", &nic->folder);
    if (!nic->folder || !*nic->folder)
        return error_set(err, EINVAL, "%s: name the network by a folder: folder=PATH",
                         list->option);
    return 0;
}

static int read_internal(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    nic->kind = NET_KIND_INTERNAL;
    return read_folder(nic, list, err);
}

static int read_nat(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    int result = read_user(nic, list, err);
    nic->kind = NET_KIND_NAT;
    return result ? result : read_folder(nic, list, err);
}

static int read_host_only(struct config_nic *nic, const struct keyval *list, struct error *err)
{
    int result = read_user(nic, list, err);
    nic->kind = NET_KIND_HOST_ONLY;
    return result ? result : read_folder(nic, list, err);
}

static const struct options_netdev {
    const char *name;
    const struct keyval_known *known;
    int (*read)(struct config_nic *nic, const struct keyval *list, struct error *err);
} kinds[] = {
    {"user", user_known, read_user},
    {"tap", tap_known, read_tap},
    {"bridge", bridge_known, read_bridge},
    {"stream", stream_known, read_stream},
    {"dgram", dgram_known, read_dgram},
    {"socket", socket_known, read_socket},
    {"internal", internal_known, read_internal},
    {"nat", nat_known, read_nat},
    {"hostonly", host_only_known, read_host_only},
};

#define KINDS "user, tap, bridge, stream, dgram, socket, internal, nat or hostonly"

static const struct {
    const char *names, *instead;
} other_kinds[] = {
    {"passt", "start passt and use -netdev stream,addr.type=unix,addr.path=ITS-SOCKET"},
    {"vde|hubport", "machines on this host meet on -netdev internal"},
    {"vhost-user|vhost-vdpa|netmap|af-xdp|l2tpv3", "use tap or bridge"},
};

static const char *find_instead(const char *type)
{
    for (size_t i = 0; i < ARRAY_SIZE(other_kinds); i++)
        if (keyval_name_index(other_kinds[i].names, type) >= 0)
            return other_kinds[i].instead;
    return NULL;
}

static const struct options_netdev *find_kind(const struct keyval *list, struct error *err)
{
    const char *type = keyval_get(list, "type");
    struct suggest suggest;
    suggest_init(&suggest, type ? type : "");
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (!type || strcmp(kinds[i].name, type) == 0)
            return &kinds[i];
        suggest_offer(&suggest, kinds[i].name);
    }
    const char *instead = find_instead(type);
    if (instead)
        error_set(err, ENOTSUP, "%s: network type %s is not there: %s", list->option, type,
                  instead);
    else if (suggest.best)
        error_set(err, EINVAL, "%s: '%s' is no network type; did you mean '%s'?", list->option,
                  type, suggest.best);
    else
        error_set(err, EINVAL, "%s: '%s' is no network type; use " KINDS, list->option, type);
    return NULL;
}

int options_netdev_check(struct keyval *list, const struct keyval_known *also,
                         const struct options_netdev **out, struct error *err)
{
    *out = find_kind(list, err);
    return *out ? keyval_check_both(list, (*out)->known, also, err) : -EINVAL;
}

int options_netdev_read(const struct options_netdev *kind, struct config_nic *nic,
                        const struct keyval *list, struct error *err)
{
    nic->tap.fd = -1;
    int result = keyval_bool(list, "antispoof", &nic->antispoof, err);
    return result ? result : kind->read(nic, list, err);
}

static void free_strings(char *const strings[], unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        free(strings[i]);
}

void options_netdev_fini(struct config_nic *nic)
{
    struct config_net_user *user = &nic->user;
    char *const of_user[] = {user->net,
                             user->host,
                             user->dns,
                             user->ipv6_prefix,
                             user->ipv6_host,
                             user->ipv6_dns,
                             user->tftp_server_name,
                             user->dhcpstart,
                             user->hostname,
                             user->dnssearch,
                             user->tftp,
                             user->domainname,
                             user->bootfile};
    char *const others[] = {nic->netdev_id,          nic->qdev_id,
                            nic->tap.ifname,         nic->tap.bridge,
                            nic->tap.helper,         nic->socket.local.path,
                            nic->socket.local.host,  nic->socket.remote.path,
                            nic->socket.remote.host, nic->folder};
    free_strings(of_user, ARRAY_SIZE(of_user));
    free_strings(others, ARRAY_SIZE(others));
    for (unsigned i = 0; i < user->forward_count; i++)
        forward_fini(&user->forwards[i]);
    free(user->forwards);
    for (unsigned i = 0; i < user->guest_forward_count; i++)
        forward_fini_guest(&user->guest_forwards[i]);
    free(user->guest_forwards);
}
