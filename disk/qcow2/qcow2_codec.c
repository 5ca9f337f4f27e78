/* SPDX-License-Identifier: MIT */
/*
 * qcow2_codec: compressed clusters are read whole, unpacked in the pool, and kept for a while,
 * because a guest reads a cluster in many pieces.
 *
 * A codec is a place for one cluster. It is idle (empty or holding a cluster) or busy with the
 * operations that wait for its cluster. A deflated cluster is unpacked up to where it was asked
 * for, and all of it when it is asked for once more: small reads here and there need half the work,
 * and reading on costs one more job. The packed data is hostile: the output is never more than one
 * cluster, whatever the stream says.
 */
#include "build/config.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#include "base/bytes.h"
#include "base/iov.h"

#define CODEC_BYTES (4 * 1024 * 1024u) /* of unpacked clusters, but at least CODECS_MIN of them */
#define CODECS_MIN  4u
#define CODECS_MAX  32u

struct codec {
    struct qcow2 *q;
    struct list node; /* codecs->idle, least recently used first */
    uint64_t entry;   /* what it holds or is getting; 0: nothing that anyone may find */
    uint8_t *packed, *plain;
    size_t packed_bytes;
    size_t valid;        /* so much of the cluster is unpacked */
    size_t wanted;       /* so much will be when the job is done */
    struct list waiting; /* operations */
    struct iovec iov;
    struct io_request io;
    struct loop_job job;
    int result;
    z_stream zlib;
    bool has_zlib;
#ifdef HAVE_ZSTD
    ZSTD_DCtx *zstd;
#endif
};

struct qcow2_codec {
    struct list idle;
    uint32_t count;
    struct codec codecs[CODECS_MAX];
};

static void codec_fini(struct codec *codec)
{
    free(codec->packed);
    free(codec->plain);
    if (codec->has_zlib)
        inflateEnd(&codec->zlib);
#ifdef HAVE_ZSTD
    ZSTD_freeDCtx(codec->zstd);
#endif
}

void qcow2_codec_fini(struct qcow2 *q)
{
    if (!q->codecs)
        return;
    for (uint32_t i = 0; i < q->codecs->count; i++)
        codec_fini(&q->codecs->codecs[i]);
    free(q->codecs);
}

/* An entry describes at most 2^(cluster_bits - 8) sectors, twice the cluster. */
static size_t packed_max(const struct qcow2 *q)
{
    return (size_t)q->cluster_bytes * 2 + 512;
}

static bool codec_init(struct codec *codec, struct qcow2 *q)
{
    codec->q = q;
    list_init(&codec->node);
    list_init(&codec->waiting);
    codec->packed = malloc(packed_max(q));
    codec->plain = malloc(q->cluster_bytes);
    bool ready = codec->packed && codec->plain;
    if (q->header.compression_type == QCOW2_COMPRESSION_ZLIB)
        ready = ready && (codec->has_zlib = inflateInit2(&codec->zlib, -15) == Z_OK);
#ifdef HAVE_ZSTD
    else
        ready = ready && (codec->zstd = ZSTD_createDCtx());
#endif
    if (!ready)
        codec_fini(codec);
    return ready;
}

static struct codec *find_entry(struct qcow2_codec *codecs, uint64_t entry)
{
    for (uint32_t i = 0; i < codecs->count; i++)
        if (codecs->codecs[i].entry == entry)
            return &codecs->codecs[i];
    return NULL;
}

static bool is_busy(const struct codec *codec)
{
    return !list_is_empty(&codec->waiting);
}

void qcow2_codec_invalidate(struct qcow2 *q, uint64_t entry)
{
    struct codec *codec = q->codecs ? find_entry(q->codecs, entry) : NULL;
    if (codec)
        codec->entry = 0;
}

void qcow2_codec_forget_all(struct qcow2 *q)
{
    for (uint32_t i = 0; q->codecs && i < q->codecs->count; i++)
        q->codecs->codecs[i].entry = 0;
}

