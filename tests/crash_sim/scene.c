/* SPDX-License-Identifier: MIT */
/* scene: see the header. */
#include "tests/crash_sim/scene.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/format.h"
#include "disk/qcow2/qcow2_snapshot.h"
#include "tests/crash_sim/alloc_fault.h"
#include "tests/crash_sim/recovery.h"

#define TURNS_MAX     100000u /* after which a workload that has not ended never will */
#define FIRST_VERSION 1u      /* what the start image holds; writes come after it */
#define SEEDED_MAX    80u     /* clusters that the start image or its backing can have */
#define LEAK_SLACK    16u     /* clusters of tables that one operation may have under way */

struct work {
    struct disk_request request;
    struct iovec iov;
    struct scene *scene;
    uint32_t first, count, began;
    uint8_t *data;
};

/* --- the world --- */

void scene_world_init(struct scene_world *world)
{
    memset(world, 0, sizeof(*world));
    alloc_fault_pause();
    CHECK(loop_init(&world->loop) == 0);
}

void scene_world_fini(struct scene_world *world)
{
    loop_run(&world->loop);
    loop_fini(&world->loop);
    origin_cache_fini(&world->origins);
    checker_fini(&world->checker);
    checker_fini(&world->second);
    for (unsigned i = 0; i < SIMDISK_CLOCK_DISKS; i++)
        checker_fini(&world->layers[i]);
}

static const struct origin *get_origin(struct scene_world *world,
                                       const struct origin_config *config)
{
    bool forgot;
    const struct origin *origin = origin_get(&world->origins, config, &forgot);
    /* They know cells by their place in memory. */
    if (forgot) {
        checker_fini(&world->checker);
        checker_fini(&world->second);
    }
    return origin;
}

/* --- failing --- */

void scene_fail(const struct scene *scene, const char *what, const char *detail, uint32_t time)
{
    const struct origin_config *c = &scene->plan->config;
    dprintf(scene->world->report_fd,
            "crash_sim: %s: %s\n"
            "  state %llu, time %u of %u; clusters of %u, version %u, backing %d%s%s%s, "
            "fullness %d\n"
            "  replay with: %s\n",
            what, detail, (unsigned long long)scene->states, time,
            scene->sim ? simdisk_now(scene->sim) : 0, 1u << c->cluster_bits, c->version,
            (int)c->backing, c->is_lazy ? ", lazy refcounts" : "",
            c->is_extended ? ", extended L2" : "", c->has_snapshot ? ", a snapshot" : "",
            (int)c->fullness, scene->world->replay);
    _exit(SCENE_FAILED);
}

static bool may_fail(const struct scene *scene)
{
    return scene->sim->faults || alloc_fault_has_struck();
}

/* The host had no space for a longer file, and nothing worse. */
static bool was_only_full(const struct scene *scene)
{
    return scene->plan->fault.is_full && !alloc_fault_has_struck();
}

static void check_result(const struct scene *scene, int result, const char *what)
{
    if (result && !may_fail(scene))
        scene_fail(scene, what, strerror(-result), simdisk_now(scene->sim));
}

/* --- the engine's side --- */

static void run_turn(struct scene *scene)
{
    alloc_fault_resume();
    loop_run_once(&scene->world->loop, true);
    alloc_fault_pause();
}

static void drain(struct scene *scene, unsigned most)
{
    for (unsigned turns = 0; scene->in_flight > most; turns++) {
        if (turns == TURNS_MAX)
            scene_fail(scene, "engine", "a request does not end", simdisk_now(scene->sim));
        run_turn(scene);
    }
}

static struct node *open_base(struct scene *scene, struct error *err)
{
    struct node *base = NULL;
    struct disk_options options = {.path = "base", .read_only = true};
    const struct format_ops *format =
        scene->plan->config.backing == ORIGIN_RAW_BACKING ? &raw_format : &qcow2_format;
    scene->base_sim = simdisk_create(&scene->world->loop, &scene->arena, &scene->origin->base, 7);
    alloc_fault_resume();
    int result = format->open(&scene->world->loop, &scene->base_sim->file, &options, &base, err);
    alloc_fault_pause();
    if (!result)
        return base;
    simdisk_destroy(scene->base_sim);
    scene->base_sim = NULL;
    return NULL;
}

