/* SPDX-License-Identifier: MIT */
/*
 * shared: two backends behind one: the mesh (internal) and the engine (slirp).
 *
 *   NIC -> send -> shared_rules_sent -> engine, mesh or both
 *   mesh -> shared_rules_received -> NIC
 *   engine -> (host-only: shared_rules_hide_router) -> NIC
 *
 * Both inner backends have this one as their NIC and keep what the guest cannot take now, each in
 * its own queue. They are made, attached and closed with it.
 */
#include "netbackends/shared.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/closing.h"
#include "base/iov.h"
#include "base/log.h"
#include "netbackends/internal.h"
#include "netbackends/leases.h"
#include "netbackends/shared_folder.h"
#include "netbackends/shared_rules.h"

enum { REWRITTEN_MAX = 1514 }; /* the longest frame of DHCP or ND from the engine */

struct shared_backend {
    struct net_backend backend;
    struct net_backend *mesh, *engine;
    struct shared_rules rules;
    struct in_addr address; /* what the guest is given */
    int lease_fd;
    bool is_host_only;
    char folder[256];
    unsigned open_count; /* of mesh and engine */
    struct closing closing;
};

static struct shared_backend *from_backend(const struct net_backend *backend)
{
    return container_of(backend, struct shared_backend, backend);
}

/* From the guest. */

static int shared_send(struct net_backend *backend, const struct net_meta *meta,
                       const struct iovec *iov, size_t iov_count)
{
    struct shared_backend *self = from_backend(backend);
    uint8_t head[SHARED_HEAD_BYTES];
    size_t length = iov_read(iov, iov_count, 0, head, sizeof(head));
    unsigned ways = shared_rules_sent(&self->rules, head, length);
    int to_engine = -EPERM, to_others = -EPERM;
    if (ways & SHARED_TO_ENGINE)
        to_engine = net_send(self->engine, meta, iov, iov_count);
    if (ways & SHARED_TO_OTHERS)
        to_others = net_send(self->mesh, meta, iov, iov_count);
    return to_engine && to_others ? (ways & SHARED_TO_OTHERS ? to_others : to_engine) : 0;
}

/* To the guest. */

static int hand_on(struct shared_backend *self, const struct net_meta *meta,
                   const struct iovec *iov, size_t iov_count)
{
    return net_receive(&self->backend, meta, iov, iov_count);
}

static int on_mesh_frame(void *opaque, const struct net_meta *meta, const struct iovec *iov,
                         size_t iov_count)
{
    struct shared_backend *self = opaque;
    uint8_t head[SHARED_HEAD_BYTES];
    size_t length = iov_read(iov, iov_count, 0, head, sizeof(head));
    if (shared_rules_received(&self->rules, head, length))
        return hand_on(self, meta, iov, iov_count);
    self->backend.stats.rx_dropped++;
    return -EPERM;
}

static int on_engine_frame(void *opaque, const struct net_meta *meta, const struct iovec *iov,
                           size_t iov_count)
{
    struct shared_backend *self = opaque;
    uint8_t frame[REWRITTEN_MAX];
    size_t length = iov_size(iov, iov_count);
    if (!self->is_host_only || length > sizeof(frame))
        return hand_on(self, meta, iov, iov_count);
    iov_read(iov, iov_count, 0, frame, length);
    const struct iovec rewritten = {frame, length};
    if (!shared_rules_hide_router(frame, length))
        return hand_on(self, meta, iov, iov_count);
    return hand_on(self, meta, &rewritten, 1);
}

static void on_send_ready(void *opaque)
{
    struct shared_backend *self = opaque;
    if (self->backend.peer)
        self->backend.peer_ops->on_send_ready(self->backend.peer);
}

static void on_link(void *opaque, bool up)
{
    /* Neither of the two ever loses its carrier by itself. */
    (void)opaque;
    (void)up;
}

