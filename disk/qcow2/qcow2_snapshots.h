/* SPDX-License-Identifier: MIT */
/*
 * qcow2_snapshots: the table of internal snapshots, read into memory and laid out again. Blocks:
 * for opening and for tools. Bounded by QCOW2_SNAPSHOTS_MAX and QCOW2_SNAPSHOT_TABLE_BYTES_MAX.
 */
#ifndef DISK_QCOW2_QCOW2_SNAPSHOTS_H
#define DISK_QCOW2_QCOW2_SNAPSHOTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_header.h"

struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint32_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_ns;
    uint64_t vmstate_bytes;
    uint64_t disk_bytes; /* the image's own size where the entry names none */
    uint64_t icount;     /* UINT64_MAX if absent */
    char *id;
    char *name;
    uint8_t *unknown_extra; /* extra data past what is known here */
    uint32_t unknown_extra_bytes;
};

struct qcow2_snapshots {
    struct qcow2_snapshot *list;
    size_t count;
    uint64_t table_bytes; /* as it stood in the file */
};

/* The tables that entries point at are not looked at. On failure nothing is to be freed. */
int must_check qcow2_snapshots_read(struct io_file *file, const struct qcow2_header *header,
                                    struct qcow2_snapshots *out, struct error *err);
void qcow2_snapshots_free(struct qcow2_snapshots *snapshots);

/* The size of the table when laid out, and the laying out (to that many bytes). */
uint64_t qcow2_snapshots_bytes(const struct qcow2_snapshots *snapshots);
void qcow2_snapshots_serialise(const struct qcow2_snapshots *snapshots, uint8_t *out);

void qcow2_snapshot_fini(struct qcow2_snapshot *snapshot);

/* By id first, then by name, as qemu-img looks them up. NULL if there is none. */
struct qcow2_snapshot *qcow2_snapshots_find(struct qcow2_snapshots *snapshots,
                                            const char *id_or_name);

/*
 * Makes `header` describe the disk as a snapshot has it: its L1 table and its size, checked. For
 * reading only.
 */
int must_check qcow2_snapshots_enter(struct io_file *file, struct qcow2_header *header,
                                     const char *id_or_name, struct error *err);

#endif
