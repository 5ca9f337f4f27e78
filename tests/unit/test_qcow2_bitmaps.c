/* SPDX-License-Identifier: MIT */
/*
 * Persistent bitmaps under power cuts: after every change that reaches the disk, some of what it
 * may have kept is looked at: the image is never corrupt, and a bitmap that is not marked as in use
 * says all that was written. And bits in memory, against an array of bools.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/dirty.h"
#include "disk/format.h"
#include "disk/qcow2/qcow2_bitmaps.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_create.h"
#include "tests/fake_io.h"
#include "tests/unit/test.h"

#define FILE_BYTES  (1u << 20)
#define DISK_BYTES  (1u << 20)
#define GRANULARITY 4096u
#define GRANULES    (DISK_BYTES / GRANULARITY)
#define CUTS        4

struct fixture {
    struct loop loop;
    struct fake_io *fake, *after; /* `after` is what a power cut left */
    struct io_ops ops;            /* the fake's, with power cuts after each change */
    struct disk *disk;
    uint8_t *medium;
    uint64_t random;
    bool dirty[GRANULES]; /* what "on" must know of */
    const char *backing;
    bool was_written; /* since it was opened */
    bool is_closing;
    unsigned looked_at, in_use, complete;
};

static struct fixture *cutting; /* whose power is being cut; NULL: nobody's */

/* --- what a power cut leaves --- */

static void check_bitmap(struct fixture *fixture, const struct dirty_bitmap *bitmap)
{
    bool records = !strcmp(bitmap->name, "on");
    if (bitmap->inconsistent) {
        fixture->in_use++;
        return;
    }
    fixture->complete++;
    assert_true(!fixture->was_written || fixture->is_closing);
    for (uint64_t i = 0; i < GRANULES; i++) {
        bool is_dirty;
        dirty_bitmap_run(bitmap, i * GRANULARITY, DISK_BYTES, &is_dirty);
        assert_int_equal(is_dirty, records && fixture->dirty[i]);
    }
}

static void look(struct fixture *fixture)
{
    const struct qcow2_check_options options = {.repair = QCOW2_REPAIR_NONE};
    struct qcow2_check_result result = {0};
    struct qcow2_header header;
    struct list bitmaps;
    struct error err = {0};
    struct io_file *file = &fixture->after->file;
    list_init(&bitmaps);
    assert_int_equal(qcow2_check(file, "after", &options, &result, &err), 0);
    assert_int_equal(result.corruptions + result.check_errors, 0);
    assert_int_equal(qcow2_header_read(file, "after", &header, &err), 0);
    assert_string_equal(header.backing_path, fixture->backing ? fixture->backing : "");
    assert_int_equal(qcow2_bitmaps_load(file, &header, DISK_BYTES, &bitmaps, &err), 0);
    for (struct list *node; (node = list_pop_front(&bitmaps));) {
        struct dirty_bitmap *bitmap = list_entry(node, struct dirty_bitmap, node);
        check_bitmap(fixture, bitmap);
        dirty_bitmap_destroy(bitmap);
    }
    qcow2_header_fini(&header);
    fixture->looked_at++;
}

static void cut_power(struct fixture *fixture)
{
    for (int i = 0; i < CUTS; i++) {
        uint64_t length = fake_io_power_cut(fixture->fake, &fixture->random, fixture->medium);
        fake_io_restart(fixture->after, fixture->medium, length);
        look(fixture);
    }
}

static void on_change(struct fake_io *fake, void *opaque)
{
    (void)fake;
    if (cutting)
        cut_power(opaque);
}

static const struct io_ops *fake_ops;

static int now_with_cuts(struct io_file *file, enum io_kind kind, void *buffer, uint64_t offset,
                         uint64_t bytes)
{
    int result = fake_ops->now(file, kind, buffer, offset, bytes);
    if (cutting && kind != IO_READ)
        cut_power(cutting);
    return result;
}

/* --- the image --- */

