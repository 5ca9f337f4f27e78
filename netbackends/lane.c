/* SPDX-License-Identifier: MIT */
/*
 * lane: the host's half of a TCP connection, beside libslirp.
 *
 * Theory of operation. libslirp sends a lane's guest no data: its next sequence number stays at the
 * one after its SYN (`base`) until its FIN. So the numbers of its frames are moved up by what the
 * lane has sent (max - base), and the guest's acknowledgements are moved down by as much of that as
 * they cover: libslirp sees a connection whose other side is silent, then ends.
 *
 *   ring:   [ una ... nxt ... una + held | free ]
 *             sent once,  to be sent       recv()
 *
 * The wire to the guest loses nothing of its own accord; a guest that is out of memory does. Three
 * duplicate acknowledgements send the oldest frame again, and a timeout goes back to `una` with a
 * small window that grows as it is acknowledged. A window that stays shut is probed with one byte.
 *
 * The end: once recv() gave it and all is sent, the socket is released to libslirp, which reads the
 * same end by itself and sends FIN or RST behind the lane's last byte.
 */
#include "netbackends/lane.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/socket.h"

enum {
    ROOM_LEAST = 64 * 1024, /* free in the ring, for the socket to be watched */
    TIMEOUTS_MAX = 30,      /* eight minutes, as libslirp */
    TIMEOUTS_SHUT = 5,      /* a guest that answers probes is waited for */
    DUPLICATES = 3,
    CWND_SEGMENTS = 10, /* after a timeout */
    IP_BYTES_MAX = 65535,
    OPTION_NOP = 1,
    OPTION_SCALE = 3,
    OPTION_SCALE_BYTES = 3,
    SCALE_MAX = 14, /* RFC 7323, section 2.3 */
};
static const uint64_t RTO_NS = UINT64_C(300) * 1000 * 1000;
static const uint64_t RTO_MAX_NS = UINT64_C(20) * 1000 * 1000 * 1000;
static const uint64_t PASS_NS = UINT64_C(1000) * 1000 * 1000;

int lanes_init(struct lane_set *set)
{
    const size_t bytes = (size_t)LANES_MAX * LANE_RING_BYTES;
    void *rings = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (rings == MAP_FAILED)
        return -errno;
    set->rings = rings;
    return 0;
}

void lanes_fini(struct lane_set *set)
{
    if (set->rings)
        munmap(set->rings, (size_t)LANES_MAX * LANE_RING_BYTES);
    set->rings = NULL;
    set->count = 0;
}

/* Which lane. */

static struct lane *of_fd(const struct lane_set *set, int fd)
{
    unsigned index = set->count && fd >= 0 && fd < LANE_FDS_MAX ? set->by_fd[fd] : 0;
    return index ? (struct lane *)&set->lanes[index - 1] : NULL;
}

static struct lane *of_frame(const struct lane_set *set, const uint8_t *frame,
                             const struct packet *packet, bool is_from_guest)
{
    struct flow flow;
    if (!set->count)
        return NULL;
    flow_find(frame, packet, is_from_guest, &flow);
    uint32_t hash = flow_hash(&flow);
    for (size_t i = 0; i < LANES_MAX; i++) {
        const struct lane *lane = &set->lanes[i];
        if (lane->state != LANE_FREE && lane->hash == hash && flow_equals(&lane->flow, &flow))
            return (struct lane *)lane;
    }
    return NULL;
}

void lanes_on_fd(struct lane_set *set, int fd)
{
    lanes_on_fd_closed(set, fd); /* if it is, nobody said so */
    if (!set->has_pending || fd < 0 || fd >= LANE_FDS_MAX)
        return;
    set->has_pending = false;
    for (size_t i = 0; i < LANES_MAX; i++) {
        struct lane *lane = &set->lanes[i];
        if (lane->state != LANE_FREE)
            continue;
        *lane = set->pending;
        lane->fd = fd;
        lane->ring = set->rings + i * LANE_RING_BYTES;
        set->by_fd[fd] = (uint8_t)(i + 1);
        set->count++;
        return;
    }
}

