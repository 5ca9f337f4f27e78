/* SPDX-License-Identifier: MIT */
/*
 * nbd_request: the transmission phase: a request is checked whole before anything is done for it,
 * then it is one request to the disk, then a reply. Replies go out in the order of completion.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "disk/nbd/nbd_private.h"

static uint32_t error_of(int result)
{
    switch (-result) {
    case EPERM:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    default:
        return NBD_EIO;
    }
}

/* --- replies --- */

static void put_chunk(struct nbd_out *out, const struct nbd_request *request, unsigned type,
                      size_t bytes)
{
    store_be32(out->head, NBD_STRUCTURED_REPLY_MAGIC);
    store_be16(out->head + 4, NBD_CHUNK_DONE);
    store_be16(out->head + 6, (uint16_t)type);
    store_be64(out->head + 8, request->handle);
    store_be32(out->head + 16, (uint32_t)bytes);
    out->head_bytes = NBD_STRUCTURED_HEAD_BYTES;
}

static bool is_all_zero(const uint8_t *bytes, size_t length)
{
    return !bytes[0] && !memcmp(bytes, bytes + 1, length - 1);
}

static void put_read_chunk(struct nbd_out *out, const struct nbd_request *request)
{
    uint8_t *extra = out->head + NBD_STRUCTURED_HEAD_BYTES;
    if (!request->bytes) {
        put_chunk(out, request, NBD_CHUNK_NONE, 0);
        return;
    }
    store_be64(extra, request->offset);
    if (is_all_zero(request->buffer, request->bytes)) {
        put_chunk(out, request, NBD_CHUNK_OFFSET_HOLE, 12);
        store_be32(extra + 8, request->bytes);
        out->head_bytes += 12;
        return;
    }
    put_chunk(out, request, NBD_CHUNK_OFFSET_DATA, 8 + (size_t)request->bytes);
    out->head_bytes += 8;
    out->payload = request->buffer;
    out->payload_bytes = request->bytes;
}

static void put_structured(struct nbd_out *out, const struct nbd_request *request, int result)
{
    if (result) {
        put_chunk(out, request, NBD_CHUNK_ERROR, 6);
        store_be32(out->head + NBD_STRUCTURED_HEAD_BYTES, error_of(result));
        store_be16(out->head + NBD_STRUCTURED_HEAD_BYTES + 4, 0); /* no message */
        out->head_bytes += 6;
    } else if (request->command == NBD_CMD_READ) {
        put_read_chunk(out, request);
    } else { /* nbd_status.c has laid out everything */
        out->head_bytes = 0;
        out->payload = request->buffer;
        out->payload_bytes = (size_t)(request->status_end - request->buffer);
    }
}

static void put_simple(struct nbd_out *out, const struct nbd_request *request, int result)
{
    store_be32(out->head, NBD_SIMPLE_REPLY_MAGIC);
    store_be32(out->head + 4, result ? error_of(result) : 0);
    store_be64(out->head + 8, request->handle);
    out->head_bytes = NBD_SIMPLE_REPLY_BYTES;
    if (result || request->command != NBD_CMD_READ)
        return;
    out->payload = request->buffer;
    out->payload_bytes = request->bytes;
}

void nbd_request_answer(struct nbd_request *request, int result)
{
    struct nbd_client *client = request->client;
    struct nbd_out *out = &request->out;
    bool is_structured = client->structured && (request->command == NBD_CMD_READ ||
                                                request->command == NBD_CMD_BLOCK_STATUS);
    if (client->closing)
        return; /* the slot goes with the client */
    out->request = request;
    out->payload_bytes = 0;
    if (is_structured)
        put_structured(out, request, result);
    else
        put_simple(out, request, result);
    nbd_client_send(client, out);
}

/* --- running --- */

static void on_disk_done(struct disk_request *disk, int result)
{
    struct nbd_request *request = container_of(disk, struct nbd_request, disk);
    nbd_request_answer(request, result);
    nbd_client_landed(request->client);
}

static enum disk_op op_of(const struct nbd_request *request)
{
    switch (request->command) {
    case NBD_CMD_WRITE:
        return DISK_WRITE;
    case NBD_CMD_FLUSH:
        return DISK_FLUSH;
    case NBD_CMD_TRIM:
        return DISK_DISCARD;
    case NBD_CMD_WRITE_ZEROES:
        return DISK_ZERO;
    default: /* reading ahead into the host's cache is reading */
        return DISK_READ;
    }
}

static void run_on_disk(struct nbd_request *request)
{
    const struct nbd_export *export = request->client->export;
    struct disk_request *disk = &request->disk;
    *disk = (struct disk_request){.op = op_of(request), .on_done = on_disk_done};
    if (request->flags & NBD_CMD_FLAG_FUA)
        disk->flags |= DISK_FUA;
    if (disk->op == DISK_ZERO && !(request->flags & NBD_CMD_FLAG_NO_HOLE))
        disk->flags |= DISK_MAY_UNMAP;
    if (disk->op == DISK_WRITE && export->detect_zeroes &&
        is_all_zero(request->buffer, request->bytes)) {
        disk->op = DISK_ZERO;
        disk->flags |= export->zeroes_unmap ? DISK_MAY_UNMAP : 0;
    }
    if (disk->op != DISK_FLUSH) {
        disk->offset = request->offset;
        disk->bytes = request->bytes;
    }
    if (disk->op == DISK_READ || disk->op == DISK_WRITE) {
        request->iov = (struct iovec){request->buffer, request->bytes};
        disk->iov = &request->iov;
        disk->iov_count = 1;
    }
    request->client->in_flight++;
    disk_submit(export->disk, disk);
}

