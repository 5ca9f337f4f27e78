/* SPDX-License-Identifier: MIT */
/*
 * qcow2_writer: a new qcow2 image written from start to end in one go, for convert. Decides where
 * clusters go and keeps the tables; the data is written by the caller. Blocks on table writes.
 *
 * Guest clusters are placed in rising order. The header comes last: until then the file is no qcow2
 * image. Nothing is made durable: that is up to the caller.
 */
#ifndef DISK_QCOW2_QCOW2_WRITER_H
#define DISK_QCOW2_QCOW2_WRITER_H

#include <stdint.h>

#include "base/error.h"
#include "disk/io.h"
#include "disk/qcow2/qcow2_create.h"

struct qcow2_writer;

/* No preallocation, no data file. `file` is empty and outlives the writer. */
int must_check qcow2_writer_create(struct io_file *file, const struct qcow2_create_options *options,
                                   struct qcow2_writer **out, struct error *err);
void qcow2_writer_destroy(struct qcow2_writer *writer);

/* A whole cluster of data: where to write it. */
int must_check qcow2_writer_place(struct qcow2_writer *writer, uint64_t guest_cluster,
                                  uint64_t *host_offset);
/* Compressed data of less than a cluster. */
int must_check qcow2_writer_place_packed(struct qcow2_writer *writer, uint64_t guest_cluster,
                                         uint64_t bytes, uint64_t *host_offset);
/* Reads as zeroes whatever the backing file holds. -ENOTSUP for version 2. */
int must_check qcow2_writer_place_zero(struct qcow2_writer *writer, uint64_t guest_cluster);

/* Writes the rest of the tables, then the header. */
int must_check qcow2_writer_finish(struct qcow2_writer *writer, struct error *err);

#endif
