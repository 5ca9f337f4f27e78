/* SPDX-License-Identifier: MIT */
/* chardev_open: how each kind of chardev comes by its descriptors. Start-up: may block. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "base/socket.h"
#include "vmm/chardev/chardev_private.h"
#include "vmm/chardev/terminal.h"

static int link_up(struct chardev *chardev, int in_fd, int out_fd, struct error *err)
{
    int result = chardev_link_up(chardev, in_fd, out_fd);
    if (result)
        error_set_errno(err, -result, "chardev '%s'", chardev->config->id);
    return result;
}

/* The same file by a second descriptor, so that each direction can be watched by itself. */
static int link_up_both(struct chardev *chardev, int fd, struct error *err)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy >= 0)
        return link_up(chardev, fd, copy, err);
    int result = error_set_errno(err, errno, "chardev '%s'", chardev->config->id);
    close(fd);
    return result;
}

static int open_null(struct chardev *chardev, struct error *err)
{
    (void)err;
    snprintf(chardev->filename, sizeof(chardev->filename), "null");
    return 0;
}

static int open_stdio(struct chardev *chardev, struct error *err)
{
    snprintf(chardev->filename, sizeof(chardev->filename), "stdio");
    int result = terminal_set_raw(STDIN_FILENO, chardev->config->has_signals, err);
    if (result)
        return result;
    int in_fd = terminal_open_nonblocking(STDIN_FILENO);
    int out_fd = terminal_open_nonblocking(STDOUT_FILENO);
    /* Either may be closed: `evisor <&-` has no input, no more. */
    return link_up(chardev, MAX(in_fd, -1), MAX(out_fd, -1), err);
}

static int open_file(struct chardev *chardev, struct error *err)
{
    const char *path = chardev->config->path;
    int how = chardev->config->append ? O_APPEND : O_TRUNC;
    snprintf(chardev->filename, sizeof(chardev->filename), "file");
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | how, 0666);
    if (fd < 0 && errno == ENXIO)
        return error_set(err, ENXIO, "%s: nobody reads this FIFO; start its reader first", path);
    if (fd < 0)
        return error_set_errno(err, errno, "cannot open %s for the output of chardev '%s'", path,
                               chardev->config->id);
    return link_up(chardev, -1, fd, err);
}

/* The guest speaks to the far end byte by byte: no line editing, no echo. */
static int make_pty_raw(int master, char *name, size_t size)
{
    struct termios settings;
    if (grantpt(master) < 0 || unlockpt(master) < 0)
        return -errno;
    int result = ptsname_r(master, name, size);
    if (result)
        return -result;
    int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return -errno;
    result = tcgetattr(slave, &settings) < 0 ? -errno : 0;
    cfmakeraw(&settings);
    if (!result && tcsetattr(slave, TCSANOW, &settings) < 0)
        result = -errno;
    close(slave);
    return result;
}

static int open_pty(struct chardev *chardev, struct error *err)
{
    char name[128];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (master < 0)
        return error_set_errno(err, errno, "chardev '%s': no pty to be had", chardev->config->id);
    int result = make_pty_raw(master, name, sizeof(name));
    if (result) {
        close(master);
        return error_set_errno(err, -result, "chardev '%s': cannot set up its pty",
                               chardev->config->id);
    }
    snprintf(chardev->filename, sizeof(chardev->filename), "pty:%s", name);
    result = link_up_both(chardev, master, err);
    if (!result)
        result = chardev_start_pty(chardev);
    if (result)
        return error_set_errno(err, -result, "chardev '%s'", chardev->config->id);
    if (chardev->config->is_quiet)
        return 0;
    printf("char device redirected to %s (label %s)\n", name, chardev->config->id);
    fflush(stdout);
    return 0;
}

static int wait_for_client(struct chardev *chardev, struct error *err)
{
    log_info("waiting for connection on: %s", chardev->filename);
    for (;;) {
        struct pollfd ready = {.fd = chardev->listener, .events = POLLIN};
        int result = poll(&ready, 1, -1) < 0 ? -errno : chardev_accept(chardev);
        if (!result)
            return 0;
        if (result != -EAGAIN && result != -EPERM && result != -ECONNABORTED)
            return error_set_errno(err, -result, "chardev '%s'", chardev->config->id);
    }
}

static int serve(struct chardev *chardev, int listener, struct error *err)
{
    if (listener < 0)
        return listener;
    chardev->listener = listener;
    if (chardev->config->wait) {
        int result = wait_for_client(chardev, err);
        if (result)
            return result;
    }
    int result = chardev_watch_listener(chardev);
    if (result)
        return error_set_errno(err, -result, "chardev '%s'", chardev->config->id);
    return 0;
}

