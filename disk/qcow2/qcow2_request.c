/* SPDX-License-Identifier: MIT */
/*
 * qcow2_request: a guest's request is a cursor that plans its range piece by piece, and starts an
 * operation for each piece that needs I/O.
 *
 * When a plan needs what is not there (a table that must be loaded, a range that another operation
 * owns, a codec), the request waits, and plans again from its cursor when it is woken: it never
 * resumes half-way. Operations of one request run side by side. The request ends when its cursor is
 * at the end (or a piece failed) and no operation of it is left.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "disk/qcow2/qcow2.h"

#define REQUEST_OPS_MAX  16 /* of one request at a time */
#define SLOT_CHUNK       8
#define ZERO_BYTES       (64 * 1024u)
#define ZERO_WRITE_BYTES (32 * 1024 * 1024u) /* of one operation */

struct op_chunk {
    struct list node;
    struct qcow2_op ops[SLOT_CHUNK];
};

struct request_chunk {
    struct list node;
    struct qcow2_request requests[SLOT_CHUNK];
};

static _Alignas(4096) uint8_t zeroes[ZERO_BYTES]; /* never written */

static void pump(struct qcow2_request *request);

static struct qcow2_op *op_slot(struct qcow2 *q)
{
    if (list_is_empty(&q->idle_ops)) {
        struct op_chunk *chunk = calloc(1, sizeof(*chunk));
        if (!chunk)
            return NULL;
        list_push_back(&q->op_chunks, &chunk->node);
        for (size_t i = 0; i < SLOT_CHUNK; i++) {
            chunk->ops[i].q = q;
            list_init(&chunk->ops[i].owning);
            list_init(&chunk->ops[i].codec_node);
            list_push_back(&q->idle_ops, &chunk->ops[i].node);
        }
    }
    return list_entry(list_pop_front(&q->idle_ops), struct qcow2_op, node);
}

static struct qcow2_request *request_slot(struct qcow2 *q)
{
    if (list_is_empty(&q->idle_requests)) {
        struct request_chunk *chunk = calloc(1, sizeof(*chunk));
        if (!chunk)
            return NULL;
        list_push_back(&q->request_chunks, &chunk->node);
        for (size_t i = 0; i < SLOT_CHUNK; i++)
            list_push_back(&q->idle_requests, &chunk->requests[i].node);
    }
    return list_entry(list_pop_front(&q->idle_requests), struct qcow2_request, node);
}

void qcow2_slots_fini(struct qcow2 *q)
{
    for (struct list *node; (node = list_pop_front(&q->op_chunks));)
        free(list_entry(node, struct op_chunk, node));
    for (struct list *node; (node = list_pop_front(&q->request_chunks));)
        free(list_entry(node, struct request_chunk, node));
}

/* An operation that is counted from now on: what it may read is not reused before its end. */
static struct qcow2_op *op_begin(struct qcow2 *q)
{
    struct qcow2_op *op = op_slot(q);
    if (!op)
        return NULL;
    CHECK(op->state == QCOW2_OP_IDLE);
    op->sequence = q->sequence++;
    list_push_back(&q->active, &op->node);
    return op;
}

static void op_end(struct qcow2_op *op)
{
    struct qcow2 *q = op->q;
    CHECK(list_is_empty(&op->owning));
    op->state = QCOW2_OP_IDLE;
    list_remove(&op->node);
    list_push_front(&q->idle_ops, &op->node);
    if (q->release.running)
        qcow2_release_step(q);
}

struct qcow2_op *qcow2_op_get(struct qcow2_request *request, uint64_t offset, uint64_t bytes)
{
    struct qcow2_op *op = op_begin(request->q);
    if (!op)
        return NULL;
    op->request = request;
    op->offset = offset;
    op->bytes = bytes;
    op->iov_count = 0;
    request->pending++;
    return op;
}

void qcow2_op_finish(struct qcow2_op *op, int result)
{
    struct qcow2_request *request = op->request;
    CHECK(request->pending > 0);
    request->pending--;
    if (result && !request->result)
        request->result = result;
    op_end(op);
    pump(request);
}

void qcow2_op_append_zeroes(struct qcow2_op *op, uint64_t bytes)
{
    for (uint64_t piece; bytes; bytes -= piece) {
        CHECK(op->iov_count < QCOW2_OP_IOV);
        piece = MIN(bytes, ZERO_BYTES);
        op->iov[op->iov_count++] = (struct iovec){zeroes, piece};
    }
}

