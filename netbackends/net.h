/* SPDX-License-Identifier: MIT */
/*
 * net: the interface between a NIC and what its frames go to and come from.
 *
 * A backend and a NIC are peers, joined by net_attach. Frames are whole Ethernet frames without
 * FCS. Where the peers agreed on offloads (net_backend_ops.offloads) each frame is described by a
 * struct net_meta; elsewhere the meta is all zero: no segmentation, checksums complete. Everything
 * happens on the loop's thread.
 *
 * Backpressure, both ways: receive() and send() answer -EAGAIN where there is no room; the frame
 * stays with the caller, and the other side calls the matching *_resume once there is room again.
 */
#ifndef NETBACKENDS_NET_H
#define NETBACKENDS_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

/* As struct virtio_net_hdr without num_buffers (virtio 1.2, section 5.1.6), in host byte order. */
struct net_meta {
    uint8_t flags;    /* NET_NEEDS_CSUM, NET_DATA_VALID */
    uint8_t gso_type; /* NET_GSO_* */
    uint16_t hdr_len;
    uint16_t gso_size;
    uint16_t csum_start;
    uint16_t csum_offset;
};

enum { NET_NEEDS_CSUM = 1, NET_DATA_VALID = 2 };
enum {
    NET_GSO_NONE = 0,
    NET_GSO_TCPV4 = 1,
    NET_GSO_UDP = 3,
    NET_GSO_TCPV6 = 4,
    NET_GSO_ECN = 0x80
};

/* What a peer can take beyond plain frames. */
enum net_offloads {
    NET_OFFLOAD_CSUM = 1 << 0,
    NET_OFFLOAD_TSO4 = 1 << 1,
    NET_OFFLOAD_TSO6 = 1 << 2,
    NET_OFFLOAD_ECN = 1 << 3,
};

/* What a receiver must take to be given frames of a gso_type; UINT_MAX: there is no such type. */
unsigned net_gso_offloads(uint8_t gso_type);

struct net_backend;

struct net_backend_ops {
    const char *kind; /* "user", "tap", ... */

    /*
     * A frame from the guest. 0: taken (the buffers may be reused at once). -EAGAIN: no room; call
     * again after peer->on_send_ready. Any other -errno: dropped and counted, as by a real wire.
     */
    int (*send)(struct net_backend *backend, const struct net_meta *meta, const struct iovec *iov,
                size_t iov_count);

    /* The guest has receive buffers again after receive() answered -EAGAIN. */
    void (*receive_resume)(struct net_backend *backend);

    /* Optional. What send() takes, as a set of net_offloads; without it: none. */
    unsigned (*offloads)(const struct net_backend *backend);

    /* Optional. What the guest takes from receive(), once its driver has said so. */
    void (*set_guest_offloads)(struct net_backend *backend, unsigned offloads);

    /* Optional. The largest packet that it carries, without the Ethernet header; 0: not known. */
    unsigned (*mtu)(const struct net_backend *backend);

    /* Optional. One line for `info network`, without the backend's id. */
    void (*describe)(const struct net_backend *backend, char *text, size_t size);

    /* Optional. The machine was reset: the guest has forgotten whom it spoke with. */
    void (*guest_reset)(struct net_backend *backend);

    /* Gives up the loop state and frees the backend; then calls on_closed (never from inside). */
    void (*close)(struct net_backend *backend, void (*on_closed)(void *opaque), void *opaque);
};

#define NET_HEAD_BYTES 1600 /* all that an observer or a filter looks at */

/* Guest memory for what follows a frame's head; valid until receive_end. */
struct net_room {
    const struct iovec *iov;
    size_t iov_count;
    size_t bytes;
    bool is_scarce; /* less than a frame may need: the guest has offered no more yet */
};

/* What a NIC offers to its backend. */
struct net_peer_ops {
    /* A frame for the guest. 0: taken. -EAGAIN: the guest has no buffers; wait for
     * receive_resume. Other -errno: dropped. */
    int (*receive)(void *nic, const struct net_meta *meta, const struct iovec *iov,
                   size_t iov_count);
    /*
     * Optional, all three or none: a large frame read straight into guest memory, all but its first
     * NET_HEAD_BYTES, which stay out of the guest's reach until they have been looked at. begin
     * finds room; end says that a frame with this head, `bytes` in all, lies there, or without meta
     * that so many bytes were written and nothing is received. Room that was found stays with the
     * backend, for receive() too, until release, before it returns to the loop. begin: -errno if
     * there is none: use receive().
     */
    int (*receive_begin)(void *nic, struct net_room *room);
    int (*receive_end)(void *nic, const struct net_meta *meta, const uint8_t *head, size_t bytes);
    void (*receive_release)(void *nic);
    /* There is room again after send() answered -EAGAIN. */
    void (*on_send_ready)(void *nic);
    /* The carrier went up or down (TAP removed, peer gone, set_link). */
    void (*on_link)(void *nic, bool up);
};

struct net_stats {
    uint64_t tx_frames, tx_bytes, tx_dropped; /* from the guest */
    uint64_t rx_frames, rx_bytes, rx_dropped; /* to the guest */
};

/* Sees the frames that pass, both ways; they are valid only during the call. */
struct net_observer {
    void (*on_frame)(struct net_observer *observer, bool is_sent, const struct iovec *iov,
                     size_t iov_count);
    /* Optional. Whether the guest may send this; a frame that it may not is dropped and counted. */
    bool (*may_send)(struct net_observer *observer, const struct iovec *iov, size_t iov_count);
};

/* Embedded as the first member of each backend. */
struct net_backend {
    const struct net_backend_ops *ops;
    struct loop *loop;
    char id[64];
    bool link_up;
    bool is_held;           /* see net_hold */
    struct net_stats stats; /* kept by net_send and net_receive */
    /* The NIC, NULL while none is attached (frames for it are then dropped). */
    const struct net_peer_ops *peer_ops;
    void *peer;
    struct net_observer *observer; /* or NULL; whoever sets it owns it */
};

void net_backend_init(struct net_backend *backend, const struct net_backend_ops *ops,
                      struct loop *loop, const char *id);
void net_attach(struct net_backend *backend, const struct net_peer_ops *ops, void *nic);
void net_detach(struct net_backend *backend);

/* The choke points: check the thread, count, drop while the link is down. */
int net_send(struct net_backend *backend, const struct net_meta *meta, const struct iovec *iov,
             size_t iov_count);
int net_receive(struct net_backend *backend, const struct net_meta *meta, const struct iovec *iov,
                size_t iov_count);
/* The same for receive_begin, _end and _release. */
int must_check net_receive_begin(struct net_backend *backend, struct net_room *room);
void net_receive_end(struct net_backend *backend, const struct net_meta *meta, const uint8_t *head,
                     size_t bytes);
void net_receive_release(struct net_backend *backend);
void net_set_link(struct net_backend *backend, bool up);
/* The guest stands still and its memory with it: until it goes on, receive answers -EAGAIN. */
void net_hold(struct net_backend *backend, bool is_held);

/* ops->offloads and ops->set_guest_offloads where the backend has them; 0 and nothing elsewhere. */
unsigned net_offloads(const struct net_backend *backend);
void net_set_guest_offloads(struct net_backend *backend, unsigned offloads);
/* ops->guest_reset where the backend has it. */
void net_guest_reset(struct net_backend *backend);

/* Writing to a peer that left must be an error, not the end: backends with sockets call this. */
void net_ignore_sigpipe(void);

#endif
