/* SPDX-License-Identifier: MIT */
/*
 * qcow2_cow: writes to clusters that the map does not point to yet (or only as zeroes).
 *
 * Theory of operation. Such an operation reserves all it needs first, which is the only step that
 * may fail for space: host clusters, the L2 slice (pinned), room on the list of frees. From then on
 * it owns its guest clusters: another write to them, or their zeroing, waits. It reads the edges
 * that it must keep (through the map as it still is), writes head, data and tail at once, and then
 * publishes: memory only, cannot fail, cannot wait. If its I/O fails, what it reserved is given
 * back and the map has never known.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2.h"
#include "disk/qcow2/qcow2_rule.h"

#define COW_BUFFER_BYTES (32 * 1024 * 1024u) /* in use; who needs more waits */
#define MERGE_BYTES      (16 * 1024u)        /* of data between two edges that one read fetches */

struct idle_buffer {
    struct idle_buffer *next;
};

static uint8_t *buffer_get(struct qcow2 *q)
{
    struct idle_buffer *buffer = q->idle_buffers;
    void *memory;
    if (buffer) {
        q->idle_buffers = buffer->next;
        memory = buffer;
    } else if (posix_memalign(&memory, 4096, q->cluster_bytes)) {
        return NULL;
    }
    q->cow_buffers++;
    return memory;
}

static void buffer_put(struct qcow2 *q, uint8_t *memory)
{
    if (!memory)
        return;
    struct idle_buffer *buffer = (void *)memory;
    buffer->next = q->idle_buffers;
    q->idle_buffers = buffer;
    q->cow_buffers--;
}

void qcow2_cow_fini(struct qcow2 *q)
{
    while (q->idle_buffers) {
        struct idle_buffer *buffer = q->idle_buffers;
        q->idle_buffers = buffer->next;
        free(buffer);
    }
}

struct qcow2_op *qcow2_cow_find(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t start = align_down(offset, q->cluster_bytes);
    uint64_t end = align_up(offset + bytes, q->cluster_bytes);
    struct qcow2_op *found = NULL;
    list_for_each(node, &q->owners)
    {
        struct qcow2_op *op = list_entry(node, struct qcow2_op, owning);
        if (op->cow_start < end && start < op->cow_end &&
            (!found || op->cow_start < found->cow_start))
            found = op;
    }
    return found;
}

/* Leaves the first `clusters` of a plan. */
static void shorten(const struct qcow2 *q, uint64_t offset, uint64_t clusters,
                    struct qcow2_plan *plan)
{
    if (clusters >= plan->clusters)
        return;
    uint64_t end = align_down(offset, q->cluster_bytes) + (clusters << q->cluster_bits);
    plan->clusters = (uint32_t)clusters;
    plan->bytes = end - offset;
    plan->cow_end = end;
}

/* Cuts the plan where another operation owns the clusters. */
static int avoid_owners(struct qcow2_request *request, struct qcow2_plan *plan)
{
    struct qcow2 *q = request->q;
    uint64_t first = align_down(request->cursor, q->cluster_bytes);
    uint64_t bytes = (uint64_t)plan->clusters << q->cluster_bits;
    const struct qcow2_op *owner = qcow2_cow_find(q, first, bytes);
    bool is_short_of_buffers = q->cow_buffers > MAX(COW_BUFFER_BYTES >> q->cluster_bits, 4);
    if (!qcow2_rule(OWNERS))
        owner = NULL;
    if (is_short_of_buffers || (owner && align_down(owner->cow_start, q->cluster_bytes) <= first)) {
        qcow2_wait(&q->blocked, &request->waiter);
        return -EINPROGRESS;
    }
    if (owner)
        shorten(q, request->cursor, (owner->cow_start - first) >> q->cluster_bits, plan);
    return 0;
}

/* Host clusters for the plan, which may become shorter. */
static int reserve_clusters(struct qcow2_request *request, struct qcow2_plan *plan, bool *fresh)
{
    struct qcow2 *q = request->q;
    uint64_t first, count;
    *fresh = false;
    if (plan->reuses)
        return 0;
    int result = qcow2_alloc(q, plan->clusters, &request->waiter, &first, &count, fresh);
    if (result)
        return result;
    plan->host_offset = first << q->cluster_bits;
    shorten(q, request->cursor, count, plan);
    return 0;
}

