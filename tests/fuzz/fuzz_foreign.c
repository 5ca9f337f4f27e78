/* SPDX-License-Identifier: MIT */
/*
 * fuzz_foreign: a libFuzzer target: VDI, VMDK, VHD and VHDX images, each opened, read all over
 * through the driver and asked for its map, both ways compared, and checked. The mutator knows
 * where headers and tables are, puts values there that matter, and makes the checksums right again.
 *
 *   ninja build/tests/fuzz_foreign && build/tests/fuzz_foreign -max_len=65536 CORPUS
 */
#include <stdlib.h>
#include <string.h>

#include "disk/foreign/foreign_check.h"
#include "disk/foreign/vhdx.h"
#include "tests/fuzz/fuzz_disk.h"

#define READ_BYTES 65536u
#define READS_MAX  64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static const char *const formats[] = {"vdi", "vmdk", "vpc", "vhdx"};

/* --- reading --- */

static bool reads_zero(const uint8_t *data, size_t bytes)
{
    return !data[0] && !memcmp(data, data + 1, bytes - 1);
}

/* What the map calls zero reads as zeroes. */
static void compare(struct disk *disk, struct foreign *foreign, uint64_t offset)
{
    static uint8_t buffer[READ_BYTES];
    uint64_t bytes = MIN(READ_BYTES, disk_size_bytes(disk) - offset);
    struct iovec iov = {buffer, bytes};
    struct disk_request request = {
        .op = DISK_READ, .offset = offset, .bytes = bytes, .iov = &iov, .iov_count = 1};
    struct foreign_extent extent;
    memset(buffer, 0xa5, sizeof(buffer));
    int read = fuzz_run(disk, &request);
    int found = foreign_find(foreign, offset, offset + bytes, &extent);
    if (found) {
        CHECK(read && *foreign_problem(foreign));
        return;
    }
    CHECK(extent.bytes && extent.bytes <= bytes);
    if (!read && (extent.kind == FOREIGN_ZERO || extent.kind == FOREIGN_ABSENT))
        CHECK(reads_zero(buffer, extent.bytes));
}

static void read_all(struct disk *disk, struct foreign *foreign)
{
    uint64_t size = disk_size_bytes(disk);
    uint64_t step = align_down(size / READS_MAX, 512) + 512;
    for (uint64_t offset = 0; offset < size && offset + step > offset; offset += step)
        compare(disk, foreign, offset);
    if (size > 512)
        compare(disk, foreign, align_down(size - 1, 512));
}

static void on_message(void *opaque, const char *line)
{
    CHECK(*line);
    (void)opaque;
}

static void check(struct io_file *file, const char *format)
{
    const struct foreign_check_options options = {
        .path = "image", .format = format, .no_lock = true, .on_message = on_message};
    struct foreign_check_result result;
    struct error err = {0};
    if (foreign_check(file, &options, &result, &err))
        CHECK(*err.text);
}

