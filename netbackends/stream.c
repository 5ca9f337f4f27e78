/* SPDX-License-Identifier: MIT */
/*
 * stream: one connection, two buffers.
 *
 * Frames to the peer gather in a buffer that is written once per loop turn; a full buffer is
 * answered with -EAGAIN. What the peer sends is read into another buffer and handed to the NIC
 * frame by frame; while the NIC has no room, nothing is read, and the peer feels it through the
 * socket. A partial write or read is just what is left in a buffer.
 */
#include "netbackends/stream.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/closing.h"
#include "base/iov.h"
#include "base/log.h"

enum {
    LENGTH_BYTES = 4,
    FRAME_MAX = 69632, /* what QEMU can send */
    FRAME_MIN = 14,
    BUFFER_BYTES = 256 * 1024,
    READ_BUDGET_BYTES = 1024 * 1024, /* in one loop turn */
};

enum stream_state {
    STREAM_LISTENING,  /* a server without a peer */
    STREAM_CONNECTING, /* a client whose connect is under way */
    STREAM_CONNECTED,
    STREAM_WAITING, /* a client until its next try */
    STREAM_OVER,    /* a client that was told not to try again */
};

/* [head, tail) is in use. */
struct buffer {
    uint8_t *bytes;
    size_t head, tail;
};

/* Outlives its socket until the loop has let go of the watch. */
struct connection {
    struct loop_watch watch;
    struct stream_backend *owner;
    int fd;
};

struct stream_backend {
    struct net_backend backend;
    enum stream_state state;
    struct socket_address address;
    bool is_server;
    unsigned reconnect_ms;
    int listen_fd; /* -1: a client */
    struct loop_watch listen_watch;
    struct loop_timer retry_timer;
    struct connection *connection; /* NULL: none */
    struct loop_task read_task;
    struct loop_task write_task;
    struct buffer from_peer, to_peer;
    bool guest_is_full;
    bool guest_waits; /* send answered -EAGAIN */
    unsigned handles; /* that the loop has not let go of */
    bool is_closing;
    struct closing closing;
};

static struct stream_backend *from_backend(struct net_backend *backend)
{
    return container_of(backend, struct stream_backend, backend);
}

static void release_handle(struct stream_backend *self)
{
    if (--self->handles || !self->is_closing)
        return;
    struct closing closing = self->closing;
    munmap(self->from_peer.bytes, BUFFER_BYTES);
    munmap(self->to_peer.bytes, BUFFER_BYTES);
    free(self);
    closing_tell(closing);
}

/* Connecting and disconnecting. */

static void wake_guest(struct stream_backend *self)
{
    if (!self->guest_waits)
        return;
    self->guest_waits = false;
    if (self->backend.peer)
        self->backend.peer_ops->on_send_ready(self->backend.peer);
}

static void on_connection_closed(struct loop_watch *watch)
{
    struct connection *connection = container_of(watch, struct connection, watch);
    struct stream_backend *self = connection->owner;
    free(connection);
    release_handle(self);
}

static void drop_connection(struct stream_backend *self)
{
    struct connection *connection = self->connection;
    if (!connection)
        return;
    self->connection = NULL;
    self->handles++;
    loop_watch_close(&connection->watch, on_connection_closed);
    close(connection->fd);
    loop_task_cancel(&self->read_task);
    loop_task_cancel(&self->write_task);
    self->from_peer.head = self->from_peer.tail = 0;
    self->to_peer.head = self->to_peer.tail = 0;
    self->guest_is_full = false;
}

static void wait_for_next(struct stream_backend *self)
{
    if (self->is_server) {
        self->state = STREAM_LISTENING;
        loop_watch_set(&self->listen_watch, UV_READABLE);
    } else if (self->reconnect_ms) {
        self->state = STREAM_WAITING;
        loop_timer_arm(&self->retry_timer, loop_now_ns() + self->reconnect_ms * UINT64_C(1000000));
    } else {
        self->state = STREAM_OVER;
    }
}

