/* SPDX-License-Identifier: MIT */
/*
 * disk_exclusive: changes that need a disk with nothing in flight: its size, snapshots, its graph.
 * They wait in line; what comes meanwhile is held, and goes on when the line is empty.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "disk/dirty.h"
#include "disk/disk_private.h"
#include "disk/graph.h"

/* While it waited, the disk may have shrunk, so that it lies outside now, or it may be a write to
 * what is only read now. */
int disk_check_late(const struct node *node, const struct disk_request *request)
{
    if (request->op != DISK_FLUSH && !(request->flags & DISK_VMSTATE) &&
        !range_fits(request->offset, request->bytes, node->size_bytes))
        return -EIO;
    return disk_changes_data(request) && node->read_only ? -EROFS : 0;
}

static void resubmit(struct disk *disk, struct disk_request *request)
{
    struct node *node = request->target ? request->target : disk->top;
    int result = disk_check_late(node, request);
    if (result)
        node_complete_later(node, request, result);
    else if (request->target || !disk->filter ||
             !disk->filter->intercept(disk->filter->opaque, request))
        node_submit(node, request);
}

/* A bitmap that cannot follow is of no use any more. */
static void resize_bitmaps(struct node *node)
{
    list_for_each(entry, &node->bitmaps)
    {
        struct dirty_bitmap *bitmap = list_entry(entry, struct dirty_bitmap, node);
        if (bitmap->inconsistent || bitmap->size_bytes == node->size_bytes)
            continue;
        if (dirty_bitmap_resize(bitmap, node->size_bytes)) {
            log_error("image '%s': no memory for bitmap '%s', which is lost", node->path,
                      bitmap->name);
            bitmap->inconsistent = true;
            bitmap->enabled = false;
        }
    }
}

static void let_go_on(struct disk *disk)
{
    struct list held;
    list_init(&held);
    list_splice_back(&held, &disk->held);
    disk->held_count = 0;
    for (struct list *node; (node = list_pop_front(&held));)
        resubmit(disk, list_entry(node, struct disk_request, node));
    if (disk->filter)
        disk->filter->on_hold(disk->filter->opaque, false);
}

void disk_exclusive_end(struct disk *disk, int result, const struct error *err)
{
    struct disk_exclusive *exclusive =
        list_entry(list_pop_front(&disk->exclusives), struct disk_exclusive, node);
    void (*on_done)(void *, int, const struct error *) = exclusive->on_done;
    void *opaque = exclusive->opaque;
    CHECK(disk->is_exclusive);
    disk->is_exclusive = disk->is_frozen = false;
    free(exclusive);
    resize_bitmaps(disk->top);
    if (list_is_empty(&disk->exclusives))
        let_go_on(disk);
    bool has_new_size = disk->top->size_bytes != disk->old_size_bytes;
    loop_task_queue(&disk->advance);
    if (has_new_size && disk->on_resize)
        disk->on_resize(disk->on_resize_opaque);
    if (on_done)
        on_done(opaque, result, err);
}

static void on_exclusive_done(void *opaque, int result, const struct error *err)
{
    disk_exclusive_end(opaque, result, err);
}

void disk_exclusive_advance(struct loop_task *task)
{
    struct disk *disk = container_of(task, struct disk, advance);
    if (disk->pending > disk->held_count || disk->is_exclusive)
        return;
    if (!list_is_empty(&disk->exclusives)) {
        struct disk_exclusive *first =
            list_entry(disk->exclusives.next, struct disk_exclusive, node);
        disk->is_exclusive = true;
        disk->old_size_bytes = disk->top->size_bytes;
        first->start(disk, first);
    } else if (disk->closing && !disk->throttle.waiting_count) {
        disk_start_close(disk);
    }
}

struct disk_exclusive *disk_exclusive_queue(
    struct disk *disk, void (*start)(struct disk *disk, struct disk_exclusive *exclusive),
    void (*on_done)(void *opaque, int result, const struct error *err), void *opaque)
{
    struct disk_exclusive *exclusive = calloc(1, sizeof(*exclusive));
    loop_check_thread(disk->loop);
    CHECK(!disk->closing);
    if (!exclusive)
        return NULL;
    exclusive->start = start;
    exclusive->on_done = on_done;
    exclusive->opaque = opaque;
    list_push_back(&disk->exclusives, &exclusive->node);
    if (disk->filter)
        disk->filter->on_hold(disk->filter->opaque, true);
    loop_task_queue(&disk->advance);
    return exclusive;
}

/* What keeps a disk from changing by itself; a job relies on its size and contents. */
static bool is_refused(struct disk *disk)
{
    struct error err = {0};
    int result = 0;
    if (disk->top->read_only)
        result = error_set(&err, EROFS, "image '%s' is read-only", disk->top->path);
    else if (disk->user)
        result = error_set(&err, EBUSY, "Node '%s' is busy: %s", disk->top->name, disk->user);
    if (result)
        disk_exclusive_end(disk, result, &err);
    return result;
}

static void start_resize(struct disk *disk, struct disk_exclusive *exclusive)
{
    if (!is_refused(disk))
        disk->top->ops->resize(disk->top, exclusive->bytes, on_exclusive_done, disk);
}

void disk_resize(struct disk *disk, uint64_t size_bytes,
                 void (*on_done)(void *opaque, int result, const struct error *err), void *opaque)
{
    CHECK(is_aligned(size_bytes, 512));
    struct disk_exclusive *exclusive = disk_exclusive_queue(disk, start_resize, on_done, opaque);
    CHECK(exclusive);
    exclusive->bytes = size_bytes;
}

static void without_snapshots(struct disk *disk)
{
    struct error err = {0};
    int result = error_set(&err, ENOTSUP,
                           "image '%s' is %s, which has no internal snapshots; convert it to qcow2",
                           disk->top->path, disk->top->ops->name);
    disk_exclusive_end(disk, result, &err);
}

static void start_snapshot(struct disk *disk, struct disk_exclusive *exclusive)
{
    struct node *top = disk->top;
    const struct disk_request everything = {.bytes = top->size_bytes};
    if (is_refused(disk))
        return;
    if (exclusive->snapshot->action == DISK_SNAPSHOT_APPLY)
        disk_mark_bitmaps(top, &everything);
    if (top->ops->snapshot)
        top->ops->snapshot(top, exclusive->snapshot, on_exclusive_done, disk);
    else
        without_snapshots(disk);
}

static void on_snapshot_done(void *opaque, int result, const struct error *err)
{
    struct disk_snapshot_request *request = opaque;
    request->on_done(request, result, err);
}

void disk_snapshot(struct disk *disk, struct disk_snapshot_request *request)
{
    struct disk_exclusive *exclusive =
        disk_exclusive_queue(disk, start_snapshot, on_snapshot_done, request);
    CHECK(exclusive);
    exclusive->snapshot = request;
}

static void start_vmstate_reserve(struct disk *disk, struct disk_exclusive *exclusive)
{
    struct node *top = disk->top;
    if (is_refused(disk))
        return;
    if (top->ops->vmstate_reserve)
        top->ops->vmstate_reserve(top, exclusive->bytes, on_exclusive_done, disk);
    else
        without_snapshots(disk);
}

void disk_vmstate_reserve(struct disk *disk, uint64_t bytes,
                          void (*on_done)(void *opaque, int result, const struct error *err),
                          void *opaque)
{
    struct disk_exclusive *exclusive =
        disk_exclusive_queue(disk, start_vmstate_reserve, on_done, opaque);
    CHECK(exclusive);
    exclusive->bytes = bytes;
}
