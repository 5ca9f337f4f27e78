/* SPDX-License-Identifier: MIT */
/* simdisk: see the header. Nothing here is asynchronous but the order. */
#include "tests/crash_sim/simdisk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "tests/crash_sim/alloc_fault.h"

/* What a request needs until it is executed, in its private fields: the change of the trace and,
 * for a sync, when it was submitted are in `done_bytes`; how often it is passed over in `result`.
 */

static struct simdisk *simdisk_of(struct io_file *file)
{
    return container_of(file, struct simdisk, file);
}

uint32_t simdisk_now(const struct simdisk *disk)
{
    return disk->trace.event_count;
}

static uint32_t append(struct simdisk_trace *trace, enum simdisk_event_kind kind, uint32_t index,
                       uint32_t since)
{
    if (trace->event_count == trace->event_room) {
        trace->event_room = trace->event_room * 2 + 64;
        trace->events = realloc(trace->events, trace->event_room * sizeof(trace->events[0]));
        CHECK(trace->events);
    }
    trace->events[trace->event_count] = (struct simdisk_event){kind, index, since};
    return trace->event_count++;
}

static uint32_t add_event(struct simdisk *disk, enum simdisk_event_kind kind, uint32_t index,
                          uint32_t since)
{
    for (unsigned i = 0; disk->clock && i < disk->clock->count; i++)
        if (disk->clock->disks[i] != disk)
            append(&disk->clock->disks[i]->trace, SIMDISK_ELSEWHERE, 0, 0);
    return append(&disk->trace, kind, index, since);
}

void simdisk_join(struct simdisk *disk, struct simdisk_clock *clock)
{
    CHECK(!disk->trace.event_count && clock->count < SIMDISK_CLOCK_DISKS);
    CHECK(!clock->count || !clock->disks[0]->trace.event_count);
    disk->clock = clock;
    clock->disks[clock->count++] = disk;
}

uint32_t simdisk_note(struct simdisk *disk)
{
    return add_event(disk, SIMDISK_NOTE, 0, 0);
}

static struct simdisk_change *add_change(struct simdisk_trace *trace)
{
    if (trace->change_count == trace->change_room) {
        trace->change_room = trace->change_room * 2 + 32;
        trace->changes = realloc(trace->changes, trace->change_room * sizeof(trace->changes[0]));
        CHECK(trace->changes);
    }
    struct simdisk_change *change = &trace->changes[trace->change_count++];
    *change = (struct simdisk_change){.done = SIMDISK_NEVER, .lost = SIMDISK_NEVER};
    return change;
}

/* The new contents of a sector that a write may cover in part: the rest is what the cache has. */
static const struct cell *sector_of(struct simdisk *disk, const struct io_request *request,
                                    uint64_t sector)
{
    uint8_t bytes[CELL_BYTES];
    uint64_t start = sector * CELL_BYTES;
    uint64_t from = MAX(start, request->offset);
    uint64_t end = MIN(start + CELL_BYTES, request->offset + request->bytes);
    if (end - from < CELL_BYTES)
        memcpy(bytes, cell_file_bytes(&disk->cache, sector), CELL_BYTES);
    iov_read(request->iov, request->iov_count, from - request->offset, bytes + (from - start),
             end - from);
    return cell_make(disk->arena, bytes);
}

static void take_contents(struct simdisk *disk, const struct io_request *request,
                          struct simdisk_change *change)
{
    for (uint64_t i = 0; i < change->count; i++)
        change->cells[i] = sector_of(disk, request, change->first + i);
}

/* Zeroing and punching leave the length, and what is past it; what they cover in part they leave
 * to a write of zeroes in the host's file system: the same as far as this model sees. */
static void describe_zeroing(const struct simdisk *disk, const struct io_request *request,
                             struct simdisk_change *change)
{
    uint64_t end = MIN(request->offset + request->bytes, disk->cache.length_bytes);
    CHECK(is_aligned(request->offset, CELL_BYTES));
    change->first = request->offset / CELL_BYTES;
    end = align_up(end, CELL_BYTES) / CELL_BYTES;
    change->count = end > change->first ? end - change->first : 0;
}

