/* SPDX-License-Identifier: MIT */
/* seedimage: header, refcount table and blocks, L1, L2 tables, data, in this order; see the header.
 */
#include "tests/crash_sim/seedimage.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/bytes.h"
#include "base/check.h"

#define FLAG_COPIED (UINT64_C(1) << 63)
#define FLAG_PACKED (UINT64_C(1) << 62)
#define PACKED_MAX  4096u
/* What a cluster held before it was freed, or became zeroes: must never be seen again. */
#define STALE_VERSION 0x7777u

struct builder {
    const struct seedimage_options *o;
    uint8_t *bytes;
    uint64_t room, length;
    uint64_t cluster_bytes, sectors_per_cluster;
    uint64_t l1_entries, l2_entries;
    uint64_t reftable, reftable_clusters, l1, blocks, block_count;
    uint64_t packed, packed_end; /* free part of a cluster for compressed data */
    uint32_t *counts;            /* per host cluster */
};

static uint64_t take(struct builder *b, uint64_t clusters)
{
    uint64_t at = b->length;
    b->length += clusters * b->cluster_bytes;
    CHECK(b->length <= b->room);
    for (uint64_t i = at / b->cluster_bytes; i < b->length / b->cluster_bytes; i++)
        b->counts[i] = 1;
    return at;
}

static void put_header(struct builder *b)
{
    const struct seedimage_options *o = b->o;
    uint8_t *h = b->bytes;
    store_be32(h, 0x514649fb);
    store_be32(h + 4, o->version);
    store_be32(h + 20, o->cluster_bits);
    store_be64(h + 24, o->sectors * CELL_BYTES);
    store_be32(h + 36, (uint32_t)b->l1_entries);
    store_be64(h + 40, b->l1);
    store_be64(h + 48, b->reftable);
    store_be32(h + 56, (uint32_t)b->reftable_clusters);
    if (o->has_backing) {
        store_be64(h + 8, 256);
        store_be32(h + 16, 4);
        memcpy(h + 256, "base", 4);
    }
    if (o->version == 2)
        return;
    store_be64(h + 72, o->is_extended ? 16 : 0);
    store_be64(h + 80, o->is_lazy ? 1 : 0);
    store_be32(h + 96, o->refcount_order);
    store_be32(h + 100, 112);
}

static void fill_cluster(const struct builder *b, uint64_t guest_cluster, uint32_t version,
                         uint8_t *out)
{
    uint32_t first = (uint32_t)(guest_cluster * b->sectors_per_cluster);
    for (uint32_t i = 0; i < b->o->offset_count; i++)
        cell_fill(out + (uint64_t)b->o->offsets[i] * CELL_BYTES, first + b->o->offsets[i], version);
}

static size_t deflate_cluster(const struct builder *b, uint64_t guest_cluster, uint8_t *out)
{
    z_stream stream = {0};
    uint8_t *plain = calloc(1, b->cluster_bytes);
    CHECK(plain && deflateInit2(&stream, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) == Z_OK);
    fill_cluster(b, guest_cluster, b->o->data_version, plain);
    stream.next_in = plain;
    stream.avail_in = (uInt)b->cluster_bytes;
    stream.next_out = out;
    stream.avail_out = PACKED_MAX;
    CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&stream);
    free(plain);
    return PACKED_MAX - stream.avail_out;
}

static uint64_t put_packed(struct builder *b, uint64_t guest_cluster)
{
    uint8_t data[PACKED_MAX];
    uint64_t bytes = deflate_cluster(b, guest_cluster, data);
    if (b->packed + bytes > b->packed_end) {
        uint64_t clusters = align_up(bytes, b->cluster_bytes) / b->cluster_bytes;
        b->packed = take(b, clusters);
        b->packed_end = b->packed + clusters * b->cluster_bytes;
    } else {
        b->counts[b->packed / b->cluster_bytes]++;
    }
    uint64_t at = b->packed, sectors = (at + bytes - 1) / 512 - at / 512;
    memcpy(b->bytes + at, data, bytes);
    b->packed += bytes;
    return FLAG_PACKED | sectors << (62 - (b->o->cluster_bits - 8)) | at;
}

