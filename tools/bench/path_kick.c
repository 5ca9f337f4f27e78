/* SPDX-License-Identifier: MIT */
/*
 * path_kick: virtio-blk with the driver on its own thread: doorbells and interrupts are the
 * eventfds that an accelerator would signal.
 */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tools/bench/blk_thread.h"

struct kick_path {
    struct blk_driver driver; /* first: found from its hub */
    struct blk_thread thread;
    struct irq_hub_ops hub_ops;
    const struct irq_hub_ops *counting_ops;
    unsigned doorbell_count;
};

static void fire(struct irq_route *route)
{
    struct fake_irq *irq = container_of(route->hub, struct fake_irq, hub);
    struct kick_path *path = container_of(irq, struct kick_path, driver.guest.irq);
    path->counting_ops->route_fire(route);
    CHECK(eventfd_write(path->thread.irq_fd, 1) == 0);
}

static int on_doorbell(void *opaque, enum bus_space space, uint64_t address,
                       const struct bus_doorbell *bell)
{
    struct kick_path *path = opaque;
    (void)space;
    (void)address;
    if (path->doorbell_count < PATH_QUEUES_MAX)
        path->thread.kick_fds[path->doorbell_count++] = bell->event->fd;
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

static int run_path(struct kick_path *path, const struct path_options *options,
                    struct path_result *result, struct error *err)
{
    struct fake_guest *guest = &path->driver.guest;
    static const struct bus_listener listener = {.doorbell_add = on_doorbell,
                                                 .doorbell_del = on_doorbell_gone};
    blk_driver_init(&path->driver);
    bus_set_listener(&guest->bus, &listener, path);
    int status = blk_driver_open(&path->driver, options, result, err);
    if (status)
        return status;
    path->counting_ops = guest->irq.hub.ops;
    path->hub_ops = *path->counting_ops;
    path->hub_ops.route_fire = fire;
    guest->irq.hub.ops = &path->hub_ops;
    status = blk_thread_run(&path->thread, err);
    int closed = blk_driver_close(&path->driver, err);
    return status ? status : closed;
}

int path_run_kick(const struct path_options *options, struct path_result *result, struct error *err)
{
    struct kick_path *path = calloc(1, sizeof(*path));
    CHECK(path);
    path->thread = (struct blk_thread){.driver = &path->driver, .irq_fd = eventfd(0, EFD_CLOEXEC)};
    CHECK(path->thread.irq_fd >= 0);
    int status = run_path(path, options, result, err);
    close(path->thread.irq_fd);
    free(path);
    return status;
}
