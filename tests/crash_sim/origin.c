/* SPDX-License-Identifier: MIT */
/* origin: see the header. */
#include "tests/crash_sim/origin.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/crash_sim/seedimage.h"

#define PLACES_MAX   1024u
#define KINDS_MAX    64u
#define KEPT_MAX     256u
#define SEED_VERSION 1u

uint32_t origin_per_cluster(const struct origin_config *config)
{
    return (1u << config->cluster_bits) / CELL_BYTES;
}

uint32_t origin_clusters(const struct origin_config *config)
{
    return config->cluster_bits == 9 ? 68 : 8;
}

static uint32_t clusters_per_l2(const struct origin_config *config)
{
    return 1u << (config->cluster_bits - (config->is_extended ? 4 : 3));
}

uint32_t origin_clusters_max(const struct origin_config *config)
{
    return (origin_clusters(config) / clusters_per_l2(config) + 1) * clusters_per_l2(config) + 1;
}

uint32_t origin_offsets(const struct origin_config *config, uint32_t offsets[ORIGIN_OFFSETS])
{
    static const uint32_t of_64k[] = {0, 1, 2, 3, 4, 5, 8, 62, 63, 64, 65, 66, 124, 126, 127};
    static const uint32_t of_2m[] = {0,    1,    127,  128,  129,  130, 2046,
                                     2047, 2048, 2049, 2176, 4094, 4095};
    uint32_t n = MIN(origin_per_cluster(config), 8);
    for (uint32_t i = 0; i < n; i++)
        offsets[i] = i;
    if (config->cluster_bits == 16)
        memcpy(offsets, of_64k, sizeof(of_64k));
    if (config->cluster_bits == 21)
        memcpy(offsets, of_2m, sizeof(of_2m));
    return config->cluster_bits == 16   ? ARRAY_SIZE(of_64k)
           : config->cluster_bits == 21 ? ARRAY_SIZE(of_2m)
                                        : n;
}

/* The raw backing reaches past the disk, the qcow2 one ends before it. */
static uint32_t base_clusters(const struct origin_config *config)
{
    if (config->backing == ORIGIN_NO_BACKING)
        return 0;
    return origin_clusters(config) + (config->backing == ORIGIN_RAW_BACKING ? 2 : -2u);
}

/* What the first clusters of the disk are. */
static const uint8_t first_kinds[] = {SEEDIMAGE_DATA,      SEEDIMAGE_NONE, SEEDIMAGE_PACKED,
                                      SEEDIMAGE_PACKED,    SEEDIMAGE_ZERO, SEEDIMAGE_DATA,
                                      SEEDIMAGE_ZERO_KEPT, SEEDIMAGE_NONE};

static void choose_kinds(const struct origin_config *config, uint8_t kinds[KINDS_MAX])
{
    memset(kinds, SEEDIMAGE_NONE, KINDS_MAX);
    memcpy(kinds, first_kinds, sizeof(first_kinds));
    if (config->cluster_bits == 9)
        kinds[62] = kinds[63] = SEEDIMAGE_DATA;
}

static uint32_t kind_count(const struct origin_config *config)
{
    return MIN(origin_clusters(config), KINDS_MAX);
}

bool origin_is_packed(const struct origin_config *config, uint32_t lba)
{
    uint32_t cluster = lba / origin_per_cluster(config);
    return cluster < ARRAY_SIZE(first_kinds) && first_kinds[cluster] == SEEDIMAGE_PACKED;
}

/* --- images --- */

static void make_base(struct origin *start, const struct seedimage_options *like)
{
    const struct origin_config *config = &start->config;
    uint8_t kinds[KINDS_MAX + 8], sector[CELL_BYTES];
    uint32_t clusters = base_clusters(config), sectors = clusters * origin_per_cluster(config);
    if (config->backing == ORIGIN_QCOW2_BACKING) {
        memset(kinds, SEEDIMAGE_DATA, sizeof(kinds));
        const struct seedimage_options options = {.cluster_bits = config->cluster_bits,
                                                  .version = 3,
                                                  .refcount_order = 4,
                                                  .sectors = sectors,
                                                  .kinds = kinds,
                                                  .kind_count = clusters,
                                                  .offsets = like->offsets,
                                                  .offset_count = like->offset_count,
                                                  .data_version = CELL_BACKING};
        seedimage_make(&options, &start->arena, &start->base);
        return;
    }
    cell_file_reserve(&start->base, sectors);
    for (uint32_t i = 0; i < clusters * like->offset_count; i++) {
        uint32_t lba = i / like->offset_count * origin_per_cluster(config) +
                       like->offsets[i % like->offset_count];
        cell_fill(sector, lba, CELL_BACKING);
        start->base.cells[lba] = cell_make(&start->arena, sector);
    }
    start->base.length_bytes = (uint64_t)sectors * CELL_BYTES;
}

