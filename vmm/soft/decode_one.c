/* SPDX-License-Identifier: MIT */
/* decode_one: the one-byte opcode map: a table of small decoders, indexed by opcode. */
#include "vmm/soft/decode.h"
#include "vmm/soft/legacy.h"
#include "vmm/soft/string.h"
#include "vmm/soft/system.h"
#include "vmm/soft/transfer.h"
#include "vmm/soft/vex.h"

#define REG_OFFSET(n) ((uint8_t)((n)*8))

typedef enum soft_decoded decode_fn(struct soft_decoder *d, uint8_t opcode);

/* The kind for an operand size, counted from the 8-bit (or, in groups of three, 16-bit) one. */
static enum soft_op_kind sized(enum soft_op_kind kind, unsigned size)
{
    return kind + (unsigned)__builtin_ctz(size);
}

static enum soft_op_kind sized3(enum soft_op_kind kind, unsigned size)
{
    return kind + (unsigned)__builtin_ctz(size) - 1;
}

/* Bit 0 of most opcodes: byte or full operand. */
static unsigned width(const struct soft_decoder *d, uint8_t opcode)
{
    return opcode & 1 ? d->operand_size : 1;
}

static unsigned imm_size(unsigned size)
{
    return size == 8 ? 4 : size;
}

static uint8_t low_register(const struct soft_decoder *d, uint8_t opcode)
{
    return (uint8_t)((opcode & 7) | ((d->rex & 1u) << 3));
}

static uint8_t reg_operand(const struct soft_decoder *d, unsigned size)
{
    return decode_gpr(d, d->reg, size);
}

static uint8_t rm_operand(const struct soft_decoder *d, unsigned size)
{
    return decode_gpr(d, d->rm, size);
}

/* --- Arithmetic --- */

#define ALU_STRIDE  20 /* kinds of one operation: five forms of four sizes */
#define LOCK_STRIDE 8

static void emit_to_rm(struct soft_decoder *d, unsigned operation, unsigned size)
{
    enum soft_op_kind kind = SOP_add_rr_8 + operation * ALU_STRIDE;
    bool is_cmp = operation >= 7;

    if (!decode_is_mem(d)) {
        struct soft_op *op = decode_emit(d, sized(kind, size));
        op->a = rm_operand(d, size);
        op->b = reg_operand(d, size);
        return;
    }
    kind += 8;
    if (d->has_lock && !is_cmp) {
        kind = SOP_lock_add_mr_8 + operation * LOCK_STRIDE;
        d->lock_used = true;
    }
    struct soft_op *op =
        decode_emit_mem(d, sized(kind, size), size, is_cmp ? SOFT_READ : SOFT_WRITE);
    op->a = reg_operand(d, size);
}

static enum soft_decoded on_alu(struct soft_decoder *d, uint8_t opcode)
{
    unsigned operation = opcode >> 3;
    enum soft_op_kind kind = SOP_add_rr_8 + operation * ALU_STRIDE;
    unsigned size = width(d, opcode);
    struct soft_op *op;

    if ((opcode & 7) >= 4) {
        op = decode_emit(d, sized(kind + 12, size));
        op->imm = (uint64_t)decode_imm(d, imm_size(size));
        return SOFT_DECODED;
    }
    decode_modrm(d);
    if ((opcode & 7) < 2) {
        emit_to_rm(d, operation, size);
    } else if (decode_is_mem(d)) {
        op = decode_emit_mem(d, sized(kind + 4, size), size, SOFT_READ);
        op->a = reg_operand(d, size);
    } else {
        op = decode_emit(d, sized(kind, size));
        op->a = reg_operand(d, size);
        op->b = rm_operand(d, size);
    }
    return SOFT_DECODED;
}

