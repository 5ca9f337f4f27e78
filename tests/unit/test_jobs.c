/* SPDX-License-Identifier: MIT */
/* Jobs on a disk that a guest writes to at random: what it shows, and what the copy holds. */
#include "disk/jobs/job_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_create.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/throttle.h"
#include "tests/fake_io.h"
#include "tests/unit/test.h"

#define DISK_BYTES (2 * MIB)
#define UNIT       4096u
#define UNITS      (DISK_BYTES / UNIT)
#define WRITERS    8u

enum { TOP, BASE, TARGET, IMAGES };

struct writer {
    struct fixture *fixture;
    struct disk_request request;
    struct iovec iov;
    uint8_t data[4 * UNIT];
    bool is_busy;
};

static struct fixture {
    struct loop loop;
    struct fake_io *fakes[IMAGES];
    struct disk *disk, *target;
    struct jobs jobs;
    struct writer writers[WRITERS];
    uint8_t model[DISK_BYTES], at_start[DISK_BYTES];
    uint64_t random;
    unsigned in_flight, writes, readies, completions, cancellations, errors;
    bool writes_on, is_target_free, has_pivoted, is_empty;
    char trail[256];
    char last_error[200];
} fixture;

static void on_status(void *opaque, const struct job *job)
{
    struct fixture *f = opaque;
    size_t used = strlen(f->trail);
    snprintf(f->trail + used, sizeof(f->trail) - used, "%s ", job_status_name(job->status));
}

static void on_event(void *opaque, const struct job *job, enum job_event event)
{
    struct fixture *f = opaque;
    f->readies += event == JOB_EVENT_READY;
    f->completions += event == JOB_EVENT_COMPLETED;
    f->cancellations += event == JOB_EVENT_CANCELLED;
    snprintf(f->last_error, sizeof(f->last_error), "%.199s", job->result ? job->err.text : "");
}

static void on_error(void *opaque, const struct job *job, bool is_read, const char *action,
                     int code)
{
    struct fixture *f = opaque;
    (void)job, (void)is_read, (void)action;
    assert_true(code > 0);
    f->errors++;
}

static void on_target_free(void *opaque, struct disk *target, bool has_pivoted)
{
    struct fixture *f = opaque;
    assert_ptr_equal(target, f->target);
    f->is_target_free = true;
    f->has_pivoted = has_pivoted;
}

static void on_empty(void *opaque)
{
    ((struct fixture *)opaque)->is_empty = true;
}

static void make_image(unsigned which, const char *backing)
{
    struct qcow2_create_options options;
    fixture.fakes[which] = fake_io_create(&fixture.loop, 16 * MIB, which + 1);
    qcow2_create_defaults(&options);
    options.size_bytes = DISK_BYTES;
    options.backing_path = backing;
    options.backing_format = backing ? "qcow2" : NULL;
    assert_int_equal(qcow2_create(&fixture.fakes[which]->file, NULL, &options, NULL), 0);
    fake_io_settle(fixture.fakes[which]);
}

static struct disk *open_image(unsigned which, struct node *backing, bool read_only)
{
    static const char *const names[] = {"top", "base", "target"};
    struct disk *disk;
    const struct disk_options options = {.path = names[which],
                                         .format = "qcow2",
                                         .read_only = read_only,
                                         .discard_unmap = true,
                                         .cache.writeback = true};
    assert_int_equal(
        disk_open_file(&fixture.loop, &fixture.fakes[which]->file, backing, &options, &disk, NULL),
        0);
    return disk;
}

static void fill(struct disk *disk, uint64_t from, uint64_t to, uint8_t value)
{
    uint8_t data[UNIT];
    struct iovec iov = {data, UNIT};
    memset(data, value, UNIT);
    memset(fixture.model + from, value, to - from);
    for (uint64_t at = from; at < to; at += UNIT) {
        struct disk_request request = {
            .op = DISK_WRITE, .offset = at, .bytes = UNIT, .iov = &iov, .iov_count = 1};
        assert_int_equal(disk_run(disk, &request), 0);
    }
}

static struct node *base_node;