/* One that can take a new cluster: a new one while they are few, or the least recently used. */
static struct codec *take_codec(struct qcow2 *q)
{
    struct qcow2_codec *codecs = q->codecs;
    uint64_t most = MIN(MAX(CODEC_BYTES >> q->cluster_bits, CODECS_MIN), CODECS_MAX);
    if (codecs->count < most && codec_init(&codecs->codecs[codecs->count], q))
        return &codecs->codecs[codecs->count++];
    if (list_is_empty(&codecs->idle))
        return NULL;
    return list_entry(list_pop_front(&codecs->idle), struct codec, node);
}

static void give_to(const struct codec *codec, const struct qcow2_request *request, uint64_t offset,
                    uint64_t bytes)
{
    const struct disk_request *outer = request->outer;
    uint64_t in_cluster = offset & (codec->q->cluster_bytes - 1);
    iov_write(outer->iov, outer->iov_count, offset - outer->offset, codec->plain + in_cluster,
              bytes);
}

static size_t end_in_cluster(const struct qcow2_op *op)
{
    return (size_t)((op->offset & (op->q->cluster_bytes - 1)) + op->bytes);
}

/* Others may have joined that want more of the cluster. */
static bool is_enough(const struct codec *codec)
{
    list_for_each(node, &codec->waiting)
    {
        if (end_in_cluster(list_entry(node, struct qcow2_op, codec_node)) > codec->valid)
            return false;
    }
    return true;
}

static void codec_ended(struct codec *codec, int result)
{
    struct qcow2 *q = codec->q;
    struct list waiting;
    list_init(&waiting);
    list_splice_back(&waiting, &codec->waiting);
    if (result)
        codec->entry = 0;
    list_push_back(&q->codecs->idle, &codec->node);
    list_for_each(node, &waiting)
    {
        struct qcow2_op *op = list_entry(node, struct qcow2_op, codec_node);
        if (result == 0)
            give_to(codec, op->request, op->offset, op->bytes);
    }
    for (struct list *node; (node = list_pop_front(&waiting));)
        qcow2_op_finish(list_entry(node, struct qcow2_op, codec_node), result);
    qcow2_wake_all(&q->codec_waiters, 0);
}

static int unpack_zlib(struct codec *codec)
{
    z_stream *stream = &codec->zlib;
    if (!codec->valid) {
        if (inflateReset(stream) != Z_OK)
            return -EIO;
        stream->next_in = codec->packed;
        stream->avail_in = (uInt)codec->packed_bytes;
    }
    stream->next_out = codec->plain + codec->valid;
    stream->avail_out = (uInt)(codec->wanted - codec->valid);
    int result =
        inflate(stream, codec->wanted == codec->q->cluster_bytes ? Z_FINISH : Z_SYNC_FLUSH);
    bool has_ended = result == Z_STREAM_END || result == Z_BUF_ERROR || result == Z_OK;
    return has_ended && stream->avail_out == 0 ? 0 : -EIO;
}

#ifdef HAVE_ZSTD
static int unpack_zstd(struct codec *codec)
{
    ZSTD_inBuffer in = {codec->packed, codec->packed_bytes, 0};
    ZSTD_outBuffer out = {codec->plain, codec->q->cluster_bytes, 0};
    ZSTD_DCtx_reset(codec->zstd, ZSTD_reset_session_only);
    while (out.pos < out.size) {
        size_t before = in.pos + out.pos;
        size_t result = ZSTD_decompressStream(codec->zstd, &out, &in);
        if (ZSTD_isError(result) || in.pos + out.pos == before)
            return -EIO;
    }
    return 0;
}
#endif

static void on_unpack(struct loop_job *job)
{
    struct codec *codec = container_of(job, struct codec, job);
#ifdef HAVE_ZSTD
    if (codec->zstd) {
        codec->result = unpack_zstd(codec);
        return;
    }
#endif
    codec->result = unpack_zlib(codec);
}

