/* SPDX-License-Identifier: MIT */
/*
 * exec: the threaded interpreter.
 *
 * Theory of operation. soft_run is one function with a label per kind of operation; each handler
 * ends by jumping to the next operation's handler. Host and guest share an instruction set, so a
 * handler runs the real instruction and keeps the real flags: LAHF and SETO put them into EAX, and
 * `f` holds that word. A TLB hit is one compare; whatever misses it is a call into mem.c, and if
 * that returns false the instruction is given up at `fault` with nothing changed.
 *
 * Branches inside a page hold a pointer to the operations they lead to. Others go through the jump
 * cache by address. A block that has died has all its operations turned into `stale`, which looks
 * its own address up again; so pointers to dead blocks need no hunting down. Between blocks the
 * poll word is tested: it is how other threads get the vCPU's attention.
 *
 * The handlers are in the exec_*.inc files, included here into the one function.
 */
#include "vmm/soft/exec.h"

#include "vmm/soft/block.h"
#include "vmm/soft/divide.h"
#include "vmm/soft/legacy.h"
#include "vmm/soft/mem.h"
#include "vmm/soft/op.h"
#include "vmm/soft/segment.h"
#include "vmm/soft/vex.h"

const void *const *soft_handlers;

/* Each handler keeps its own dispatch: shared ones are hard to predict. clang does so by itself. */
#if defined(__GNUC__) && !defined(__clang__)
#define THREADED __attribute__((optimize("no-gcse", "no-crossjumping")))
#else
#define THREADED
#endif

/* Guest data has no alignment. */
typedef uint8_t u8;
typedef uint16_t u16 __attribute__((aligned(1), may_alias));
typedef uint32_t u32 __attribute__((aligned(1), may_alias));
typedef uint64_t u64 __attribute__((aligned(1), may_alias));
typedef int8_t s8;
typedef int16_t s16 __attribute__((aligned(1), may_alias));
typedef int32_t s32 __attribute__((aligned(1), may_alias));
typedef int64_t s64 __attribute__((aligned(1), may_alias));

/* Bit c of the entry for CF, OF, PF, ZF, SF (bits 0 to 4) says whether condition c holds. */
#define COND_ENTRY(i)                                                                              \
    (uint16_t)(((i)&2 ? 0x0001 : 0x0002) | ((i)&1 ? 0x0004 : 0x0008) | ((i)&8 ? 0x0010 : 0x0020) | \
               ((i)&9 ? 0x0040 : 0x0080) | ((i)&16 ? 0x0100 : 0x0200) |                            \
               ((i)&4 ? 0x0400 : 0x0800) | (!((i)&16) != !((i)&2) ? 0x1000 : 0x2000) |             \
               (!((i)&16) != !((i)&2) || (i)&8 ? 0x4000 : 0x8000))
#define COND_ENTRY4(i) COND_ENTRY(i), COND_ENTRY((i) + 1), COND_ENTRY((i) + 2), COND_ENTRY((i) + 3)

static const uint16_t condition_table[32] = {COND_ENTRY4(0),  COND_ENTRY4(4),  COND_ENTRY4(8),
                                             COND_ENTRY4(12), COND_ENTRY4(16), COND_ENTRY4(20),
                                             COND_ENTRY4(24), COND_ENTRY4(28)};

static inline bool condition(uint32_t f, unsigned code)
{
    unsigned index = (f >> 8 & 5) | (f & 1) << 1 | (f >> 11 & 0x18);

    return condition_table[index] >> code & 1;
}

/* A host pointer for a locked access: not across cache lines, which the host may forbid. */
static inline void *fast_locked(const struct soft_cpu *cpu, uint64_t address, unsigned length)
{
    if (unlikely((address & 63) + length > 64))
        return NULL;
    return soft_fast_write(cpu, address, length);
}

static uint64_t instruction_mask(const struct soft_cpu *cpu)
{
    return soft_is_64bit(cpu) ? UINT64_MAX : UINT32_MAX;
}

