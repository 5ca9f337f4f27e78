/* SPDX-License-Identifier: MIT */
/*
 * io_pool: requests executed with blocking system calls on a thread of the pool, and the loops that
 * finish what the host does in pieces. Touches nothing but its request.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "disk/io_host.h"

#define ZERO_CHUNK_BYTES (64 * 1024u)

static int read_all(int fd, const struct iovec *iov, size_t count, uint64_t offset, uint64_t done,
                    uint64_t bytes)
{
    struct iovec rest[IOV_MAX];
    while (done < bytes) {
        size_t entries = iov_slice(rest, IOV_MAX, iov, count, done, bytes - done);
        ssize_t got = preadv(fd, rest, (int)entries, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0) {
            iov_fill(iov, count, done, 0, bytes - done);
            return 0;
        }
        done += (uint64_t)got;
    }
    return 0;
}

static int write_all(int fd, const struct iovec *iov, size_t count, uint64_t offset, uint64_t done,
                     uint64_t bytes)
{
    struct iovec rest[IOV_MAX];
    while (done < bytes) {
        size_t entries = iov_slice(rest, IOV_MAX, iov, count, done, bytes - done);
        ssize_t put = pwritev(fd, rest, (int)entries, (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? -errno : -ENOSPC;
        done += (uint64_t)put;
    }
    return 0;
}

/* Copies through aligned memory; an unaligned write first reads the blocks that it shares. */
static int transfer_bounced(struct io_host *host, struct io_request *request)
{
    uint64_t first = align_down(request->offset, host->alignment);
    uint64_t end = align_up(request->offset + request->bytes, host->alignment);
    uint64_t skip = request->offset - first;
    void *bounce;
    off_t length = lseek(host->file.fd, 0, SEEK_END);
    if (length < 0 || posix_memalign(&bounce, MAX(host->alignment, sizeof(void *)), end - first))
        return length < 0 ? -errno : -ENOMEM;
    struct iovec whole = {bounce, end - first};
    bool shares = end - first != request->bytes;
    int result = 0;
    if (request->kind == IO_READ || shares)
        result = read_all(host->file.fd, &whole, 1, first, 0, end - first);
    if (result == 0 && request->kind == IO_READ) {
        iov_write(request->iov, request->iov_count, 0, (char *)bounce + skip, request->bytes);
    } else if (result == 0) {
        iov_read(request->iov, request->iov_count, 0, (char *)bounce + skip, request->bytes);
        result = write_all(host->file.fd, &whole, 1, first, 0, end - first);
        uint64_t wanted = MAX((uint64_t)length, request->offset + request->bytes);
        if (result == 0 && end > wanted && ftruncate(host->file.fd, (off_t)wanted))
            result = -errno;
    }
    free(bounce);
    return result;
}

static int transfer(struct io_host *host, struct io_request *request)
{
    if (host->direct)
        return transfer_bounced(host, request);
    return (request->kind == IO_READ ? read_all : write_all)(host->file.fd, request->iov,
                                                             request->iov_count, request->offset,
                                                             request->done_bytes, request->bytes);
}

/* For file systems without any way to make zeroes: never past the end, where zeroes are anyway. */
static int write_zeroes(struct io_host *host, uint64_t offset, uint64_t bytes)
{
    off_t length = lseek(host->file.fd, 0, SEEK_END);
    void *zeroes;
    if (length < 0)
        return -errno;
    if (posix_memalign(&zeroes, 4096, ZERO_CHUNK_BYTES))
        return -ENOMEM;
    memset(zeroes, 0, ZERO_CHUNK_BYTES);
    uint64_t end = MIN(offset + bytes, (uint64_t)length);
    int result = 0;
    while (offset < end && result == 0) {
        struct iovec iov = {zeroes, MIN(end - offset, ZERO_CHUNK_BYTES)};
        struct io_request piece = {
            .kind = IO_WRITE, .offset = offset, .bytes = iov.iov_len, .iov = &iov, .iov_count = 1};
        result = transfer(host, &piece);
        offset += iov.iov_len;
    }
    free(zeroes);
    return result;
}

static int deallocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    int result;
    do {
        result = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
    } while (result && errno == EINTR);
    return result ? -errno : 0;
}

static bool is_unsupported(int result)
{
    return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENODEV || result == -EINVAL;
}

static int make_zeroes(struct io_host *host, const struct io_request *request)
{
    int first = request->kind == IO_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    int second = request->kind == IO_PUNCH ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE;
    if (!request->bytes)
        return 0;
    int result = deallocate(host->file.fd, first, request->offset, request->bytes);
    if (is_unsupported(result))
        result = deallocate(host->file.fd, second, request->offset, request->bytes);
    if (is_unsupported(result))
        result = write_zeroes(host, request->offset, request->bytes);
    return result;
}

int io_execute(struct io_host *host, struct io_request *request)
{
    switch (request->kind) {
    case IO_READ:
    case IO_WRITE:
        return transfer(host, request);
    case IO_SYNC:
        return !host->no_sync && fdatasync(host->file.fd) ? -errno : 0;
    case IO_ZERO:
    case IO_PUNCH:
        return make_zeroes(host, request);
    case IO_TRUNCATE:
        return ftruncate(host->file.fd, (off_t)request->offset) ? -errno : 0;
    }
    UNREACHABLE("every kind of request is listed");
}

static void on_work(struct loop_job *job)
{
    struct io_request *request = container_of(job, struct io_request, job);
    request->result = io_execute(container_of(request->file, struct io_host, file), request);
}

static void on_work_done(struct loop_job *job)
{
    struct io_request *request = container_of(job, struct io_request, job);
    io_host_finish(request, request->result);
}

void io_pool_submit(struct io_request *request)
{
    request->job.work = on_work;
    request->job.on_done = on_work_done;
    loop_job_submit(request->file->loop, &request->job);
}
