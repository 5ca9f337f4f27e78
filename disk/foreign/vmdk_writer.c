/* SPDX-License-Identifier: MIT */
/*
 * vmdk_writer: new VMDK images of one file. monolithicSparse has its (two) directories and tables
 * before the data; streamOptimized has compressed grains, each table behind its grains, and the
 * directory with a footer at the end, so that only one table is in memory. Source: VMware Virtual
 * Disk Format 1.1.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zlib.h>

#include "base/bytes.h"
#include "disk/foreign/foreign_writer_private.h"

#define SECTOR             512u
#define GRAIN_BYTES        65536u
#define TABLE_ENTRIES      512u
#define TABLE_BYTES        (TABLE_ENTRIES * 4)
#define COVERED            ((uint64_t)GRAIN_BYTES * TABLE_ENTRIES)
#define DESCRIPTOR_SECTORS 20u
#define DESCRIPTOR_BYTES   (DESCRIPTOR_SECTORS * SECTOR)
#define MARKER_BYTES       12u        /* before a grain's data */
#define SECTORS_MAX        UINT32_MAX /* what a table entry can point to */

enum marker { MARKER_END, MARKER_TABLE, MARKER_DIRECTORY, MARKER_FOOTER };

struct vmdk_writer {
    bool is_stream;
    char *name; /* of the file, without its directory */
    uint32_t tables;
    uint64_t backup_at, directory_at, tables_at; /* monolithicSparse */
    uint64_t table_index;                        /* of `table` */
    bool is_table_used;
    uint8_t table[TABLE_BYTES];
    uint8_t *directory; /* streamOptimized: as in the file */
};

/* --- placing --- */

static int write_marker(struct foreign_writer *writer, enum marker type, uint64_t sectors)
{
    uint8_t marker[SECTOR] = {0};
    store_le64(marker, sectors);
    store_le32(marker + 12, type);
    uint64_t at = writer->end;
    writer->end += SECTOR;
    return io_write_now(writer->file, at, marker, sizeof(marker));
}

static int flush_table(struct foreign_writer *writer)
{
    struct vmdk_writer *vmdk = writer->format;
    uint64_t place = vmdk->tables_at + vmdk->table_index * TABLE_BYTES;
    if (!vmdk->is_table_used)
        return 0;
    vmdk->is_table_used = false;
    if (!vmdk->is_stream) {
        uint64_t backup = place + (uint64_t)vmdk->tables * TABLE_BYTES;
        int failed = io_write_now(writer->file, place, vmdk->table, TABLE_BYTES);
        return failed ? failed : io_write_now(writer->file, backup, vmdk->table, TABLE_BYTES);
    }
    int result = write_marker(writer, MARKER_TABLE, TABLE_BYTES / SECTOR);
    if (!result)
        result = io_write_now(writer->file, writer->end, vmdk->table, TABLE_BYTES);
    if (writer->end / SECTOR > SECTORS_MAX)
        return -EFBIG;
    store_le32(vmdk->directory + vmdk->table_index * 4, (uint32_t)(writer->end / SECTOR));
    writer->end += TABLE_BYTES;
    return result;
}

static int vmdk_place(struct foreign_writer *writer, uint64_t index, uint32_t bytes,
                      uint64_t *host_offset)
{
    struct vmdk_writer *vmdk = writer->format;
    if (index / TABLE_ENTRIES != vmdk->table_index || !vmdk->is_table_used) {
        int result = flush_table(writer);
        if (result)
            return result;
        memset(vmdk->table, 0, sizeof(vmdk->table));
        vmdk->table_index = index / TABLE_ENTRIES;
        vmdk->is_table_used = true;
    }
    if (writer->end / SECTOR > SECTORS_MAX)
        return -EFBIG;
    store_le32(vmdk->table + index % TABLE_ENTRIES * 4, (uint32_t)(writer->end / SECTOR));
    *host_offset = writer->end;
    writer->end += bytes;
    return 0;
}

