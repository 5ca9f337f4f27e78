/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_offline: what works on images that nothing has open: create, writer, check and repair,
 * snapshots, locks. Images are real files, unlinked at once.
 */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/io.h"
#include "disk/lock.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_create.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_pack.h"
#include "disk/qcow2/qcow2_refcount.h"
#include "disk/qcow2/qcow2_snapshot.h"
#include "disk/qcow2/qcow2_snapshots.h"
#include "disk/qcow2/qcow2_writer.h"

struct fixture {
    struct loop loop;
    struct io_file *file;
    char path[64];
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    const struct io_options options = {.aio = DISK_AIO_THREADS, .no_sync = true};
    struct error err = {0};
    *state = fixture;
    snprintf(fixture->path, sizeof(fixture->path), "/tmp/test_qcow2_XXXXXX");
    int fd = mkstemp(fixture->path);
    if (fd < 0 || loop_init(&fixture->loop))
        return -1;
    close(fd);
    return io_open(&fixture->loop, fixture->path, &options, &fixture->file, &err);
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    io_close_wait(fixture->file);
    loop_fini(&fixture->loop);
    unlink(fixture->path);
    free(fixture);
    return 0;
}

static void create(struct fixture *fixture, const struct qcow2_create_options *options)
{
    struct error err = {0};
    assert_int_equal(io_truncate_now(fixture->file, 0), 0);
    if (qcow2_create(fixture->file, NULL, options, &err))
        fail_msg("%s", err.text);
}

static struct qcow2_check_result check(struct fixture *fixture, enum qcow2_repair repair)
{
    const struct qcow2_check_options options = {.repair = repair};
    struct qcow2_check_result result;
    struct error err = {0};
    if (qcow2_check(fixture->file, "image", &options, &result, &err))
        fail_msg("%s", err.text);
    return result;
}

static void expect_clean(struct fixture *fixture)
{
    struct qcow2_check_result result = check(fixture, QCOW2_REPAIR_NONE);
    assert_int_equal(result.check_errors, 0);
    assert_int_equal(result.corruptions, 0);
    assert_int_equal(result.leaks, 0);
}

/* --- refcount entries --- */

static void test_refcount_widths(void **state)
{
    uint8_t block[512], expected[512 * 8];
    for (uint32_t order = 0; order <= 6; order++) {
        uint64_t count = qcow2_refcount_entries(9, order), max = qcow2_refcount_max(order);
        memset(block, 0xff, sizeof(block));
        for (uint64_t i = 0; i < count; i++) {
            expected[i] = (uint8_t)(i * 37 % 251);
            qcow2_refcount_set(block, order, i, expected[i] & max);
        }
        for (uint64_t i = 0; i < count; i++)
            assert_int_equal(qcow2_refcount_get(block, order, i), expected[i] & max);
    }
    /* The least significant bits of a byte come first. */
    block[0] = 0x21;
    assert_int_equal(qcow2_refcount_get(block, 2, 0), 1);
    assert_int_equal(qcow2_refcount_get(block, 2, 1), 2);
    (void)state;
}

/* --- create --- */

static void test_create(void **state)
{
    struct fixture *fixture = *state;
    static const uint64_t sizes[] = {0, 512, 65536, 3 * MIB + 512};
    for (uint32_t bits = 9; bits <= 21; bits += 3) {
        for (uint32_t width = 1; width <= 64; width *= 4) {
            for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                struct qcow2_create_options options;
                qcow2_create_defaults(&options);
                options.size_bytes = sizes[i];
                options.cluster_bytes = UINT64_C(1) << bits;
                options.refcount_width = width;
                create(fixture, &options);
                expect_clean(fixture);
                options.preallocation = QCOW2_PREALLOC_METADATA;
                options.extended_l2 = bits >= 14;
                create(fixture, &options);
                expect_clean(fixture);
            }
        }
    }
}

static void test_create_measures_itself(void **state)
{
    struct fixture *fixture = *state;
    struct qcow2_create_options options;
    struct error err = {0};
    uint64_t metadata = 0, length = 0;
    qcow2_create_defaults(&options);
    options.size_bytes = 5 * MIB;
    options.cluster_bytes = 512;
    assert_int_equal(qcow2_create_measure(&options, &metadata, &err), 0);
    options.preallocation = QCOW2_PREALLOC_METADATA;
    create(fixture, &options);
    assert_int_equal(io_length(fixture->file, &length), 0);
    assert_int_equal(length, metadata + 5 * MIB);
}

