/* SPDX-License-Identifier: MIT */
/* foreign_private: what the files of the foreign formats share among themselves. */
#ifndef DISK_FOREIGN_FOREIGN_PRIVATE_H
#define DISK_FOREIGN_FOREIGN_PRIVATE_H

#include "base/bytes.h"
#include "base/list.h"
#include "disk/foreign/foreign.h"

#define FOREIGN_PAGE_BYTES  4096u
#define FOREIGN_PAGE_SETS   64u
#define FOREIGN_PAGE_WAYS   16u
#define FOREIGN_PAGES       (FOREIGN_PAGE_SETS * FOREIGN_PAGE_WAYS)
#define FOREIGN_FILES_MAX   1024u
#define FOREIGN_SIZE_MAX    (UINT64_C(1) << 62)
#define FOREIGN_PACKED_MAX  (2u * 1024 * 1024) /* of a compressed grain, unpacked */
#define FOREIGN_HEADER_TEXT (64u * 1024)       /* of a VMDK's descriptor */

/* Who waits for a page: woken once, whatever page it was, and looks again. */
struct foreign_waiter {
    struct list node;
    void (*wake)(struct foreign_waiter *waiter, int result);
};

struct foreign_page {
    struct foreign *foreign;
    uint64_t key; /* file index and page number, plus one; 0: empty */
    uint64_t used;
    bool loading;
    struct iovec iov;
    struct io_request io;
};

struct foreign_pages {
    uint8_t *memory; /* mapped once, touched as needed */
    struct foreign_page *pages;
    uint64_t clock;
    uint64_t wanted; /* the key that the last -EINPROGRESS was about */
    struct list waiters;
};

struct foreign_file {
    struct io_file *file;
    char *path;
    uint64_t length_bytes;
};

/* What a format's log says a 4 KiB page of the file really is. */
struct foreign_patch {
    uint64_t offset; /* in the first file */
    uint64_t bytes;
    const uint8_t *data; /* NULL: zeroes */
};

struct foreign_ops {
    const char *name;
    /* Blocks. files[0] is open. Sets size_bytes, cluster_bytes, `format`. */
    int (*open)(struct foreign *foreign, const struct foreign_options *options, struct error *err);
    /* One piece from `offset` on, at most `bytes`; alike all over. */
    int (*locate)(struct foreign *foreign, uint64_t offset, uint64_t bytes,
                  struct foreign_extent *out);
    void (*free)(struct foreign *foreign);
};

struct foreign {
    const struct foreign_ops *ops;
    struct loop *loop;
    bool blocking;
    uint64_t size_bytes;
    uint32_t cluster_bytes;
    struct foreign_file *files;
    uint32_t file_count;
    struct foreign_pages pages;
    struct foreign_patch *patches; /* later ones win */
    uint32_t patch_count;
    void *format; /* the format's own */
    char problem[512];
    void (*on_closed)(void *opaque);
    void *opaque;
};

extern const struct foreign_ops foreign_vdi_ops, foreign_vmdk_ops, foreign_vpc_ops,
    foreign_vhdx_ops;

/* The image contradicts itself: keeps the sentence for foreign_problem, returns -EIO. */
int foreign_corrupt(struct foreign *foreign, const char *format, ...) printf_like(2, 3);

static inline const char *foreign_path(const struct foreign *foreign)
{
    return foreign->files[0].path;
}

/* Reads bytes that must be there, patches applied. Blocks; for opening. */
int must_check foreign_read(struct foreign *foreign, uint32_t file, uint64_t offset, void *buffer,
                            uint64_t bytes, struct error *err);
/* Takes the file over; the index of it, or -errno after saying why. */
int must_check foreign_add_file(struct foreign *foreign, struct io_file *file, const char *path,
                                struct error *err);
/* The end of every open that was told something the format does not allow. */
int foreign_refuse(const struct foreign *foreign, struct error *err, const char *format, ...)
    printf_like(3, 4);

/* Fills a DATA extent, after checking that the file reaches so far. */
int must_check foreign_data(struct foreign *foreign, uint32_t file, uint64_t host_offset,
                            uint64_t bytes, struct foreign_extent *out);

/* foreign_pages.c */
int must_check foreign_pages_init(struct foreign *foreign);
void foreign_pages_fini(struct foreign *foreign);
/*
 * A table entry of `bytes` (4 or 8, at a multiple of it) in *out, which lives until the next call.
 * 0, -EIO, or -EINPROGRESS after which foreign_pages_wait is to be called.
 */
int must_check foreign_entry(struct foreign *foreign, uint32_t file, uint64_t offset,
                             uint64_t bytes, const uint8_t **out);
/* Starts to load what the last -EINPROGRESS was about; the waiter will be woken. */
void foreign_pages_wait(struct foreign *foreign, struct foreign_waiter *waiter);
void foreign_patch_apply(const struct foreign *foreign, uint64_t offset, uint8_t *data,
                         uint64_t bytes);

/* vhdx_log.c: fills foreign->patches from the log; `*memory` holds what they point to. */
struct vhdx_log_place {
    uint64_t offset;
    uint32_t bytes;
    uint8_t guid[16];
};
int must_check vhdx_log_read(struct foreign *foreign, const struct vhdx_log_place *place,
                             uint8_t **memory, struct error *err);

#endif
