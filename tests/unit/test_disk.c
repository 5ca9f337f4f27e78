/* SPDX-License-Identifier: MIT */
#include "disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/format.h"
#include "disk/io.h"
#include "tests/fake_io.h"
#include "tests/unit/test.h"

#define IMAGE_BYTES (1024 * 1024)

struct fixture {
    struct loop loop;
    char path[64];
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_int_equal(loop_init(&fixture->loop), 0);
    snprintf(fixture->path, sizeof(fixture->path), "/tmp/test_disk.XXXXXX");
    int fd = mkstemp(fixture->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    close(fd);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    loop_run(&fixture->loop);
    loop_fini(&fixture->loop);
    unlink(fixture->path);
    free(fixture);
    return 0;
}

static struct disk *open_raw(struct fixture *fixture, enum disk_aio aio, bool direct)
{
    struct disk_options options = {
        .path = fixture->path,
        .format = "raw",
        .discard_unmap = true,
        .cache = {.direct = direct, .writeback = true},
        .aio = aio,
    };
    struct disk *disk = NULL;
    struct error err = {0};
    int result = disk_open(&fixture->loop, &options, &disk, &err);
    if (result)
        print_message("%s\n", err.text);
    assert_int_equal(result, 0);
    return disk;
}

static int transfer(struct disk *disk, enum disk_op op, uint64_t offset, void *data, size_t bytes)
{
    struct iovec iov[2] = {{data, bytes / 3}, {(char *)data + bytes / 3, bytes - bytes / 3}};
    struct disk_request request = {
        .op = op,
        .flags = DISK_MAY_UNMAP,
        .offset = offset,
        .bytes = bytes,
        .iov = iov,
        .iov_count = 2,
    };
    return disk_run(disk, &request);
}

static void check_raw(struct fixture *fixture, enum disk_aio aio, bool direct)
{
    struct disk *disk = open_raw(fixture, aio, direct);
    static char out[9000], in[9000];
    memset(out, 'x', sizeof(out));
    assert_int_equal(disk_size_bytes(disk), IMAGE_BYTES);
    /* Unaligned on purpose: O_DIRECT must bounce it. */
    assert_int_equal(transfer(disk, DISK_WRITE, 5001, out, sizeof(out)), 0);
    assert_int_equal(transfer(disk, DISK_READ, 5000, in, sizeof(in)), 0);
    assert_int_equal(in[0], 0);
    assert_memory_equal(in + 1, out, sizeof(in) - 1);
    assert_int_equal(transfer(disk, DISK_ZERO, 8192, NULL, 4096), 0);
    assert_int_equal(transfer(disk, DISK_READ, 8191, in, 4098), 0);
    assert_int_equal(in[0], 'x');
    assert_int_equal(in[1] | in[4096], 0);
    assert_int_equal(in[4097], 'x');
    assert_int_equal(transfer(disk, DISK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(transfer(disk, DISK_WRITE, IMAGE_BYTES - 512, out, 512), 0);
    assert_int_equal(disk_close_wait(disk), 0);
    struct stat info;
    assert_int_equal(stat(fixture->path, &info), 0);
    assert_int_equal(info.st_size, IMAGE_BYTES);
}

static void test_raw_by_io_uring(void **state)
{
    check_raw(*state, DISK_AIO_AUTO, false);
}

static void test_raw_by_threads(void **state)
{
    check_raw(*state, DISK_AIO_THREADS, false);
}

/* Not every file system can. */
static void need_direct(const struct fixture *fixture)
{
    int fd = open(fixture->path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd < 0) {
        print_message("the file system has no O_DIRECT\n");
        skip();
    }
    close(fd);
}

static void test_raw_direct(void **state)
{
    need_direct(*state);
    check_raw(*state, DISK_AIO_AUTO, true);
}

struct burst {
    struct disk_request request;
    struct iovec iov;
    _Alignas(512) uint64_t words[64]; /* as O_DIRECT wants it */
    unsigned *left;
};

static void on_burst_done(struct disk_request *request, int result)
{
    struct burst *burst = container_of(request, struct burst, request);
    assert_int_equal(result, 0);
    (*burst->left)--;
}

static void submit_burst(struct disk *disk, struct burst *burst, enum disk_op op, unsigned *left)
{
    for (unsigned i = 0; i < 1000; i++) {
        burst[i].iov = (struct iovec){burst[i].words, 512};
        burst[i].left = left;
        burst[i].request = (struct disk_request){
            .op = op,
            .offset = i * 512u,
            .bytes = 512,
            .iov = &burst[i].iov,
            .iov_count = 1,
            .on_done = on_burst_done,
        };
        (*left)++;
        disk_submit(disk, &burst[i].request);
    }
}

static void check_many(struct fixture *fixture, bool direct)
{
    struct disk *disk = open_raw(fixture, DISK_AIO_AUTO, direct);
    struct burst *burst = aligned_alloc(512, 1000 * sizeof(*burst));
    unsigned left = 0;
    assert_non_null(burst);
    for (uint64_t i = 0; i < 1000; i++)
        for (uint64_t word = 0; word < 64; word++)
            burst[i].words[word] = i << 32 | word;
    submit_burst(disk, burst, DISK_WRITE, &left);
    assert_int_equal(left, 1000); /* never from inside disk_submit */
    while (left)
        loop_run_once(&fixture->loop, true);
    for (uint64_t i = 0; i < 1000; i++)
        memset(burst[i].words, 0, 512);
    submit_burst(disk, burst, DISK_READ, &left);
    while (left)
        loop_run_once(&fixture->loop, true);
    for (uint64_t i = 0; i < 1000; i++)
        for (uint64_t word = 0; word < 64; word++)
            assert_int_equal(burst[i].words[word], i << 32 | word);
    free(burst);
    assert_int_equal(disk_close_wait(disk), 0);
}

static void test_many_at_once(void **state)
{
    check_many(*state, false);
}

static void test_many_direct_ones_at_once(void **state)
{
    need_direct(*state);
    check_many(*state, true);
}

struct resized {
    bool done;
    int result;
};

static void on_resized(void *opaque, int result, const struct error *err)
{
    struct resized *resized = opaque;
    (void)err;
    resized->done = true;
    resized->result = result;
}

static void test_resize_waits_for_requests(void **state)
{
    struct fixture *fixture = *state;
    struct disk *disk = open_raw(fixture, DISK_AIO_AUTO, false);
    struct resized resized = {0};
    struct burst *burst = calloc(1000, sizeof(*burst));
    unsigned left = 0;
    submit_burst(disk, burst, DISK_WRITE, &left);
    disk_resize(disk, 2 * IMAGE_BYTES, on_resized, &resized);
    while (!resized.done)
        loop_run_once(&fixture->loop, true);
    assert_int_equal(left, 0);
    assert_int_equal(resized.result, 0);
    assert_int_equal(disk_size_bytes(disk), 2 * IMAGE_BYTES);
    free(burst);
    assert_int_equal(disk_close_wait(disk), 0);
}

/* The host forgets what it could not write, and says yes the next time. */
static void test_a_failed_flush_is_not_forgotten(void **state)
{
    struct fixture *fixture = *state;
    static char data[4096];
    const struct disk_options options = {
        .path = "raw", .format = "raw", .cache = {.writeback = true}};
    struct fake_io *fake = fake_io_create(&fixture->loop, IMAGE_BYTES, 1);
    struct disk *disk;
    assert_int_equal(io_truncate_now(&fake->file, IMAGE_BYTES), 0);
    assert_int_equal(disk_open_file(&fixture->loop, &fake->file, NULL, &options, &disk, NULL), 0);
    assert_int_equal(transfer(disk, DISK_WRITE, 0, data, sizeof(data)), 0);
    fake->fault = (struct fake_fault){.result = -EIO, .kinds = 1u << IO_SYNC};
    assert_int_equal(transfer(disk, DISK_FLUSH, 0, NULL, 0), -EIO);
    assert_int_equal(transfer(disk, DISK_FLUSH, 0, NULL, 0), -EIO);
    assert_int_equal(transfer(disk, DISK_WRITE, 0, data, sizeof(data)), -EIO);
    assert_int_equal(transfer(disk, DISK_READ, 0, data, sizeof(data)), 0);
    assert_int_equal(disk_close_wait(disk), -EIO);
    fake_io_destroy(fake);
}

static void test_what_was_written_is_safe_once_it_is_closed(void **state)
{
    struct fixture *fixture = *state;
    static char data[4096];
    const struct disk_options options = {
        .path = "raw", .format = "raw", .cache = {.writeback = true}};
    for (unsigned fails = 0; fails < 2; fails++) {
        struct fake_io *fake = fake_io_create(&fixture->loop, IMAGE_BYTES, 1);
        struct disk *disk;
        assert_int_equal(io_truncate_now(&fake->file, IMAGE_BYTES), 0);
        fake_io_settle(fake);
        assert_int_equal(disk_open_file(&fixture->loop, &fake->file, NULL, &options, &disk, NULL),
                         0);
        memset(data, 'x', sizeof(data));
        assert_int_equal(transfer(disk, DISK_WRITE, 8192, data, sizeof(data)), 0);
        if (fails)
            fake->fault = (struct fake_fault){.result = -EIO, .kinds = 1u << IO_SYNC};
        assert_int_equal(disk_close_wait(disk), fails ? -EIO : 0);
        if (!fails)
            assert_memory_equal(fake->medium + 8192, data, sizeof(data));
        fake_io_destroy(fake);
    }
}

static int try_open(struct fixture *fixture, const char *path, const char *format,
                    struct error *err)
{
    struct disk *disk;
    struct disk_options options = {.path = path, .format = format, .cache = {.writeback = true}};
    err->code = 0;
    return disk_open(&fixture->loop, &options, &disk, err);
}

static void test_refuses_what_is_no_image(void **state)
{
    struct fixture *fixture = *state;
    struct error err;
    assert_int_equal(try_open(fixture, "/tmp", "raw", &err), -EINVAL);
    assert_non_null(strstr(err.text, "a directory"));
    assert_int_equal(try_open(fixture, "/dev/null", "raw", &err), -EINVAL);
    assert_int_equal(try_open(fixture, "/tmp/no/such/image", "raw", &err), -ENOENT);
    assert_non_null(strstr(err.text, "/tmp/no/such/image"));
    assert_int_equal(try_open(fixture, fixture->path, "vmdk9", &err), -EINVAL);
    assert_non_null(strstr(err.text, "vmdk9"));
    assert_int_equal(try_open(fixture, fixture->path, NULL, &err), -EINVAL);
}

static void test_two_writers_are_kept_apart(void **state)
{
    struct fixture *fixture = *state;
    struct disk *disk = open_raw(fixture, DISK_AIO_AUTO, false);
    struct error err;
    assert_true(try_open(fixture, fixture->path, "raw", &err) < 0);
    assert_non_null(strstr(err.text, "lock"));
    assert_int_equal(disk_close_wait(disk), 0);
    assert_int_equal(try_open(fixture, "/tmp", "raw", &err), -EINVAL);
}

/* Beside a writer, and with texts that outlive those they were copied from. */
static void test_an_image_is_tried_beside_its_writer(void **state)
{
    struct fixture *fixture = *state;
    struct disk *disk = open_raw(fixture, DISK_AIO_AUTO, false);
    char path[sizeof(fixture->path)], format[] = "raw";
    snprintf(path, sizeof(path), "%s", fixture->path);
    struct disk_options options = {.path = path, .format = format};
    struct error err = {0};
    disk_options_own(&options);
    memset(path, 'x', sizeof(path) - 1);
    memset(format, 'x', sizeof(format) - 1);
    assert_null(options.backing_path);
    assert_int_equal(disk_options_try(&fixture->loop, &options, &err), 0);
    assert_int_equal(unlink(fixture->path), 0);
    assert_int_equal(disk_options_try(&fixture->loop, &options, &err), -ENOENT);
    assert_non_null(strstr(err.text, fixture->path));
    disk_options_fini(&options);
    assert_null(options.path);
    assert_int_equal(disk_close_wait(disk), 0);
}

/* Looks at the clock, of this process. */
static unsigned looks;

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    looks++;
    return __real_clock_gettime(clock, now);
}

struct batch {
    struct loop_task task;
    struct disk *disk;
    struct disk_request requests[16];
};

static unsigned batch_done;

static void on_batch_done(struct disk_request *request, int result)
{
    (void)request;
    assert_int_equal(result, 0);
    batch_done++;
}

/* Empty requests: what they take is what the disk does with each. */
static void submit_batch(struct loop_task *task)
{
    struct batch *batch = container_of(task, struct batch, task);
    for (unsigned i = 0; i < ARRAY_SIZE(batch->requests); i++) {
        batch->requests[i] = (struct disk_request){.op = DISK_ZERO, .on_done = on_batch_done};
        disk_submit(batch->disk, &batch->requests[i]);
    }
}

static void test_one_look_at_the_clock_for_a_batch(void **state)
{
    struct fixture *fixture = *state;
    struct batch batch = {.disk = open_raw(fixture, DISK_AIO_THREADS, false)};
    loop_task_init(&fixture->loop, &batch.task, LOOP_STAGE_DRAIN, submit_batch);
    loop_task_queue(&batch.task);
    looks = batch_done = 0;
    while (batch_done < ARRAY_SIZE(batch.requests))
        loop_run_once(&fixture->loop, true);
    assert_in_range(looks, 1, 4);
    assert_int_equal(disk_close_wait(batch.disk), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_raw_by_io_uring, setup, teardown),
        cmocka_unit_test_setup_teardown(test_raw_by_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_raw_direct, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_direct_ones_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_look_at_the_clock_for_a_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resize_waits_for_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_flush_is_not_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_written_is_safe_once_it_is_closed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_refuses_what_is_no_image, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_writers_are_kept_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_image_is_tried_beside_its_writer, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
