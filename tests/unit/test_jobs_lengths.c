/* SPDX-License-Identifier: MIT */
/* Jobs on chains whose images are of different length: a short one hides what lies below its end.
 */
#include "disk/jobs/job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_create.h"
#include "tests/unit/test.h"

#define DISK_BYTES (256 * 1024u)
#define MID_BYTES  (20 * 1024u + 512)
#define DATA_AT    (160 * 1024u) /* far beyond what the short images' L1 tables cover */

static struct fixture {
    struct loop loop;
    char folder[32];
    struct disk *disk;
    struct jobs jobs;
    bool is_empty;
    int result;
    uint8_t before[DISK_BYTES];
} fixture;

static void on_status(void *opaque, const struct job *job)
{
    (void)opaque;
    fixture.result = job->result;
}

static void on_event(void *opaque, const struct job *job, enum job_event event)
{
    struct error err = {0};
    (void)opaque;
    if (event == JOB_EVENT_READY)
        assert_int_equal(job_complete((struct job *)(uintptr_t)job, &err), 0);
}

static void on_empty(void *opaque)
{
    (void)opaque;
    fixture.is_empty = true;
}

static void path_of(const char *name, char path[64])
{
    snprintf(path, 64, "%s/%s", fixture.folder, name);
}

/* With 512-byte clusters an L2 table covers 32 KiB. */
static void make(const char *name, const char *backing, uint64_t size_bytes)
{
    const struct io_options io = {.aio = DISK_AIO_THREADS};
    struct qcow2_create_options options;
    struct io_file *file;
    struct error err = {0};
    char path[64];
    path_of(name, path);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(io_open(&fixture.loop, path, &io, &file, &err), 0);
    qcow2_create_defaults(&options);
    options.size_bytes = size_bytes;
    options.cluster_bytes = 512;
    options.backing_path = backing;
    options.backing_format = backing ? "qcow2" : NULL;
    assert_int_equal(qcow2_create(file, NULL, &options, &err), 0);
    io_close_wait(file);
}

static struct disk *open_disk(const char *name)
{
    struct disk *disk;
    struct error err = {0};
    char path[64];
    path_of(name, path);
    const struct disk_options options = {.path = path,
                                         .format = "qcow2",
                                         .discard_unmap = true,
                                         .cache.writeback = true,
                                         .aio = DISK_AIO_THREADS};
    assert_int_equal(disk_open(&fixture.loop, &options, &disk, &err), 0);
    return disk;
}

static void fill(const char *name, uint64_t offset, uint64_t bytes, int value)
{
    static uint8_t data[DISK_BYTES];
    struct disk *disk = open_disk(name);
    struct iovec iov = {data, bytes};
    struct disk_request request = {
        .op = DISK_WRITE, .offset = offset, .bytes = bytes, .iov = &iov, .iov_count = 1};
    memset(data, value, bytes);
    assert_int_equal(disk_run(disk, &request), 0);
    assert_int_equal(disk_close_wait(disk), 0);
}

static void read_all(struct disk *disk, uint8_t *out)
{
    struct iovec iov = {out, DISK_BYTES};
    struct disk_request request = {
        .op = DISK_READ, .bytes = DISK_BYTES, .iov = &iov, .iov_count = 1};
    assert_int_equal(disk_run(disk, &request), 0);
}

/* top (all) -> mid (short) -> low (all) -> base: of the length given. */
static void make_chain(uint64_t base_bytes)
{
    make("base", NULL, base_bytes);
    fill("base", 0, base_bytes, 0xba);
    make("low", "base", DISK_BYTES);
    fill("low", DATA_AT, 4096, 0x10);
    make("mid", "low", MID_BYTES);
    fill("mid", 8192, 1024, 0x3d);
    make("top", "mid", DISK_BYTES);
    fill("top", 512, 512, 0x70);
    fill("top", DISK_BYTES - 1024, 512, 0x71);
    fixture.disk = open_disk("top");
    read_all(fixture.disk, fixture.before);
    assert_int_equal(fixture.before[DATA_AT], 0);
}

static int set_up(void **state)
{
    const struct job_listener listener = {
        .on_status = on_status, .on_event = on_event, .on_empty = on_empty};
    (void)state;
    memset(&fixture, 0, sizeof(fixture));
    snprintf(fixture.folder, sizeof(fixture.folder), "/tmp/test_lengths.XXXXXX");
    assert_non_null(mkdtemp(fixture.folder));
    assert_int_equal(loop_init(&fixture.loop), 0);
    jobs_init(&fixture.jobs, &fixture.loop, &listener);
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"base", "low", "mid", "top"};
    char path[64];
    (void)state;
    loop_run(&fixture.loop);
    loop_fini(&fixture.loop);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        path_of(names[i], path);
        unlink(path);
    }
    rmdir(fixture.folder);
    return 0;
}

static struct node *node_of(const char *name)
{
    char path[64];
    path_of(name, path);
    struct node *node = graph_find(fixture.disk, path, true);
    assert_non_null(node);
    return node;
}

/* The disk shows the same afterwards, now and from its files. */
static void run_job(enum job_kind kind, const char *top, const char *base)
{
    static uint8_t after[DISK_BYTES];
    const struct job_options options = {.kind = kind,
                                        .id = "job",
                                        .disk = fixture.disk,
                                        .top = top ? node_of(top) : NULL,
                                        .base = base ? node_of(base) : NULL};
    struct job *job;
    struct error err = {0};
    assert_int_equal(job_start(&fixture.jobs, &options, &job, &err), 0);
    while (!fixture.is_empty)
        loop_run_once(&fixture.loop, true);
    assert_int_equal(fixture.result, 0);
    bool is_top_gone = kind == JOB_COMMIT && !top;
    read_all(fixture.disk, after);
    assert_memory_equal(after, fixture.before, DISK_BYTES);
    assert_int_equal(disk_close_wait(fixture.disk), 0);
    fixture.disk = open_disk(is_top_gone ? base : "top");
    read_all(fixture.disk, after);
    assert_memory_equal(after, fixture.before, DISK_BYTES);
    assert_int_equal(disk_close_wait(fixture.disk), 0);
}

static void test_all_is_streamed(void **state)
{
    (void)state;
    make_chain(DISK_BYTES);
    run_job(JOB_STREAM, NULL, NULL);
}

static void test_what_is_above_a_base_is_streamed(void **state)
{
    (void)state;
    make_chain(DISK_BYTES);
    run_job(JOB_STREAM, NULL, "base");
}

static void test_a_short_image_is_streamed_away(void **state)
{
    (void)state;
    make_chain(DISK_BYTES);
    run_job(JOB_STREAM, NULL, "low");
}

static void test_the_top_is_committed(void **state)
{
    (void)state;
    make_chain(DISK_BYTES);
    run_job(JOB_COMMIT, NULL, "base");
}

static void test_a_short_image_is_committed_into_a_long_one(void **state)
{
    (void)state;
    make_chain(DISK_BYTES);
    run_job(JOB_COMMIT, "mid", "low");
}

static void test_a_short_image_is_committed_into_a_shorter_one(void **state)
{
    (void)state;
    make_chain(2048);
    run_job(JOB_COMMIT, "mid", "base");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_all_is_streamed),
        TEST(test_what_is_above_a_base_is_streamed),
        TEST(test_a_short_image_is_streamed_away),
        TEST(test_the_top_is_committed),
        TEST(test_a_short_image_is_committed_into_a_long_one),
        TEST(test_a_short_image_is_committed_into_a_shorter_one),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
