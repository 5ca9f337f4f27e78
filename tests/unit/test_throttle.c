/* SPDX-License-Identifier: MIT */
/* throttle: several disks that share limits take turns, and none of their requests is lost. */
#include "disk/throttle.h"

#include <stdlib.h>
#include <string.h>

#include "disk/disk_private.h"
#include "disk/graph.h"
#include "tests/fake_io.h"
#include "tests/unit/test.h"

#define DISK_BYTES 1048576u
#define UNIT       4096u
#define REQUESTS   64u
#define RATE       100u /* operations a second */

enum { A, B, C, DISKS };

struct member {
    struct fake_io *fake;
    struct disk *disk;
    struct disk_filter filter;
    struct disk_request requests[REQUESTS];
    struct iovec iov[REQUESTS];
    unsigned submitted, admitted, done;
    char letter;
};

static struct fixture {
    struct loop loop;
    struct throttle_groups groups;
    struct member members[DISKS];
    char order[DISKS * REQUESTS + 1]; /* in which the disks got requests in */
    unsigned admitted;
} f;

static uint8_t data[UNIT];

/* Requests of a disk keep their order. */
static bool on_admitted(void *opaque, struct disk_request *request)
{
    struct member *member = opaque;
    assert_ptr_equal(request, &member->requests[member->admitted]);
    member->admitted++;
    f.order[f.admitted++] = member->letter;
    return false;
}

static void on_hold(void *opaque, bool is_held)
{
    (void)opaque, (void)is_held;
}

static void on_done(struct disk_request *request, int result)
{
    struct member *member = NULL;
    for (unsigned i = 0; i < DISKS; i++)
        if (request >= f.members[i].requests && request < f.members[i].requests + REQUESTS)
            member = &f.members[i];
    assert_non_null(member);
    assert_int_equal(result, 0);
    member->done++;
}

static void open_member(unsigned which)
{
    static uint8_t zeroes[DISK_BYTES];
    struct member *member = &f.members[which];
    const struct disk_options options = {.path = "disk", .format = "raw", .cache.writeback = true};
    member->letter = (char)('A' + which);
    member->fake = fake_io_create(&f.loop, DISK_BYTES, which + 1);
    fake_io_restart(member->fake, zeroes, DISK_BYTES);
    assert_int_equal(
        disk_open_file(&f.loop, &member->fake->file, NULL, &options, &member->disk, NULL), 0);
    member->filter = (struct disk_filter){on_admitted, NULL, on_hold, member};
    graph_set_filter(member->disk, &member->filter);
}

static int set_up(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    assert_int_equal(loop_init(&f.loop), 0);
    throttle_groups_init(&f.groups, &f.loop);
    for (unsigned i = 0; i < DISKS; i++)
        open_member(i);
    return 0;
}

static void close_member(unsigned which)
{
    if (f.members[which].disk)
        assert_int_equal(disk_close_wait(f.members[which].disk), 0);
    f.members[which].disk = NULL;
}

/* loop_fini finds timers that were forgotten. */
static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DISKS; i++) {
        close_member(i);
        fake_io_destroy(f.members[i].fake);
        assert_int_equal(f.members[i].done, f.members[i].submitted);
    }
    assert_true(list_is_empty(&f.groups.list));
    loop_run(&f.loop);
    loop_fini(&f.loop);
    return 0;
}

static void turn_until_done(unsigned which)
{
    while (f.members[which].done < f.members[which].submitted)
        loop_run_once(&f.loop, true);
}

static void submit(unsigned which, unsigned count, enum disk_op op)
{
    struct member *member = &f.members[which];
    for (; count; count--) {
        unsigned i = member->submitted++;
        member->iov[i] = (struct iovec){data, UNIT};
        member->requests[i] = (struct disk_request){.op = op,
                                                    .offset = i * UNIT,
                                                    .bytes = UNIT,
                                                    .iov = &member->iov[i],
                                                    .iov_count = 1,
                                                    .on_done = on_done};
        disk_submit(member->disk, &member->requests[i]);
    }
}

