/* SPDX-License-Identifier: MIT */
/*
 * disk_move: the same data wherever a disk lives, also while the home comes in between; and a disk
 * that cannot be moved stays as it is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/side_loop.h"
#include "disk/disk.h"
#include "disk/graph.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_create.h"
#include "disk/throttle.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

#define IMAGE_BYTES (4 * MIB)
#define BLOCK       4096u
#define BLOCKS      (IMAGE_BYTES / BLOCK)
#define THREADS     (BLOCKS / 2) /* the blocks before it are for batches, the others the home's */
#define DEPTH       300u
#define FILES       4u

struct place {
    struct side_loop *side;
    struct loop *loop;
    const struct disk *disk; /* stays at home while that is not alone */
    bool has_closed;
};

struct fixture {
    struct loop home;
    struct loop_event told; /* something has ended somewhere */
    struct place places[2];
    struct random random;
    char paths[FILES][64];
    uint32_t expected[BLOCKS]; /* what fills each block */
};

/* --- Requests: prepared at home, which also says what they must bring --- */

struct slot {
    struct batch *batch;
    struct disk_request request;
    struct iovec iov[2];
    uint32_t data[BLOCK / 4];
    uint32_t expected;
};

struct batch {
    struct fixture *f;
    struct disk *disk;
    struct loop_task start; /* on the disk's loop */
    struct slot *slots;
    unsigned count;
    /* Of whoever has the loop; asserting is the home's alone. */
    atomic_uint left, failed;
    _Atomic(pthread_t) ended_on;
};

static bool is_right(const struct slot *slot)
{
    for (unsigned i = 0; slot->request.op == DISK_READ && i < BLOCK / 4; i++)
        if (slot->data[i] != slot->expected)
            return false;
    return true;
}

static void on_done(struct disk_request *request, int result)
{
    struct slot *slot = container_of(request, struct slot, request);
    struct batch *batch = slot->batch;
    if (result || !is_right(slot) || !loop_is_on_thread(disk_loop(batch->disk)))
        atomic_fetch_add(&batch->failed, 1);
    atomic_store(&batch->ended_on, pthread_self());
    if (atomic_fetch_sub(&batch->left, 1) == 1)
        loop_event_signal(&batch->f->told);
}

static void on_start(struct loop_task *task)
{
    struct batch *batch = container_of(task, struct batch, start);
    for (unsigned i = 0; i < batch->count; i++)
        disk_submit(batch->disk, &batch->slots[i].request);
}

static void batch_init(struct batch *batch, struct fixture *f, struct disk *disk, unsigned count)
{
    *batch = (struct batch){.f = f, .disk = disk, .count = count};
    batch->slots = calloc(count, sizeof(*batch->slots));
    assert_non_null(batch->slots);
}

/* In two pieces, of which the first is odd. */
static void prepare(struct slot *slot, enum disk_op op, uint64_t block, uint32_t value)
{
    struct fixture *f = slot->batch->f;
    size_t first = 512 + 512 * (block % 3);
    for (unsigned word = 0; word < BLOCK / 4; word++)
        slot->data[word] = value;
    if (op == DISK_WRITE || op == DISK_ZERO)
        f->expected[block] = op == DISK_WRITE ? value : 0;
    slot->expected = f->expected[block];
    slot->iov[0] = (struct iovec){slot->data, first};
    slot->iov[1] = (struct iovec){(char *)slot->data + first, BLOCK - first};
    slot->request = (struct disk_request){
        .op = op,
        .flags = DISK_MAY_UNMAP,
        .offset = block * BLOCK,
        .bytes = op == DISK_FLUSH ? 0 : BLOCK,
        .iov = slot->iov,
        .iov_count = op == DISK_READ || op == DISK_WRITE ? 2 : 0,
        .on_done = on_done,
    };
}

/* One operation of each kind of its own block: none depends on the order of others. */
static void prepare_batch(struct batch *batch)
{
    static const enum disk_op ops[] = {DISK_WRITE, DISK_READ, DISK_READ, DISK_WRITE, DISK_ZERO};
    struct random *random = &batch->f->random;
    uint64_t first = random_below(random, THREADS - batch->count);
    for (unsigned i = 0; i < batch->count; i++) {
        enum disk_op op = i % 50 == 49 ? DISK_FLUSH : ops[random_below(random, 5)];
        batch->slots[i].batch = batch;
        prepare(&batch->slots[i], op, first + i, (uint32_t)random_next(random));
    }
    loop_task_init(disk_loop(batch->disk), &batch->start, LOOP_STAGE_DRAIN, on_start);
    atomic_store(&batch->left, batch->count);
}

