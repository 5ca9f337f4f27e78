/* SPDX-License-Identifier: MIT */
/*
 * qcow2_writer: builds an image in the order of its file.
 *
 * Theory of operation. Host clusters are handed out one after the other. One L2 table is in memory;
 * it is written when the next one begins. One refcount block is in memory; it is written, to the
 * next host cluster, when handing out leaves its range. What is open at the end (L1 table, refcount
 * table, last blocks) goes behind everything else. Compressed clusters are packed one behind the
 * other as long as the clusters they fall into are the last ones handed out.
 */
#include "disk/qcow2/qcow2_writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_refcount.h"

struct qcow2_writer {
    struct io_file *file;
    struct qcow2_header header;
    uint64_t cluster_bytes;
    uint64_t tail; /* next host cluster */

    uint64_t *l1; /* big-endian, as in the file */
    uint8_t *l2;
    uint64_t l2_index; /* into L1; UINT64_MAX if none is begun */

    uint8_t *block;
    uint64_t block_index;
    uint64_t *block_offsets; /* of those written */
    uint64_t blocks_room;

    uint64_t packed_at; /* host offset behind the last compressed data; 0 if none */
};

/* --- host clusters --- */

static uint64_t per_block(const struct qcow2_writer *writer)
{
    return qcow2_refcount_entries(writer->header.cluster_bits, writer->header.refcount_order);
}

static int note_block(struct qcow2_writer *writer, uint64_t offset)
{
    if (writer->block_index >= writer->blocks_room) {
        uint64_t room = MAX(writer->blocks_room * 2, 64);
        uint64_t *offsets = realloc(writer->block_offsets, room * sizeof(*offsets));
        if (!offsets)
            return -ENOMEM;
        writer->block_offsets = offsets;
        writer->blocks_room = room;
    }
    writer->block_offsets[writer->block_index] = offset;
    return 0;
}

static void set_count(struct qcow2_writer *writer, uint64_t cluster, uint64_t count)
{
    qcow2_refcount_set(writer->block, writer->header.refcount_order, cluster % per_block(writer),
                       count);
}

/* The block in memory is full: it goes to the first cluster of the range of the next one. */
static int turn_block(struct qcow2_writer *writer)
{
    uint64_t at = writer->tail++ << writer->header.cluster_bits;
    int result = note_block(writer, at);
    if (!result)
        result = io_write_now(writer->file, at, writer->block, writer->cluster_bytes);
    if (result)
        return result;
    memset(writer->block, 0, writer->cluster_bytes);
    writer->block_index++;
    set_count(writer, at >> writer->header.cluster_bits, 1);
    return 0;
}

static int take_cluster(struct qcow2_writer *writer, uint64_t *cluster)
{
    if (writer->tail / per_block(writer) != writer->block_index) {
        int result = turn_block(writer);
        if (result)
            return result;
    }
    *cluster = writer->tail++;
    set_count(writer, *cluster, 1);
    return 0;
}

/* --- L2 tables --- */

static int flush_l2(struct qcow2_writer *writer)
{
    uint64_t cluster;
    if (writer->l2_index == UINT64_MAX)
        return 0;
    int result = take_cluster(writer, &cluster);
    if (result)
        return result;
    uint64_t at = cluster << writer->header.cluster_bits;
    store_be64(&writer->l1[writer->l2_index], at | QCOW2_ENTRY_COPIED);
    result = io_write_now(writer->file, at, writer->l2, writer->cluster_bytes);
    memset(writer->l2, 0, writer->cluster_bytes);
    writer->l2_index = UINT64_MAX;
    return result;
}

/* Makes the table that maps the cluster the one in memory. */
static int begin_l2(struct qcow2_writer *writer, uint64_t guest_cluster)
{
    uint64_t index = guest_cluster >> qcow2_l2_bits(&writer->header);
    CHECK(index < writer->header.l1_entries);
    if (writer->l2_index == index)
        return 0;
    CHECK(writer->l2_index == UINT64_MAX || index > writer->l2_index);
    int result = flush_l2(writer);
    writer->l2_index = index;
    return result;
}

static void set_entry(struct qcow2_writer *writer, uint64_t guest_cluster, uint64_t entry,
                      uint64_t bitmap)
{
    uint64_t index = guest_cluster & ((UINT64_C(1) << qcow2_l2_bits(&writer->header)) - 1);
    if (!qcow2_has_extended_l2(&writer->header)) {
        store_be64(writer->l2 + index * 8, entry);
        return;
    }
    store_be64(writer->l2 + index * 16, entry);
    store_be64(writer->l2 + index * 16 + 8, bitmap);
}