/* What must be written beside the data, at one of its ends. */
static int find_edge(struct qcow2_request *request, const struct qcow2_plan *plan, bool fresh,
                     uint64_t start, uint64_t end, enum qcow2_edge *edge)
{
    struct qcow2_plan old;
    *edge = QCOW2_EDGE_NONE;
    fresh |= !qcow2_rule(STALE_EDGES);
    if (start == end)
        return 0;
    /* Cannot wait: the slice is pinned. */
    int result = qcow2_plan_read(request->q, start, end - start, &request->waiter, &old);
    CHECK(result != -EINPROGRESS);
    if (result)
        return result;
    bool is_zero = old.kind == QCOW2_PLAN_ZERO && old.bytes == end - start;
    if (is_zero)
        *edge = fresh ? QCOW2_EDGE_NONE : QCOW2_EDGE_ZERO;
    else if (!(plan->reuses && old.kind == QCOW2_PLAN_AT))
        *edge = QCOW2_EDGE_COPY;
    return 0;
}

static void give_up_clusters(struct qcow2 *q, uint64_t host_offset, uint32_t clusters)
{
    qcow2_free(q, host_offset >> q->cluster_bits, clusters, false);
}

static void end_owning(struct qcow2_op *op, int result)
{
    struct qcow2 *q = op->q;
    if (result == 0)
        qcow2_map_publish(q, op);
    else if (!op->reuses)
        give_up_clusters(q, op->host_offset, op->clusters);
    qcow2_free_unreserve(q, op->frees);
    buffer_put(q, op->head_buffer);
    buffer_put(q, op->tail_buffer);
    op->head_buffer = op->tail_buffer = NULL;
    list_remove(&op->owning);
    qcow2_table_unpin(op->slice);
    qcow2_wake_all(&q->blocked, 0);
    qcow2_op_finish(op, result);
}

static void on_written(struct io_request *io, int result)
{
    struct qcow2_op *op = container_of(io, struct qcow2_op, io);
    qcow2_note_data(op->q);
    end_owning(op, result);
}

static void append_edge(struct qcow2_op *op, enum qcow2_edge edge, uint8_t *buffer, uint64_t bytes)
{
    if (edge == QCOW2_EDGE_ZERO)
        qcow2_op_append_zeroes(op, bytes);
    else if (edge == QCOW2_EDGE_COPY)
        op->iov[op->iov_count++] = (struct iovec){buffer, bytes};
}

/* Both edges come by one read, with the old data between them: into head_buffer. */
static bool is_merged(const struct qcow2_op *op)
{
    return op->head == QCOW2_EDGE_COPY && op->tail == QCOW2_EDGE_COPY && !op->tail_buffer;
}

static uint8_t *tail_data(const struct qcow2_op *op)
{
    if (is_merged(op))
        return op->head_buffer + (op->offset + op->bytes - op->cow_start);
    return op->tail_buffer;
}

/* Head, data and tail in one write. */
static void start_write(struct qcow2_op *op)
{
    struct qcow2 *q = op->q;
    uint64_t start = op->head == QCOW2_EDGE_NONE ? op->offset : op->cow_start;
    uint64_t data_end = op->offset + op->bytes;
    uint64_t end = op->tail == QCOW2_EDGE_NONE ? data_end : op->cow_end;
    op->state = QCOW2_OP_COW_WRITE;
    append_edge(op, op->head, op->head_buffer, op->offset - op->cow_start);
    qcow2_op_append_data(op);
    append_edge(op, op->tail, tail_data(op), op->cow_end - data_end);
    op->io = (struct io_request){
        .kind = IO_WRITE,
        .offset = op->host_offset + (start - align_down(op->offset, q->cluster_bytes)),
        .bytes = end - start,
        .iov = op->iov,
        .iov_count = op->iov_count,
        .on_done = on_written,
    };
    io_submit(qcow2_data(q), &op->io);
}

static void on_edge_read(struct qcow2_op *op, int result)
{
    if (result && !op->result)
        op->result = result;
    if (--op->reads_left)
        return;
    if (op->result)
        end_owning(op, op->result);
    else
        start_write(op);
}

static void on_head_read(struct disk_request *request, int result)
{
    on_edge_read(container_of(request, struct qcow2_op, head_read), result);
}

static void on_tail_read(struct disk_request *request, int result)
{
    on_edge_read(container_of(request, struct qcow2_op, tail_read), result);
}

