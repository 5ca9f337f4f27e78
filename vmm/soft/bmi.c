/* SPDX-License-Identifier: MIT */
/* bmi: BMI1 and BMI2 behind VEX, and MOVBE. The host's own instructions do the work. */
#include "vmm/soft/bmi.h"

#define CPUID_1_ECX_MOVBE (1u << 22)
#define CPUID_7_EBX_BMI1  (1u << 3)
#define CPUID_7_EBX_BMI2  (1u << 8)

/* Beside VEX_AUX_VVVV and VEX_AUX_W (operands of 64 bits). */
#define BMI_AUX_IMM(aux)  ((aux)&0xffu)
#define BMI_AUX_WHAT(aux) ((aux) >> 8 & 15u)

enum bmi_instruction {
    BMI_ANDN,
    BMI_BLSR,
    BMI_BLSMSK,
    BMI_BLSI,
    BMI_BZHI,
    BMI_PEXT,
    BMI_PDEP,
    BMI_BEXTR,
    BMI_SHLX,
    BMI_SARX,
    BMI_SHRX,
    BMI_COUNT,
    BMI_MULX = BMI_COUNT,
    BMI_RORX,
    BMI_NONE,
};

/* `flags` as soft_cpu.flags has them; what an instruction does not define stays. */
typedef uint64_t bmi_fn(uint64_t rm, uint64_t vvvv, uint32_t *flags);

#define COMPUTE(name, type, text)                                                                  \
    static uint64_t name(uint64_t rm, uint64_t vvvv, uint32_t *flags)                              \
    {                                                                                              \
        type result, first = (type)rm, second = (type)vvvv;                                        \
        __asm__("addb $127, %%al\n\tsahf\n\t" text "\n\tlahf\n\tseto %%al"                         \
                : "=&r"(result), "+&a"(*flags)                                                     \
                : "r"(first), "r"(second)                                                          \
                : "cc");                                                                           \
        return result;                                                                             \
    }
/* AT&T has the operands the other way round: what comes first counts, shifts or masks. */
#define BOTH(name, operands)                                                                       \
    COMPUTE(name##_32, uint32_t, #name "l " operands ", %0")                                       \
    COMPUTE(name##_64, uint64_t, #name "q " operands ", %0")

BOTH(andn, "%2, %3")
BOTH(pext, "%2, %3")
BOTH(pdep, "%2, %3")
BOTH(blsr, "%2")
BOTH(blsmsk, "%2")
BOTH(blsi, "%2")
BOTH(bzhi, "%3, %2")
BOTH(bextr, "%3, %2")
BOTH(shlx, "%3, %2")
BOTH(sarx, "%3, %2")
BOTH(shrx, "%3, %2")

static bmi_fn *const functions[BMI_COUNT][2] = {
    [BMI_ANDN] = {andn_32, andn_64}, [BMI_BLSR] = {blsr_32, blsr_64},
    [BMI_BLSI] = {blsi_32, blsi_64}, [BMI_BLSMSK] = {blsmsk_32, blsmsk_64},
    [BMI_BZHI] = {bzhi_32, bzhi_64}, [BMI_PEXT] = {pext_32, pext_64},
    [BMI_PDEP] = {pdep_32, pdep_64}, [BMI_BEXTR] = {bextr_32, bextr_64},
    [BMI_SHLX] = {shlx_32, shlx_64}, [BMI_SARX] = {sarx_32, sarx_64},
    [BMI_SHRX] = {shrx_32, shrx_64},
};

static void multiply(struct soft_cpu *cpu, const struct soft_op *op, uint64_t operand)
{
    bool is_64 = op->aux & VEX_AUX_W;
    uint64_t low, high;

    if (is_64) {
        unsigned __int128 product = (unsigned __int128)operand * cpu->r[SOFT_RDX];

        low = (uint64_t)product;
        high = (uint64_t)(product >> 64);
    } else {
        uint64_t product = (uint64_t)(uint32_t)operand * (uint32_t)cpu->r[SOFT_RDX];

        low = (uint32_t)product;
        high = product >> 32;
    }
    cpu->r[VEX_AUX_VVVV(op->aux)] = low;
    cpu->r[op->a] = high; /* if both are one register, this half stays */
}

static uint64_t rotate_right(uint64_t value, unsigned count, bool is_64)
{
    uint32_t narrow = (uint32_t)value;

    if (is_64)
        return value >> (count & 63) | value << (-count & 63);
    return (uint32_t)(narrow >> (count & 31) | narrow << (-count & 31));
}

static bool run(struct soft_cpu *cpu, const struct soft_op *op, uint64_t operand)
{
    unsigned what = BMI_AUX_WHAT(op->aux);
    bool is_64 = op->aux & VEX_AUX_W;

    if (what == BMI_MULX)
        multiply(cpu, op, operand);
    else if (what == BMI_RORX)
        cpu->r[op->a] = rotate_right(operand, BMI_AUX_IMM(op->aux), is_64);
    else
        cpu->r[op->a] = functions[what][is_64](operand, cpu->r[VEX_AUX_VVVV(op->aux)], &cpu->flags);
    cpu->flags &= 0xffff;
    return true;
}

static bool run_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    return run(cpu, op, cpu->r[op->c]);
}

static bool run_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t operand = 0;

    return soft_load(cpu, soft_ea(cpu, op), &operand, op->aux & VEX_AUX_W ? 8 : 4) &&
           run(cpu, op, operand);
}

