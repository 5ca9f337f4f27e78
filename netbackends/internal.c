/* SPDX-License-Identifier: MIT */
/*
 * internal: a mesh of datagram sockets.
 *
 * Theory of operation. A datagram is a header (magic, the sender's id, a net_meta, a length) and a
 * frame. The id says which member an Ethernet address was heard from. A length of 0 means all the
 * rest of the datagram; after a frame of another length there is one more header and frame.
 *
 * Large frames, and those for everybody, leave straight from guest memory. Small ones for one
 * member are collected and leave together at the end of the turn: a member's queue is counted in
 * datagrams, and so short that it would fill at once, and stop the sender, for each ten of them.
 *
 * A member's queue in the kernel is short (net.unix.max_dgram_qlen). If it is full, the guest waits
 * for it, so that a stream of frames is not torn; but only for STALL_NS: then frames for that
 * member are dropped until its queue moves again, and all others are served. Frames for everybody
 * are dropped at once where there is no room.
 *
 * Frames that the own guest cannot take as they came (it may know fewer offloads than the sender)
 * are finished here. What does not fit into the guest now waits in to_guest, and nothing more is
 * read until that is empty.
 */
#include "netbackends/internal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/closing.h"
#include "base/iov.h"
#include "base/limits.h"
#include "base/log.h"
#include "netbackends/frame_queue.h"
#include "netbackends/offload.h"
#include "netbackends/peers.h"
#include "netbackends/poll_set.h"

#define MAGIC 0x45564e31u /* "EVN1" */

enum {
    HEADER_BYTES = 24,
    FRAME_MIN = 14,
    ALL_OFFLOADS = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN,
    READ_BUDGET = 256, /* datagrams in one loop turn */
    READ_BUDGET_BYTES = 1024 * 1024,
    QUEUE_BYTES = 512 * 1024, /* a frame that had to be cut, with its headers */
    SMALL_BYTES = 2048,       /* a frame that is collected */
    BATCH_BYTES = 32 * 1024,
    LENGTH_AT = 22, /* in a header */
};
static const uint64_t STALL_NS = 20 * 1000000;

/* Small frames for one member that have not left yet, as the datagram that they will be. */
struct batch {
    uint64_t peer_id;
    unsigned frames;
    size_t length, last_at; /* where the last header is */
    uint8_t bytes[BATCH_BYTES];
};

struct internal_backend {
    struct net_backend backend;
    struct peers peers;
    struct socket_address own;
    int fd;
    struct loop_watch watch;        /* of fd */
    struct loop_watch notify_watch; /* of the folder */
    struct loop_watch stall_watch;  /* of stalled's epoll */
    struct poll_set stalled;        /* peers whose queue was full */
    struct loop_timer stall_timer;
    struct loop_task read_task, batch_task;
    struct batch batch;
    struct frame_queue to_guest;
    unsigned guest_offloads;
    bool guest_is_full;
    bool guest_waits;  /* send answered -EAGAIN */
    uint8_t mac[6];    /* of the own guest, as last seen */
    uint64_t namesake; /* the last other member that was heard with it */
    unsigned handles;
    struct closing closing;
    struct iovec iov[IOV_MAX];
    uint8_t datagram[HEADER_BYTES + NET_FRAME_MAX];
    uint8_t piece[OFFLOAD_SEGMENT_ROOM];
};

static struct internal_backend *from_backend(const struct net_backend *backend)
{
    return container_of(backend, struct internal_backend, backend);
}

/* Peers that stall. */

static void watch_stalled(struct internal_backend *self)
{
    poll_set_begin(&self->stalled);
    for (struct peer *peer = NULL; (peer = peers_next(&self->peers, peer));)
        if (peer->stalled_ns)
            poll_set_want(&self->stalled, peer->fd, EPOLLOUT);
    poll_set_commit(&self->stalled);
    loop_watch_set(&self->stall_watch, poll_set_size(&self->stalled) ? UV_READABLE : 0);
}

static void wake_guest(struct internal_backend *self)
{
    if (!self->guest_waits)
        return;
    self->guest_waits = false;
    if (self->backend.peer)
        self->backend.peer_ops->on_send_ready(self->backend.peer);
}

static void lose_peer(struct internal_backend *self, struct peer *peer)
{
    poll_set_forget(&self->stalled, peer->fd);
    peers_remove(&self->peers, peer);
}

static bool flush_batch(struct internal_backend *self);

