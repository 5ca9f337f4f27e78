/* SPDX-License-Identifier: MIT */
/*
 * simdisk: a disk behind disk/io.h that completes in an order drawn from a seed, fails on demand,
 * and keeps a trace of all that happened to it, from which every state that a power cut may leave
 * can be made afterwards (powercut.h) without running the workload again.
 *
 * It models a volatile write-back cache with versions of sectors: what is written is seen by reads
 * at once; a sync makes durable what had completed when it was submitted. The trace's clock counts
 * submissions, completions and whatever the workload notes in between.
 */
#ifndef TESTS_CRASH_SIM_SIMDISK_H
#define TESTS_CRASH_SIM_SIMDISK_H

#include "base/closing.h"
#include "disk/io.h"
#include "tests/crash_sim/cell.h"

#define SIMDISK_NEVER UINT32_MAX

/* A write, a zeroing, a punch or a truncation. */
struct simdisk_change {
    uint64_t first, count;     /* sectors */
    const struct cell **cells; /* NULL: all zeroes */
    uint64_t end_bytes;        /* the file is as long as that after it, at least */
    bool is_truncate;          /* and exactly that long */
    uint32_t submitted, done;  /* when; `done` SIMDISK_NEVER for what failed without effect */
    uint32_t lost; /* when a failed sync dropped it: no later one brings it to the medium */
};

enum simdisk_event_kind {
    SIMDISK_SUBMITTED, /* change `index` may reach the medium from now on */
    SIMDISK_DONE,      /* change `index` is in the cache, after those done before */
    SIMDISK_DROPPED,   /* change `index` failed and had no effect */
    SIMDISK_SYNCED,    /* all that was done before `since`, and not lost by now, is durable */
    SIMDISK_NOTE,      /* the workload did something */
    SIMDISK_ELSEWHERE, /* an event of another disk of the same clock */
};

#define SIMDISK_CLOCK_DISKS 8u

/* Disks that lose power together: their traces have one clock. */
struct simdisk_clock {
    struct simdisk *disks[SIMDISK_CLOCK_DISKS];
    unsigned count;
};

struct simdisk_event {
    enum simdisk_event_kind kind;
    uint32_t index, since;
};

struct simdisk_trace {
    struct cell_file start; /* the medium before the first event */
    struct simdisk_event *events;
    struct simdisk_change *changes;
    uint32_t event_count, event_room, change_count, change_room;
};

struct simdisk_fault {
    int result;     /* -errno; 0: no fault */
    uint64_t after; /* so many operations of the kinds pass */
    bool stays;     /* every one from then on fails, not only one */
    unsigned kinds; /* 1 << enum io_kind, or-ed */
    bool is_full;   /* only what makes the file longer: the host has no space for more */
};

struct simdisk {
    struct io_file file;
    uint64_t random;
    struct cell_arena *arena;
    struct cell_file cache;
    struct simdisk_trace trace;
    struct simdisk_clock *clock; /* or NULL */
    struct list queue;           /* requests that have not been executed */
    unsigned queued;
    unsigned per_turn;               /* requests executed in one loop turn, at most */
    unsigned slow_one_in, slow_most; /* one in so many is overtaken by others, up to so often */
    struct loop_task run;
    struct simdisk_fault fault;
    uint64_t operations; /* that the fault counted */
    uint64_t faults;     /* that happened */
    uint64_t failed_syncs;
    struct closing closing;
};

/* The file holds what `start` holds. Cells live in `arena`, which outlives the disk. */
struct simdisk *simdisk_create(struct loop *loop, struct cell_arena *arena,
                               const struct cell_file *start, uint64_t seed);
/* Nothing has happened to it yet. */
void simdisk_join(struct simdisk *disk, struct simdisk_clock *clock);
/* After the file was closed, or was never opened by anyone. */
void simdisk_destroy(struct simdisk *disk);

/* Something happened that the trace is to tell apart from what came before. Returns its time. */
uint32_t simdisk_note(struct simdisk *disk);
/* The time of the next event. */
uint32_t simdisk_now(const struct simdisk *disk);

#endif
