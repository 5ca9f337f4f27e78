/* SPDX-License-Identifier: MIT */
/*
 * sse: what the rooms of the SSE and MMX instructions share. Each room lists its instructions in a
 * table of forms by prefix and opcode; sse_decode.c looks them up.
 *
 * Operands of an op: `a` is ModRM.reg, `c` ModRM.rm of a register form, `aux` the immediate byte
 * and SSE_AUX_W. Where `a` or `c` mean a general register, they are its number.
 */
#ifndef VMM_SOFT_SSE_H
#define VMM_SOFT_SSE_H

#include <emmintrin.h>

#include "vmm/soft/fpu.h"
#include "vmm/soft/mem.h"
#include "vmm/soft/op.h"

#define SSE_AUX_IMM 0xffu
#define SSE_AUX_W   0x100u /* REX.W */

enum sse_prefix { SSE_NONE, SSE_66, SSE_F3, SSE_F2, SSE_PREFIXES };

enum sse_form_flag {
    SSE_IMM8 = 1 << 0,
    SSE_STORES = 1 << 1,      /* the memory operand is written, not read */
    SSE_MMX = 1 << 2,         /* touches MMX registers: #MF if an x87 exception is pending */
    SSE_FLAGS = 1 << 3,       /* sets or reads the arithmetic flags */
    SSE_WIDE_MEM = 1 << 4,    /* with REX.W the memory operand is 8 bytes instead of 4 */
    SSE_NO_OSFXSR = 1 << 5,   /* does not need CR4.OSFXSR (MMX and its extensions) */
    SSE_SHIFT_GROUP = 1 << 7, /* ModRM.reg says which */
    SSE_AT_RDI = 1 << 6,      /* the memory operand is at DS:rDI (or the segment override) */
};

/* Which bit of CPUID leaf 1, ECX a form needs, plus one; from 33 on of leaf 7, EBX. */
enum sse_feature {
    SSE_ALWAYS = 0,
    SSE_FEATURE_SSE3 = 1 + 0,
    SSE_FEATURE_PCLMUL = 1 + 1,
    SSE_FEATURE_SSSE3 = 1 + 9,
    SSE_FEATURE_SSE4_1 = 1 + 19,
    SSE_FEATURE_SSE4_2 = 1 + 20,
    SSE_FEATURE_AES = 1 + 25,
    SSE_FEATURE_SHA = 33 + 29,
};

/* One instruction; NULL where a form does not exist. */
struct sse_form {
    soft_helper *reg;
    soft_helper *mem;
    uint8_t size; /* of the memory operand in bytes */
    uint8_t flags;
    uint8_t feature; /* enum sse_feature */
};

extern const struct sse_form sse_float_forms[SSE_PREFIXES][256];
extern const struct sse_form sse_integer_forms[SSE_PREFIXES][256];
extern const struct sse_form sse_move_forms[SSE_PREFIXES][256];
extern const struct sse_form mmx_forms[SSE_PREFIXES][256];
/* 0F 38 and 0F 3A. */
extern const struct sse_form sse4_forms_38[SSE_PREFIXES][256];
extern const struct sse_form sse4_forms_3a[SSE_PREFIXES][256];

soft_helper mmx_run_emms;

/*
 * For VEX: emits the SSE instruction that this map, prefix (enum sse_prefix) and opcode name, with
 * ModRM read. False where it has no such form.
 */
struct soft_decoder;
bool sse_emit_borrowed(struct soft_decoder *d, unsigned map, unsigned pp, uint8_t opcode);

/* An instruction's work: `to` is its first operand before and after, 16 bytes. */
typedef void sse_stub(void *to, const void *from);

static inline __m128i *sse_xmm(struct soft_cpu *cpu, unsigned n)
{
    return (__m128i *)(void *)cpu->ymm[n];
}

/* A memory operand of 16 bytes must be aligned; false after #GP or a fault. */
static inline bool sse_load(struct soft_cpu *cpu, const struct soft_op *op, void *to, unsigned size)
{
    uint64_t address = soft_ea(cpu, op);

    if (size == 16 && unlikely(address & 15))
        return soft_raise(cpu, SOFT_GP, 0);
    return soft_load(cpu, address, to, size);
}

