/* SPDX-License-Identifier: MIT */
/*
 * slirp_forward: the ways through the NAT that people make: from ports and local sockets of the
 * host to the guest (libslirp listens), and from addresses of the guest's network to services of
 * the host (libslirp connects to a relay of ours, or starts a command).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "netbackends/relay.h"
#include "netbackends/slirp_options.h"
#include "netbackends/slirp_private.h"

/* A listening socket has room for at least 128 connections that wait. */
enum { FRAMES_UNACCEPTED_MAX = 64 };

struct forward {
    struct list node;
    struct net_forward public;
    struct slirp_forward_addresses addresses;
};

struct guest_forward {
    struct list node;
    struct net_guest_forward public;
    struct in_addr address;
    struct relay *relay; /* NULL: a command */
};

static char *copy_of(const char *text)
{
    char *copy = text ? strdup(text) : NULL;
    CHECK(copy || !text);
    return copy;
}

static void free_forward(struct forward *forward)
{
    if (forward->public.host_path)
        unlink(forward->public.host_path);
    free((char *)forward->public.host_path);
    free((char *)forward->public.host_address);
    free((char *)forward->public.guest_address);
    free(forward);
}

/* From the host. */

static struct forward *find_forward(const struct slirp_backend *self, bool is_udp,
                                    const struct slirp_forward_addresses *addresses)
{
    list_for_each(node, &self->forwards)
    {
        struct forward *forward = list_entry(node, struct forward, node);
        if (forward->public.is_udp == is_udp &&
            !memcmp(&forward->addresses.host, &addresses->host, sizeof(addresses->host)))
            return forward;
    }
    return NULL;
}

static int explain_failure(int code, const char *name, const struct net_forward *forward,
                           struct error *err)
{
    if (forward->host_path && code == EADDRINUSE)
        return error_set(
            err, code, "cannot forward %s: it is there already: choose another path, or remove it",
            name);
    switch (forward->host_path ? 0 : code) {
    case EADDRINUSE:
        return error_set(err, code,
                         "cannot forward %s: the port is in use by another program: choose another "
                         "host port, or find who has it with 'ss -%slnp sport = :%u'",
                         name, forward->is_udp ? "u" : "t", forward->host_port);
    case EACCES:
        return error_set(err, code,
                         "cannot forward %s: ports below 1024 are for root: choose a higher one",
                         name);
    case EADDRNOTAVAIL:
        return error_set(err, code,
                         "cannot forward %s: no network interface of this host has that address: "
                         "use 127.0.0.1, or 0.0.0.0 for all of them",
                         name);
    default:
        return error_set_errno(err, code, "cannot forward %s", name);
    }
}

static void keep_forward(struct slirp_backend *self, const struct net_forward *forward,
                         const struct slirp_forward_addresses *addresses)
{
    struct forward *kept = calloc(1, sizeof(*kept));
    CHECK(kept);
    kept->public = *forward;
    kept->public.host_path = copy_of(forward->host_path);
    kept->public.host_address = copy_of(forward->host_address);
    kept->public.guest_address = copy_of(forward->guest_address);
    kept->addresses = *addresses;
    list_push_back(&self->forwards, &kept->node);
}

static bool is_loopback(const struct slirp_forward_addresses *addresses)
{
    const struct sockaddr_in *ipv4 = (const void *)&addresses->host;
    const struct sockaddr_in6 *ipv6 = (const void *)&addresses->host;
    switch (addresses->host.ss_family) {
    case AF_INET:
        return ntohl(ipv4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&ipv6->sin6_addr);
    default:
        return true; /* a local socket */
    }
}

/* 0, or -1 with errno set. A local socket is for its owner only. */
static int listen_on(struct slirp_backend *self, const struct net_forward *forward,
                     const struct slirp_forward_addresses *addresses)
{
    const struct net_socket_address where = {.path = forward->host_path};
    struct socket_address local;
    int flags = (forward->is_udp ? SLIRP_HOSTFWD_UDP : 0) | SLIRP_HOSTFWD_V6ONLY;
    if (where.path && !socket_address_resolve(&where, &local, NULL) &&
        socket_address_is_stale(&local, SOCK_STREAM))
        socket_address_unlink(&local);
    mode_t mask = where.path ? umask(0177) : 0;
    int result = libslirp.add_hostxfwd(
        self->slirp, (const struct sockaddr *)&addresses->host, addresses->host_length,
        (const struct sockaddr *)&addresses->guest, addresses->guest_length, flags);
    int code = errno;
    if (where.path)
        umask(mask);
    errno = code;
    return result;
}