/* Until the buckets are full; tells how many went in before. */
static unsigned fill(unsigned which)
{
    while (!f.members[which].disk->throttle.waiting_count)
        submit(which, 1, DISK_WRITE);
    return f.admitted;
}

static struct throttle_limits rate(uint64_t operations)
{
    struct throttle_limits limits = throttle_no_limits;
    limits.bucket[THROTTLE_OPS_TOTAL].average = operations;
    return limits;
}

static void limit(unsigned which, const char *group, uint64_t operations)
{
    const struct throttle_limits limits = rate(operations);
    assert_int_equal(throttle_groups_join(&f.groups, f.members[which].disk, group, &limits), 0);
}

static uint64_t rate_of(unsigned which)
{
    return disk_get_limits(f.members[which].disk)->bucket[THROTTLE_OPS_TOTAL].average;
}

/* What waits is let in in turn: a disk with few requests is not behind one with many. */
static void test_disks_of_a_group_take_turns(void **state)
{
    (void)state;
    limit(A, "g", RATE);
    limit(B, "g", RATE);
    assert_int_equal(rate_of(A), RATE);
    unsigned at_once = fill(A);
    submit(A, 13, DISK_WRITE);
    submit(B, 5, DISK_WRITE);
    turn_until_done(B);
    turn_until_done(A);
    assert_string_equal(f.order + at_once, "BABABABABAAAAAAAAAA");
}

/* Three that wait, and one of them reads: it shares a bucket with the two others. */
static void test_reads_and_writes_of_three_disks(void **state)
{
    (void)state;
    limit(A, "g", RATE);
    limit(B, "g", RATE);
    limit(C, "g", RATE);
    unsigned at_once = fill(A);
    submit(A, 3, DISK_WRITE);
    submit(B, 4, DISK_WRITE);
    submit(C, 6, DISK_READ);
    for (unsigned i = 0; i < DISKS; i++)
        turn_until_done(i);
    assert_string_equal(f.order + at_once, "CBCACBCACBCABA");
}

/* A machine that stops lets all of a disk through; the others of its group go on waiting. */
static void test_a_disk_is_released_alone(void **state)
{
    (void)state;
    limit(A, "g", 1);
    limit(B, "g", 1);
    submit(A, 10, DISK_WRITE);
    submit(B, 10, DISK_READ);
    disk_release_delayed(f.members[A].disk);
    assert_int_equal(f.members[A].admitted, 10);
    assert_true(f.members[B].admitted < 10);
    disk_release_delayed(f.members[B].disk);
    turn_until_done(A);
    turn_until_done(B);
}

/* A disk that goes takes nothing along: neither its requests, nor the limits of those who stay. */
static void test_limits_outlive_a_member(void **state)
{
    (void)state;
    limit(A, "g", 1);
    limit(B, "g", 1);
    submit(A, 5, DISK_WRITE);
    submit(B, REQUESTS, DISK_WRITE);
    close_member(A);
    assert_int_equal(f.members[A].done, 5);
    assert_int_equal(rate_of(B), 1);
    assert_true(f.members[B].admitted < REQUESTS);
    assert_string_equal(disk_throttle_group(f.members[B].disk), "g");
    limit(B, "g", 100000);
    turn_until_done(B);
}

static void test_moving_with_requests_that_wait(void **state)
{
    (void)state;
    limit(A, "g", 1);
    limit(B, "g", 1);
    submit(A, 6, DISK_WRITE);
    submit(B, REQUESTS, DISK_WRITE);
    limit(A, "slow", 1);
    unsigned admitted = f.members[A].admitted;
    assert_true(admitted < 6);
    limit(A, "fast", 100000); /* the rest waits for a turn of the loop */
    assert_int_equal(f.members[A].admitted, admitted);
    turn_until_done(A);
    assert_true(f.members[B].admitted < REQUESTS);
    limit(B, "g", 0); /* no limits: all at once */
    assert_int_equal(f.members[B].admitted, REQUESTS);
    turn_until_done(B);
    assert_int_equal(rate_of(A), 100000);
}