static enum soft_decoded on_alu_imm(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = width(d, opcode);

    if (opcode == 0x82 && decode_is_64bit(d))
        return SOFT_UNDEFINED;
    decode_modrm(d);
    unsigned operation = d->reg & 7;
    enum soft_op_kind kind = SOP_add_rr_8 + operation * ALU_STRIDE;
    struct soft_op *op;

    if (!decode_is_mem(d)) {
        op = decode_emit(d, sized(kind + 12, size));
        op->a = rm_operand(d, size);
    } else if (d->has_lock && operation != 7) {
        d->lock_used = true;
        kind = SOP_lock_add_mi_8 + operation * LOCK_STRIDE;
        op = decode_emit_mem(d, sized(kind, size), size, SOFT_WRITE);
    } else {
        op = decode_emit_mem(d, sized(kind + 16, size), size,
                             operation == 7 ? SOFT_READ : SOFT_WRITE);
    }
    op->imm = (uint64_t)decode_imm(d, opcode == 0x81 ? imm_size(size) : 1);
    return SOFT_DECODED;
}

static enum soft_decoded on_test(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = width(d, opcode);
    struct soft_op *op;

    decode_modrm(d);
    if (decode_is_mem(d)) {
        op = decode_emit_mem(d, sized(SOP_test_mr_8, size), size, SOFT_READ);
    } else {
        op = decode_emit(d, sized(SOP_test_rr_8, size));
        op->b = rm_operand(d, size);
    }
    op->a = reg_operand(d, size);
    return SOFT_DECODED;
}

static enum soft_decoded on_test_accumulator(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = width(d, opcode);
    struct soft_op *op = decode_emit(d, sized(SOP_test_ri_8, size));

    op->imm = (uint64_t)decode_imm(d, imm_size(size));
    return SOFT_DECODED;
}

/* A unary operation in its register or memory form, or, where there is one, the locked form. */
static void emit_unary(struct soft_decoder *d, enum soft_op_kind kind, unsigned size, bool is_write)
{
    if (!decode_is_mem(d)) {
        struct soft_op *op = decode_emit(d, sized(kind, size));
        op->a = rm_operand(d, size);
        return;
    }
    kind += 4;
    if (d->has_lock && is_write) {
        d->lock_used = true;
        kind += 4;
    }
    decode_emit_mem(d, sized(kind, size), size, is_write ? SOFT_WRITE : SOFT_READ);
}

static enum soft_decoded on_group3(struct soft_decoder *d, uint8_t opcode)
{
    static const enum soft_op_kind kinds[8] = {
        SOP_test_ri_8, SOP_test_ri_8, SOP_not_r_8, SOP_neg_r_8,
        SOP_mul_r_8,   SOP_imul_r_8,  SOP_div_r_8, SOP_idiv_r_8,
    };
    unsigned size = width(d, opcode);

    decode_modrm(d);
    unsigned digit = d->reg & 7;

    if (digit >= 2) {
        emit_unary(d, kinds[digit], size, digit < 4);
        return SOFT_DECODED;
    }
    struct soft_op *op;

    if (decode_is_mem(d)) {
        op = decode_emit_mem(d, sized(SOP_test_mi_8, size), size, SOFT_READ);
    } else {
        op = decode_emit(d, sized(SOP_test_ri_8, size));
        op->a = rm_operand(d, size);
    }
    op->imm = (uint64_t)decode_imm(d, imm_size(size));
    return SOFT_DECODED;
}

static enum soft_decoded on_inc_dec_short(struct soft_decoder *d, uint8_t opcode)
{
    enum soft_op_kind kind = opcode & 8 ? SOP_dec_r_8 : SOP_inc_r_8;
    struct soft_op *op = decode_emit(d, sized(kind, d->operand_size));

    op->a = REG_OFFSET(opcode & 7);
    return SOFT_DECODED;
}

static enum soft_decoded on_imul_imm(struct soft_decoder *d, uint8_t opcode)
{
    struct soft_op *op;

    decode_modrm(d);
    if (decode_is_mem(d)) {
        op =
            decode_emit_mem(d, sized3(SOP_imul3_m_16, d->operand_size), d->operand_size, SOFT_READ);
    } else {
        op = decode_emit(d, sized3(SOP_imul3_r_16, d->operand_size));
        op->b = REG_OFFSET(d->rm);
    }
    op->a = REG_OFFSET(d->reg);
    op->imm = (uint64_t)decode_imm(d, opcode == 0x6b ? 1 : imm_size(d->operand_size));
    return SOFT_DECODED;
}

