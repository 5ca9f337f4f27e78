/* SPDX-License-Identifier: MIT */
/* fuzz_disk: inputs as images, and files in memory that answer in an order drawn from a seed. */
#include "tests/fuzz/fuzz_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"

#define HEAD_BYTES  4u
#define PIECE_BYTES 3u

/* --- inputs --- */

void fuzz_input_read(struct fuzz_input *input, const uint8_t *data, size_t size)
{
    static uint8_t *image;
    static uint64_t used = FUZZ_SECTORS_MAX * FUZZ_SECTOR;
    if (!image)
        image = malloc(FUZZ_SECTORS_MAX * FUZZ_SECTOR);
    CHECK(image);
    memset(image, 0, used);
    memset(input, 0, sizeof(*input));
    input->image = image;
    used = 0;
    if (size < HEAD_BYTES)
        return;
    input->kind = data[0];
    input->length = MIN(load_le16(data + 1), FUZZ_SECTORS_MAX) * (uint64_t)FUZZ_SECTOR;
    size_t at = HEAD_BYTES;
    input->op_count = (uint32_t)MIN(data[3], (size - at) / FUZZ_OP_BYTES);
    memcpy(input->ops, data + at, input->op_count * FUZZ_OP_BYTES);
    at += input->op_count * FUZZ_OP_BYTES;
    while (size - at > PIECE_BYTES) {
        uint64_t sector = load_le16(data + at) % FUZZ_SECTORS_MAX;
        uint64_t bytes = data[at + 2] * (uint64_t)FUZZ_SECTOR;
        at += PIECE_BYTES;
        bytes = MIN(bytes, MIN(size - at, (FUZZ_SECTORS_MAX - sector) * FUZZ_SECTOR));
        memcpy(image + sector * FUZZ_SECTOR, data + at, bytes);
        used = MAX(used, sector * FUZZ_SECTOR + bytes);
        at += bytes;
    }
}

static bool is_empty(const uint8_t *sector)
{
    return !sector[0] && !memcmp(sector, sector + 1, FUZZ_SECTOR - 1);
}

size_t fuzz_input_write(const struct fuzz_input *input, uint8_t *data, size_t max_size)
{
    size_t at = HEAD_BYTES + input->op_count * FUZZ_OP_BYTES;
    uint32_t sectors = (uint32_t)(input->length / FUZZ_SECTOR);
    if (at > max_size)
        return 0;
    data[0] = input->kind;
    store_le16(data + 1, (uint16_t)sectors);
    data[3] = (uint8_t)input->op_count;
    memcpy(data + HEAD_BYTES, input->ops, input->op_count * FUZZ_OP_BYTES);
    for (uint32_t first = 0; first < sectors; first++) {
        uint32_t count = 0;
        while (first + count < sectors && count < 255 &&
               !is_empty(input->image + (uint64_t)(first + count) * FUZZ_SECTOR))
            count++;
        if (!count)
            continue;
        if (max_size - at < PIECE_BYTES + (size_t)count * FUZZ_SECTOR)
            return 0;
        store_le16(data + at, (uint16_t)first);
        data[at + 2] = (uint8_t)count;
        memcpy(data + at + PIECE_BYTES, input->image + (uint64_t)first * FUZZ_SECTOR,
               (size_t)count * FUZZ_SECTOR);
        at += PIECE_BYTES + (size_t)count * FUZZ_SECTOR;
        first += count;
    }
    return at;
}

/* --- files --- */

struct fuzz_file {
    struct io_file file;
    uint8_t *bytes;
    uint64_t length, room;
    uint64_t random;
    struct list queue;
    unsigned queued;
    struct loop_task run;
    bool is_closing;
    void (*on_closed)(void *opaque);
    void *opaque;
};

static struct fuzz_file *fuzz_file_of(struct io_file *file)
{
    return container_of(file, struct fuzz_file, file);
}

static bool make_room(struct fuzz_file *file, uint64_t length)
{
    if (length <= file->room)
        return true;
    uint64_t room = MAX(length, file->room * 2 + 65536);
    uint8_t *bytes = realloc(file->bytes, room);
    if (!bytes)
        return false;
    memset(bytes + file->room, 0, room - file->room);
    file->bytes = bytes;
    file->room = room;
    return true;
}

static void read_some(const struct fuzz_file *file, const struct io_request *request)
{
    uint64_t there = request->offset < file->length ? file->length - request->offset : 0;
    there = MIN(there, request->bytes);
    if (there)
        iov_write(request->iov, request->iov_count, 0, file->bytes + request->offset, there);
    iov_fill(request->iov, request->iov_count, there, 0, request->bytes - there);
}

static int write_some(struct fuzz_file *file, const struct io_request *request)
{
    if (!range_fits(request->offset, request->bytes, FUZZ_FILE_BYTES) ||
        !make_room(file, request->offset + request->bytes))
        return -ENOSPC;
    if (request->bytes)
        iov_read(request->iov, request->iov_count, 0, file->bytes + request->offset,
                 request->bytes);
    file->length = MAX(file->length, request->offset + request->bytes);
    return 0;
}