static void disconnect(struct stream_backend *self, const char *why)
{
    if (self->state == STREAM_CONNECTED)
        log_limited("netdev '%s': connection to '%s' ended: %s", self->backend.id,
                    self->address.name, why);
    else if (self->state == STREAM_CONNECTING && !self->reconnect_ms)
        log_warn("netdev '%s': cannot connect to '%s': %s: its carrier stays down; start the other "
                 "side first, or say reconnect=1 to keep trying",
                 self->backend.id, self->address.name, why);
    drop_connection(self);
    wait_for_next(self);
    net_set_link(&self->backend, false);
    wake_guest(self);
}

static void update_interest(struct stream_backend *self)
{
    bool reads = self->state == STREAM_CONNECTED && !self->guest_is_full;
    bool writes = self->state == STREAM_CONNECTING || self->to_peer.head != self->to_peer.tail;
    loop_watch_set(&self->connection->watch,
                   (reads ? UV_READABLE : 0) | (writes ? UV_WRITABLE : 0));
}

static void become_connected(struct stream_backend *self)
{
    int one = 1;
    setsockopt(self->connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    self->state = STREAM_CONNECTED;
    update_interest(self);
    net_set_link(&self->backend, true);
}

static void finish_connect(struct stream_backend *self)
{
    int code = 0;
    socklen_t length = sizeof(code);
    getsockopt(self->connection->fd, SOL_SOCKET, SO_ERROR, &code, &length);
    if (code)
        disconnect(self, strerror(code));
    else
        become_connected(self);
}

static void on_connection_ready(struct loop_watch *watch, int events)
{
    struct stream_backend *self = container_of(watch, struct connection, watch)->owner;
    if (self->state == STREAM_CONNECTING) {
        finish_connect(self);
        return;
    }
    if (events & UV_READABLE)
        loop_task_queue(&self->read_task);
    if (events & UV_WRITABLE)
        loop_task_queue(&self->write_task);
}

/* Takes `fd` over. */
static int adopt(struct stream_backend *self, int fd)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    CHECK(connection);
    connection->owner = self;
    connection->fd = fd;
    int result = loop_watch_init(self->backend.loop, &connection->watch, fd, on_connection_ready);
    if (result) {
        close(fd);
        free(connection);
        return result;
    }
    self->connection = connection;
    return 0;
}

static int start_connect(struct stream_backend *self)
{
    int fd = socket_address_open(&self->address, SOCK_STREAM);
    if (fd < 0)
        return fd;
    int result = connect(fd, &self->address.at.any, self->address.length) < 0 ? -errno : 0;
    if (result && result != -EINPROGRESS) {
        close(fd);
        return result;
    }
    self->state = STREAM_CONNECTING;
    int adopted = adopt(self, fd);
    if (!adopted)
        update_interest(self); /* writable: connected, or it failed */
    return adopted;
}

static void on_retry(struct loop_timer *timer)
{
    struct stream_backend *self = container_of(timer, struct stream_backend, retry_timer);
    if (start_connect(self))
        wait_for_next(self);
}

static void on_listen_ready(struct loop_watch *watch, int events)
{
    struct stream_backend *self = container_of(watch, struct stream_backend, listen_watch);
    (void)events;
    int fd = accept4(self->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 || adopt(self, fd))
        return;
    loop_watch_set(&self->listen_watch, 0);
    become_connected(self);
}

/* From the peer. */

/* True if it was handed on or dropped; false if the guest has no room. */
static bool deliver(struct stream_backend *self, uint8_t *frame, size_t length)
{
    const struct iovec iov = {frame, length};
    if (length < FRAME_MIN) {
        self->backend.stats.rx_dropped++;
        return true;
    }
    self->guest_is_full = net_receive(&self->backend, NULL, &iov, 1) == -EAGAIN;
    return !self->guest_is_full;
}

/* Hands on all whole frames. False if the peer broke the framing. */
static bool deliver_all(struct stream_backend *self)
{
    struct buffer *buffer = &self->from_peer;
    while (buffer->tail - buffer->head >= LENGTH_BYTES) {
        uint8_t *at = buffer->bytes + buffer->head;
        size_t length = load_be32(at);
        if (!length || length > FRAME_MAX)
            return false;
        if (buffer->tail - buffer->head < LENGTH_BYTES + length ||
            !deliver(self, at + LENGTH_BYTES, length))
            return true;
        buffer->head += LENGTH_BYTES + length;
    }
    return true;
}

