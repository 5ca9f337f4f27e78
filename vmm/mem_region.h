/* SPDX-License-Identifier: MIT */
/*
 * mem_region: the memory behind one virtio-mem device, mapped on the host, of which the
 * accelerator and the devices are given more as it is needed, in a few pieces.
 */
#ifndef VMM_MEM_REGION_H
#define VMM_MEM_REGION_H

#include "vmm/memory.h"

#define MEM_REGION_SLOTS 4 /* memslots of one region */
#define MEM_REGION_ALIGN (UINT64_C(1) << 30)

struct mem_region {
    struct accel_vm *vm;
    struct guest_mem *guest;
    unsigned first_slot;
    uint64_t gpa, size, mapped;
    void *host;
    struct memory_backing backing;
};

/* Address space, no memory yet. `path`: see memory_backing_init; NULL: memory of the host. */
int must_check mem_region_init(struct mem_region *region, struct accel_vm *vm,
                               struct guest_mem *guest, unsigned first_slot, uint64_t gpa,
                               uint64_t size, const char *path, struct error *err);
void mem_region_fini(struct mem_region *region);

/* The guest may use the first `bytes` from now on. 0 or -errno. */
int must_check mem_region_extend(struct mem_region *region, uint64_t bytes);

#endif