/* Those that a large transfer took; the first few stay for the next. */
static void give_pages_back(const struct lane *lane)
{
    uint32_t taken = lane->una - lane->base + (uint32_t)lane->held;
    if (taken > ROOM_LEAST)
        madvise(lane->ring + ROOM_LEAST, LANE_RING_BYTES - ROOM_LEAST, MADV_DONTNEED);
}

void lanes_on_fd_closed(struct lane_set *set, int fd)
{
    struct lane *lane = of_fd(set, fd);
    if (!lane)
        return;
    give_pages_back(lane);
    lane->state = LANE_FREE;
    set->by_fd[fd] = 0;
    set->count--;
}

/* From the guest. */

static void read_scale(const uint8_t *option, const uint8_t *end, struct lane *lane)
{
    while (option < end && option[0] != 0) {
        if (option[0] == OPTION_NOP) {
            option++;
            continue;
        }
        if (option[0] == OPTION_SCALE && option[1] == OPTION_SCALE_BYTES) {
            lane->has_scale = true;
            lane->shift = MIN(option[2], SCALE_MAX);
        }
        option += option[1];
    }
}

/* Becomes a lane if libslirp opens a socket for it. */
static void begin(struct lane_set *set, const uint8_t *frame, const struct packet *packet,
                  size_t payload)
{
    struct lane *lane = &set->pending;
    *lane = (struct lane){.state = LANE_CONNECTING, .deadline_ns = UINT64_MAX};
    flow_find(frame, packet, true, &lane->flow);
    lane->hash = flow_hash(&lane->flow);
    read_scale(frame + packet->transport + PACKET_TCP_BYTES, frame + payload, lane);
    set->has_pending = true;
}

static void rewind_clock(struct lane *lane, uint64_t now_ns)
{
    uint64_t wait_ns = MIN(RTO_NS << lane->timeouts, RTO_MAX_NS);
    bool is_waiting = lane->is_established && lane->held;
    lane->deadline_ns = is_waiting ? now_ns + wait_ns : UINT64_MAX;
}

static void acknowledge(struct lane *lane, uint32_t bytes, uint64_t now_ns)
{
    lane->held -= bytes;
    lane->una += bytes;
    /* What fits into few pages stays in them. */
    lane->at = lane->held ? (lane->at + bytes) % LANE_RING_BYTES : 0;
    if (!lane->held && lane->state == LANE_RELEASED)
        give_pages_back(lane);
    if ((int32_t)(lane->nxt - lane->una) < 0)
        lane->nxt = lane->una;
    lane->cwnd = MIN(lane->cwnd + bytes, (uint32_t)LANE_RING_BYTES);
    lane->duplicates = 0;
    lane->must_resend = false;
    lane->timeouts = 0;
    rewind_clock(lane, now_ns);
}

static void count_duplicate(struct lane *lane, bool is_pure, uint32_t window)
{
    if (!window)
        lane->timeouts = MIN(lane->timeouts, TIMEOUTS_SHUT);
    if (!is_pure || window != lane->window || lane->nxt == lane->una)
        return;
    if (lane->duplicates < UINT8_MAX && ++lane->duplicates == DUPLICATES)
        lane->must_resend = true;
}

/* What the guest says of the lane's bytes. True if it acknowledged some. */
static bool hear(struct lane *lane, const uint8_t *tcp, bool is_pure, uint64_t now_ns)
{
    uint32_t bytes = load_be32(tcp + 8) - lane->una, sent = lane->max - lane->una;
    uint32_t window = (uint32_t)load_be16(tcp + 14) << lane->shift;
    /* libslirp's FIN counts as one more. */
    if (lane->state == LANE_RELEASED && bytes == sent + 1)
        bytes = sent;
    if (bytes > sent)
        return false;
    lane->is_established = true;
    if (bytes)
        acknowledge(lane, bytes, now_ns);
    else
        count_duplicate(lane, is_pure, window);
    lane->window = window;
    lane->window_max = MAX(lane->window_max, window);
    return bytes != 0;
}

static void add_to_word(uint8_t *tcp, size_t at, uint32_t more)
{
    uint32_t before = load_be32(tcp + at), after = before + more;
    store_be32(tcp + at, after);
    packet_adjust_checksum(tcp + 16, (uint16_t)(before >> 16), (uint16_t)(after >> 16));
    packet_adjust_checksum(tcp + 16, (uint16_t)before, (uint16_t)after);
}