static void put_entry(struct builder *b, uint64_t guest_cluster, uint8_t *entry)
{
    bool has_flags = b->o->version == 3;
    uint64_t bitmap = 0, value = 0, all = UINT64_C(0xffffffff);
    switch ((enum seedimage_kind)b->o->kinds[guest_cluster]) {
    case SEEDIMAGE_NONE:
        break;
    case SEEDIMAGE_DATA:
        value = take(b, 1);
        fill_cluster(b, guest_cluster, b->o->data_version, b->bytes + value);
        value |= FLAG_COPIED;
        bitmap = all;
        break;
    case SEEDIMAGE_PACKED:
        value = put_packed(b, guest_cluster);
        break;
    case SEEDIMAGE_ZERO_KEPT:
        if (has_flags) {
            value = take(b, 1);
            fill_cluster(b, guest_cluster, STALE_VERSION, b->bytes + value);
            value |= FLAG_COPIED;
        }
        value |= has_flags && !b->o->is_extended;
        bitmap = all << 32;
        break;
    case SEEDIMAGE_ZERO:
        value |= has_flags && !b->o->is_extended;
        bitmap = all << 32;
        break;
    }
    store_be64(entry, value);
    if (b->o->is_extended)
        store_be64(entry + 8, bitmap);
}

static void put_tables(struct builder *b)
{
    unsigned step = b->o->is_extended ? 16 : 8;
    for (uint64_t i = 0; i < b->o->kind_count; i++) {
        uint8_t *l1 = b->bytes + b->l1 + i / b->l2_entries * 8;
        if (!load_be64(l1))
            store_be64(l1, take(b, 1) | FLAG_COPIED);
        uint64_t l2 = load_be64(l1) & ~FLAG_COPIED;
        put_entry(b, i, b->bytes + l2 + i % b->l2_entries * step);
    }
}

/* Every reference once more, and nothing is anybody's own any longer. */
static void share_entry(struct builder *b, uint8_t *entry)
{
    uint64_t value = load_be64(entry), host = value & ~(FLAG_COPIED | 511);
    if (value & FLAG_PACKED) {
        unsigned shift = 62 - (b->o->cluster_bits - 8);
        uint64_t at = value & ((UINT64_C(1) << shift) - 1);
        uint64_t end = (at / 512 + ((value & (FLAG_PACKED - 1)) >> shift) + 1) * 512;
        for (uint64_t c = at / b->cluster_bytes; c <= (end - 1) / b->cluster_bytes; c++)
            b->counts[c]++;
    } else if (host) {
        b->counts[host / b->cluster_bytes]++;
        store_be64(entry, value & ~FLAG_COPIED);
    }
}

static void put_snapshot(struct builder *b)
{
    unsigned step = b->o->is_extended ? 16 : 8;
    for (uint64_t i = 0; i < b->l1_entries; i++) {
        uint8_t *l1 = b->bytes + b->l1 + i * 8;
        uint64_t l2 = load_be64(l1) & ~FLAG_COPIED;
        for (uint64_t at = 0; l2 && at < b->cluster_bytes; at += step)
            share_entry(b, b->bytes + l2 + at);
        share_entry(b, l1);
    }
    uint64_t l1 = take(b, align_up(b->l1_entries * 8, b->cluster_bytes) / b->cluster_bytes);
    memcpy(b->bytes + l1, b->bytes + b->l1, b->l1_entries * 8);
    uint64_t table = take(b, 1);
    uint8_t *s = b->bytes + table;
    store_be64(s, l1);
    store_be32(s + 8, (uint32_t)b->l1_entries);
    store_be16(s + 12, 1);
    store_be16(s + 14, 2);
    store_be32(s + 36, 16);
    store_be64(s + 48, b->o->sectors * CELL_BYTES);
    memcpy(s + 56, "1s0", 3);
    store_be32(b->bytes + 60, 1);
    store_be64(b->bytes + 64, table);
}

