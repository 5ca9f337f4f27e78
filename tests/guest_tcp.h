/* SPDX-License-Identifier: MIT */
/* guest_tcp: a guest's end of one TCP connection, good enough for a wire without loss. */
#ifndef TESTS_GUEST_TCP_H
#define TESTS_GUEST_TCP_H

#include "tests/fake_nic.h"
#include "tests/frames.h"

struct guest_tcp {
    struct fake_nic *nic;
    struct frames_flow flow;
    uint32_t sequence, acknowledged;
};

/* From 10.0.2.15 to 10.0.2.2, as the user network has them. */
struct guest_tcp guest_tcp_to_router(struct fake_nic *nic, uint16_t source_port,
                                     uint16_t target_port);
/* Makes the network know the guest as if by its own traffic. */
void guest_tcp_introduce(struct fake_nic *nic);

/* Sends the SYN of a new connection; fails the test if the network does not take it. */
void guest_tcp_start(struct guest_tcp *tcp);
/* The same and waits for the answer, and acknowledges it. */
void guest_tcp_connect(struct guest_tcp *tcp);
void guest_tcp_send(struct guest_tcp *tcp, uint8_t flags, const void *data, size_t length);

/* The next frame of this connection with all of `flags`; where its data lies in it. */
const uint8_t *guest_tcp_next(struct guest_tcp *tcp, uint8_t flags, size_t *payload,
                              size_t *payload_bytes);
/* Waits for this text, acknowledges it. */
void guest_tcp_expect(struct guest_tcp *tcp, const char *text);

/* A server on the host's loopback. */
int guest_tcp_listen(uint16_t *port);
/* Runs the loop until somebody connects. */
int guest_tcp_accept(struct loop *loop, int listener);
/* Runs the loop until so much was read, or the end. */
size_t guest_tcp_read(struct loop *loop, int fd, void *to, size_t wanted);

#endif