/* Constant non-zero counts of 32 and 64 bits define every flag: no flags in. */
static struct soft_op *emit_constant_shift(struct soft_decoder *d, unsigned size, unsigned count)
{
    unsigned digit = d->reg & 7;
    enum soft_op_kind kind = digit == 5 ? SOP_shr_n_32 : digit == 7 ? SOP_sar_n_32 : SOP_shl_n_32;
    struct soft_op *op = decode_emit(d, kind + (size == 8));

    op->a = REG_OFFSET(d->rm);
    op->imm = count;
    return op;
}

static enum soft_decoded on_shift(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = width(d, opcode);
    bool by_cl = (opcode & 0xfe) == 0xd2;

    decode_modrm(d);
    unsigned digit = d->reg & 7;
    enum soft_op_kind kind = SOP_rol_ri_8 + digit * 16 + (by_cl ? 4 : 0);
    struct soft_op *op = NULL;

    if (decode_is_mem(d))
        op = decode_emit_mem(d, sized(kind + 8, size), size, SOFT_WRITE);
    unsigned count = opcode >= 0xd0 ? 1 : decode_u8(d);
    unsigned masked = count & (size == 8 ? 63 : 31);

    if (!op && !by_cl && size >= 4 && masked && digit >= 4) {
        emit_constant_shift(d, size, masked);
        return SOFT_DECODED;
    }
    if (!op) {
        op = decode_emit(d, sized(kind, size));
        op->a = rm_operand(d, size);
    }
    if (!by_cl)
        op->imm = count;
    return SOFT_DECODED;
}

/* --- Moves --- */

static enum soft_decoded on_mov_to_rm(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = width(d, opcode);
    struct soft_op *op;

    decode_modrm(d);
    if (decode_is_mem(d)) {
        op = decode_emit_mem(d, sized(SOP_mov_mr_8, size), size, SOFT_WRITE);
        op->a = reg_operand(d, size);
    } else {
        op = decode_emit(d, sized(SOP_mov_rr_8, size));
        op->a = rm_operand(d, size);
        op->b = reg_operand(d, size);
    }
    return SOFT_DECODED;
}

static enum soft_decoded on_mov_from_rm(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = width(d, opcode);
    struct soft_op *op;

    decode_modrm(d);
    if (decode_is_mem(d)) {
        op = decode_emit_mem(d, sized(SOP_mov_rm_8, size), size, SOFT_READ);
    } else {
        op = decode_emit(d, sized(SOP_mov_rr_8, size));
        op->b = rm_operand(d, size);
    }
    op->a = reg_operand(d, size);
    return SOFT_DECODED;
}

static enum soft_decoded on_mov_imm_rm(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = width(d, opcode);
    struct soft_op *op;

    decode_modrm(d);
    if (d->reg & 7)
        return SOFT_UNDEFINED;
    if (decode_is_mem(d)) {
        op = decode_emit_mem(d, sized(SOP_mov_mi_8, size), size, SOFT_WRITE);
    } else {
        op = decode_emit(d, sized(SOP_mov_ri_8, size));
        op->a = rm_operand(d, size);
    }
    op->imm = (uint64_t)decode_imm(d, imm_size(size));
    return SOFT_DECODED;
}

static enum soft_decoded on_mov_imm(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = opcode & 8 ? d->operand_size : 1;
    struct soft_op *op = decode_emit(d, sized(SOP_mov_ri_8, size));

    op->a = decode_gpr(d, low_register(d, opcode), size);
    op->imm = (uint64_t)decode_imm(d, size);
    return SOFT_DECODED;
}

static enum soft_decoded on_mov_offset(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = width(d, opcode);
    bool is_store = opcode & 2;
    uint64_t address = (uint64_t)decode_imm(d, d->address_size);

    d->base = d->index = REG_OFFSET(SOFT_REG_ZERO);
    d->scale = 0;
    d->is_rip_relative = false;
    d->default_segment = SOFT_DS;
    d->disp = (int32_t)address;
    if (decode_is_64bit(d) && d->address_size == 8 && (uint64_t)d->disp != address) {
        struct soft_op *load = decode_emit(d, SOP_mov_ri_64);

        load->a = d->base = REG_OFFSET(SOFT_REG_TEMP);
        load->imm = address;
        d->disp = 0;
    }
    decode_emit_mem(d, sized(is_store ? SOP_mov_mr_8 : SOP_mov_rm_8, size), size,
                    is_store ? SOFT_WRITE : SOFT_READ);
    return SOFT_DECODED;
}

