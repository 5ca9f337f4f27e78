/* SPDX-License-Identifier: MIT */
/*
 * disk: what a device or a tool sees of an image: a graph of nodes behind one handle, to which
 * requests are submitted and which answers on the loop.
 *
 * Offsets and lengths are in bytes; devices use multiples of 512. Everything runs on the loop's
 * thread. A completion never comes from inside disk_submit: always later, on the loop.
 */
#ifndef DISK_DISK_H
#define DISK_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"

struct disk;
struct node;

enum disk_op {
    DISK_READ,
    DISK_WRITE,
    DISK_ZERO,    /* the range reads as zeroes; space is given back if DISK_MAY_UNMAP */
    DISK_DISCARD, /* whole units of disk_discard_granularity may read as zeroes; the rest stays */
    DISK_FLUSH,   /* all writes completed before this was submitted are on stable storage */
    DISK_STATUS,  /* what the range's start is, and how far: see `extent` */
};

enum disk_request_flags {
    DISK_MAY_UNMAP = 1 << 0,
    DISK_FUA = 1 << 1,     /* this write is on stable storage when it completes */
    DISK_VMSTATE = 1 << 2, /* in the area of disk_vmstate_reserve, not on the disk */
    /* Of the graph's own users (disk/graph.h). */
    DISK_INTERNAL = 1 << 3,  /* a job's: not counted, not delayed */
    DISK_IF_ABSENT = 1 << 4, /* WRITE only where the node itself says nothing: never over a guest's
                              * newer data. qcow2. */
    DISK_ONE_NODE = 1 << 5,  /* STATUS of this node alone: see extent.is_absent */
    DISK_IN_QUIET = 1 << 6,  /* of who made the disk quiet: not held */
    DISK_FILTERED = 1 << 7,  /* the disk's filter wants to know of its end */
};

/*
 * Memory belongs to the caller, who keeps it and its iovec and buffers alive until on_done. The
 * fields below "private" belong to disk in between; no allocation is made per request.
 */
struct disk_request {
    enum disk_op op;
    unsigned flags;
    uint64_t offset;
    uint64_t bytes;          /* for READ and WRITE: iov_size(iov, iov_count) */
    const struct iovec *iov; /* READ and WRITE only */
    size_t iov_count;
    /* The answer to STATUS: the first `bytes` of the range (at least one, maybe fewer than could be
     * said) are data, or else known to read as zeroes. */
    struct {
        uint64_t bytes;
        bool is_zero;
        bool is_absent; /* DISK_ONE_NODE: what is below counts */
    } extent;
    /* 0 or -errno. Called once, on the loop, never from inside disk_submit. */
    void (*on_done)(struct disk_request *request, int result);
    /* Private. */
    struct disk *disk;
    struct node *target; /* DISK_INTERNAL */
    struct list node;
    uint64_t started_ns;
    int result;
    bool durable; /* a barrier follows the write */
};

enum disk_aio {
    DISK_AIO_AUTO,     /* io_uring where the host allows it, else threads */
    DISK_AIO_IO_URING, /* an error where it is not allowed */
    DISK_AIO_THREADS,
};

/* QEMU's cache modes are combinations of these three (qemu(1), -drive cache=). */
struct disk_cache_mode {
    bool direct;    /* O_DIRECT: bypass the host's page cache */
    bool no_flush;  /* unsafe: ignore flushes */
    bool writeback; /* false: each write is followed by a flush (writethrough, directsync) */
};

/* Writes to metadata that a hostile map asks for are refused: how much metadata is looked at. */
enum disk_overlap_check {
    DISK_OVERLAP_CACHED,   /* also tables in the cache */
    DISK_OVERLAP_CONSTANT, /* header, L1, refcount table, snapshot table */
    DISK_OVERLAP_NONE,
};

