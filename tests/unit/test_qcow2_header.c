/* SPDX-License-Identifier: MIT */
/* test_qcow2_header: every promise of a parsed header, under bytes that mean harm. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_header.h"

#define CLUSTER    65536u
#define FILE_BYTES (16u * CLUSTER)

/* A valid version 3 image of 1 GiB with backing file, as a struct. */
static struct qcow2_header sample(void)
{
    struct qcow2_header header = {
        .version = 3,
        .cluster_bits = 16,
        .size_bytes = 1 * GIB,
        .l1_entries = 2,
        .l1_offset = 3 * CLUSTER,
        .reftable_offset = 1 * CLUSTER,
        .reftable_clusters = 1,
        .refcount_order = 4,
        .has_backing = true,
        .has_backing_format = true,
    };
    memcpy(header.backing_path, "base.qcow2", sizeof("base.qcow2"));
    memcpy(header.backing_format, "qcow2", sizeof("qcow2"));
    return header;
}

static void serialise(struct qcow2_header *header, uint8_t *out)
{
    struct error err = {0};
    assert_int_equal(qcow2_header_serialise(header, out, &err), 0);
}

static int parse(const uint8_t *bytes, size_t length, struct qcow2_header *out, struct error *err)
{
    *err = (struct error){0};
    return qcow2_header_parse(bytes, length, FILE_BYTES, "disk.qcow2", out, err);
}

static void expect_refused(const uint8_t *bytes, const char *why)
{
    struct qcow2_header header;
    struct error err;
    int result = parse(bytes, CLUSTER, &header, &err);
    assert_true(result < 0);
    assert_int_equal(err.code, -result);
    assert_non_null(strstr(err.text, "Could not open 'disk.qcow2': "));
    if (!strstr(err.text, why))
        fail_msg("'%s' does not say '%s'", err.text, why);
    assert_null(strchr(err.text, '\n'));
}

static void test_round_trip(void **state)
{
    static uint8_t bytes[CLUSTER], again[CLUSTER];
    struct qcow2_header header = sample(), parsed;
    struct error err;
    header.has_bitmaps = true;
    header.autoclear = QCOW2_AUTOCLEAR_BITMAPS;
    header.bitmaps.count = 3;
    header.bitmaps.directory_bytes = 96;
    header.bitmaps.directory_offset = 5 * CLUSTER;
    serialise(&header, bytes);
    assert_int_equal(parse(bytes, CLUSTER, &parsed, &err), 0);
    assert_int_equal(parsed.size_bytes, header.size_bytes);
    assert_int_equal(parsed.l1_entries, 2);
    assert_int_equal(parsed.bitmaps.count, 3);
    assert_string_equal(parsed.backing_path, "base.qcow2");
    assert_string_equal(parsed.backing_format, "qcow2");
    serialise(&parsed, again);
    assert_memory_equal(bytes, again, CLUSTER);
    qcow2_header_fini(&parsed);
    (void)state;
}

static void test_version_2(void **state)
{
    static uint8_t bytes[CLUSTER];
    struct qcow2_header header = sample(), parsed;
    struct error err;
    header.version = 2;
    serialise(&header, bytes);
    assert_int_equal(header.header_length, 72);
    assert_int_equal(parse(bytes, CLUSTER, &parsed, &err), 0);
    assert_int_equal(parsed.refcount_order, 4);
    assert_string_equal(parsed.backing_format, "qcow2");
    qcow2_header_fini(&parsed);
    (void)state;
}

/* Fields and extensions that are not known come back as they were. */
static void test_unknown_is_kept(void **state)
{
    static uint8_t bytes[CLUSTER], again[CLUSTER];
    static const char unknown[] = "twenty bytes of data";
    struct qcow2_header header = sample(), parsed;
    struct error err;
    header.has_backing = header.has_backing_format = false;
    header.unknown_fields_bytes = 16;
    header.unknown_fields = (uint8_t *)"0123456789abcdef";
    uint8_t extension[32] = {0};
    store_be32(extension, 0x11223344);
    store_be32(extension + 4, 20);
    memcpy(extension + 8, unknown, 20);
    header.unknown_extensions = extension;
    header.unknown_extensions_bytes = sizeof(extension);
    serialise(&header, bytes);
    assert_int_equal(parse(bytes, CLUSTER, &parsed, &err), 0);
    assert_int_equal(parsed.header_length, 128);
    assert_int_equal(parsed.unknown_extensions_bytes, sizeof(extension));
    serialise(&parsed, again);
    assert_memory_equal(bytes, again, CLUSTER);
    qcow2_header_fini(&parsed);
    (void)state;
}

