/* SPDX-License-Identifier: MIT */
/*
 * legacy: instructions of 16-bit and 32-bit code, and those of 64-bit code that are rare enough
 * not to need handlers of their own. All are helpers; speed is not their aim.
 */
#include "vmm/soft/legacy.h"

#include "vmm/soft/exception.h"
#include "vmm/soft/stack.h"
#include "vmm/soft/transfer.h"

#define REG_OFFSET(n) ((uint8_t)((n)*8))

/* Writes a result of 1, 2, 4 or 8 bytes the way registers take them. */
static void set_register(struct soft_cpu *cpu, uint8_t at, uint64_t value, unsigned size)
{
    memcpy(soft_reg64(cpu, at), &value, size == 4 ? 8 : size);
}

static uint64_t low_bytes(uint64_t value, unsigned size)
{
    return size == 8 ? value : value & ((UINT64_C(1) << (size * 8)) - 1);
}

/* The size of a push: 64-bit mode has no 32-bit ones. */
static unsigned stack_size(const struct soft_decoder *d)
{
    return decode_is_64bit(d) && d->operand_size == 4 ? 8 : d->operand_size;
}

/* --- Stack --- */

static bool push_value(struct soft_cpu *cpu, uint64_t value, unsigned size)
{
    uint64_t rsp = cpu->r[SOFT_RSP];

    if (!stack_push(cpu, &rsp, value, size))
        return false;
    cpu->r[SOFT_RSP] = rsp;
    return true;
}

static bool legacy_push(struct soft_cpu *cpu, const struct soft_op *op)
{
    return push_value(cpu, *soft_reg64(cpu, op->a), op->c);
}

static bool legacy_push_imm(struct soft_cpu *cpu, const struct soft_op *op)
{
    return push_value(cpu, (uint64_t)(int64_t)op->disp, op->c);
}

static bool legacy_push_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value;

    return soft_load(cpu, soft_ea(cpu, op), &value, op->c) && push_value(cpu, value, op->c);
}

static bool legacy_pop(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t rsp = cpu->r[SOFT_RSP], value;

    if (!stack_pop(cpu, &rsp, &value, op->c))
        return false;
    cpu->r[SOFT_RSP] = rsp;
    set_register(cpu, op->a, value, op->c);
    return true;
}

/* The address counts from RSP after the pop, which is undone if the store fails. */
static bool legacy_pop_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t old = cpu->r[SOFT_RSP], rsp = old, value, address;
    unsigned segment = op->aux >> 8 & 7;
    uint32_t mask = op->aux & 0x800 ? UINT16_MAX : UINT32_MAX;

    if (!stack_pop(cpu, &rsp, &value, op->c))
        return false;
    cpu->r[SOFT_RSP] = rsp;
    address = soft_ea(cpu, op);
    if ((soft_is_64bit(cpu) ||
         segment_check(cpu, segment, (uint32_t)address & mask, op->c, true, &address)) &&
        soft_store(cpu, address, &value, op->c))
        return true;
    cpu->r[SOFT_RSP] = old;
    return false;
}

enum soft_decoded legacy_decode_push(struct soft_decoder *d, uint8_t reg)
{
    struct soft_op *op = decode_emit_call(d, SOP_call_c, legacy_push);

    op->a = reg;
    op->c = d->operand_size;
    return SOFT_DECODED;
}

enum soft_decoded legacy_decode_pop(struct soft_decoder *d, uint8_t reg)
{
    struct soft_op *op = decode_emit_call(d, SOP_call_c, legacy_pop);

    op->a = reg;
    op->c = d->operand_size;
    return SOFT_DECODED;
}

enum soft_decoded legacy_decode_push_imm(struct soft_decoder *d, uint64_t imm)
{
    struct soft_op *op = decode_emit_call(d, SOP_call_c, legacy_push_imm);

    op->disp = (int32_t)imm;
    op->c = d->operand_size;
    return SOFT_DECODED;
}

