/* SPDX-License-Identifier: MIT */
/*
 * lock: advisory locks on image files, byte for byte those of QEMU, so that evisor, QEMU and the
 * tools of both keep each other out.
 *
 * A holder takes OFD read locks: byte 100 + p says "I use permission p", byte 200 + p "nobody else
 * may use p". A conflict is probed for, never waited for. Locks live as long as the descriptor.
 */
#ifndef DISK_LOCK_H
#define DISK_LOCK_H

#include <stdbool.h>

#include "base/error.h"

struct io_file;

enum lock_permission {
    LOCK_PERM_CONSISTENT_READ,
    LOCK_PERM_WRITE,
    LOCK_PERM_WRITE_UNCHANGED,
    LOCK_PERM_RESIZE,
    LOCK_PERM_COUNT,
};

#define LOCK_BIT(permission) (1u << (permission))

/* The two ways a whole image is opened: readers share with readers, a writer with nobody. */
int must_check lock_image(struct io_file *file, const char *path, bool read_only,
                          struct error *err);

/*
 * Takes exactly `used` and `unshared` (LOCK_BITs), gives back what else this descriptor holds, and
 * checks both against other holders. -EAGAIN and the holder's claim in `err` on a conflict. File
 * systems without OFD locks count as unlocked.
 */
int must_check lock_take(int fd, const char *path, unsigned used, unsigned unshared,
                         struct error *err);

#endif
