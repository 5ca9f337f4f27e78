/* SPDX-License-Identifier: MIT */
/* path: what a run of either path does before, between and after its requests. */
#include "tools/bench/path.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/side_loop.h"

#define NULL_DISK_BYTES GIB

/* In the low bits of a clock's id that names a thread: Linux's CPUCLOCK_PERTHREAD_MASK and
 * CPUCLOCK_SCHED. */
#define THREAD_CPU_CLOCK 6u

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    CHECK(clock_gettime(clock, &now) == 0);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Of a thread that others made, of which only the id is known. */
static uint64_t io_thread_cpu_ns(const struct path_run *run)
{
    if (!run->side)
        return 0;
    return clock_ns((clockid_t)(~(unsigned)side_loop_thread_id(run->side) << 3 | THREAD_CPU_CLOCK));
}

/* splitmix64 */
static uint64_t mix(uint64_t value)
{
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

static int open_disk(struct path_run *run, struct error *err)
{
    const struct path_options *options = run->options;
    if (strcmp(options->format, "null") == 0) {
        run->image = "null";
        return null_disk_open(run->loop, NULL_DISK_BYTES, &run->disk, err);
    }
    const struct disk_options disk_options = {
        .path = run->image,
        .format = options->format,
        .read_only = !options->is_write && !options->is_mixed,
        .cache = {.direct = options->is_direct, .writeback = true},
    };
    return disk_open(run->loop, &disk_options, &run->disk, err);
}

static bool stays(void *opaque)
{
    const struct path_run *run = opaque;
    return !run->is_under_way;
}

static int make_loop(struct path_run *run, struct error *err)
{
    const struct side_loop_options options = {.name = "IO disk", .stays = stays, .opaque = run};
    run->home = run->loop;
    if (!run->options->has_io_threads)
        return 0;
    int result = side_loop_create(run->home, &options, &run->side);
    if (!result)
        result = side_loop_start(run->side);
    if (result)
        return error_set_errno(err, -result, "cannot start an I/O thread");
    run->loop = side_loop_of(run->side);
    return 0;
}

int path_open(struct path_run *run, struct error *err)
{
    const struct path_options *options = run->options;
    int result = make_loop(run, err);
    result = result ? result : open_disk(run, err);
    if (result)
        return result;
    uint64_t size = disk_size_bytes(run->disk);
    size -= MIN(size, options->skip_bytes);
    run->blocks =
        MIN(size, options->span_bytes ? options->span_bytes : size) / options->block_bytes;
    run->random = options->seed;
    if (!run->blocks)
        result = error_set(err, EINVAL,
                           "%s: smaller than one block of %" PRIu64
                           " bytes: name a larger image, or use a smaller --block",
                           run->image, options->block_bytes);
    if (!result && options->verifies) {
        run->written = calloc(1, run->blocks);
        CHECK(run->written);
    }
    return result;
}

void path_begin(struct path_run *run)
{
    run->is_under_way = true;
    run->began_turns = run->loop->turns;
    run->began_cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    run->began_io_thread_ns = io_thread_cpu_ns(run);
    run->began_process_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    run->began_ns = loop_now_ns();
    run->ends_ns = run->began_ns + run->options->seconds * UINT64_C(1000000000);
}

void path_stop(struct path_run *run)
{
    run->is_under_way = false;
}

void path_take_driver_cpu(struct path_run *run)
{
    run->result->driver_cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

bool path_is_over(const struct path_run *run)
{
    return run->failure || loop_now_ns() >= run->ends_ns;
}

uint64_t path_next_offset(struct path_run *run)
{
    uint64_t block = run->next_block++ % run->blocks;
    if (run->options->is_random)
        block = mix(run->random++) % run->blocks;
    return run->options->skip_bytes + block * run->options->block_bytes;
}

bool path_next_is_write(struct path_run *run)
{
    const struct path_options *options = run->options;
    return options->is_mixed ? mix(~run->random++) % 100 >= options->read_percent
                             : options->is_write;
}

void path_fill(const struct path_run *run, uint64_t offset, void *to)
{
    for (uint64_t at = 0; at < run->options->block_bytes; at += sizeof(uint64_t))
        store_le64((uint8_t *)to + at, mix(run->options->seed ^ (offset + at)));
}

void path_record(struct path_run *run, uint64_t offset, uint64_t started_ns, int result)
{
    if (result) {
        run->failure = run->failure ? run->failure : result;
        return;
    }
    run->result->operations++;
    histogram_add(&run->result->latency_ns, loop_now_ns() - started_ns);
    if (run->written)
        run->written[(offset - run->options->skip_bytes) / run->options->block_bytes] = 1;
}

void path_take_figures(struct path_run *run)
{
    struct path_result *result = run->result;
    struct disk_stats stats;
    result->io_thread_cpu_ns = io_thread_cpu_ns(run) - run->began_io_thread_ns;
    result->process_cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - run->began_process_ns;
    result->elapsed_ns = loop_now_ns() - run->began_ns;
    result->loop_cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - run->began_cpu_ns;
    result->loop_turns = run->loop->turns - run->began_turns;
    if (!run->disk)
        return;
    disk_get_stats(run->disk, &stats);
    result->host_operations = stats.host_reads + stats.host_writes + stats.host_flushes;
}

static int verify_block(struct path_run *run, uint64_t offset, void *expected, void *found,
                        struct error *err)
{
    const uint64_t bytes = run->options->block_bytes;
    const struct iovec iov = {found, bytes};
    struct disk_request request = {
        .op = DISK_READ, .offset = offset, .bytes = bytes, .iov = &iov, .iov_count = 1};
    int result = disk_run(run->disk, &request);
    if (result)
        return error_set_errno(err, -result, "cannot read back at %" PRIu64, offset);
    path_fill(run, offset, expected);
    if (memcmp(expected, found, bytes) == 0)
        return 0;
    return error_set(err, EILSEQ, "the block at %" PRIu64 " is not what was written there", offset);
}

static int verify(struct path_run *run, struct error *err)
{
    uint8_t *expected = malloc(run->options->block_bytes);
    uint8_t *found = aligned_alloc(4096, align_up(run->options->block_bytes, 4096));
    CHECK(expected && found);
    int result = 0;
    for (uint64_t block = 0; block < run->blocks && !result; block++)
        if (run->written[block])
            result = verify_block(run, run->options->skip_bytes + block * run->options->block_bytes,
                                  expected, found, err);
    free(expected);
    free(found);
    return result;
}

static void on_loop_closed(void *opaque)
{
    *(bool *)opaque = true;
}

static void close_loop(struct path_run *run)
{
    bool is_closed = !run->side;
    if (run->side)
        side_loop_close(run->side, on_loop_closed, &is_closed);
    while (!is_closed)
        loop_run_once(run->home, true);
}

int path_end(struct path_run *run, struct error *err)
{
    int result = 0;
    loop_check_thread(run->loop);
    path_take_figures(run);
    if (run->failure)
        result = error_set_errno(err, -run->failure, "%s: a request failed", run->image);
    if (!result && run->written)
        result = verify(run, err);
    free(run->written);
    int closed = disk_close_wait(run->disk);
    close_loop(run);
    if (!result && closed)
        result = error_set_errno(err, -closed, "%s: closing failed", run->image);
    return result;
}
