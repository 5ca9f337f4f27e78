/* SPDX-License-Identifier: MIT */
#include "disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/format.h"
#include "disk/qcow2/qcow2_create.h"
#include "disk/qcow2/qcow2_header.h"
#include "tests/fake_io.h"
#include "tests/unit/test.h"

#define CLUSTER    65536u
#define DISK_BYTES (64 * MIB)
#define FILE_BYTES (16 * MIB)

struct fixture {
    struct loop loop;
    struct fake_io *fake;
    struct disk *disk;
    struct error err;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct qcow2_create_options options;
    assert_int_equal(loop_init(&fixture->loop), 0);
    fixture->fake = fake_io_create(&fixture->loop, FILE_BYTES, 1);
    qcow2_create_defaults(&options);
    options.size_bytes = DISK_BYTES;
    assert_int_equal(qcow2_create(&fixture->fake->file, NULL, &options, NULL), 0);
    fake_io_settle(fixture->fake);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    if (fixture->disk)
        unused_result(disk_close_wait(fixture->disk));
    fake_io_destroy(fixture->fake);
    loop_run(&fixture->loop);
    loop_fini(&fixture->loop);
    free(fixture);
    return 0;
}

static int open_image(struct fixture *fixture, bool read_only)
{
    struct disk_options options = {.path = "image",
                                   .format = "qcow2",
                                   .read_only = read_only,
                                   .discard_unmap = true,
                                   .cache.writeback = true};
    fixture->err.code = 0;
    return disk_open_file(&fixture->loop, &fixture->fake->file, NULL, &options, &fixture->disk,
                          &fixture->err);
}

static int run(struct fixture *fixture, enum disk_op op, uint64_t offset, uint64_t bytes, int value)
{
    uint8_t *data = malloc(MAX(bytes, 1));
    struct iovec iov = {data, bytes};
    struct disk_request request = {
        .op = op, .offset = offset, .bytes = bytes, .iov = &iov, .iov_count = 1};
    memset(data, op == DISK_READ ? ~value : value, bytes);
    int result = disk_run(fixture->disk, &request);
    for (uint64_t i = 0; op == DISK_READ && !result && i < bytes; i++)
        assert_int_equal(data[i], value);
    free(data);
    return result;
}

static uint64_t syncs(struct fixture *fixture)
{
    return fixture->fake->file.stats.syncs;
}

static void poke(struct fixture *fixture, uint64_t offset, uint64_t value, unsigned bits)
{
    uint8_t bytes[8];
    store_be64(bytes, value << (64 - bits));
    assert_int_equal(io_write_now(&fixture->fake->file, offset, bytes, bits / 8), 0);
    fake_io_settle(fixture->fake);
}

static uint64_t peek64(struct fixture *fixture, uint64_t offset)
{
    return load_be64(fixture->fake->cache + offset);
}

/* Where the L2 table of the first range is, after something was written there and flushed. */
static uint64_t make_l2(struct fixture *fixture)
{
    assert_int_equal(open_image(fixture, false), 0);
    assert_int_equal(run(fixture, DISK_WRITE, 0, CLUSTER, 'a'), 0);
    assert_int_equal(disk_close_wait(fixture->disk), 0);
    fixture->disk = NULL;
    uint64_t l1 = peek64(fixture, QCOW2_OFF_L1_OFFSET);
    return peek64(fixture, l1) & QCOW2_ENTRY_OFFSET_MASK;
}

static void test_an_allocating_flush_takes_two_barriers(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_image(fixture, false), 0);
    assert_int_equal(run(fixture, DISK_WRITE, 12345 * 512, 512, 'a'), 0);
    uint64_t before = syncs(fixture);
    assert_int_equal(run(fixture, DISK_FLUSH, 0, 0, 0), 0);
    assert_int_equal(syncs(fixture) - before, 2);
    /* In place: the data only. Nothing new: nothing. */
    assert_int_equal(run(fixture, DISK_WRITE, 12345 * 512, 512, 'b'), 0);
    assert_int_equal(run(fixture, DISK_FLUSH, 0, 0, 0), 0);
    assert_int_equal(syncs(fixture) - before, 3);
    assert_int_equal(run(fixture, DISK_FLUSH, 0, 0, 0), 0);
    assert_int_equal(syncs(fixture) - before, 3);
}