/* Marker and zlib stream, filled up to a sector. */
static uint32_t vmdk_pack(const struct foreign_writer *writer, uint64_t index, const void *unit,
                          void *out)
{
    uLongf bytes = writer->packed_room - MARKER_BYTES;
    uint8_t *marker = out;
    if (compress2(marker + MARKER_BYTES, &bytes, unit, GRAIN_BYTES, Z_DEFAULT_COMPRESSION) != Z_OK)
        return 0;
    store_le64(marker, index * (GRAIN_BYTES / SECTOR));
    store_le32(marker + 8, (uint32_t)bytes);
    uint32_t total = (uint32_t)bytes + MARKER_BYTES;
    uint32_t whole = (uint32_t)align_up(total, SECTOR);
    memset(marker + total, 0, whole - total);
    return whole;
}

/* --- headers --- */

static int make_descriptor(const struct foreign_writer *writer, char *out)
{
    const struct vmdk_writer *vmdk = writer->format;
    uint64_t sectors = writer->size_bytes / SECTOR, cylinders = MIN(sectors / (16 * 63), 16383u);
    uint32_t cid;
    if (getrandom(&cid, sizeof(cid), 0) != sizeof(cid))
        return -EIO;
    int length =
        snprintf(out, DESCRIPTOR_BYTES,
                 "# Disk DescriptorFile\nversion=1\nCID=%08" PRIx32
                 "\nparentCID=ffffffff\ncreateType=\"%s\"\n\n"
                 "# Extent description\nRW %" PRIu64 " SPARSE \"%s\"\n\n"
                 "# The Disk Data Base\n#DDB\n\n"
                 "ddb.virtualHWVersion = \"4\"\n"
                 "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
                 "ddb.geometry.heads = \"16\"\n"
                 "ddb.geometry.sectors = \"63\"\n"
                 "ddb.adapterType = \"ide\"\n",
                 cid & 0x7fffffff, vmdk->is_stream ? "streamOptimized" : "monolithicSparse",
                 sectors, vmdk->name, cylinders);
    return length < (int)DESCRIPTOR_BYTES ? 0 : -ENAMETOOLONG;
}

static void make_header(const struct foreign_writer *writer, uint64_t directory_sector,
                        uint8_t *header)
{
    const struct vmdk_writer *vmdk = writer->format;
    memset(header, 0, SECTOR);
    memcpy(header, "KDMV", 4);
    store_le32(header + 4, vmdk->is_stream ? 3 : 1);
    store_le32(header + 8,
               vmdk->is_stream ? 0x30001 : 3); /* newline test; packed, markers; backup */
    store_le64(header + 12, writer->size_bytes / SECTOR);
    store_le64(header + 20, GRAIN_BYTES / SECTOR);
    store_le64(header + 28, 1);
    store_le64(header + 36, DESCRIPTOR_SECTORS);
    store_le32(header + 44, TABLE_ENTRIES);
    store_le64(header + 48, vmdk->backup_at / SECTOR);
    store_le64(header + 56, directory_sector);
    store_le64(header + 64, GRAIN_BYTES / SECTOR);
    memcpy(header + 73, "\n \r\n", 4);
    store_le16(header + 77, vmdk->is_stream ? 1 : 0);
}

static uint64_t directory_bytes(const struct vmdk_writer *vmdk)
{
    return align_up((uint64_t)vmdk->tables * 4, SECTOR);
}

/* The directory, then the header once more as a footer, then the end. */
static int finish_stream(struct foreign_writer *writer)
{
    const struct vmdk_writer *vmdk = writer->format;
    uint8_t footer[SECTOR];
    uint64_t bytes = directory_bytes(vmdk);
    int result = write_marker(writer, MARKER_DIRECTORY, bytes / SECTOR);
    uint64_t directory_at = writer->end;
    if (!result)
        result = io_write_now(writer->file, directory_at, vmdk->directory, bytes);
    writer->end += bytes;
    if (!result)
        result = write_marker(writer, MARKER_FOOTER, 1);
    make_header(writer, directory_at / SECTOR, footer);
    if (!result)
        result = io_write_now(writer->file, writer->end, footer, sizeof(footer));
    writer->end += sizeof(footer);
    return result ? result : write_marker(writer, MARKER_END, 0);
}

static int write_directory(struct foreign_writer *writer, uint64_t at, uint64_t tables_at)
{
    struct vmdk_writer *vmdk = writer->format;
    for (uint32_t i = 0; i < vmdk->tables; i++)
        store_le32(vmdk->directory + (uint64_t)i * 4,
                   (uint32_t)((tables_at + (uint64_t)i * TABLE_BYTES) / SECTOR));
    return io_write_now(writer->file, at, vmdk->directory, directory_bytes(vmdk));
}

