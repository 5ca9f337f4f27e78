/* SPDX-License-Identifier: MIT */
/*
 * io: asynchronous I/O on one file of the host, behind a table of functions, so that a test can put
 * a disk in place of the host that reorders, fails and loses power.
 *
 * Submitting never completes at once: on_done comes later, on the loop. The order of completion is
 * no order on the medium: a barrier is "all on_done calls, then IO_SYNC". Requests of any alignment
 * are served; on an O_DIRECT file those that are not aligned cost a copy.
 */
#ifndef DISK_IO_H
#define DISK_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"
#include "disk/disk.h"

enum io_kind {
    IO_READ,     /* what lies past the end of the file reads as zeroes */
    IO_WRITE,    /* extends the file if need be */
    IO_SYNC,     /* fdatasync: all that completed before the submission is on the medium */
    IO_ZERO,     /* the range reads as zeroes; the length of the file stays */
    IO_PUNCH,    /* as IO_ZERO, and its space is given back where the file system can */
    IO_TRUNCATE, /* `offset` becomes the length */
};

/* The caller's memory, alive with iov and buffers until on_done. All or nothing: no short result.
 */
struct io_request {
    enum io_kind kind;
    uint64_t offset;
    uint64_t bytes; /* IO_READ, IO_WRITE: iov_size(iov, iov_count) */
    const struct iovec *iov;
    size_t iov_count;                                        /* at most DISK_REQUEST_IOV_MAX */
    void (*on_done)(struct io_request *request, int result); /* 0 or -errno */
    /* Private to the implementation. */
    struct io_file *file;
    struct list node;
    struct loop_job job;
    uint64_t done_bytes;
    void *bounce;
    int result;
};

struct io_stats {
    uint64_t reads, writes, syncs, others;
};

struct io_file {
    const struct io_ops *ops;
    struct loop *loop;
    int fd; /* -1 where there is none */
    bool read_only;
    dev_t device; /* identity, to find cycles */
    ino_t inode;
    uint32_t block_bytes; /* the smallest unit in which space is given back */
    struct io_stats stats;
};

struct io_ops {
    void (*submit)(struct io_file *file, struct io_request *request);
    /* Blocks: for opening and for tools. The same meaning as a request. 0 or -errno. */
    int (*now)(struct io_file *file, enum io_kind kind, void *buffer, uint64_t offset,
               uint64_t bytes);
    int (*length)(struct io_file *file, uint64_t *length_bytes); /* blocks shortly */
    /* Nothing may be in flight. Frees `file` at the end. */
    void (*close)(struct io_file *file, void (*on_closed)(void *opaque), void *opaque);
};

struct io_options {
    bool read_only;
    bool direct;
    bool no_sync; /* IO_SYNC does nothing: for images that may be lost */
    enum disk_aio aio;
};

/* Opens a regular file or a block device. Blocks. Other kinds of files are refused. */
int must_check io_open(struct loop *loop, const char *path, const struct io_options *options,
                       struct io_file **out, struct error *err);

/*
 * Of an open file: O_DIRECT or not, IO_SYNC or nothing. -EBUSY: something is in flight that the
 * change could harm. On failure nothing has changed.
 */
int must_check io_change_mode(struct io_file *file, bool direct, bool no_sync);

/* No request is in flight. */
bool io_is_idle(const struct io_file *file);
/* An idle file goes over to another loop. Where that can have no ring the pool serves it then. */
void io_move(struct io_file *file, struct loop *loop);

void io_submit(struct io_file *file, struct io_request *request);
/* `on_closed` may be NULL. */
void io_close(struct io_file *file, void (*on_closed)(void *opaque), void *opaque);
/* They are there, and are one, by two names perhaps. Blocks. */
bool io_is_same_file(const char *a, const char *b);
/* Runs the file's loop until it is closed: where nothing else runs on it. NULL is taken. */
void io_close_wait(struct io_file *file);

/*
 * The loop's requests have their data in this memory, which stays resident: its pages need not be
 * pinned for each one. Once, after the loop's first file was opened. False if it has no effect.
 */
bool io_register_memory(struct loop *loop, void *base, uint64_t bytes);
/* Nothing is in flight. */
void io_forget_memory(struct loop *loop);

int must_check io_read_now(struct io_file *file, uint64_t offset, void *buffer, uint64_t bytes);
int must_check io_write_now(struct io_file *file, uint64_t offset, const void *buffer,
                            uint64_t bytes);
int must_check io_sync_now(struct io_file *file);
int must_check io_zero_now(struct io_file *file, uint64_t offset, uint64_t bytes);
int must_check io_truncate_now(struct io_file *file, uint64_t length_bytes);
int must_check io_length(struct io_file *file, uint64_t *length_bytes);

#endif
