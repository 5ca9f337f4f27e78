/* SPDX-License-Identifier: MIT */
/* cell: see the header. */
#include "tests/crash_sim/cell.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"

#define BLOCK_CELLS 1024u
/* The top byte of every word of guest data, so that metadata is not taken for it. */
#define DATA_MARK UINT64_C(0xd5)

struct cell_block {
    struct cell_block *next;
    struct cell cells[BLOCK_CELLS];
};

static const uint8_t zeroes[CELL_BYTES];

uint64_t cell_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

uint64_t cell_below(uint64_t *state, uint64_t limit)
{
    return (cell_random(state) >> 16) % limit;
}

void cell_arena_fini(struct cell_arena *arena)
{
    while (arena->blocks) {
        struct cell_block *block = arena->blocks;
        arena->blocks = block->next;
        free(block);
    }
    arena->used = 0;
}

void cell_fill(uint8_t *bytes, uint32_t lba, uint32_t version)
{
    uint64_t word = version ? DATA_MARK << 56 | (uint64_t)version << 32 | lba : 0;
    for (unsigned i = 0; i < CELL_BYTES; i += 8)
        store_le64(bytes + i, word);
}

void cell_identify(const uint8_t *bytes, uint32_t *lba, uint32_t *version)
{
    uint64_t word = load_le64(bytes);
    *lba = (uint32_t)word;
    *version = (uint32_t)(word >> 32) & 0xffffff;
    bool is_data = word >> 56 == DATA_MARK && !memcmp(bytes, bytes + 8, CELL_BYTES - 8);
    if (!is_data && memcmp(bytes, zeroes, CELL_BYTES) != 0)
        *version = CELL_FOREIGN;
}

uint32_t cell_version(const struct cell *cell, uint32_t lba)
{
    if (!cell)
        return CELL_ZERO;
    return cell->lba == lba ? cell->version : CELL_FOREIGN;
}

const struct cell *cell_make(struct cell_arena *arena, const uint8_t *bytes)
{
    if (!memcmp(bytes, zeroes, CELL_BYTES))
        return NULL;
    if (!arena->blocks || arena->used == BLOCK_CELLS) {
        struct cell_block *block = malloc(sizeof(*block));
        CHECK(block);
        block->next = arena->blocks;
        arena->blocks = block;
        arena->used = 0;
    }
    struct cell *cell = &arena->blocks->cells[arena->used++];
    memcpy(cell->bytes, bytes, CELL_BYTES);
    cell_identify(bytes, &cell->lba, &cell->version);
    return cell;
}

void cell_file_init(struct cell_file *file, uint64_t count)
{
    *file = (struct cell_file){.count = count};
    file->cells = calloc(count, sizeof(file->cells[0]));
    CHECK(file->cells);
}

void cell_file_fini(struct cell_file *file)
{
    free(file->cells);
    *file = (struct cell_file){0};
}

void cell_file_reserve(struct cell_file *file, uint64_t count)
{
    if (count <= file->count)
        return;
    count = MAX(count, file->count * 3 / 2);
    file->cells = realloc(file->cells, count * sizeof(file->cells[0]));
    CHECK(file->cells);
    memset(file->cells + file->count, 0, (count - file->count) * sizeof(file->cells[0]));
    file->count = count;
}

void cell_file_copy(struct cell_file *to, const struct cell_file *from)
{
    cell_file_reserve(to, MAX(from->count, 1));
    if (from->count)
        memcpy(to->cells, from->cells, from->count * sizeof(to->cells[0]));
    memset(to->cells + from->count, 0, (to->count - from->count) * sizeof(to->cells[0]));
    to->length_bytes = from->length_bytes;
}

const uint8_t *cell_file_bytes(const struct cell_file *file, uint64_t sector)
{
    const struct cell *cell = cell_file_get(file, sector);
    return cell ? cell->bytes : zeroes;
}
