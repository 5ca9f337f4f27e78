/* SPDX-License-Identifier: MIT */
/*
 * mmx: the MMX instructions and the SSE ones on MMX registers.
 *
 * The MMX registers are the mantissas of the x87 registers in cpu->fx. Touching them puts the top
 * of the stack to 0, so that MM0 to MM7 are the image's slots in order, and marks all as in use.
 */
#include "vmm/soft/sse.h"

#include <xmmintrin.h>

#define HELPER(name) static bool name(struct soft_cpu *cpu, const struct soft_op *op)

static uint8_t *slot(struct soft_cpu *cpu, unsigned n)
{
    return cpu->fx + FX_ST + 16 * (n & 7);
}

static uint64_t get(struct soft_cpu *cpu, unsigned n)
{
    return load_le64(slot(cpu, n));
}

static void set(struct soft_cpu *cpu, unsigned n, uint64_t value)
{
    store_le64(slot(cpu, n), value);
    store_le16(slot(cpu, n) + 8, 0xffff);
}

/* What comes before any other fault of an MMX instruction. */
static bool check_pending(struct soft_cpu *cpu)
{
    fpu_unload(cpu);
    return fpu_is_pending(cpu) ? soft_raise(cpu, SOFT_MF, 0) : true;
}

static void enter(struct soft_cpu *cpu)
{
    uint16_t fsw = fpu_word(cpu, FX_FSW);
    unsigned top = FSW_TOP(fsw);
    uint8_t before[8 * 16];

    memcpy(before, cpu->fx + FX_ST, sizeof(before));
    for (unsigned i = 0; i < 8; i++)
        memcpy(slot(cpu, i), before + 16 * ((i - top) & 7), 16);
    store_le16(cpu->fx + FX_FSW, fsw & (uint16_t) ~(7u << 11));
    cpu->fx[FX_FTW] = 0xff;
}

bool mmx_run_emms(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    if (!check_pending(cpu))
        return false;
    enter(cpu);
    cpu->fx[FX_FTW] = 0;
    return true;
}

/* Fetches the operand, then goes over to MMX. False after a fault. */
static bool begin(struct soft_cpu *cpu, const struct soft_op *op, unsigned size, uint64_t *operand)
{
    *operand = 0;
    if (!check_pending(cpu) || (size && !soft_load(cpu, soft_ea(cpu, op), operand, size)))
        return false;
    enter(cpu);
    if (!size)
        *operand = get(cpu, op->c);
    return true;
}

/* --- Arithmetic: the host's own instructions --- */

bool mmx_compute(struct soft_cpu *cpu, const struct soft_op *op, sse_stub *stub, unsigned size)
{
    uint64_t operand, value;

    if (!begin(cpu, op, size, &operand))
        return false;
    value = get(cpu, op->a);
    stub(&value, &operand);
    set(cpu, op->a, value);
    return true;
}

#define ARITHMETIC(X)                                                                              \
    X(0x60, punpcklbw, 4)                                                                          \
    X(0x61, punpcklwd, 4)                                                                          \
    X(0x62, punpckldq, 4)                                                                          \
    X(0x63, packsswb, 8)                                                                           \
    X(0x64, pcmpgtb, 8)                                                                            \
    X(0x65, pcmpgtw, 8)                                                                            \
    X(0x66, pcmpgtd, 8)                                                                            \
    X(0x67, packuswb, 8)                                                                           \
    X(0x68, punpckhbw, 8)                                                                          \
    X(0x69, punpckhwd, 8)                                                                          \
    X(0x6a, punpckhdq, 8)                                                                          \
    X(0x6b, packssdw, 8)                                                                           \
    X(0x74, pcmpeqb, 8)                                                                            \
    X(0x75, pcmpeqw, 8)                                                                            \
    X(0x76, pcmpeqd, 8)                                                                            \
    X(0xd1, psrlw, 8)                                                                              \
    X(0xd2, psrld, 8)                                                                              \
    X(0xd3, psrlq, 8)                                                                              \
    X(0xd4, paddq, 8)                                                                              \
    X(0xd5, pmullw, 8)                                                                             \
    X(0xd8, psubusb, 8)                                                                            \
    X(0xd9, psubusw, 8)                                                                            \
    X(0xda, pminub, 8)                                                                             \
    X(0xdb, pand, 8)                                                                               \
    X(0xdc, paddusb, 8)                                                                            \
    X(0xdd, paddusw, 8)                                                                            \
    X(0xde, pmaxub, 8)                                                                             \
    X(0xdf, pandn, 8)                                                                              \
    X(0xe0, pavgb, 8)                                                                              \
    X(0xe1, psraw, 8)                                                                              \
    X(0xe2, psrad, 8)                                                                              \
    X(0xe3, pavgw, 8)                                                                              \
    X(0xe4, pmulhuw, 8)                                                                            \
    X(0xe5, pmulhw, 8)                                                                             \
    X(0xe8, psubsb, 8)                                                                             \
    X(0xe9, psubsw, 8)                                                                             \
    X(0xea, pminsw, 8)                                                                             \
    X(0xeb, por, 8)                                                                                \
    X(0xec, paddsb, 8)                                                                             \
    X(0xed, paddsw, 8)                                                                             \
    X(0xee, pmaxsw, 8)                                                                             \
    X(0xef, pxor, 8)                                                                               \
    X(0xf1, psllw, 8)                                                                              \
    X(0xf2, pslld, 8)                                                                              \
    X(0xf3, psllq, 8)                                                                              \
    X(0xf4, pmuludq, 8)                                                                            \
    X(0xf5, pmaddwd, 8)                                                                            \
    X(0xf6, psadbw, 8)                                                                             \
    X(0xf8, psubb, 8)                                                                              \
    X(0xf9, psubw, 8)                                                                              \
    X(0xfa, psubd, 8)                                                                              \
    X(0xfb, psubq, 8)                                                                              \
    X(0xfc, paddb, 8)                                                                              \
    X(0xfd, paddw, 8)                                                                              \
    X(0xfe, paddd, 8)