/* An image whose header ends at 104 keeps the extension that begins there. */
static void test_short_header_is_not_widened_in_place(void **state)
{
    static uint8_t bytes[CLUSTER];
    struct qcow2_header header = sample(), parsed;
    struct error err;
    header.has_backing = header.has_backing_format = false;
    serialise(&header, bytes);
    memmove(bytes + 104, bytes + 112, 1000);
    store_be32(bytes + QCOW2_OFF_HEADER_LENGTH, 104);
    assert_int_equal(parse(bytes, CLUSTER, &parsed, &err), 0);
    assert_int_equal(qcow2_fixed_bytes(&parsed), 104);
    uint8_t before[16];
    memcpy(before, bytes + 104, 16);
    parsed.incompatible |= QCOW2_INCOMPAT_DIRTY;
    qcow2_header_store_fixed(&parsed, bytes);
    assert_memory_equal(before, bytes + 104, 16);
    assert_int_equal(load_be64(bytes + QCOW2_OFF_INCOMPATIBLE), QCOW2_INCOMPAT_DIRTY);
    qcow2_header_fini(&parsed);
    (void)state;
}

static void test_names_that_do_not_fit(void **state)
{
    static uint8_t bytes[512];
    struct qcow2_header header = sample();
    struct error err = {0};
    header.cluster_bits = 9;
    memset(header.backing_path, 'x', 500);
    assert_int_equal(qcow2_header_serialise(&header, bytes, &err), -ENOSPC);
    (void)state;
}

struct damage {
    unsigned offset;
    unsigned width;
    uint64_t value;
    const char *why;
};