static int truncate_to(struct fuzz_file *file, uint64_t length)
{
    if (length > FUZZ_FILE_BYTES || !make_room(file, length))
        return -ENOSPC;
    if (length < file->length)
        memset(file->bytes + length, 0, file->length - length);
    file->length = length;
    return 0;
}

static int execute(struct fuzz_file *file, const struct io_request *request)
{
    switch (request->kind) {
    case IO_READ:
        read_some(file, request);
        return 0;
    case IO_WRITE:
        return write_some(file, request);
    case IO_TRUNCATE:
        return truncate_to(file, request->offset);
    case IO_ZERO:
    case IO_PUNCH:
        if (request->offset < file->length)
            memset(file->bytes + request->offset, 0,
                   MIN(request->bytes, file->length - request->offset));
        return 0;
    case IO_SYNC:
        return 0;
    }
    return -EINVAL;
}

static void on_run(struct loop_task *task)
{
    struct fuzz_file *file = container_of(task, struct fuzz_file, run);
    for (unsigned budget = 4; file->queued && budget; budget--) {
        file->random = file->random * UINT64_C(6364136223846793005) + 1442695040888963407;
        struct list *node = file->queue.next;
        for (uint64_t skip = (file->random >> 33) % file->queued; skip; skip--)
            node = node->next;
        struct io_request *request = list_entry(node, struct io_request, node);
        list_remove(node);
        file->queued--;
        request->on_done(request, execute(file, request));
    }
    if (file->queued) {
        loop_task_queue(&file->run);
    } else if (file->is_closing) {
        void (*on_closed)(void *) = file->on_closed;
        void *opaque = file->opaque;
        loop_task_cancel(&file->run); /* a completion may have queued it again */
        free(file->bytes);
        free(file);
        if (on_closed)
            on_closed(opaque);
    }
}

static void file_submit(struct io_file *io, struct io_request *request)
{
    struct fuzz_file *file = fuzz_file_of(io);
    list_push_back(&file->queue, &request->node);
    file->queued++;
    loop_task_queue(&file->run);
}

static int file_now(struct io_file *io, enum io_kind kind, void *buffer, uint64_t offset,
                    uint64_t bytes)
{
    struct iovec iov = {buffer, bytes};
    const struct io_request request = {
        .kind = kind, .offset = offset, .bytes = bytes, .iov = &iov, .iov_count = buffer ? 1 : 0};
    return execute(fuzz_file_of(io), &request);
}

static int file_length(struct io_file *io, uint64_t *length_bytes)
{
    *length_bytes = fuzz_file_of(io)->length;
    return 0;
}

static void file_close(struct io_file *io, void (*on_closed)(void *opaque), void *opaque)
{
    struct fuzz_file *file = fuzz_file_of(io);
    CHECK(!file->queued);
    file->is_closing = true;
    file->on_closed = on_closed;
    file->opaque = opaque;
    loop_task_queue(&file->run);
}

struct io_file *fuzz_file_open(struct loop *loop, const uint8_t *bytes, uint64_t length,
                               uint64_t seed)
{
    static const struct io_ops ops = {
        .submit = file_submit, .now = file_now, .length = file_length, .close = file_close};
    struct fuzz_file *file = calloc(1, sizeof(*file));
    CHECK(file && make_room(file, length));
    if (length)
        memcpy(file->bytes, bytes, length);
    file->file = (struct io_file){.ops = &ops, .loop = loop, .fd = -1, .block_bytes = 4096};
    file->length = length;
    file->random = seed;
    list_init(&file->queue);
    loop_task_init(loop, &file->run, LOOP_STAGE_SUBMIT, on_run);
    return &file->file;
}

uint64_t fuzz_file_contents(struct io_file *io, uint8_t *bytes, uint64_t room)
{
    const struct fuzz_file *file = fuzz_file_of(io);
    uint64_t length = MIN(file->length, room);
    memset(bytes, 0, room);
    if (length)
        memcpy(bytes, file->bytes, length);
    return length;
}

/* --- running --- */

struct loop *fuzz_loop(void)
{
    static struct loop loop;
    static bool is_ready;
    if (!is_ready)
        CHECK(loop_init(&loop) == 0);
    is_ready = true;
    return &loop;
}

static void on_done(struct disk_request *request, int result)
{
    (void)request;
    (void)result;
}

int fuzz_run(struct disk *disk, struct disk_request *request)
{
    request->on_done = on_done;
    disk_submit(disk, request);
    /* Compression in the pool makes a turn wait; nothing makes it wait for long. */
    for (unsigned turns = 0; request->disk; turns++) {
        CHECK(turns < 1000000);
        loop_run_once(fuzz_loop(), true);
    }
    return request->result;
}
