/* SPDX-License-Identifier: MIT */
/*
 * sse_float: SSE, SSE2 and SSE3 arithmetic on floating point numbers: what depends on MXCSR and may
 * raise #XM.
 *
 * Theory of operation. Each stub is one instruction of the host, run with the guest's rounding mode
 * (fpu.h keeps MXCSR live) and all exceptions masked. If the guest masks them all too, that is all.
 * Otherwise the flags it would have raised are looked at first, and the result is thrown away if
 * one of them is unmasked. (With an overflow or underflow that traps, whether the result would also
 * have been inexact with a wider exponent is not known this way: it is taken to be.)
 */
#include "vmm/soft/sse.h"

#include <xmmintrin.h>

#define FLAG_INVALID    0x01u
#define FLAG_DENORMAL   0x02u
#define FLAG_DIVIDE     0x04u
#define FLAG_UNDERFLOW  0x10u
#define FLAGS_BEFORE    (FLAG_INVALID | FLAG_DENORMAL | FLAG_DIVIDE) /* found in the operands */
#define MASK_UNDERFLOW  0x800u
#define UNMASKED(mxcsr) (~(mxcsr) >> 7 & MXCSR_FLAGS)

static uint32_t flags_of(sse_stub *stub, void *work, const void *from, uint32_t control)
{
    _mm_setcsr(control);
    stub(work, from);
    return _mm_getcsr() & MXCSR_FLAGS;
}

bool sse_compute_trapping(struct soft_cpu *cpu, sse_stub *stub, void *work, unsigned size,
                          const void *from)
{
    uint32_t before = _mm_getcsr();
    uint32_t control = before & ~MXCSR_FLAGS;
    uint32_t unmasked = UNMASKED(cpu->mxcsr);
    uint32_t flags;
    uint8_t result[SSE_WORK_MAX] __attribute__((aligned(SSE_WORK_MAX)));

    memcpy(result, work, size);
    if (!(cpu->mxcsr & MASK_UNDERFLOW)) {
        /* Unmasked, underflow counts for exact results too: flushing to zero shows them. */
        uint8_t flushed[SSE_WORK_MAX] __attribute__((aligned(SSE_WORK_MAX)));

        memcpy(flushed, work, size);
        control &= ~MXCSR_FTZ;
        flags = flags_of(stub, flushed, from, control | MXCSR_FTZ) & FLAG_UNDERFLOW;
        flags |= flags_of(stub, result, from, control);
    } else {
        flags = flags_of(stub, result, from, control);
    }
    if (flags & unmasked & FLAGS_BEFORE)
        flags &= FLAGS_BEFORE;
    _mm_setcsr(before | flags);
    if (flags & unmasked)
        return soft_raise(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? SOFT_XM : SOFT_UD, 0);
    memcpy(work, result, size);
    return true;
}

