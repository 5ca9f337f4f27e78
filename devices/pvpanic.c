/* SPDX-License-Identifier: MIT */
/* pvpanic: one port that reports panics, one that swallows POST codes. */
#include "devices/pvpanic.h"

#include <errno.h>
#include <stdlib.h>

#define POST_PORT 0x80
#define EVENTS    (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)

/* Reading tells which events are understood. */
static uint64_t pvpanic_read(void *device, uint64_t offset, unsigned size)
{
    (void)device, (void)offset;
    return size == 1 ? EVENTS : bus_all_ones(size);
}

static void pvpanic_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pvpanic *pvpanic = device;
    (void)offset;
    if (size == 1 && (value & EVENTS))
        pvpanic->on_panic(pvpanic->opaque, value & EVENTS);
}

static uint64_t post_read(void *device, uint64_t offset, unsigned size)
{
    const struct pvpanic *pvpanic = device;
    (void)offset;
    return size == 1 ? pvpanic->post_code : bus_all_ones(size);
}

/* Also what old drivers write to in order to wait a microsecond. */
static void post_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pvpanic *pvpanic = device;
    (void)offset;
    if (size == 1)
        pvpanic->post_code = (uint8_t)value;
}

static const struct bus_region_ops region_ops = {pvpanic_read, pvpanic_write};
static const struct bus_region_ops post_ops = {post_read, post_write};

static void pvpanic_reset(struct device *device)
{
    ((struct pvpanic *)device)->post_code = 0;
}

static void pvpanic_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct pvpanic *pvpanic = (struct pvpanic *)device;
    bus_unmap(pvpanic->bus, &pvpanic->region);
    bus_unmap(pvpanic->bus, &pvpanic->post_region);
    device_close_later(pvpanic->bus->loop, device, on_closed, opaque);
}

static const struct state_field fields[] = {
    STATE_FIELD(struct pvpanic, post_code),
};

static const struct state_table state = {"pvpanic", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "pvpanic",
    .reset = pvpanic_reset,
    .state = &state,
    .close = pvpanic_close,
};

int pvpanic_create(struct bus *bus, void (*on_panic)(void *opaque, unsigned events), void *opaque,
                   struct pvpanic **out, struct error *err)
{
    struct pvpanic *pvpanic = calloc(1, sizeof(*pvpanic));
    CHECK(pvpanic);
    pvpanic->device.ops = &device_ops;
    pvpanic->bus = bus;
    pvpanic->on_panic = on_panic;
    pvpanic->opaque = opaque;
    pvpanic->region =
        (struct bus_region){.name = "pvpanic", .ops = &region_ops, .device = pvpanic, .size = 1};
    pvpanic->post_region =
        (struct bus_region){.name = "post", .ops = &post_ops, .device = pvpanic, .size = 1};
    int result = bus_map(bus, BUS_PIO, PVPANIC_PORT, &pvpanic->region);
    if (!result)
        result = bus_map(bus, BUS_PIO, POST_PORT, &pvpanic->post_region);
    if (result) {
        bus_unmap(bus, &pvpanic->region);
        free(pvpanic);
        return error_set(err, -result, "the panic device finds its ports taken");
    }
    *out = pvpanic;
    return 0;
}
