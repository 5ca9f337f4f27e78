/* SPDX-License-Identifier: MIT */
/*
 * ioevent: doorbells: writes that signal an eventfd instead of leaving the CPU. Changed on the
 * loop's thread, looked up by the vCPUs.
 */
#ifndef VMM_SOFT_IOEVENT_H
#define VMM_SOFT_IOEVENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define IOEVENT_MAX 512

struct ioevent {
    int fd;
    bool is_pio;
    bool any;      /* whatever is written */
    unsigned size; /* 0: whatever size */
    uint64_t address;
    uint64_t value;
};

struct ioevent_table {
    pthread_rwlock_t lock;
    _Atomic unsigned count;
    struct ioevent events[IOEVENT_MAX];
};

void ioevent_init(struct ioevent_table *table);
void ioevent_fini(struct ioevent_table *table);

/* 0 or -ENOSPC, -EEXIST. */
int ioevent_add(struct ioevent_table *table, const struct ioevent *event);
void ioevent_del(struct ioevent_table *table, const struct ioevent *event);

/* True if a doorbell took the write. */
bool ioevent_signal(struct ioevent_table *table, bool is_pio, uint64_t address, unsigned size,
                    uint64_t value);

#endif