/* The same opcodes in all four widths, which the prefix tells apart. */
#define WIDTH(X, suffix, bytes)                                                                    \
    X(0x51, sqrt##suffix, bytes)                                                                   \
    X(0x58, add##suffix, bytes)                                                                    \
    X(0x59, mul##suffix, bytes)                                                                    \
    X(0x5c, sub##suffix, bytes)                                                                    \
    X(0x5d, min##suffix, bytes)                                                                    \
    X(0x5e, div##suffix, bytes)                                                                    \
    X(0x5f, max##suffix, bytes)
/* And in two. */
#define PACKED(X, suffix)                                                                          \
    X(0x7c, hadd##suffix, 16)                                                                      \
    X(0x7d, hsub##suffix, 16)                                                                      \
    X(0xd0, addsub##suffix, 16)

#define FLOAT(name, bytes)                                                                         \
    SSE_STUB(name, #name)                                                                          \
    SSE_FLOAT_REG_RUN(name)                                                                        \
    SSE_FLOAT_MEM_RUN(name, bytes)
#define DEFINE(opcode, name, bytes) FLOAT(name, bytes)

WIDTH(DEFINE, ps, 16)
WIDTH(DEFINE, pd, 16)
WIDTH(DEFINE, ss, 4)
WIDTH(DEFINE, sd, 8)
PACKED(DEFINE, ps)
PACKED(DEFINE, pd)
FLOAT(rsqrtps, 16)
FLOAT(rsqrtss, 4)
FLOAT(rcpps, 16)
FLOAT(rcpss, 4)
FLOAT(cvtps2pd, 8)
FLOAT(cvtpd2ps, 16)
FLOAT(cvtss2sd, 4)
FLOAT(cvtsd2ss, 8)
FLOAT(cvtdq2ps, 16)
FLOAT(cvtps2dq, 16)
FLOAT(cvttps2dq, 16)
FLOAT(cvtdq2pd, 8)
FLOAT(cvtpd2dq, 16)
FLOAT(cvttpd2dq, 16)

/* name_run() on an XMM register, and on memory. */
#define EITHER_OPERAND(name, bytes)                                                                \
    static bool name##_reg(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        return name##_run(cpu, op, sse_xmm(cpu, op->c));                                           \
    }                                                                                              \
    static bool name##_mem(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        __m128i operand = _mm_setzero_si128();                                                     \
        return sse_load(cpu, op, &operand, bytes) && name##_run(cpu, op, &operand);                \
    }

/* --- Compare with a predicate: one stub for each of the eight --- */

#define PREDICATE(name, n) SSE_STUB(name##_##n, #name " $" #n ",")
#define COMPARE(name, bytes)                                                                       \
    PREDICATE(name, 0)                                                                             \
    PREDICATE(name, 1)                                                                             \
    PREDICATE(name, 2)                                                                             \
    PREDICATE(name, 3)                                                                             \
    PREDICATE(name, 4)                                                                             \
    PREDICATE(name, 5)                                                                             \
    PREDICATE(name, 6)                                                                             \
    PREDICATE(name, 7)                                                                             \
    static sse_stub *const name##_stubs[8] = {                                                     \
        name##_0_stub, name##_1_stub, name##_2_stub, name##_3_stub,                                \
        name##_4_stub, name##_5_stub, name##_6_stub, name##_7_stub,                                \
    };                                                                                             \
    static bool name##_run(struct soft_cpu *cpu, const struct soft_op *op, const void *from)       \
    {                                                                                              \
        return sse_compute_xmm(cpu, op, name##_stubs[op->aux & 7], from);                          \
    }                                                                                              \
    EITHER_OPERAND(name, bytes)

COMPARE(cmpps, 16)
COMPARE(cmppd, 16)
COMPARE(cmpss, 4)
COMPARE(cmpsd, 8)

/* --- Compare into the flags --- */

#define COMPARE_FLAGS(name, bytes)                                                                 \
    static inline void name##_stub(void *to, const void *from)                                     \
    {                                                                                              \
        __m128i value = *(const __m128i *)to;                                                      \
        uint32_t flags;                                                                            \
        __asm__ volatile(#name " %2, %1\n\tlahf\n\tseto %%al"                                      \
                         : "=&a"(flags)                                                            \
                         : "x"(value), "m"(*(const __m128i *)from)                                 \
                         : "cc");                                                                  \
        *(__m128i *)to = _mm_cvtsi32_si128((int)(flags & 0xffff));                                 \
    }                                                                                              \
    static bool name##_run(struct soft_cpu *cpu, const struct soft_op *op, const void *from)       \
    {                                                                                              \
        __m128i work = *sse_xmm(cpu, op->a);                                                       \
        if (!sse_compute(cpu, name##_stub, &work, from))                                           \
            return false;                                                                          \
        cpu->flags = (uint32_t)_mm_cvtsi128_si32(work);                                            \
        return true;                                                                               \
    }                                                                                              \
    EITHER_OPERAND(name, bytes)

COMPARE_FLAGS(ucomiss, 4)
COMPARE_FLAGS(ucomisd, 8)
COMPARE_FLAGS(comiss, 4)
COMPARE_FLAGS(comisd, 8)

/* --- To and from general registers --- */

#define FROM_GENERAL(name)                                                                         \
    static inline void name##l_stub(void *to, const void *from)                                    \
    {                                                                                              \
        __m128i value = *(const __m128i *)to;                                                      \
        __asm__ volatile(#name "l %1, %0" : "+x"(value) : "m"(*(const uint32_t *)from));           \
        *(__m128i *)to = value;                                                                    \
    }                                                                                              \
    static inline void name##q_stub(void *to, const void *from)                                    \
    {                                                                                              \
        __m128i value = *(const __m128i *)to;                                                      \
        __asm__ volatile(#name "q %1, %0" : "+x"(value) : "m"(*(const uint64_t *)from));           \
        *(__m128i *)to = value;                                                                    \
    }                                                                                              \
    static bool name##_run(struct soft_cpu *cpu, const struct soft_op *op, uint64_t value)         \
    {                                                                                              \
        return op->aux & SSE_AUX_W ? sse_compute_xmm(cpu, op, name##q_stub, &value)                \
                                   : sse_compute_xmm(cpu, op, name##l_stub, &value);               \
    }                                                                                              \
    static bool name##_reg(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        return name##_run(cpu, op, cpu->r[op->c]);                                                 \
    }                                                                                              \
    static bool name##_mem(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        uint64_t value = 0;                                                                        \
        return sse_load(cpu, op, &value, op->aux & SSE_AUX_W ? 8 : 4) &&                           \
               name##_run(cpu, op, value);                                                         \
    }

FROM_GENERAL(cvtsi2ss)
FROM_GENERAL(cvtsi2sd)

#define TO_GENERAL(name, bytes)                                                                    \
    static inline void name##l_stub(void *to, const void *from)                                    \
    {                                                                                              \
        uint32_t value;                                                                            \
        __asm__ volatile(#name " %1, %0" : "=r"(value) : "m"(*(const uint64_t *)from));            \
        *(__m128i *)to = _mm_cvtsi32_si128((int)value);                                            \
    }                                                                                              \
    static inline void name##q_stub(void *to, const void *from)                                    \
    {                                                                                              \
        uint64_t value;                                                                            \
        __asm__ volatile(#name " %1, %0" : "=r"(value) : "m"(*(const uint64_t *)from));            \
        *(__m128i *)to = _mm_cvtsi64_si128((long long)value);                                      \
    }                                                                                              \
    static bool name##_run(struct soft_cpu *cpu, const struct soft_op *op, const void *from)       \
    {                                                                                              \
        __m128i work;                                                                              \
        if (!sse_compute(cpu, op->aux & SSE_AUX_W ? name##q_stub : name##l_stub, &work, from))     \
            return false;                                                                          \
        cpu->r[op->a] = (uint64_t)_mm_cvtsi128_si64(work);                                         \
        return true;                                                                               \
    }                                                                                              \
    EITHER_OPERAND(name, bytes)

TO_GENERAL(cvtss2si, 4)
TO_GENERAL(cvtsd2si, 8)
TO_GENERAL(cvttss2si, 4)
TO_GENERAL(cvttsd2si, 8)

/* --- The table --- */

#define ENTRY(opcode, name, bytes)      [opcode] = FORM(name, bytes),
#define ENTRY_SSE3(opcode, name, bytes) [opcode] = FORM(name, bytes, .feature = SSE_FEATURE_SSE3),
#define FORM(name, bytes, ...)                                                                     \
    {                                                                                              \
        .reg = name##_reg, .mem = name##_mem, .size = bytes, __VA_ARGS__                           \
    }

const struct sse_form sse_float_forms[SSE_PREFIXES][256] = {
    [SSE_NONE] = {[0x2e] = FORM(ucomiss, 4, .flags = SSE_FLAGS),
                  [0x2f] = FORM(comiss, 4, .flags = SSE_FLAGS),
                  [0x52] = FORM(rsqrtps, 16),
                  [0x53] = FORM(rcpps, 16),
                  [0x5a] = FORM(cvtps2pd, 8),
                  [0x5b] = FORM(cvtdq2ps, 16),
                  [0xc2] = FORM(cmpps, 16, .flags = SSE_IMM8),
                  WIDTH(ENTRY, ps, 16)},
    [SSE_66] = {[0x2e] = FORM(ucomisd, 8, .flags = SSE_FLAGS),
                [0x2f] = FORM(comisd, 8, .flags = SSE_FLAGS),
                [0x5a] = FORM(cvtpd2ps, 16),
                [0x5b] = FORM(cvtps2dq, 16),
                [0xc2] = FORM(cmppd, 16, .flags = SSE_IMM8),
                [0xe6] = FORM(cvttpd2dq, 16),
                WIDTH(ENTRY, pd, 16) PACKED(ENTRY_SSE3, pd)},
    [SSE_F3] = {[0x2a] = FORM(cvtsi2ss, 4, .flags = SSE_WIDE_MEM),
                [0x2c] = FORM(cvttss2si, 4),
                [0x2d] = FORM(cvtss2si, 4),
                [0x52] = FORM(rsqrtss, 4),
                [0x53] = FORM(rcpss, 4),
                [0x5a] = FORM(cvtss2sd, 4),
                [0x5b] = FORM(cvttps2dq, 16),
                [0xc2] = FORM(cmpss, 4, .flags = SSE_IMM8),
                [0xe6] = FORM(cvtdq2pd, 8),
                WIDTH(ENTRY, ss, 4)},
    [SSE_F2] = {[0x2a] = FORM(cvtsi2sd, 4, .flags = SSE_WIDE_MEM),
                [0x2c] = FORM(cvttsd2si, 8),
                [0x2d] = FORM(cvtsd2si, 8),
                [0x5a] = FORM(cvtsd2ss, 8),
                [0xc2] = FORM(cmpsd, 8, .flags = SSE_IMM8),
                [0xe6] = FORM(cvtpd2dq, 16),
                WIDTH(ENTRY, sd, 8) PACKED(ENTRY_SSE3, ps)},
};