enum soft_decoded legacy_decode_push_rm(struct soft_decoder *d)
{
    if (!decode_is_mem(d))
        return legacy_decode_push(d, REG_OFFSET(d->rm));
    decode_emit_call_mem(d, SOP_call_c, legacy_push_mem, d->operand_size, SOFT_READ)->c =
        d->operand_size;
    return SOFT_DECODED;
}

enum soft_decoded legacy_decode_pop_rm(struct soft_decoder *d)
{
    if (!decode_is_mem(d))
        return legacy_decode_pop(d, REG_OFFSET(d->rm));
    struct soft_op *op;

    if (decode_is_64bit(d)) {
        op = decode_emit_call_mem(d, SOP_call_c, legacy_pop_mem, d->operand_size, SOFT_WRITE);
    } else {
        unsigned segment = d->segment >= 0 ? (unsigned)d->segment : d->default_segment;

        op = decode_emit_call(d, SOP_call_c, legacy_pop_mem);
        op->b = d->base;
        op->index = d->index;
        op->scale = d->scale;
        op->disp = d->disp;
        op->aux = segment << 8 | (d->address_size == 2 ? 0x800 : 0);
    }
    op->c = d->operand_size;
    return SOFT_DECODED;
}

static bool legacy_pushf(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (cpu->rflags & RFLAGS_VM && (cpu->rflags & RFLAGS_IOPL) != RFLAGS_IOPL)
        return soft_raise(cpu, SOFT_GP, 0);
    return push_value(cpu, soft_get_rflags(cpu) & ~(RFLAGS_RF | RFLAGS_VM), op->c);
}

enum soft_decoded legacy_decode_pushf(struct soft_decoder *d)
{
    decode_emit_call(d, SOP_call_flags, legacy_pushf)->c = d->operand_size;
    return SOFT_DECODED;
}

static bool legacy_pusha(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t rsp = cpu->r[SOFT_RSP];

    for (unsigned reg = SOFT_RAX; reg <= SOFT_RDI; reg++)
        if (!stack_push(cpu, &rsp, cpu->r[reg], op->c))
            return false;
    cpu->r[SOFT_RSP] = rsp;
    return true;
}

static bool legacy_popa(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t rsp = cpu->r[SOFT_RSP], values[8];

    for (unsigned i = 0; i < 8; i++)
        if (!stack_pop(cpu, &rsp, &values[7 - i], op->c))
            return false;
    for (unsigned reg = SOFT_RAX; reg <= SOFT_RDI; reg++)
        if (reg != SOFT_RSP)
            set_register(cpu, REG_OFFSET(reg), values[reg], op->c);
    cpu->r[SOFT_RSP] = rsp;
    return true;
}

static bool legacy_leave(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t mask = segment_stack_mask(cpu), value;
    uint64_t rsp = mask == UINT16_MAX ? (cpu->r[SOFT_RSP] & ~mask) | (cpu->r[SOFT_RBP] & mask)
                                      : cpu->r[SOFT_RBP] & mask;

    if (!stack_pop(cpu, &rsp, &value, op->c))
        return false;
    cpu->r[SOFT_RSP] = rsp;
    set_register(cpu, REG_OFFSET(SOFT_RBP), value, op->c);
    return true;
}

enum soft_decoded legacy_decode_leave(struct soft_decoder *d)
{
    decode_emit_call(d, SOP_call_c, legacy_leave)->c = (uint8_t)stack_size(d);
    return SOFT_DECODED;
}

/* a: nesting level; aux: bytes of locals. */
static bool legacy_enter(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t rsp = cpu->r[SOFT_RSP], frame, value, rbp = cpu->r[SOFT_RBP], linear;
    uint64_t mask = segment_stack_mask(cpu);

    if (!stack_push(cpu, &rsp, rbp, op->c))
        return false;
    frame = rsp;
    for (unsigned i = 1; i < op->a; i++) {
        rbp = stack_move(cpu, rbp, -(int64_t)op->c);
        value = 0;
        if (!stack_linear(cpu, rbp & mask, op->c, false, &linear) ||
            !soft_load(cpu, linear, &value, op->c) || !stack_push(cpu, &rsp, value, op->c))
            return stack_fault(cpu);
    }
    if (op->a && !stack_push(cpu, &rsp, frame, op->c))
        return false;
    rsp = stack_move(cpu, rsp, -(int64_t)op->aux);
    /* The new top must be writable; nothing is written. */
    if (!stack_linear(cpu, rsp & mask, 1, true, &linear) || !soft_probe_write(cpu, linear, 1))
        return stack_fault(cpu);
    cpu->r[SOFT_RSP] = rsp;
    set_register(cpu, REG_OFFSET(SOFT_RBP), frame, op->c);
    return true;
}

