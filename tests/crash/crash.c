/* SPDX-License-Identifier: MIT */
/*
 * crash: random work on a qcow2 image whose disk may lose power at any moment.
 *
 * The production code runs on tests/fake_io. After the disk's events, what a power cut would leave
 * is sampled and given to the oracle: the image must be free of corruption, and each sector must
 * hold one of the values it may have: what the last flush made safe, or something written since;
 * never another sector's data. At the end the image is opened again after a cut, read, written and
 * checked.
 *
 *   crash [--states N] [--seed S] [--one]     --one runs only the seed given
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "disk/disk.h"
#include "disk/format.h"
#include "disk/qcow2/qcow2_create.h"
#include "tests/crash/oracle.h"
#include "tests/fake_io.h"

#define IMAGE_MAX    (48 * MIB)
#define SECTORS_MAX  262144u
#define VERSIONS     12u
#define OPS_MAX      12u
#define RUN_MAX      160u /* sectors of one request, as a rule */
#define BULK_MAX     1600u
#define BULK_TOTAL   30000u /* sectors that a scene writes in large requests */
#define BASE_VERSION UINT32_MAX
#define WEIGHTS      6u

/* The values a sector may have: from the last one that is safe to the last one submitted. */
struct sector {
    uint32_t values[VERSIONS];
    uint8_t count, done; /* what reads may give: values[done] and those after it */
    uint8_t busy;        /* changes in flight; their order is unknown if there are several */
    uint8_t group;       /* the first value of those in flight */
    bool is_touched, has_failed;
    uint64_t forgotten; /* values dropped from the front */
};

struct scene {
    uint64_t seed, random;
    struct loop *loop;
    struct fake_io *fake, *base;
    struct disk *disk;
    uint32_t cluster, version;
    uint64_t sector_count, base_sectors;
    struct sector *sectors;
    uint32_t *touched;
    uint32_t touched_count;
    uint32_t next_value;
    unsigned in_flight;
    bool resizing;
    unsigned sample_one_in;
    unsigned weights[WEIGHTS];
    unsigned locality; /* how seldom a request goes anywhere */
    uint64_t bulk_left;
    uint64_t states;
    uint8_t *image;
};

struct work {
    struct disk_request request;
    struct iovec iov;
    struct scene *scene;
    uint64_t first, count; /* sectors */
    uint8_t *data;
    uint64_t *safe_at;     /* flush: the absolute version of each sector that it makes safe */
    struct sector *before; /* read: what the sectors might hold when it was submitted */
    uint32_t next_value;   /* read: values from this one on are younger */
};

enum {
    DO_FLUSH,
    DO_READ,
    DO_WRITE,
    DO_ZERO,
    DO_DISCARD,
    DO_RESIZE,
};

static uint64_t below(struct scene *scene, uint64_t limit)
{
    return fake_below(&scene->random, limit);
}

static void fail(const struct scene *scene, const char *what, const char *detail)
{
    fprintf(stderr,
            "crash: seed %llu: %s: %s (cluster %u, version %u, after %llu states)\n"
            "replay with: build/tests/test_qcow2_crash --seed %llu --one\n",
            (unsigned long long)scene->seed, what, detail, scene->cluster, scene->version,
            (unsigned long long)scene->states, (unsigned long long)scene->seed);
    exit(1);
}

static void fill_sector(uint8_t *data, uint64_t sector, uint32_t value)
{
    for (unsigned i = 0; i < FAKE_SECTOR; i += 8)
        store_le64(data + i, value ? sector << 32 | value : 0);
}

/* The value that a sector's bytes stand for. False: no value of this sector at all. */
static bool value_of(const uint8_t *data, uint64_t sector, uint32_t *value)
{
    uint64_t word = load_le64(data);
    *value = (uint32_t)word;
    for (unsigned i = 8; i < FAKE_SECTOR; i += 8)
        if (load_le64(data + i) != word)
            return false;
    return !word || (*value && word >> 32 == sector);
}

