/* SPDX-License-Identifier: MIT */
/* tap_open: the ioctls of /dev/net/tun and of bridges, and the protocol of qemu-bridge-helper. */
#include "netbackends/tap_open.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { VNET_HDR_BYTES = 12 };

int tap_set_offloads(int fd, unsigned offloads)
{
    unsigned flags = 0;
    if (offloads & NET_OFFLOAD_CSUM) {
        flags |= TUN_F_CSUM;
        flags |= offloads & NET_OFFLOAD_TSO4 ? TUN_F_TSO4 : 0;
        flags |= offloads & NET_OFFLOAD_TSO6 ? TUN_F_TSO6 : 0;
        if ((offloads & NET_OFFLOAD_ECN) && (flags & (TUN_F_TSO4 | TUN_F_TSO6)))
            flags |= TUN_F_TSO_ECN;
    }
    return ioctl(fd, TUNSETOFFLOAD, (unsigned long)flags) < 0 ? -errno : 0;
}

static int explain_open(int code, struct error *err)
{
    if (code == EACCES || code == EPERM)
        return error_set(err, code,
                         "no permission to open /dev/net/tun: as root, 'chmod 0666 /dev/net/tun'");
    if (code == ENOENT || code == ENODEV)
        return error_set(err, code, "there is no /dev/net/tun: as root, 'modprobe tun'");
    return error_set_errno(err, code, "cannot open /dev/net/tun");
}

static int explain_attach(int code, const char *ifname, struct error *err)
{
    switch (code) {
    case EPERM:
        return error_set(err, code,
                         "no permission to use TAP '%s': as root, 'ip tuntap add dev %s mode tap "
                         "user %u', once",
                         *ifname ? ifname : "tap0", *ifname ? ifname : "tap0", (unsigned)getuid());
    case EBUSY:
        return error_set(err, code,
                         "TAP '%s' is in use by another program: choose another ifname=", ifname);
    case EINVAL:
        return error_set(err, code, "interface '%s' is not a TAP: choose another ifname=", ifname);
    default:
        return error_set_errno(err, code, "cannot use TAP '%s'", ifname);
    }
}

/* Of a TAP that was made for several queues, one. 0 or an errno. */
static int attach(int fd, struct ifreq *request)
{
    if (ioctl(fd, TUNSETIFF, request) == 0)
        return 0;
    if (errno != EINVAL || !*request->ifr_name)
        return errno;
    request->ifr_flags |= IFF_MULTI_QUEUE;
    return ioctl(fd, TUNSETIFF, request) < 0 ? errno : 0;
}

static int open_by_name(const struct net_tap_options *options, struct error *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    const char *ifname = options->ifname ? options->ifname : "";
    if (strlen(ifname) >= IFNAMSIZ)
        return error_set(err, EINVAL, "interface name '%s' is too long: it may have %d letters",
                         ifname, IFNAMSIZ - 1);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return explain_open(errno, err);
    if (!options->vnet_hdr_off)
        request.ifr_flags |= IFF_VNET_HDR;
    memcpy(request.ifr_name, ifname, strlen(ifname));
    int code = attach(fd, &request);
    if (!code)
        return fd;
    close(fd);
    return explain_attach(code, ifname, err);
}

/* One byte comes, with the descriptor beside it. */
static int receive_fd(int from)
{
    char byte;
    struct iovec iov = {&byte, 1};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t count;
    do
        count = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
    while (count < 0 && errno == EINTR);
    const struct cmsghdr *found = count > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!found || found->cmsg_level != SOL_SOCKET || found->cmsg_type != SCM_RIGHTS ||
        found->cmsg_len != CMSG_LEN(sizeof(int)))
        return -EPROTO;
    int fd;
    memcpy(&fd, CMSG_DATA(found), sizeof(fd));
    return fd;
}

static int spawn_helper(const char *helper, const char *bridge, int socket, pid_t *pid)
{
    char fd_word[32], bridge_word[64], vnet_word[] = "--use-vnet";
    snprintf(fd_word, sizeof(fd_word), "--fd=%d", socket);
    snprintf(bridge_word, sizeof(bridge_word), "--br=%s", bridge);
    char *const words[] = {(char *)helper, vnet_word, fd_word, bridge_word, NULL};
    return -posix_spawn(pid, helper, NULL, NULL, words, environ);
}