/* --- The home, meanwhile --- */

static void turn_home(struct fixture *f)
{
    loop_run_once(&f->home, false);
}

static void read_stats(const struct disk *disk)
{
    struct disk_stats stats;
    uint64_t ended = 0;
    loop_check_thread(disk_loop(disk));
    disk_get_stats(disk, &stats);
    assert_true(stats.in_flight <= DEPTH + 1);
    for (unsigned op = 0; op < ARRAY_SIZE(stats.by_op); op++)
        ended += stats.by_op[op].operations;
    assert_true(ended == 0 || stats.host_reads + stats.host_writes + stats.host_flushes > 0);
}

static void submit_own(struct batch *own)
{
    struct random *random = &own->f->random;
    uint64_t block = THREADS + random_below(random, BLOCKS - THREADS);
    enum disk_op op = random_below(random, 2) ? DISK_READ : DISK_WRITE;
    own->slots[0].batch = own;
    prepare(&own->slots[0], op, block, (uint32_t)random_next(random));
    atomic_store(&own->left, 1);
    disk_submit(own->disk, &own->slots[0].request);
}

static void interfere(struct batch *batch, struct batch *own)
{
    struct fixture *f = batch->f;
    switch (random_below(&f->random, 4)) {
    case 0:
        read_stats(batch->disk);
        break;
    case 1:
        if (!atomic_load(&own->left))
            submit_own(own);
        break;
    case 2:
        usleep(random_below(&f->random, 100));
        break;
    default:
        turn_home(f);
    }
}

static void wait_for(struct batch *batch)
{
    while (atomic_load(&batch->left))
        loop_run_once(&batch->f->home, true);
    assert_int_equal(batch->failed, 0);
}

static void run_batches(struct fixture *f, struct disk *disk, unsigned count)
{
    struct batch batch, own;
    batch_init(&batch, f, disk, DEPTH);
    batch_init(&own, f, disk, 1);
    for (unsigned i = 0; i < count; i++) {
        prepare_batch(&batch);
        loop_task_queue(&batch.start);
        for (unsigned j = 0; j < 100 && atomic_load(&batch.left); j++)
            interfere(&batch, &own);
        wait_for(&batch);
        wait_for(&own);
    }
    loop_check_thread(disk_loop(disk));
    bool at_home = pthread_equal(batch.ended_on, pthread_self());
    assert_int_equal(at_home, disk_loop(disk) == &f->home || !disk_is_alone(disk));
    free(batch.slots);
    free(own.slots);
}

static void check_all(struct fixture *f, struct disk *disk)
{
    struct batch batch;
    batch_init(&batch, f, disk, 1);
    batch.slots[0].batch = &batch;
    for (uint64_t block = 0; block < BLOCKS; block++) {
        prepare(&batch.slots[0], DISK_READ, block, 0);
        atomic_store(&batch.left, 1);
        disk_submit(disk, &batch.slots[0].request);
        wait_for(&batch);
    }
    free(batch.slots);
}

/* --- Fixture --- */

static void on_told(struct loop_event *event)
{
    (void)event;
}

static bool stays(void *opaque)
{
    const struct place *place = opaque;
    return place->disk && !disk_is_alone(place->disk);
}

static void on_place_closed(void *opaque)
{
    ((struct place *)opaque)->has_closed = true;
}

static void open_place(struct fixture *f, struct place *place)
{
    const struct side_loop_options options = {.name = "place", .stays = stays, .opaque = place};
    assert_int_equal(side_loop_create(&f->home, &options, &place->side), 0);
    place->loop = side_loop_of(place->side);
    assert_int_equal(side_loop_start(place->side), 0);
}

static void close_place(struct fixture *f, struct place *place)
{
    loop_check_thread(place->loop);
    assert_int_equal(place->loop->residents, 0);
    side_loop_close(place->side, on_place_closed, place);
    while (!place->has_closed)
        loop_run_once(&f->home, true);
}

