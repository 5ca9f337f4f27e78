/* SPDX-License-Identifier: MIT */
/*
 * vmdk: VMware's disk images: one sparse file (with an embedded descriptor), a stream-optimized one
 * (compressed grains, the directory in a footer), or a descriptor beside flat and sparse extents.
 * A sparse extent is a directory of tables of grains, all in sectors of 512 bytes.
 */
#include "disk/foreign/vmdk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "disk/lock.h"

#define VMDK_HEADER_BYTES 512u
#define VMDK_GRAIN_MAX    (UINT64_C(0x200000) * 512)
#define VMDK_AT_END       UINT64_MAX /* the directory is named by the footer */
#define VMDK_SECTORS_MAX  (FOREIGN_SIZE_MAX / 512)

enum {
    VMDK_AT_VERSION = 4,
    VMDK_AT_FLAGS = 8,
    VMDK_AT_CAPACITY = 12,
    VMDK_AT_GRAIN = 20,
    VMDK_AT_DESCRIPTOR = 28,
    VMDK_AT_DESCRIPTOR_SIZE = 36,
    VMDK_AT_TABLE_ENTRIES = 44,
    VMDK_AT_DIRECTORY = 56,
    VMDK_AT_OVERHEAD = 64,
    VMDK_AT_NEWLINES = 73,
    VMDK_AT_COMPRESSION = 77,
};

enum {
    VMDK_FLAG_ZERO_GRAIN = 1 << 2,
    VMDK_FLAG_COMPRESSED = 1 << 16,
    VMDK_FLAG_MARKERS = 1 << 17,
};

/* --- sparse extents --- */

static const char *path_of(const struct foreign *foreign, const struct vmdk_extent *extent)
{
    return foreign->files[extent->file].path;
}

/* A footer is the header once more, between a marker of its own and the end-of-stream marker. */
static int read_footer(struct foreign *foreign, const struct vmdk_extent *extent, uint8_t *header,
                       struct error *err)
{
    uint8_t end[3 * 512];
    uint64_t length = foreign->files[extent->file].length_bytes;
    int result = foreign_read(foreign, extent->file, length - sizeof(end), end, sizeof(end), err);
    if (result)
        return result;
    bool is_footer = load_le32(end + 8) == 0 && load_le32(end + 12) == 3;
    bool is_end = !load_le64(end + 1024) && !load_le32(end + 1032) && !load_le32(end + 1036);
    if (!is_footer || !is_end || memcmp(end + 512, "KDMV", 4))
        return foreign_refuse(foreign, err,
                              "'%s' is cut short: the footer with its grain directory is missing; "
                              "take another copy of it",
                              path_of(foreign, extent));
    memcpy(header, end + 512, VMDK_HEADER_BYTES);
    return 0;
}

static int check_header(struct foreign *foreign, const struct vmdk_extent *extent,
                        const uint8_t *header, struct error *err)
{
    static const uint8_t newlines[] = {'\n', ' ', '\r', '\n'};
    if (!memcmp(header, "COWD", 4))
        return foreign_refuse(foreign, err,
                              "'%s' is in the old COWD format of ESX, which is not supported; "
                              "clone it with vmkfstools -i",
                              path_of(foreign, extent));
    if (memcmp(header, "KDMV", 4))
        return foreign_refuse(foreign, err, "'%s' is not in VMDK format", path_of(foreign, extent));
    uint32_t version = load_le32(header + VMDK_AT_VERSION);
    if (version < 1 || version > 3)
        return foreign_refuse(foreign, err, "VMDK version %u is not known", version);
    if (memcmp(header + VMDK_AT_NEWLINES, newlines, sizeof(newlines)))
        return foreign_refuse(foreign, err,
                              "'%s' was changed by a transfer in text mode; copy it again in "
                              "binary mode",
                              path_of(foreign, extent));
    return 0;
}

