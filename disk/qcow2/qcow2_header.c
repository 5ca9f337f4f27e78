/* SPDX-License-Identifier: MIT */
/*
 * qcow2_header: decodes, judges and encodes the first cluster. Wordings follow QEMU's, because
 * programs and its own tests compare them.
 */
#include "disk/qcow2/qcow2_header.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

/* Below this cluster size the table of feature names would crowd out a backing file's name. */
#define FEATURE_NAMES_CLUSTER_MIN 8192

enum feature_type {
    FEATURE_INCOMPATIBLE,
    FEATURE_COMPATIBLE,
    FEATURE_AUTOCLEAR,
};

static const struct feature_name {
    uint8_t type;
    uint8_t bit;
    const char *name;
} feature_names[] = {
    {FEATURE_INCOMPATIBLE, 0, "dirty bit"},
    {FEATURE_INCOMPATIBLE, 1, "corrupt bit"},
    {FEATURE_INCOMPATIBLE, 2, "external data file"},
    {FEATURE_INCOMPATIBLE, 3, "compression type"},
    {FEATURE_INCOMPATIBLE, 4, "extended L2 entries"},
    {FEATURE_COMPATIBLE, 0, "lazy refcounts"},
    {FEATURE_AUTOCLEAR, 0, "bitmaps"},
    {FEATURE_AUTOCLEAR, 1, "raw external data"},
};

/* The bytes being decoded, and the end of the area in which extensions may lie. */
struct reader {
    const uint8_t *bytes;
    size_t length;
    size_t extensions_end;
    const uint8_t *names; /* the image's own feature names */
    size_t names_bytes;
};

static void *copy_bytes(const void *from, size_t length)
{
    void *to = malloc(length);
    if (to)
        memcpy(to, from, length);
    return to;
}

/* --- fixed fields --- */

static void load_fixed(const uint8_t *b, struct qcow2_header *out)
{
    out->backing_offset = load_be64(b + QCOW2_OFF_BACKING_OFFSET);
    out->backing_bytes = load_be32(b + QCOW2_OFF_BACKING_BYTES);
    out->cluster_bits = load_be32(b + QCOW2_OFF_CLUSTER_BITS);
    out->size_bytes = load_be64(b + QCOW2_OFF_SIZE);
    out->crypt_method = load_be32(b + QCOW2_OFF_CRYPT_METHOD);
    out->l1_entries = load_be32(b + QCOW2_OFF_L1_SIZE);
    out->l1_offset = load_be64(b + QCOW2_OFF_L1_OFFSET);
    out->reftable_offset = load_be64(b + QCOW2_OFF_REFTABLE_OFFSET);
    out->reftable_clusters = load_be32(b + QCOW2_OFF_REFTABLE_CLUSTERS);
    out->snapshot_count = load_be32(b + QCOW2_OFF_SNAPSHOT_COUNT);
    out->snapshots_offset = load_be64(b + QCOW2_OFF_SNAPSHOTS_OFFSET);
}