static const struct damage damages[] = {
    {QCOW2_OFF_MAGIC, 4, 0, "not in qcow2 format"},
    {QCOW2_OFF_VERSION, 4, 1, "Unsupported qcow2 version 1"},
    {QCOW2_OFF_VERSION, 4, 4, "Unsupported qcow2 version 4"},
    {QCOW2_OFF_CLUSTER_BITS, 4, 8, "Unsupported cluster size: 2^8"},
    {QCOW2_OFF_CLUSTER_BITS, 4, 22, "Unsupported cluster size"},
    {QCOW2_OFF_CLUSTER_BITS, 4, 0x80000010, "Unsupported cluster size"},
    {QCOW2_OFF_BACKING_OFFSET, 8, 8, "Invalid backing file offset"},
    {QCOW2_OFF_BACKING_OFFSET, 8, CLUSTER + 1, "Invalid backing file offset"},
    {QCOW2_OFF_BACKING_OFFSET, 8, UINT64_MAX, "Invalid backing file offset"},
    {QCOW2_OFF_BACKING_BYTES, 4, 1024, "Backing file name too long"},
    {QCOW2_OFF_BACKING_BYTES, 4, 1000, "NUL"},
    {QCOW2_OFF_BACKING_BYTES, 4, UINT32_MAX, "Backing file name too long"},
    {QCOW2_OFF_SIZE, 8, 1 * TIB, "L1 table is too small"},
    {QCOW2_OFF_SIZE, 8, 1 * GIB + 1, "multiple of 512"},
    {QCOW2_OFF_SIZE, 8, UINT64_MAX, "too big"},
    {QCOW2_OFF_SIZE, 8, UINT64_C(1) << 63, "too big"},
    {QCOW2_OFF_CRYPT_METHOD, 4, 3, "encryption"},
    {QCOW2_OFF_L1_SIZE, 4, 1, "L1 table is too small"},
    {QCOW2_OFF_L1_SIZE, 4, (32u << 20) / 8 + 1, "Active L1 table too large"},
    {QCOW2_OFF_L1_SIZE, 4, UINT32_MAX, "Active L1 table too large"},
    {QCOW2_OFF_L1_OFFSET, 8, 3 * CLUSTER + 8, "Active L1 table offset invalid"},
    {QCOW2_OFF_L1_OFFSET, 8, 0, "Active L1 table offset invalid"},
    {QCOW2_OFF_L1_OFFSET, 8, FILE_BYTES, "past the end"},
    {QCOW2_OFF_L1_OFFSET, 8, UINT64_C(0xffffffffffff0000), "Active L1 table offset invalid"},
    {QCOW2_OFF_REFTABLE_OFFSET, 8, 8, "Reference count table offset invalid"},
    {QCOW2_OFF_REFTABLE_OFFSET, 8, UINT64_C(0xffffffffffff0000), "offset invalid"},
    {QCOW2_OFF_REFTABLE_OFFSET, 8, FILE_BYTES, "past the end"},
    {QCOW2_OFF_REFTABLE_CLUSTERS, 4, 0, "does not contain a reference count table"},
    {QCOW2_OFF_REFTABLE_CLUSTERS, 4, 129, "Reference count table too large"},
    {QCOW2_OFF_REFTABLE_CLUSTERS, 4, UINT32_MAX, "Reference count table too large"},
    {QCOW2_OFF_SNAPSHOT_COUNT, 4, 65537, "Snapshot table too large"},
    {QCOW2_OFF_SNAPSHOT_COUNT, 4, 1, "Snapshot table offset invalid"},
    {QCOW2_OFF_SNAPSHOTS_OFFSET, 8, 512, "Snapshot table offset invalid"},
    {QCOW2_OFF_INCOMPATIBLE, 8, 1 << 5, "Unknown incompatible feature: 20"},
    {QCOW2_OFF_INCOMPATIBLE, 8, QCOW2_INCOMPAT_COMPRESSION, "must not be set"},
    {QCOW2_OFF_COMPRESSION_TYPE, 1, 1, "must be set"},
    {QCOW2_OFF_REFCOUNT_ORDER, 4, 7, "may not exceed 64 bits"},
    {QCOW2_OFF_REFCOUNT_ORDER, 4, UINT32_MAX, "may not exceed 64 bits"},
    {QCOW2_OFF_HEADER_LENGTH, 4, 0, "too short"},
    {QCOW2_OFF_HEADER_LENGTH, 4, 108, "multiple of 8"},
    {QCOW2_OFF_HEADER_LENGTH, 4, CLUSTER + 8, "exceeds cluster size"},
    {QCOW2_V3_BYTES + 4, 4, UINT32_MAX, "Header extension too large"},
    {QCOW2_V3_BYTES + 4, 4, 0x7ffffff8, "Header extension too large"},
    {QCOW2_V3_BYTES + 4, 4, 64, "Backing format name too long"},
};

static void test_damage(void **state)
{
    static uint8_t bytes[CLUSTER];
    for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
        const struct damage *damage = &damages[i];
        struct qcow2_header header = sample();
        serialise(&header, bytes);
        if (damage->width == 8)
            store_be64(bytes + damage->offset, damage->value);
        else if (damage->width == 4)
            store_be32(bytes + damage->offset, (uint32_t)damage->value);
        else
            bytes[damage->offset] = (uint8_t)damage->value;
        expect_refused(bytes, damage->why);
    }
    (void)state;
}

/* Adds an extension in front of the others. */
static void insert_extension(uint8_t *bytes, uint32_t type, const void *data, uint32_t length)
{
    uint32_t room = 8 + (length + 7) / 8 * 8;
    memmove(bytes + QCOW2_V3_BYTES + room, bytes + QCOW2_V3_BYTES, 4096);
    store_be32(bytes + QCOW2_V3_BYTES, type);
    store_be32(bytes + QCOW2_V3_BYTES + 4, length);
    memcpy(bytes + QCOW2_V3_BYTES + 8, data, length);
    store_be64(bytes + QCOW2_OFF_BACKING_OFFSET,
               load_be64(bytes + QCOW2_OFF_BACKING_OFFSET) + room);
}