static void make_room(struct buffer *buffer)
{
    if (BUFFER_BYTES - buffer->tail >= LENGTH_BYTES + FRAME_MAX)
        return;
    memmove(buffer->bytes, buffer->bytes + buffer->head, buffer->tail - buffer->head);
    buffer->tail -= buffer->head;
    buffer->head = 0;
}

/* One read. True if there may be more. */
static bool read_some(struct stream_backend *self, size_t *total)
{
    struct buffer *buffer = &self->from_peer;
    make_room(buffer);
    ssize_t count =
        read(self->connection->fd, buffer->bytes + buffer->tail, BUFFER_BYTES - buffer->tail);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (count <= 0) {
        disconnect(self, count ? strerror(errno) : "the other side closed it");
        return false;
    }
    bool was_filled = (size_t)count == BUFFER_BYTES - buffer->tail;
    buffer->tail += (size_t)count;
    *total += (size_t)count;
    if (!deliver_all(self)) {
        disconnect(self, "the other side sent a frame length that cannot be");
        return false;
    }
    if (buffer->head == buffer->tail)
        buffer->head = buffer->tail = 0;
    return was_filled;
}

static void on_read_task(struct loop_task *task)
{
    struct stream_backend *self = container_of(task, struct stream_backend, read_task);
    size_t total = 0;
    if (!deliver_all(self)) {
        disconnect(self, "the other side sent a frame length that cannot be");
        return;
    }
    while (!self->guest_is_full && total < READ_BUDGET_BYTES && read_some(self, &total)) {
    }
    if (self->connection)
        update_interest(self);
}

static void stream_receive_resume(struct net_backend *backend)
{
    struct stream_backend *self = from_backend(backend);
    self->guest_is_full = false;
    if (self->state == STREAM_CONNECTED)
        loop_task_queue(&self->read_task);
}

/* To the peer. */

