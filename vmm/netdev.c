/* SPDX-License-Identifier: MIT */
/* netdev: from the config's words to the options of each backend. */
#include "vmm/netdev.h"

#include <stdlib.h>

#include "netbackends/dgram.h"
#include "netbackends/internal.h"
#include "netbackends/shared.h"
#include "netbackends/stream.h"
#include "netbackends/tap.h"
#include "vmm/options/forward.h"

static int create_nat(struct loop *loop, const struct config_nic *nic, const char *machine_name,
                      struct net_backend **out, struct error *err)
{
    const struct config_net_user *user = &nic->user;
    struct net_forward *forwards = calloc(user->forward_count + 1, sizeof(*forwards));
    struct net_guest_forward *guest_forwards =
        calloc(user->guest_forward_count + 1, sizeof(*guest_forwards));
    CHECK(forwards && guest_forwards);
    for (unsigned i = 0; i < user->forward_count; i++)
        forwards[i] = forward_for_net(&user->forwards[i]);
    for (unsigned i = 0; i < user->guest_forward_count; i++)
        guest_forwards[i] = forward_guest_for_net(&user->guest_forwards[i]);
    const struct net_slirp_options options = {
        .net = user->net,
        .host = user->host,
        .dns = user->dns,
        .dhcpstart = user->dhcpstart,
        .hostname = user->hostname,
        .dnssearch = user->dnssearch,
        .domainname = user->domainname,
        .tftp = user->tftp,
        .tftp_server_name = user->tftp_server_name,
        .bootfile = user->bootfile,
        .restrict_access = user->restrict_access,
        .ipv6_prefix = user->ipv6_prefix,
        .ipv6_host = user->ipv6_host,
        .ipv6_dns = user->ipv6_dns,
        .disable_host_loopback = !user->host_loopback,
        .host_only = nic->kind == NET_KIND_HOST_ONLY,
        .ipv4_off = user->ipv4_off,
        .ipv6_off = user->ipv6_off,
        .forwards = forwards,
        .forward_count = user->forward_count,
        .guest_forwards = guest_forwards,
        .guest_forward_count = user->guest_forward_count,
    };
    const struct net_shared_options shared = {nic->folder, machine_name, options};
    int result = nic->kind == NET_KIND_USER
                     ? net_slirp_create(loop, nic->netdev_id, &options, out, err)
                     : net_shared_create(loop, nic->netdev_id, &shared, out, err);
    free(forwards);
    free(guest_forwards);
    return result;
}

static int create_tap(struct loop *loop, const struct config_nic *nic, struct net_backend **out,
                      struct error *err)
{
    const struct net_tap_options options = {
        .ifname = nic->tap.ifname,
        .fd = nic->tap.fd,
        .bridge = nic->tap.bridge,
        .helper = nic->tap.helper,
        .vnet_hdr_off = nic->tap.vnet_hdr_off,
    };
    return net_tap_create(loop, nic->netdev_id, &options, out, err);
}

static struct net_socket_address address_of(const struct config_net_address *config)
{
    return (struct net_socket_address){
        .path = config->path, .host = config->host, .port = config->port};
}

static int create_stream(struct loop *loop, const struct config_nic *nic, struct net_backend **out,
                         struct error *err)
{
    const struct config_net_socket *socket = &nic->socket;
    const struct net_stream_options options = {
        .address = address_of(socket->is_server ? &socket->local : &socket->remote),
        .is_server = socket->is_server,
        .reconnect_ms = socket->reconnect_ms,
    };
    return net_stream_create(loop, nic->netdev_id, &options, out, err);
}

static int create_dgram(struct loop *loop, const struct config_nic *nic, struct net_backend **out,
                        struct error *err)
{
    const struct net_dgram_options options = {
        .local = address_of(&nic->socket.local),
        .remote = address_of(&nic->socket.remote),
    };
    return net_dgram_create(loop, nic->netdev_id, &options, out, err);
}

int netdev_create(struct loop *loop, const struct config_nic *nic, const char *machine_name,
                  struct net_backend **out, struct error *err)
{
    const struct net_internal_options internal = {.folder = nic->folder, .name = machine_name};
    switch (nic->kind) {
    case NET_KIND_USER:
    case NET_KIND_NAT:
    case NET_KIND_HOST_ONLY:
        return create_nat(loop, nic, machine_name, out, err);
    case NET_KIND_TAP:
        return create_tap(loop, nic, out, err);
    case NET_KIND_STREAM:
        return create_stream(loop, nic, out, err);
    case NET_KIND_DGRAM:
        return create_dgram(loop, nic, out, err);
    case NET_KIND_INTERNAL:
        return net_internal_create(loop, nic->netdev_id, &internal, out, err);
    }
    UNREACHABLE("config_net_kind");
}