/* MOVSXD, and ARPL outside 64-bit mode. */
static enum soft_decoded on_movsxd(struct soft_decoder *d, uint8_t opcode)
{
    struct soft_op *op;

    (void)opcode;
    if (!decode_is_64bit(d))
        return legacy_decode_arpl(d);
    if (d->operand_size != 8)
        return on_mov_from_rm(d, 0x8b);
    decode_modrm(d);
    if (decode_is_mem(d)) {
        op = decode_emit_mem(d, SOP_sx32_64_m, 4, SOFT_READ);
    } else {
        op = decode_emit(d, SOP_sx32_64_r);
        op->b = REG_OFFSET(d->rm);
    }
    op->a = REG_OFFSET(d->reg);
    return SOFT_DECODED;
}

static enum soft_decoded on_lea(struct soft_decoder *d, uint8_t opcode)
{
    (void)opcode;
    decode_modrm(d);
    if (!decode_is_mem(d))
        return SOFT_UNDEFINED;
    decode_emit_lea(d, sized3(SOP_lea_16, d->operand_size))->a = REG_OFFSET(d->reg);
    return SOFT_DECODED;
}

static enum soft_decoded on_xchg(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = width(d, opcode);
    struct soft_op *op;

    decode_modrm(d);
    if (decode_is_mem(d)) {
        d->lock_used = true;
        op = decode_emit_mem(d, sized(SOP_xchg_m_8, size), size, SOFT_WRITE);
    } else {
        op = decode_emit(d, sized(SOP_xchg_r_8, size));
        op->b = rm_operand(d, size);
    }
    op->a = reg_operand(d, size);
    return SOFT_DECODED;
}

static enum soft_decoded on_xchg_accumulator(struct soft_decoder *d, uint8_t opcode)
{
    uint8_t reg = low_register(d, opcode);

    if (reg == 0 ||
        (opcode == 0x90 && d->repeat == 0xf3)) { /* NOP; with F3 PAUSE, whatever REX says */
        decode_emit(d, SOP_nop);
        return SOFT_DECODED;
    }
    decode_emit(d, sized(SOP_xchg_r_8, d->operand_size))->b = REG_OFFSET(reg);
    return SOFT_DECODED;
}

static enum soft_decoded on_convert(struct soft_decoder *d, uint8_t opcode)
{
    enum soft_op_kind first = opcode == 0x98 ? SOP_cbw : SOP_cwd;

    decode_emit(d, first + (unsigned)__builtin_ctz(d->operand_size) - 1);
    return SOFT_DECODED;
}

static enum soft_decoded on_flag(struct soft_decoder *d, uint8_t opcode)
{
    static const uint16_t kinds[] = {
        [0x9e - 0x9e] = SOP_sahf, [0x9f - 0x9e] = SOP_lahf, [0xf5 - 0x9e] = SOP_cmc,
        [0xf8 - 0x9e] = SOP_clc,  [0xf9 - 0x9e] = SOP_stc,  [0xfc - 0x9e] = SOP_cld,
        [0xfd - 0x9e] = SOP_std,
    };

    decode_emit(d, kinds[opcode - 0x9e]);
    return SOFT_DECODED;
}

static enum soft_decoded on_xlat(struct soft_decoder *d, uint8_t opcode)
{
    (void)opcode;
    d->base = REG_OFFSET(SOFT_RBX);
    d->index = REG_OFFSET(SOFT_REG_TEMP);
    d->scale = 0;
    d->disp = 0;
    d->is_rip_relative = false;
    d->default_segment = SOFT_DS;
    decode_emit(d, SOP_zx8_r)->a = REG_OFFSET(SOFT_REG_TEMP); /* TEMP = AL */
    decode_emit_mem(d, SOP_mov_rm_8, 1, SOFT_READ);
    return SOFT_DECODED;
}