static void try_image(const struct fuzz_input *input, const char *format)
{
    struct loop *loop = fuzz_loop();
    const struct disk_options options = {
        .path = "image", .format = format, .read_only = true, .no_lock = true};
    const struct foreign_options direct = {
        .path = "image", .format = format, .blocking = true, .no_lock = true};
    struct io_file *file = fuzz_file_open(loop, input->image, input->length, input->op_count);
    struct io_file *second = fuzz_file_open(loop, input->image, input->length, 0);
    struct error err = {0}, again = {0};
    struct disk *disk;
    struct foreign *foreign;
    int result = disk_open_file(loop, file, NULL, &options, &disk, &err);
    int found = foreign_open(loop, second, &direct, &foreign, &again);
    CHECK(result == found && !result == !*err.text);
    if (!result) {
        read_all(disk, foreign);
        check(second, format);
        foreign_close(foreign, NULL, NULL);
        CHECK(disk_close_wait(disk) == 0);
    } else {
        io_close(file, NULL, NULL);
        io_close(second, NULL, NULL);
    }
    for (int turn = 0; turn < 4; turn++)
        loop_run_once(loop, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input;
    fuzz_input_read(&input, data, size);
    try_image(&input, formats[input.kind % ARRAY_SIZE(formats)]);
    return 0;
}

/* --- mutating --- */

/* Places that matter in each format: a first byte, a size of value, and how many in a row. */
struct place {
    uint32_t at;
    uint8_t bytes;
    bool is_big;
    uint16_t count;
};

static const struct place vdi_places[] = {
    {0x4c, 4, false, 1},  {0x154, 4, false, 2}, {0x168, 4, false, 1}, {0x170, 8, false, 1},
    {0x178, 4, false, 3}, {0x1a8, 8, false, 4}, {512, 4, false, 128},
};
static const struct place vmdk_places[] = {
    {4, 4, false, 2},          {12, 8, false, 4},        {44, 4, false, 1},
    {48, 8, false, 3},         {77, 2, false, 1},        {512, 1, false, 512},
    {21 * 512, 4, false, 256}, {26 * 512, 4, false, 64}, {65536, 4, false, 4},
};
static const struct place vpc_places[] = {
    {16, 8, true, 1},       {40, 8, true, 2},       {56, 2, true, 2},     {60, 4, true, 1},
    {512 + 16, 8, true, 1}, {512 + 28, 4, true, 2}, {1536, 4, true, 128},
};
static const struct place vhdx_places[] = {
    {65536 + 8, 8, false, 1},       {65536 + 48, 8, false, 2},
    {65536 + 64, 2, false, 2},      {65536 + 68, 4, false, 1},
    {65536 + 72, 8, false, 1},      {196608 + 8, 4, false, 1},
    {196608 + 32, 8, false, 8},     {MIB, 4, false, 64},
    {2 * MIB, 8, false, 24},        {3 * MIB, 8, false, 32},
    {2 * MIB + 65536, 8, false, 8},
};

static const struct {
    const struct place *places;
    size_t count;
} tables[] = {
    {vdi_places, ARRAY_SIZE(vdi_places)},
    {vmdk_places, ARRAY_SIZE(vmdk_places)},
    {vpc_places, ARRAY_SIZE(vpc_places)},
    {vhdx_places, ARRAY_SIZE(vhdx_places)},
};

static uint32_t draw(unsigned *seed, uint32_t limit)
{
    *seed = *seed * 1103515245u + 12345;
    return (*seed >> 8) % limit;
}

static uint64_t draw_value(unsigned *seed, uint64_t old, uint64_t length)
{
    static const uint64_t values[] = {0,
                                      1,
                                      2,
                                      3,
                                      4,
                                      6,
                                      7,
                                      511,
                                      512,
                                      0xffff,
                                      0x7fffffff,
                                      0x80000000,
                                      0xfffffffe,
                                      0xffffffff,
                                      UINT64_MAX,
                                      UINT64_MAX / 2,
                                      UINT64_MAX - 511};
    switch (draw(seed, 6)) {
    case 0:
        return values[draw(seed, ARRAY_SIZE(values))];
    case 1:
        return old + draw(seed, 5) - 2;
    case 2:
        return length / 512 - draw(seed, 4) + 1;
    case 3:
        return old ^ UINT64_C(1) << draw(seed, 64);
    case 4:
        return old << draw(seed, 12);
    default:
        return length + draw(seed, 1024) - 512;
    }
}

static void set_value(uint8_t *at, const struct place *place, unsigned *seed, uint64_t length)
{
    uint64_t old = 0, value;
    for (unsigned i = 0; i < place->bytes; i++)
        old |= (uint64_t)at[place->is_big ? place->bytes - 1u - i : i] << (8 * i);
    value = draw_value(seed, old, length);
    for (unsigned i = 0; i < place->bytes; i++)
        at[place->is_big ? place->bytes - 1u - i : i] = (uint8_t)(value >> (8 * i));
}

static void fix_vhd(uint8_t *data, size_t bytes, size_t at)
{
    uint32_t sum = 0;
    store_be32(data + at, 0);
    for (size_t i = 0; i < bytes; i++)
        sum += data[i];
    store_be32(data + at, ~sum);
}

static void fix_checksums(struct fuzz_input *input)
{
    uint8_t *image = input->image;
    if (input->kind % 4 == 2) {
        fix_vhd(image, 512, 64);
        fix_vhd(image + 512, 1024, 36);
        if (input->length >= 512)
            fix_vhd(image + align_down(input->length - 1, 512), 512, 64);
    }
    if (input->kind % 4 != 3)
        return;
    for (uint32_t at = 65536; at <= 131072; at += 65536)
        store_le32(image + at + 4, vhdx_checksum(image + at, 4096, 4));
    for (uint32_t at = 196608; at <= 262144; at += 65536)
        store_le32(image + at + 4, vhdx_checksum(image + at, 65536, 4));
    uint32_t entry = load_le32(image + MIB + 8); /* the first of the log */
    if (entry && entry <= MIB)
        store_le32(image + MIB + 4, vhdx_checksum(image + MIB, entry, 4));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_input input;
    if (draw(&seed, 4) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    fuzz_input_read(&input, data, size);
    if (draw(&seed, 16) == 0)
        input.length = align_down(draw(&seed, (uint32_t)input.length + 1024), 512);
    for (uint32_t left = 1 + draw(&seed, 3); left; left--) {
        size_t format = input.kind % ARRAY_SIZE(tables);
        const struct place *place =
            &tables[format].places[draw(&seed, (uint32_t)tables[format].count)];
        uint64_t at = place->at + (uint64_t)draw(&seed, place->count) * place->bytes;
        if (at + place->bytes <= input.length)
            set_value(input.image + at, place, &seed, input.length);
    }
    if (draw(&seed, 8))
        fix_checksums(&input);
    size_t written = fuzz_input_write(&input, data, max_size);
    return written ? written : LLVMFuzzerMutate(data, size, max_size);
}