/* --- placing --- */

int qcow2_writer_place(struct qcow2_writer *writer, uint64_t guest_cluster, uint64_t *host_offset)
{
    uint64_t cluster;
    int result = begin_l2(writer, guest_cluster);
    if (!result)
        result = take_cluster(writer, &cluster);
    if (result)
        return result;
    *host_offset = cluster << writer->header.cluster_bits;
    set_entry(writer, guest_cluster, *host_offset | QCOW2_ENTRY_COPIED, UINT32_MAX);
    return 0;
}

int qcow2_writer_place_zero(struct qcow2_writer *writer, uint64_t guest_cluster)
{
    if (writer->header.version < 3)
        return -ENOTSUP;
    int result = begin_l2(writer, guest_cluster);
    if (result)
        return result;
    bool extended = qcow2_has_extended_l2(&writer->header);
    set_entry(writer, guest_cluster, extended ? 0 : QCOW2_L2_ZERO, (uint64_t)UINT32_MAX << 32);
    return 0;
}

/* May compressed data go on where the last one ended? */
static bool can_continue(const struct qcow2_writer *writer)
{
    uint64_t cluster = writer->packed_at >> writer->header.cluster_bits;
    if (is_aligned(writer->packed_at, writer->cluster_bytes))
        return false; /* nothing is left of it, or nothing was begun */
    if (cluster / per_block(writer) != writer->block_index)
        return false;
    return qcow2_refcount_get(writer->block, writer->header.refcount_order,
                              cluster % per_block(writer)) <
           qcow2_refcount_max(writer->header.refcount_order);
}

static void share_cluster(struct qcow2_writer *writer, uint64_t cluster)
{
    uint64_t count = qcow2_refcount_get(writer->block, writer->header.refcount_order,
                                        cluster % per_block(writer));
    set_count(writer, cluster, count + 1);
}

static int reserve_packed(struct qcow2_writer *writer, uint64_t bytes, uint64_t *host_offset)
{
    uint32_t bits = writer->header.cluster_bits;
    uint64_t cluster;
    if (can_continue(writer)) {
        uint64_t last = writer->packed_at >> bits;
        bool fits =
            bytes <= writer->cluster_bytes - (writer->packed_at & (writer->cluster_bytes - 1));
        bool next_follows =
            writer->tail == last + 1 && writer->tail / per_block(writer) == writer->block_index;
        if (fits || next_follows) {
            *host_offset = writer->packed_at;
            share_cluster(writer, last);
            return fits ? 0 : take_cluster(writer, &cluster);
        }
    }
    int result = take_cluster(writer, &cluster);
    *host_offset = cluster << bits;
    return result;
}

int qcow2_writer_place_packed(struct qcow2_writer *writer, uint64_t guest_cluster, uint64_t bytes,
                              uint64_t *host_offset)
{
    unsigned size_shift = 62 - (writer->header.cluster_bits - 8);
    CHECK(bytes && bytes < writer->cluster_bytes);
    int result = begin_l2(writer, guest_cluster);
    if (!result)
        result = reserve_packed(writer, bytes, host_offset);
    if (result)
        return result;
    writer->packed_at = *host_offset + bytes;
    if (*host_offset >> size_shift)
        return -EFBIG;
    uint64_t sectors = ((writer->packed_at - 1) >> 9) - (*host_offset >> 9);
    set_entry(writer, guest_cluster, QCOW2_ENTRY_COMPRESSED | sectors << size_shift | *host_offset,
              0);
    return 0;
}

/* --- the end --- */

struct ending {
    uint64_t l1_clusters;
    uint64_t table_clusters;
    uint64_t blocks; /* from block_index on */
    uint64_t end;    /* behind the last cluster of the file */
};

