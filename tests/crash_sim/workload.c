/* SPDX-License-Identifier: MIT */
/* workload: see the header. */
#include "tests/crash_sim/workload.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/crash_sim/jobscene.h"

/* What a sequence is made of. Each aims at certain clusters of the start image (scene.c). */
enum step {
    STEP_ALLOCATE,  /* a part of a cluster that nothing is mapped to (or only the backing) */
    STEP_OVERWRITE, /* in place */
    STEP_STRADDLE,  /* the end of a mapped cluster and the start of an unmapped one */
    STEP_OVER_PACKED,
    STEP_OVER_ZERO, /* a cluster of zeroes */
    STEP_INTO_KEPT, /* one that has a cluster set aside */
    STEP_NEW_TABLE, /* where the refcounts, and with small clusters the L2 tables, end */
    STEP_ZERO,
    STEP_ZERO_UNMAP,
    STEP_DISCARD,
    STEP_FLUSH,
    STEP_SNAPSHOT_CREATE,
    STEP_SNAPSHOT_DELETE,
    STEP_SNAPSHOT_APPLY,
    STEP_GROW,
    STEP_GROW_L1,
    STEP_SHRINK,
    STEPS,
    STEP_REOPEN, /* in some sequences only */
};

#define CONFIGS       36u
#define PAIRS         (STEPS + STEPS * STEPS)
#define FAULT_KINDS   12u
#define FAULT_CONFIGS 12u
#define RACES         50u
#define FAULTS_MAX    400u /* places of one fault in one sequence */

static const enum step triples[][3] = {
    {STEP_SNAPSHOT_CREATE, STEP_OVERWRITE, STEP_SNAPSHOT_DELETE},
    {STEP_SNAPSHOT_CREATE, STEP_STRADDLE, STEP_SNAPSHOT_APPLY},
    {STEP_SNAPSHOT_CREATE, STEP_DISCARD, STEP_SNAPSHOT_APPLY},
    {STEP_SNAPSHOT_CREATE, STEP_OVER_PACKED, STEP_SNAPSHOT_DELETE},
    {STEP_SNAPSHOT_CREATE, STEP_SNAPSHOT_CREATE, STEP_SNAPSHOT_DELETE},
    {STEP_SNAPSHOT_CREATE, STEP_SHRINK, STEP_SNAPSHOT_APPLY},
    {STEP_SNAPSHOT_CREATE, STEP_GROW_L1, STEP_SNAPSHOT_APPLY},
    {STEP_DISCARD, STEP_FLUSH, STEP_ALLOCATE},
    {STEP_DISCARD, STEP_FLUSH, STEP_NEW_TABLE},
    {STEP_ZERO_UNMAP, STEP_FLUSH, STEP_OVER_ZERO},
    {STEP_OVER_PACKED, STEP_FLUSH, STEP_ALLOCATE},
    {STEP_SHRINK, STEP_GROW, STEP_ALLOCATE},
    {STEP_SHRINK, STEP_GROW_L1, STEP_FLUSH},
    {STEP_GROW, STEP_SHRINK, STEP_ALLOCATE},
    {STEP_GROW_L1, STEP_ALLOCATE, STEP_SHRINK},
    {STEP_NEW_TABLE, STEP_DISCARD, STEP_NEW_TABLE},
    {STEP_ALLOCATE, STEP_OVERWRITE, STEP_DISCARD},
    {STEP_STRADDLE, STEP_ZERO, STEP_STRADDLE},
    {STEP_OVERWRITE, STEP_FLUSH, STEP_OVERWRITE},
    {STEP_ALLOCATE, STEP_DISCARD, STEP_ALLOCATE},
    {STEP_REOPEN, STEP_OVERWRITE, STEP_FLUSH},
    {STEP_OVERWRITE, STEP_REOPEN, STEP_OVERWRITE},
    {STEP_ALLOCATE, STEP_REOPEN, STEP_DISCARD},
};

/* --- configurations --- */

static const unsigned cluster_bits[] = {9, 12, 16, 21};

/* Four sizes of clusters, the two large ones with extended L2 as well; backing; lazy refcounts. */
static struct origin_config config_of(uint64_t index)
{
    uint64_t shape = index % 6;
    struct origin_config config = {0};
    config.cluster_bits = shape < 4 ? cluster_bits[shape] : cluster_bits[shape - 2];
    config.is_extended = shape >= 4;
    config.version = 3;
    config.refcount_order = 4;
    config.backing = (enum origin_backing)(index / 6 % 3);
    config.is_lazy = index / 18 % 2;
    return config;
}

