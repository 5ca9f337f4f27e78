/* SPDX-License-Identifier: MIT */
/* powercut: see the header. One file is kept, and changed back after each state. */
#include "tests/crash_sim/powercut.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define SEEN_ROOM 8192u

struct undo {
    uint64_t sector;
    const struct cell *cell;
};

struct cutter {
    const struct simdisk_trace *trace;
    const struct powercut_options *options;
    bool (*check)(void *opaque, const struct cell_file *file, uint32_t time);
    void *opaque;
    uint64_t random;
    struct cell_file file; /* what is durable */
    uint64_t hash;
    uint32_t *done, *flying; /* changes that are pending: in the order of execution; in flight */
    uint32_t done_count, flying_count;
    struct undo *undo;
    uint64_t undo_count, undo_room;
    uint64_t *seen;
    uint32_t seen_count, seen_room;
    uint64_t states;
    bool is_stopped;
};

static uint64_t mix(uint64_t sector, const struct cell *cell)
{
    uint64_t x = sector * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)(uintptr_t)cell;
    x = (x ^ x >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    return cell ? x ^ x >> 32 : 0;
}

static void set_sector(struct cutter *cutter, uint64_t sector, const struct cell *cell,
                       bool is_lasting)
{
    if (sector >= cutter->file.count)
        cell_file_reserve(&cutter->file, sector + 1);
    const struct cell *old = cutter->file.cells[sector];
    if (old == cell)
        return;
    if (!is_lasting) {
        if (cutter->undo_count == cutter->undo_room) {
            cutter->undo_room = cutter->undo_room * 2 + 1024;
            cutter->undo = realloc(cutter->undo, cutter->undo_room * sizeof(cutter->undo[0]));
            CHECK(cutter->undo);
        }
        cutter->undo[cutter->undo_count++] = (struct undo){sector, old};
    }
    cutter->hash ^= mix(sector, old) ^ mix(sector, cell);
    cutter->file.cells[sector] = cell;
}

enum part {
    PART_ALL,
    PART_TORN,
};

static void apply(struct cutter *cutter, uint32_t index, enum part part, bool is_lasting)
{
    const struct simdisk_change *change = &cutter->trace->changes[index];
    uint64_t *length = &cutter->file.length_bytes;
    for (uint64_t i = 0; i < change->count; i++) {
        if (part == PART_TORN && !change->is_truncate && cell_below(&cutter->random, 2))
            continue;
        set_sector(cutter, change->first + i, change->cells ? change->cells[i] : NULL, is_lasting);
    }
    if (change->is_truncate)
        *length = change->end_bytes;
    else
        *length = MAX(*length, change->end_bytes);
}

static void undo_all(struct cutter *cutter, uint64_t length_bytes)
{
    while (cutter->undo_count) {
        const struct undo *undo = &cutter->undo[--cutter->undo_count];
        cutter->hash ^= mix(undo->sector, cutter->file.cells[undo->sector]);
        cutter->hash ^= mix(undo->sector, undo->cell);
        cutter->file.cells[undo->sector] = undo->cell;
    }
    cutter->file.length_bytes = length_bytes;
}

static uint64_t key_of(const struct cutter *cutter)
{
    return cutter->hash ^ cutter->file.length_bytes * UINT64_C(0x2545f4914f6cdd1d);
}

/* True if the state of this key is new since the last note. */
static bool note_state(struct cutter *cutter, uint64_t key)
{
    key += key == 0;
    if (cutter->seen_count * 2 >= cutter->seen_room)
        return true;
    uint32_t at = (uint32_t)(key >> 20) & (cutter->seen_room - 1);
    for (; cutter->seen[at]; at = (at + 1) & (cutter->seen_room - 1))
        if (cutter->seen[at] == key)
            return false;
    cutter->seen[at] = key;
    cutter->seen_count++;
    return true;
}

static void forget_states(struct cutter *cutter)
{
    if (cutter->seen_count)
        memset(cutter->seen, 0, cutter->seen_room * sizeof(cutter->seen[0]));
    cutter->seen_count = 0;
}

static uint32_t pending(const struct cutter *cutter, uint32_t i)
{
    return i < cutter->done_count ? cutter->done[i] : cutter->flying[i - cutter->done_count];
}