void qcow2_op_append_data(struct qcow2_op *op)
{
    const struct disk_request *outer = op->request->outer;
    if (outer->op == DISK_ZERO) {
        qcow2_op_append_zeroes(op, op->bytes);
        return;
    }
    op->iov_count += iov_slice(op->iov + op->iov_count, QCOW2_OP_IOV - op->iov_count, outer->iov,
                               outer->iov_count, op->offset - outer->offset, op->bytes);
}

/* The op's memory without copying the list where the op is all of the request. */
static void point_to_data(struct qcow2_op *op, const struct iovec **iov, size_t *count)
{
    const struct disk_request *outer = op->request->outer;
    if (outer->op != DISK_ZERO && op->bytes == outer->bytes) {
        *iov = outer->iov;
        *count = outer->iov_count;
        return;
    }
    qcow2_op_append_data(op);
    *iov = op->iov;
    *count = op->iov_count;
}

static void on_io_done(struct io_request *io, int result)
{
    struct qcow2_op *op = container_of(io, struct qcow2_op, io);
    if (op->state == QCOW2_OP_WRITE)
        qcow2_note_data(op->q);
    qcow2_op_finish(op, result);
}

static int start_io(struct qcow2_request *request, enum io_kind kind, uint64_t host_offset,
                    uint64_t bytes)
{
    struct qcow2_op *op = qcow2_op_get(request, request->cursor, bytes);
    if (!op)
        return -ENOMEM;
    op->state = kind == IO_READ ? QCOW2_OP_READ : QCOW2_OP_WRITE;
    op->io = (struct io_request){
        .kind = kind,
        .offset = host_offset,
        .bytes = bytes,
        .on_done = on_io_done,
    };
    if (kind == IO_READ || kind == IO_WRITE)
        point_to_data(op, &op->io.iov, &op->io.iov_count);
    io_submit(qcow2_data(request->q), &op->io);
    return 0;
}

static void on_child_done(struct disk_request *child, int result)
{
    struct qcow2_op *op = container_of(child, struct qcow2_op, child);
    if (child->op == DISK_STATUS)
        op->request->outer->extent = child->extent;
    qcow2_op_finish(op, result);
}

static int start_child(struct qcow2_request *request, uint64_t bytes)
{
    struct node *backing = request->q->node.backing;
    struct qcow2_op *op = qcow2_op_get(request, request->cursor, bytes);
    if (!op)
        return -ENOMEM;
    op->state = QCOW2_OP_READ;
    op->child = (struct disk_request){
        .op = request->outer->op,
        .offset = op->offset,
        .bytes = bytes,
        .on_done = on_child_done,
    };
    if (op->child.op == DISK_READ)
        point_to_data(op, &op->child.iov, &op->child.iov_count);
    node_submit(backing, &op->child);
    return 0;
}

static int read_step(struct qcow2_request *request, uint64_t *bytes)
{
    struct qcow2_plan plan;
    const struct disk_request *outer = request->outer;
    uint64_t left = request->end - request->cursor;
    int result = qcow2_plan_read(request->q, request->cursor, left, &request->waiter, &plan);
    if (result)
        return result;
    *bytes = plan.bytes;
    switch (plan.kind) {
    case QCOW2_PLAN_ZERO:
        iov_fill(outer->iov, outer->iov_count, request->cursor - outer->offset, 0, plan.bytes);
        return 0;
    case QCOW2_PLAN_AT:
        return start_io(request, IO_READ, plan.host_offset, plan.bytes);
    case QCOW2_PLAN_PACKED:
        return qcow2_codec_read(request, &plan);
    case QCOW2_PLAN_BACKING:
        return start_child(request, plan.bytes);
    case QCOW2_PLAN_ALLOCATE:
    case QCOW2_PLAN_NO_TABLE:
        break;
    }
    UNREACHABLE("plans of writes");
}

/* A hostile map may point at the image's own tables. */
static int check_target(struct qcow2 *q, uint64_t host_offset, uint64_t bytes)
{
    uint64_t end = host_offset + bytes;
    for (uint64_t at = align_down(host_offset, q->cluster_bytes); at < end; at += q->cluster_bytes)
        if (qcow2_overlaps_metadata(q, at, q->cluster_bytes))
            return qcow2_corrupt(q, "guest data is mapped onto metadata at offset %llu",
                                 (unsigned long long)at);
    return 0;
}