static void unpack(struct codec *codec, size_t wanted);

static void on_unpacked(struct loop_job *job)
{
    struct codec *codec = container_of(job, struct codec, job);
    if (codec->result == 0)
        codec->valid = codec->wanted;
    if (codec->result == 0 && !is_enough(codec))
        unpack(codec, codec->q->cluster_bytes);
    else
        codec_ended(codec, codec->result);
}

static void unpack(struct codec *codec, size_t wanted)
{
    /* zstd unpacks whole blocks, of which a cluster is one. */
    codec->wanted = codec->has_zlib ? wanted : codec->q->cluster_bytes;
    codec->job.work = on_unpack;
    codec->job.on_done = on_unpacked;
    loop_job_submit(codec->q->node.loop, &codec->job);
}

static void on_packed_read(struct io_request *io, int result)
{
    struct codec *codec = container_of(io, struct codec, io);
    if (result) {
        codec_ended(codec, result);
        return;
    }
    size_t wanted = 0;
    list_for_each(node, &codec->waiting)
    {
        wanted = MAX(wanted, end_in_cluster(list_entry(node, struct qcow2_op, codec_node)));
    }
    unpack(codec, wanted);
}

static void start_codec(struct codec *codec, uint64_t entry)
{
    struct qcow2 *q = codec->q;
    unsigned shift = 62 - (q->cluster_bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << shift) - 1);
    uint64_t sectors = ((entry & QCOW2_PACKED_BITS) >> shift) + 1;
    codec->entry = entry;
    codec->valid = 0;
    codec->packed_bytes = sectors * 512 - (offset & 511);
    codec->iov = (struct iovec){codec->packed, codec->packed_bytes};
    codec->io = (struct io_request){
        .kind = IO_READ,
        .offset = offset,
        .bytes = codec->packed_bytes,
        .iov = &codec->iov,
        .iov_count = 1,
        .on_done = on_packed_read,
    };
    io_submit(q->node.file, &codec->io);
}

static int make_codecs(struct qcow2 *q)
{
    if (q->codecs)
        return 0;
    q->codecs = calloc(1, sizeof(*q->codecs));
    if (!q->codecs)
        return -ENOMEM;
    list_init(&q->codecs->idle);
    return 0;
}

int qcow2_codec_read(struct qcow2_request *request, const struct qcow2_plan *plan)
{
    struct qcow2 *q = request->q;
    int result = make_codecs(q);
    if (result)
        return result;
    struct codec *codec = find_entry(q->codecs, plan->entry);
    uint64_t end = (request->cursor & (q->cluster_bytes - 1)) + plan->bytes;
    if (codec && !is_busy(codec) && codec->valid >= end) {
        give_to(codec, request, request->cursor, plan->bytes);
        list_remove(&codec->node);
        list_push_back(&q->codecs->idle, &codec->node);
        return 0;
    }
    bool joins = codec && is_busy(codec), goes_on = codec && !joins;
    if (goes_on)
        list_remove(&codec->node);
    else if (!joins)
        codec = take_codec(q);
    if (!codec && !q->codecs->count)
        return -ENOMEM;
    if (!codec) {
        qcow2_wait(&q->codec_waiters, &request->waiter);
        return -EINPROGRESS;
    }
    struct qcow2_op *op = qcow2_op_get(request, request->cursor, plan->bytes);
    if (!op) {
        if (!joins)
            list_push_front(&q->codecs->idle, &codec->node);
        return -ENOMEM;
    }
    op->state = QCOW2_OP_UNPACK;
    list_push_back(&codec->waiting, &op->codec_node);
    if (goes_on)
        unpack(codec, q->cluster_bytes);
    else if (!joins)
        start_codec(codec, plan->entry);
    return 0;
}