/* Leaves room for `spare` clusters only. Large ones would make a file of gigabytes. */
static void make_full(struct origin_config *config, unsigned spare)
{
    if (config->cluster_bits > 12)
        return;
    config->refcount_order = 6;
    config->fullness = config->cluster_bits == 9 ? ORIGIN_FULL_REFTABLE : ORIGIN_FULL_BLOCKS;
    config->spare = spare;
}

/* --- sequences --- */

static void add(struct scene_plan *plan, enum scene_op_kind kind, uint64_t first, uint64_t count)
{
    CHECK(plan->op_count < SCENE_OPS_MAX);
    plan->ops[plan->op_count++] =
        (struct scene_op){.kind = kind, .first = (uint32_t)first, .count = (uint32_t)count};
}

static void add_step(struct scene_plan *plan, enum step step)
{
    uint64_t s = (UINT64_C(1) << plan->config.cluster_bits) / CELL_BYTES;
    uint64_t some = MIN(s, 6), edge = MIN(s, 2), clusters = origin_clusters(&plan->config);
    switch (step) {
    case STEP_ALLOCATE:
        add(plan, SCENE_WRITE, s + (s > 2), some - (s > 2));
        break;
    case STEP_OVERWRITE:
        add(plan, SCENE_WRITE, 0, some);
        break;
    case STEP_STRADDLE:
        add(plan, SCENE_WRITE, s - edge, 2 * edge);
        break;
    case STEP_OVER_PACKED:
        add(plan, SCENE_WRITE, 3 * s - edge, 2 * edge);
        break;
    case STEP_OVER_ZERO:
        add(plan, SCENE_WRITE, 4 * s + (s > 2), edge);
        break;
    case STEP_INTO_KEPT:
        add(plan, SCENE_WRITE, 6 * s + (s > 2), edge);
        break;
    case STEP_NEW_TABLE:
        add(plan, SCENE_WRITE, clusters * s - 3 * s, 3 * MIN(s, 8));
        add(plan, SCENE_WRITE, 4 * s, MIN(s, 8));
        break;
    case STEP_ZERO:
        add(plan, SCENE_ZERO, 0, s + MAX(s / 2, 1));
        break;
    case STEP_ZERO_UNMAP:
        add(plan, SCENE_ZERO_UNMAP, 5 * s, 2 * s);
        break;
    case STEP_DISCARD:
        add(plan, SCENE_DISCARD, 0, 3 * s);
        break;
    case STEP_FLUSH:
        add(plan, SCENE_FLUSH, 0, 0);
        break;
    case STEP_SNAPSHOT_CREATE:
        add(plan, SCENE_SNAPSHOT_CREATE, 0, 0);
        break;
    case STEP_SNAPSHOT_DELETE:
        add(plan, SCENE_SNAPSHOT_DELETE, 0, 0);
        break;
    case STEP_SNAPSHOT_APPLY:
        add(plan, SCENE_SNAPSHOT_APPLY, 0, 0);
        break;
    case STEP_GROW:
        add(plan, SCENE_RESIZE, clusters * s + s + s / 2, 0);
        break;
    case STEP_GROW_L1:
        add(plan, SCENE_RESIZE, (uint64_t)origin_clusters_max(&plan->config) * s, 0);
        break;
    case STEP_SHRINK:
        add(plan, SCENE_RESIZE, 5 * s + s / 2, 0);
        break;
    case STEP_REOPEN:
        add(plan, SCENE_REOPEN, 0, 0);
        plan->has_bitmap = true;
        break;
    case STEPS:
        break;
    }
}

static void add_steps(struct scene_plan *plan, const enum step *steps, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        bool needs_snapshot = steps[i] == STEP_SNAPSHOT_DELETE || steps[i] == STEP_SNAPSHOT_APPLY;
        bool has_made_one = i && steps[0] == STEP_SNAPSHOT_CREATE;
        if (needs_snapshot && !has_made_one)
            plan->config.has_snapshot = true;
        if (steps[i] == STEP_NEW_TABLE || steps[i] == STEP_GROW_L1)
            make_full(&plan->config, (unsigned)(plan->seed >> 5) % 3);
    }
    for (unsigned i = 0; i < count; i++)
        add_step(plan, steps[i]);
    /* In half of them each waits for the one before, as a careful guest does. */
    for (unsigned i = 0; i < plan->op_count; i++)
        plan->ops[i].is_alone = plan->seed & 16;
    for (unsigned i = 0; i < plan->op_count; i++)
        plan->ops[i].is_live = plan->seed >> 7 & 1;
}