/* --- Stack --- */

static enum soft_decoded on_push_register(struct soft_decoder *d, uint8_t opcode)
{
    if (!decode_is_64bit(d))
        return legacy_decode_push(d, REG_OFFSET(opcode & 7));
    decode_emit(d, d->operand_size == 2 ? SOP_push_r_16 : SOP_push_r)->a =
        REG_OFFSET(low_register(d, opcode));
    return SOFT_DECODED;
}

static enum soft_decoded on_pop_register(struct soft_decoder *d, uint8_t opcode)
{
    if (!decode_is_64bit(d))
        return legacy_decode_pop(d, REG_OFFSET(opcode & 7));
    decode_emit(d, d->operand_size == 2 ? SOP_pop_r_16 : SOP_pop_r)->a =
        REG_OFFSET(low_register(d, opcode));
    return SOFT_DECODED;
}

static enum soft_decoded on_push_imm(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = imm_size(d->operand_size);
    uint64_t imm = (uint64_t)decode_imm(d, opcode == 0x6a ? 1 : size);

    if (!decode_is_64bit(d))
        return legacy_decode_push_imm(d, imm);
    decode_emit(d, d->operand_size == 2 ? SOP_push_i_16 : SOP_push_i)->imm = imm;
    return SOFT_DECODED;
}

static enum soft_decoded emit_push_rm(struct soft_decoder *d)
{
    if (!decode_is_64bit(d))
        return legacy_decode_push_rm(d);
    if (decode_is_mem(d)) {
        if (d->operand_size == 2) {
            decode_emit_mem(d, SOP_zx16_m, 2, SOFT_READ)->a = REG_OFFSET(SOFT_REG_TEMP);
            decode_emit(d, SOP_push_r_16)->a = REG_OFFSET(SOFT_REG_TEMP);
        } else {
            decode_emit_mem(d, SOP_push_m, 8, SOFT_READ);
        }
        return SOFT_DECODED;
    }
    decode_emit(d, d->operand_size == 2 ? SOP_push_r_16 : SOP_push_r)->a = REG_OFFSET(d->rm);
    return SOFT_DECODED;
}

static enum soft_decoded on_pop_rm(struct soft_decoder *d, uint8_t opcode)
{
    (void)opcode;
    decode_modrm(d);
    if (d->reg & 7)
        return SOFT_UNDEFINED;
    if (!decode_is_64bit(d) || (decode_is_mem(d) && d->operand_size == 2))
        return legacy_decode_pop_rm(d);
    if (decode_is_mem(d))
        decode_emit_mem(d, SOP_pop_m, 8, SOFT_WRITE);
    else
        decode_emit(d, d->operand_size == 2 ? SOP_pop_r_16 : SOP_pop_r)->a = REG_OFFSET(d->rm);
    return SOFT_DECODED;
}

static enum soft_decoded on_leave(struct soft_decoder *d, uint8_t opcode)
{
    (void)opcode;
    if (!decode_is_64bit(d) || d->operand_size == 2)
        return legacy_decode_leave(d);
    decode_emit(d, SOP_leave);
    return SOFT_DECODED;
}

static enum soft_decoded on_pushf(struct soft_decoder *d, uint8_t opcode)
{
    (void)opcode;
    if (!decode_is_64bit(d) || d->operand_size == 2)
        return legacy_decode_pushf(d);
    decode_emit(d, SOP_pushf);
    return SOFT_DECODED;
}

/* --- Branches --- */

/* Displacement of a near branch. 64-bit mode ignores the operand size prefix. */
static int64_t branch_displacement(struct soft_decoder *d, bool is_short_form)
{
    if (is_short_form)
        return decode_imm(d, 1);
    return decode_imm(d, decode_is_64bit(d) ? 4 : d->operand_size);
}

/* 0, 1, 2 for an instruction pointer of 64, 32, 16 bits. */
static unsigned branch_width(const struct soft_decoder *d)
{
    return decode_is_64bit(d) ? 0 : d->operand_size == 4 ? 1 : 2;
}

