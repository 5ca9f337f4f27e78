/* SPDX-License-Identifier: MIT */
/*
 * qcow2_freeze: an image in use that is written to no more, and one that names another backing
 * file.
 *
 * The name goes to a place in the first cluster that the old one does not take, and is on the
 * medium before the first sector, which is written whole, points to it: a crash finds the old name
 * or the new one. Where a cluster is one sector, one write does it all.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2.h"
#include "disk/qcow2/qcow2_keeper.h"

#define SECTOR_BYTES 512u

static void on_frozen_stored(struct qcow2 *q, int result)
{
    if (!result)
        q->node.read_only = true;
    else if (result == -EIO && !q->poisoned)
        q->poisoned = result; /* the file may not be what is in memory any more */
    q->freeze.on_done(q->freeze.opaque, result);
}

static void on_settled_to_freeze(struct qcow2 *q, int result)
{
    if (result)
        q->freeze.on_done(q->freeze.opaque, result);
    else
        qcow2_keeper_store(q, on_frozen_stored);
}

void qcow2_freeze(struct node *node, void (*on_done)(void *opaque, int result), void *opaque)
{
    struct qcow2 *q = qcow2_of(node);
    q->freeze.on_done = on_done;
    q->freeze.opaque = opaque;
    qcow2_settle(q, on_settled_to_freeze);
}

struct qcow2_rename {
    struct loop_job job;
    struct qcow2 *q;
    char *path, *format; /* NULL: none */
    struct qcow2_header header;
    uint8_t sector[SECTOR_BYTES];
    int result;
    struct error err;
    void (*on_done)(void *opaque, int result, const struct error *err);
    void *opaque;
};

/* Where the name is put: after all that the header has now, or else before the old name. */
static int choose_place(const struct qcow2_rename *rename, uint8_t *cluster, uint64_t *place)
{
    uint64_t cluster_bytes = qcow2_cluster_bytes(&rename->header);
    uint64_t length = strlen(rename->path), used = cluster_bytes;
    uint64_t old = rename->header.backing_offset, old_end = old + rename->header.backing_bytes;
    while (used > SECTOR_BYTES && !cluster[used - 1])
        used--;
    used = MAX(used, old_end);
    if (cluster_bytes - used >= length) {
        *place = used;
        return 0;
    }
    /* The old name was put far behind: there is room before it again. */
    for (used = old; used > SECTOR_BYTES && !cluster[used - 1];)
        used--;
    *place = used;
    return old >= used && old - used >= length ? 0 : -ENOSPC;
}

/* Changes the extension that tells the format, which has room for any that evisor knows. */
static void patch_format(uint8_t *sector, const struct qcow2_header *header, const char *format)
{
    uint32_t at = header->version >= 3 ? load_be32(sector + QCOW2_OFF_HEADER_LENGTH) : 72;
    while (at + 8 <= SECTOR_BYTES) {
        uint32_t type = load_be32(sector + at), bytes = load_be32(sector + at + 4);
        uint32_t room = (uint32_t)align_up(bytes, 8);
        if (!type || room > SECTOR_BYTES - at - 8)
            return;
        if (type == QCOW2_EXT_BACKING_FORMAT && strlen(format) <= room) {
            memset(sector + at + 8, 0, room);
            memcpy(sector + at + 8, format, strlen(format));
            store_be32(sector + at + 4, (uint32_t)strlen(format));
            return;
        }
        at += 8 + room;
    }
}

static int write_switched(struct qcow2_rename *rename, uint8_t *cluster, uint64_t place)
{
    struct io_file *file = rename->q->node.file;
    uint64_t length = rename->path ? strlen(rename->path) : 0;
    int result = 0;
    if (length) {
        memcpy(cluster + place, rename->path, length);
        result = io_write_now(file, place, cluster + place, length);
        if (!result)
            result = io_sync_now(file);
        patch_format(cluster, &rename->header, rename->format);
    }
    store_be64(cluster + QCOW2_OFF_BACKING_OFFSET, length ? place : 0);
    store_be32(cluster + QCOW2_OFF_BACKING_BYTES, (uint32_t)length);
    if (!result)
        result = io_write_now(file, 0, cluster, SECTOR_BYTES);
    return result ? result : io_sync_now(file);
}

