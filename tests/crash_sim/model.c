/* SPDX-License-Identifier: MIT */
/* model: see the header. */
#include "tests/crash_sim/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"

static struct model_version *add_version(struct model_place *place, uint32_t value, uint32_t time)
{
    if (place->count == place->room) {
        place->room = place->room * 2 + 4;
        place->versions = realloc(place->versions, place->room * sizeof(place->versions[0]));
        CHECK(place->versions);
    }
    struct model_version *version = &place->versions[place->count++];
    *version = (struct model_version){value, time, MODEL_NEVER, MODEL_NEVER, MODEL_NEVER, false};
    return version;
}

static void start_place(struct model_place *place, uint32_t value)
{
    place->count = 0;
    struct model_version *version = add_version(place, value, 0);
    version->ended = version->durable = 0;
}

void model_init(struct model *model, const uint32_t *lbas, uint32_t count,
                uint32_t sectors_per_cluster)
{
    *model = (struct model){.place_count = count, .sectors_per_cluster = sectors_per_cluster};
    model->places = calloc(count + 1, sizeof(model->places[0]));
    CHECK(model->places);
    for (uint32_t i = 0; i < count; i++) {
        model->places[i].lba = lbas[i];
        start_place(&model->places[i], CELL_ZERO);
    }
}

void model_fini(struct model *model)
{
    for (uint32_t i = 0; i < model->place_count; i++)
        free(model->places[i].versions);
    for (uint32_t i = 0; i < model->snapshot_count; i++)
        free(model->snapshots[i].values);
    free(model->places);
    free(model->size.versions);
    free(model->flushes);
    free(model->leaks);
    *model = (struct model){0};
}

