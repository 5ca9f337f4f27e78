/* SPDX-License-Identifier: MIT */
/*
 * path_kick: the same with the driver on a thread of its own, as a vCPU is: a doorbell is a write
 * to the eventfd that an accelerator would signal, an interrupt one that the driver sleeps on.
 *
 * Rings and slots belong to the driver's thread, the loop and the device to the main one.
 */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tools/bench/blk_driver.h"

struct kick_path {
    struct blk_driver driver; /* first: found from its hub */
    struct irq_hub_ops hub_ops;
    const struct irq_hub_ops *counting_ops;
    int irq_fd;
    struct loop_event *doorbell;
    struct loop_event finished;
    bool is_finished;
    pthread_t thread;
};

static void signal_fd(int fd)
{
    CHECK(eventfd_write(fd, 1) == 0);
}

static void fire(struct irq_route *route)
{
    struct fake_irq *irq = container_of(route->hub, struct fake_irq, hub);
    struct kick_path *path = container_of(irq, struct kick_path, driver.guest.irq);
    path->counting_ops->route_fire(route);
    signal_fd(path->irq_fd);
}

static int on_doorbell(void *opaque, enum bus_space space, uint64_t address,
                       const struct bus_doorbell *bell)
{
    struct kick_path *path = opaque;
    (void)space;
    (void)address;
    if (!path->doorbell)
        path->doorbell = bell->event;
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

static void kick_if_wanted(struct kick_path *path)
{
    if (!blk_driver_must_kick(&path->driver))
        return;
    path->driver.run.result->kicks++;
    signal_fd(path->doorbell->fd);
}

static void *drive(void *opaque)
{
    struct kick_path *path = opaque;
    struct blk_driver *driver = &path->driver;
    for (unsigned i = 0; i < driver->run.options->depth; i++)
        blk_driver_offer(driver, i);
    kick_if_wanted(path);
    while (driver->in_flight) {
        eventfd_t count;
        CHECK(eventfd_read(path->irq_fd, &count) == 0);
        blk_driver_take(driver);
        kick_if_wanted(path);
    }
    loop_event_signal(&path->finished);
    return NULL;
}

static void on_finished(struct loop_event *event)
{
    container_of(event, struct kick_path, finished)->is_finished = true;
}

static int run_requests(struct kick_path *path, struct error *err)
{
    struct loop *loop = &path->driver.guest.loop;
    int result = loop_event_init(loop, &path->finished, on_finished);
    if (result)
        return error_set_errno(err, -result, "cannot make an eventfd");
    path_begin(&path->driver.run);
    CHECK(pthread_create(&path->thread, NULL, drive, path) == 0);
    while (!path->is_finished)
        loop_run_once(loop, true);
    CHECK(pthread_join(path->thread, NULL) == 0);
    loop_event_close(&path->finished, NULL);
    return 0;
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
    status = run_requests(path, err);
    int closed = blk_driver_close(&path->driver, err);
    return status ? status : closed;
}

int path_run_kick(const struct path_options *options, struct path_result *result, struct error *err)
{
    struct kick_path *path = calloc(1, sizeof(*path));
    CHECK(path);
    path->irq_fd = eventfd(0, EFD_CLOEXEC);
    CHECK(path->irq_fd >= 0);
    int status = run_path(path, options, result, err);
    close(path->irq_fd);
    free(path);
    return status;
}
