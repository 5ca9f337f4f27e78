/* SPDX-License-Identifier: MIT */
/*
 * disk: the one door to an image. Checks each request once, counts it, hands it to the top node of
 * the graph; closes the graph from the top down when the last request is done.
 */
#include "disk/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "base/log.h"
#include "disk/dirty.h"
#include "disk/disk_private.h"
#include "disk/graph.h"
#include "disk/histogram.h"

static void disk_free(struct disk *disk)
{
    disk_drop_views(disk);
    for (unsigned op = 0; op <= DISK_STATUS; op++)
        free(disk->histograms[op]);
    free(disk);
}

static void on_node_closed(void *opaque, int result);

static void close_node(struct disk *disk, struct node *node)
{
    disk->top = node->backing;
    node->ops->close(node, on_node_closed, disk);
}

static void on_node_closed(void *opaque, int result)
{
    struct disk *disk = opaque;
    if (!disk->close_result)
        disk->close_result = result;
    if (disk->top) {
        close_node(disk, disk->top);
        return;
    }
    void (*on_closed)(void *, int) = disk->on_closed;
    void *owner = disk->on_closed_opaque;
    int close_result = disk->close_result;
    disk_free(disk);
    on_closed(owner, close_result);
}

void disk_start_close(struct disk *disk)
{
    throttle_join(&disk->throttle, NULL);
    if (disk->top)
        close_node(disk, disk->top);
    else
        on_node_closed(disk, 0);
}

struct disk *disk_allocate(struct loop *loop)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    if (!disk)
        return NULL;
    disk->loop = loop;
    list_init(&disk->held);
    list_init(&disk->exclusives);
    throttle_init(&disk->throttle, disk);
    loop_task_init(loop, &disk->advance, LOOP_STAGE_DRAIN, disk_exclusive_advance);
    return disk;
}

static struct disk *disk_create(struct loop *loop, const struct disk_options *options,
                                struct error *err)
{
    struct disk *disk = disk_allocate(loop);
    if (!disk) {
        error_set(err, ENOMEM, "no memory to open '%s'", options->path);
        return NULL;
    }
    disk->cache = options->cache;
    disk->aio = options->aio;
    disk->unmap = options->discard_unmap;
    return disk;
}

static void on_abandoned(void *opaque, int result)
{
    (void)opaque;
    (void)result;
}

int disk_open(struct loop *loop, const struct disk_options *options, struct disk **out,
              struct error *err)
{
    loop_check_thread(loop);
    struct disk *disk = disk_create(loop, options, err);
    if (!disk)
        return -ENOMEM;
    int result = chain_open(loop, options, &disk->top, err);
    if (result) {
        free(disk);
        return result;
    }
    result = disk_make_views(disk);
    if (result) {
        disk_close(disk, on_abandoned, NULL);
        return error_set(err, ENOMEM, "no memory to open '%s'", options->path);
    }
    *out = disk;
    return 0;
}

int disk_open_file(struct loop *loop, struct io_file *file, struct node *backing,
                   const struct disk_options *options, struct disk **out, struct error *err)
{
    struct disk *disk = disk_create(loop, options, err);
    if (!disk)
        return -ENOMEM;
    int result = format_find(options->format)->open(loop, file, options, &disk->top, err);
    if (result) {
        free(disk);
        return result;
    }
    disk->top->backing = backing;
    *out = disk;
    return 0;
}

static void check_request(const struct disk *disk, const struct disk_request *request)
{
    bool transfers = request->op == DISK_READ || request->op == DISK_WRITE;
    CHECK(!disk->closing);
    CHECK(!disk_changes_data(request) || !disk_is_read_only(disk));
    bool is_vmstate = request->flags & DISK_VMSTATE;
    CHECK(transfers || !is_vmstate);
    if (request->op != DISK_FLUSH)
        CHECK(range_fits(request->offset, request->bytes,
                         is_vmstate ? disk->top->vmstate_bytes : disk->top->size_bytes));
    if (transfers)
        CHECK(iov_size(request->iov, request->iov_count) == request->bytes);
}

/*
 * Before the data changes, so that a bitmap is never short of what the disk holds; and once more
 * after it, for bitmaps that were made or emptied meanwhile.
 */
void disk_mark_bitmaps(struct node *node, const struct disk_request *request)
{
    list_for_each(entry, &node->bitmaps)
    {
        struct dirty_bitmap *bitmap = list_entry(entry, struct dirty_bitmap, node);
        if (bitmap->enabled)
            dirty_bitmap_mark(bitmap, request->offset, request->bytes);
    }
}

