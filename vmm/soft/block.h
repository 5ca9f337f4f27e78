/* SPDX-License-Identifier: MIT */
/*
 * block: decoded code: found by host address, by address for indirect jumps, forgotten by page.
 *
 * Each vCPU has its own blocks; which pages they come from is noted in physmem's owner words, so
 * that every write to such a page comes here.
 */
#ifndef VMM_SOFT_BLOCK_H
#define VMM_SOFT_BLOCK_H

#include "vmm/soft/op.h"
#include "vmm/soft/physmem.h"
#include "vmm/soft/vm.h"

int must_check block_cache_create(struct soft_cpu *cpu);
void block_cache_destroy(struct soft_cpu *cpu);

/* The operations at cpu->rip. NULL: fetching them faulted, the exception is noted. */
struct soft_op *block_lookup(struct soft_cpu *cpu);
/* The same; also leaves the pointer in *link where a branch may go there without looking. */
struct soft_op *block_lookup_link(struct soft_cpu *cpu, struct soft_op **link);
/* One instruction, in memory that the next call reuses. */
struct soft_op *block_decode_single(struct soft_cpu *cpu);

static inline struct soft_jump *block_jump_slot(struct soft_cpu *cpu, uint64_t rip)
{
    return &cpu->jumps[(rip ^ rip >> 12) & (SOFT_JUMPS_SIZE - 1)];
}

/* Not in the page of the running block, so that no branch can be linked to it. */
static inline bool block_is_elsewhere(const struct soft_cpu *cpu, uint64_t rip)
{
    return ((cpu->r[SOFT_REG_START] + cpu->cs_base) ^ (rip + cpu->cs_base)) & ~UINT64_C(0xfff);
}

void block_flush_jumps(struct soft_cpu *cpu);
void block_flush_non_global_jumps(struct soft_cpu *cpu);
void block_flush_page_jumps(struct soft_cpu *cpu, uint64_t address);
/* Forgets all code of this vCPU. Only between blocks. */
void block_flush_all(struct soft_cpu *cpu);

/*
 * The bytes of [gpa, gpa + length) changed: all vCPUs forget code of these pages; `self` (NULL: not
 * a vCPU) at once, the others before their next block. Any thread, after the write.
 */
void block_code_written(struct soft_vm *vm, struct soft_cpu *self, const struct physmem_slot *slot,
                        uint64_t gpa, uint64_t length);

/* Does what other threads asked for (SOFT_REQUEST_CODE). Only between blocks. */
void block_serve_requests(struct soft_cpu *cpu);

#endif