static void test_neighbours_are_one_host_operation(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_image(fixture, false), 0);
    uint64_t writes = fixture->fake->file.stats.writes, reads;
    assert_int_equal(run(fixture, DISK_WRITE, 3 * CLUSTER + 512, 20 * CLUSTER, 'a'), 0);
    assert_int_equal(fixture->fake->file.stats.writes - writes, 1);
    reads = fixture->fake->file.stats.reads;
    assert_int_equal(run(fixture, DISK_READ, 3 * CLUSTER + 512, 20 * CLUSTER, 'a'), 0);
    assert_int_equal(fixture->fake->file.stats.reads - reads, 1);
    /* What was never written costs nothing. */
    assert_int_equal(run(fixture, DISK_READ, 40 * CLUSTER, 8 * MIB, 0), 0);
    assert_int_equal(fixture->fake->file.stats.reads - reads, 1);
}

static void test_discard_gives_space_back_after_the_flush(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_image(fixture, false), 0);
    assert_int_equal(run(fixture, DISK_WRITE, 0, 4 * CLUSTER, 'a'), 0);
    assert_int_equal(run(fixture, DISK_FLUSH, 0, 0, 0), 0);
    uint64_t others = fixture->fake->file.stats.others;
    assert_int_equal(run(fixture, DISK_DISCARD, 512, 4 * CLUSTER - 512, 0), 0);
    assert_int_equal(run(fixture, DISK_READ, 0, CLUSTER, 'a'), 0);
    assert_int_equal(run(fixture, DISK_READ, CLUSTER, 3 * CLUSTER, 0), 0);
    assert_int_equal(fixture->fake->file.stats.others, others);
    assert_int_equal(run(fixture, DISK_FLUSH, 0, 0, 0), 0);
    for (int i = 0; i < 20; i++)
        loop_run_once(&fixture->loop, false);
    assert_int_equal(fixture->fake->file.stats.others, others + 1);
}

static void test_a_failed_barrier_poisons_the_image(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_image(fixture, false), 0);
    assert_int_equal(run(fixture, DISK_WRITE, 0, 512, 'a'), 0);
    fixture->fake->fault = (struct fake_fault){.result = -EIO, .kinds = 1u << IO_SYNC};
    assert_int_equal(run(fixture, DISK_FLUSH, 0, 0, 0), -EIO);
    assert_int_equal(run(fixture, DISK_FLUSH, 0, 0, 0), -EIO);
    assert_int_equal(run(fixture, DISK_WRITE, 0, 512, 'b'), -EIO);
    assert_int_equal(run(fixture, DISK_READ, 0, 512, 'a'), 0);
    assert_int_equal(disk_close_wait(fixture->disk), -EIO);
    fixture->disk = NULL;
}

static void test_a_failed_write_can_be_tried_again(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_image(fixture, false), 0);
    fixture->fake->fault = (struct fake_fault){.result = -ENOSPC, .kinds = 1u << IO_WRITE};
    assert_int_equal(run(fixture, DISK_WRITE, 0, 512, 'a'), -ENOSPC);
    assert_int_equal(run(fixture, DISK_READ, 0, 512, 0), 0);
    assert_int_equal(run(fixture, DISK_WRITE, 0, 512, 'b'), 0);
    fixture->fake->fault = (struct fake_fault){.result = -ENOSPC, .kinds = 1u << IO_WRITE};
    assert_int_equal(run(fixture, DISK_FLUSH, 0, 0, 0), -ENOSPC);
    assert_int_equal(run(fixture, DISK_FLUSH, 0, 0, 0), 0);
    assert_int_equal(run(fixture, DISK_READ, 0, 512, 'b'), 0);
}

static void test_refuses_what_it_does_not_know(void **state)
{
    struct fixture *fixture = *state;
    poke(fixture, QCOW2_OFF_INCOMPATIBLE, UINT64_C(1) << 40, 64);
    assert_true(open_image(fixture, true) < 0);
    assert_non_null(
        strstr(fixture->err.text, "10000000000")); /* as QEMU says it: the bit, in hex */
    poke(fixture, QCOW2_OFF_INCOMPATIBLE, QCOW2_INCOMPAT_DATA_FILE, 64);
    assert_true(open_image(fixture, true) < 0);
    poke(fixture, QCOW2_OFF_INCOMPATIBLE, 0, 64);
    poke(fixture, QCOW2_OFF_CRYPT_METHOD, QCOW2_CRYPT_LUKS, 32);
    assert_int_equal(open_image(fixture, true), -ENOTSUP);
    assert_non_null(strstr(fixture->err.text, "encrypted"));
}

