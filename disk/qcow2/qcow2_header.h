/* SPDX-License-Identifier: MIT */
/*
 * qcow2_header: the first cluster of a qcow2 image as a plain struct, and back. Pure bytes: only
 * qcow2_header_read and qcow2_header_write touch a file, and only through io.
 *
 * The image is hostile. A struct that qcow2_header_parse filled keeps these promises: every table
 * is aligned, bounded, starts inside the file and does not overlap the header; the L1 table covers
 * the virtual size; strings end in NUL; no unknown incompatible feature is set. Dirty, corrupt,
 * encrypted and data-file images parse well: whether to open them is the opener's policy. What is
 * unknown and compatible (fields, extensions) is kept and written back.
 */
#ifndef DISK_QCOW2_QCOW2_HEADER_H
#define DISK_QCOW2_QCOW2_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_format.h"

struct qcow2_header {
    uint32_t version;
    uint32_t cluster_bits;
    uint64_t size_bytes;
    uint32_t crypt_method;
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible;
    uint64_t compatible;
    uint64_t autoclear;
    uint32_t refcount_order;
    uint32_t header_length;
    uint8_t compression_type;

    bool
        has_backing; /* backing_path is what the image says: an opener follows it on request only */
    bool has_backing_format;
    bool has_data_file_name;
    bool has_bitmaps;
    bool has_crypto_header;
    char backing_path[QCOW2_BACKING_PATH_MAX + 1];
    char backing_format[QCOW2_BACKING_FORMAT_MAX + 1];
    char data_file_name[QCOW2_DATA_FILE_NAME_MAX + 1];
    /* Where the name stood when parsed; serialising places it anew. */
    uint64_t backing_offset;
    uint32_t backing_bytes;

    struct {
        uint32_t count;
        uint64_t directory_bytes;
        uint64_t directory_offset;
    } bitmaps;
    struct {
        uint64_t offset;
        uint64_t bytes;
    } crypto_header;

    /* Owned copies of what this code does not know: fields past the known ones, and whole
     * extensions (type, length, padded data) one after the other. NULL if there are none. */
    uint8_t *unknown_fields;
    uint32_t unknown_fields_bytes;
    uint8_t *unknown_extensions;
    uint32_t unknown_extensions_bytes;
};

/* `length` bytes from the start of the file: all of it, or at least the first cluster. Errors read
 * "Could not open 'path': ..." as QEMU's do. On failure `out` holds nothing to free. */
int must_check qcow2_header_parse(const uint8_t *bytes, size_t length, uint64_t file_bytes,
                                  const char *path, struct qcow2_header *out, struct error *err);

/* The two halves of parse, for repair: what the header says, and whether its tables can be used. */
int must_check qcow2_header_decode(const uint8_t *bytes, size_t length, const char *path,
                                   struct qcow2_header *out, struct error *err);
int must_check qcow2_header_validate(const struct qcow2_header *header, uint64_t file_bytes,
                                     const char *path, struct error *err);

/* Reads the first cluster and parses it. Blocks. */
int must_check qcow2_header_read(struct io_file *file, const char *path, struct qcow2_header *out,
                                 struct error *err);

void qcow2_header_fini(struct qcow2_header *header);

/*
 * Writes the whole first cluster to `out` (cluster size bytes; zeroes after the end). Fills
 * header_length, backing_offset and backing_bytes. -ENOSPC if names and extensions do not fit.
 */
int must_check qcow2_header_serialise(struct qcow2_header *header, uint8_t *out, struct error *err);

/* Serialises and writes the first cluster, without a barrier. Blocks. */
int must_check qcow2_header_write(struct io_file *file, struct qcow2_header *header,
                                  struct error *err);

/* How many bytes the fields take that qcow2_header_store_fixed writes; extensions may follow. */
static inline uint32_t qcow2_fixed_bytes(const struct qcow2_header *header)
{
    return header->header_length < QCOW2_V3_BYTES ? header->header_length : QCOW2_V3_BYTES;
}

/*
 * Only the fixed fields, to the first qcow2_fixed_bytes() of `out`: they lie in one sector, so
 * updating them (dirty bit, L1 or refcount table moved) is one atomic write.
 */
void qcow2_header_store_fixed(const struct qcow2_header *header, uint8_t *out);

static inline uint64_t qcow2_cluster_bytes(const struct qcow2_header *header)
{
    return UINT64_C(1) << header->cluster_bits;
}

static inline bool qcow2_has_extended_l2(const struct qcow2_header *header)
{
    return header->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
}

/* log2 of the number of entries in one L2 table. */
static inline uint32_t qcow2_l2_bits(const struct qcow2_header *header)
{
    return header->cluster_bits - (qcow2_has_extended_l2(header) ? 4 : 3);
}

/* L1 entries that a virtual size needs. */
static inline uint64_t qcow2_l1_entries_for(const struct qcow2_header *header, uint64_t size_bytes)
{
    uint32_t bits = header->cluster_bits + qcow2_l2_bits(header);
    return (size_bytes >> bits) + ((size_bytes & ((UINT64_C(1) << bits) - 1)) != 0);
}

#endif
