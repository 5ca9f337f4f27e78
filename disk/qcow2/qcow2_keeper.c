/* SPDX-License-Identifier: MIT */
/*
 * qcow2_keeper: storing runs in the pool, where nothing else uses the file any more: the bits may
 * be many, and the refcounts are read for it.
 */
#include "disk/qcow2/qcow2_keeper.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "disk/dirty.h"
#include "disk/qcow2/qcow2_bitmap_store.h"
#include "disk/qcow2/qcow2_bitmaps.h"

struct qcow2_keeper {
    struct qcow2 *q;
    bool had_bitmaps; /* in the file: it must hear of it when there are none any more */
    struct loop_job job;
    struct error err;
    int result;
    void (*on_stored)(struct qcow2 *q, int result);
};

static void on_stored(struct qcow2_keeper *keeper)
{
    if (keeper->result)
        log_error("image '%s': its bitmaps are lost: %s", keeper->q->node.path, keeper->err.text);
    keeper->on_stored(keeper->q, keeper->result);
}

static void on_job_done(struct loop_job *job)
{
    on_stored(container_of(job, struct qcow2_keeper, job));
}

static void work(struct loop_job *job)
{
    struct qcow2_keeper *keeper = container_of(job, struct qcow2_keeper, job);
    struct node *node = &keeper->q->node;
    keeper->result = qcow2_bitmaps_store(node->file, node->path, &node->bitmaps, &keeper->err);
}

static bool has_persistent(const struct node *node)
{
    list_for_each(entry, &node->bitmaps)
    {
        if (list_entry(entry, struct dirty_bitmap, node)->persistent)
            return true;
    }
    return false;
}

void qcow2_keeper_store(struct qcow2 *q, void (*on_stored_by)(struct qcow2 *q, int result))
{
    struct qcow2_keeper *keeper = q->keeper;
    keeper->on_stored = on_stored_by;
    if (!q->node.read_only && (keeper->had_bitmaps || has_persistent(&q->node)))
        loop_job_submit(q->node.loop, &keeper->job);
    else
        on_stored(keeper);
}

static int load(struct qcow2 *q, struct error *err)
{
    struct error why = {0};
    const struct qcow2_header *header = &q->header;
    int result =
        qcow2_bitmaps_load(q->node.file, header, q->node.size_bytes, &q->node.bitmaps, &why);
    if (result && q->node.read_only) {
        log_warn("image '%s': its bitmaps cannot be used: %s", q->node.path, why.text);
        return 0;
    }
    if (result)
        return error_set(err, -result,
                         "Could not open '%s': %s; open it read-only, or convert it without "
                         "--bitmaps",
                         q->node.path, why.text);
    return q->node.read_only ? 0 : qcow2_bitmaps_set_in_use(q->node.file, header, err);
}

int qcow2_keeper_open(struct qcow2 *q, bool loads, struct error *err)
{
    struct qcow2_keeper *keeper = calloc(1, sizeof(*keeper));
    if (!keeper)
        return error_set(err, ENOMEM, "no memory to open '%s'", q->node.path);
    q->keeper = keeper;
    keeper->q = q;
    keeper->job.work = work;
    keeper->job.on_done = on_job_done;
    if (!q->header.has_bitmaps || !loads)
        return 0;
    if (!(q->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
        log_warn(
            "image '%s': a program lacking bitmap support modified this file, so all bitmaps "
            "are now considered inconsistent; evisor-img check -r leaks gives their space back",
            q->node.path);
        return 0;
    }
    keeper->had_bitmaps = true;
    return load(q, err);
}

void qcow2_keeper_close(struct qcow2 *q)
{
    free(q->keeper);
}

int qcow2_keeper_check_bitmap(const struct node *node, const char *name, uint64_t granularity_bytes,
                              struct error *err)
{
    const struct qcow2 *q = container_of(node, const struct qcow2, node);
    return qcow2_bitmaps_check_new(&q->header, node->size_bytes, &node->bitmaps, name,
                                   granularity_bytes, err);
}
