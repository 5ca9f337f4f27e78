/* SPDX-License-Identifier: MIT */
/*
 * bus: a sorted array of regions per address space, searched by bisection.
 *
 * The arrays are allocated once, so that mapping a BAR cannot fail for memory. A handler may map
 * and unmap regions, its own too: after it is called nothing of the region is touched.
 */
#include "devices/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"

/* Where each space ends: all ports; the widest physical address that x86-64 defines. */
static const uint64_t space_size[BUS_SPACE_COUNT] = {
    [BUS_PIO] = UINT64_C(1) << 16,
    [BUS_MMIO] = UINT64_C(1) << 52,
};

void bus_init(struct bus *bus, struct loop *loop)
{
    *bus = (struct bus){.loop = loop};
    list_init(&bus->doorbells);
    for (int space = 0; space < BUS_SPACE_COUNT; space++) {
        bus->regions[space] = calloc(BUS_REGION_MAX, sizeof(*bus->regions[space]));
        CHECK(bus->regions[space]);
    }
}

void bus_fini(struct bus *bus)
{
    CHECK(list_is_empty(&bus->doorbells));
    for (int space = 0; space < BUS_SPACE_COUNT; space++) {
        CHECK(bus->region_count[space] == 0);
        free(bus->regions[space]);
        bus->regions[space] = NULL;
    }
}

void bus_set_listener(struct bus *bus, const struct bus_listener *listener, void *opaque)
{
    list_for_each(node, &bus->doorbells)
        CHECK(!list_entry(node, struct bus_doorbell, node)->region->mapped);
    bus->listener = listener;
    bus->listener_opaque = opaque;
}

