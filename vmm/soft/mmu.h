/* SPDX-License-Identifier: MIT */
/* mmu: page tables and the TLB. */
#ifndef VMM_SOFT_MMU_H
#define VMM_SOFT_MMU_H

#include "vmm/soft/cpu.h"
#include "vmm/soft/mem.h"
#include "vmm/soft/physmem.h"

struct mmu_page {
    uint64_t gpa;                    /* of the address asked for */
    const struct physmem_slot *slot; /* NULL: no RAM there */
    bool is_global;
};

/*
 * Translates for one access and fills the TLB. False: the fault is raised. `access` is READ, WRITE
 * or EXEC, with SYSTEM for an access as CPL 0.
 */
bool mmu_translate(struct soft_cpu *cpu, uint64_t address, unsigned access, struct mmu_page *page);

/* False: #GP is raised, with the address in cpu->non_canonical. */
bool mmu_check_canonical(struct soft_cpu *cpu, uint64_t address);

/* Without faults, accessed bits and TLB: for debuggers. */
bool mmu_peek(struct soft_cpu *cpu, uint64_t address, uint64_t *gpa);

void mmu_flush_all(struct soft_cpu *cpu);
/* What a CR3 load drops. */
void mmu_flush_non_global(struct soft_cpu *cpu);
void mmu_flush_page(struct soft_cpu *cpu, uint64_t address);

/* Drops the right to write to a host page without a look; true if there was one. */
bool mmu_forget_writes(struct soft_cpu *cpu, const uint8_t *host_page);

/* Loads the four PDPTEs of PAE paging from CR3; false: #GP is raised. */
bool mmu_load_pdptes(struct soft_cpu *cpu, uint64_t cr3);

#endif
