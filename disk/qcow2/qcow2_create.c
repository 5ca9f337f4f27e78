/* SPDX-License-Identifier: MIT */
/*
 * qcow2_create: lays out and writes new images. The order in the file is header, refcount table,
 * refcount blocks, L1 table, and with preallocation all L2 tables and then all data clusters.
 */
#include "disk/qcow2/qcow2_create.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_refcount.h"

#define FILL_CHUNK_BYTES (1 * MIB)

struct layout {
    struct qcow2_header header;
    uint64_t cluster_bytes;
    uint64_t l1_bytes;
    uint64_t refblocks;
    uint64_t refblocks_offset;
    uint64_t l2_tables; /* 0 without preallocation */
    uint64_t l2_offset;
    uint64_t guest_clusters;
    uint64_t data_offset;
    uint64_t data_clusters; /* in this file */
    uint64_t total_clusters;
    uint8_t *cluster; /* scratch */
};

void qcow2_create_defaults(struct qcow2_create_options *options)
{
    *options = (struct qcow2_create_options){
        .version = 3,
        .cluster_bytes = UINT64_C(1) << QCOW2_CLUSTER_BITS_DEFAULT,
        .refcount_width = 16,
    };
}

/* --- what can be created --- */

static int check_version(const struct qcow2_create_options *options, struct error *err)
{
    static const char want[] = "compatibility level 1.1 and above (use version=v3 or greater)";
    if (options->version >= 3)
        return 0;
    if (options->extended_l2)
        return error_set(err, EINVAL, "Extended L2 entries are only supported with %s", want);
    if (options->lazy_refcounts)
        return error_set(err, EINVAL, "Lazy refcounts only supported with %s", want);
    if (options->refcount_width != 16)
        return error_set(err, EINVAL,
                         "Different refcount widths than 16 bits require compatibility level 1.1 "
                         "or above (use version=v3 or greater)");
    if (options->data_file_name)
        return error_set(err, EINVAL, "External data files are only supported with %s", want);
    if (options->compression_type != QCOW2_COMPRESSION_ZLIB)
        return error_set(err, EINVAL, "Non-zlib compression type is only supported with %s", want);
    return 0;
}

static int check_names(const struct qcow2_create_options *options, struct error *err)
{
    if (options->backing_format && !options->backing_path)
        return error_set(err, EINVAL, "Backing format cannot be used without backing file");
    if (options->backing_path && strlen(options->backing_path) > QCOW2_BACKING_PATH_MAX)
        return error_set(err, EINVAL, "Backing file name too long: at most %d bytes",
                         QCOW2_BACKING_PATH_MAX);
    if (options->backing_format && strlen(options->backing_format) > QCOW2_BACKING_FORMAT_MAX)
        return error_set(err, EINVAL, "Backing format name too long: at most %d bytes",
                         QCOW2_BACKING_FORMAT_MAX);
    if (options->data_file_raw && !options->data_file_name)
        return error_set(err, EINVAL, "data-file-raw requires data-file");
    if (options->data_file_raw && options->backing_path)
        return error_set(err, EINVAL,
                         "Backing file and data-file-raw cannot be used at the same time");
    if (options->data_file_name && strlen(options->data_file_name) > QCOW2_DATA_FILE_NAME_MAX)
        return error_set(err, EINVAL, "Data file name too long: at most %d bytes",
                         QCOW2_DATA_FILE_NAME_MAX);
    return 0;
}

