/* SPDX-License-Identifier: MIT */
/*
 * tap: one write per frame of the guest, one read per frame of the host.
 *
 * A frame's start is read into `frame`, the rest straight into guest memory, and what does not fit
 * there into `frame` again. A frame that the guest has no room for is gathered and waits in
 * `frame`; nothing more is read until it is taken. To save that, a turn that has filled the guest's
 * buffers ends, and the guest hears of them before the next frame is read.
 *
 * While only small frames come they are read into `frame` alone, which spares the NIC finding room
 * for a large one each time; and the first after a pause is handed on before there is a look for
 * more, since it is mostly the answer that somebody waits for.
 */
#include "netbackends/tap.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/closing.h"
#include "base/iov.h"
#include "base/limits.h"
#include "base/log.h"
#include "netbackends/tap_open.h"

enum {
    HEADER_BYTES = 12,
    FRAME_MIN = 14,
    READ_BUDGET = 256, /* frames in one loop turn */
    READ_BUDGET_BYTES = 1024 * 1024,
    SMALL_STREAK = 64, /* after so many small frames no large one is expected */
    PAUSE_NS = 20000,  /* frames that are further apart come alone */
};

struct tap_backend {
    struct net_backend backend;
    struct tap_device device;
    struct loop_watch watch;
    struct loop_task read_task;
    bool is_gone;       /* the interface was removed */
    bool guest_is_full; /* `frame` waits */
    bool guest_waits;   /* send answered -EAGAIN */
    struct closing closing;
    struct net_meta meta;
    size_t length;         /* of the frame that waits */
    unsigned small_streak; /* frames since the last that was more than a head */
    uint64_t read_ns;      /* when the last turn read */
    uint8_t frame[NET_FRAME_MAX];
    struct iovec iov[IOV_MAX];
};

static struct tap_backend *from_backend(const struct net_backend *backend)
{
    return container_of(backend, struct tap_backend, backend);
}

static void update_interest(struct tap_backend *self)
{
    int events = (self->guest_is_full ? 0 : UV_READABLE) | (self->guest_waits ? UV_WRITABLE : 0);
    loop_watch_set(&self->watch, self->is_gone ? 0 : events);
}

static void lose_interface(struct tap_backend *self)
{
    if (self->is_gone)
        return;
    self->is_gone = true;
    log_warn("netdev '%s': TAP interface '%s' was removed: its carrier is down", self->backend.id,
             self->device.ifname);
    update_interest(self);
    net_set_link(&self->backend, false);
}

/* To the host. */

/* Header and frame as one list that writev takes. 0 if it cannot be. */
static size_t make_list(struct tap_backend *self, uint8_t *header, const struct iovec *iov,
                        size_t iov_count)
{
    size_t used = self->device.has_vnet_hdr ? 1 : 0;
    if (iov_count + used > ARRAY_SIZE(self->iov))
        return 0;
    self->iov[0] = (struct iovec){header, HEADER_BYTES};
    for (size_t i = 0; i < iov_count; i++)
        self->iov[used++] = iov[i];
    return used;
}

static int tap_send(struct net_backend *backend, const struct net_meta *meta,
                    const struct iovec *iov, size_t iov_count)
{
    struct tap_backend *self = from_backend(backend);
    uint8_t header[HEADER_BYTES] = {meta->flags, meta->gso_type};
    size_t count = make_list(self, header, iov, iov_count);
    if (!count || (!self->device.has_vnet_hdr && (meta->flags || meta->gso_type)))
        return -EINVAL;
    store_le16(header + 2, meta->hdr_len);
    store_le16(header + 4, meta->gso_size);
    store_le16(header + 6, meta->csum_start);
    store_le16(header + 8, meta->csum_offset);
    if (writev(self->device.fd, self->iov, (int)count) >= 0)
        return 0;
    int code = errno;
    if (code == EAGAIN) {
        self->guest_waits = true;
        update_interest(self);
    } else if (code == EBADFD) {
        lose_interface(self);
    }
    return -code; /* EIO: the interface is down; EINVAL: the kernel does not like the frame */
}

static void wake_guest(struct tap_backend *self)
{
    self->guest_waits = false;
    update_interest(self);
    if (self->backend.peer)
        self->backend.peer_ops->on_send_ready(self->backend.peer);
}

