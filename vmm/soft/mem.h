/* SPDX-License-Identifier: MIT */
/*
 * mem: the guest's linear memory as instructions see it: a TLB hit is a host access, everything
 * else (page walk, page crossing, MMIO, code pages) takes the slow path.
 *
 * Addresses are linear: segment bases are already added. All return false if the access faulted or
 * left with an exit; then nothing was changed and the instruction must be given up.
 */
#ifndef VMM_SOFT_MEM_H
#define VMM_SOFT_MEM_H

#include <string.h>

#include "vmm/soft/cpu.h"

enum soft_access {
    SOFT_READ = 0,
    SOFT_WRITE = 1,
    SOFT_EXEC = 2,
    SOFT_SYSTEM = 4, /* with READ or WRITE: as CPL 0, for descriptor tables and stacks */
};

/* Any length up to 4096. */
bool soft_load_slow(struct soft_cpu *cpu, uint64_t address, void *to, unsigned length);
bool soft_store_slow(struct soft_cpu *cpu, uint64_t address, const void *from, unsigned length);

/* A load that faults as the store that will follow. */
bool soft_load_modify(struct soft_cpu *cpu, uint64_t address, void *to, unsigned length);

/* As CPL 0, whatever the CPL is. */
bool soft_load_system(struct soft_cpu *cpu, uint64_t address, void *to, unsigned length);
bool soft_store_system(struct soft_cpu *cpu, uint64_t address, const void *from, unsigned length);

/* False unless a store there would succeed (or be MMIO): for instructions that store in parts. */
bool soft_probe_write(struct soft_cpu *cpu, uint64_t address, unsigned length);

/*
 * Atomic compare and exchange of 1, 2, 4, 8 or 16 bytes. *swapped says whether memory held
 * *expected; if not, *expected is what it held.
 */
bool soft_compare_exchange(struct soft_cpu *cpu, uint64_t address, void *expected,
                           const void *desired, unsigned length, bool *swapped);

static inline struct soft_tlb_entry *soft_tlb_slot(const struct soft_cpu *cpu, uint64_t address)
{
    return &cpu->tlb[(address >> 12) & (SOFT_TLB_SIZE - 1)];
}

/* A host pointer for `length` bytes in one page, or NULL for the slow path. */
static inline void *soft_fast_read(const struct soft_cpu *cpu, uint64_t address, unsigned length)
{
    const struct soft_tlb_entry *entry = soft_tlb_slot(cpu, address);
    if (likely(entry->read == ((address + length - 1) & ~UINT64_C(0xfff))))
        return (void *)(uintptr_t)(address + entry->addend);
    return NULL;
}

static inline void *soft_fast_write(const struct soft_cpu *cpu, uint64_t address, unsigned length)
{
    const struct soft_tlb_entry *entry = soft_tlb_slot(cpu, address);
    if (likely(entry->write == ((address + length - 1) & ~UINT64_C(0xfff))))
        return (void *)(uintptr_t)(address + entry->addend);
    return NULL;
}

static inline bool soft_load(struct soft_cpu *cpu, uint64_t address, void *to, unsigned length)
{
    const void *host = soft_fast_read(cpu, address, length);
    if (unlikely(!host))
        return soft_load_slow(cpu, address, to, length);
    memcpy(to, host, length);
    return true;
}

static inline bool soft_store(struct soft_cpu *cpu, uint64_t address, const void *from,
                              unsigned length)
{
    void *host = soft_fast_write(cpu, address, length);
    if (unlikely(!host))
        return soft_store_slow(cpu, address, from, length);
    memcpy(host, from, length);
    return true;
}

#endif
