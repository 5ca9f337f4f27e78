/* SPDX-License-Identifier: MIT */
/*
 * fdset: descriptors that somebody else opened for this process (QMP's getfd and add-fd).
 *
 * A descriptor has a name, and is taken by it once; or it is a member of a numbered set, and stands
 * behind the path /dev/fdset/NUMBER, which can be opened any number of times. The table is the
 * process's; any thread may open a path.
 */
#ifndef BASE_FDSET_H
#define BASE_FDSET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Takes `fd` over; one that had this name is closed. */
void fdset_name(const char *name, int fd);
/* The descriptor is the caller's from now on. -ENOENT. */
int fdset_take(const char *name);

/*
 * Takes `fd` over. A negative *set_id is replaced by that of a new set; a set that does not exist
 * is made. `opaque` may be NULL.
 */
void fdset_add(int64_t *set_id, int fd, const char *opaque);
/* fd -1: all of the set. What was opened from them lives on. -ENOENT. */
int must_check fdset_remove(int64_t set_id, int fd);

struct fdset_member {
    int64_t set_id;
    int fd;
    const char *opaque; /* or NULL */
};

/* By ascending number; within a set the newest first. */
void fdset_for_each(void (*emit)(void *opaque, const struct fdset_member *member), void *opaque);

bool fdset_is_path(const char *path);
/*
 * open(2) of such a path: a duplicate of the member that was opened with the same access mode.
 * -ENOENT: no such set. -EACCES: none of its members has this mode.
 */
int fdset_open(const char *path, int flags);

#endif