bool lanes_from_guest(struct lane_set *set, uint8_t *frame, const struct packet *packet,
                      size_t payload, uint64_t now_ns)
{
    uint8_t *tcp = frame + packet->transport;
    const uint8_t flags = tcp[13];
    set->has_pending = false;
    if ((flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN)
        begin(set, frame, packet, payload);
    if ((flags & (TCP_SYN | TCP_ACK)) != TCP_ACK)
        return true;
    struct lane *lane = of_frame(set, frame, packet, true);
    if (!lane || lane->state < LANE_OPEN)
        return true;
    bool is_pure = flags == TCP_ACK && payload == packet->end;
    bool has_news = hear(lane, tcp, is_pure, now_ns);
    if (has_news && is_pure && lane->state == LANE_OPEN && now_ns - lane->passed_ns < PASS_NS)
        return false;
    lane->passed_ns = now_ns;
    /* Beyond the lane's bytes there is libslirp's FIN at most; what is older is all one to it. */
    int32_t ahead = (int32_t)(load_be32(tcp + 8) - lane->max);
    if (lane->is_established && lane->max != lane->base)
        add_to_word(tcp, 8, lane->base + (uint32_t)MAX(ahead, 0) - load_be32(tcp + 8));
    return true;
}

void lanes_taken(struct lane_set *set)
{
    set->has_pending = false;
}

/* From libslirp. */

bool lanes_know(const struct lane_set *set, const uint8_t *frame, const struct packet *packet)
{
    return of_frame(set, frame, packet, false) != NULL;
}

static void set_length(uint8_t *frame, const struct packet *packet, size_t end)
{
    uint8_t *ip = frame + packet->ip;
    if (packet->is_ipv6) {
        store_be16(ip + 4, (uint16_t)(end - packet->transport));
        return;
    }
    store_be16(ip + 2, (uint16_t)(end - packet->ip));
    store_be16(ip + 10, 0);
    store_be16(ip + 10, packet_fold(packet_sum(ip, PACKET_IPV4_BYTES, 0)));
}

/* Scaled windows are for both or none (RFC 7323): ours, which are libslirp's, have a scale of 0. */
static void add_scale(uint8_t *frame, size_t *length, const struct packet *packet)
{
    struct packet longer = *packet;
    uint8_t *tcp = frame + packet->transport, *option = frame + packet->end;
    longer.end += 4;
    option[0] = OPTION_NOP;
    option[1] = OPTION_SCALE;
    option[2] = OPTION_SCALE_BYTES;
    option[3] = 0;
    tcp[12] = (uint8_t)(tcp[12] + (1 << 4));
    set_length(frame, packet, longer.end);
    packet_finish_checksum(frame, &longer, tcp + 16);
    *length = longer.end;
}

/* libslirp took the connection: its answer is the pattern of all frames to come. */
static void open_lane(struct lane *lane, const uint8_t *frame, const struct packet *packet,
                      size_t mss)
{
    const size_t bytes = packet->transport + PACKET_TCP_BYTES;
    memcpy(lane->headers, frame, bytes);
    lane->headers[packet->transport + 12] = PACKET_TCP_BYTES / 4 << 4;
    lane->headers[packet->transport + 13] = TCP_ACK;
    lane->state = LANE_OPEN;
    lane->base = lane->una = lane->nxt = lane->max = load_be32(frame + packet->transport + 4) + 1;
    lane->cwnd = LANE_RING_BYTES;
    lane->mss = (uint16_t)mss;
    lane->is_readable = true;
}

/* What libslirp says of the other direction goes with the lane's frames. */
static void remember(struct lane *lane, const struct packet *packet, const uint8_t *tcp)
{
    memcpy(lane->headers + packet->transport + 8, tcp + 8, 4);
    memcpy(lane->headers + packet->transport + 14, tcp + 14, 2);
}

bool lanes_to_guest(struct lane_set *set, uint8_t *frame, size_t *length,
                    const struct packet *packet, size_t mss)
{
    struct lane *lane = of_frame(set, frame, packet, false);
    uint8_t *tcp = frame + packet->transport;
    const uint8_t flags = tcp[13];
    CHECK(lane);
    if ((flags & (TCP_SYN | TCP_ACK | TCP_RST)) == (TCP_SYN | TCP_ACK)) {
        if (lane->state == LANE_CONNECTING)
            open_lane(lane, frame, packet, mss);
        remember(lane, packet, tcp);
        if (lane->has_scale)
            add_scale(frame, length, packet);
        return true;
    }
    if (lane->state < LANE_OPEN)
        return true;
    /* Of itself, for it cannot write: it says so again, and then behind the lane's last byte. */
    if ((flags & TCP_FIN) && lane->state == LANE_OPEN)
        return false;
    if (flags & TCP_ACK)
        remember(lane, packet, tcp);
    add_to_word(tcp, 4, lane->max - lane->base);
    return true;
}

/* The socket. */

static size_t room_in(const struct lane *lane)
{
    return LANE_RING_BYTES - lane->held;
}

uint32_t lanes_wanted(const struct lane_set *set, int fd, uint32_t events)
{
    const struct lane *lane = of_fd(set, fd);
    if (lane && lane->state == LANE_CONNECTING)
        return events & ~(uint32_t)(EPOLLIN | EPOLLPRI);
    if (!lane || lane->state != LANE_OPEN)
        return events;
    uint32_t wanted = events & EPOLLOUT;
    if (!lane->is_ending && room_in(lane) >= ROOM_LEAST)
        wanted |= EPOLLIN;
    return wanted ? wanted | EPOLLERR | EPOLLHUP : 0;
}

uint32_t lanes_ready(struct lane_set *set, int fd, uint32_t ready)
{
    struct lane *lane = of_fd(set, fd);
    /* It would read where there is more than that; a failed connect() it sees by writing. */
    if (lane && lane->state == LANE_CONNECTING && (ready & EPOLLOUT))
        return EPOLLOUT;
    if (!lane || lane->state != LANE_OPEN)
        return ready;
    if (ready & (EPOLLIN | EPOLLERR | EPOLLHUP))
        lane->is_readable = true;
    return ready & EPOLLOUT;
}

/* The parts of the ring from `offset` behind una on. */
static size_t parts_of(const struct lane *lane, size_t offset, size_t bytes, struct iovec out[2])
{
    size_t at = (lane->at + offset) % LANE_RING_BYTES;
    size_t first = MIN(bytes, LANE_RING_BYTES - at);
    out[0] = (struct iovec){lane->ring + at, first};
    out[1] = (struct iovec){lane->ring, bytes - first};
    return first < bytes ? 2 : 1;
}

static void receive(struct lane *lane, uint64_t now_ns)
{
    struct iovec iov[2];
    size_t room = room_in(lane);
    if (!lane->is_readable || lane->is_ending || !room)
        return;
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = parts_of(lane, lane->held, room, iov)};
    ssize_t got = recvmsg(lane->fd, &message, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        lane->is_readable = errno == EINTR;
        return;
    }
    if (got <= 0) {
        lane->is_ending = true;
        return;
    }
    lane->is_readable = (size_t)got == room;
    lane->held += (size_t)got;
    if (lane->deadline_ns == UINT64_MAX)
        rewind_clock(lane, now_ns);
}