static const struct net_peer_ops mesh_peer = {
    .receive = on_mesh_frame, .on_send_ready = on_send_ready, .on_link = on_link};
static const struct net_peer_ops engine_peer = {
    .receive = on_engine_frame, .on_send_ready = on_send_ready, .on_link = on_link};

/* The rest of the operations. */

static void shared_receive_resume(struct net_backend *backend)
{
    struct shared_backend *self = from_backend(backend);
    self->engine->ops->receive_resume(self->engine);
    self->mesh->ops->receive_resume(self->mesh);
}

static unsigned shared_offloads(const struct net_backend *backend)
{
    const struct shared_backend *self = from_backend(backend);
    return net_offloads(self->mesh) & net_offloads(self->engine);
}

static void shared_set_guest_offloads(struct net_backend *backend, unsigned offloads)
{
    struct shared_backend *self = from_backend(backend);
    net_set_guest_offloads(self->mesh, offloads);
    net_set_guest_offloads(self->engine, offloads);
}

static void shared_guest_reset(struct net_backend *backend)
{
    const struct shared_backend *self = from_backend(backend);
    net_guest_reset(self->mesh);
    net_guest_reset(self->engine);
}

static void shared_describe(const struct net_backend *backend, char *text, size_t size)
{
    const struct shared_backend *self = from_backend(backend);
    char net[INET_ADDRSTRLEN], address[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &self->rules.net, net, sizeof(net));
    inet_ntop(AF_INET, &self->address, address, sizeof(address));
    snprintf(text, size, "index=0,type=%s,net=%s,lease=%s,folder=%s,peers=%zu",
             self->is_host_only ? "hostonly" : "nat", net, address, self->folder,
             net_internal_peer_count(self->mesh));
}

static void on_inner_closed(void *opaque)
{
    struct shared_backend *self = opaque;
    if (--self->open_count)
        return;
    struct closing closing = self->closing;
    free(self);
    closing_tell(closing);
}

static void close_inner(struct shared_backend *self, struct net_backend *inner)
{
    net_detach(inner);
    self->open_count++;
    inner->ops->close(inner, on_inner_closed, self);
}

static void shared_close(struct net_backend *backend, void (*on_closed)(void *opaque), void *opaque)
{
    struct shared_backend *self = from_backend(backend);
    self->closing = (struct closing){on_closed, opaque};
    leases_give_back(self->lease_fd);
    close_inner(self, self->mesh);
    close_inner(self, self->engine);
}

#define SHARED_OPS(name)                                                                           \
    {                                                                                              \
        .kind = name, .send = shared_send, .receive_resume = shared_receive_resume,                \
        .offloads = shared_offloads, .set_guest_offloads = shared_set_guest_offloads,              \
        .guest_reset = shared_guest_reset, .describe = shared_describe, .close = shared_close      \
    }
static const struct net_backend_ops nat_ops = SHARED_OPS("nat");
static const struct net_backend_ops host_only_ops = SHARED_OPS("hostonly");

static bool is_shared(const struct net_backend *backend)
{
    return backend->ops == &nat_ops || backend->ops == &host_only_ops;
}

struct net_backend *net_shared_nat(struct net_backend *backend)
{
    if (is_shared(backend))
        return from_backend(backend)->engine;
    return net_backend_is_slirp(backend) ? backend : NULL;
}

/* Making one. */

static int claim_address(struct shared_backend *self, const struct net_shared_options *options,
                         const struct slirp_addresses *addresses, struct error *err)
{
    char holder[128] = "";
    const struct leases_pool pool = {
        .net = addresses->net,
        .mask = addresses->mask,
        .first = addresses->dhcpstart,
        .taken = {addresses->host, addresses->dns},
    };
    if (options->name && *options->name)
        snprintf(holder, sizeof(holder), "%.60s/%.60s", options->name, self->backend.id);
    self->lease_fd = leases_claim(options->folder, &pool, holder, &self->address, err);
    return self->lease_fd < 0 ? self->lease_fd : 0;
}

