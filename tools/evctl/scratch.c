/* SPDX-License-Identifier: MIT */
/* scratch: folders for what is not whole yet, or any more. */
#include "tools/evctl/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    return remove(path) < 0 && errno != ENOENT ? errno : 0;
}

int scratch_remove_tree(const char *folder)
{
    int result = nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return result < 0 ? -errno : -result;
}

/* Held while folders are made and swept, so that none is taken for left in between. */
static int lock_parent(const char *path)
{
    char *copy = strdup(path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        unused_result(flock(fd, LOCK_EX));
    free(copy);
    return fd;
}

/* The descriptor, or -errno: -EWOULDBLOCK where somebody has it. */
static int lock_in(const char *folder, int flags)
{
    char *path = NULL;
    CHECK(asprintf(&path, "%s/lock", folder) > 0);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    int result = fd < 0 ? -errno : fd;
    free(path);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
        return result;
    result = -errno;
    close(fd);
    return result;
}

static int make_anew(const char *path)
{
    int lock = lock_in(path, O_CREAT);
    if (lock < 0)
        return lock == -EWOULDBLOCK ? -EBUSY : lock;
    int result = scratch_remove_tree(path);
    close(lock);
    return result ? result : mkdir(path, 0700) < 0 ? -errno : 0;
}

int scratch_make(const char *path, struct error *err)
{
    int parent = lock_parent(path);
    int result = mkdir(path, 0700) == 0 ? 0 : errno == EEXIST ? make_anew(path) : -errno;
    if (!result)
        result = lock_in(path, O_CREAT);
    if (parent >= 0)
        close(parent);
    if (result < 0 && result != -EBUSY)
        error_set_errno(err, -result, "cannot make the folder %s", path);
    return result;
}

static bool is_scratch(const char *name)
{
    size_t length = strlen(name);
    return *name == '.' && ((length > 5 && strcmp(name + length - 4, ".new") == 0) ||
                            (length > 6 && strcmp(name + length - 5, ".gone") == 0));
}

void scratch_sweep(const char *folder)
{
    DIR *entries = opendir(folder);
    if (!entries)
        return;
    unused_result(flock(dirfd(entries), LOCK_EX));
    for (struct dirent *entry; (entry = readdir(entries));) {
        char *path = NULL;
        if (!is_scratch(entry->d_name))
            continue;
        CHECK(asprintf(&path, "%s/%s", folder, entry->d_name) > 0);
        int lock = lock_in(path, 0);
        if (lock >= 0 || lock == -ENOENT)
            unused_result(scratch_remove_tree(path));
        if (lock >= 0)
            close(lock);
        free(path);
    }
    closedir(entries);
}
