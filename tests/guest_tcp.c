/* SPDX-License-Identifier: MIT */
#include "tests/guest_tcp.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "netbackends/packet.h"
#include "tests/unit/test.h"

enum { TURNS_MAX = 200000 };

struct guest_tcp guest_tcp_to_router(struct fake_nic *nic, uint16_t source_port,
                                     uint16_t target_port)
{
    return (struct guest_tcp){
        .nic = nic,
        .flow =
            {
                .source_mac = FRAMES_GUEST_MAC,
                .target_mac = {0x52, 0x55, 10, 0, 2, 2},
                .source = FRAMES_IPV4(10, 0, 2, 15),
                .target = FRAMES_IPV4(10, 0, 2, 2),
                .source_port = source_port,
                .target_port = target_port,
            },
    };
}

void guest_tcp_introduce(struct fake_nic *nic)
{
    static struct frames_buffer arp;
    const struct guest_tcp any = guest_tcp_to_router(nic, 0, 0);
    frames_arp_request(&arp, any.flow.source_mac, any.flow.source, any.flow.target);
    assert_int_equal(fake_nic_send(nic, arp.bytes, arp.length), 0);
    fake_nic_next(nic);
}

void guest_tcp_send(struct guest_tcp *tcp, uint8_t flags, const void *data, size_t length)
{
    static struct frames_buffer frame;
    frames_tcp(&frame, &tcp->flow, flags, tcp->sequence, tcp->acknowledged, data, length);
    assert_int_equal(fake_nic_send(tcp->nic, frame.bytes, frame.length), 0);
    tcp->sequence += (uint32_t)length + !!(flags & (TCP_SYN | TCP_FIN));
}

const uint8_t *guest_tcp_next(struct guest_tcp *tcp, uint8_t flags, size_t *payload,
                              size_t *payload_bytes)
{
    for (;;) {
        const struct fake_frame *frame = fake_nic_next(tcp->nic);
        struct packet packet;
        if (!packet_parse_ip(frame->bytes, frame->length, &packet) ||
            !packet_parse_tcp(frame->bytes, &packet, payload))
            continue;
        const uint8_t *header = frame->bytes + packet.transport;
        if (load_be16(header) != tcp->flow.target_port ||
            load_be16(header + 2) != tcp->flow.source_port || (header[13] & flags) != flags)
            continue;
        *payload_bytes = packet.end - *payload;
        return frame->bytes;
    }
}

void guest_tcp_start(struct guest_tcp *tcp)
{
    tcp->sequence = 1000;
    tcp->acknowledged = 0;
    guest_tcp_send(tcp, TCP_SYN, NULL, 0);
}

void guest_tcp_connect(struct guest_tcp *tcp)
{
    size_t at, bytes;
    guest_tcp_start(tcp);
    const uint8_t *header = guest_tcp_next(tcp, TCP_SYN | TCP_ACK, &at, &bytes);
    header += tcp->flow.is_ipv6 ? 54 : 34;
    assert_int_equal(load_be32(header + 8), tcp->sequence);
    tcp->acknowledged = load_be32(header + 4) + 1;
    guest_tcp_send(tcp, TCP_ACK, NULL, 0);
}

void guest_tcp_expect(struct guest_tcp *tcp, const char *text)
{
    size_t at, bytes, wanted = strlen(text);
    const uint8_t *frame;
    do
        frame = guest_tcp_next(tcp, TCP_ACK, &at, &bytes);
    while (!bytes);
    assert_int_equal(bytes, wanted);
    assert_memory_equal(frame + at, text, wanted);
    tcp->acknowledged += (uint32_t)bytes;
    guest_tcp_send(tcp, TCP_ACK, NULL, 0);
}

int guest_tcp_listen(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(fd, 1024), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

int guest_tcp_accept(struct loop *loop, int listener)
{
    for (int i = 0; i < TURNS_MAX; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            return fd;
        fake_nic_run_ms(loop, 0);
    }
    fail_msg("nobody connected");
    return -1;
}

size_t guest_tcp_read(struct loop *loop, int fd, void *to, size_t wanted)
{
    size_t done = 0;
    for (int i = 0; i < TURNS_MAX && done < wanted; i++) {
        ssize_t count = read(fd, (char *)to + done, wanted - done);
        if (count == 0)
            break;
        if (count > 0)
            done += (size_t)count;
        else
            fake_nic_run_ms(loop, 0);
    }
    return done;
}
