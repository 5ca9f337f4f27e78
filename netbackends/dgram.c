/* SPDX-License-Identifier: MIT */
/*
 * dgram: sends from guest memory, receives into one buffer. A frame that the guest has no room for
 * waits in that buffer.
 *
 * To a multicast group frames leave by a socket of their own, whose address tells our own frames
 * from those of others when the group gives them back.
 */
#include "netbackends/dgram.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/closing.h"
#include "base/iov.h"
#include "base/limits.h"

enum {
    FRAME_MIN = 14,
    READ_BUDGET = 256, /* frames in one loop turn */
    SOCKET_BUFFER_BYTES = 1024 * 1024,
};

struct dgram_backend {
    struct net_backend backend;
    struct socket_address local, remote;
    int fd, send_fd; /* the same, without a group */
    bool is_group;
    struct sockaddr_in source; /* of what we send to the group */
    struct loop_watch watch;
    struct loop_task read_task;
    bool is_connected;  /* to the remote end; local sockets only once it exists */
    bool guest_is_full; /* `frame` waits */
    bool guest_waits;   /* send answered -EAGAIN */
    struct closing closing;
    size_t length; /* of the frame that waits */
    uint8_t frame[NET_FRAME_MAX];
};

static struct dgram_backend *from_backend(const struct net_backend *backend)
{
    return container_of(backend, struct dgram_backend, backend);
}

static void update_interest(struct dgram_backend *self)
{
    loop_watch_set(&self->watch,
                   (self->guest_is_full ? 0 : UV_READABLE) | (self->guest_waits ? UV_WRITABLE : 0));
}

/* Also after the peer's socket was replaced by another one at the same place. */
static int connect_remote(struct dgram_backend *self)
{
    if (self->is_connected)
        return 0;
    if (connect(self->send_fd, &self->remote.at.any, self->remote.length) < 0)
        return -errno;
    self->is_connected = true;
    return 0;
}

