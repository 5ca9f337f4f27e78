/* SPDX-License-Identifier: MIT */
/*
 * fake_io: a disk in memory behind disk/io.h that completes requests in an order drawn from a seed,
 * fails on demand, and can say what a power cut at this moment would leave on the medium.
 *
 * It models a volatile cache: what is written is seen by reads at once, and is on the medium only
 * when a sync submitted after its completion has completed. Until then a power cut keeps any part
 * of it, sector by sector of 512 bytes. The length of the file is as volatile as its bytes.
 */
#ifndef TESTS_FAKE_IO_H
#define TESTS_FAKE_IO_H

#include "base/closing.h"
#include "disk/io.h"

#define FAKE_SECTOR 512u

/* A change that is not on the medium yet. */
struct fake_change {
    struct list node;
    uint64_t sequence; /* of its completion; UINT64_MAX while in flight */
    uint64_t offset, bytes;
    uint64_t length; /* of the file after it */
    uint8_t *data;   /* NULL: zeroes */
    bool is_truncate;
};

struct fake_fault {
    int result;     /* -errno; 0: no fault */
    uint64_t after; /* so many operations of the kinds pass */
    bool stays;     /* every one from then on fails, not only one */
    unsigned kinds; /* 1 << enum io_kind, or-ed */
};

struct fake_io {
    struct io_file file;
    uint64_t random; /* the state of the generator: never 0 */
    uint8_t *cache;  /* what reads see */
    uint8_t *medium; /* what is safe */
    uint64_t max_bytes;
    uint64_t length, medium_length;
    struct list changes; /* in the order of execution */
    uint64_t completions;
    struct list queue; /* requests that have not been executed */
    unsigned queued;
    struct loop_task run;
    unsigned per_turn; /* requests executed in one loop turn, at most */
    struct fake_fault fault;
    uint64_t operations; /* that the fault counted */
    uint64_t faults;     /* that happened */
    /* After anything happened, before its request is answered: the answer may start a job in the
     * pool that uses the file. May be NULL. */
    void (*on_change)(struct fake_io *fake, void *opaque);
    void *opaque;
    struct closing closing;
};

/* Empty, of at most `max_bytes`. fake_io_destroy after the file was closed. */
struct fake_io *fake_io_create(struct loop *loop, uint64_t max_bytes, uint64_t seed);
void fake_io_destroy(struct fake_io *fake);

uint64_t fake_random(uint64_t *state);
/* 0 .. limit - 1 */
uint64_t fake_below(uint64_t *state, uint64_t limit);

/* All that was written is safe. */
void fake_io_settle(struct fake_io *fake);

/*
 * What the medium may hold after a power cut now; `out` has room for max_bytes. Draws from `state`.
 * Returns its length.
 */
uint64_t fake_io_power_cut(const struct fake_io *fake, uint64_t *state, uint8_t *out);

/* The file is what a power cut left. */
void fake_io_restart(struct fake_io *fake, const uint8_t *bytes, uint64_t length);

#endif
