/* SPDX-License-Identifier: MIT */
/*
 * peers: a folder of sockets named "<id>-<name>.evnet", the id 16 hexadecimal digits that are drawn
 * anew each time, so that a file never comes to mean another machine.
 */
#include "netbackends/peers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"

#define SUFFIX ".evnet"
enum { ID_DIGITS = 16, NAME_MAX_BYTES = 24, SEND_BUFFER_BYTES = 1024 * 1024 };

static int open_folder(struct peers *peers, const char *folder, struct error *err)
{
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "cannot make the folder of internal network '%s'",
                               folder);
    peers->folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (peers->folder_fd < 0 && errno == ENOTDIR)
        return error_set(err, ENOTDIR, "internal network '%s' is not a folder: name another one",
                         folder);
    if (peers->folder_fd < 0)
        return error_set_errno(err, errno, "cannot use the folder of internal network '%s'",
                               folder);
    snprintf(peers->folder, sizeof(peers->folder), "%s", folder);
    snprintf(peers->place, sizeof(peers->place), "/proc/self/fd/%d", peers->folder_fd);
    return 0;
}

static int watch_folder(struct peers *peers, struct error *err)
{
    peers->notify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (peers->notify_fd >= 0 &&
        inotify_add_watch(peers->notify_fd, peers->place, IN_CREATE | IN_DELETE | IN_ONLYDIR) >= 0)
        return 0;
    return error_set_errno(err, errno, "cannot watch internal network '%s'", peers->folder);
}

int peers_init(struct peers *peers, const char *folder, struct error *err)
{
    memset(peers, 0, sizeof(*peers));
    peers->folder_fd = peers->notify_fd = -1;
    while (!peers->own_id)
        if (getrandom(&peers->own_id, sizeof(peers->own_id), 0) < 0 && errno != EINTR)
            return error_set_errno(err, errno, "cannot draw a number");
    int result = open_folder(peers, folder, err);
    if (!result)
        result = watch_folder(peers, err);
    if (result)
        peers_fini(peers);
    return result;
}

static void forget(struct peers *peers, struct peer *peer)
{
    close(peer->fd);
    *peer = (struct peer){0};
    peers->count--;
}

void peers_fini(struct peers *peers)
{
    for (struct peer *peer = NULL; (peer = peers_next(peers, peer));)
        forget(peers, peer);
    if (peers->notify_fd >= 0)
        close(peers->notify_fd);
    if (peers->folder_fd >= 0)
        close(peers->folder_fd);
}

int peers_bind_own(struct peers *peers, const char *name, struct socket_address *own,
                   struct error *err)
{
    char path[128], clean[NAME_MAX_BYTES + 1] = "";
    for (size_t i = 0; name && name[i] && i < NAME_MAX_BYTES; i++)
        clean[i] = name[i] == '/' ? '_' : name[i];
    snprintf(path, sizeof(path), "%s/%016llx-%s" SUFFIX, peers->place,
             (unsigned long long)peers->own_id, clean);
    const struct net_socket_address where = {.path = path};
    int result = socket_address_resolve(&where, own, err);
    return result ? result : socket_address_bind(own, SOCK_DGRAM, err);
}

/* 0 if the name is not that of a member. */
static uint64_t id_of(const char *name)
{
    size_t length = strlen(name), suffix = strlen(SUFFIX);
    char *end;
    if (length < ID_DIGITS + 1 + suffix || strcmp(name + length - suffix, SUFFIX) != 0 ||
        strspn(name, "0123456789abcdef") != ID_DIGITS)
        return 0;
    uint64_t id = strtoull(name, &end, 16);
    return *end == '-' ? id : 0;
}

static void add(struct peers *peers, uint64_t id, const char *name)
{
    char path[sizeof(peers->place) + NAME_MAX + 2];
    struct peer *peer = peers->all;
    int bytes = SEND_BUFFER_BYTES;
    while (peer < peers->all + PEERS_MAX && peer->id)
        peer++;
    snprintf(path, sizeof(path), "%s/%s", peers->place, name);
    const struct net_socket_address where = {.path = path};
    if (peer == peers->all + PEERS_MAX) {
        log_limited("internal network '%s' has more than %d machines: not all of them are reached",
                    peers->folder, PEERS_MAX + 1);
        return;
    }
    if (socket_address_resolve(&where, &peer->address, NULL))
        return;
    peer->fd = socket_address_open(&peer->address, SOCK_DGRAM);
    if (peer->fd < 0)
        return;
    if (connect(peer->fd, &peer->address.at.any, peer->address.length) < 0) {
        if (errno == ECONNREFUSED) /* left behind by a process that is gone */
            socket_address_unlink(&peer->address);
        close(peer->fd);
        return;
    }
    setsockopt(peer->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    peer->id = id;
    peers->count++;
}

static void forget_missing(struct peers *peers)
{
    for (struct peer *peer = NULL; (peer = peers_next(peers, peer));)
        if (access(peer->address.at.local.sun_path, F_OK) < 0)
            forget(peers, peer);
}

void peers_scan(struct peers *peers)
{
    _Alignas(struct inotify_event) char events[4096];
    while (read(peers->notify_fd, events, sizeof(events)) > 0) {
    }
    forget_missing(peers);
    DIR *folder = opendir(peers->place);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        uint64_t id = id_of(entry->d_name);
        if (id && id != peers->own_id && !peers_find(peers, id))
            add(peers, id, entry->d_name);
    }
    closedir(folder);
}

void peers_remove(struct peers *peers, struct peer *peer)
{
    socket_address_unlink(&peer->address);
    forget(peers, peer);
}

static size_t slot_of(const uint8_t mac[6])
{
    uint64_t address = (uint64_t)load_le32(mac + 2) << 16 | load_le16(mac);
    /* The top bits of the product depend on all of the address. */
    return (size_t)(address * UINT64_C(0x9e3779b97f4a7c15) >> 32) * PEERS_MAC_MAX >> 32;
}

void peers_learn(struct peers *peers, const uint8_t mac[6], uint64_t id)
{
    size_t slot = slot_of(mac);
    memcpy(peers->macs[slot].mac, mac, 6);
    peers->macs[slot].id = id;
}

struct peer *peers_find(struct peers *peers, uint64_t id)
{
    for (struct peer *peer = NULL; (peer = peers_next(peers, peer));)
        if (peer->id == id)
            return peer;
    return NULL;
}

struct peer *peers_find_mac(struct peers *peers, const uint8_t mac[6])
{
    size_t slot = slot_of(mac);
    if (!peers->macs[slot].id || memcmp(peers->macs[slot].mac, mac, 6) != 0)
        return NULL;
    return peers_find(peers, peers->macs[slot].id);
}

struct peer *peers_next(struct peers *peers, struct peer *after)
{
    for (struct peer *peer = after ? after + 1 : peers->all; peer < peers->all + PEERS_MAX; peer++)
        if (peer->id)
            return peer;
    return NULL;
}
