/* SPDX-License-Identifier: MIT */
/*
 * decode: prefixes, ModRM and the emission of operations; the opcode maps are next door.
 *
 * In 64-bit mode a memory operand is base + index * scale + disp in the operation itself; a second
 * operation comes before it only where a segment base is a third term or the address has 32 bits.
 * In the other modes every operand goes through `address_segment`, which checks the limit, adds the
 * base and leaves the linear address in SOFT_REG_TEMP.
 */
#include "vmm/soft/decode.h"

#define REG_OFFSET(n) ((uint8_t)((n)*8))

uint8_t decode_u8(struct soft_decoder *d)
{
    if (d->position >= d->available) {
        d->is_short = true;
        return 0;
    }
    return d->bytes[d->position++];
}

int64_t decode_imm(struct soft_decoder *d, unsigned size)
{
    uint64_t value = 0;
    unsigned shift = 64 - size * 8;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)decode_u8(d) << (8 * i);
    return (int64_t)(value << shift) >> shift;
}

uint8_t decode_gpr(const struct soft_decoder *d, unsigned n, unsigned size)
{
    if (size == 1 && !d->rex && n >= 4 && n < 8)
        return (uint8_t)((n - 4) * 8 + 1);
    return REG_OFFSET(n);
}

static void use_stack_segment(struct soft_decoder *d)
{
    d->default_segment = SOFT_SS;
}

static void decode_memory_16(struct soft_decoder *d)
{
    static const uint8_t bases[8] = {SOFT_RBX, SOFT_RBX, SOFT_RBP, SOFT_RBP,
                                     SOFT_RSI, SOFT_RDI, SOFT_RBP, SOFT_RBX};
    static const uint8_t indexes[8] = {SOFT_RSI,      SOFT_RDI,      SOFT_RSI,      SOFT_RDI,
                                       SOFT_REG_ZERO, SOFT_REG_ZERO, SOFT_REG_ZERO, SOFT_REG_ZERO};

    if (d->mod == 0 && d->rm == 6) {
        d->disp = (int32_t)decode_imm(d, 2);
        return;
    }
    d->base = REG_OFFSET(bases[d->rm]);
    d->index = REG_OFFSET(indexes[d->rm]);
    if (bases[d->rm] == SOFT_RBP)
        use_stack_segment(d);
    if (d->mod)
        d->disp = (int32_t)decode_imm(d, d->mod == 1 ? 1 : 2);
}

static void decode_sib(struct soft_decoder *d)
{
    uint8_t sib = decode_u8(d);
    unsigned index = (sib >> 3 & 7) | ((d->rex & 2u) << 2);
    unsigned base = (sib & 7) | ((d->rex & 1u) << 3);

    if (index != 4) {
        d->index = REG_OFFSET(index);
        d->scale = sib >> 6;
    }
    if ((sib & 7) == 5 && d->mod == 0) {
        d->disp = (int32_t)decode_imm(d, 4);
        return;
    }
    d->base = REG_OFFSET(base);
    if (base == SOFT_RSP || base == SOFT_RBP)
        use_stack_segment(d);
}

static void decode_memory(struct soft_decoder *d)
{
    if (d->rm == 4) {
        decode_sib(d);
    } else if (d->rm == 5 && d->mod == 0) {
        d->is_rip_relative = decode_is_64bit(d);
        d->disp = (int32_t)decode_imm(d, 4);
        return;
    } else {
        unsigned base = d->rm | ((d->rex & 1u) << 3);

        d->base = REG_OFFSET(base);
        if (base == SOFT_RBP)
            use_stack_segment(d);
    }
    if (d->mod == 1)
        d->disp = (int32_t)decode_imm(d, 1);
    else if (d->mod == 2)
        d->disp = (int32_t)decode_imm(d, 4);
}

