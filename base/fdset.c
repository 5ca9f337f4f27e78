/* SPDX-License-Identifier: MIT */
/* fdset: one list of descriptors with a name, and one of members of sets, sorted by number. */
#include "base/fdset.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/list.h"
#include "base/text.h"

#define PREFIX "/dev/fdset/"

struct named {
    struct list node;
    char *name;
    int fd;
};

struct member {
    struct list node;
    struct fdset_member info;
    char *opaque;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct list names = {&names, &names};
static struct list members = {&members, &members};

int fdset_take(const char *name)
{
    int fd = -ENOENT;
    pthread_mutex_lock(&mutex);
    list_for_each(node, &names)
    {
        struct named *named = list_entry(node, struct named, node);
        if (strcmp(named->name, name) != 0)
            continue;
        fd = named->fd;
        list_remove(&named->node);
        free(named->name);
        free(named);
        break;
    }
    pthread_mutex_unlock(&mutex);
    return fd;
}

void fdset_name(const char *name, int fd)
{
    int old = fdset_take(name);
    if (old >= 0)
        close(old);
    struct named *named = calloc(1, sizeof(*named));
    CHECK(named);
    named->name = text_copy(name);
    named->fd = fd;
    pthread_mutex_lock(&mutex);
    list_push_back(&names, &named->node);
    pthread_mutex_unlock(&mutex);
}

/* The first free number. */
static int64_t new_number(void)
{
    int64_t number = 0;
    list_for_each(node, &members)
    {
        const struct member *member = list_entry(node, struct member, node);
        if (member->info.set_id == number)
            number++;
    }
    return number;
}

static void insert(struct member *member)
{
    struct list *before = &members;
    list_for_each(node, &members)
    {
        if (list_entry(node, struct member, node)->info.set_id < member->info.set_id)
            continue;
        before = node;
        break;
    }
    list_push_back(before, &member->node);
}

void fdset_add(int64_t *set_id, int fd, const char *opaque)
{
    struct member *member = calloc(1, sizeof(*member));
    CHECK(member);
    member->opaque = text_copy(opaque);
    pthread_mutex_lock(&mutex);
    if (*set_id < 0)
        *set_id = new_number();
    member->info = (struct fdset_member){*set_id, fd, member->opaque};
    insert(member);
    pthread_mutex_unlock(&mutex);
}

int fdset_remove(int64_t set_id, int fd)
{
    int result = -ENOENT;
    pthread_mutex_lock(&mutex);
    for (struct list *node = members.next, *next; node != &members; node = next) {
        struct member *member = list_entry(node, struct member, node);
        next = node->next;
        if (member->info.set_id != set_id || (fd >= 0 && member->info.fd != fd))
            continue;
        result = 0;
        list_remove(&member->node);
        close(member->info.fd);
        free(member->opaque);
        free(member);
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

void fdset_for_each(void (*emit)(void *opaque, const struct fdset_member *member), void *opaque)
{
    pthread_mutex_lock(&mutex);
    list_for_each(node, &members) emit(opaque, &list_entry(node, struct member, node)->info);
    pthread_mutex_unlock(&mutex);
}

bool fdset_is_path(const char *path)
{
    return strncmp(path, PREFIX, strlen(PREFIX)) == 0;
}

/* Also makes it direct, as the open of a path would. */
static int duplicate(int fd, int flags)
{
    int result = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (result < 0 || !(flags & O_DIRECT))
        return result < 0 ? -errno : result;
    int now = fcntl(result, F_GETFL);
    if (now >= 0 && fcntl(result, F_SETFL, now | O_DIRECT) == 0)
        return result;
    int code = errno;
    close(result);
    return -code;
}

int fdset_open(const char *path, int flags)
{
    char *end;
    errno = 0;
    long long number = strtoll(path + strlen(PREFIX), &end, 10);
    int result = -ENOENT;
    if (errno || *end || end == path + strlen(PREFIX))
        return -ENOENT;
    pthread_mutex_lock(&mutex);
    list_for_each(node, &members)
    {
        const struct fdset_member *info = &list_entry(node, struct member, node)->info;
        if (info->set_id != number)
            continue;
        int how = fcntl(info->fd, F_GETFL);
        result = -EACCES;
        if (how < 0 || (how & O_ACCMODE) != (flags & O_ACCMODE))
            continue;
        result = duplicate(info->fd, flags);
        break;
    }
    pthread_mutex_unlock(&mutex);
    return result;
}
