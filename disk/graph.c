/* SPDX-License-Identifier: MIT */
/* graph: changes of the chain of a disk in use; the header has the theory. */
#include "disk/graph.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/log.h"
#include "disk/dirty.h"
#include "disk/disk_private.h"
#include "disk/lock.h"
#include "disk/qcow2/qcow2_rule.h"

struct node *graph_top(const struct disk *disk)
{
    return disk->top;
}

enum disk_aio graph_aio(const struct disk *disk)
{
    return disk->aio;
}

const struct disk_cache_mode *graph_cache(const struct disk *disk)
{
    return &disk->cache;
}

struct node *graph_find(const struct disk *disk, const char *name, bool by_path)
{
    for (struct node *node = disk->top; node; node = node->backing)
        if (!strcmp(by_path ? node->path : node->name, name))
            return node;
    return NULL;
}

struct node *graph_above(const struct disk *disk, const struct node *node)
{
    struct node *above = disk->top;
    if (above == node)
        return NULL;
    while (above->backing != node)
        above = above->backing;
    return above;
}

const char *disk_node_name(const struct disk *disk)
{
    return disk->top->name;
}

void disk_set_node_name(struct disk *disk, const char *name)
{
    snprintf(disk->top->name, sizeof(disk->top->name), "%s", name);
}

const char *graph_user(const struct disk *disk)
{
    return disk->user;
}

void graph_set_user(struct disk *disk, const char *user)
{
    disk->user = user;
}

void disk_drop_views(struct disk *disk)
{
    for (struct disk *view = disk->backing, *below; view; view = below) {
        below = view->backing;
        free(view);
    }
    disk->backing = NULL;
}

int disk_make_views(struct disk *disk)
{
    disk_drop_views(disk);
    struct disk *above = disk;
    for (struct node *node = disk->top->backing; node; node = node->backing) {
        above->backing = disk_allocate(disk->loop);
        if (!above->backing)
            return -ENOMEM;
        above = above->backing;
        above->top = node;
    }
    return 0;
}

/* Views only show things: without memory for them the chain looks shorter than it is. */
static void chain_changed(struct disk *disk)
{
    if (disk_make_views(disk))
        log_error("image '%s': no memory to show all of its chain", disk->top->path);
}

void graph_submit(struct disk *disk, struct node *node, struct disk_request *request)
{
    loop_check_thread(disk->loop);
    request->disk = disk;
    request->target = node;
    request->flags |= DISK_INTERNAL;
    request->durable = disk_changes_data(request) && request->flags & DISK_FUA;
    disk->pending++;
    if (disk_changes_data(request))
        disk_mark_bitmaps(node, request);
    if (disk->is_exclusive && !(request->flags & DISK_IN_QUIET)) {
        disk->held_count++;
        list_push_back(&disk->held, &request->node);
    } else {
        node_submit(node, request);
    }
}

void graph_set_filter(struct disk *disk, const struct disk_filter *filter)
{
    disk->filter = filter;
}

void graph_continue(struct disk *disk, struct disk_request *request)
{
    node_submit(disk->top, request);
}

bool graph_is_held(const struct disk *disk)
{
    return !list_is_empty(&disk->exclusives);
}

static void start_quiet(struct disk *disk, struct disk_exclusive *exclusive)
{
    void (*on_quiet)(void *opaque, int result, const struct error *err) = exclusive->on_done;
    void *opaque = exclusive->opaque;
    (void)disk;
    exclusive->on_done = NULL;
    on_quiet(opaque, 0, NULL);
}

/* Tells of the quiet, then frees itself; the exclusive change goes on until graph_resume. */
struct quiet {
    void (*on_quiet)(void *opaque);
    void *opaque;
};

static void tell_quiet(void *opaque, int result, const struct error *err)
{
    struct quiet quiet = *(struct quiet *)opaque;
    (void)result, (void)err;
    free(opaque);
    quiet.on_quiet(quiet.opaque);
}