static void on_base_closed(void *opaque, int result)
{
    *(bool *)opaque = true;
    (void)result;
}

static void close_base(struct scene *scene, struct node *base)
{
    bool done = false;
    base->ops->close(base, on_base_closed, &done);
    while (!done)
        run_turn(scene);
    simdisk_destroy(scene->base_sim);
    scene->base_sim = NULL;
}

struct disk *scene_open(struct scene *scene, struct simdisk *sim, struct error *err)
{
    struct disk *disk = NULL;
    struct node *base = NULL;
    struct disk_options options = {.path = "image",
                                   .format = "qcow2",
                                   .discard_unmap = true,
                                   .cache.writeback = true,
                                   .l2_cache_bytes = 1};
    if (scene->plan->config.backing != ORIGIN_NO_BACKING && !(base = open_base(scene, err)))
        return NULL;
    alloc_fault_resume();
    int result = disk_open_file(&scene->world->loop, &sim->file, base, &options, &disk, err);
    alloc_fault_pause();
    if (result && base)
        close_base(scene, base);
    return result ? NULL : disk;
}

static void open_disk(struct scene *scene)
{
    struct error err = {0};
    scene->disk = scene_open(scene, scene->sim, &err);
    if (!scene->disk && !may_fail(scene))
        scene_fail(scene, "opening", err.text, simdisk_now(scene->sim));
}

struct live {
    struct disk_snapshot_request request;
    struct scene *scene;
    int result;
};

struct scene_closing {
    struct scene *scene;
    int result;
};

static void on_disk_closed(void *opaque, int result)
{
    struct scene_closing *closing = opaque;
    closing->result = result;
    closing->scene->in_flight--;
}

/* A close makes durable what a flush would. */
static int close_disk(struct scene *scene)
{
    struct scene_closing closing = {scene, 0};
    uint32_t began = simdisk_note(scene->sim);
    if (scene->plan->has_bitmap)
        model_may_leak(&scene->model, began, 2 * LEAK_SLACK);
    scene->in_flight++;
    disk_close(scene->disk, on_disk_closed, &closing);
    drain(scene, 0);
    scene->disk = NULL;
    simdisk_destroy(scene->base_sim);
    scene->base_sim = NULL;
    check_result(scene, closing.result, "closing");
    scene->has_failed |= closing.result != 0;
    uint32_t ended = simdisk_note(scene->sim);
    if (!closing.result)
        model_flushed(&scene->model, began, ended);
    return closing.result;
}

/* --- requests --- */

static void check_read(struct work *work, uint32_t ended)
{
    struct scene *scene = work->scene;
    char detail[80];
    for (uint32_t i = 0; i < work->count; i++) {
        uint32_t lba, version, place = work->first + i;
        cell_identify(work->data + (uint64_t)i * CELL_BYTES, &lba, &version);
        if (version && lba != place)
            version = CELL_FOREIGN;
        if (model_read_is_good(&scene->model, place, version, work->began, ended))
            continue;
        snprintf(detail, sizeof(detail), "sector %u gives version %#x", place, version);
        scene_fail(scene, "a read", detail, ended);
    }
}

static void on_work_done(struct disk_request *request, int result)
{
    struct work *work = container_of(request, struct work, request);
    struct scene *scene = work->scene;
    alloc_fault_pause();
    uint32_t ended = simdisk_note(scene->sim);
    check_result(scene, result, "a request");
    if (request->op == DISK_FLUSH)
        scene->flush_result = result;
    if (request->op == DISK_READ && !result)
        check_read(work, ended);
    else if (request->op == DISK_FLUSH && !result)
        model_flushed(&scene->model, work->began, ended);
    else if (request->op != DISK_READ && request->op != DISK_FLUSH)
        model_end(&scene->model, work->first, work->count, work->began, ended, !result,
                  request->flags & DISK_FUA);
    scene->has_failed |= result != 0;
    scene->in_flight--;
    free(work->data);
    free(work);
    alloc_fault_resume();
}