/* Nothing has to be done for it: the options say so, or its range is empty. */
static bool is_nothing(const struct disk *disk, const struct disk_request *request)
{
    if (request->op == DISK_FLUSH)
        return disk->cache.no_flush || disk->top->read_only;
    return !request->bytes || (request->op == DISK_DISCARD && !disk->unmap);
}

void disk_admit(struct disk *disk, struct disk_request *request)
{
    struct node *top = disk->top;
    disk->pending++;
    if (is_nothing(disk, request)) {
        node_complete_later(top, request, 0);
        return;
    }
    /* While the disk is held it may change: resubmitting checks. */
    bool is_held = !list_is_empty(&disk->exclusives);
    int result = is_held ? 0 : disk_check_late(top, request);
    if (result) {
        node_complete_later(top, request, result);
        return;
    }
    if (disk_changes_data(request) && !(request->flags & DISK_VMSTATE))
        disk_mark_bitmaps(top, request);
    if (is_held) {
        CHECK(!(request->flags & DISK_VMSTATE));
        disk->held_count++;
        list_push_back(&disk->held, &request->node);
    } else if (!disk->filter || !disk->filter->intercept(disk->filter->opaque, request)) {
        node_submit(top, request);
    }
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    loop_check_thread(disk->loop);
    check_request(disk, request);
    request->disk = disk;
    request->target = NULL;
    request->started_ns = loop_time_ns(disk->loop);
    request->durable =
        disk_changes_data(request) && (request->flags & DISK_FUA || !disk->cache.writeback);
    disk->stats.in_flight++;
    if (request->op == DISK_ZERO && !disk->unmap)
        request->flags &= ~(unsigned)DISK_MAY_UNMAP;
    if (request->flags & DISK_VMSTATE)
        request->offset += disk->top->vmstate_offset;
    if (!throttle_delays(&disk->throttle, request))
        disk_admit(disk, request);
}

void disk_expect(const struct disk *disk, uint64_t offset)
{
    const struct node *top = disk->top;
    if (top->ops->expect && offset < top->size_bytes)
        top->ops->expect(top, offset);
}

static void count_request(struct disk *disk, const struct disk_request *request, int result)
{
    uint64_t took_ns = loop_time_ns(disk->loop) - request->started_ns;
    disk->stats.in_flight--;
    disk->stats.by_op[request->op].operations++;
    disk->stats.by_op[request->op].bytes += request->op == DISK_FLUSH ? 0 : request->bytes;
    disk->stats.by_op[request->op].failed += result != 0;
    disk->stats.by_op[request->op].total_ns += took_ns;
    if (disk->histograms[request->op])
        disk_histogram_add(disk->histograms[request->op], took_ns);
}

void node_complete(struct disk_request *request, int result)
{
    struct disk *disk = request->disk;
    request->result = result;
    if (disk) {
        struct node *target = request->target ? request->target : disk->top;
        request->disk = NULL;
        disk->pending--;
        if (request->flags & DISK_VMSTATE)
            request->offset -= disk->top->vmstate_offset;
        else if (disk_changes_data(request))
            disk_mark_bitmaps(target, request);
        if (request->flags & DISK_FILTERED && disk->filter && disk->filter->on_done)
            disk->filter->on_done(disk->filter->opaque, request, result);
        request->flags &= ~(unsigned)DISK_FILTERED;
        if (!(request->flags & DISK_INTERNAL))
            count_request(disk, request, result);
        if (disk->closing || !list_is_empty(&disk->exclusives))
            loop_task_queue(&disk->advance);
    }
    request->on_done(request, result);
}

void disk_close(struct disk *disk, void (*on_closed)(void *opaque, int result), void *opaque)
{
    loop_check_thread(disk->loop);
    CHECK(!disk->closing);
    disk->closing = true;
    disk->on_closed = on_closed;
    disk->on_closed_opaque = opaque;
    throttle_release(&disk->throttle);
    loop_task_queue(&disk->advance);
}

static void on_run_done(struct disk_request *request, int result)
{
    (void)request;
    (void)result;
}

int disk_run(struct disk *disk, struct disk_request *request)
{
    struct loop *loop = disk->loop;
    request->on_done = on_run_done;
    disk_submit(disk, request);
    while (request->disk)
        loop_run_once(loop, true);
    return request->result;
}