/* Connects first, then goes non-blocking: both ends are on this host. */
static int connect_to(struct chardev *chardev, const struct sockaddr *address, socklen_t size,
                      struct error *err)
{
    if (chardev->config->reconnect_ms) {
        int result = chardev_client_start(chardev, address, size);
        return result ? error_set_errno(err, -result, "chardev '%s'", chardev->config->id) : 0;
    }
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set_errno(err, errno, "chardev '%s'", chardev->config->id);
    if (connect(fd, address, size) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        int result = error_set_errno(err, errno, "chardev '%s': cannot connect to %s",
                                     chardev->config->id, chardev->filename);
        close(fd);
        return result;
    }
    return link_up_both(chardev, fd, err);
}

static int open_unix(struct chardev *chardev, struct error *err)
{
    const struct config_chardev *config = chardev->config;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(chardev->filename, sizeof(chardev->filename), "unix:%s%s", config->path,
             config->is_server ? ",server=on" : "");
    if (config->is_server)
        return serve(chardev, socket_listen_unix(config->path, err), err);
    if (strlen(config->path) >= sizeof(address.sun_path))
        return error_set(err, ENAMETOOLONG, "socket path %s is too long; the limit is %zu bytes",
                         config->path, sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, config->path, strlen(config->path) + 1);
    return connect_to(chardev, (const struct sockaddr *)&address, sizeof(address), err);
}

static int open_tcp(struct chardev *chardev, struct error *err)
{
    const struct config_chardev *config = chardev->config;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(config->port)};
    const char *host = config->host && *config->host ? config->host : "127.0.0.1";
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    snprintf(chardev->filename, sizeof(chardev->filename), "%s:%s:%u%s",
             config->is_telnet ? "telnet" : "tcp", host, config->port,
             config->is_server ? ",server=on" : "");
    if (config->is_server)
        return serve(chardev, socket_listen_tcp(host, config->port, err), err);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
        ntohl(address.sin_addr.s_addr) >> 24 != 127)
        return error_set(err, EACCES, "chardev '%s': %s is not on this host; use 127.0.0.1",
                         config->id, host);
    return connect_to(chardev, (const struct sockaddr *)&address, sizeof(address), err);
}

/* One end of a pair of FIFOs; it opens without anybody at the other end. */
static int open_fifo(const struct chardev *chardev, const char *suffix, int *fd, struct error *err)
{
    char *path = NULL;
    CHECK(asprintf(&path, "%s%s", chardev->config->path, suffix) > 0);
    *fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int code = errno;
    free(path);
    return *fd < 0 ? error_set_errno(err, code, "chardev '%s': cannot open %s%s",
                                     chardev->config->id, chardev->config->path, suffix)
                   : 0;
}

/* PATH.in and PATH.out, made by mkfifo; or one file, which is read and written. */
static int open_pipe(struct chardev *chardev, struct error *err)
{
    int in_fd, out_fd;
    struct error ignored;
    snprintf(chardev->filename, sizeof(chardev->filename), "pipe");
    if (open_fifo(chardev, ".in", &in_fd, &ignored)) {
        int result = open_fifo(chardev, "", &in_fd, err);
        return result ? result : link_up_both(chardev, in_fd, err);
    }
    int result = open_fifo(chardev, ".out", &out_fd, err);
    if (!result)
        return link_up(chardev, in_fd, out_fd, err);
    close(in_fd);
    return result;
}

static int open_ringbuf(struct chardev *chardev, struct error *err)
{
    chardev->memory.capacity = chardev->config->ring_bytes;
    chardev->memory.bytes = malloc(chardev->memory.capacity);
    snprintf(chardev->filename, sizeof(chardev->filename), "ringbuf");
    if (chardev->memory.bytes) {
        chardev_tell_open(chardev, true); /* it is always there, other than CHARDEV_NULL */
        return 0;
    }
    chardev->memory.capacity = 0;
    return error_set_errno(err, ENOMEM, "chardev '%s'", chardev->config->id);
}

int chardev_open(struct chardev *chardev, struct error *err)
{
    static int (*const open_kind[])(struct chardev * chardev, struct error * err) = {
        [CHARDEV_NULL] = open_null, [CHARDEV_STDIO] = open_stdio,     [CHARDEV_FILE] = open_file,
        [CHARDEV_PTY] = open_pty,   [CHARDEV_UNIX] = open_unix,       [CHARDEV_TCP] = open_tcp,
        [CHARDEV_PIPE] = open_pipe, [CHARDEV_RINGBUF] = open_ringbuf,
    };
    return open_kind[chardev->config->kind](chardev, err);
}
