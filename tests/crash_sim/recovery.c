/* SPDX-License-Identifier: MIT */
/* recovery: see the header. What a state holds is read by the independent checker, before and
 * after. */
#include "tests/crash_sim/recovery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/disk.h"
#include "disk/qcow2/qcow2_check.h"

#define WRITES        3u
#define WRITE_SECTORS 4u
#define READS         16u
#define ENTRY_HOST    UINT64_C(0x00fffffffffffe00)
#define ENTRY_COPIED  (UINT64_C(1) << 63)
#define ENTRY_PACKED  (UINT64_C(1) << 62)
#define FIRST_VERSION 0x5000u
#define REBUILD_SLACK                                                                              \
    32u /* clusters of a new refcount structure, and what writes have under way                    \
         */

struct attempt {
    struct scene *scene;
    struct cell_arena arena;
    struct simdisk *sim;
    uint32_t time; /* of the cut in the scene */
    uint64_t random;
    uint32_t *active;    /* by place: what it held */
    uint32_t *written;   /* a bit for each write since that covered it */
    uint32_t *snapshots; /* likewise, one after another */
    char names[CHECKER_SNAPSHOTS][32];
    unsigned snapshot_count;
    uint64_t size_bytes, leaks, stale;
    uint64_t nested;
};

static void fail(const struct attempt *attempt, const char *what, const char *detail)
{
    scene_fail(attempt->scene, what, detail, attempt->time);
}

static void remember(struct attempt *attempt)
{
    struct checker *checker = &attempt->scene->world->checker;
    const struct model *model = &attempt->scene->model;
    uint32_t places = model->place_count;
    attempt->active = calloc(places * (2u + checker->snapshot_count), sizeof(uint32_t));
    CHECK(attempt->active);
    attempt->written = attempt->active + places;
    attempt->snapshots = attempt->written + places;
    attempt->size_bytes = checker->active.size_bytes;
    attempt->leaks = checker->leaks;
    attempt->stale = checker->stale;
    attempt->snapshot_count = checker->snapshot_count;
    model_collect(model, checker, &checker->active, attempt->active);
    for (unsigned i = 0; i < checker->snapshot_count; i++) {
        memcpy(attempt->names[i], checker->snapshots[i].name, sizeof(attempt->names[i]));
        model_collect(model, checker, &checker->snapshots[i].table,
                      attempt->snapshots + i * places);
    }
}

/* Old, or written since: the last of it when all `is_over`. */
static bool is_explained(uint32_t now, uint32_t before, uint32_t written, bool is_over)
{
    if (!written)
        return now == before;
    uint32_t newest = 31 - (uint32_t)__builtin_clz(written);
    if (is_over)
        return now == FIRST_VERSION + newest;
    return now == before || (now - FIRST_VERSION <= newest && written >> (now - FIRST_VERSION) & 1);
}

/* What a table holds now against what it held. `written` is NULL where nothing may have changed. */
static void compare(const struct attempt *attempt, const struct checker_table *table,
                    const uint32_t *before, const uint32_t *written, bool is_over, const char *what)
{
    const struct model *model = &attempt->scene->model;
    uint32_t *now = calloc(model->place_count, sizeof(uint32_t));
    char detail[120];
    model_collect(model, &attempt->scene->world->second, table, now);
    for (uint32_t i = 0; i < model->place_count; i++) {
        if (is_explained(now[i], before[i], written ? written[i] : 0, is_over))
            continue;
        snprintf(detail, sizeof(detail), "sector %u holds %#x, held %#x", model->places[i].lba,
                 now[i], before[i]);
        fail(attempt, what, detail);
    }
    free(now);
}

/* `is_over`: not in the middle, so what was written is there. */
static void judge(const struct attempt *attempt, const struct cell_file *file, bool is_over,
                  const char *what)
{
    struct checker *checker = &attempt->scene->world->second;
    const struct model *model = &attempt->scene->model;
    if (!checker_open(checker, file))
        fail(attempt, what, checker->why);
    if (checker->snapshot_count != attempt->snapshot_count ||
        checker->active.size_bytes != attempt->size_bytes)
        fail(attempt, what, "snapshots or size have changed");
    compare(attempt, &checker->active, attempt->active, attempt->written, is_over, what);
    for (unsigned i = 0; i < checker->snapshot_count; i++)
        compare(attempt, &checker->snapshots[i].table, attempt->snapshots + i * model->place_count,
                NULL, is_over, what);
    if (checker->leaks > attempt->leaks + (is_over ? 0 : REBUILD_SLACK))
        fail(attempt, what, "more clusters are leaked than before");
    if (checker->stale > attempt->stale)
        fail(attempt, what, "COPIED flags were set that the refcounts contradict");
}

