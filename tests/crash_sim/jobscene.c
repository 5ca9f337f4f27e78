/* SPDX-License-Identifier: MIT */
/* jobscene: see the header. The images' contents are made by the engine before the trace begins. */
#include "tests/crash_sim/jobscene.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/graph.h"
#include "disk/qcow2/qcow2_create.h"
#include "tests/crash_sim/simfolder.h"
#include "vmm/block/block.h"

#define DISK_BYTES  (UINT64_C(768) << 10) /* three pieces of a job */
#define SECTORS     (uint32_t)(DISK_BYTES / CELL_BYTES)
#define GRANULE     128u /* sectors: a cluster of the images that commands make */
#define OPS         24u  /* while a job does one thing */
#define WORK_MAX    4u
#define SECTORS_MAX 8u
#define TURNS_MAX   200000u
#define PICKS_MAX   8u

enum { BASE, MID, TOP, OVER, MORE, FILES };
static const char *const names[FILES] = {"base", "mid", "top", "over", "more"};

struct step {
    const char *command, *arguments; /* NULL: the end */
    const char *top;                 /* what a user opens once it is done; NULL: as before */
    bool is_job, has_ready, is_cancelled;
};

struct script {
    const char *name;
    struct step steps[4];
};

#define SNAPSHOT(file, node)                                                                       \
    {                                                                                              \
        "blockdev-snapshot-sync",                                                                  \
            "{'device': 'd', 'snapshot-file': '" file "', 'snapshot-node-name': '" node "'}",      \
            file, false, false, false                                                              \
    }

static const struct script scripts[] = {
    {"snapshots", {SNAPSHOT("over", "o"), SNAPSHOT("more", "m")}},
    {"commit of the middle",
     {{"block-commit", "{'device': 'd', 'top': 'mid', 'base': 'base'}", NULL, true, false, false}}},
    {"commit of a snapshot",
     {SNAPSHOT("over", "o"),
      {"block-commit", "{'device': 'd', 'top': 'top', 'base': 'mid'}", NULL, true, false, false}}},
    {"active commit",
     {{"block-commit", "{'device': 'd', 'base': 'mid'}", "mid", true, true, false}}},
    {"active commit of two",
     {{"block-commit", "{'device': 'd', 'base': 'base'}", "base", true, true, false}}},
    {"cancelled active commit",
     {{"block-commit", "{'device': 'd', 'base': 'base'}", NULL, true, true, true}}},
    {"stream", {{"block-stream", "{'device': 'd'}", NULL, true, false, false}}},
    {"stream onto a base",
     {{"block-stream", "{'device': 'd', 'base': 'base'}", NULL, true, false, false}}},
    {"mirror",
     {{"drive-mirror", "{'device': 'd', 'target': 'over', 'sync': 'full', 'format': 'qcow2'}",
       "over", true, true, false}}},
    {"mirror that writes to both",
     {{"drive-mirror",
       "{'device': 'd', 'target': 'over', 'sync': 'full', 'copy-mode': 'write-blocking'}", "over",
       true, true, false}}},
    {"stream into the middle",
     {{"block-stream", "{'device': 'm1', 'job-id': 'd'}", NULL, true, false, false}}},
    {"mirror of the top",
     {{"drive-mirror",
       "{'device': 'd', 'target': 'over', 'sync': 'top', 'format': 'qcow2', 'granularity': 4096}",
       "over", true, true, false}}},
    {"cancelled mirror, then a snapshot",
     {{"drive-mirror", "{'device': 'd', 'target': 'over', 'sync': 'full', 'format': 'qcow2'}", NULL,
       true, true, true},
      SNAPSHOT("more", "m")}},
    {"backup",
     {{"drive-backup", "{'device': 'd', 'target': 'over', 'sync': 'full', 'format': 'qcow2'}", NULL,
       true, false, false}}},
};

/* From a time on: what a user would open. */
struct pick {
    uint32_t time;
    const char *name;
};