int qcow2_create_check(const struct qcow2_create_options *options, struct error *err)
{
    uint64_t cluster_bytes = options->cluster_bytes;
    if (!is_power_of_2(cluster_bytes) || cluster_bytes < 1u << QCOW2_CLUSTER_BITS_MIN ||
        cluster_bytes > 1u << QCOW2_CLUSTER_BITS_MAX)
        return error_set(err, EINVAL, "Cluster size must be a power of two between %d and %dk",
                         1 << QCOW2_CLUSTER_BITS_MIN, 1 << (QCOW2_CLUSTER_BITS_MAX - 10));
    if (!is_power_of_2(options->refcount_width) || options->refcount_width > 64)
        return error_set(err, EINVAL,
                         "Refcount width must be a power of two and may not exceed 64 bits");
    int result = check_version(options, err);
    if (result)
        return result;
    if (options->extended_l2 && cluster_bytes < 1u << QCOW2_CLUSTER_BITS_EXTENDED_L2)
        return error_set(
            err, EINVAL,
            "Extended L2 entries are only supported with cluster sizes of at least %u bytes",
            1u << QCOW2_CLUSTER_BITS_EXTENDED_L2);
    if (options->backing_path && options->preallocation != QCOW2_PREALLOC_OFF &&
        !options->extended_l2)
        return error_set(err, EINVAL,
                         "Backing file and preallocation can only be used at the same time if "
                         "extended_l2 is on");
    return check_names(options, err);
}

/* --- layout --- */

static int too_large(struct error *err)
{
    return error_set(err, EFBIG,
                     "The image size is too large for file format 'qcow2' (try using a larger "
                     "cluster size)");
}

/* The length was checked; NULL gives the empty string. */
static void copy_name(char *to, size_t room, const char *name)
{
    snprintf(to, room, "%s", name ? name : "");
}

int qcow2_create_header(const struct qcow2_create_options *options, struct qcow2_header *header,
                        struct error *err)
{
    header->version = options->version;
    header->cluster_bits = (uint32_t)__builtin_ctzll(options->cluster_bytes);
    header->refcount_order = (uint32_t)__builtin_ctzll(options->refcount_width);
    header->compression_type = (uint8_t)options->compression_type;
    if (options->compression_type != QCOW2_COMPRESSION_ZLIB)
        header->incompatible |= QCOW2_INCOMPAT_COMPRESSION;
    if (options->extended_l2)
        header->incompatible |= QCOW2_INCOMPAT_EXTENDED_L2;
    if (options->data_file_name)
        header->incompatible |= QCOW2_INCOMPAT_DATA_FILE;
    if (options->data_file_raw)
        header->autoclear |= QCOW2_AUTOCLEAR_RAW_DATA;
    if (options->lazy_refcounts)
        header->compatible |= QCOW2_COMPAT_LAZY_REFCOUNTS;
    header->has_backing = options->backing_path;
    copy_name(header->backing_path, sizeof(header->backing_path), options->backing_path);
    header->has_backing_format = options->backing_format;
    copy_name(header->backing_format, sizeof(header->backing_format), options->backing_format);
    header->has_data_file_name = options->data_file_name;
    copy_name(header->data_file_name, sizeof(header->data_file_name), options->data_file_name);
    if (options->size_bytes > (uint64_t)INT64_MAX - 511)
        return error_set(err, EFBIG, "The image size is too large");
    header->size_bytes = align_up(options->size_bytes, 512);
    uint64_t l1_entries = qcow2_l1_entries_for(header, header->size_bytes);
    if (l1_entries > QCOW2_L1_BYTES_MAX / 8)
        return too_large(err);
    header->l1_entries = (uint32_t)l1_entries;
    return 0;
}

/* Refcount blocks must count themselves and their table: grows both until that holds. */
static void place_refcounts(struct layout *layout, uint64_t other_clusters)
{
    struct qcow2_header *header = &layout->header;
    uint64_t per_block = qcow2_refcount_entries(header->cluster_bits, header->refcount_order);
    uint64_t per_table_cluster = layout->cluster_bytes / 8;
    uint64_t blocks = 1;
    uint64_t table_clusters = 1;
    for (;;) {
        uint64_t total = 1 + table_clusters + blocks + other_clusters;
        uint64_t blocks_needed = (total + per_block - 1) / per_block;
        uint64_t table_needed = (blocks_needed + per_table_cluster - 1) / per_table_cluster;
        if (blocks_needed <= blocks && table_needed <= table_clusters)
            break;
        blocks = MAX(blocks, blocks_needed);
        table_clusters = MAX(table_clusters, table_needed);
    }
    header->reftable_offset = layout->cluster_bytes;
    header->reftable_clusters = (uint32_t)table_clusters;
    layout->refblocks = blocks;
    layout->refblocks_offset = header->reftable_offset + table_clusters * layout->cluster_bytes;
    layout->total_clusters = 1 + table_clusters + blocks + other_clusters;
}

