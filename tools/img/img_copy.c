/* SPDX-License-Identifier: MIT */
/*
 * img_copy: a ring of pieces, read in parallel and written in parallel, but placed in the target in
 * their order, so that the target's layout is that of the disk.
 *
 * Theory of operation. plan_next cuts the next piece from the map: up to PIECE_BYTES of data, or a
 * run of zeroes of any length. A piece of data is read; with compression a pool job then packs its
 * clusters. Only the oldest piece may be placed: that decides where its clusters go and submits the
 * writes, of which several pieces may be under way. The piece is free again when the last write is
 * done. After an error nothing new starts and what runs is waited for.
 */
#include "tools/img/img_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"

#define PIECE_BYTES (2 * MIB)

enum piece_state {
    PIECE_FREE,
    PIECE_READING, /* reads are in flight */
    PIECE_UNREAD,  /* a read failed, and what can be read shall be saved */
    PIECE_PACKING, /* a pool job is compressing */
    PIECE_READY,   /* waits for the older ones to be placed */
    PIECE_WRITING, /* placed; writes are in flight */
};

struct run;

struct write_op {
    struct run *run;
    struct piece *piece;
    struct io_request io;     /* to the writer's file */
    struct disk_request disk; /* to the target disk */
};

struct read_op {
    struct piece *piece;
    struct disk_request request;
    struct iovec iov;
};

struct piece {
    struct run *run;
    enum piece_state state;
    uint64_t offset, bytes;
    bool is_zero; /* nothing is read: all of it is zeroes */
    bool is_unread;
    unsigned in_flight;
    uint8_t *data;
    struct read_op *reads; /* one per source at most */

    struct loop_job job;
    struct qcow2_packer *packer;
    uint8_t *packed;
    uint32_t *packed_bytes; /* per cluster; 0: not compressed */

    struct write_op *writes;
    struct iovec *iov;
    size_t units; /* length of the three arrays above */
    size_t writes_used, iov_used;
};

struct run {
    struct img_copy *copy;
    struct piece pieces[IMG_COPY_DEPTH_MAX];
    unsigned first, count; /* the ring, oldest first */
    uint64_t planned;      /* up to here pieces were cut */
    uint64_t total_bytes;  /* what progress is measured by */
    uint64_t placed_bytes; /* of these */
    uint64_t unit_bytes;   /* what is placed or skipped as a whole */
    uint64_t packed_room;  /* for one of these, compressed */
    int result;
    struct error *err;
};

static void fail(struct run *run, int result, const char *verb, uint64_t offset)
{
    if (!run->result)
        error_set_errno(run->err, -result, "error while %s at byte %" PRIu64, verb, offset);
    if (!run->result)
        run->result = result;
}

static bool is_zero(const uint8_t *data, size_t bytes)
{
    return !bytes || (!data[0] && !memcmp(data, data + 1, bytes - 1));
}

/* --- planning --- */

static struct img_copy_source *source_at(const struct img_copy *copy, uint64_t offset)
{
    size_t i = copy->source_count;
    while (i > 1 && copy->sources[i - 1].start > offset)
        i--;
    return &copy->sources[i - 1];
}

/* What a source without a backing file does not have is zero, whatever the target's shows. */
static int look_up(struct run *run, uint64_t offset, struct map_extent *out)
{
    struct img_copy *copy = run->copy;
    struct img_copy_source *source = source_at(copy, offset);
    int result = map_find(source->map, offset - source->start, map_size_bytes(source->map),
                          copy->map_depth, out, run->err);
    if (result)
        run->result = result;
    else if (copy->has_backing && out->kind == MAP_ABSENT && map_layer_count(source->map) == 1)
        out->kind = MAP_ZERO;
    return result;
}

/* Is the byte at `offset` data, and up to where is it as one? */
static int find_extent(struct run *run, uint64_t offset, bool *is_data, uint64_t *end)
{
    struct img_copy *copy = run->copy;
    struct map_extent extent;
    if (!copy->sparse_bytes) {
        *is_data = true;
        *end = copy->size_bytes;
        return 0;
    }
    int result = look_up(run, offset, &extent);
    if (result)
        return result;
    *is_data = extent.kind == MAP_DATA || extent.kind == MAP_COMPRESSED;
    if (copy->has_backing && extent.kind == MAP_ZERO)
        *is_data = !copy->can_zero || !is_aligned(offset, run->unit_bytes) ||
                   extent.bytes < run->unit_bytes;
    *end = offset + extent.bytes;
    return 0;
}

