/* SPDX-License-Identifier: MIT */
/*
 * relay: pairs of sockets, a buffer each way.
 *
 * Each side reads into its own buffer, which the other side writes out; a side that has no room is
 * not read. The end of what one side says is passed on as a shutdown once all of it is through, so
 * half-closed connections work. The listening socket has no name any more when it is ready: it is
 * reached through its descriptor.
 */
#include "netbackends/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/closing.h"
#include "base/list.h"
#include "base/log.h"

enum { BUFFER_BYTES = 64 * 1024, BACKLOG = 4096, PAIRS_MAX = 1024, ACCEPTS_MAX = 4096 };

struct side {
    struct loop_watch watch;
    struct pair *pair;
    int fd;
    size_t head, tail; /* of what was read here and not written there */
    bool has_ended;    /* nothing more comes from here */
    bool is_shut;      /* it was told that nothing more comes */
    uint8_t bytes[BUFFER_BYTES];
};

struct pair {
    struct list node;
    struct relay *relay;
    bool is_connecting; /* its outer side */
    unsigned handles;
    struct side inner, outer;
};

struct relay {
    struct loop *loop;
    char id[64];
    struct socket_address target;
    int listen_fd, path_fd;
    char path[32];
    struct loop_watch watch;
    struct list pairs;
    size_t count;
    unsigned handles; /* the watch, and pairs that are not gone yet */
    struct closing closing;
};

static void release(struct relay *relay)
{
    if (--relay->handles)
        return;
    struct closing closing = relay->closing;
    free(relay);
    closing_tell(closing);
}

/* Pairs. */

static void on_side_closed(struct loop_watch *watch)
{
    struct pair *pair = container_of(watch, struct side, watch)->pair;
    struct relay *relay = pair->relay;
    if (--pair->handles)
        return;
    free(pair);
    release(relay);
}

static void close_side(struct side *side)
{
    loop_watch_close(&side->watch, on_side_closed);
    close(side->fd);
}

static void close_pair(struct pair *pair)
{
    list_remove(&pair->node);
    pair->relay->count--;
    close_side(&pair->inner);
    close_side(&pair->outer);
}

/* False if the pair has come to its end. */
static bool fill(struct side *from)
{
    if (from->has_ended || from->head != from->tail)
        return true;
    ssize_t count = recv(from->fd, from->bytes, BUFFER_BYTES, MSG_DONTWAIT);
    if (count < 0)
        return errno == EAGAIN || errno == EINTR;
    from->head = 0;
    from->tail = (size_t)count;
    from->has_ended = count == 0;
    return true;
}

static bool drain(struct side *from, struct side *to)
{
    while (from->head != from->tail) {
        ssize_t count = send(to->fd, from->bytes + from->head, from->tail - from->head,
                             MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno != EINTR)
            return errno == EAGAIN;
        from->head += count > 0 ? (size_t)count : 0;
    }
    if (from->has_ended && !to->is_shut) {
        to->is_shut = true;
        shutdown(to->fd, SHUT_WR);
    }
    return true;
}

static void update_interest(struct side *side, const struct side *other)
{
    bool reads = !side->has_ended && side->head == side->tail;
    bool writes = other->head != other->tail;
    loop_watch_set(&side->watch, (reads ? UV_READABLE : 0) | (writes ? UV_WRITABLE : 0));
}

static void step(struct pair *pair)
{
    struct side *inner = &pair->inner, *outer = &pair->outer;
    if (!fill(inner) || !drain(inner, outer) || !fill(outer) || !drain(outer, inner) ||
        (inner->is_shut && outer->is_shut)) {
        close_pair(pair);
        return;
    }
    update_interest(inner, outer);
    update_interest(outer, inner);
}

static void explain(const struct relay *relay, int code)
{
    log_limited("netdev '%s': cannot connect a guest to '%s': %s", relay->id, relay->target.name,
                strerror(code));
}

static void on_side_ready(struct loop_watch *watch, int events)
{
    struct pair *pair = container_of(watch, struct side, watch)->pair;
    int code = 0;
    socklen_t length = sizeof(code);
    (void)events;
    if (pair->is_connecting) {
        getsockopt(pair->outer.fd, SOL_SOCKET, SO_ERROR, &code, &length);
        pair->is_connecting = false;
    }
    if (!code) {
        step(pair);
        return;
    }
    explain(pair->relay, code);
    close_pair(pair);
}

/* A new connection. */

