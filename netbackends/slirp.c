/* SPDX-License-Identifier: MIT */
/*
 * slirp: libslirp behind the net interface. Only this and slirp_forward.c know libslirp.
 *
 * Theory of operation. libslirp wants to be asked before every wait which descriptors and timeout
 * it waits for (fill), and told after it what happened (poll). Both walk all of its sockets, so
 * they run only when something did happen: a frame from the guest, a ready descriptor, a timer, a
 * notify. All of that queues one task, which in each loop turn polls, hands frames to the NIC and
 * fills, in this order.
 *
 *   guest -> send() -> guard -> lane -> slirp_input  at once, in the turn's DRAIN stage
 *   libslirp -> send_packet -> merge -> to_guest     inside slirp_input or poll; never further,
 *                                                    or a frame sent would re-enter the NIC
 *   task: poll, to_guest -> net_receive, lanes, fill in the turn's COMPLETE stage
 *
 * What the host sends on a TCP connection that the guest opened goes past libslirp: see lane.h. A
 * connection that is broken off is never told as one that ended well: see endings.h.
 *
 * Backpressure: while to_guest is fuller than QUEUE_HIGH_BYTES the host's sockets are not read;
 * TCP's windows do the rest. What libslirp sends regardless (answers to the guest's own frames) is
 * dropped when the queue is full, as by a wire.
 *
 * The library is loaded for the first network of the process (slirp_library.h). What it gives to be
 * freed is the heap's: GLib has no other.
 *
 * An idle network costs no wake-up: libslirp asks for its half-second timer even for listening
 * sockets, so after a long enough silence it does not get it while there are no TCP connections.
 */
#include "netbackends/slirp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "base/iov.h"
#include "base/log.h"
#include "netbackends/fragment.h"
#include "netbackends/offload.h"
#include "netbackends/packet.h"
#include "netbackends/slirp_options.h"
#include "netbackends/slirp_private.h"

enum {
    QUEUE_BYTES = 1024 * 1024,
    QUEUE_HIGH_BYTES = 256 * 1024,
    FORWARD_BACKLOG = 128,
    SOCKETS_MAX = 8192,
    DESCRIPTORS_WANTED = 2 * SOCKETS_MAX,
    SOCKETS_SPARED = 128, /* descriptors that are left to the rest of the process */
    INPUT_MTU = 65521,    /* the longest that libslirp knows */
    SEGMENT_MTU = PACKET_IPV4_BYTES + PACKET_TCP_BYTES + MSS_OFFERED,
    TIMEOUT_NOTHING_MS = 1000,
    CLOCK_STALE_MS = 100,
};
static const uint64_t NS_PER_MS = 1000000;
/* Longer than fragments wait for each other, so that no half packet outlives the silence. */
static const uint64_t SILENCE_NS = UINT64_C(35) * 1000000000;

/* What libslirp calls. */

static int queue_piece(void *opaque, uint8_t *frame, size_t length)
{
    struct slirp_backend *self = opaque;
    struct net_meta cut;
    if (merge_push(&self->merge, &self->to_guest, frame, length, &cut))
        self->backend.stats.rx_dropped++;
    return 0;
}

/* `segment` is free: while a piece of a frame is in it, libslirp has a copy of its own. */
static void queue_piecewise(struct slirp_backend *self, const uint8_t *bytes, size_t length)
{
    struct net_meta cut;
    int result = merge_push(&self->merge, &self->to_guest, bytes, length, &cut);
    if (result == -EMSGSIZE)
        result = offload_segment(&cut, bytes, length, self->segment, queue_piece, self);
    if (result)
        self->backend.stats.rx_dropped++;
}

static void queue_tcp(struct slirp_backend *self, const uint8_t *bytes, size_t length,
                      const struct packet *packet)
{
    uint8_t reset[ENDINGS_FRAME_MAX];
    bool is_broken = endings_to_guest(&self->endings, bytes, packet, reset, &length);
    if (length)
        queue_piecewise(self, is_broken ? reset : bytes, length);
}

