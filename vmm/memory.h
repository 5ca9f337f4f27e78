/* SPDX-License-Identifier: MIT */
/*
 * memory: the guest's RAM: one piece, mapped once, seen by the guest below and above the hole.
 *
 * The map is that of Q35 as evisor lays it out: RAM from 0 to at most 2 GiB, then the hole for
 * ECAM, PCI, IOAPIC and LAPIC, and the rest of RAM from 4 GiB on.
 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "devices/guest_mem.h"
#include "vmm/accel.h"
#include "vmm/memory_backing.h"

#define MEMORY_LOW_MAX    UINT64_C(0x80000000)
#define MEMORY_ECAM_BASE  UINT64_C(0xb0000000) /* 256 MiB: one bus range of 0 to 255 */
#define MEMORY_ECAM_SIZE  UINT64_C(0x10000000)
#define MEMORY_PCI32_BASE UINT64_C(0xc0000000) /* BARs below 4 GiB */
#define MEMORY_PCI32_END  UINT64_C(0xfec00000)
#define MEMORY_HIGH_BASE  UINT64_C(0x100000000)

struct memory {
    struct guest_mem guest;
    void *host;
    uint64_t size;
    uint64_t device_end; /* RAM and memory devices end here, at a GiB boundary from 4 GiB on */
    struct memory_backing backing;
    bool is_early; /* until memory_settle: the lowest 2 MiB come in small pages */
};

/*
 * `path`: a file or a hugetlbfs directory to take the memory from (-mem-path), or NULL for memory
 * of the host with transparent huge pages. `prealloc` touches every page now.
 */
int must_check memory_init(struct memory *memory, uint64_t size, const char *path, bool prealloc,
                           struct error *err);
void memory_fini(struct memory *memory);

/* Once the guest has begun: from now on all of it may lie in huge pages. */
void memory_settle(struct memory *memory);

/* Gives all RAM to the accelerator, as memslots 0 and up. */
int must_check memory_map(struct memory *memory, struct accel_vm *vm, struct error *err);

/* Where 64-bit BARs may go: after RAM and memory devices, at a GiB boundary. */
uint64_t memory_pci64_base(const struct memory *memory);

#endif