static bool on_nested(void *opaque, const struct cell_file *file, uint32_t time)
{
    struct attempt *attempt = opaque;
    (void)time;
    attempt->nested++;
    judge(attempt, file, false, "power cut while recovering");
    return true;
}

/* Power fails again, at any moment of what was just done. */
static void cut_again(struct attempt *attempt)
{
    const struct powercut_options options = {
        .seed = cell_random(&attempt->random) >> 1, .all_of = 2, .samples = 5, .torn = 1};
    powercut_each(&attempt->sim->trace, &options, on_nested, attempt);
}

/* --- repair --- */

static void repair(struct attempt *attempt)
{
    const struct qcow2_check_options options = {.repair = QCOW2_REPAIR_ALL};
    struct qcow2_check_result result;
    struct error err = {0};
    const struct checker *checker = &attempt->scene->world->second;
    if (qcow2_check(&attempt->sim->file, "image", &options, &result, &err))
        fail(attempt, "repair", err.text);
    if (result.corruptions || result.check_errors || result.leaks)
        fail(attempt, "repair", "something is left");
    judge(attempt, &attempt->sim->cache, true, "after a repair");
    char detail[120];
    snprintf(detail, sizeof(detail), "%llu clusters leaked, %llu COPIED wrong%s",
             (unsigned long long)checker->leaks, (unsigned long long)checker->stale,
             checker->is_dirty ? ", dirty" : "");
    if (checker->leaks || checker->stale || checker->is_dirty)
        fail(attempt, "after a repair", detail);
    cut_again(attempt);
    attempt->scene->world->repairs++;
}

/* --- opening, reading, writing --- */

static int transfer(struct disk *disk, enum disk_op op, uint64_t lba, uint64_t sectors,
                    uint8_t *data)
{
    struct iovec iov = {data, sectors * CELL_BYTES};
    struct disk_request request = {.op = op,
                                   .offset = lba * CELL_BYTES,
                                   .bytes = sectors * CELL_BYTES,
                                   .iov = data ? &iov : NULL,
                                   .iov_count = data ? 1 : 0};
    return disk_run(disk, &request);
}

static void read_places(struct attempt *attempt, struct disk *disk)
{
    const struct model *model = &attempt->scene->model;
    uint8_t data[CELL_BYTES];
    uint32_t lba, version;
    char detail[120];
    for (unsigned i = 0; i < READS; i++) {
        uint32_t index = (uint32_t)cell_below(&attempt->random, model->place_count);
        uint32_t place = model->places[index].lba, wanted = attempt->active[index];
        if ((uint64_t)place * CELL_BYTES >= attempt->size_bytes)
            continue;
        if (transfer(disk, DISK_READ, place, 1, data))
            fail(attempt, "after reopening", "a read fails");
        cell_identify(data, &lba, &version);
        version = version && lba != place ? CELL_FOREIGN : version;
        snprintf(detail, sizeof(detail), "sector %u gives %#x, holds %#x", place, version, wanted);
        if (version != wanted)
            fail(attempt, "after reopening", detail);
    }
}

static void write_places(struct attempt *attempt, struct disk *disk)
{
    const struct model *model = &attempt->scene->model;
    uint8_t data[WRITE_SECTORS * CELL_BYTES];
    for (uint32_t i = 0; i < WRITES; i++) {
        uint32_t first = model->places[cell_below(&attempt->random, model->place_count)].lba;
        uint64_t end = MIN(first + WRITE_SECTORS, attempt->size_bytes / CELL_BYTES);
        for (uint32_t s = 0; s < WRITE_SECTORS; s++)
            cell_fill(data + (uint64_t)s * CELL_BYTES, first + s, FIRST_VERSION + i);
        if (first >= end)
            continue;
        if (transfer(disk, DISK_WRITE, first, end - first, data))
            fail(attempt, "after reopening", "a write fails");
        for (uint32_t k = 0; k < model->place_count; k++)
            if (model->places[k].lba >= first && model->places[k].lba < end)
                attempt->written[k] |= 1u << i;
        if (i == 0 && transfer(disk, DISK_FLUSH, 0, 0, NULL))
            fail(attempt, "after reopening", "a flush fails");
    }
}