/*
 * Runs a floating point stub. Where the guest wants to see SIMD exceptions, their flags decide
 * whether the `size` bytes at `work`, at most SSE_WORK_MAX, stay as they were and #XM is raised
 * (false).
 */
#define SSE_WORK_MAX 32
bool sse_compute_trapping(struct soft_cpu *cpu, sse_stub *stub, void *work, unsigned size,
                          const void *from);

static inline __attribute__((always_inline)) bool sse_compute(struct soft_cpu *cpu, sse_stub *stub,
                                                              __m128i *work, const void *from)
{
    if (unlikely(fpu_has_unmasked(cpu)))
        return sse_compute_trapping(cpu, stub, work, sizeof(*work), from);
    stub(work, from);
    return true;
}

static inline __attribute__((always_inline)) bool
sse_compute_xmm(struct soft_cpu *cpu, const struct soft_op *op, sse_stub *stub, const void *from)
{
    __m128i work = *sse_xmm(cpu, op->a);

    if (!sse_compute(cpu, stub, &work, from))
        return false;
    *sse_xmm(cpu, op->a) = work;
    return true;
}

/* The helpers of both forms: integer instructions, which raise nothing... */
#define SSE_REG_RUN(name)                                                                          \
    static bool name##_reg(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        name##_stub(sse_xmm(cpu, op->a), sse_xmm(cpu, op->c));                                     \
        return true;                                                                               \
    }
#define SSE_MEM_RUN(name, bytes)                                                                   \
    static bool name##_mem(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        __m128i operand = _mm_setzero_si128();                                                     \
        if (!sse_load(cpu, op, &operand, bytes))                                                   \
            return false;                                                                          \
        name##_stub(sse_xmm(cpu, op->a), &operand);                                                \
        return true;                                                                               \
    }

/* ... and floating point ones. */
#define SSE_FLOAT_REG_RUN(name)                                                                    \
    static bool name##_reg(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        return sse_compute_xmm(cpu, op, name##_stub, sse_xmm(cpu, op->c));                         \
    }
#define SSE_FLOAT_MEM_RUN(name, bytes)                                                             \
    static bool name##_mem(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        __m128i operand = _mm_setzero_si128();                                                     \
        return sse_load(cpu, op, &operand, bytes) &&                                               \
               sse_compute_xmm(cpu, op, name##_stub, &operand);                                    \
    }

/* The host's own instruction of this name, on the guest's operands. */
#define SSE_STUB(name, mnemonic)                                                                   \
    static inline void name##_stub(void *to, const void *from)                                     \
    {                                                                                              \
        __m128i value = *(const __m128i *)to;                                                      \
        __asm__ volatile(mnemonic " %1, %0" : "+x"(value) : "m"(*(const __m128i *)from));          \
        *(__m128i *)to = value;                                                                    \
    }

/* The same on MMX registers; `size` 0 stands for the register form. */
bool mmx_compute(struct soft_cpu *cpu, const struct soft_op *op, sse_stub *stub, unsigned size);

#define SSE_MMX_RUN(name, mnemonic, bytes)                                                         \
    static void name##_stub(void *to, const void *from)                                            \
    {                                                                                              \
        __asm__ volatile("movq %0, %%mm0\n\t" mnemonic " %1, %%mm0\n\tmovq %%mm0, %0\n\temms"      \
                         : "+m"(*(uint64_t *)to)                                                   \
                         : "m"(*(const uint64_t *)from)                                            \
                         : "mm0", "st");                                                           \
    }                                                                                              \
    static bool name##_reg(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        return mmx_compute(cpu, op, name##_stub, 0);                                               \
    }                                                                                              \
    static bool name##_mem(struct soft_cpu *cpu, const struct soft_op *op)                         \
    {                                                                                              \
        return mmx_compute(cpu, op, name##_stub, bytes);                                           \
    }

#endif
