/* SPDX-License-Identifier: MIT */
/*
 * foreign_node: the block driver over a foreign image. A request is a cursor: it asks where its
 * next piece lies, reads it into the caller's memory, and goes on; requests run side by side.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "base/limits.h"
#include "base/log.h"
#include "disk/foreign/foreign_codec.h"
#include "disk/foreign/foreign_private.h"
#include "disk/format.h"

#define SLOT_CHUNK 8

struct slot {
    struct foreign_node *owner;
    struct list node; /* owner->slots while free */
    struct disk_request *request;
    uint64_t cursor, end;
    uint64_t reading; /* bytes of the piece that io reads */
    bool in_submit;   /* must not complete yet */
    struct foreign_waiter waiter;
    struct io_request io;
    struct iovec iov[DISK_REQUEST_IOV_MAX];
};

struct chunk {
    struct chunk *next;
    struct slot slots[SLOT_CHUNK];
};

struct foreign_node {
    struct node node;
    struct foreign *foreign;
    struct foreign_codecs *codecs;
    struct list slots;
    struct chunk *chunks; /* grow to the greatest number of requests in flight, and stay */
    void (*on_closed)(void *opaque, int result);
    void *opaque;
};

static void pump(struct slot *slot);

static struct foreign_node *foreign_node_of(struct node *node)
{
    return container_of(node, struct foreign_node, node);
}

static void on_woken(struct foreign_waiter *waiter, int result);
static void on_read(struct io_request *io, int result);

static struct slot *slot_get(struct foreign_node *owner)
{
    if (list_is_empty(&owner->slots)) {
        struct chunk *chunk = calloc(1, sizeof(*chunk));
        if (!chunk)
            return NULL;
        chunk->next = owner->chunks;
        owner->chunks = chunk;
        for (size_t i = 0; i < SLOT_CHUNK; i++) {
            chunk->slots[i].owner = owner;
            chunk->slots[i].waiter.wake = on_woken;
            list_push_back(&owner->slots, &chunk->slots[i].node);
        }
    }
    return list_entry(list_pop_front(&owner->slots), struct slot, node);
}

static void finish(struct slot *slot, int result)
{
    struct foreign_node *owner = slot->owner;
    struct disk_request *request = slot->request;
    list_push_front(&owner->slots, &slot->node);
    if (slot->in_submit)
        node_complete_later(&owner->node, request, result);
    else
        node_complete(request, result);
}

static void on_woken(struct foreign_waiter *waiter, int result)
{
    struct slot *slot = container_of(waiter, struct slot, waiter);
    if (result == -EIO)
        log_limited("image '%s': a table or a compressed grain cannot be read; take another copy "
                    "of it",
                    slot->owner->node.path);
    if (result)
        finish(slot, result);
    else
        pump(slot);
}

static void on_read(struct io_request *io, int result)
{
    struct slot *slot = container_of(io, struct slot, io);
    slot->cursor += slot->reading;
    if (result)
        finish(slot, result);
    else
        pump(slot);
}

static void start_read(struct slot *slot, const struct foreign_extent *extent)
{
    const struct disk_request *request = slot->request;
    slot->reading = extent->bytes;
    size_t count = iov_slice(slot->iov, ARRAY_SIZE(slot->iov), request->iov, request->iov_count,
                             slot->cursor - request->offset, extent->bytes);
    slot->io = (struct io_request){
        .kind = IO_READ,
        .offset = extent->host_offset,
        .bytes = extent->bytes,
        .iov = slot->iov,
        .iov_count = count,
        .on_done = on_read,
    };
    io_submit(extent->file, &slot->io);
}

/* 0 if the piece is there now; -EINPROGRESS if the slot will go on by itself; or -errno. */
static int read_piece(struct slot *slot, const struct foreign_extent *extent)
{
    struct foreign_node *owner = slot->owner;
    const struct disk_request *request = slot->request;
    const uint8_t *plain;
    int result = 0;
    size_t at = slot->cursor - request->offset;
    switch (extent->kind) {
    case FOREIGN_ABSENT:
    case FOREIGN_ZERO:
        iov_fill(request->iov, request->iov_count, at, 0, extent->bytes);
        break;
    case FOREIGN_DATA:
        start_read(slot, extent);
        return -EINPROGRESS;
    case FOREIGN_PACKED:
        result = foreign_codec_get(owner->codecs, extent, &slot->waiter, &plain);
        if (!result)
            iov_write(request->iov, request->iov_count, at,
                      plain + (slot->cursor - extent->grain_offset), extent->bytes);
        break;
    }
    if (!result)
        slot->cursor += extent->bytes;
    return result;
}

static void answer_status(struct slot *slot, const struct foreign_extent *extent)
{
    slot->request->extent.bytes = extent->bytes;
    slot->request->extent.is_zero = extent->kind == FOREIGN_ABSENT || extent->kind == FOREIGN_ZERO;
    slot->cursor = slot->end;
}

static void pump(struct slot *slot)
{
    struct foreign *foreign = slot->owner->foreign;
    int result = 0;
    while (!result && slot->cursor < slot->end) {
        struct foreign_extent extent;
        result = foreign_find(foreign, slot->cursor, slot->end, &extent);
        if (result == -EINPROGRESS) {
            foreign_pages_wait(foreign, &slot->waiter);
            return;
        }
        if (result)
            log_limited("%s", foreign_problem(foreign));
        else if (slot->request->op == DISK_STATUS)
            answer_status(slot, &extent);
        else
            result = read_piece(slot, &extent);
    }
    if (result != -EINPROGRESS)
        finish(slot, result);
}