/* --- VEX --- */

bool bmi_is_vex(const struct vex_prefix *prefix, uint8_t opcode)
{
    if (prefix->map == 3)
        return opcode == 0xf0;
    return prefix->map == 2 && opcode >= 0xf2 && opcode <= 0xf7;
}

static enum bmi_instruction find(const struct vex_prefix *prefix, uint8_t opcode, unsigned reg)
{
    static const uint8_t by_prefix[][SSE_PREFIXES] = {
        /* F2, F5, F6, F7 */
        {BMI_ANDN, BMI_NONE, BMI_NONE, BMI_NONE},
        {BMI_BZHI, BMI_NONE, BMI_PEXT, BMI_PDEP},
        {BMI_NONE, BMI_NONE, BMI_NONE, BMI_MULX},
        {BMI_BEXTR, BMI_SHLX, BMI_SARX, BMI_SHRX},
    };
    static const uint8_t group17[8] = {BMI_NONE, BMI_BLSR, BMI_BLSMSK, BMI_BLSI,
                                       BMI_NONE, BMI_NONE, BMI_NONE,   BMI_NONE};

    switch (opcode) {
    case 0xf0:
        return prefix->pp == SSE_F2 ? BMI_RORX : BMI_NONE;
    case 0xf2:
        return by_prefix[0][prefix->pp];
    case 0xf3:
        return prefix->pp == SSE_NONE ? group17[reg & 7] : BMI_NONE;
    case 0xf5:
    case 0xf6:
    case 0xf7:
        return by_prefix[opcode - 0xf4][prefix->pp];
    default:
        return BMI_NONE;
    }
}

static bool has_bmi(const struct soft_cpu *cpu, enum bmi_instruction what)
{
    bool is_first = what == BMI_ANDN || what == BMI_BEXTR || what == BMI_BLSR || what == BMI_BLSI ||
                    what == BMI_BLSMSK;

    return cpu->cpuid_7_ebx & (is_first ? CPUID_7_EBX_BMI1 : CPUID_7_EBX_BMI2);
}

enum soft_decoded bmi_decode_vex(struct soft_decoder *d, const struct vex_prefix *prefix,
                                 uint8_t opcode)
{
    bool is_64 = prefix->w && decode_is_64bit(d);
    struct soft_op *op;

    decode_modrm(d);
    uint8_t reg = d->reg, rm = d->rm;
    enum bmi_instruction what = find(prefix, opcode, reg);

    if (what == BMI_NONE || !has_bmi(d->cpu, what) || prefix->l ||
        (what == BMI_RORX && prefix->has_vvvv))
        return SOFT_UNDEFINED;
    if (decode_is_mem(d))
        op = decode_emit_call_mem(d, SOP_call_flags, run_mem, is_64 ? 8 : 4, SOFT_READ);
    else
        op = decode_emit_call(d, SOP_call_flags, run_reg);
    op->a = opcode == 0xf3 ? prefix->vvvv : reg;
    op->c = rm;
    op->aux = (uint32_t)what << 8 | (uint32_t)prefix->vvvv << 16 | (is_64 ? VEX_AUX_W : 0);
    if (what == BMI_RORX)
        op->aux |= decode_u8(d);
    return SOFT_DECODED;
}

/* --- MOVBE; in aux: bytes --- */

static uint64_t swap(uint64_t value, unsigned bytes)
{
    return __builtin_bswap64(value) >> (64 - 8 * bytes);
}

static bool run_movbe_load(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value = 0;

    if (!soft_load(cpu, soft_ea(cpu, op), &value, op->aux))
        return false;
    value = swap(value, op->aux);
    if (op->aux == 2)
        memcpy(&cpu->r[op->a], &value, 2);
    else
        cpu->r[op->a] = value;
    return true;
}

static bool run_movbe_store(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value = swap(cpu->r[op->a], op->aux);

    return soft_store(cpu, soft_ea(cpu, op), &value, op->aux);
}

enum soft_decoded bmi_decode_movbe(struct soft_decoder *d, uint8_t opcode)
{
    bool is_store = opcode & 1;

    decode_modrm(d);
    uint8_t reg = d->reg;

    if (!decode_is_mem(d) || !(d->cpu->cpuid_1_ecx & CPUID_1_ECX_MOVBE))
        return SOFT_UNDEFINED;
    struct soft_op *op =
        decode_emit_call_mem(d, SOP_call_c, is_store ? run_movbe_store : run_movbe_load,
                             d->operand_size, is_store ? SOFT_WRITE : SOFT_READ);

    op->a = reg;
    op->aux = d->operand_size;
    return SOFT_DECODED;
}