/* To the guest. */

static bool takes(const struct lane_set *set, const struct lane *lane)
{
    unsigned needed = lane->flow.is_ipv6 ? NET_OFFLOAD_TSO6 : NET_OFFLOAD_TSO4;
    needed |= NET_OFFLOAD_CSUM;
    return (set->offloads & needed) == needed;
}

static size_t frame_max(const struct lane_set *set, const struct lane *lane)
{
    size_t most = IP_BYTES_MAX - (LANE_HEADERS_MAX - PACKET_ETHERNET_BYTES);
    return takes(set, lane) ? most / lane->mss * lane->mss : lane->mss;
}

static void write_headers(struct lane *lane, uint8_t *headers, struct packet *packet, uint32_t seq,
                          size_t bytes, bool is_last)
{
    bool is_ipv6 = lane->flow.is_ipv6;
    *packet =
        (struct packet){.is_ipv6 = is_ipv6, .protocol = PACKET_TCP, .ip = PACKET_ETHERNET_BYTES};
    packet->transport = packet->ip + (size_t)(is_ipv6 ? PACKET_IPV6_BYTES : PACKET_IPV4_BYTES);
    packet->end = packet->transport + PACKET_TCP_BYTES + bytes;
    memcpy(headers, lane->headers, packet->transport + PACKET_TCP_BYTES);
    if (!is_ipv6) {
        store_be16(headers + packet->ip + 4, lane->id);
        lane->id = (uint16_t)(lane->id + 1 + bytes / lane->mss);
    }
    set_length(headers, packet, packet->end);
    uint8_t *tcp = headers + packet->transport;
    store_be32(tcp + 4, seq);
    if (is_last)
        tcp[13] |= TCP_PSH;
    uint64_t pseudo = packet_pseudo_sum(headers, packet, packet->end - packet->transport);
    store_be16(tcp + 16, (uint16_t)~packet_fold(pseudo));
}