static int plan(const struct qcow2_create_options *options, struct layout *layout,
                struct error *err)
{
    struct qcow2_header *header = &layout->header;
    int result = qcow2_create_header(options, header, err);
    if (result)
        return result;
    layout->cluster_bytes = qcow2_cluster_bytes(header);
    layout->l1_bytes = (uint64_t)header->l1_entries * 8;
    layout->guest_clusters = (header->size_bytes >> header->cluster_bits) +
                             !is_aligned(header->size_bytes, layout->cluster_bytes);
    if (options->preallocation != QCOW2_PREALLOC_OFF || options->data_file_raw)
        layout->l2_tables = header->l1_entries;
    if (layout->l2_tables && !options->data_file_name)
        layout->data_clusters = layout->guest_clusters;
    uint64_t l1_clusters =
        align_up(layout->l1_bytes, layout->cluster_bytes) >> header->cluster_bits;
    place_refcounts(layout, l1_clusters + layout->l2_tables + layout->data_clusters);
    if ((uint64_t)header->reftable_clusters << header->cluster_bits > QCOW2_REFTABLE_BYTES_MAX)
        return too_large(err);
    header->l1_offset = layout->refblocks_offset + layout->refblocks * layout->cluster_bytes;
    layout->l2_offset = header->l1_offset + l1_clusters * layout->cluster_bytes;
    layout->data_offset = layout->l2_offset + layout->l2_tables * layout->cluster_bytes;
    if (!header->l1_entries)
        header->l1_offset = 0;
    return 0;
}

/* --- writing --- */

/* Big-endian numbers from `first` in steps, `count` of them, zeroes after, in whole clusters. */
static int write_pointers(struct io_file *file, struct layout *layout, uint64_t at, uint64_t count,
                          uint64_t first, uint64_t step, uint64_t bytes)
{
    uint64_t per_cluster = layout->cluster_bytes / 8;
    uint64_t index = 0;
    for (uint64_t done = 0; done < bytes; done += layout->cluster_bytes) {
        memset(layout->cluster, 0, layout->cluster_bytes);
        for (uint64_t i = 0; i < per_cluster && index < count; i++, index++)
            store_be64(layout->cluster + i * 8, first + index * step);
        int result = io_write_now(file, at + done, layout->cluster,
                                  MIN(layout->cluster_bytes, bytes - done));
        if (result)
            return result;
    }
    return 0;
}

static int write_refblocks(struct io_file *file, struct layout *layout)
{
    const struct qcow2_header *header = &layout->header;
    uint64_t per_block = qcow2_refcount_entries(header->cluster_bits, header->refcount_order);
    uint64_t left = layout->total_clusters;
    for (uint64_t block = 0; block < layout->refblocks; block++) {
        uint64_t used = MIN(left, per_block);
        memset(layout->cluster, 0, layout->cluster_bytes);
        for (uint64_t i = 0; i < used; i++)
            qcow2_refcount_set(layout->cluster, header->refcount_order, i, 1);
        left -= used;
        int result = io_write_now(file, layout->refblocks_offset + block * layout->cluster_bytes,
                                  layout->cluster, layout->cluster_bytes);
        if (result)
            return result;
    }
    return 0;
}

static int write_l2_tables(struct io_file *file, struct layout *layout)
{
    const struct qcow2_header *header = &layout->header;
    bool is_external = header->incompatible & QCOW2_INCOMPAT_DATA_FILE;
    uint64_t base = is_external ? 0 : layout->data_offset;
    uint64_t entry_bytes = qcow2_has_extended_l2(header) ? 16 : 8;
    uint64_t per_table = UINT64_C(1) << qcow2_l2_bits(header);
    uint64_t index = 0;
    for (uint64_t table = 0; table < layout->l2_tables; table++) {
        memset(layout->cluster, 0, layout->cluster_bytes);
        /* With extended L2 the bitmap stays zero: space is set aside, nothing is allocated. */
        for (uint64_t i = 0; i < per_table && index < layout->guest_clusters; i++, index++)
            store_be64(layout->cluster + i * entry_bytes,
                       (base + index * layout->cluster_bytes) | QCOW2_ENTRY_COPIED);
        int result = io_write_now(file, layout->l2_offset + table * layout->cluster_bytes,
                                  layout->cluster, layout->cluster_bytes);
        if (result)
            return result;
    }
    return 0;
}