static void make_file(char *path, size_t room)
{
    snprintf(path, room, "/tmp/test_disk_move.XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    close(fd);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->random.state = 1;
    assert_int_equal(loop_init(&f->home), 0);
    assert_int_equal(loop_event_init(&f->home, &f->told, on_told), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(f->places); i++)
        open_place(f, &f->places[i]);
    for (unsigned i = 0; i < FILES; i++)
        make_file(f->paths[i], sizeof(f->paths[i]));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < ARRAY_SIZE(f->places); i++)
        close_place(f, &f->places[i]);
    loop_event_close(&f->told, NULL);
    loop_run(&f->home);
    assert_int_equal(f->home.residents, 0);
    loop_fini(&f->home);
    for (unsigned i = 0; i < FILES; i++)
        unlink(f->paths[i]);
    free(f);
    return 0;
}

static struct io_file *open_file(struct fixture *f, const char *path)
{
    const struct io_options plain = {.aio = DISK_AIO_THREADS};
    struct io_file *file = NULL;
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(io_open(&f->home, path, &plain, &file, NULL), 0);
    return file;
}

/* Above a raw image and with its data in another file, if they are named. */
static void make_qcow2(struct fixture *f, const char *path, const char *backing, const char *data)
{
    struct qcow2_create_options options;
    qcow2_create_defaults(&options);
    options.size_bytes = IMAGE_BYTES;
    options.backing_path = backing;
    options.backing_format = backing ? "raw" : NULL;
    options.data_file_name = data;
    struct io_file *file = open_file(f, path), *data_file = data ? open_file(f, data) : NULL;
    assert_int_equal(qcow2_create(file, data_file, &options, NULL), 0);
    io_close_wait(file);
    io_close_wait(data_file);
}

static struct disk *open_with(struct loop *loop, const struct disk_options *options)
{
    struct error err = {0};
    struct disk *disk = NULL;
    loop_check_thread(loop);
    if (disk_open(loop, options, &disk, &err))
        fail_msg("%s", err.text);
    return disk;
}

static struct disk *open_disk(struct loop *loop, const char *path, const char *format)
{
    const struct disk_options options = {
        .path = path, .format = format, .discard_unmap = true, .cache.writeback = true};
    return open_with(loop, &options);
}

static void move(struct disk *disk, struct loop *loop)
{
    assert_int_equal(disk_move(disk, loop), 0);
    assert_ptr_equal(disk_loop(disk), loop);
    assert_true(disk_is_alone(disk));
}

struct closing {
    struct fixture *f;
    atomic_bool has_closed;
    atomic_int result;
};

static void on_closed(void *opaque, int result)
{
    struct closing *closing = opaque;
    struct loop_event *told = &closing->f->told;
    atomic_store(&closing->result, result);
    atomic_store(&closing->has_closed, true);
    loop_event_signal(told);
}

/* Where it is, that is: maybe on a thread. */
static void close_disk(struct fixture *f, struct disk *disk)
{
    struct closing closing = {.f = f};
    for (unsigned i = 0; i < ARRAY_SIZE(f->places); i++)
        f->places[i].disk = NULL;
    disk_close(disk, on_closed, &closing);
    while (!atomic_load(&closing.has_closed))
        loop_run_once(&f->home, true);
    assert_int_equal(closing.result, 0);
}

static void close_and_compare(struct fixture *f, struct disk *disk, const char *format)
{
    close_disk(f, disk);
    disk = open_disk(&f->home, f->paths[0], format);
    check_all(f, disk);
    assert_int_equal(disk_close_wait(disk), 0);
}

static void check_residents(struct fixture *f, unsigned home, unsigned first, unsigned second)
{
    loop_check_thread(f->places[0].loop);
    loop_check_thread(f->places[1].loop);
    assert_int_equal(f->home.residents, home);
    assert_int_equal(f->places[0].loop->residents, first);
    assert_int_equal(f->places[1].loop->residents, second);
}

/* --- A disk that is opened, used and closed beside the home --- */

static void check_beside(struct fixture *f, const char *format)
{
    struct disk *disk = open_disk(f->places[0].loop, f->paths[0], format);
    assert_true(disk_is_alone(disk));
    check_residents(f, 0, 1, 0);
    run_batches(f, disk, 40);
    check_all(f, disk);
    close_and_compare(f, disk, format);
}

