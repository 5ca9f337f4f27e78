/* SPDX-License-Identifier: MIT */
/*
 * map: walks L1 and L2 tables, one L2 table of each layer in memory; raw files are asked for their
 * holes.
 */
#include "disk/map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/text.h"
#include "disk/disk.h"
#include "disk/foreign/foreign.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_snapshots.h"

struct layer {
    char *path;
    const char *data_path; /* of an external data file, or NULL */
    struct io_file *file;
    uint64_t size_bytes;
    bool is_qcow2;
    struct foreign *foreign; /* or NULL; owns `file` then */
    struct qcow2_header header;
    uint64_t *l1;
    uint8_t *l2;    /* one table */
    uint64_t l2_at; /* its place in the file; 0 if none is loaded */
    /* Of a file whose holes count: the run of data or hole that was found last. */
    int run_fd;
    uint64_t run_start, run_end;
    bool run_is_data;
};

struct map {
    struct layer layers[DISK_BACKING_DEPTH_MAX];
    unsigned depth;
};

/* --- opening --- */

static int load_l1(struct layer *layer, struct error *err)
{
    uint64_t bytes = (uint64_t)layer->header.l1_entries * 8;
    layer->l1 = malloc(bytes + 8);
    layer->l2 = malloc(qcow2_cluster_bytes(&layer->header));
    if (!layer->l1 || !layer->l2)
        return error_set(err, ENOMEM, "out of memory to map '%s'", layer->path);
    int result = io_read_now(layer->file, layer->header.l1_offset, layer->l1, bytes);
    if (result)
        return error_set_errno(err, -result, "Could not read the L1 table of '%s'", layer->path);
    for (uint32_t i = 0; i < layer->header.l1_entries; i++)
        layer->l1[i] = load_be64(&layer->l1[i]);
    return 0;
}

static int open_foreign(struct loop *loop, struct layer *layer, const char *format,
                        struct error *err)
{
    const struct foreign_options options = {
        .path = layer->path,
        .format = format,
        .blocking = true,
        .no_lock = true,
        .io = {.read_only = true, .aio = DISK_AIO_THREADS},
    };
    int result = foreign_open(loop, layer->file, &options, &layer->foreign, err);
    if (!result)
        layer->size_bytes = foreign_size_bytes(layer->foreign);
    return result;
}

static int open_layer(struct loop *loop, struct layer *layer, const char *format,
                      const char *snapshot, struct error *err)
{
    const struct io_options io = {.read_only = true, .aio = DISK_AIO_THREADS};
    int result = io_open(loop, layer->path, &io, &layer->file, err);
    if (result)
        return result;
    if (!strcmp(format, "raw")) {
        result = io_length(layer->file, &layer->size_bytes);
        layer->size_bytes = align_up(layer->size_bytes, 512);
        return result ? error_set_errno(err, -result, "Could not measure '%s'", layer->path) : 0;
    }
    if (foreign_is_known(format))
        return open_foreign(loop, layer, format, err);
    if (strcmp(format, "qcow2"))
        return error_set(err, ENOTSUP, "Could not open '%s': Unknown driver '%s'", layer->path,
                         format);
    result = qcow2_header_read(layer->file, layer->path, &layer->header, err);
    if (result)
        return result;
    layer->is_qcow2 = true;
    if (snapshot)
        result = qcow2_snapshots_enter(layer->file, &layer->header, snapshot, err);
    if (result)
        return result;
    if (layer->header.incompatible & QCOW2_INCOMPAT_DATA_FILE && layer->header.has_data_file_name)
        layer->data_path = layer->header.data_file_name;
    layer->size_bytes = layer->header.size_bytes;
    return load_l1(layer, err);
}

static int open_layers(struct loop *loop, struct map *map, const struct map_options *options,
                       struct error *err)
{
    const char *format = options->format, *snapshot = options->snapshot;
    char *next = text_copy(options->path);
    while (next) {
        if (map->depth == DISK_BACKING_DEPTH_MAX) {
            free(next);
            return error_set(err, ELOOP, "'%s': the backing chain is longer than %d images",
                             options->path, DISK_BACKING_DEPTH_MAX);
        }
        struct layer *layer = &map->layers[map->depth++];
        layer->path = next;
        int result = open_layer(loop, layer, format, snapshot, err);
        if (result)
            return result;
        next = NULL;
        snapshot = NULL;
        if (options->whole_chain && layer->is_qcow2 && layer->header.has_backing) {
            next = disk_backing_path(layer->path, layer->header.backing_path);
            format = layer->header.has_backing_format ? layer->header.backing_format : "raw";
            if (!next)
                return error_set(err, ENOMEM, "out of memory to map '%s'", layer->path);
        }
    }
    return 0;
}

