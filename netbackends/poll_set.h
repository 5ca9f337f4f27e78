/* SPDX-License-Identifier: MIT */
/*
 * poll_set: many descriptors of a library behind one descriptor of the loop.
 *
 * The library tells before each wait what it wants (begin, want..., commit); only what changed
 * since the last time costs a system call. After a wait, poll_set_collect fetches what is ready and
 * poll_set_ready answers for each descriptor. Events are EPOLL*, level-triggered.
 */
#ifndef NETBACKENDS_POLL_SET_H
#define NETBACKENDS_POLL_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

struct poll_slot {
    uint32_t wanted;
    uint32_t registered; /* what the kernel has; 0 if it does not have the descriptor */
    uint32_t ready;
    uint32_t round; /* the last one in which it was wanted */
};

struct poll_set {
    int epoll_fd; /* readable while anything wanted is ready */
    /* Private. */
    struct poll_slot *slots; /* by descriptor */
    size_t slot_count;
    int *members; /* descriptors with registered != 0 or wanted in this round */
    size_t member_count;
    uint32_t round;
};

int must_check poll_set_init(struct poll_set *set);
void poll_set_fini(struct poll_set *set);

void poll_set_begin(struct poll_set *set);
/* True if the descriptor was not known before. */
bool poll_set_want(struct poll_set *set, int fd, uint32_t events);
void poll_set_commit(struct poll_set *set);

/* The descriptor is about to be closed: its number may come back as another one. */
void poll_set_forget(struct poll_set *set, int fd);

/* Never waits. Replaces the answers of the last call; returns how many are ready. */
size_t poll_set_collect(struct poll_set *set);
uint32_t poll_set_ready(const struct poll_set *set, int fd);

size_t poll_set_size(const struct poll_set *set);

#endif
