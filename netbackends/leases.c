/* SPDX-License-Identifier: MIT */
/*
 * leases: the holder's own old address first, then one that nobody had, then the one that was given
 * back the longest time ago. A lock that was won makes the address ours, whatever the file says.
 */
#include "netbackends/leases.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

enum { HOLDER_MAX_BYTES = 128, NAME_BYTES = INET_ADDRSTRLEN + 8 };

struct claim {
    int folder_fd;
    const char *holder;
};

static void name_of(struct in_addr address, char name[NAME_BYTES])
{
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &address, text, sizeof(text));
    snprintf(name, NAME_BYTES, "%s.lease", text);
}

/* The address `index` places behind the first; false if it is not for machines. */
static bool pick(const struct leases_pool *pool, uint32_t index, struct in_addr *out)
{
    uint32_t mask = ntohl(pool->mask.s_addr), net = ntohl(pool->net.s_addr);
    uint64_t address = (uint64_t)ntohl(pool->first.s_addr) + index;
    if (address >= (net | ~mask))
        return false;
    out->s_addr = htonl((uint32_t)address);
    return true;
}

static bool is_taken(const struct leases_pool *pool, struct in_addr address)
{
    return address.s_addr == pool->taken[0].s_addr || address.s_addr == pool->taken[1].s_addr;
}

static int open_lease(const struct claim *claim, struct in_addr address, int flags)
{
    char name[NAME_BYTES];
    name_of(address, name);
    int fd =
        openat(claim->folder_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, 0600);
    return fd < 0 ? -errno : fd;
}

static bool is_held_by(int fd, const char *holder)
{
    char text[HOLDER_MAX_BYTES];
    size_t length = strnlen(holder, sizeof(text));
    return length && pread(fd, text, sizeof(text), 0) == (ssize_t)length &&
           !memcmp(text, holder, length);
}

/* Takes the lock and writes the name; closes the descriptor where somebody else has it. */
static int take(const struct claim *claim, int fd)
{
    size_t length = strnlen(claim->holder, HOLDER_MAX_BYTES);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return -EBUSY;
    }
    /* A name that cannot be kept costs the machine its usual address next time, no more. */
    unused_result(ftruncate(fd, 0));
    unused_result((int)pwrite(fd, claim->holder, length, 0));
    return fd;
}

static int take_own(const struct claim *claim, struct in_addr address)
{
    int fd = open_lease(claim, address, 0);
    if (fd >= 0 && !is_held_by(fd, claim->holder)) {
        close(fd);
        return -ENOENT;
    }
    return fd < 0 ? fd : take(claim, fd);
}

static int take_new(const struct claim *claim, struct in_addr address)
{
    int fd = open_lease(claim, address, O_CREAT | O_EXCL);
    return fd < 0 ? fd : take(claim, fd);
}

/* By `take` the first that can be had. -ENOENT: none; -EACCES and the like end it. */
static int take_first(const struct claim *claim, const struct leases_pool *pool,
                      int (*try)(const struct claim *claim, struct in_addr address),
                      struct in_addr *out)
{
    for (uint32_t i = 0; i < LEASES_MAX && pick(pool, i, out); i++) {
        int fd = is_taken(pool, *out) ? -ENOENT : try(claim, *out);
        if (fd >= 0 || (fd != -ENOENT && fd != -EEXIST && fd != -EBUSY))
            return fd;
    }
    return -ENOENT;
}

static bool is_free(const struct claim *claim, struct in_addr address, struct timespec *since)
{
    struct stat info;
    int fd = open_lease(claim, address, 0);
    if (fd < 0)
        return false;
    bool result = flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &info) == 0;
    close(fd);
    if (result)
        *since = info.st_mtim;
    return result;
}

static int take_oldest(const struct claim *claim, const struct leases_pool *pool,
                       struct in_addr *out)
{
    struct in_addr address;
    struct timespec oldest = {0}, since;
    bool is_found = false;
    for (uint32_t i = 0; i < LEASES_MAX && pick(pool, i, &address); i++) {
        if (is_taken(pool, address) || !is_free(claim, address, &since))
            continue;
        if (is_found && (since.tv_sec > oldest.tv_sec ||
                         (since.tv_sec == oldest.tv_sec && since.tv_nsec >= oldest.tv_nsec)))
            continue;
        is_found = true;
        oldest = since;
        *out = address;
    }
    int fd = is_found ? open_lease(claim, *out, 0) : -ENOENT;
    return fd < 0 ? fd : take(claim, fd);
}

int leases_claim(const char *folder, const struct leases_pool *pool, const char *holder,
                 struct in_addr *out, struct error *err)
{
    struct claim claim = {open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC), holder};
    if (claim.folder_fd < 0)
        return error_set_errno(err, errno, "cannot use the folder of network '%s'", folder);
    int fd = take_first(&claim, pool, take_own, out);
    if (fd == -ENOENT)
        fd = take_first(&claim, pool, take_new, out);
    if (fd == -ENOENT)
        fd = take_oldest(&claim, pool, out);
    close(claim.folder_fd);
    if (fd == -ENOENT || fd == -EBUSY)
        return error_set(err, ENOSPC,
                         "no address is left on network '%s': stop one of its machines, or make a "
                         "network with a larger net=",
                         folder);
    if (fd < 0)
        return error_set_errno(err, -fd, "cannot claim an address on network '%s'", folder);
    return fd;
}

void leases_give_back(int fd)
{
    futimens(fd,
             NULL); /* the time it counts from; a machine that is killed leaves an earlier one */
    close(fd);
}