enum soft_decoded decode_jcc(struct soft_decoder *d, uint8_t opcode, bool is_short_form)
{
    int64_t displacement = branch_displacement(d, is_short_form);
    struct soft_op *op = decode_emit(d, SOP_jcc64_0 + branch_width(d) * 16 + (opcode & 15));

    decode_set_target(d, op, displacement);
    return SOFT_DECODED_END;
}

static enum soft_decoded on_jcc(struct soft_decoder *d, uint8_t opcode)
{
    return decode_jcc(d, opcode, true);
}

static enum soft_decoded on_jmp(struct soft_decoder *d, uint8_t opcode)
{
    int64_t displacement = branch_displacement(d, opcode == 0xeb);
    struct soft_op *op = decode_emit(d, SOP_jmp64 + branch_width(d));

    decode_set_target(d, op, displacement);
    return SOFT_DECODED_END;
}

static enum soft_decoded on_call(struct soft_decoder *d, uint8_t opcode)
{
    int64_t displacement = branch_displacement(d, false);
    struct soft_op *op;

    (void)opcode;
    if (decode_is_64bit(d))
        op = decode_emit(d, SOP_call);
    else
        op = legacy_emit_call(d);
    decode_set_target(d, op, displacement);
    return SOFT_DECODED_END;
}

static enum soft_decoded on_ret(struct soft_decoder *d, uint8_t opcode)
{
    uint16_t release = opcode == 0xc2 ? (uint16_t)decode_imm(d, 2) : 0;

    if (!decode_is_64bit(d))
        return legacy_decode_ret(d, release);
    decode_emit(d, release ? SOP_ret_n : SOP_ret)->imm = release;
    return SOFT_DECODED_END;
}

static enum soft_decoded on_loop(struct soft_decoder *d, uint8_t opcode)
{
    int64_t displacement = decode_imm(d, 1);
    struct soft_op *op = decode_emit_call(d, SOP_call_end, legacy_loop);

    op->c = opcode & 3;
    op->aux = (uint32_t)d->address_size << 8 | (decode_is_64bit(d) ? 8u : d->operand_size);
    op->disp = (int32_t)displacement;
    return SOFT_DECODED_END;
}

static enum soft_decoded on_group5_near(struct soft_decoder *d, bool is_call)
{
    if (!decode_is_64bit(d))
        return legacy_decode_near_indirect(d, is_call);
    if (decode_is_mem(d))
        decode_emit_mem(d, is_call ? SOP_call_m : SOP_jmp_m, 8, SOFT_READ);
    else
        decode_emit(d, is_call ? SOP_call_r : SOP_jmp_r)->a = REG_OFFSET(d->rm);
    return SOFT_DECODED_END;
}

static enum soft_decoded on_group45(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = width(d, opcode);

    decode_modrm(d);
    unsigned digit = d->reg & 7;

    if (digit < 2) {
        emit_unary(d, digit ? SOP_dec_r_8 : SOP_inc_r_8, size, true);
        return SOFT_DECODED;
    }
    if (opcode == 0xfe)
        return SOFT_UNDEFINED;
    switch (digit) {
    case 2:
    case 4:
        return on_group5_near(d, digit == 2);
    case 3:
    case 5:
        return transfer_decode_far_indirect(d, digit == 3);
    case 6:
        return emit_push_rm(d);
    default:
        return SOFT_UNDEFINED;
    }
}

static enum soft_decoded on_wait(struct soft_decoder *d, uint8_t opcode)
{
    return x87_decode(d, opcode);
}

/* Those that 64-bit mode has not. */
static enum soft_decoded on_legacy(struct soft_decoder *d, uint8_t opcode)
{
    if (decode_is_64bit(d))
        return SOFT_UNDEFINED;
    return legacy_decode(d, opcode);
}

/* LES and LDS; where they would have a register operand, or do not exist, VEX. */
static enum soft_decoded on_load_far(struct soft_decoder *d, uint8_t opcode)
{
    bool has_register = d->position < d->available && d->bytes[d->position] >= 0xc0;

    if (decode_is_64bit(d) || (has_register && !(d->mode & SOFT_MODE_REAL)))
        return vex_decode(d, opcode);
    return legacy_decode(d, opcode);
}