static void plan_ending(const struct qcow2_writer *writer, struct ending *ending)
{
    uint64_t n = per_block(writer), entries = writer->cluster_bytes / 8;
    uint32_t bits = writer->header.cluster_bits;
    ending->l1_clusters =
        align_up((uint64_t)writer->header.l1_entries * 8, writer->cluster_bytes) >> bits;
    ending->blocks = 1;
    ending->table_clusters = 1;
    for (;;) {
        ending->end = writer->tail + ending->l1_clusters + ending->table_clusters + ending->blocks;
        uint64_t last = (ending->end - 1) / n;
        uint64_t blocks = last - writer->block_index + 1;
        uint64_t table = (last + entries) / entries;
        if (blocks <= ending->blocks && table <= ending->table_clusters)
            return;
        ending->blocks = MAX(blocks, ending->blocks);
        ending->table_clusters = MAX(table, ending->table_clusters);
    }
}

static int write_blocks(struct qcow2_writer *writer, const struct ending *ending)
{
    uint64_t n = per_block(writer);
    uint64_t at = ending->end - ending->blocks;
    for (uint64_t i = 0; i < ending->blocks; i++, writer->block_index++) {
        uint64_t first = MAX(writer->tail, writer->block_index * n);
        uint64_t past = MIN(ending->end, (writer->block_index + 1) * n);
        for (uint64_t cluster = first; cluster < past; cluster++)
            set_count(writer, cluster, 1);
        uint64_t offset = (at + i) << writer->header.cluster_bits;
        int result = note_block(writer, offset);
        if (!result)
            result = io_write_now(writer->file, offset, writer->block, writer->cluster_bytes);
        if (result)
            return result;
        memset(writer->block, 0, writer->cluster_bytes);
    }
    return 0;
}

static int write_reftable(struct qcow2_writer *writer, uint64_t offset, uint64_t bytes)
{
    uint64_t *table = calloc(1, bytes);
    if (!table)
        return -ENOMEM;
    for (uint64_t i = 0; i < writer->block_index; i++)
        store_be64(&table[i], writer->block_offsets[i]);
    int result = io_write_now(writer->file, offset, table, bytes);
    free(table);
    return result;
}

static int write_ending(struct qcow2_writer *writer)
{
    struct qcow2_header *header = &writer->header;
    struct ending ending;
    int result = flush_l2(writer);
    if (result)
        return result;
    plan_ending(writer, &ending);
    uint64_t table_bytes = ending.table_clusters << header->cluster_bits;
    if (table_bytes > QCOW2_REFTABLE_BYTES_MAX)
        return -EFBIG;
    header->l1_offset = header->l1_entries ? writer->tail << header->cluster_bits : 0;
    header->reftable_offset = (writer->tail + ending.l1_clusters) << header->cluster_bits;
    header->reftable_clusters = (uint32_t)ending.table_clusters;
    result =
        io_write_now(writer->file, header->l1_offset, writer->l1, (uint64_t)header->l1_entries * 8);
    if (!result)
        result = write_blocks(writer, &ending);
    if (!result)
        result = write_reftable(writer, header->reftable_offset, table_bytes);
    return result;
}

int qcow2_writer_finish(struct qcow2_writer *writer, struct error *err)
{
    int result = write_ending(writer);
    if (result)
        return error_set_errno(err, -result, "Could not write the tables of the image");
    return qcow2_header_write(writer->file, &writer->header, err);
}

/* --- life --- */

int qcow2_writer_create(struct io_file *file, const struct qcow2_create_options *options,
                        struct qcow2_writer **out, struct error *err)
{
    CHECK(options->preallocation == QCOW2_PREALLOC_OFF && !options->data_file_name);
    struct qcow2_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return error_set(err, ENOMEM, "out of memory");
    int result = qcow2_create_header(options, &writer->header, err);
    if (result) {
        free(writer);
        return result;
    }
    writer->file = file;
    writer->cluster_bytes = qcow2_cluster_bytes(&writer->header);
    writer->l2_index = UINT64_MAX;
    writer->l1 = calloc((size_t)writer->header.l1_entries + 1, 8);
    writer->l2 = calloc(1, writer->cluster_bytes);
    writer->block = calloc(1, writer->cluster_bytes);
    if (!writer->l1 || !writer->l2 || !writer->block) {
        qcow2_writer_destroy(writer);
        return error_set(err, ENOMEM, "out of memory");
    }
    writer->tail = 1; /* the header */
    set_count(writer, 0, 1);
    *out = writer;
    return 0;
}

void qcow2_writer_destroy(struct qcow2_writer *writer)
{
    if (!writer)
        return;
    free(writer->l1);
    free(writer->l2);
    free(writer->block);
    free(writer->block_offsets);
    qcow2_header_fini(&writer->header);
    free(writer);
}
