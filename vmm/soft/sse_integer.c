/* SPDX-License-Identifier: MIT */
/*
 * sse_integer: the SSE2 instructions that compute without looking at MXCSR: packed integers, shifts
 * and the logic of all types.
 */
#include "vmm/soft/sse.h"

#define INTEGER(name)                                                                              \
    SSE_STUB(name, #name)                                                                          \
    SSE_REG_RUN(name)                                                                              \
    SSE_MEM_RUN(name, 16)

#define INTEGERS(X)                                                                                \
    X(0x60, punpcklbw)                                                                             \
    X(0x61, punpcklwd)                                                                             \
    X(0x62, punpckldq)                                                                             \
    X(0x63, packsswb)                                                                              \
    X(0x64, pcmpgtb)                                                                               \
    X(0x65, pcmpgtw)                                                                               \
    X(0x66, pcmpgtd)                                                                               \
    X(0x67, packuswb)                                                                              \
    X(0x68, punpckhbw)                                                                             \
    X(0x69, punpckhwd)                                                                             \
    X(0x6a, punpckhdq)                                                                             \
    X(0x6b, packssdw)                                                                              \
    X(0x6c, punpcklqdq)                                                                            \
    X(0x6d, punpckhqdq)                                                                            \
    X(0x74, pcmpeqb)                                                                               \
    X(0x75, pcmpeqw)                                                                               \
    X(0x76, pcmpeqd)                                                                               \
    X(0xd1, psrlw)                                                                                 \
    X(0xd2, psrld)                                                                                 \
    X(0xd3, psrlq)                                                                                 \
    X(0xd4, paddq)                                                                                 \
    X(0xd5, pmullw)                                                                                \
    X(0xd8, psubusb)                                                                               \
    X(0xd9, psubusw)                                                                               \
    X(0xda, pminub)                                                                                \
    X(0xdb, pand)                                                                                  \
    X(0xdc, paddusb)                                                                               \
    X(0xdd, paddusw)                                                                               \
    X(0xde, pmaxub)                                                                                \
    X(0xdf, pandn)                                                                                 \
    X(0xe0, pavgb)                                                                                 \
    X(0xe1, psraw)                                                                                 \
    X(0xe2, psrad)                                                                                 \
    X(0xe3, pavgw)                                                                                 \
    X(0xe4, pmulhuw)                                                                               \
    X(0xe5, pmulhw)                                                                                \
    X(0xe8, psubsb)                                                                                \
    X(0xe9, psubsw)                                                                                \
    X(0xea, pminsw)                                                                                \
    X(0xeb, por)                                                                                   \
    X(0xec, paddsb)                                                                                \
    X(0xed, paddsw)                                                                                \
    X(0xee, pmaxsw)                                                                                \
    X(0xef, pxor)                                                                                  \
    X(0xf1, psllw)                                                                                 \
    X(0xf2, pslld)                                                                                 \
    X(0xf3, psllq)                                                                                 \
    X(0xf4, pmuludq)                                                                               \
    X(0xf5, pmaddwd)                                                                               \
    X(0xf6, psadbw)                                                                                \
    X(0xf8, psubb)                                                                                 \
    X(0xf9, psubw)                                                                                 \
    X(0xfa, psubd)                                                                                 \
    X(0xfb, psubq)                                                                                 \
    X(0xfc, paddb)                                                                                 \
    X(0xfd, paddw)                                                                                 \
    X(0xfe, paddd)
/* The same opcodes for singles without a prefix and for doubles with 66. */
#define LOGIC(X, type)                                                                             \
    X(0x14, unpcklp##type)                                                                         \
    X(0x15, unpckhp##type)                                                                         \
    X(0x54, andp##type)                                                                            \
    X(0x55, andnp##type)                                                                           \
    X(0x56, orp##type)                                                                             \
    X(0x57, xorp##type)

#define DEFINE(opcode, name) INTEGER(name)
INTEGERS(DEFINE)
LOGIC(DEFINE, s)
LOGIC(DEFINE, d)
#undef DEFINE

/* --- Shifts by an immediate: the forms with the count in a register do the same --- */

static bool shift(struct soft_cpu *cpu, const struct soft_op *op, sse_stub *stub)
{
    __m128i count = _mm_cvtsi32_si128((int)(op->aux & SSE_AUX_IMM));

    stub(sse_xmm(cpu, op->c), &count);
    return true;
}

static void psrldq_stub(void *to, const void *from)
{
    uint8_t bytes[32] = {0};
    unsigned count = MIN(*(const uint8_t *)from, 16u);

    memcpy(bytes, to, 16);
    memcpy(to, bytes + count, 16);
}

static void pslldq_stub(void *to, const void *from)
{
    uint8_t bytes[32] = {0};
    unsigned count = MIN(*(const uint8_t *)from, 16u);

    memcpy(bytes + 16, to, 16);
    memcpy(to, bytes + 16 - count, 16);
}

/* Which shift it is says ModRM.reg. */
static bool shift_group_w(struct soft_cpu *cpu, const struct soft_op *op)
{
    static sse_stub *const stubs[8] = {[2] = psrlw_stub, [4] = psraw_stub, [6] = psllw_stub};

    return shift(cpu, op, stubs[op->a & 7]);
}

static bool shift_group_d(struct soft_cpu *cpu, const struct soft_op *op)
{
    static sse_stub *const stubs[8] = {[2] = psrld_stub, [4] = psrad_stub, [6] = pslld_stub};

    return shift(cpu, op, stubs[op->a & 7]);
}

static bool shift_group_q(struct soft_cpu *cpu, const struct soft_op *op)
{
    static sse_stub *const stubs[8] = {
        [2] = psrlq_stub, [3] = psrldq_stub, [6] = psllq_stub, [7] = pslldq_stub};

    return shift(cpu, op, stubs[op->a & 7]);
}

#define ENTRY(opcode, name) [opcode] = {.reg = name##_reg, .mem = name##_mem, .size = 16},

const struct sse_form sse_integer_forms[SSE_PREFIXES][256] = {
    [SSE_NONE] = {LOGIC(ENTRY, s)},
    [SSE_66] =
        {
            INTEGERS(ENTRY)
                LOGIC(ENTRY, d)[0x71] = {.reg = shift_group_w, .flags = SSE_IMM8 | SSE_SHIFT_GROUP},
            [0x72] = {.reg = shift_group_d, .flags = SSE_IMM8 | SSE_SHIFT_GROUP},
            [0x73] = {.reg = shift_group_q, .flags = SSE_IMM8 | SSE_SHIFT_GROUP},
        },
};
