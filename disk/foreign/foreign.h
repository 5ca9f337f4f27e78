/* SPDX-License-Identifier: MIT */
/*
 * foreign: the image formats of other virtual machine monitors (VDI, VMDK, VHD, VHDX), read-only.
 *
 * A struct foreign is an open image without requests: it tells where a range of the guest's disk
 * lies. The block driver (foreign_node.c) asks it on the loop, tools ask it with blocking I/O. No
 * memory is set aside in proportion to what a header claims: tables are read page by page through
 * a cache of fixed size, and every table must lie within its file.
 */
#ifndef DISK_FOREIGN_FOREIGN_H
#define DISK_FOREIGN_FOREIGN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "disk/io.h"

struct foreign;

enum foreign_kind {
    FOREIGN_ABSENT, /* reads as zeroes: never written */
    FOREIGN_ZERO,   /* reads as zeroes: the format says so */
    FOREIGN_DATA,
    FOREIGN_PACKED, /* a compressed grain */
};

struct foreign_extent {
    enum foreign_kind kind;
    uint64_t bytes;
    struct io_file *file; /* DATA and PACKED */
    const char *path;     /* of that file */
    uint64_t host_offset; /* DATA: of the first byte; PACKED: of the grain's marker */
    bool is_flat;         /* DATA: the file's own holes are holes of the disk */
    /* PACKED */
    uint64_t grain_offset; /* of the guest's disk; the range may begin inside of the grain */
    uint32_t grain_bytes;  /* unpacked */
    bool has_marker;
};

struct foreign_options {
    const char *path;
    const char *format;
    bool blocking; /* foreign_find loads tables by itself; only then may it be used without a loop
                      running */
    bool no_lock;  /* of the files besides the first, which the caller opened and locked */
    struct io_options io;
};

/* Whether the name is one of "vdi", "vmdk", "vpc", "vhdx". */
bool foreign_is_known(const char *format);

/* Blocks. Owns `file` only on success. */
int must_check foreign_open(struct loop *loop, struct io_file *file,
                            const struct foreign_options *options, struct foreign **out,
                            struct error *err);
/* Nothing may be in flight. `on_closed` may be NULL. */
void foreign_close(struct foreign *foreign, void (*on_closed)(void *opaque), void *opaque);

/* As foreign_close, but the first file stays open and the caller's. */
void foreign_abandon(struct foreign *foreign);

uint64_t foreign_size_bytes(const struct foreign *foreign);
/* What all files of the image take on the host. */
uint64_t foreign_host_bytes(const struct foreign *foreign);
/* The unit in which the image is mapped; 0 if it is not mapped at all. */
uint32_t foreign_cluster_bytes(const struct foreign *foreign);

/*
 * What the disk is at `offset`, as far as it is alike, at most to `end`. -EIO where the tables
 * contradict themselves or the file, which foreign_problem explains. -EINPROGRESS (never if
 * blocking): a page is to be loaded first, see foreign_private.h.
 */
int must_check foreign_find(struct foreign *foreign, uint64_t offset, uint64_t end,
                            struct foreign_extent *out);
/* What the last -EIO was about: one line with the name of the image. */
const char *foreign_problem(const struct foreign *foreign);

/* --- for evisor-img info --- */

struct foreign_part {
    const char *path;
    const char *type; /* "FLAT", "SPARSE"...; "" for an image in one file */
    uint64_t size_bytes;
    uint32_t cluster_bytes; /* 0 if flat */
    bool is_packed;
};

/* What a VMDK's descriptor says; false for other formats. */
struct foreign_description {
    uint32_t cid, parent_cid;
    const char *create_type;
    uint32_t parts;
};
bool foreign_describe(const struct foreign *foreign, struct foreign_description *out);
void foreign_describe_part(const struct foreign *foreign, uint32_t index, struct foreign_part *out);

#endif
