/* SPDX-License-Identifier: MIT */
/*
 * decode_two: the opcodes after 0F that are not SSE: conditional moves and jumps, bits, exchanges.
 * What is in no table here goes to system.c (privileged) or sse.c.
 */
#include "vmm/soft/crypto.h"
#include "vmm/soft/decode.h"
#include "vmm/soft/exchange.h"
#include "vmm/soft/system.h"
#include "vmm/soft/transfer.h"
#include "vmm/soft/xsave.h"

#define REG_OFFSET(n) ((uint8_t)((n)*8))

#define CPUID_1_ECX_POPCNT (1u << 23)
#define CPUID_7_EBX_BMI1   (1u << 3)
#define CPUID_EXT_ECX_ABM  (1u << 5)

typedef enum soft_decoded decode_fn(struct soft_decoder *d, uint8_t opcode);

static enum soft_op_kind sized(enum soft_op_kind kind, unsigned size)
{
    return kind + (unsigned)__builtin_ctz(size);
}

static enum soft_op_kind sized3(enum soft_op_kind kind, unsigned size)
{
    return kind + (unsigned)__builtin_ctz(size) - 1;
}

/* reg = f(reg, rm) of the full operand size; the memory kinds follow the three register kinds. */
static struct soft_op *emit_reg_rm(struct soft_decoder *d, enum soft_op_kind kind)
{
    struct soft_op *op;

    if (decode_is_mem(d)) {
        op = decode_emit_mem(d, sized3(kind + 3, d->operand_size), d->operand_size, SOFT_READ);
    } else {
        op = decode_emit(d, sized3(kind, d->operand_size));
        op->b = REG_OFFSET(d->rm);
    }
    op->a = REG_OFFSET(d->reg);
    return op;
}

static enum soft_decoded on_nop(struct soft_decoder *d, uint8_t opcode)
{
    (void)opcode;
    decode_modrm(d);
    decode_emit(d, SOP_nop);
    return SOFT_DECODED;
}

static enum soft_decoded on_cmov(struct soft_decoder *d, uint8_t opcode)
{
    decode_modrm(d);
    emit_reg_rm(d, SOP_cmov_r_16)->c = opcode & 15;
    return SOFT_DECODED;
}

static enum soft_decoded on_jcc(struct soft_decoder *d, uint8_t opcode)
{
    return decode_jcc(d, opcode, false);
}

static enum soft_decoded on_set(struct soft_decoder *d, uint8_t opcode)
{
    struct soft_op *op;

    decode_modrm(d);
    if (decode_is_mem(d)) {
        op = decode_emit_mem(d, SOP_set_m, 1, SOFT_WRITE);
    } else {
        op = decode_emit(d, SOP_set_r);
        op->a = decode_gpr(d, d->rm, 1);
    }
    op->c = opcode & 15;
    return SOFT_DECODED;
}

/* --- Bits --- */

static const uint16_t bit_kinds[4] = {SOP_bt_rr_16, SOP_bts_rr_16, SOP_btr_rr_16, SOP_btc_rr_16};

/* Offsets of the forms from the first kind. */
enum { BIT_RR = 0, BIT_RI = 3, BIT_MR = 6, BIT_MI = 9, BIT_LOCK_MR = 12, BIT_LOCK_MI = 15 };

static struct soft_op *emit_bit(struct soft_decoder *d, unsigned operation, bool is_imm)
{
    enum soft_op_kind kind = bit_kinds[operation];
    unsigned form;

    if (!decode_is_mem(d)) {
        struct soft_op *op =
            decode_emit(d, sized3(kind + (is_imm ? BIT_RI : BIT_RR), d->operand_size));
        op->b = REG_OFFSET(d->rm);
        return op;
    }
    if (d->has_lock && operation) {
        d->lock_used = true;
        form = is_imm ? BIT_LOCK_MI : BIT_LOCK_MR;
    } else {
        form = is_imm ? BIT_MI : BIT_MR;
    }
    return decode_emit_mem(d, sized3(kind + form, d->operand_size), d->operand_size,
                           operation ? SOFT_WRITE : SOFT_READ);
}

/* A bit number from a register moves the offset, which wraps and has limits like any other. */
static bool bit_offset(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t number = *soft_reg64(cpu, op->a);
    int64_t bits = op->c == 2   ? (int16_t)number
                   : op->c == 4 ? (int32_t)number
                                : (int64_t)number;

    /* In whole operands, downwards: 2, 4 or 8 bytes for 16, 32 or 64 bits. */
    cpu->r[SOFT_REG_TEMP] = soft_ea(cpu, op) + (uint64_t)(bits >> 3 & -(int64_t)op->c);
    return true;
}