/*
 * DISK_IF_ABSENT: how much at the cursor the image leaves to its backing file, or with
 * *is_present, how much it does not. What an operation owns is about to be there.
 */
static int find_absent(struct qcow2_request *request, uint64_t most, uint64_t *bytes,
                       bool *is_present)
{
    struct qcow2 *q = request->q;
    struct qcow2_plan plan;
    int result = qcow2_plan_read(q, request->cursor, most, &request->waiter, &plan);
    if (result)
        return result;
    *bytes = plan.bytes;
    *is_present = !plan.is_absent;
    if (*is_present || !qcow2_cow_find(q, request->cursor, plan.bytes))
        return 0;
    qcow2_wait(&q->blocked, &request->waiter);
    return -EINPROGRESS;
}

/* Where a write goes. What lies there already is checked, so that the plan can be carried out. */
static int plan_write(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct qcow2_waiter *waiter,
                      struct qcow2_plan *plan)
{
    int result = qcow2_plan_write(q, offset, bytes, waiter, plan);
    if (result || plan->kind != QCOW2_PLAN_AT || q->external)
        return result;
    return check_target(q, plan->host_offset, plan->bytes);
}

static int write_step(struct qcow2_request *request, uint64_t most, uint64_t *bytes)
{
    struct qcow2 *q = request->q;
    struct qcow2_plan plan;
    bool is_present = false;
    if (request->outer->flags & DISK_IF_ABSENT) {
        int found = find_absent(request, most, bytes, &is_present);
        if (found || is_present)
            return found;
        most = *bytes;
    }
    int result = plan_write(q, request->cursor, most, &request->waiter, &plan);
    if (result)
        return result;
    if (plan.kind == QCOW2_PLAN_NO_TABLE) {
        /* Nothing is settled yet: with the table there, the same cursor is planned again. */
        *bytes = 0;
        return qcow2_table_own(q, (uint32_t)(request->cursor >> (q->cluster_bits + q->l2_bits)),
                               &request->waiter);
    }
    if (plan.kind == QCOW2_PLAN_ALLOCATE)
        return qcow2_cow_start(request, &plan, bytes);
    *bytes = plan.bytes;
    return start_io(request, IO_WRITE, plan.host_offset, plan.bytes);
}

/* Whole clusters by the map alone. An operation that owns some of them would undo it. */
static int zero_clusters(struct qcow2_request *request, uint64_t most, bool unmap, uint64_t *bytes)
{
    struct qcow2 *q = request->q;
    const struct qcow2_op *owner = qcow2_cow_find(q, request->cursor, most);
    if (owner) {
        uint64_t owned = align_down(owner->cow_start, q->cluster_bytes);
        if (owned <= request->cursor) {
            qcow2_wait(&q->blocked, &request->waiter);
            return -EINPROGRESS;
        }
        most = owned - request->cursor;
    }
    return qcow2_map_zero(q, request->cursor, most, unmap, &request->waiter, bytes);
}

/* How many bytes at the cursor are whole clusters; the disk's last one may be short. */
static uint64_t whole_bytes(const struct qcow2_request *request)
{
    const struct qcow2 *q = request->q;
    if (!is_aligned(request->cursor, q->cluster_bytes))
        return 0;
    uint64_t left = request->end - request->cursor;
    return request->end >= q->node.size_bytes ? left : align_down(left, q->cluster_bytes);
}

static uint64_t bytes_to_boundary(const struct qcow2_request *request)
{
    uint64_t next =
        align_down(request->cursor, request->q->cluster_bytes) + request->q->cluster_bytes;
    return MIN(next, request->end) - request->cursor;
}

/* Version 2 has no way to say "zero" over a backing file. */
static bool can_map_zero(const struct qcow2_request *request)
{
    const struct node *node = &request->q->node;
    return request->q->header.version >= 3 || !node->backing ||
           request->cursor >= node->backing->size_bytes;
}

/* In an external data file, where a cluster's place is its own for ever. */
static int zero_data(struct qcow2_request *request, bool unmap, uint64_t bytes)
{
    return start_io(request, unmap ? IO_PUNCH : IO_ZERO, request->cursor, bytes);
}