/* Of the ring, from `seq` on. What `emit` answers. */
static int emit_frame(struct lane_set *set, struct lane *lane, uint32_t seq, size_t bytes,
                      lane_emit_fn *emit, void *opaque)
{
    uint8_t headers[LANE_HEADERS_MAX];
    struct packet packet;
    struct iovec iov[3];
    size_t offset = seq - lane->una;
    write_headers(lane, headers, &packet, seq, bytes, offset + bytes == lane->held);
    size_t count = 1 + parts_of(lane, offset, bytes, iov + 1);
    iov[0] = (struct iovec){headers, packet.transport + PACKET_TCP_BYTES};
    if (set->offloads & NET_OFFLOAD_CSUM) {
        struct net_meta meta = {
            .flags = NET_NEEDS_CSUM,
            .csum_start = (uint16_t)packet.transport,
            .csum_offset = 16,
        };
        if (bytes > lane->mss) {
            meta.gso_type = packet.is_ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4;
            meta.gso_size = lane->mss;
            meta.hdr_len = (uint16_t)iov[0].iov_len;
        }
        return emit(opaque, &meta, iov, count);
    }
    for (size_t i = 0, at = 0; i < count; at += iov[i++].iov_len)
        memcpy(set->scratch + at, iov[i].iov_base, iov[i].iov_len);
    packet_finish_checksum(set->scratch, &packet, set->scratch + packet.transport + 16);
    const struct iovec whole = {set->scratch, packet.end};
    const struct net_meta plain = {0};
    return emit(opaque, &plain, &whole, 1);
}

/* How much may go now; 0: nothing. */
static size_t sendable(const struct lane_set *set, const struct lane *lane)
{
    size_t in_flight = lane->nxt - lane->una, limit = MIN(lane->window, lane->cwnd);
    size_t unsent = lane->held - in_flight;
    size_t room = limit > in_flight ? limit - in_flight : 0;
    size_t bytes = MIN(MIN(room, unsent), frame_max(set, lane));
    if (bytes == unsent)
        return bytes;
    /* Not the whole rest: full segments, or at least half of a small window. */
    if (bytes >= lane->mss)
        return bytes / lane->mss * lane->mss;
    return bytes >= lane->window_max / 2 ? bytes : 0;
}

static int repair(struct lane_set *set, struct lane *lane, lane_emit_fn *emit, void *opaque)
{
    size_t bytes = MIN(MIN((size_t)(lane->nxt - lane->una), lane->held), frame_max(set, lane));
    if (lane->must_probe)
        bytes = MIN(lane->held, 1);
    if (!bytes)
        lane->must_resend = lane->must_probe = false;
    if (!lane->must_resend && !lane->must_probe)
        return 0;
    int result = emit_frame(set, lane, lane->una, bytes, emit, opaque);
    if (result == -EAGAIN)
        return result;
    lane->must_resend = lane->must_probe = false;
    if (lane->nxt == lane->una) /* a probe */
        lane->nxt += (uint32_t)bytes;
    if ((int32_t)(lane->nxt - lane->max) > 0)
        lane->max = lane->nxt;
    return 0;
}