static void run_sequence(struct scene_world *world, uint64_t config, const enum step *steps,
                         unsigned count, uint64_t seed)
{
    struct scene_plan plan = {.config = config_of(config), .seed = seed};
    plan.cuts = (struct powercut_options){.seed = seed >> 3,
                                          .all_of = count == 1 ? 4 : 2,
                                          .samples = count == 1 ? 16 : 5,
                                          .torn = 1,
                                          .one_in = count == 1 ? 1 : 8};
    plan.recover_one_in = 150;
    plan.has_bitmap = (seed >> 9) % 4 == 0;
    add_steps(&plan, steps, count);
    scene_run(world, &plan);
}

/* --- faults --- */

static bool set_fault(struct scene_plan *plan, uint64_t kind, uint64_t after)
{
    static const struct simdisk_fault faults[] = {
        {-EIO, 0, false, 1u << IO_WRITE, false},
        {-EIO, 0, true, 1u << IO_WRITE, false},
        {-ENOSPC, 0, false, 1u << IO_WRITE | 1u << IO_ZERO, false},
        {-ENOSPC, 0, true, 1u << IO_WRITE | 1u << IO_ZERO, false},
        {-EIO, 0, false, 1u << IO_SYNC, false},
        {-EIO, 0, true, 1u << IO_SYNC, false},
        {-EIO, 0, false, 1u << IO_READ, false},
        {-EIO, 0, true, 1u << IO_READ, false},
        {-EIO, 0, false, 1u << IO_ZERO | 1u << IO_PUNCH | 1u << IO_TRUNCATE, false},
        {-ENOSPC, 0, true, 1u << IO_WRITE, true},
    };
    if (kind < ARRAY_SIZE(faults)) {
        plan->fault = faults[kind];
        plan->fault.after = after;
        return true;
    }
    plan->fails_alloc = true;
    plan->alloc_stays = kind == ARRAY_SIZE(faults) + 1;
    plan->alloc_after = after;
    return true;
}

/* On a full host what the start image has to spare is used up first, and writes go on after. */
static void add_fault_steps(struct scene_plan *plan, enum step step)
{
    const enum step few[] = {step, STEP_ALLOCATE};
    const enum step full[] = {STEP_ALLOCATE, STEP_STRADDLE,  STEP_FLUSH,
                              step,          STEP_INTO_KEPT, STEP_OVERWRITE};
    if (plan->fault.is_full && plan->seed >> 10 & 1)
        make_full(&plan->config, (unsigned)(plan->seed >> 5) % 3);
    if (plan->fault.is_full)
        add_steps(plan, full, ARRAY_SIZE(full));
    else
        add_steps(plan, few, ARRAY_SIZE(few));
}

/* The n-th operation fails, for every n. */
static void run_faults(struct scene_world *world, uint64_t config, enum step step, uint64_t kind,
                       uint64_t seed)
{
    uint64_t operations = 1;
    for (uint64_t after = 0; after < operations && after < FAULTS_MAX; after++) {
        struct scene_plan plan = {.config = config_of(config * 7 % 18), .seed = seed + after * 977};
        plan.cuts = (struct powercut_options){
            .seed = plan.seed >> 3, .all_of = 1, .samples = 3, .torn = 1, .one_in = 12};
        plan.recover_one_in = 50;
        set_fault(&plan, kind, after);
        add_fault_steps(&plan, step);
        operations = MAX(operations, scene_run(world, &plan));
    }
}

/* --- races: what is under way when a cluster changes hands --- */

static void run_race(struct scene_world *world, uint64_t config, uint64_t kind, uint64_t seed)
{
    static const enum step ends[][3] = {
        {STEP_DISCARD, STEP_DISCARD, STEP_DISCARD},
        {STEP_ZERO_UNMAP, STEP_ZERO_UNMAP, STEP_ZERO_UNMAP},
        {STEP_SHRINK, STEP_SHRINK, STEP_SHRINK},
        {STEP_STRADDLE, STEP_STRADDLE, STEP_STRADDLE},
        {STEP_INTO_KEPT, STEP_INTO_KEPT, STEP_NEW_TABLE},
    };
    const enum step *end = ends[kind % 5];
    struct scene_plan plan = {.config = config_of(config), .seed = seed};
    uint64_t s = (UINT64_C(1) << plan.config.cluster_bits) / CELL_BYTES;
    uint64_t cluster = end[0] == STEP_DISCARD ? 0 : 5;
    plan.config.has_snapshot = end[0] == STEP_STRADDLE;
    add(&plan, SCENE_FLUSH, 0, 0);
    for (unsigned i = 0; i < 3; i++) {
        add(&plan, kind / 5 % 2 ? SCENE_READ : SCENE_WRITE, cluster * s, MIN(s, 4));
        add_step(&plan, end[i]);
        add(&plan, SCENE_FLUSH, 0, 0);
        add_step(&plan, STEP_ALLOCATE);
        add(&plan, SCENE_WRITE, 7 * s, MIN(s, 4));
        add(&plan, SCENE_FLUSH, 0, 0);
        add(&plan, SCENE_WRITE, 4 * s, MIN(s, 4));
    }
    plan.slow_one_in = end[2] == STEP_NEW_TABLE ? 2 : 6;
    plan.slow_most = 40;
    plan.cuts = (struct powercut_options){
        .seed = seed >> 3, .all_of = 1, .samples = 3, .torn = 1, .one_in = 8};
    plan.recover_one_in = 200;
    scene_run(world, &plan);
}