static void on_stalled_ready(struct loop_watch *watch, int events)
{
    struct internal_backend *self = container_of(watch, struct internal_backend, stall_watch);
    (void)events;
    poll_set_collect(&self->stalled);
    for (struct peer *peer = NULL; (peer = peers_next(&self->peers, peer));) {
        if (!poll_set_ready(&self->stalled, peer->fd))
            continue;
        peer->stalled_ns = 0;
        peer->is_given_up = false;
    }
    watch_stalled(self);
    flush_batch(self);
    wake_guest(self);
}

/* The guest waited long enough for whoever is stalled now. */
static void on_stall_timer(struct loop_timer *timer)
{
    struct internal_backend *self = container_of(timer, struct internal_backend, stall_timer);
    uint64_t now_ns = loop_now_ns(), next_ns = UINT64_MAX;
    for (struct peer *peer = NULL; (peer = peers_next(&self->peers, peer));) {
        if (!peer->stalled_ns || peer->is_given_up)
            continue;
        if (peer->stalled_ns + STALL_NS <= now_ns)
            peer->is_given_up = true;
        else
            next_ns = MIN(next_ns, peer->stalled_ns + STALL_NS);
    }
    if (next_ns != UINT64_MAX)
        loop_timer_arm(timer, next_ns);
    flush_batch(self);
    wake_guest(self);
}

static void stall(struct internal_backend *self, struct peer *peer)
{
    if (peer->stalled_ns)
        return;
    peer->stalled_ns = loop_now_ns();
    watch_stalled(self);
    loop_timer_arm(&self->stall_timer, peer->stalled_ns + STALL_NS);
}

/* To the others. */

static void write_header(const struct internal_backend *self, const struct net_meta *meta,
                         uint8_t header[HEADER_BYTES])
{
    memset(header, 0, HEADER_BYTES);
    store_be32(header, MAGIC);
    store_be64(header + 4, self->peers.own_id);
    header[12] = meta->flags;
    header[13] = meta->gso_type;
    store_be16(header + 14, meta->hdr_len);
    store_be16(header + 16, meta->gso_size);
    store_be16(header + 18, meta->csum_start);
    store_be16(header + 20, meta->csum_offset);
}