enum soft_decoded legacy_decode_enter(struct soft_decoder *d, uint8_t opcode)
{
    struct soft_op *op = decode_emit_call(d, SOP_call_c, legacy_enter);

    (void)opcode;
    op->c = (uint8_t)stack_size(d);
    op->aux = (uint16_t)decode_imm(d, 2);
    op->a = decode_u8(d) & 31;
    return SOFT_DECODED;
}

/* --- Near control flow --- */

/* An instruction pointer of the operand's size, in the code segment's limit. */
static bool jump_to(struct soft_cpu *cpu, uint64_t rip, unsigned size)
{
    rip = low_bytes(rip, size);
    if (!soft_is_64bit(cpu) && rip > cpu->seg[SOFT_CS].limit)
        return soft_raise(cpu, SOFT_GP, 0);
    cpu->rip = rip;
    return true;
}

bool legacy_push_return(struct soft_cpu *cpu, const struct soft_op *op)
{
    return push_value(cpu, cpu->r[SOFT_REG_START] + op->offset + op->length, op->c);
}

struct soft_op *legacy_emit_call(struct soft_decoder *d)
{
    struct soft_op *op = decode_emit(d, SOP_call_legacy);

    op->c = d->operand_size;
    return op;
}

static bool legacy_ret(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t rsp = cpu->r[SOFT_RSP], rip;

    if (!stack_pop(cpu, &rsp, &rip, op->c) || !jump_to(cpu, rip, op->c))
        return false;
    cpu->r[SOFT_RSP] = stack_move(cpu, rsp, (int64_t)op->aux);
    return true;
}

enum soft_decoded legacy_decode_ret(struct soft_decoder *d, uint16_t release)
{
    struct soft_op *op = decode_emit_call(d, SOP_call_end, legacy_ret);

    op->c = d->operand_size;
    op->aux = release;
    return SOFT_DECODED_END;
}

/* a: a call; aux: in memory, else in register `index`. */
static bool legacy_near_indirect(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t target = 0, back = cpu->rip;

    if (!op->aux)
        target = *soft_reg64(cpu, op->index);
    else if (!soft_load(cpu, soft_ea(cpu, op), &target, op->c))
        return false;
    if (!jump_to(cpu, target, op->c))
        return false;
    return !op->a || push_value(cpu, back, op->c);
}

enum soft_decoded legacy_decode_near_indirect(struct soft_decoder *d, bool is_call)
{
    struct soft_op *op;

    if (decode_is_mem(d)) {
        op =
            decode_emit_call_mem(d, SOP_call_end, legacy_near_indirect, d->operand_size, SOFT_READ);
        op->aux = true;
    } else {
        op = decode_emit_call(d, SOP_call_end, legacy_near_indirect);
        op->index = REG_OFFSET(d->rm);
    }
    op->a = is_call;
    op->c = d->operand_size;
    return SOFT_DECODED_END;
}

bool legacy_loop(struct soft_cpu *cpu, const struct soft_op *op)
{
    unsigned address_size = op->aux >> 8, size = op->aux & 0xff;
    uint64_t count = low_bytes(cpu->r[SOFT_RCX] - (op->c != 3), address_size);
    bool zero = cpu->flags & SOFT_FLAG_ZF;
    bool taken = op->c == 3   ? !count
                 : op->c == 2 ? count
                 : op->c == 1 ? count && zero
                              : count && !zero;

    if (taken && !jump_to(cpu, cpu->rip + (uint64_t)(int64_t)op->disp, size))
        return false;
    if (op->c != 3)
        set_register(cpu, REG_OFFSET(SOFT_RCX), count, address_size);
    return true;
}