/* 0 or -errno; -EAGAIN is a local server whose backlog is full. */
static int connect_target(const struct relay *relay, bool *is_connecting, int *out)
{
    int fd = socket_address_open(&relay->target, SOCK_STREAM);
    if (fd < 0)
        return fd;
    int result = connect(fd, &relay->target.at.any, relay->target.length) < 0 ? -errno : 0;
    *is_connecting = result == -EINPROGRESS;
    if (result && !*is_connecting) {
        close(fd);
        return result;
    }
    *out = fd;
    return 0;
}

static int watch_side(struct pair *pair, struct side *side, int fd)
{
    side->pair = pair;
    side->fd = fd;
    return loop_watch_init(pair->relay->loop, &side->watch, fd, on_side_ready);
}

static void start_pair(struct relay *relay, int fd)
{
    bool is_connecting;
    int outer_fd;
    int result =
        relay->count < PAIRS_MAX ? connect_target(relay, &is_connecting, &outer_fd) : -EMFILE;
    if (result) {
        explain(relay, -result);
        close(fd);
        return;
    }
    struct pair *pair = calloc(1, sizeof(*pair));
    CHECK(pair);
    pair->relay = relay;
    pair->is_connecting = is_connecting;
    pair->handles = 2;
    /* Sockets can always be polled. */
    CHECK(!watch_side(pair, &pair->inner, fd) && !watch_side(pair, &pair->outer, outer_fd));
    list_push_back(&relay->pairs, &pair->node);
    relay->count++;
    relay->handles++;
    if (is_connecting)
        loop_watch_set(&pair->outer.watch, UV_WRITABLE);
    else
        step(pair);
}

void relay_accept(struct relay *relay)
{
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept4(relay->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        start_pair(relay, fd);
    }
}

static void on_listen_ready(struct loop_watch *watch, int events)
{
    (void)events;
    relay_accept(container_of(watch, struct relay, watch));
}

/* Making and closing one. */

/* Binds in a folder of its own, keeps the inode, removes the name. */
static int listen_privately(struct relay *relay, struct error *err)
{
    char folder[] = "/tmp/evisor-relay-XXXXXX", path[sizeof(folder) + 2];
    struct socket_address own;
    if (!mkdtemp(folder))
        return error_set_errno(err, errno, "cannot make a folder in /tmp");
    snprintf(path, sizeof(path), "%s/s", folder);
    const struct net_socket_address where = {.path = path};
    int result = socket_address_resolve(&where, &own, err);
    relay->listen_fd = result ? result : socket_address_bind(&own, SOCK_STREAM, err);
    if (relay->listen_fd >= 0) {
        relay->path_fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (relay->path_fd < 0 || listen(relay->listen_fd, BACKLOG) < 0)
            error_set_errno(err, errno, "cannot listen in '%s'", folder);
        socket_address_unlink(&own);
    }
    rmdir(folder);
    snprintf(relay->path, sizeof(relay->path), "/proc/self/fd/%d", relay->path_fd);
    return relay->listen_fd < 0 || relay->path_fd < 0 ? -EIO : 0;
}

int relay_create(struct loop *loop, const char *id, const struct net_socket_address *target,
                 struct relay **out, struct error *err)
{
    struct relay *relay = calloc(1, sizeof(*relay));
    if (!relay)
        return error_set_errno(err, ENOMEM, "cannot make a forward");
    relay->loop = loop;
    relay->listen_fd = relay->path_fd = -1;
    relay->handles = 1;
    list_init(&relay->pairs);
    snprintf(relay->id, sizeof(relay->id), "%s", id);
    int result = socket_address_resolve(target, &relay->target, err);
    if (!result)
        result = listen_privately(relay, err);
    if (!result) {
        CHECK(!loop_watch_init(loop, &relay->watch, relay->listen_fd, on_listen_ready));
        loop_watch_set(&relay->watch, UV_READABLE);
        *out = relay;
        return 0;
    }
    if (relay->listen_fd >= 0)
        close(relay->listen_fd);
    if (relay->path_fd >= 0)
        close(relay->path_fd);
    free(relay);
    return result;
}

const char *relay_path(const struct relay *relay)
{
    return relay->path;
}

size_t relay_count(const struct relay *relay)
{
    return relay->count;
}

static void on_watch_closed(struct loop_watch *watch)
{
    release(container_of(watch, struct relay, watch));
}

void relay_close(struct relay *relay, void (*on_closed)(void *opaque), void *opaque)
{
    relay->closing = (struct closing){on_closed, opaque};
    while (!list_is_empty(&relay->pairs))
        close_pair(list_entry(relay->pairs.next, struct pair, node));
    loop_watch_close(&relay->watch, on_watch_closed);
    close(relay->listen_fd);
    close(relay->path_fd);
}
