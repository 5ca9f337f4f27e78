/* SPDX-License-Identifier: MIT */
/*
 * sse_immediate: stubs for instructions with an immediate, which is part of an instruction: so
 * there is one for each value it can have, made by the assembler.
 */
#ifndef VMM_SOFT_SSE_IMMEDIATE_H
#define VMM_SOFT_SSE_IMMEDIATE_H

#include "vmm/soft/sse.h"

#define SSE_STUB_BYTES 32

/*
 * XMM0 = op(XMM0 from RDI, operand at RSI, n), back to RDI; for n from 0 to count - 1. `prefix` is
 * the mandatory one as the assembler reads it, with a comma.
 */
#define SSE_IMMEDIATE_STUBS(name, prefix, opcode, count)                                           \
    extern const char name##_stubs[] __attribute__((visibility("hidden")));                        \
    __asm__(".pushsection .text\n"                                                                 \
            ".balign 32\n"                                                                         \
            ".hidden " #name "_stubs\n"                                                            \
            ".globl " #name "_stubs\n" #name "_stubs:\n"                                           \
            ".set sse_n, 0\n"                                                                      \
            ".rept " #count "\n"                                                                   \
            "    .balign 32\n"                                                                     \
            "    movups (%rdi), %xmm0\n"                                                           \
            "    .byte " prefix "0x0f, 0x3a, " #opcode ", 0x06, sse_n\n"                           \
            "    movups %xmm0, (%rdi)\n"                                                           \
            "    ret\n"                                                                            \
            "    .set sse_n, sse_n + 1\n"                                                          \
            ".endr\n"                                                                              \
            ".popsection\n");                                                                      \
    static sse_stub *name##_stub(const struct soft_op *op)                                         \
    {                                                                                              \
        return (sse_stub *)(uintptr_t)(name##_stubs + (op->aux & (count - 1)) * SSE_STUB_BYTES);   \
    }

/* The helpers of both forms of one that raises nothing. */
#define SSE_INTEGER_IMMEDIATE(name, prefix, opcode, count)                                         \
    SSE_IMMEDIATE_STUBS(name, prefix, opcode, count)                                               \
    static bool name##_reg(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        __m128i operand = *sse_xmm(cpu, op->c);                                                    \
        name##_stub(op)(sse_xmm(cpu, op->a), &operand);                                            \
        return true;                                                                               \
    }                                                                                              \
    static bool name##_mem(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        __m128i operand;                                                                           \
        if (!sse_load(cpu, op, &operand, 16))                                                      \
            return false;                                                                          \
        name##_stub(op)(sse_xmm(cpu, op->a), &operand);                                            \
        return true;                                                                               \
    }

#endif
