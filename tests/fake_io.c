/* SPDX-License-Identifier: MIT */
/* fake_io: see the header. Nothing here is asynchronous but the order. */
#include "tests/fake_io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"

uint64_t fake_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

uint64_t fake_below(uint64_t *state, uint64_t limit)
{
    return (fake_random(state) >> 16) % limit;
}

static struct fake_io *fake_of(struct io_file *file)
{
    return container_of(file, struct fake_io, file);
}

static void drop_change(struct fake_change *change)
{
    list_remove(&change->node);
    free(change->data);
    free(change);
}

static void apply(uint8_t *bytes, uint64_t length, uint64_t old_length,
                  const struct fake_change *change, uint64_t from, uint64_t count)
{
    if (change->is_truncate) {
        if (length < old_length)
            memset(bytes + length, 0, old_length - length);
    } else if (change->data) {
        memcpy(bytes + change->offset + from, change->data + from, count);
    } else {
        memset(bytes + change->offset + from, 0, count);
    }
}

/* Changes completed before the sync was submitted reach the medium, in their order. */
static void make_durable(struct fake_io *fake, uint64_t up_to)
{
    list_for_each(node, &fake->changes)
    {
        struct fake_change *change = list_entry(node, struct fake_change, node);
        if (change->sequence > up_to)
            continue;
        apply(fake->medium, change->length, fake->medium_length, change, 0, change->bytes);
        fake->medium_length = change->length;
        drop_change(change);
    }
}

/* A failed sync may have dropped what it was to write: seen by reads, never to reach the medium. */
static void lose_some(struct fake_io *fake, uint64_t up_to)
{
    list_for_each(node, &fake->changes)
    {
        struct fake_change *change = list_entry(node, struct fake_change, node);
        if (change->sequence <= up_to && fake_below(&fake->random, 2))
            drop_change(change);
    }
}

void fake_io_settle(struct fake_io *fake)
{
    make_durable(fake, UINT64_MAX - 1);
}

static int strike(struct fake_io *fake, enum io_kind kind)
{
    struct fake_fault *fault = &fake->fault;
    if (!fault->result || !(fault->kinds & 1u << kind) || fake->operations++ < fault->after)
        return 0;
    int result = fault->result;
    fake->faults++;
    if (!fault->stays)
        fault->result = 0;
    return result;
}

static void record(struct fake_io *fake, const struct io_request *request)
{
    struct fake_change *change = calloc(1, sizeof(*change));
    CHECK(change);
    change->sequence = fake->completions;
    change->offset = request->offset;
    change->bytes = request->bytes;
    change->is_truncate = request->kind == IO_TRUNCATE;
    uint64_t old_length = fake->length;
    if (request->kind == IO_WRITE) {
        change->data = malloc(MAX(request->bytes, 1));
        iov_read(request->iov, request->iov_count, 0, change->data, request->bytes);
        fake->length = MAX(fake->length, request->offset + request->bytes);
    } else if (change->is_truncate) {
        change->offset = change->bytes = 0;
        fake->length = request->offset;
    } else {
        /* Zeroing and punching leave the length, and what is past it. */
        change->bytes = MIN(request->bytes, fake->length - MIN(fake->length, request->offset));
    }
    change->length = fake->length;
    apply(fake->cache, fake->length, old_length, change, 0, change->bytes);
    list_push_back(&fake->changes, &change->node);
}

static int execute(struct fake_io *fake, struct io_request *request)
{
    int result = strike(fake, request->kind);
    CHECK(request->kind == IO_SYNC || range_fits(request->offset, request->bytes, fake->max_bytes));
    if (request->kind == IO_SYNC) {
        if (result)
            lose_some(fake, request->done_bytes);
        else
            make_durable(fake, request->done_bytes);
        return result;
    }
    if (request->kind == IO_READ) {
        if (!result)
            iov_write(request->iov, request->iov_count, 0, fake->cache + request->offset,
                      request->bytes);
        return result;
    }
    fake->completions++;
    /* What fails may have been done all the same. */
    if (!result || fake_below(&fake->random, 2))
        record(fake, request);
    return result;
}

static void fake_submit(struct io_file *file, struct io_request *request)
{
    struct fake_io *fake = fake_of(file);
    /* A sync covers what has completed by now. */
    request->done_bytes = fake->completions;
    /* Now and then one is overtaken by many. */
    request->result = fake_below(&fake->random, 12) ? 0 : (int)fake_below(&fake->random, 60);
    list_push_back(&fake->queue, &request->node);
    fake->queued++;
    loop_task_queue(&fake->run);
}

static struct io_request *draw(struct fake_io *fake)
{
    uint64_t skip = fake_below(&fake->random, fake->queued);
    struct list *node = fake->queue.next;
    while (skip--)
        node = node->next;
    struct io_request *request = list_entry(node, struct io_request, node);
    if (request->result-- > 0)
        return NULL;
    list_remove(node);
    fake->queued--;
    return request;
}

static void on_run(struct loop_task *task)
{
    struct fake_io *fake = container_of(task, struct fake_io, run);
    uint64_t budget = 1 + fake_below(&fake->random, fake->per_turn);
    while (fake->queued && budget--) {
        struct io_request *request = draw(fake);
        if (!request)
            continue;
        int result = execute(fake, request);
        if (fake->on_change)
            fake->on_change(fake, fake->opaque);
        request->on_done(request, result);
    }
    if (fake->queued)
        loop_task_queue(&fake->run);
}

