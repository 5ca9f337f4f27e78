/* SPDX-License-Identifier: MIT */
/* ring: a queue in memory whose kicks and interrupts follow event_idx as Linux's driver does. */
#ifndef TOOLS_BENCH_RING_H
#define TOOLS_BENCH_RING_H

#include "tools/bench/fake_guest.h"

struct ring {
    struct fake_queue queue;
    uint16_t kicked_at; /* the available index at the last kick */
};

/* Whether the device asks to be told of what was made available since the last time. */
bool ring_must_kick(struct ring *ring);

/* Asks for an interrupt with the next used entry. True if there is one already: look once more. */
bool ring_await(struct ring *ring);

#endif