static enum disk_op disk_op_of(enum scene_op_kind kind)
{
    switch (kind) {
    case SCENE_WRITE:
        return DISK_WRITE;
    case SCENE_ZERO:
    case SCENE_ZERO_UNMAP:
        return DISK_ZERO;
    case SCENE_DISCARD:
        return DISK_DISCARD;
    case SCENE_READ:
        return DISK_READ;
    default:
        return DISK_FLUSH;
    }
}

static void fill_data(struct scene *scene, struct work *work, enum disk_op op)
{
    work->data = malloc(work->request.bytes);
    CHECK(work->data);
    work->iov = (struct iovec){work->data, work->request.bytes};
    work->request.iov = &work->iov;
    work->request.iov_count = 1;
    if (op == DISK_WRITE)
        scene->next_version++;
    for (uint32_t i = 0; op == DISK_WRITE && i < work->count; i++)
        cell_fill(work->data + (uint64_t)i * CELL_BYTES, work->first + i, scene->next_version);
}

static void start_request(struct scene *scene, const struct scene_op *op)
{
    enum disk_op kind = disk_op_of(op->kind);
    bool changes = kind != DISK_READ && kind != DISK_FLUSH;
    struct work *work = calloc(1, sizeof(*work));
    CHECK(work);
    work->scene = scene;
    if (kind != DISK_FLUSH) {
        work->first = op->first;
        work->count = MIN(op->count, scene->sectors - MIN(scene->sectors, op->first));
    }
    work->request = (struct disk_request){
        .op = kind,
        .flags = (op->kind == SCENE_ZERO_UNMAP ? DISK_MAY_UNMAP : 0u) |
                 (op->is_fua && changes ? DISK_FUA : 0u),
        .offset = (uint64_t)work->first * CELL_BYTES,
        .bytes = (uint64_t)work->count * CELL_BYTES,
        .on_done = on_work_done,
    };
    if (kind == DISK_READ || kind == DISK_WRITE)
        fill_data(scene, work, kind);
    work->began = simdisk_note(scene->sim);
    if (changes) {
        model_begin(&scene->model, work->first, work->count,
                    kind == DISK_WRITE ? scene->next_version : CELL_ZERO, work->began);
        model_may_leak(&scene->model, work->began,
                       2 * (work->count / origin_per_cluster(&scene->plan->config) + 2) +
                           LEAK_SLACK);
    }
    scene->in_flight++;
    alloc_fault_resume();
    disk_submit(scene->disk, &work->request);
    alloc_fault_pause();
}

static void on_resized(void *opaque, int result, const struct error *err)
{
    struct scene *scene = opaque;
    (void)err;
    scene->resize_result = result;
    scene->in_flight--;
}

static void resize(struct scene *scene, uint32_t sectors)
{
    uint32_t most = MAX(sectors, scene->sectors), least = MIN(sectors, scene->sectors);
    drain(scene, 0);
    uint32_t began = simdisk_note(scene->sim);
    model_resize_begin(&scene->model, scene->sectors, sectors, began);
    model_may_leak(&scene->model, began,
                   MIN((most - least) / origin_per_cluster(&scene->plan->config), SEEDED_MAX) +
                       LEAK_SLACK);
    scene->in_flight++;
    disk_resize(scene->disk, (uint64_t)sectors * CELL_BYTES, on_resized, scene);
    drain(scene, 0);
    check_result(scene, scene->resize_result, "a resize");
    scene->has_failed |= scene->resize_result != 0;
    model_resize_end(&scene->model, began, simdisk_note(scene->sim), !scene->resize_result);
    scene->sectors = (uint32_t)(disk_size_bytes(scene->disk) / CELL_BYTES);
}

/* --- snapshots: on an image that nothing has open --- */

