/* SPDX-License-Identifier: MIT */
/*
 * chardev_client: a socket that connects by itself, again and again: reconnect=SECONDS.
 *
 * Nothing waits for it: connect(2) is non-blocking and its end is awaited on the loop. Whoever is
 * not there is tried again after the period, and so is one who leaves.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/chardev/chardev_private.h"

static void on_retry(struct loop_timer *timer);

void chardev_client_retry(struct chardev *chardev)
{
    if (!chardev->is_closing)
        loop_timer_arm(&chardev->client.retry,
                       loop_now_ns() + chardev->config->reconnect_ms * UINT64_C(1000000));
}

/* The descriptor becomes the link. */
static void connected(struct chardev *chardev, int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
        close(fd);
        chardev_client_retry(chardev);
        return;
    }
    /* When it fails, it has closed both. */
    if (chardev_link_up(chardev, fd, copy))
        chardev_client_retry(chardev);
    else
        loop_task_queue(&chardev->flush);
}

static void on_connect_closed(struct loop_watch *watch)
{
    struct chardev *chardev = container_of(watch, struct chardev, client.watch);
    int fd = chardev->client.fd, error = chardev->client.error;
    chardev->client.fd = -1;
    if (error || chardev->is_closing) {
        close(fd);
        chardev_client_retry(chardev);
    } else {
        connected(chardev, fd);
    }
    chardev_release(chardev);
}

static void on_connect_ready(struct loop_watch *watch, int events)
{
    struct chardev *chardev = container_of(watch, struct chardev, client.watch);
    socklen_t size = sizeof(chardev->client.error);
    (void)events;
    if (chardev->client.is_ending)
        return;
    if (getsockopt(chardev->client.fd, SOL_SOCKET, SO_ERROR, &chardev->client.error, &size) < 0)
        chardev->client.error = errno;
    chardev->client.is_ending = true;
    loop_watch_close(watch, on_connect_closed);
}

/* Under way: the loop tells when it is decided. */
static void await(struct chardev *chardev, int fd)
{
    if (loop_watch_init(chardev->loop, &chardev->client.watch, fd, on_connect_ready)) {
        close(fd);
        chardev_client_retry(chardev);
        return;
    }
    chardev->client.fd = fd;
    chardev->client.is_ending = false;
    chardev->client.error = 0;
    chardev->handles++;
    loop_watch_set(&chardev->client.watch, UV_WRITABLE);
}

static void try_once(struct chardev *chardev)
{
    int fd =
        socket(chardev->client.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int result = fd < 0 ? -errno : 0;
    if (!result && connect(fd, (const struct sockaddr *)&chardev->client.address,
                           chardev->client.address_size) < 0)
        result = -errno;
    if (!result) {
        connected(chardev, fd);
    } else if (result == -EINPROGRESS) {
        await(chardev, fd);
    } else {
        if (fd >= 0)
            close(fd);
        chardev_client_retry(chardev);
    }
}

static void on_retry(struct loop_timer *timer)
{
    struct chardev *chardev = container_of(timer, struct chardev, client.retry);
    if (!chardev->is_closing && !chardev->link && chardev->client.fd < 0)
        try_once(chardev);
}

int chardev_client_start(struct chardev *chardev, const struct sockaddr *address, socklen_t size)
{
    int result = loop_timer_init(chardev->loop, &chardev->client.retry, on_retry);
    if (result)
        return result;
    chardev->handles++;
    chardev->client.is_used = true;
    chardev->client.fd = -1;
    memcpy(&chardev->client.address, address, size);
    chardev->client.address_size = size;
    try_once(chardev);
    return 0;
}

static void on_retry_closed(struct loop_timer *timer)
{
    chardev_release(container_of(timer, struct chardev, client.retry));
}

void chardev_client_close(struct chardev *chardev)
{
    if (!chardev->client.is_used)
        return;
    loop_timer_close(&chardev->client.retry, on_retry_closed);
    if (chardev->client.fd < 0 || chardev->client.is_ending)
        return;
    chardev->client.is_ending = true;
    loop_watch_close(&chardev->client.watch, on_connect_closed);
}
