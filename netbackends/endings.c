/* SPDX-License-Identifier: MIT */
/* endings: finds the socket of a connection, and makes resets for both of its sides. */
#include "netbackends/endings.h"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/socket.h"

enum { STATE_CLOSED = 7 }; /* of struct tcp_info: TCP_CLOSE, which <netinet/tcp.h> names */

/* Sockets. */

void endings_on_fd_closed(struct endings *endings, int fd)
{
    if (fd < 0 || fd >= ENDINGS_FDS_MAX)
        return;
    endings->broken_off -= endings->by_fd[fd].is_used && endings->by_fd[fd].is_broken_off;
    endings->by_fd[fd].is_used = false;
    if (endings->lingering == fd)
        endings->lingering = 0;
}

/* 0 if it is not TCP's. */
static uint16_t peer_port(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t bytes = sizeof(address);
    if (getpeername(fd, (struct sockaddr *)&address, &bytes) < 0)
        return 0;
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return address.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&address)->sin_port) : 0;
}

void endings_on_fd(struct endings *endings, int fd)
{
    endings_on_fd_closed(endings, fd);
    if (fd <= 0 || fd >= ENDINGS_FDS_MAX)
        return;
    struct ending ending = {
        .hash = endings->pending,
        .is_used = true,
        .is_incoming = !endings->has_pending,
    };
    if (ending.is_incoming)
        ending.remote_port = peer_port(fd);
    endings->has_pending = false;
    endings->by_fd[fd] = ending;
    endings->end = MAX(endings->end, fd + 1);
}

/* The descriptor, or 0. */
static int find(const struct endings *endings, uint32_t hash)
{
    for (int fd = 1; fd < endings->end; fd++) {
        const struct ending *ending = &endings->by_fd[fd];
        if (ending->is_used && !ending->is_incoming && ending->hash == hash)
            return fd;
    }
    return 0;
}

static uint32_t hash_of(const uint8_t *frame, const struct packet *packet, bool is_from_guest)
{
    struct flow flow;
    flow_find(frame, packet, is_from_guest, &flow);
    return flow_hash(&flow);
}

/* libslirp asks the guest for a connection: that of a socket which it accepted before. */
static void join(struct endings *endings, const uint8_t *frame, const struct packet *packet)
{
    uint16_t port = load_be16(frame + packet->transport);
    for (int fd = 1; fd < endings->end; fd++) {
        struct ending *ending = &endings->by_fd[fd];
        if (!ending->is_used || !ending->is_incoming || ending->remote_port != port)
            continue;
        ending->hash = hash_of(frame, packet, false);
        ending->is_incoming = false;
        return;
    }
}

/* From the guest. */

static void set_linger(int fd, bool is_on)
{
    const struct linger at_once = {is_on, 0};
    unused_result(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)));
}

void endings_from_guest(struct endings *endings, const uint8_t *frame, const struct packet *packet)
{
    const uint8_t flags = frame[packet->transport + 13];
    endings->has_pending = (flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
    if (endings->has_pending)
        endings->pending = hash_of(frame, packet, true);
    if (!(flags & (TCP_RST | TCP_FIN)))
        return;
    int fd = find(endings, hash_of(frame, packet, true));
    /* Of one that had said all, a reset means only that it has forgotten the connection. */
    if (!fd || endings->by_fd[fd].guest_has_ended)
        return;
    if (flags & TCP_RST) {
        endings->lingering = fd;
        set_linger(fd, true);
    } else {
        endings->by_fd[fd].guest_has_ended = true;
        endings->by_fd[fd].is_draining = true; /* until libslirp says what it waits for */
    }
}

void endings_taken(struct endings *endings)
{
    endings->has_pending = false;
    if (!endings->lingering)
        return;
    /* It was no reset by libslirp's judgement. */
    set_linger(endings->lingering, false);
    endings->lingering = 0;
}

static void finish(uint8_t *out, const struct packet *packet, uint8_t flags)
{
    uint8_t *ip = out + packet->ip, *tcp = out + packet->transport;
    tcp[12] = PACKET_TCP_BYTES / 4 << 4;
    tcp[13] = flags;
    store_be16(tcp + 18, 0);
    if (packet->is_ipv6) {
        store_be16(ip + 4, PACKET_TCP_BYTES);
    } else {
        store_be16(ip + 2, (uint16_t)(packet->end - packet->ip));
        store_be16(ip + 10, 0);
        store_be16(ip + 10, packet_fold(packet_sum(ip, PACKET_IPV4_BYTES, 0)));
    }
    packet_finish_checksum(out, packet, tcp + 16);
}

size_t endings_split(uint8_t *frame, size_t length, uint8_t *end)
{
    struct packet packet;
    size_t payload;
    if (!packet_parse_ip(frame, length, &packet) || packet.protocol != PACKET_TCP ||
        !packet_parse_tcp(frame, &packet, &payload) || payload == packet.end)
        return 0;
    uint8_t *tcp = frame + packet.transport;
    const uint16_t before = load_be16(tcp + 12), after = before & (uint16_t)~TCP_FIN;
    if (before == after || (before & (TCP_SYN | TCP_RST)))
        return 0;
    struct packet shorter = packet;
    shorter.end = packet.transport + PACKET_TCP_BYTES;
    memcpy(end, frame, shorter.end);
    uint8_t *end_tcp = end + packet.transport;
    store_be32(end_tcp + 4, load_be32(tcp + 4) + (uint32_t)(packet.end - payload));
    finish(end, &shorter, TCP_FIN | TCP_ACK);
    store_be16(tcp + 12, after);
    packet_adjust_checksum(tcp + 16, before, after);
    return shorter.end;
}

/* From libslirp. */

/*
 * The host's side will never say or hear more, though it did not say that it ended: that counts as
 * one more byte (and as good as none where the guest has not ended either, for then no connection
 * is closed in good order). libslirp knows of `taken` bytes.
 */
static bool is_broken(const struct ending *ending, int fd, uint32_t taken)
{
    struct tcp_info info;
    socklen_t bytes = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) < 0 ||
        bytes < offsetof(struct tcp_info, tcpi_segs_out))
        return false;
    bool has_ended = (uint32_t)info.tcpi_bytes_received == taken + 1;
    return info.tcpi_state == STATE_CLOSED && !(ending->guest_has_ended && has_ended);
}

