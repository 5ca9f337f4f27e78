/* SPDX-License-Identifier: MIT */
/*
 * block_reopen: other ways to access images that are open, all of a list or none: all disks get
 * quiet, each is made ready in a way that can be taken back, and only then what was made counts.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "disk/graph.h"
#include "vmm/block/block_private.h"

struct reopen {
    struct block_reopening *nodes;
    unsigned count, at; /* of the step that goes on */
    struct disk_request flush;
    struct io_request sync;
    int result;
    struct error err;
    const struct block_reopen_host *host;
    void *opaque;
};

static bool becomes_read_only(const struct block_reopening *change)
{
    return change->wanted.read_only && !disk_is_read_only(change->disk);
}

static bool becomes_writable(const struct block_reopening *change)
{
    return !change->wanted.read_only && disk_is_read_only(change->disk);
}

int block_reopen_claim(struct disk *disk, bool read_only, struct error *err)
{
    int result = block_check_free(disk, err);
    if (!result && read_only != disk_is_read_only(disk) && graph_top(disk)->data_file)
        result = error_set(err, ENOTSUP,
                           "Cannot change the option 'read-only' of node '%s', which has a data "
                           "file: blockdev-del it, and blockdev-add it anew",
                           disk_node_name(disk));
    if (!result)
        graph_set_user(disk, "it is being opened anew");
    return result;
}

void block_reopen_unclaim(struct disk *disk)
{
    graph_set_user(disk, NULL);
}

static void finish(struct reopen *reopen)
{
    for (unsigned i = 0; i < reopen->count; i++) {
        block_reopen_unclaim(reopen->nodes[i].disk);
        if (reopen->nodes[i].is_quiet)
            graph_resume(reopen->nodes[i].disk);
    }
    reopen->host->on_done(reopen->opaque, reopen->result, &reopen->err);
    free(reopen);
}

static void thaw(const struct block_reopening *change)
{
    struct error err = {0};
    struct node *top = graph_top(change->disk), *new;
    int result = graph_reopen_begin(change->disk, top, false, &change->now, &new, &err);
    if (!result)
        graph_reopen_commit(change->disk, top, new);
    else
        log_error("node '%s' stays read-only: %s", disk_node_name(change->disk), err.text);
}

static void undo(struct block_reopening *change)
{
    struct error err = {0};
    if (change->made)
        graph_reopen_abort(graph_top(change->disk), change->made, change->now.no_lock);
    if (!change->is_set)
        return;
    if (graph_set_cache(change->disk, &change->old_cache, &err))
        log_error("%s", err.text);
    graph_set_unmap(change->disk, change->old_unmap);
    if (change->is_frozen)
        thaw(change);
}

static void fail(struct reopen *reopen, int result)
{
    reopen->result = result;
    for (unsigned i = reopen->count; i-- > 0;)
        undo(&reopen->nodes[i]);
    finish(reopen);
}

static void commit(struct reopen *reopen)
{
    for (unsigned i = 0; i < reopen->count; i++) {
        const struct block_reopening *change = &reopen->nodes[i];
        if (change->made)
            graph_reopen_commit(change->disk, graph_top(change->disk), change->made);
        else if (change->is_frozen && !change->now.no_lock)
            graph_share_top(change->disk);
    }
    finish(reopen);
}

/* --- the steps --- */

static void prepare_next(struct reopen *reopen);

static void fail_to_write(struct reopen *reopen, int result)
{
    error_set_errno(&reopen->err, -result, "Could not write '%s'",
                    disk_path(reopen->nodes[reopen->at].disk));
    fail(reopen, result);
}

static void on_flushed(struct disk_request *request, int result)
{
    struct reopen *reopen = container_of(request, struct reopen, flush);
    reopen->nodes[reopen->at].is_flushed = true;
    if (result)
        fail_to_write(reopen, result);
    else
        prepare_next(reopen);
}

static void on_synced(struct io_request *request, int result)
{
    struct reopen *reopen = container_of(request, struct reopen, sync);
    reopen->nodes[reopen->at].synced++;
    if (result)
        fail_to_write(reopen, result);
    else
        prepare_next(reopen);
}