static bool may_have(const struct sector *sector, uint32_t value, unsigned from)
{
    for (unsigned i = from; i < sector->count; i++)
        if (sector->values[i] == value)
            return true;
    return false;
}

static void check_value(const struct scene *scene, const char *what, uint64_t index,
                        const uint8_t *data, unsigned from)
{
    char detail[160];
    uint32_t value;
    const struct sector *sector = &scene->sectors[index];
    bool is_own = value_of(data, index, &value);
    if (is_own && may_have(sector, value, from))
        return;
    snprintf(detail, sizeof(detail), "sector %llu holds %s %#llx, may hold %#x..%#x (%u)",
             (unsigned long long)index, is_own ? "value" : "foreign data",
             (unsigned long long)load_le64(data), sector->values[from],
             sector->values[sector->count - 1], sector->count - from);
    fail(scene, what, detail);
}

static void read_state(struct scene *scene, struct oracle *oracle, uint64_t index, uint8_t *data)
{
    enum oracle_sector kind = oracle_read(oracle, index * FAKE_SECTOR, data);
    if (kind == ORACLE_BROKEN)
        fail(scene, "power cut", "a sector cannot be read");
    if (kind == ORACLE_BACKING)
        fill_sector(data, index, index < scene->base_sectors ? BASE_VERSION : 0);
    /* Past the size that the header has, there is nothing but what a resize will make zero. */
    if (index * FAKE_SECTOR >= oracle->size)
        memset(data, 0, FAKE_SECTOR);
}

static void check_state(struct scene *scene)
{
    struct oracle oracle;
    uint8_t data[FAKE_SECTOR];
    uint64_t length = fake_io_power_cut(scene->fake, &scene->random, scene->image);
    scene->states++;
    if (!oracle_open(&oracle, scene->image, length))
        fail(scene, "power cut", oracle.why);
    uint64_t most = MIN(scene->touched_count, 300);
    uint64_t start = scene->touched_count ? below(scene, scene->touched_count) : 0;
    for (uint64_t i = 0; i < most; i++) {
        uint32_t index = scene->touched[(start + i) % scene->touched_count];
        read_state(scene, &oracle, index, data);
        check_value(scene, "power cut", index, data, 0);
    }
}

static void on_change(struct fake_io *fake, void *opaque)
{
    struct scene *scene = opaque;
    (void)fake;
    if (below(scene, scene->sample_one_in) == 0)
        check_state(scene);
}

static void forget_values(struct sector *sector, uint64_t until)
{
    if (until <= sector->forgotten)
        return;
    unsigned n = (unsigned)(until - sector->forgotten);
    memmove(sector->values, sector->values + n, (sector->count - n) * sizeof(sector->values[0]));
    sector->count = (uint8_t)(sector->count - n);
    sector->done = (uint8_t)(sector->done - n);
    if (sector->busy)
        sector->group = (uint8_t)(sector->group - n);
    sector->forgotten = until;
}

static void settle_write(struct work *work, int result)
{
    struct scene *scene = work->scene;
    for (uint64_t i = work->first; i < work->first + work->count; i++) {
        struct sector *sector = &scene->sectors[i];
        sector->has_failed |= result != 0;
        if (--sector->busy)
            continue;
        bool has_failed = sector->has_failed;
        sector->has_failed = false;
        if (has_failed)
            continue;
        bool is_alone = sector->group == sector->count - 1;
        sector->done = sector->group;
        if (work->request.flags & DISK_FUA && is_alone)
            forget_values(sector, sector->forgotten + sector->done);
    }
}