static enum soft_decoded on_bit(struct soft_decoder *d, uint8_t opcode)
{
    decode_modrm(d);
    bool has_step = decode_is_mem(d) && d->address_size != 8;

    if (has_step) {
        struct soft_op *step = decode_emit_address(d, bit_offset);

        step->a = REG_OFFSET(d->reg);
        step->c = d->operand_size;
    }
    struct soft_op *op = emit_bit(d, opcode >> 3 & 3, false);

    op->a = REG_OFFSET(d->reg);
    op->c = has_step;
    return SOFT_DECODED;
}

static enum soft_decoded on_bit_imm(struct soft_decoder *d, uint8_t opcode)
{
    (void)opcode;
    decode_modrm(d);
    if ((d->reg & 7) < 4)
        return SOFT_UNDEFINED;
    struct soft_op *op = emit_bit(d, d->reg & 3, true);

    op->imm = decode_u8(d);
    return SOFT_DECODED;
}

static enum soft_decoded on_scan(struct soft_decoder *d, uint8_t opcode)
{
    enum soft_op_kind kind = opcode == 0xbc ? SOP_bsf_r_16 : SOP_bsr_r_16;

    if (d->repeat == 0xf3 && opcode == 0xbc && d->cpu->cpuid_7_ebx & CPUID_7_EBX_BMI1)
        kind = SOP_tzcnt_r_16;
    if (d->repeat == 0xf3 && opcode == 0xbd && d->cpu->cpuid_ext_ecx & CPUID_EXT_ECX_ABM)
        kind = SOP_lzcnt_r_16;
    decode_modrm(d);
    emit_reg_rm(d, kind);
    return SOFT_DECODED;
}

static enum soft_decoded on_popcnt(struct soft_decoder *d, uint8_t opcode)
{
    (void)opcode;
    if (d->repeat != 0xf3 || !(d->cpu->cpuid_1_ecx & CPUID_1_ECX_POPCNT))
        return SOFT_UNDEFINED;
    decode_modrm(d);
    emit_reg_rm(d, SOP_popcnt_r_16);
    return SOFT_DECODED;
}

static enum soft_decoded on_double_shift(struct soft_decoder *d, uint8_t opcode)
{
    enum soft_op_kind kind = opcode < 0xa8 ? SOP_shld_ri_16 : SOP_shrd_ri_16;
    bool by_cl = opcode & 1;
    struct soft_op *op;

    decode_modrm(d);
    if (by_cl)
        kind += 3;
    if (decode_is_mem(d)) {
        op = decode_emit_mem(d, sized3(kind + 6, d->operand_size), d->operand_size, SOFT_WRITE);
    } else {
        op = decode_emit(d, sized3(kind, d->operand_size));
        op->b = REG_OFFSET(d->rm);
    }
    op->a = REG_OFFSET(d->reg);
    if (!by_cl)
        op->imm = decode_u8(d);
    return SOFT_DECODED;
}

/* --- Moves and exchanges --- */

static enum soft_decoded on_imul(struct soft_decoder *d, uint8_t opcode)
{
    (void)opcode;
    decode_modrm(d);
    emit_reg_rm(d, SOP_imul2_r_16);
    return SOFT_DECODED;
}

static enum soft_op_kind extension_kind(const struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = d->operand_size;

    switch (opcode) {
    case 0xb6:
        return size == 2 ? SOP_zx8_16_r : SOP_zx8_r;
    case 0xb7:
        return size == 2 ? SOP_mov_rr_16 : SOP_zx16_r;
    case 0xbe:
        return size == 2 ? SOP_sx8_16_r : size == 4 ? SOP_sx8_32_r : SOP_sx8_64_r;
    default:
        return size == 2 ? SOP_mov_rr_16 : size == 4 ? SOP_sx16_32_r : SOP_sx16_64_r;
    }
}

static enum soft_decoded on_extend(struct soft_decoder *d, uint8_t opcode)
{
    enum soft_op_kind kind = extension_kind(d, opcode);
    unsigned source = opcode & 1 ? 2 : 1;
    struct soft_op *op;

    decode_modrm(d);
    if (decode_is_mem(d)) {
        kind = kind == SOP_mov_rr_16 ? SOP_mov_rm_16 : kind + 1;
        op = decode_emit_mem(d, kind, source, SOFT_READ);
    } else {
        op = decode_emit(d, kind);
        op->b = decode_gpr(d, d->rm, source);
    }
    op->a = REG_OFFSET(d->reg);
    return SOFT_DECODED;
}

/* CMPXCHG and XADD: register, memory and locked kinds of four sizes follow each other. */
static enum soft_decoded on_exchange(struct soft_decoder *d, uint8_t opcode)
{
    enum soft_op_kind kind = opcode < 0xc0 ? SOP_cmpxchg_r_8 : SOP_xadd_r_8;
    unsigned size = opcode & 1 ? d->operand_size : 1;
    struct soft_op *op;

