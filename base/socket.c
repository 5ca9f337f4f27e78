/* SPDX-License-Identifier: MIT */
/* socket: listening sockets that only their owner, on this host, can reach. */
#include "base/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 16

/* Somebody answers, or might: any failure but "nobody listens" counts as in use. */
static bool has_listener(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true;
    bool is_dead = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
                   (errno == ECONNREFUSED || errno == ENOENT);
    close(fd);
    return !is_dead;
}

static int make_room(const struct sockaddr_un *address, struct error *err)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0)
        return 0; /* nothing there; bind finds out about the rest */
    if (!S_ISSOCK(status.st_mode))
        return error_set(err, EEXIST,
                         "socket %s: there is a file of that name, and it is no socket; choose "
                         "another path",
                         address->sun_path);
    if (has_listener(address))
        return error_set(err, EADDRINUSE,
                         "socket %s is in use by a running process; end it or choose another path",
                         address->sun_path);
    if (unlink(address->sun_path) < 0 && errno != ENOENT)
        return error_set_errno(err, errno, "socket %s: cannot remove the stale one",
                               address->sun_path);
    return 0;
}

/* The mode is there before the name: nobody can connect in between. */
static int bind_private(int fd, const struct sockaddr_un *address, struct error *err)
{
    mode_t mask = umask(0177);
    int result = bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
    umask(mask);
    if (result == -ENOENT)
        return error_set(err, ENOENT, "socket %s: its folder does not exist; make it first",
                         address->sun_path);
    if (result)
        return error_set_errno(err, -result, "socket %s", address->sun_path);
    return 0;
}

static int fill_unix(struct sockaddr_un *address, const char *path, struct error *err)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(address->sun_path))
        return error_set(err, ENAMETOOLONG,
                         "socket %s: the path has %zu bytes and at most %zu are possible; choose a "
                         "shorter one, or one relative to the working directory",
                         path, strlen(path), sizeof(address->sun_path) - 1);
    memcpy(address->sun_path, path, strlen(path) + 1);
    return 0;
}

int socket_listen_unix(const char *path, struct error *err)
{
    struct sockaddr_un address;
    int result = fill_unix(&address, path, err);
    if (!result)
        result = make_room(&address, err);
    if (result)
        return result;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set_errno(err, errno, "socket %s", path);
    result = bind_private(fd, &address, err);
    if (!result && listen(fd, BACKLOG) < 0)
        result = error_set_errno(err, errno, "socket %s", path);
    if (result) {
        close(fd);
        return result;
    }
    return fd;
}

static bool is_loopback(const char *host, struct in_addr *address)
{
    if (!host || !*host || strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    return inet_pton(AF_INET, host, address) == 1 && ntohl(address->s_addr) >> 24 == 127;
}

int socket_listen_tcp(const char *host, uint16_t port, struct error *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (!is_loopback(host, &address.sin_addr))
        return error_set(err, EACCES,
                         "tcp:%s:%u: only this host may come; use 127.0.0.1, and ssh -L from "
                         "elsewhere",
                         host, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    if (fd < 0)
        return error_set_errno(err, errno, "tcp port %u", port);
    unused_result(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0) {
        int result = error_set_errno(err, errno, "tcp port %u (choose another one)", port);
        close(fd);
        return result;
    }
    return fd;
}

int socket_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    int on = 1;
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0 || address.ss_family != AF_UNIX) {
        /* Small replies that follow each other must not wait for the peer's delayed ACK. */
        unused_result(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
        return fd;
    }
    struct ucred peer;
    size = sizeof(peer);
    bool is_ours = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
                   (peer.uid == geteuid() || peer.uid == 0);
    if (is_ours)
        return fd;
    close(fd);
    return -EPERM;
}

void socket_break_off(int fd)
{
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    if (connect(fd, &nobody, sizeof(nobody)) < 0)
        shutdown(fd, SHUT_RDWR);
}
