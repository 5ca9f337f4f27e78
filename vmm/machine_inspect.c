/* SPDX-License-Identifier: MIT */
/* machine_inspect: what lies where in the guest's memory and ports, for people to look at. */
#include "vmm/machine_inspect.h"

#include "vmm/machine_private.h"

#define LAPIC_BASE UINT64_C(0xfee00000)
#define LAPIC_SIZE UINT64_C(0x100000) /* messages to all LAPICs */

void machine_access_port(struct machine *machine, uint16_t port, unsigned size_bytes, bool is_write,
                         uint64_t *value)
{
    if (is_write)
        bus_write(&machine->bus, BUS_PIO, port, size_bytes, *value);
    else
        bus_read(&machine->bus, BUS_PIO, port, size_bytes, value);
}

/* The lowest range at or above `from` that is not RAM; false: none. */
static bool next_region(const struct machine *machine, enum bus_space space, uint64_t from,
                        struct machine_range *out)
{
    const struct bus *bus = &machine->bus;
    for (unsigned i = 0; i < bus->region_count[space]; i++) {
        const struct bus_region *region = bus->regions[space][i];
        if (region->base < from)
            continue;
        *out = (struct machine_range){
            .name = region->name, .base = region->base, .size_bytes = region->size};
        return true;
    }
    return false;
}

static bool next_ram(const struct machine *machine, uint64_t from, struct machine_range *out)
{
    const struct guest_mem *mem = &machine->memory.guest;
    uint64_t offset = 0;
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_mem_region *region = &mem->regions[i];
        if (region->gpa >= from) {
            *out = (struct machine_range){.base = region->gpa,
                                          .size_bytes = region->size,
                                          .kind = MACHINE_RANGE_RAM,
                                          .offset_bytes = region->is_pluggable ? 0 : offset};
            out->name = region->is_pluggable             ? "device-memory"
                        : region->gpa < MEMORY_HIGH_BASE ? "ram-below-4g"
                                                         : "ram-above-4g";
            out->alias_of = region->is_pluggable ? NULL : "pc.ram";
            return true;
        }
        offset += region->is_pluggable ? 0 : region->size;
    }
    return false;
}

/* What is neither a device's nor RAM. */
static bool next_fixed(const struct machine *machine, uint64_t from, struct machine_range *out)
{
    const struct firmware *firmware = &machine->firmware;
    if (from <= LAPIC_BASE) {
        *out = (struct machine_range){
            .name = "apic-msi", .base = LAPIC_BASE, .size_bytes = LAPIC_SIZE};
        return true;
    }
    if (!firmware->bytes || from > MEMORY_HIGH_BASE - firmware->size)
        return false;
    *out = (struct machine_range){.name = "pc.bios",
                                  .base = MEMORY_HIGH_BASE - firmware->size,
                                  .size_bytes = firmware->size,
                                  .kind = MACHINE_RANGE_ROM};
    return true;
}

static void take_lower(bool is_there, const struct machine_range *candidate, bool *has_best,
                       struct machine_range *best)
{
    if (is_there && (!*has_best || candidate->base < best->base))
        *best = *candidate;
    *has_best |= is_there;
}

static bool next_range(const struct machine *machine, enum bus_space space, uint64_t from,
                       struct machine_range *out)
{
    struct machine_range candidate;
    bool has_best = next_region(machine, space, from, out);
    if (space == BUS_PIO)
        return has_best;
    take_lower(next_ram(machine, from, &candidate), &candidate, &has_best, out);
    take_lower(next_fixed(machine, from, &candidate), &candidate, &has_best, out);
    return has_best;
}

void machine_for_each_range(const struct machine *machine, enum bus_space space,
                            void (*visit)(void *opaque, const struct machine_range *range),
                            void *opaque)
{
    struct machine_range range;
    for (uint64_t from = 0; next_range(machine, space, from, &range); from = range.base + 1)
        visit(opaque, &range);
}