/* 0, -EAGAIN (its queue is full) or another -errno; a peer that is gone is removed. */
static int send_to(struct internal_backend *self, struct peer *peer, size_t iov_count)
{
    const struct msghdr message = {.msg_iov = self->iov, .msg_iovlen = iov_count};
    if (peer->stalled_ns)
        return peer->is_given_up ? -ETIMEDOUT : -EAGAIN;
    if (sendmsg(peer->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
        return 0;
    int result = -errno;
    if (result == -EAGAIN)
        stall(self, peer);
    else if (result == -ECONNREFUSED || result == -ENOTCONN || result == -ECONNRESET)
        lose_peer(self, peer);
    return result;
}

static void send_to_all(struct internal_backend *self, size_t iov_count)
{
    for (struct peer *peer = NULL; (peer = peers_next(&self->peers, peer));)
        if (send_to(self, peer, iov_count))
            self->backend.stats.tx_dropped++;
}

/* True if it is empty now; false if its member's queue is full. */
static bool flush_batch(struct internal_backend *self)
{
    struct batch *batch = &self->batch;
    if (!batch->frames)
        return true;
    struct peer *peer = peers_find(&self->peers, batch->peer_id);
    self->iov[0] = (struct iovec){batch->bytes, batch->length};
    int result = peer ? send_to(self, peer, 1) : -ENOTCONN;
    if (result == -EAGAIN)
        return false;
    if (result)
        self->backend.stats.tx_dropped += batch->frames;
    batch->frames = 0;
    batch->length = 0;
    return true;
}

static void on_batch_task(struct loop_task *task)
{
    flush_batch(container_of(task, struct internal_backend, batch_task));
}

/* False if there is no place for it: it may go by itself. */
static bool add_to_batch(struct internal_backend *self, const struct peer *peer,
                         const uint8_t header[HEADER_BYTES], const struct iovec *iov,
                         size_t iov_count, size_t length)
{
    struct batch *batch = &self->batch;
    bool fits = batch->peer_id == peer->id && batch->length + HEADER_BYTES + length <= BATCH_BYTES;
    if (length > SMALL_BYTES || peer->stalled_ns || (batch->frames && !fits && !flush_batch(self)))
        return false;
    /* Sending may have told that the member is gone, or full. */
    if (!peer->id || peer->stalled_ns)
        return false;
    if (batch->frames)
        store_be16(batch->bytes + batch->last_at + LENGTH_AT,
                   (uint16_t)(batch->length - batch->last_at - HEADER_BYTES));
    batch->peer_id = peer->id;
    batch->last_at = batch->length;
    memcpy(batch->bytes + batch->length, header, HEADER_BYTES);
    iov_read(iov, iov_count, 0, batch->bytes + batch->length + HEADER_BYTES, length);
    batch->length += HEADER_BYTES + length;
    batch->frames++;
    loop_task_queue(&self->batch_task);
    return true;
}

static int internal_send(struct net_backend *backend, const struct net_meta *meta,
                         const struct iovec *iov, size_t iov_count)
{
    struct internal_backend *self = from_backend(backend);
    uint8_t header[HEADER_BYTES], addresses[12];
    size_t length = iov_size(iov, iov_count);
    if (length < FRAME_MIN || length > NET_FRAME_MAX || iov_count + 1 > ARRAY_SIZE(self->iov))
        return -EMSGSIZE;
    iov_read(iov, iov_count, 0, addresses, sizeof(addresses));
    write_header(self, meta, header);
    memcpy(self->mac, addresses + 6, sizeof(self->mac));
    struct peer *peer = addresses[0] & 1 ? NULL : peers_find_mac(&self->peers, addresses);
    if (peer && add_to_batch(self, peer, header, iov, iov_count, length))
        return 0;
    /* What was collected goes before what goes alone. */
    bool is_behind = !flush_batch(self) && peer && peer->id == self->batch.peer_id;
    self->iov[0] = (struct iovec){header, HEADER_BYTES};
    memcpy(self->iov + 1, iov, iov_count * sizeof(*iov));
    if (!peer || !peer->id) {
        send_to_all(self, iov_count + 1);
        return 0;
    }
    int result = is_behind ? -EAGAIN : send_to(self, peer, iov_count + 1);
    if (result == -EAGAIN)
        self->guest_waits = true;
    return result;
}

/* From the others. */

static int queue_frame(struct internal_backend *self, const struct net_meta *meta,
                       const uint8_t *bytes, size_t length)
{
    struct frame *frame = frame_queue_push(&self->to_guest, length);
    if (!frame) {
        self->backend.stats.rx_dropped++;
        return 0;
    }
    frame->meta = *meta;
    memcpy(frame->bytes, bytes, length);
    return 0;
}

static int on_piece(void *opaque, uint8_t *frame, size_t length)
{
    static const struct net_meta plain;
    return queue_frame(opaque, &plain, frame, length);
}

/* Does what the sender left to do and the own guest cannot. */
static void take_unfinished(struct internal_backend *self, const struct net_meta *meta,
                            uint8_t *frame, size_t length)
{
    int result = meta->gso_type ? offload_segment(meta, frame, length, self->piece, on_piece, self)
                                : offload_finish_checksum(meta, frame, length);
    if (result)
        self->backend.stats.rx_dropped++;
    else if (!meta->gso_type)
        on_piece(self, frame, length);
}

static void deliver(struct internal_backend *self)
{
    struct frame *frame;
    while (!self->guest_is_full && (frame = frame_queue_front(&self->to_guest))) {
        const struct iovec iov = {frame->bytes, frame->length};
        if (net_receive(&self->backend, &frame->meta, &iov, 1) == -EAGAIN)
            self->guest_is_full = true;
        else
            frame_queue_pop(&self->to_guest);
    }
}

static void take(struct internal_backend *self, const struct net_meta *meta, uint8_t *frame,
                 size_t length)
{
    const struct iovec iov = {frame, length};
    if (!offload_check_meta(meta, length, self->guest_offloads)) {
        take_unfinished(self, meta, frame, length);
        deliver(self);
        return;
    }
    /* One datagram may bring more than the guest has room for. */
    if (!self->guest_is_full && net_receive(&self->backend, meta, &iov, 1) != -EAGAIN)
        return;
    self->guest_is_full = true;
    queue_frame(self, meta, frame, length);
}

static void note_sender(struct internal_backend *self, const uint8_t *mac, uint64_t id)
{
    if (!memcmp(mac, self->mac, sizeof(self->mac))) {
        if (id == self->namesake)
            return;
        self->namesake = id; /* one line for each, not one a frame */
        log_limited("netdev '%s': another machine on '%s' has the address "
                    "%02x:%02x:%02x:%02x:%02x:%02x too: give each its own mac=",
                    self->backend.id, self->peers.folder, mac[0], mac[1], mac[2], mac[3], mac[4],
                    mac[5]);
    } else if (!(mac[0] & 1)) {
        peers_learn(&self->peers, mac, id);
    }
}

/* *length is that of all the rest before, of this header and its frame after it. */
static bool parse(const uint8_t *datagram, size_t *length, struct net_meta *meta)
{
    if (*length < HEADER_BYTES + FRAME_MIN || load_be32(datagram) != MAGIC)
        return false;
    size_t frame = load_be16(datagram + LENGTH_AT);
    if (frame && (frame < FRAME_MIN || frame > *length - HEADER_BYTES))
        return false;
    if (frame)
        *length = HEADER_BYTES + frame;
    *meta = (struct net_meta){
        /* What a peer says about validity is no proof. */
        .flags = datagram[12] & NET_NEEDS_CSUM, .gso_type = datagram[13],
        .hdr_len = load_be16(datagram + 14),    .gso_size = load_be16(datagram + 16),
        .csum_start = load_be16(datagram + 18), .csum_offset = load_be16(datagram + 20),
    };
    return offload_check_meta(meta, *length - HEADER_BYTES, ALL_OFFLOADS);
}

/* What is left of the datagram after its first frame; 0 at its end. */
static size_t take_first(struct internal_backend *self, uint8_t *datagram, size_t length)
{
    struct net_meta meta;
    size_t first = length;
    if (!parse(datagram, &first, &meta)) {
        self->backend.stats.rx_dropped++;
        return 0;
    }
    uint8_t *frame = datagram + HEADER_BYTES;
    note_sender(self, frame + 6, load_be64(datagram + 4));
    take(self, &meta, frame, first - HEADER_BYTES);
    return length - first;
}

/* How many bytes came; 0 if there is nothing. */
static size_t read_one(struct internal_backend *self)
{
    ssize_t count =
        recv(self->fd, self->datagram, sizeof(self->datagram), MSG_DONTWAIT | MSG_TRUNC);
    if (count < 0)
        return 0;
    if ((size_t)count > sizeof(self->datagram)) {
        self->backend.stats.rx_dropped++;
        return HEADER_BYTES;
    }
    for (size_t left = (size_t)count; left;)
        left = take_first(self, self->datagram + (size_t)count - left, left);
    return MAX((size_t)count, HEADER_BYTES);
}

static void on_read_task(struct loop_task *task)
{
    struct internal_backend *self = container_of(task, struct internal_backend, read_task);
    size_t total = 0, count;
    deliver(self);
    for (int i = 0; i < READ_BUDGET && total < READ_BUDGET_BYTES && !self->guest_is_full; i++) {
        if (!(count = read_one(self)))
            break;
        total += count;
    }
    loop_watch_set(&self->watch, self->guest_is_full ? 0 : UV_READABLE);
}

static void on_ready(struct loop_watch *watch, int events)
{
    (void)events;
    loop_task_queue(&container_of(watch, struct internal_backend, watch)->read_task);
}

static void on_folder_changed(struct loop_watch *watch, int events)
{
    struct internal_backend *self = container_of(watch, struct internal_backend, notify_watch);
    (void)events;
    /* Peers that left close descriptors: none of them may stay in the set. */
    poll_set_begin(&self->stalled);
    poll_set_commit(&self->stalled);
    peers_scan(&self->peers);
    watch_stalled(self);
    flush_batch(self);
    wake_guest(self);
}

/* The rest of the operations. */

static void internal_receive_resume(struct net_backend *backend)
{
    struct internal_backend *self = from_backend(backend);
    self->guest_is_full = false;
    loop_task_queue(&self->read_task);
}

static unsigned internal_offloads(const struct net_backend *backend)
{
    (void)backend;
    return ALL_OFFLOADS;
}

static void internal_set_guest_offloads(struct net_backend *backend, unsigned offloads)
{
    struct internal_backend *self = from_backend(backend);
    if (self->guest_offloads & ~offloads)
        frame_queue_clear(&self->to_guest);
    self->guest_offloads = offloads;
}

static void internal_describe(const struct net_backend *backend, char *text, size_t size)
{
    const struct internal_backend *self = from_backend(backend);
    snprintf(text, size, "index=0,type=internal,net=%s,peers=%zu", self->peers.folder,
             self->peers.count);
}

static void release_handle(struct internal_backend *self)
{
    if (--self->handles)
        return;
    struct closing closing = self->closing;
    poll_set_fini(&self->stalled);
    peers_fini(&self->peers);
    frame_queue_fini(&self->to_guest);
    free(self);
    closing_tell(closing);
}

static void on_watch_closed(struct loop_watch *watch)
{
    release_handle(container_of(watch, struct internal_backend, watch));
}

static void on_notify_closed(struct loop_watch *watch)
{
    release_handle(container_of(watch, struct internal_backend, notify_watch));
}

static void on_stall_closed(struct loop_watch *watch)
{
    release_handle(container_of(watch, struct internal_backend, stall_watch));
}

static void on_timer_closed(struct loop_timer *timer)
{
    release_handle(container_of(timer, struct internal_backend, stall_timer));
}

static void internal_close(struct net_backend *backend, void (*on_closed)(void *opaque),
                           void *opaque)
{
    struct internal_backend *self = from_backend(backend);
    self->closing = (struct closing){on_closed, opaque};
    self->handles = 4;
    loop_task_cancel(&self->read_task);
    loop_task_cancel(&self->batch_task);
    loop_watch_close(&self->watch, on_watch_closed);
    loop_watch_close(&self->notify_watch, on_notify_closed);
    loop_watch_close(&self->stall_watch, on_stall_closed);
    loop_timer_close(&self->stall_timer, on_timer_closed);
    socket_address_unlink(&self->own);
    close(self->fd);
}

static const struct net_backend_ops internal_ops = {
    .kind = "internal",
    .send = internal_send,
    .receive_resume = internal_receive_resume,
    .offloads = internal_offloads,
    .set_guest_offloads = internal_set_guest_offloads,
    .describe = internal_describe,
    .close = internal_close,
};

size_t net_internal_peer_count(const struct net_backend *backend)
{
    CHECK(backend->ops == &internal_ops);
    return from_backend(backend)->peers.count;
}

static int join_loop(struct internal_backend *self, struct error *err)
{
    struct loop *loop = self->backend.loop;
    int result = loop_timer_init(loop, &self->stall_timer, on_stall_timer);
    if (result)
        return error_set_errno(err, -result, "cannot make a timer");
    /* Sockets, inotify and epoll descriptors can always be polled. */
    CHECK(!loop_watch_init(loop, &self->watch, self->fd, on_ready));
    CHECK(!loop_watch_init(loop, &self->notify_watch, self->peers.notify_fd, on_folder_changed));
    CHECK(!loop_watch_init(loop, &self->stall_watch, self->stalled.epoll_fd, on_stalled_ready));
    loop_watch_set(&self->watch, UV_READABLE);
    loop_watch_set(&self->notify_watch, UV_READABLE);
    return 0;
}

/* In steps that `failed` undoes. */
static int start(struct internal_backend *self, const struct net_internal_options *options,
                 struct error *err)
{
    int result = frame_queue_init(&self->to_guest, QUEUE_BYTES);
    if (!result)
        result = poll_set_init(&self->stalled);
    if (result)
        return error_set_errno(err, -result, "cannot make a network");
    result = peers_init(&self->peers, options->folder, err);
    if (result)
        return result;
    self->fd = peers_bind_own(&self->peers, options->name, &self->own, err);
    result = self->fd < 0 ? self->fd : join_loop(self, err);
    if (!result) {
        peers_scan(&self->peers);
        return 0;
    }
    if (self->fd >= 0) {
        socket_address_unlink(&self->own);
        close(self->fd);
    }
    peers_fini(&self->peers);
    return result;
}

int net_internal_create(struct loop *loop, const char *id,
                        const struct net_internal_options *options, struct net_backend **out,
                        struct error *err)
{
    struct internal_backend *self = calloc(1, sizeof(*self));
    if (!self)
        return error_set_errno(err, ENOMEM, "netdev '%s'", id);
    net_backend_init(&self->backend, &internal_ops, loop, id);
    loop_task_init(loop, &self->read_task, LOOP_STAGE_DRAIN, on_read_task);
    loop_task_init(loop, &self->batch_task, LOOP_STAGE_SUBMIT, on_batch_task);
    self->stalled.epoll_fd = -1;
    int result = start(self, options, err);
    if (result) {
        error_prefix(err, "netdev '%s'", id);
        poll_set_fini(&self->stalled);
        frame_queue_fini(&self->to_guest);
        free(self);
        return result;
    }
    *out = &self->backend;
    return 0;
}