/* With a backing file of the target, what the source does not have itself is not touched. */
static int is_untouched(struct run *run, uint64_t offset, bool *untouched)
{
    struct map_extent extent;
    *untouched = false;
    if (!run->copy->has_backing)
        return 0;
    int result = look_up(run, offset, &extent);
    if (!result)
        *untouched = extent.kind == MAP_ABSENT;
    return result;
}

static bool makes_image(const struct img_copy *copy)
{
    return copy->writer || copy->foreign;
}

/* Cuts the next piece off. A piece of data is a multiple of the unit, but at the very end. */
static int plan_next(struct run *run, struct piece *piece)
{
    uint64_t limit = MIN(run->planned + MAX(PIECE_BYTES, run->unit_bytes), run->copy->size_bytes);
    uint64_t at = run->planned, end = 0;
    bool is_data = false, untouched = false;
    int result = find_extent(run, at, &is_data, &end);
    if (!result)
        result = is_untouched(run, at, &untouched);
    if (result)
        return result;
    piece->offset = at;
    uint64_t skip_end = align_down(end, run->unit_bytes);
    if (end >= run->copy->size_bytes)
        skip_end = run->copy->size_bytes;
    if (!is_data && skip_end > at) {
        bool leave = untouched || (makes_image(run->copy) && !run->copy->has_backing);
        piece->is_zero = true;
        piece->bytes = leave ? 0 : skip_end - at;
        run->planned = skip_end;
        return 0;
    }
    /* Data, or a border within a unit: read on as long as units hold any data. */
    uint64_t data_end = MIN(align_up(MAX(end, at + 1), run->unit_bytes), limit);
    while (data_end < limit) {
        result = find_extent(run, data_end, &is_data, &end);
        if (result)
            return result;
        if (!is_data && align_down(end, run->unit_bytes) > data_end)
            break;
        data_end = MIN(align_up(end, run->unit_bytes), limit);
    }
    piece->is_zero = false;
    piece->bytes = data_end - at;
    run->planned = data_end;
    return 0;
}

/* --- reading and packing --- */

static bool packs(const struct img_copy *copy)
{
    return copy->compress || (copy->foreign && foreign_writer_packed_room(copy->foreign));
}

static uint32_t pack_unit(struct piece *piece, size_t index, const uint8_t *unit)
{
    const struct run *run = piece->run;
    uint8_t *out = piece->packed + index * run->packed_room;
    if (run->copy->foreign)
        return foreign_writer_pack(run->copy->foreign, piece->offset / run->unit_bytes + index,
                                   unit, out);
    return (uint32_t)qcow2_pack(piece->packer, unit, run->unit_bytes, out);
}

static void pack(struct loop_job *job)
{
    struct piece *piece = container_of(job, struct piece, job);
    uint64_t unit = piece->run->unit_bytes;
    for (size_t i = 0; i * unit < piece->bytes; i++) {
        const uint8_t *cluster = piece->data + i * unit;
        piece->packed_bytes[i] = 0;
        if (!piece->run->copy->sparse_bytes || !is_zero(cluster, unit))
            piece->packed_bytes[i] = pack_unit(piece, i, cluster);
    }
}

static void on_packed(struct loop_job *job)
{
    container_of(job, struct piece, job)->state = PIECE_READY;
}

static void read_finished(struct piece *piece)
{
    struct run *run = piece->run;
    uint64_t whole = align_up(piece->bytes, run->unit_bytes);
    memset(piece->data + piece->bytes, 0, whole - piece->bytes);
    if (!packs(run->copy) || run->result) {
        piece->state = PIECE_READY;
        return;
    }
    piece->state = PIECE_PACKING;
    loop_job_submit(run->copy->loop, &piece->job);
}

static void read_done(struct piece *piece)
{
    if (piece->is_unread)
        piece->state = PIECE_UNREAD;
    else
        read_finished(piece);
}

static void on_read(struct disk_request *request, int result)
{
    struct read_op *op = container_of(request, struct read_op, request);
    struct piece *piece = op->piece;
    if (result && piece->run->copy->salvage)
        piece->is_unread = true;
    else if (result)
        fail(piece->run, result, "reading", piece->offset);
    if (!--piece->in_flight)
        read_done(piece);
}

