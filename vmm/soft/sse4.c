/* SPDX-License-Identifier: MIT */
/* sse4: SSSE3, SSE4.1 and SSE4.2: the opcode maps 0F 38 and 0F 3A. */
#include "vmm/soft/sse_immediate.h"

#define HELPER(name) static bool name(struct soft_cpu *cpu, const struct soft_op *op)

/* --- Two operands, nothing else --- */

#define INTEGER(name)                                                                              \
    SSE_STUB(name, #name)                                                                          \
    SSE_REG_RUN(name)                                                                              \
    SSE_MEM_RUN(name, 16)

/* Those that SSSE3 has for MMX registers as well. */
#define SSSE3(X)                                                                                   \
    X(0x00, pshufb)                                                                                \
    X(0x01, phaddw)                                                                                \
    X(0x02, phaddd)                                                                                \
    X(0x03, phaddsw)                                                                               \
    X(0x04, pmaddubsw)                                                                             \
    X(0x05, phsubw)                                                                                \
    X(0x06, phsubd)                                                                                \
    X(0x07, phsubsw)                                                                               \
    X(0x08, psignb)                                                                                \
    X(0x09, psignw)                                                                                \
    X(0x0a, psignd)                                                                                \
    X(0x0b, pmulhrsw)                                                                              \
    X(0x1c, pabsb)                                                                                 \
    X(0x1d, pabsw)                                                                                 \
    X(0x1e, pabsd)
#define SSE41(X)                                                                                   \
    X(0x28, pmuldq)                                                                                \
    X(0x29, pcmpeqq)                                                                               \
    X(0x2b, packusdw)                                                                              \
    X(0x38, pminsb)                                                                                \
    X(0x39, pminsd)                                                                                \
    X(0x3a, pminuw)                                                                                \
    X(0x3b, pminud)                                                                                \
    X(0x3c, pmaxsb)                                                                                \
    X(0x3d, pmaxsd)                                                                                \
    X(0x3e, pmaxuw)                                                                                \
    X(0x3f, pmaxud)                                                                                \
    X(0x40, pmulld)                                                                                \
    X(0x41, phminposuw)
/* Widening moves: the operand is shorter and need not be aligned. */
#define WIDEN(X)                                                                                   \
    X(0x20, pmovsxbw, 8)                                                                           \
    X(0x21, pmovsxbd, 4)                                                                           \
    X(0x22, pmovsxbq, 2)                                                                           \
    X(0x23, pmovsxwd, 8)                                                                           \
    X(0x24, pmovsxwq, 4)                                                                           \
    X(0x25, pmovsxdq, 8)                                                                           \
    X(0x30, pmovzxbw, 8)                                                                           \
    X(0x31, pmovzxbd, 4)                                                                           \
    X(0x32, pmovzxbq, 2)                                                                           \
    X(0x33, pmovzxwd, 8)                                                                           \
    X(0x34, pmovzxwq, 4)                                                                           \
    X(0x35, pmovzxdq, 8)

#define DEFINE(opcode, name) INTEGER(name)
#define DEFINE_WIDEN(opcode, name, bytes)                                                          \
    SSE_STUB(name, #name)                                                                          \
    SSE_REG_RUN(name)                                                                              \
    SSE_MEM_RUN(name, bytes)
SSSE3(DEFINE)
SSE41(DEFINE)
INTEGER(pcmpgtq)
WIDEN(DEFINE_WIDEN)

#define DEFINE_MMX(opcode, name) SSE_MMX_RUN(mmx_##name, #name, 8)
SSSE3(DEFINE_MMX)

/* --- A mask in XMM0 --- */

#define BLEND(name)                                                                                \
    static bool name##_run(struct soft_cpu *cpu, const struct soft_op *op, const void *from)       \
    {                                                                                              \
        __m128i value = *sse_xmm(cpu, op->a);                                                      \
        __asm__(#name " %%xmm0, %1, %0"                                                            \
                : "+x"(value)                                                                      \
                : "m"(*(const __m128i *)from), "Yz"(*sse_xmm(cpu, 0)));                            \
        *sse_xmm(cpu, op->a) = value;                                                              \
        return true;                                                                               \
    }                                                                                              \
    HELPER(name##_reg)                                                                             \
    {                                                                                              \
        return name##_run(cpu, op, sse_xmm(cpu, op->c));                                           \
    }                                                                                              \
    HELPER(name##_mem)                                                                             \
    {                                                                                              \
        __m128i operand;                                                                           \
        return sse_load(cpu, op, &operand, 16) && name##_run(cpu, op, &operand);                   \
    }

BLEND(pblendvb)
BLEND(blendvps)
BLEND(blendvpd)

/* --- PTEST --- */

static bool ptest(struct soft_cpu *cpu, const struct soft_op *op, const __m128i *from)
{
    uint32_t flags;

    __asm__("ptest %2, %1\n\tlahf\n\tseto %%al"
            : "=&a"(flags)
            : "x"(*sse_xmm(cpu, op->a)), "m"(*from)
            : "cc");
    cpu->flags = flags & 0xffff;
    return true;
}

HELPER(ptest_reg)
{
    return ptest(cpu, op, sse_xmm(cpu, op->c));
}

HELPER(ptest_mem)
{
    __m128i operand;

    return sse_load(cpu, op, &operand, 16) && ptest(cpu, op, &operand);
}

HELPER(movntdqa)
{
    __m128i operand;

    if (!sse_load(cpu, op, &operand, 16))
        return false;
    *sse_xmm(cpu, op->a) = operand;
    return true;
}

/* --- An immediate --- */

#define FLOAT_IMMEDIATE(name, opcode, count, bytes)                                                \
    SSE_IMMEDIATE_STUBS(name, "0x66, ", opcode, count)                                                           \
    HELPER(name##_reg)                                                                             \
    {                                                                                              \
        return sse_compute_xmm(cpu, op, name##_stub(op), sse_xmm(cpu, op->c));                     \
    }                                                                                              \
    HELPER(name##_mem)                                                                             \
    {                                                                                              \
        __m128i operand = _mm_setzero_si128();                                                     \
        return sse_load(cpu, op, &operand, bytes) &&                                               \
               sse_compute_xmm(cpu, op, name##_stub(op), &operand);                                \
    }

FLOAT_IMMEDIATE(roundps, 0x08, 16, 16)
FLOAT_IMMEDIATE(roundpd, 0x09, 16, 16)
FLOAT_IMMEDIATE(roundss, 0x0a, 16, 4)
FLOAT_IMMEDIATE(roundsd, 0x0b, 16, 8)
FLOAT_IMMEDIATE(dpps, 0x40, 256, 16)
FLOAT_IMMEDIATE(dppd, 0x41, 256, 16)
SSE_INTEGER_IMMEDIATE(blendps, "0x66, ", 0x0c, 16)
SSE_INTEGER_IMMEDIATE(blendpd, "0x66, ", 0x0d, 4)
SSE_INTEGER_IMMEDIATE(pblendw, "0x66, ", 0x0e, 256)
SSE_INTEGER_IMMEDIATE(palignr, "0x66, ", 0x0f, 256)
SSE_INTEGER_IMMEDIATE(mpsadbw, "0x66, ", 0x42, 8)
SSE_IMMEDIATE_STUBS(insertps, "0x66, ", 0x21, 256)

/* The stub takes its operand from memory, where the immediate does not choose the element. */
HELPER(insertps_reg)
{
    __m128i operand = _mm_setzero_si128();

    memcpy(&operand, cpu->ymm[op->c] + 4 * (op->aux >> 6 & 3), 4);
    insertps_stub(op)(sse_xmm(cpu, op->a), &operand);
    return true;
}

HELPER(insertps_mem)
{
    __m128i operand = _mm_setzero_si128();

    if (!soft_load(cpu, soft_ea(cpu, op), &operand, 4))
        return false;
    insertps_stub(op)(sse_xmm(cpu, op->a), &operand);
    return true;
}

/* MMX: from 16 on nothing is left. */
#define MMX_ALIGN_STUB(n)                                                                          \
    static void mmx_palignr_##n(void *to, const void *from)                                        \
    {                                                                                              \
        __asm__ volatile("movq %0, %%mm0\n\tpalignr $" #n ", %1, %%mm0\n\tmovq %%mm0, %0\n\temms"  \
                         : "+m"(*(uint64_t *)to)                                                   \
                         : "m"(*(const uint64_t *)from)                                            \
                         : "mm0", "st");                                                           \
    }
#define MMX_ALIGN_COUNTS(X)                                                                        \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16)
#define MMX_ALIGN_NAME(n) mmx_palignr_##n,

MMX_ALIGN_COUNTS(MMX_ALIGN_STUB)

static sse_stub *mmx_palignr_stub(const struct soft_op *op)
{
    static sse_stub *const stubs[] = {MMX_ALIGN_COUNTS(MMX_ALIGN_NAME)};

    return stubs[MIN(op->aux & SSE_AUX_IMM, 16u)];
}

HELPER(mmx_palignr_reg)
{
    return mmx_compute(cpu, op, mmx_palignr_stub(op), 0);
}

HELPER(mmx_palignr_mem)
{
    return mmx_compute(cpu, op, mmx_palignr_stub(op), 8);
}

/* --- Elements to and from general registers --- */

static bool store_element(struct soft_cpu *cpu, const struct soft_op *op, unsigned size)
{
    unsigned index = op->aux & (16 / size - 1);

    return soft_store(cpu, soft_ea(cpu, op), cpu->ymm[op->a] + size * index, size);
}

static bool extract(struct soft_cpu *cpu, const struct soft_op *op, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, cpu->ymm[op->a] + size * (op->aux & (16 / size - 1)), size);
    cpu->r[op->c] = value;
    return true;
}

static bool load_element(struct soft_cpu *cpu, const struct soft_op *op, unsigned size)
{
    uint64_t value;

    if (!soft_load(cpu, soft_ea(cpu, op), &value, size))
        return false;
    memcpy(cpu->ymm[op->a] + size * (op->aux & (16 / size - 1)), &value, size);
    return true;
}

static bool insert(struct soft_cpu *cpu, const struct soft_op *op, unsigned size)
{
    memcpy(cpu->ymm[op->a] + size * (op->aux & (16 / size - 1)), &cpu->r[op->c], size);
    return true;
}

static unsigned wide(const struct soft_op *op)
{
    return op->aux & SSE_AUX_W ? 8 : 4;
}

#define ELEMENT(name, to_mem, to_reg, size)                                                        \
    HELPER(name##_mem)                                                                             \
    {                                                                                              \
        return to_mem(cpu, op, size);                                                              \
    }                                                                                              \
    HELPER(name##_reg)                                                                             \
    {                                                                                              \
        return to_reg(cpu, op, size);                                                              \
    }

ELEMENT(pextrb, store_element, extract, 1)
ELEMENT(pextrw, store_element, extract, 2)
ELEMENT(pextrd, store_element, extract, wide(op))
ELEMENT(extractps, store_element, extract, 4)
ELEMENT(pinsrb, load_element, insert, 1)
ELEMENT(pinsrd, load_element, insert, wide(op))

/* --- Strings --- */

struct string_result {
    uint64_t flags; /* as LAHF and SETO leave them */
    uint64_t index; /* ECX */
};

typedef struct string_result string_stub(void *to, const void *from, uint64_t rdx, uint64_t rax);

/* First operand at RDI, second at RSI, lengths in RDX and, moved from RCX, RAX; XMM0 to RDI. */
#define STRING_STUBS(name, prefix, opcode)                                                         \
    extern const char name##_stubs[] __attribute__((visibility("hidden")));                        \
    __asm__(".pushsection .text\n"                                                                 \
            ".balign 32\n"                                                                         \
            ".hidden " #name "_stubs\n"                                                            \
            ".globl " #name "_stubs\n" #name "_stubs:\n"                                           \
            ".set sse4_n, 0\n"                                                                     \
            ".rept 128\n"                                                                          \
            "    .balign 32\n"                                                                     \
            "    movups (%rdi), %xmm1\n"                                                           \
            "    movq %rcx, %rax\n"                                                                \
            "    .byte " prefix "0x0f, 0x3a, " #opcode ", 0x0e, sse4_n\n"                          \
            "    movups %xmm0, (%rdi)\n"                                                           \
            "    movl %ecx, %edx\n"                                                                \
            "    lahf\n"                                                                           \
            "    seto %al\n"                                                                       \
            "    ret\n"                                                                            \
            "    .set sse4_n, sse4_n + 1\n"                                                        \
            ".endr\n"                                                                              \
            ".popsection\n");

STRING_STUBS(pcmpestrm, "0x66, ", 0x60)
STRING_STUBS(pcmpestrmq, "0x66, 0x48, ", 0x60)
STRING_STUBS(pcmpestri, "0x66, ", 0x61)
STRING_STUBS(pcmpestriq, "0x66, 0x48, ", 0x61)
STRING_STUBS(pcmpistrm, "0x66, ", 0x62)
STRING_STUBS(pcmpistri, "0x66, ", 0x63)

static bool compare_strings(struct soft_cpu *cpu, const struct soft_op *op, const __m128i *from,
                            const char *stubs, bool is_mask)
{
    string_stub *stub = (string_stub *)(uintptr_t)(stubs + (op->aux & 0x7f) * SSE_STUB_BYTES);
    __m128i work = *sse_xmm(cpu, op->a);
    struct string_result result = stub(&work, from, cpu->r[SOFT_RDX], cpu->r[SOFT_RAX]);

    cpu->flags = (uint32_t)result.flags & 0xffff;
    if (is_mask)
        *sse_xmm(cpu, 0) = work;
    else
        cpu->r[SOFT_RCX] = (uint32_t)result.index;
    return true;
}

#define STRING(name, stubs, is_mask)                                                               \
    HELPER(name##_reg)                                                                             \
    {                                                                                              \
        return compare_strings(cpu, op, sse_xmm(cpu, op->c), stubs, is_mask);                      \
    }                                                                                              \
    HELPER(name##_mem)                                                                             \
    {                                                                                              \
        __m128i operand;                                                                           \
        /* These alone do not want their operand aligned. */                                       \
        return soft_load(cpu, soft_ea(cpu, op), &operand, 16) &&                                   \
               compare_strings(cpu, op, &operand, stubs, is_mask);                                 \
    }

STRING(pcmpestrm, (op->aux & SSE_AUX_W ? pcmpestrmq_stubs : pcmpestrm_stubs), true)
STRING(pcmpestri, (op->aux & SSE_AUX_W ? pcmpestriq_stubs : pcmpestri_stubs), false)
STRING(pcmpistrm, pcmpistrm_stubs, true)
STRING(pcmpistri, pcmpistri_stubs, false)

/* --- The tables --- */

#define ENTRY_MMX(opcode, name)                                                                    \
    [opcode] = {mmx_##name##_reg, mmx_##name##_mem, 8, SSE_MMX | SSE_NO_OSFXSR, SSE_FEATURE_SSSE3},
#define ENTRY_SSSE3(opcode, name) [opcode] = {name##_reg, name##_mem, 16, 0, SSE_FEATURE_SSSE3},
#define ENTRY_SSE41(opcode, name) [opcode] = {name##_reg, name##_mem, 16, 0, SSE_FEATURE_SSE4_1},
#define ENTRY_WIDEN(opcode, name, bytes)                                                           \
    [opcode] = {name##_reg, name##_mem, bytes, 0, SSE_FEATURE_SSE4_1},
#define FORM(name, bytes, form_flags, needs)                                                       \
    {                                                                                              \
        name##_reg, name##_mem, bytes, form_flags, needs                                           \
    }

const struct sse_form sse4_forms_38[SSE_PREFIXES][256] =
    {
        [SSE_NONE] = {SSSE3(ENTRY_MMX)},
        [SSE_66] =
            {
                SSSE3(ENTRY_SSSE3) SSE41(ENTRY_SSE41) WIDEN(ENTRY_WIDEN)[0x10] =
                    FORM(pblendvb, 16, 0, SSE_FEATURE_SSE4_1),
                [0x14] = FORM(blendvps, 16, 0, SSE_FEATURE_SSE4_1),
                [0x15] = FORM(blendvpd, 16, 0, SSE_FEATURE_SSE4_1),
                [0x17] = FORM(ptest, 16, SSE_FLAGS, SSE_FEATURE_SSE4_1),
                [0x2a] = {NULL, movntdqa, 16, 0, SSE_FEATURE_SSE4_1},
                [0x37] = FORM(pcmpgtq, 16, 0, SSE_FEATURE_SSE4_2),
            },
};

const struct sse_form sse4_forms_3a[SSE_PREFIXES][256] = {
    [SSE_NONE] =
        {
            [0x0f] = FORM(mmx_palignr, 8, SSE_IMM8 | SSE_MMX | SSE_NO_OSFXSR, SSE_FEATURE_SSSE3),
        },
    [SSE_66] =
        {
            [0x08] = FORM(roundps, 16, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x09] = FORM(roundpd, 16, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x0a] = FORM(roundss, 4, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x0b] = FORM(roundsd, 8, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x0c] = FORM(blendps, 16, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x0d] = FORM(blendpd, 16, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x0e] = FORM(pblendw, 16, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x0f] = FORM(palignr, 16, SSE_IMM8, SSE_FEATURE_SSSE3),
            [0x14] = FORM(pextrb, 1, SSE_IMM8 | SSE_STORES, SSE_FEATURE_SSE4_1),
            [0x15] = FORM(pextrw, 2, SSE_IMM8 | SSE_STORES, SSE_FEATURE_SSE4_1),
            [0x16] = FORM(pextrd, 4, SSE_IMM8 | SSE_STORES | SSE_WIDE_MEM, SSE_FEATURE_SSE4_1),
            [0x17] = FORM(extractps, 4, SSE_IMM8 | SSE_STORES, SSE_FEATURE_SSE4_1),
            [0x20] = FORM(pinsrb, 1, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x21] = FORM(insertps, 4, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x22] = FORM(pinsrd, 4, SSE_IMM8 | SSE_WIDE_MEM, SSE_FEATURE_SSE4_1),
            [0x40] = FORM(dpps, 16, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x41] = FORM(dppd, 16, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x42] = FORM(mpsadbw, 16, SSE_IMM8, SSE_FEATURE_SSE4_1),
            [0x60] = FORM(pcmpestrm, 16, SSE_IMM8 | SSE_FLAGS, SSE_FEATURE_SSE4_2),
            [0x61] = FORM(pcmpestri, 16, SSE_IMM8 | SSE_FLAGS, SSE_FEATURE_SSE4_2),
            [0x62] = FORM(pcmpistrm, 16, SSE_IMM8 | SSE_FLAGS, SSE_FEATURE_SSE4_2),
            [0x63] = FORM(pcmpistri, 16, SSE_IMM8 | SSE_FLAGS, SSE_FEATURE_SSE4_2),
        },
};