static int act_on_snapshot(struct scene *scene, enum scene_op_kind kind, const char *name)
{
    struct error err = {0};
    struct io_file *file = &scene->sim->file;
    int result;
    alloc_fault_resume();
    if (kind == SCENE_SNAPSHOT_CREATE)
        result = qcow2_snapshot_create(file, "image", name, &err);
    else if (kind == SCENE_SNAPSHOT_DELETE)
        result = qcow2_snapshot_delete(file, "image", name, &err);
    else
        result = qcow2_snapshot_apply(file, "image", name, &err);
    alloc_fault_pause();
    if (result && !may_fail(scene))
        scene_fail(scene, "a snapshot", err.text, simdisk_now(scene->sim));
    return result;
}

static void on_live_done(struct disk_snapshot_request *request, int result, const struct error *err)
{
    struct live *live = container_of(request, struct live, request);
    (void)err;
    live->result = result;
    live->scene->in_flight--;
}

/* The same on the disk in use, which holds requests meanwhile. */
static int act_live(struct scene *scene, enum scene_op_kind kind, const char *name)
{
    struct live live = {.scene = scene};
    live.request = (struct disk_snapshot_request){
        .action = kind == SCENE_SNAPSHOT_CREATE   ? DISK_SNAPSHOT_CREATE
                  : kind == SCENE_SNAPSHOT_DELETE ? DISK_SNAPSHOT_DELETE
                                                  : DISK_SNAPSHOT_APPLY,
        .name = name,
        .on_done = on_live_done,
    };
    scene->in_flight++;
    alloc_fault_resume();
    disk_snapshot(scene->disk, &live.request);
    alloc_fault_pause();
    drain(scene, 0);
    check_result(scene, live.result, "a snapshot of a disk in use");
    scene->is_untrusted = live.result && !was_only_full(scene);
    return live.result;
}

static struct model_snapshot *newest_snapshot(struct scene *scene)
{
    for (uint32_t i = scene->model.snapshot_count; i-- > 0;)
        if (scene->model.snapshots[i].created != MODEL_NEVER &&
            scene->model.snapshots[i].delete_submitted == MODEL_NEVER)
            return &scene->model.snapshots[i];
    return NULL;
}

/* The image was closed well: this is what it holds, and what a snapshot of it must hold. */
static void remember_contents(struct scene *scene, struct model_snapshot *snapshot)
{
    struct checker *checker = &scene->world->checker;
    if (!checker_open(checker, &scene->sim->cache))
        scene_fail(scene, "corruption before a snapshot", checker->why, simdisk_now(scene->sim));
    model_collect(&scene->model, checker, &checker->active, snapshot->values);
    /* A resize that failed may have left the size that was asked for, or not. */
    snapshot->size = (uint32_t)(checker->active.size_bytes / CELL_BYTES);
}

/* On the disk in use, or on the closed image. */
static void do_snapshot(struct scene *scene, enum scene_op_kind kind)
{
    char name[16];
    struct model_snapshot *snapshot = newest_snapshot(scene);
    uint32_t began = simdisk_note(scene->sim);
    model_may_leak(&scene->model, began, 4 * SEEDED_MAX + 4 * LEAK_SLACK);
    if (kind == SCENE_SNAPSHOT_CREATE) {
        snprintf(name, sizeof(name), "n%u", ++scene->next_snapshot);
        snapshot = model_snapshot_begin(&scene->model, name, began);
        remember_contents(scene, snapshot);
    }
    if (kind == SCENE_SNAPSHOT_DELETE)
        snapshot->delete_submitted = began;
    if (kind == SCENE_SNAPSHOT_APPLY)
        model_apply_begin(&scene->model, snapshot, began);
    int result = scene->disk ? act_live(scene, kind, snapshot->name)
                             : act_on_snapshot(scene, kind, snapshot->name);
    uint32_t ended = simdisk_note(scene->sim);
    if (kind == SCENE_SNAPSHOT_CREATE && !result)
        snapshot->created = ended;
    if (kind == SCENE_SNAPSHOT_DELETE && !result)
        snapshot->deleted = ended;
    if (kind == SCENE_SNAPSHOT_APPLY)
        model_apply_end(&scene->model, began, ended, !result);
    /* On a full host it has changed nothing, so that the rest can go on. */
    scene->has_failed |= result && !was_only_full(scene);
}