static int load_version(const uint8_t *b, size_t length, struct qcow2_header *out,
                        struct error *err)
{
    if (length < QCOW2_V2_BYTES || load_be32(b) != QCOW2_MAGIC)
        return error_set(err, EINVAL, "Image is not in qcow2 format");
    out->version = load_be32(b + QCOW2_OFF_VERSION);
    if (out->version != 2 && out->version != 3)
        return error_set(err, ENOTSUP, "Unsupported qcow2 version %u", out->version);
    load_fixed(b, out);
    if (out->cluster_bits < QCOW2_CLUSTER_BITS_MIN || out->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
        return error_set(err, EINVAL, "Unsupported cluster size: 2^%u", out->cluster_bits);
    return 0;
}

static int load_v3(const uint8_t *b, size_t length, struct qcow2_header *out, struct error *err)
{
    if (length < QCOW2_V3_MIN_BYTES)
        return error_set(err, EINVAL, "qcow2 header too short");
    out->incompatible = load_be64(b + QCOW2_OFF_INCOMPATIBLE);
    out->compatible = load_be64(b + QCOW2_OFF_COMPATIBLE);
    out->autoclear = load_be64(b + QCOW2_OFF_AUTOCLEAR);
    out->refcount_order = load_be32(b + QCOW2_OFF_REFCOUNT_ORDER);
    out->header_length = load_be32(b + QCOW2_OFF_HEADER_LENGTH);
    if (out->header_length < QCOW2_V3_MIN_BYTES)
        return error_set(err, EINVAL, "qcow2 header too short");
    if (out->header_length > qcow2_cluster_bytes(out))
        return error_set(err, EINVAL, "qcow2 header exceeds cluster size");
    if (out->header_length > length)
        return error_set(err, EINVAL, "qcow2 header is cut off: the file ends inside it");
    if (out->header_length % 8)
        return error_set(err, EINVAL, "qcow2 header length %u is not a multiple of 8",
                         out->header_length);
    if (out->header_length > QCOW2_OFF_COMPRESSION_TYPE)
        out->compression_type = b[QCOW2_OFF_COMPRESSION_TYPE];
    if (out->header_length > QCOW2_V3_BYTES) {
        out->unknown_fields_bytes = out->header_length - QCOW2_V3_BYTES;
        out->unknown_fields = copy_bytes(b + QCOW2_V3_BYTES, out->unknown_fields_bytes);
        if (!out->unknown_fields)
            return error_set(err, ENOMEM, "out of memory for the header");
    }
    return 0;
}

/* --- extensions --- */

static int load_string(char *to, size_t max, const uint8_t *data, uint32_t length, const char *what,
                       struct error *err)
{
    if (length > max)
        return error_set(err, EINVAL, "%s too long", what);
    if (memchr(data, 0, length))
        return error_set(err, EINVAL, "%s holds a NUL byte", what);
    memcpy(to, data, length);
    to[length] = '\0';
    return 0;
}

static int load_bitmaps(const uint8_t *data, uint32_t length, struct qcow2_header *out,
                        struct error *err)
{
    if (length != 24)
        return error_set(err, EINVAL, "bitmaps_ext: Invalid extension length");
    if (load_be32(data + 4))
        return error_set(err, EINVAL, "bitmaps_ext: Reserved field is not zero");
    out->bitmaps.count = load_be32(data);
    out->bitmaps.directory_bytes = load_be64(data + 8);
    out->bitmaps.directory_offset = load_be64(data + 16);
    if (!out->bitmaps.count)
        return error_set(err, EINVAL, "found bitmaps extension with zero bitmaps");
    out->has_bitmaps = true;
    return 0;
}

static int load_crypto(const uint8_t *data, uint32_t length, struct qcow2_header *out,
                       struct error *err)
{
    if (out->crypt_method != QCOW2_CRYPT_LUKS)
        return error_set(err, EINVAL,
                         "CRYPTO header extension only expected with LUKS encryption method");
    if (length != 16)
        return error_set(err, EINVAL, "CRYPTO header extension size %u, but expected size 16",
                         length);
    out->crypto_header.offset = load_be64(data);
    out->crypto_header.bytes = load_be64(data + 8);
    out->has_crypto_header = true;
    return 0;
}

static int keep_unknown(struct qcow2_header *out, const uint8_t *extension, uint32_t bytes,
                        struct error *err)
{
    uint8_t *all = realloc(out->unknown_extensions, out->unknown_extensions_bytes + bytes);
    if (!all)
        return error_set(err, ENOMEM, "out of memory for the header extensions");
    memcpy(all + out->unknown_extensions_bytes, extension, bytes);
    out->unknown_extensions = all;
    out->unknown_extensions_bytes += bytes;
    return 0;
}

static int check_duplicate(bool seen, const char *what, struct error *err)
{
    return seen ? error_set(err, EINVAL, "Header extension '%s' appears twice", what) : 0;
}

static int load_known(uint32_t type, const uint8_t *data, uint32_t length, struct qcow2_header *out,
                      struct error *err)
{
    int result;
    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        result = check_duplicate(out->has_backing_format, "backing format", err);
        out->has_backing_format = true;
        if (result)
            return result;
        return load_string(out->backing_format, QCOW2_BACKING_FORMAT_MAX, data, length,
                           "Backing format name", err);
    case QCOW2_EXT_DATA_FILE:
        result = check_duplicate(out->has_data_file_name, "data file name", err);
        out->has_data_file_name = true;
        if (result)
            return result;
        return load_string(out->data_file_name, QCOW2_DATA_FILE_NAME_MAX, data, length,
                           "Data file name", err);
    case QCOW2_EXT_BITMAPS:
        result = check_duplicate(out->has_bitmaps, "bitmaps", err);
        return result ? result : load_bitmaps(data, length, out, err);
    case QCOW2_EXT_CRYPTO:
        result = check_duplicate(out->has_crypto_header, "encryption header", err);
        return result ? result : load_crypto(data, length, out, err);
    default:
        UNREACHABLE("the caller asks for known types only");
    }
}