static void reopen(struct attempt *attempt)
{
    struct scene *scene = attempt->scene;
    struct error err = {0};
    struct disk *disk = scene_open(scene, attempt->sim, &err);
    if (!disk)
        fail(attempt, "reopening", err.text);
    read_places(attempt, disk);
    write_places(attempt, disk);
    if (disk_close_wait(disk))
        fail(attempt, "after reopening", "closing fails");
    simdisk_destroy(scene->base_sim);
    scene->base_sim = NULL;
    judge(attempt, &attempt->sim->cache, true, "after reopening");
    cut_again(attempt);
    scene->world->recoveries++;
}

/* --- damage: what an engine with lazy refcounts may leave --- */

static void set_cell(struct attempt *attempt, uint64_t sector, const struct cell *cell)
{
    attempt->sim->cache.cells[sector] = cell;
    attempt->sim->trace.start.cells[sector] = cell;
}

static uint64_t number(const struct attempt *attempt, uint64_t offset)
{
    const struct cell_file *file = &attempt->sim->cache;
    return load_be64(cell_file_bytes(file, offset / CELL_BYTES) + offset % CELL_BYTES);
}

static void forget_refcounts(struct attempt *attempt)
{
    const struct checker *checker = &attempt->scene->world->checker;
    for (uint64_t at = 0; at < checker->reftable_bytes && at < CELL_BYTES; at += 8) {
        uint64_t block = number(attempt, checker->reftable_offset + at) / CELL_BYTES;
        for (uint64_t i = 0; block && i < checker->cluster_bytes / CELL_BYTES; i++)
            if (block + i < attempt->sim->cache.count && cell_below(&attempt->random, 2))
                set_cell(attempt, block + i, NULL);
    }
}

/* Every cluster of a sector of an L2 table says that it is nobody else's, true or not. */
static void set_copied(struct attempt *attempt, uint64_t sector)
{
    uint8_t entries[CELL_BYTES];
    unsigned step = attempt->scene->plan->config.is_extended ? 16 : 8;
    memcpy(entries, cell_file_bytes(&attempt->sim->cache, sector), CELL_BYTES);
    for (unsigned i = 0; i < CELL_BYTES; i += step) {
        uint64_t entry = load_be64(entries + i);
        bool is_plain = entry & ENTRY_HOST && !(entry & ENTRY_PACKED);
        store_be64(entries + i, is_plain ? entry | ENTRY_COPIED : entry);
    }
    set_cell(attempt, sector, cell_make(&attempt->arena, entries));
}

static void falsify_copied(struct attempt *attempt)
{
    const struct checker *checker = &attempt->scene->world->checker;
    for (uint64_t i = 0; i < checker->active.l1_entries && i < CELL_BYTES / 8; i++) {
        uint64_t l2 = number(attempt, checker->active.l1_offset + i * 8) & ENTRY_HOST;
        uint64_t sector = l2 / CELL_BYTES;
        if (l2 && sector < attempt->sim->cache.count && cell_below(&attempt->random, 2))
            set_copied(attempt, sector);
    }
}

/* Marks the image dirty, and makes some of what nobody may believe then wrong. */
static void damage(struct attempt *attempt)
{
    uint8_t header[CELL_BYTES];
    memcpy(header, cell_file_bytes(&attempt->sim->cache, 0), CELL_BYTES);
    store_be64(header + 72, load_be64(header + 72) | 1);
    set_cell(attempt, 0, cell_make(&attempt->arena, header));
    forget_refcounts(attempt);
    falsify_copied(attempt);
    attempt->stale = 0;
}

void recovery_try(struct scene *scene, const struct cell_file *state, uint32_t time, uint64_t seed)
{
    struct attempt attempt = {.scene = scene, .time = time, .random = seed | 1};
    remember(&attempt);
    attempt.sim = simdisk_create(&scene->world->loop, &attempt.arena, state, seed >> 8);
    if (scene->plan->config.is_lazy && cell_below(&attempt.random, 2))
        damage(&attempt);
    if (cell_below(&attempt.random, 2))
        repair(&attempt);
    else
        reopen(&attempt);
    simdisk_destroy(attempt.sim);
    scene->world->nested += attempt.nested;
    free(attempt.active);
    cell_arena_fini(&attempt.arena);
}