static int check_grains(struct foreign *foreign, const struct vmdk_extent *extent,
                        uint64_t grain_sectors, uint16_t compression, struct error *err)
{
    uint64_t most = extent->is_packed ? FOREIGN_PACKED_MAX : VMDK_GRAIN_MAX;
    if (!is_power_of_2(grain_sectors) || grain_sectors > most / 512)
        return foreign_refuse(foreign, err,
                              "'%s' has a grain size of %llu sectors, which is not "
                              "allowed",
                              path_of(foreign, extent), (unsigned long long)grain_sectors);
    if (extent->table_entries < 1 || extent->table_entries > 512)
        return foreign_refuse(foreign, err, "'%s' has grain tables of %u entries, not 512",
                              path_of(foreign, extent), extent->table_entries);
    if (extent->is_packed && compression > 1)
        return foreign_refuse(foreign, err, "'%s' is compressed by unknown method %u",
                              path_of(foreign, extent), compression);
    return 0;
}

static int take_directory(struct foreign *foreign, struct vmdk_extent *extent,
                          const uint8_t *header, struct error *err)
{
    uint64_t sector = load_le64(header + VMDK_AT_DIRECTORY);
    uint64_t covers = (uint64_t)extent->grain_bytes * extent->table_entries;
    uint64_t length = foreign->files[extent->file].length_bytes;
    extent->directory_entries = (extent->bytes + covers - 1) / covers;
    extent->directory_offset = sector * 512;
    if (sector > length / 512 || !range_fits(sector * 512, extent->directory_entries * 4, length))
        return foreign_refuse(foreign, err,
                              "'%s' is cut short: its grain directory lies outside of the file; "
                              "take another copy of it",
                              path_of(foreign, extent));
    return 0;
}

/* Reads the header of a sparse extent and checks it. */
static int open_sparse(struct foreign *foreign, struct vmdk_extent *extent,
                       uint64_t *descriptor_offset, uint64_t *descriptor_bytes, struct error *err)
{
    uint8_t header[VMDK_HEADER_BYTES];
    int result = foreign_read(foreign, extent->file, 0, header, sizeof(header), err);
    if (!result)
        result = check_header(foreign, extent, header, err);
    if (result)
        return result;
    uint64_t place = load_le64(header + VMDK_AT_DESCRIPTOR);
    uint64_t size = load_le64(header + VMDK_AT_DESCRIPTOR_SIZE);
    *descriptor_offset = place <= INT32_MAX ? place * 512 : 0;
    *descriptor_bytes = MIN(size, FOREIGN_HEADER_TEXT / 512) * 512;
    if (load_le64(header + VMDK_AT_DIRECTORY) == VMDK_AT_END) {
        result = read_footer(foreign, extent, header, err);
        if (!result)
            result = check_header(foreign, extent, header, err);
        if (result)
            return result;
    }
    uint64_t capacity = load_le64(header + VMDK_AT_CAPACITY);
    uint64_t grain_sectors = load_le64(header + VMDK_AT_GRAIN);
    uint32_t flags = load_le32(header + VMDK_AT_FLAGS);
    uint16_t compression = load_le16(header + VMDK_AT_COMPRESSION);
    extent->kind = VMDK_SPARSE;
    extent->table_entries = load_le32(header + VMDK_AT_TABLE_ENTRIES);
    extent->is_packed = compression || flags & VMDK_FLAG_COMPRESSED;
    extent->has_marker = flags & VMDK_FLAG_MARKERS;
    extent->has_zero_grains = flags & VMDK_FLAG_ZERO_GRAIN;
    result = check_grains(foreign, extent, grain_sectors, compression, err);
    if (result)
        return result;
    if (capacity > VMDK_SECTORS_MAX)
        return foreign_refuse(foreign, err, "'%s' has %llu sectors, which is too many",
                              path_of(foreign, extent), (unsigned long long)capacity);
    extent->grain_bytes = (uint32_t)grain_sectors * 512;
    extent->bytes = capacity * 512;
    return take_directory(foreign, extent, header, err);
}