/* libslirp believes in a longer wire than there is: see start_slirp. */
static void queue_long(struct slirp_backend *self, const uint8_t *bytes, size_t length)
{
    memcpy(self->segment, bytes, length);
    if (fragment_ipv4(self->segment, length, MSS_MTU, queue_piece, self))
        queue_piece(self, self->segment, length);
}

/* What it says on a connection whose data goes past it. */
static void queue_control(struct slirp_backend *self, const uint8_t *bytes, size_t length,
                          const struct packet *packet)
{
    uint8_t frame[LANE_CONTROL_MAX];
    if (length > sizeof(frame) - 4) {
        self->backend.stats.rx_dropped++;
        return;
    }
    memcpy(frame, bytes, length);
    size_t mss = mss_of(&self->merge.mss, bytes, packet);
    if (lanes_to_guest(&self->lanes, frame, &length, packet, mss))
        queue_tcp(self, frame, length, packet);
}

static void queue_frame(struct slirp_backend *self, const uint8_t *bytes, size_t length)
{
    struct packet packet;
    size_t payload;
    bool is_tcp =
        packet_parse_ip(bytes, length, &packet) && packet_parse_tcp(bytes, &packet, &payload);
    if (is_tcp && lanes_know(&self->lanes, bytes, &packet))
        queue_control(self, bytes, length, &packet);
    else if (is_tcp)
        queue_tcp(self, bytes, length, &packet);
    else if (length <= PACKET_ETHERNET_BYTES + MSS_MTU)
        queue_piecewise(self, bytes, length);
    else
        queue_long(self, bytes, length);
}

static ssize_t on_send_packet(const void *bytes, size_t length, void *opaque)
{
    struct slirp_backend *self = opaque;
    if (self->is_closing)
        return (ssize_t)length;
    if (length > GUARD_FRAME_MAX)
        self->backend.stats.rx_dropped++;
    else
        queue_frame(self, bytes, length);
    loop_task_queue(&self->task);
    return (ssize_t)length;
}

static void on_guest_error(const char *message, void *opaque)
{
    const struct slirp_backend *self = opaque;
    log_limited("netdev '%s': %s", self->backend.id, message);
}

static int64_t on_clock(void *opaque)
{
    (void)opaque;
    return (int64_t)loop_now_ns();
}

static void *on_timer_new(SlirpTimerId id, void *timer_opaque, void *opaque)
{
    struct slirp_backend *self = opaque;
    CHECK(id == SLIRP_TIMER_RA);
    self->ra_timer.id = id;
    self->ra_timer.opaque = timer_opaque;
    return &self->ra_timer;
}

static void on_timer_free(void *timer, void *opaque)
{
    (void)opaque;
    ((struct slirp_timer *)timer)->deadline_ns = UINT64_MAX;
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    struct slirp_backend *self = opaque;
    ((struct slirp_timer *)timer)->deadline_ns = (uint64_t)MAX(expire_ms, 0) * NS_PER_MS;
    loop_task_queue(&self->task);
}

/* libslirp never announces all of its descriptors here, but those of a guest's connections; what
 * counts for the rest is fill. */
static void on_register_fd(int fd, void *opaque)
{
    struct slirp_backend *self = opaque;
    lanes_on_fd(&self->lanes, fd);
    endings_on_fd(&self->endings, fd);
}

static void on_unregister_fd(int fd, void *opaque)
{
    struct slirp_backend *self = opaque;
    lanes_on_fd_closed(&self->lanes, fd);
    endings_on_fd_closed(&self->endings, fd);
    poll_set_forget(&self->sockets, fd);
}

static void on_notify(void *opaque)
{
    struct slirp_backend *self = opaque;
    loop_task_queue(&self->task);
}

static void on_init_completed(Slirp *slirp, void *opaque)
{
    struct slirp_backend *self = opaque;
    self->slirp = slirp;
}