static bool is_stack_operation(const struct soft_op *op)
{
    static const uint16_t kinds[] = {SOP_push_r,    SOP_push_i, SOP_push_m,   SOP_push_r_16,
                                     SOP_push_i_16, SOP_pop_r,  SOP_pop_r_16, SOP_pop_m,
                                     SOP_call,      SOP_call_r, SOP_call_m,   SOP_ret,
                                     SOP_ret_n,     SOP_leave,  SOP_pushf};

    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        if (op->handler == soft_handlers[kinds[i]])
            return true;
    return false;
}

/* A non-canonical address of the stack, or with the stack as its base, is #SS and not #GP. */
static void refine_fault(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t address = cpu->non_canonical;
    bool is_near = address - cpu->r[SOFT_RSP] + 16 < 32 || op->handler == soft_handlers[SOP_leave];
    bool by_stack = (op->b == 8 * SOFT_RSP || op->b == 8 * SOFT_RBP) &&
                    op->index != 8 * SOFT_REG_FSBASE && op->index != 8 * SOFT_REG_GSBASE &&
                    !(op->handler == soft_handlers[SOP_call_c] && vex_is_based_gather(op));

    if ((is_near && is_stack_operation(op)) || by_stack)
        soft_raise(cpu, SOFT_SS_FAULT, 0);
}

#ifdef __clang__
/* It would follow every variable along every jump between handlers, for minutes; gcc looks. */
#pragma clang diagnostic ignored "-Wuninitialized"
#endif

/*
 * With cpu NULL only publishes the handlers' addresses. Leaves with cpu->rip at the next
 * instruction, or at the one that could not be completed (cpu->pending).
 */
static THREADED void run(struct soft_cpu *cpu, struct soft_op *first)
{
    static const void *const labels[] = {
#define SOFT_OP_LABEL(name) &&L_##name,
        SOFT_OPS(SOFT_OP_LABEL)
#undef SOFT_OP_LABEL
    };

    if (!cpu) {
        soft_handlers = labels;
        return;
    }
    const struct soft_op *o = first;
    struct soft_op *target;
    uint32_t f = cpu->flags;
    uint64_t next_rip;

    cpu->r[SOFT_REG_START] = cpu->rip;
    goto * o->handler;

#include "vmm/soft/exec_macros.inc"

#include "vmm/soft/exec_flow.inc"

#include "vmm/soft/exec_alu.inc"

#include "vmm/soft/exec_move.inc"

#include "vmm/soft/exec_bits.inc"

#include "vmm/soft/exec_fused.inc"

    /* --- Ways from block to block --- */

link_taken:
    if (block_is_elsewhere(cpu, next_rip))
        JUMP_INDIRECT();
    cpu->rip = next_rip;
    target = block_lookup_link(cpu, &((struct soft_op *)(uintptr_t)o)->taken);
    goto looked_up;
link_fallthrough:
    if (block_is_elsewhere(cpu, next_rip))
        JUMP_INDIRECT();
    cpu->rip = next_rip;
    target = block_lookup_link(cpu, &((struct soft_op *)(uintptr_t)o)->fallthrough);
    goto looked_up;
indirect: /* the jump cache has it not */
    cpu->rip = next_rip;
    if (atomic_load_explicit(&cpu->poll, memory_order_relaxed))
        goto leave;
    target = block_lookup(cpu);
looked_up:
    if (unlikely(!target))
        goto leave;
    o = target;
    ENTER(next_rip);
attention:
    cpu->rip = cpu->r[SOFT_REG_START];
    goto leave;
fault_in_helper: /* a repeated string instruction has completed some elements */
    f = cpu->flags;
fault:
    cpu->rip = (cpu->r[SOFT_REG_START] + o->offset) & instruction_mask(cpu);
    if (unlikely(cpu->non_canonical))
        refine_fault(cpu, o);
leave:
    cpu->flags = f;
}

void soft_exec_init(void)
{
    run(NULL, NULL);
}

void soft_run(struct soft_cpu *cpu)
{
    struct soft_op *ops = block_lookup(cpu);

    if (ops)
        run(cpu, ops);
}

void soft_step(struct soft_cpu *cpu)
{
    struct soft_op *ops = block_decode_single(cpu);

    atomic_store(&cpu->poll, 1);
    if (ops)
        run(cpu, ops);
}