static int finish_sparse(struct foreign_writer *writer)
{
    struct vmdk_writer *vmdk = writer->format;
    uint64_t backup_tables = vmdk->tables_at + (uint64_t)vmdk->tables * TABLE_BYTES;
    int result = write_directory(writer, vmdk->backup_at, backup_tables);
    if (!result)
        result = write_directory(writer, vmdk->directory_at, vmdk->tables_at);
    return result ? result : io_truncate_now(writer->file, writer->end);
}

static int vmdk_finish(struct foreign_writer *writer)
{
    const struct vmdk_writer *vmdk = writer->format;
    char descriptor[DESCRIPTOR_BYTES] = "";
    uint8_t header[SECTOR];
    int result = flush_table(writer);
    if (!result)
        result = vmdk->is_stream ? finish_stream(writer) : finish_sparse(writer);
    if (!result)
        result = make_descriptor(writer, descriptor);
    if (!result)
        result = io_write_now(writer->file, SECTOR, descriptor, sizeof(descriptor));
    make_header(writer, vmdk->is_stream ? UINT64_MAX : vmdk->directory_at / SECTOR, header);
    return result ? result : io_write_now(writer->file, 0, header, sizeof(header));
}

/* --- starting --- */

static void lay_out(struct foreign_writer *writer)
{
    struct vmdk_writer *vmdk = writer->format;
    uint64_t at = SECTOR + DESCRIPTOR_BYTES;
    if (!vmdk->is_stream) {
        vmdk->backup_at = at;
        vmdk->directory_at = at + directory_bytes(vmdk);
        vmdk->tables_at = vmdk->directory_at + directory_bytes(vmdk);
        at = vmdk->tables_at + (uint64_t)vmdk->tables * TABLE_BYTES * 2;
    }
    writer->end = align_up(at, GRAIN_BYTES);
}

static int vmdk_start(struct foreign_writer *writer, const struct foreign_writer_options *options,
                      struct error *err)
{
    const char *subformat = options->subformat ? options->subformat : "monolithicSparse";
    const char *slash = strrchr(options->path, '/');
    bool is_stream = !strcmp(subformat, "streamOptimized");
    if (!is_stream && strcmp(subformat, "monolithicSparse"))
        return error_set(err, ENOTSUP,
                         "VMDK subformat '%s' is not written; use streamOptimized or "
                         "monolithicSparse",
                         subformat);
    if (options->size_bytes / SECTOR >= SECTORS_MAX)
        return error_set(err, EFBIG, "a VMDK image in one file holds less than 2 TiB");
    if (!options->size_bytes)
        return error_set(err, EINVAL, "an empty disk cannot be a VMDK image; give it a size");
    struct vmdk_writer *vmdk = writer->format = calloc(1, sizeof(*vmdk));
    if (!vmdk)
        return error_set(err, ENOMEM, "no memory to write '%s'", options->path);
    writer->size_bytes = align_up(options->size_bytes, SECTOR);
    vmdk->is_stream = is_stream;
    vmdk->tables = (uint32_t)((writer->size_bytes + COVERED - 1) / COVERED);
    vmdk->directory = calloc(1, directory_bytes(vmdk) + SECTOR);
    vmdk->name = strdup(slash ? slash + 1 : options->path);
    if (!vmdk->directory || !vmdk->name)
        return error_set(err, ENOMEM, "no memory to write '%s'", options->path);
    writer->unit_bytes = GRAIN_BYTES;
    if (is_stream)
        writer->packed_room = (uint32_t)align_up(compressBound(GRAIN_BYTES) + MARKER_BYTES, SECTOR);
    lay_out(writer);
    return 0;
}

static void vmdk_writer_free(struct foreign_writer *writer)
{
    struct vmdk_writer *vmdk = writer->format;
    free(vmdk->directory);
    free(vmdk->name);
    free(vmdk);
}

const struct foreign_writer_ops foreign_vmdk_writer = {
    .format = "vmdk",
    .start = vmdk_start,
    .place = vmdk_place,
    .pack = vmdk_pack,
    .finish = vmdk_finish,
    .free = vmdk_writer_free,
};
