/* SPDX-License-Identifier: MIT */
/* disk_private: what disk.c (requests), disk_exclusive.c and graph.c share. */
#ifndef DISK_DISK_PRIVATE_H
#define DISK_DISK_PRIVATE_H

#include "disk/format.h"
#include "disk/throttle.h"

struct disk_filter;
struct disk_histogram;

/* A change that needs an idle disk: held in the order of asking. */
struct disk_exclusive {
    struct list node;
    void (*start)(struct disk *disk, struct disk_exclusive *exclusive);
    uint64_t bytes; /* the disk's new size, or the VM state's */
    struct disk_snapshot_request *snapshot;
    void (*on_done)(void *opaque, int result, const struct error *err);
    void *opaque;
};

struct disk {
    struct loop *loop;
    struct node *top;
    struct disk *backing; /* a view of the node below, for disk_backing */
    struct disk_cache_mode cache;
    enum disk_aio aio;
    bool unmap;
    struct disk_stats stats;
    uint64_t pending; /* in flight below, or held; delayed ones are not */
    bool closing;
    int close_result;
    void (*on_closed)(void *opaque, int result);
    void *on_closed_opaque;
    void (*on_resize)(void *opaque);
    void *on_resize_opaque;
    struct list exclusives; /* struct disk_exclusive */
    bool is_exclusive;      /* the first of them runs */
    bool is_frozen; /* the top was written to until now, and another takes its place in a moment */
    uint64_t old_size_bytes;
    struct list held;
    uint64_t held_count;
    struct loop_task advance; /* a close or an exclusive change that waits for an idle disk */
    const struct disk_filter *filter;
    const char *user; /* why the graph must not change: "block device is in use by ..."; or NULL */
    struct throttle throttle;
    struct disk_histogram *histograms[DISK_STATUS + 1];
};

static inline bool disk_changes_data(const struct disk_request *request)
{
    return request->op == DISK_WRITE || request->op == DISK_ZERO || request->op == DISK_DISCARD;
}

/* Past the delay: to the filter, to those held, or to the node. */
void disk_admit(struct disk *disk, struct disk_request *request);
/* 0, or why a request that had to wait cannot be done any more. */
int must_check disk_check_late(const struct node *node, const struct disk_request *request);
/* Bitmaps of a node whose data changes. */
void disk_mark_bitmaps(struct node *node, const struct disk_request *request);

/* disk_exclusive.c */
void disk_exclusive_advance(struct loop_task *task);
/* `start` runs when nothing is in flight, and ends in disk_exclusive_end. NULL: no memory. */
struct disk_exclusive *disk_exclusive_queue(
    struct disk *disk, void (*start)(struct disk *disk, struct disk_exclusive *exclusive),
    void (*on_done)(void *opaque, int result, const struct error *err), void *opaque);
void disk_exclusive_end(struct disk *disk, int result, const struct error *err);
void disk_start_close(struct disk *disk);

/* graph.c: gives every node below the top a handle of its own to look at. */
int must_check disk_make_views(struct disk *disk);
void disk_drop_views(struct disk *disk);
struct disk *disk_allocate(struct loop *loop);

#endif