/* The index of the first region whose base is above `address`: where it would be inserted. */
static unsigned upper_bound(const struct bus *bus, enum bus_space space, uint64_t address)
{
    unsigned low = 0, high = bus->region_count[space];
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (bus->regions[space][middle]->base <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void doorbell_go_live(struct bus *bus, struct bus_doorbell *doorbell)
{
    const struct bus_region *region = doorbell->region;
    if (bus->listener && bus->listener->doorbell_add)
        doorbell->registered =
            bus->listener->doorbell_add(bus->listener_opaque, region->space,
                                        region->base + doorbell->offset, doorbell) == 0;
}

static void doorbell_die(struct bus *bus, struct bus_doorbell *doorbell)
{
    const struct bus_region *region = doorbell->region;
    if (!doorbell->registered)
        return;
    doorbell->registered = false;
    bus->listener->doorbell_del(bus->listener_opaque, region->space,
                                region->base + doorbell->offset, doorbell);
}

static void region_go_live(struct bus *bus, struct bus_region *region)
{
    list_for_each(node, &bus->doorbells)
    {
        struct bus_doorbell *doorbell = list_entry(node, struct bus_doorbell, node);
        if (doorbell->region == region)
            doorbell_go_live(bus, doorbell);
    }
}

static void region_die(struct bus *bus, struct bus_region *region)
{
    list_for_each(node, &bus->doorbells)
    {
        struct bus_doorbell *doorbell = list_entry(node, struct bus_doorbell, node);
        if (doorbell->region == region)
            doorbell_die(bus, doorbell);
    }
}

int bus_map(struct bus *bus, enum bus_space space, uint64_t base, struct bus_region *region)
{
    loop_check_thread(bus->loop);
    CHECK(!region->mapped && region->ops);
    if (region->size == 0 || !range_fits(base, region->size, space_size[space]))
        return -EINVAL;
    struct bus_region **regions = bus->regions[space];
    unsigned count = bus->region_count[space];
    unsigned at = upper_bound(bus, space, base);
    if (at > 0 && base - regions[at - 1]->base < regions[at - 1]->size)
        return -EEXIST;
    if (at < count && regions[at]->base - base < region->size)
        return -EEXIST;
    if (count == BUS_REGION_MAX)
        return -ENOSPC;

    memmove(&regions[at + 1], &regions[at], (count - at) * sizeof(regions[0]));
    regions[at] = region;
    bus->region_count[space]++;
    region->base = base;
    region->space = space;
    region->mapped = true;
    region_go_live(bus, region);
    return 0;
}

void bus_unmap(struct bus *bus, struct bus_region *region)
{
    loop_check_thread(bus->loop);
    if (!region->mapped)
        return;
    region_die(bus, region);
    struct bus_region **regions = bus->regions[region->space];
    unsigned at = upper_bound(bus, region->space, region->base) - 1;
    CHECK(regions[at] == region);
    unsigned count = --bus->region_count[region->space];
    memmove(&regions[at], &regions[at + 1], (count - at) * sizeof(regions[0]));
    region->mapped = false;
}

void bus_doorbell_add(struct bus *bus, struct bus_doorbell *doorbell)
{
    loop_check_thread(bus->loop);
    CHECK(range_fits(doorbell->offset, MAX(doorbell->size, 1u), doorbell->region->size));
    doorbell->registered = false;
    list_push_back(&bus->doorbells, &doorbell->node);
    if (doorbell->region->mapped)
        doorbell_go_live(bus, doorbell);
}

void bus_doorbell_del(struct bus *bus, struct bus_doorbell *doorbell)
{
    loop_check_thread(bus->loop);
    doorbell_die(bus, doorbell);
    list_remove(&doorbell->node);
}

static struct bus_region *find(const struct bus *bus, enum bus_space space, uint64_t address,
                               unsigned size)
{
    unsigned above = upper_bound(bus, space, address);
    if (above == 0)
        return NULL;
    struct bus_region *region = bus->regions[space][above - 1];
    return range_fits(address - region->base, size, region->size) ? region : NULL;
}

/* The bus's own part of an ioeventfd: for what the accelerator could not take. */
static bool ring_doorbell(struct bus *bus, const struct bus_region *region, uint64_t offset,
                          unsigned size, uint64_t value)
{
    list_for_each(node, &bus->doorbells)
    {
        struct bus_doorbell *doorbell = list_entry(node, struct bus_doorbell, node);
        if (doorbell->region == region && doorbell->offset == offset &&
            (doorbell->size == 0 || doorbell->size == size) &&
            (doorbell->any || doorbell->value == value)) {
            loop_event_signal(doorbell->event);
            return true;
        }
    }
    return false;
}

/* Its region, counted. */
static struct bus_region *enter(struct bus *bus, enum bus_space space, uint64_t address,
                                unsigned size)
{
    struct bus_region *region = find(bus, space, address, size);
    ++*(region ? &region->accesses : &bus->uncovered[space]);
    return region;
}

static uint64_t read_one(struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
                         bool *has_answer)
{
    struct bus_region *region = enter(bus, space, address, size);
    *has_answer |= region != NULL;
    return region ? region->ops->read(region->device, address - region->base, size) &
                        bus_all_ones(size)
                  : bus_all_ones(size);
}

static bool write_one(struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
                      uint64_t value)
{
    struct bus_region *region = enter(bus, space, address, size);
    if (!region)
        return false;
    uint64_t offset = address - region->base;
    value &= bus_all_ones(size);
    if (!ring_doorbell(bus, region, offset, size, value))
        region->ops->write(region->device, offset, size, value);
    return true;
}

/* The most of `left` bytes that a device knows as one access. */
static unsigned piece_of(unsigned left)
{
    return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

bool bus_read(struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
              uint64_t *value)
{
    bool has_answer = false;
    loop_check_thread(bus->loop);
    CHECK(size >= 1 && size <= 8);
    *value = 0;
    for (unsigned done = 0, piece; done < size; done += piece) {
        piece = piece_of(size - done);
        *value |= read_one(bus, space, address + done, piece, &has_answer) << (8 * done);
    }
    return has_answer;
}

bool bus_write(struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
               uint64_t value)
{
    bool has_answer = false;
    loop_check_thread(bus->loop);
    CHECK(size >= 1 && size <= 8);
    for (unsigned done = 0, piece; done < size; done += piece) {
        piece = piece_of(size - done);
        has_answer |= write_one(bus, space, address + done, piece, value >> (8 * done));
    }
    return has_answer;
}

void bus_for_each_count(const struct bus *bus,
                        void (*on_count)(void *opaque, const char *name, uint64_t count),
                        void *opaque)
{
    static const char *const none[BUS_SPACE_COUNT] = {
        [BUS_PIO] = "none@pio", [BUS_MMIO] = "none@mmio"};
    for (int space = 0; space < BUS_SPACE_COUNT; space++) {
        for (unsigned i = 0; i < bus->region_count[space]; i++) {
            const struct bus_region *region = bus->regions[space][i];
            char name[64];
            snprintf(name, sizeof(name), "%s@%" PRIx64, region->name, region->base);
            on_count(opaque, name, region->accesses);
        }
        on_count(opaque, none[space], bus->uncovered[space]);
    }
}