/* New limits are for all members, and those who wait under the old ones wait no longer than that.
 */
static void test_new_limits_of_a_group(void **state)
{
    (void)state;
    limit(A, "g", 1);
    limit(B, "g", 1);
    submit(A, 6, DISK_WRITE);
    submit(B, 6, DISK_WRITE);
    const struct throttle_limits faster = rate(100000);
    assert_int_equal(disk_set_limits(f.members[B].disk, &faster), 0);
    assert_int_equal(rate_of(A), 100000);
    turn_until_done(A);
    turn_until_done(B);
    const struct throttle_limits none = rate(0);
    assert_int_equal(disk_set_limits(f.members[B].disk, &none), 0);
    assert_int_equal(rate_of(A), 100000);
    assert_int_equal(rate_of(B), 0);
    assert_null(disk_throttle_group(f.members[B].disk));
}

/* A quiet disk holds what its group lets in meanwhile. */
static void on_quiet(void *opaque)
{
    *(bool *)opaque = true;
}

static void test_a_quiet_disk_of_a_group(void **state)
{
    (void)state;
    bool is_quiet = false;
    limit(A, "g", RATE);
    limit(B, "g", RATE);
    fill(A);
    submit(A, 5, DISK_WRITE);
    submit(B, 5, DISK_WRITE);
    assert_int_equal(graph_quiesce(f.members[A].disk, on_quiet, &is_quiet), 0);
    while (!is_quiet)
        loop_run_once(&f.loop, true);
    unsigned done = f.members[A].done;
    turn_until_done(B);
    while (f.members[A].disk->throttle.waiting_count)
        loop_run_once(&f.loop, true);
    assert_int_equal(f.members[A].done, done);
    graph_resume(f.members[A].disk);
    turn_until_done(A);
}

/* As long as somebody uses it; its limits are those that were set last. */
static void test_a_group_lives_as_long_as_its_users(void **state)
{
    (void)state;
    struct throttle_group *object;
    assert_int_equal(throttle_groups_get(&f.groups, "g", &object), 0);
    const struct throttle_limits limits = rate(7);
    throttle_group_set(object, &limits);
    disk_set_throttle_group(f.members[A].disk, object);
    assert_int_equal(rate_of(A), 7);
    limit(B, "g", 9);
    assert_int_equal(rate_of(A), 9);
    assert_int_equal(object->users, 3);
    disk_set_throttle_group(f.members[A].disk, NULL);
    throttle_group_put(object);
    assert_ptr_equal(throttle_groups_find(&f.groups, "g"), object);
    disk_set_throttle_group(f.members[B].disk, NULL);
    assert_null(throttle_groups_find(&f.groups, "g"));
}

/* The handle of a limited disk goes when its image comes above another. */
static void on_quiet_to_push(void *opaque)
{
    struct error err = {0};
    assert_int_equal(graph_push(f.members[A].disk, f.members[B].disk, &err), 0);
    f.members[B].disk = NULL;
    graph_resume(f.members[A].disk);
    *(bool *)opaque = true;
}

static void test_a_limited_disk_becomes_an_overlay(void **state)
{
    (void)state;
    bool is_pushed = false;
    limit(A, "a", RATE);
    limit(B, "b", RATE);
    graph_set_filter(f.members[B].disk, NULL);
    assert_int_equal(graph_quiesce(f.members[A].disk, on_quiet_to_push, &is_pushed), 0);
    while (!is_pushed)
        loop_run_once(&f.loop, true);
    assert_null(throttle_groups_find(&f.groups, "b"));
    submit(A, 3, DISK_WRITE);
    turn_until_done(A);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_disks_of_a_group_take_turns),       TEST(test_reads_and_writes_of_three_disks),
        TEST(test_a_disk_is_released_alone),          TEST(test_limits_outlive_a_member),
        TEST(test_moving_with_requests_that_wait),    TEST(test_new_limits_of_a_group),
        TEST(test_a_quiet_disk_of_a_group),           TEST(test_a_group_lives_as_long_as_its_users),
        TEST(test_a_limited_disk_becomes_an_overlay),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