static int load_extension(struct reader *reader, size_t at, uint32_t type, uint32_t length,
                          struct qcow2_header *out, struct error *err)
{
    const uint8_t *data = reader->bytes + at + 8;
    switch (type) {
    case QCOW2_EXT_FEATURE_NAMES:
        reader->names = data;
        reader->names_bytes = length;
        return 0;
    case QCOW2_EXT_BACKING_FORMAT:
    case QCOW2_EXT_DATA_FILE:
    case QCOW2_EXT_BITMAPS:
    case QCOW2_EXT_CRYPTO:
        return load_known(type, data, length, out, err);
    default:
        return keep_unknown(out, reader->bytes + at, 8 + (uint32_t)align_up(length, 8), err);
    }
}

static int load_extensions(struct reader *reader, struct qcow2_header *out, struct error *err)
{
    size_t at = out->header_length;
    while (at + 8 <= reader->extensions_end) {
        uint32_t type = load_be32(reader->bytes + at);
        uint32_t length = load_be32(reader->bytes + at + 4);
        if (type == QCOW2_EXT_END)
            return 0;
        if (align_up((uint64_t)length, 8) > reader->extensions_end - at - 8)
            return error_set(err, EINVAL, "Header extension too large");
        int result = load_extension(reader, at, type, length, out, err);
        if (result)
            return result;
        at += 8 + (size_t)align_up(length, 8);
    }
    return 0;
}

/* --- judgement on features and names --- */

/* The image's own name for a feature bit, or NULL. */
static const char *image_name_of(const struct reader *reader, unsigned bit, char name[47])
{
    for (size_t at = 0; at + 2 < reader->names_bytes; at += QCOW2_FEATURE_NAME_BYTES) {
        const uint8_t *entry = reader->names + at;
        size_t length = MIN(46, reader->names_bytes - at - 2); /* the last may be cut short */
        if (entry[0] != FEATURE_INCOMPATIBLE || entry[1] != bit || !entry[2])
            continue;
        memcpy(name, entry + 2, length);
        name[length] = '\0';
        for (char *c = name; *c; c++)
            if (*c < ' ' || *c == 127)
                *c = '?';
        return name;
    }
    return NULL;
}

static int refuse_unknown_features(const struct reader *reader, uint64_t unknown, struct error *err)
{
    char list[512] = "";
    size_t used = 0;
    uint64_t unnamed = 0;
    for (unsigned bit = 0; bit < 64; bit++) {
        char buffer[47];
        const char *name = NULL;
        if (!(unknown >> bit & 1))
            continue;
        name = image_name_of(reader, bit, buffer);
        if (!name)
            unnamed |= UINT64_C(1) << bit;
        else if (used + strlen(name) + 3 < sizeof(list))
            used +=
                (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "", name);
    }
    if (unnamed)
        snprintf(list + used, sizeof(list) - used, "%sUnknown incompatible feature: %llx",
                 used ? ", " : "", (unsigned long long)unnamed);
    return error_set(err, ENOTSUP, "Unsupported qcow2 feature(s): %s", list);
}

