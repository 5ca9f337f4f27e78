/* SPDX-License-Identifier: MIT */
/* exchange: the compare-and-exchange of register pairs; always atomic, asked for or not. */
#include "vmm/soft/exchange.h"

#include "vmm/soft/mem.h"

/* What was found, if it was not what was expected; and ZF. */
static bool finish(struct soft_cpu *cpu, bool swapped, uint64_t low, uint64_t high)
{
    if (!swapped) {
        cpu->r[SOFT_RAX] = low;
        cpu->r[SOFT_RDX] = high;
    }
    cpu->flags = (cpu->flags & ~SOFT_FLAG_ZF) | (swapped ? SOFT_FLAG_ZF : 0);
    return true;
}

bool exchange_8(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint32_t expected[2] = {(uint32_t)cpu->r[SOFT_RAX], (uint32_t)cpu->r[SOFT_RDX]};
    uint32_t desired[2] = {(uint32_t)cpu->r[SOFT_RBX], (uint32_t)cpu->r[SOFT_RCX]};
    bool swapped;

    return soft_compare_exchange(cpu, soft_ea(cpu, op), expected, desired, 8, &swapped) &&
           finish(cpu, swapped, expected[0], expected[1]);
}

bool exchange_16(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t expected[2] = {cpu->r[SOFT_RAX], cpu->r[SOFT_RDX]};
    uint64_t desired[2] = {cpu->r[SOFT_RBX], cpu->r[SOFT_RCX]};
    uint64_t address = soft_ea(cpu, op);
    bool swapped;

    if (address & 15)
        return soft_raise(cpu, SOFT_GP, 0);
    return soft_compare_exchange(cpu, address, expected, desired, 16, &swapped) &&
           finish(cpu, swapped, expected[0], expected[1]);
}
