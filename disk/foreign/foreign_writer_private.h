/* SPDX-License-Identifier: MIT */
/* foreign_writer_private: what the formats give to foreign_writer. */
#ifndef DISK_FOREIGN_FOREIGN_WRITER_PRIVATE_H
#define DISK_FOREIGN_FOREIGN_WRITER_PRIVATE_H

#include "disk/foreign/foreign_writer.h"

struct foreign_writer_ops {
    const char *format;
    int (*start)(struct foreign_writer *writer, const struct foreign_writer_options *options,
                 struct error *err);
    int (*place)(struct foreign_writer *writer, uint64_t index, uint32_t bytes,
                 uint64_t *host_offset);
    uint32_t (*pack)(const struct foreign_writer *writer, uint64_t index, const void *unit,
                     void *out); /* NULL: does not pack */
    int (*finish)(struct foreign_writer *writer);
    void (*free)(struct foreign_writer *writer);
};

struct foreign_writer {
    const struct foreign_writer_ops *ops;
    struct io_file *file;
    uint64_t size_bytes;
    uint64_t end; /* of what is placed so far */
    uint32_t unit_bytes;
    uint32_t packed_room;
    void *format;
};

extern const struct foreign_writer_ops foreign_vmdk_writer, foreign_vdi_writer, foreign_vpc_writer,
    foreign_vhdx_writer;

#endif