struct disk_options {
    const char *path;
    const char *format; /* "raw", "qcow2", ...; NULL only for tools that probe and say so */
    bool read_only;
    bool discard_unmap;         /* discard=unmap: give freed space back to the host */
    bool no_lock;               /* -U: do not take or check image locks */
    bool no_backing;            /* do not open the backing file (info, check) */
    const char *snapshot;       /* show the disk as this internal snapshot (id or name) has it;
                                 * read-only */
    const char *backing_path;   /* overrides what the header names; NULL to follow the header */
    const char *backing_format; /* likewise */
    const char *data_file_path; /* of a qcow2 image: overrides the data file that it names */
    bool no_data_file_name;     /* the format is a guess: do not follow such a name */
    struct disk_cache_mode cache;
    enum disk_aio aio;
    /* Of qcow2; qemu(1) has the words, docs/evisor.1 what they do here. 0: the default. */
    uint64_t l2_cache_bytes;       /* QCOW2_CACHE_BYTES */
    uint64_t refcount_cache_bytes; /* in addition; four slices */
    uint32_t cache_entry_bytes;    /* the unit of the cache: QCOW2_SLICE_BYTES */
    uint32_t cache_clean_s;        /* tables unused for so long leave the cache; 0: never */
    uint32_t idle_writeback_ms;    /* freed space waits no longer for a flush; 0: for ever */
    enum disk_overlap_check overlap_check;
    /* Which freed clusters are given back to the host, if discard_unmap: by discards and zeroes of
     * the guest, and all others (what was replaced, compressed or shared). */
    bool keep_requested, discard_other;
};

/*
 * Opens an image and its backing chain. Blocks: for start-up and tools only. On failure *out is
 * untouched, and err names the file and the remedy. Takes image locks as QEMU does (qcow2: read
 * locks on bytes 100+ and 200+), so that both keep each other out.
 */
int must_check disk_open(struct loop *loop, const struct disk_options *options, struct disk **out,
                         struct error *err);

/* disk_options.c: options whose texts are their own: copies, until they are freed. */
void disk_options_own(struct disk_options *options);
void disk_options_fini(struct disk_options *options);
/*
 * Opens the files that the options name, and those below, but only reads, takes no locks, and
 * closes again: for a thread and a loop of its own, where an image may answer late or never.
 */
int must_check disk_options_try(struct loop *loop, const struct disk_options *options,
                                struct error *err);

/* CHECKs thread, range against the present size, iovec total and that a writer is not read-only. */
void disk_submit(struct disk *disk, struct disk_request *request);

/*
 * Waits for everything in flight, writes metadata back, releases locks, frees. `result` is 0 or the
 * first error of the final writeback.
 */
void disk_close(struct disk *disk, void (*on_closed)(void *opaque, int result), void *opaque);

/* The file that `image` means by the name of its backing file: a relative one is relative to the
 * image's folder. The caller frees it; NULL without memory. */
char *disk_backing_path(const char *image, const char *name);

/* For tools, whose loop runs nothing else: run `loop` until the request or the close is done. */
int must_check disk_run(struct disk *disk, struct disk_request *request);
int must_check disk_close_wait(struct disk *disk);
int must_check disk_resize_wait(struct disk *disk, uint64_t size_bytes, struct error *err);

/* Grows (or, where the format can, shrinks) the disk; for the device's config change see on_resize.
 */
void disk_resize(struct disk *disk, uint64_t size_bytes,
                 void (*on_done)(void *opaque, int result, const struct error *err), void *opaque);

/* At most one listener: the device. Called on the loop after the size changed. */
void disk_set_resize_listener(struct disk *disk, void (*on_resize)(void *opaque), void *opaque);

/*
 * Internal snapshots of a disk in use. Requests are held while one is made, applied or deleted;
 * when on_done is called with 0, that is durable. By id first, then by name. Applying changes the
 * disk's contents and maybe its size: the guest must not be running.
 */
enum disk_snapshot_action {
    DISK_SNAPSHOT_CREATE,
    DISK_SNAPSHOT_APPLY,
    DISK_SNAPSHOT_DELETE,
};

/* The caller's memory until on_done. */
struct disk_snapshot_request {
    enum disk_snapshot_action action;
    const char *name;       /* APPLY and DELETE: or an id */
    uint64_t vm_clock_ns;   /* CREATE */
    uint64_t vmstate_bytes; /* CREATE: written by now, and no part of the disk afterwards */
    /* -ENOENT: there is none of that name. */
    void (*on_done)(struct disk_snapshot_request *request, int result, const struct error *err);
};