static void exchange(uint8_t *a, size_t bytes)
{
    uint8_t kept[16];
    memcpy(kept, a, bytes);
    memcpy(a, a + bytes, bytes);
    memcpy(a + bytes, kept, bytes);
}

/* What the guest would answer to `frame`, which it gets. */
static void tell_libslirp(struct endings *endings, const uint8_t *frame,
                          const struct packet *packet)
{
    if (endings->reset_count == ENDINGS_RESETS_MAX)
        return; /* its FIN will come again */
    struct ending_reset *reset = &endings->resets[endings->reset_count++];
    uint8_t *bytes = reset->bytes, *tcp = bytes + packet->transport;
    reset->length = packet->end;
    memcpy(bytes, frame, packet->end);
    exchange(bytes, 6);
    exchange(bytes + packet->ip + (packet->is_ipv6 ? 8 : 12), packet->is_ipv6 ? 16 : 4);
    exchange(tcp, 2);
    memcpy(tcp + 4, frame + packet->transport + 8, 4);
    store_be32(tcp + 8, 0);
    finish(bytes, packet, TCP_RST);
}

/* True if the guest that this is for is gone. */
static bool answer_for_nobody(struct endings *endings, const uint8_t *frame,
                              const struct packet *packet)
{
    int fd = find(endings, hash_of(frame, packet, false));
    if (!fd || !endings->by_fd[fd].is_broken_off)
        return false;
    struct packet shorter = *packet;
    shorter.end = packet->transport + PACKET_TCP_BYTES;
    if (!(frame[packet->transport + 13] & TCP_RST))
        tell_libslirp(endings, frame, &shorter);
    return true;
}

bool endings_to_guest(struct endings *endings, const uint8_t *frame, const struct packet *packet,
                      uint8_t *out, size_t *out_bytes)
{
    const uint8_t *tcp = frame + packet->transport, flags = tcp[13];
    struct packet shorter = *packet;
    if (endings->broken_off && answer_for_nobody(endings, frame, packet)) {
        *out_bytes = 0;
        return true;
    }
    if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
        join(endings, frame, packet);
    if (!(flags & (TCP_SYN | TCP_FIN)))
        return false;
    int fd = find(endings, hash_of(frame, packet, false));
    if (!fd)
        return false;
    if (flags & TCP_SYN) {
        endings->by_fd[fd].base = load_be32(tcp + 4) + 1;
        return false;
    }
    size_t payload_bytes = packet->end - packet->transport - (size_t)(tcp[12] >> 4) * 4;
    uint32_t taken = load_be32(tcp + 4) + (uint32_t)payload_bytes - endings->by_fd[fd].base;
    if (!is_broken(&endings->by_fd[fd], fd, taken))
        return false;
    shorter.end = packet->transport + PACKET_TCP_BYTES;
    memcpy(out, frame, shorter.end);
    finish(out, &shorter, TCP_RST | TCP_ACK);
    *out_bytes = shorter.end;
    tell_libslirp(endings, out, &shorter);
    return true;
}

uint32_t endings_wanted(struct endings *endings, int fd, uint32_t events)
{
    if (fd < 0 || fd >= endings->end || !endings->by_fd[fd].is_used)
        return events;
    struct ending *ending = &endings->by_fd[fd];
    ending->is_draining = ending->guest_has_ended && (events & EPOLLOUT);
    return ending->is_draining ? events & ~(uint32_t)(EPOLLIN | EPOLLPRI) : events;
}

uint32_t endings_ready(const struct endings *endings, int fd, uint32_t ready)
{
    bool is_draining = fd >= 0 && fd < endings->end && endings->by_fd[fd].is_used &&
                       endings->by_fd[fd].is_draining;
    return is_draining ? ready & EPOLLOUT : ready;
}

void endings_break_off(struct endings *endings, int fd)
{
    struct ending *ending = fd > 0 && fd < endings->end ? &endings->by_fd[fd] : NULL;
    if (ending && ending->is_used && !ending->is_broken_off) {
        ending->is_broken_off = true;
        endings->broken_off++;
    }
    socket_break_off(fd);
}

struct ending_reset *endings_next_reset(struct endings *endings)
{
    return endings->reset_count ? &endings->resets[--endings->reset_count] : NULL;
}