/* --- random ones --- */

static struct origin_config random_config(uint64_t *random)
{
    struct origin_config config = config_of(cell_below(random, CONFIGS));
    if (!config.is_extended && cell_below(random, 5) == 0) {
        config.version = 2;
        config.is_lazy = false;
    } else {
        config.refcount_order = 3 + (unsigned)cell_below(random, 4);
    }
    config.has_snapshot = cell_below(random, 4) == 0;
    if (config.version == 3 && cell_below(random, 6) == 0)
        make_full(&config, (unsigned)cell_below(random, 12));
    return config;
}

static void random_range(const struct origin_config *config, uint64_t *random, struct scene_op *op)
{
    uint32_t offsets[ORIGIN_OFFSETS], count = origin_offsets(config, offsets);
    uint32_t s = (1u << config->cluster_bits) / CELL_BYTES;
    uint32_t cluster = (uint32_t)cell_below(random, 10);
    if (config->cluster_bits == 9 && cell_below(random, 3) == 0)
        cluster = 60 + (uint32_t)cell_below(random, 10);
    op->first = cluster * s;
    if (op->kind == SCENE_DISCARD || cell_below(random, 4) == 0) {
        bool is_short = op->kind == SCENE_WRITE && s > 128;
        op->count = is_short ? s : s * (1 + (uint32_t)cell_below(random, 3));
        return;
    }
    op->first += offsets[cell_below(random, count)];
    op->count = 1 + (uint32_t)cell_below(random, cell_below(random, 3) ? 8 : 24);
    if (op->kind != SCENE_WRITE && cell_below(random, 2))
        op->count += s;
}

static void random_op(const struct scene_plan *plan, uint64_t *random, struct scene_op *op)
{
    static const enum scene_op_kind kinds[] = {
        SCENE_WRITE, SCENE_WRITE, SCENE_WRITE,      SCENE_WRITE,   SCENE_WRITE, SCENE_WRITE,
        SCENE_ZERO,  SCENE_READ,  SCENE_ZERO_UNMAP, SCENE_DISCARD, SCENE_FLUSH, SCENE_FLUSH};
    uint32_t s = (1u << plan->config.cluster_bits) / CELL_BYTES;
    uint32_t clusters = origin_clusters(&plan->config);
    *op = (struct scene_op){.kind = kinds[cell_below(random, ARRAY_SIZE(kinds))]};
    op->is_alone = cell_below(random, 4) == 0;
    op->is_fua = cell_below(random, 16) == 0;
    uint64_t dice = cell_below(random, 40);
    if (dice < 3) {
        op->kind = (enum scene_op_kind)(SCENE_SNAPSHOT_CREATE + dice);
        op->is_live = cell_below(random, 2);
    } else if (dice == 3) {
        op->kind = SCENE_RESIZE;
        op->first =
            s * (4 + (uint32_t)cell_below(random, clusters)) + (uint32_t)cell_below(random, s);
        if (cell_below(random, 4) == 0)
            op->first = origin_clusters_max(&plan->config) * s;
    } else {
        random_range(&plan->config, random, op);
    }
}