/* --- Decimal arithmetic --- */

static bool flag(const struct soft_cpu *cpu, uint32_t bit)
{
    return cpu->flags & bit;
}

/* SF, ZF and PF of AL; CF and AF as given; OF cleared. */
static void set_decimal_flags(struct soft_cpu *cpu, uint8_t al, bool carry, bool adjust)
{
    cpu->flags = (al & 0x80 ? SOFT_FLAG_SF : 0) | (al ? 0 : SOFT_FLAG_ZF) |
                 (__builtin_parity(al) ? 0 : SOFT_FLAG_PF) | (carry ? SOFT_FLAG_CF : 0) |
                 (adjust ? SOFT_FLAG_AF : 0);
}

static bool legacy_daa_das(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t al = (uint8_t)cpu->r[SOFT_RAX], old = al;
    bool carry = flag(cpu, SOFT_FLAG_CF), new_carry = false;
    bool adjust = (al & 15) > 9 || flag(cpu, SOFT_FLAG_AF);

    if (adjust) {
        new_carry = carry || (op->c ? al < 6 : al > 0xff - 6);
        al = (uint8_t)(op->c ? al - 6 : al + 6);
    }
    if (old > 0x99 || carry) {
        al = (uint8_t)(op->c ? al - 0x60 : al + 0x60);
        new_carry = true;
    }
    memcpy(&cpu->r[SOFT_RAX], &al, 1);
    set_decimal_flags(cpu, al, new_carry, adjust);
    return true;
}

static bool legacy_aaa_aas(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t ax = (uint16_t)cpu->r[SOFT_RAX];
    bool adjust = (ax & 15) > 9 || flag(cpu, SOFT_FLAG_AF);

    if (adjust)
        ax = (uint16_t)(op->c ? ax - 0x106 : ax + 0x106);
    ax &= 0xff0f;
    memcpy(&cpu->r[SOFT_RAX], &ax, 2);
    set_decimal_flags(cpu, (uint8_t)ax, adjust, adjust);
    return true;
}

static bool legacy_aam(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t al = (uint8_t)cpu->r[SOFT_RAX];

    if (!op->c)
        return soft_raise(cpu, SOFT_DE, 0);
    uint8_t result[2] = {(uint8_t)(al % op->c), (uint8_t)(al / op->c)};

    memcpy(&cpu->r[SOFT_RAX], result, 2);
    set_decimal_flags(cpu, result[0], false, false);
    return true;
}

static bool legacy_aad(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t ax = (uint16_t)cpu->r[SOFT_RAX];

    ax = (uint8_t)((ax & 0xff) + (ax >> 8) * op->c);
    memcpy(&cpu->r[SOFT_RAX], &ax, 2);
    set_decimal_flags(cpu, (uint8_t)ax, false, false);
    return true;
}

/* --- The rest --- */

static bool legacy_salc(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t al = flag(cpu, SOFT_FLAG_CF) ? 0xff : 0;

    (void)op;
    memcpy(&cpu->r[SOFT_RAX], &al, 1);
    return true;
}

static bool legacy_bound(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t limits[8];
    int64_t low, high, index;
    unsigned size = op->c;

    if (!soft_load(cpu, soft_ea(cpu, op), limits, size * 2))
        return false;
    if (size == 2) {
        int16_t words[2];

        memcpy(words, limits, 4);
        low = words[0];
        high = words[1];
        index = (int16_t)*soft_reg64(cpu, op->a);
    } else {
        int32_t words[2];

        memcpy(words, limits, 8);
        low = words[0];
        high = words[1];
        index = (int32_t)*soft_reg64(cpu, op->a);
    }
    return (index >= low && index <= high) || soft_raise(cpu, SOFT_BR, 0);
}

static bool legacy_into(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct exception exception = {.vector = SOFT_OF, .source = EXCEPTION_SOFTWARE, .rip = cpu->rip};

    (void)op;
    if (!flag(cpu, SOFT_FLAG_OF))
        return true;
    cpu->no_trap = true;
    return exception_enter(cpu, &exception);
}