static void test_raw_beside_the_home(void **state)
{
    check_beside(*state, "raw");
}

static void test_qcow2_beside_the_home(void **state)
{
    struct fixture *f = *state;
    make_qcow2(f, f->paths[0], NULL, NULL);
    check_beside(f, "qcow2");
}

static void test_two_disks_at_once(void **state)
{
    struct fixture *f = *state;
    struct batch batches[2];
    struct disk *disks[2];
    for (unsigned i = 0; i < 2; i++) {
        make_qcow2(f, f->paths[i], NULL, NULL);
        disks[i] = open_disk(f->places[i].loop, f->paths[i], "qcow2");
        batch_init(&batches[i], f, disks[i], DEPTH);
    }
    for (unsigned round = 0; round < 20; round++) {
        f->random.state = round; /* the same on both */
        prepare_batch(&batches[0]);
        loop_task_queue(&batches[0].start);
        f->random.state = round;
        prepare_batch(&batches[1]);
        loop_task_queue(&batches[1].start);
        wait_for(&batches[0]);
        wait_for(&batches[1]);
    }
    assert_false(pthread_equal(batches[0].ended_on, batches[1].ended_on));
    for (unsigned i = 0; i < 2; i++) {
        check_all(f, disks[i]);
        close_disk(f, disks[i]);
        free(batches[i].slots);
    }
}

/* --- A disk that is moved --- */

static void check_moves(struct fixture *f, const char *format, unsigned files)
{
    struct disk *disk = open_disk(&f->home, f->paths[0], format);
    run_batches(f, disk, 3);
    check_residents(f, files, 0, 0);
    for (unsigned i = 0; i < 3; i++) {
        move(disk, f->places[0].loop);
        check_residents(f, 0, files, 0);
        run_batches(f, disk, 5);
        move(disk, &f->home);
        check_residents(f, files, 0, 0);
        run_batches(f, disk, 2);
        move(disk, f->places[1].loop);
        check_residents(f, 0, 0, files);
        run_batches(f, disk, 5);
        move(disk, f->places[0].loop);
        check_residents(f, 0, files, 0);
        run_batches(f, disk, 2);
    }
    check_all(f, disk);
    close_and_compare(f, disk, format);
}

static void test_raw_moves(void **state)
{
    check_moves(*state, "raw", 1);
}

static void test_qcow2_moves(void **state)
{
    struct fixture *f = *state;
    make_qcow2(f, f->paths[0], NULL, NULL);
    check_moves(f, "qcow2", 1);
}

/* What is below shows through. */
static void fill_below(struct fixture *f)
{
    struct disk *disk = open_disk(&f->home, f->paths[1], "raw");
    run_batches(f, disk, 10);
    assert_int_equal(disk_close_wait(disk), 0);
}

static void test_a_chain_moves(void **state)
{
    struct fixture *f = *state;
    fill_below(f);
    make_qcow2(f, f->paths[0], f->paths[1], NULL);
    check_moves(f, "qcow2", 2);
}

static void test_a_data_file_moves(void **state)
{
    struct fixture *f = *state;
    make_qcow2(f, f->paths[0], NULL, f->paths[1]);
    check_moves(f, "qcow2", 2);
}

/* The file as it is now, whoever has it open. */
static void compare_beside(struct fixture *f)
{
    const struct disk_options options = {
        .path = f->paths[0], .format = "qcow2", .read_only = true, .no_lock = true};
    struct disk *disk = open_with(&f->home, &options);
    check_all(f, disk);
    assert_int_equal(disk_close_wait(disk), 0);
}

static uint64_t flushes_of(const struct disk *disk)
{
    struct disk_stats stats;
    loop_check_thread(disk_loop(disk));
    disk_get_stats(disk, &stats);
    return stats.host_flushes;
}

/* A disk moves only when all of a writeback is over. */
static void wait_for_writeback(struct fixture *f, struct disk *disk, uint64_t flushes)
{
    struct loop *loop = disk_loop(disk);
    while (flushes_of(disk) == flushes || disk_move(disk, loop) == -EBUSY) {
        turn_home(f);
        usleep(1000);
    }
}