static void on_frozen(void *opaque, int result)
{
    struct reopen *reopen = opaque;
    if (result) {
        fail_to_write(reopen, result);
        return;
    }
    reopen->nodes[reopen->at++].is_frozen = true;
    prepare_next(reopen);
}

/* Flushes count from now on: also for what was written before. NULL: nothing is left to do. */
static struct io_file *unsynced(const struct block_reopening *change)
{
    const struct node *top = graph_top(change->disk);
    if (change->was_read_only || !change->old_cache.no_flush || change->wanted.cache.no_flush)
        return NULL;
    return change->synced == 0 ? top->file : change->synced == 1 ? top->data_file : NULL;
}

static int set(struct reopen *reopen, struct block_reopening *change)
{
    int result =
        reopen->host->check(reopen->opaque, (unsigned)(change - reopen->nodes), &reopen->err);
    change->old_cache = *graph_cache(change->disk);
    change->old_unmap = graph_unmap(change->disk);
    change->was_read_only = disk_is_read_only(change->disk);
    change->wanted.cache.writeback = change->old_cache.writeback;
    if (!result)
        result = graph_set_cache(change->disk, &change->wanted.cache, &reopen->err);
    if (result)
        return result;
    change->is_set = true;
    graph_set_unmap(change->disk, change->wanted.discard_unmap);
    if (!becomes_writable(change))
        return 0;
    return graph_reopen_begin(change->disk, graph_top(change->disk), false, &change->wanted,
                              &change->made, &reopen->err);
}

static void flush(struct reopen *reopen, struct disk *disk)
{
    reopen->flush =
        (struct disk_request){.op = DISK_FLUSH, .flags = DISK_IN_QUIET, .on_done = on_flushed};
    graph_submit(disk, graph_top(disk), &reopen->flush);
}

/* What was dirty is written in the old mode, so that nothing is in flight when the new one comes.
 * False: it is answered later, or all has failed. */
static bool prepare(struct reopen *reopen, struct block_reopening *change)
{
    int result = 0;
    if (!change->is_flushed && !disk_is_read_only(change->disk)) {
        flush(reopen, change->disk);
        return false;
    }
    if (!change->is_set)
        result = set(reopen, change);
    if (result) {
        fail(reopen, result);
        return false;
    }
    struct io_file *file = unsynced(change);
    if (file) {
        reopen->sync = (struct io_request){.kind = IO_SYNC, .on_done = on_synced};
        io_submit(file, &reopen->sync);
        return false;
    }
    if (!becomes_read_only(change))
        return true;
    graph_freeze_top(change->disk, on_frozen, reopen);
    return false;
}

static void prepare_next(struct reopen *reopen)
{
    for (; reopen->at < reopen->count; reopen->at++)
        if (!prepare(reopen, &reopen->nodes[reopen->at]))
            return;
    commit(reopen);
}

static void quiesce_next(struct reopen *reopen);

static void on_quiet(void *opaque)
{
    struct reopen *reopen = opaque;
    reopen->nodes[reopen->at++].is_quiet = true;
    quiesce_next(reopen);
}

static void quiesce_next(struct reopen *reopen)
{
    int result = 0;
    if (reopen->at < reopen->count) {
        result = graph_quiesce(reopen->nodes[reopen->at].disk, on_quiet, reopen);
        if (!result)
            return;
        error_set(&reopen->err, ENOMEM, "no memory to open images anew");
        fail(reopen, result);
        return;
    }
    reopen->at = 0;
    prepare_next(reopen);
}

void block_reopen(struct block_reopening *nodes, unsigned count,
                  const struct block_reopen_host *host, void *opaque)
{
    struct reopen *reopen = calloc(1, sizeof(*reopen));
    CHECK(reopen);
    *reopen = (struct reopen){.nodes = nodes, .count = count, .host = host, .opaque = opaque};
    quiesce_next(reopen);
}