static decode_fn *const one_byte_map[256] = {
    [0x00 ... 0x05] = on_alu,
    [0x06 ... 0x07] = on_legacy,
    [0x08 ... 0x0d] = on_alu,
    [0x0e] = on_legacy,
    [0x10 ... 0x15] = on_alu,
    [0x16 ... 0x17] = on_legacy,
    [0x18 ... 0x1d] = on_alu,
    [0x1e ... 0x1f] = on_legacy,
    [0x20 ... 0x25] = on_alu,
    [0x27] = on_legacy,
    [0x28 ... 0x2d] = on_alu,
    [0x2f] = on_legacy,
    [0x30 ... 0x35] = on_alu,
    [0x37] = on_legacy,
    [0x38 ... 0x3d] = on_alu,
    [0x3f] = on_legacy,
    [0x40 ... 0x4f] = on_inc_dec_short,
    [0x50 ... 0x57] = on_push_register,
    [0x58 ... 0x5f] = on_pop_register,
    [0x60 ... 0x62] = on_legacy,
    [0x63] = on_movsxd,
    [0x68] = on_push_imm,
    [0x69] = on_imul_imm,
    [0x6a] = on_push_imm,
    [0x6b] = on_imul_imm,
    [0x6c ... 0x6f] = string_decode,
    [0x70 ... 0x7f] = on_jcc,
    [0x80 ... 0x83] = on_alu_imm,
    [0x84 ... 0x85] = on_test,
    [0x86 ... 0x87] = on_xchg,
    [0x88 ... 0x89] = on_mov_to_rm,
    [0x8a ... 0x8b] = on_mov_from_rm,
    [0x8c] = transfer_decode_mov_from_segment,
    [0x8d] = on_lea,
    [0x8e] = transfer_decode_mov_to_segment,
    [0x8f] = on_pop_rm,
    [0x90 ... 0x97] = on_xchg_accumulator,
    [0x98 ... 0x99] = on_convert,
    [0x9a] = on_legacy,
    [0x9b] = on_wait,
    [0x9c] = on_pushf,
    [0x9d] = system_decode_one_byte,
    [0x9e ... 0x9f] = on_flag,
    [0xa0 ... 0xa3] = on_mov_offset,
    [0xa4 ... 0xa7] = string_decode,
    [0xa8 ... 0xa9] = on_test_accumulator,
    [0xaa ... 0xaf] = string_decode,
    [0xb0 ... 0xbf] = on_mov_imm,
    [0xc0 ... 0xc1] = on_shift,
    [0xc2 ... 0xc3] = on_ret,
    [0xc4 ... 0xc5] = on_load_far,
    [0xc6 ... 0xc7] = on_mov_imm_rm,
    [0xc8] = legacy_decode_enter,
    [0xc9] = on_leave,
    [0xca ... 0xcb] = transfer_decode_far_return,
    [0xcc ... 0xcd] = system_decode_one_byte,
    [0xce] = on_legacy,
    [0xcf] = system_decode_one_byte,
    [0xd0 ... 0xd3] = on_shift,
    [0xd4 ... 0xd6] = on_legacy,
    [0xd7] = on_xlat,
    [0xd8 ... 0xdf] = x87_decode,
    [0xe0 ... 0xe3] = on_loop,
    [0xe4 ... 0xe7] = system_decode_one_byte,
    [0xe8] = on_call,
    [0xe9] = on_jmp,
    [0xea] = on_legacy,
    [0xeb] = on_jmp,
    [0xec ... 0xef] = system_decode_one_byte,
    [0xf1] = system_decode_one_byte,
    [0xf4] = system_decode_one_byte,
    [0xf5] = on_flag,
    [0xf6 ... 0xf7] = on_group3,
    [0xf8 ... 0xf9] = on_flag,
    [0xfa ... 0xfb] = system_decode_one_byte,
    [0xfc ... 0xfd] = on_flag,
    [0xfe ... 0xff] = on_group45,
};

enum soft_decoded decode_one_byte(struct soft_decoder *d, uint8_t opcode)
{
    decode_fn *decode = one_byte_map[opcode];

    return decode ? decode(d, opcode) : SOFT_UNDEFINED;
}