/* The pending changes whose bit is set are on the medium, all of each or torn. */
static void apply_some(struct cutter *cutter, uint64_t subset, bool is_torn)
{
    uint32_t count = cutter->done_count + cutter->flying_count;
    for (uint32_t i = 0; i < count; i++) {
        bool is_in = i < 64 ? subset >> i & 1 : cell_below(&cutter->random, 2);
        if (is_in)
            apply(cutter, pending(cutter, i),
                  is_torn && cell_below(&cutter->random, 3) ? PART_TORN : PART_ALL, false);
    }
}

static void give(struct cutter *cutter, uint64_t subset, bool is_torn, uint32_t time)
{
    uint64_t length_bytes = cutter->file.length_bytes;
    if (cutter->is_stopped)
        return;
    apply_some(cutter, subset, is_torn);
    if (note_state(cutter, key_of(cutter))) {
        cutter->states++;
        cutter->is_stopped = !cutter->check(cutter->opaque, &cutter->file, time);
    }
    undo_all(cutter, length_bytes);
}

static bool can_tear(const struct cutter *cutter)
{
    for (uint32_t i = 0; i < cutter->done_count + cutter->flying_count; i++)
        if (cutter->trace->changes[pending(cutter, i)].count > 1)
            return true;
    return false;
}

/* A sample leans to almost all or almost nothing: one write too late or too early. */
static uint64_t draw_subset(struct cutter *cutter)
{
    uint64_t bits = cell_random(&cutter->random);
    switch (cell_below(&cutter->random, 4)) {
    case 0:
        return UINT64_C(1) << (bits >> 40) % MIN(64, cutter->done_count + cutter->flying_count);
    case 1:
        return ~(UINT64_C(1) << (bits >> 40) % MIN(64, cutter->done_count + cutter->flying_count));
    default:
        return bits ^ bits >> 31;
    }
}

static void cut(struct cutter *cutter, uint32_t time)
{
    const struct powercut_options *options = cutter->options;
    uint32_t count = cutter->done_count + cutter->flying_count;
    if (count <= options->all_of) {
        for (uint64_t subset = 0; subset < UINT64_C(1) << count; subset++)
            give(cutter, subset, false, time);
    } else {
        give(cutter, 0, false, time);
        give(cutter, UINT64_MAX, false, time);
        for (unsigned i = 2; i < options->samples; i++)
            give(cutter, draw_subset(cutter), false, time);
    }
    for (unsigned i = 0; i < options->torn && can_tear(cutter); i++)
        give(cutter, cell_random(&cutter->random) | cell_random(&cutter->random), true, time);
}

static void remove_from(uint32_t *list, uint32_t *count, uint32_t index)
{
    for (uint32_t i = 0; i < *count; i++) {
        if (list[i] != index)
            continue;
        memmove(list + i, list + i + 1, (*count - i - 1) * sizeof(list[0]));
        --*count;
        return;
    }
}

static void make_durable(struct cutter *cutter, uint32_t since, uint32_t time)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cutter->done_count; i++) {
        const struct simdisk_change *change = &cutter->trace->changes[cutter->done[i]];
        if (change->done < since && change->lost > time)
            apply(cutter, cutter->done[i], PART_ALL, true);
        else
            cutter->done[kept++] = cutter->done[i];
    }
    cutter->done_count = kept;
}

static void happen(struct cutter *cutter, uint32_t time)
{
    const struct simdisk_event *event = &cutter->trace->events[time];
    switch (event->kind) {
    case SIMDISK_SUBMITTED:
        cutter->flying[cutter->flying_count++] = event->index;
        break;
    case SIMDISK_DONE:
        remove_from(cutter->flying, &cutter->flying_count, event->index);
        cutter->done[cutter->done_count++] = event->index;
        break;
    case SIMDISK_DROPPED:
        remove_from(cutter->flying, &cutter->flying_count, event->index);
        break;
    case SIMDISK_SYNCED:
        make_durable(cutter, event->since, time);
        break;
    case SIMDISK_NOTE:
        forget_states(cutter);
        break;
    case SIMDISK_ELSEWHERE:
        break;
    }
}

