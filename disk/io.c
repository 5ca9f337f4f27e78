/* SPDX-License-Identifier: MIT */
/*
 * io: opening files of the host, the choice of engine, and what both engines leave to us: requests
 * that O_DIRECT cannot take as they are.
 *
 * Under O_DIRECT a request whose memory is unaligned is copied through an aligned buffer in the
 * pool. A write (of zeroes, too) whose offset or length is unaligned must read its first and last
 * block, so it runs alone: what comes after it is held until it is done, and it waits for what came
 * before.
 */
#include "disk/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fdset.h"
#include "base/iov.h"
#include "base/log.h"
#include "disk/io_host.h"

#define IO_ALIGNMENT_MAX 4096u

static struct io_host *host_of(struct io_file *file)
{
    return container_of(file, struct io_host, file);
}

static bool is_transfer(const struct io_request *request)
{
    return request->kind == IO_READ || request->kind == IO_WRITE;
}

static bool memory_is_aligned(const struct io_request *request, uint32_t alignment)
{
    for (size_t i = 0; i < request->iov_count; i++) {
        uintptr_t base = (uintptr_t)request->iov[i].iov_base;
        if (!is_aligned(base | request->iov[i].iov_len, alignment))
            return false;
    }
    return true;
}

static bool place_is_aligned(const struct io_host *host, const struct io_request *request)
{
    return is_aligned(request->offset | request->bytes, host->alignment);
}

/* Zeroes may turn out to be written, too. */
static bool must_run_alone(const struct io_host *host, const struct io_request *request)
{
    bool may_write =
        request->kind == IO_WRITE || request->kind == IO_ZERO || request->kind == IO_PUNCH;
    return host->direct && may_write && !place_is_aligned(host, request);
}

/* Hands a request to an engine. */
static void start(struct io_host *host, struct io_request *request)
{
    host->in_flight++;
    host->exclusive = must_run_alone(host, request);
    bool as_it_is =
        !host->direct || !is_transfer(request) ||
        (place_is_aligned(host, request) && memory_is_aligned(request, host->alignment));
    bool by_pool = request->kind == IO_TRUNCATE || (request->kind == IO_SYNC && host->no_sync);
    if (!host->ring || !as_it_is || by_pool)
        io_pool_submit(request);
    else
        io_ring_submit(host->ring, request);
}

static bool may_start(const struct io_host *host, const struct io_request *request)
{
    return !host->exclusive && (!must_run_alone(host, request) || !host->in_flight);
}

static void host_submit(struct io_file *file, struct io_request *request)
{
    struct io_host *host = host_of(file);
    if (!list_is_empty(&host->held) || !may_start(host, request))
        list_push_back(&host->held, &request->node);
    else
        start(host, request);
}

void io_host_finish(struct io_request *request, int result)
{
    struct io_host *host = host_of(request->file);
    CHECK(host->in_flight > 0);
    if (--host->in_flight == 0)
        host->exclusive = false;
    while (!list_is_empty(&host->held)) {
        struct io_request *next = list_entry(host->held.next, struct io_request, node);
        if (!may_start(host, next))
            break;
        list_remove(&next->node);
        start(host, next);
    }
    request->on_done(request, result);
}

void io_host_answer(struct io_request *request, int result)
{
    bool is_transfer = request->kind == IO_READ || request->kind == IO_WRITE;
    bool is_short = is_transfer && result >= 0 && (uint64_t)result < request->bytes;
    bool may_work_there = result == -EINTR || result == -EAGAIN ||
                          (result < 0 && !is_transfer && request->kind != IO_SYNC);
    if (is_short || may_work_there) {
        request->done_bytes = is_short ? (uint64_t)result : 0;
        io_pool_submit(request);
    } else {
        io_host_finish(request, MIN(result, 0));
    }
}

static int host_now(struct io_file *file, enum io_kind kind, void *buffer, uint64_t offset,
                    uint64_t bytes)
{
    struct iovec iov = {buffer, bytes};
    struct io_request request = {
        .kind = kind,
        .offset = offset,
        .bytes = bytes,
        .iov = &iov,
        .iov_count = buffer ? 1 : 0,
        .file = file,
    };
    return io_execute(host_of(file), &request);
}

static int host_length(struct io_file *file, uint64_t *length_bytes)
{
    off_t end = lseek(file->fd, 0, SEEK_END);
    if (end < 0)
        return -errno;
    *length_bytes = (uint64_t)end;
    return 0;
}

/*
 * The descriptor is closed in the pool: the last close of a file may wait for the medium. A ring
 * may let go of the file a second later (Linux 6.1), but its locks end here.
 */
static void close_work(struct loop_job *job)
{
    struct io_host *host = container_of(job, struct io_host, closing);
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    unused_result(fcntl(host->file.fd, F_OFD_SETLK, &all));
    close(host->file.fd);
}