int map_open(struct loop *loop, const struct map_options *options, struct map **out,
             struct error *err)
{
    struct map *map = calloc(1, sizeof(*map));
    if (!map)
        return error_set(err, ENOMEM, "out of memory to map '%s'", options->path);
    int result = open_layers(loop, map, options, err);
    if (result)
        map_close(map);
    else
        *out = map;
    return result;
}

void map_close(struct map *map)
{
    if (!map)
        return;
    for (unsigned i = 0; i < map->depth; i++) {
        struct layer *layer = &map->layers[i];
        if (layer->foreign)
            foreign_close(layer->foreign, NULL, NULL);
        else if (layer->file)
            io_close(layer->file, NULL, NULL);
        if (layer->is_qcow2)
            qcow2_header_fini(&layer->header);
        free(layer->l1);
        free(layer->l2);
        free(layer->path);
    }
    free(map);
}

uint64_t map_size_bytes(const struct map *map)
{
    return map->layers[0].size_bytes;
}

unsigned map_layer_count(const struct map *map)
{
    return map->depth;
}

/* --- one layer --- */

/* Asking the file system is slow: the answer is kept. */
static void find_run(struct layer *layer, int fd, uint64_t offset, uint64_t end)
{
    if (fd == layer->run_fd && offset >= layer->run_start && offset < layer->run_end)
        return;
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    layer->run_fd = fd;
    layer->run_start = offset;
    layer->run_end = end;
    if (data < 0 || (uint64_t)data > offset) {
        layer->run_is_data = data < 0 && errno != ENXIO; /* no holes to be known here */
        if (data > 0)
            layer->run_end = (uint64_t)data;
        return;
    }
    off_t hole = lseek(fd, (off_t)offset, SEEK_HOLE);
    layer->run_is_data = true;
    if (hole > 0)
        layer->run_end = (uint64_t)hole;
}

/* What a layer says about the bytes from `offset` on; fills kind, bytes and the place. */
static int find_raw(struct layer *layer, uint64_t offset, uint64_t end, struct map_extent *out)
{
    find_run(layer, layer->file->fd, offset, layer->size_bytes);
    out->kind = layer->run_is_data ? MAP_DATA : MAP_ZERO;
    out->bytes = MIN(layer->run_end, end) - offset;
    out->has_host = true;
    out->host_offset = offset;
    return 0;
}

static int find_foreign(struct layer *layer, uint64_t offset, uint64_t end, struct map_extent *out,
                        struct error *err)
{
    static const enum map_kind kinds[] = {
        [FOREIGN_ABSENT] = MAP_ABSENT,
        [FOREIGN_ZERO] = MAP_ZERO,
        [FOREIGN_DATA] = MAP_DATA,
        [FOREIGN_PACKED] = MAP_COMPRESSED,
    };
    struct foreign_extent extent;
    int result = foreign_find(layer->foreign, offset, end, &extent);
    if (result)
        return error_set(err, -result, "%s", foreign_problem(layer->foreign));
    out->kind = kinds[extent.kind];
    out->bytes = extent.bytes;
    out->has_host = extent.kind == FOREIGN_DATA;
    out->host_offset = extent.host_offset;
    if (extent.path)
        out->path = extent.path;
    if (!extent.is_flat)
        return 0;
    find_run(layer, extent.file->fd, extent.host_offset, extent.host_offset + extent.bytes);
    out->kind = layer->run_is_data ? MAP_DATA : MAP_ZERO;
    out->bytes = MIN(extent.bytes, layer->run_end - extent.host_offset);
    return 0;
}

static int load_l2(struct layer *layer, uint64_t at, struct error *err)
{
    if (layer->l2_at == at)
        return 0;
    if (!is_aligned(at, qcow2_cluster_bytes(&layer->header)))
        return error_set(err, EIO, "'%s' is corrupt: an L2 table is not aligned; run check",
                         layer->path);
    layer->l2_at = 0;
    int result = io_read_now(layer->file, at, layer->l2, qcow2_cluster_bytes(&layer->header));
    if (result)
        return error_set_errno(err, -result, "Could not read an L2 table of '%s'", layer->path);
    layer->l2_at = at;
    return 0;
}

/* An entry and how far it speaks alike: a cluster, or a run of subclusters. */
struct piece {
    enum map_kind kind;
    bool has_host;
    uint64_t host_offset;
    uint64_t bytes;
};

static struct piece piece_of_plain(const struct layer *layer, uint64_t entry, uint64_t in_cluster)
{
    uint64_t cluster_bytes = qcow2_cluster_bytes(&layer->header);
    struct piece piece = {.bytes = cluster_bytes - in_cluster};
    uint64_t host = entry & QCOW2_ENTRY_OFFSET_MASK;
    bool is_external = layer->header.incompatible & QCOW2_INCOMPAT_DATA_FILE;
    if (entry & QCOW2_ENTRY_COMPRESSED) {
        piece.kind = MAP_COMPRESSED;
        return piece;
    }
    piece.has_host = host || (is_external && entry & QCOW2_ENTRY_COPIED);
    piece.host_offset = host + in_cluster;
    if (entry & QCOW2_L2_ZERO && layer->header.version >= 3)
        piece.kind = MAP_ZERO;
    else
        piece.kind = piece.has_host ? MAP_DATA : MAP_ABSENT;
    return piece;
}