void decode_modrm(struct soft_decoder *d)
{
    uint8_t modrm = decode_u8(d);

    d->mod = modrm >> 6;
    d->reg = (uint8_t)((modrm >> 3 & 7) | ((d->rex & 4u) << 1));
    d->rm = modrm & 7;
    d->base = d->index = REG_OFFSET(SOFT_REG_ZERO);
    d->scale = 0;
    d->disp = 0;
    d->is_rip_relative = false;
    d->default_segment = SOFT_DS;
    if (d->mod == 3)
        d->rm = (uint8_t)(d->rm | ((d->rex & 1u) << 3));
    else if (d->address_size == 2)
        decode_memory_16(d);
    else
        decode_memory(d);
}

/* --- Emission --- */

struct soft_op *decode_emit(struct soft_decoder *d, enum soft_op_kind kind)
{
    CHECK(d->op_count < SOFT_INSTRUCTION_OPS_MAX);
    struct soft_op *op = &d->ops[d->op_count++];

    *op = (struct soft_op){.handler = soft_handlers[kind]};
    return op;
}

static void set_address(struct soft_decoder *d, struct soft_op *op)
{
    op->b = d->base;
    op->index = d->index;
    op->scale = d->scale;
    op->disp = d->disp;
    if (d->is_rip_relative) {
        op->b = REG_OFFSET(SOFT_REG_START);
        d->rip_relative = op;
    }
}

/* Moves the address so far into SOFT_REG_TEMP, which becomes the new base. */
static struct soft_op *collapse_address(struct soft_decoder *d, enum soft_op_kind kind)
{
    struct soft_op *op = decode_emit(d, kind);

    set_address(d, op);
    d->base = REG_OFFSET(SOFT_REG_TEMP);
    d->index = REG_OFFSET(SOFT_REG_ZERO);
    d->scale = 0;
    d->disp = 0;
    d->is_rip_relative = false;
    return op;
}

static void add_segment_base(struct soft_decoder *d)
{
    unsigned slot = d->segment == SOFT_FS ? SOFT_REG_FSBASE : SOFT_REG_GSBASE;

    if (d->index == REG_OFFSET(SOFT_REG_ZERO)) {
        d->index = REG_OFFSET(slot);
        d->scale = 0;
    } else if (d->base == REG_OFFSET(SOFT_REG_ZERO)) {
        d->base = REG_OFFSET(slot);
    } else {
        collapse_address(d, SOP_address);
        d->index = REG_OFFSET(slot);
    }
}

static void prepare_long_address(struct soft_decoder *d, bool with_segment)
{
    if (d->address_size == 4)
        collapse_address(d, SOP_address_32);
    if (with_segment && d->segment >= SOFT_FS)
        add_segment_base(d);
}

static void prepare_legacy_address(struct soft_decoder *d, unsigned size, enum soft_access access)
{
    unsigned segment = d->segment >= 0 ? (unsigned)d->segment : d->default_segment;
    struct soft_op *op = collapse_address(d, SOP_address_segment);

    op->a = d->address_size == 2;
    op->c = (uint8_t)segment;
    op->aux = size | (access == SOFT_WRITE ? SOFT_ADDRESS_WRITE : 0);
}

/* The commonest moves have handlers for addresses without an index. */
static enum soft_op_kind without_index(const struct soft_decoder *d, enum soft_op_kind kind)
{
    if (d->index != REG_OFFSET(SOFT_REG_ZERO))
        return kind;
    switch (kind) {
    case SOP_mov_rm_32:
        return SOP_mov_rb_32;
    case SOP_mov_rm_64:
        return SOP_mov_rb_64;
    case SOP_mov_mr_32:
        return SOP_mov_br_32;
    case SOP_mov_mr_64:
        return SOP_mov_br_64;
    default:
        return kind;
    }
}

struct soft_op *decode_emit_mem(struct soft_decoder *d, enum soft_op_kind kind, unsigned size,
                                enum soft_access access)
{
    if (decode_is_64bit(d))
        prepare_long_address(d, true);
    else
        prepare_legacy_address(d, size, access);
    struct soft_op *op = decode_emit(d, without_index(d, kind));

    set_address(d, op);
    return op;
}

struct soft_op *decode_emit_lea(struct soft_decoder *d, enum soft_op_kind kind)
{
    if (d->address_size == 4)
        collapse_address(d, SOP_address_32);
    else if (d->address_size == 2)
        collapse_address(d, SOP_address_16);
    struct soft_op *op = decode_emit(d, kind);