void nbd_request_run(struct nbd_request *request)
{
    const struct disk *disk = request->client->export->disk;
    /* A disk that shrank while the data was on its way. */
    if (request->command != NBD_CMD_FLUSH &&
        !range_fits(request->offset, request->bytes, disk_size_bytes(disk)))
        nbd_request_answer(request, request->command == NBD_CMD_WRITE ? -ENOSPC : -EINVAL);
    else if (request->command == NBD_CMD_BLOCK_STATUS)
        nbd_status_run(request);
    else if (request->command != NBD_CMD_FLUSH && !request->bytes)
        nbd_request_answer(request, 0);
    else
        run_on_disk(request);
}

/* --- parsing --- */

static unsigned allowed_flags(const struct nbd_client *client, uint16_t command)
{
    unsigned flags = NBD_CMD_FLAG_FUA;
    if (command == NBD_CMD_READ && client->structured)
        flags |= NBD_CMD_FLAG_DF;
    if (command == NBD_CMD_WRITE_ZEROES)
        flags |= NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    if (command == NBD_CMD_BLOCK_STATUS)
        flags |= NBD_CMD_FLAG_REQ_ONE;
    return flags;
}

static bool changes_data(uint16_t command)
{
    return command == NBD_CMD_WRITE || command == NBD_CMD_TRIM || command == NBD_CMD_WRITE_ZEROES;
}

static bool has_buffer(uint16_t command)
{
    return command == NBD_CMD_READ || command == NBD_CMD_WRITE || command == NBD_CMD_CACHE;
}

static int check(const struct nbd_client *client, uint16_t flags, uint16_t command, uint64_t offset,
                 uint32_t bytes)
{
    const struct nbd_export *export = client->export;
    if (command > NBD_CMD_BLOCK_STATUS || flags & ~allowed_flags(client, command))
        return -EINVAL;
    if (changes_data(command) && export->read_only)
        return -EPERM;
    if (command == NBD_CMD_FLUSH)
        return 0;
    if (has_buffer(command) && bytes > NBD_REQUEST_BYTES_MAX)
        return -EINVAL;
    if (!range_fits(offset, bytes, disk_size_bytes(export->disk)))
        return command == NBD_CMD_WRITE || command == NBD_CMD_WRITE_ZEROES ? -ENOSPC : -EINVAL;
    if (flags & NBD_CMD_FLAG_FAST_ZERO && !disk_zeroes_fast(export->disk))
        return -ENOTSUP;
    if (command == NBD_CMD_BLOCK_STATUS && (!client->contexts || !bytes))
        return -EINVAL;
    return 0;
}

static size_t room_for(const struct nbd_client *client, uint16_t command, uint32_t bytes)
{
    if (command == NBD_CMD_BLOCK_STATUS)
        return nbd_status_room(client);
    return has_buffer(command) ? bytes : 0;
}

/* The payload of a request that is refused still has to be read. */
static void start(struct nbd_client *client, struct nbd_request *request, int result)
{
    bool has_payload = request->command == NBD_CMD_WRITE && request->bytes;
    if (result) {
        client->skip = has_payload ? request->bytes : 0;
        nbd_request_answer(request, result);
    } else if (has_payload) {
        client->phase = NBD_PHASE_PAYLOAD;
        client->receiving = request;
        client->received = 0;
    } else {
        nbd_request_run(request);
    }
}

bool nbd_request_parse(struct nbd_client *client)
{
    const uint8_t *head = nbd_input(client);
    if (nbd_input_bytes(client) < NBD_REQUEST_BYTES)
        return false;
    uint16_t flags = load_be16(head + 4), command = load_be16(head + 6);
    uint64_t offset = load_be64(head + 16);
    uint32_t bytes = load_be32(head + 24);
    if (load_be32(head) != NBD_REQUEST_MAGIC) {
        log_limited("nbd: a client does not speak the protocol (no request); disconnected");
        nbd_client_close(client);
        return false;
    }
    if (command == NBD_CMD_DISC) {
        nbd_client_leave(client);
        return false;
    }
    int result = check(client, flags, command, offset, bytes), slot_result;
    struct nbd_request *request =
        nbd_request_get(client, result ? 0 : room_for(client, command, bytes), &slot_result);
    if (!request) {
        client->stalled = true;
        return false;
    }
    client->in_start += NBD_REQUEST_BYTES;
    request->flags = flags;
    request->command = command;
    request->handle = load_be64(head + 8);
    request->offset = offset;
    request->bytes = bytes;
    start(client, request, result ? result : slot_result);
    return true;
}
