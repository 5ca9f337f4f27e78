/* SPDX-License-Identifier: MIT */
/*
 * mem_region: gives a region to accelerator and devices piece by piece.
 *
 * A memslot cannot grow while the guest runs, so the region has several, each added when the first
 * byte of it is needed. What is never needed is no memory to the guest.
 */
#include "vmm/mem_region.h"

#include <errno.h>

#include "base/bytes.h"

int mem_region_init(struct mem_region *region, struct accel_vm *vm, struct guest_mem *guest,
                    unsigned first_slot, uint64_t gpa, uint64_t size, const char *path,
                    struct error *err)
{
    *region = (struct mem_region){
        .vm = vm, .guest = guest, .first_slot = first_slot, .gpa = gpa, .size = size};
    int result = memory_backing_init(&region->backing, size, path, false, "a memory device", err);
    region->host = region->backing.host;
    return result;
}

void mem_region_fini(struct mem_region *region)
{
    memory_backing_fini(&region->backing);
}

/* Devices see one range that grows. */
static int tell_devices(struct mem_region *region, uint64_t bytes)
{
    struct guest_mem *guest = region->guest;
    unsigned at = 0;
    while (at < guest->region_count && guest->regions[at].gpa < region->gpa)
        at++;
    if (at < guest->region_count && guest->regions[at].gpa == region->gpa) {
        guest->regions[at].size = bytes;
        return 0;
    }
    if (guest->region_count == GUEST_MEM_REGION_MAX)
        return -ENOSPC;
    for (unsigned i = guest->region_count++; i > at; i--)
        guest->regions[i] = guest->regions[i - 1];
    guest->regions[at] = (struct guest_mem_region){.gpa = region->gpa,
                                                   .size = bytes,
                                                   .host = region->host,
                                                   .is_pluggable = true,
                                                   .is_shared = region->backing.fd >= 0};
    return 0;
}

int mem_region_extend(struct mem_region *region, uint64_t bytes)
{
    uint64_t piece = align_up(region->size / MEM_REGION_SLOTS, MEM_REGION_ALIGN / 8);
    CHECK(bytes <= region->size);
    while (region->mapped < bytes) {
        uint64_t length = MIN(piece, region->size - region->mapped);
        unsigned slot = region->first_slot + (unsigned)(region->mapped / piece);
        int result =
            region->vm->ops->set_memslot(region->vm, slot, region->gpa + region->mapped, length,
                                         (char *)region->host + region->mapped, false);
        if (!result)
            result = tell_devices(region, region->mapped + length);
        if (result)
            return result;
        region->mapped += length;
    }
    return 0;
}