int net_slirp_forward_add(struct net_backend *backend, const struct net_forward *forward,
                          struct error *err)
{
    struct slirp_backend *self = slirp_from_backend(backend);
    struct slirp_forward_addresses addresses;
    char name[SLIRP_FORWARD_NAME_BYTES];
    loop_check_thread(backend->loop);
    CHECK(net_backend_is_slirp(backend));
    int result = slirp_options_forward(forward, &addresses, err);
    if (result)
        return result;
    slirp_options_forward_name(forward, name);
    if (self->guard.host_only && !is_loopback(&addresses))
        return error_set(err, EINVAL,
                         "cannot forward %s: only the host reaches a machine on a host-only "
                         "network: leave its address out, or use a network of type nat",
                         name);
    if (find_forward(self, forward->is_udp, &addresses))
        return error_set(err, EEXIST,
                         "%s is already forwarded by netdev '%s': remove that forward first, or "
                         "choose another host port",
                         name, backend->id);
    if (listen_on(self, forward, &addresses))
        return explain_failure(errno, name, forward, err);
    keep_forward(self, forward, &addresses);
    self->widens_backlog = true;
    loop_task_queue(&self->task);
    return 0;
}

int net_slirp_forward_remove(struct net_backend *backend, const struct net_forward *forward,
                             struct error *err)
{
    struct slirp_backend *self = slirp_from_backend(backend);
    struct net_forward wanted = *forward;
    struct slirp_forward_addresses addresses;
    char name[SLIRP_FORWARD_NAME_BYTES];
    loop_check_thread(backend->loop);
    CHECK(net_backend_is_slirp(backend));
    wanted.guest_address = NULL;
    wanted.guest_port = 1;
    int result = slirp_options_forward(&wanted, &addresses, err);
    if (result)
        return result;
    slirp_options_forward_name(forward, name);
    struct forward *found = find_forward(self, forward->is_udp, &addresses);
    if (!found)
        return error_set(err, ENOENT, "%s is not forwarded by netdev '%s'", name, backend->id);
    int flags = forward->is_udp ? SLIRP_HOSTFWD_UDP : 0;
    libslirp.remove_hostxfwd(self->slirp, (struct sockaddr *)&addresses.host, addresses.host_length,
                             flags);
    list_remove(&found->node);
    free_forward(found);
    loop_task_queue(&self->task);
    return 0;
}

void net_slirp_for_each_forward(const struct net_backend *backend,
                                void (*emit)(void *opaque, const struct net_forward *forward),
                                void *opaque)
{
    const struct slirp_backend *self = slirp_from_backend(backend);
    CHECK(net_backend_is_slirp(backend));
    list_for_each(node, &self->forwards)
        emit(opaque, &list_entry(node, struct forward, node)->public);
}

/* From the guest. */

static int resolve_guest_forward(const struct slirp_backend *self,
                                 const struct net_guest_forward *forward, struct in_addr *out,
                                 struct error *err)
{
    loop_check_thread(self->backend.loop);
    CHECK(net_backend_is_slirp(&self->backend));
    const char *text = forward->guest_address;
    uint32_t mask = ntohl(self->mask.s_addr);
    if (!text || !*text)
        out->s_addr = self->net.s_addr | htonl(0x0204 & ~mask);
    else if (inet_pton(AF_INET, text, out) != 1)
        return error_set(err, EINVAL,
                         "guest forward: '%s' is not an IPv4 address: write it as in 10.0.2.100",
                         text);
    char shown[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, out, shown, sizeof(shown));
    if (self->guard.host_only)
        return error_set(err, EINVAL,
                         "guest forward: a host-only network leads to the host alone, whose "
                         "services are at its own address");
    if (!forward->guest_port)
        return error_set(err, EINVAL, "guest forward: %s needs a port from 1 to 65535", shown);
    if ((out->s_addr & self->mask.s_addr) != self->net.s_addr ||
        !memcmp(out, self->guard.host, sizeof(*out)) || out->s_addr == self->dns.s_addr)
        return error_set(err, EINVAL,
                         "guest forward: %s is not a free address of the guest's network: choose "
                         "one that neither the host nor the name server has",
                         shown);
    return 0;
}

static struct guest_forward *find_guest_forward(const struct slirp_backend *self,
                                                struct in_addr address, uint16_t port)
{
    list_for_each(node, &self->guest_forwards)
    {
        struct guest_forward *forward = list_entry(node, struct guest_forward, node);
        if (forward->address.s_addr == address.s_addr && forward->public.guest_port == port)
            return forward;
    }
    return NULL;
}

static void on_relay_closed(void *opaque)
{
    slirp_release_handle(opaque);
}

