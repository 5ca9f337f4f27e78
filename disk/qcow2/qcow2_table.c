/* SPDX-License-Identifier: MIT */
/*
 * qcow2_table: slices of L2 tables and refcount blocks in a bounded cache.
 *
 * A slice is evicted only while the file holds the same: never when it is dirty, being written,
 * being loaded or pinned. When all are busy, a writeback cycle is asked for and who needs a slice
 * waits for it.
 */
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"

#define SLICES_MIN 32u

struct qcow2_load {
    struct list node;
    struct io_request io;
    struct iovec iov;
    struct qcow2 *q;
    struct qcow2_slice *slice;
};

void qcow2_wake_all(struct list *waiters, int result)
{
    struct list batch;
    list_init(&batch);
    list_splice_back(&batch, waiters);
    for (struct list *node; (node = list_pop_front(&batch));) {
        struct qcow2_waiter *waiter = list_entry(node, struct qcow2_waiter, node);
        waiter->wake(waiter, result);
    }
}

int qcow2_cache_init(struct qcow2 *q, uint64_t bytes)
{
    struct qcow2_cache *cache = &q->cache;
    list_init(&cache->lru);
    list_init(&cache->dirty);
    list_init(&cache->waiters);
    list_init(&cache->loads);
    cache->capacity = (uint32_t)MAX(MIN(bytes, GIB) >> q->slice_bits, SLICES_MIN);
    cache->memory_bytes = (size_t)cache->capacity << q->slice_bits;
    uint32_t buckets = 1;
    while (buckets < cache->capacity)
        buckets *= 2;
    cache->bucket_mask = buckets - 1;
    cache->buckets = calloc(buckets, sizeof(cache->buckets[0]));
    cache->slices = calloc(cache->capacity, sizeof(cache->slices[0]));
    void *memory = mmap(NULL, cache->memory_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cache->memory = memory == MAP_FAILED ? NULL : memory;
    return cache->buckets && cache->slices && cache->memory ? 0 : -ENOMEM;
}

void qcow2_cache_forget_all(struct qcow2 *q)
{
    struct qcow2_cache *cache = &q->cache;
    CHECK(!cache->dirty_count && list_is_empty(&cache->dirty) && list_is_empty(&cache->waiters));
    for (uint32_t i = 0; i < cache->used; i++)
        CHECK(!cache->slices[i].pins && !cache->slices[i].loading && !cache->slices[i].writing);
    memset(cache->buckets, 0, ((size_t)cache->bucket_mask + 1) * sizeof(cache->buckets[0]));
    memset(cache->seen, 0, sizeof(cache->seen));
    list_init(&cache->lru);
    cache->used = 0;
}

void qcow2_cache_fini(struct qcow2 *q)
{
    struct qcow2_cache *cache = &q->cache;
    if (cache->loads.next)
        for (struct list *node; (node = list_pop_front(&cache->loads));)
            free(list_entry(node, struct qcow2_load, node));
    if (cache->memory)
        munmap(cache->memory, cache->memory_bytes);
    free(cache->slices);
    free(cache->buckets);
}

static uint32_t hash_of(const struct qcow2 *q, uint64_t host_offset)
{
    return (uint32_t)((host_offset >> q->slice_bits) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

static struct qcow2_slice **bucket_of(const struct qcow2 *q, uint64_t host_offset)
{
    return &q->cache.buckets[hash_of(q, host_offset) & q->cache.bucket_mask];
}

static struct qcow2_slice *find(const struct qcow2 *q, uint64_t host_offset)
{
    struct qcow2_slice *slice = *bucket_of(q, host_offset);
    while (slice && slice->host_offset != host_offset)
        slice = slice->hash_next;
    return slice;
}

static void unhash(struct qcow2 *q, struct qcow2_slice *slice)
{
    struct qcow2_slice **link = bucket_of(q, slice->host_offset);
    while (*link != slice)
        link = &(*link)->hash_next;
    *link = slice->hash_next;
}

static void drop(struct qcow2 *q, struct qcow2_slice *slice)
{
    unhash(q, slice);
    slice->host_offset = UINT64_MAX;
    list_remove(&slice->node);
    list_push_front(&q->cache.lru, &slice->node);
    if (is_aligned(qcow2_slice_bytes(q), 4096))
        madvise(slice->data, qcow2_slice_bytes(q), MADV_DONTNEED);
}

bool qcow2_cache_clean(struct qcow2 *q)
{
    struct qcow2_cache *cache = &q->cache;
    bool is_left = false;
    for (uint32_t i = 0; i < cache->used; i++) {
        struct qcow2_slice *slice = &cache->slices[i];
        bool is_busy = slice->pins || slice->loading || slice->dirty || slice->writing;
        if (slice->host_offset == UINT64_MAX)
            continue;
        if (!is_busy && !slice->is_used)
            drop(q, slice);
        else
            is_left = true;
        slice->is_used = false;
    }
    return is_left;
}

/* A slice without contents, taken from the file's least used one; NULL if all are busy. */
static struct qcow2_slice *take(struct qcow2 *q)
{
    struct qcow2_cache *cache = &q->cache;
    if (cache->used < cache->capacity) {
        struct qcow2_slice *slice = &cache->slices[cache->used];
        slice->data = cache->memory + ((size_t)cache->used << q->slice_bits);
        list_init(&slice->node);
        list_init(&slice->waiters);
        cache->used++;
        return slice;
    }
    list_for_each(node, &cache->lru)
    {
        struct qcow2_slice *slice = list_entry(node, struct qcow2_slice, node);
        if (slice->pins)
            continue;
        list_remove(&slice->node);
        /* A forgotten slice has left the hash already. */
        if (slice->host_offset != UINT64_MAX)
            unhash(q, slice);
        return slice;
    }
    return NULL;
}

static int wait_for_space(struct qcow2 *q, struct qcow2_waiter *waiter)
{
    qcow2_wait(&q->cache.waiters, waiter);
    qcow2_flush_want(q);
    return -EINPROGRESS;
}

static void on_loaded(struct io_request *io, int result)
{
    struct qcow2_load *load = container_of(io, struct qcow2_load, io);
    struct qcow2 *q = load->q;
    struct qcow2_slice *slice = load->slice;
    list_push_front(&q->cache.loads, &load->node);
    slice->loading = false;
    if (result) {
        if (slice->host_offset != UINT64_MAX)
            unhash(q, slice);
        slice->host_offset = UINT64_MAX;
        list_push_front(&q->cache.lru, &slice->node);
    } else {
        list_push_back(&q->cache.lru, &slice->node);
    }
    qcow2_wake_all(&slice->waiters, result);
}

static struct qcow2_load *load_get(struct qcow2 *q)
{
    if (!list_is_empty(&q->cache.loads))
        return list_entry(list_pop_front(&q->cache.loads), struct qcow2_load, node);
    struct qcow2_load *load = calloc(1, sizeof(*load));
    if (load) {
        list_init(&load->node);
        load->q = q;
    }
    return load;
}

static int start_load(struct qcow2 *q, struct qcow2_slice *slice, struct qcow2_load *load,
                      struct qcow2_waiter *waiter)
{
    slice->loading = true;
    load->slice = slice;
    load->iov = (struct iovec){slice->data, qcow2_slice_bytes(q)};
    load->io = (struct io_request){
        .kind = IO_READ,
        .offset = slice->host_offset,
        .bytes = qcow2_slice_bytes(q),
        .iov = &load->iov,
        .iov_count = 1,
        .on_done = on_loaded,
    };
    qcow2_wait(&slice->waiters, waiter);
    io_submit(q->node.file, &load->io);
    return -EINPROGRESS;
}

static int bring_in(struct qcow2 *q, enum qcow2_kind kind, uint32_t index, uint64_t host_offset,
                    bool blank, struct qcow2_waiter *waiter, struct qcow2_slice **out)
{
    struct qcow2_load *load = blank ? NULL : load_get(q);
    if (!blank && !load)
        return -ENOMEM;
    struct qcow2_slice *slice = take(q);
    if (!slice) {
        if (load)
            list_push_front(&q->cache.loads, &load->node);
        return wait_for_space(q, waiter);
    }
    struct qcow2_slice **bucket = bucket_of(q, host_offset);
    slice->host_offset = host_offset;
    slice->kind = (uint8_t)kind;
    slice->table = index;
    slice->is_used = true;
    qcow2_idle_loaded(q);
    slice->hash_next = *bucket;
    *bucket = slice;
    uint32_t bit = hash_of(q, host_offset) % QCOW2_SEEN_BITS;
    q->cache.seen[bit / 64] |= UINT64_C(1) << bit % 64;
    if (load)
        return start_load(q, slice, load, waiter);
    memset(slice->data, 0, qcow2_slice_bytes(q));
    list_push_back(&q->cache.lru, &slice->node);
    *out = slice;
    return 0;
}

int qcow2_table_get(struct qcow2 *q, enum qcow2_kind kind, uint32_t index, uint64_t table_entry,
                    uint64_t byte, struct qcow2_waiter *waiter, struct qcow2_slice **out)
{
    uint64_t table = table_entry & QCOW2_ENTRY_OFFSET_MASK;
    uint64_t host_offset = table + align_down(byte, qcow2_slice_bytes(q));
    struct qcow2_slice *slice = find(q, host_offset);
    if (slice)
        slice->is_used = true;
    if (!waiter && (!slice || slice->loading))
        return -EAGAIN;
    if (!slice)
        return bring_in(q, kind, index, host_offset, table_entry & QCOW2_BLANK, waiter, out);
    if (slice->loading) {
        qcow2_wait(&slice->waiters, waiter);
        return -EINPROGRESS;
    }
    if (slice->kind != kind || slice->table != index)
        return qcow2_corrupt(q, "two tables share the cluster at offset %" PRIu64, table);
    if (!slice->dirty && !slice->writing) {
        list_remove(&slice->node);
        list_push_back(&q->cache.lru, &slice->node);
    }
    *out = slice;
    return 0;
}

void qcow2_table_dirty(struct qcow2 *q, struct qcow2_slice *slice)
{
    if (slice->dirty)
        return;
    slice->dirty = true;
    list_remove(&slice->node);
    list_push_back(&q->cache.dirty, &slice->node);
    if (++q->cache.dirty_count > q->cache.capacity / 2)
        qcow2_flush_want(q);
    if (q->cache.dirty_count == 1)
        qcow2_idle_dirty(q);
}

void qcow2_table_unpin(struct qcow2_slice *slice)
{
    /* Who waits for a free slice looks again at the end of the cycle that the wait has asked for.
     */
    CHECK(slice->pins > 0);
    slice->pins--;
}

void qcow2_table_written(struct qcow2 *q, struct qcow2_slice *slice, int result)
{
    slice->writing = false;
    if (slice->dirty)
        return;
    list_push_back(&q->cache.lru, &slice->node);
    if (result)
        qcow2_table_dirty(q, slice);
}

void qcow2_table_forget(struct qcow2 *q, uint64_t host_offset)
{
    for (uint64_t at = host_offset; at < host_offset + q->cluster_bytes;
         at += qcow2_slice_bytes(q)) {
        struct qcow2_slice *slice = find(q, at);
        if (!slice || slice->dirty || slice->writing || slice->pins)
            continue;
        unhash(q, slice);
        slice->host_offset = UINT64_MAX;
        if (!slice->loading) {
            list_remove(&slice->node);
            list_push_front(&q->cache.lru, &slice->node);
        }
    }
}

void qcow2_table_expect(const struct qcow2 *q, uint64_t table_entry, uint64_t byte)
{
    uint64_t host_offset = (table_entry & QCOW2_ENTRY_OFFSET_MASK) + byte;
    const struct qcow2_slice *slice = find(q, align_down(host_offset, qcow2_slice_bytes(q)));
    if (slice)
        __builtin_prefetch(slice->data + (byte & (qcow2_slice_bytes(q) - 1)));
}

/* Asked for each write, of clusters that are no tables: most are known by a bit not to be here. */
bool qcow2_table_is_cached(const struct qcow2 *q, uint64_t host_offset)
{
    uint32_t bit = hash_of(q, host_offset) % QCOW2_SEEN_BITS;
    return q->cache.seen[bit / 64] >> bit % 64 & 1 && find(q, host_offset);
}

int qcow2_table_room(struct qcow2 *q, uint32_t slices, struct qcow2_waiter *waiter)
{
    uint32_t room = q->cache.capacity - q->cache.used;
    list_for_each(node, &q->cache.lru)
    {
        if (room >= slices)
            break;
        room += list_entry(node, struct qcow2_slice, node)->pins == 0;
    }
    return room >= slices ? 0 : wait_for_space(q, waiter);
}

void qcow2_top_dirty(struct qcow2_top *top, uint32_t index)
{
    uint32_t sector = index / 64;
    top->dirty[sector / 64] |= UINT64_C(1) << (sector % 64);
    top->any_dirty = true;
}
