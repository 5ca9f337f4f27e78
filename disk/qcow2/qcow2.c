/* SPDX-License-Identifier: MIT */
/*
 * qcow2: opening and closing images, and what happens when one contradicts itself.
 *
 * L1 and the refcount table are resident from opening on, the rest comes through the cache. What
 * the header claims is checked by qcow2_header; here is the policy: what is opened, what is
 * repaired first, what is refused.
 */
#include "build/config.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/log.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_keeper.h"
#include "disk/qcow2/qcow2_snapshots.h"

static void on_corrupt_written(struct io_request *io, int result)
{
    struct qcow2 *q = container_of(io, struct qcow2, corrupt_io);
    (void)result; /* the image is poisoned either way */
    q->corrupt_busy = false;
    qcow2_settle_step(q);
}

static void set_corrupt_bit(struct qcow2 *q)
{
    uint64_t bits = load_be64(q->header_sector + QCOW2_OFF_INCOMPATIBLE) | QCOW2_INCOMPAT_CORRUPT;
    /* Version 2 has no such bit. */
    if (q->node.read_only || q->header.version < 3 || q->corrupt_busy)
        return;
    store_be64(q->header_sector + QCOW2_OFF_INCOMPATIBLE, bits);
    store_be64(q->corrupt_bytes, bits);
    q->corrupt_busy = true;
    q->corrupt_iov = (struct iovec){q->corrupt_bytes, sizeof(q->corrupt_bytes)};
    q->corrupt_io = (struct io_request){
        .kind = IO_WRITE,
        .offset = QCOW2_OFF_INCOMPATIBLE,
        .bytes = sizeof(q->corrupt_bytes),
        .iov = &q->corrupt_iov,
        .iov_count = 1,
        .on_done = on_corrupt_written,
    };
    io_submit(q->node.file, &q->corrupt_io);
}

int qcow2_corrupt(struct qcow2 *q, const char *format, ...)
{
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    log_limited("image '%s' is corrupt: %s; no more writes: repair it with evisor-img check -r all",
                q->node.path, what);
    if (!q->poisoned) {
        q->poisoned = -EIO;
        set_corrupt_bit(q);
    }
    return -EIO;
}

static int refuse_features(const struct qcow2_header *header, const struct disk_options *options,
                           struct error *err)
{
    const char *path = options->path;
    if (header->crypt_method != QCOW2_CRYPT_NONE)
        return error_set(err, ENOTSUP,
                         "image '%s' is encrypted, which evisor cannot read; convert it with "
                         "qemu-img convert",
                         path);
#ifndef HAVE_ZSTD
    if (header->compression_type == QCOW2_COMPRESSION_ZSTD)
        return error_set(err, ENOTSUP,
                         "image '%s' is compressed with zstd, and this evisor was built without; "
                         "install libzstd-dev and build again",
                         path);
#endif
    if (!options->read_only && header->incompatible & QCOW2_INCOMPAT_CORRUPT)
        return error_set(err, EIO,
                         "image '%s' is marked corrupt; repair it with evisor-img check -r all, or "
                         "open it read-only",
                         path);
    return 0;
}

/* A dirty image has refcounts that cannot be trusted. */
static int repair_if_dirty(struct qcow2 *q, const struct disk_options *options, struct error *err)
{
    if (options->read_only || !(q->header.incompatible & QCOW2_INCOMPAT_DIRTY))
        return 0;
    int result = qcow2_repair_now(q->node.file, options->path, err);
    if (result)
        return result;
    qcow2_header_fini(&q->header);
    return qcow2_header_read(q->node.file, options->path, &q->header, err);
}

/* Bits for data that evisor does not keep up to date go before the first write. */
static int clear_autoclear(struct qcow2 *q, const struct disk_options *options, struct error *err)
{
    int result = io_read_now(q->node.file, 0, q->header_sector, sizeof(q->header_sector));
    uint64_t kept = (q->raw_data ? QCOW2_AUTOCLEAR_RAW_DATA : 0) |
                    (q->header.has_bitmaps ? QCOW2_AUTOCLEAR_BITMAPS : 0);
    if (!result && !options->read_only && q->header.version >= 3 && q->header.autoclear & ~kept) {
        kept &= q->header.autoclear;
        store_be64(q->header_sector + QCOW2_OFF_AUTOCLEAR, kept);
        result = io_write_now(q->node.file, 0, q->header_sector, sizeof(q->header_sector));
        if (!result)
            result = io_sync_now(q->node.file);
        q->header.autoclear = kept;
    }
    if (result)
        return error_set_errno(err, -result, "cannot read or update the header of '%s'",
                               options->path);
    return 0;
}