    decode_modrm(d);
    if (!decode_is_mem(d)) {
        op = decode_emit(d, sized(kind, size));
        op->b = decode_gpr(d, d->rm, size);
    } else {
        d->lock_used = d->has_lock;
        op = decode_emit_mem(d, sized(kind + (d->has_lock ? 8 : 4), size), size, SOFT_WRITE);
    }
    op->a = decode_gpr(d, d->reg, size);
    return SOFT_DECODED;
}

static enum soft_decoded on_exchange_wide(struct soft_decoder *d, uint8_t opcode)
{
    decode_modrm(d);
    if (decode_is_mem(d) && (d->reg & 7) == 4 && !decode_mandatory_prefix(d))
        return xsave_decode_area(d, opcode);
    if (!decode_is_mem(d) && (d->reg & 7) >= 6)
        return crypto_decode_random(d);
    if (!decode_is_mem(d) || (d->reg & 7) != 1)
        return SOFT_UNDEFINED;
    bool is_16_bytes = d->operand_size == 8;
    struct soft_op *op =
        decode_emit_call_mem(d, SOP_call_flags, is_16_bytes ? exchange_16 : exchange_8,
                             is_16_bytes ? 16 : 8, SOFT_WRITE);

    d->lock_used = d->has_lock;
    op->c = d->has_lock;
    return SOFT_DECODED;
}

static enum soft_decoded on_movnti(struct soft_decoder *d, uint8_t opcode)
{
    (void)opcode;
    decode_modrm(d);
    if (!decode_is_mem(d) || d->has_66 || d->repeat)
        return SOFT_UNDEFINED;
    decode_emit_mem(d, sized(SOP_mov_mr_8, d->operand_size), d->operand_size, SOFT_WRITE)->a =
        REG_OFFSET(d->reg);
    return SOFT_DECODED;
}

static enum soft_decoded on_bswap(struct soft_decoder *d, uint8_t opcode)
{
    unsigned reg = (opcode & 7u) | ((d->rex & 1u) << 3);

    decode_emit(d, d->operand_size == 8   ? SOP_bswap_64
                   : d->operand_size == 4 ? SOP_bswap_32
                                          : SOP_bswap_16)
        ->a = REG_OFFSET(reg);
    return SOFT_DECODED;
}

/* UD1 has a ModRM byte, which may fault when it is fetched; UD0 and UD2 are the same to us. */
static enum soft_decoded on_ud(struct soft_decoder *d, uint8_t opcode)
{
    if (opcode != 0x0b)
        decode_modrm(d);
    return SOFT_UNDEFINED;
}

static decode_fn *const two_byte_map[256] = {
    [0x00 ... 0x09] = system_decode_two_byte,
    [0x0b] = on_ud,
    [0x0d] = on_nop,
    [0x18 ... 0x1f] = on_nop,
    [0x20 ... 0x23] = system_decode_two_byte,
    [0x30 ... 0x35] = system_decode_two_byte,
    [0x40 ... 0x4f] = on_cmov,
    [0x80 ... 0x8f] = on_jcc,
    [0x90 ... 0x9f] = on_set,
    [0xa0 ... 0xa1] = transfer_decode_segment_stack,
    [0xa2] = system_decode_two_byte,
    [0xa3] = on_bit,
    [0xa4 ... 0xa5] = on_double_shift,
    [0xa8 ... 0xa9] = transfer_decode_segment_stack,
    [0xaa] = system_decode_two_byte,
    [0xab] = on_bit,
    [0xac ... 0xad] = on_double_shift,
    [0xaf] = on_imul,
    [0xb0 ... 0xb1] = on_exchange,
    [0xb2] = transfer_decode_load_far,
    [0xb3] = on_bit,
    [0xb4 ... 0xb5] = transfer_decode_load_far,
    [0xb6 ... 0xb7] = on_extend,
    [0xb8] = on_popcnt,
    [0xb9] = on_ud,
    [0xba] = on_bit_imm,
    [0xbb] = on_bit,
    [0xbc ... 0xbd] = on_scan,
    [0xbe ... 0xbf] = on_extend,
    [0xc0 ... 0xc1] = on_exchange,
    [0xc3] = on_movnti,
    [0xc7] = on_exchange_wide,
    [0xc8 ... 0xcf] = on_bswap,
    [0xff] = on_ud,
};

enum soft_decoded decode_two_byte(struct soft_decoder *d, uint8_t opcode)
{
    decode_fn *decode = two_byte_map[opcode];

    return decode ? decode(d, opcode) : sse_decode(d, opcode);
}