void disk_snapshot(struct disk *disk, struct disk_snapshot_request *request);

struct disk_snapshot_info {
    const char *id, *name;
    uint64_t date_sec, date_nsec, vm_clock_ns, vmstate_bytes, disk_bytes;
};

/* How many there are; fills *out if `index` is below that. Strings live until the next change. */
size_t disk_snapshot_count(const struct disk *disk);
void disk_snapshot_get(const struct disk *disk, size_t index, struct disk_snapshot_info *out);

/*
 * The area for the machine's state, beside the disk: READ and WRITE with DISK_VMSTATE. It has to be
 * made as large as is going to be written; after APPLY it holds the snapshot's state.
 */
void disk_vmstate_reserve(struct disk *disk, uint64_t bytes,
                          void (*on_done)(void *opaque, int result, const struct error *err),
                          void *opaque);
uint64_t disk_vmstate_bytes(const struct disk *disk);

uint64_t disk_size_bytes(const struct disk *disk);
bool disk_is_read_only(const struct disk *disk);
/* The granularity in which discards give space back: the cluster size, or the file system's block.
 */
uint32_t disk_discard_granularity(const struct disk *disk);
/* DISK_ZERO costs little however long the range is. */
bool disk_zeroes_fast(const struct disk *disk);
const char *disk_path(const struct disk *disk);
const char *disk_format(const struct disk *disk);
/* Of the image on top: at most 31 bytes, unique among the machine's. */
const char *disk_node_name(const struct disk *disk);
void disk_set_node_name(struct disk *disk, const char *name);
/* Requests that wait for the limits of their rate go on at once; see disk/throttle.h. */
void disk_release_delayed(struct disk *disk);
/* The open backing image, or NULL. Owned by `disk`. */
const struct disk *disk_backing(const struct disk *disk);

/* The dirty bitmaps of the top image (disk/dirty.h): struct dirty_bitmap by its node. */
struct dirty_bitmap;
struct list *disk_bitmaps(struct disk *disk);
struct dirty_bitmap *disk_find_bitmap(struct disk *disk, const char *name);
/*
 * A new, empty one; 0 for the default granularity. A persistent one is stored when the disk is
 * closed. The words of errors are QEMU's.
 */
int must_check disk_add_bitmap(struct disk *disk, const char *name, uint64_t granularity_bytes,
                               bool persistent, struct dirty_bitmap **out, struct error *err);

/*
 * A request at `offset` is about to follow: meanwhile the host's CPU fetches what it will read of
 * the resident map into its caches. A hint: changes nothing, starts no I/O.
 */
void disk_expect(const struct disk *disk, uint64_t offset);

/* disk_move.c: where it lives. */
struct loop *disk_loop(const struct disk *disk);
/*
 * It goes over to another loop; the caller may use both. A group of limits stays where it is.
 * -EBUSY, and nothing has changed: it is not at rest, in what is written back, too.
 */
int must_check disk_move(struct disk *disk, struct loop *loop);
/* Images of the chain that came from elsewhere come to the disk's loop. False: not now. */
bool disk_gather(struct disk *disk);
/*
 * Nothing but requests happens on the disk: all of it is its loop's, and no job, no shared limit
 * and no change concerns it. While that is so its loop's thread may use it alone.
 */
bool disk_is_alone(const struct disk *disk);

/*
 * The loop's requests have their data in this memory, which stays resident until it is forgotten:
 * no page of it may be given back to the host in between. Saves the kernel the pinning of pages.
 * Once, after the first disk was opened. True if the host agreed.
 */
bool disk_register_memory(struct loop *loop, void *base, uint64_t bytes);
/* No request is in flight. Closing the last disk does it, too. */
void disk_forget_memory(struct loop *loop);

struct disk_stats {
    struct {
        uint64_t operations;
        uint64_t bytes;
        uint64_t failed;
        uint64_t total_ns;
    } by_op[DISK_STATUS + 1];
    uint64_t in_flight;
    uint64_t host_reads, host_writes, host_flushes; /* operations on the host's files */
};

void disk_get_stats(const struct disk *disk, struct disk_stats *stats);

#endif
