/* SPDX-License-Identifier: MIT */
/*
 * stack: pushes and pops of any mode, against a copy of RSP, so that an instruction changes RSP
 * only when all of them are done.
 */
#ifndef VMM_SOFT_STACK_H
#define VMM_SOFT_STACK_H

#include "vmm/soft/mem.h"
#include "vmm/soft/segment.h"

static inline bool stack_linear(struct soft_cpu *cpu, uint64_t rsp, unsigned size, bool is_write,
                                uint64_t *linear)
{
    if (!soft_is_64bit(cpu))
        return segment_check(cpu, SOFT_SS, (uint32_t)rsp, size, is_write, linear);
    *linear = rsp;
    return true;
}

/* RSP with its low part, as wide as the stack segment says, replaced. */
static inline uint64_t stack_move(const struct soft_cpu *cpu, uint64_t rsp, int64_t by)
{
    uint64_t mask = segment_stack_mask(cpu);
    uint64_t moved = rsp + (uint64_t)by;

    return mask == UINT32_MAX ? (uint32_t)moved : (rsp & ~mask) | (moved & mask);
}

/* A non-canonical address on the stack is #SS, not #GP. False, for returning. */
static inline bool stack_fault(struct soft_cpu *cpu)
{
    if (cpu->non_canonical)
        soft_raise(cpu, SOFT_SS_FAULT, 0);
    return false;
}

static inline bool stack_push(struct soft_cpu *cpu, uint64_t *rsp, uint64_t value, unsigned size)
{
    uint64_t linear, moved = stack_move(cpu, *rsp, -(int64_t)size);

    if (!stack_linear(cpu, moved & segment_stack_mask(cpu), size, true, &linear) ||
        !soft_store(cpu, linear, &value, size))
        return stack_fault(cpu);
    *rsp = moved;
    return true;
}

static inline bool stack_pop(struct soft_cpu *cpu, uint64_t *rsp, uint64_t *value, unsigned size)
{
    uint64_t linear;

    *value = 0;
    if (!stack_linear(cpu, *rsp & segment_stack_mask(cpu), size, false, &linear) ||
        !soft_load(cpu, linear, value, size))
        return stack_fault(cpu);
    *rsp = stack_move(cpu, *rsp, size);
    return true;
}

#endif