/* So that what the image holds is known before it is preserved. */
static bool flush_now(struct scene *scene)
{
    static const struct scene_op flush = {.kind = SCENE_FLUSH};
    start_request(scene, &flush);
    drain(scene, 0);
    return scene->flush_result == 0;
}

/* False: the scene ends, for the image cannot be used any more. */
static bool snapshot_op(struct scene *scene, enum scene_op_kind kind, bool is_live)
{
    drain(scene, 0);
    /* Going back to a snapshot is refused where there are bitmaps. */
    if (scene->model.snapshot_count == MODEL_SNAPSHOTS ||
        (kind == SCENE_SNAPSHOT_APPLY && scene->plan->has_bitmap) ||
        (kind != SCENE_SNAPSHOT_CREATE && !newest_snapshot(scene)))
        return true;
    if (is_live ? !flush_now(scene) : close_disk(scene) != 0)
        return false;
    do_snapshot(scene, kind);
    if (scene->has_failed)
        return false;
    if (!scene->disk)
        open_disk(scene);
    if (scene->disk)
        scene->sectors = (uint32_t)(disk_size_bytes(scene->disk) / CELL_BYTES);
    return scene->disk != NULL;
}

/* --- the workload --- */

static bool can_discard(const struct scene *scene)
{
    const struct origin_config *config = &scene->plan->config;
    return config->version == 3 || config->backing == ORIGIN_NO_BACKING;
}

static bool reopen(struct scene *scene)
{
    drain(scene, 0);
    if (close_disk(scene))
        return false;
    open_disk(scene);
    return scene->disk != NULL;
}

static bool run_op(struct scene *scene, const struct scene_op *op)
{
    if (op->is_alone)
        drain(scene, 0);
    switch (op->kind) {
    case SCENE_SNAPSHOT_CREATE:
    case SCENE_SNAPSHOT_DELETE:
    case SCENE_SNAPSHOT_APPLY:
        return snapshot_op(scene, op->kind, op->is_live);
    case SCENE_REOPEN:
        return reopen(scene);
    case SCENE_RESIZE:
        resize(scene, op->first);
        return true;
    case SCENE_DISCARD:
        if (!can_discard(scene))
            return true;
        break;
    default:
        break;
    }
    if (op->kind == SCENE_FLUSH || (op->count && op->first < scene->sectors))
        start_request(scene, op);
    return true;
}

/* All of the palette must read as the model says, and can be written and flushed: a fault that is
 * over has left nothing behind, unless a barrier failed. */
static void finish_work(struct scene *scene)
{
    uint64_t failed;
    /* Unpacking 2 MiB takes as long as judging a hundred states. */
    bool is_hasty = scene->plan->config.cluster_bits == 21 && cell_below(&scene->random, 4);
    drain(scene, 0);
    scene->sim->fault.result = 0;
    alloc_fault_disarm(&failed);
    for (unsigned i = 0; i < 2; i++)
        flush_now(scene);
    if (scene->flush_result && !scene->sim->failed_syncs && !scene->is_untrusted)
        scene_fail(scene, "a flush fails after the fault is over", strerror(-scene->flush_result),
                   simdisk_now(scene->sim));
    for (uint32_t i = 0; i < scene->model.place_count; i++) {
        struct scene_op read = {.kind = SCENE_READ, .first = scene->model.places[i].lba};
        read.count = 1;
        if (read.first < scene->sectors &&
            !(is_hasty && origin_is_packed(&scene->plan->config, read.first)))
            start_request(scene, &read);
        drain(scene, 8);
    }
    drain(scene, 0);
}

static void add_bitmap(struct scene *scene)
{
    struct dirty_bitmap *bitmap;
    struct error err = {0};
    uint64_t granularity = scene->plan->config.cluster_bits == 21 ? 65536 : 512;
    alloc_fault_resume();
    int result = disk_add_bitmap(scene->disk, "b0", granularity, true, &bitmap, &err);
    alloc_fault_pause();
    if (result && !may_fail(scene))
        scene_fail(scene, "adding a bitmap", err.text, simdisk_now(scene->sim));
}

