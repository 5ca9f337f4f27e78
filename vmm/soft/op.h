/* SPDX-License-Identifier: MIT */
/*
 * op: the decoded form: 32-byte operations in a row, each with the address of its handler.
 *
 * An instruction becomes one operation, or two where its address needs a step of its own. Nothing
 * in a block depends on the virtual address it runs at: RIP-relative operands use SOFT_REG_START,
 * branch targets are relative to it. So one block serves all mappings of its page.
 */
#ifndef VMM_SOFT_OP_H
#define VMM_SOFT_OP_H

#include "vmm/soft/cpu.h"
#include "vmm/soft/op_list.h"

/* False: an exception or exit is noted; the instruction will be given up. */
typedef bool soft_helper(struct soft_cpu *cpu, const struct soft_op *op);

struct soft_op {
    const void *handler;
    union {
        uint64_t imm;
        soft_helper *helper;
        struct soft_op *taken; /* branches: the ops at the target, once known */
    };
    union {
        struct {
            int32_t disp;
            uint32_t aux; /* what the handler likes */
        };
        struct soft_op *fallthrough; /* conditional branches: the ops after it, once known */
    };
    union {
        struct {
            uint8_t a,
                b; /* operands, byte offsets into soft_cpu.r; b is the base in memory forms */
            uint8_t index, scale;
        };
        int32_t rel; /* branches: target minus the block's start */
    };
    uint8_t length;  /* of the instruction */
    uint8_t c;       /* what the handler likes */
    uint16_t offset; /* of the instruction from the block's start */
};

_Static_assert(sizeof(struct soft_op) == 32, "handlers step by 32 bytes");

/* soft_op.c of SOP_stop: what the last instruction holds back until after the next one. */
enum soft_stop {
    SOFT_STOP_PLAIN,
    SOFT_STOP_INTERRUPTS, /* STI */
    SOFT_STOP_STACK,      /* MOV SS and the like: interrupts and debug traps */
};

/* In soft_op.aux of SOP_address_segment, beside the size. */
#define SOFT_ADDRESS_WRITE 0x10000u

enum soft_op_kind {
#define SOFT_OP_ENUM(name) SOP_##name,
    SOFT_OPS(SOFT_OP_ENUM)
#undef SOFT_OP_ENUM
        SOP_COUNT,
};

/* Handler addresses by kind; valid after soft_exec_init. */
extern const void *const *soft_handlers;
void soft_exec_init(void);

static inline uint64_t *soft_reg64(struct soft_cpu *cpu, uint8_t offset)
{
    return (uint64_t *)(void *)((char *)cpu->r + offset);
}

/* The linear address of a memory operand. */
static inline uint64_t soft_ea(const struct soft_cpu *cpu, const struct soft_op *op)
{
    const char *r = (const char *)cpu->r;
    uint64_t base = *(const uint64_t *)(const void *)(r + op->b);
    uint64_t index = *(const uint64_t *)(const void *)(r + op->index);

    return base + (index << op->scale) + (uint64_t)(int64_t)op->disp;
}

#endif
