/* SPDX-License-Identifier: MIT */
/*
 * qcow2_live: internal snapshots of an image that is in use.
 *
 * Theory of operation. No request is in flight and new ones are held above. The image settles: all
 * metadata is written back, nothing is in quarantine. Then the file is what an image that nobody
 * has open is, so the code for such (qcow2_snapshot.c) changes it, in the pool. What it left is
 * loaded again, in the same job, and takes the place of what is in memory. A change that found no
 * space was taken back, and the image goes on. If its tables cannot be loaded, or nobody knows what
 * the medium made of the change, the image is poisoned: nothing is written any more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2.h"
#include "disk/qcow2/qcow2_snapshot.h"

struct qcow2_live {
    struct loop_job job;
    struct qcow2 *q;
    const struct disk_snapshot_request *request;
    int result, load_result;
    struct error err;
    struct qcow2_tables tables; /* what the file holds now */
    void (*on_done)(void *opaque, int result, const struct error *err);
    void *opaque;
};

/* --- in the pool --- */

static int change(struct qcow2_live *live)
{
    struct io_file *file = live->q->node.file;
    const char *path = live->q->node.path;
    const struct disk_snapshot_request *request = live->request;
    const struct qcow2_snapshot_new new = {
        .name = request->name,
        .vm_clock_ns = request->vm_clock_ns,
        .vmstate_bytes = request->vmstate_bytes,
    };
    switch (request->action) {
    case DISK_SNAPSHOT_CREATE:
        return qcow2_snapshot_create_with(file, path, &new, &live->err);
    case DISK_SNAPSHOT_APPLY:
        return qcow2_snapshot_apply(file, path, request->name, &live->err);
    case DISK_SNAPSHOT_DELETE:
        return qcow2_snapshot_delete(file, path, request->name, &live->err);
    }
    UNREACHABLE("every action is listed");
}

static void on_work(struct loop_job *job)
{
    struct qcow2_live *live = container_of(job, struct qcow2_live, job);
    struct error err = {0};
    live->result = change(live);
    live->load_result = qcow2_tables_load(live->q, NULL, &live->tables, &err);
    if (live->load_result && !live->result)
        live->err = err;
}

/* --- on the loop --- */

static void finish(struct qcow2_live *live, int result)
{
    live->on_done(live->opaque, result, result && live->err.code ? &live->err : NULL);
    free(live);
}

/* The area that a snapshot's state is in, as far as the map reaches. */
static void set_vmstate(struct qcow2 *q, uint64_t bytes)
{
    unsigned bits = q->cluster_bits + q->l2_bits;
    uint64_t first = qcow2_l1_entries_for(&q->header, q->header.size_bytes);
    uint64_t entries = q->l1.count > first ? q->l1.count - first : 0;
    q->node.vmstate_offset = first << bits;
    q->node.vmstate_bytes = MIN(bytes, entries << bits);
}

static uint64_t vmstate_of(struct qcow2 *q, const char *id_or_name)
{
    const struct qcow2_snapshot *snapshot = qcow2_snapshots_find(&q->snapshots, id_or_name);
    return snapshot ? snapshot->vmstate_bytes : 0;
}

/* The state is the snapshot's now: the disk's own map lets go of it. */
static void on_vmstate_dropped(struct disk_request *request, int result)
{
    struct qcow2 *q = container_of(request, struct qcow2, resize.zero);
    struct qcow2_live *live = q->live;
    (void)result; /* what stays is written over by the next one */
    set_vmstate(q, 0);
    finish(live, 0);
}

static void drop_vmstate(struct qcow2 *q)
{
    q->resize.zero = (struct disk_request){
        .op = DISK_ZERO,
        .flags = DISK_MAY_UNMAP,
        .offset = q->node.vmstate_offset,
        .bytes = align_up(q->node.vmstate_bytes, q->cluster_bytes),
        .on_done = on_vmstate_dropped,
    };
    qcow2_submit(&q->node, &q->resize.zero);
}

/* What is in the file is one of its states, whole. */
static bool is_harmless(int result)
{
    return result == 0 || result == -ENOENT || result == -EINVAL || result == -EFBIG ||
           result == -ENOMEM || result == -ENOTSUP || result == -EOVERFLOW || result == -ENOSPC ||
           result == -EDQUOT;
}

static void on_work_done(struct loop_job *job)
{
    struct qcow2_live *live = container_of(job, struct qcow2_live, job);
    struct qcow2 *q = live->q;
    int result = live->result ? live->result : live->load_result;
    if (!live->load_result)
        qcow2_tables_adopt(q, &live->tables);
    if ((live->load_result || !is_harmless(live->result)) && !q->poisoned)
        q->poisoned = -EIO;
    if (!result && live->request->action == DISK_SNAPSHOT_APPLY)
        set_vmstate(q, vmstate_of(q, live->request->name));
    if (!result && live->request->action == DISK_SNAPSHOT_CREATE && q->node.vmstate_bytes)
        drop_vmstate(q);
    else
        finish(live, result);
}

static void on_settled(struct qcow2 *q, int result)
{
    struct qcow2_live *live = q->live;
    if (result) {
        error_set_errno(&live->err, -result, "cannot write back '%s'", q->node.path);
        finish(live, result);
        return;
    }
    live->job.work = on_work;
    live->job.on_done = on_work_done;
    loop_job_submit(q->node.loop, &live->job);
}

void qcow2_live_snapshot(struct node *node, const struct disk_snapshot_request *request,
                         void (*on_done)(void *opaque, int result, const struct error *err),
                         void *opaque)
{
    struct qcow2 *q = qcow2_of(node);
    struct qcow2_live *live = calloc(1, sizeof(*live));
    if (!live) {
        on_done(opaque, -ENOMEM, NULL);
        return;
    }
    *live = (struct qcow2_live){.q = q, .request = request, .on_done = on_done, .opaque = opaque};
    q->live = live;
    qcow2_settle(q, on_settled);
}

static void on_reserved(struct qcow2 *q, int result)
{
    if (!result)
        set_vmstate(q, q->resize.vmstate_bytes);
}

void qcow2_live_vmstate_reserve(struct node *node, uint64_t bytes,
                                void (*on_done)(void *opaque, int result, const struct error *err),
                                void *opaque)
{
    struct qcow2 *q = qcow2_of(node);
    q->resize.vmstate_bytes = bytes;
    q->resize.on_reserved = on_reserved;
    qcow2_resize(node, node->size_bytes, on_done, opaque);
}

size_t qcow2_live_count(const struct node *node)
{
    return container_of(node, const struct qcow2, node)->snapshots.count;
}

void qcow2_live_get(const struct node *node, size_t index, struct disk_snapshot_info *out)
{
    const struct qcow2 *q = container_of(node, const struct qcow2, node);
    const struct qcow2_snapshot *snapshot = &q->snapshots.list[index];
    *out = (struct disk_snapshot_info){
        .id = snapshot->id,
        .name = snapshot->name,
        .date_sec = snapshot->date_sec,
        .date_nsec = snapshot->date_nsec,
        .vm_clock_ns = snapshot->vm_clock_ns,
        .vmstate_bytes = snapshot->vmstate_bytes,
        .disk_bytes = snapshot->disk_bytes,
    };
}