static int write_zeroes(struct io_file *file, uint64_t offset, uint64_t bytes)
{
    uint8_t *zeroes = calloc(1, FILL_CHUNK_BYTES);
    int result = zeroes ? 0 : -ENOMEM;
    while (!result && bytes) {
        uint64_t chunk = MIN(bytes, FILL_CHUNK_BYTES);
        result = io_write_now(file, offset, zeroes, chunk);
        offset += chunk;
        bytes -= chunk;
    }
    free(zeroes);
    return result;
}

int qcow2_create_extend(struct io_file *file, enum qcow2_preallocation mode, uint64_t offset,
                        uint64_t bytes)
{
    uint64_t length;
    int result = io_length(file, &length);
    if (!result && length < offset + bytes)
        result = io_truncate_now(file, offset + bytes);
    if (result || !bytes)
        return result;
    if (mode == QCOW2_PREALLOC_FALLOC && file->fd >= 0)
        return -posix_fallocate(file->fd, (off_t)offset, (off_t)bytes);
    if (mode == QCOW2_PREALLOC_FULL)
        return write_zeroes(file, offset, bytes);
    return 0;
}

static int write_tables(struct io_file *file, struct layout *layout)
{
    const struct qcow2_header *header = &layout->header;
    uint64_t reftable_bytes = header->reftable_clusters * layout->cluster_bytes;
    int result = write_pointers(file, layout, header->reftable_offset, layout->refblocks,
                                layout->refblocks_offset, layout->cluster_bytes, reftable_bytes);
    if (!result)
        result = write_refblocks(file, layout);
    if (!result)
        result = write_pointers(file, layout, header->l1_offset, layout->l2_tables,
                                layout->l2_offset | QCOW2_ENTRY_COPIED, layout->cluster_bytes,
                                layout->l1_bytes);
    if (!result)
        result = write_l2_tables(file, layout);
    return result;
}

static int write_image(struct io_file *file, struct io_file *data_file, struct layout *layout,
                       enum qcow2_preallocation mode, struct error *err)
{
    int result = write_tables(file, layout);
    if (!result && layout->data_clusters)
        result =
            qcow2_create_extend(file, mode, layout->data_offset, layout->data_clusters * layout->cluster_bytes);
    if (!result && data_file)
        result = qcow2_create_extend(data_file, mode, 0, layout->header.size_bytes);
    if (result)
        return error_set_errno(err, -result, "Could not write the image");
    return qcow2_header_write(file, &layout->header, err);
}

int qcow2_create(struct io_file *file, struct io_file *data_file,
                 const struct qcow2_create_options *options, struct error *err)
{
    struct layout layout = {0};
    int result = qcow2_create_check(options, err);
    if (!result)
        result = plan(options, &layout, err);
    if (result)
        return result;
    layout.cluster = malloc(layout.cluster_bytes);
    if (!layout.cluster)
        return error_set(err, ENOMEM, "out of memory");
    result = write_image(file, data_file, &layout, options->preallocation, err);
    free(layout.cluster);
    return result;
}

int qcow2_create_measure(const struct qcow2_create_options *options, uint64_t *metadata_bytes,
                         struct error *err)
{
    struct qcow2_create_options full = *options;
    struct layout layout = {0};
    full.preallocation = QCOW2_PREALLOC_METADATA;
    int result = plan(&full, &layout, err);
    if (!result)
        *metadata_bytes = (layout.total_clusters - layout.data_clusters) * layout.cluster_bytes;
    return result;
}