static void test_create_refuses(void **state)
{
    struct error err = {0};
    struct qcow2_create_options options;
    static const uint64_t bad_clusters[] = {0, 1, 256, 1000, 4 << 20, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(bad_clusters); i++) {
        qcow2_create_defaults(&options);
        options.cluster_bytes = bad_clusters[i];
        assert_int_equal(qcow2_create_check(&options, &err), -EINVAL);
    }
    struct fixture *fixture = *state;
    static const uint64_t bad_sizes[] = {UINT64_MAX, INT64_MAX, UINT64_C(1) << 50};
    for (size_t i = 0; i < ARRAY_SIZE(bad_sizes); i++) {
        qcow2_create_defaults(&options);
        options.cluster_bytes = 512;
        options.size_bytes = bad_sizes[i];
        err = (struct error){0};
        assert_int_equal(qcow2_create(fixture->file, NULL, &options, &err), -EFBIG);
    }
}

/* --- writer --- */

static uint32_t random_next(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

/* Places clusters of all kinds at random; the result is a clean image with that many of each. */
static void write_randomly(struct fixture *fixture, uint64_t cluster_bytes, uint64_t width,
                           bool extended, uint32_t seed)
{
    struct qcow2_create_options options;
    struct qcow2_writer *writer;
    struct error err = {0};
    uint64_t guest = 3000, plain = 0, packed = 0, host;
    qcow2_create_defaults(&options);
    options.cluster_bytes = cluster_bytes;
    options.size_bytes = guest * cluster_bytes;
    options.refcount_width = width;
    options.extended_l2 = extended;
    assert_int_equal(io_truncate_now(fixture->file, 0), 0);
    assert_int_equal(qcow2_writer_create(fixture->file, &options, &writer, &err), 0);
    for (uint64_t i = 0; i < guest; i++) {
        uint32_t choice = random_next(&seed) % 8;
        if (choice < 2) {
            assert_int_equal(qcow2_writer_place(writer, i, &host), 0);
            plain++;
        } else if (choice < 5) {
            uint64_t bytes = random_next(&seed) % (cluster_bytes - 1) + 1;
            assert_int_equal(qcow2_writer_place_packed(writer, i, bytes, &host), 0);
            packed++;
        } else if (choice < 6) {
            assert_int_equal(qcow2_writer_place_zero(writer, i), 0);
        }
    }
    assert_int_equal(qcow2_writer_finish(writer, &err), 0);
    qcow2_writer_destroy(writer);
    expect_clean(fixture);
    struct qcow2_check_result result = check(fixture, QCOW2_REPAIR_NONE);
    assert_int_equal(result.allocated_clusters, plain + packed);
    assert_int_equal(result.compressed_clusters, packed);
}

static void test_writer(void **state)
{
    for (uint64_t width = 1; width <= 64; width *= 2) {
        write_randomly(*state, 512, width, false, 1);
        write_randomly(*state, 4096, width, false, 2);
        write_randomly(*state, 16384, width, true, 3);
    }
}

static void test_unfinished_is_no_image(void **state)
{
    struct fixture *fixture = *state;
    struct qcow2_create_options options;
    struct qcow2_writer *writer;
    struct qcow2_header header;
    struct error err = {0};
    uint64_t host;
    qcow2_create_defaults(&options);
    options.size_bytes = 1 * GIB;
    options.cluster_bytes = 512;
    assert_int_equal(qcow2_writer_create(fixture->file, &options, &writer, &err), 0);
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(qcow2_writer_place(writer, i, &host), 0);
    qcow2_writer_destroy(writer);
    assert_int_equal(qcow2_header_read(fixture->file, "image", &header, &err), -EINVAL);
}

static void test_packer(void **state)
{
    static uint8_t in[65536], out[65536];
    for (int type = QCOW2_COMPRESSION_ZLIB; type <= QCOW2_COMPRESSION_ZSTD; type++) {
        if (!qcow2_pack_is_supported((enum qcow2_compression)type))
            continue;
        struct qcow2_packer *packer = qcow2_packer_create((enum qcow2_compression)type);
        assert_non_null(packer);
        memset(in, 'x', sizeof(in));
        size_t packed = qcow2_pack(packer, in, sizeof(in), out);
        assert_in_range(packed, 1, 1000);
        uint32_t seed = 9;
        for (size_t i = 0; i < sizeof(in); i++)
            in[i] = (uint8_t)(random_next(&seed) >> 11);
        assert_int_equal(qcow2_pack(packer, in, sizeof(in), out), 0);
        qcow2_packer_destroy(packer);
    }
    (void)state;
}

/* --- repair --- */

/* Any damage to the refcounts alone is repaired, and nothing else changes. */
static void test_repair_of_refcounts(void **state)
{
    struct fixture *fixture = *state;
    static uint8_t before[64 * 1024], after[64 * 1024];
    uint32_t seed = 77;
    for (unsigned round = 0; round < 200; round++) {
        struct qcow2_create_options options;
        qcow2_create_defaults(&options);
        options.size_bytes = 64 * 1024;
        options.cluster_bytes = round % 2 ? 512 : 4096;
        options.refcount_width = 1u << (random_next(&seed) % 7);
        options.preallocation = QCOW2_PREALLOC_METADATA;
        create(fixture, &options);
        struct qcow2_header header;
        struct error err = {0};
        assert_int_equal(qcow2_header_read(fixture->file, "image", &header, &err), 0);
        assert_int_equal(io_read_now(fixture->file, header.l1_offset, before, sizeof(before)), 0);
        uint64_t span = header.l1_offset - header.reftable_offset;
        for (unsigned n = random_next(&seed) % 20 + 1; n; n--) {
            uint8_t byte = (uint8_t)random_next(&seed);
            uint64_t at = header.reftable_offset + random_next(&seed) % span;
            assert_int_equal(io_write_now(fixture->file, at, &byte, 1), 0);
        }
        check(fixture, QCOW2_REPAIR_ALL);
        expect_clean(fixture);
        assert_int_equal(io_read_now(fixture->file, header.l1_offset, after, sizeof(after)), 0);
        assert_memory_equal(before, after, sizeof(before));
        qcow2_header_fini(&header);
    }
}

/* Damage anywhere: check and repair end, and a second repair finds no more to do. */
static void test_repair_of_anything(void **state)
{
    struct fixture *fixture = *state;
    uint32_t seed = 4711;
    for (unsigned round = 0; round < 50; round++) {
        const struct qcow2_check_options all = {.repair = QCOW2_REPAIR_ALL};
        struct qcow2_check_result first, second;
        struct error err = {0};
        uint64_t length;
        write_randomly(fixture, 512, 16, false, round + 1);
        assert_int_equal(io_length(fixture->file, &length), 0);
        for (unsigned n = random_next(&seed) % 8 + 1; n; n--) {
            uint8_t byte = (uint8_t)random_next(&seed);
            uint64_t at = n % 2 ? random_next(&seed) % length : random_next(&seed) % 512;
            assert_int_equal(io_write_now(fixture->file, at, &byte, 1), 0);
        }
        if (qcow2_check(fixture->file, "image", &all, &first, &err)) {
            assert_true(err.code != 0);
            continue;
        }
        assert_int_equal(qcow2_check(fixture->file, "image", &all, &second, &err), 0);
        assert_int_equal(second.leaks_fixed, 0);
        assert_true(second.corruptions <= first.corruptions);
    }
}

static void test_repair_now(void **state)
{
    struct fixture *fixture = *state;
    struct qcow2_create_options options;
    struct qcow2_header header;
    struct error err = {0};
    uint8_t zeroes[512] = {0}, dirty[8];
    qcow2_create_defaults(&options);
    options.size_bytes = 1 * MIB;
    create(fixture, &options);
    store_be64(dirty, QCOW2_INCOMPAT_DIRTY);
    assert_int_equal(io_write_now(fixture->file, QCOW2_OFF_INCOMPATIBLE, dirty, 8), 0);
    assert_int_equal(io_write_now(fixture->file, 2 * 65536, zeroes, sizeof(zeroes)), 0);
    assert_int_equal(qcow2_repair_now(fixture->file, "image", &err), 0);
    expect_clean(fixture);
    assert_int_equal(qcow2_header_read(fixture->file, "image", &header, &err), 0);
    assert_int_equal(header.incompatible, 0);
    qcow2_header_fini(&header);
}

/* --- a medium that cannot be read in one place --- */

static const struct io_ops *whole_ops;
static uint64_t unreadable_at;

static int read_around(struct io_file *file, enum io_kind kind, void *buffer, uint64_t offset,
                       uint64_t bytes)
{
    /* The header is read with much of what follows it, which is not looked at there. */
    bool is_struck = kind == IO_READ && offset == unreadable_at;
    return is_struck ? -EIO : whole_ops->now(file, kind, buffer, offset, bytes);
}

/* What a table refers to that cannot be read just now is not leaked. */
static void expect_untouched(struct fixture *fixture, uint64_t at)
{
    static const enum qcow2_repair repairs[] = {QCOW2_REPAIR_LEAKS, QCOW2_REPAIR_ALL};
    struct io_ops ops = *fixture->file->ops;
    whole_ops = fixture->file->ops;
    unreadable_at = at;
    ops.now = read_around;
    for (size_t i = 0; i < ARRAY_SIZE(repairs); i++) {
        const struct qcow2_check_options options = {.repair = repairs[i]};
        struct qcow2_check_result result;
        struct error err = {0};
        fixture->file->ops = &ops;
        assert_int_equal(qcow2_check(fixture->file, "image", &options, &result, &err), -EIO);
        fixture->file->ops = whole_ops;
        assert_non_null(strstr(err.text, "nothing is repaired"));
        expect_clean(fixture);
    }
}

static void test_repair_gives_nothing_away_that_it_cannot_see(void **state)
{
    struct fixture *fixture = *state;
    struct qcow2_header header;
    struct qcow2_snapshots snapshots;
    struct error err = {0};
    uint8_t entry[8];
    write_randomly(fixture, 4096, 16, false, 5);
    assert_int_equal(qcow2_snapshot_create(fixture->file, "image", "kept", &err), 0);
    assert_int_equal(qcow2_header_read(fixture->file, "image", &header, &err), 0);
    assert_int_equal(qcow2_snapshots_read(fixture->file, &header, &snapshots, &err), 0);
    assert_int_equal(io_read_now(fixture->file, header.l1_offset, entry, sizeof(entry)), 0);
    expect_untouched(fixture, load_be64(entry) & QCOW2_ENTRY_OFFSET_MASK);
    expect_untouched(fixture, header.l1_offset);
    expect_untouched(fixture, header.snapshots_offset);
    expect_untouched(fixture, snapshots.list[0].l1_offset);
    qcow2_snapshots_free(&snapshots);
    qcow2_header_fini(&header);
}

static unsigned reads_left;

static int fail_once(struct io_file *file, enum io_kind kind, void *buffer, uint64_t offset,
                     uint64_t bytes)
{
    if (kind == IO_READ && reads_left && !--reads_left)
        return -EIO;
    return whole_ops->now(file, kind, buffer, offset, bytes);
}

/* Whichever read fails, what it costs is space. */
static void test_new_widths_survive_one_read_that_fails(void **state)
{
    struct fixture *fixture = *state;
    struct io_ops ops = *fixture->file->ops;
    whole_ops = fixture->file->ops;
    ops.now = fail_once;
    for (unsigned n = 1, width = 5; n == 1 || !reads_left; n++, width = 11 - width) {
        struct error err = {0};
        write_randomly(fixture, 512, 16, false, n);
        reads_left = n;
        fixture->file->ops = &ops;
        int result = qcow2_check_set_refcount_order(fixture->file, "image", width, &err);
        fixture->file->ops = whole_ops;
        assert_true(!result || strstr(err.text, "'image'"));
        assert_int_equal(check(fixture, QCOW2_REPAIR_NONE).corruptions, 0);
    }
}

/* --- snapshots --- */

static size_t count_snapshots(struct fixture *fixture)
{
    struct qcow2_header header;
    struct qcow2_snapshots snapshots;
    struct error err = {0};
    assert_int_equal(qcow2_header_read(fixture->file, "image", &header, &err), 0);
    assert_int_equal(qcow2_snapshots_read(fixture->file, &header, &snapshots, &err), 0);
    size_t count = snapshots.count;
    qcow2_snapshots_free(&snapshots);
    qcow2_header_fini(&header);
    return count;
}

/* Small clusters and wide refcounts: the refcount table must move more than once. */
static void test_snapshots(void **state)
{
    struct fixture *fixture = *state;
    struct qcow2_create_options options;
    struct error err = {0};
    qcow2_create_defaults(&options);
    options.cluster_bytes = 512;
    options.refcount_width = 64;
    options.size_bytes = 2 * MIB;
    options.preallocation = QCOW2_PREALLOC_METADATA;
    create(fixture, &options);
    for (unsigned i = 0; i < 400; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%u", i);
        if (qcow2_snapshot_create(fixture->file, "image", name, &err))
            fail_msg("%s", err.text);
        if (i % 50 == 0)
            expect_clean(fixture);
    }
    assert_int_equal(count_snapshots(fixture), 400);
    expect_clean(fixture);
    assert_int_equal(qcow2_snapshot_apply(fixture->file, "image", "n7", &err), 0);
    expect_clean(fixture);
    for (unsigned i = 0; i < 400; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%u", i);
        assert_int_equal(qcow2_snapshot_delete(fixture->file, "image", name, &err), 0);
    }
    assert_int_equal(count_snapshots(fixture), 0);
    expect_clean(fixture);
    assert_int_equal(qcow2_snapshot_delete(fixture->file, "image", "n7", &err), -ENOENT);
}

/* Counted well, and still the next write to the disk would be a write into a snapshot's table. */
static void test_a_table_with_two_purposes(void **state)
{
    struct fixture *fixture = *state;
    struct qcow2_create_options options;
    struct qcow2_header header;
    struct error err = {0};
    uint8_t l1_offset[8], entry[8];
    qcow2_create_defaults(&options);
    options.size_bytes = 1 * MIB;
    create(fixture, &options);
    assert_int_equal(qcow2_snapshot_create(fixture->file, "image", "a", &err), 0);
    assert_int_equal(qcow2_header_read(fixture->file, "image", &header, &err), 0);
    assert_int_equal(io_read_now(fixture->file, header.snapshots_offset, l1_offset, 8), 0);
    store_be64(entry, header.l1_offset);
    assert_int_equal(io_write_now(fixture->file, load_be64(l1_offset), entry, 8), 0);
    for (unsigned round = 0; round < 2; round++)
        assert_int_equal(check(fixture, QCOW2_REPAIR_ALL).corruptions, 1);
    qcow2_header_fini(&header);
}

static void test_snapshot_overflow(void **state)
{
    struct fixture *fixture = *state;
    struct qcow2_create_options options;
    struct error err = {0};
    qcow2_create_defaults(&options);
    options.refcount_width = 1;
    options.size_bytes = 1 * MIB;
    options.preallocation = QCOW2_PREALLOC_METADATA;
    create(fixture, &options);
    assert_int_equal(qcow2_snapshot_create(fixture->file, "image", "a", &err), -EOVERFLOW);
    assert_int_equal(count_snapshots(fixture), 0);
    expect_clean(fixture);
}

static void test_empty_disk(void **state)
{
    struct fixture *fixture = *state;
    struct error err = {0};
    uint64_t length;
    write_randomly(fixture, 4096, 16, false, 5);
    assert_int_equal(qcow2_snapshot_empty_disk(fixture->file, "image", &err), 0);
    expect_clean(fixture);
    assert_int_equal(check(fixture, QCOW2_REPAIR_NONE).allocated_clusters, 0);
    assert_int_equal(io_length(fixture->file, &length), 0);
    assert_true(length < 20 * MIB);
}

/* --- locks --- */

static void test_locks(void **state)
{
    struct fixture *fixture = *state;
    struct error err = {0};
    int other = open(fixture->path, O_RDWR | O_CLOEXEC);
    unsigned read = LOCK_BIT(LOCK_PERM_CONSISTENT_READ), write = LOCK_BIT(LOCK_PERM_WRITE);
    assert_int_equal(lock_image(fixture->file, "image", true, &err), 0);
    assert_int_equal(lock_take(other, "image", read, write, &err), 0);
    assert_int_equal(lock_take(other, "image", read | write, 0, &err), -EAGAIN);
    assert_non_null(strstr(err.text, "Failed to get \"write\" lock"));
    err = (struct error){0};
    /* After a refusal nothing is held. */
    assert_int_equal(lock_image(fixture->file, "image", false, &err), 0);
    assert_int_equal(lock_take(other, "image", read, write, &err), -EAGAIN);
    assert_non_null(strstr(err.text, "Failed to get shared \"write\" lock"));
    assert_null(strchr(err.text, '\n'));
    err = (struct error){0};
    /* Going back to reading lets the other one in. */
    assert_int_equal(lock_image(fixture->file, "image", true, &err), 0);
    assert_int_equal(lock_take(other, "image", read, write, &err), 0);
    close(other);
    assert_int_equal(lock_image(fixture->file, "image", false, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refcount_widths),
        cmocka_unit_test(test_packer),
        cmocka_unit_test_setup_teardown(test_create, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_create_measures_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_create_refuses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unfinished_is_no_image, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_repair_of_refcounts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_repair_of_anything, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_repair_now, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_repair_gives_nothing_away_that_it_cannot_see, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_new_widths_survive_one_read_that_fails, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_snapshots, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_table_with_two_purposes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_snapshot_overflow, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_empty_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_locks, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
