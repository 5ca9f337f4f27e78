/* SPDX-License-Identifier: MIT */
/*
 * qcow2: what the files of the format share. Everything runs on the loop's thread.
 *
 * The map of an image (L1, L2, refcounts) is plain memory to the code that reads and changes it:
 * either the slice of a table that it asks for is resident, or it is told to wait and to start over
 * (-EINPROGRESS: the waiter given is on a list and will be woken once). Changes are made in memory
 * and reach the file through qcow2_flush.c alone, which keeps the order that makes a crash
 * harmless.
 */
#ifndef DISK_QCOW2_QCOW2_H
#define DISK_QCOW2_QCOW2_H

#include "base/limits.h"
#include "disk/format.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_rule.h"
#include "disk/qcow2/qcow2_snapshots.h"

#define QCOW2_SLICE_BYTES 4096u /* the unit of the table cache; less if a cluster is smaller */
#define QCOW2_OP_IOV      (DISK_REQUEST_IOV_MAX + 2 * 33) /* data, and head and tail of zeroes */
#define QCOW2_SEEN_BITS   4096u /* small enough to stay in the CPU's cache */
#define QCOW2_WRITES      32    /* of the writeback machine in flight */

struct qcow2;
struct qcow2_codec;

struct qcow2_waiter {
    struct list node;
    /* `result` is not 0 if what was waited for failed. */
    void (*wake)(struct qcow2_waiter *waiter, int result);
};

enum qcow2_kind {
    QCOW2_L2,
    QCOW2_REFBLOCK,
};

/* Where compressed data is, in its L2 entry. */
#define QCOW2_PACKED_BITS (~(QCOW2_ENTRY_COMPRESSED | QCOW2_ENTRY_COPIED))

/* Flags in the low bits of entries of the resident L1 and refcount tables. */
#define QCOW2_UNLINKED UINT64_C(1) /* the file does not point to this table yet */
#define QCOW2_BLANK                                                                                \
    UINT64_C(2)                 /* slices that are not resident are zero, whatever the file says   \
                                 */
#define QCOW2_BAD   UINT64_C(4) /* the entry is invalid: what is under it cannot be used */
#define QCOW2_FLAGS UINT64_C(7)

/* Part of an L2 table or refcount block. On cache.lru if clean and idle, on cache.dirty if dirty.
 */
struct qcow2_slice {
    struct list node;
    struct qcow2_slice *hash_next;
    uint64_t host_offset;
    uint8_t *data;
    uint32_t table; /* index into L1 or the refcount table */
    uint16_t pins;
    uint8_t kind;
    bool loading, dirty, writing;
    bool is_used; /* since the cache was cleaned last */
    struct list waiters;
};

struct qcow2_cache {
    uint8_t *memory; /* mapped once, touched as needed */
    size_t memory_bytes;
    struct qcow2_slice *slices;
    uint32_t capacity, used, dirty_count;
    struct qcow2_slice **buckets;
    uint32_t bucket_mask;
    uint64_t
        seen[QCOW2_SEEN_BITS / 64]; /* hashes of what was brought in: the others are not here */
    struct list lru;                /* least recently used first */
    struct list dirty;
    struct list waiters; /* for a slice to become free */
    struct list loads;   /* idle struct qcow2_load */
};

/* A resident table of pointers, with a bit for each 512 bytes that the file does not have yet. */
struct qcow2_top {
    uint64_t *entries;
    uint32_t count;
    uint64_t offset; /* in the file */
    uint64_t *dirty;
    bool any_dirty;
    bool moved; /* `offset` is new: the file gets all of it, then the header */
};

/* What is resident of an image from its opening on. */
struct qcow2_tables {
    struct qcow2_header header;
    uint8_t sector[512]; /* the header's first one */
    struct qcow2_snapshots snapshots;
    struct qcow2_top l1, reftable;
    uint64_t high_water;
};

struct qcow2_extent {
    uint64_t first, count; /* host clusters, each to lose one reference */
    bool is_table;
    bool punch; /* its space goes back to the host */
};

struct qcow2_extents {
    struct qcow2_extent *items;
    size_t count, room;
};