/* A new last extent of the disk; NULL after saying why not. */
static struct vmdk_extent *add_extent(struct foreign *foreign, struct vmdk *vmdk, uint32_t file,
                                      struct error *err)
{
    struct vmdk_extent *extents =
        realloc(vmdk->extents, (vmdk->extent_count + 1) * sizeof(*extents));
    if (!extents || vmdk->extent_count == FOREIGN_FILES_MAX) {
        vmdk->extents = extents ? extents : vmdk->extents;
        error_set(err, EINVAL, "image '%s': it has more than %u extents", foreign_path(foreign),
                  FOREIGN_FILES_MAX);
        return NULL;
    }
    vmdk->extents = extents;
    struct vmdk_extent *extent = &extents[vmdk->extent_count++];
    *extent = (struct vmdk_extent){.file = file, .start = foreign->size_bytes, .type = ""};
    return extent;
}

/* --- opening --- */

static int open_single(struct foreign *foreign, struct vmdk *vmdk, struct error *err)
{
    uint64_t offset, bytes;
    struct vmdk_extent *extent = add_extent(foreign, vmdk, 0, err);
    int result = extent ? open_sparse(foreign, extent, &offset, &bytes, err) : -EINVAL;
    if (result)
        return result;
    foreign->size_bytes = extent->bytes;
    foreign->cluster_bytes = extent->grain_bytes;
    if (!offset || !bytes)
        return foreign_refuse(foreign, err,
                              "it is one extent of a larger image; name the small .vmdk beside it "
                              "that describes all of them");
    char *text = calloc(1, bytes + 1);
    if (!text)
        return error_set(err, ENOMEM, "no memory to open '%s'", foreign_path(foreign));
    result = foreign_read(foreign, 0, offset, text, bytes, err);
    if (!result)
        result = vmdk_descriptor_read(foreign, vmdk, text, err);
    free(text);
    return result;
}

static int open_beside(struct foreign *foreign, const struct foreign_options *options,
                       const char *name, uint32_t *index, struct error *err)
{
    const char *path = foreign_path(foreign), *slash = strrchr(path, '/');
    struct io_options io = options->io;
    struct io_file *file;
    char *beside;
    if (strchr(name, '/'))
        return foreign_refuse(foreign, err,
                              "its extent '%s' is not in the same directory; put it there and "
                              "correct the descriptor",
                              name);
    if (asprintf(&beside, "%.*s%s", slash ? (int)(slash - path + 1) : 0, path, name) < 0)
        return error_set(err, ENOMEM, "no memory to open '%s'", path);
    io.read_only = true;
    int result = io_open(foreign->loop, beside, &io, &file, err);
    if (!result) {
        result = options->no_lock ? 0 : lock_image(file, beside, true, err);
        if (!result)
            result = foreign_add_file(foreign, file, beside, err);
        if (result < 0)
            io_close(file, NULL, NULL);
    }
    free(beside);
    if (result < 0)
        return result;
    *index = (uint32_t)result;
    return 0;
}

static int open_flat(struct foreign *foreign, struct vmdk_extent *extent,
                     const struct vmdk_line *line, struct error *err)
{
    uint64_t length = foreign->files[extent->file].length_bytes;
    extent->kind = VMDK_FLAT;
    extent->flat_offset = MIN(line->offset_sectors, VMDK_SECTORS_MAX) * 512;
    if (!range_fits(extent->flat_offset, extent->bytes, length))
        return error_set(err, EIO,
                         "image '%s': its extent '%s' is cut short: it has %llu bytes, not %llu; "
                         "take another copy of it",
                         foreign_path(foreign), line->name, (unsigned long long)length,
                         (unsigned long long)(extent->flat_offset + extent->bytes));
    return 0;
}

static int open_extent_file(struct foreign *foreign, struct vmdk_extent *extent,
                            const struct vmdk_line *line, struct error *err)
{
    uint64_t offset, bytes, wanted = extent->bytes;
    bool is_sparse = !strcmp(line->type, "SPARSE");
    extent->type = is_sparse ? "SPARSE" : !strcmp(line->type, "VMFS") ? "VMFS" : "FLAT";
    if (!is_sparse)
        return open_flat(foreign, extent, line, err);
    int result = open_sparse(foreign, extent, &offset, &bytes, err);
    if (!result && extent->bytes < wanted)
        result =
            foreign_refuse(foreign, err, "its extent '%s' is smaller than it says", line->name);
    extent->bytes = wanted;
    return result;
}

