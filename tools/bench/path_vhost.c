/* SPDX-License-Identifier: MIT */
/*
 * path_vhost: the drivers' threads before vhost-user servers of another program, as
 * qemu-storage-daemon is: the same rings, eventfds and requests as path_kick, other devices.
 *
 * The front-end's side of the vhost-user protocol (QEMU's docs/interop/vhost-user), as far as one
 * block device needs it.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tools/bench/blk_set.h"
#include "tools/bench/blk_thread.h"

#define QUEUE_SIZE 256u

enum {
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    SET_MEM_TABLE = 5,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    SET_VRING_ENABLE = 18,
    GET_CONFIG = 24,
};

#define FLAG_VERSION    1u
#define HAS_PROTOCOL    (UINT64_C(1) << 30)
#define PROTOCOL_MQ     (UINT64_C(1) << 0)
#define PROTOCOL_CONFIG (UINT64_C(1) << 9)
#define FEATURES                                                                                   \
    (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX |                  \
     UINT64_C(1) << VIRTIO_BLK_F_FLUSH | UINT64_C(1) << VIRTIO_BLK_F_MQ | HAS_PROTOCOL)

struct message {
    struct {
        uint32_t request, flags, size;
    } header;
    union {
        uint64_t number;
        struct {
            uint32_t index, number;
        } ring;
        struct {
            uint32_t index, flags;
            uint64_t desc, used, avail, log;
        } address;
        struct {
            uint32_t count, padding;
            uint64_t gpa, bytes, user, offset;
        } memory;
        struct {
            uint32_t offset, bytes, flags;
            uint8_t capacity[8]; /* the first field of struct virtio_blk_config */
        } config;
    } u;
} __attribute__((packed));

struct vhost_disk {
    struct blk_driver *driver;
    struct blk_thread *thread;
    const char *name; /* of the server's socket */
    int socket;
};

struct vhost_path {
    struct blk_set set;
    struct blk_thread threads[PATH_DISKS_MAX];
    int memory;
};

static int failed(const struct vhost_disk *disk, const char *what, struct error *err)
{
    return error_set(err, EPROTO, "%s: the vhost-user server %s", disk->name, what);
}

/* `fd` goes along if it is not negative. */
static int tell(struct vhost_disk *disk, struct message *message, uint32_t request, uint32_t size,
                int fd, struct error *err)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    message->header.request = request;
    message->header.flags = FLAG_VERSION;
    message->header.size = size;
    struct iovec iov = {message, sizeof(message->header) + size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        header.msg_control = control;
        header.msg_controllen = sizeof(control);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        *rights = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
    }
    if (sendmsg(disk->socket, &header, MSG_NOSIGNAL) != (ssize_t)iov.iov_len)
        return failed(disk, "does not take our messages", err);
    return 0;
}

static int ask(struct vhost_disk *disk, struct message *message, uint32_t request, uint32_t size,
               struct error *err)
{
    int result = tell(disk, message, request, size, -1, err);
    if (result)
        return result;
    if (recv(disk->socket, &message->header, sizeof(message->header), MSG_WAITALL) !=
            (ssize_t)sizeof(message->header) ||
        message->header.request != request || !message->header.size ||
        message->header.size > sizeof(message->u) ||
        recv(disk->socket, &message->u, message->header.size, MSG_WAITALL) !=
            (ssize_t)message->header.size)
        return failed(disk, "does not answer", err);
    return 0;
}

static int tell_number(struct vhost_disk *disk, uint32_t request, uint64_t number, int fd,
                       struct error *err)
{
    struct message message = {.u.number = number};
    return tell(disk, &message, request, sizeof(message.u.number), fd, err);
}

static int tell_ring(struct vhost_disk *disk, uint32_t request, uint32_t index, uint32_t number,
                     struct error *err)
{
    struct message message = {.u.ring = {index, number}};
    return tell(disk, &message, request, sizeof(message.u.ring), -1, err);
}

static int negotiate(struct vhost_disk *disk, struct error *err)
{
    struct message message;
    int result = ask(disk, &message, GET_FEATURES, 0, err);
    if (result)
        return result;
    uint64_t features = message.u.number & FEATURES;
    if (!(features & HAS_PROTOCOL))
        return failed(disk, "has no protocol features", err);
    if ((result = tell(disk, &message, SET_OWNER, 0, -1, err)) ||
        (result = ask(disk, &message, GET_PROTOCOL_FEATURES, 0, err)))
        return result;
    uint64_t protocol = message.u.number & (PROTOCOL_MQ | PROTOCOL_CONFIG);
    if ((result = tell_number(disk, SET_PROTOCOL_FEATURES, protocol, -1, err)) ||
        (result = tell_number(disk, SET_FEATURES, features, -1, err)))
        return result;
    message.u.config.offset = message.u.config.flags = 0;
    message.u.config.bytes = sizeof(message.u.config.capacity);
    result = ask(disk, &message, GET_CONFIG, sizeof(message.u.config), err);
    if (!result)
        disk->driver->run.blocks =
            load_le64(message.u.config.capacity) * 512 / disk->driver->run.options->block_bytes;
    return result ? result : disk->driver->run.blocks ? 0 : failed(disk, "has an empty disk", err);
}