#define DEFINE(opcode, name, bytes) SSE_MMX_RUN(name, #name, bytes)
ARITHMETIC(DEFINE)
#undef DEFINE

/* --- Shifts by an immediate: by ModRM.reg, as with the count in a register --- */

static bool shift(struct soft_cpu *cpu, const struct soft_op *op, sse_stub *stub)
{
    uint64_t count = op->aux & SSE_AUX_IMM, value;

    if (!check_pending(cpu))
        return false;
    enter(cpu);
    value = get(cpu, op->c);
    stub(&value, &count);
    set(cpu, op->c, value);
    return true;
}

HELPER(shift_group_w)
{
    static sse_stub *const stubs[8] = {[2] = psrlw_stub, [4] = psraw_stub, [6] = psllw_stub};

    return shift(cpu, op, stubs[op->a & 7]);
}

HELPER(shift_group_d)
{
    static sse_stub *const stubs[8] = {[2] = psrld_stub, [4] = psrad_stub, [6] = pslld_stub};

    return shift(cpu, op, stubs[op->a & 7]);
}

HELPER(shift_group_q)
{
    static sse_stub *const stubs[8] = {[2] = psrlq_stub, [6] = psllq_stub};

    return shift(cpu, op, stubs[op->a & 7]);
}

/* --- Moves --- */

HELPER(movd_from_general)
{
    if (!check_pending(cpu))
        return false;
    enter(cpu);
    set(cpu, op->a, op->aux & SSE_AUX_W ? cpu->r[op->c] : (uint32_t)cpu->r[op->c]);
    return true;
}

HELPER(movd_load)
{
    uint64_t operand;

    if (!begin(cpu, op, op->aux & SSE_AUX_W ? 8 : 4, &operand))
        return false;
    set(cpu, op->a, operand);
    return true;
}

HELPER(movd_to_general)
{
    if (!check_pending(cpu))
        return false;
    enter(cpu);
    cpu->r[op->c] = op->aux & SSE_AUX_W ? get(cpu, op->a) : (uint32_t)get(cpu, op->a);
    return true;
}

static bool store(struct soft_cpu *cpu, const struct soft_op *op, unsigned size)
{
    uint64_t value;

    if (!check_pending(cpu))
        return false;
    /* MMn is slot n only once the top is 0; a store that faults leaves the top alone. */
    value = get(cpu, op->a - FSW_TOP(fpu_word(cpu, FX_FSW)));
    if (!soft_store(cpu, soft_ea(cpu, op), &value, size))
        return false;
    enter(cpu);
    return true;
}

HELPER(movd_store)
{
    return store(cpu, op, op->aux & SSE_AUX_W ? 8 : 4);
}

HELPER(movq_store)
{
    return store(cpu, op, 8);
}

static bool movq(struct soft_cpu *cpu, const struct soft_op *op, unsigned size)
{
    uint64_t operand;

    if (!begin(cpu, op, size, &operand))
        return false;
    set(cpu, op->a, operand);
    return true;
}

HELPER(movq_reg)
{
    return movq(cpu, op, 0);
}

