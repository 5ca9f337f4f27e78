/* SPDX-License-Identifier: MIT */
/*
 * irq: counts line levels, keeps the routing table and pushes it to the accelerator.
 *
 * The accelerator takes the table only as a whole, and slowly; so changes mark it dirty, and it is
 * pushed once a turn, or at once before a route that may have changed fires.
 */
#include "vmm/irq.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct machine_route {
    struct irq_route route; /* first */
    uint32_t gsi;
    int fd; /* the irqfd; -1 where the accelerator has none */
};

static struct irq *to_irq(struct irq_hub *hub)
{
    return (struct irq *)hub;
}

static struct machine_route *to_machine_route(struct irq_route *route)
{
    return (struct machine_route *)route;
}

/*
 * On the thread of a side loop there is nothing to push: the machine's does not let go of the loop
 * before it has.
 */
static void flush_routes(struct irq *irq)
{
    struct accel_route table[GSI_MAX];
    unsigned count = 0;
    if (!loop_is_on_thread(irq->flush.loop) || !irq->routes_dirty)
        return;
    irq->routes_dirty = false;
    for (unsigned gsi = 0; gsi < GSI_MAX; gsi++)
        if (irq->used[gsi])
            table[count++] = irq->routes[gsi];
    CHECK(irq->vm->ops->set_routes(irq->vm, table, count) == 0);
}

static void on_flush(struct loop_task *task)
{
    flush_routes(container_of(task, struct irq, flush));
}

static void change_route(struct irq *irq, uint32_t gsi, bool used, uint64_t address, uint32_t data)
{
    struct accel_route *route = &irq->routes[gsi];
    if (irq->used[gsi] == used && route->address == address && route->data == data)
        return;
    irq->used[gsi] = used;
    *route = (struct accel_route){gsi, address, data};
    irq->routes_dirty = true;
    loop_task_queue(&irq->flush);
}

static void set_line(struct irq_hub *hub, unsigned gsi, bool level)
{
    struct irq *irq = to_irq(hub);
    CHECK(gsi < GSI_IOAPIC_PINS);
    unsigned before = irq->asserted[gsi];
    CHECK(level || before > 0);
    irq->asserted[gsi] = level ? before + 1 : before - 1;
    if (!before == !irq->asserted[gsi])
        return;
    if (gsi < 16)
        irq->pins.set_pic(irq->pins.opaque, gsi, level);
    irq->pins.set_ioapic(irq->pins.opaque, gsi == 0 ? 2 : gsi, level);
}

static void send_msi(struct irq_hub *hub, uint64_t address, uint32_t data)
{
    struct irq *irq = to_irq(hub);
    /* The EOI of a level-triggered message is reported only for routes that are known. */
    flush_routes(irq);
    irq->vm->ops->msi(irq->vm, address, data);
}

static uint32_t find_free_gsi(const struct irq *irq)
{
    uint32_t gsi = GSI_IOAPIC_PINS;
    while (gsi < GSI_MAX && irq->used[gsi])
        gsi++;
    return gsi;
}

static int route_create(struct irq_hub *hub, struct irq_route **out)
{
    struct irq *irq = to_irq(hub);
    uint32_t gsi = find_free_gsi(irq);
    if (gsi == GSI_MAX)
        return -ENOSPC;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = irq->vm->ops->irqfd_add(irq->vm, fd, gsi);
    if (result) {
        close(fd);
        fd = -1;
        if (result != -ENOSYS)
            return result;
    }
    struct machine_route *route = calloc(1, sizeof(*route));
    CHECK(route);
    *route = (struct machine_route){.route.hub = hub, .gsi = gsi, .fd = fd};
    change_route(irq, gsi, true, 0, 0);
    *out = &route->route;
    return 0;
}

static void route_set(struct irq_route *route, uint64_t address, uint32_t data)
{
    change_route(to_irq(route->hub), to_machine_route(route)->gsi, true, address, data);
}

static void route_fire(struct irq_route *irq_route)
{
    const struct machine_route *route = to_machine_route(irq_route);
    struct irq *irq = to_irq(irq_route->hub);
    const uint64_t one = 1;
    if (route->fd < 0) {
        irq->vm->ops->msi(irq->vm, irq->routes[route->gsi].address, irq->routes[route->gsi].data);
        return;
    }
    flush_routes(irq);
    unused_result(write(route->fd, &one, sizeof(one)) != sizeof(one));
}

static void route_destroy(struct irq_route *irq_route)
{
    struct machine_route *route = to_machine_route(irq_route);
    struct irq *irq = to_irq(irq_route->hub);
    if (route->fd >= 0) {
        irq->vm->ops->irqfd_del(irq->vm, route->fd, route->gsi);
        close(route->fd);
    }
    change_route(irq, route->gsi, false, 0, 0);
    free(route);
}

static const struct irq_hub_ops hub_ops = {
    .set_line = set_line,
    .send_msi = send_msi,
    .route_create = route_create,
    .route_set = route_set,
    .route_fire = route_fire,
    .route_destroy = route_destroy,
};

void irq_init(struct irq *irq, struct loop *loop, struct accel_vm *vm)
{
    *irq = (struct irq){.hub.ops = &hub_ops, .vm = vm};
    loop_task_init(loop, &irq->flush, LOOP_STAGE_NOTIFY, on_flush);
}

void irq_fini(struct irq *irq)
{
    loop_task_cancel(&irq->flush);
}

bool irq_is_settled(const struct irq *irq)
{
    return !irq->routes_dirty;
}

void irq_set_pins(struct irq *irq, const struct irq_pins *pins)
{
    irq->pins = *pins;
}

void irq_set_ioapic_route(struct irq *irq, unsigned pin, uint64_t address, uint32_t data)
{
    CHECK(pin < GSI_IOAPIC_PINS);
    change_route(irq, pin, address != 0, address, data);
}