struct qcow2_new_table {
    uint32_t index;
    uint8_t kind;
    bool needs_zeroes; /* its cluster held something before */
    bool is_linked;    /* done with */
};

/* qcow2_idle.c: times in loop_now_ns(), UINT64_MAX for never. */
struct qcow2_idle {
    struct loop_timer *timer; /* NULL: there is none */
    uint32_t writeback_ms;
    uint64_t interval_ns;
    uint64_t writeback_ns, clean_ns;
};

enum qcow2_op_state {
    QCOW2_OP_IDLE,     /* on q->idle_ops */
    QCOW2_OP_READ,     /* io or child reads into the guest's memory */
    QCOW2_OP_UNPACK,   /* waits for a codec */
    QCOW2_OP_WRITE,    /* io writes where the map already points */
    QCOW2_OP_COW_READ, /* owns clusters and its range; head_read, tail_read are running */
    QCOW2_OP_COW_WRITE /* owns clusters and its range; io writes head, data and tail */
};

enum qcow2_edge {
    QCOW2_EDGE_NONE, /* nothing to write */
    QCOW2_EDGE_ZERO,
    QCOW2_EDGE_COPY, /* read first, through the map as it still is */
};

struct qcow2_op {
    struct qcow2 *q;
    union {
        struct qcow2_request *request;
        struct disk_request *outer; /* transfer_at_once: there is no struct qcow2_request */
    };
    struct list node;   /* q->idle_ops or q->active, there in the order of starting */
    struct list owning; /* q->owners while the op owns a range */
    uint64_t sequence;
    enum qcow2_op_state state;
    uint64_t offset, bytes; /* of the guest */
    struct io_request io;
    struct disk_request child; /* READ: of the backing node */
    /* From here on: ops that own. */
    uint64_t cow_start, cow_end; /* what is written: data with its edges */
    uint64_t host_offset;        /* of the first cluster */
    uint32_t clusters;
    bool reuses;               /* clusters that were mapped before, but not readable */
    size_t frees;              /* reserved with qcow2_free_reserve */
    struct qcow2_slice *slice; /* pinned */
    unsigned index;            /* of the first entry in it */
    enum qcow2_edge head, tail;
    uint8_t *head_buffer, *tail_buffer;
    struct disk_request head_read, tail_read;
    struct iovec head_iov, tail_iov;
    unsigned reads_left;
    int result;
    struct list codec_node;
    uint64_t packed; /* UNPACK: the L2 entry */
    size_t iov_count;
    struct iovec iov[QCOW2_OP_IOV];
};

/* One disk_request on its way: a cursor that plans, and the operations that it started. */
struct qcow2_request {
    struct qcow2 *q;
    struct list node;
    struct disk_request *outer;
    uint64_t cursor, end;
    unsigned pending;
    int result;
    bool waiting;   /* `waiter` is on a list */
    bool in_submit; /* must not complete yet */
    bool pumping;
    struct qcow2_waiter waiter;
};

/* What a range of the guest's disk is, from its start on as far as it is the same. */
enum qcow2_plan_kind {
    QCOW2_PLAN_ZERO,
    QCOW2_PLAN_AT,     /* at host_offset */
    QCOW2_PLAN_PACKED, /* compressed, described by entry; at most to the end of the cluster */
    QCOW2_PLAN_BACKING,
    QCOW2_PLAN_ALLOCATE, /* writes only: `clusters` entries from `index` on */
    QCOW2_PLAN_NO_TABLE, /* writes only: there is no L2 table, or it is shared */
};

struct qcow2_plan {
    enum qcow2_plan_kind kind;
    bool is_absent; /* reads only: the image itself says nothing of it */
    uint64_t bytes;
    uint64_t host_offset;
    uint64_t entry;
    struct qcow2_slice *slice;
    unsigned index;
    /* ALLOCATE */
    uint32_t clusters;
    bool reuses; /* host_offset is the first cluster's */
    uint64_t cow_start, cow_end;
};

/* The states of the writeback machine, in order; qcow2_flush.c tells what each one writes. */
enum qcow2_flush_state {
    QCOW2_FLUSH_IDLE,
    QCOW2_FLUSH_ZERO,
    QCOW2_FLUSH_FRESH,
    QCOW2_FLUSH_FRESH_SYNC,
    QCOW2_FLUSH_LOWER,
    QCOW2_FLUSH_LOWER_SYNC,
    QCOW2_FLUSH_UPPER,
    QCOW2_FLUSH_UPPER_SYNC,
    QCOW2_FLUSH_DONE,
};