static void run_random(struct scene_world *world, uint64_t item, uint64_t seed)
{
    uint64_t random = (item * UINT64_C(0x9e3779b97f4a7c15) ^ seed << 20) | 1;
    for (unsigned i = 0; i < 8; i++)
        cell_random(&random);
    struct scene_plan plan = {.config = random_config(&random), .seed = cell_random(&random) >> 1};
    plan.op_count = 4 + (unsigned)cell_below(&random, 20);
    for (unsigned i = 0; i < plan.op_count; i++)
        random_op(&plan, &random, &plan.ops[i]);
    plan.cuts = (struct powercut_options){
        .seed = plan.seed >> 3, .all_of = 2, .samples = 6, .torn = 2, .one_in = 2};
    plan.recover_one_in = 150;
    plan.has_bitmap = plan.config.version == 3 && cell_below(&random, 4) == 0;
    if (cell_below(&random, 3) == 0) {
        plan.slow_one_in = 5;
        plan.slow_most = 60;
    }
    if (cell_below(&random, 4) == 0)
        set_fault(&plan, cell_below(&random, FAULT_KINDS), cell_below(&random, 60));
    scene_run(world, &plan);
}

/* --- the list --- */

#define FROM_TRIPLES (UINT64_C(1) * CONFIGS * PAIRS)
#define FROM_FAULTS  (FROM_TRIPLES + CONFIGS * ARRAY_SIZE(triples))
#define FROM_RACES   (FROM_FAULTS + UINT64_C(1) * FAULT_CONFIGS * STEPS * FAULT_KINDS)
#define LISTED       (FROM_RACES + UINT64_C(1) * CONFIGS * RACES)
#define OTHERS       (LISTED - FROM_FAULTS)
#define STRIDE       UINT64_C(7919)      /* prime, and no divisor of either */
#define FROM_JOBS    (UINT64_C(1) << 40) /* without end, too */

const char *workload_family(uint64_t item)
{
    return item < FROM_TRIPLES  ? "sequences of one and two operations"
           : item < FROM_FAULTS ? "sequences of three operations"
           : item < FROM_RACES  ? "faults"
           : item < LISTED      ? "races"
           : item < FROM_JOBS   ? "random operations"
                                : "jobs";
}

/* Of sixteen one is random and one a job. */
static uint64_t rest_of(uint64_t position)
{
    return position / 16 * 14 + MIN(position % 16, 7) + (position % 16 > 8 ? position % 16 - 8 : 0);
}

/* Of five others one is a fault or a race, while there are sequences. */
uint64_t workload_order(uint64_t position)
{
    uint64_t rest = rest_of(position), sequence = rest - rest / 5, other = rest / 5;
    if (position % 16 == 15)
        return LISTED + position / 16;
    if (position % 16 == 7)
        return FROM_JOBS + position / 16;
    if (rest % 5 != 4 && sequence < FROM_FAULTS)
        return sequence * STRIDE % FROM_FAULTS;
    if (sequence >= FROM_FAULTS)
        other = rest - FROM_FAULTS;
    return other < OTHERS ? FROM_FAULTS + other * STRIDE % OTHERS : LISTED + position;
}

const char *workload_coverage(uint64_t position)
{
    uint64_t rest = rest_of(position);
    return rest >= LISTED                   ? "all sequences, faults and races of the list"
           : rest - rest / 5 >= FROM_FAULTS ? "all sequences of one to three operations"
                                            : "a sample of the sequences";
}

void workload_run(struct scene_world *world, uint64_t item, uint64_t seed)
{
    uint64_t mixed =
        (seed * UINT64_C(0x9e3779b97f4a7c15) ^ item * UINT64_C(0x2545f4914f6cdd1d)) >> 9;
    if (item < FROM_TRIPLES) {
        uint64_t sequence = item / CONFIGS;
        enum step steps[2] = {(enum step)(sequence % STEPS), (enum step)(sequence / STEPS)};
        if (sequence < STEPS)
            run_sequence(world, item % CONFIGS, steps, 1, mixed);
        else {
            steps[1] = (enum step)((sequence - STEPS) / STEPS);
            run_sequence(world, item % CONFIGS, steps, 2, mixed);
        }
    } else if (item < FROM_FAULTS) {
        uint64_t index = item - FROM_TRIPLES;
        run_sequence(world, index % CONFIGS, triples[index / CONFIGS], 3, mixed);
    } else if (item >= FROM_RACES && item < LISTED) {
        uint64_t index = item - FROM_RACES;
        run_race(world, index % CONFIGS, index / CONFIGS, mixed);
    } else if (item < FROM_RACES) {
        uint64_t index = item - FROM_FAULTS;
        run_faults(world, index % FAULT_CONFIGS, (enum step)(index / FAULT_CONFIGS % STEPS),
                   index / FAULT_CONFIGS / STEPS, mixed);
    } else if (item >= FROM_JOBS) {
        jobscene_run(world, item - FROM_JOBS, mixed);
    } else {
        run_random(world, item, seed);
    }
}