static void on_close_done(struct loop_job *job)
{
    struct io_host *host = container_of(job, struct io_host, closing);
    void (*on_closed)(void *) = host->on_closed;
    void *opaque = host->opaque;
    host->file.loop->residents--;
    if (host->ring)
        io_ring_put(host->ring);
    free(host);
    if (on_closed)
        on_closed(opaque);
}

static void host_close(struct io_file *file, void (*on_closed)(void *opaque), void *opaque)
{
    struct io_host *host = host_of(file);
    CHECK(!host->in_flight && list_is_empty(&host->held));
    host->on_closed = on_closed;
    host->opaque = opaque;
    host->closing.work = close_work;
    host->closing.on_done = on_close_done;
    loop_job_submit(file->loop, &host->closing);
}

static const struct io_ops host_ops = {
    .submit = host_submit,
    .now = host_now,
    .length = host_length,
    .close = host_close,
};

/* Finds by reading what O_DIRECT wants of this file: there is no older interface that tells. */
static uint32_t probe_alignment(int fd)
{
    void *memory;
    if (posix_memalign(&memory, IO_ALIGNMENT_MAX, IO_ALIGNMENT_MAX))
        return IO_ALIGNMENT_MAX;
    uint32_t alignment = pread(fd, memory, 512, 0) >= 0 ? 512 : IO_ALIGNMENT_MAX;
    free(memory);
    return alignment;
}

static int open_failed(const char *path, bool read_only, int code, struct error *err)
{
    const char *remedy = "";
    if (code == ENOENT)
        remedy = "; make one with: evisor-img create -f qcow2 FILE SIZE";
    else if (!read_only && (code == EACCES || code == EPERM || code == EROFS))
        remedy = "; make it writable for this user, or open it with readonly=on";
    return error_set(err, code, "cannot open image '%s': %s%s", path, strerror(code), remedy);
}

/* The path stands for a descriptor that is open: what it is, it tells itself. */
static int open_passed(const char *path, const struct io_options *options, int flags, int *fd,
                       struct stat *info, struct error *err)
{
    int result = fdset_open(path, flags | (options->direct ? O_DIRECT : 0));
    if (result == -EACCES)
        return error_set(err, EACCES,
                         "cannot open image '%s': no descriptor of the set was opened for %s", path,
                         options->read_only ? "reading only" : "reading and writing");
    if (result < 0)
        return error_set_errno(err, -result, "cannot open image '%s'", path);
    *fd = result;
    if (fstat(*fd, info) == 0 && (S_ISREG(info->st_mode) || S_ISBLK(info->st_mode)))
        return 0;
    close(*fd);
    return error_set(err, EINVAL, "cannot use '%s' as an image: it is no regular file", path);
}

