/* SPDX-License-Identifier: MIT */
/* io_thread: the same data as by the loop's own ring, whoever asks, and nobody is forgotten. */
#include "disk/io_thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/disk.h"
#include "disk/graph.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_create.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

#define IMAGE_BYTES (4 * MIB)
#define BLOCK       4096u
#define BLOCKS      (IMAGE_BYTES / BLOCK)
#define DEPTH       300u /* more than the kernel is given at once */

struct fixture {
    struct loop loop;
    struct io_thread *thread;
    struct random random;
    char path[64], other[64];
    uint32_t expected[BLOCKS]; /* what fills each block */
};

static void make_name(char *path, size_t room)
{
    snprintf(path, room, "/tmp/test_io_thread.XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    close(fd);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};
    f->random.state = 1;
    assert_int_equal(loop_init(&f->loop), 0);
    make_name(f->path, sizeof(f->path));
    make_name(f->other, sizeof(f->other));
    if (io_thread_create(&f->loop, "test", &f->thread, &err))
        print_message("%s\n", err.text);
    *state = f;
    return 0;
}

static void on_thread_closed(void *opaque)
{
    *(bool *)opaque = true;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    bool closed = !f->thread;
    if (f->thread) {
        assert_int_equal(io_thread_users(f->thread), 0);
        io_thread_close(f->thread, on_thread_closed, &closed);
    }
    loop_run(&f->loop);
    assert_true(closed);
    loop_fini(&f->loop);
    unlink(f->path);
    unlink(f->other);
    free(f);
    return 0;
}

static void need_thread(const struct fixture *f)
{
    if (!f->thread)
        skip(); /* this host has no io_uring for us; setup said why */
}

static void make_qcow2(struct fixture *f, const char *path)
{
    const struct io_options plain = {.aio = DISK_AIO_THREADS};
    struct qcow2_create_options options;
    struct io_file *file;
    assert_int_equal(truncate(path, 0), 0);
    qcow2_create_defaults(&options);
    options.size_bytes = IMAGE_BYTES;
    assert_int_equal(io_open(&f->loop, path, &plain, &file, NULL), 0);
    assert_int_equal(qcow2_create(file, NULL, &options, NULL), 0);
    io_close_wait(file);
}

static struct disk *open_disk(struct fixture *f, const char *path, const char *format)
{
    const struct disk_options options = {
        .path = path, .format = format, .discard_unmap = true, .cache.writeback = true};
    struct error err = {0};
    struct disk *disk = NULL;
    if (disk_open(&f->loop, &options, &disk, &err))
        fail_msg("%s", err.text);
    return disk;
}

struct slot {
    struct fixture *f;
    struct disk_request request;
    struct iovec iov[2];
    uint32_t data[BLOCK / 4];
    unsigned *left;
};

static void on_done(struct disk_request *request, int result)
{
    struct slot *slot = container_of(request, struct slot, request);
    uint32_t expected = slot->f->expected[request->offset / BLOCK];
    assert_int_equal(result, 0);
    loop_check_thread(&slot->f->loop);
    for (unsigned i = 0; request->op == DISK_READ && i < ARRAY_SIZE(slot->data); i++)
        assert_int_equal(slot->data[i], expected);
    (*slot->left)--;
}

/* In two pieces, of which the first is odd. */
static void submit(struct disk *disk, struct slot *slot, enum disk_op op, uint64_t block)
{
    size_t first = 512 + 512 * (block % 3);
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
    disk_submit(disk, &slot->request);
}

/* One operation of each kind of its own block: none depends on the order of others. */
static void run_batch(struct fixture *f, struct disk *disk, struct slot *slots)
{
    static const enum disk_op ops[] = {DISK_WRITE, DISK_READ, DISK_READ, DISK_WRITE, DISK_ZERO};
    unsigned left = DEPTH;
    uint64_t first = random_below(&f->random, BLOCKS - DEPTH);
    for (unsigned i = 0; i < DEPTH; i++) {
        enum disk_op op = i % 50 == 49 ? DISK_FLUSH : ops[random_below(&f->random, 5)];
        uint64_t block = first + i;
        uint32_t value = (uint32_t)random_below(&f->random, UINT32_MAX);
        slots[i].f = f;
        slots[i].left = &left;
        for (unsigned word = 0; word < BLOCK / 4; word++)
            slots[i].data[word] = value;
        if (op == DISK_WRITE || op == DISK_ZERO)
            f->expected[block] = op == DISK_WRITE ? value : 0;
        submit(disk, &slots[i], op, block);
    }
    assert_int_equal(left, DEPTH); /* never from inside disk_submit */
    while (left)
        loop_run_once(&f->loop, true);
}

static void run_batches(struct fixture *f, struct disk *disk, unsigned count)
{
    struct slot *slots = calloc(DEPTH, sizeof(*slots));
    assert_non_null(slots);
    for (unsigned i = 0; i < count; i++)
        run_batch(f, disk, slots);
    free(slots);
}

static void check_all(struct fixture *f, struct disk *disk)
{
    struct slot *slot = calloc(1, sizeof(*slot));
    assert_non_null(slot);
    for (uint64_t block = 0; block < BLOCKS; block++) {
        unsigned left = 1;
        slot->f = f;
        slot->left = &left;
        submit(disk, slot, DISK_READ, block);
        while (left)
            loop_run_once(&f->loop, true);
    }
    free(slot);
}

static void check_format(struct fixture *f, const char *format)
{
    need_thread(f);
    if (strcmp(format, "qcow2") == 0)
        make_qcow2(f, f->path);
    struct disk *disk = open_disk(f, f->path, format);
    disk_set_io_thread(disk, f->thread);
    assert_int_equal(io_thread_users(f->thread), 1);
    run_batches(f, disk, 40);
    check_all(f, disk);
    assert_int_equal(disk_close_wait(disk), 0);
    assert_int_equal(io_thread_users(f->thread), 0);
    disk = open_disk(f, f->path, format);
    check_all(f, disk);
    assert_int_equal(disk_close_wait(disk), 0);
}

static void test_raw(void **state)
{
    check_format(*state, "raw");
}

static void test_qcow2(void **state)
{
    check_format(*state, "qcow2");
}

static void test_two_disks_share_a_thread(void **state)
{
    struct fixture *f = *state;
    need_thread(f);
    struct disk *disk = open_disk(f, f->path, "raw"), *other = open_disk(f, f->other, "raw");
    disk_set_io_thread(disk, f->thread);
    disk_set_io_thread(other, f->thread);
    assert_int_equal(io_thread_users(f->thread), 2);
    check_all(f, other);
    run_batches(f, disk, 10);
    assert_int_equal(disk_close_wait(other), 0);
    assert_int_equal(io_thread_users(f->thread), 1);
    check_all(f, disk);
    assert_int_equal(disk_close_wait(disk), 0);
}

/* What takes no longer than waking the thread is done by the loop, in each of its turns anew. */
static void test_the_first_of_a_turn_stay_with_the_loop(void **state)
{
    struct fixture *f = *state;
    const unsigned kept = 128 * KIB / BLOCK;
    need_thread(f);
    struct disk *disk = open_disk(f, f->path, "raw");
    struct slot *slots = calloc(DEPTH, sizeof(*slots));
    assert_non_null(slots);
    disk_set_io_thread(disk, f->thread);
    for (unsigned turn = 0; turn < 2; turn++) {
        unsigned left = DEPTH;
        for (unsigned i = 0; i < DEPTH; i++) {
            slots[i].f = f;
            slots[i].left = &left;
            submit(disk, &slots[i], DISK_READ, i);
            assert_int_equal(io_thread_users(f->thread), i < kept ? 1 : 2 + i - kept);
        }
        while (left)
            loop_run_once(&f->loop, true);
    }
    assert_int_equal(disk_close_wait(disk), 0);
    free(slots);
}

/* Between the thread and the loop, with requests on their way. */
static void test_a_disk_changes_hands(void **state)
{
    struct fixture *f = *state;
    need_thread(f);
    struct disk *disk = open_disk(f, f->path, "raw");
    struct slot *slots = calloc(DEPTH, sizeof(*slots));
    unsigned left = DEPTH;
    assert_non_null(slots);
    for (unsigned i = 0; i < DEPTH; i++) {
        slots[i].f = f;
        slots[i].left = &left;
        if (i % 7 == 0)
            disk_set_io_thread(disk, i % 2 ? f->thread : NULL);
        if (i % 40 == 0)
            loop_run_once(&f->loop, false);
        memset(slots[i].data, 0xa5, BLOCK);
        f->expected[i] = 0xa5a5a5a5;
        submit(disk, &slots[i], DISK_WRITE, i);
    }
    while (left)
        loop_run_once(&f->loop, true);
    disk_set_io_thread(disk, NULL);
    assert_int_equal(io_thread_users(f->thread), 0);
    check_all(f, disk);
    assert_int_equal(disk_close_wait(disk), 0);
    free(slots);
}

static void on_quiet(void *opaque)
{
    *(bool *)opaque = true;
}

/* A live snapshot's overlay is served as the disk was. */
static void test_images_that_come_later_follow(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    need_thread(f);
    make_qcow2(f, f->other);
    struct disk *disk = open_disk(f, f->path, "raw");
    struct disk *above = open_disk(f, f->other, "qcow2");
    bool quiet = false;
    disk_set_io_thread(disk, f->thread);
    run_batches(f, disk, 2);
    assert_int_equal(graph_quiesce(disk, on_quiet, &quiet), 0);
    while (!quiet)
        loop_run_once(&f->loop, true);
    assert_int_equal(graph_push(disk, above, &err), 0);
    graph_resume(disk);
    assert_int_equal(io_thread_users(f->thread), 2);
    run_batches(f, disk, 5);
    check_all(f, disk);
    assert_int_equal(disk_close_wait(disk), 0);
}

/* Where the file ends, the kernel's answer is short, and zeroes follow. */
static void test_a_short_answer_is_completed(void **state)
{
    struct fixture *f = *state;
    need_thread(f);
    assert_int_equal(truncate(f->path, BLOCK + 100), 0);
    struct disk *disk = open_disk(f, f->path, "raw");
    struct slot *slot = calloc(1, sizeof(*slot));
    unsigned left = 1;
    slot->f = f;
    slot->left = &left;
    disk_set_io_thread(disk, f->thread);
    memset(slot->data, 0xff, BLOCK);
    slot->iov[0] = (struct iovec){slot->data, 512};
    slot->request = (struct disk_request){.op = DISK_READ,
                                          .offset = BLOCK,
                                          .bytes = 512,
                                          .iov = slot->iov,
                                          .iov_count = 1,
                                          .on_done = on_done};
    disk_submit(disk, &slot->request);
    for (unsigned i = 128; i < ARRAY_SIZE(slot->data); i++)
        slot->data[i] = 0;
    while (left)
        loop_run_once(&f->loop, true);
    assert_int_equal(disk_close_wait(disk), 0);
    free(slot);
}

static void test_a_thread_that_cannot_be_says_what_to_do(void **state)
{
    struct fixture *f = *state;
    struct rlimit before, none;
    struct io_thread *thread = NULL;
    struct error err = {0};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){0, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int result = io_thread_create(&f->loop, "io9", &thread, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_true(result < 0);
    assert_null(thread);
    assert_non_null(strstr(err.text, "'io9', which needs io_uring: "));
    assert_non_null(strstr(err.text, "leave -object iothread and iothread= out"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_raw, setup, teardown),
        cmocka_unit_test_setup_teardown(test_qcow2, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_disks_share_a_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_first_of_a_turn_stay_with_the_loop, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_disk_changes_hands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_images_that_come_later_follow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_short_answer_is_completed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_thread_that_cannot_be_says_what_to_do, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
