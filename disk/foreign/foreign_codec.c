/* SPDX-License-Identifier: MIT */
/*
 * foreign_codec: a few places for one grain each. A place is idle (empty or holding a grain) or
 * busy with those who wait. The packed data is hostile: the output is exactly one grain.
 */
#include "disk/foreign/foreign_codec.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#define CODECS       8u
#define MARKER_BYTES 12u /* the grain's first sector, and the length of what follows */
#define PACKED_SLACK 1024u

struct codec {
    struct foreign_codecs *codecs;
    const struct io_file *file; /* with the offset: which grain; NULL: nothing */
    uint64_t host_offset, used;
    uint32_t grain_bytes, room_bytes;
    bool has_marker, is_busy;
    int result; /* 0: `plain` holds the grain */
    uint8_t *packed, *plain;
    struct list waiters;
    struct iovec iov;
    struct io_request io;
    struct loop_job job;
};

struct foreign_codecs {
    struct loop *loop;
    uint64_t clock;
    struct list waiters; /* for any place to become idle */
    struct codec codecs[CODECS];
};

struct foreign_codecs *foreign_codecs_create(struct loop *loop)
{
    struct foreign_codecs *codecs = calloc(1, sizeof(*codecs));
    if (!codecs)
        return NULL;
    codecs->loop = loop;
    list_init(&codecs->waiters);
    for (unsigned i = 0; i < CODECS; i++) {
        codecs->codecs[i].codecs = codecs;
        list_init(&codecs->codecs[i].waiters);
    }
    return codecs;
}

void foreign_codecs_move(struct foreign_codecs *codecs, struct loop *loop)
{
    codecs->loop = loop;
}

void foreign_codecs_destroy(struct foreign_codecs *codecs)
{
    for (unsigned i = 0; codecs && i < CODECS; i++) {
        free(codecs->codecs[i].packed);
        free(codecs->codecs[i].plain);
    }
    free(codecs);
}

static uint32_t packed_room(uint32_t grain_bytes)
{
    return grain_bytes * 2 + PACKED_SLACK;
}

static void wake_all(struct list *waiters, int result)
{
    struct list waiting;
    list_init(&waiting);
    list_splice_back(&waiting, waiters);
    for (struct list *node; (node = list_pop_front(&waiting));) {
        struct foreign_waiter *waiter = list_entry(node, struct foreign_waiter, node);
        waiter->wake(waiter, result);
    }
}

static void codec_ended(struct codec *codec, int result)
{
    struct foreign_codecs *codecs = codec->codecs;
    codec->is_busy = false;
    codec->result = result;
    if (result)
        codec->file = NULL;
    wake_all(&codec->waiters, result);
    wake_all(&codecs->waiters, 0);
}

/* The packed bytes of the grain within what was read; false if the marker is another grain's. */
static bool find_packed(const struct codec *codec, const uint8_t **start, uint32_t *bytes)
{
    uint32_t skip = codec->has_marker ? MARKER_BYTES : 0;
    *start = codec->packed + skip;
    *bytes = codec->room_bytes - skip;
    if (!codec->has_marker)
        return true;
    uint32_t said = load_le32(codec->packed + 8);
    if (!said || said > *bytes)
        return false;
    *bytes = said;
    return true;
}

static void on_unpack(struct loop_job *job)
{
    struct codec *codec = container_of(job, struct codec, job);
    const uint8_t *start;
    uint32_t bytes;
    z_stream stream = {0};
    codec->result = -EIO;
    if (!find_packed(codec, &start, &bytes) || inflateInit(&stream) != Z_OK)
        return;
    stream.next_in = (Bytef *)start;
    stream.avail_in = bytes;
    stream.next_out = codec->plain;
    stream.avail_out = codec->grain_bytes;
    int result = inflate(&stream, Z_FINISH);
    if (result == Z_STREAM_END) { /* the last grain of a disk may be shorter */
        memset(codec->plain + (codec->grain_bytes - stream.avail_out), 0, stream.avail_out);
        codec->result = 0;
    }
    inflateEnd(&stream);
}

static void on_unpacked(struct loop_job *job)
{
    struct codec *codec = container_of(job, struct codec, job);
    codec_ended(codec, codec->result);
}

static void on_packed_read(struct io_request *io, int result)
{
    struct codec *codec = container_of(io, struct codec, io);
    if (result) {
        codec_ended(codec, result);
        return;
    }
    codec->job.work = on_unpack;
    codec->job.on_done = on_unpacked;
    loop_job_submit(codec->codecs->loop, &codec->job);
}

static int make_room(struct codec *codec, uint32_t grain_bytes)
{
    if (codec->plain && codec->room_bytes >= packed_room(grain_bytes))
        return 0;
    free(codec->packed);
    free(codec->plain);
    codec->room_bytes = packed_room(grain_bytes);
    codec->packed = malloc(codec->room_bytes);
    codec->plain = malloc(grain_bytes);
    if (codec->packed && codec->plain)
        return 0;
    codec->room_bytes = 0;
    return -ENOMEM;
}

static int start(struct codec *codec, const struct foreign_extent *extent)
{
    int result = make_room(codec, extent->grain_bytes);
    codec->file = NULL;
    if (result)
        return result;
    codec->file = extent->file;
    codec->host_offset = extent->host_offset;
    codec->grain_bytes = extent->grain_bytes;
    codec->has_marker = extent->has_marker;
    codec->is_busy = true;
    codec->iov = (struct iovec){codec->packed, codec->room_bytes};
    codec->io = (struct io_request){
        .kind = IO_READ,
        .offset = extent->host_offset,
        .bytes = codec->room_bytes,
        .iov = &codec->iov,
        .iov_count = 1,
        .on_done = on_packed_read,
    };
    io_submit(extent->file, &codec->io);
    return 0;
}

static bool holds(const struct codec *codec, const struct foreign_extent *extent)
{
    return codec->file == extent->file && codec->host_offset == extent->host_offset &&
           codec->grain_bytes == extent->grain_bytes;
}

int foreign_codec_get(struct foreign_codecs *codecs, const struct foreign_extent *extent,
                      struct foreign_waiter *waiter, const uint8_t **plain)
{
    struct codec *oldest = NULL;
    for (unsigned i = 0; i < CODECS; i++) {
        struct codec *codec = &codecs->codecs[i];
        if (holds(codec, extent)) {
            codec->used = ++codecs->clock;
            *plain = codec->plain;
            if (!codec->is_busy)
                return 0;
            list_push_back(&codec->waiters, &waiter->node);
            return -EINPROGRESS;
        }
        if (!codec->is_busy && (!oldest || codec->used < oldest->used))
            oldest = codec;
    }
    if (!oldest) {
        list_push_back(&codecs->waiters, &waiter->node);
        return -EINPROGRESS;
    }
    oldest->used = ++codecs->clock;
    int result = start(oldest, extent);
    if (result)
        return result;
    list_push_back(&oldest->waiters, &waiter->node);
    return -EINPROGRESS;
}