HELPER(movq_mem)
{
    return movq(cpu, op, 8);
}

HELPER(movq_back)
{
    if (!check_pending(cpu))
        return false;
    enter(cpu);
    set(cpu, op->c, get(cpu, op->a));
    return true;
}

HELPER(maskmovq)
{
    uint64_t address = soft_ea(cpu, op), mask, value;
    unsigned top;

    if (!check_pending(cpu))
        return false;
    top = FSW_TOP(fpu_word(cpu, FX_FSW));
    mask = get(cpu, op->c - top);
    value = get(cpu, op->a - top);
    if (!soft_probe_write(cpu, address, 8))
        return false;
    for (unsigned i = 0; i < 8; i++)
        if (mask >> (8 * i) & 0x80 && !soft_store(cpu, address + i, (uint8_t *)&value + i, 1))
            return false;
    enter(cpu);
    return true;
}

/* --- Shuffles, inserts, extracts --- */

static bool pshufw(struct soft_cpu *cpu, const struct soft_op *op, unsigned size)
{
    uint64_t operand, result = 0;

    if (!begin(cpu, op, size, &operand))
        return false;
    for (unsigned i = 0; i < 4; i++)
        result |= (operand >> (16 * (op->aux >> (2 * i) & 3)) & 0xffff) << (16 * i);
    set(cpu, op->a, result);
    return true;
}

HELPER(pshufw_reg)
{
    return pshufw(cpu, op, 0);
}

HELPER(pshufw_mem)
{
    return pshufw(cpu, op, 8);
}

static void insert_word(struct soft_cpu *cpu, const struct soft_op *op, uint16_t word)
{
    unsigned shift_bits = 16 * (op->aux & 3);

    enter(cpu);
    set(cpu, op->a,
        (get(cpu, op->a) & ~(UINT64_C(0xffff) << shift_bits)) | (uint64_t)word << shift_bits);
}

HELPER(pinsrw)
{
    if (!check_pending(cpu))
        return false;
    insert_word(cpu, op, (uint16_t)cpu->r[op->c]);
    return true;
}

HELPER(pinsrw_load)
{
    uint16_t word;

    if (!check_pending(cpu) || !soft_load(cpu, soft_ea(cpu, op), &word, 2))
        return false;
    insert_word(cpu, op, word);
    return true;
}

HELPER(pextrw)
{
    if (!check_pending(cpu))
        return false;
    enter(cpu);
    cpu->r[op->a] = get(cpu, op->c) >> (16 * (op->aux & 3)) & 0xffff;
    return true;
}

HELPER(pmovmskb)
{
    uint64_t value;

    if (!check_pending(cpu))
        return false;
    enter(cpu);
    value = get(cpu, op->c);
    cpu->r[op->a] = (uint32_t)_mm_movemask_epi8(_mm_cvtsi64_si128((long long)value));
    return true;
}

/* --- Between MMX and XMM --- */

HELPER(movdq2q)
{
    if (!check_pending(cpu))
        return false;
    enter(cpu);
    set(cpu, op->a, load_le64(cpu->ymm[op->c]));
    return true;
}

HELPER(movq2dq)
{
    if (!check_pending(cpu))
        return false;
    enter(cpu);
    *sse_xmm(cpu, op->a) = _mm_cvtsi64_si128((long long)get(cpu, op->c));
    return true;
}