static void foreign_submit(struct node *node, struct disk_request *request)
{
    struct foreign_node *owner = foreign_node_of(node);
    if (request->op != DISK_READ && request->op != DISK_STATUS) {
        node_complete_later(node, request, request->op == DISK_FLUSH ? 0 : -EROFS);
        return;
    }
    struct slot *slot = slot_get(owner);
    if (!slot) {
        node_complete_later(node, request, -ENOMEM);
        return;
    }
    slot->request = request;
    slot->cursor = request->offset;
    slot->end = request->offset + request->bytes;
    slot->in_submit = true;
    pump(slot);
    slot->in_submit = false;
}

static void foreign_resize(struct node *node, uint64_t size_bytes,
                           void (*on_done)(void *opaque, int result, const struct error *err),
                           void *opaque)
{
    (void)node;
    (void)size_bytes;
    (void)on_done;
    (void)opaque;
    UNREACHABLE("an image that is read-only is not resized");
}

static void free_node(struct foreign_node *owner)
{
    while (owner->chunks) {
        struct chunk *chunk = owner->chunks;
        owner->chunks = chunk->next;
        free(chunk);
    }
    foreign_codecs_destroy(owner->codecs);
    free(owner);
}

static void on_foreign_closed(void *opaque)
{
    struct foreign_node *owner = opaque;
    void (*on_closed)(void *, int) = owner->on_closed;
    void *above = owner->opaque;
    node_fini(&owner->node);
    free_node(owner);
    on_closed(above, 0);
}

static void foreign_node_close(struct node *node, void (*on_closed)(void *opaque, int result),
                               void *opaque)
{
    struct foreign_node *owner = foreign_node_of(node);
    owner->on_closed = on_closed;
    owner->opaque = opaque;
    foreign_close(owner->foreign, on_foreign_closed, owner);
}

static bool foreign_is_at_rest(const struct node *node)
{
    const struct foreign *foreign = container_of(node, const struct foreign_node, node)->foreign;
    for (uint32_t i = 0; i < foreign->file_count; i++)
        if (!io_is_idle(foreign->files[i].file))
            return false;
    return true;
}

/* The first file is the node's own, and has been moved. */
static void foreign_move(struct node *node, struct loop *loop)
{
    struct foreign_node *owner = foreign_node_of(node);
    struct foreign *foreign = owner->foreign;
    foreign->loop = loop;
    for (uint32_t i = 1; i < foreign->file_count; i++)
        io_move(foreign->files[i].file, loop);
    foreign_codecs_move(owner->codecs, loop);
}

static int refuse_writing(const struct disk_options *options, const char *format, struct error *err)
{
    return error_set(err, EROFS,
                     "image '%s': %s images are only read; add readonly=on, or convert it with: "
                     "evisor-img convert -f %s -O qcow2 %s NEW.qcow2",
                     options->path, format, format, options->path);
}

static int open_as(const struct format_ops *ops, struct loop *loop, struct io_file *file,
                   const struct disk_options *options, struct node **out, struct error *err)
{
    const struct foreign_options how = {
        .path = options->path,
        .format = ops->name,
        .no_lock = options->no_lock,
        .io = {.read_only = true, .direct = options->cache.direct, .aio = options->aio},
    };
    if (!options->read_only)
        return refuse_writing(options, ops->name, err);
    struct foreign_node *owner = calloc(1, sizeof(*owner));
    struct foreign_codecs *codecs = foreign_codecs_create(loop);
    if (!owner || !codecs || node_init(&owner->node, ops, loop, file, options)) {
        foreign_codecs_destroy(codecs);
        free(owner);
        return error_set(err, ENOMEM, "no memory to open '%s'", options->path);
    }
    owner->codecs = codecs;
    list_init(&owner->slots);
    int result = foreign_open(loop, file, &how, &owner->foreign, err);
    if (result) {
        node_fini(&owner->node);
        free_node(owner);
        return result;
    }
    owner->node.size_bytes = foreign_size_bytes(owner->foreign);
    owner->node.discard_granularity = file->block_bytes;
    *out = &owner->node;
    return 0;
}

#define FOREIGN_FORMAT(stem)                                                                       \
    static int open_##stem(struct loop *loop, struct io_file *file,                                \
                           const struct disk_options *options, struct node **out,                  \
                           struct error *err)                                                      \
    {                                                                                              \
        return open_as(&stem##_format, loop, file, options, out, err);                             \
    }                                                                                              \
    const struct format_ops stem##_format = {                                                      \
        .name = #stem,                                                                             \
        .has_status = true,                                                                        \
        .open = open_##stem,                                                                       \
        .submit = foreign_submit,                                                                  \
        .resize = foreign_resize,                                                                  \
        .is_at_rest = foreign_is_at_rest,                                                          \
        .move = foreign_move,                                                                      \
        .close = foreign_node_close,                                                               \
    };

FOREIGN_FORMAT(vdi)
FOREIGN_FORMAT(vmdk)
FOREIGN_FORMAT(vpc)
FOREIGN_FORMAT(vhdx)