static struct piece piece_of_extended(const struct layer *layer, uint64_t entry, uint64_t bitmap,
                                      uint64_t in_cluster)
{
    struct piece piece = piece_of_plain(layer, entry & ~QCOW2_L2_ZERO, in_cluster);
    uint64_t sub_bytes = qcow2_cluster_bytes(&layer->header) / QCOW2_SUBCLUSTERS;
    unsigned first = (unsigned)(in_cluster / sub_bytes);
    if (piece.kind == MAP_COMPRESSED)
        return piece;
    bool is_set = bitmap >> first & 1, is_zero = bitmap >> (first + 32) & 1;
    unsigned last = first + 1;
    while (last < QCOW2_SUBCLUSTERS && (bitmap >> last & 1) == is_set &&
           (bitmap >> (last + 32) & 1) == is_zero)
        last++;
    piece.bytes = last * sub_bytes - in_cluster;
    piece.kind = is_zero ? MAP_ZERO : is_set ? MAP_DATA : MAP_ABSENT;
    return piece;
}

static struct piece piece_at(const struct layer *layer, uint64_t offset)
{
    const struct qcow2_header *header = &layer->header;
    uint64_t in_cluster = offset & (qcow2_cluster_bytes(header) - 1);
    uint64_t index =
        (offset >> header->cluster_bits) & ((UINT64_C(1) << qcow2_l2_bits(header)) - 1);
    if (!qcow2_has_extended_l2(header))
        return piece_of_plain(layer, load_be64(layer->l2 + index * 8), in_cluster);
    return piece_of_extended(layer, load_be64(layer->l2 + index * 16),
                             load_be64(layer->l2 + index * 16 + 8), in_cluster);
}

static bool continues(const struct piece *piece, const struct map_extent *out)
{
    return piece->kind == out->kind && piece->has_host == out->has_host &&
           (!piece->has_host || piece->host_offset == out->host_offset + out->bytes);
}

static int find_qcow2(struct layer *layer, uint64_t offset, uint64_t end, struct map_extent *out,
                      struct error *err)
{
    const struct qcow2_header *header = &layer->header;
    uint64_t table_covers = UINT64_C(1) << (header->cluster_bits + qcow2_l2_bits(header));
    uint64_t table_end = MIN(align_down(offset, table_covers) + table_covers, end);
    uint64_t l2 = layer->l1[offset / table_covers] & QCOW2_ENTRY_OFFSET_MASK;
    if (!l2) {
        out->kind = MAP_ABSENT;
        out->has_host = false;
        out->bytes = table_end - offset;
        return 0;
    }
    int result = load_l2(layer, l2, err);
    if (result)
        return result;
    struct piece piece = piece_at(layer, offset);
    out->kind = piece.kind;
    out->has_host = piece.has_host;
    out->host_offset = piece.host_offset;
    out->bytes = 0;
    while (offset + out->bytes < table_end && continues(&piece, out)) {
        out->bytes += piece.bytes;
        if (offset + out->bytes < table_end)
            piece = piece_at(layer, offset + out->bytes);
    }
    out->bytes = MIN(out->bytes, table_end - offset);
    return 0;
}

static int find_layer(struct layer *layer, uint64_t offset, uint64_t end, struct map_extent *out,
                      struct error *err)
{
    if (layer->foreign)
        return find_foreign(layer, offset, end, out, err);
    if (layer->is_qcow2)
        return find_qcow2(layer, offset, end, out, err);
    return find_raw(layer, offset, end, out);
}

int map_find(struct map *map, uint64_t offset, uint64_t end, unsigned depth, struct map_extent *out,
             struct error *err)
{
    end = MIN(end, map_size_bytes(map));
    CHECK(offset < end);
    if (!depth || depth > map->depth)
        depth = map->depth;
    for (unsigned i = 0; i < depth; i++) {
        struct layer *layer = &map->layers[i];
        *out = (struct map_extent){.offset = offset, .depth = i, .path = layer->path};
        if (offset >= layer->size_bytes) { /* shorter than what it backs: zeroes follow */
            out->kind = MAP_ABSENT;
            out->is_hidden = true;
            out->bytes = end - offset;
            return 0;
        }
        uint64_t layer_end = MIN(end, layer->size_bytes);
        int result = find_layer(layer, offset, layer_end, out, err);
        if (layer->data_path && out->has_host)
            out->path = layer->data_path;
        if (result || out->kind != MAP_ABSENT)
            return result;
        end = offset + out->bytes;
    }
    return 0;
}