static void test_what_waits_for_writeback_is_written_elsewhere(void **state)
{
    struct fixture *f = *state;
    const struct disk_options options = {.path = f->paths[0],
                                         .format = "qcow2",
                                         .cache.writeback = true,
                                         .idle_writeback_ms = 20,
                                         .cache_clean_s = 1};
    make_qcow2(f, f->paths[0], NULL, NULL);
    struct disk *disk = open_with(&f->home, &options);
    struct loop *loops[] = {f->places[0].loop, f->places[1].loop, &f->home};
    struct batch batch;
    batch_init(&batch, f, disk, 1);
    batch.slots[0].batch = &batch;
    for (unsigned i = 0; i < 6; i++) {
        uint64_t flushes = flushes_of(disk);
        atomic_store(&batch.left, 1);
        prepare(&batch.slots[0], DISK_WRITE, i * 100, i + 1);
        disk_submit(disk, &batch.slots[0].request);
        wait_for(&batch);
        assert_int_equal(disk_move(disk, loops[i % 3]), 0);
        wait_for_writeback(f, disk, flushes);
        compare_beside(f);
    }
    free(batch.slots);
    close_and_compare(f, disk, "qcow2");
}

/* --- A disk that must not be moved, and stays as it is --- */

static void check_refuses(struct fixture *f, struct disk *disk, int result)
{
    struct loop *loop = disk_loop(disk);
    assert_int_equal(disk_move(disk, f->places[1].loop), result);
    assert_ptr_equal(disk_loop(disk), loop);
    check_residents(f, 0, 2, 0);
}

static void test_a_busy_disk_stays(void **state)
{
    struct fixture *f = *state;
    struct batch batch;
    make_qcow2(f, f->paths[0], f->paths[1], NULL);
    struct disk *disk = open_disk(f->places[0].loop, f->paths[0], "qcow2");
    batch_init(&batch, f, disk, DEPTH);
    for (unsigned round = 0; round < 20; round++) {
        prepare_batch(&batch);
        loop_check_thread(disk_loop(disk));
        on_start(&batch.start);
        check_refuses(f, disk, -EBUSY);
        wait_for(&batch);
    }
    graph_set_user(disk, "a job");
    assert_false(disk_is_alone(disk));
    check_refuses(f, disk, -EBUSY);
    graph_set_user(disk, NULL);
    move(disk, f->places[1].loop);
    check_residents(f, 0, 0, 2);
    check_all(f, disk);
    free(batch.slots);
    close_and_compare(f, disk, "qcow2");
}

/* No file of it has anything to do. */
static void test_a_disk_that_was_asked_something_stays(void **state)
{
    struct fixture *f = *state;
    struct batch batch;
    struct disk *disk = open_disk(f->places[0].loop, f->paths[0], "raw");
    batch_init(&batch, f, disk, 1);
    batch.slots[0].batch = &batch;
    prepare(&batch.slots[0], DISK_STATUS, 0, 0);
    atomic_store(&batch.left, 1);
    disk_submit(disk, &batch.slots[0].request);
    assert_int_equal(disk_move(disk, &f->home), -EBUSY);
    wait_for(&batch);
    move(disk, f->places[1].loop);
    free(batch.slots);
    close_disk(f, disk);
}