static uint32_t record(struct simdisk *disk, const struct io_request *request)
{
    uint32_t index = disk->trace.change_count;
    struct simdisk_change *change = add_change(&disk->trace);
    if (request->kind == IO_WRITE) {
        uint64_t end = align_up(request->offset + request->bytes, CELL_BYTES);
        change->first = request->offset / CELL_BYTES;
        change->count = end / CELL_BYTES - change->first;
        change->end_bytes = request->offset + request->bytes;
        change->cells = malloc(MAX(change->count, 1) * sizeof(change->cells[0]));
        CHECK(change->cells);
        take_contents(disk, request, change);
    } else if (request->kind == IO_TRUNCATE) {
        change->is_truncate = true;
        change->end_bytes = request->offset;
        change->first = align_up(request->offset, CELL_BYTES) / CELL_BYTES;
        change->count = disk->cache.count > change->first ? disk->cache.count - change->first : 0;
    } else {
        describe_zeroing(disk, request, change);
    }
    change->submitted = add_event(disk, SIMDISK_SUBMITTED, index, 0);
    return index;
}

static bool is_concerned(const struct simdisk *disk, const struct io_request *request)
{
    const struct simdisk_fault *fault = &disk->fault;
    return fault->result && fault->kinds & 1u << request->kind &&
           (!fault->is_full || request->offset + request->bytes > disk->cache.length_bytes);
}

static int strike(struct simdisk *disk, const struct io_request *request)
{
    struct simdisk_fault *fault = &disk->fault;
    if (!is_concerned(disk, request) || disk->operations++ < fault->after)
        return 0;
    int result = fault->result;
    disk->faults++;
    if (!fault->stays)
        fault->result = 0;
    return result;
}

static void execute_change(struct simdisk *disk, const struct io_request *request, int result)
{
    uint32_t index = (uint32_t)request->done_bytes;
    struct simdisk_change *change = &disk->trace.changes[index];
    bool is_whole = is_aligned(request->offset | request->bytes, CELL_BYTES);
    if (request->kind == IO_WRITE && !is_whole)
        take_contents(disk, request, change);
    /* What fails may have been done, or some of its beginning, or nothing. */
    if (result)
        change->count = cell_below(&disk->random, change->count + 1);
    if (result && !change->count) {
        add_event(disk, SIMDISK_DROPPED, index, 0);
        return;
    }
    if (result && !change->is_truncate)
        change->end_bytes = MIN(change->end_bytes, (change->first + change->count) * CELL_BYTES);
    cell_file_reserve(&disk->cache, change->first + change->count);
    for (uint64_t i = 0; i < change->count; i++)
        disk->cache.cells[change->first + i] = change->cells ? change->cells[i] : NULL;
    if (change->is_truncate)
        disk->cache.length_bytes = change->end_bytes;
    else
        disk->cache.length_bytes = MAX(disk->cache.length_bytes, change->end_bytes);
    change->done = add_event(disk, SIMDISK_DONE, index, 0);
}

/* A failed sync may have dropped what it was to write: seen by reads, never to be durable. */
static void lose_some(struct simdisk *disk, uint32_t since)
{
    for (uint32_t i = 0; i < disk->trace.change_count; i++) {
        struct simdisk_change *change = &disk->trace.changes[i];
        if (change->done < since && change->lost == SIMDISK_NEVER && cell_below(&disk->random, 4))
            change->lost = simdisk_now(disk);
    }
}

static void read_cache(struct simdisk *disk, struct io_request *request)
{
    uint64_t at = request->offset, end = request->offset + request->bytes;
    while (at < end) {
        uint64_t piece = MIN(CELL_BYTES - at % CELL_BYTES, end - at);
        const uint8_t *bytes = cell_file_bytes(&disk->cache, at / CELL_BYTES);
        iov_write(request->iov, request->iov_count, at - request->offset, bytes + at % CELL_BYTES,
                  piece);
        at += piece;
    }
}

static int execute(struct simdisk *disk, struct io_request *request)
{
    int result = strike(disk, request);
    alloc_fault_pause();
    switch (request->kind) {
    case IO_READ:
        if (!result)
            read_cache(disk, request);
        break;
    case IO_SYNC:
        disk->failed_syncs += result != 0;
        if (result)
            lose_some(disk, (uint32_t)request->done_bytes);
        else
            add_event(disk, SIMDISK_SYNCED, 0, (uint32_t)request->done_bytes);
        break;
    case IO_WRITE:
    case IO_ZERO:
    case IO_PUNCH:
    case IO_TRUNCATE:
        execute_change(disk, request, result);
        break;
    }
    alloc_fault_resume();
    return result;
}

