/* SPDX-License-Identifier: MIT */
/*
 * fuzz_qcow2: a libFuzzer target: a qcow2 image and a list of operations on it. Whatever the image
 * says, nothing crashes or hangs; and if the checker found the image sound before the operations,
 * it finds it sound after them. The mutator knows the header, the tables and their entries.
 *
 *   ninja build/tests/fuzz_qcow2 && build/tests/fuzz_qcow2 -max_len=65536 CORPUS
 */
#include <stdlib.h>
#include <string.h>

#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_snapshot.h"
#include "tests/fuzz/fuzz_disk.h"

#define PATH           "image"
#define TRANSFER_BYTES 65536u
#define DISK_BYTES_MAX (64 * TIB) /* a resize goes no further */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

enum op {
    OP_READ,
    OP_WRITE,
    OP_ZERO,
    OP_UNMAP,
    OP_DISCARD,
    OP_FLUSH,
    OP_RESIZE,
    OP_SNAPSHOT, /* the image is closed, then create, apply or delete */
    OP_COUNT,
};

/* --- operations --- */

static void on_resized(void *opaque, int result, const struct error *err)
{
    (void)result;
    (void)err;
    *(bool *)opaque = true;
}

static void resize(struct disk *disk, uint64_t size_bytes)
{
    bool is_done = false;
    disk_resize(disk, size_bytes, on_resized, &is_done);
    unsigned turns = 0;
    while (!is_done) {
        CHECK(turns++ < 1000000);
        loop_run_once(fuzz_loop(), true);
    }
}

/* op, flags, 16 bits of length, 32 bits of offset in sectors; false if it is no matter of a disk */
static bool run_op(struct disk *disk, const uint8_t *op)
{
    static uint8_t buffer[TRANSFER_BYTES];
    uint64_t size = disk_size_bytes(disk);
    uint64_t offset = size ? load_le32(op + 4) % (size / 512 + 1) * 512 : 0;
    uint64_t bytes = MIN((load_le16(op + 2) % 128 + 1) * UINT64_C(512), size - offset);
    struct iovec iov = {buffer, bytes};
    struct disk_request request = {.offset = offset, .bytes = bytes, .iov = &iov, .iov_count = 1};
    static const enum disk_op kinds[] = {
        [OP_READ] = DISK_READ,  [OP_WRITE] = DISK_WRITE,     [OP_ZERO] = DISK_ZERO,
        [OP_UNMAP] = DISK_ZERO, [OP_DISCARD] = DISK_DISCARD, [OP_FLUSH] = DISK_FLUSH};
    unsigned kind = op[0] % OP_COUNT;
    if (kind == OP_SNAPSHOT)
        return false;
    if (kind == OP_RESIZE) {
        resize(disk,
               align_down(MIN(size / 2 + load_le32(op + 4) * UINT64_C(512), DISK_BYTES_MAX), 512));
        return true;
    }
    request.op = kinds[kind];
    if (kind == OP_UNMAP)
        request.flags = DISK_MAY_UNMAP;
    if (kind == OP_ZERO || kind == OP_UNMAP || kind == OP_DISCARD)
        request.bytes = MIN(load_le16(op + 2) * UINT64_C(4096), size - offset);
    memset(buffer, op[1], bytes);
    if (request.bytes || kind == OP_FLUSH)
        (void)!fuzz_run(disk, &request);
    return true;
}

static void snapshot_op(struct io_file *file, const uint8_t *op)
{
    static const char *const names[] = {"1", "2", "a"};
    const char *name = names[op[2] % ARRAY_SIZE(names)];
    struct error err = {0};
    switch (op[1] % 3) {
    case 0:
        (void)!qcow2_snapshot_create(file, PATH, name, &err);
        break;
    case 1:
        (void)!qcow2_snapshot_apply(file, PATH, name, &err);
        break;
    case 2:
        (void)!qcow2_snapshot_delete(file, PATH, name, &err);
        break;
    }
}

/* --- one input --- */

static void settle(void)
{
    for (int turn = 0; turn < 4; turn++)
        loop_run_once(fuzz_loop(), false);
}

/* A COPIED flag that is missing makes the next write copy, and that is all: one is missing where
 * two entries of the disk's own tables shared a cluster, and one of them has let go of it. */