static int move_within(struct disk *disk, struct loop *loop, rlim_t descriptors)
{
    struct rlimit before, few;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = (struct rlimit){descriptors, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    int result = disk_move(disk, loop);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    return result;
}

/* A ring of the host for the other loop: none is needed where the host has no io_uring. */
static void test_a_move_without_descriptors_changes_nothing(void **state)
{
    struct fixture *f = *state;
    int result;
    fill_below(f);
    make_qcow2(f, f->paths[0], f->paths[1], NULL);
    struct disk *disk = open_disk(f->places[0].loop, f->paths[0], "qcow2");
    rlim_t limit = 0;
    while ((result = move_within(disk, f->places[1].loop, limit)) != 0) {
        assert_int_equal(result, -EMFILE);
        check_residents(f, 0, 2, 0);
        assert_ptr_equal(disk_loop(disk), f->places[0].loop);
        assert_true(disk_is_alone(disk));
        if (limit++ % 8 == 0)
            run_batches(f, disk, 1);
        turn_home(f); /* lets what was half made be closed */
    }
    check_residents(f, 0, 0, 2);
    run_batches(f, disk, 2);
    close_and_compare(f, disk, "qcow2");
}

/* --- Where it is not alone --- */

static void on_resized(void *opaque, int result, const struct error *err)
{
    (void)err;
    *(int *)opaque = result;
}

static void test_it_is_not_alone_while_it_changes(void **state)
{
    struct fixture *f = *state;
    int result = 1;
    make_qcow2(f, f->paths[0], f->paths[1], NULL);
    struct disk *disk = open_disk(f->places[0].loop, f->paths[0], "qcow2");
    f->places[0].disk = disk;
    run_batches(f, disk, 1);
    disk_resize(disk, 2 * IMAGE_BYTES, on_resized, &result);
    assert_false(disk_is_alone(disk));
    check_refuses(f, disk, -EBUSY);
    while (result == 1)
        loop_run_once(&f->home, true);
    assert_int_equal(result, 0);
    loop_check_thread(disk_loop(disk));
    assert_true(disk_is_alone(disk));
    run_batches(f, disk, 2);
    close_and_compare(f, disk, "qcow2");
}

static void test_limits_shared_elsewhere_keep_it_at_home(void **state)
{
    static const struct throttle_limits limits = {.bucket[THROTTLE_OPS_TOTAL].average = 1500};
    struct fixture *f = *state;
    struct throttle_group *shared;
    struct disk *disk = open_disk(f->places[0].loop, f->paths[0], "raw");
    f->places[0].disk = disk;
    assert_int_equal(throttle_group_create(&f->home, "shared", &shared), 0);
    throttle_group_set(shared, &limits);
    run_batches(f, disk, 1);
    loop_check_thread(disk_loop(disk));
    disk_set_throttle_group(disk, shared);
    assert_false(disk_is_alone(disk));
    run_batches(f, disk, 1);
    disk_set_throttle_group(disk, NULL);
    throttle_group_put(shared);
    assert_true(disk_is_alone(disk));
    assert_int_equal(disk_set_limits(disk, &limits), 0); /* its own, where it is */
    assert_true(disk_is_alone(disk));
    run_batches(f, disk, 1);
    close_and_compare(f, disk, "raw");
}

static void on_quiet(void *opaque)
{
    *(bool *)opaque = true;
}

/* A live snapshot's overlay was opened at home. */
static void test_images_that_come_later_are_gathered(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    bool is_quiet = false;
    make_qcow2(f, f->paths[1], NULL, NULL);
    struct disk *disk = open_disk(f->places[0].loop, f->paths[0], "raw");
    struct disk *above = open_disk(&f->home, f->paths[1], "qcow2");
    f->places[0].disk = disk;
    run_batches(f, disk, 2);
    assert_int_equal(graph_quiesce(disk, on_quiet, &is_quiet), 0);
    assert_false(disk_is_alone(disk));
    while (!is_quiet)
        loop_run_once(&f->home, true);
    assert_int_equal(graph_push(disk, above, &err), 0);
    check_residents(f, 1, 1, 0);
    assert_false(disk_gather(disk));
    graph_resume(disk);
    assert_false(disk_is_alone(disk));
    run_batches(f, disk, 2); /* in two places, but all at home */
    while (!disk_gather(disk))
        loop_run_once(&f->home, true);
    check_residents(f, 0, 2, 0);
    assert_true(disk_is_alone(disk));
    assert_true(disk_gather(disk));
    run_batches(f, disk, 5);
    check_all(f, disk);
    close_disk(f, disk);
}

#define move_test(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        move_test(test_raw_beside_the_home),
        move_test(test_qcow2_beside_the_home),
        move_test(test_two_disks_at_once),
        move_test(test_raw_moves),
        move_test(test_qcow2_moves),
        move_test(test_a_chain_moves),
        move_test(test_a_data_file_moves),
        move_test(test_what_waits_for_writeback_is_written_elsewhere),
        move_test(test_a_busy_disk_stays),
        move_test(test_a_disk_that_was_asked_something_stays),
        move_test(test_a_move_without_descriptors_changes_nothing),
        move_test(test_it_is_not_alone_while_it_changes),
        move_test(test_limits_shared_elsewhere_keep_it_at_home),
        move_test(test_images_that_come_later_are_gathered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