int graph_quiesce(struct disk *disk, void (*on_quiet)(void *opaque), void *opaque)
{
    struct quiet *quiet = malloc(sizeof(*quiet));
    if (quiet)
        *quiet = (struct quiet){on_quiet, opaque};
    if (!quiet || !disk_exclusive_queue(disk, start_quiet, tell_quiet, quiet)) {
        free(quiet);
        return -ENOMEM;
    }
    return 0;
}

void graph_resume(struct disk *disk)
{
    disk_exclusive_end(disk, 0, NULL);
}

void graph_freeze_top(struct disk *disk, void (*on_done)(void *opaque, int result), void *opaque)
{
    CHECK(disk->is_exclusive);
    if (disk->top->read_only || !qcow2_rule(JOB_FREEZE_FIRST)) {
        on_done(opaque, 0);
        return;
    }
    disk->is_frozen = true;
    disk->top->ops->freeze(disk->top, on_done, opaque);
}

static unsigned depth_of(const struct node *node)
{
    unsigned depth = 0;
    for (; node; node = node->backing)
        depth++;
    return depth;
}

/* Nobody writes to it any more, so that others may read it: clones build on it. */
static void share_frozen(struct node *node)
{
    struct error ignored = {0};
    if (node->read_only)
        unused_result(lock_image(node->file, node->path, true, &ignored));
}

int graph_push(struct disk *disk, struct disk *above, struct error *err)
{
    struct node *node = above->top;
    CHECK(disk->is_exclusive && !node->backing && !above->pending);
    if (depth_of(disk->top) >= DISK_BACKING_DEPTH_MAX)
        return error_set(err, ELOOP, "the backing chain of '%s' would be longer than %d images",
                         node->path, DISK_BACKING_DEPTH_MAX);
    node->backing = disk->top;
    disk->top = node;
    share_frozen(node->backing);
    chain_changed(disk);
    loop_task_cancel(&above->advance);
    throttle_join(&above->throttle, NULL);
    disk_drop_views(above);
    free(above);
    return 0;
}

void graph_swap(struct disk *a, struct disk *b)
{
    struct node *top = a->top;
    CHECK(a->is_exclusive && !b->pending);
    a->top = b->top;
    b->top = top;
    chain_changed(a);
    chain_changed(b);
}

struct drop {
    struct node *next, *end;
    int result;
    void (*on_done)(void *opaque, int result);
    void *opaque;
};

static void drop_next(struct drop *drop);

static void on_dropped(void *opaque, int result)
{
    struct drop *drop = opaque;
    if (!drop->result)
        drop->result = result;
    drop_next(drop);
}

static void drop_next(struct drop *drop)
{
    struct node *node = drop->next;
    if (node == drop->end) {
        drop->on_done(drop->opaque, drop->result);
        free(drop);
        return;
    }
    drop->next = node->backing;
    node->ops->close(node, on_dropped, drop);
}

void graph_drop_to(struct disk *disk, struct node *node, struct node *base,
                   void (*on_done)(void *opaque, int result), void *opaque)
{
    struct drop *drop = malloc(sizeof(*drop));
    CHECK(drop && disk->is_exclusive);
    *drop = (struct drop){.end = base, .on_done = on_done, .opaque = opaque};
    drop->next = node ? node->backing : disk->top;
    if (node)
        node->backing = base;
    else
        disk->top = base;
    chain_changed(disk);
    drop_next(drop);
}

/* From the old file's locks to the new one's; the old ones come back if that fails. */
static int move_locks(struct node *from, struct node *to, bool read_only, struct error *err)
{
    struct error ignored = {0};
    if (from->file->fd < 0 || to->file->fd < 0)
        return 0;
    int result = lock_take(from->file->fd, from->path, 0, 0, err);
    if (!result)
        result = lock_image(to->file, to->path, read_only, err);
    if (result)
        unused_result(lock_image(from->file, from->path, from->read_only, &ignored));
    return result;
}

