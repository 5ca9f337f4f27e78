/* SPDX-License-Identifier: MIT */
/*
 * checker: a second, simple reader and judge of qcow2 images, for the crash simulator. It shares no
 * code with disk/, trusts nothing, and was written from the format's description alone.
 *
 * checker_open counts every reference that header, tables and snapshots make, and compares with the
 * refcounts: too low, or one cluster in two roles, is corruption; too high is a leak. checker_map
 * and checker_sector read.
 */
#ifndef TESTS_CRASH_SIM_CHECKER_H
#define TESTS_CRASH_SIM_CHECKER_H

#include "tests/crash_sim/cell.h"

#define CHECKER_SNAPSHOTS 16u
#define CHECKER_BITMAPS   4u
#define CHECKER_UNPACKED  64u

struct checker_table {
    uint64_t l1_offset, l1_entries;
    uint64_t size_bytes; /* of the disk */
};

struct checker_snapshot {
    struct checker_table table;
    char name[32];
};

/* A persistent dirty bitmap, valid as the header says. */
struct checker_bitmap {
    uint64_t table_offset, table_entries;
    unsigned granularity_bits;
    bool is_in_use; /* not to be believed */
};

/* A compressed cluster that was unpacked, for the next state that has it. */
struct checker_unpacked {
    uint64_t key;
    uint32_t *lbas, *versions;
};

struct checker {
    const struct cell_file *file;
    uint64_t cluster_bytes;
    unsigned version, cluster_bits, refcount_bits;
    bool is_extended, is_dirty;
    uint64_t reftable_offset, reftable_bytes;
    struct checker_table active;
    struct checker_snapshot snapshots[CHECKER_SNAPSHOTS];
    unsigned snapshot_count;
    struct checker_bitmap bitmaps[CHECKER_BITMAPS];
    unsigned bitmap_count;
    uint64_t bitmap_directory, bitmap_directory_bytes;
    uint64_t leaks; /* clusters counted too high */
    uint64_t stale; /* COPIED flags that disagree with a refcount that is too high: no harm yet */
    uint64_t recounted; /* dirty: clusters counted too low */
    char why[200];      /* what is wrong */
    /* Per cluster of the file. */
    uint64_t clusters, room;
    uint32_t *references;
    uint8_t *roles;
    uint8_t *walks;
    uint8_t walk;
    struct checker_unpacked unpacked[CHECKER_UNPACKED];
    unsigned next_unpacked;
};

enum checker_kind {
    CHECKER_ZERO,
    CHECKER_DATA,
    CHECKER_BACKING,
    CHECKER_PACKED,
    CHECKER_BROKEN,
};

/* What a cluster of the guest's disk is. */
struct checker_map {
    enum checker_kind kind; /* unless the image has subclusters: then it is `bitmap` that says */
    uint64_t host, bitmap;
    const struct checker_unpacked *unpacked;
};

/* Zeroed memory is an empty checker; what it allocates stays for the next image. */
void checker_fini(struct checker *checker);

/* False: the image is corrupt, and `why` says how. */
bool checker_open(struct checker *checker, const struct cell_file *file);

void checker_map(struct checker *checker, const struct checker_table *table, uint64_t cluster,
                 struct checker_map *map);
/* Whether the bitmap says that the byte has changed. */
bool checker_bitmap_has(const struct checker *checker, const struct checker_bitmap *bitmap,
                        uint64_t offset);

/* Sector `sector` of the mapped cluster: CHECKER_ZERO, _DATA (with *version as `lba`'s, or
 * CELL_FOREIGN), _BACKING or _BROKEN. */
enum checker_kind checker_sector(const struct checker *checker, const struct checker_map *map,
                                 unsigned sector, uint32_t lba, uint32_t *version);

#endif
