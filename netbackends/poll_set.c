/* SPDX-License-Identifier: MIT */
/* poll_set: one private epoll descriptor, kept in step with what a library wants. */
#include "netbackends/poll_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { SLOTS_AT_FIRST = 64, COLLECT_BATCH = 64 };

int poll_set_init(struct poll_set *set)
{
    *set = (struct poll_set){.epoll_fd = epoll_create1(EPOLL_CLOEXEC), .round = 1};
    return set->epoll_fd < 0 ? -errno : 0;
}

void poll_set_fini(struct poll_set *set)
{
    close(set->epoll_fd);
    free(set->slots);
    free(set->members);
    *set = (struct poll_set){.epoll_fd = -1};
}

void poll_set_begin(struct poll_set *set)
{
    set->round++;
}

/* Grows with the largest descriptor number: rarely, and never on the path of a frame. */
static void make_slot(struct poll_set *set, size_t index)
{
    size_t count = MAX(set->slot_count, SLOTS_AT_FIRST);
    while (count <= index)
        count *= 2;
    set->slots = realloc(set->slots, count * sizeof(*set->slots));
    set->members = realloc(set->members, count * sizeof(*set->members));
    CHECK(set->slots && set->members);
    memset(set->slots + set->slot_count, 0, (count - set->slot_count) * sizeof(*set->slots));
    set->slot_count = count;
}

bool poll_set_want(struct poll_set *set, int fd, uint32_t events)
{
    CHECK(fd >= 0);
    if ((size_t)fd >= set->slot_count)
        make_slot(set, (size_t)fd);
    struct poll_slot *slot = &set->slots[fd];
    bool is_new = !slot->registered && slot->round != set->round;
    if (is_new)
        set->members[set->member_count++] = fd;
    slot->wanted = events;
    slot->round = set->round;
    return is_new;
}

/* The kernel's view may differ if a descriptor was closed behind our back: it then has the last
 * word, once. */
static uint32_t update(int epoll_fd, int fd, uint32_t before, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted, .data.fd = fd};
    if (!wanted) {
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    int operation = before ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int result = epoll_ctl(epoll_fd, operation, fd, &event);
    if (result < 0 && (errno == ENOENT || errno == EEXIST)) {
        operation = operation == EPOLL_CTL_MOD ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
        result = epoll_ctl(epoll_fd, operation, fd, &event);
    }
    return result < 0 ? 0 : wanted;
}

void poll_set_commit(struct poll_set *set)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->member_count; i++) {
        int fd = set->members[i];
        struct poll_slot *slot = &set->slots[fd];
        uint32_t wanted = slot->round == set->round ? slot->wanted : 0;
        if (slot->registered != wanted)
            slot->registered = update(set->epoll_fd, fd, slot->registered, wanted);
        if (slot->registered)
            set->members[kept++] = fd;
        else
            *slot = (struct poll_slot){0};
    }
    set->member_count = kept;
}

void poll_set_forget(struct poll_set *set, int fd)
{
    if (fd < 0 || (size_t)fd >= set->slot_count)
        return;
    struct poll_slot *slot = &set->slots[fd];
    if (slot->registered)
        epoll_ctl(set->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    if (slot->registered || slot->round == set->round) {
        for (size_t i = 0; i < set->member_count; i++)
            if (set->members[i] == fd)
                set->members[i--] = set->members[--set->member_count];
    }
    *slot = (struct poll_slot){0};
}

size_t poll_set_collect(struct poll_set *set)
{
    struct epoll_event events[COLLECT_BATCH];
    for (size_t i = 0; i < set->member_count; i++)
        set->slots[set->members[i]].ready = 0;
    int count = epoll_wait(set->epoll_fd, events, COLLECT_BATCH, 0);
    size_t found = 0;
    for (int i = 0; i < count; i++) {
        struct poll_slot *slot = &set->slots[events[i].data.fd];
        if (!slot->registered)
            continue;
        slot->ready = events[i].events;
        found++;
    }
    return found;
}

uint32_t poll_set_ready(const struct poll_set *set, int fd)
{
    return fd >= 0 && (size_t)fd < set->slot_count ? set->slots[fd].ready : 0;
}

size_t poll_set_size(const struct poll_set *set)
{
    return set->member_count;
}
