/* SPDX-License-Identifier: MIT */
/*
 * nbd_private: what the files of the NBD server share.
 *
 * nbd_server.c has the listener, exports and clients as a whole; nbd_client.c the connection: bytes
 * in, bytes out, slots; nbd_handshake.c the options; nbd_request.c what comes after them;
 * nbd_status.c block status.
 */
#ifndef DISK_NBD_NBD_PRIVATE_H
#define DISK_NBD_NBD_PRIVATE_H

#include "base/limits.h"
#include "base/list.h"
#include "disk/dirty.h"
#include "disk/nbd/nbd_protocol.h"
#include "disk/nbd/nbd_server.h"

struct nbd_export {
    struct list node;
    char *name;
    char *description; /* or NULL */
    struct disk *disk;
    bool read_only;
    bool detect_zeroes, zeroes_unmap;
    struct dirty_bitmap *bitmaps[NBD_BITMAPS_MAX];
    size_t bitmap_count;
    unsigned clients;
    bool is_leaving;
    void (*on_removed)(void *opaque);
    void *opaque;
};

struct nbd_server {
    struct loop *loop;
    int listener;
    struct loop_watch watch;
    struct nbd_server_options options;
    struct list exports;
    struct list clients;
    unsigned client_count;
    struct loop_task settle; /* exports and a server that have nobody left */
    bool watch_closed;
    bool closing;
    void (*on_closed)(void *opaque);
    void *opaque;
};

/* Something to be sent: head, then payload. */
struct nbd_out {
    struct list node;
    uint8_t head[NBD_STRUCTURED_HEAD_BYTES + 12];
    size_t head_bytes;
    const uint8_t *payload;
    size_t payload_bytes;
    struct nbd_request
        *request; /* whose slot is free when it is sent; else `out` itself is freed */
};

struct nbd_request {
    struct nbd_client *client;
    struct list node; /* client->idle while free */
    struct nbd_out out;
    uint16_t flags, command;
    uint64_t handle, offset;
    uint32_t bytes;
    uint8_t *buffer;
    size_t buffer_bytes;
    struct iovec iov;
    struct disk_request disk;
    /* BLOCK_STATUS: how far base:allocation is asked for, and the extents so far. */
    uint64_t status_at;
    size_t extent_count;
    uint8_t *status_end; /* of what is in the buffer */
};

enum nbd_phase {
    NBD_PHASE_HELLO,   /* the client's flags */
    NBD_PHASE_OPTION,  /* options, one after the other */
    NBD_PHASE_REQUEST, /* requests */
    NBD_PHASE_PAYLOAD, /* of `receiving` */
    NBD_PHASE_LEAVING, /* nothing more is read; what is to be sent still is */
};

struct nbd_client {
    struct list node;
    struct nbd_server *server;
    struct nbd_export *export; /* NULL during the handshake */
    int fd;
    struct loop_watch watch;
    struct loop_timer timer; /* the handshake must end in time, and so must leaving */
    struct loop_task input, output;
    enum nbd_phase phase;
    bool is_fixed, no_zeroes, structured;
    bool stalled; /* the next request waits for a slot or memory */
    bool closing;
    unsigned closed_parts;
    /* What SET_META_CONTEXT chose: bit 0 is base:allocation, then the bitmaps. */
    uint32_t contexts;
    struct nbd_export *contexts_of;
    uint8_t in[NBD_INPUT_BYTES];
    size_t in_start, in_end;
    uint64_t skip; /* bytes to be dropped before anything else */
    struct nbd_request *receiving;
    size_t received;
    struct list out;
    size_t out_sent;  /* of the first */
    size_t out_bytes; /* of option replies that wait */
    struct nbd_request requests[NBD_REQUESTS_MAX];
    struct list idle;
    unsigned in_flight;    /* on the disk */
    uint64_t buffer_bytes; /* of slots in use */
    uint64_t kept_bytes;   /* of idle ones */
};

/* nbd_server.c */
struct nbd_export *nbd_find_export(struct nbd_server *server, const char *name, size_t name_bytes);
void nbd_server_forget(struct nbd_server *server, struct nbd_client *client);

/* nbd_client.c */
int must_check nbd_client_open(struct nbd_server *server, int fd);
/* At once: whatever is not sent is lost. */
void nbd_client_close(struct nbd_client *client);
/* Sends what there is, then closes. */
void nbd_client_leave(struct nbd_client *client);
void nbd_client_send(struct nbd_client *client, struct nbd_out *out);
/* A slot with a buffer of `bytes`; NULL if the client must wait. */
struct nbd_request *nbd_request_get(struct nbd_client *client, size_t bytes, int *result);
void nbd_request_put(struct nbd_request *request);
/* The disk is done with the request. */
void nbd_client_landed(struct nbd_client *client);

static inline size_t nbd_input_bytes(const struct nbd_client *client)
{
    return client->in_end - client->in_start;
}

static inline const uint8_t *nbd_input(const struct nbd_client *client)
{
    return client->in + client->in_start;
}

/* nbd_handshake.c: true if a step was made; false if more bytes are needed. */
void nbd_handshake_begin(struct nbd_client *client);
bool nbd_handshake_hello(struct nbd_client *client);
bool nbd_handshake_option(struct nbd_client *client);

/* nbd_request.c */
bool nbd_request_parse(struct nbd_client *client);
/* Its payload is complete. */
void nbd_request_run(struct nbd_request *request);
void nbd_request_answer(struct nbd_request *request, int result);

/* nbd_status.c: the buffer that a status request needs, and the asking. */
size_t nbd_status_room(const struct nbd_client *client);
void nbd_status_run(struct nbd_request *request);

/* The context's name; its id is `index`. */
#define NBD_CONTEXT_NAME_BYTES (32 + DIRTY_NAME_MAX)
bool nbd_context_name(const struct nbd_export *export, unsigned index,
                      char name[NBD_CONTEXT_NAME_BYTES]);

#endif