/* To XMM: the operand is an MMX register or 8 bytes of memory. */
#define TO_XMM(name)                                                                               \
    static void name##_stub(void *to, const void *from)                                            \
    {                                                                                              \
        __m128i value = *(const __m128i *)to;                                                      \
        __asm__ volatile(#name " %1, %0\n\temms"                                                   \
                         : "+x"(value)                                                             \
                         : "m"(*(const uint64_t *)from)                                            \
                         : "st");                                                                  \
        *(__m128i *)to = value;                                                                    \
    }                                                                                              \
    HELPER(name##_reg)                                                                             \
    {                                                                                              \
        uint64_t operand;                                                                          \
        return begin(cpu, op, 0, &operand) && sse_compute_xmm(cpu, op, name##_stub, &operand);     \
    }

TO_XMM(cvtpi2ps)
TO_XMM(cvtpi2pd)

/* With an operand in memory these two leave the x87 state alone. */
#define TO_XMM_MEM(name)                                                                           \
    HELPER(name##_mem)                                                                             \
    {                                                                                              \
        uint64_t operand;                                                                          \
        fpu_unload(cpu);                                                                           \
        return soft_load(cpu, soft_ea(cpu, op), &operand, 8) &&                                    \
               sse_compute_xmm(cpu, op, name##_stub, &operand);                                    \
    }

TO_XMM_MEM(cvtpi2ps)
TO_XMM_MEM(cvtpi2pd)

static bool to_mmx(struct soft_cpu *cpu, const struct soft_op *op, sse_stub *stub, unsigned size)
{
    __m128i operand = *sse_xmm(cpu, op->c), work = _mm_setzero_si128();

    if (!check_pending(cpu) || (size && !sse_load(cpu, op, &operand, size)))
        return false;
    if (!sse_compute(cpu, stub, &work, &operand))
        return false;
    enter(cpu);
    set(cpu, op->a, (uint64_t)_mm_cvtsi128_si64(work));
    return true;
}

#define TO_MMX(name, bytes)                                                                        \
    static void name##_stub(void *to, const void *from)                                            \
    {                                                                                              \
        __asm__ volatile(#name " %1, %%mm0\n\tmovq %%mm0, %0\n\temms"                              \
                         : "=m"(*(uint64_t *)to)                                                   \
                         : "m"(*(const __m128i *)from)                                             \
                         : "mm0", "st");                                                           \
    }                                                                                              \
    HELPER(name##_reg)                                                                             \
    {                                                                                              \
        return to_mmx(cpu, op, name##_stub, 0);                                                    \
    }                                                                                              \
    HELPER(name##_mem)                                                                             \
    {                                                                                              \
        return to_mmx(cpu, op, name##_stub, bytes);                                                \
    }

TO_MMX(cvtps2pi, 8)
TO_MMX(cvttps2pi, 8)
TO_MMX(cvtpd2pi, 16)
TO_MMX(cvttpd2pi, 16)

/* --- The table --- */

#define PLAIN (SSE_MMX | SSE_NO_OSFXSR)
#define ENTRY(opcode, name, bytes)                                                                 \
    [opcode] = {.reg = name##_reg, .mem = name##_mem, .size = bytes, .flags = PLAIN},

const struct sse_form mmx_forms[SSE_PREFIXES][256] =
    {
        [SSE_NONE] =
            {
                ARITHMETIC(ENTRY)[0x2a] = {cvtpi2ps_reg, cvtpi2ps_mem, 8, SSE_MMX, 0},
                [0x2c] = {cvttps2pi_reg, cvttps2pi_mem, 8, SSE_MMX, 0},
                [0x2d] = {cvtps2pi_reg, cvtps2pi_mem, 8, SSE_MMX, 0},
                [0x6e] = {movd_from_general, movd_load, 4, PLAIN | SSE_WIDE_MEM, 0},
                [0x6f] = {movq_reg, movq_mem, 8, PLAIN, 0},
                [0x70] = {pshufw_reg, pshufw_mem, 8, PLAIN | SSE_IMM8, 0},
                [0x71] = {shift_group_w, NULL, 0, PLAIN | SSE_IMM8 | SSE_SHIFT_GROUP, 0},
                [0x72] = {shift_group_d, NULL, 0, PLAIN | SSE_IMM8 | SSE_SHIFT_GROUP, 0},
                [0x73] = {shift_group_q, NULL, 0, PLAIN | SSE_IMM8 | SSE_SHIFT_GROUP, 0},
                [0x7e] = {movd_to_general, movd_store, 4, PLAIN | SSE_WIDE_MEM | SSE_STORES, 0},
                [0x7f] = {movq_back, movq_store, 8, PLAIN | SSE_STORES, 0},
                [0xc4] = {pinsrw, pinsrw_load, 2, PLAIN | SSE_IMM8, 0},
                [0xc5] = {pextrw, NULL, 0, PLAIN | SSE_IMM8, 0},
                [0xd7] = {pmovmskb, NULL, 0, PLAIN, 0},
                [0xe7] = {NULL, movq_store, 8, PLAIN | SSE_STORES, 0},
                [0xf7] = {maskmovq, NULL, 8, PLAIN | SSE_STORES | SSE_AT_RDI, 0},
            },
        [SSE_66] =
            {
                [0x2a] = {cvtpi2pd_reg, cvtpi2pd_mem, 8, SSE_MMX, 0},
                [0x2c] = {cvttpd2pi_reg, cvttpd2pi_mem, 16, SSE_MMX, 0},
                [0x2d] = {cvtpd2pi_reg, cvtpd2pi_mem, 16, SSE_MMX, 0},
            },
        [SSE_F3] = {[0xd6] = {movq2dq, NULL, 0, SSE_MMX, 0}},
        [SSE_F2] = {[0xd6] = {movdq2q, NULL, 0, SSE_MMX, 0}},
};
