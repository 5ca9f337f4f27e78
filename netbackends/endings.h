/* SPDX-License-Identifier: MIT */
/*
 * endings: a TCP connection that one side breaks off ends so for the other side too.
 *
 * libslirp ends some of them as if all had been said: it closes its socket in the usual way when
 * the guest resets the connection, and sends a FIN to the guest where it learned of the host's
 * reset by writing. Whoever waits for the end of a text then takes half of it for the whole.
 */
#ifndef NETBACKENDS_ENDINGS_H
#define NETBACKENDS_ENDINGS_H

#include <stdbool.h>

#include "netbackends/flow.h"

enum {
    ENDINGS_FDS_MAX =
        16384, /* connections with a descriptor from here on end as libslirp ends them */
    ENDINGS_FRAME_MAX = 74,
    ENDINGS_RESETS_MAX = 64,
};

struct ending {
    uint32_t hash; /* of the flow */
    uint32_t base; /* libslirp's sequence number before the first byte */
    uint16_t remote_port;
    bool is_used, is_incoming; /* incoming: until libslirp's SYN the port is all that is known */
    bool guest_has_ended;
    bool is_broken_off; /* its guest is gone: nobody answers libslirp but us */
    bool is_draining;   /* libslirp may still have bytes of the guest's for a full socket */
};

/* One that libslirp is yet to hear, as if from the guest. */
struct ending_reset {
    uint8_t bytes[ENDINGS_FRAME_MAX];
    size_t length;
};

struct endings {
    /* Private. */
    int end; /* above the highest descriptor so far */
    bool has_pending;
    uint32_t pending;    /* the flow's hash of a SYN on its way into libslirp */
    int lingering;       /* the descriptor that a guest's reset is about, or 0 */
    unsigned broken_off; /* of by_fd */
    size_t reset_count;
    struct ending_reset resets[ENDINGS_RESETS_MAX];
    struct ending by_fd[ENDINGS_FDS_MAX];
};

/* A guest's frame with data and a FIN loses the FIN, and `end`, of at most ENDINGS_FRAME_MAX bytes,
 * is the frame that says it alone. Its length, or 0 for all other frames. */
size_t endings_split(uint8_t *frame, size_t length, uint8_t *end);

/* Around libslirp's taking of a guest's TCP frame. */
void endings_from_guest(struct endings *endings, const uint8_t *frame, const struct packet *packet);
void endings_taken(struct endings *endings);

/* libslirp opened a socket, or is about to close it. */
void endings_on_fd(struct endings *endings, int fd);
void endings_on_fd_closed(struct endings *endings, int fd);

/* A TCP frame for the guest. True: the guest gets `out` instead, of at most ENDINGS_FRAME_MAX
 * bytes, or nothing, and libslirp will be told. */
bool endings_to_guest(struct endings *endings, const uint8_t *frame, const struct packet *packet,
                      uint8_t *out, size_t *out_bytes);

/* What of EPOLL* `events` to wait for, and what of `ready` libslirp may hear: not the host's end
 * while the last of what the guest sent is unwritten, which libslirp would throw away then. */
uint32_t endings_wanted(struct endings *endings, int fd, uint32_t events);
uint32_t endings_ready(const struct endings *endings, int fd, uint32_t ready);

/* There is no guest any more for this connection: the host's side hears a reset, and libslirp gets
 * one for whatever it still says to the guest. */
void endings_break_off(struct endings *endings, int fd);

/* The next frame for libslirp, or NULL; not while libslirp runs. Valid until the next call. */
struct ending_reset *endings_next_reset(struct endings *endings);

#endif