static int open_by_helper(const struct net_tap_options *options, struct error *err)
{
    const char *helper = options->helper ? options->helper : NET_TAP_HELPER;
    int ends[2], status;
    pid_t pid;
    if (strlen(options->bridge) >= IFNAMSIZ)
        return error_set(err, EINVAL, "bridge name '%s' is too long: it may have %d letters",
                         options->bridge, IFNAMSIZ - 1);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set_errno(err, errno, "cannot talk to the bridge helper");
    fcntl(ends[1], F_SETFD, 0); /* the helper inherits its end */
    int result = spawn_helper(helper, options->bridge, ends[1], &pid);
    close(ends[1]);
    if (result) {
        close(ends[0]);
        return error_set_errno(
            err, -result, "cannot run the bridge helper '%s' (package qemu-system-common)", helper);
    }
    int fd = receive_fd(ends[0]);
    close(ends[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (fd < 0)
        return error_set(err, EPERM,
                         "bridge helper '%s' gave no interface on bridge '%s': allow it with the "
                         "line 'allow %s' in /etc/qemu/bridge.conf",
                         helper, options->bridge, options->bridge);
    return fd;
}

/* The interface's own flags or MTU, by ioctl on any socket. 0 or -errno. */
static int set_up(int socket, const char *bridge, const char *ifname)
{
    struct ifreq on_bridge = {0}, on_tap = {0};
    snprintf(on_bridge.ifr_name, IFNAMSIZ, "%s", bridge);
    if (ioctl(socket, SIOCGIFMTU, &on_bridge) < 0)
        return -errno;
    /* A bridge takes the smallest MTU of its ports. */
    snprintf(on_tap.ifr_name, IFNAMSIZ, "%s", ifname);
    on_tap.ifr_mtu = on_bridge.ifr_mtu;
    if (ioctl(socket, SIOCSIFMTU, &on_tap) < 0)
        return -errno;
    on_bridge.ifr_ifindex = (int)if_nametoindex(ifname);
    if (ioctl(socket, SIOCBRADDIF, &on_bridge) < 0)
        return -errno;
    on_tap.ifr_flags = IFF_UP;
    return ioctl(socket, SIOCSIFFLAGS, &on_tap) < 0 ? -errno : 0;
}

static int explain_bridge(int code, const char *bridge, struct error *err)
{
    if (code == ENODEV || code == EOPNOTSUPP || code == EINVAL)
        return error_set(err, code,
                         "there is no bridge '%s': as root, 'ip link add %s type bridge' and 'ip "
                         "link set %s up', or evctl net create",
                         bridge, bridge, bridge);
    return error_set_errno(err, code, "cannot put a TAP on bridge '%s'", bridge);
}

/* Who may do what the helper does needs none. -EPERM where that is not so. */
static int open_on_bridge(const struct net_tap_options *options, struct error *err)
{
    const struct net_tap_options unnamed = {.fd = -1, .vnet_hdr_off = options->vnet_hdr_off};
    struct ifreq request = {0};
    int fd = open_by_name(&unnamed, NULL);
    if (fd < 0)
        return -EPERM;
    int socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int result = socket_fd < 0 || ioctl(fd, TUNGETIFF, &request) < 0
                     ? -errno
                     : set_up(socket_fd, options->bridge, request.ifr_name);
    if (socket_fd >= 0)
        close(socket_fd);
    if (!result)
        return fd;
    close(fd);
    return result == -EPERM ? result : explain_bridge(-result, options->bridge, err);
}

static int open_for_bridge(const struct net_tap_options *options, struct error *err)
{
    int fd = -EPERM;
    if (!options->helper && strlen(options->bridge) < IFNAMSIZ)
        fd = open_on_bridge(options, err);
    return fd == -EPERM ? open_by_helper(options, err) : fd;
}

/* An interface that was handed over may be in another network namespace: then it is not known. */
static unsigned learn_mtu(const char *ifname)
{
    struct ifreq request = {0};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, IFNAMSIZ, "%s", ifname);
    bool is_known = fd >= 0 && ioctl(fd, SIOCGIFMTU, &request) == 0;
    if (fd >= 0)
        close(fd);
    return is_known ? (unsigned)request.ifr_mtu : 0;
}

/* Whatever way it came, it must be what we can drive. */
static int learn(int fd, struct tap_device *out, struct error *err)
{
    struct ifreq request = {0};
    int header_bytes = VNET_HDR_BYTES, little_endian = 1, unlimited = INT_MAX;
    if (ioctl(fd, TUNGETIFF, &request) < 0)
        return error_set(err, EINVAL, "descriptor %d is not a TAP interface", fd);
    if (!(request.ifr_flags & IFF_TAP) || !(request.ifr_flags & IFF_NO_PI))
        return error_set(err, EINVAL,
                         "interface '%s' is not a TAP without packet information (IFF_TAP | "
                         "IFF_NO_PI)",
                         request.ifr_name);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    *out = (struct tap_device){.fd = fd, .has_vnet_hdr = request.ifr_flags & IFF_VNET_HDR};
    memcpy(out->ifname, request.ifr_name, IFNAMSIZ - 1);
    out->mtu = learn_mtu(out->ifname);
    ioctl(fd, TUNSETSNDBUF, &unlimited);
    if (!out->has_vnet_hdr)
        return 0;
    if (ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0 ||
        ioctl(fd, TUNSETVNETLE, &little_endian) < 0)
        return error_set_errno(err, errno, "TAP '%s' refuses a virtio header of %d bytes",
                               out->ifname, header_bytes);
    const unsigned all = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN;
    out->offloads = tap_set_offloads(fd, all) ? 0 : all;
    return tap_set_offloads(fd, 0);
}

int tap_open(const struct net_tap_options *options, struct tap_device *out, struct error *err)
{
    int fd = options->fd;
    if (fd < 0)
        fd = options->bridge ? open_for_bridge(options, err) : open_by_name(options, err);
    if (fd < 0)
        return fd;
    int result = learn(fd, out, err);
    if (result && options->fd < 0)
        close(fd);
    return result;
}