/* Changes may have overtaken the read: it gives what was there before, or what came since. */
static void settle_read(struct work *work, int result)
{
    struct scene *scene = work->scene;
    for (uint64_t i = 0; i < work->count && !result; i++) {
        const uint8_t *data = work->data + i * FAKE_SECTOR;
        const struct sector *before = &work->before[i];
        const struct sector *now = &scene->sectors[work->first + i];
        uint32_t value;
        bool is_own = value_of(data, work->first + i, &value);
        /* It may even have come and gone: then it is younger than the read. */
        bool has_changed = now->forgotten + now->count > before->forgotten + before->count;
        bool is_younger = has_changed && (value >= work->next_value || !value);
        if (!is_own || (!is_younger && !may_have(before, value, before->done)))
            check_value(scene, "read", work->first + i, data, 0);
    }
}

static void on_work_done(struct disk_request *request, int result)
{
    struct work *work = container_of(request, struct work, request);
    struct scene *scene = work->scene;
    if (result && !scene->fake->faults)
        fail(scene, "request failed without a fault", strerror(-result));
    if (request->op == DISK_READ)
        settle_read(work, result);
    else if (request->op != DISK_FLUSH)
        settle_write(work, result);
    for (uint64_t i = 0; request->op == DISK_FLUSH && !result && i < work->count; i++)
        forget_values(&scene->sectors[scene->touched[i]], work->safe_at[i]);
    scene->in_flight--;
    free(work->safe_at);
    free(work->before);
    free(work->data);
    free(work);
}

static bool can_use(struct scene *scene, uint64_t first, uint64_t count)
{
    /* Seldom two changes of one sector at a time, as no sane guest has them. */
    unsigned most = below(scene, 8) ? 1 : 2;
    for (uint64_t i = first; i < first + count; i++)
        if (scene->sectors[i].busy >= most || scene->sectors[i].count == VERSIONS)
            return false;
    return true;
}

static void touch(struct scene *scene, uint64_t index, uint32_t value)
{
    struct sector *sector = &scene->sectors[index];
    if (sector->busy++ == 0)
        sector->group = sector->count;
    sector->values[sector->count++] = value;
    if (!sector->is_touched)
        scene->touched[scene->touched_count++] = (uint32_t)index;
    sector->is_touched = true;
}

static void start(struct scene *scene, struct work *work)
{
    work->scene = scene;
    work->request.on_done = on_work_done;
    scene->in_flight++;
    disk_submit(scene->disk, &work->request);
}

static void start_flush(struct scene *scene)
{
    struct work *work = calloc(1, sizeof(*work));
    work->request.op = DISK_FLUSH;
    work->count = scene->touched_count;
    work->safe_at = calloc(scene->touched_count + 1, sizeof(work->safe_at[0]));
    for (uint64_t i = 0; i < work->count; i++) {
        const struct sector *sector = &scene->sectors[scene->touched[i]];
        work->safe_at[i] = sector->forgotten + sector->done;
    }
    start(scene, work);
}

/* Where a request goes: often to the few places that others went to, aligned to clusters or not. */
static void choose_range(struct scene *scene, uint64_t *first, uint64_t *count)
{
    uint64_t per_cluster = scene->cluster / FAKE_SECTOR;
    uint64_t span = below(scene, scene->locality) ? MIN(scene->sector_count, 16 * per_cluster + 64)
                                                  : scene->sector_count;
    *first = below(scene, span);
    *count = 1 + below(scene, below(scene, 2) ? 8 : scene->bulk_left ? BULK_MAX : RUN_MAX);
    scene->bulk_left -= MIN(scene->bulk_left, *count);
    if (below(scene, 3) == 0) {
        *first = align_down(*first, per_cluster);
        *count = align_up(*count, per_cluster);
    }
    *count = MIN(*count, scene->sector_count - *first);
}

