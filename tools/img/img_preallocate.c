/* SPDX-License-Identifier: MIT */
/*
 * img_preallocate: zeroes are written through the engine, which gives every cluster its place. For
 * metadata alone the file then gets holes at these places, window by window, so that no more than
 * one window takes space at a time.
 */
#include "tools/img/img_preallocate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

#define WINDOW_BYTES (1 * GIB)
#define CHUNK_BYTES  (4 * MIB)

static int write_zeroes(struct disk *disk, uint64_t start, uint64_t end)
{
    uint8_t *zeroes = calloc(1, CHUNK_BYTES);
    int result = zeroes ? 0 : -ENOMEM;
    for (uint64_t at = start; at < end && !result; at += CHUNK_BYTES) {
        struct iovec iov = {zeroes, MIN(CHUNK_BYTES, end - at)};
        struct disk_request request = {
            .op = DISK_WRITE, .offset = at, .bytes = iov.iov_len, .iov = &iov, .iov_count = 1};
        result = disk_run(disk, &request);
    }
    free(zeroes);
    struct disk_request flush = {.op = DISK_FLUSH};
    return result ? result : disk_run(disk, &flush);
}

static int punch_extents(struct map *map, int fd, uint64_t start, uint64_t end)
{
    for (uint64_t at = start; at < end;) {
        struct map_extent extent;
        struct error err = {0};
        int result = map_find(map, at, end, 1, &extent, &err);
        if (result)
            return result;
        if (extent.kind == MAP_DATA && extent.has_host &&
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)extent.host_offset,
                      (off_t)extent.bytes) &&
            errno != EOPNOTSUPP) /* then it takes space that it need not take */
            return -errno;
        at += extent.bytes;
    }
    return 0;
}

static int make_holes(struct loop *loop, const char *path, const char *format, uint64_t start,
                      uint64_t end)
{
    const struct map_options options = {.path = path, .format = format};
    struct map *map;
    struct error err = {0};
    int result = map_open(loop, &options, &map, &err);
    if (result)
        return result;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    result = fd < 0 ? -errno : punch_extents(map, fd, start, end);
    if (fd >= 0)
        close(fd);
    map_close(map);
    return result;
}

static int preallocate_raw(const char *path, uint64_t start, uint64_t end)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    int result = fd < 0 ? -errno : -posix_fallocate(fd, (off_t)start, (off_t)(end - start));
    if (fd >= 0)
        close(fd);
    return result;
}

int img_preallocate(struct loop *loop, const struct img_source *source, const char *path,
                    const char *mode, uint64_t start)
{
    uint64_t end = disk_size_bytes(source->disk);
    int result = 0;
    if (!strcmp(source->format, "raw") && !strcmp(mode, "falloc"))
        return preallocate_raw(path, start, end);
    for (uint64_t at = start, next; at < end && !result; at = next) {
        next = MIN(at + WINDOW_BYTES, end);
        result = write_zeroes(source->disk, at, next);
        if (!result && !strcmp(mode, "metadata"))
            result = make_holes(loop, path, source->format, at, next);
    }
    return result;
}
