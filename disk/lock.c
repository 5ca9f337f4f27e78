/* SPDX-License-Identifier: MIT */
/*
 * lock: OFD read locks on the bytes that QEMU uses. First take, then probe: two that start at the
 * same moment may both be refused, but never both be let in.
 */
#include "disk/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "disk/io.h"

#define USED_BASE     100
#define UNSHARED_BASE 200

static const char *const permission_names[LOCK_PERM_COUNT] = {
    [LOCK_PERM_CONSISTENT_READ] = "consistent read",
    [LOCK_PERM_WRITE] = "write",
    [LOCK_PERM_WRITE_UNCHANGED] = "write unchanged",
    [LOCK_PERM_RESIZE] = "resize",
};

static int lock_byte(int fd, int command, short type, off_t byte, bool *is_taken)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int result;
    do
        result = fcntl(fd, command, &lock);
    while (result < 0 && errno == EINTR);
    if (result < 0)
        return -errno;
    if (is_taken)
        *is_taken = lock.l_type != F_UNLCK;
    return 0;
}

static bool is_unsupported(int result)
{
    return result == -EINVAL || result == -ENOLCK || result == -EOPNOTSUPP || result == -ENOSYS;
}

/* Holds exactly the bytes of `bits` above `base`. */
static int hold(int fd, off_t base, unsigned bits)
{
    for (unsigned p = 0; p < LOCK_PERM_COUNT; p++) {
        short type = bits & LOCK_BIT(p) ? F_RDLCK : F_UNLCK;
        int result = lock_byte(fd, F_OFD_SETLK, type, base + p, NULL);
        if (result)
            return result;
    }
    return 0;
}

/* Sets *conflict to the first permission of `bits` that someone else holds above `base`, or -1. */
static int probe(int fd, off_t base, unsigned bits, int *conflict)
{
    *conflict = -1;
    for (unsigned p = 0; p < LOCK_PERM_COUNT; p++) {
        bool is_taken = false;
        if (!(bits & LOCK_BIT(p)))
            continue;
        int result = lock_byte(fd, F_OFD_GETLK, F_WRLCK, base + p, &is_taken);
        if (result)
            return result;
        if (is_taken) {
            *conflict = (int)p;
            return 0;
        }
    }
    return 0;
}

static int report(int fd, const char *path, const char *shared, int conflict, struct error *err)
{
    unused_result(hold(fd, USED_BASE, 0));
    unused_result(hold(fd, UNSHARED_BASE, 0));
    return error_set(err, EAGAIN,
                     "Could not open '%s': Failed to get %s\"%s\" lock: another process is using "
                     "the image; stop it, or only read with -U",
                     path, shared, permission_names[conflict]);
}

int lock_take(int fd, const char *path, unsigned used, unsigned unshared, struct error *err)
{
    int conflict;
    int result = hold(fd, USED_BASE, used);
    if (!result)
        result = hold(fd, UNSHARED_BASE, unshared);
    if (!result)
        result = probe(fd, UNSHARED_BASE, used, &conflict);
    if (!result && conflict >= 0)
        return report(fd, path, "", conflict, err);
    if (!result)
        result = probe(fd, USED_BASE, unshared, &conflict);
    if (!result && conflict >= 0)
        return report(fd, path, "shared ", conflict, err);
    if (result && !is_unsupported(result))
        return error_set_errno(err, -result, "Could not lock '%s'", path);
    return 0;
}

int lock_image(struct io_file *file, const char *path, bool read_only, struct error *err)
{
    unsigned exclusive = LOCK_BIT(LOCK_PERM_WRITE) | LOCK_BIT(LOCK_PERM_RESIZE);
    unsigned used = LOCK_BIT(LOCK_PERM_CONSISTENT_READ) | (read_only ? 0 : exclusive);
    if (file->fd < 0)
        return 0;
    return lock_take(file->fd, path, used, exclusive, err);
}