/* The guest's low RAM moves into a file that servers can map. */
static void share_memory(struct vhost_path *path)
{
    const struct guest_mem_region *ram = &path->set.guest.mem.regions[0];
    path->memory = memfd_create("bench-ram", MFD_CLOEXEC);
    CHECK(path->memory >= 0 && ftruncate(path->memory, (off_t)ram->size) == 0);
    CHECK(mmap(ram->host, ram->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, path->memory,
               0) == ram->host);
}

static int tell_memory(struct vhost_disk *disk, int memory, struct error *err)
{
    const struct guest_mem_region *ram = &disk->driver->guest->mem.regions[0];
    struct message message = {
        .u.memory = {.count = 1, .bytes = ram->size, .user = (uintptr_t)ram->host}};
    return tell(disk, &message, SET_MEM_TABLE, sizeof(message.u.memory), memory, err);
}

static int start_ring(struct vhost_disk *disk, unsigned index, struct error *err)
{
    struct blk_driver *driver = disk->driver;
    struct fake_queue *ring = &driver->rings[index].queue;
    *ring = (struct fake_queue){.fd = &driver->driver, .index = index, .size = QUEUE_SIZE};
    ring->desc = fake_guest_alloc(driver->guest, 16 * QUEUE_SIZE);
    ring->avail = fake_guest_alloc(driver->guest, 6 + 2 * QUEUE_SIZE);
    ring->used = fake_guest_alloc(driver->guest, 6 + 8 * QUEUE_SIZE);
    uintptr_t base = (uintptr_t)driver->guest->mem.regions[0].host;
    struct message message = {.u.address = {.index = index,
                                            .desc = base + ring->desc,
                                            .used = base + ring->used,
                                            .avail = base + ring->avail}};
    disk->thread->kick_fds[index] = eventfd(0, EFD_CLOEXEC);
    CHECK(disk->thread->kick_fds[index] >= 0);
    int result;
    if ((result = tell_ring(disk, SET_VRING_NUM, index, QUEUE_SIZE, err)) ||
        (result = tell_ring(disk, SET_VRING_BASE, index, 0, err)) ||
        (result = tell(disk, &message, SET_VRING_ADDR, sizeof(message.u.address), -1, err)) ||
        (result = tell_number(disk, SET_VRING_CALL, index, disk->thread->irq_fd, err)) ||
        (result = tell_number(disk, SET_VRING_KICK, index, disk->thread->kick_fds[index], err)))
        return result;
    return tell_ring(disk, SET_VRING_ENABLE, index, 1, err);
}

static int connect_to(struct vhost_disk *disk, const char *name, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
    if (length >= (int)sizeof(address.sun_path))
        return error_set(err, EINVAL, "'%s' is too long for a socket's name", name);
    disk->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (disk->socket < 0 ||
        connect(disk->socket, (const struct sockaddr *)&address, sizeof(address)))
        return error_set_errno(err, errno, "cannot connect to '%s'", name);
    return 0;
}

static int open_disk(struct vhost_path *path, unsigned index, struct error *err)
{
    struct vhost_disk disk = {.driver = &path->set.drivers[index],
                              .thread = &path->threads[index],
                              .name = path->set.options->sockets[index]};
    disk.thread->driver = disk.driver;
    disk.thread->irq_fd = eventfd(0, EFD_CLOEXEC);
    CHECK(disk.thread->irq_fd >= 0);
    disk.driver->driver.guest = &path->set.guest;
    int result;
    if ((result = connect_to(&disk, disk.name, err)) || (result = negotiate(&disk, err)) ||
        (result = tell_memory(&disk, path->memory, err)))
        return result;
    for (unsigned i = 0; i < path->set.options->queues; i++)
        if ((result = start_ring(&disk, i, err)))
            return result;
    blk_driver_describe(disk.driver);
    return 0;
}

static int run_path(struct vhost_path *path, struct path_result *total, struct error *err)
{
    unsigned disks = path->set.options->disks;
    int result = 0;
    share_memory(path);
    for (unsigned i = 0; i < disks && !result; i++)
        result = open_disk(path, i, err);
    if (!result)
        result = blk_threads_run(path->threads, disks, err);
    for (unsigned i = 0; i < disks && !result; i++) {
        const struct path_run *run = &path->set.drivers[i].run;
        path_take_figures(&path->set.drivers[i].run);
        if (run->failure)
            result = error_set_errno(err, -run->failure, "a request failed");
    }
    blk_set_take_figures(&path->set, total);
    return result;
}

int path_run_vhost(const struct path_options *options, struct path_result *result,
                   struct error *err)
{
    struct vhost_path *path = calloc(1, sizeof(*path));
    CHECK(path);
    if (!options->sockets[options->disks - 1])
        return error_set(err, EINVAL, "name each vhost-user server by --socket");
    blk_set_init(&path->set, options);
    /* The process ends after its one run: the kernel takes down what this opens. */
    return run_path(path, result, err);
}
