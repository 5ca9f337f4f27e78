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
#include "disk/format.h"

struct disk {
    struct loop *loop;
    struct node *top;
    struct disk *backing; /* a view of the node below, for disk_backing */
    struct disk_cache_mode cache;
    bool unmap;
    struct disk_stats stats;
    bool closing;
    int close_result;
    void (*on_closed)(void *opaque, int result);
    void *on_closed_opaque;
    void (*on_resize)(void *opaque);
    void *on_resize_opaque;
    struct {
        bool waiting; /* until nothing is in flight; requests are held meanwhile */
        bool running;
        void (*start)(struct disk *disk);
        uint64_t bytes; /* the disk's new size, or the VM state's */
        uint64_t old_size_bytes;
        struct disk_snapshot_request *snapshot;
        void (*on_done)(void *opaque, int result, const struct error *err);
        void *opaque;
        struct list held;
    } exclusive;
    struct loop_task advance; /* a close or an exclusive job that waits for an idle disk */
};

static void disk_free(struct disk *disk)
{
    while (disk) {
        struct disk *below = disk->backing;
        free(disk);
        disk = below;
    }
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
    disk->on_closed(disk->on_closed_opaque, disk->close_result);
    disk_free(disk);
}

/* A request that was held while the disk shrank may lie outside of it now. */
static void resubmit(struct disk *disk, struct disk_request *request)
{
    if (request->op == DISK_FLUSH || request->flags & DISK_VMSTATE ||
        range_fits(request->offset, request->bytes, disk->top->size_bytes))
        node_submit(disk->top, request);
    else
        node_complete_later(disk->top, request, -EIO);
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

static void on_exclusive_done(void *opaque, int result, const struct error *err)
{
    struct disk *disk = opaque;
    struct list held;
    list_init(&held);
    list_splice_back(&held, &disk->exclusive.held);
    disk->exclusive.running = false;
    resize_bitmaps(disk->top);
    for (struct list *node; (node = list_pop_front(&held));)
        resubmit(disk, list_entry(node, struct disk_request, node));
    bool has_new_size = disk->top->size_bytes != disk->exclusive.old_size_bytes;
    disk->exclusive.on_done(disk->exclusive.opaque, result, err);
    if (has_new_size && disk->on_resize)
        disk->on_resize(disk->on_resize_opaque);
    loop_task_queue(&disk->advance);
}

static void on_advance(struct loop_task *task)
{
    struct disk *disk = container_of(task, struct disk, advance);
    uint64_t held = 0;
    list_for_each(node, &disk->exclusive.held) held++;
    if (disk->stats.in_flight > held || disk->exclusive.running)
        return;
    if (disk->exclusive.waiting) {
        disk->exclusive.waiting = false;
        disk->exclusive.running = true;
        disk->exclusive.start(disk);
    } else if (disk->closing) {
        close_node(disk, disk->top);
    }
}

static struct disk *disk_create(struct loop *loop, const struct disk_options *options,
                                struct error *err)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    if (!disk) {
        error_set(err, ENOMEM, "no memory to open '%s'", options->path);
        return NULL;
    }
    disk->loop = loop;
    disk->cache = options->cache;
    disk->unmap = options->discard_unmap;
    list_init(&disk->exclusive.held);
    loop_task_init(loop, &disk->advance, LOOP_STAGE_DRAIN, on_advance);
    return disk;
}

static void on_abandoned(void *opaque, int result)
{
    (void)opaque;
    (void)result;
}