static void run_workload(struct scene *scene)
{
    const struct scene_plan *plan = scene->plan;
    bool goes_on;
    open_disk(scene);
    goes_on = scene->disk != NULL;
    if (goes_on && plan->has_bitmap)
        add_bitmap(scene);
    for (unsigned i = 0; goes_on && i < plan->op_count; i++) {
        goes_on = run_op(scene, &plan->ops[i]);
        if (goes_on && !plan->ops[i].is_alone)
            for (uint64_t n = cell_below(&scene->random, 6); n; n--)
                run_turn(scene);
        drain(scene, 8);
    }
    if (scene->disk) {
        finish_work(scene);
        close_disk(scene);
    }
}

/* After a close that nothing disturbed, every count is exact. */
static void check_clean(struct scene *scene)
{
    struct checker *checker = &scene->world->checker;
    char detail[120];
    uint32_t time = simdisk_now(scene->sim);
    if (!checker_open(checker, &scene->sim->cache))
        scene_fail(scene, "corruption after closing", checker->why, time);
    if (may_fail(scene) && (scene->has_failed || !was_only_full(scene)))
        return;
    snprintf(detail, sizeof(detail), "%llu clusters leaked (%llu at the start), %llu COPIED wrong",
             (unsigned long long)checker->leaks, (unsigned long long)scene->model.ballast,
             (unsigned long long)checker->stale);
    if (scene->plan->has_bitmap && (checker->bitmap_count != 1 || checker->bitmaps[0].is_in_use))
        scene_fail(scene, "after closing", "the bitmap was not kept", time);
    if (checker->leaks != scene->model.ballast || checker->stale || checker->is_dirty)
        scene_fail(scene, "not clean after closing", detail, time);
}

/* --- the states --- */

static bool on_state(void *opaque, const struct cell_file *file, uint32_t time)
{
    static const char *const names[] = {"", "corruption", "lost", "foreign data", "leaks"};
    struct scene *scene = opaque;
    struct checker *checker = &scene->world->checker;
    scene->states++;
    if (!checker_open(checker, file))
        scene_fail(scene, "corruption", checker->why, time);
    enum model_verdict verdict = model_judge(&scene->model, checker, time);
    if (verdict != MODEL_GOOD)
        scene_fail(scene, names[verdict], scene->model.why, time);
    unsigned one_in = scene->plan->recover_one_in;
    if (one_in && cell_below(&scene->random, one_in) == 0)
        recovery_try(scene, file, time, cell_random(&scene->random));
    return true;
}

uint64_t scene_run(struct scene_world *world, const struct scene_plan *plan)
{
    struct scene scene = {.world = world, .plan = plan, .random = plan->seed * 2 + 1};
    uint64_t failed, operations;
    scene.origin = get_origin(world, &plan->config);
    scene.sectors = origin_start_model(scene.origin, &scene.model);
    scene.next_version = FIRST_VERSION;
    scene.sim = simdisk_create(&world->loop, &scene.arena, &scene.origin->file, plan->seed);
    scene.sim->fault = plan->fault;
    if (plan->slow_one_in) {
        scene.sim->slow_one_in = plan->slow_one_in;
        scene.sim->slow_most = plan->slow_most;
    }
    simdisk_note(scene.sim); /* time 0 is before everything */
    alloc_fault_arm(plan->fails_alloc ? plan->alloc_after : UINT64_MAX, plan->alloc_stays);
    run_workload(&scene);
    operations = alloc_fault_disarm(&failed);
    if (!plan->fails_alloc)
        operations = scene.sim->operations;
    check_clean(&scene);
    model_close(&scene.model);
    world->faults += scene.sim->faults + failed;
    powercut_each(&scene.sim->trace, &plan->cuts, on_state, &scene);
    world->scenes++;
    world->states += scene.states;
    simdisk_destroy(scene.sim);
    simdisk_destroy(scene.base_sim);
    model_fini(&scene.model);
    cell_arena_fini(&scene.arena);
    return operations;
}
