/* SPDX-License-Identifier: MIT */
/* raw: an image that is its file's bytes. Requests map one to one; holes are the host's matter. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "disk/format.h"

#define RAW_SLOT_CHUNK 32

struct raw_slot {
    struct io_request io;
    struct loop_job job; /* STATUS */
    struct disk_request *request;
    struct raw *raw;
    struct list node; /* in raw->slots while free */
};

struct raw_chunk {
    struct raw_chunk *next;
    struct raw_slot slots[RAW_SLOT_CHUNK];
};

struct raw {
    struct node node;
    struct list slots;
    bool poisoned;            /* nothing may be written any more */
    bool unsynced;            /* something was written since the last barrier began */
    struct raw_chunk *chunks; /* grow to the greatest number of requests in flight, and stay */
    struct io_request resize;
    uint64_t new_size_bytes;
    void (*on_resized)(void *opaque, int result, const struct error *err);
    void (*on_closed)(void *opaque, int result);
    void *opaque;
};

static struct raw *raw_of(struct node *node)
{
    return container_of(node, struct raw, node);
}

static struct raw_slot *slot_get(struct raw *raw)
{
    if (list_is_empty(&raw->slots)) {
        struct raw_chunk *chunk = calloc(1, sizeof(*chunk));
        if (!chunk)
            return NULL;
        chunk->next = raw->chunks;
        raw->chunks = chunk;
        for (size_t i = 0; i < RAW_SLOT_CHUNK; i++) {
            chunk->slots[i].raw = raw;
            list_push_back(&raw->slots, &chunk->slots[i].node);
        }
    }
    return list_entry(list_pop_front(&raw->slots), struct raw_slot, node);
}

/* The host may have dropped what it could not write, and say yes the next time. */
static int note_barrier(struct raw *raw, int result)
{
    if (!result)
        return 0;
    if (!raw->poisoned)
        log_error("%s: the host could not bring data to the medium (%s); nothing more is written "
                  "to this image: check the host's disk",
                  raw->node.path, strerror(-result));
    raw->poisoned = true;
    return -EIO;
}

static void submit_barrier(struct raw *raw, struct io_request *io,
                           void (*on_done)(struct io_request *io, int result))
{
    *io = (struct io_request){.kind = IO_SYNC, .on_done = on_done};
    raw->unsynced = false;
    io_submit(raw->node.file, io);
}

static void on_io_done(struct io_request *io, int result)
{
    struct raw_slot *slot = container_of(io, struct raw_slot, io);
    struct disk_request *request = slot->request;
    bool is_barrier = io->kind == IO_SYNC;
    slot->raw->unsynced |= !is_barrier && io->kind != IO_READ;
    if (result == 0 && request->durable && !is_barrier) {
        submit_barrier(slot->raw, io, on_io_done);
        return;
    }
    if (is_barrier)
        result = note_barrier(slot->raw, result);
    list_push_front(&slot->raw->slots, &slot->node);
    node_complete(request, result);
}

static enum io_kind io_kind_of(const struct disk_request *request)
{
    switch (request->op) {
    case DISK_READ:
        return IO_READ;
    case DISK_WRITE:
        return IO_WRITE;
    case DISK_ZERO:
        return request->flags & DISK_MAY_UNMAP ? IO_PUNCH : IO_ZERO;
    case DISK_DISCARD:
        return IO_PUNCH;
    case DISK_FLUSH:
    case DISK_STATUS:
        break;
    }
    UNREACHABLE("others transfer nothing");
}

/* In the pool: the file system may have to look on the medium. */
static void find_extent(struct loop_job *job)
{
    struct raw_slot *slot = container_of(job, struct raw_slot, job);
    struct disk_request *request = slot->request;
    uint64_t end = request->offset + request->bytes;
    int fd = slot->raw->node.file->fd;
    off_t data = lseek(fd, (off_t)request->offset, SEEK_DATA), next = -1;
    request->extent.is_zero = data < 0 ? errno == ENXIO : (uint64_t)data > request->offset;
    if (request->extent.is_zero)
        next = data;
    else if (data >= 0)
        next = lseek(fd, (off_t)request->offset, SEEK_HOLE);
    if (next > (off_t)request->offset && (uint64_t)next < end)
        end = (uint64_t)next;
    request->extent.bytes = end - request->offset;
}

static void on_extent_found(struct loop_job *job)
{
    struct raw_slot *slot = container_of(job, struct raw_slot, job);
    list_push_front(&slot->raw->slots, &slot->node);
    node_complete(slot->request, 0);
}