static void start_transfer(struct scene *scene, enum disk_op op, uint64_t first, uint64_t count)
{
    struct work *work = calloc(1, sizeof(*work));
    bool writes = op == DISK_WRITE;
    uint32_t value = writes ? scene->next_value++ : 0;
    work->first = first;
    work->count = count;
    work->request.op = op;
    work->request.offset = first * FAKE_SECTOR;
    work->request.bytes = count * FAKE_SECTOR;
    if (op != DISK_READ && below(scene, 16) == 0)
        work->request.flags |= DISK_FUA;
    if (op == DISK_ZERO && below(scene, 2))
        work->request.flags |= DISK_MAY_UNMAP;
    if (writes || op == DISK_READ) {
        work->data = malloc(work->request.bytes);
        work->iov = (struct iovec){work->data, work->request.bytes};
        work->request.iov = &work->iov;
        work->request.iov_count = 1;
    }
    if (op == DISK_READ) {
        work->next_value = scene->next_value;
        work->before = malloc(count * sizeof(work->before[0]));
        memcpy(work->before, &scene->sectors[first], count * sizeof(work->before[0]));
    }
    for (uint64_t i = 0; i < count; i++) {
        if (op != DISK_READ)
            touch(scene, first + i, value);
        if (writes)
            fill_sector(work->data + i * FAKE_SECTOR, first + i, value);
    }
    start(scene, work);
}

static void on_resized(void *opaque, int result, const struct error *err)
{
    struct scene *scene = opaque;
    if (result && !scene->fake->faults)
        fail(scene, "resize failed without a fault", err->text);
    scene->sector_count = disk_size_bytes(scene->disk) / FAKE_SECTOR;
    scene->resizing = false;
    scene->in_flight--;
}

/* Only grows, so that what is in flight or safe keeps its place. */
static void start_resize(struct scene *scene)
{
    uint64_t sectors = scene->sector_count + 1 + below(scene, scene->sector_count * 2);
    if (scene->resizing || sectors > SECTORS_MAX)
        return;
    scene->resizing = true;
    scene->in_flight++;
    disk_resize(scene->disk, sectors * FAKE_SECTOR, on_resized, scene);
}

static unsigned choose(struct scene *scene)
{
    unsigned total = 0, what = 0;
    for (unsigned i = 0; i < WEIGHTS; i++)
        total += scene->weights[i];
    unsigned dice = (unsigned)below(scene, total);
    while (dice >= scene->weights[what])
        dice -= scene->weights[what++];
    return what;
}

static void start_something(struct scene *scene)
{
    static const enum disk_op ops[] = {DISK_FLUSH, DISK_READ, DISK_WRITE, DISK_ZERO, DISK_DISCARD};
    uint64_t first, count, per_cluster = scene->cluster / FAKE_SECTOR;
    unsigned what = choose(scene);
    if (what == DO_FLUSH) {
        start_flush(scene);
        return;
    }
    if (what == DO_RESIZE) {
        start_resize(scene);
        return;
    }
    choose_range(scene, &first, &count);
    if (what == DO_DISCARD) {
        if (scene->version == 2 && scene->base)
            return;
        first = align_down(first, per_cluster);
        count = MIN(align_up(count, per_cluster), scene->sector_count - first);
    }
    if (what == DO_READ || can_use(scene, first, count))
        start_transfer(scene, ops[what], first, count);
}

static void drain(struct scene *scene)
{
    while (scene->in_flight)
        loop_run_once(scene->loop, true);
}

static void make_base(struct scene *scene)
{
    scene->base_sectors = 1 + below(scene, scene->sector_count + 20);
    scene->base = fake_io_create(scene->loop, scene->base_sectors * FAKE_SECTOR, scene->seed + 7);
    for (uint64_t i = 0; i < scene->base_sectors; i++)
        fill_sector(scene->base->cache + i * FAKE_SECTOR, i, BASE_VERSION);
    scene->base->length = scene->base_sectors * FAKE_SECTOR;
}

static struct disk *open_disk(struct scene *scene, struct fake_io *fake)
{
    struct error err = {0};
    struct disk *disk = NULL;
    struct node *backing = NULL;
    struct disk_options options = {.path = "image",
                                   .format = "qcow2",
                                   .discard_unmap = true,
                                   .cache.writeback = true,
                                   .l2_cache_bytes = 1};
    struct disk_options base = {.path = "base", .format = "raw", .read_only = true};
    if (scene->base && raw_format.open(scene->loop, &scene->base->file, &base, &backing, &err))
        fail(scene, "open", err.text);
    if (disk_open_file(scene->loop, &fake->file, backing, &options, &disk, &err))
        fail(scene, "open", err.text);
    return disk;
}