struct wait {
    bool done;
    int result;
    struct error *err;
};

static void on_close_wait(void *opaque, int result)
{
    struct wait *wait = opaque;
    wait->done = true;
    wait->result = result;
}

int disk_close_wait(struct disk *disk)
{
    struct loop *loop = disk->loop;
    struct wait wait = {0};
    disk_close(disk, on_close_wait, &wait);
    while (!wait.done)
        loop_run_once(loop, true);
    return wait.result;
}

static void on_resize_wait(void *opaque, int result, const struct error *err)
{
    struct wait *wait = opaque;
    wait->done = true;
    wait->result = result;
    if (result && err && err->code)
        *wait->err = *err;
    else if (result)
        error_set(wait->err, -result, "%s", strerror(-result));
}

int disk_resize_wait(struct disk *disk, uint64_t size_bytes, struct error *err)
{
    struct wait wait = {.err = err};
    disk_resize(disk, size_bytes, on_resize_wait, &wait);
    while (!wait.done)
        loop_run_once(disk->loop, true);
    return wait.result;
}

uint64_t disk_vmstate_bytes(const struct disk *disk)
{
    return disk->top->vmstate_bytes;
}

size_t disk_snapshot_count(const struct disk *disk)
{
    const struct node *top = disk->top;
    return top->ops->snapshot_count ? top->ops->snapshot_count(top) : 0;
}

void disk_snapshot_get(const struct disk *disk, size_t index, struct disk_snapshot_info *out)
{
    CHECK(index < disk_snapshot_count(disk));
    disk->top->ops->snapshot_get(disk->top, index, out);
}

void disk_set_resize_listener(struct disk *disk, void (*on_resize)(void *opaque), void *opaque)
{
    disk->on_resize = on_resize;
    disk->on_resize_opaque = opaque;
}

void disk_release_delayed(struct disk *disk)
{
    throttle_release(&disk->throttle);
}

void disk_set_throttle_group(struct disk *disk, struct throttle_group *group)
{
    throttle_join(&disk->throttle, group);
}

int disk_set_limits(struct disk *disk, const struct throttle_limits *limits)
{
    struct throttle_group *group = disk->throttle.group;
    if (!throttle_is_limited(limits)) {
        throttle_join(&disk->throttle, NULL);
        return 0;
    }
    if (group) {
        throttle_group_set(group, limits);
        return 0;
    }
    int result = throttle_group_create(disk->loop, NULL, &group);
    if (result)
        return result;
    throttle_group_set(group, limits);
    throttle_join(&disk->throttle, group);
    throttle_group_put(group);
    return 0;
}

const struct throttle_limits *disk_get_limits(const struct disk *disk)
{
    return disk->throttle.group ? &disk->throttle.group->limits : &throttle_no_limits;
}

const char *disk_throttle_group(const struct disk *disk)
{
    return disk->throttle.group ? disk->throttle.group->name : NULL;
}

uint64_t disk_size_bytes(const struct disk *disk)
{
    return disk->top->size_bytes;
}

bool disk_is_read_only(const struct disk *disk)
{
    return disk->top->read_only && !disk->is_frozen;
}

uint32_t disk_discard_granularity(const struct disk *disk)
{
    return disk->top->discard_granularity;
}

bool disk_zeroes_fast(const struct disk *disk)
{
    return disk->top->zeroes_fast;
}

const char *disk_path(const struct disk *disk)
{
    return disk->top->path;
}

const char *disk_format(const struct disk *disk)
{
    return disk->top->ops->name;
}

const struct disk *disk_backing(const struct disk *disk)
{
    return disk->backing;
}

bool disk_register_memory(struct loop *loop, void *base, uint64_t bytes)
{
    return io_register_memory(loop, base, bytes);
}

void disk_forget_memory(struct loop *loop)
{
    io_forget_memory(loop);
}

void disk_get_stats(const struct disk *disk, struct disk_stats *stats)
{
    *stats = disk->stats;
    for (const struct node *node = disk->top; node; node = node->backing) {
        stats->host_reads += node->file->stats.reads;
        stats->host_writes += node->file->stats.writes;
        stats->host_flushes += node->file->stats.syncs;
        if (!node->data_file)
            continue;
        stats->host_reads += node->data_file->stats.reads;
        stats->host_writes += node->data_file->stats.writes;
        stats->host_flushes += node->data_file->stats.syncs;
    }
}