struct qcow2_chunk {
    uint64_t host_offset;
    uint64_t bytes;
    uint8_t *data; /* NULL: zeroes */
};

struct qcow2_chunks {
    struct qcow2_chunk *items;
    size_t count;
};

struct qcow2_write {
    struct io_request io;
    struct iovec iov;
    struct qcow2 *q;
    bool busy;
};

struct qcow2_flush {
    enum qcow2_flush_state state;
    struct loop_task start;
    bool wanted;           /* a cycle, even if nobody waits for it */
    struct list waiting;   /* disk_requests for the next cycle */
    struct list served;    /* disk_requests of this one */
    struct list callbacks; /* qcow2_waiters for the next cycle */
    struct list called;    /* of this one */
    bool unsynced;         /* something was written since the last barrier began */
    bool data_unsynced;    /* likewise, to an external data file */
    uint8_t *arena;
    size_t arena_bytes, arena_used;
    struct qcow2_slice **slices; /* of this cycle */
    size_t slice_count;
    struct qcow2_chunks zero, fresh, lower, upper;
    bool fresh_needs_sync;
    size_t next_chunk;
    unsigned writes_left;
    int result;
    struct qcow2_write writes[QCOW2_WRITES];
    struct io_request sync, data_sync;
    unsigned syncs_left;
    size_t new_tables;               /* of this cycle: the first ones of q->new_tables */
    bool moved_reftable, moved_l1;   /* in this cycle, and not on the medium yet */
    bool writes_lower, writes_upper; /* of the header */
    uint8_t header_lower[512], header_upper[512];
};

struct qcow2_release {
    struct qcow2_extents items; /* being given up; `index` and `done` say how far */
    size_t index;
    uint64_t done, punched;
    uint64_t barrier; /* operations older than this may still use the clusters */
    bool running, busy;
    struct io_request punch;
    struct qcow2_waiter waiter;
};

struct qcow2_table_copy {
    bool running;
    uint32_t index;
    uint64_t from, to;
    uint8_t *buffer;
    struct iovec iov;
    struct io_request io;
    struct list waiters;
};

struct qcow2 {
    struct node node;
    struct qcow2_header header;
    uint8_t header_sector[512];

    uint32_t cluster_bits, slice_bits, sub_bits; /* a subcluster is a cluster without extended L2 */
    uint32_t l2_bits, entry_bits;                /* log2 of entries in a table, bytes of an entry */
    uint32_t refcount_order, refblock_bits;      /* log2 of refcounts in a block */
    uint64_t cluster_bytes;
    uint32_t subclusters;
    bool extended;
    bool external; /* the guest's data is in node.data_file, each cluster at its guest offset */
    bool raw_data; /* and that must read as a raw image by itself */
    int poisoned;  /* -errno: nothing may be written any more */

    struct qcow2_snapshots snapshots;
    struct qcow2_top l1, reftable;
    bool header_lower; /* the header's pointer to the refcount table is not in the file yet */
    bool header_upper; /* likewise its size or pointer to L1 */
    struct qcow2_cache cache;
    uint64_t free_hint;  /* no free cluster is known below this one */
    uint64_t high_water; /* from this cluster on, the file has never been used */

    struct qcow2_new_table *new_tables;
    size_t new_table_count, new_table_room;
    struct qcow2_extents freed;    /* unmapped in memory */
    size_t free_reserved;          /* entries of it that are promised */
    struct qcow2_extents in_cycle; /* their unmapping is being written */
    struct qcow2_extents durable;  /* their unmapping is on the medium */
    struct qcow2_release release;

    struct list idle_ops, active, owners, idle_requests, blocked;
    uint64_t sequence;
    unsigned cow_buffers;
    void *idle_buffers;
    struct list op_chunks, request_chunks; /* memory of slots, kept until the end */
    struct qcow2_table_copy copy;
    struct qcow2_codec *codecs;
    struct list codec_waiters;
    struct qcow2_flush flush;
    struct qcow2_idle idle;
    enum disk_overlap_check overlap_check;
    bool keep_requested, discard_other;
    struct io_request corrupt_io;
    struct iovec corrupt_iov;
    uint8_t corrupt_bytes[8];
    bool corrupt_busy;