/* The operand is written only if it changes, so only then must its segment allow that. */
static bool store_arpl(struct soft_cpu *cpu, const struct soft_op *op, uint16_t selector)
{
    uint64_t linear = soft_ea(cpu, op);
    uint32_t offset = (uint32_t)(linear - segment_base(cpu, op->c));

    return segment_check(cpu, op->c, offset, 2, true, &linear) &&
           soft_store(cpu, linear, &selector, 2);
}

static bool legacy_arpl(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t selector, other = (uint16_t)*soft_reg64(cpu, op->a);

    if (op->aux)
        selector = (uint16_t)*soft_reg64(cpu, op->c);
    else if (!soft_load(cpu, soft_ea(cpu, op), &selector, 2))
        return false;
    bool raises = (selector & 3) < (other & 3);

    if (raises) {
        selector = (uint16_t)((selector & 0xfffc) | (other & 3));
        if (op->aux)
            memcpy(soft_reg64(cpu, op->c), &selector, 2);
        else if (!store_arpl(cpu, op, selector))
            return false;
    }
    cpu->flags = (cpu->flags & ~SOFT_FLAG_ZF) | (raises ? SOFT_FLAG_ZF : 0);
    return true;
}

enum soft_decoded legacy_decode_arpl(struct soft_decoder *d)
{
    struct soft_op *op;

    if (d->mode & SOFT_MODE_REAL)
        return SOFT_UNDEFINED;
    decode_modrm(d);
    if (decode_is_mem(d)) {
        op = decode_emit_call_mem(d, SOP_call_flags, legacy_arpl, 2, SOFT_READ);
        op->c = (uint8_t)(d->segment >= 0 ? d->segment : d->default_segment);
        op->aux = 0;
    } else {
        op = decode_emit_call(d, SOP_call_flags, legacy_arpl);
        op->c = REG_OFFSET(d->rm);
        op->aux = 1;
    }
    op->a = REG_OFFSET(d->reg);
    return SOFT_DECODED;
}

static enum soft_decoded decode_bound(struct soft_decoder *d)
{
    decode_modrm(d);
    if (!decode_is_mem(d))
        return SOFT_UNDEFINED;
    struct soft_op *op =
        decode_emit_call_mem(d, SOP_call_c, legacy_bound, d->operand_size * 2u, SOFT_READ);

    op->a = REG_OFFSET(d->reg);
    op->c = d->operand_size;
    return SOFT_DECODED;
}

static enum soft_decoded emit(struct soft_decoder *d, soft_helper *helper, unsigned c)
{
    decode_emit_call(d, SOP_call_flags, helper)->c = (uint8_t)c;
    return SOFT_DECODED;
}

enum soft_decoded legacy_decode(struct soft_decoder *d, uint8_t opcode)
{
    switch (opcode) {
    case 0x27:
    case 0x2f:
        return emit(d, legacy_daa_das, opcode == 0x2f);
    case 0x37:
    case 0x3f:
        return emit(d, legacy_aaa_aas, opcode == 0x3f);
    case 0x60:
        return emit(d, legacy_pusha, d->operand_size);
    case 0x61:
        return emit(d, legacy_popa, d->operand_size);
    case 0x62:
        return decode_bound(d);
    case 0x9a:
    case 0xea:
        return transfer_decode_far_direct(d, opcode == 0x9a);
    case 0xc4:
    case 0xc5:
        return transfer_decode_load_far(d, opcode);
    case 0xce:
        decode_emit_call(d, SOP_call_end, legacy_into);
        return SOFT_DECODED_END;
    case 0xd4:
        return emit(d, legacy_aam, decode_u8(d));
    case 0xd5:
        return emit(d, legacy_aad, decode_u8(d));
    case 0xd6:
        return emit(d, legacy_salc, 0);
    default: /* PUSH and POP of ES, CS, SS, DS */
        return transfer_decode_segment_stack(d, opcode);
    }
}