static void on_write_task(struct loop_task *task)
{
    struct stream_backend *self = container_of(task, struct stream_backend, write_task);
    struct buffer *buffer = &self->to_peer;
    while (buffer->head != buffer->tail) {
        ssize_t count = send(self->connection->fd, buffer->bytes + buffer->head,
                             buffer->tail - buffer->head, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            break;
        if (count < 0) {
            disconnect(self, strerror(errno));
            return;
        }
        buffer->head += (size_t)count;
    }
    if (buffer->head == buffer->tail)
        buffer->head = buffer->tail = 0;
    else
        make_room(buffer);
    update_interest(self);
    if (BUFFER_BYTES - buffer->tail >= LENGTH_BYTES + FRAME_MAX)
        wake_guest(self);
}

static int stream_send(struct net_backend *backend, const struct net_meta *meta,
                       const struct iovec *iov, size_t iov_count)
{
    struct stream_backend *self = from_backend(backend);
    struct buffer *buffer = &self->to_peer;
    size_t length = iov_size(iov, iov_count);
    if (meta->flags || meta->gso_type)
        return -EINVAL;
    if (length < FRAME_MIN || length > FRAME_MAX)
        return -EMSGSIZE;
    if (self->state != STREAM_CONNECTED)
        return -ENOTCONN;
    if (BUFFER_BYTES - buffer->tail < LENGTH_BYTES + length) {
        self->guest_waits = true;
        loop_task_queue(&self->write_task);
        return -EAGAIN;
    }
    store_be32(buffer->bytes + buffer->tail, (uint32_t)length);
    iov_read(iov, iov_count, 0, buffer->bytes + buffer->tail + LENGTH_BYTES, length);
    buffer->tail += LENGTH_BYTES + length;
    loop_task_queue(&self->write_task);
    return 0;
}

static void stream_describe(const struct net_backend *backend, char *text, size_t size)
{
    const struct stream_backend *self = container_of(backend, struct stream_backend, backend);
    static const char *const states[] = {"listening on", "connecting to", "connected to",
                                         "waiting for", "disconnected from"};
    snprintf(text, size, "index=0,type=stream,%s %s", states[self->state], self->address.name);
}

/* Opening and closing. */

static void on_timer_closed(struct loop_timer *timer)
{
    release_handle(container_of(timer, struct stream_backend, retry_timer));
}

static void on_listen_closed(struct loop_watch *watch)
{
    release_handle(container_of(watch, struct stream_backend, listen_watch));
}

static void stream_close(struct net_backend *backend, void (*on_closed)(void *opaque), void *opaque)
{
    struct stream_backend *self = from_backend(backend);
    self->closing = (struct closing){on_closed, opaque};
    self->is_closing = true;
    drop_connection(self);
    loop_task_cancel(&self->read_task);
    loop_task_cancel(&self->write_task);
    if (self->listen_fd >= 0) {
        self->handles++;
        loop_watch_close(&self->listen_watch, on_listen_closed);
        socket_address_unlink(&self->address);
        close(self->listen_fd);
    }
    loop_timer_close(&self->retry_timer, on_timer_closed); /* held since create */
}

static const struct net_backend_ops stream_ops = {
    .kind = "stream",
    .send = stream_send,
    .receive_resume = stream_receive_resume,
    .describe = stream_describe,
    .close = stream_close,
};

static int start_server(struct stream_backend *self, struct error *err)
{
    int fd = socket_address_bind(&self->address, SOCK_STREAM, err);
    if (fd < 0)
        return fd;
    int result = listen(fd, 1) < 0 ? -errno : 0;
    if (!result)
        result = loop_watch_init(self->backend.loop, &self->listen_watch, fd, on_listen_ready);
    if (result) {
        close(fd);
        return error_set_errno(err, -result, "cannot listen on '%s'", self->address.name);
    }
    self->listen_fd = fd;
    wait_for_next(self);
    return 0;
}

static int start_client(struct stream_backend *self, struct error *err)
{
    int result = start_connect(self);
    if (result && self->reconnect_ms) {
        wait_for_next(self);
        return 0;
    }
    if (result)
        return error_set(err, -result,
                         "cannot connect to '%s': %s: start the other side first, or say "
                         "reconnect=1 to keep trying",
                         self->address.name, strerror(-result));
    return 0;
}

static uint8_t *make_buffer(void)
{
    void *bytes =
        mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(bytes != MAP_FAILED);
    return bytes;
}

static int start(struct stream_backend *self, const struct net_stream_options *options,
                 struct error *err)
{
    self->listen_fd = -1;
    self->is_server = options->is_server;
    self->reconnect_ms = options->reconnect_ms;
    self->backend.link_up = false;
    int result = socket_address_resolve(&options->address, &self->address, err);
    if (result)
        return result;
    result = loop_timer_init(self->backend.loop, &self->retry_timer, on_retry);
    if (result)
        return error_set_errno(err, -result, "cannot make a timer");
    self->handles = 1;
    self->from_peer.bytes = make_buffer();
    self->to_peer.bytes = make_buffer();
    return self->is_server ? start_server(self, err) : start_client(self, err);
}

int net_stream_create(struct loop *loop, const char *id, const struct net_stream_options *options,
                      struct net_backend **out, struct error *err)
{
    struct stream_backend *self = calloc(1, sizeof(*self));
    if (!self)
        return error_set_errno(err, ENOMEM, "netdev '%s'", id);
    net_backend_init(&self->backend, &stream_ops, loop, id);
    loop_task_init(loop, &self->read_task, LOOP_STAGE_DRAIN, on_read_task);
    loop_task_init(loop, &self->write_task, LOOP_STAGE_SUBMIT, on_write_task);
    int result = start(self, options, err);
    if (!result) {
        *out = &self->backend;
        return 0;
    }
    error_prefix(err, "netdev '%s'", id);
    if (self->handles)
        stream_close(&self->backend, NULL, NULL);
    else
        free(self);
    return result;
}
