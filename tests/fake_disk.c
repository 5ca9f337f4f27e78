/* SPDX-License-Identifier: MIT */
/* fake_disk: moves the data when a request completes, in a task, never inside disk_submit. */
#include "tests/fake_disk.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"

static void transfer(struct disk *disk, const struct disk_request *request)
{
    uint8_t *at = disk->bytes + request->offset;
    switch (request->op) {
    case DISK_READ:
        iov_write(request->iov, request->iov_count, 0, at, request->bytes);
        break;
    case DISK_WRITE:
        iov_read(request->iov, request->iov_count, 0, at, request->bytes);
        break;
    case DISK_ZERO:
    case DISK_DISCARD:
        memset(at, 0, request->bytes);
        break;
    case DISK_FLUSH:
    case DISK_STATUS:
        break;
    }
}

static void on_complete(struct loop_task *task)
{
    struct disk *disk = container_of(task, struct disk, complete);
    struct list batch;
    list_init(&batch);
    if (disk->hold)
        return;
    list_splice_back(&batch, &disk->requests);
    while (!list_is_empty(&batch)) {
        struct list *node = disk->backwards ? batch.prev : batch.next;
        list_remove(node);
        struct disk_request *request = list_entry(node, struct disk_request, node);
        if (!disk->fail)
            transfer(disk, request);
        disk->in_flight--;
        request->on_done(request, disk->fail);
    }
}

struct disk *fake_disk_create(struct loop *loop, uint64_t size_bytes, bool read_only)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    CHECK(disk);
    disk->bytes = calloc(1, size_bytes);
    CHECK(disk->bytes);
    disk->loop = loop;
    disk->size_bytes = size_bytes;
    disk->read_only = read_only;
    list_init(&disk->requests);
    loop_task_init(loop, &disk->complete, LOOP_STAGE_COMPLETE, on_complete);
    return disk;
}

void fake_disk_destroy(struct disk *disk)
{
    CHECK(disk->in_flight == 0);
    loop_task_cancel(&disk->complete);
    free(disk->bytes);
    free(disk);
}

void fake_disk_release(struct disk *disk)
{
    disk->hold = false;
    loop_task_queue(&disk->complete);
}

void fake_disk_resize(struct disk *disk, uint64_t size_bytes)
{
    disk->bytes = realloc(disk->bytes, size_bytes);
    CHECK(disk->bytes);
    if (size_bytes > disk->size_bytes)
        memset(disk->bytes + disk->size_bytes, 0, size_bytes - disk->size_bytes);
    disk->size_bytes = size_bytes;
    if (disk->on_resize)
        disk->on_resize(disk->opaque);
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    loop_check_thread(disk->loop);
    CHECK(range_fits(request->offset, request->bytes, disk->size_bytes));
    CHECK(request->offset % 512 == 0 && request->bytes % 512 == 0);
    bool has_data = request->op == DISK_READ || request->op == DISK_WRITE;
    CHECK(!has_data || iov_size(request->iov, request->iov_count) == request->bytes);
    for (size_t i = 0; i < request->iov_count; i++)
        CHECK(request->iov[i].iov_len > 0);
    CHECK(!disk->read_only || request->op == DISK_READ || request->op == DISK_FLUSH);
    disk->counts[request->op]++;
    if (!disk->submitted++)
        disk->expected_at_first = disk->expected;
    disk->flags_seen |= request->flags;
    disk->in_flight++;
    list_push_back(&disk->requests, &request->node);
    loop_task_queue(&disk->complete);
}

void disk_expect(const struct disk *disk, uint64_t offset)
{
    (void)offset;
    ((struct disk *)(uintptr_t)disk)->expected++;
}

uint64_t disk_size_bytes(const struct disk *disk)
{
    return disk->size_bytes;
}

bool disk_is_read_only(const struct disk *disk)
{
    return disk->read_only;
}

uint32_t disk_discard_granularity(const struct disk *disk)
{
    (void)disk;
    return 65536;
}

void disk_set_resize_listener(struct disk *disk, void (*on_resize)(void *opaque), void *opaque)
{
    disk->on_resize = on_resize;
    disk->opaque = opaque;
}
