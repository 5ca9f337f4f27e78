/* SPDX-License-Identifier: MIT */
/*
 * vhd_writer: new dynamic VHD images. The size field is exact; the geometry beside it is rounded as
 * the specification's appendix says. QEMU tells by the maker's name which of the two counts, so the
 * name written is Hyper-V's, of which the size counts. Source: Virtual Hard Disk Image Format
 * Specification, version 1.0.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "base/bytes.h"
#include "disk/foreign/foreign_writer_private.h"

#define VHD_FOOTER_BYTES 512u
#define VHD_HEADER_BYTES 1024u
#define VHD_TABLE_OFFSET (VHD_FOOTER_BYTES + VHD_HEADER_BYTES)
#define VHD_BLOCK_BYTES  (2u * 1024 * 1024)
#define VHD_BITMAP_BYTES (VHD_BLOCK_BYTES / 512 / 8)
#define VHD_SECTORS_MAX  UINT64_C(0xff000000) /* 2040 GiB */
#define VHD_YEAR_2000    946684800            /* its clock starts there */

struct vhd_writer {
    uint8_t *table; /* as in the file */
    uint32_t entries;
    uint64_t table_bytes;
};

static int vhd_start(struct foreign_writer *writer, const struct foreign_writer_options *options,
                     struct error *err)
{
    uint64_t size = align_up(options->size_bytes, 512);
    if (options->subformat && strcmp(options->subformat, "dynamic"))
        return error_set(err, ENOTSUP, "VHD subformat '%s' is not written; use dynamic",
                         options->subformat);
    if (!size || size / 512 > VHD_SECTORS_MAX)
        return error_set(err, EFBIG, "a VHD image holds 512 bytes to 2040 GiB; use vhdx");
    struct vhd_writer *vhd = writer->format = calloc(1, sizeof(*vhd));
    if (!vhd)
        return error_set(err, ENOMEM, "no memory to write '%s'", options->path);
    vhd->entries = (uint32_t)((size - 1) / VHD_BLOCK_BYTES + 1);
    vhd->table_bytes = align_up((uint64_t)vhd->entries * 4, 512);
    vhd->table = malloc(vhd->table_bytes);
    if (!vhd->table)
        return error_set(err, ENOMEM, "no memory to write '%s'", options->path);
    memset(vhd->table, 0xff, vhd->table_bytes);
    writer->size_bytes = size;
    writer->unit_bytes = VHD_BLOCK_BYTES;
    writer->end = VHD_TABLE_OFFSET + vhd->table_bytes;
    return 0;
}

/* A block follows its bitmap of sectors in use. */
static int vhd_place(struct foreign_writer *writer, uint64_t index, uint32_t bytes,
                     uint64_t *host_offset)
{
    struct vhd_writer *vhd = writer->format;
    uint8_t bitmap[VHD_BITMAP_BYTES];
    memset(bitmap, 0xff, sizeof(bitmap));
    int result = io_write_now(writer->file, writer->end, bitmap, sizeof(bitmap));
    store_be32(vhd->table + index * 4, (uint32_t)(writer->end / 512));
    *host_offset = writer->end + VHD_BITMAP_BYTES;
    writer->end = *host_offset + bytes;
    return result;
}

/* Cylinders, heads and sectors in a track, as they stand in the footer. */
static uint32_t geometry(uint64_t sectors)
{
    uint32_t per_track = 17, heads, tracks;
    sectors = MIN(sectors, UINT64_C(65535) * 16 * 255);
    tracks = (uint32_t)(sectors / per_track);
    heads = MAX((tracks + 1023) / 1024, 4u);
    if (tracks >= heads * 1024 || heads > 16) {
        heads = 16;
        per_track = 31;
        tracks = (uint32_t)(sectors / per_track);
        if (tracks >= heads * 1024)
            per_track = 63;
        if (sectors >= UINT64_C(65535) * 16 * 63)
            per_track = 255;
        tracks = (uint32_t)(sectors / per_track);
    }
    return tracks / heads << 16 | heads << 8 | per_track;
}

static void seal(uint8_t *data, size_t bytes, size_t at)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < bytes; i++)
        sum += data[i];
    store_be32(data + at, ~sum);
}

static int make_footer(const struct foreign_writer *writer, uint8_t *footer)
{
    memcpy(footer, "conectix", 8);
    store_be32(footer + 8, 2);
    store_be32(footer + 12, 0x00010000);
    store_be64(footer + 16, VHD_FOOTER_BYTES);
    store_be32(footer + 24, (uint32_t)(time(NULL) - VHD_YEAR_2000));
    memcpy(footer + 28, "win ", 4);
    store_be32(footer + 32, 0x00060000);
    memcpy(footer + 36, "Wi2k", 4);
    store_be64(footer + 40, writer->size_bytes);
    store_be64(footer + 48, writer->size_bytes);
    store_be32(footer + 56, geometry(writer->size_bytes / 512));
    store_be32(footer + 60, 3); /* dynamic */
    if (getrandom(footer + 68, 16, 0) != 16)
        return -EIO;
    seal(footer, VHD_FOOTER_BYTES, 64);
    return 0;
}

static int vhd_finish(struct foreign_writer *writer)
{
    const struct vhd_writer *vhd = writer->format;
    uint8_t footer[VHD_FOOTER_BYTES] = {0}, header[VHD_HEADER_BYTES] = {0};
    int result = make_footer(writer, footer);
    memcpy(header, "cxsparse", 8);
    store_be64(header + 8, UINT64_MAX);
    store_be64(header + 16, VHD_TABLE_OFFSET);
    store_be32(header + 24, 0x00010000);
    store_be32(header + 28, vhd->entries);
    store_be32(header + 32, VHD_BLOCK_BYTES);
    seal(header, sizeof(header), 36);
    if (!result)
        result = io_write_now(writer->file, VHD_TABLE_OFFSET, vhd->table, vhd->table_bytes);
    if (!result)
        result = io_write_now(writer->file, VHD_FOOTER_BYTES, header, sizeof(header));
    if (!result)
        result = io_write_now(writer->file, writer->end, footer, sizeof(footer));
    return result ? result : io_write_now(writer->file, 0, footer, sizeof(footer));
}

static void vhd_writer_free(struct foreign_writer *writer)
{
    struct vhd_writer *vhd = writer->format;
    free(vhd->table);
    free(vhd);
}

const struct foreign_writer_ops foreign_vpc_writer = {
    .format = "vpc",
    .start = vhd_start,
    .place = vhd_place,
    .finish = vhd_finish,
    .free = vhd_writer_free,
};