static int open_descriptor(const char *path, const struct io_options *options, int *fd,
                           struct stat *info, struct error *err)
{
    int flags = (options->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    if (fdset_is_path(path))
        return open_passed(path, options, flags, fd, info, err);
    /* Asked before opening, because opening some devices acts upon them. */
    if (stat(path, info))
        return open_failed(path, options->read_only, errno, err);
    if (!S_ISREG(info->st_mode) && !S_ISBLK(info->st_mode))
        return error_set(err, EINVAL,
                         "cannot use '%s' as an image: it is %s; name a regular file or a block "
                         "device",
                         path, S_ISDIR(info->st_mode) ? "a directory" : "a special file");
    *fd = open(path, flags | (options->direct ? O_DIRECT : 0));
    if (*fd < 0 && errno == EINVAL && options->direct)
        return error_set(err, EINVAL,
                         "the file system of '%s' has no O_DIRECT; use cache=writeback", path);
    if (*fd < 0)
        return open_failed(path, options->read_only, errno, err);
    if (fstat(*fd, info) == 0 && (S_ISREG(info->st_mode) || S_ISBLK(info->st_mode)))
        return 0;
    close(*fd);
    return error_set(err, EINVAL, "image '%s' changed its kind while it was opened", path);
}

static int choose_engine(struct io_host *host, const char *path, enum disk_aio aio,
                         struct error *err)
{
    int result = 0;
    if (aio == DISK_AIO_THREADS)
        return 0;
    host->ring = io_ring_get(host->file.loop, &result);
    if (host->ring || aio == DISK_AIO_AUTO)
        return 0;
    return error_set(err, -result, "cannot use io_uring for '%s': %s; use aio=threads", path,
                     strerror(-result));
}

int io_open(struct loop *loop, const char *path, const struct io_options *options,
            struct io_file **out, struct error *err)
{
    struct stat info;
    int fd = -1;
    int result = open_descriptor(path, options, &fd, &info, err);
    if (result)
        return result;
    struct io_host *host = calloc(1, sizeof(*host));
    if (!host) {
        close(fd);
        return error_set(err, ENOMEM, "no memory to open '%s'", path);
    }
    host->file = (struct io_file){
        .ops = &host_ops,
        .loop = loop,
        .fd = fd,
        .read_only = options->read_only,
        .device = info.st_dev,
        .inode = S_ISBLK(info.st_mode) ? (ino_t)info.st_rdev : info.st_ino,
        .block_bytes = (uint32_t)MAX(info.st_blksize, 512),
    };
    host->direct = options->direct;
    host->no_sync = options->no_sync;
    host->alignment = host->direct ? probe_alignment(fd) : 1;
    list_init(&host->held);
    result = choose_engine(host, path, options->aio, err);
    if (result) {
        close(fd);
        free(host);
        return result;
    }
    loop->residents++;
    *out = &host->file;
    return 0;
}

/* What O_DIRECT wants is not probed for, since reading may take long: the most is right, too. */
int io_change_mode(struct io_file *file, bool direct, bool no_sync)
{
    if (file->ops != &host_ops)
        return -ENOTSUP;
    struct io_host *host = host_of(file);
    if (direct != host->direct) {
        int flags = fcntl(file->fd, F_GETFL);
        if (host->in_flight)
            return -EBUSY;
        if (flags < 0 ||
            fcntl(file->fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) < 0)
            return -errno;
        host->alignment = direct ? IO_ALIGNMENT_MAX : 1;
        host->direct = direct;
    }
    host->no_sync = no_sync;
    return 0;
}

bool io_is_idle(const struct io_file *file)
{
    if (file->ops != &host_ops)
        return true;
    const struct io_host *host = container_of(file, const struct io_host, file);
    return !host->in_flight && list_is_empty(&host->held);
}

static void move_host(struct io_host *host, struct loop *loop)
{
    int result = 0;
    struct io_ring *ring = host->ring ? io_ring_get(loop, &result) : NULL;
    if (result)
        log_warn("an image on an I/O thread goes without io_uring: %s", strerror(-result));
    if (host->ring)
        io_ring_put(host->ring);
    host->ring = ring;
    host->file.loop->residents--;
    loop->residents++;
}

void io_move(struct io_file *file, struct loop *loop)
{
    CHECK(io_is_idle(file));
    if (file->ops == &host_ops)
        move_host(host_of(file), loop);
    file->loop = loop;
}

void io_submit(struct io_file *file, struct io_request *request)
{
    loop_check_thread(file->loop);
    CHECK(request->kind == IO_READ || !file->read_only || request->kind == IO_SYNC);
    request->file = file;
    request->done_bytes = 0;
    request->bounce = NULL;
    list_init(&request->node);
    switch (request->kind) {
    case IO_READ:
        file->stats.reads++;
        break;
    case IO_WRITE:
        file->stats.writes++;
        break;
    case IO_SYNC:
        file->stats.syncs++;
        break;
    case IO_ZERO:
    case IO_PUNCH:
    case IO_TRUNCATE:
        file->stats.others++;
        break;
    }
    file->ops->submit(file, request);
}

void io_close(struct io_file *file, void (*on_closed)(void *opaque), void *opaque)
{
    loop_check_thread(file->loop);
    file->ops->close(file, on_closed, opaque);
}

bool io_is_same_file(const char *a, const char *b)
{
    struct stat first, second;
    return !stat(a, &first) && !stat(b, &second) && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

static void on_waited_close(void *opaque)
{
    *(bool *)opaque = true;
}

void io_close_wait(struct io_file *file)
{
    bool is_closed = false;
    if (!file)
        return;
    struct loop *loop = file->loop;
    io_close(file, on_waited_close, &is_closed);
    while (!is_closed)
        loop_run_once(loop, true);
}

int io_read_now(struct io_file *file, uint64_t offset, void *buffer, uint64_t bytes)
{
    return file->ops->now(file, IO_READ, buffer, offset, bytes);
}

int io_write_now(struct io_file *file, uint64_t offset, const void *buffer, uint64_t bytes)
{
    /* The table's buffer serves reads and writes; a write does not change it. */
    return file->ops->now(file, IO_WRITE, (void *)(uintptr_t)buffer, offset, bytes);
}

int io_sync_now(struct io_file *file)
{
    return file->ops->now(file, IO_SYNC, NULL, 0, 0);
}

int io_zero_now(struct io_file *file, uint64_t offset, uint64_t bytes)
{
    return file->ops->now(file, IO_ZERO, NULL, offset, bytes);
}

int io_truncate_now(struct io_file *file, uint64_t length_bytes)
{
    return file->ops->now(file, IO_TRUNCATE, NULL, length_bytes, 0);
}

int io_length(struct io_file *file, uint64_t *length_bytes)
{
    return file->ops->length(file, length_bytes);
}