static void count_harmless(void *opaque, const char *line)
{
    const char *count = strstr(line, " refcount=");
    if (strstr(line, "OFLAG_COPIED") && count && !strcmp(count, " refcount=1"))
        ++*(uint64_t *)opaque;
}

static bool is_sound(struct fuzz_input *input)
{
    uint64_t harmless = 0;
    const struct qcow2_check_options options = {.on_message = count_harmless, .opaque = &harmless};
    struct qcow2_check_result result = {0};
    struct error err = {0};
    struct io_file *file = fuzz_file_open(fuzz_loop(), input->image, input->length, 0);
    int failed = qcow2_check(file, PATH, &options, &result, &err);
    io_close(file, NULL, NULL);
    settle();
    return !failed && result.corruptions == harmless && !result.check_errors;
}

/* Runs operations up to one that wants the image closed; the index of the next. */
static uint32_t run_open(struct fuzz_input *input, uint32_t index, bool *is_usable)
{
    const struct disk_options options = {.path = PATH,
                                         .format = "qcow2",
                                         .no_lock = true,
                                         .read_only = input->kind & 1,
                                         .discard_unmap = input->kind & 2,
                                         .cache.writeback = !(input->kind & 4),
                                         .l2_cache_bytes = input->kind & 8 ? 65536 : 1024 * 1024};
    struct io_file *file = fuzz_file_open(fuzz_loop(), input->image, input->length, index + 1);
    struct error err = {0};
    struct disk *disk;
    int result = disk_open_file(fuzz_loop(), file, NULL, &options, &disk, &err);
    CHECK(!result == !*err.text);
    *is_usable = !result;
    if (result) {
        io_close(file, NULL, NULL);
        settle();
        return index;
    }
    for (; index < input->op_count; index++) {
        const uint8_t *op = input->ops + index * FUZZ_OP_BYTES;
        bool writes = op[0] % OP_COUNT != OP_READ && op[0] % OP_COUNT != OP_FLUSH;
        if (writes && disk_is_read_only(disk))
            continue;
        if (!run_op(disk, op))
            break;
    }
    struct disk_request flush = {.op = DISK_FLUSH};
    (void)!fuzz_run(disk, &flush);
    input->length = fuzz_file_contents(file, input->image, FUZZ_SECTORS_MAX * FUZZ_SECTOR);
    (void)!disk_close_wait(disk);
    settle();
    return index;
}

static void run_snapshot(struct fuzz_input *input, uint32_t index)
{
    struct io_file *file = fuzz_file_open(fuzz_loop(), input->image, input->length, 0);
    snapshot_op(file, input->ops + index * FUZZ_OP_BYTES);
    input->length = fuzz_file_contents(file, input->image, FUZZ_SECTORS_MAX * FUZZ_SECTOR);
    io_close(file, NULL, NULL);
    settle();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input;
    fuzz_input_read(&input, data, size);
    bool was_sound = is_sound(&input), is_usable = true;
    for (uint32_t index = 0; is_usable; index++) {
        index = run_open(&input, index, &is_usable);
        if (index >= input.op_count)
            break;
        if (is_usable)
            run_snapshot(&input, index);
    }
    /* More than fits an input may have been cut off. */
    if (was_sound && input.length < FUZZ_SECTORS_MAX * FUZZ_SECTOR)
        CHECK(is_sound(&input));
    return 0;
}

/* --- mutating --- */

static uint32_t draw(unsigned *seed, uint32_t limit)
{
    *seed = *seed * 1103515245u + 12345;
    return (*seed >> 8) % limit;
}

static uint64_t draw_entry(unsigned *seed, uint64_t old, uint64_t cluster, uint64_t length)
{
    uint64_t somewhere = draw(seed, (uint32_t)(length / cluster + 2)) * cluster;
    switch (draw(seed, 7)) {
    case 0:
        return old ^ UINT64_C(1) << draw(seed, 64);
    case 1:
        return somewhere | QCOW2_ENTRY_COPIED;
    case 2:
        return somewhere;
    case 3:
        return QCOW2_ENTRY_COMPRESSED | somewhere | (uint64_t)draw(seed, 256) << 54;
    case 4:
        return old | 1;
    case 5:
        return 0;
    default:
        return old + cluster * draw(seed, 3) - cluster;
    }
}