/* The index of the first place at or after `lba`. */
static uint32_t find(const struct model *model, uint32_t lba)
{
    uint32_t low = 0, high = model->place_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (model->places[middle].lba < lba)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void model_start_with(struct model *model, uint32_t lba, uint32_t value, uint32_t backing)
{
    uint32_t i = find(model, lba);
    if (i == model->place_count || model->places[i].lba != lba)
        return;
    start_place(&model->places[i], value);
    model->places[i].backing = backing;
}

void model_start_size(struct model *model, uint32_t sectors)
{
    start_place(&model->size, sectors);
}

void model_begin(struct model *model, uint32_t first, uint32_t count, uint32_t value, uint32_t time)
{
    for (uint32_t i = find(model, first);
         i < model->place_count && model->places[i].lba - first < count; i++)
        add_version(&model->places[i], value, time);
}

static void end_place(struct model_place *place, uint32_t began, uint32_t time, bool is_good,
                      bool is_durable)
{
    for (uint32_t i = place->count; i-- > 0;) {
        struct model_version *version = &place->versions[i];
        if (version->submitted != began || version->ended != MODEL_NEVER)
            continue;
        version->ended = time;
        version->has_failed = !is_good;
        version->durable = is_good && is_durable ? time : MODEL_NEVER;
        return;
    }
}

void model_end(struct model *model, uint32_t first, uint32_t count, uint32_t began, uint32_t time,
               bool is_good, bool is_durable)
{
    for (uint32_t i = find(model, first);
         i < model->place_count && model->places[i].lba - first < count; i++)
        end_place(&model->places[i], began, time, is_good, is_durable);
}

void model_flushed(struct model *model, uint32_t submitted, uint32_t ended)
{
    if (model->flush_count == model->flush_room) {
        model->flush_room = model->flush_room * 2 + 8;
        model->flushes = realloc(model->flushes, model->flush_room * sizeof(model->flushes[0]));
        CHECK(model->flushes);
    }
    model->flushes[model->flush_count++] = (struct model_flush){submitted, ended};
}

static uint32_t last_size(const struct model *model)
{
    return model->size.versions[model->size.count - 1].value;
}

/* What is cut off becomes zero, and so is what a growth adds. */
void model_resize_begin(struct model *model, uint32_t old, uint32_t sectors, uint32_t time)
{
    add_version(&model->size, sectors, time);
    model_begin(model, MIN(old, sectors), UINT32_MAX, CELL_ZERO, time);
}

void model_resize_end(struct model *model, uint32_t began, uint32_t time, bool is_good)
{
    end_place(&model->size, began, time, is_good, true);
    model_end(model, 0, UINT32_MAX, began, time, is_good, true);
    if (is_good)
        model_flushed(model, began, time);
}

void model_may_leak(struct model *model, uint32_t time, uint64_t clusters)
{
    if (model->leak_count == model->leak_room) {
        model->leak_room = model->leak_room * 2 + 8;
        model->leaks = realloc(model->leaks, model->leak_room * sizeof(model->leaks[0]));
        CHECK(model->leaks);
    }
    uint64_t before = model->leak_count ? model->leaks[model->leak_count - 1].clusters : 0;
    model->leaks[model->leak_count++] = (struct model_leak){time, before + clusters};
}

struct model_snapshot *model_snapshot_begin(struct model *model, const char *name, uint32_t time)
{
    CHECK(model->snapshot_count < MODEL_SNAPSHOTS);
    struct model_snapshot *snapshot = &model->snapshots[model->snapshot_count++];
    *snapshot = (struct model_snapshot){.create_submitted = time};
    snapshot->created = snapshot->delete_submitted = snapshot->deleted = MODEL_NEVER;
    snprintf(snapshot->name, sizeof(snapshot->name), "%s", name);
    snapshot->size = last_size(model);
    snapshot->values = calloc(model->place_count + 1, sizeof(snapshot->values[0]));
    CHECK(snapshot->values);
    return snapshot;
}

struct model_snapshot *model_snapshot_find(struct model *model, const char *name)
{
    for (uint32_t i = model->snapshot_count; i-- > 0;)
        if (!strcmp(model->snapshots[i].name, name))
            return &model->snapshots[i];
    return NULL;
}

void model_apply_begin(struct model *model, const struct model_snapshot *snapshot, uint32_t time)
{
    for (uint32_t i = 0; i < model->place_count; i++)
        add_version(&model->places[i], snapshot->values[i], time);
    add_version(&model->size, snapshot->size, time);
}

void model_apply_end(struct model *model, uint32_t began, uint32_t time, bool is_good)
{
    model_resize_end(model, began, time, is_good);
}

bool model_read_is_good(const struct model *model, uint32_t lba, uint32_t value, uint32_t submitted,
                        uint32_t ended)
{
    uint32_t index = find(model, lba);
    if (index == model->place_count || model->places[index].lba != lba)
        return true;
    const struct model_place *place = &model->places[index];
    for (uint32_t i = 0; i < place->count; i++) {
        const struct model_version *version = &place->versions[i];
        bool is_over = version->value != value || version->submitted > ended;
        for (uint32_t k = i + 1; k < place->count && !is_over; k++) {
            const struct model_version *later = &place->versions[k];
            is_over = later->submitted >= version->ended && later->ended <= submitted &&
                      !later->has_failed;
        }
        if (!is_over)
            return true;
    }
    return false;
}

/* --- closing --- */

static uint32_t durable_at(const struct model *model, const struct model_version *version)
{
    uint32_t at = version->durable;
    if (version->has_failed || version->ended == MODEL_NEVER)
        return MODEL_NEVER;
    for (uint32_t i = 0; i < model->flush_count; i++)
        if (model->flushes[i].submitted >= version->ended)
            at = MIN(at, model->flushes[i].ended);
    return at;
}

static void close_place(const struct model *model, struct model_place *place)
{
    for (uint32_t i = 0; i < place->count; i++)
        place->versions[i].durable = durable_at(model, &place->versions[i]);
    for (uint32_t i = 0; i < place->count; i++)
        for (uint32_t k = i + 1; k < place->count; k++)
            if (place->versions[k].submitted >= place->versions[i].ended)
                place->versions[i].expired =
                    MIN(place->versions[i].expired, place->versions[k].durable);
}

void model_close(struct model *model)
{
    for (uint32_t i = 0; i < model->place_count; i++)
        close_place(model, &model->places[i]);
    close_place(model, &model->size);
}

/* --- judging --- */

bool model_may_have(const struct model_place *place, uint32_t value, uint32_t time)
{
    for (uint32_t i = 0; i < place->count; i++) {
        const struct model_version *version = &place->versions[i];
        if (version->value == value && version->submitted < time && time <= version->expired)
            return true;
        if (version->value == value && !version->submitted && time <= version->expired)
            return true;
    }
    return false;
}

static enum model_verdict bad_value(struct model *model, const struct model_place *place,
                                    const char *where, uint32_t value, uint32_t time)
{
    int n = snprintf(model->why, sizeof(model->why), "%ssector %u holds %s %#x; may hold", where,
                     place->lba, value == CELL_FOREIGN ? "foreign data" : "version", value);
    for (uint32_t i = 0; i < place->count && n > 0 && (size_t)n < sizeof(model->why); i++)
        if (model_may_have(place, place->versions[i].value, time))
            n += snprintf(model->why + n, sizeof(model->why) - (size_t)n, " %#x",
                          place->versions[i].value);
    return value == CELL_FOREIGN ? MODEL_FOREIGN : MODEL_LOST;
}

/* Past the size that the header has there is nothing but what a growth will make zero. */
static uint32_t read_place(const struct model *model, struct checker *checker,
                           const struct checker_table *table, const struct model_place *place,
                           struct checker_map *map, uint64_t *mapped)
{
    uint32_t version, per_cluster = model->sectors_per_cluster;
    if ((uint64_t)place->lba * CELL_BYTES >= table->size_bytes)
        return CELL_ZERO;
    if (place->lba / per_cluster != *mapped) {
        *mapped = place->lba / per_cluster;
        checker_map(checker, table, *mapped, map);
    }
    switch (checker_sector(checker, map, place->lba % per_cluster, place->lba, &version)) {
    case CHECKER_BACKING:
        return place->backing;
    case CHECKER_BROKEN:
        return CELL_FOREIGN;
    default:
        return version;
    }
}

static enum model_verdict judge_active(struct model *model, struct checker *checker, uint32_t time)
{
    struct checker_map map;
    uint64_t mapped = UINT64_MAX;
    for (uint32_t i = 0; i < model->place_count; i++) {
        const struct model_place *place = &model->places[i];
        uint32_t value = read_place(model, checker, &checker->active, place, &map, &mapped);
        if (!model_may_have(place, value, time))
            return bad_value(model, place, "", value, time);
    }
    return MODEL_GOOD;
}

void model_collect(const struct model *model, struct checker *checker,
                   const struct checker_table *table, uint32_t *values)
{
    struct checker_map map;
    uint64_t mapped = UINT64_MAX;
    for (uint32_t i = 0; i < model->place_count; i++)
        values[i] = read_place(model, checker, table, &model->places[i], &map, &mapped);
}

static enum model_verdict judge_contents(struct model *model, struct checker *checker,
                                         const struct model_snapshot *snapshot,
                                         const struct checker_table *table)
{
    struct checker_map map;
    uint64_t mapped = UINT64_MAX;
    for (uint32_t i = 0; i < model->place_count; i++) {
        const struct model_place *place = &model->places[i];
        uint32_t value = read_place(model, checker, table, place, &map, &mapped);
        if (value == snapshot->values[i])
            continue;
        snprintf(model->why, sizeof(model->why), "snapshot %s: sector %u holds %#x, held %#x",
                 snapshot->name, place->lba, value, snapshot->values[i]);
        return value == CELL_FOREIGN ? MODEL_FOREIGN : MODEL_LOST;
    }
    if (table->size_bytes == (uint64_t)snapshot->size * CELL_BYTES)
        return MODEL_GOOD;
    snprintf(model->why, sizeof(model->why), "snapshot %s has another size", snapshot->name);
    return MODEL_LOST;
}

static enum model_verdict judge_snapshots(struct model *model, struct checker *checker,
                                          uint32_t time)
{
    for (uint32_t i = 0; i < model->snapshot_count; i++) {
        const struct model_snapshot *snapshot = &model->snapshots[i];
        const struct checker_table *table = NULL;
        for (unsigned k = 0; k < checker->snapshot_count; k++)
            if (!strcmp(checker->snapshots[k].name, snapshot->name))
                table = &checker->snapshots[k].table;
        bool is_first = !snapshot->created;
        bool must = (is_first || snapshot->created < time) && time <= snapshot->delete_submitted;
        bool may = (is_first || snapshot->create_submitted < time) && time <= snapshot->deleted;
        if (table ? !may : must) {
            snprintf(model->why, sizeof(model->why), "snapshot %s is %s", snapshot->name,
                     table ? "there" : "gone");
            return MODEL_LOST;
        }
        enum model_verdict verdict =
            table ? judge_contents(model, checker, snapshot, table) : MODEL_GOOD;
        if (verdict != MODEL_GOOD)
            return verdict;
    }
    return MODEL_GOOD;
}

/* What differs from the start, when all bitmaps were made, must be dirty in all that may be
 * believed. */
static enum model_verdict judge_bitmaps(struct model *model, struct checker *checker)
{
    struct checker_map map;
    uint64_t mapped = UINT64_MAX;
    uint32_t least = model->size.versions[0].value;
    for (uint32_t i = 0; i < model->size.count; i++)
        least = MIN(least, model->size.versions[i].value);
    for (uint32_t i = 0; checker->bitmap_count && i < model->place_count; i++) {
        const struct model_place *place = &model->places[i];
        uint64_t offset = (uint64_t)place->lba * CELL_BYTES;
        /* What was cut off once is new, and clean, after a growth. */
        if (place->lba >= least || read_place(model, checker, &checker->active, place, &map,
                                              &mapped) == place->versions[0].value)
            continue;
        for (unsigned k = 0; k < checker->bitmap_count; k++) {
            const struct checker_bitmap *bitmap = &checker->bitmaps[k];
            if (bitmap->is_in_use || checker_bitmap_has(checker, bitmap, offset))
                continue;
            snprintf(model->why, sizeof(model->why), "a bitmap misses the change of sector %u",
                     place->lba);
            return MODEL_LOST;
        }
    }
    return MODEL_GOOD;
}

static enum model_verdict judge_leaks(struct model *model, const struct checker *checker,
                                      uint32_t time)
{
    uint64_t most = model->ballast;
    for (uint32_t i = 0; i < model->leak_count; i++)
        if (model->leaks[i].time < time)
            most = model->ballast + model->leaks[i].clusters;
    if (checker->leaks <= most)
        return MODEL_GOOD;
    snprintf(model->why, sizeof(model->why), "%llu clusters are leaked, more than %llu",
             (unsigned long long)checker->leaks, (unsigned long long)most);
    return MODEL_LEAKED;
}

enum model_verdict model_judge(struct model *model, struct checker *checker, uint32_t time)
{
    uint32_t sectors = (uint32_t)(checker->active.size_bytes / CELL_BYTES);
    if (!model_may_have(&model->size, sectors, time))
        return bad_value(model, &model->size, "size: ", sectors, time);
    enum model_verdict verdict = judge_active(model, checker, time);
    if (verdict == MODEL_GOOD)
        verdict = judge_snapshots(model, checker, time);
    if (verdict == MODEL_GOOD)
        verdict = judge_bitmaps(model, checker);
    return verdict == MODEL_GOOD ? judge_leaks(model, checker, time) : verdict;
}
