/* SPDX-License-Identifier: MIT */
/*
 * cell: one version of one sector of the simulated medium, and files made of them.
 *
 * A cell never changes; what changes is which cell a place of a file holds, so that a state of the
 * whole file is an array of pointers, and going from one state to the next costs a few of them.
 * Each cell knows whether its bytes are a sector of guest data, of which place and which version.
 */
#ifndef TESTS_CRASH_SIM_CELL_H
#define TESTS_CRASH_SIM_CELL_H

#include <stdbool.h>
#include <stdint.h>

#define CELL_BYTES 512u

/* Versions of guest data that mean something else than a write of the workload. */
#define CELL_ZERO    UINT32_C(0)
#define CELL_BACKING UINT32_C(0x00ffffff)
/* What a sector holds that is no guest data at all. */
#define CELL_FOREIGN UINT32_C(0xffffffff)

struct cell {
    uint8_t bytes[CELL_BYTES];
    uint32_t lba, version; /* CELL_FOREIGN if the bytes are no guest data */
};

/* Memory for cells, all of it freed at once. */
struct cell_arena {
    struct cell_block *blocks;
    uint32_t used; /* of the newest block */
};

/* NULL stands for a cell of zeroes. */
struct cell_file {
    const struct cell **cells;
    uint64_t count;        /* room in `cells` */
    uint64_t length_bytes; /* of the file */
};

uint64_t cell_random(uint64_t *state);
/* 0 .. limit - 1 */
uint64_t cell_below(uint64_t *state, uint64_t limit);

void cell_arena_fini(struct cell_arena *arena);
/* NULL if the bytes are zeroes. */
const struct cell *cell_make(struct cell_arena *arena, const uint8_t *bytes);

/* The bytes that stand for a version of a place of the guest's disk. */
void cell_fill(uint8_t *bytes, uint32_t lba, uint32_t version);
void cell_identify(const uint8_t *bytes, uint32_t *lba, uint32_t *version);
/* The version, if the cell (or NULL) is guest data of this place or zeroes; else CELL_FOREIGN. */
uint32_t cell_version(const struct cell *cell, uint32_t lba);

void cell_file_init(struct cell_file *file, uint64_t count);
void cell_file_fini(struct cell_file *file);
void cell_file_reserve(struct cell_file *file, uint64_t count);
void cell_file_copy(struct cell_file *to, const struct cell_file *from);

static inline const struct cell *cell_file_get(const struct cell_file *file, uint64_t sector)
{
    return sector < file->count ? file->cells[sector] : 0;
}

/* The sector's bytes; zeroes where there are none. */
const uint8_t *cell_file_bytes(const struct cell_file *file, uint64_t sector);

#endif
