/* SPDX-License-Identifier: MIT */
/* socket_address: resolves without asking any name server, opens, binds, cleans up. */
#include "netbackends/socket_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int resolve_path(const char *path, struct socket_address *out, struct error *err)
{
    size_t length = strlen(path), max = sizeof(out->at.local.sun_path) - 1;
    if (!length || length > max)
        return error_set(err, ENAMETOOLONG,
                         "socket path '%.40s%s' is %zu bytes long: it may have 1 to %zu", path,
                         length > 40 ? "..." : "", length, max);
    out->at.local.sun_family = AF_UNIX;
    memcpy(out->at.local.sun_path, path, length + 1);
    out->length = sizeof(out->at.local);
    snprintf(out->name, sizeof(out->name), "%s", path);
    return 0;
}

int socket_address_resolve(const struct net_socket_address *from, struct socket_address *out,
                           struct error *err)
{
    memset(out, 0, sizeof(*out));
    if (from->path)
        return resolve_path(from->path, out, err);
    const char *host = from->host && *from->host ? from->host : "127.0.0.1";
    if (!strcmp(host, "localhost"))
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &out->at.ipv4.sin_addr) == 1) {
        out->at.ipv4.sin_family = AF_INET;
        out->at.ipv4.sin_port = htons(from->port);
        out->length = sizeof(out->at.ipv4);
        snprintf(out->name, sizeof(out->name), "%s:%u", host, from->port);
        return 0;
    }
    if (inet_pton(AF_INET6, host, &out->at.ipv6.sin6_addr) == 1) {
        out->at.ipv6.sin6_family = AF_INET6;
        out->at.ipv6.sin6_port = htons(from->port);
        out->length = sizeof(out->at.ipv6);
        snprintf(out->name, sizeof(out->name), "[%s]:%u", host, from->port);
        return 0;
    }
    return error_set(err, EINVAL,
                     "'%s' is not a numeric address: write it as in 192.0.2.1 or 127.0.0.1", host);
}

int socket_address_open(const struct socket_address *address, int type)
{
    int fd = socket(address->at.any.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

/* A socket file whose owner is gone refuses connections. */
bool socket_address_is_stale(const struct socket_address *address, int type)
{
    int fd = socket_address_open(address, type);
    if (address->at.any.sa_family != AF_UNIX || fd < 0) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    bool refused = connect(fd, &address->at.any, address->length) < 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static int bind_once(int fd, const struct socket_address *address)
{
    int one = 1;
    if (address->at.any.sa_family == AF_UNIX)
        fchmod(fd, 0600); /* takes effect on the file that bind makes */
    else
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    return bind(fd, &address->at.any, address->length) < 0 ? -errno : 0;
}

int socket_address_bind(const struct socket_address *address, int type, struct error *err)
{
    int fd = socket_address_open(address, type);
    if (fd < 0)
        return error_set_errno(err, -fd, "cannot open a socket for '%s'", address->name);
    int result = bind_once(fd, address);
    if (result == -EADDRINUSE && socket_address_is_stale(address, type)) {
        socket_address_unlink(address);
        result = bind_once(fd, address);
    }
    if (!result)
        return fd;
    close(fd);
    if (result == -EADDRINUSE)
        return error_set(err, EADDRINUSE,
                         "'%s' is in use by another program: choose another %s, or stop that one",
                         address->name, address->at.any.sa_family == AF_UNIX ? "path" : "port");
    return error_set_errno(err, -result, "cannot bind a socket to '%s'", address->name);
}

void socket_address_unlink(const struct socket_address *address)
{
    if (address->at.any.sa_family == AF_UNIX)
        unlink(address->at.local.sun_path);
}
