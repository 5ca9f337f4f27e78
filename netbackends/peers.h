/* SPDX-License-Identifier: MIT */
/*
 * peers: who else is on an internal network: the sockets in its folder, a connected socket to each,
 * and which Ethernet address was last heard from which of them.
 */
#ifndef NETBACKENDS_PEERS_H
#define NETBACKENDS_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "netbackends/socket_address.h"

#define PEERS_MAX     64
#define PEERS_MAC_MAX 1024 /* a power of two */

struct peer {
    uint64_t id; /* 0: free */
    int fd;      /* connected to it */
    struct socket_address address;
    uint64_t stalled_ns; /* since when its queue is full; 0: it is not */
    bool is_given_up;    /* stalled for too long: frames for it are dropped */
};

struct peers {
    char folder[256]; /* as it was named, for people */
    int folder_fd;
    char place[32]; /* the folder by its descriptor: short enough for the path of a socket */
    uint64_t own_id;
    int notify_fd; /* inotify: readable when somebody came or left */
    struct peer all[PEERS_MAX];
    size_t count;
    /* Direct-mapped: a newer address may push out an older one, which is then flooded again. */
    struct {
        uint8_t mac[6];
        uint64_t id;
    } macs[PEERS_MAC_MAX];
};

/* Makes the folder if needed and begins to watch it. The others are found by peers_scan. */
int must_check peers_init(struct peers *peers, const char *folder, struct error *err);
void peers_fini(struct peers *peers);

/* Binds our own socket, under `name`. The descriptor or -errno. */
int must_check peers_bind_own(struct peers *peers, const char *name, struct socket_address *own,
                              struct error *err);

/* Reads what notify_fd says and the folder. */
void peers_scan(struct peers *peers);
/* It is gone: its socket, if it is still there, refused us. */
void peers_remove(struct peers *peers, struct peer *peer);

void peers_learn(struct peers *peers, const uint8_t mac[6], uint64_t id);
/* NULL if nobody was heard with this address. */
struct peer *peers_find_mac(struct peers *peers, const uint8_t mac[6]);
struct peer *peers_find(struct peers *peers, uint64_t id);

/* for (struct peer *peer = NULL; (peer = peers_next(peers, peer));) */
struct peer *peers_next(struct peers *peers, struct peer *after);

#endif