static int set_up(void **state)
{
    const struct job_listener listener = {on_status,      on_event, on_error,
                                          on_target_free, on_empty, &fixture};
    memset(&fixture, 0, sizeof(fixture));
    fixture.random = 12345;
    assert_int_equal(loop_init(&fixture.loop), 0);
    make_image(BASE, NULL);
    make_image(TOP, "base");
    make_image(TARGET, NULL);
    struct disk *base = open_image(BASE, NULL, false);
    fill(base, 0, MIB, 0x11);
    assert_int_equal(disk_close_wait(base), 0);
    base = open_image(BASE, NULL, true);
    base_node = graph_top(base);
    fixture.disk = open_image(TOP, base_node, false);
    free(base); /* its node is the top's backing now */
    fill(fixture.disk, MIB / 2, MIB / 2 + 40 * UNIT, 0x22);
    fixture.target = open_image(TARGET, NULL, false);
    jobs_init(&fixture.jobs, &fixture.loop, &listener);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unused_result(disk_close_wait(fixture.disk));
    unused_result(disk_close_wait(fixture.target));
    for (unsigned i = 0; i < IMAGES; i++)
        fake_io_destroy(fixture.fakes[i]);
    loop_run(&fixture.loop);
    loop_fini(&fixture.loop);
    return 0;
}

static bool is_taken(uint64_t offset, uint64_t bytes)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        const struct disk_request *other = &fixture.writers[i].request;
        if (fixture.writers[i].is_busy && offset < other->offset + other->bytes &&
            other->offset < offset + bytes)
            return true;
    }
    return false;
}

static void on_written(struct disk_request *request, int result)
{
    struct writer *writer = container_of(request, struct writer, request);
    assert_int_equal(result, 0);
    writer->is_busy = false;
    fixture.in_flight--;
    fixture.writes++;
}

/* One more write, zero or discard of the guest; the model has it at once. */
static void write_something(struct writer *writer)
{
    uint64_t units = 1 + fake_below(&fixture.random, 4);
    uint64_t offset = fake_below(&fixture.random, UNITS - units) * UNIT, bytes = units * UNIT;
    bool is_zero = fake_below(&fixture.random, 5) == 0;
    if (writer->is_busy || is_taken(offset, bytes))
        return;
    int value = is_zero ? 0 : 1 + (int)fake_below(&fixture.random, 254);
    memset(writer->data, value, sizeof(writer->data));
    memset(fixture.model + offset, value, bytes);
    writer->iov = (struct iovec){writer->data, bytes};
    writer->request = (struct disk_request){.op = is_zero ? DISK_ZERO : DISK_WRITE,
                                            .flags = is_zero ? DISK_MAY_UNMAP : 0,
                                            .offset = offset,
                                            .bytes = bytes,
                                            .iov = is_zero ? NULL : &writer->iov,
                                            .iov_count = !is_zero,
                                            .on_done = on_written};
    writer->is_busy = true;
    fixture.in_flight++;
    disk_submit(fixture.disk, &writer->request);
}

static void turn(void)
{
    if (fixture.writes_on)
        write_something(&fixture.writers[fake_below(&fixture.random, WRITERS)]);
    loop_run_once(&fixture.loop, !fixture.writes_on);
}

