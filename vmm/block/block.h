/* SPDX-License-Identifier: MIT */
/*
 * block: what QMP clients do to the images of a running machine: jobs, snapshots, bitmaps,
 * transactions, limits, exports. Knows no machine: a host lends it the disks.
 *
 * Loop's thread. Files are made, and opened for the first time, on a thread of their own.
 */
#ifndef VMM_BLOCK_BLOCK_H
#define VMM_BLOCK_BLOCK_H

#include <jansson.h>

#include "base/error.h"
#include "base/loop.h"
#include "disk/disk.h"

struct block;

struct block_host {
    /* Disks by place, NULL where there is none; *id is its drive's or node's. False: no more. */
    bool (*disk_at)(void *opaque, unsigned index, struct disk **disk, const char **id);
    /* The disk behind a device, by its id or its path; NULL if there is none. */
    struct disk *(*of_device)(void *opaque, const char *name);
    /* A disk that jobs need leaves the machine; it is closed by the caller. */
    void (*forget)(void *opaque, struct disk *disk);
    /* A file's node (driver file) is the caller's alone to write to, until it is released; *path is
     * valid until then. */
    int (*hold_file)(void *opaque, const char *node, const char **path, struct error *err);
    void (*release_file)(void *opaque, const char *node);
    struct throttle_groups *throttle_groups; /* disk/throttle.h: the machine's, by name */
    /* `data` is taken over. */
    void (*emit)(void *opaque, const char *event, json_t *data);
    void *opaque;
};

/* Once for each call, maybe at once. `value` is taken over; NULL is {}. Else an error. */
typedef void block_done_fn(void *opaque, json_t *value, const char *class, const char *text);

int must_check block_create(struct loop *loop, const struct block_host *host, struct block **out,
                            struct error *err);
/* `arguments` were checked against the command's table; they are copied. */
void block_run(struct block *block, const char *command, const json_t *arguments,
               block_done_fn *done, void *opaque);
/* The disk goes away: what serves it to others stops using it. -EBUSY: a job does. */
int must_check block_release_disk(struct block *block, struct disk *disk, struct error *err);
/* A job, an export or a command is under way. */
bool block_is_busy(const struct block *block);
/* It is served to others. */
bool block_exports_disk(const struct block *block, const struct disk *disk);
/* A node of that name is in use, at whatever place of a chain. */
bool block_has_node(struct block *block, const char *name);
/* The words for the states and kinds of jobs; NULL after the last. */
const char *block_job_status(unsigned index);
const char *block_job_type(unsigned index);
/* block_reopen.c: a disk of blockdev-reopen; the paths count until the change is made. */
struct block_reopening {
    struct disk *disk;
    struct disk_options now, wanted;
    /* Private. */
    struct node *made; /* opened for writing, not in its place yet */
    struct disk_cache_mode old_cache;
    bool old_unmap;
    bool is_quiet, is_flushed, is_set, is_frozen, was_read_only;
    unsigned synced; /* files */
};

struct block_reopen_host {
    /* May it still be changed, now that it is quiet? */
    int (*check)(void *opaque, unsigned index, struct error *err);
    void (*on_done)(void *opaque, int result, const struct error *err);
};

/* Nobody else changes the disk from now on. -EBUSY: somebody does. */
int must_check block_reopen_claim(struct disk *disk, bool read_only, struct error *err);
void block_reopen_unclaim(struct disk *disk);
/* Of claimed disks, whose claims end before on_done. All change, or none. */
void block_reopen(struct block_reopening *nodes, unsigned count,
                  const struct block_reopen_host *host, void *opaque);
/* Ends jobs and exports; before the disks are closed. */
void block_close(struct block *block, void (*on_closed)(void *opaque), void *opaque);

#endif
