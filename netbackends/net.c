/* SPDX-License-Identifier: MIT */
/* net: the choke points between a NIC and its backend: thread, link and counters. */
#include "netbackends/net.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>

#include "base/iov.h"

static const struct net_meta plain_meta;

void net_backend_init(struct net_backend *backend, const struct net_backend_ops *ops,
                      struct loop *loop, const char *id)
{
    *backend = (struct net_backend){.ops = ops, .loop = loop, .link_up = true};
    snprintf(backend->id, sizeof(backend->id), "%s", id);
}

void net_attach(struct net_backend *backend, const struct net_peer_ops *ops, void *nic)
{
    loop_check_thread(backend->loop);
    CHECK(ops && nic && !backend->peer);
    backend->peer_ops = ops;
    backend->peer = nic;
}

void net_detach(struct net_backend *backend)
{
    loop_check_thread(backend->loop);
    backend->peer_ops = NULL;
    backend->peer = NULL;
}

static void observe(struct net_backend *backend, bool is_sent, const struct iovec *iov,
                    size_t iov_count)
{
    if (backend->observer)
        backend->observer->on_frame(backend->observer, is_sent, iov, iov_count);
}

static int pass_on(struct net_backend *backend, const struct net_meta *meta,
                   const struct iovec *iov, size_t iov_count)
{
    struct net_observer *observer = backend->observer;
    if (!backend->link_up)
        return -ENETDOWN;
    if (observer && observer->may_send && !observer->may_send(observer, iov, iov_count))
        return -EPERM;
    return backend->ops->send(backend, meta ? meta : &plain_meta, iov, iov_count);
}

int net_send(struct net_backend *backend, const struct net_meta *meta, const struct iovec *iov,
             size_t iov_count)
{
    struct net_stats *stats = &backend->stats;
    loop_check_thread(backend->loop);
    int result = pass_on(backend, meta, iov, iov_count);
    if (result == 0) {
        stats->tx_frames++;
        stats->tx_bytes += iov_size(iov, iov_count);
        observe(backend, true, iov, iov_count);
    } else if (result != -EAGAIN) {
        stats->tx_dropped++;
    }
    return result;
}

static int hand_to_peer(struct net_backend *backend, const struct net_meta *meta,
                        const struct iovec *iov, size_t iov_count)
{
    if (!backend->link_up || !backend->peer)
        return -ENETDOWN;
    if (backend->is_held)
        return -EAGAIN;
    return backend->peer_ops->receive(backend->peer, meta ? meta : &plain_meta, iov, iov_count);
}

int net_receive(struct net_backend *backend, const struct net_meta *meta, const struct iovec *iov,
                size_t iov_count)
{
    struct net_stats *stats = &backend->stats;
    loop_check_thread(backend->loop);
    int result = hand_to_peer(backend, meta, iov, iov_count);
    if (result == 0) {
        stats->rx_frames++;
        stats->rx_bytes += iov_size(iov, iov_count);
        observe(backend, false, iov, iov_count);
    } else if (result != -EAGAIN) {
        stats->rx_dropped++;
    }
    return result;
}

int net_receive_begin(struct net_backend *backend, struct net_room *room)
{
    loop_check_thread(backend->loop);
    if (!backend->link_up || !backend->peer || !backend->peer_ops->receive_begin)
        return -ENETDOWN;
    return backend->is_held ? -EAGAIN : backend->peer_ops->receive_begin(backend->peer, room);
}

void net_receive_end(struct net_backend *backend, const struct net_meta *meta, const uint8_t *head,
                     size_t bytes)
{
    struct net_stats *stats = &backend->stats;
    int result = backend->peer_ops->receive_end(backend->peer, meta, head, bytes);
    if (meta && result) {
        stats->rx_dropped++;
    } else if (meta) {
        const struct iovec seen = {(void *)head, NET_HEAD_BYTES};
        stats->rx_frames++;
        stats->rx_bytes += bytes;
        observe(backend, false, &seen, 1);
    }
}

void net_receive_release(struct net_backend *backend)
{
    if (backend->peer && backend->peer_ops->receive_release)
        backend->peer_ops->receive_release(backend->peer);
}

void net_set_link(struct net_backend *backend, bool up)
{
    loop_check_thread(backend->loop);
    if (backend->link_up == up)
        return;
    backend->link_up = up;
    if (!backend->peer)
        return;
    backend->peer_ops->on_link(backend->peer, up);
    /* Whoever waits for room must look again: with the link down, frames are dropped, not held. */
    backend->ops->receive_resume(backend);
    backend->peer_ops->on_send_ready(backend->peer);
}

void net_hold(struct net_backend *backend, bool is_held)
{
    loop_check_thread(backend->loop);
    if (backend->is_held == is_held)
        return;
    backend->is_held = is_held;
    if (!is_held && backend->peer)
        backend->ops->receive_resume(backend);
}

unsigned net_offloads(const struct net_backend *backend)
{
    return backend->ops->offloads ? backend->ops->offloads(backend) : 0;
}

void net_set_guest_offloads(struct net_backend *backend, unsigned offloads)
{
    loop_check_thread(backend->loop);
    if (backend->ops->set_guest_offloads)
        backend->ops->set_guest_offloads(backend, offloads);
}

void net_guest_reset(struct net_backend *backend)
{
    loop_check_thread(backend->loop);
    if (backend->ops->guest_reset)
        backend->ops->guest_reset(backend);
}

unsigned net_gso_offloads(uint8_t gso_type)
{
    unsigned ecn = gso_type & NET_GSO_ECN ? NET_OFFLOAD_ECN : 0;
    switch (gso_type & ~NET_GSO_ECN) {
    case NET_GSO_NONE:
        return gso_type == NET_GSO_NONE ? 0 : UINT_MAX;
    case NET_GSO_TCPV4:
        return NET_OFFLOAD_TSO4 | ecn;
    case NET_GSO_TCPV6:
        return NET_OFFLOAD_TSO6 | ecn;
    default:
        return UINT_MAX;
    }
}

void net_ignore_sigpipe(void)
{
    struct sigaction action = {.sa_handler = SIG_IGN};
    CHECK(sigaction(SIGPIPE, &action, NULL) == 0);
}