static void test_a_corrupt_image_is_for_reading_only(void **state)
{
    struct fixture *fixture = *state;
    poke(fixture, QCOW2_OFF_INCOMPATIBLE, QCOW2_INCOMPAT_CORRUPT, 64);
    assert_int_equal(open_image(fixture, false), -EIO);
    assert_non_null(strstr(fixture->err.text, "check -r"));
    assert_int_equal(open_image(fixture, true), 0);
    assert_int_equal(run(fixture, DISK_READ, 0, 512, 0), 0);
}

static void test_unknown_autoclear_bits_go_when_it_may_be_written(void **state)
{
    struct fixture *fixture = *state;
    poke(fixture, QCOW2_OFF_AUTOCLEAR, 0x8001, 64);
    assert_int_equal(open_image(fixture, true), 0);
    assert_int_equal(disk_close_wait(fixture->disk), 0);
    assert_int_equal(peek64(fixture, QCOW2_OFF_AUTOCLEAR), 0x8001);
    assert_int_equal(open_image(fixture, false), 0);
    assert_int_equal(peek64(fixture, QCOW2_OFF_AUTOCLEAR), 0);
}

/* Entries that cannot be right: an error and the corrupt bit, never a crash or a guess. */
/* Whatever the entry is, and whether or not there is one. */
static void test_expecting_a_request_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    uint64_t l2 = make_l2(fixture);
    poke(fixture, l2 + 8, CLUSTER + 512, 64);
    assert_int_equal(open_image(fixture, false), 0);
    const struct io_stats *stats = &fixture->fake->file.stats;
    uint64_t reads = stats->reads;
    for (unsigned i = 0; i < 2; i++) {
        for (uint64_t offset = 0; offset < DISK_BYTES; offset += CLUSTER / 2)
            disk_expect(fixture->disk, offset);
        disk_expect(fixture->disk, DISK_BYTES);
        disk_expect(fixture->disk, UINT64_MAX);
        assert_int_equal(stats->reads, reads);
        /* Once more with the table resident. */
        assert_int_equal(run(fixture, DISK_READ, 0, CLUSTER, 'a'), 0);
        reads = stats->reads;
    }
    assert_int_equal(run(fixture, DISK_READ, CLUSTER, 512, 0), -EIO);
}

static void test_invalid_entries_are_errors(void **state)
{
    static const uint64_t entries[] = {
        QCOW2_ENTRY_COPIED | 0x50200,           /* no cluster begins there */
        QCOW2_ENTRY_COPIED | UINT64_C(1) << 58, /* reserved */
        QCOW2_ENTRY_COPIED | 0x50000 | 0x10,    /* reserved */
    };
    struct fixture *fixture = *state;
    uint64_t l2 = make_l2(fixture);
    for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
        poke(fixture, l2 + 8, entries[i], 64);
        assert_int_equal(open_image(fixture, false), 0);
        assert_int_equal(run(fixture, DISK_READ, CLUSTER, 512, 0), -EIO);
        assert_int_equal(run(fixture, DISK_READ, 0, CLUSTER, 'a'), 0);
        assert_int_equal(run(fixture, DISK_WRITE, 0, 512, 'b'), -EIO);
        assert_int_equal(disk_close_wait(fixture->disk), -EIO);
        fixture->disk = NULL;
        assert_int_equal(peek64(fixture, QCOW2_OFF_INCOMPATIBLE), QCOW2_INCOMPAT_CORRUPT);
        poke(fixture, QCOW2_OFF_INCOMPATIBLE, 0, 64);
    }
}

static void test_does_not_write_data_over_metadata(void **state)
{
    struct fixture *fixture = *state;
    uint64_t l2 = make_l2(fixture);
    uint64_t l1 = peek64(fixture, QCOW2_OFF_L1_OFFSET);
    uint64_t targets[] = {0 + CLUSTER, l1, l2};
    targets[0] = peek64(fixture, QCOW2_OFF_REFTABLE_OFFSET);
    for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
        uint64_t before = peek64(fixture, targets[i]);
        poke(fixture, l2 + 8, QCOW2_ENTRY_COPIED | targets[i], 64);
        assert_int_equal(open_image(fixture, false), 0);
        assert_int_equal(run(fixture, DISK_WRITE, CLUSTER, 512, 'x'), -EIO);
        assert_int_equal(disk_close_wait(fixture->disk), -EIO);
        fixture->disk = NULL;
        assert_int_equal(peek64(fixture, targets[i]), before);
        poke(fixture, QCOW2_OFF_INCOMPATIBLE, 0, 64);
    }
}

