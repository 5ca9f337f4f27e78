/* SPDX-License-Identifier: MIT */
/*
 * graph: the chain of a disk in use, and how it changes under a running guest.
 *
 * Theory of operation. A chain changes only while the disk is quiet: graph_quiesce holds new
 * requests, the guest's and those of jobs, and calls back when none is in flight; whatever happens
 * then may take its time, and graph_resume lets the requests go on, to the top that there is then.
 * So a request never sees half a change, and no node goes away under one.
 *
 * The pivots are made of few steps, each of which leaves files that a crash finds in order:
 *   - graph_freeze_top: all of the top is on the medium, and it is written to no more. It may be a
 *     backing file from then on.
 *   - graph_push: another disk's top comes above it. No file changes.
 *   - graph_swap: two disks change their chains, as a mirror does at its end. No file changes: the
 *     mirror was flushed before.
 *   - graph_drop_to: nodes between are closed; the file of the node above them names its new
 *     backing file before (format_ops.set_backing): what was copied is durable by then, and either
 *     name shows the same contents.
 *   - graph_reopen: a node's file is opened anew, to be written to (commit) or only read again.
 *     Other nodes never notice: the new node takes the old one's place.
 *
 * One job uses a disk at a time (graph_set_user); who changes the chain asks graph_user first.
 */
#ifndef DISK_GRAPH_H
#define DISK_GRAPH_H

#include "disk/disk.h"
#include "disk/format.h"

struct node *graph_top(const struct disk *disk);
enum disk_aio graph_aio(const struct disk *disk);
const struct disk_cache_mode *graph_cache(const struct disk *disk);
/* By node name or, if `by_path`, by the file's name as it was opened; or NULL. */
struct node *graph_find(const struct disk *disk, const char *name, bool by_path);
/* The node directly above; NULL for the top. */
struct node *graph_above(const struct disk *disk, const struct node *node);

/* "block device is in use by block job: mirror", or NULL. The string stays the caller's. */
const char *graph_user(const struct disk *disk);
void graph_set_user(struct disk *disk, const char *user);

/*
 * A job's request to one node of the chain. Waits while the disk is quiet. on_done as always. What
 * changes data of the top marks its bitmaps.
 */
void graph_submit(struct disk *disk, struct node *node, struct disk_request *request);

/* Sees the guest's requests before the node does. At most one. */
struct disk_filter {
    /* True: it keeps the request, and graph_continue follows. */
    bool (*intercept)(void *opaque, struct disk_request *request);
    /* A request with DISK_FILTERED has ended; before the guest hears of it. Optional. */
    void (*on_done)(void *opaque, struct disk_request *request, int result);
    /* The disk wants to be quiet: start nothing that can wait; or it goes on. */
    void (*on_hold)(void *opaque, bool is_held);
    void *opaque;
};
/* Stays the caller's memory; NULL takes it away. */
void graph_set_filter(struct disk *disk, const struct disk_filter *filter);
void graph_continue(struct disk *disk, struct disk_request *request);
bool graph_is_held(const struct disk *disk);

/* Later, on the loop; then graph_resume. -ENOMEM: nothing happens. */
int must_check graph_quiesce(struct disk *disk, void (*on_quiet)(void *opaque), void *opaque);
void graph_resume(struct disk *disk);

/* All of these: while quiet. */
void graph_freeze_top(struct disk *disk, void (*on_done)(void *opaque, int result), void *opaque);
/* `above` is another disk, quiet or unused, without a backing; its handle is gone afterwards. */
int must_check graph_push(struct disk *disk, struct disk *above, struct error *err);
void graph_swap(struct disk *a, struct disk *b);
/* `node` (NULL: above the top) is followed by `base` (NULL: nothing); what was between is closed.
 */
void graph_drop_to(struct disk *disk, struct node *node, struct node *base,
                   void (*on_done)(void *opaque, int result), void *opaque);
/* Others may read the top's file again, which is written to no more. */
void graph_share_top(struct disk *disk);
/* For all images of the chain. On failure nothing has changed. */
int must_check graph_set_cache(struct disk *disk, const struct disk_cache_mode *cache,
                               struct error *err);
bool graph_unmap(const struct disk *disk);
void graph_set_unmap(struct disk *disk, bool unmap);

/*
 * *out is in the place of `node`, which is closed. Blocks for the time of opening. On failure
 * nothing has changed. Temporary bitmaps move along.
 */
int must_check graph_reopen(struct disk *disk, struct node *node, bool read_only, struct node **out,
                            struct error *err);
/*
 * The same in two steps: *out has the locks already, and then takes its place or goes. `like` has
 * what else is said of the image, no_lock too; NULL: nothing.
 */
int must_check graph_reopen_begin(struct disk *disk, struct node *node, bool read_only,
                                  const struct disk_options *like, struct node **out,
                                  struct error *err);
void graph_reopen_commit(struct disk *disk, struct node *node, struct node *new);
void graph_reopen_abort(struct node *node, struct node *new, bool no_lock);

#endif