/* Whole clusters: by the map, and the space of an external data file is given back as well. */
static int zero_or_punch(struct qcow2_request *request, uint64_t most, bool unmap, uint64_t *bytes)
{
    int result = zero_clusters(request, most, unmap, bytes);
    if (result || !request->q->external || !unmap || !request->q->node.unmap)
        return result;
    return zero_data(request, true, *bytes);
}

/* Zeroes that have to be written: no more than what lies over the backing file. */
static uint64_t bytes_to_write(const struct qcow2_request *request, uint64_t whole)
{
    const struct qcow2 *q = request->q;
    uint64_t covered = q->node.backing->size_bytes - request->cursor;
    return MIN(MIN(whole, ZERO_WRITE_BYTES), align_up(covered, q->cluster_bytes));
}

static int zero_step(struct qcow2_request *request, uint64_t *bytes)
{
    struct qcow2_plan plan;
    uint64_t whole = whole_bytes(request);
    bool unmap = request->outer->flags & DISK_MAY_UNMAP;
    if (request->q->raw_data) {
        *bytes = request->end - request->cursor;
        return zero_data(request, unmap, *bytes);
    }
    if (whole && can_map_zero(request))
        return zero_or_punch(request, whole, unmap, bytes);
    uint64_t part = whole ? bytes_to_write(request, whole) : bytes_to_boundary(request);
    int result = qcow2_plan_read(request->q, request->cursor, part, &request->waiter, &plan);
    if (result)
        return result;
    if (plan.kind == QCOW2_PLAN_ZERO && !qcow2_cow_find(request->q, request->cursor, plan.bytes)) {
        *bytes = plan.bytes;
        return 0;
    }
    return write_step(request, part, bytes);
}

static int discard_step(struct qcow2_request *request, uint64_t *bytes)
{
    uint64_t whole = whole_bytes(request);
    if (whole && request->q->raw_data) {
        *bytes = whole;
        return zero_data(request, true, whole);
    }
    if (whole && can_map_zero(request))
        return zero_or_punch(request, whole, true, bytes);
    *bytes = bytes_to_boundary(request);
    return 0;
}

/* Goes on as long as the answer stays the same; the rest of the range is left out. */
static int status_step(struct qcow2_request *request, uint64_t *bytes)
{
    struct qcow2_plan plan;
    struct disk_request *outer = request->outer;
    uint64_t left = request->end - request->cursor;
    int result = qcow2_plan_read(request->q, request->cursor, left, &request->waiter, &plan);
    if (result)
        return result;
    if (outer->flags & DISK_ONE_NODE) {
        outer->extent.is_zero = plan.kind == QCOW2_PLAN_ZERO;
        outer->extent.is_absent = plan.is_absent;
        outer->extent.bytes = *bytes = plan.bytes;
        request->end = request->cursor + plan.bytes;
        return 0;
    }
    bool is_first = request->cursor == outer->offset, is_zero = plan.kind == QCOW2_PLAN_ZERO;
    *bytes = plan.bytes;
    if (plan.kind == QCOW2_PLAN_BACKING ? !is_first : !is_first && is_zero != outer->extent.is_zero)
        *bytes = 0;
    else if (plan.kind == QCOW2_PLAN_BACKING)
        result = start_child(request, plan.bytes);
    if (plan.kind == QCOW2_PLAN_BACKING || !*bytes) {
        request->end = request->cursor + *bytes;
        return result;
    }
    outer->extent.is_zero = is_zero;
    outer->extent.bytes = request->cursor + *bytes - outer->offset;
    return 0;
}

static int step(struct qcow2_request *request, uint64_t *bytes)
{
    switch (request->outer->op) {
    case DISK_READ:
        return read_step(request, bytes);
    case DISK_WRITE:
        return write_step(request, request->end - request->cursor, bytes);
    case DISK_ZERO:
        return zero_step(request, bytes);
    case DISK_DISCARD:
        return discard_step(request, bytes);
    case DISK_STATUS:
        return status_step(request, bytes);
    case DISK_FLUSH:
        break;
    }
    UNREACHABLE("a flush has no range");
}

