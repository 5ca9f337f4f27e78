/* SPDX-License-Identifier: MIT */
/* memory_backing: maps files, or memory of the host at a huge page's boundary. */
#include "vmm/memory_backing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/limits.h"

#define HUGE_PAGE_BYTES (2 * MIB)

static int open_file(const char *path, const char *what, struct error *err)
{
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        char *name = NULL;
        CHECK(asprintf(&name, "%s/evisor-ram-XXXXXX", path) > 0);
        int fd = mkostemp(name, O_CLOEXEC);
        int code = errno;
        if (fd >= 0)
            unlink(name);
        free(name);
        return fd >= 0 ? fd : error_set_errno(err, code, "cannot create %s in '%s'", what, path);
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return fd >= 0 ? fd : error_set_errno(err, errno, "cannot open '%s' for %s", path, what);
}

/* A file's own: one of another size was made for something else, and would lose what is in it. */
static int claim_file(const struct memory_backing *backing, const char *path, const char *what,
                      struct error *err)
{
    struct stat info;
    if (fstat(backing->fd, &info) < 0)
        return error_set_errno(err, errno, "cannot look at '%s' for %s", path, what);
    if (S_ISREG(info.st_mode) && info.st_size && (uint64_t)info.st_size != backing->size)
        return error_set(err, EEXIST,
                         "'%s' has %lld bytes, %s has %llu: name a folder, or a file that is new, "
                         "empty or of that size",
                         path, (long long)info.st_size, what, (unsigned long long)backing->size);
    if (flock(backing->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return error_set(err, EBUSY, "'%s' is the memory of another machine: name another file",
                         path);
    return 0;
}

/* Takes more addresses than are wanted, and gives back what lies before and after. */
static void *map_aligned(uint64_t size)
{
    char *all = mmap(NULL, size + HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return MAP_FAILED;
    uint64_t before = align_up((uint64_t)(uintptr_t)all, HUGE_PAGE_BYTES) - (uintptr_t)all;
    if (before)
        munmap(all, before);
    /* Up to a page's end: no kernel keeps less. */
    char *end = all + before + align_up(size, (uint64_t)sysconf(_SC_PAGESIZE));
    if (end < all + size + HUGE_PAGE_BYTES)
        munmap(end, (size_t)(all + size + HUGE_PAGE_BYTES - end));
    return all + before;
}

static int map_file(struct memory_backing *backing, bool is_reserved, const char *what,
                    struct error *err)
{
    const unsigned long long mib = backing->size / MIB;
    if (ftruncate(backing->fd, (off_t)backing->size) < 0)
        return error_set_errno(err, errno, "cannot size %s to %llu MiB", what, mib);
    int flags = MAP_SHARED | (is_reserved ? 0 : MAP_NORESERVE);
    backing->host = mmap(NULL, backing->size, PROT_READ | PROT_WRITE, flags, backing->fd, 0);
    if (backing->host == MAP_FAILED)
        return error_set_errno(err, errno,
                               "cannot map %llu MiB of %s; use less, or give the file system of "
                               "its file more pages",
                               mib, what);
    return 0;
}

static int map(struct memory_backing *backing, const char *path, bool is_reserved, const char *what,
               struct error *err)
{
    if (path) {
        backing->fd = open_file(path, what, err);
        int result = backing->fd < 0 ? backing->fd : claim_file(backing, path, what, err);
        return result ? result : map_file(backing, is_reserved, what, err);
    }
    backing->host = map_aligned(backing->size);
    if (backing->host == MAP_FAILED)
        return error_set_errno(err, errno, "cannot map %llu MiB of %s; use less",
                               (unsigned long long)(backing->size / MIB), what);
    /* A child that copied it all on write would cost more than it could ever want of it. */
    madvise(backing->host, backing->size, MADV_DONTFORK);
    return 0;
}

int memory_backing_init(struct memory_backing *backing, uint64_t size, const char *path,
                        bool is_reserved, const char *what, struct error *err)
{
    *backing = (struct memory_backing){.size = size, .fd = -1};
    int result = map(backing, path, is_reserved, what, err);
    if (result) {
        if (backing->fd >= 0)
            close(backing->fd);
        return result;
    }
    madvise(backing->host, size, MADV_HUGEPAGE);
    madvise(backing->host, size, MADV_DONTDUMP);
    return 0;
}

void memory_backing_fini(struct memory_backing *backing)
{
    munmap(backing->host, backing->size);
    if (backing->fd >= 0)
        close(backing->fd);
}
