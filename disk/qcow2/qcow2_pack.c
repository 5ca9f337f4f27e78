/* SPDX-License-Identifier: MIT */
/* qcow2_pack: raw deflate with a window of 4 KiB, as the format asks, and zstd. */
#include "disk/qcow2/qcow2_pack.h"

#include <stdlib.h>
#include <zlib.h>

#include "config.h"

#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#define WINDOW_BITS  12
#define MEMORY_LEVEL 9

struct qcow2_packer {
    enum qcow2_compression type;
    z_stream deflate;
#ifdef HAVE_ZSTD
    ZSTD_CCtx *zstd;
#endif
};

bool qcow2_pack_is_supported(enum qcow2_compression type)
{
#ifdef HAVE_ZSTD
    if (type == QCOW2_COMPRESSION_ZSTD)
        return true;
#endif
    return type == QCOW2_COMPRESSION_ZLIB;
}

static bool start(struct qcow2_packer *packer)
{
#ifdef HAVE_ZSTD
    if (packer->type == QCOW2_COMPRESSION_ZSTD) {
        packer->zstd = ZSTD_createCCtx();
        return packer->zstd;
    }
#endif
    return deflateInit2(&packer->deflate, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW_BITS,
                        MEMORY_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK;
}

struct qcow2_packer *qcow2_packer_create(enum qcow2_compression type)
{
    struct qcow2_packer *packer = calloc(1, sizeof(*packer));
    if (!packer)
        return NULL;
    packer->type = type;
    if (qcow2_pack_is_supported(type) && start(packer))
        return packer;
    free(packer);
    return NULL;
}

void qcow2_packer_destroy(struct qcow2_packer *packer)
{
    if (!packer)
        return;
#ifdef HAVE_ZSTD
    ZSTD_freeCCtx(packer->zstd);
#endif
    if (packer->type == QCOW2_COMPRESSION_ZLIB)
        deflateEnd(&packer->deflate);
    free(packer);
}

static size_t pack_deflate(struct qcow2_packer *packer, const void *in, size_t bytes, void *out)
{
    z_stream *stream = &packer->deflate;
    if (deflateReset(stream) != Z_OK)
        return 0;
    stream->next_in = (z_const Bytef *)in;
    stream->avail_in = (uInt)bytes;
    stream->next_out = out;
    stream->avail_out = (uInt)(bytes - 1);
    if (deflate(stream, Z_FINISH) != Z_STREAM_END)
        return 0;
    return bytes - 1 - stream->avail_out;
}

size_t qcow2_pack(struct qcow2_packer *packer, const void *in, size_t bytes, void *out)
{
#ifdef HAVE_ZSTD
    if (packer->type == QCOW2_COMPRESSION_ZSTD) {
        size_t length = ZSTD_compress2(packer->zstd, out, bytes - 1, in, bytes);
        return ZSTD_isError(length) ? 0 : length;
    }
#endif
    return pack_deflate(packer, in, bytes, out);
}
