/* SPDX-License-Identifier: MIT */
/*
 * lane: what comes from the host on connections that a guest opened, past libslirp.
 *
 * libslirp opens and ends each connection, and takes what the guest sends. What the host sends it
 * never sees: a lane reads the socket, keeps the bytes until the guest has acknowledged them, and
 * makes the frames. So nothing bounds the guest's window but the guest, no byte is summed that the
 * guest's checksum offload covers, and each is copied twice. A connection for which no lane is left
 * goes through libslirp as a whole.
 */
#ifndef NETBACKENDS_LANE_H
#define NETBACKENDS_LANE_H

#include "base/check.h"
#include "netbackends/flow.h"
#include "netbackends/net.h"

enum {
    LANES_MAX = 64,
    LANE_RING_BYTES = 512 * 1024,
    LANE_FDS_MAX = 16384, /* a descriptor from here on gets no lane */
    LANE_HEADERS_MAX = 74,
    LANE_CONTROL_MAX = 256, /* the longest frame without data, with what lanes_to_guest adds */
};

enum lane_state {
    LANE_FREE,
    LANE_CONNECTING, /* libslirp waits for its connect(), and sees the socket */
    LANE_OPEN,       /* libslirp may write to the socket, never read */
    LANE_RELEASED,   /* all was read and sent once: libslirp reads the end, and tells the guest */
};

struct lane {
    enum lane_state state;
    int fd;
    struct flow flow;
    uint32_t hash;
    uint8_t *ring;
    size_t at, held;        /* in the ring: what the guest has not acknowledged */
    uint32_t base;          /* the first byte's sequence number, and libslirp's for ever */
    uint32_t una, nxt, max; /* the oldest unacknowledged, the next, the furthest ever sent */
    uint32_t window, cwnd;  /* the guest's, and ours after a loss */
    uint32_t window_max;    /* the guest's largest so far */
    uint8_t shift;          /* of the guest's windows */
    bool has_scale;         /* the guest's SYN offered that */
    bool is_established;    /* the guest has acknowledged the SYN */
    bool is_readable;       /* as far as is known */
    bool is_ending;         /* the socket gave its end, or an error */
    bool must_resend;       /* three duplicates: the oldest frame is lost */
    bool must_probe;        /* the guest's window has been shut for long */
    uint8_t duplicates;
    unsigned timeouts;    /* in a row */
    uint64_t deadline_ns; /* UINT64_MAX: nothing to wait for */
    uint64_t passed_ns;   /* when libslirp last heard of the guest */
    uint16_t mss;
    uint16_t id; /* of the next IPv4 packet */
    uint8_t headers[LANE_HEADERS_MAX];
};

struct lane_set {
    unsigned offloads; /* what the guest takes, of enum net_offloads */
    /* Private. */
    unsigned count;   /* not LANE_FREE */
    bool is_blocked;  /* the guest had no buffers when it was asked last */
    bool has_pending; /* a SYN is on its way into libslirp */
    struct lane pending;
    uint8_t *rings;
    struct lane lanes[LANES_MAX];
    uint8_t by_fd[LANE_FDS_MAX]; /* 1 + index; 0: none */
    uint8_t scratch[LANE_HEADERS_MAX + 1500];
};

/* -errno. */
int must_check lanes_init(struct lane_set *set);
void lanes_fini(struct lane_set *set);

/* Around libslirp's taking of a guest's TCP frame. False: libslirp need not see it. May rewrite the
 * acknowledgement. */
bool lanes_from_guest(struct lane_set *set, uint8_t *frame, const struct packet *packet,
                      size_t payload, uint64_t now_ns);
void lanes_taken(struct lane_set *set);

/* libslirp opened a socket, or is about to close it. */
void lanes_on_fd(struct lane_set *set, int fd);
void lanes_on_fd_closed(struct lane_set *set, int fd);

/* There is no guest any more for this connection: nothing is kept for it. */
void lanes_abandon(struct lane_set *set, int fd);

/* A TCP frame of libslirp's for the guest: whether a lane has that connection. Then the frame must
 * have room for four bytes more, and `*length` follows; false: it is not for the guest yet. `mss`
 * is the guest's. */
bool lanes_know(const struct lane_set *set, const uint8_t *frame, const struct packet *packet);
bool must_check lanes_to_guest(struct lane_set *set, uint8_t *frame, size_t *length,
                               const struct packet *packet, size_t mss);

/* What to wait for where libslirp wants EPOLL* `events`: 0 is nothing. */
uint32_t lanes_wanted(const struct lane_set *set, int fd, uint32_t events);
/* What libslirp may hear of what is ready. */
uint32_t lanes_ready(struct lane_set *set, int fd, uint32_t ready);

/*
 * Reads the sockets and hands on what the guest's windows have room for. `emit` is net_receive;
 * NULL while the guest has no buffers. True: there is more to do in the next turn.
 */
typedef int lane_emit_fn(void *opaque, const struct net_meta *meta, const struct iovec *iov,
                         size_t iov_count);
bool lanes_pump(struct lane_set *set, uint64_t now_ns, lane_emit_fn *emit, void *opaque);

/* When lanes_expire is due; UINT64_MAX: never. After it, pump. */
uint64_t lanes_deadline(const struct lane_set *set);
void lanes_expire(struct lane_set *set, uint64_t now_ns);

#endif