/* Sector by sector; called from the ring's turn, where waiting is allowed. */
static void salvage(struct piece *piece)
{
    struct img_copy *copy = piece->run->copy;
    for (uint64_t at = 0; at < piece->bytes; at += 512) {
        struct img_copy_source *source = source_at(copy, piece->offset + at);
        struct iovec iov = {piece->data + at, MIN(512, piece->bytes - at)};
        struct disk_request request = {.op = DISK_READ,
                                       .offset = piece->offset + at - source->start,
                                       .bytes = iov.iov_len,
                                       .iov = &iov,
                                       .iov_count = 1};
        int result = disk_run(source->disk, &request);
        if (!result)
            continue;
        memset(iov.iov_base, 0, iov.iov_len);
        if (copy->on_lost)
            copy->on_lost(copy->opaque, piece->offset + at, result);
    }
    read_finished(piece);
}

static void start_read(struct piece *piece)
{
    struct img_copy *copy = piece->run->copy;
    uint64_t done = 0;
    piece->state = PIECE_READING;
    piece->is_unread = false;
    piece->in_flight = 1;
    img_rate_wait(&copy->rate, piece->bytes);
    for (size_t i = 0; done < piece->bytes; i++) {
        struct read_op *op = &piece->reads[i];
        struct img_copy_source *source = source_at(copy, piece->offset + done);
        uint64_t at = piece->offset + done - source->start;
        uint64_t bytes = MIN(piece->bytes - done, disk_size_bytes(source->disk) - at);
        op->piece = piece;
        op->iov = (struct iovec){piece->data + done, bytes};
        op->request = (struct disk_request){.op = DISK_READ,
                                            .offset = at,
                                            .bytes = bytes,
                                            .iov = &op->iov,
                                            .iov_count = 1,
                                            .on_done = on_read};
        piece->in_flight++;
        disk_submit(source->disk, &op->request);
        done += bytes;
    }
    if (!--piece->in_flight)
        read_done(piece);
}

/* --- placing --- */

static void write_finished(struct piece *piece, int result)
{
    if (result)
        fail(piece->run, result, "writing", piece->offset);
    if (!--piece->in_flight)
        piece->state = PIECE_FREE;
}

static void on_io_written(struct io_request *request, int result)
{
    write_finished(container_of(request, struct write_op, io)->piece, result);
}

static void on_disk_written(struct disk_request *request, int result)
{
    write_finished(container_of(request, struct write_op, disk)->piece, result);
}

/* Adds bytes to the last write if they follow it in the file, else begins another. */
static void add_write(struct piece *piece, uint64_t host_offset, void *data, size_t bytes)
{
    struct write_op *last = piece->writes_used ? &piece->writes[piece->writes_used - 1] : NULL;
    struct iovec *iov = &piece->iov[piece->iov_used++];
    *iov = (struct iovec){data, bytes};
    if (last && last->io.offset + last->io.bytes == host_offset &&
        last->io.iov_count < DISK_REQUEST_IOV_MAX) {
        last->io.iov_count++;
        last->io.bytes += bytes;
        return;
    }
    struct write_op *op = &piece->writes[piece->writes_used++];
    op->piece = piece;
    op->io = (struct io_request){.kind = IO_WRITE,
                                 .offset = host_offset,
                                 .bytes = bytes,
                                 .iov = iov,
                                 .iov_count = 1,
                                 .on_done = on_io_written};
}

static int place_foreign(struct piece *piece, size_t index, uint8_t *data)
{
    struct run *run = piece->run;
    struct foreign_writer *writer = run->copy->foreign;
    bool is_packed = packs(run->copy);
    uint32_t bytes = is_packed ? piece->packed_bytes[index] : (uint32_t)run->unit_bytes;
    uint64_t host_offset;
    if (!bytes)
        return -ENOMEM;
    int result =
        foreign_writer_place(writer, piece->offset / run->unit_bytes + index, bytes, &host_offset);
    if (!result)
        add_write(piece, host_offset, is_packed ? piece->packed + index * run->packed_room : data,
                  bytes);
    return result;
}

