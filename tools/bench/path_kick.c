/* SPDX-License-Identifier: MIT */
/*
 * path_kick: virtio-blk with each driver on its own thread: doorbells and interrupts are the
 * eventfds that an accelerator would signal.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tools/bench/blk_set.h"
#include "tools/bench/blk_thread.h"

struct kick_path {
    struct blk_set set; /* first: found from its hub */
    struct blk_thread threads[PATH_DISKS_MAX];
    unsigned disks;          /* whose devices are up, or coming up */
    unsigned doorbell_count; /* of the last of them */
};

static void on_sent(struct fake_irq *irq, unsigned vector)
{
    struct kick_path *path = container_of(irq, struct kick_path, set.guest.irq);
    unsigned disk = path->disks - 1;
    while (path->set.drivers[disk].first_vector > vector)
        disk--;
    CHECK(eventfd_write(path->threads[disk].irq_fd, 1) == 0);
}

static int on_doorbell(void *opaque, enum bus_space space, uint64_t address,
                       const struct bus_doorbell *bell)
{
    struct kick_path *path = opaque;
    (void)space;
    (void)address;
    if (path->doorbell_count < PATH_QUEUES_MAX)
        path->threads[path->disks - 1].kick_fds[path->doorbell_count++] = bell->event->fd;
    return 0;
}

static void on_doorbell_gone(void *opaque, enum bus_space space, uint64_t address,
                             const struct bus_doorbell *bell)
{
    (void)opaque;
    (void)space;
    (void)address;
    (void)bell;
}

static int open_disk(struct kick_path *path, struct error *err)
{
    struct blk_thread *thread = &path->threads[path->disks];
    thread->driver = &path->set.drivers[path->disks];
    thread->irq_fd = eventfd(0, EFD_CLOEXEC);
    if (thread->irq_fd < 0)
        return error_set_errno(err, errno, "cannot make an eventfd");
    path->doorbell_count = 0;
    return blk_set_open(&path->set, path->disks++, err);
}

static int run_path(struct kick_path *path, const struct path_options *options,
                    struct path_result *result, struct error *err)
{
    struct fake_guest *guest = &path->set.guest;
    static const struct bus_listener listener = {.doorbell_add = on_doorbell,
                                                 .doorbell_del = on_doorbell_gone};
    blk_set_init(&path->set, options);
    bus_set_listener(&guest->bus, &listener, path);
    int status = 0;
    while (path->disks < options->disks && !status)
        status = open_disk(path, err);
    if (status)
        return status;
    guest->irq.on_sent = on_sent;
    status = blk_threads_run(path->threads, path->disks, err);
    int closed = blk_set_close(&path->set, result, err);
    return status ? status : closed;
}

int path_run_kick(const struct path_options *options, struct path_result *result, struct error *err)
{
    struct kick_path *path = calloc(1, sizeof(*path));
    CHECK(path);
    int status = run_path(path, options, result, err);
    for (unsigned i = 0; i < path->disks; i++)
        close(path->threads[i].irq_fd);
    free(path);
    return status;
}