/* The network as it was agreed on, and this machine's place in it, in words. */
struct engine_words {
    char net[2 * INET_ADDRSTRLEN], host[INET_ADDRSTRLEN], dns[INET_ADDRSTRLEN];
    char address[INET_ADDRSTRLEN], prefix[INET6_ADDRSTRLEN + 4];
};

static void write_words(const struct shared_backend *self, const struct slirp_addresses *addresses,
                        struct engine_words *words)
{
    char net[INET_ADDRSTRLEN], mask[INET_ADDRSTRLEN], prefix[INET6_ADDRSTRLEN];
    inet_ntop(AF_INET, &addresses->host, words->host, sizeof(words->host));
    inet_ntop(AF_INET, &addresses->dns, words->dns, sizeof(words->dns));
    inet_ntop(AF_INET, &self->address, words->address, sizeof(words->address));
    inet_ntop(AF_INET, &addresses->net, net, sizeof(net));
    inet_ntop(AF_INET, &addresses->mask, mask, sizeof(mask));
    inet_ntop(AF_INET6, &addresses->prefix6, prefix, sizeof(prefix));
    snprintf(words->net, sizeof(words->net), "%s/%s", net, mask);
    snprintf(words->prefix, sizeof(words->prefix), "%s/%u", prefix, addresses->prefix6_bits);
}

static int start_engine(struct shared_backend *self, const struct net_shared_options *options,
                        const struct slirp_addresses *addresses, struct error *err)
{
    struct engine_words words;
    struct net_slirp_options nat = options->nat;
    write_words(self, addresses, &words);
    nat.net = words.net;
    nat.host = words.host;
    nat.dns = words.dns;
    nat.dhcpstart = words.address;
    nat.ipv6_prefix = words.prefix;
    if (nat.host_only)
        nat.disable_host_loopback = false;
    return net_slirp_create(self->backend.loop, self->backend.id, &nat, &self->engine, err);
}

static int start(struct shared_backend *self, const struct net_shared_options *options,
                 struct error *err)
{
    struct slirp_addresses addresses = {0};
    const struct net_internal_options mesh = {options->folder, options->name};
    int result = shared_folder_agree(options->folder, &options->nat, &addresses, err);
    if (!result)
        result = claim_address(self, options, &addresses, err);
    if (result) {
        error_prefix(err, "netdev '%s'", self->backend.id);
        return result;
    }
    self->rules = (struct shared_rules){
        .net = addresses.net,
        .mask = addresses.mask,
        .host = addresses.host,
        .dns = addresses.dns,
        .host6 = addresses.host6,
        .dns6 = addresses.dns6,
    };
    result = start_engine(self, options, &addresses, err);
    if (!result)
        result = net_internal_create(self->backend.loop, self->backend.id, &mesh, &self->mesh, err);
    return result;
}

int net_shared_create(struct loop *loop, const char *id, const struct net_shared_options *options,
                      struct net_backend **out, struct error *err)
{
    struct shared_backend *self = calloc(1, sizeof(*self));
    if (!self)
        return error_set_errno(err, ENOMEM, "netdev '%s'", id);
    self->is_host_only = options->nat.host_only;
    self->lease_fd = -1;
    net_backend_init(&self->backend, self->is_host_only ? &host_only_ops : &nat_ops, loop, id);
    snprintf(self->folder, sizeof(self->folder), "%s", options->folder);
    int result = start(self, options, err);
    if (result) {
        if (self->lease_fd >= 0)
            leases_give_back(self->lease_fd);
        if (self->engine)
            close_inner(self, self->engine);
        else
            free(self);
        return result;
    }
    net_attach(self->mesh, &mesh_peer, self);
    net_attach(self->engine, &engine_peer, self);
    *out = &self->backend;
    return 0;
}
