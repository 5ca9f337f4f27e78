/* SPDX-License-Identifier: MIT */
/*
 * foreign_writer: a new VMDK, VDI, VHD or VHDX image written from start to end in one go, for
 * convert. Decides where units (grains, blocks) go and keeps the tables; the caller writes the
 * data. Blocks on table writes.
 *
 * Units are placed in rising order. The header comes last: until then the file is no image. Nothing
 * is made durable: that is up to the caller.
 */
#ifndef DISK_FOREIGN_FOREIGN_WRITER_H
#define DISK_FOREIGN_FOREIGN_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/io.h"

struct foreign_writer;

struct foreign_writer_options {
    const char *format;    /* "vmdk", "vdi", "vpc" or "vhdx" */
    const char *subformat; /* vmdk: "monolithicSparse" (also NULL) or "streamOptimized" */
    const char *path;      /* a VMDK names itself */
    uint64_t size_bytes;
};

bool foreign_writer_is_known(const char *format);
/* `file` is empty and outlives the writer. */
int must_check foreign_writer_create(struct io_file *file,
                                     const struct foreign_writer_options *options,
                                     struct foreign_writer **out, struct error *err);
void foreign_writer_destroy(struct foreign_writer *writer);

/* What is placed as a whole. */
uint32_t foreign_writer_unit(const struct foreign_writer *writer);
/* Not 0: units are packed, and take up to so many bytes then. */
uint32_t foreign_writer_packed_room(const struct foreign_writer *writer);
/* What is to be written for unit `index`. On any thread; 0 if there is no memory. */
uint32_t foreign_writer_pack(const struct foreign_writer *writer, uint64_t index, const void *unit,
                             void *out);
/* Where to write `bytes` for unit `index`: a whole unit, or what foreign_writer_pack made of it. */
int must_check foreign_writer_place(struct foreign_writer *writer, uint64_t index, uint32_t bytes,
                                    uint64_t *host_offset);
int must_check foreign_writer_finish(struct foreign_writer *writer, struct error *err);

#endif