    struct {
        uint64_t new_size_bytes, old_size_bytes;
        uint64_t vmstate_bytes; /* L1 is to reach so far beyond the disk as well */
        void (*on_reserved)(struct qcow2 *q, int result);
        struct qcow2_waiter waiter;
        struct disk_request zero;
        struct io_request truncate; /* of an external data file */
        struct loop_task start;
        void (*on_done)(void *opaque, int result, const struct error *err);
        void *opaque;
    } resize;
    struct {
        bool wanted;
        bool failed; /* the last writeback did: what is left stays undone */
        int result;
        struct qcow2_waiter waiter;
        void (*on_settled)(struct qcow2 *q, int result);
    } settle;
    struct qcow2_keeper *keeper; /* of persistent bitmaps */
    struct qcow2_live *live;     /* a snapshot being made, applied or deleted */
    struct {
        int result;
        void (*on_done)(void *opaque, int result);
        void *opaque;
    } freeze;
    struct {
        int result;
        void (*on_closed)(void *opaque, int result);
        void *opaque;
    } close;
};

static inline struct qcow2 *qcow2_of(struct node *node)
{
    return container_of(node, struct qcow2, node);
}

/* The file that the guest's data is in. */
static inline struct io_file *qcow2_data(const struct qcow2 *q)
{
    return q->external ? q->node.data_file : q->node.file;
}

/* Guest data was written: the next barrier has to cover it. */
static inline void qcow2_note_data(struct qcow2 *q)
{
    if (q->external)
        q->flush.data_unsynced = qcow2_rule(DATA_BARRIER);
    else
        q->flush.unsynced |= qcow2_rule(DATA_BARRIER);
}

static inline void qcow2_wait(struct list *list, struct qcow2_waiter *waiter)
{
    list_push_back(list, &waiter->node);
}

/* Wakes those who wait now; who waits again waits for the next time. */
void qcow2_wake_all(struct list *waiters, int result);

/* The image contradicts itself: says so, sets the corrupt bit, refuses writes. Returns -EIO. */
int qcow2_corrupt(struct qcow2 *q, const char *format, ...) printf_like(2, 3);

/*
 * All metadata to the medium, nothing in quarantine; no request is in flight. Tells even if that
 * failed. The step goes on with it, if it is wanted, when something has ended that it may wait for.
 */
void qcow2_settle(struct qcow2 *q, void (*on_settled)(struct qcow2 *q, int result));
void qcow2_settle_step(struct qcow2 *q);

/* qcow2_tables.c. Of the disk as `snapshot` has it, or of the disk itself if that is NULL. */
int must_check qcow2_tables_load(const struct qcow2 *q, const char *snapshot,
                                 struct qcow2_tables *out, struct error *err);
/* They replace what is in memory, where nothing is dirty, pinned or being read. */
void qcow2_tables_adopt(struct qcow2 *q, struct qcow2_tables *tables);
void qcow2_tables_fini(struct qcow2 *q);

/* qcow2_table.c: the cache. */
int must_check qcow2_cache_init(struct qcow2 *q, uint64_t bytes);
void qcow2_cache_fini(struct qcow2 *q);
void qcow2_cache_forget_all(struct qcow2 *q);
/* Slices that were not used since the last call go, with their memory. False if none is left. */
bool qcow2_cache_clean(struct qcow2 *q);
/*
 * The slice that holds byte `byte` of table `index`, in *out. 0, -EINPROGRESS or -errno. Without a
 * waiter (NULL) nothing is loaded: -EAGAIN.
 */
int must_check qcow2_table_get(struct qcow2 *q, enum qcow2_kind kind, uint32_t index,
                               uint64_t table_entry, uint64_t byte, struct qcow2_waiter *waiter,
                               struct qcow2_slice **out);