static void make_scene(struct scene *scene)
{
    static const uint32_t clusters[] = {512, 512, 1024, 4096, 16384, 65536};
    struct qcow2_create_options options;
    struct error err = {0};
    qcow2_create_defaults(&options);
    scene->cluster = clusters[below(scene, ARRAY_SIZE(clusters))];
    /* Seldom so large that there is more than one L2 table of large clusters. */
    scene->sector_count = 200 + below(scene, 1000);
    if (below(scene, 6) == 0)
        scene->sector_count = MIN(scene->sector_count * scene->cluster / 64, SECTORS_MAX);
    /* Seldom so much of so small clusters that the refcount table outgrows its place. */
    scene->bulk_left = below(scene, 10) ? 0 : BULK_TOTAL;
    if (scene->bulk_left) {
        scene->cluster = 512;
        scene->sector_count = 4000;
    }
    options.cluster_bytes = scene->cluster;
    options.size_bytes = scene->sector_count * FAKE_SECTOR;
    options.version = scene->version = below(scene, 5) ? 3 : 2;
    options.extended_l2 = scene->version == 3 && scene->cluster >= 16384 && below(scene, 2);
    if (scene->version == 3)
        options.refcount_width = UINT64_C(1) << (scene->bulk_left ? 6 : below(scene, 7));
    scene->fake = fake_io_create(scene->loop, IMAGE_MAX, scene->seed);
    if (qcow2_create(&scene->fake->file, NULL, &options, &err))
        fail(scene, "create", err.text);
    fake_io_settle(scene->fake);
    if (below(scene, 3) == 0)
        make_base(scene);
    scene->sectors = calloc(SECTORS_MAX, sizeof(scene->sectors[0]));
    scene->touched = calloc(SECTORS_MAX, sizeof(scene->touched[0]));
    uint64_t backed = MIN(scene->base_sectors, scene->sector_count);
    for (uint64_t i = 0; i < SECTORS_MAX; i++) {
        scene->sectors[i].count = 1;
        scene->sectors[i].values[0] = i < backed ? BASE_VERSION : 0;
    }
    scene->next_value = 1;
    scene->disk = open_disk(scene, scene->fake);
    scene->fake->per_turn = 1 + (unsigned)below(scene, 8);
}

static void set_profile(struct scene *scene)
{
    static const unsigned usual[WEIGHTS] = {2, 3, 10, 3, 4, 0};
    for (unsigned i = 0; i < WEIGHTS; i++)
        scene->weights[i] = below(scene, 3) ? usual[i] : (unsigned)below(scene, 12);
    scene->weights[DO_WRITE] += 2;
    scene->weights[DO_RESIZE] = below(scene, 4) == 0;
    scene->locality = below(scene, 3) ? 4 : 1;
    scene->sample_one_in = 1 + (unsigned)below(scene, 4);
    if (scene->bulk_left) {
        scene->sample_one_in = 3;
        scene->weights[DO_RESIZE] = 1;
        scene->weights[DO_WRITE] += 10;
        scene->locality = 1;
    }
}

static void set_fault(struct scene *scene)
{
    static const unsigned kinds[] = {1u << IO_WRITE, 1u << IO_SYNC, 1u << IO_READ,
                                     1u << IO_ZERO | 1u << IO_PUNCH};
    unsigned kind = kinds[below(scene, ARRAY_SIZE(kinds))];
    if (below(scene, 2))
        return;
    scene->fake->fault = (struct fake_fault){
        .result = below(scene, 2) ? -EIO : -ENOSPC,
        .after = below(scene, kind == 1u << IO_SYNC ? 12 : 100),
        .stays = below(scene, 3) == 0,
        .kinds = kind,
    };
}