static int write_small(struct qcow2_rename *rename)
{
    struct qcow2_header *header = &rename->header;
    header->has_backing = header->has_backing_format = rename->path != NULL;
    snprintf(header->backing_path, sizeof(header->backing_path), "%s",
             rename->path ? rename->path : "");
    snprintf(header->backing_format, sizeof(header->backing_format), "%s",
             rename->path ? rename->format : "");
    int result = qcow2_header_write(rename->q->node.file, header, &rename->err);
    return result ? result : io_sync_now(rename->q->node.file);
}

static int change(struct qcow2_rename *rename, uint8_t *cluster)
{
    struct io_file *file = rename->q->node.file;
    uint64_t cluster_bytes = qcow2_cluster_bytes(&rename->header), place = 0;
    if (cluster_bytes <= SECTOR_BYTES)
        return write_small(rename);
    int result = io_read_now(file, 0, cluster, cluster_bytes);
    if (!result && rename->path)
        result = choose_place(rename, cluster, &place);
    return result ? result : write_switched(rename, cluster, place);
}

static void work(struct loop_job *job)
{
    struct qcow2_rename *rename = container_of(job, struct qcow2_rename, job);
    const struct node *node = &rename->q->node;
    uint8_t *cluster = NULL;
    int result = qcow2_header_read(node->file, node->path, &rename->header, &rename->err);
    if (!result) {
        cluster = malloc((size_t)qcow2_cluster_bytes(&rename->header));
        result = cluster ? change(rename, cluster) : -ENOMEM;
        qcow2_header_fini(&rename->header);
    }
    if (!result)
        result = qcow2_header_read(node->file, node->path, &rename->header, &rename->err);
    if (!result)
        result = io_read_now(node->file, 0, rename->sector, sizeof(rename->sector));
    free(cluster);
    rename->result = result;
}

static void finish(struct qcow2_rename *rename, int result)
{
    if (result)
        error_set_errno(&rename->err, -result, "Could not change the backing file of '%s'",
                        rename->q->node.path);
    rename->on_done(rename->opaque, result, &rename->err);
    free(rename->path);
    free(rename->format);
    free(rename);
}

static void on_work_done(struct loop_job *job)
{
    struct qcow2_rename *rename = container_of(job, struct qcow2_rename, job);
    struct qcow2 *q = rename->q;
    if (!rename->result) {
        qcow2_header_fini(&q->header);
        q->header = rename->header;
        memcpy(q->header_sector, rename->sector, sizeof(q->header_sector));
    }
    finish(rename, rename->result);
}

static void on_settled_to_rename(struct qcow2 *q, int result)
{
    struct qcow2_rename *rename = q->freeze.opaque;
    if (result) {
        finish(rename, result);
        return;
    }
    rename->job.work = work;
    rename->job.on_done = on_work_done;
    loop_job_submit(q->node.loop, &rename->job);
}

void qcow2_set_backing(struct node *node, const char *path, const char *format,
                       void (*on_done)(void *opaque, int result, const struct error *err),
                       void *opaque)
{
    struct qcow2 *q = qcow2_of(node);
    struct qcow2_rename *rename = calloc(1, sizeof(*rename));
    CHECK(rename);
    *rename = (struct qcow2_rename){.q = q,
                                    .path = path ? strdup(path) : NULL,
                                    .format = path ? strdup(format) : NULL,
                                    .on_done = on_done,
                                    .opaque = opaque};
    if (path && (!rename->path || !rename->format || strlen(path) > QCOW2_BACKING_PATH_MAX)) {
        finish(rename, rename->path ? -ENAMETOOLONG : -ENOMEM);
        return;
    }
    q->freeze.opaque = rename;
    qcow2_settle(q, on_settled_to_rename);
}