static int fake_now(struct io_file *file, enum io_kind kind, void *buffer, uint64_t offset,
                    uint64_t bytes)
{
    struct fake_io *fake = fake_of(file);
    struct iovec iov = {buffer, bytes};
    struct io_request request = {
        .kind = kind,
        .offset = offset,
        .bytes = bytes,
        .iov = &iov,
        .iov_count = buffer ? 1 : 0,
        .done_bytes = fake->completions,
    };
    return execute(fake, &request);
}

static int fake_length(struct io_file *file, uint64_t *length_bytes)
{
    *length_bytes = fake_of(file)->length;
    return 0;
}

static void on_close_run(struct loop_task *task)
{
    struct fake_io *fake = container_of(task, struct fake_io, run);
    loop_task_init(fake->file.loop, &fake->run, LOOP_STAGE_SUBMIT, on_run);
    closing_tell(fake->closing);
}

static void fake_close(struct io_file *file, void (*on_closed)(void *opaque), void *opaque)
{
    struct fake_io *fake = fake_of(file);
    CHECK(!fake->queued);
    fake->closing = (struct closing){on_closed, opaque};
    loop_task_cancel(&fake->run);
    loop_task_init(file->loop, &fake->run, LOOP_STAGE_SUBMIT, on_close_run);
    loop_task_queue(&fake->run);
}

static const struct io_ops fake_ops = {
    .submit = fake_submit,
    .now = fake_now,
    .length = fake_length,
    .close = fake_close,
};

struct fake_io *fake_io_create(struct loop *loop, uint64_t max_bytes, uint64_t seed)
{
    struct fake_io *fake = calloc(1, sizeof(*fake));
    CHECK(fake);
    fake->file = (struct io_file){
        .ops = &fake_ops, .loop = loop, .fd = -1, .inode = seed + 1, .block_bytes = 4096};
    fake->random = seed * 2 + 1;
    fake->max_bytes = max_bytes;
    fake->per_turn = 4;
    fake->cache = calloc(1, max_bytes);
    fake->medium = calloc(1, max_bytes);
    CHECK(fake->cache && fake->medium);
    list_init(&fake->changes);
    list_init(&fake->queue);
    loop_task_init(loop, &fake->run, LOOP_STAGE_SUBMIT, on_run);
    return fake;
}

void fake_io_destroy(struct fake_io *fake)
{
    loop_task_cancel(&fake->run);
    list_for_each(node, &fake->changes) drop_change(list_entry(node, struct fake_change, node));
    free(fake->cache);
    free(fake->medium);
    free(fake);
}

/* Some sectors of a change, in one of three ways: all, none, or each by itself. */
static void apply_part(uint8_t *out, uint64_t *length, const struct fake_change *change,
                       uint64_t *state)
{
    uint64_t way = fake_below(state, 4);
    if (way == 0)
        return;
    if (way < 3 || change->is_truncate) {
        apply(out, change->length, *length, change, 0, change->bytes);
        *length = change->is_truncate ? change->length : MAX(*length, change->length);
        return;
    }
    for (uint64_t at = 0; at < change->bytes;) {
        uint64_t piece = FAKE_SECTOR - (change->offset + at) % FAKE_SECTOR;
        piece = MIN(piece, change->bytes - at);
        if (fake_below(state, 2)) {
            apply(out, 0, 0, change, at, piece);
            *length = MAX(*length, change->offset + at + piece);
        }
        at += piece;
    }
}

uint64_t fake_io_power_cut(const struct fake_io *fake, uint64_t *state, uint8_t *out)
{
    uint64_t length = fake->medium_length, end = MAX(fake->length, length);
    list_for_each(queued, &fake->queue)
    {
        const struct io_request *request = list_entry(queued, struct io_request, node);
        if (request->kind == IO_WRITE)
            end = MAX(end, request->offset + request->bytes);
    }
    memcpy(out, fake->medium, length);
    memset(out + length, 0, end - length);
    list_for_each(node, &fake->changes)
        apply_part(out, &length, list_entry(node, struct fake_change, node), state);
    /* Requests in flight may have come through as well. */
    list_for_each(queued, &fake->queue)
    {
        const struct io_request *request = list_entry(queued, struct io_request, node);
        struct fake_change change = {.offset = request->offset, .bytes = request->bytes};
        if (request->kind == IO_WRITE) {
            change.data = malloc(MAX(request->bytes, 1));
            change.length = request->offset + request->bytes;
            iov_read(request->iov, request->iov_count, 0, change.data, request->bytes);
        } else if (request->kind == IO_ZERO || request->kind == IO_PUNCH) {
            change.bytes = MIN(request->bytes, end - MIN(end, request->offset));
        } else {
            continue;
        }
        apply_part(out, &length, &change, state);
        free(change.data);
    }
    return length;
}

void fake_io_restart(struct fake_io *fake, const uint8_t *bytes, uint64_t length)
{
    list_for_each(node, &fake->changes) drop_change(list_entry(node, struct fake_change, node));
    memset(fake->cache, 0, fake->max_bytes);
    memcpy(fake->cache, bytes, length);
    memcpy(fake->medium, fake->cache, fake->max_bytes);
    fake->length = fake->medium_length = length;
}