static void put_refcount(struct builder *b, uint64_t cluster)
{
    uint64_t per_block = b->cluster_bytes * 8 >> b->o->refcount_order;
    CHECK(cluster / per_block < b->block_count);
    uint8_t *block = b->bytes + b->blocks + cluster / per_block * b->cluster_bytes;
    uint64_t index = cluster % per_block, count = b->counts[cluster];
    unsigned bytes = (1u << b->o->refcount_order) / 8;
    for (unsigned i = 0; i < bytes; i++)
        block[index * bytes + i] = (uint8_t)(count >> 8 * (bytes - 1 - i));
}

/* Ballast up to the end of what the refcount blocks, or the whole table, can count. */
static uint64_t put_ballast(struct builder *b)
{
    const struct seedimage_options *o = b->o;
    uint64_t per_block = b->cluster_bytes * 8 >> o->refcount_order;
    uint64_t used = b->length / b->cluster_bytes, end = used;
    if (o->fills_blocks || o->fills_reftable)
        end = b->block_count * per_block - o->spare;
    if (end > used)
        take(b, end - used);
    return end > used ? end - used : 0;
}

static void put_stale(struct builder *b)
{
    uint64_t at = take(b, b->o->stale), end = b->length;
    for (uint64_t i = 0; at < end; at += b->cluster_bytes, i++) {
        b->counts[at / b->cluster_bytes] = 0;
        fill_cluster(b, i, STALE_VERSION, b->bytes + at);
    }
}

static void lay_out(struct builder *b)
{
    const struct seedimage_options *o = b->o;
    uint64_t per_block = b->cluster_bytes * 8 >> o->refcount_order;
    b->l2_entries = b->cluster_bytes / (o->is_extended ? 16 : 8);
    uint64_t clusters = (o->sectors + b->sectors_per_cluster - 1) / b->sectors_per_cluster;
    b->l1_entries = (clusters + b->l2_entries - 1) / b->l2_entries;
    take(b, 1);
    b->reftable_clusters = 1;
    b->reftable = take(b, 1);
    b->l1 = take(b, align_up(b->l1_entries * 8, b->cluster_bytes) / b->cluster_bytes);
    b->block_count = o->fills_reftable ? b->cluster_bytes / 8
                                       : (2 * o->kind_count + o->stale + 16) / per_block + 1;
    b->blocks = take(b, b->block_count);
    for (uint64_t i = 0; i < b->block_count; i++)
        store_be64(b->bytes + b->reftable + i * 8, b->blocks + i * b->cluster_bytes);
}

uint64_t seedimage_make(const struct seedimage_options *options, struct cell_arena *arena,
                        struct cell_file *out)
{
    struct builder b = {.o = options, .cluster_bytes = UINT64_C(1) << options->cluster_bits};
    uint64_t per_block = b.cluster_bytes * 8 >> options->refcount_order;
    uint64_t clusters = 2 * options->kind_count + options->stale + 64;
    if (options->fills_blocks)
        clusters = align_up(clusters, per_block) + per_block;
    if (options->fills_reftable)
        clusters = b.cluster_bytes / 8 * per_block;
    b.sectors_per_cluster = b.cluster_bytes / CELL_BYTES;
    b.room = clusters * b.cluster_bytes;
    b.bytes = calloc(1, b.room);
    b.counts = calloc(clusters, sizeof(b.counts[0]));
    CHECK(b.bytes && b.counts && options->refcount_order >= 3);
    lay_out(&b);
    put_header(&b);
    put_stale(&b);
    put_tables(&b);
    if (options->has_snapshot)
        put_snapshot(&b);
    uint64_t ballast = put_ballast(&b);
    for (uint64_t i = 0; i < b.length / b.cluster_bytes; i++)
        put_refcount(&b, i);
    cell_file_reserve(out, b.length / CELL_BYTES);
    for (uint64_t i = 0; i < b.length / CELL_BYTES; i++)
        out->cells[i] = cell_make(arena, b.bytes + i * CELL_BYTES);
    out->length_bytes = b.length;
    free(b.bytes);
    free(b.counts);
    return ballast;
}
