/* SPDX-License-Identifier: MIT */
/* slirp_private: the NAT's state, shared by slirp.c and slirp_forward.c. */
#ifndef NETBACKENDS_SLIRP_PRIVATE_H
#define NETBACKENDS_SLIRP_PRIVATE_H

#include "base/bytes.h"
#include "base/closing.h"
#include "base/list.h"
#include "netbackends/endings.h"
#include "netbackends/frame_queue.h"
#include "netbackends/guard.h"
#include "netbackends/lane.h"
#include "netbackends/merge.h"
#include "netbackends/poll_set.h"
#include "netbackends/slirp.h"
#include "netbackends/slirp_library.h"

/* The router advertisement timer, the only one that libslirp makes. */
struct slirp_timer {
    SlirpTimerId id;
    void *opaque;
    uint64_t deadline_ns; /* UINT64_MAX: off */
};

struct slirp_backend {
    struct net_backend backend;
    Slirp *slirp;
    struct loop_task task;
    struct loop_watch watch;
    struct loop_timer timer;
    uint64_t wake_ns; /* when `timer` expires; UINT64_MAX: off */
    struct slirp_timer ra_timer;
    struct poll_set sockets;
    bool sockets_ready;
    bool widens_backlog; /* listening sockets seen in this fill are new forwards */
    uint64_t polled_ns;
    uint64_t last_activity_ns;
    struct frame_queue to_guest;
    struct merge merge;
    struct lane_set lanes;
    struct endings endings;
    bool guest_is_full; /* net_receive answered -EAGAIN */
    struct guard guard;
    size_t sockets_max;
    struct in_addr net, mask, dns;
    bool is_restricted;
    struct list forwards;
    struct list guest_forwards;
    unsigned handles;           /* of the loop: its own, and the relays of guest forwards */
    unsigned frames_unaccepted; /* sent since the relays were last asked */
    bool is_closing;
    struct closing closing;
    uint8_t frame[GUARD_FRAME_MAX];   /* the frame on its way in */
    uint8_t segment[GUARD_FRAME_MAX]; /* a piece of it, when it has to be cut */
};

static inline struct slirp_backend *slirp_from_backend(const struct net_backend *backend)
{
    return container_of(backend, struct slirp_backend, backend);
}

/* Connections that the relays of guest forwards hold, beside libslirp's own. */
size_t slirp_forward_relayed(const struct slirp_backend *self);
/* After a frame from the guest: what it connected to is taken in before too many wait. */
void slirp_forward_sent(struct slirp_backend *self);
/* Gives up all forwards, before libslirp's state goes; their relays hold on to `handles`. */
void slirp_forward_release(struct slirp_backend *self);

/* slirp.c: the loop let go of one of `handles`; the last one frees the backend. */
void slirp_release_handle(struct slirp_backend *self);

#endif