struct jobscene {
    struct scene_world *world;
    const struct script *script;
    struct simfolder folder;
    struct cell_arena arena;
    struct model model;
    struct disk *disk;
    struct block *block;
    uint64_t random, states;
    unsigned in_flight, step;
    uint32_t version;
    struct pick picks[PICKS_MAX];
    unsigned pick_count;
    uint32_t copied_at;   /* the moment that a backup or a cancelled mirror holds, ... */
    uint32_t copied_from; /* ... from this time on; MODEL_NEVER */
    bool is_answered, is_ready, is_over, is_closed, is_block_closed;
    const char *what; /* that a command failed with */
    char text[200];
};

struct work {
    struct jobscene *scene;
    struct disk_request request;
    struct iovec iov;
    uint32_t first, count, began;
    uint8_t data[SECTORS_MAX * CELL_BYTES];
};

static void fail(struct jobscene *scene, const char *what, const char *detail, uint32_t time)
{
    dprintf(scene->world->report_fd,
            "crash_sim: %s: %s: %s\n  state %llu, time %u of %u\n  replay with: %s\n",
            scene->script->name, what, detail, (unsigned long long)scene->states, time,
            simfolder_now(&scene->folder), scene->world->replay);
    _exit(SCENE_FAILED);
}

static void run_turn(struct jobscene *scene)
{
    loop_run_once(&scene->world->loop, false);
}