void qcow2_table_dirty(struct qcow2 *q, struct qcow2_slice *slice);
void qcow2_table_unpin(struct qcow2_slice *slice);
/* Writeback is done with the slice. */
void qcow2_table_written(struct qcow2 *q, struct qcow2_slice *slice, int result);
/* The cluster holds no table any more. */
void qcow2_table_forget(struct qcow2 *q, uint64_t host_offset);
bool qcow2_table_is_cached(const struct qcow2 *q, uint64_t host_offset);
/* Fetches the line of byte `byte` of a table into the CPU's caches, if it is resident. */
void qcow2_table_expect(const struct qcow2 *q, uint64_t table_entry, uint64_t byte);
/* 0 if so many slices could be had at once, or -EINPROGRESS. */
int must_check qcow2_table_room(struct qcow2 *q, uint32_t slices, struct qcow2_waiter *waiter);

static inline uint32_t qcow2_slice_bytes(const struct qcow2 *q)
{
    return UINT32_C(1) << q->slice_bits;
}

void qcow2_top_dirty(struct qcow2_top *top, uint32_t index);

/* qcow2_map.c: from guest offsets to plans, and the entries. `waiter` as for qcow2_table_get. */
int must_check qcow2_plan_read(struct qcow2 *q, uint64_t offset, uint64_t bytes,
                               struct qcow2_waiter *waiter, struct qcow2_plan *plan);
int must_check qcow2_plan_write(struct qcow2 *q, uint64_t offset, uint64_t bytes,
                                struct qcow2_waiter *waiter, struct qcow2_plan *plan);
/* The entry of `offset` comes into the CPU's caches, if it is resident. */
void qcow2_map_expect(const struct node *node, uint64_t offset);
/* Whole clusters that are to read as zeroes: 0 and how many bytes are settled. */
int must_check qcow2_map_zero(struct qcow2 *q, uint64_t offset, uint64_t bytes, bool unmap,
                              struct qcow2_waiter *waiter, uint64_t *settled_bytes);
/* The op's data is written: the map points to it from now on. Cannot fail. */
void qcow2_map_publish(struct qcow2 *q, const struct qcow2_op *op);

/* qcow2_alloc.c: refcounts. */
int must_check qcow2_alloc(struct qcow2 *q, uint64_t wanted, struct qcow2_waiter *waiter,
                           uint64_t *first, uint64_t *count, bool *fresh);
/* `count` clusters in one piece at the end of the file, however many. */
int must_check qcow2_alloc_region(struct qcow2 *q, uint64_t count, struct qcow2_waiter *waiter,
                                  uint64_t *first);
/* Room for `count` qcow2_free calls, which cannot fail then; given back when they are done. */
int must_check qcow2_free_reserve(struct qcow2 *q, size_t count);
void qcow2_free_unreserve(struct qcow2 *q, size_t count);
void qcow2_free(struct qcow2 *q, uint64_t first_cluster, uint64_t count, bool is_table);
/* The same for what the guest does not want any more. */
void qcow2_free_requested(struct qcow2 *q, uint64_t first_cluster, uint64_t count);
/* Makes sure that L2 table `index` exists and is ours alone. */
int must_check qcow2_table_own(struct qcow2 *q, uint32_t index, struct qcow2_waiter *waiter);
/* The slice with a cluster's refcount; *out is NULL if there is none, which counts as zero. */
int must_check qcow2_refcount_slice(struct qcow2 *q, uint64_t cluster, struct qcow2_waiter *waiter,
                                    struct qcow2_slice **out);
uint64_t qcow2_refcount(const struct qcow2 *q, const struct qcow2_slice *slice, uint64_t cluster);
void qcow2_refcount_change(struct qcow2 *q, struct qcow2_slice *slice, uint64_t cluster,
                           uint64_t value);
bool qcow2_overlaps_metadata(const struct qcow2 *q, uint64_t host_offset, uint64_t bytes);

/* qcow2_release.c: quarantine. */
void qcow2_release_step(struct qcow2 *q);
bool qcow2_release_is_idle(const struct qcow2 *q);
int must_check qcow2_extents_reserve(struct qcow2_extents *extents, size_t more);
/* Appends all of `from`, which is empty then; -ENOMEM leaves both as they are. */
int must_check qcow2_extents_move(struct qcow2_extents *to, struct qcow2_extents *from);