static int open_extent(struct foreign *foreign, const struct foreign_options *options,
                       const struct vmdk_line *line, struct error *err)
{
    struct vmdk *vmdk = foreign->format;
    uint32_t file = 0;
    bool is_zero = !strcmp(line->type, "ZERO");
    if (!is_zero && strcmp(line->type, "FLAT") && strcmp(line->type, "VMFS") &&
        strcmp(line->type, "SPARSE"))
        return foreign_refuse(foreign, err,
                              "its extents are of type '%s', which is not supported; clone it with "
                              "vmkfstools -i",
                              line->type);
    if (line->sectors > VMDK_SECTORS_MAX - foreign->size_bytes / 512)
        return foreign_refuse(foreign, err, "its extents are too large");
    if (vmdk->extent_count == FOREIGN_FILES_MAX)
        return foreign_refuse(foreign, err, "it has more than %u extents", FOREIGN_FILES_MAX);
    int result = is_zero ? 0 : open_beside(foreign, options, line->name, &file, err);
    struct vmdk_extent *extent = result ? NULL : add_extent(foreign, vmdk, file, err);
    if (!extent)
        return result ? result : -ENOMEM;
    extent->kind = VMDK_ZERO;
    extent->type = "ZERO";
    extent->bytes = line->sectors * 512;
    if (!is_zero)
        result = open_extent_file(foreign, extent, line, err);
    foreign->size_bytes += extent->bytes;
    foreign->cluster_bytes = MAX(foreign->cluster_bytes, extent->grain_bytes);
    return result;
}

static int open_extents(struct foreign *foreign, const struct foreign_options *options,
                        const char *text, struct error *err)
{
    struct vmdk_line line;
    bool is_bad = false;
    const struct vmdk *vmdk = foreign->format;
    while (vmdk_descriptor_next(&text, &line, &is_bad)) {
        if (is_bad)
            return foreign_refuse(foreign, err, "a line about an extent cannot be understood");
        int result = open_extent(foreign, options, &line, err);
        if (result)
            return result;
    }
    return vmdk->extent_count ? 0 : foreign_refuse(foreign, err, "it lists no extents");
}

static int open_descriptor(struct foreign *foreign, const struct foreign_options *options,
                           struct error *err)
{
    uint64_t bytes = MIN(foreign->files[0].length_bytes, FOREIGN_HEADER_TEXT);
    char *text = calloc(1, bytes + 1);
    if (!text)
        return error_set(err, ENOMEM, "no memory to open '%s'", foreign_path(foreign));
    int result = foreign_read(foreign, 0, 0, text, bytes, err);
    if (!result)
        result = vmdk_descriptor_read(foreign, foreign->format, text, err);
    if (!result)
        result = open_extents(foreign, options, text, err);
    free(text);
    return result;
}

static int vmdk_open(struct foreign *foreign, const struct foreign_options *options,
                     struct error *err)
{
    char magic[21] = "";
    uint64_t length = foreign->files[0].length_bytes;
    int result = foreign_read(foreign, 0, 0, magic, MIN(length, sizeof(magic)), err);
    if (result)
        return result;
    struct vmdk *vmdk = foreign->format = calloc(1, sizeof(*vmdk));
    if (!vmdk)
        return error_set(err, ENOMEM, "no memory to open '%s'", foreign_path(foreign));
    if (!memcmp(magic, "# Disk DescriptorFile", sizeof(magic)))
        return open_descriptor(foreign, options, err);
    return open_single(foreign, vmdk, err);
}

/* --- finding --- */

static const struct vmdk_extent *extent_at(struct vmdk *vmdk, uint64_t offset)
{
    const struct vmdk_extent *extents = vmdk->extents;
    uint32_t low = 0, high = vmdk->extent_count - 1;
    if (offset - extents[vmdk->hint].start < extents[vmdk->hint].bytes)
        return &extents[vmdk->hint];
    while (low < high) {
        uint32_t middle = (low + high + 1) / 2;
        if (extents[middle].start <= offset)
            low = middle;
        else
            high = middle - 1;
    }
    vmdk->hint = low;
    return &extents[low];
}