static void start_reads(struct qcow2_op *op)
{
    struct node *node = &op->q->node;
    uint64_t data_end = op->offset + op->bytes;
    op->head_iov = (struct iovec){op->head_buffer, op->offset - op->cow_start};
    op->tail_iov = (struct iovec){op->tail_buffer, op->cow_end - data_end};
    op->head_read = (struct disk_request){.op = DISK_READ,
                                          .offset = op->cow_start,
                                          .bytes = op->head_iov.iov_len,
                                          .iov = &op->head_iov,
                                          .iov_count = 1,
                                          .on_done = on_head_read};
    op->tail_read = (struct disk_request){.op = DISK_READ,
                                          .offset = data_end,
                                          .bytes = op->tail_iov.iov_len,
                                          .iov = &op->tail_iov,
                                          .iov_count = 1,
                                          .on_done = on_tail_read};
    op->state = QCOW2_OP_COW_READ;
    op->reads_left = (op->head == QCOW2_EDGE_COPY) + (op->tail == QCOW2_EDGE_COPY);
    if (is_merged(op)) {
        op->reads_left = 1;
        op->head_read.bytes = op->head_iov.iov_len = op->cow_end - op->cow_start;
        qcow2_submit(node, &op->head_read);
        return;
    }
    if (op->head == QCOW2_EDGE_COPY)
        qcow2_submit(node, &op->head_read);
    if (op->tail == QCOW2_EDGE_COPY)
        qcow2_submit(node, &op->tail_read);
}

/* An operation with all that it needs, or NULL: then nothing is held. */
static struct qcow2_op *make_op(struct qcow2_request *request, const struct qcow2_plan *plan,
                                enum qcow2_edge head, enum qcow2_edge tail)
{
    struct qcow2 *q = request->q;
    bool merged = head == QCOW2_EDGE_COPY && tail == QCOW2_EDGE_COPY &&
                  plan->bytes <= MERGE_BYTES && plan->cow_end - plan->cow_start <= q->cluster_bytes;
    bool wants_tail = tail == QCOW2_EDGE_COPY && !merged;
    uint8_t *head_buffer = head == QCOW2_EDGE_COPY ? buffer_get(q) : NULL;
    uint8_t *tail_buffer = wants_tail ? buffer_get(q) : NULL;
    struct qcow2_op *op = NULL;
    if ((head != QCOW2_EDGE_COPY || head_buffer) && (!wants_tail || tail_buffer))
        op = qcow2_op_get(request, request->cursor, plan->bytes);
    if (!op) {
        buffer_put(q, head_buffer);
        buffer_put(q, tail_buffer);
        return NULL;
    }
    op->cow_start = plan->cow_start;
    op->cow_end = plan->cow_end;
    op->host_offset = plan->host_offset;
    op->clusters = plan->clusters;
    op->reuses = plan->reuses;
    op->slice = plan->slice;
    op->index = plan->index;
    op->head = head;
    op->tail = tail;
    op->head_buffer = head_buffer;
    op->tail_buffer = tail_buffer;
    op->result = 0;
    return op;
}

static int start_reserved(struct qcow2_request *request, const struct qcow2_plan *plan, bool fresh,
                          size_t frees)
{
    struct qcow2 *q = request->q;
    enum qcow2_edge head, tail = QCOW2_EDGE_NONE;
    uint64_t data_end = request->cursor + plan->bytes;
    int result = find_edge(request, plan, fresh, plan->cow_start, request->cursor, &head);
    if (!result)
        result = find_edge(request, plan, fresh, data_end, plan->cow_end, &tail);
    if (result)
        return result;
    struct qcow2_op *op = make_op(request, plan, head, tail);
    if (!op)
        return -ENOMEM;
    op->frees = frees;
    list_push_back(&q->owners, &op->owning);
    if (head == QCOW2_EDGE_COPY || tail == QCOW2_EDGE_COPY)
        start_reads(op);
    else
        start_write(op);
    return 0;
}

int qcow2_cow_start(struct qcow2_request *request, const struct qcow2_plan *wanted, uint64_t *bytes)
{
    struct qcow2 *q = request->q;
    struct qcow2_plan plan = *wanted;
    bool fresh;
    int result = avoid_owners(request, &plan);
    if (result)
        return result;
    size_t frees = plan.clusters + 1; /* each old cluster, or all new ones at once */
    result = qcow2_free_reserve(q, frees);
    if (result)
        return result;
    plan.slice->pins++; /* allocating may load and evict other slices */
    result = reserve_clusters(request, &plan, &fresh);
    if (!result) {
        result = start_reserved(request, &plan, fresh, frees);
        if (result && !plan.reuses)
            give_up_clusters(q, plan.host_offset, plan.clusters);
    }
    if (result) {
        qcow2_free_unreserve(q, frees);
        qcow2_table_unpin(plan.slice);
    }
    *bytes = plan.bytes;
    return result;
}