/* qcow2_request.c */
void qcow2_submit(struct node *node, struct disk_request *request);
struct qcow2_op *qcow2_op_get(struct qcow2_request *request, uint64_t offset, uint64_t bytes);
/* The operation has ended: its request goes on. */
void qcow2_op_finish(struct qcow2_op *op, int result);
void qcow2_slots_fini(struct qcow2 *q);
/* Builds op->iov: the op's part of the request's memory (or of zeroes), or zeroes. */
void qcow2_op_append_data(struct qcow2_op *op);
void qcow2_op_append_zeroes(struct qcow2_op *op, uint64_t bytes);

/* qcow2_cow.c: operations that own clusters. 0, -EINPROGRESS or -errno. */
int must_check qcow2_cow_start(struct qcow2_request *request, const struct qcow2_plan *plan,
                               uint64_t *bytes);
/* The op whose range touches [offset, offset + bytes), the first of them; or NULL. */
struct qcow2_op *qcow2_cow_find(const struct qcow2 *q, uint64_t offset, uint64_t bytes);
void qcow2_cow_fini(struct qcow2 *q);

/* qcow2_codec.c: compressed clusters. */
int must_check qcow2_codec_read(struct qcow2_request *request, const struct qcow2_plan *plan);
void qcow2_codec_invalidate(struct qcow2 *q, uint64_t entry);
void qcow2_codec_forget_all(struct qcow2 *q);
void qcow2_codec_fini(struct qcow2 *q);

/* qcow2_flush.c: the writeback machine. */
void qcow2_flush_init(struct qcow2 *q);
void qcow2_flush_fini(struct qcow2 *q);
/* The request completes when all that completed before is on the medium. */
void qcow2_flush_request(struct qcow2 *q, struct disk_request *request);
void qcow2_flush_wait(struct qcow2 *q, struct qcow2_waiter *waiter);
void qcow2_flush_want(struct qcow2 *q);
bool qcow2_flush_is_clean(const struct qcow2 *q);
/* No cycle runs or is about to. */
bool qcow2_flush_is_idle(const struct qcow2 *q);
/* Idle: what runs on the loop goes over. */
void qcow2_flush_move(struct qcow2 *q, struct loop *loop);

/* qcow2_data_file.c */
int must_check qcow2_data_file_open(struct qcow2 *q, const struct disk_options *options,
                                    struct error *err);
/* Gives it the length q->resize.new_size_bytes; false if that is not needed. */
bool qcow2_data_file_resize(struct qcow2 *q,
                            void (*on_done)(struct io_request *request, int result));

/* qcow2_idle.c */
void qcow2_idle_init(struct qcow2 *q, const struct disk_options *options);
void qcow2_idle_fini(struct qcow2 *q);
/* The node has another loop now. */
void qcow2_idle_move(struct qcow2 *q);
void qcow2_idle_dirty(struct qcow2 *q);  /* something waits for writeback */
void qcow2_idle_freed(struct qcow2 *q);  /* and with it, space that goes back to the host */
void qcow2_idle_loaded(struct qcow2 *q); /* a table came into the cache */

/* qcow2_live.c: the format's operations on snapshots. */
void qcow2_live_snapshot(struct node *node, const struct disk_snapshot_request *request,
                         void (*on_done)(void *opaque, int result, const struct error *err),
                         void *opaque);
void qcow2_live_vmstate_reserve(struct node *node, uint64_t bytes,
                                void (*on_done)(void *opaque, int result, const struct error *err),
                                void *opaque);
size_t qcow2_live_count(const struct node *node);
void qcow2_live_get(const struct node *node, size_t index, struct disk_snapshot_info *out);

/* qcow2_freeze.c: the format's operations for changes of a chain in use. */
void qcow2_freeze(struct node *node, void (*on_done)(void *opaque, int result), void *opaque);
void qcow2_set_backing(struct node *node, const char *path, const char *format,
                       void (*on_done)(void *opaque, int result, const struct error *err),
                       void *opaque);

/* qcow2_resize.c */
void qcow2_resize(struct node *node, uint64_t size_bytes,
                  void (*on_done)(void *opaque, int result, const struct error *err), void *opaque);

#endif