static void test_bad_extensions(void **state)
{
    static uint8_t bytes[CLUSTER];
    static const struct {
        uint32_t type;
        uint32_t length;
        const char *data;
        const char *why;
    } cases[] = {
        {QCOW2_EXT_BACKING_FORMAT, 3, "raw", "appears twice"},
        {QCOW2_EXT_DATA_FILE, 4, "a\0b", "NUL"},
        {QCOW2_EXT_BITMAPS, 8, "01234567", "Invalid extension length"},
        {QCOW2_EXT_BITMAPS, 24, "\0\0\0\1\0\0\0\1...............", "Reserved field"},
        {QCOW2_EXT_BITMAPS, 24, "\0\0\0\0\0\0\0\0...............", "zero bitmaps"},
        {QCOW2_EXT_CRYPTO, 16, "0123456789abcdef", "LUKS"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct qcow2_header header = sample();
        serialise(&header, bytes);
        insert_extension(bytes, cases[i].type, cases[i].data, cases[i].length);
        expect_refused(bytes, cases[i].why);
    }
    (void)state;
}

/* The image's own table gives the name, whatever bytes stand in it. */
static void test_feature_names(void **state)
{
    static uint8_t bytes[CLUSTER];
    uint8_t names[96] = {0};
    struct qcow2_header header = sample();
    serialise(&header, bytes);
    names[1] = 40;
    memcpy(names + 2, "evil\nname", 9);
    names[48 + 1] = 41;
    memset(names + 50, 'n', 46);
    /* The last table counts; the one of our own comes after. */
    header.has_backing_format = false;
    header.cluster_bits = 16;
    memset(bytes + QCOW2_V3_BYTES, 0, 4096);
    store_be64(bytes + QCOW2_OFF_BACKING_OFFSET, 2048);
    memcpy(bytes + 2048, "base.qcow2", 10);
    insert_extension(bytes, QCOW2_EXT_FEATURE_NAMES, names, sizeof(names));
    store_be64(bytes + QCOW2_OFF_INCOMPATIBLE, UINT64_C(7) << 40);
    expect_refused(bytes, "evil?name, nnnn");
    expect_refused(bytes, "Unknown incompatible feature: 40000000000");
    (void)state;
}

/* Cut off anywhere it is refused or whole, and never read past its end (ASan watches). */
static void test_every_length(void **state)
{
    static uint8_t whole[CLUSTER];
    struct qcow2_header header = sample(), parsed;
    struct error err;
    serialise(&header, whole);
    size_t end = header.backing_offset + header.backing_bytes;
    for (size_t length = 0; length <= end + 8; length++) {
        uint8_t *bytes = malloc(length + 1);
        memcpy(bytes, whole, length);
        uint8_t *exact = realloc(bytes, length ? length : 1);
        int result = parse(exact, length, &parsed, &err);
        assert_true(length < end ? result < 0 : result == 0);
        if (!result)
            qcow2_header_fini(&parsed);
        free(exact);
    }
    (void)state;
}

static uint32_t random_next(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

/* What survives random damage keeps the promises of qcow2_header.h. */
static void test_random_damage(void **state)
{
    static uint8_t bytes[CLUSTER], again[CLUSTER];
    uint32_t seed = 12345;
    unsigned accepted = 0;
    for (unsigned round = 0; round < 20000; round++) {
        struct qcow2_header header = sample(), parsed;
        struct error err;
        serialise(&header, bytes);
        for (unsigned n = random_next(&seed) % 6 + 1; n; n--)
            bytes[random_next(&seed) % 600] = (uint8_t)random_next(&seed);
        if (parse(bytes, CLUSTER, &parsed, &err))
            continue;
        accepted++;
        uint64_t cluster = qcow2_cluster_bytes(&parsed);
        assert_true(is_aligned(parsed.l1_offset, cluster));
        assert_true(range_fits(parsed.l1_offset, parsed.l1_entries * UINT64_C(8), FILE_BYTES));
        assert_true(parsed.l1_entries >= qcow2_l1_entries_for(&parsed, parsed.size_bytes));
        assert_true(parsed.reftable_clusters && parsed.reftable_offset < FILE_BYTES);
        assert_true(strlen(parsed.backing_path) <= QCOW2_BACKING_PATH_MAX);
        assert_false(parsed.incompatible & ~QCOW2_INCOMPAT_KNOWN);
        if (cluster <= CLUSTER && !qcow2_header_serialise(&parsed, again, &err))
            assert_int_equal(load_be32(again), QCOW2_MAGIC);
        qcow2_header_fini(&parsed);
    }
    assert_true(accepted > 1000); /* else the test tests nothing */
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_unknown_is_kept),
        cmocka_unit_test(test_short_header_is_not_widened_in_place),
        cmocka_unit_test(test_names_that_do_not_fit),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_bad_extensions),
        cmocka_unit_test(test_feature_names),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_random_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
