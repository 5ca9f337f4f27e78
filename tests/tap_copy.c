/* SPDX-License-Identifier: MIT */
/*
 * tap_copy: the least that any NIC on a TAP can do: frames from one TAP to another and back, by one
 * thread, with all offloads. What tools/bench-net measures evisor's TAP path against.
 *
 *   tap-copy NETNS TAP NETNS TAP        until it is killed
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { FRAMES_A_TURN = 64, HEADER_BYTES = 12 };

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

int main(int argc, char **argv)
{
    static uint8_t frame[68 * 1024];
    if (argc != 5) {
        fprintf(stderr, "tap-copy: usage: tap-copy NETNS TAP NETNS TAP\n");
        return 1;
    }
    struct pollfd ends[2] = {{open_tap(argv[1], argv[2]), POLLIN, 0},
                             {open_tap(argv[3], argv[4]), POLLIN, 0}};
    printf("ready\n");
    fflush(stdout);
    while (poll(ends, 2, -1) > 0)
        for (int from = 0; from < 2; from++)
            for (int i = 0; i < FRAMES_A_TURN; i++) {
                ssize_t bytes = read(ends[from].fd, frame, sizeof(frame));
                if (bytes < 0)
                    break;
                if (write(ends[!from].fd, frame, (size_t)bytes) < 0 && errno == EBADFD)
                    die("write");
            }
    return 0;
}