static int place_cluster(struct piece *piece, size_t index)
{
    struct run *run = piece->run;
    struct img_copy *copy = run->copy;
    uint64_t cluster = piece->offset / run->unit_bytes + index;
    uint8_t *data = piece->data + index * run->unit_bytes;
    uint64_t host_offset;
    int result;
    if (copy->sparse_bytes && is_zero(data, run->unit_bytes)) {
        if (!copy->has_backing)
            return 0;
        if (copy->can_zero)
            return qcow2_writer_place_zero(copy->writer, cluster);
    }
    if (copy->foreign)
        return place_foreign(piece, index, data);
    if (copy->compress && piece->packed_bytes[index]) {
        uint32_t bytes = piece->packed_bytes[index];
        result = qcow2_writer_place_packed(copy->writer, cluster, bytes, &host_offset);
        if (!result)
            add_write(piece, host_offset, piece->packed + index * run->packed_room, bytes);
        return result;
    }
    result = qcow2_writer_place(copy->writer, cluster, &host_offset);
    if (!result)
        add_write(piece, host_offset, data, run->unit_bytes);
    return result;
}

static void place_in_image(struct piece *piece)
{
    struct run *run = piece->run;
    struct img_copy *copy = run->copy;
    uint64_t clusters = (piece->bytes + run->unit_bytes - 1) / run->unit_bytes;
    int result = 0;
    for (uint64_t i = 0; i < clusters && !result; i++)
        result = piece->is_zero
                     ? qcow2_writer_place_zero(copy->writer, piece->offset / run->unit_bytes + i)
                     : place_cluster(piece, i);
    if (result)
        fail(run, result, "writing", piece->offset);
    for (size_t i = 0; i < piece->writes_used && !run->result; i++) {
        piece->in_flight++;
        io_submit(copy->writer_file, &piece->writes[i].io);
    }
}

static void submit_to_disk(struct piece *piece, enum disk_op kind, uint64_t start, uint64_t bytes)
{
    struct write_op *op = &piece->writes[piece->writes_used++];
    struct iovec *iov = &piece->iov[piece->iov_used++];
    op->piece = piece;
    op->disk = (struct disk_request){.op = kind,
                                     .flags = kind == DISK_ZERO ? DISK_MAY_UNMAP : 0,
                                     .offset = piece->offset + start,
                                     .bytes = bytes,
                                     .on_done = on_disk_written};
    if (kind == DISK_WRITE) {
        *iov = (struct iovec){piece->data + start, bytes};
        op->disk.iov = iov;
        op->disk.iov_count = 1;
    }
    piece->in_flight++;
    disk_submit(piece->run->copy->target, &op->disk);
}

static void place_on_disk(struct piece *piece)
{
    struct img_copy *copy = piece->run->copy;
    uint64_t unit = piece->run->unit_bytes;
    if (piece->is_zero) {
        if (!copy->target_is_zero)
            submit_to_disk(piece, DISK_ZERO, 0, piece->bytes);
        return;
    }
    for (uint64_t at = 0, end; at < piece->bytes; at = end) {
        bool zero = copy->sparse_bytes && is_zero(piece->data + at, MIN(unit, piece->bytes - at));
        end = MIN(at + unit, piece->bytes);
        while (end < piece->bytes &&
               zero == (copy->sparse_bytes &&
                        is_zero(piece->data + end, MIN(unit, piece->bytes - end))))
            end = MIN(end + unit, piece->bytes);
        if (!zero)
            submit_to_disk(piece, DISK_WRITE, at, end - at);
        else if (!copy->target_is_zero)
            submit_to_disk(piece, DISK_ZERO, at, end - at);
    }
}

static void report(struct run *run)
{
    struct img_copy *copy = run->copy;
    if (copy->on_progress)
        copy->on_progress(copy->opaque, MIN(run->placed_bytes, run->total_bytes), run->total_bytes);
    if (!run->result && copy->is_cancelled && copy->is_cancelled(copy->opaque)) {
        run->result = -ECANCELED;
        error_set(run->err, ECANCELED, "interrupted");
    }
}

static void place(struct piece *piece)
{
    struct run *run = piece->run;
    piece->state = PIECE_WRITING;
    piece->in_flight = 1;
    piece->writes_used = piece->iov_used = 0;
    if (!run->result && piece->bytes) {
        if (makes_image(run->copy))
            place_in_image(piece);
        else
            place_on_disk(piece);
    }
    if (!run->copy->counts_data)
        run->placed_bytes = piece->offset + piece->bytes;
    else if (!piece->is_zero)
        run->placed_bytes += piece->bytes;
    report(run);
    if (!--piece->in_flight)
        piece->state = PIECE_FREE;
}

/* --- the ring --- */

static struct piece *ring_at(struct run *run, unsigned index)
{
    return &run->pieces[(run->first + index) % run->copy->depth];
}