static void make_image(struct origin *start)
{
    const struct origin_config *config = &start->config;
    uint8_t kinds[KINDS_MAX];
    uint32_t offsets[ORIGIN_OFFSETS];
    choose_kinds(config, kinds);
    struct seedimage_options options = {
        .cluster_bits = config->cluster_bits,
        .version = config->version,
        .refcount_order = config->refcount_order,
        .is_extended = config->is_extended,
        .is_lazy = config->is_lazy,
        .has_backing = config->backing != ORIGIN_NO_BACKING,
        .has_snapshot = config->has_snapshot,
        .sectors = (uint64_t)origin_clusters(config) * origin_per_cluster(config),
        .stale = config->fullness == ORIGIN_ROOMY ? 2 : 0,
        .fills_blocks = config->fullness == ORIGIN_FULL_BLOCKS,
        .fills_reftable = config->fullness == ORIGIN_FULL_REFTABLE,
        .spare = config->spare,
        .kinds = kinds,
        .kind_count = kind_count(config),
        .offsets = offsets,
        .offset_count = origin_offsets(config, offsets),
        .data_version = SEED_VERSION,
    };
    start->ballast = seedimage_make(&options, &start->arena, &start->file);
    if (config->backing != ORIGIN_NO_BACKING)
        make_base(start, &options);
}

static bool is_same(const struct origin_config *a, const struct origin_config *b)
{
    return a->cluster_bits == b->cluster_bits && a->version == b->version &&
           a->refcount_order == b->refcount_order && a->backing == b->backing &&
           a->is_lazy == b->is_lazy && a->is_extended == b->is_extended &&
           a->has_snapshot == b->has_snapshot && a->fullness == b->fullness && a->spare == b->spare;
}

void origin_cache_fini(struct origin_cache *cache)
{
    for (unsigned i = 0; i < cache->count; i++) {
        cell_file_fini(&cache->items[i].file);
        cell_file_fini(&cache->items[i].base);
        cell_arena_fini(&cache->items[i].arena);
    }
    free(cache->items);
    *cache = (struct origin_cache){0};
}

const struct origin *origin_get(struct origin_cache *cache, const struct origin_config *config,
                                bool *forgot)
{
    *forgot = false;
    for (unsigned i = 0; i < cache->count; i++)
        if (is_same(&cache->items[i].config, config))
            return &cache->items[i];
    *forgot = cache->count == KEPT_MAX;
    if (*forgot)
        origin_cache_fini(cache);
    if (!cache->items)
        cache->items = calloc(KEPT_MAX, sizeof(cache->items[0]));
    CHECK(cache->items);
    struct origin *origin = &cache->items[cache->count++];
    *origin = (struct origin){.config = *config};
    make_image(origin);
    return origin;
}

/* --- the model --- */

static uint32_t add_places(const struct origin_config *config, uint32_t cluster, uint32_t *lbas,
                           uint32_t n)
{
    uint32_t offsets[ORIGIN_OFFSETS], count = origin_offsets(config, offsets);
    for (uint32_t i = 0; i < count; i++)
        lbas[n++] = cluster * origin_per_cluster(config) + offsets[i];
    return n;
}

static void start_snapshot(struct model *model)
{
    struct model_snapshot *snapshot = model_snapshot_begin(model, "s0", 0);
    snapshot->created = 0;
    for (uint32_t i = 0; i < model->place_count; i++)
        snapshot->values[i] = model->places[i].versions[0].value;
}

uint32_t origin_start_model(const struct origin *origin, struct model *model)
{
    const struct origin_config *config = &origin->config;
    uint32_t lbas[PLACES_MAX], n = 0, clusters = origin_clusters(config);
    uint32_t base = base_clusters(config);
    uint8_t kinds[KINDS_MAX];
    choose_kinds(config, kinds);
    for (uint32_t i = 0; i < clusters + 2; i++)
        n = add_places(config, i, lbas, n);
    n = add_places(config, origin_clusters_max(config) - 1, lbas, n);
    model_init(model, lbas, n, origin_per_cluster(config));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t cluster = lbas[i] / origin_per_cluster(config);
        uint8_t kind = cluster < kind_count(config) ? kinds[cluster] : SEEDIMAGE_NONE;
        uint32_t backing = cluster < base ? CELL_BACKING : CELL_ZERO, value = CELL_ZERO;
        if (kind == SEEDIMAGE_DATA || kind == SEEDIMAGE_PACKED)
            value = SEED_VERSION;
        /* Version 2 knows no clusters of zeroes. */
        bool is_none = kind == SEEDIMAGE_NONE || (value == CELL_ZERO && config->version == 2);
        if (is_none && cluster < clusters)
            value = backing;
        model_start_with(model, lbas[i], value, backing);
    }
    model_start_size(model, clusters * origin_per_cluster(config));
    model->ballast = origin->ballast;
    if (config->has_snapshot)
        start_snapshot(model);
    return clusters * origin_per_cluster(config);
}