static int judge_compression(const struct qcow2_header *out, struct error *err)
{
    bool flagged = out->incompatible & QCOW2_INCOMPAT_COMPRESSION;
    if (flagged && out->compression_type == QCOW2_COMPRESSION_ZLIB)
        return error_set(err, EINVAL,
                         "qcow2: Compression type incompatible feature bit must not be set");
    if (!flagged && out->compression_type != QCOW2_COMPRESSION_ZLIB)
        return error_set(err, EINVAL,
                         "qcow2: Compression type incompatible feature bit must be set");
    if (out->compression_type > QCOW2_COMPRESSION_ZSTD)
        return error_set(err, ENOTSUP, "qcow2: unknown compression type: %u",
                         out->compression_type);
    return 0;
}

static int judge_features(const struct reader *reader, const struct qcow2_header *out,
                          struct error *err)
{
    uint64_t unknown = out->incompatible & ~QCOW2_INCOMPAT_KNOWN;
    if (unknown)
        return refuse_unknown_features(reader, unknown, err);
    int result = judge_compression(out, err);
    if (result)
        return result;
    if (out->refcount_order > QCOW2_REFCOUNT_ORDER_MAX)
        return error_set(err, EINVAL,
                         "Reference count entry width too large; may not exceed 64 bits");
    if (qcow2_has_extended_l2(out) && out->cluster_bits < QCOW2_CLUSTER_BITS_EXTENDED_L2)
        return error_set(
            err, EINVAL,
            "Extended L2 entries are only supported with cluster sizes of at least %u bytes",
            1u << QCOW2_CLUSTER_BITS_EXTENDED_L2);
    if (out->crypt_method > QCOW2_CRYPT_LUKS)
        return error_set(err, EINVAL, "Unsupported encryption method %u", out->crypt_method);
    return 0;
}

/* Finds where the backing file's name lies, before extensions are read up to it. */
static int locate_backing(struct reader *reader, const struct qcow2_header *out, struct error *err)
{
    uint64_t area = MIN(qcow2_cluster_bytes(out), (uint64_t)reader->length);
    reader->extensions_end = (size_t)area;
    if (!out->backing_offset && !out->backing_bytes)
        return 0;
    if (!out->backing_offset) /* QEMU too takes a length without an offset for "none" */
        return 0;
    if (out->backing_offset > qcow2_cluster_bytes(out) || out->backing_offset < out->header_length)
        return error_set(err, EINVAL, "Invalid backing file offset");
    if (out->backing_bytes >
        MIN(QCOW2_BACKING_PATH_MAX, qcow2_cluster_bytes(out) - out->backing_offset))
        return error_set(err, EINVAL, "Backing file name too long");
    if (!range_fits(out->backing_offset, out->backing_bytes, area))
        return error_set(err, EINVAL, "Backing file name lies past the end of the file");
    reader->extensions_end = (size_t)out->backing_offset;
    return 0;
}

static int load_backing(const struct reader *reader, struct qcow2_header *out, struct error *err)
{
    if (!out->backing_offset || !out->backing_bytes)
        return 0;
    out->has_backing = true;
    return load_string(out->backing_path, QCOW2_BACKING_PATH_MAX,
                       reader->bytes + out->backing_offset, out->backing_bytes, "Backing file name",
                       err);
}

static int decode(const uint8_t *bytes, size_t length, struct qcow2_header *out, struct error *err)
{
    struct reader reader = {.bytes = bytes, .length = length};
    int result = load_version(bytes, length, out, err);
    if (result)
        return result;
    out->header_length = QCOW2_V2_BYTES;
    out->refcount_order = 4;
    if (out->version == 3)
        result = load_v3(bytes, length, out, err);
    if (!result)
        result = locate_backing(&reader, out, err);
    if (!result)
        result = load_extensions(&reader, out, err);
    if (!result)
        result = judge_features(&reader, out, err);
    if (!result)
        result = load_backing(&reader, out, err);
    return result;
}

int qcow2_header_decode(const uint8_t *bytes, size_t length, const char *path,
                        struct qcow2_header *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    int result = decode(bytes, length, out, err);
    if (result) {
        error_prefix(err, "Could not open '%s'", path);
        qcow2_header_fini(out);
    }
    return result;
}

/* --- judgement on tables --- */