static int dgram_send(struct net_backend *backend, const struct net_meta *meta,
                      const struct iovec *iov, size_t iov_count)
{
    struct dgram_backend *self = from_backend(backend);
    const struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = iov_count};
    if (meta->flags || meta->gso_type)
        return -EINVAL;
    if (iov_size(iov, iov_count) < FRAME_MIN)
        return -EMSGSIZE;
    int result = connect_remote(self);
    if (result)
        return result == -EAGAIN ? -ENOTCONN : result;
    if (sendmsg(self->send_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
        return 0;
    result = -errno;
    if (result == -EAGAIN && self->is_group)
        return -ENOBUFS;
    if (result == -EAGAIN) {
        self->guest_waits = true;
        update_interest(self);
    } else if (self->remote.at.any.sa_family == AF_UNIX &&
               (result == -ECONNREFUSED || result == -ENOTCONN || result == -ECONNRESET)) {
        self->is_connected = false;
    }
    return result;
}

static bool is_own(const struct dgram_backend *self, const struct socket_address *from)
{
    return self->is_group && from->at.ipv4.sin_port == self->source.sin_port &&
           from->at.ipv4.sin_addr.s_addr == self->source.sin_addr.s_addr;
}

/* False if there is none. */
static bool read_frame(struct dgram_backend *self)
{
    struct socket_address from = {.length = sizeof(from.at)};
    ssize_t count = recvfrom(self->fd, self->frame, sizeof(self->frame), MSG_DONTWAIT | MSG_TRUNC,
                             &from.at.any, &from.length);
    if (count < 0)
        /* An error is news of an earlier send (ICMP); the next datagram may be there. */
        return errno == EINTR || errno == ECONNREFUSED || errno == ECONNRESET;
    if (is_own(self, &from)) {
        count = 0;
    } else if ((size_t)count < FRAME_MIN || (size_t)count > sizeof(self->frame)) {
        self->backend.stats.rx_dropped++;
        count = 0;
    }
    self->length = (size_t)count;
    return true;
}

static void deliver(struct dgram_backend *self)
{
    const struct iovec iov = {self->frame, self->length};
    self->guest_is_full = net_receive(&self->backend, NULL, &iov, 1) == -EAGAIN;
    if (!self->guest_is_full)
        self->length = 0;
}

static void on_read_task(struct loop_task *task)
{
    struct dgram_backend *self = container_of(task, struct dgram_backend, read_task);
    for (int i = 0; i < READ_BUDGET && !self->guest_is_full; i++) {
        if (!read_frame(self))
            break;
        if (self->length)
            deliver(self);
    }
    update_interest(self);
}

static void on_ready(struct loop_watch *watch, int events)
{
    struct dgram_backend *self = container_of(watch, struct dgram_backend, watch);
    if (events & UV_READABLE)
        loop_task_queue(&self->read_task);
    if (!(events & UV_WRITABLE) || !self->guest_waits)
        return;
    self->guest_waits = false;
    update_interest(self);
    if (self->backend.peer)
        self->backend.peer_ops->on_send_ready(self->backend.peer);
}

static void dgram_receive_resume(struct net_backend *backend)
{
    struct dgram_backend *self = from_backend(backend);
    if (!self->guest_is_full)
        return;
    deliver(self);
    update_interest(self);
}

static void dgram_describe(const struct net_backend *backend, char *text, size_t size)
{
    const struct dgram_backend *self = from_backend(backend);
    snprintf(text, size, "index=0,type=dgram,local=%s,remote=%s", self->local.name,
             self->remote.name);
}

static void on_watch_closed(struct loop_watch *watch)
{
    struct dgram_backend *self = container_of(watch, struct dgram_backend, watch);
    struct closing closing = self->closing;
    free(self);
    closing_tell(closing);
}

static void close_sockets(struct dgram_backend *self)
{
    socket_address_unlink(&self->local);
    if (self->send_fd != self->fd)
        close(self->send_fd);
    close(self->fd);
}

static void dgram_close(struct net_backend *backend, void (*on_closed)(void *opaque), void *opaque)
{
    struct dgram_backend *self = from_backend(backend);
    self->closing = (struct closing){on_closed, opaque};
    loop_task_cancel(&self->read_task);
    loop_watch_close(&self->watch, on_watch_closed);
    close_sockets(self);
}

static const struct net_backend_ops dgram_ops = {
    .kind = "dgram",
    .send = dgram_send,
    .receive_resume = dgram_receive_resume,
    .describe = dgram_describe,
    .close = dgram_close,
};

static int resolve(struct dgram_backend *self, const struct net_dgram_options *options,
                   struct error *err)
{
    int result = socket_address_resolve(&options->remote, &self->remote, err);
    if (!result)
        result = socket_address_resolve(&options->local, &self->local, err);
    if (result)
        return result;
    self->is_group = self->remote.at.any.sa_family == AF_INET &&
                     IN_MULTICAST(ntohl(self->remote.at.ipv4.sin_addr.s_addr));
    if (self->local.at.any.sa_family != self->remote.at.any.sa_family)
        return error_set(err, EINVAL, "local '%s' and remote '%s' must be of one kind",
                         self->local.name, self->remote.name);
    return 0;
}

/* The group's frames come to `fd`; ours leave by send_fd, from a port of its own. */
static int join_group(struct dgram_backend *self, bool has_local, struct error *err)
{
    socklen_t length = sizeof(self->source);
    struct ip_mreqn group = {.imr_multiaddr = self->remote.at.ipv4.sin_addr};
    if (has_local)
        group.imr_address = self->local.at.ipv4.sin_addr;
    if (setsockopt(self->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof(group)) < 0 ||
        setsockopt(self->send_fd, IPPROTO_IP, IP_MULTICAST_IF, &group, sizeof(group)) < 0 ||
        connect_remote(self) ||
        getsockname(self->send_fd, (struct sockaddr *)&self->source, &length) < 0)
        return error_set(err, errno,
                         "cannot join the multicast group %s: %s: name an address of this host "
                         "whose interface leads there, as local.host=127.0.0.1 for this host alone",
                         self->remote.name, strerror(errno));
    return 0;
}

static int open_sockets(struct dgram_backend *self, const struct net_dgram_options *options,
                        struct error *err)
{
    int bytes = SOCKET_BUFFER_BYTES, result = 0;
    self->fd = socket_address_bind(self->is_group ? &self->remote : &self->local, SOCK_DGRAM, err);
    if (self->fd < 0)
        return self->fd;
    self->send_fd = self->is_group ? socket_address_open(&self->remote, SOCK_DGRAM) : self->fd;
    if (self->send_fd < 0) {
        result = error_set_errno(err, -self->send_fd, "cannot open a socket");
        self->send_fd = self->fd;
    }
    if (!result && self->is_group)
        result = join_group(self, options->local.host, err);
    if (result) {
        close_sockets(self);
        return result;
    }
    setsockopt(self->send_fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    setsockopt(self->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    return 0;
}

static int start(struct dgram_backend *self, const struct net_dgram_options *options,
                 struct error *err)
{
    int result = resolve(self, options, err);
    if (!result)
        result = open_sockets(self, options, err);
    if (result)
        return result;
    result = loop_watch_init(self->backend.loop, &self->watch, self->fd, on_ready);
    if (!result) {
        update_interest(self);
        return 0;
    }
    close_sockets(self);
    return error_set_errno(err, -result, "cannot watch '%s'", self->local.name);
}

int net_dgram_create(struct loop *loop, const char *id, const struct net_dgram_options *options,
                     struct net_backend **out, struct error *err)
{
    struct dgram_backend *self = calloc(1, sizeof(*self));
    if (!self)
        return error_set_errno(err, ENOMEM, "netdev '%s'", id);
    net_backend_init(&self->backend, &dgram_ops, loop, id);
    loop_task_init(loop, &self->read_task, LOOP_STAGE_DRAIN, on_read_task);
    int result = start(self, options, err);
    if (result) {
        error_prefix(err, "netdev '%s'", id);
        free(self);
        return result;
    }
    *out = &self->backend;
    return 0;
}