static void start_pieces(struct run *run)
{
    struct img_copy *copy = run->copy;
    while (!run->result && run->count < copy->depth && run->planned < copy->size_bytes) {
        struct piece *piece = ring_at(run, run->count);
        if (plan_next(run, piece))
            return;
        run->count++;
        if (piece->is_zero || !piece->bytes)
            piece->state = PIECE_READY;
        else
            start_read(piece);
    }
}

/* Places in order, and takes finished pieces off the ring. */
static void advance(struct run *run)
{
    for (unsigned i = 0; i < run->count; i++) {
        struct piece *piece = ring_at(run, i);
        if (piece->state == PIECE_UNREAD)
            salvage(piece);
        if (piece->state == PIECE_READY)
            place(piece);
        if (piece->state == PIECE_READING || piece->state == PIECE_PACKING)
            break;
    }
    while (run->count && ring_at(run, 0)->state == PIECE_FREE) {
        run->first = (run->first + 1) % run->copy->depth;
        run->count--;
    }
}

/* How much there is to do. */
static int sum_work(struct run *run)
{
    struct img_copy *copy = run->copy;
    if (!copy->counts_data) {
        run->total_bytes = copy->size_bytes;
        return 0;
    }
    for (uint64_t at = 0, end; at < copy->size_bytes; at = end) {
        bool is_data = false;
        int result = find_extent(run, at, &is_data, &end);
        if (result)
            return result;
        if (is_data)
            run->total_bytes += end - at;
    }
    return 0;
}

static void turn(struct run *run)
{
    struct img_copy *copy = run->copy;
    while (run->count || (!run->result && run->planned < copy->size_bytes)) {
        start_pieces(run);
        advance(run);
        bool must_wait = run->count == copy->depth || run->planned >= copy->size_bytes ||
                         (run->result && run->count);
        if (run->count && must_wait && ring_at(run, 0)->state != PIECE_FREE)
            loop_run_once(copy->loop, true);
    }
}

/* --- life --- */

static void piece_fini(struct piece *piece)
{
    free(piece->data);
    free(piece->reads);
    free(piece->packed);
    free(piece->packed_bytes);
    free(piece->writes);
    free(piece->iov);
    qcow2_packer_destroy(piece->packer);
}

static int piece_init(struct run *run, struct piece *piece)
{
    struct img_copy *copy = run->copy;
    uint64_t bytes = MAX(PIECE_BYTES, run->unit_bytes);
    piece->run = run;
    piece->units = bytes / run->unit_bytes;
    piece->data = aligned_alloc(4096, bytes);
    piece->reads = calloc(copy->source_count, sizeof(*piece->reads));
    piece->writes = calloc(piece->units, sizeof(*piece->writes));
    piece->iov = calloc(piece->units, sizeof(*piece->iov));
    piece->job = (struct loop_job){.work = pack, .on_done = on_packed};
    if (!piece->data || !piece->reads || !piece->writes || !piece->iov)
        return -ENOMEM;
    if (!packs(copy))
        return 0;
    piece->packed = malloc(piece->units * run->packed_room);
    piece->packed_bytes = calloc(piece->units, sizeof(*piece->packed_bytes));
    if (!copy->foreign)
        piece->packer = qcow2_packer_create(copy->compression_type);
    return piece->packed && piece->packed_bytes && (piece->packer || copy->foreign) ? 0 : -ENOMEM;
}

int img_copy_run(struct img_copy *copy, struct error *err)
{
    struct run run = {.copy = copy, .err = err};
    CHECK(!makes_image(copy) != !copy->target);
    CHECK(copy->depth && copy->depth <= IMG_COPY_DEPTH_MAX);
    run.unit_bytes = makes_image(copy) ? copy->cluster_bytes : copy->sparse_bytes;
    if (!run.unit_bytes || !is_power_of_2(run.unit_bytes) || run.unit_bytes > PIECE_BYTES)
        run.unit_bytes = makes_image(copy) ? copy->cluster_bytes : 4096;
    run.packed_room = copy->foreign ? foreign_writer_packed_room(copy->foreign) : run.unit_bytes;
    for (unsigned i = 0; i < copy->depth && !run.result; i++)
        run.result = piece_init(&run, &run.pieces[i]);
    if (run.result)
        error_set(err, ENOMEM, "out of memory for %u buffers", copy->depth);
    else if (!sum_work(&run))
        turn(&run);
    for (unsigned i = 0; i < copy->depth; i++)
        piece_fini(&run.pieces[i]);
    return run.result;
}