static void close_disk(struct scene *scene)
{
    int result = disk_close_wait(scene->disk);
    if (result && !scene->fake->faults)
        fail(scene, "close failed without a fault", strerror(-result));
}

/* After a close that nothing disturbed, every cluster counted is in use. */
static void check_leaks(struct scene *scene)
{
    struct oracle oracle;
    if (scene->fake->faults)
        return;
    fake_io_settle(scene->fake);
    oracle_open(&oracle, scene->fake->medium, scene->fake->medium_length);
    if (oracle.leaks)
        fail(scene, "after closing", "clusters are leaked");
}

/* The machine comes up again: what a cut left is opened, read, written and closed. */
static void recover(struct scene *scene)
{
    struct oracle oracle;
    struct fake_io *fake = fake_io_create(scene->loop, IMAGE_MAX, scene->seed + 3);
    uint64_t length = fake_io_power_cut(scene->fake, &scene->random, scene->image);
    fake_io_restart(fake, scene->image, length);
    fake_io_destroy(scene->fake);
    scene->fake = fake;
    scene->disk = open_disk(scene, fake);
    scene->sector_count = disk_size_bytes(scene->disk) / FAKE_SECTOR;
    for (uint64_t i = 0; i < SECTORS_MAX; i++)
        scene->sectors[i].done = 0;
    uint64_t reads = MIN(scene->sector_count / RUN_MAX + 1, 40);
    for (uint64_t i = 0; i < reads; i++) {
        uint64_t first = below(scene, scene->sector_count);
        start_transfer(scene, DISK_READ, first, MIN(RUN_MAX, scene->sector_count - first));
        drain(scene);
    }
    for (unsigned i = 0; i < 30; i++)
        start_something(scene);
    drain(scene);
    close_disk(scene);
    fake_io_settle(fake);
    if (!oracle_open(&oracle, fake->medium, fake->medium_length))
        fail(scene, "after the restart", oracle.why);
}

static void destroy_scene(struct scene *scene)
{
    fake_io_destroy(scene->fake);
    if (scene->base)
        fake_io_destroy(scene->base);
    free(scene->sectors);
    free(scene->touched);
}

static uint64_t run_seed(struct loop *loop, uint64_t seed, uint8_t *image)
{
    struct scene scene = {
        .seed = seed, .random = seed * 2654435761u + 1, .loop = loop, .image = image};
    for (unsigned i = 0; i < 8; i++)
        fake_random(&scene.random);
    make_scene(&scene);
    set_profile(&scene);
    scene.fake->on_change = on_change;
    scene.fake->opaque = &scene;
    set_fault(&scene);
    unsigned work = 50 + (unsigned)below(&scene, 250);
    unsigned most = 1 + (unsigned)below(&scene, OPS_MAX);
    while (work) {
        if (scene.in_flight < most && below(&scene, 3)) {
            start_something(&scene);
            work--;
        }
        loop_run_once(loop, false);
    }
    drain(&scene);
    close_disk(&scene);
    check_state(&scene);
    check_leaks(&scene);
    if (below(&scene, 2))
        recover(&scene);
    destroy_scene(&scene);
    return scene.states;
}

int main(int argc, char **argv)
{
    uint64_t states = 10000, seed = 1, done = 0, seeds = 0;
    bool one = false;
    struct loop loop;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--states") && i + 1 < argc)
            states = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--one"))
            one = true;
        else
            return fprintf(stderr, "usage: crash [--states N] [--seed S] [--one]\n"), 1;
    }
    uint8_t *image = calloc(1, IMAGE_MAX);
    if (!image || loop_init(&loop))
        return 1;
    do {
        done += run_seed(&loop, seed++, image);
        seeds++;
    } while (!one && done < states);
    loop_run(&loop);
    loop_fini(&loop);
    free(image);
    printf("crash: %llu states of %llu seeds: no corruption, no lost flush, no foreign data\n",
           (unsigned long long)done, (unsigned long long)seeds);
    return 0;
}