static void setup_image(struct fixture *fixture, uint64_t cluster_bytes, const char *backing)
{
    struct qcow2_create_options options;
    assert_int_equal(loop_init(&fixture->loop), 0);
    fixture->fake = fake_io_create(&fixture->loop, FILE_BYTES, 1);
    fixture->after = fake_io_create(&fixture->loop, FILE_BYTES, 2);
    fixture->medium = malloc(FILE_BYTES);
    fixture->random = 4711;
    qcow2_create_defaults(&options);
    options.size_bytes = DISK_BYTES;
    options.cluster_bytes = cluster_bytes;
    fixture->backing = options.backing_path = backing;
    options.backing_format = backing ? "raw" : NULL;
    assert_int_equal(qcow2_create(&fixture->fake->file, NULL, &options, NULL), 0);
    fake_io_settle(fixture->fake);
    fake_ops = fixture->fake->file.ops;
    fixture->ops = *fake_ops;
    fixture->ops.now = now_with_cuts;
    fixture->fake->file.ops = &fixture->ops;
    fixture->fake->on_change = on_change;
    fixture->fake->opaque = fixture;
}

static void open_image(struct fixture *fixture)
{
    const struct disk_options options = {.path = "image",
                                         .format = "qcow2",
                                         .discard_unmap = true,
                                         .no_backing = true,
                                         .cache.writeback = true};
    struct error err = {0};
    fixture->was_written = fixture->is_closing = false;
    assert_int_equal(
        disk_open_file(&fixture->loop, &fixture->fake->file, NULL, &options, &fixture->disk, &err),
        0);
}

static void close_image(struct fixture *fixture)
{
    fixture->is_closing = true;
    assert_int_equal(disk_close_wait(fixture->disk), 0);
    fake_io_settle(fixture->fake);
}

static void add(struct fixture *fixture, const char *name, bool records)
{
    struct dirty_bitmap *bitmap;
    assert_int_equal(disk_add_bitmap(fixture->disk, name, GRANULARITY, true, &bitmap, NULL), 0);
    bitmap->enabled = records;
}

static void change(struct fixture *fixture, enum disk_op op, uint64_t offset, uint64_t bytes)
{
    static uint8_t data[65536];
    struct iovec iov = {data, bytes};
    struct disk_request request = {
        .op = op, .offset = offset, .bytes = bytes, .iov = &iov, .iov_count = 1};
    fixture->was_written = true;
    for (uint64_t i = offset / GRANULARITY; i <= (offset + bytes - 1) / GRANULARITY; i++)
        fixture->dirty[i] = true;
    assert_int_equal(disk_run(fixture->disk, &request), 0);
}

static void one_life(struct fixture *fixture)
{
    static const enum disk_op ops[] = {DISK_WRITE, DISK_WRITE, DISK_ZERO, DISK_DISCARD};
    struct disk_request flush = {.op = DISK_FLUSH};
    cutting = fixture;
    open_image(fixture);
    for (size_t i = 0; i < 6; i++)
        change(fixture, ops[i % ARRAY_SIZE(ops)],
               fake_below(&fixture->random, DISK_BYTES / 512 - 64) * 512,
               512 * (1 + fake_below(&fixture->random, 64)));
    assert_int_equal(disk_run(fixture->disk, &flush), 0);
    close_image(fixture);
    cutting = NULL;
}

static void remove_all(struct fixture *fixture)
{
    cutting = fixture;
    open_image(fixture);
    for (struct list *node; (node = list_pop_front(disk_bitmaps(fixture->disk)));)
        dirty_bitmap_destroy(list_entry(node, struct dirty_bitmap, node));
    close_image(fixture);
    cutting = NULL;
}

static void check_cuts(uint64_t cluster_bytes, const char *backing)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    setup_image(fixture, cluster_bytes, backing);
    cutting = fixture;
    open_image(fixture);
    add(fixture, "on", true);
    add(fixture, "off", false);
    close_image(fixture);
    for (int lives = 0; lives < 3; lives++)
        one_life(fixture);
    unsigned complete = fixture->complete;
    cut_power(fixture); /* closed well: nothing is lost */
    assert_int_equal(fixture->complete, complete + 2 * CUTS);
    assert_true(fixture->looked_at > 100 && fixture->in_use > 100);
    remove_all(fixture);
    complete = fixture->complete;
    cut_power(fixture);
    assert_int_equal(fixture->complete, complete);
    fixture->fake->file.ops = fake_ops;
    fake_io_destroy(fixture->fake);
    fake_io_destroy(fixture->after);
    loop_run(&fixture->loop);
    loop_fini(&fixture->loop);
    free(fixture->medium);
    free(fixture);
}