static void set_geometry(struct qcow2 *q)
{
    const struct qcow2_header *header = &q->header;
    q->cluster_bits = header->cluster_bits;
    q->cluster_bytes = qcow2_cluster_bytes(header);
    q->extended = qcow2_has_extended_l2(header);
    q->subclusters = q->extended ? QCOW2_SUBCLUSTERS : 1;
    q->sub_bits = q->cluster_bits - (q->extended ? 5 : 0);
    q->entry_bits = q->extended ? 4 : 3;
    q->l2_bits = qcow2_l2_bits(header);
    q->slice_bits = q->cluster_bytes < QCOW2_SLICE_BYTES ? q->cluster_bits : 12;
    q->refcount_order = header->refcount_order;
    q->refblock_bits = q->cluster_bits + 3 - q->refcount_order;
    q->node.size_bytes = align_up(header->size_bytes, 512);
    q->node.discard_granularity = (uint32_t)q->cluster_bytes;
    q->node.zeroes_fast = header->version >= 3;
}

static void init_lists(struct qcow2 *q)
{
    struct list *lists[] = {&q->idle_ops,      &q->active,       &q->owners,
                            &q->idle_requests, &q->blocked,      &q->op_chunks,
                            &q->codec_waiters, &q->copy.waiters, &q->request_chunks};
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        list_init(lists[i]);
    qcow2_flush_init(q);
}

static void free_memory(struct qcow2 *q)
{
    qcow2_flush_fini(q);
    qcow2_codec_fini(q);
    qcow2_cow_fini(q);
    qcow2_slots_fini(q);
    qcow2_cache_fini(q);
    qcow2_tables_fini(q);
    qcow2_keeper_close(q);
    free(q->new_tables);
    free(q->freed.items);
    free(q->in_cycle.items);
    free(q->durable.items);
    free(q->release.items.items);
    node_fini(&q->node);
    free(q);
}

static int set_tuning(struct qcow2 *q, const struct disk_options *options, struct error *err)
{
    uint32_t entry = options->cache_entry_bytes;
    if (entry && (!is_power_of_2(entry) || entry < 512 || entry > q->cluster_bytes))
        return error_set(err, EINVAL,
                         "image '%s': L2 cache entry size must be a power of two between 512 and "
                         "the cluster size (%" PRIu64 ")",
                         options->path, q->cluster_bytes);
    if (entry)
        q->slice_bits = (uint32_t)__builtin_ctz(entry);
    q->overlap_check = options->overlap_check;
    q->keep_requested = options->keep_requested;
    q->discard_other = options->discard_other;
    uint64_t l2 = options->l2_cache_bytes ? options->l2_cache_bytes : QCOW2_CACHE_BYTES;
    uint64_t refcounts = options->refcount_cache_bytes;
    if (!refcounts && !options->l2_cache_bytes)
        refcounts = 4 * qcow2_slice_bytes(q);
    if (qcow2_cache_init(q, l2 + refcounts))
        return error_set(err, ENOMEM, "no memory to open '%s'", options->path);
    return 0;
}

static int open_image(struct qcow2 *q, const struct disk_options *options, struct error *err)
{
    int result = refuse_features(&q->header, options, err);
    if (!result)
        result = qcow2_data_file_open(q, options, err);
    if (!result)
        result = repair_if_dirty(q, options, err);
    if (!result)
        result = clear_autoclear(q, options, err);
    if (result)
        return result;
    set_geometry(q);
    struct qcow2_tables tables;
    result = set_tuning(q, options, err);
    if (result)
        return result;
    result = qcow2_tables_load(q, options->snapshot, &tables, err);
    if (!result)
        qcow2_tables_adopt(q, &tables);
    if (!result)
        result = qcow2_keeper_open(q, options->snapshot == NULL, err);
    if (!result)
        qcow2_idle_init(q, options); /* last, because it must be undone */
    return result;
}

static int qcow2_open(struct loop *loop, struct io_file *file, const struct disk_options *options,
                      struct node **out, struct error *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    if (!q || node_init(&q->node, &qcow2_format, loop, file, options)) {
        free(q);
        return error_set(err, ENOMEM, "no memory to open '%s'", options->path);
    }
    init_lists(q);
    int result = qcow2_header_read(file, options->path, &q->header, err);
    if (!result && options->snapshot && !options->read_only)
        result = error_set(err, EROFS, "a snapshot of '%s' can only be opened for reading",
                           options->path);
    if (!result)
        result = open_image(q, options, err);
    if (result) {
        if (q->node.data_file)
            io_close(q->node.data_file, NULL, NULL);
        free_memory(q);
        return result;
    }
    *out = &q->node;
    return 0;
}