/* Gives every node below a handle of its own to look at. */
static int make_views(struct disk *disk, const struct disk_options *options, struct error *err)
{
    for (struct disk *above = disk; above->top->backing; above = above->backing) {
        above->backing = disk_create(disk->loop, options, err);
        if (!above->backing) {
            disk_close(disk, on_abandoned, NULL);
            return -ENOMEM;
        }
        above->backing->top = above->top->backing;
    }
    return 0;
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
    result = make_views(disk, options, err);
    if (result == 0)
        *out = disk;
    return result;
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

static bool changes_data(const struct disk_request *request)
{
    return request->op == DISK_WRITE || request->op == DISK_ZERO || request->op == DISK_DISCARD;
}

static void check_request(const struct disk *disk, const struct disk_request *request)
{
    bool transfers = request->op == DISK_READ || request->op == DISK_WRITE;
    CHECK(!disk->closing);
    CHECK(!changes_data(request) || !disk->top->read_only);
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
static void mark_bitmaps(struct node *node, const struct disk_request *request)
{
    list_for_each(entry, &node->bitmaps)
    {
        struct dirty_bitmap *bitmap = list_entry(entry, struct dirty_bitmap, node);
        if (bitmap->enabled)
            dirty_bitmap_mark(bitmap, request->offset, request->bytes);
    }
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    struct node *top = disk->top;
    loop_check_thread(disk->loop);
    check_request(disk, request);
    bool is_flush = request->op == DISK_FLUSH;
    request->disk = disk;
    request->started_ns = loop_time_ns(disk->loop);
    request->durable =
        changes_data(request) && (request->flags & DISK_FUA || !disk->cache.writeback);
    disk->stats.in_flight++;
    bool is_nothing = is_flush ? disk->cache.no_flush || top->read_only : !request->bytes;
    if (request->op == DISK_DISCARD && !disk->unmap)
        is_nothing = true;
    if (request->op == DISK_ZERO && !disk->unmap)
        request->flags &= ~(unsigned)DISK_MAY_UNMAP;
    if (request->flags & DISK_VMSTATE)
        request->offset += top->vmstate_offset;
    else if (changes_data(request) && !is_nothing)
        mark_bitmaps(top, request);
    bool must_wait = disk->exclusive.waiting || disk->exclusive.running;
    CHECK(!must_wait || !(request->flags & DISK_VMSTATE));
    if (is_nothing)
        node_complete_later(top, request, 0);
    else if (must_wait)
        list_push_back(&disk->exclusive.held, &request->node);
    else
        node_submit(top, request);
}

void node_complete(struct disk_request *request, int result)
{
    struct disk *disk = request->disk;
    request->result = result;
    if (disk) {
        request->disk = NULL;
        disk->stats.in_flight--;
        if (request->flags & DISK_VMSTATE)
            request->offset -= disk->top->vmstate_offset;
        else if (changes_data(request))
            mark_bitmaps(disk->top, request);
        disk->stats.by_op[request->op].operations++;
        disk->stats.by_op[request->op].bytes += request->op == DISK_FLUSH ? 0 : request->bytes;
        disk->stats.by_op[request->op].failed += result != 0;
        disk->stats.by_op[request->op].total_ns += loop_time_ns(disk->loop) - request->started_ns;
        if (disk->closing || disk->exclusive.waiting)
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

struct close_wait {
    bool done;
    int result;
};

static void on_close_wait(void *opaque, int result)
{
    struct close_wait *wait = opaque;
    wait->done = true;
    wait->result = result;
}

int disk_close_wait(struct disk *disk)
{
    struct loop *loop = disk->loop;
    struct close_wait wait = {0};
    disk_close(disk, on_close_wait, &wait);
    while (!wait.done)
        loop_run_once(loop, true);
    return wait.result;
}

/* `start` runs when nothing is in flight, and ends in on_exclusive_done. */
static void run_exclusively(struct disk *disk, void (*start)(struct disk *disk),
                            void (*on_done)(void *opaque, int result, const struct error *err),
                            void *opaque)
{
    loop_check_thread(disk->loop);
    CHECK(!disk->closing && !disk->top->read_only);
    CHECK(!disk->exclusive.waiting && !disk->exclusive.running);
    disk->exclusive.waiting = true;
    disk->exclusive.start = start;
    disk->exclusive.old_size_bytes = disk->top->size_bytes;
    disk->exclusive.on_done = on_done;
    disk->exclusive.opaque = opaque;
    loop_task_queue(&disk->advance);
}

static void start_resize(struct disk *disk)
{
    disk->top->ops->resize(disk->top, disk->exclusive.bytes, on_exclusive_done, disk);
}

void disk_resize(struct disk *disk, uint64_t size_bytes,
                 void (*on_done)(void *opaque, int result, const struct error *err), void *opaque)
{
    CHECK(is_aligned(size_bytes, 512));
    disk->exclusive.bytes = size_bytes;
    run_exclusively(disk, start_resize, on_done, opaque);
}

static void without_snapshots(struct disk *disk)
{
    struct error err = {0};
    int result = error_set(&err, ENOTSUP,
                           "image '%s' is %s, which has no internal snapshots; convert it to qcow2",
                           disk->top->path, disk->top->ops->name);
    on_exclusive_done(disk, result, &err);
}

static void start_snapshot(struct disk *disk)
{
    struct node *top = disk->top;
    const struct disk_request everything = {.bytes = top->size_bytes};
    if (disk->exclusive.snapshot->action == DISK_SNAPSHOT_APPLY)
        mark_bitmaps(top, &everything);
    if (top->ops->snapshot)
        top->ops->snapshot(top, disk->exclusive.snapshot, on_exclusive_done, disk);
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
    disk->exclusive.snapshot = request;
    run_exclusively(disk, start_snapshot, on_snapshot_done, request);
}

static void start_vmstate_reserve(struct disk *disk)
{
    struct node *top = disk->top;
    if (top->ops->vmstate_reserve)
        top->ops->vmstate_reserve(top, disk->exclusive.bytes, on_exclusive_done, disk);
    else
        without_snapshots(disk);
}

void disk_vmstate_reserve(struct disk *disk, uint64_t bytes,
                          void (*on_done)(void *opaque, int result, const struct error *err),
                          void *opaque)
{
    disk->exclusive.bytes = bytes;
    run_exclusively(disk, start_vmstate_reserve, on_done, opaque);
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

uint64_t disk_size_bytes(const struct disk *disk)
{
    return disk->top->size_bytes;
}

bool disk_is_read_only(const struct disk *disk)
{
    return disk->top->read_only;
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

struct list *disk_bitmaps(struct disk *disk)
{
    return &disk->top->bitmaps;
}

struct dirty_bitmap *disk_find_bitmap(struct disk *disk, const char *name)
{
    list_for_each(entry, &disk->top->bitmaps)
    {
        struct dirty_bitmap *bitmap = list_entry(entry, struct dirty_bitmap, node);
        if (!strcmp(bitmap->name, name))
            return bitmap;
    }
    return NULL;
}

static int check_bitmap(struct disk *disk, const char *name, uint64_t granularity_bytes,
                        bool persistent, struct error *err)
{
    const struct node *top = disk->top;
    if (!*name)
        return error_set(err, EINVAL, "Bitmap name cannot be empty");
    if (granularity_bytes < 512 || !is_power_of_2(granularity_bytes))
        return error_set(err, EINVAL, "Granularity must be power of 2 and at least 512");
    if (disk_find_bitmap(disk, name))
        return error_set(err, EEXIST, "Bitmap already exists: %s", name);
    if (!persistent)
        return 0;
    if (!top->ops->check_bitmap)
        return error_set(err, ENOTSUP, "Can't store persistent bitmaps to %s: Operation not supported",
                         top->path);
    int result = top->ops->check_bitmap(top, name, granularity_bytes, err);
    if (result)
        error_prefix(err, "Can't make bitmap '%s' persistent in '%s'", name, top->path);
    return result;
}

int disk_add_bitmap(struct disk *disk, const char *name, uint64_t granularity_bytes,
                    bool persistent, struct dirty_bitmap **out, struct error *err)
{
    struct dirty_bitmap *bitmap;
    if (!granularity_bytes)
        granularity_bytes = MIN(MAX(disk->top->discard_granularity, 4096u), 65536u);
    int result = check_bitmap(disk, name, granularity_bytes, persistent, err);
    if (result)
        return result;
    result = dirty_bitmap_create(name, disk->top->size_bytes,
                                 (uint32_t)__builtin_ctzll(granularity_bytes), &bitmap);
    if (result)
        return error_set_errno(err, -result, "Cannot make bitmap '%s'", name);
    bitmap->persistent = persistent;
    list_push_back(&disk->top->bitmaps, &bitmap->node);
    *out = bitmap;
    return 0;
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