static const SlirpCb slirp_callbacks = {
    .send_packet = on_send_packet,
    .guest_error = on_guest_error,
    .clock_get_ns = on_clock,
    .timer_free = on_timer_free,
    .timer_mod = on_timer_mod,
    .register_poll_fd = on_register_fd,
    .unregister_poll_fd = on_unregister_fd,
    .notify = on_notify,
    .init_completed = on_init_completed,
    .timer_new_opaque = on_timer_new,
};

/* Once per turn: poll, deliver, fill. */

static int on_get_revents(int fd, void *opaque)
{
    struct slirp_backend *self = opaque;
    uint32_t ready = lanes_ready(&self->lanes, fd, poll_set_ready(&self->sockets, fd));
    ready = endings_ready(&self->endings, fd, ready);
    return (ready & EPOLLIN ? SLIRP_POLL_IN : 0) | (ready & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
           (ready & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (ready & EPOLLERR ? SLIRP_POLL_ERR : 0) |
           (ready & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static void poll_sockets(struct slirp_backend *self, uint64_t now_ns)
{
    bool has_events = self->sockets_ready && poll_set_collect(&self->sockets);
    self->sockets_ready = false;
    self->polled_ns = now_ns;
    if (has_events)
        self->last_activity_ns = now_ns;
    /* select_error set: timers only. */
    libslirp.pollfds_poll(self->slirp, !has_events, on_get_revents, self);
    if (self->ra_timer.deadline_ns <= now_ns) {
        self->ra_timer.deadline_ns = UINT64_MAX;
        libslirp.handle_timer(self->slirp, self->ra_timer.id, self->ra_timer.opaque);
    }
    struct ending_reset *reset;
    while ((reset = endings_next_reset(&self->endings)))
        libslirp.input(self->slirp, reset->bytes, (int)reset->length);
}

static void deliver(struct slirp_backend *self)
{
    struct frame *frame;
    merge_close(&self->merge, &self->to_guest);
    while (!self->guest_is_full && (frame = frame_queue_front(&self->to_guest))) {
        const struct iovec iov = {frame->bytes, frame->length};
        if (net_receive(&self->backend, &frame->meta, &iov, 1) == -EAGAIN)
            self->guest_is_full = true;
        else
            frame_queue_pop(&self->to_guest);
    }
}

static int on_lane_frame(void *opaque, const struct net_meta *meta, const struct iovec *iov,
                         size_t iov_count)
{
    struct slirp_backend *self = opaque;
    int result = net_receive(&self->backend, meta, iov, iov_count);
    if (result == -EAGAIN)
        self->guest_is_full = true;
    return result;
}

/* After what libslirp said, which is older. */
static void pump_lanes(struct slirp_backend *self, uint64_t now_ns)
{
    if (lanes_pump(&self->lanes, now_ns, self->guest_is_full ? NULL : on_lane_frame, self))
        loop_task_queue(&self->task);
}

static int on_add_poll(int fd, int events, void *opaque)
{
    struct slirp_backend *self = opaque;
    uint32_t wanted = (events & SLIRP_POLL_IN ? EPOLLIN : 0u) |
                      (events & SLIRP_POLL_OUT ? EPOLLOUT : 0u) |
                      (events & SLIRP_POLL_PRI ? EPOLLPRI : 0u) | EPOLLERR | EPOLLHUP;
    wanted = lanes_wanted(&self->lanes, fd, endings_wanted(&self->endings, fd, wanted));
    if (!wanted)
        return fd;
    bool is_new = poll_set_want(&self->sockets, fd, wanted);
    /* libslirp listens with a backlog of one. On other sockets this fails and changes nothing. */
    if (is_new && self->widens_backlog && !(wanted & (EPOLLOUT | EPOLLPRI)))
        unused_result(listen(fd, FORWARD_BACKLOG));
    return fd;
}

/* Forwards, and datagrams: those only wait to be forgotten, which the next activity does as well.
 */
static bool can_sleep(const char *line)
{
    return !*line || strstr(line, "[HOST_FORWARD]") || strncmp(line, "  UDP[", 6) == 0 ||
           strncmp(line, "  ICMP[", 7) == 0;
}

static bool may_be_silent(const struct slirp_backend *self)
{
    char *table = libslirp.connection_info(self->slirp), *rest = table;
    bool result = true;
    strsep(&rest, "\n"); /* the heading */
    for (char *line; result && (line = strsep(&rest, "\n"));)
        result = can_sleep(line);
    free(table);
    return result;
}

/* Nothing moves, and what waits for a timer has run out: no need to look twice a second. */
static bool is_silent(struct slirp_backend *self, uint64_t now_ns)
{
    if (now_ns - self->last_activity_ns < SILENCE_NS)
        return false;
    if (may_be_silent(self))
        return true;
    self->last_activity_ns = now_ns;
    return false;
}

static void set_timer(struct slirp_backend *self, uint32_t timeout_ms, uint64_t now_ns)
{
    uint64_t deadline_ns = MIN(self->ra_timer.deadline_ns, lanes_deadline(&self->lanes));
    if (timeout_ms < TIMEOUT_NOTHING_MS && !is_silent(self, now_ns))
        deadline_ns = MIN(deadline_ns, now_ns + timeout_ms * NS_PER_MS);
    /* A timer that is early is cheaper than moving it in every turn. */
    if (deadline_ns == UINT64_MAX) {
        loop_timer_disarm(&self->timer);
        self->wake_ns = UINT64_MAX;
    } else if (deadline_ns < self->wake_ns) {
        loop_timer_arm(&self->timer, deadline_ns);
        self->wake_ns = deadline_ns;
    }
}

static void fill_sockets(struct slirp_backend *self, uint64_t now_ns)
{
    uint32_t timeout_ms = UINT32_MAX;
    poll_set_begin(&self->sockets);
    libslirp.pollfds_fill(self->slirp, &timeout_ms, on_add_poll, self);
    poll_set_commit(&self->sockets);
    self->widens_backlog = false;
    self->guard.refuses_new_flows =
        poll_set_size(&self->sockets) + 2 * slirp_forward_relayed(self) >= self->sockets_max;
    set_timer(self, timeout_ms, now_ns);
    bool is_full = frame_queue_bytes(&self->to_guest) > QUEUE_HIGH_BYTES;
    loop_watch_set(&self->watch, is_full ? 0 : UV_READABLE);
}

static void on_task(struct loop_task *task)
{
    struct slirp_backend *self = container_of(task, struct slirp_backend, task);
    uint64_t now_ns = loop_now_ns();
    poll_sockets(self, now_ns);
    deliver(self);
    if (lanes_deadline(&self->lanes) <= now_ns)
        lanes_expire(&self->lanes, now_ns);
    pump_lanes(self, now_ns);
    fill_sockets(self, now_ns);
}

static void on_sockets_ready(struct loop_watch *watch, int events)
{
    struct slirp_backend *self = container_of(watch, struct slirp_backend, watch);
    (void)events;
    self->sockets_ready = true;
    loop_task_queue(&self->task);
}

static void on_timer(struct loop_timer *timer)
{
    struct slirp_backend *self = container_of(timer, struct slirp_backend, timer);
    self->wake_ns = UINT64_MAX;
    if (!self->is_closing) /* it outlives libslirp's state by a few turns */
        loop_task_queue(&self->task);
}

/* The operations of a backend. */

static int input_checked(struct slirp_backend *self, uint8_t *frame, size_t length)
{
    struct packet packet;
    size_t payload;
    bool is_tcp =
        packet_parse_ip(frame, length, &packet) && packet_parse_tcp(frame, &packet, &payload);
    if (is_tcp && !lanes_from_guest(&self->lanes, frame, &packet, payload, self->last_activity_ns))
        return 0;
    if (is_tcp)
        endings_from_guest(&self->endings, frame, &packet);
    libslirp.input(self->slirp, frame, (int)length);
    lanes_taken(&self->lanes);
    endings_taken(&self->endings);
    return 0;
}

/* libslirp takes a FIN even where its window has no room for the data before it: as two frames,
 * the end waits until all has come. */
static int input(void *opaque, uint8_t *frame, size_t length)
{
    struct slirp_backend *self = opaque;
    uint8_t end[ENDINGS_FRAME_MAX];
    if (!guard_check(&self->guard, frame, length))
        return -EPERM;
    size_t end_bytes = endings_split(frame, length, end);
    int result = input_checked(self, frame, length);
    return end_bytes ? input_checked(self, end, end_bytes) : result;
}

/* libslirp takes IPv4 of any size, but holds IPv6 to its longest MTU. */
static int input_described(struct slirp_backend *self, const struct net_meta *meta, size_t length)
{
    switch (meta->gso_type & ~NET_GSO_ECN) {
    case NET_GSO_NONE:
    case NET_GSO_TCPV4:
        break;
    case NET_GSO_TCPV6:
        if (load_be16(self->frame + 12) == PACKET_TYPE_IPV6 &&
            length <= PACKET_ETHERNET_BYTES + PACKET_IPV6_BYTES + INPUT_MTU)
            break;
        return offload_segment(meta, self->frame, length, self->segment, input, self);
    default:
        return -EINVAL;
    }
    if (offload_finish_checksum(meta, self->frame, length))
        return -EINVAL;
    return input(self, self->frame, length);
}

static int slirp_send(struct net_backend *backend, const struct net_meta *meta,
                      const struct iovec *iov, size_t iov_count)
{
    struct slirp_backend *self = slirp_from_backend(backend);
    size_t length = iov_size(iov, iov_count);
    if (length < 14 || length > sizeof(self->frame))
        return -EMSGSIZE;
    iov_read(iov, iov_count, 0, self->frame, length);
    uint64_t now_ns = loop_now_ns();
    self->last_activity_ns = now_ns;
    /* libslirp's clock stands still between polls; new sockets count their lifetime from it. */
    if (now_ns - self->polled_ns > CLOCK_STALE_MS * NS_PER_MS) {
        self->polled_ns = now_ns;
        libslirp.pollfds_poll(self->slirp, 1, on_get_revents, self);
    }
    loop_task_queue(&self->task);
    int result = input_described(self, meta, length);
    slirp_forward_sent(self);
    return result;
}

static void slirp_receive_resume(struct net_backend *backend)
{
    struct slirp_backend *self = slirp_from_backend(backend);
    self->guest_is_full = false;
    loop_task_queue(&self->task);
}

static unsigned slirp_offloads(const struct net_backend *backend)
{
    (void)backend;
    return NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN;
}

static void slirp_set_guest_offloads(struct net_backend *backend, unsigned offloads)
{
    struct slirp_backend *self = slirp_from_backend(backend);
    merge_close(&self->merge, &self->to_guest);
    /* Frames that the guest no longer understands are lost as on a wire; TCP sends them again. */
    if (self->merge.offloads & ~offloads)
        frame_queue_clear(&self->to_guest);
    self->merge.offloads = self->lanes.offloads = offloads;
}

/* The descriptor of a connection that a guest knew of, or -1. */
static int connection_of(const char *line)
{
    char state[20];
    int fd;
    if (sscanf(line, " TCP[%19[^]]] %d", state, &fd) != 2 || strcmp(state, "HOST_FORWARD") == 0 ||
        strcmp(state, "SYN_SENT") == 0)
        return -1;
    return fd;
}

/* Nobody would ever end its connections; those that wait for its first answer go on waiting. What
 * libslirp can notice now it forgets now: the guest's next life may use the same ports. */
static void slirp_guest_reset(struct net_backend *backend)
{
    struct slirp_backend *self = slirp_from_backend(backend);
    char *table = libslirp.connection_info(self->slirp), *rest = table;
    for (char *line; (line = strsep(&rest, "\n"));) {
        int fd = connection_of(line);
        if (fd < 0)
            continue;
        lanes_abandon(&self->lanes, fd);
        endings_break_off(&self->endings, fd);
    }
    free(table);
    fill_sockets(self, loop_now_ns());
    self->sockets_ready = true;
    poll_sockets(self, loop_now_ns());
    merge_close(&self->merge, &self->to_guest);
    frame_queue_clear(&self->to_guest);
    loop_task_queue(&self->task);
}

static void slirp_describe(const struct net_backend *backend, char *text, size_t size)
{
    const struct slirp_backend *self = slirp_from_backend(backend);
    char net[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &self->net, net, sizeof(net));
    snprintf(text, size, "index=0,type=user,net=%s,restrict=%s", net,
             self->is_restricted ? "on" : "off");
}

/* Everything but the loop's handles. */
static void release(struct slirp_backend *self)
{
    self->is_closing = true;
    slirp_forward_release(self);
    if (self->slirp)
        libslirp.cleanup(self->slirp);
    loop_task_cancel(&self->task);
    poll_set_fini(&self->sockets);
    lanes_fini(&self->lanes);
    frame_queue_fini(&self->to_guest);
}

void slirp_release_handle(struct slirp_backend *self)
{
    if (--self->handles)
        return;
    struct closing closing = self->closing;
    free(self);
    closing_tell(closing);
}

static void on_timer_closed(struct loop_timer *timer)
{
    slirp_release_handle(container_of(timer, struct slirp_backend, timer));
}

static void on_watch_closed(struct loop_watch *watch)
{
    struct slirp_backend *self = container_of(watch, struct slirp_backend, watch);
    loop_timer_close(&self->timer, on_timer_closed);
}

static void slirp_close(struct net_backend *backend, void (*on_closed)(void *opaque), void *opaque)
{
    struct slirp_backend *self = slirp_from_backend(backend);
    self->closing = (struct closing){on_closed, opaque};
    loop_watch_close(&self->watch, on_watch_closed);
    release(self);
}

static const struct net_backend_ops slirp_ops = {
    .kind = "user",
    .send = slirp_send,
    .receive_resume = slirp_receive_resume,
    .offloads = slirp_offloads,
    .set_guest_offloads = slirp_set_guest_offloads,
    .guest_reset = slirp_guest_reset,
    .describe = slirp_describe,
    .close = slirp_close,
};

bool net_backend_is_slirp(const struct net_backend *backend)
{
    return backend->ops == &slirp_ops;
}

char *net_slirp_connections(const struct net_backend *backend)
{
    CHECK(net_backend_is_slirp(backend));
    return libslirp.connection_info(slirp_from_backend(backend)->slirp);
}

/* Making one. */

static int start_slirp(struct slirp_backend *self, const struct net_slirp_options *options,
                       const struct slirp_addresses *addresses, struct error *err)
{
    const char *names[SLIRP_DNSSEARCH_MAX + 1];
    char *names_owner = slirp_options_split(options->dnssearch, names);
    const SlirpConfig config = {
        .version = 4,
        .restricted = options->restrict_access,
        .in_enabled = !options->ipv4_off,
        .vnetwork = addresses->net,
        .vnetmask = addresses->mask,
        .vhost = addresses->host,
        .in6_enabled = !options->ipv6_off,
        .vprefix_addr6 = addresses->prefix6,
        .vprefix_len = addresses->prefix6_bits,
        .vhost6 = addresses->host6,
        .vhostname = options->hostname,
        .tftp_path = options->tftp,
        .tftp_server_name = options->tftp_server_name,
        .bootfile = options->bootfile,
        .vdhcp_start = addresses->dhcpstart,
        .vnameserver = addresses->dns,
        .vnameserver6 = addresses->dns6,
        .vdnssearch = names[0] ? names : NULL,
        .vdomainname = options->domainname,
        .disable_host_loopback = options->disable_host_loopback,
        /* By if_mtu it judges what comes in over IPv6 and cuts what goes out over IPv4; by the
         * smaller one it chooses how long TCP's segments are. What the guest asks for it forgets
         * where it has to wait for its own connect(). */
        .if_mtu = INPUT_MTU,
        .if_mru = SEGMENT_MTU,
    };
    int result = slirp_library_load(err);
    if (!result)
        self->slirp = libslirp.new(&config, &slirp_callbacks, self);
    free(names_owner);
    if (!result && !self->slirp)
        result = error_set(err, EINVAL, "libslirp refuses the network options");
    return result;
}

static size_t count_sockets_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return SOCKETS_MAX;
    /* The usual limit of 1024 is there for programs that use select(). */
    limit.rlim_cur = MAX(limit.rlim_cur, MIN(limit.rlim_max, (rlim_t)DESCRIPTORS_WANTED));
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur == RLIM_INFINITY)
        return SOCKETS_MAX;
    size_t usable = limit.rlim_cur > SOCKETS_SPARED ? limit.rlim_cur - SOCKETS_SPARED : 0;
    return MIN(MAX(usable, limit.rlim_cur / 2), SOCKETS_MAX);
}

static int start(struct slirp_backend *self, const struct net_slirp_options *options,
                 struct error *err)
{
    struct slirp_addresses addresses = {0};
    int result = slirp_options_check_strings(options, err);
    if (!result)
        result = slirp_options_addresses(options, &addresses, err);
    if (!result)
        result = start_slirp(self, options, &addresses, err);
    if (result)
        return result;
    self->net = addresses.net;
    self->mask = addresses.mask;
    self->dns = addresses.dns;
    self->is_restricted = options->restrict_access;
    self->guard.allows_tftp = options->tftp != NULL;
    self->guard.mss = &self->merge.mss;
    self->guard.host_only = options->host_only;
    memcpy(self->guard.host, &addresses.host, sizeof(self->guard.host));
    memcpy(self->guard.host6, &addresses.host6, sizeof(self->guard.host6));
    for (size_t i = 0; !result && i < options->forward_count; i++)
        result = net_slirp_forward_add(&self->backend, &options->forwards[i], err);
    for (size_t i = 0; !result && i < options->guest_forward_count; i++)
        result = net_slirp_guest_forward_add(&self->backend, &options->guest_forwards[i], err);
    return result;
}

/* The loop's handles come last: they cannot be given up at once. */
static int join_loop(struct slirp_backend *self, struct loop *loop, struct error *err)
{
    int result = loop_timer_init(loop, &self->timer, on_timer);
    if (result)
        return error_set_errno(err, -result, "cannot make a timer");
    result = loop_watch_init(loop, &self->watch, self->sockets.epoll_fd, on_sockets_ready);
    CHECK(result == 0); /* an epoll descriptor can always be polled */
    loop_task_queue(&self->task);
    return 0;
}

static int allocate(struct loop *loop, const char *id, struct slirp_backend **out,
                    struct error *err)
{
    struct slirp_backend *self = calloc(1, sizeof(*self));
    if (!self)
        return error_set_errno(err, ENOMEM, "cannot make a network");
    net_backend_init(&self->backend, &slirp_ops, loop, id);
    loop_task_init(loop, &self->task, LOOP_STAGE_COMPLETE, on_task);
    list_init(&self->forwards);
    list_init(&self->guest_forwards);
    self->handles = 1;
    self->wake_ns = self->ra_timer.deadline_ns = UINT64_MAX;
    self->last_activity_ns = loop_now_ns();
    self->sockets_max = count_sockets_max();
    int result = poll_set_init(&self->sockets);
    if (!result)
        result = lanes_init(&self->lanes);
    if (!result)
        result = frame_queue_init(&self->to_guest, QUEUE_BYTES);
    if (result) {
        release(self);
        slirp_release_handle(self);
        return error_set_errno(err, -result, "cannot make a network");
    }
    *out = self;
    return 0;
}

int net_slirp_create(struct loop *loop, const char *id, const struct net_slirp_options *options,
                     struct net_backend **out, struct error *err)
{
    struct slirp_backend *self = NULL;
    net_ignore_sigpipe();
    int result = allocate(loop, id, &self, err);
    if (result)
        return result;
    result = start(self, options, err);
    if (!result)
        result = join_loop(self, loop, err);
    if (result) {
        release(self);
        slirp_release_handle(self);
        error_prefix(err, "netdev '%s'", id);
        return result;
    }
    *out = &self->backend;
    return 0;
}