#define turn_until(condition)                                                                      \
    do {                                                                                           \
        unsigned left = 2000000;                                                                   \
        while (!(condition)) {                                                                     \
            if (!left--)                                                                           \
                fail_msg("in vain: %s (%s)", #condition, fixture.trail);                           \
            turn();                                                                                \
        }                                                                                          \
    } while (0)

static void expect_contents(struct disk *disk, const uint8_t *expected)
{
    static uint8_t data[DISK_BYTES];
    struct iovec iov = {data, DISK_BYTES};
    struct disk_request request = {
        .op = DISK_READ, .bytes = DISK_BYTES, .iov = &iov, .iov_count = 1};
    assert_int_equal(disk_run(disk, &request), 0);
    for (uint64_t at = 0; at < DISK_BYTES; at += UNIT)
        if (memcmp(data + at, expected + at, UNIT) != 0)
            fail_msg("unit %llu holds %02x instead of %02x", (unsigned long long)(at / UNIT),
                     data[at], expected[at]);
}

static struct job *start(const struct job_options *options)
{
    struct job *job;
    struct error err = {0};
    struct job_options full = *options;
    full.id = "job";
    full.disk = fixture.disk;
    assert_int_equal(job_start(&fixture.jobs, &full, &job, &err), 0);
    return job;
}

static void stop_writing(void)
{
    fixture.writes_on = false;
    turn_until(!fixture.in_flight);
}

static void end_writing_and_compare(void)
{
    stop_writing();
    expect_contents(fixture.disk, fixture.model);
}

static void test_a_mirror_holds_what_the_guest_wrote_last(void **state)
{
    (void)state;
    struct error err = {0};
    fixture.writes_on = true;
    struct job *job =
        start(&(struct job_options){.kind = JOB_MIRROR, .target = fixture.target, .unmap = true});
    turn_until(fixture.readies);
    unsigned writes = fixture.writes;
    turn_until(fixture.writes > writes + 200);
    assert_int_equal(job_complete(job, &err), 0);
    turn_until(fixture.is_empty);
    assert_true(fixture.has_pivoted);
    assert_int_equal(fixture.completions, 1);
    assert_string_equal(fixture.trail, "created running ready waiting pending concluded null ");
    writes = fixture.writes;
    turn_until(fixture.writes > writes + 100);
    end_writing_and_compare();
    assert_string_equal(disk_path(fixture.disk), "target");
    assert_null(disk_backing(fixture.disk));
}

static void test_a_cancelled_mirror_is_whole_and_leaves_the_disk(void **state)
{
    (void)state;
    struct error err = {0};
    fixture.writes_on = true;
    struct job *job =
        start(&(struct job_options){.kind = JOB_MIRROR, .target = fixture.target, .unmap = true});
    turn_until(fixture.readies);
    stop_writing();
    assert_int_equal(job_cancel(job, false, &err), 0);
    turn_until(fixture.is_empty);
    assert_false(fixture.has_pivoted);
    expect_contents(fixture.target, fixture.model);
    expect_contents(fixture.disk, fixture.model);
    assert_string_equal(disk_path(fixture.disk), "top");
}

static struct job *start_blocking_mirror(uint32_t granularity_bytes)
{
    return start(&(struct job_options){.kind = JOB_MIRROR,
                                       .target = fixture.target,
                                       .unmap = true,
                                       .is_write_blocking = true,
                                       .granularity_bytes = granularity_bytes});
}

/* Both sides see overlapping writes in one order, and nothing is left for the end. */
static void test_a_blocking_mirror_is_never_behind(void **state)
{
    (void)state;
    struct error err = {0};
    fixture.writes_on = true;
    struct job *job = start_blocking_mirror(UNIT);
    turn_until(fixture.readies);
    unsigned writes = fixture.writes;
    turn_until(fixture.writes > writes + 200);
    stop_writing();
    assert_int_equal(dirty_bitmap_count_bytes(job->todo), 0);
    expect_contents(fixture.target, fixture.model);
    fixture.writes_on = true;
    turn_until(fixture.writes > writes + 300);
    assert_int_equal(job_complete(job, &err), 0);
    turn_until(fixture.is_empty);
    assert_true(fixture.has_pivoted);
    end_writing_and_compare();
    assert_string_equal(disk_path(fixture.disk), "target");
}

/* Writes that begin or end within a granule, and one that was under way when the mirror began. */
static void test_a_blocking_mirror_of_large_granules(void **state)
{
    (void)state;
    struct error err = {0};
    fixture.writes_on = true;
    turn_until(fixture.in_flight == WRITERS);
    struct job *job = start_blocking_mirror(65536);
    turn_until(fixture.readies && fixture.writes > 300);
    stop_writing();
    turn_until(!job_has_work(job));
    expect_contents(fixture.target, fixture.model);
    assert_int_equal(job_cancel(job, false, &err), 0);
    turn_until(fixture.is_empty);
    expect_contents(fixture.disk, fixture.model);
}

static uint8_t scribble[MIB];

static void on_scribbled(struct disk_request *request, int result)
{
    (void)request;
    assert_int_equal(result, 0);
    fixture.in_flight--;
}

/* The guest's memory is the guest's: what it writes may change while it is written. */
static void test_a_blocking_mirror_of_memory_that_changes(void **state)
{
    (void)state;
    struct error err = {0};
    struct iovec iov[] = {{scribble, 5 * UNIT}, {scribble + 5 * UNIT, MIB - 5 * UNIT}};
    struct disk_request request = {
        .op = DISK_WRITE, .offset = 3 * UNIT, .bytes = MIB, .iov = iov, .iov_count = 2};
    struct job *job = start_blocking_mirror(65536);
    turn_until(fixture.readies);
    request.on_done = on_scribbled;
    fixture.in_flight++;
    disk_submit(fixture.disk, &request);
    for (uint8_t value = 1; fixture.in_flight; value++) {
        memset(scribble, value, MIB);
        turn();
    }
    struct iovec all = {fixture.model, DISK_BYTES};
    struct disk_request whole = {.op = DISK_READ, .bytes = DISK_BYTES, .iov = &all, .iov_count = 1};
    assert_int_equal(disk_run(fixture.disk, &whole), 0);
    turn_until(!job_has_work(job));
    expect_contents(fixture.target, fixture.model);
    assert_int_equal(job_cancel(job, true, &err), 0);
    turn_until(fixture.is_empty);
}

/* The guest's write is good if the source took it; the target gets it again. */
static void test_a_blocking_mirror_tries_again_what_the_target_refused(void **state)
{
    (void)state;
    fixture.writes_on = true;
    start(&(struct job_options){.kind = JOB_MIRROR,
                                .target = fixture.target,
                                .on_target_error = JOB_ERROR_IGNORE,
                                .is_write_blocking = true,
                                .granularity_bytes = UNIT});
    turn_until(fixture.readies);
    fixture.fakes[TARGET]->fault =
        (struct fake_fault){.result = -EIO, .stays = true, .kinds = 1u << IO_WRITE};
    turn_until(fixture.errors > 5);
    fixture.fakes[TARGET]->fault.result = 0;
    stop_writing();
    struct job *job = jobs_find(&fixture.jobs, "job");
    struct error err = {0};
    turn_until(!job_has_work(job));
    assert_int_equal(job_cancel(job, false, &err), 0);
    turn_until(fixture.is_empty);
    expect_contents(fixture.target, fixture.model);
    expect_contents(fixture.disk, fixture.model);
}

static void test_a_backup_holds_the_moment_of_its_start(void **state)
{
    (void)state;
    fixture.writes_on = true;
    turn_until(fixture.writes > 100);
    stop_writing();
    memcpy(fixture.at_start, fixture.model, DISK_BYTES);
    start(&(struct job_options){
        .kind = JOB_BACKUP, .target = fixture.target, .unmap = true, .speed = 64 * MIB});
    fixture.writes_on = true;
    turn_until(fixture.is_empty);
    assert_true(fixture.writes > 110);
    end_writing_and_compare();
    expect_contents(fixture.target, fixture.at_start);
}

static void test_an_incremental_backup_brings_the_full_one_up_to_date(void **state)
{
    (void)state;
    struct dirty_bitmap *bitmap;
    assert_int_equal(disk_add_bitmap(fixture.disk, "b", 0, false, &bitmap, NULL), 0);
    dirty_bitmap_mark(bitmap, 0, DISK_BYTES);
    const struct job_options backup = {.kind = JOB_BACKUP,
                                       .target = fixture.target,
                                       .sync = JOB_SYNC_BITMAP,
                                       .bitmap = bitmap,
                                       .unmap = true};
    for (unsigned round = 0; round < 3; round++) {
        fixture.is_empty = false;
        start(&backup);
        turn_until(fixture.is_empty);
        expect_contents(fixture.target, fixture.model);
        assert_int_equal(dirty_bitmap_count_bytes(bitmap), 0);
        fixture.writes_on = true;
        unsigned writes = fixture.writes;
        turn_until(fixture.writes > writes + 20);
        stop_writing();
        assert_true(dirty_bitmap_count_bytes(bitmap) > 0);
    }
}

static void test_a_backup_that_fails_gives_the_bitmap_back(void **state)
{
    (void)state;
    struct dirty_bitmap *bitmap;
    assert_int_equal(disk_add_bitmap(fixture.disk, "b", 65536, false, &bitmap, NULL), 0);
    dirty_bitmap_mark(bitmap, 65536, 3 * 65536);
    fixture.fakes[TARGET]->fault =
        (struct fake_fault){.result = -EIO, .stays = true, .kinds = 1u << IO_WRITE};
    start(&(struct job_options){
        .kind = JOB_BACKUP, .target = fixture.target, .sync = JOB_SYNC_BITMAP, .bitmap = bitmap});
    turn_until(fixture.is_empty);
    assert_string_not_equal(fixture.last_error, "");
    assert_string_equal(fixture.trail, "created running aborting concluded null ");
    assert_int_equal(dirty_bitmap_count_bytes(bitmap), 3 * 65536);
}

static void test_a_stream_never_overwrites_what_the_guest_wrote(void **state)
{
    (void)state;
    fixture.writes_on = true;
    start(&(struct job_options){.kind = JOB_STREAM, .speed = 64 * MIB});
    turn_until(fixture.is_empty);
    end_writing_and_compare();
    assert_null(graph_top(fixture.disk)->backing);
    assert_string_equal(fixture.last_error, "");
    /* The file knows it too. */
    assert_int_equal(disk_close_wait(fixture.disk), 0);
    const char *format;
    fixture.fakes[TOP]->file.stats.reads = 0;
    fixture.disk = open_image(TOP, NULL, false);
    assert_null(qcow2_format.backing(graph_top(fixture.disk), &format));
    expect_contents(fixture.disk, fixture.model);
}

/* Fails the n-th operation on an image, for many n: the disk always shows what the guest wrote. */
static void run_with_fault(unsigned image, unsigned kinds, uint64_t after, enum job_kind kind)
{
    struct error err = {0};
    fixture.fakes[image]->fault =
        (struct fake_fault){.result = -EIO, .after = after, .kinds = kinds};
    fixture.writes_on = kind != JOB_STREAM;
    struct job *job = start(&(struct job_options){
        .kind = kind, .target = kind == JOB_STREAM ? NULL : fixture.target, .unmap = true});
    turn_until(fixture.is_empty || fixture.readies);
    if (!fixture.is_empty && job->status == JOB_READY)
        assert_int_equal(job_complete(job, &err), 0);
    turn_until(fixture.is_empty);
    fixture.fakes[image]->fault.result = 0;
    end_writing_and_compare();
    if (*fixture.last_error)
        assert_false(fixture.has_pivoted);
}

static void test_any_failing_operation_leaves_the_disk_as_it_is(void **state)
{
    for (uint64_t after = 0; after < 40; after += 3) {
        run_with_fault(TARGET, 1u << IO_WRITE | 1u << IO_SYNC, after, JOB_MIRROR);
        tear_down(state);
        set_up(state);
        run_with_fault(TARGET, 1u << IO_WRITE | 1u << IO_SYNC, after, JOB_BACKUP);
        tear_down(state);
        set_up(state);
        run_with_fault(BASE, 1u << IO_READ, after, JOB_STREAM);
        tear_down(state);
        set_up(state);
    }
}

static void test_stop_on_error_waits_to_be_resumed(void **state)
{
    (void)state;
    struct error err = {0};
    fixture.fakes[TARGET]->fault =
        (struct fake_fault){.result = -ENOSPC, .stays = true, .kinds = 1u << IO_WRITE};
    struct job *job = start(&(struct job_options){
        .kind = JOB_BACKUP, .target = fixture.target, .on_target_error = JOB_ERROR_ENOSPC});
    turn_until(job->status == JOB_PAUSED);
    assert_int_equal(job->io_error, ENOSPC);
    assert_true(fixture.errors > 0);
    fixture.fakes[TARGET]->fault.result = 0;
    assert_int_equal(job_resume(job, &err), 0);
    turn_until(fixture.is_empty);
    assert_string_equal(fixture.last_error, "");
    expect_contents(fixture.target, fixture.model);
}

static void test_what_may_be_done_when(void **state)
{
    (void)state;
    struct error err = {0};
    struct job *job = start(&(struct job_options){.kind = JOB_BACKUP,
                                                  .target = fixture.target,
                                                  .manual_finalize = true,
                                                  .manual_dismiss = true});
    assert_int_equal(job_complete(job, &err), -EPERM);
    assert_int_equal(job_pause(job, &err), 0);
    turn_until(job->status == JOB_PAUSED);
    assert_int_equal(job_pause(job, &err), -EPERM);
    assert_int_equal(job_resume(job, &err), 0);
    assert_int_equal(job_resume(job, &err), -EPERM);
    turn_until(job->status == JOB_PENDING);
    assert_int_equal(job_dismiss(job, &err), -EPERM);
    assert_int_equal(fixture.completions, 0);
    assert_int_equal(job_finalize(job, &err), 0);
    turn_until(job->status == JOB_CONCLUDED);
    assert_int_equal(fixture.completions, 1);
    assert_int_equal(job_cancel(job, true, &err), -EPERM);
    assert_int_equal(job_dismiss(job, &err), 0);
    turn_until(fixture.is_empty);
}

static void on_pushed_frozen(void *opaque, int result)
{
    assert_int_equal(result, 0);
    *(bool *)opaque = true;
}

static void on_quiet(void *opaque)
{
    assert_int_equal(fixture.disk ? 0 : 1, 0);
    graph_freeze_top(fixture.disk, on_pushed_frozen, opaque);
}

static void test_a_snapshot_under_writes(void **state)
{
    (void)state;
    bool is_frozen = false;
    struct error err = {0};
    fixture.writes_on = true;
    turn_until(fixture.writes > 50);
    assert_int_equal(graph_quiesce(fixture.disk, on_quiet, &is_frozen), 0);
    turn_until(is_frozen);
    uint64_t writes = fixture.fakes[TOP]->file.stats.writes;
    /* Other disks of the same transaction may take their time; a guest does not hear of it. */
    for (unsigned i = 0; i < 100; i++)
        turn();
    assert_false(disk_is_read_only(fixture.disk));
    assert_int_equal(graph_push(fixture.disk, fixture.target, &err), 0);
    fixture.target = open_image(BASE, NULL, true); /* for the tear-down */
    graph_resume(fixture.disk);
    turn_until(fixture.writes > 300);
    end_writing_and_compare();
    assert_string_equal(disk_path(fixture.disk), "target");
    assert_int_equal(fixture.fakes[TOP]->file.stats.writes, writes);
}

/* --- a power cut while an image gets another backing file --- */

struct cut {
    uint64_t random;
    uint8_t *state;
    unsigned states, old_names, new_names;
};

static void on_change(struct fake_io *fake, void *opaque)
{
    struct cut *cut = opaque;
    for (unsigned i = 0; i < 20; i++) {
        struct error err = {0};
        struct qcow2_header header;
        struct fake_io *after = fake_io_create(&fixture.loop, 16 * MIB, 7);
        uint64_t length = fake_io_power_cut(fake, &cut->random, cut->state);
        fake_io_restart(after, cut->state, length);
        assert_int_equal(qcow2_header_read(&after->file, "cut", &header, &err), 0);
        cut->states++;
        cut->old_names += !strcmp(header.backing_path, "base");
        cut->new_names += !strcmp(header.backing_path, "another-base");
        assert_int_equal(cut->states, cut->old_names + cut->new_names);
        assert_string_equal(header.backing_format, "qcow2");
        qcow2_header_fini(&header);
        io_close(&after->file, NULL, NULL);
        fake_io_destroy(after);
    }
}

static void on_renamed(void *opaque, int result, const struct error *err)
{
    (void)err;
    assert_int_equal(result, 0);
    *(bool *)opaque = true;
}

static void test_a_power_cut_leaves_the_old_backing_file_or_the_new_one(void **state)
{
    (void)state;
    bool is_done = false;
    struct cut cut = {.random = 99, .state = malloc(16 * MIB)};
    fixture.fakes[TOP]->on_change = on_change;
    fixture.fakes[TOP]->opaque = &cut;
    qcow2_format.set_backing(graph_top(fixture.disk), "another-base", "qcow2", on_renamed,
                             &is_done);
    turn_until(is_done);
    fixture.fakes[TOP]->on_change = NULL;
    assert_true(cut.old_names > 0);
    on_change(fixture.fakes[TOP], &cut);
    assert_true(cut.new_names >= 20);
    free(cut.state);
}

/* --- limits --- */

static void test_limits_are_checked(void **state)
{
    (void)state;
    struct throttle_limits limits = *disk_get_limits(fixture.disk);
    struct error err = {0};
    limits.bucket[THROTTLE_OPS_TOTAL].average = 10;
    assert_int_equal(throttle_check(&limits, &err), 0);
    limits.bucket[THROTTLE_OPS_READ].average = 10;
    assert_int_equal(throttle_check(&limits, &err), -EINVAL);
    limits.bucket[THROTTLE_OPS_READ].average = 0;
    limits.bucket[THROTTLE_OPS_TOTAL].burst = 5;
    assert_int_equal(throttle_check(&limits, &err), -EINVAL);
}

/* 40 operations at 200 a second, a tenth of a second's worth at once: the rest takes its time. */
static void test_operations_are_delayed_and_none_is_lost(void **state)
{
    (void)state;
    struct throttle_limits limits = *disk_get_limits(fixture.disk);
    limits.bucket[THROTTLE_OPS_TOTAL].average = 200;
    assert_int_equal(disk_set_limits(fixture.disk, &limits), 0);
    uint64_t begin_ns = loop_now_ns();
    fixture.writes_on = true;
    turn_until(fixture.writes >= 40);
    assert_true(loop_now_ns() - begin_ns >= UINT64_C(80000000));
    /* Released at once, where a machine stops. */
    fixture.writes_on = false;
    disk_release_delayed(fixture.disk);
    turn_until(!fixture.in_flight);
    limits.bucket[THROTTLE_OPS_TOTAL].average = 0;
    assert_int_equal(disk_set_limits(fixture.disk, &limits), 0);
    end_writing_and_compare();
}

struct late {
    struct disk_request request;
    struct iovec iov;
    bool is_done;
    int result;
};

static void on_late(struct disk_request *request, int result)
{
    struct late *late = container_of(request, struct late, request);
    late->is_done = true;
    late->result = result;
}

static void on_shrunk(void *opaque, int result, const struct error *err)
{
    (void)err;
    assert_int_equal(result, 0);
    *(bool *)opaque = true;
}

static void test_a_delayed_write_lies_outside_of_a_disk_that_shrank(void **state)
{
    (void)state;
    static uint8_t data[UNIT];
    struct throttle_limits limits = *disk_get_limits(fixture.disk);
    struct late late[3] = {0};
    bool is_shrunk = false;
    limits.bucket[THROTTLE_OPS_TOTAL].average = 1;
    assert_int_equal(disk_set_limits(fixture.disk, &limits), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(late); i++) {
        late[i].iov = (struct iovec){data, UNIT};
        late[i].request = (struct disk_request){.op = DISK_WRITE,
                                                .offset = i == 1 ? DISK_BYTES - UNIT : 0,
                                                .bytes = UNIT,
                                                .iov = &late[i].iov,
                                                .iov_count = 1,
                                                .on_done = on_late};
        disk_submit(fixture.disk, &late[i].request);
    }
    turn_until(late[0].is_done);
    disk_resize(fixture.disk, MIB, on_shrunk, &is_shrunk);
    turn_until(is_shrunk);
    assert_false(late[1].is_done);
    disk_release_delayed(fixture.disk);
    turn_until(late[1].is_done && late[2].is_done);
    assert_int_equal(late[1].result, -EIO);
    assert_int_equal(late[2].result, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_a_mirror_holds_what_the_guest_wrote_last),
        TEST(test_a_cancelled_mirror_is_whole_and_leaves_the_disk),
        TEST(test_a_blocking_mirror_is_never_behind),
        TEST(test_a_blocking_mirror_of_large_granules),
        TEST(test_a_blocking_mirror_of_memory_that_changes),
        TEST(test_a_blocking_mirror_tries_again_what_the_target_refused),
        TEST(test_a_backup_holds_the_moment_of_its_start),
        TEST(test_an_incremental_backup_brings_the_full_one_up_to_date),
        TEST(test_a_backup_that_fails_gives_the_bitmap_back),
        TEST(test_a_stream_never_overwrites_what_the_guest_wrote),
        TEST(test_any_failing_operation_leaves_the_disk_as_it_is),
        TEST(test_stop_on_error_waits_to_be_resumed),
        TEST(test_what_may_be_done_when),
        TEST(test_a_snapshot_under_writes),
        TEST(test_a_power_cut_leaves_the_old_backing_file_or_the_new_one),
        TEST(test_limits_are_checked),
        TEST(test_operations_are_delayed_and_none_is_lost),
        TEST(test_a_delayed_write_lies_outside_of_a_disk_that_shrank),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