static void prepare(struct simdisk *disk, struct io_request *request)
{
    alloc_fault_pause();
    if (request->kind == IO_SYNC)
        request->done_bytes = simdisk_now(disk);
    else if (request->kind != IO_READ)
        request->done_bytes = record(disk, request);
    alloc_fault_resume();
}

static void simdisk_submit(struct io_file *file, struct io_request *request)
{
    struct simdisk *disk = simdisk_of(file);
    prepare(disk, request);
    request->result = cell_below(&disk->random, disk->slow_one_in)
                          ? 0
                          : (int)cell_below(&disk->random, disk->slow_most);
    list_push_back(&disk->queue, &request->node);
    disk->queued++;
    loop_task_queue(&disk->run);
}

static struct io_request *draw(struct simdisk *disk)
{
    uint64_t skip = cell_below(&disk->random, disk->queued);
    struct list *node = disk->queue.next;
    while (skip--)
        node = node->next;
    struct io_request *request = list_entry(node, struct io_request, node);
    if (request->result-- > 0)
        return NULL;
    list_remove(node);
    disk->queued--;
    return request;
}

static void on_run(struct loop_task *task)
{
    struct simdisk *disk = container_of(task, struct simdisk, run);
    uint64_t budget = 1 + cell_below(&disk->random, disk->per_turn);
    while (disk->queued && budget--) {
        struct io_request *request = draw(disk);
        if (request)
            request->on_done(request, execute(disk, request));
    }
    if (disk->queued)
        loop_task_queue(&disk->run);
}

static int simdisk_execute_now(struct io_file *file, enum io_kind kind, void *buffer,
                               uint64_t offset, uint64_t bytes)
{
    struct simdisk *disk = simdisk_of(file);
    struct iovec iov = {buffer, bytes};
    struct io_request request = {
        .kind = kind,
        .offset = offset,
        .bytes = bytes,
        .iov = &iov,
        .iov_count = buffer ? 1 : 0,
    };
    prepare(disk, &request);
    return execute(disk, &request);
}

static int simdisk_length(struct io_file *file, uint64_t *length_bytes)
{
    *length_bytes = simdisk_of(file)->cache.length_bytes;
    return 0;
}

static void on_close_run(struct loop_task *task)
{
    struct simdisk *disk = container_of(task, struct simdisk, run);
    loop_task_init(disk->file.loop, &disk->run, LOOP_STAGE_SUBMIT, on_run);
    closing_tell(disk->closing);
}

static void simdisk_close(struct io_file *file, void (*on_closed)(void *opaque), void *opaque)
{
    struct simdisk *disk = simdisk_of(file);
    CHECK(!disk->queued);
    disk->closing = (struct closing){on_closed, opaque};
    loop_task_cancel(&disk->run);
    loop_task_init(file->loop, &disk->run, LOOP_STAGE_SUBMIT, on_close_run);
    loop_task_queue(&disk->run);
}

static const struct io_ops simdisk_ops = {
    .submit = simdisk_submit,
    .now = simdisk_execute_now,
    .length = simdisk_length,
    .close = simdisk_close,
};

struct simdisk *simdisk_create(struct loop *loop, struct cell_arena *arena,
                               const struct cell_file *start, uint64_t seed)
{
    struct simdisk *disk = calloc(1, sizeof(*disk));
    CHECK(disk);
    disk->file = (struct io_file){
        .ops = &simdisk_ops, .loop = loop, .fd = -1, .inode = seed + 1, .block_bytes = 512};
    disk->arena = arena;
    disk->random = seed * 2 + 1;
    disk->per_turn = 3;
    disk->slow_one_in = 8;
    disk->slow_most = 12;
    cell_file_copy(&disk->cache, start);
    cell_file_copy(&disk->trace.start, start);
    list_init(&disk->queue);
    loop_task_init(loop, &disk->run, LOOP_STAGE_SUBMIT, on_run);
    return disk;
}

void simdisk_destroy(struct simdisk *disk)
{
    if (!disk)
        return;
    loop_task_cancel(&disk->run);
    for (uint32_t i = 0; i < disk->trace.change_count; i++)
        free(disk->trace.changes[i].cells);
    free(disk->trace.changes);
    free(disk->trace.events);
    cell_file_fini(&disk->trace.start);
    cell_file_fini(&disk->cache);
    free(disk);
}