struct table {
    const char *name;
    uint64_t offset;
    uint64_t bytes;
    uint64_t bytes_max;
    bool is_whole; /* must lie in the file to its last byte, not only start there */
};

static int judge_table(const struct qcow2_header *header, const struct table *table,
                       uint64_t file_bytes, struct error *err)
{
    if (table->bytes > table->bytes_max)
        return error_set(err, EFBIG, "%s too large", table->name);
    if (!is_aligned(table->offset, qcow2_cluster_bytes(header)) ||
        table->offset > (uint64_t)INT64_MAX - table->bytes)
        return error_set(err, EINVAL, "%s offset invalid", table->name);
    if (!table->bytes)
        return 0;
    if (!table->offset)
        return error_set(err, EINVAL, "%s offset invalid: it would overlap the header",
                         table->name);
    if (!range_fits(table->offset, table->is_whole ? table->bytes : 1, file_bytes))
        return error_set(err, EINVAL, "%s lies past the end of the file; was the file cut short?",
                         table->name);
    return 0;
}

static int judge_size(const struct qcow2_header *header, struct error *err)
{
    if (header->size_bytes > (uint64_t)INT64_MAX)
        return error_set(err, EFBIG, "Image is too big");
    if (header->size_bytes % 512)
        return error_set(err, EINVAL, "Image size must be a multiple of 512 bytes");
    uint64_t needed = qcow2_l1_entries_for(header, header->size_bytes);
    if (needed > INT32_MAX)
        return error_set(err, EFBIG, "Image is too big");
    if (header->l1_entries < needed)
        return error_set(err, EINVAL, "L1 table is too small");
    return 0;
}

