/* SPDX-License-Identifier: MIT */
/* chardev_private: what chardev.c (streams), chardev_mux.c (users) and chardev_open.c share. */
#ifndef VMM_CHARDEV_CHARDEV_PRIVATE_H
#define VMM_CHARDEV_CHARDEV_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/closing.h"
#include "base/limits.h"
#include "base/loop.h"
#include "base/telnet.h"
#include "vmm/chardev/chardev.h"

/* A byte queue of fixed size. */
struct chardev_ring {
    uint8_t *bytes;
    size_t capacity, start, count;
};

static inline size_t ring_room(const struct chardev_ring *ring)
{
    return ring->capacity - ring->count;
}

/* Takes what it has room for and returns how much. */
static inline size_t ring_put(struct chardev_ring *ring, const void *from, size_t length)
{
    const uint8_t *bytes = from;
    length = MIN(length, ring_room(ring));
    for (size_t done = 0; done < length;) {
        size_t at = (ring->start + ring->count) % ring->capacity;
        size_t run = MIN(length - done, ring->capacity - at);
        memcpy(ring->bytes + at, bytes + done, run);
        ring->count += run;
        done += run;
    }
    return length;
}

/* The longest piece from the front that lies in one row. */
static inline size_t ring_run(const struct chardev_ring *ring, const uint8_t **at)
{
    *at = ring->bytes + ring->start;
    return MIN(ring->count, ring->capacity - ring->start);
}

static inline void ring_drop(struct chardev_ring *ring, size_t length)
{
    CHECK(length <= ring->count);
    ring->start = (ring->start + length) % ring->capacity;
    ring->count -= length;
}

struct chardev_user {
    struct char_backend backend;
    struct chardev *chardev;
    bool is_attached;
    bool wants_writable; /* a write of its was cut short */
    struct chardev_ring input;
    uint8_t input_bytes[CHARDEV_INPUT_BYTES];
};

/* One direction of a link. A file that cannot be polled is read and written by the pool. */
struct chardev_end {
    int fd; /* -1: this direction does not exist, or has ended */
    bool is_polled;
    bool is_null; /* the null device: there is nothing to read, and no job it would take */
    struct loop_watch watch;
    struct loop_job job;
    bool job_is_running;
    int job_fd; /* closed by the job's completion if fd was meanwhile */
    uint8_t *job_bytes;
    size_t job_length;
    ssize_t job_result; /* or -errno */
};

/* The two directions to whoever is at the other end now; made anew for each connection. */
struct chardev_link {
    struct chardev *chardev;
    struct chardev_end in, out;
    uint8_t in_bytes[CHARDEV_INPUT_BYTES];
    unsigned handles; /* watches and jobs that must end before it is freed */
    bool is_closing;
    bool is_hung_up; /* a pty that nobody has open */
};

/* What is kept of the output: for the next client, and on its way to the logfile. */
struct chardev_log {
    int fd; /* -1: no logfile */
    uint64_t limit_bytes, punched_bytes;
    bool has_failed;
    struct loop_job job;
    bool job_is_running;
    const uint8_t *job_bytes;
    size_t job_length;
    ssize_t result; /* or -errno */
    struct chardev_ring history, pending;
    uint8_t history_bytes[CHARDEV_OUTPUT_BYTES], pending_bytes[CHARDEV_OUTPUT_BYTES];
};

/* For a socket that connects by itself, again and again. */
struct chardev_client {
    bool is_used;
    struct sockaddr_storage address;
    socklen_t address_size;
    struct loop_timer retry;
    int fd; /* a connection under way; -1: none */
    struct loop_watch watch;
    bool is_ending; /* the watch closes */
    int error;      /* an errno */
};

struct chardev {
    struct loop *loop;
    const struct config_chardev *config;
    char filename[256];
    struct chardev_user users[CHARDEV_USERS_MAX];
    unsigned user_count;
    unsigned focus;  /* index of the user who gets the input */
    bool has_escape; /* Ctrl-a was typed */
    void (*on_quit)(void *opaque);
    void *on_quit_opaque;
    struct chardev_ring output;
    uint8_t output_bytes[CHARDEV_OUTPUT_BYTES];
    bool has_lost_output; /* and has said so */
    struct chardev_log log;
    struct chardev_link *link; /* NULL: nobody is there */
    struct telnet telnet;      /* of the peer, if the config says so */
    int listener;              /* -1: no server */
    bool listener_is_polled;
    struct loop_watch listener_watch;
    struct chardev_client client;
    struct chardev_ring memory; /* of a RINGBUF: the newest output */
    bool has_pty_timer;
    struct loop_timer pty_timer; /* looks whether somebody has opened the pty */
    struct loop_task deliver, flush, finish;
    unsigned handles; /* links, watches and timers that must end before it is freed */
    bool is_closing;
    struct closing closing;
};

/* chardev.c. A handle less; with the last one a closing chardev is freed. */
void chardev_release(struct chardev *chardev);
/* The descriptors become the link's; -1 for a direction that does not exist. */
int must_check chardev_link_up(struct chardev *chardev, int in_fd, int out_fd);
/* The next client of the listener becomes the link. -EAGAIN if there is none. */
int must_check chardev_accept(struct chardev *chardev);
int must_check chardev_watch_listener(struct chardev *chardev);
int must_check chardev_start_pty(struct chardev *chardev);
/* Output to the link, as its protocol writes it; how much was taken. */
size_t chardev_put_output(struct chardev *chardev, const uint8_t *bytes, size_t length);
size_t chardev_queue_output(struct chardev *chardev, const void *bytes, size_t length);

/* chardev_mux.c */
void chardev_init_users(struct chardev *chardev);
/* How many bytes may be read from the source now. */
size_t chardev_input_room(const struct chardev *chardev);
void chardev_take_input(struct chardev *chardev, const uint8_t *bytes, size_t length);
void chardev_deliver(struct chardev *chardev);
void chardev_tell_writable(struct chardev *chardev);
void chardev_tell_open(struct chardev *chardev, bool is_open);

/* chardev_log.c */
int must_check chardev_log_open(struct chardev *chardev, struct error *err);
void chardev_log_take(struct chardev *chardev, const void *bytes, size_t length);
/* Queues the history as output for a client that has just come. */
void chardev_log_replay(struct chardev *chardev);
void chardev_log_close(struct chardev *chardev);

/* chardev_client.c. Tries at once, then every reconnect_ms until somebody is there. */
int must_check chardev_client_start(struct chardev *chardev, const struct sockaddr *address,
                                    socklen_t size);
/* After the other end has left. */
void chardev_client_retry(struct chardev *chardev);
void chardev_client_close(struct chardev *chardev);

/* chardev_open.c */
int must_check chardev_open(struct chardev *chardev, struct error *err);

#endif