static void test_power_cuts(void **state)
{
    (void)state;
    check_cuts(512, NULL);
    check_cuts(8192, NULL); /* the extension begins in the last 8 bytes of a sector */
}

/* With a backing format the extension about bitmaps lies in the header's second sector. */
static void test_power_cuts_in_two_sectors(void **state)
{
    (void)state;
    static char name[601]; /* over a sector's end, wherever it is */
    check_cuts(8192, "a-name-that-fills-the-header-up-to-where-it-hurts");
    memset(name, 'n', sizeof(name) - 1);
    check_cuts(4096, name);
    check_cuts(8192, name);
}

/* --- in memory --- */

static void check_against(const struct dirty_bitmap *bitmap, const bool *model, uint64_t size)
{
    uint64_t dirty_bytes = 0;
    for (uint64_t at = 0, end; at < size; at = end) {
        bool is_dirty;
        end = dirty_bitmap_run(bitmap, at, size, &is_dirty);
        assert_true(end > at && end <= size);
        for (uint64_t i = at / 512; i < (end + 511) / 512; i++)
            assert_int_equal(model[i], is_dirty);
        dirty_bytes += is_dirty ? align_up(end, 512) - at : 0;
    }
    assert_true(dirty_bitmap_count_bytes(bitmap) == dirty_bytes);
}

static void test_bits(void **state)
{
    enum { SIZE = 512 * 1000 + 100 };
    static bool model[1100];
    struct dirty_bitmap *bitmap, *copy;
    uint64_t random = 99, size = SIZE;
    uint8_t saved[256];
    (void)state;
    assert_int_equal(dirty_bitmap_create("b", SIZE, 9, &bitmap), 0);
    for (int turn = 0; turn < 300; turn++) {
        uint64_t offset = fake_below(&random, size);
        uint64_t bytes = 1 + fake_below(&random, MIN(size - offset, 30000));
        dirty_bitmap_mark(bitmap, offset, bytes);
        for (uint64_t i = offset / 512; i <= (offset + bytes - 1) / 512; i++)
            model[i] = true;
        check_against(bitmap, model, size);
        if (turn % 30 == 29) { /* shrink, grow again: what is new is clean */
            uint64_t less = 512 * (1 + fake_below(&random, 998));
            assert_int_equal(dirty_bitmap_resize(bitmap, less), 0);
            assert_int_equal(dirty_bitmap_resize(bitmap, SIZE), 0);
            memset(model + less / 512, 0, sizeof(model) - less / 512);
            check_against(bitmap, model, size);
        }
    }
    assert_int_equal(dirty_bitmap_create("c", SIZE, 9, &copy), 0);
    dirty_bitmap_save(bitmap, 0, saved, sizeof(saved));
    dirty_bitmap_load(copy, 0, saved, sizeof(saved));
    check_against(copy, model, size);
    dirty_bitmap_clear(copy);
    dirty_bitmap_merge(copy, bitmap);
    check_against(copy, model, size);
    dirty_bitmap_destroy(copy);
    dirty_bitmap_destroy(bitmap);
}

static void test_merge_of_granularities(void **state)
{
    struct dirty_bitmap *fine, *coarse;
    bool is_dirty;
    (void)state;
    assert_int_equal(dirty_bitmap_create("fine", 1u << 20, 9, &fine), 0);
    assert_int_equal(dirty_bitmap_create("coarse", 1u << 20, 16, &coarse), 0);
    assert_int_equal(dirty_bitmap_create("b", UINT64_MAX / 2, 9, &(struct dirty_bitmap *){0}),
                     -EFBIG);
    dirty_bitmap_mark(fine, 70000, 1);
    dirty_bitmap_merge(coarse, fine);
    assert_true(dirty_bitmap_run(coarse, 0, 1u << 20, &is_dirty) == 65536 && !is_dirty);
    assert_true(dirty_bitmap_run(coarse, 65536, 1u << 20, &is_dirty) == 131072 && is_dirty);
    dirty_bitmap_merge(fine, coarse);
    assert_true(dirty_bitmap_count_bytes(fine) == 65536);
    dirty_bitmap_destroy(fine);
    dirty_bitmap_destroy(coarse);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_merge_of_granularities),
        cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_power_cuts_in_two_sectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