static void submit_status(struct raw_slot *slot)
{
    struct raw *raw = slot->raw;
    slot->request->extent.is_absent = false;
    slot->job.work = find_extent;
    slot->job.on_done = on_extent_found;
    if (raw->node.file->fd >= 0) {
        loop_job_submit(raw->node.loop, &slot->job);
        return;
    }
    slot->request->extent.bytes = slot->request->bytes;
    slot->request->extent.is_zero = false;
    list_push_front(&raw->slots, &slot->node);
    node_complete_later(&raw->node, slot->request, 0);
}

static void raw_submit(struct node *node, struct disk_request *request)
{
    struct raw *raw = raw_of(node);
    bool is_read = request->op == DISK_READ || request->op == DISK_STATUS;
    struct raw_slot *slot = raw->poisoned && !is_read ? NULL : slot_get(raw);
    if (!slot) {
        node_complete_later(node, request, raw->poisoned ? -EIO : -ENOMEM);
        return;
    }
    slot->request = request;
    if (request->op == DISK_STATUS) {
        submit_status(slot);
        return;
    }
    if (request->op == DISK_FLUSH) {
        submit_barrier(raw, &slot->io, on_io_done);
        return;
    }
    slot->io = (struct io_request){
        .kind = io_kind_of(request),
        .offset = request->offset,
        .bytes = request->bytes,
        .iov = request->iov,
        .iov_count = request->iov_count,
        .on_done = on_io_done,
    };
    io_submit(node->file, &slot->io);
}

static void on_frozen(struct io_request *io, int result)
{
    struct raw *raw = container_of(io, struct raw, resize);
    result = note_barrier(raw, raw->poisoned ? -EIO : result);
    if (!result)
        raw->node.read_only = true;
    raw->on_closed(raw->opaque, result);
}

static void raw_freeze(struct node *node, void (*on_done)(void *opaque, int result), void *opaque)
{
    struct raw *raw = raw_of(node);
    raw->on_closed = on_done;
    raw->opaque = opaque;
    submit_barrier(raw, &raw->resize, on_frozen);
}

static void on_truncated(struct io_request *io, int result)
{
    struct raw *raw = container_of(io, struct raw, resize);
    raw->unsynced = true;
    if (result == 0)
        raw->node.size_bytes = raw->new_size_bytes;
    raw->on_resized(raw->opaque, result, NULL);
}

static void raw_resize(struct node *node, uint64_t size_bytes,
                       void (*on_done)(void *opaque, int result, const struct error *err),
                       void *opaque)
{
    struct raw *raw = raw_of(node);
    raw->new_size_bytes = size_bytes;
    raw->on_resized = on_done;
    raw->opaque = opaque;
    raw->resize =
        (struct io_request){.kind = IO_TRUNCATE, .offset = size_bytes, .on_done = on_truncated};
    io_submit(node->file, &raw->resize);
}

static void on_file_closed(void *opaque)
{
    struct raw *raw = opaque;
    void (*on_closed)(void *, int) = raw->on_closed;
    void *owner = raw->opaque;
    int result = raw->poisoned ? -EIO : 0;
    while (raw->chunks) {
        struct raw_chunk *chunk = raw->chunks;
        raw->chunks = chunk->next;
        free(chunk);
    }
    node_fini(&raw->node);
    free(raw);
    on_closed(owner, result);
}

static void on_close_synced(struct io_request *io, int result)
{
    struct raw *raw = container_of(io, struct raw, resize);
    unused_result(note_barrier(raw, result));
    io_close(raw->node.file, on_file_closed, raw);
}

static void raw_close(struct node *node, void (*on_closed)(void *opaque, int result), void *opaque)
{
    struct raw *raw = raw_of(node);
    raw->on_closed = on_closed;
    raw->opaque = opaque;
    if (raw->unsynced && !raw->poisoned)
        submit_barrier(raw, &raw->resize, on_close_synced);
    else
        io_close(node->file, on_file_closed, raw);
}

static int raw_open(struct loop *loop, struct io_file *file, const struct disk_options *options,
                    struct node **out, struct error *err)
{
    uint64_t length;
    int result = io_length(file, &length);
    if (result)
        return error_set_errno(err, -result, "cannot find the length of '%s'", options->path);
    struct raw *raw = calloc(1, sizeof(*raw));
    if (!raw || node_init(&raw->node, &raw_format, loop, file, options)) {
        free(raw);
        return error_set(err, ENOMEM, "no memory to open '%s'", options->path);
    }
    list_init(&raw->slots);
    /* Of a file that ends within a sector the rest of it reads as zeroes. */
    raw->node.size_bytes = align_up(length, 512);
    raw->node.discard_granularity = file->block_bytes;
    *out = &raw->node;
    return 0;
}

const struct format_ops raw_format = {
    .name = "raw",
    .has_status = true,
    .open = raw_open,
    .submit = raw_submit,
    .resize = raw_resize,
    .freeze = raw_freeze,
    .close = raw_close,
};