static void free_guest_forward(struct slirp_backend *self, struct guest_forward *forward)
{
    struct net_guest_forward *public = &forward->public;
    if (forward->relay) {
        self->handles++;
        relay_close(forward->relay, on_relay_closed, self);
    }
    free((char *)public->guest_address);
    free((char *)public->command);
    free((char *)public->target.path);
    free((char *)public->target.host);
    free(forward);
}

static struct guest_forward *copy_guest_forward(const struct net_guest_forward *forward,
                                                struct in_addr address)
{
    struct guest_forward *copy = calloc(1, sizeof(*copy));
    CHECK(copy);
    copy->public = *forward;
    copy->public.guest_address = copy_of(forward->guest_address);
    copy->public.command = copy_of(forward->command);
    copy->public.target.path = copy_of(forward->target.path);
    copy->public.target.host = copy_of(forward->target.host);
    copy->address = address;
    return copy;
}

static int start_guest_forward(struct slirp_backend *self, struct guest_forward *forward,
                               struct error *err)
{
    const struct net_guest_forward *public = &forward->public;
    struct in_addr address = forward->address;
    if (!public->command) {
        int result = relay_create(self->backend.loop, self->backend.id, &public->target,
                                  &forward->relay, err);
        if (result)
            return result;
    }
    int result = public->command
                     ? libslirp.add_exec(self->slirp, public->command, &address, public->guest_port)
                     : libslirp.add_unix(self->slirp, relay_path(forward->relay), &address,
                                         public->guest_port);
    return result < 0 ? error_set(err, EINVAL, "libslirp refuses the guest forward") : 0;
}

int net_slirp_guest_forward_add(struct net_backend *backend,
                                const struct net_guest_forward *forward, struct error *err)
{
    struct slirp_backend *self = slirp_from_backend(backend);
    struct in_addr address;
    int result = resolve_guest_forward(self, forward, &address, err);
    if (result)
        return result;
    if (find_guest_forward(self, address, forward->guest_port))
        return error_set(err, EEXIST,
                         "guest forward: port %u of that address is forwarded already by netdev "
                         "'%s': remove that forward first",
                         forward->guest_port, backend->id);
    struct guest_forward *added = copy_guest_forward(forward, address);
    result = start_guest_forward(self, added, err);
    if (result) {
        free_guest_forward(self, added);
        return result;
    }
    list_push_back(&self->guest_forwards, &added->node);
    return 0;
}

int net_slirp_guest_forward_remove(struct net_backend *backend,
                                   const struct net_guest_forward *forward, struct error *err)
{
    struct slirp_backend *self = slirp_from_backend(backend);
    struct in_addr address;
    int result = resolve_guest_forward(self, forward, &address, err);
    if (result)
        return result;
    struct guest_forward *found = find_guest_forward(self, address, forward->guest_port);
    if (!found)
        return error_set(err, ENOENT,
                         "guest forward: netdev '%s' has none of that address and port",
                         backend->id);
    libslirp.remove_guestfwd(self->slirp, address, forward->guest_port);
    list_remove(&found->node);
    free_guest_forward(self, found);
    loop_task_queue(&self->task);
    return 0;
}

void net_slirp_for_each_guest_forward(const struct net_backend *backend,
                                      void (*emit)(void *opaque,
                                                   const struct net_guest_forward *forward),
                                      void *opaque)
{
    const struct slirp_backend *self = slirp_from_backend(backend);
    CHECK(net_backend_is_slirp(backend));
    list_for_each(node, &self->guest_forwards)
        emit(opaque, &list_entry(node, struct guest_forward, node)->public);
}

size_t slirp_forward_relayed(const struct slirp_backend *self)
{
    size_t count = 0;
    list_for_each(node, &self->guest_forwards)
    {
        const struct guest_forward *forward = list_entry(node, struct guest_forward, node);
        count += forward->relay ? relay_count(forward->relay) : 0;
    }
    return count;
}

void slirp_forward_sent(struct slirp_backend *self)
{
    if (list_is_empty(&self->guest_forwards) || ++self->frames_unaccepted < FRAMES_UNACCEPTED_MAX)
        return;
    self->frames_unaccepted = 0;
    list_for_each(node, &self->guest_forwards)
    {
        struct guest_forward *forward = list_entry(node, struct guest_forward, node);
        if (forward->relay)
            relay_accept(forward->relay);
    }
}

void slirp_forward_release(struct slirp_backend *self)
{
    for (struct list *node; (node = list_pop_front(&self->forwards));)
        free_forward(list_entry(node, struct forward, node));
    for (struct list *node; (node = list_pop_front(&self->guest_forwards));)
        free_guest_forward(self, list_entry(node, struct guest_forward, node));
}