/* An entry of the table at `table`, if that lies in the image. */
static void mutate_entry(struct fuzz_input *input, uint64_t table, uint64_t cluster, unsigned *seed)
{
    uint64_t at = table + draw(seed, (uint32_t)MIN(cluster / 8, 64)) * UINT64_C(8);
    if (!range_fits(at, 8, input->length))
        return;
    store_be64(input->image + at,
               draw_entry(seed, load_be64(input->image + at), cluster, input->length));
}

static void mutate_header(struct fuzz_input *input, unsigned *seed)
{
    static const struct {
        uint8_t at, bytes;
    } fields[] = {{4, 4},  {8, 8},  {16, 4},  {20, 4},  {24, 8},  {32, 4}, {36, 4},
                  {40, 8}, {48, 8}, {56, 4},  {60, 4},  {64, 8},  {72, 8}, {80, 8},
                  {88, 8}, {96, 4}, {100, 4}, {104, 4}, {112, 4}, {116, 4}};
    unsigned field = draw(seed, ARRAY_SIZE(fields));
    uint8_t *at = input->image + fields[field].at;
    unsigned last = fields[field].bytes - 1u;
    switch (draw(seed, 4)) {
    case 0:
        at[last] = (uint8_t)(at[last] + draw(seed, 5) - 2);
        break;
    case 1:
        at[draw(seed, last + 1)] ^= (uint8_t)(1u << draw(seed, 8));
        break;
    case 2:
        memset(at, draw(seed, 2) ? 0xff : 0, last + 1);
        break;
    case 3:
        at[last - 1] = (uint8_t)draw(seed, 256);
        break;
    }
}

static uint64_t pointer_at(const struct fuzz_input *input, uint64_t at)
{
    return range_fits(at, 8, input->length) ? load_be64(input->image + at) & QCOW2_ENTRY_OFFSET_MASK
                                            : 0;
}

static void mutate_tables(struct fuzz_input *input, unsigned *seed)
{
    uint32_t bits = load_be32(input->image + 20);
    uint64_t cluster = UINT64_C(1) << (bits >= 9 && bits <= 21 ? bits : 16);
    uint64_t l1 = pointer_at(input, 40), reftable = pointer_at(input, 48);
    switch (draw(seed, 6)) {
    case 0:
        mutate_entry(input, l1, MIN(cluster, 64), seed);
        break;
    case 1:
        mutate_entry(input, reftable, MIN(cluster, 64), seed);
        break;
    case 2:
        mutate_entry(input, pointer_at(input, reftable), cluster, seed);
        break;
    case 3:
        mutate_entry(input, pointer_at(input, 64), cluster, seed);
        break;
    default:
        mutate_entry(input, pointer_at(input, l1 + draw(seed, 4) * UINT64_C(8)), cluster, seed);
        break;
    }
}

static void mutate_ops(struct fuzz_input *input, unsigned *seed)
{
    if (input->op_count < 40 && draw(seed, 2))
        input->op_count++;
    if (!input->op_count)
        return;
    uint8_t *op = input->ops + draw(seed, input->op_count) * FUZZ_OP_BYTES;
    op[0] = (uint8_t)draw(seed, OP_COUNT);
    op[1] = (uint8_t)draw(seed, 256);
    store_le16(op + 2, (uint16_t)draw(seed, 300));
    store_le32(op + 4, draw(seed, draw(seed, 4) ? 4096 : 0xffffff));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_input input;
    if (draw(&seed, 8) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    fuzz_input_read(&input, data, size);
    for (uint32_t left = 1 + draw(&seed, 3); left; left--) {
        uint32_t what = draw(&seed, 8);
        if (what < 4)
            mutate_ops(&input, &seed);
        else if (what < 7)
            mutate_tables(&input, &seed);
        else
            mutate_header(&input, &seed);
    }
    if (draw(&seed, 16) == 0)
        input.kind = (uint8_t)draw(&seed, 256);
    size_t written = fuzz_input_write(&input, data, max_size);
    return written ? written : LLVMFuzzerMutate(data, size, max_size);
}