#define TURN_UNTIL(scene, condition)                                                               \
    for (unsigned turns = 0; !(condition); turns++) {                                              \
        if (turns == TURNS_MAX)                                                                    \
            fail(scene, "waiting in vain for", #condition, simfolder_now(&(scene)->folder));       \
        run_turn(scene);                                                                           \
    }

/* --- the images --- */

static void make_image(struct jobscene *scene, unsigned which, unsigned cluster_bits,
                       const char *backing)
{
    struct qcow2_create_options options;
    const struct io_options io = {0};
    struct io_file *file;
    struct error err = {0};
    qcow2_create_defaults(&options);
    options.size_bytes = DISK_BYTES;
    options.cluster_bytes = UINT64_C(1) << cluster_bits;
    options.backing_path = backing;
    options.backing_format = backing ? "qcow2" : NULL;
    CHECK(io_open(&scene->world->loop, names[which], &io, &file, &err) == 0);
    CHECK(qcow2_create(file, NULL, &options, &err) == 0);
    io_close(file, NULL, NULL);
    TURN_UNTIL(scene, !scene->folder.opened);
}

static void on_closed(void *opaque, int result)
{
    struct jobscene *scene = opaque;
    scene->is_closed = true;
    if (result)
        fail(scene, "closing", strerror(-result), simfolder_now(&scene->folder));
}

static struct disk *open_disk(struct jobscene *scene, const char *name)
{
    const struct disk_options options = {.path = name,
                                         .format = "qcow2",
                                         .discard_unmap = true,
                                         .cache.writeback = true,
                                         .l2_cache_bytes = 1};
    struct disk *disk;
    struct error err = {0};
    if (disk_open(&scene->world->loop, &options, &disk, &err))
        fail(scene, "opening", err.text, 0);
    return disk;
}

static void close_disk(struct jobscene *scene)
{
    scene->is_closed = false;
    disk_close(scene->disk, on_closed, scene);
    TURN_UNTIL(scene, scene->is_closed && !scene->folder.opened);
}

/* Where the disk's contents are followed: the ends of some of its sixteenths. */
static uint32_t choose_places(uint32_t lbas[FILES * 64])
{
    uint32_t n = 0;
    for (uint32_t part = 0; part < 16; part++)
        for (uint32_t i = 0; i < 12; i++)
            lbas[n++] = part * (SECTORS / 16) + (i < 9 ? i : SECTORS / 16 - 12 + i);
    return n;
}

static void write_part(struct jobscene *scene, uint32_t part, uint32_t version)
{
    static uint8_t data[SECTORS / 16 * CELL_BYTES];
    struct iovec iov = {data, sizeof(data)};
    struct disk_request request = {.op = DISK_WRITE,
                                   .offset = part * sizeof(data),
                                   .bytes = sizeof(data),
                                   .iov = &iov,
                                   .iov_count = 1};
    for (uint32_t i = 0; i < SECTORS / 16; i++)
        cell_fill(data + (uint64_t)i * CELL_BYTES, part * (SECTORS / 16) + i, version);
    CHECK(disk_run(scene->disk, &request) == 0);
}

/* The base has most of the disk; what is above it has some. */
static void fill_images(struct jobscene *scene)
{
    uint32_t lbas[FILES * 64], newest[16] = {0};
    uint32_t places = choose_places(lbas);
    for (unsigned which = BASE; which <= TOP; which++) {
        make_image(scene, which, cell_below(&scene->random, 2) ? 12 : 16,
                   which ? names[which - 1] : NULL);
        scene->disk = open_disk(scene, names[which]);
        for (uint32_t part = 0; part < 16; part++) {
            if (cell_below(&scene->random, 4) >= 3 - which)
                continue;
            write_part(scene, part, which + 1);
            newest[part] = which + 1;
        }
        close_disk(scene);
    }
    model_init(&scene->model, lbas, places, 8);
    for (uint32_t i = 0; i < places; i++)
        model_start_with(&scene->model, lbas[i], newest[lbas[i] / (SECTORS / 16)], CELL_ZERO);
    scene->version = TOP + 1;
}

/* --- the guest --- */

static void check_read(const struct work *work, uint32_t ended)
{
    char detail[80];
    for (uint32_t i = 0; i < work->count; i++) {
        uint32_t lba, version, place = work->first + i;
        cell_identify(work->data + (uint64_t)i * CELL_BYTES, &lba, &version);
        if (version && lba != place)
            version = CELL_FOREIGN;
        if (model_read_is_good(&work->scene->model, place, version, work->began, ended))
            continue;
        snprintf(detail, sizeof(detail), "sector %u gives version %#x", place, version);
        fail(work->scene, "a read", detail, ended);
    }
}

static void on_work_done(struct disk_request *request, int result)
{
    struct work *work = container_of(request, struct work, request);
    struct jobscene *scene = work->scene;
    uint32_t ended = simfolder_note(&scene->folder);
    if (result)
        fail(scene, "a request of the guest", strerror(-result), ended);
    if (request->op == DISK_FLUSH)
        model_flushed(&scene->model, work->began, ended);
    else if (request->op == DISK_READ)
        check_read(work, ended);
    else
        model_end(&scene->model, work->first, work->count, work->began, ended, true,
                  request->flags & DISK_FUA);
    scene->in_flight--;
    free(work);
}

static void fill_work(struct jobscene *scene, struct work *work, enum disk_op op)
{
    uint32_t part = (uint32_t)cell_below(&scene->random, 16);
    work->count = 1 + (uint32_t)cell_below(&scene->random, SECTORS_MAX);
    work->first = part * (SECTORS / 16) + (uint32_t)cell_below(&scene->random, 4);
    if (part < 15 && cell_below(&scene->random, 4) == 0)
        work->first = (part + 1) * (SECTORS / 16) - 2;
    work->iov = (struct iovec){work->data, (size_t)work->count * CELL_BYTES};
    if (op != DISK_WRITE)
        return;
    scene->version++;
    for (uint32_t i = 0; i < work->count; i++)
        cell_fill(work->data + (uint64_t)i * CELL_BYTES, work->first + i, scene->version);
}

static void start_request(struct jobscene *scene, enum disk_op op, bool is_fua)
{
    struct work *work = calloc(1, sizeof(*work));
    bool has_data = op == DISK_READ || op == DISK_WRITE;
    bool changes = op == DISK_WRITE || op == DISK_ZERO;
    CHECK(work);
    work->scene = scene;
    if (op != DISK_FLUSH)
        fill_work(scene, work, op);
    work->request = (struct disk_request){.op = op,
                                          .flags = changes && is_fua ? DISK_FUA : 0,
                                          .offset = (uint64_t)work->first * CELL_BYTES,
                                          .bytes = (uint64_t)work->count * CELL_BYTES,
                                          .iov = has_data ? &work->iov : NULL,
                                          .iov_count = has_data,
                                          .on_done = on_work_done};
    work->began = simfolder_note(&scene->folder);
    if (changes)
        model_begin(&scene->model, work->first, work->count,
                    op == DISK_WRITE ? scene->version : CELL_ZERO, work->began);
    scene->in_flight++;
    disk_submit(scene->disk, &work->request);
}

static void do_something(struct jobscene *scene)
{
    static const enum disk_op ops[] = {DISK_WRITE, DISK_WRITE, DISK_WRITE, DISK_WRITE,
                                       DISK_FLUSH, DISK_FLUSH, DISK_ZERO,  DISK_READ};
    if (scene->in_flight < WORK_MAX)
        start_request(scene, ops[cell_below(&scene->random, ARRAY_SIZE(ops))],
                      cell_below(&scene->random, 8) == 0);
}

/* Some work, and some turns between. */
static void be_a_guest(struct jobscene *scene, unsigned ops)
{
    for (unsigned i = 0; i < ops; i++) {
        do_something(scene);
        for (uint64_t n = cell_below(&scene->random, 12); n; n--)
            run_turn(scene);
    }
}

/* --- the user --- */

static bool disk_at(void *opaque, unsigned index, struct disk **disk, const char **id)
{
    const struct jobscene *scene = opaque;
    *disk = scene->disk;
    *id = "d";
    return index == 0;
}

static void forget(void *opaque, struct disk *disk)
{
    (void)opaque, (void)disk;
}

static void pick(struct jobscene *scene, const char *name)
{
    uint32_t time = simfolder_note(&scene->folder);
    if (!name)
        return;
    CHECK(scene->pick_count < PICKS_MAX);
    scene->picks[scene->pick_count++] = (struct pick){time, name};
}

static void emit(void *opaque, const char *event, json_t *data)
{
    struct jobscene *scene = opaque;
    const struct step *step = &scene->script->steps[scene->step];
    const char *error = json_string_value(json_object_get(data, "error"));
    scene->is_ready |= !strcmp(event, "BLOCK_JOB_READY");
    if (error || !strcmp(event, "BLOCK_JOB_ERROR"))
        fail(scene, event, error ? error : "", simfolder_now(&scene->folder));
    if (!strcmp(event, "BLOCK_JOB_COMPLETED")) {
        pick(scene, step->top);
        if (scene->copied_at)
            scene->copied_from = simfolder_now(&scene->folder) - 1;
        scene->is_over = true;
    }
    json_decref(data);
}

static void on_answer(void *opaque, json_t *value, const char *class, const char *text)
{
    struct jobscene *scene = opaque;
    const struct step *step = &scene->script->steps[scene->step];
    if (class)
        fail(scene, "a command", text, simfolder_now(&scene->folder));
    if (!step->is_job)
        pick(scene, step->top);
    scene->is_answered = true;
    json_decref(value);
}

static void run_command(struct jobscene *scene, const char *command, const char *arguments)
{
    json_error_t error;
    char text[200];
    size_t i = 0;
    for (; arguments[i]; i++)
        text[i] = (char)(arguments[i] == '\'' ? '"' : arguments[i]);
    text[i] = 0;
    json_t *args = json_loads(text, 0, &error);
    CHECK(args);
    scene->is_answered = false;
    block_run(scene->block, command, args, on_answer, scene);
    json_decref(args);
}

/* What the disk holds now: nothing is under way. */
static void remember_copy(struct jobscene *scene)
{
    TURN_UNTIL(scene, !scene->in_flight);
    scene->copied_at = simfolder_note(&scene->folder);
}

static void wait_with_guest(struct jobscene *scene, const bool *what, const char *name)
{
    /* A cancelled mirror's copy is of the moment of its end. */
    unsigned ops = scene->script->steps[scene->step].is_cancelled && scene->copied_at ? 0 : OPS;
    for (unsigned turns = 0; !*what; turns++) {
        if (turns == TURNS_MAX)
            fail(scene, "waiting in vain for", name, simfolder_now(&scene->folder));
        if (ops && cell_below(&scene->random, 3) == 0) {
            do_something(scene);
            ops--;
        }
        run_turn(scene);
    }
}

static void run_step(struct jobscene *scene, const struct step *step)
{
    bool is_backup = !strcmp(step->command, "drive-backup");
    scene->is_ready = scene->is_over = false;
    if (is_backup)
        remember_copy(scene);
    run_command(scene, step->command, step->arguments);
    if (is_backup)
        TURN_UNTIL(scene, scene->is_answered); /* it shows a moment before that */
    if (step->has_ready) {
        wait_with_guest(scene, &scene->is_ready, "BLOCK_JOB_READY");
        be_a_guest(scene, 8);
        if (step->is_cancelled && !strcmp(step->command, "drive-mirror"))
            remember_copy(scene);
        run_command(scene, step->is_cancelled ? "block-job-cancel" : "block-job-complete",
                    "{'device': 'd'}");
    }
    if (step->is_job)
        wait_with_guest(scene, &scene->is_over, "BLOCK_JOB_COMPLETED");
    wait_with_guest(scene, &scene->is_answered, "the answer");
    be_a_guest(scene, 8);
}

static void on_block_closed(void *opaque)
{
    ((struct jobscene *)opaque)->is_block_closed = true;
}

static void run_script(struct jobscene *scene)
{
    const struct block_host host = {
        .disk_at = disk_at, .forget = forget, .emit = emit, .opaque = scene};
    struct error err = {0};
    scene->disk = open_disk(scene, names[TOP]);
    struct node *mid = graph_find(scene->disk, "mid", true);
    snprintf(mid->name, sizeof(mid->name), "m1");
    CHECK(block_create(&scene->world->loop, &host, &scene->block, &err) == 0);
    be_a_guest(scene, 8);
    while (scene->step < ARRAY_SIZE(scene->script->steps) &&
           scene->script->steps[scene->step].command) {
        run_step(scene, &scene->script->steps[scene->step]);
        scene->step++;
    }
    TURN_UNTIL(scene, !scene->in_flight);
    block_close(scene->block, on_block_closed, scene);
    TURN_UNTIL(scene, scene->is_block_closed);
    uint32_t began = simfolder_note(&scene->folder);
    close_disk(scene);
    model_flushed(&scene->model, began, simfolder_note(&scene->folder));
}

/* --- judging --- */

struct chain {
    struct checker *layers[FILES];
    unsigned depth;
};

/* The name that the header says, read anew; false: none. */
static bool backing_of(const struct cell_file *file, char *name, size_t room)
{
    uint8_t head[2 * CELL_BYTES];
    memcpy(head, cell_file_bytes(file, 0), CELL_BYTES);
    memcpy(head + CELL_BYTES, cell_file_bytes(file, 1), CELL_BYTES);
    uint64_t at = load_be64(head + 8), bytes = load_be32(head + 16);
    if (!at || at + bytes > sizeof(head) || bytes >= room)
        return false;
    memcpy(name, head + at, bytes);
    name[bytes] = 0;
    return true;
}

static void open_chain(struct jobscene *scene, const struct cell_file *const *files,
                       const char *top, uint32_t time, struct chain *chain)
{
    char name[16], detail[300];
    snprintf(name, sizeof(name), "%s", top);
    chain->depth = 0;
    do {
        unsigned index = simfolder_find(&scene->folder, name);
        if (index == FILES || chain->depth == FILES)
            fail(scene, "a chain leads nowhere", name, time);
        struct checker *checker = &scene->world->layers[chain->depth];
        if (!checker_open(checker, files[index])) {
            snprintf(detail, sizeof(detail), "'%s': %s", name, checker->why);
            fail(scene, "corruption", detail, time);
        }
        chain->layers[chain->depth++] = checker;
        if (!backing_of(files[index], name, sizeof(name)))
            return;
    } while (true);
}

static uint32_t read_place(const struct chain *chain, uint32_t lba)
{
    struct checker_map map;
    uint32_t version;
    for (unsigned i = 0; i < chain->depth; i++) {
        struct checker *checker = chain->layers[i];
        uint32_t per_cluster = (uint32_t)(checker->cluster_bytes / CELL_BYTES);
        if ((uint64_t)lba * CELL_BYTES >= checker->active.size_bytes)
            return CELL_ZERO;
        checker_map(checker, &checker->active, lba / per_cluster, &map);
        switch (checker_sector(checker, &map, lba % per_cluster, lba, &version)) {
        case CHECKER_BACKING:
            continue;
        case CHECKER_BROKEN:
            return CELL_FOREIGN;
        case CHECKER_ZERO:
            return CELL_ZERO;
        default:
            return version;
        }
    }
    return CELL_ZERO;
}

static const char *top_at(const struct jobscene *scene, uint32_t time)
{
    unsigned i = scene->pick_count - 1;
    while (i && scene->picks[i].time >= time)
        i--;
    return scene->picks[i].name;
}

static void judge_disk(struct jobscene *scene, const struct cell_file *const *files, uint32_t time)
{
    struct chain chain;
    char detail[160];
    const char *top = top_at(scene, time);
    open_chain(scene, files, top, time, &chain);
    for (uint32_t i = 0; i < scene->model.place_count; i++) {
        const struct model_place *place = &scene->model.places[i];
        uint32_t version = read_place(&chain, place->lba);
        if (model_may_have(place, version, time))
            continue;
        snprintf(detail, sizeof(detail), "sector %u of '%s' holds version %#x", place->lba, top,
                 version);
        fail(scene, version == CELL_FOREIGN ? "foreign data" : "lost", detail, time);
    }
}

static void judge_copy(struct jobscene *scene, const struct cell_file *const *files, uint32_t time)
{
    struct chain chain;
    char detail[160];
    open_chain(scene, files, "over", time, &chain);
    for (uint32_t i = 0; i < scene->model.place_count; i++) {
        uint32_t lba = scene->model.places[i].lba, version = read_place(&chain, lba);
        /* What a read would have given then. */
        if (model_read_is_good(&scene->model, lba, version, scene->copied_at, scene->copied_at))
            continue;
        snprintf(detail, sizeof(detail), "sector %u holds version %#x", lba, version);
        fail(scene, "a copy that is done", detail, time);
    }
}

static bool on_state(void *opaque, const struct cell_file *const *files, uint32_t time)
{
    struct jobscene *scene = opaque;
    scene->states++;
    judge_disk(scene, files, time);
    if (scene->copied_at && time > scene->copied_from)
        judge_copy(scene, files, time);
    return true;
}

/* After a close that nothing disturbed every count is exact. */
static void check_clean(struct jobscene *scene)
{
    const struct cell_file *files[FILES];
    struct chain chain;
    uint32_t time = simfolder_now(&scene->folder);
    for (unsigned i = 0; i < FILES; i++)
        files[i] = &scene->folder.clock.disks[i]->cache;
    open_chain(scene, files, top_at(scene, time), time, &chain);
    for (unsigned i = 0; i < chain.depth; i++)
        if (chain.layers[i]->leaks || chain.layers[i]->is_dirty || chain.layers[i]->stale)
            fail(scene, "not clean after closing", chain.layers[i]->why, time);
}

void jobscene_run(struct scene_world *world, uint64_t index, uint64_t seed)
{
    struct jobscene scene = {.world = world, .random = seed * 2 + 1, .copied_from = MODEL_NEVER};
    const struct simdisk_trace *traces[FILES];
    const struct powercut_options cuts = {.seed = seed >> 3, .samples = 8, .one_in = 1};
    scene.script = &scripts[index % ARRAY_SIZE(scripts)];
    simfolder_init(&scene.folder, &world->loop, &scene.arena, names, FILES, seed);
    fill_images(&scene);
    simfolder_settle(&scene.folder, seed + FILES);
    simfolder_note(&scene.folder);
    scene.picks[scene.pick_count++] = (struct pick){0, names[TOP]};
    run_script(&scene);
    check_clean(&scene);
    model_close(&scene.model);
    for (unsigned i = 0; i < FILES; i++)
        traces[i] = &scene.folder.clock.disks[i]->trace;
    powercut_several(traces, FILES, &cuts, on_state, &scene);
    world->scenes++;
    world->states += scene.states;
    simfolder_fini(&scene.folder);
    model_fini(&scene.model);
    cell_arena_fini(&scene.arena);
}
