/* SPDX-License-Identifier: MIT */
/*
 * The host's files when the host does less than it was asked for: transfers in pieces, interrupted
 * calls, a limit on the file's size, no way to make zeroes. Nothing is reported as done that is
 * not.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "disk/io.h"
#include "tests/unit/test.h"

#define FILE_BYTES (300 * KIB)
#define PIECES     5

struct host_habits {
    size_t most_bytes; /* that a call transfers; 0: all */
    bool interrupts;   /* every other call */
    bool has_no_fallocate;
    unsigned reads_together; /* each read ends after so many have begun, or a while */
    unsigned calls, reads;
};

static struct host_habits habits;

ssize_t __real_preadv(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __real_pwritev(int fd, const struct iovec *iov, int count, off_t offset);
int __real_fallocate(int fd, int mode, off_t offset, off_t bytes);
ssize_t __wrap_preadv(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t offset);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t bytes);

static bool is_interrupted(void)
{
    errno = EINTR;
    return habits.interrupts && ++habits.calls % 2;
}

/* The first bytes of `iov` that the host is in the mood for. */
static int shorten(struct iovec *out, const struct iovec *iov, int count)
{
    size_t bytes = iov_size(iov, (size_t)count);
    if (habits.most_bytes)
        bytes = MIN(bytes, habits.most_bytes);
    return (int)iov_slice(out, (size_t)count, iov, (size_t)count, 0, bytes);
}

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
    struct iovec some[64];
    if (is_interrupted())
        return -1;
    count = shorten(some, iov, MIN(count, 64));
    ssize_t result = __real_preadv(fd, some, count, offset);
    __atomic_add_fetch(&habits.reads, 1, __ATOMIC_SEQ_CST);
    for (unsigned ms = 0; ms < 500; ms++)
        if (__atomic_load_n(&habits.reads, __ATOMIC_SEQ_CST) < habits.reads_together)
            usleep(1000);
    return result;
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    struct iovec some[64];
    if (is_interrupted())
        return -1;
    count = shorten(some, iov, MIN(count, 64));
    return __real_pwritev(fd, some, count, offset);
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    if (is_interrupted())
        return -1;
    errno = EOPNOTSUPP;
    return habits.has_no_fallocate ? -1 : __real_fallocate(fd, mode, offset, bytes);
}

/* --- a file, and requests to it --- */

struct fixture {
    struct loop loop;
    struct io_file *file;
    char path[32];
    uint8_t data[FILE_BYTES]; /* what the file must hold */
    uint8_t seen[FILE_BYTES];
    struct iovec iov[PIECES];
};