    set_address(d, op);
    return op;
}

struct soft_op *decode_emit_call(struct soft_decoder *d, enum soft_op_kind kind,
                                 soft_helper *helper)
{
    struct soft_op *op = decode_emit(d, kind);

    op->helper = helper;
    return op;
}

struct soft_op *decode_emit_address(struct soft_decoder *d, soft_helper *helper)
{
    struct soft_op *op = collapse_address(d, SOP_call_c);

    op->helper = helper;
    return op;
}

struct soft_op *decode_emit_call_mem(struct soft_decoder *d, enum soft_op_kind kind,
                                     soft_helper *helper, unsigned size, enum soft_access access)
{
    struct soft_op *op = decode_emit_mem(d, kind, size, access);

    op->helper = helper;
    return op;
}

enum soft_decoded decode_emit_raise(struct soft_decoder *d, enum soft_vector vector,
                                    uint32_t error_code)
{
    struct soft_op *op = decode_emit(d, SOP_raise);

    op->imm = vector;
    op->aux = error_code;
    return SOFT_DECODED_END;
}

void decode_set_target(struct soft_decoder *d, struct soft_op *op, int64_t displacement)
{
    op->rel = (int32_t)displacement;
    d->branch = op;
}

/* --- One instruction --- */

static bool take_prefix(struct soft_decoder *d, uint8_t byte)
{
    switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
        /* ES, CS, SS and DS mean nothing in 64-bit mode, not even after FS or GS. */
        if (!decode_is_64bit(d))
            d->segment = (int8_t)(byte >> 3 & 3);
        break;
    case 0x64:
    case 0x65:
        d->segment = byte == 0x64 ? SOFT_FS : SOFT_GS;
        break;
    case 0x66:
        d->has_66 = true;
        break;
    case 0x67:
        d->has_67 = true;
        break;
    case 0xf0:
        d->has_lock = true;
        break;
    case 0xf2:
    case 0xf3:
        d->repeat = byte;
        break;
    default:
        return false;
    }
    return true;
}

/* Returns the opcode. A REX that is not the last prefix counts for nothing. */
static uint8_t decode_prefixes(struct soft_decoder *d)
{
    for (;;) {
        uint8_t byte = decode_u8(d);

        if (decode_is_64bit(d) && (byte & 0xf0) == 0x40)
            d->rex = byte;
        else if (take_prefix(d, byte))
            d->rex = 0;
        else
            return byte;
        if (d->is_short)
            return 0;
    }
}

static void set_sizes(struct soft_decoder *d)
{
    switch (d->mode & SOFT_MODE_SIZE_MASK) {
    case SOFT_MODE_64:
        d->operand_size = d->rex & 8 ? 8 : d->has_66 ? 2 : 4;
        d->address_size = d->has_67 ? 4 : 8;
        break;
    case SOFT_MODE_32:
        d->operand_size = d->has_66 ? 2 : 4;
        d->address_size = d->has_67 ? 2 : 4;
        break;
    default:
        d->operand_size = d->has_66 ? 4 : 2;
        d->address_size = d->has_67 ? 4 : 2;
        break;
    }
}

enum soft_decoded soft_decode(struct soft_decoder *d)
{
    d->position = 0;
    d->is_short = d->has_66 = d->has_67 = d->has_lock = false;
    d->rex = d->repeat = 0;
    d->segment = -1;
    d->op_count = 0;
    d->rip_relative = d->branch = NULL;
    d->lock_used = false;
    uint8_t opcode = decode_prefixes(d);
    enum soft_decoded result;

    set_sizes(d);
    if (opcode == 0x0f)
        result = decode_two_byte(d, decode_u8(d));
    else
        result = decode_one_byte(d, opcode);
    if (d->has_lock && !d->lock_used)
        result = SOFT_UNDEFINED;
    if (result == SOFT_UNDEFINED) {
        d->op_count = 0;
        d->rip_relative = d->branch = NULL;
    }
    return result;
}
