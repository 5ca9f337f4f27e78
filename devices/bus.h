/* SPDX-License-Identifier: MIT */
/*
 * bus: which device answers at an address: port I/O and memory-mapped I/O.
 *
 * Regions live in their devices; the bus keeps a sorted index. Lookups run on the loop's thread
 * (vCPU exits cross to it first). What no region covers reads as all ones and ignores writes. An
 * access that starts in a region and ends outside it counts as uncovered.
 *
 * A region may carry doorbells: an (offset, length, data) whose write signals an eventfd. The
 * accelerator takes them over (ioeventfd), and then such writes never reach the bus.
 */
#ifndef DEVICES_BUS_H
#define DEVICES_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"

enum bus_space {
    BUS_PIO,  /* 64 KiB of ports */
    BUS_MMIO, /* guest physical memory that is not RAM */
    BUS_SPACE_COUNT,
};

struct bus_region;

struct bus_region_ops {
    /*
     * `offset` is relative to the region, `size` is 1, 2, 4 or 8 bytes and may be unaligned. The
     * device decides which sizes it knows; for the others it returns all ones.
     */
    uint64_t (*read)(void *device, uint64_t offset, unsigned size);
    void (*write)(void *device, uint64_t offset, unsigned size, uint64_t value);
};

/* Owned by the device, which fills name, ops, device and size. */
struct bus_region {
    const char *name;
    const struct bus_region_ops *ops;
    void *device;
    uint64_t size;
    /* Private. */
    uint64_t base;
    enum bus_space space;
    bool mapped;
    uint64_t accesses;
};

/* One ioeventfd. `any` means that every value written matches. */
struct bus_doorbell {
    struct bus_region *region;
    uint64_t offset;
    unsigned size; /* 0 (any size; MMIO only), 1, 2, 4 or 8 */
    bool any;
    uint64_t value;
    struct loop_event *event;
    /* Private. */
    struct list node;
    bool registered;
};

/* The accelerator's side, called when doorbells become live or die; set by the machine. */
struct bus_listener {
    /* 0 or -errno; where it fails, the bus itself signals the event when the write arrives. */
    int (*doorbell_add)(void *opaque, enum bus_space space, uint64_t address,
                        const struct bus_doorbell *doorbell);
    void (*doorbell_del)(void *opaque, enum bus_space space, uint64_t address,
                         const struct bus_doorbell *doorbell);
};

struct bus {
    struct loop *loop;
    const struct bus_listener *listener; /* may be NULL */
    void *listener_opaque;
    /* Private: the regions of each space, sorted by base, and all doorbells. */
    struct bus_region **regions[BUS_SPACE_COUNT];
    unsigned region_count[BUS_SPACE_COUNT];
    uint64_t uncovered[BUS_SPACE_COUNT];
    struct list doorbells;
};

void bus_init(struct bus *bus, struct loop *loop);
void bus_fini(struct bus *bus); /* all regions must be unmapped */
/* Before any doorbell is mapped. */
void bus_set_listener(struct bus *bus, const struct bus_listener *listener, void *opaque);

/* -EEXIST if it would overlap another region, -EINVAL if it wraps or leaves the space. */
int must_check bus_map(struct bus *bus, enum bus_space space, uint64_t base,
                       struct bus_region *region);
/* Does nothing if it is not mapped. */
void bus_unmap(struct bus *bus, struct bus_region *region);

/* The doorbell follows its region: live while the region is mapped. */
void bus_doorbell_add(struct bus *bus, struct bus_doorbell *doorbell);
void bus_doorbell_del(struct bus *bus, struct bus_doorbell *doorbell);

/*
 * What a vCPU exit does. True if a region answered. `size` is from 1 to 8: KVM hands on what lies
 * on one side of a page's end, which may be 3 or 7 bytes; devices see these as several accesses.
 */
bool bus_read(struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
              uint64_t *value);
bool bus_write(struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
               uint64_t value);

/*
 * How often each region was accessed, and, as "none", what no region covers. `name` is the
 * region's, with its address: "serial@3f8".
 */
void bus_for_each_count(const struct bus *bus,
                        void (*on_count)(void *opaque, const char *name, uint64_t count),
                        void *opaque);

/* All ones in `size` bytes: what an absent device reads as. */
static inline uint64_t bus_all_ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

#endif