static void test_does_not_hand_out_clusters_in_use(void **state)
{
    struct fixture *fixture = *state;
    uint64_t block = peek64(fixture, peek64(fixture, QCOW2_OFF_REFTABLE_OFFSET));
    /* The header, the refcount tables and L1 are counted as free. */
    poke(fixture, block, 0, 64);
    assert_int_equal(open_image(fixture, false), 0);
    assert_int_equal(run(fixture, DISK_WRITE, 0, 512, 'x'), -EIO);
    assert_int_equal(load_be32(fixture->fake->cache), QCOW2_MAGIC);
}

static void test_rubbish_for_compressed_data_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    uint64_t l2 = make_l2(fixture);
    poke(fixture, l2 + 8, QCOW2_ENTRY_COMPRESSED | 0x50123, 64);
    assert_int_equal(open_image(fixture, false), 0);
    assert_int_equal(run(fixture, DISK_READ, CLUSTER, 512, 0), -EIO);
    /* Nothing is known to be wrong with the map: a write over it makes it good. */
    assert_int_equal(run(fixture, DISK_WRITE, CLUSTER, CLUSTER, 'y'), 0);
    assert_int_equal(run(fixture, DISK_READ, CLUSTER, CLUSTER, 'y'), 0);
}

static int make_file(const char *path, const char *backing, const char *format)
{
    struct loop loop;
    struct io_file *file;
    struct io_options io = {.read_only = false};
    struct qcow2_create_options options;
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(loop_init(&loop), 0);
    assert_int_equal(io_open(&loop, path, &io, &file, NULL), 0);
    qcow2_create_defaults(&options);
    options.size_bytes = MIB;
    options.backing_path = backing;
    options.backing_format = format;
    int result = qcow2_create(file, NULL, &options, NULL);
    io_close(file, NULL, NULL);
    loop_run(&loop);
    loop_fini(&loop);
    return result;
}

static int open_file(struct fixture *fixture, const char *path)
{
    struct disk_options options = {.path = path, .format = "qcow2", .cache.writeback = true};
    fixture->err.code = 0;
    return disk_open(&fixture->loop, &options, &fixture->disk, &fixture->err);
}

static void test_backing_chains(void **state)
{
    struct fixture *fixture = *state;
    char a[64] = "/tmp/test_qcow2.a.XXXXXX", b[64] = "/tmp/test_qcow2.b.XXXXXX";
    close(mkstemp(a));
    close(mkstemp(b));
    assert_int_equal(make_file(a, NULL, NULL), 0);
    assert_int_equal(make_file(b, a, "qcow2"), 0);
    assert_int_equal(open_file(fixture, b), 0);
    assert_string_equal(disk_path(disk_backing(fixture->disk)), a);
    assert_int_equal(run(fixture, DISK_READ, 0, MIB, 0), 0);
    assert_int_equal(disk_close_wait(fixture->disk), 0);
    fixture->disk = NULL;
    assert_int_equal(make_file(a, b, "qcow2"), 0);
    assert_int_equal(open_file(fixture, b), -ELOOP);
    assert_int_equal(make_file(a, "nbd:host:1", "raw"), 0);
    assert_true(open_file(fixture, b) < 0);
    assert_non_null(strstr(fixture->err.text, "nbd:host:1"));
    assert_int_equal(make_file(a, "/no/such/file", "raw"), 0);
    assert_int_equal(open_file(fixture, b), -ENOENT);
    assert_non_null(strstr(fixture->err.text, "/no/such/file"));
    unlink(a);
    unlink(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_allocating_flush_takes_two_barriers, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_neighbours_are_one_host_operation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard_gives_space_back_after_the_flush, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_barrier_poisons_the_image, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_write_can_be_tried_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refuses_what_it_does_not_know, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_corrupt_image_is_for_reading_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_autoclear_bits_go_when_it_may_be_written,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_expecting_a_request_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_invalid_entries_are_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_does_not_write_data_over_metadata, setup, teardown),
        cmocka_unit_test_setup_teardown(test_does_not_hand_out_clusters_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rubbish_for_compressed_data_is_an_error, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_backing_chains, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
