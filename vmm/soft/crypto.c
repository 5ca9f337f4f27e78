/* SPDX-License-Identifier: MIT */
/*
 * crypto: AES, carry-less multiplication, SHA and random numbers, all by the host's instructions.
 * The guest's CPUID has them only where the host's has.
 */
#include "vmm/soft/crypto.h"

#include "vmm/soft/sse_immediate.h"

#define CPUID_1_ECX_RDRAND (1u << 30)
#define CPUID_7_EBX_RDSEED (1u << 18)

/* --- AES, PCLMULQDQ and SHA --- */

#define PLAIN(name)                                                                                \
    SSE_STUB(name, #name)                                                                          \
    SSE_REG_RUN(name)                                                                              \
    SSE_MEM_RUN(name, 16)

PLAIN(aesimc)
PLAIN(aesenc)
PLAIN(aesenclast)
PLAIN(aesdec)
PLAIN(aesdeclast)
PLAIN(sha1nexte)
PLAIN(sha1msg1)
PLAIN(sha1msg2)
PLAIN(sha256msg1)
PLAIN(sha256msg2)
SSE_INTEGER_IMMEDIATE(pclmulqdq, "0x66, ", 0x44, 32)
SSE_INTEGER_IMMEDIATE(aeskeygenassist, "0x66, ", 0xdf, 256)
SSE_INTEGER_IMMEDIATE(sha1rnds4, "", 0xcc, 4)

/* XMM0 is an operand that no field names. */
static bool sha256rnds2(struct soft_cpu *cpu, const struct soft_op *op, const __m128i *from)
{
    __m128i value = *sse_xmm(cpu, op->a);

    __asm__("sha256rnds2 %%xmm0, %1, %0" : "+x"(value) : "m"(*from), "Yz"(*sse_xmm(cpu, 0)));
    *sse_xmm(cpu, op->a) = value;
    return true;
}

static bool sha256rnds2_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    return sha256rnds2(cpu, op, sse_xmm(cpu, op->c));
}

static bool sha256rnds2_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    __m128i operand;

    return sse_load(cpu, op, &operand, 16) && sha256rnds2(cpu, op, &operand);
}

#define FORM(in_map, in_prefix, in_opcode, name, form_flags, needs)                                \
    {                                                                                              \
        .map = in_map, .prefix = in_prefix, .opcode = in_opcode, .form = {                         \
            name##_reg,                                                                            \
            name##_mem,                                                                            \
            16,                                                                                    \
            form_flags,                                                                            \
            needs                                                                                  \
        }                                                                                          \
    }

static const struct {
    uint8_t map, prefix, opcode;
    struct sse_form form;
} forms[] = {
    FORM(2, SSE_66, 0xdb, aesimc, 0, SSE_FEATURE_AES),
    FORM(2, SSE_66, 0xdc, aesenc, 0, SSE_FEATURE_AES),
    FORM(2, SSE_66, 0xdd, aesenclast, 0, SSE_FEATURE_AES),
    FORM(2, SSE_66, 0xde, aesdec, 0, SSE_FEATURE_AES),
    FORM(2, SSE_66, 0xdf, aesdeclast, 0, SSE_FEATURE_AES),
    FORM(3, SSE_66, 0xdf, aeskeygenassist, SSE_IMM8, SSE_FEATURE_AES),
    FORM(3, SSE_66, 0x44, pclmulqdq, SSE_IMM8, SSE_FEATURE_PCLMUL),
    FORM(2, SSE_NONE, 0xc8, sha1nexte, 0, SSE_FEATURE_SHA),
    FORM(2, SSE_NONE, 0xc9, sha1msg1, 0, SSE_FEATURE_SHA),
    FORM(2, SSE_NONE, 0xca, sha1msg2, 0, SSE_FEATURE_SHA),
    FORM(2, SSE_NONE, 0xcb, sha256rnds2, 0, SSE_FEATURE_SHA),
    FORM(2, SSE_NONE, 0xcc, sha256msg1, 0, SSE_FEATURE_SHA),
    FORM(2, SSE_NONE, 0xcd, sha256msg2, 0, SSE_FEATURE_SHA),
    FORM(3, SSE_NONE, 0xcc, sha1rnds4, SSE_IMM8, SSE_FEATURE_SHA),
};

const struct sse_form *crypto_find(unsigned map, enum sse_prefix prefix, uint8_t opcode)
{
    for (unsigned i = 0; i < ARRAY_SIZE(forms); i++)
        if (forms[i].map == map && forms[i].prefix == prefix && forms[i].opcode == opcode)
            return &forms[i].form;
    return NULL;
}

/* --- RDRAND and RDSEED --- */

/* CF says whether there was a number, which is 0 otherwise; the other flags are cleared. */
static bool give(struct soft_cpu *cpu, const struct soft_op *op, bool is_there, uint64_t number)
{
    if (op->aux == 2)
        memcpy(&cpu->r[op->a], &number, 2);
    else
        cpu->r[op->a] = op->aux == 4 ? (uint32_t)number : number;
    cpu->flags = is_there ? SOFT_FLAG_CF : 0;
    return true;
}

static bool run_rdrand(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t number;
    bool is_there;

    __asm__ volatile("rdrand %0" : "=r"(number), "=@ccc"(is_there));
    return give(cpu, op, is_there, number);
}

static bool run_rdseed(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t number;
    bool is_there;

    __asm__ volatile("rdseed %0" : "=r"(number), "=@ccc"(is_there));
    return give(cpu, op, is_there, number);
}

enum soft_decoded crypto_decode_random(struct soft_decoder *d)
{
    bool is_seed = (d->reg & 7) == 7;

    if (d->repeat || !(is_seed ? d->cpu->cpuid_7_ebx & CPUID_7_EBX_RDSEED
                               : d->cpu->cpuid_1_ecx & CPUID_1_ECX_RDRAND))
        return SOFT_UNDEFINED;
    struct soft_op *op = decode_emit_call(d, SOP_call_flags, is_seed ? run_rdseed : run_rdrand);

    op->a = (uint8_t)d->rm;
    op->aux = d->operand_size;
    return SOFT_DECODED;
}