static struct fixture *open_file(enum disk_aio aio, bool direct)
{
    const struct io_options options = {.aio = aio, .direct = direct};
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error err = {0};
    habits = (struct host_habits){0};
    snprintf(fixture->path, sizeof(fixture->path), "build/test_io.XXXXXX");
    int fd = mkstemp(fixture->path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(loop_init(&fixture->loop), 0);
    if (io_open(&fixture->loop, fixture->path, &options, &fixture->file, &err)) {
        unlink(fixture->path);
        loop_fini(&fixture->loop);
        free(fixture);
        skip(); /* no io_uring, or no O_DIRECT, on this host */
    }
    for (size_t i = 0; i < FILE_BYTES; i++)
        fixture->data[i] = (uint8_t)(i * 7 + i / 256);
    return fixture;
}

static void close_file(struct fixture *fixture)
{
    habits = (struct host_habits){0};
    io_close(fixture->file, NULL, NULL);
    loop_run(&fixture->loop);
    loop_fini(&fixture->loop);
    unlink(fixture->path);
    free(fixture);
}

struct outcome {
    struct io_request request;
    bool done;
    int result;
};

static void on_done(struct io_request *request, int result)
{
    struct outcome *outcome = container_of(request, struct outcome, request);
    outcome->done = true;
    outcome->result = result;
}

/* In pieces of different lengths. */
static int run(struct fixture *fixture, enum io_kind kind, uint8_t *data, uint64_t offset,
               uint64_t bytes)
{
    uint64_t at = 0;
    for (size_t i = 0; i < PIECES; i++) {
        uint64_t length = i == PIECES - 1 ? bytes - at : MIN(bytes - at, bytes / 8 * i / 512 * 512);
        fixture->iov[i] = (struct iovec){data ? data + at : NULL, length};
        at += length;
    }
    struct outcome outcome = {.request = {.kind = kind,
                                          .offset = offset,
                                          .bytes = bytes,
                                          .iov = data ? fixture->iov : NULL,
                                          .iov_count = data ? PIECES : 0,
                                          .on_done = on_done}};
    io_submit(fixture->file, &outcome.request);
    while (!outcome.done)
        loop_run_once(&fixture->loop, true);
    return outcome.result;
}

static uint64_t length_of(struct fixture *fixture)
{
    uint64_t bytes;
    assert_int_equal(fixture->file->ops->length(fixture->file, &bytes), 0);
    return bytes;
}

static void assert_contents(struct fixture *fixture)
{
    memset(fixture->seen, 0xee, sizeof(fixture->seen));
    assert_int_equal(run(fixture, IO_READ, fixture->seen, 0, FILE_BYTES), 0);
    assert_memory_equal(fixture->seen, fixture->data, FILE_BYTES);
}

static const struct {
    enum disk_aio aio;
    bool direct;
} engines[] = {
    {DISK_AIO_THREADS, false},
    {DISK_AIO_THREADS, true},
    {DISK_AIO_IO_URING, false},
    {DISK_AIO_IO_URING, true},
};

/* --- the tests: each with one of the engines --- */

static void test_pieces(void **state)
{
    struct fixture *fixture =
        open_file(engines[(size_t)*state].aio, engines[(size_t)*state].direct);
    for (size_t most = 512; most <= 64 * KIB; most *= 4) {
        habits = (struct host_habits){.most_bytes = most, .interrupts = most == 2048};
        memset(fixture->data, (int)most / 512, 1000);
        assert_int_equal(run(fixture, IO_WRITE, fixture->data, 0, FILE_BYTES), 0);
        assert_contents(fixture);
        memset(fixture->data + 100 * KIB + 512, 5, 3 * 512);
        assert_int_equal(
            run(fixture, IO_WRITE, fixture->data + 100 * KIB + 512, 100 * KIB + 512, 3 * 512), 0);
        assert_contents(fixture);
    }
    close_file(fixture);
}

static void test_past_the_end(void **state)
{
    struct fixture *fixture =
        open_file(engines[(size_t)*state].aio, engines[(size_t)*state].direct);
    assert_int_equal(run(fixture, IO_WRITE, fixture->data, 0, 100 * KIB), 0);
    memset(fixture->data + 100 * KIB, 0, FILE_BYTES - 100 * KIB);
    assert_contents(fixture);
    habits.most_bytes = 3 * 512;
    assert_contents(fixture);
    assert_true(length_of(fixture) == 100 * KIB);
    close_file(fixture);
}

/* The kernel writes up to the limit, and says so: the rest is an error, not a success. */
static void test_size_limit(void **state)
{
    struct fixture *fixture =
        open_file(engines[(size_t)*state].aio, engines[(size_t)*state].direct);
    struct rlimit old, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = (struct rlimit){128 * KIB, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    int result = run(fixture, IO_WRITE, fixture->data, 0, FILE_BYTES);
    uint64_t length = length_of(fixture);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(result, -EFBIG);
    assert_true(length <= 128 * KIB);
    assert_int_equal(run(fixture, IO_WRITE, fixture->data, 0, FILE_BYTES), 0);
    assert_contents(fixture);
    close_file(fixture);
}

static void test_zeroes(void **state)
{
    static const enum io_kind kinds[] = {IO_ZERO, IO_PUNCH};
    struct fixture *fixture =
        open_file(engines[(size_t)*state].aio, engines[(size_t)*state].direct);
    assert_int_equal(run(fixture, IO_WRITE, fixture->data, 0, FILE_BYTES), 0);
    for (unsigned way = 0; way < 4; way++) {
        uint64_t offset = (way * 40 + 3) * 512, bytes = (way * 10 + 9) * 512;
        habits = (struct host_habits){.has_no_fallocate = way & 1, .interrupts = true};
        memset(fixture->data + offset, 0, bytes);
        assert_int_equal(run(fixture, kinds[way / 2], NULL, offset, bytes), 0);
        assert_contents(fixture);
        /* Half behind the end: the file stays as long as it is. */
        assert_int_equal(run(fixture, kinds[way / 2], NULL, FILE_BYTES - 512, 64 * KIB), 0);
        memset(fixture->data + FILE_BYTES - 512, 0, 512);
        assert_contents(fixture);
        assert_true(length_of(fixture) == FILE_BYTES);
    }
    close_file(fixture);
}

/* Without a call that makes zeroes, blocks that zeroes share with data are read and written: one
 * after the other, or what was zero comes back. */
static void test_zeroes_beside_each_other(void **state)
{
    enum { COUNT = 4 };
    struct outcome outcomes[COUNT] = {0};
    struct fixture *fixture = open_file(engines[(size_t)*state].aio, false);
    assert_int_equal(run(fixture, IO_WRITE, fixture->data, 0, FILE_BYTES), 0);
    if (io_change_mode(fixture->file, true, false)) { /* blocks of 4 KiB from now on */
        close_file(fixture);
        skip();
    }
    habits = (struct host_habits){.has_no_fallocate = true, .reads_together = 2};
    for (unsigned i = 0; i < COUNT; i++) {
        outcomes[i].request = (struct io_request){.kind = i & 1 ? IO_ZERO : IO_PUNCH,
                                                  .offset = i * 1024,
                                                  .bytes = 512,
                                                  .on_done = on_done};
        memset(fixture->data + i * 1024, 0, 512);
        io_submit(fixture->file, &outcomes[i].request);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        while (!outcomes[i].done)
            loop_run_once(&fixture->loop, true);
        assert_int_equal(outcomes[i].result, 0);
    }
    habits = (struct host_habits){0};
    assert_contents(fixture);
    close_file(fixture);
}

#define WITH(test, engine)    cmocka_unit_test_prestate(test, (void *)engine)
#define FOR_EACH_ENGINE(test) WITH(test, 0), WITH(test, 1), WITH(test, 2), WITH(test, 3)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOR_EACH_ENGINE(test_pieces),           FOR_EACH_ENGINE(test_past_the_end),
        FOR_EACH_ENGINE(test_size_limit),       FOR_EACH_ENGINE(test_zeroes),
        WITH(test_zeroes_beside_each_other, 0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