/* From the host. */

static void read_meta(struct tap_backend *self, const uint8_t *header)
{
    self->meta = (struct net_meta){
        .flags = header[0],
        .gso_type = header[1],
        .hdr_len = load_le16(header + 2),
        .gso_size = load_le16(header + 4),
        .csum_start = load_le16(header + 6),
        .csum_offset = load_le16(header + 8),
    };
}

/* Where the next frame goes: its header, its head, guest memory if there is any, and the rest. */
static int list_parts(struct tap_backend *self, uint8_t *header, const struct net_room *room)
{
    size_t count = 0;
    if (self->device.has_vnet_hdr)
        self->iov[count++] = (struct iovec){header, HEADER_BYTES};
    if (!room->iov_count) {
        self->iov[count++] = (struct iovec){self->frame, sizeof(self->frame)};
        return (int)count;
    }
    self->iov[count++] = (struct iovec){self->frame, NET_HEAD_BYTES};
    memcpy(self->iov + count, room->iov, room->iov_count * sizeof(*room->iov));
    count += room->iov_count;
    size_t rest = sizeof(self->frame) - NET_HEAD_BYTES;
    rest -= MIN(rest, room->bytes); /* all of it together must find its place in `frame` */
    self->iov[count++] = (struct iovec){self->frame + NET_HEAD_BYTES, rest};
    return (int)count;
}

/* The frame's length, or -1 if there is none or the interface is gone. */
static ssize_t read_frame(struct tap_backend *self, const struct net_room *room)
{
    uint8_t header[HEADER_BYTES] = {0};
    int parts = list_parts(self, header, room);
    ssize_t count;
    do
        count = readv(self->device.fd, self->iov, parts);
    while (count < 0 && errno == EINTR);
    if (count < 0) {
        if (errno != EAGAIN)
            lose_interface(self);
        return -1;
    }
    read_meta(self, header);
    ssize_t head = self->device.has_vnet_hdr ? HEADER_BYTES : 0;
    return count > head ? count - head : 0;
}

static void deliver(struct tap_backend *self)
{
    const struct iovec iov = {self->frame, self->length};
    if (self->length < FRAME_MIN) {
        self->backend.stats.rx_dropped++;
        return;
    }
    self->guest_is_full = net_receive(&self->backend, &self->meta, &iov, 1) == -EAGAIN;
}

/* What lies in guest memory comes between head and rest of what lies in `frame`. */
static void gather_frame(struct tap_backend *self, const struct net_room *room)
{
    uint8_t *tail = self->frame + NET_HEAD_BYTES;
    size_t rest = self->length - NET_HEAD_BYTES - room->bytes;
    memmove(tail + room->bytes, tail, rest);
    iov_read(room->iov, room->iov_count, 0, tail, room->bytes);
    net_receive_end(&self->backend, NULL, NULL, NET_HEAD_BYTES + room->bytes);
}

static bool expects_small(const struct tap_backend *self)
{
    return self->small_streak >= SMALL_STREAK;
}

/* Guest memory for the next frame, if it may be a large one. False: the guest is to look first. */
static bool find_room(struct tap_backend *self, bool is_first, struct net_room *room)
{
    *room = (struct net_room){0};
    if (expects_small(self))
        return true;
    int result = net_receive_begin(&self->backend, room);
    if (!is_first && (result == -EAGAIN || room->is_scarce))
        return false;
    if (result || room->iov_count + 3 > ARRAY_SIZE(self->iov))
        *room = (struct net_room){0};
    return true;
}

/* One frame from the host to the guest. False if there is none, or none can be taken now. */
static bool pass_frame(struct tap_backend *self, bool is_first)
{
    struct net_room room;
    ssize_t length = find_room(self, is_first, &room) ? read_frame(self, &room) : -1;
    if (length < 0)
        return false;
    self->length = (size_t)length;
    self->small_streak = self->length > NET_HEAD_BYTES ? 0 : self->small_streak + 1;
    if (room.iov_count && self->length > NET_HEAD_BYTES + room.bytes)
        gather_frame(self, &room);
    else if (room.iov_count && self->length > NET_HEAD_BYTES) {
        net_receive_end(&self->backend, &self->meta, self->frame, self->length);
        return true;
    }
    deliver(self);
    return true;
}