static void cutter_init(struct cutter *cutter, const struct simdisk_trace *trace,
                        const struct powercut_options *options)
{
    *cutter = (struct cutter){.trace = trace, .options = options};
    cutter->random = options->seed * 2 + 1;
    cutter->seen_room = SEEN_ROOM;
    cutter->seen = calloc(cutter->seen_room, sizeof(cutter->seen[0]));
    cutter->done = calloc(trace->change_count + 1, sizeof(cutter->done[0]));
    cutter->flying = calloc(trace->change_count + 1, sizeof(cutter->flying[0]));
    CHECK(cutter->done && cutter->flying && cutter->seen);
    cell_file_copy(&cutter->file, &trace->start);
}

static void cutter_fini(struct cutter *cutter)
{
    cell_file_fini(&cutter->file);
    free(cutter->done);
    free(cutter->flying);
    free(cutter->seen);
    free(cutter->undo);
}

static bool is_time_to_cut(struct cutter *cutter)
{
    return cutter->options->one_in <= 1 ||
           cell_below(&cutter->random, cutter->options->one_in) == 0;
}

uint64_t powercut_each(const struct simdisk_trace *trace, const struct powercut_options *options,
                       bool (*check)(void *opaque, const struct cell_file *file, uint32_t time),
                       void *opaque)
{
    struct cutter cutter;
    cutter_init(&cutter, trace, options);
    cutter.check = check;
    cutter.opaque = opaque;
    for (uint32_t time = 0; time <= trace->event_count && !cutter.is_stopped; time++) {
        if (is_time_to_cut(&cutter))
            cut(&cutter, time);
        if (time < trace->event_count)
            happen(&cutter, time);
    }
    cutter_fini(&cutter);
    return cutter.states;
}

/* --- several files --- */

/* Each file has all of what is pending, nothing, or some of it. */
static void draw_state(struct cutter *cutter, unsigned sample)
{
    uint32_t count = cutter->done_count + cutter->flying_count;
    uint64_t choice = sample < 2 ? sample : cell_below(&cutter->random, 6);
    if (count && choice)
        apply_some(cutter, choice == 1 ? UINT64_MAX : draw_subset(cutter), choice > 3);
}

static bool give_several(struct cutter *cutters, unsigned count, unsigned sample, uint32_t time,
                         bool (*check)(void *opaque, const struct cell_file *const *files,
                                       uint32_t time),
                         void *opaque)
{
    const struct cell_file *files[SIMDISK_CLOCK_DISKS];
    uint64_t lengths[SIMDISK_CLOCK_DISKS], key = 0;
    bool goes_on = true;
    for (unsigned i = 0; i < count; i++) {
        lengths[i] = cutters[i].file.length_bytes;
        files[i] = &cutters[i].file;
        draw_state(&cutters[i], sample);
        key = key * UINT64_C(0x9e3779b97f4a7c15) + key_of(&cutters[i]);
    }
    if (note_state(&cutters[0], key)) {
        cutters[0].states++;
        goes_on = check(opaque, files, time);
    }
    for (unsigned i = 0; i < count; i++)
        undo_all(&cutters[i], lengths[i]);
    return goes_on;
}

uint64_t powercut_several(const struct simdisk_trace *const *traces, unsigned count,
                          const struct powercut_options *options,
                          bool (*check)(void *opaque, const struct cell_file *const *files,
                                        uint32_t time),
                          void *opaque)
{
    struct cutter cutters[SIMDISK_CLOCK_DISKS];
    bool goes_on = true;
    CHECK(count && count <= SIMDISK_CLOCK_DISKS);
    for (unsigned i = 0; i < count; i++) {
        cutter_init(&cutters[i], traces[i], options);
        cutters[i].random += 2 * i;
        CHECK(traces[i]->event_count == traces[0]->event_count);
    }
    for (uint32_t time = 0; time <= traces[0]->event_count && goes_on; time++) {
        if (is_time_to_cut(&cutters[0]))
            for (unsigned i = 0; i < options->samples && goes_on; i++)
                goes_on = give_several(cutters, count, i, time, check, opaque);
        for (unsigned i = 0; i < count && time < traces[0]->event_count; i++)
            happen(&cutters[i], time);
    }
    uint64_t states = cutters[0].states;
    for (unsigned i = 0; i < count; i++)
        cutter_fini(&cutters[i]);
    return states;
}
