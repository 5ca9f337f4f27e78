/* SPDX-License-Identifier: MIT */
/*
 * tap_copy: the least that any NIC on a TAP can do: frames from one TAP to another and back, by one
 * thread, with all offloads. What tools/bench-net measures evisor's TAP path against.
 *
 *   tap-copy [--ring] NETNS TAP NETNS TAP      until it is killed
 *
 * Without --ring every frame goes through the same buffer, which stays in the CPU's cache. With it
 * frames go through memory as a guest's driver offers it, which is used in turn: 64 buffers of a
 * whole frame from the first TAP to the second, 256 of 4 KiB, as many as a frame takes, the other
 * way.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    FRAMES_A_TURN = 64,
    HEADER_BYTES = 12,
    FRAME_BYTES = 68 * 1024,
    FRAME_BUFFERS = 64,
    PAGE_BYTES = 4096,
    PAGE_BUFFERS = 256,
    FRAME_PAGES = FRAME_BYTES / PAGE_BYTES,
};

/* Buffers of one size, used in turn. */
struct ring {
    uint8_t *memory;
    unsigned buffer_bytes, buffer_count, next;
};

static void die(const char *what)
{
    fprintf(stderr, "tap-copy: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_tap(const char *netns, const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header_bytes = HEADER_BYTES, unlimited = INT_MAX;
    int there = open(netns, O_RDONLY | O_CLOEXEC);
    if (there < 0 || setns(there, CLONE_NEWNET) < 0)
        die(netns);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0 ||
        ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0 || ioctl(fd, TUNSETSNDBUF, &unlimited) < 0 ||
        ioctl(fd, TUNSETOFFLOAD, (unsigned long)(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)) < 0)
        die(name);
    close(there);
    return fd;
}

static struct ring make_ring(unsigned buffer_bytes, unsigned buffer_count)
{
    struct ring ring = {calloc(buffer_count, buffer_bytes), buffer_bytes, buffer_count, 0};
    if (!ring.memory)
        die("buffers");
    return ring;
}

/* A frame from one TAP to the other. False if there is none. */
static bool copy_frame(struct ring *ring, int from, int to)
{
    struct iovec iov[FRAME_PAGES];
    int count = FRAME_BYTES / (int)ring->buffer_bytes, used = 0;
    for (int i = 0; i < count; i++) {
        unsigned at = (ring->next + (unsigned)i) % ring->buffer_count;
        iov[i] = (struct iovec){ring->memory + (size_t)at * ring->buffer_bytes, ring->buffer_bytes};
    }
    ssize_t bytes = readv(from, iov, count);
    if (bytes < 0)
        return false;
    for (size_t left = (size_t)bytes; left; used++) {
        iov[used].iov_len = left < iov[used].iov_len ? left : iov[used].iov_len;
        left -= iov[used].iov_len;
    }
    ring->next = (ring->next + (unsigned)used) % ring->buffer_count;
    if (writev(to, iov, used) < 0 && errno == EBADFD)
        die("write");
    return true;
}

int main(int argc, char **argv)
{
    bool has_ring = argc > 1 && strcmp(argv[1], "--ring") == 0;
    char **words = argv + has_ring;
    if (argc - has_ring != 5) {
        fprintf(stderr, "tap-copy: usage: tap-copy [--ring] NETNS TAP NETNS TAP\n");
        return 1;
    }
    struct pollfd ends[2] = {{open_tap(words[1], words[2]), POLLIN, 0},
                             {open_tap(words[3], words[4]), POLLIN, 0}};
    struct ring rings[2] = {make_ring(FRAME_BYTES, has_ring ? FRAME_BUFFERS : 1),
                            has_ring ? make_ring(PAGE_BYTES, PAGE_BUFFERS)
                                     : make_ring(FRAME_BYTES, 1)};
    printf("ready\n");
    fflush(stdout);
    while (poll(ends, 2, -1) > 0)
        for (int from = 0; from < 2; from++)
            for (int i = 0; i < FRAMES_A_TURN; i++)
                if (!copy_frame(&rings[from], ends[from].fd, ends[!from].fd))
                    break;
    return 0;
}