static int locate_grain(struct foreign *foreign, const struct vmdk_extent *extent, uint64_t sector,
                        uint64_t in_grain, struct foreign_extent *out)
{
    uint64_t bytes = out->bytes;
    if (!extent->is_packed)
        return foreign_data(foreign, extent->file, sector * 512 + in_grain, bytes, out);
    if (sector * 512 >= foreign->files[extent->file].length_bytes)
        return foreign_corrupt(foreign, "a grain at sector %llu lies outside of the file",
                               (unsigned long long)sector);
    out->kind = FOREIGN_PACKED;
    out->file = foreign->files[extent->file].file;
    out->path = path_of(foreign, extent);
    out->host_offset = sector * 512;
    out->grain_bytes = extent->grain_bytes;
    out->has_marker = extent->has_marker;
    return 0;
}

static int locate_sparse(struct foreign *foreign, const struct vmdk_extent *extent, uint64_t within,
                         uint64_t bytes, struct foreign_extent *out)
{
    uint64_t covers = (uint64_t)extent->grain_bytes * extent->table_entries;
    uint64_t in_table = within % covers, in_grain = within % extent->grain_bytes;
    const uint8_t *entry;
    int result = foreign_entry(foreign, extent->file,
                               extent->directory_offset + within / covers * 4, 4, &entry);
    if (result)
        return result;
    uint64_t table = load_le32(entry);
    *out = (struct foreign_extent){.kind = FOREIGN_ABSENT, .bytes = MIN(bytes, covers - in_table)};
    if (!table)
        return 0;
    result = foreign_entry(foreign, extent->file, table * 512 + in_table / extent->grain_bytes * 4,
                           4, &entry);
    if (result)
        return result;
    uint32_t sector = load_le32(entry);
    out->bytes = MIN(bytes, extent->grain_bytes - in_grain);
    if (!sector)
        return 0;
    if (sector == 1 && extent->has_zero_grains) {
        out->kind = FOREIGN_ZERO;
        return 0;
    }
    out->grain_offset = extent->start + within - in_grain;
    return locate_grain(foreign, extent, sector, in_grain, out);
}

static int vmdk_locate(struct foreign *foreign, uint64_t offset, uint64_t bytes,
                       struct foreign_extent *out)
{
    const struct vmdk_extent *extent = extent_at(foreign->format, offset);
    uint64_t within = offset - extent->start;
    bytes = MIN(bytes, extent->bytes - within);
    if (extent->kind == VMDK_SPARSE)
        return locate_sparse(foreign, extent, within, bytes, out);
    if (extent->kind == VMDK_FLAT) {
        int result = foreign_data(foreign, extent->file, extent->flat_offset + within, bytes, out);
        out->is_flat = true;
        return result;
    }
    *out = (struct foreign_extent){.kind = FOREIGN_ZERO, .bytes = bytes};
    return 0;
}

static void vmdk_free(struct foreign *foreign)
{
    struct vmdk *vmdk = foreign->format;
    free(vmdk->extents);
    free(vmdk);
}

const struct foreign_ops foreign_vmdk_ops = {
    .name = "vmdk",
    .open = vmdk_open,
    .locate = vmdk_locate,
    .free = vmdk_free,
};

/* --- for info --- */

bool foreign_describe(const struct foreign *foreign, struct foreign_description *out)
{
    const struct vmdk *vmdk = foreign->format;
    if (foreign->ops != &foreign_vmdk_ops)
        return false;
    *out = (struct foreign_description){vmdk->cid, vmdk->parent_cid, vmdk->create_type,
                                        vmdk->extent_count};
    return true;
}

void foreign_describe_part(const struct foreign *foreign, uint32_t index, struct foreign_part *out)
{
    const struct vmdk *vmdk = foreign->format;
    const struct vmdk_extent *extent = &vmdk->extents[index];
    *out = (struct foreign_part){
        .path = foreign->files[extent->file].path,
        .type = extent->type,
        .size_bytes = extent->bytes,
        .cluster_bytes = extent->grain_bytes,
        .is_packed = extent->is_packed,
    };
}