/* -EAGAIN, or 0: what is dropped on the way is lost on the way. */
static int send_new(struct lane_set *set, struct lane *lane, lane_emit_fn *emit, void *opaque)
{
    size_t bytes;
    while ((bytes = sendable(set, lane))) {
        if (emit_frame(set, lane, lane->nxt, bytes, emit, opaque) == -EAGAIN)
            return -EAGAIN;
        lane->nxt += (uint32_t)bytes;
        if ((int32_t)(lane->nxt - lane->max) > 0)
            lane->max = lane->nxt;
    }
    return 0;
}

/* libslirp may keep the connection for minutes: no pages for that. */
static void release(struct lane *lane)
{
    lane->state = LANE_RELEASED;
    if (!lane->held)
        give_pages_back(lane);
}

static int pump(struct lane_set *set, struct lane *lane, uint64_t now_ns, lane_emit_fn *emit,
                void *opaque)
{
    int result = 0;
    receive(lane, now_ns);
    if (!set->is_blocked)
        result = repair(set, lane, emit, opaque);
    if (!set->is_blocked && !result)
        result = send_new(set, lane, emit, opaque);
    if (lane->state == LANE_OPEN && lane->is_ending && lane->max - lane->una == lane->held)
        release(lane);
    return result;
}

bool lanes_pump(struct lane_set *set, uint64_t now_ns, lane_emit_fn *emit, void *opaque)
{
    bool has_more = false;
    unsigned left = set->count;
    set->is_blocked = !emit;
    for (size_t i = 0; left && i < LANES_MAX; i++) {
        struct lane *lane = &set->lanes[i];
        if (lane->state == LANE_FREE)
            continue;
        left--;
        if (lane->state < LANE_OPEN)
            continue;
        bool was_open = lane->state == LANE_OPEN;
        if (pump(set, lane, now_ns, emit, opaque) == -EAGAIN)
            set->is_blocked = true;
        has_more |= was_open && lane->state == LANE_RELEASED;
        has_more |= lane->state == LANE_OPEN && lane->is_readable && !lane->is_ending &&
                    room_in(lane) >= ROOM_LEAST;
    }
    return has_more;
}

/* Time. */

uint64_t lanes_deadline(const struct lane_set *set)
{
    uint64_t result = UINT64_MAX;
    unsigned left = set->count;
    for (size_t i = 0; left && i < LANES_MAX; i++) {
        if (set->lanes[i].state == LANE_FREE)
            continue;
        left--;
        result = MIN(result, set->lanes[i].deadline_ns);
    }
    return result;
}

/* The guest is gone, or has not answered for minutes. Neither side may take what it has for all:
 * both hear a reset, the guest from libslirp, which finds the socket broken. */
static void give_up(struct lane *lane)
{
    socket_break_off(lane->fd);
    lane->is_ending = true;
    lane->held = lane->max - lane->una;
    lane->state = LANE_RELEASED;
    lane->nxt = lane->max;
    lane->deadline_ns = UINT64_MAX;
}

void lanes_abandon(struct lane_set *set, int fd)
{
    struct lane *lane = of_fd(set, fd);
    if (lane && lane->state >= LANE_OPEN)
        give_up(lane);
}

static void expire(struct lane *lane, uint64_t now_ns)
{
    if (lane->timeouts++ >= TIMEOUTS_MAX) {
        give_up(lane);
        return;
    }
    if (lane->window) {
        lane->nxt = lane->una;
        lane->cwnd = (uint32_t)lane->mss * CWND_SEGMENTS;
    } else {
        lane->must_probe = true;
    }
    rewind_clock(lane, now_ns);
}

void lanes_expire(struct lane_set *set, uint64_t now_ns)
{
    for (size_t i = 0; set->count && i < LANES_MAX; i++) {
        struct lane *lane = &set->lanes[i];
        if (lane->state < LANE_OPEN || lane->deadline_ns > now_ns)
            continue;
        /* A guest that stands still answers nothing. */
        if (set->is_blocked)
            rewind_clock(lane, now_ns);
        else
            expire(lane, now_ns);
    }
}