static int judge_bitmaps(const struct qcow2_header *header, uint64_t file_bytes, struct error *err)
{
    if (!header->has_bitmaps || !(header->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return 0;
    if (header->bitmaps.count > QCOW2_BITMAPS_MAX)
        return error_set(err, EINVAL,
                         "bitmaps_ext: Image has %u bitmaps, exceeding the supported maximum of %u",
                         header->bitmaps.count, QCOW2_BITMAPS_MAX);
    struct table directory = {"bitmaps_ext: bitmap directory", header->bitmaps.directory_offset,
                              header->bitmaps.directory_bytes, (uint64_t)QCOW2_BITMAPS_MAX * 2048,
                              true};
    return judge_table(header, &directory, file_bytes, err);
}

static int validate(const struct qcow2_header *header, uint64_t file_bytes, struct error *err)
{
    const struct table tables[] = {
        {"Reference count table", header->reftable_offset,
         (uint64_t)header->reftable_clusters << header->cluster_bits, QCOW2_REFTABLE_BYTES_MAX,
         false},
        {"Snapshot table", header->snapshots_offset,
         (uint64_t)header->snapshot_count * QCOW2_SNAP_FIXED_BYTES,
         (uint64_t)QCOW2_SNAPSHOTS_MAX * QCOW2_SNAP_FIXED_BYTES, true},
        {"Active L1 table", header->l1_offset, (uint64_t)header->l1_entries * 8, QCOW2_L1_BYTES_MAX,
         true},
    };
    if (!header->reftable_clusters)
        return error_set(err, EINVAL, "Image does not contain a reference count table");
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        int result = judge_table(header, &tables[i], file_bytes, err);
        if (result)
            return result;
    }
    int result = judge_size(header, err);
    return result ? result : judge_bitmaps(header, file_bytes, err);
}

int qcow2_header_validate(const struct qcow2_header *header, uint64_t file_bytes, const char *path,
                          struct error *err)
{
    int result = validate(header, file_bytes, err);
    if (result)
        error_prefix(err, "Could not open '%s'", path);
    return result;
}

int qcow2_header_parse(const uint8_t *bytes, size_t length, uint64_t file_bytes, const char *path,
                       struct qcow2_header *out, struct error *err)
{
    int result = qcow2_header_decode(bytes, length, path, out, err);
    if (result)
        return result;
    result = qcow2_header_validate(out, file_bytes, path, err);
    if (result)
        qcow2_header_fini(out);
    return result;
}

void qcow2_header_fini(struct qcow2_header *header)
{
    free(header->unknown_fields);
    free(header->unknown_extensions);
    header->unknown_fields = NULL;
    header->unknown_fields_bytes = 0;
    header->unknown_extensions = NULL;
    header->unknown_extensions_bytes = 0;
}

/* --- files --- */

/* How much of the file the header may fill; a bad cluster size is left to parse to refuse. */
static uint64_t header_area(const uint8_t *first, uint64_t file_bytes)
{
    uint32_t bits = load_be32(first + QCOW2_OFF_CLUSTER_BITS);
    if (bits < QCOW2_CLUSTER_BITS_MIN || bits > QCOW2_CLUSTER_BITS_MAX)
        bits = QCOW2_CLUSTER_BITS_MIN;
    return MIN(file_bytes, UINT64_C(1) << bits);
}

int qcow2_header_read(struct io_file *file, const char *path, struct qcow2_header *out,
                      struct error *err)
{
    uint8_t first[QCOW2_V3_BYTES];
    uint64_t file_bytes;
    int result = io_length(file, &file_bytes);
    if (!result)
        result = io_read_now(file, 0, first, sizeof(first));
    if (result)
        return error_set_errno(err, -result, "Could not open '%s': Could not read qcow2 header",
                               path);
    size_t area = (size_t)header_area(first, file_bytes);
    uint8_t *bytes = malloc(area ? area : 1);
    if (!bytes)
        return error_set(err, ENOMEM, "Could not open '%s': out of memory", path);
    result = io_read_now(file, 0, bytes, area);
    if (result)
        error_set_errno(err, -result, "Could not open '%s': Could not read qcow2 header", path);
    else
        result = qcow2_header_parse(bytes, area, file_bytes, path, out, err);
    free(bytes);
    return result;
}

/* --- encoding --- */

void qcow2_header_store_fixed(const struct qcow2_header *header, uint8_t *out)
{
    store_be32(out + QCOW2_OFF_MAGIC, QCOW2_MAGIC);
    store_be32(out + QCOW2_OFF_VERSION, header->version);
    store_be64(out + QCOW2_OFF_BACKING_OFFSET, header->backing_offset);
    store_be32(out + QCOW2_OFF_BACKING_BYTES, header->backing_bytes);
    store_be32(out + QCOW2_OFF_CLUSTER_BITS, header->cluster_bits);
    store_be64(out + QCOW2_OFF_SIZE, header->size_bytes);
    store_be32(out + QCOW2_OFF_CRYPT_METHOD, header->crypt_method);
    store_be32(out + QCOW2_OFF_L1_SIZE, header->l1_entries);
    store_be64(out + QCOW2_OFF_L1_OFFSET, header->l1_offset);
    store_be64(out + QCOW2_OFF_REFTABLE_OFFSET, header->reftable_offset);
    store_be32(out + QCOW2_OFF_REFTABLE_CLUSTERS, header->reftable_clusters);
    store_be32(out + QCOW2_OFF_SNAPSHOT_COUNT, header->snapshot_count);
    store_be64(out + QCOW2_OFF_SNAPSHOTS_OFFSET, header->snapshots_offset);
    if (header->version == 2)
        return;
    store_be64(out + QCOW2_OFF_INCOMPATIBLE, header->incompatible);
    store_be64(out + QCOW2_OFF_COMPATIBLE, header->compatible);
    store_be64(out + QCOW2_OFF_AUTOCLEAR, header->autoclear);
    store_be32(out + QCOW2_OFF_REFCOUNT_ORDER, header->refcount_order);
    store_be32(out + QCOW2_OFF_HEADER_LENGTH, header->header_length);
    if (qcow2_fixed_bytes(header) == QCOW2_V3_MIN_BYTES)
        return;
    memset(out + QCOW2_OFF_COMPRESSION_TYPE, 0, QCOW2_V3_BYTES - QCOW2_OFF_COMPRESSION_TYPE);
    out[QCOW2_OFF_COMPRESSION_TYPE] = header->compression_type;
}

struct writer {
    uint8_t *bytes;
    size_t at;
    size_t room;
    bool is_full;
};

static void put(struct writer *writer, const void *data, size_t length)
{
    if (length > writer->room - writer->at) {
        writer->is_full = true;
        return;
    }
    if (length)
        memcpy(writer->bytes + writer->at, data, length);
    writer->at += length;
}

static void put_extension(struct writer *writer, uint32_t type, const void *data, size_t length)
{
    static const uint8_t padding[8];
    uint8_t head[8];
    store_be32(head, type);
    store_be32(head + 4, (uint32_t)length);
    put(writer, head, sizeof(head));
    put(writer, data, length);
    put(writer, padding, (size_t)align_up(length, 8) - length);
}

static void put_feature_names(struct writer *writer)
{
    uint8_t table[ARRAY_SIZE(feature_names)][QCOW2_FEATURE_NAME_BYTES] = {{0}};
    for (size_t i = 0; i < ARRAY_SIZE(feature_names); i++) {
        table[i][0] = feature_names[i].type;
        table[i][1] = feature_names[i].bit;
        snprintf((char *)table[i] + 2, QCOW2_FEATURE_NAME_BYTES - 2, "%s", feature_names[i].name);
    }
    put_extension(writer, QCOW2_EXT_FEATURE_NAMES, table, sizeof(table));
}

static void put_extensions(struct writer *writer, const struct qcow2_header *header)
{
    uint8_t data[24];
    if (header->has_backing_format)
        put_extension(writer, QCOW2_EXT_BACKING_FORMAT, header->backing_format,
                      strlen(header->backing_format));
    if (header->has_data_file_name)
        put_extension(writer, QCOW2_EXT_DATA_FILE, header->data_file_name,
                      strlen(header->data_file_name));
    if (header->has_crypto_header) {
        store_be64(data, header->crypto_header.offset);
        store_be64(data + 8, header->crypto_header.bytes);
        put_extension(writer, QCOW2_EXT_CRYPTO, data, 16);
    }
    if (header->version == 3 && qcow2_cluster_bytes(header) >= FEATURE_NAMES_CLUSTER_MIN)
        put_feature_names(writer);
    if (header->has_bitmaps) {
        store_be32(data, header->bitmaps.count);
        store_be32(data + 4, 0);
        store_be64(data + 8, header->bitmaps.directory_bytes);
        store_be64(data + 16, header->bitmaps.directory_offset);
        put_extension(writer, QCOW2_EXT_BITMAPS, data, 24);
    }
    put(writer, header->unknown_extensions, header->unknown_extensions_bytes);
    put_extension(writer, QCOW2_EXT_END, NULL, 0);
}

int qcow2_header_serialise(struct qcow2_header *header, uint8_t *out, struct error *err)
{
    struct writer writer = {.bytes = out, .room = (size_t)qcow2_cluster_bytes(header)};
    memset(out, 0, writer.room);
    writer.at = header->version == 2 ? QCOW2_V2_BYTES : QCOW2_V3_BYTES;
    if (header->version == 3)
        put(&writer, header->unknown_fields, header->unknown_fields_bytes);
    header->header_length = (uint32_t)writer.at;
    put_extensions(&writer, header);
    header->backing_offset = 0;
    header->backing_bytes = 0;
    if (header->has_backing) {
        header->backing_offset = writer.at;
        header->backing_bytes = (uint32_t)strlen(header->backing_path);
        put(&writer, header->backing_path, header->backing_bytes);
    }
    if (writer.is_full)
        return error_set(err, ENOSPC, "No space left in the file header");
    qcow2_header_store_fixed(header, out);
    return 0;
}

int qcow2_header_write(struct io_file *file, struct qcow2_header *header, struct error *err)
{
    uint8_t *bytes = malloc((size_t)qcow2_cluster_bytes(header));
    if (!bytes)
        return error_set(err, ENOMEM, "out of memory for the image header");
    int result = qcow2_header_serialise(header, bytes, err);
    if (!result) {
        result = io_write_now(file, 0, bytes, qcow2_cluster_bytes(header));
        if (result)
            error_set_errno(err, -result, "Could not update qcow2 header");
    }
    free(bytes);
    return result;
}