static void on_read_task(struct loop_task *task)
{
    struct tap_backend *self = container_of(task, struct tap_backend, read_task);
    uint64_t now_ns = loop_time_ns(self->backend.loop);
    bool is_lone = expects_small(self) && now_ns - self->read_ns > PAUSE_NS;
    size_t bytes = 0;
    self->read_ns = now_ns;
    for (int i = 0;
         i < (is_lone ? 1 : READ_BUDGET) && bytes < READ_BUDGET_BYTES && !self->guest_is_full;
         i++) {
        if (self->is_gone || !pass_frame(self, i == 0))
            break;
        bytes += self->length;
    }
    net_receive_release(&self->backend);
    update_interest(self);
}

static void on_ready(struct loop_watch *watch, int events)
{
    struct tap_backend *self = container_of(watch, struct tap_backend, watch);
    if (events & UV_READABLE)
        loop_task_queue(&self->read_task);
    if ((events & UV_WRITABLE) && self->guest_waits)
        wake_guest(self);
}

static void tap_receive_resume(struct net_backend *backend)
{
    struct tap_backend *self = from_backend(backend);
    if (!self->guest_is_full)
        return;
    deliver(self);
    update_interest(self);
}

/* The rest of the operations. */

static unsigned tap_offloads(const struct net_backend *backend)
{
    return from_backend(backend)->device.offloads;
}

static unsigned tap_mtu(const struct net_backend *backend)
{
    return from_backend(backend)->device.mtu;
}

static void tap_set_guest_offloads(struct net_backend *backend, unsigned offloads)
{
    struct tap_backend *self = from_backend(backend);
    if (!self->device.has_vnet_hdr || self->is_gone)
        return;
    int result = tap_set_offloads(self->device.fd, offloads & self->device.offloads);
    if (result)
        log_warn("netdev '%s': TAP '%s' refuses offloads (error %d)", backend->id,
                 self->device.ifname, -result);
}

static void tap_describe(const struct net_backend *backend, char *text, size_t size)
{
    const struct tap_backend *self = from_backend(backend);
    snprintf(text, size, "index=0,type=tap,ifname=%s,vnet_hdr=%s%s", self->device.ifname,
             self->device.has_vnet_hdr ? "on" : "off", self->is_gone ? ",removed" : "");
}

static void on_watch_closed(struct loop_watch *watch)
{
    struct tap_backend *self = container_of(watch, struct tap_backend, watch);
    struct closing closing = self->closing;
    free(self);
    closing_tell(closing);
}

static void tap_close(struct net_backend *backend, void (*on_closed)(void *opaque), void *opaque)
{
    struct tap_backend *self = from_backend(backend);
    self->closing = (struct closing){on_closed, opaque};
    loop_task_cancel(&self->read_task);
    loop_watch_close(&self->watch, on_watch_closed);
    close(self->device.fd);
}

static const struct net_backend_ops tap_ops = {
    .kind = "tap",
    .send = tap_send,
    .receive_resume = tap_receive_resume,
    .offloads = tap_offloads,
    .mtu = tap_mtu,
    .set_guest_offloads = tap_set_guest_offloads,
    .describe = tap_describe,
    .close = tap_close,
};

const char *net_tap_ifname(const struct net_backend *backend)
{
    CHECK(backend->ops == &tap_ops);
    return from_backend(backend)->device.ifname;
}

int net_tap_create(struct loop *loop, const char *id, const struct net_tap_options *options,
                   struct net_backend **out, struct error *err)
{
    struct tap_backend *self = calloc(1, sizeof(*self));
    if (!self)
        return error_set_errno(err, ENOMEM, "netdev '%s'", id);
    net_backend_init(&self->backend, &tap_ops, loop, id);
    loop_task_init(loop, &self->read_task, LOOP_STAGE_DRAIN, on_read_task);
    int result = tap_open(options, &self->device, err);
    if (!result) {
        result = loop_watch_init(loop, &self->watch, self->device.fd, on_ready);
        if (result) {
            error_set_errno(err, -result, "cannot watch TAP '%s'", self->device.ifname);
            close(self->device.fd);
        }
    }
    if (result) {
        error_prefix(err, "netdev '%s'", id);
        free(self);
        return result;
    }
    update_interest(self);
    *out = &self->backend;
    return 0;
}