static void on_reopened_closed(void *opaque, int result)
{
    (void)opaque;
    if (result)
        log_error("closing an image that was opened anew failed: %s", strerror(-result));
}

static void take_place(struct disk *disk, struct node *old, struct node *new)
{
    struct node *above = graph_above(disk, old);
    if (above)
        above->backing = new;
    else
        disk->top = new;
    new->backing = old->backing;
    snprintf(new->name, sizeof(new->name), "%s", old->name);
    list_for_each(entry, &old->bitmaps)
    {
        struct dirty_bitmap *bitmap = list_entry(entry, struct dirty_bitmap, node);
        if (bitmap->persistent)
            continue;
        list_remove(&bitmap->node);
        list_push_back(&new->bitmaps, &bitmap->node);
    }
}

int graph_reopen_begin(struct disk *disk, struct node *node, bool read_only,
                       const struct disk_options *like, struct node **out, struct error *err)
{
    struct disk_options options = {.idle_writeback_ms = 1000};
    if (like)
        options = *like;
    options.path = node->path;
    options.format = node->ops->name;
    options.read_only = read_only;
    options.discard_unmap = !read_only && disk->unmap;
    options.no_lock = options.no_backing = true;
    options.cache = disk->cache;
    options.aio = disk->aio;
    struct node *new;
    CHECK(disk->is_exclusive && node->read_only);
    int result = chain_open(disk->loop, &options, &new, err);
    if (result)
        return result;
    if (!like || !like->no_lock)
        result = move_locks(node, new, read_only, err);
    if (result)
        new->ops->close(new, on_reopened_closed, NULL);
    else
        *out = new;
    return result;
}

void graph_reopen_commit(struct disk *disk, struct node *node, struct node *new)
{
    take_place(disk, node, new);
    chain_changed(disk);
    node->backing = NULL;
    node->ops->close(node, on_reopened_closed, NULL);
}

void graph_reopen_abort(struct node *node, struct node *new, bool no_lock)
{
    struct error err = {0};
    if (!no_lock && move_locks(new, node, node->read_only, &err))
        log_error("%s", err.text);
    new->ops->close(new, on_reopened_closed, NULL);
}

int graph_reopen(struct disk *disk, struct node *node, bool read_only, struct node **out,
                 struct error *err)
{
    int result = graph_reopen_begin(disk, node, read_only, NULL, out, err);
    if (!result)
        graph_reopen_commit(disk, node, *out);
    return result;
}

void graph_share_top(struct disk *disk)
{
    share_frozen(disk->top);
}

bool graph_unmap(const struct disk *disk)
{
    return disk->unmap;
}

void graph_set_unmap(struct disk *disk, bool unmap)
{
    disk->unmap = unmap;
    disk->top->unmap = unmap && !disk->top->read_only;
}

static int change_files(struct disk *disk, const struct disk_cache_mode *cache, const char **path)
{
    int result = 0;
    for (struct node *node = disk->top; node && !result; node = node->backing) {
        *path = node->path;
        result = io_change_mode(node->file, cache->direct, cache->no_flush);
        if (!result && node->data_file)
            result = io_change_mode(node->data_file, cache->direct, cache->no_flush);
    }
    return result;
}

int graph_set_cache(struct disk *disk, const struct disk_cache_mode *cache, struct error *err)
{
    const char *path = NULL, *ignored;
    CHECK(disk->is_exclusive);
    int result = change_files(disk, cache, &path);
    if (!result) {
        disk->cache = *cache;
        return 0;
    }
    unused_result(change_files(disk, &disk->cache, &ignored));
    if (result == -EINVAL)
        return error_set(err, EINVAL,
                         "the file system of '%s' has no O_DIRECT; leave cache.direct off", path);
    if (result == -EBUSY)
        return error_set(err, EBUSY, "image '%s' is writing its tables back; try again", path);
    return error_set_errno(err, -result, "Could not change the cache mode of '%s'", path);
}