static void finish(struct qcow2_request *request)
{
    struct qcow2 *q = request->q;
    struct disk_request *outer = request->outer;
    int result = request->result;
    bool in_submit = request->in_submit;
    request->outer = NULL;
    list_push_front(&q->idle_requests, &request->node);
    if (result == 0 && outer->durable)
        qcow2_flush_request(q, outer);
    else if (in_submit)
        node_complete_later(&q->node, outer, result);
    else
        node_complete(outer, result);
}

static bool can_go_on(const struct qcow2_request *request)
{
    return request->cursor < request->end && !request->waiting && !request->result &&
           request->pending < REQUEST_OPS_MAX;
}

static void pump(struct qcow2_request *request)
{
    if (request->pumping)
        return;
    request->pumping = true;
    while (can_go_on(request)) {
        uint64_t bytes = 0;
        int result = step(request, &bytes);
        if (result == -EINPROGRESS)
            request->waiting = true;
        else if (result)
            request->result = result;
        else
            request->cursor += bytes;
    }
    request->pumping = false;
    if (!request->pending && !request->waiting &&
        (request->result || request->cursor == request->end))
        finish(request);
}

static void on_wake(struct qcow2_waiter *waiter, int result)
{
    struct qcow2_request *request = container_of(waiter, struct qcow2_request, waiter);
    request->waiting = false;
    if (result && !request->result)
        request->result = result;
    pump(request);
}

static void on_transferred(struct io_request *io, int result)
{
    struct qcow2_op *op = container_of(io, struct qcow2_op, io);
    struct disk_request *outer = op->outer;
    struct qcow2 *q = op->q;
    if (op->state == QCOW2_OP_WRITE)
        qcow2_note_data(q);
    op_end(op);
    if (result == 0 && outer->durable)
        qcow2_flush_request(q, outer);
    else
        node_complete(outer, result);
}

/*
 * Most reads and rewrites lie in one piece of the file, and what maps them is resident: such a one
 * is a single operation and needs no cursor. 0, or -errno; -EAGAIN: this one is of another kind.
 */
static int transfer_at_once(struct qcow2 *q, struct disk_request *outer)
{
    struct qcow2_plan plan;
    bool is_read = outer->op == DISK_READ;
    if (!is_read && (outer->op != DISK_WRITE || outer->flags & DISK_IF_ABSENT))
        return -EAGAIN;
    int result = is_read ? qcow2_plan_read(q, outer->offset, outer->bytes, NULL, &plan)
                         : plan_write(q, outer->offset, outer->bytes, NULL, &plan);
    if (result)
        return result;
    if (plan.kind != QCOW2_PLAN_AT || plan.bytes < outer->bytes)
        return -EAGAIN;
    struct qcow2_op *op = op_begin(q);
    if (!op)
        return -ENOMEM;
    op->state = is_read ? QCOW2_OP_READ : QCOW2_OP_WRITE;
    op->outer = outer;
    op->io = (struct io_request){
        .kind = is_read ? IO_READ : IO_WRITE,
        .offset = plan.host_offset,
        .bytes = outer->bytes,
        .iov = outer->iov,
        .iov_count = outer->iov_count,
        .on_done = on_transferred,
    };
    io_submit(qcow2_data(q), &op->io);
    return 0;
}

void qcow2_submit(struct node *node, struct disk_request *outer)
{
    struct qcow2 *q = qcow2_of(node);
    struct qcow2_request *request = NULL;
    bool is_read = outer->op == DISK_READ || outer->op == DISK_STATUS;
    int result = is_read ? 0 : q->poisoned;
    if (!result && outer->op == DISK_FLUSH) {
        qcow2_flush_request(q, outer);
        return;
    }
    if (!result)
        result = transfer_at_once(q, outer);
    if (!result)
        return;
    if (result == -EAGAIN && !(request = request_slot(q)))
        result = -ENOMEM;
    if (result != -EAGAIN) {
        node_complete_later(node, outer, result);
        return;
    }
    *request = (struct qcow2_request){
        .q = q,
        .outer = outer,
        .cursor = outer->offset,
        .end = outer->offset + outer->bytes,
        .in_submit = true,
        .waiter.wake = on_wake,
    };
    list_init(&request->node);
    list_init(&request->waiter.node);
    pump(request);
    /* If it has finished, the slot is idle, and this is without effect. */
    request->in_submit = false;
}