static const char *qcow2_backing(const struct node *node, const char **format)
{
    const struct qcow2 *q = container_of(node, const struct qcow2, node);
    *format = q->header.has_backing_format ? q->header.backing_format : NULL;
    return q->header.has_backing ? q->header.backing_path : NULL;
}

static void on_file_closed(void *opaque)
{
    struct qcow2 *q = opaque;
    struct io_file *data_file = q->node.data_file;
    q->node.data_file = NULL;
    if (data_file) {
        io_close(data_file, on_file_closed, q);
        return;
    }
    qcow2_idle_fini(q);
    void (*on_closed)(void *, int) = q->close.on_closed;
    void *owner = q->close.opaque;
    int result = q->close.result;
    free_memory(q);
    on_closed(owner, result);
}

static void on_settle_flushed(struct qcow2_waiter *waiter, int result)
{
    struct qcow2 *q = container_of(waiter, struct qcow2, settle.waiter);
    if (result) {
        q->settle.result = result;
        q->settle.failed = true;
    }
    qcow2_settle_step(q);
}

void qcow2_settle(struct qcow2 *q, void (*on_settled)(struct qcow2 *q, int result))
{
    q->settle.wanted = true;
    q->settle.failed = false;
    q->settle.result = 0;
    q->settle.on_settled = on_settled;
    list_init(&q->settle.waiter.node);
    qcow2_settle_step(q);
}

void qcow2_settle_step(struct qcow2 *q)
{
    if (!q->settle.wanted || q->corrupt_busy || !list_is_empty(&q->settle.waiter.node))
        return;
    bool must_write = !q->node.read_only && !q->poisoned && !q->settle.failed;
    if (must_write && (!qcow2_flush_is_clean(q) || q->flush.unsynced || q->flush.data_unsynced)) {
        q->settle.waiter.wake = on_settle_flushed;
        qcow2_flush_wait(q, &q->settle.waiter);
    } else if (!qcow2_release_is_idle(q)) {
        q->settle.failed |= q->poisoned != 0;
        qcow2_release_step(q); /* comes back here */
    } else if (q->flush.state == QCOW2_FLUSH_IDLE) {
        q->settle.wanted = false;
        if (q->poisoned && !q->settle.result)
            q->settle.result = q->poisoned;
        q->settle.on_settled(q, q->settle.result);
    }
}

static void on_bitmaps_stored(struct qcow2 *q, int result)
{
    q->close.result = result;
    io_close(q->node.file, on_file_closed, q);
}

static void on_settled_to_close(struct qcow2 *q, int result)
{
    q->close.result = result;
    if (result)
        io_close(q->node.file, on_file_closed, q);
    else
        qcow2_keeper_store(q, on_bitmaps_stored);
}

static void qcow2_close(struct node *node, void (*on_closed)(void *opaque, int result),
                        void *opaque)
{
    struct qcow2 *q = qcow2_of(node);
    q->close.on_closed = on_closed;
    q->close.opaque = opaque;
    qcow2_settle(q, on_settled_to_close);
}

static bool qcow2_is_at_rest(const struct node *node)
{
    const struct qcow2 *q = container_of(node, const struct qcow2, node);
    return list_is_empty(&q->active) && !q->copy.running && !q->live && qcow2_flush_is_idle(q) &&
           qcow2_release_is_idle(q);
}

static void qcow2_move(struct node *node, struct loop *loop)
{
    struct qcow2 *q = qcow2_of(node);
    qcow2_flush_move(q, loop);
    qcow2_idle_move(q);
}

const struct format_ops qcow2_format = {
    .name = "qcow2",
    .has_status = true,
    .open = qcow2_open,
    .backing = qcow2_backing,
    .submit = qcow2_submit,
    .expect = qcow2_map_expect,
    .check_bitmap = qcow2_keeper_check_bitmap,
    .resize = qcow2_resize,
    .snapshot = qcow2_live_snapshot,
    .vmstate_reserve = qcow2_live_vmstate_reserve,
    .snapshot_count = qcow2_live_count,
    .snapshot_get = qcow2_live_get,
    .freeze = qcow2_freeze,
    .is_at_rest = qcow2_is_at_rest,
    .move = qcow2_move,
    .set_backing = qcow2_set_backing,
    .close = qcow2_close,
};
