/* SPDX-License-Identifier: MIT */
/*
 * qcow2_format: the constants of the qcow2 file format (docs/interop/qcow2.txt of QEMU) and the
 * bounds that keep a hostile image from costing more than it is worth. All fields are big-endian.
 */
#ifndef DISK_QCOW2_QCOW2_FORMAT_H
#define DISK_QCOW2_QCOW2_FORMAT_H

#include <stdint.h>

#define QCOW2_MAGIC UINT32_C(0x514649fb)

#define QCOW2_CLUSTER_BITS_MIN         9
#define QCOW2_CLUSTER_BITS_MAX         21
#define QCOW2_CLUSTER_BITS_DEFAULT     16
#define QCOW2_CLUSTER_BITS_EXTENDED_L2 14 /* the least for extended L2 */
#define QCOW2_REFCOUNT_ORDER_MAX       6
#define QCOW2_L1_BYTES_MAX             (UINT32_C(32) << 20)
#define QCOW2_REFTABLE_BYTES_MAX       (UINT32_C(8) << 20)
#define QCOW2_SNAPSHOTS_MAX            65536
#define QCOW2_SNAPSHOT_EXTRA_MAX       1024
#define QCOW2_SNAPSHOT_TABLE_BYTES_MAX (UINT32_C(64) << 20)
#define QCOW2_BITMAPS_MAX              65535
#define QCOW2_BACKING_PATH_MAX         1023
#define QCOW2_BACKING_FORMAT_MAX       63
#define QCOW2_DATA_FILE_NAME_MAX       1023
#define QCOW2_SUBCLUSTERS              32

/* Where the fields of the header stand. */
enum qcow2_offset {
    QCOW2_OFF_MAGIC = 0,
    QCOW2_OFF_VERSION = 4,
    QCOW2_OFF_BACKING_OFFSET = 8,
    QCOW2_OFF_BACKING_BYTES = 16,
    QCOW2_OFF_CLUSTER_BITS = 20,
    QCOW2_OFF_SIZE = 24,
    QCOW2_OFF_CRYPT_METHOD = 32,
    QCOW2_OFF_L1_SIZE = 36,
    QCOW2_OFF_L1_OFFSET = 40,
    QCOW2_OFF_REFTABLE_OFFSET = 48,
    QCOW2_OFF_REFTABLE_CLUSTERS = 56,
    QCOW2_OFF_SNAPSHOT_COUNT = 60,
    QCOW2_OFF_SNAPSHOTS_OFFSET = 64,
    QCOW2_V2_BYTES = 72,
    QCOW2_OFF_INCOMPATIBLE = 72,
    QCOW2_OFF_COMPATIBLE = 80,
    QCOW2_OFF_AUTOCLEAR = 88,
    QCOW2_OFF_REFCOUNT_ORDER = 96,
    QCOW2_OFF_HEADER_LENGTH = 100,
    QCOW2_V3_MIN_BYTES = 104,
    QCOW2_OFF_COMPRESSION_TYPE = 104,
    QCOW2_V3_BYTES = 112, /* what this code knows and writes */
};

#define QCOW2_INCOMPAT_DIRTY       (UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT     (UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE   (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (UINT64_C(1) << 4)
#define QCOW2_INCOMPAT_KNOWN       UINT64_C(0x1f)

#define QCOW2_COMPAT_LAZY_REFCOUNTS (UINT64_C(1) << 0)

#define QCOW2_AUTOCLEAR_BITMAPS  (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_RAW_DATA (UINT64_C(1) << 1)
#define QCOW2_AUTOCLEAR_KNOWN    UINT64_C(0x3)

enum qcow2_crypt_method {
    QCOW2_CRYPT_NONE = 0,
    QCOW2_CRYPT_AES = 1,
    QCOW2_CRYPT_LUKS = 2,
};

enum qcow2_compression {
    QCOW2_COMPRESSION_ZLIB = 0,
    QCOW2_COMPRESSION_ZSTD = 1,
};

/* Header extensions: type and length of 4 bytes each, data padded to 8. */
#define QCOW2_EXT_END            UINT32_C(0)
#define QCOW2_EXT_BACKING_FORMAT UINT32_C(0xe2792aca)
#define QCOW2_EXT_FEATURE_NAMES  UINT32_C(0x6803f857)
#define QCOW2_EXT_BITMAPS        UINT32_C(0x23852875)
#define QCOW2_EXT_CRYPTO         UINT32_C(0x0537be77)
#define QCOW2_EXT_DATA_FILE      UINT32_C(0x44415441)

#define QCOW2_FEATURE_NAME_BYTES 48 /* type, bit, name[46] */

/* Table entries. */
#define QCOW2_ENTRY_OFFSET_MASK    UINT64_C(0x00fffffffffffe00) /* of L1 and L2 entries */
#define QCOW2_ENTRY_COPIED         (UINT64_C(1) << 63)          /* refcount is exactly 1 */
#define QCOW2_ENTRY_COMPRESSED     (UINT64_C(1) << 62)
#define QCOW2_L2_ZERO              (UINT64_C(1) << 0) /* v3, not with extended L2 */
#define QCOW2_L1_RESERVED          UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED          UINT64_C(0x3f000000000001fe)
#define QCOW2_REFTABLE_OFFSET_MASK UINT64_C(0xfffffffffffffe00)
#define QCOW2_REFTABLE_RESERVED    UINT64_C(0x1ff)

/* A snapshot table entry is this, then extra data, id, name, padding to 8. */
enum qcow2_snapshot_offset {
    QCOW2_SNAP_L1_OFFSET = 0,
    QCOW2_SNAP_L1_SIZE = 8,
    QCOW2_SNAP_ID_BYTES = 12,
    QCOW2_SNAP_NAME_BYTES = 14,
    QCOW2_SNAP_DATE_SEC = 16,
    QCOW2_SNAP_DATE_NSEC = 20,
    QCOW2_SNAP_VM_CLOCK = 24,
    QCOW2_SNAP_VMSTATE_BYTES32 = 32,
    QCOW2_SNAP_EXTRA_BYTES = 36,
    QCOW2_SNAP_FIXED_BYTES = 40,
    /* In the extra data, from its start. */
    QCOW2_SNAP_EXTRA_VMSTATE_BYTES = 0,
    QCOW2_SNAP_EXTRA_DISK_BYTES = 8,
    QCOW2_SNAP_EXTRA_ICOUNT = 16,
};

/* A bitmap directory entry is this, then extra data, name, padding to 8. */
enum qcow2_bitmap_offset {
    QCOW2_BITMAP_TABLE_OFFSET = 0,
    QCOW2_BITMAP_TABLE_SIZE = 8,
    QCOW2_BITMAP_FLAGS = 12,
    QCOW2_BITMAP_TYPE = 16,
    QCOW2_BITMAP_GRANULARITY_BITS = 17,
    QCOW2_BITMAP_NAME_BYTES = 18,
    QCOW2_BITMAP_EXTRA_BYTES = 20,
    QCOW2_BITMAP_FIXED_BYTES = 24,
};

#define QCOW2_BITMAP_IN_USE         (UINT32_C(1) << 0)
#define QCOW2_BITMAP_AUTO           (UINT32_C(1) << 1)
#define QCOW2_BITMAP_OFFSET_MASK    UINT64_C(0x00fffffffffffe00)
#define QCOW2_BITMAP_ENTRY_RESERVED UINT64_C(0xff000000000001fe)

#endif
