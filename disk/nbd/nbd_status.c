/* SPDX-License-Identifier: MIT */
/*
 * nbd_status: block status. base:allocation is asked of the disk, extent by extent; bitmaps are
 * looked up in memory. Each context's chunk is laid out in the request's buffer, one after another.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/nbd/nbd_private.h"

#define CHUNK_BYTES   (NBD_STRUCTURED_HEAD_BYTES + 4) /* before the extents */
#define EXTENT_BYTES  8
#define CONTEXT_BYTES (CHUNK_BYTES + EXTENT_BYTES * NBD_EXTENTS_MAX)

bool nbd_context_name(const struct nbd_export *export, unsigned index,
                      char name[NBD_CONTEXT_NAME_BYTES])
{
    if (index > export->bitmap_count)
        return false;
    if (!index)
        snprintf(name, NBD_CONTEXT_NAME_BYTES, "base:allocation");
    else
        snprintf(name, NBD_CONTEXT_NAME_BYTES, "qemu:dirty-bitmap:%s",
                 export->bitmaps[index - 1]->name);
    return true;
}

static uint32_t contexts_of(const struct nbd_client *client)
{
    return client->contexts & ((UINT32_C(2) << client->export->bitmap_count) - 1);
}

size_t nbd_status_room(const struct nbd_client *client)
{
    return (size_t)__builtin_popcount(contexts_of(client)) * CONTEXT_BYTES;
}

static size_t extents_max(const struct nbd_request *request)
{
    return request->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_EXTENTS_MAX;
}

/* Adds to the extents of the chunk that is being laid out; false if there is no room. */
static bool add_extent(struct nbd_request *request, uint64_t bytes, uint32_t state)
{
    uint8_t *at = request->status_end + CHUNK_BYTES + EXTENT_BYTES * request->extent_count;
    if (request->extent_count && load_be32(at - 4) == state) {
        store_be32(at - 8, load_be32(at - 8) + (uint32_t)bytes);
        return true;
    }
    if (request->extent_count == extents_max(request))
        return false;
    store_be32(at, (uint32_t)bytes);
    store_be32(at + 4, state);
    request->extent_count++;
    return true;
}

static void end_chunk(struct nbd_request *request, unsigned context)
{
    uint8_t *chunk = request->status_end;
    size_t bytes = EXTENT_BYTES * request->extent_count;
    bool is_last = !(contexts_of(request->client) >> context >> 1);
    store_be32(chunk, NBD_STRUCTURED_REPLY_MAGIC);
    store_be16(chunk + 4, is_last ? NBD_CHUNK_DONE : 0);
    store_be16(chunk + 6, NBD_CHUNK_BLOCK_STATUS);
    store_be64(chunk + 8, request->handle);
    store_be32(chunk + 16, (uint32_t)(4 + bytes));
    store_be32(chunk + 20, context);
    request->status_end += CHUNK_BYTES + bytes;
    request->extent_count = 0;
}

static void put_bitmap(struct nbd_request *request, const struct dirty_bitmap *bitmap)
{
    uint64_t end = request->offset + request->bytes;
    for (uint64_t at = request->offset, next; at < end; at = next) {
        bool is_dirty = false;
        next = at < bitmap->size_bytes ? dirty_bitmap_run(bitmap, at, end, &is_dirty) : end;
        if (!add_extent(request, next - at, is_dirty ? NBD_STATE_DIRTY : 0))
            return;
    }
}

static void put_bitmaps(struct nbd_request *request)
{
    const struct nbd_export *export = request->client->export;
    for (unsigned i = 0; i < export->bitmap_count; i++) {
        if (!(contexts_of(request->client) >> (i + 1) & 1))
            continue;
        put_bitmap(request, export->bitmaps[i]);
        end_chunk(request, i + 1);
    }
    nbd_request_answer(request, 0);
}

static void ask(struct nbd_request *request);

static void on_extent(struct disk_request *disk, int result)
{
    struct nbd_request *request = container_of(disk, struct nbd_request, disk);
    struct nbd_client *client = request->client;
    if (result || client->closing) {
        nbd_request_answer(request, result);
        nbd_client_landed(client);
        return;
    }
    uint32_t state = disk->extent.is_zero ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0;
    bool has_room = add_extent(request, disk->extent.bytes, state);
    request->status_at += disk->extent.bytes;
    if (has_room && request->status_at < request->offset + request->bytes) {
        ask(request);
        return;
    }
    end_chunk(request, 0);
    put_bitmaps(request);
    nbd_client_landed(client);
}

/* The disk may have shrunk since the last answer; what is gone counts as an error. */
static void ask(struct nbd_request *request)
{
    struct disk *disk = request->client->export->disk;
    uint64_t bytes = request->offset + request->bytes - request->status_at;
    if (!range_fits(request->status_at, bytes, disk_size_bytes(disk))) {
        nbd_request_answer(request, -EINVAL);
        nbd_client_landed(request->client);
        return;
    }
    request->disk = (struct disk_request){
        .op = DISK_STATUS, .offset = request->status_at, .bytes = bytes, .on_done = on_extent};
    disk_submit(disk, &request->disk);
}

void nbd_status_run(struct nbd_request *request)
{
    request->status_at = request->offset;
    request->status_end = request->buffer;
    request->extent_count = 0;
    if (!(contexts_of(request->client) & 1)) {
        put_bitmaps(request);
        return;
    }
    request->client->in_flight++;
    ask(request);
}
