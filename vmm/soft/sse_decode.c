/* SPDX-License-Identifier: MIT */
/*
 * sse_decode: finds the form of an SSE or MMX instruction, checks whether it exists in this mode,
 * and emits its operation. The state instructions of 0F AE are here too.
 */
#include "vmm/soft/bmi.h"
#include "vmm/soft/crypto.h"
#include "vmm/soft/decode.h"
#include "vmm/soft/fxsave.h"
#include "vmm/soft/sse.h"
#include "vmm/soft/xsave.h"

static enum sse_prefix prefix_of(const struct soft_decoder *d)
{
    switch (decode_mandatory_prefix(d)) {
    case 0x66:
        return SSE_66;
    case 0xf3:
        return SSE_F3;
    case 0xf2:
        return SSE_F2;
    default:
        return SSE_NONE;
    }
}

static bool exists(const struct sse_form *form)
{
    return form->reg || form->mem;
}

typedef const struct sse_form form_table[SSE_PREFIXES][256];

static const struct sse_form *find(enum sse_prefix prefix, uint8_t opcode)
{
    static form_table *const rooms[] = {&sse_float_forms, &sse_integer_forms, &sse_move_forms,
                                        &mmx_forms};

    for (unsigned i = 0; i < ARRAY_SIZE(rooms); i++)
        if (exists(&(*rooms[i])[prefix][opcode]))
            return &(*rooms[i])[prefix][opcode];
    return NULL;
}

static bool has_feature(const struct soft_decoder *d, uint8_t feature)
{
    if (feature > 32)
        return d->cpu->cpuid_7_ebx >> (feature - 33) & 1;
    return feature == SSE_ALWAYS || d->cpu->cpuid_1_ecx >> (feature - 1) & 1;
}

/* The immediate shift groups: which ModRM.reg they know. */
static bool is_valid_shift(uint8_t opcode, unsigned reg, bool is_mmx)
{
    static const uint8_t known[3] = {1 << 2 | 1 << 4 | 1 << 6, 1 << 2 | 1 << 4 | 1 << 6,
                                     1 << 2 | 1 << 3 | 1 << 6 | 1 << 7};
    bool is_byte_shift = opcode == 0x73 && (reg & 1);

    return known[opcode - 0x71] >> (reg & 7) & 1 && !(is_mmx && is_byte_shift);
}

static bool is_valid(const struct soft_decoder *d, const struct sse_form *form, uint8_t opcode)
{
    if (!form || !has_feature(d, form->feature) || d->mode & SOFT_MODE_EM)
        return false;
    if (d->mode & SOFT_MODE_NO_SSE && !(form->flags & SSE_NO_OSFXSR))
        return false;
    if (form->flags & SSE_SHIFT_GROUP && !is_valid_shift(opcode, d->reg, form->flags & SSE_MMX))
        return false;
    return decode_is_mem(d) ? form->mem != NULL : form->reg != NULL;
}

/* MASKMOVQ and MASKMOVDQU: the second operand in memory is at rDI. */
static void address_rdi(struct soft_decoder *d)
{
    d->base = SOFT_RDI * 8;
    d->index = SOFT_REG_ZERO * 8;
    d->scale = 0;
    d->disp = 0;
    d->is_rip_relative = false;
    d->default_segment = SOFT_DS;
}

static enum soft_decoded emit(struct soft_decoder *d, const struct sse_form *form)
{
    enum soft_op_kind kind = form->flags & SSE_FLAGS ? SOP_call_flags : SOP_call_c;
    bool is_wide = d->rex & 8;
    unsigned size = form->flags & SSE_WIDE_MEM && is_wide ? 8 : form->size;
    enum soft_access access = form->flags & SSE_STORES ? SOFT_WRITE : SOFT_READ;
    uint8_t rm = d->rm, reg = d->reg;
    struct soft_op *op;

    if (form->flags & SSE_AT_RDI)
        address_rdi(d);
    if (decode_is_mem(d))
        op = decode_emit_call_mem(d, kind, form->mem, size, access);
    else if (form->flags & SSE_AT_RDI)
        op = decode_emit_call_mem(d, kind, form->reg, size, access);
    else
        op = decode_emit_call(d, kind, form->reg);
    op->a = reg;
    op->c = rm;
    op->aux = is_wide ? SSE_AUX_W : 0;
    if (form->flags & SSE_IMM8)
        op->aux |= decode_u8(d);
    return SOFT_DECODED;
}

bool sse_emit_borrowed(struct soft_decoder *d, unsigned map, unsigned pp, uint8_t opcode)
{
    const struct sse_form *form = map == 3 ? &sse4_forms_3a[pp][opcode] : find(pp, opcode);

    if (!form || !(decode_is_mem(d) ? form->mem : form->reg))
        return false;
    emit(d, form);
    return true;
}

/* --- 0F AE: state, fences, cache lines --- */

static bool run_mfence(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)cpu;
    (void)op;
    atomic_thread_fence(memory_order_seq_cst);
    return true;
}

static bool run_clflush(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t byte;

    return soft_load(cpu, soft_ea(cpu, op), &byte, 1);
}

static enum soft_decoded decode_fence(struct soft_decoder *d)
{
    if (decode_mandatory_prefix(d) || (d->reg & 7) < 5)
        return SOFT_UNDEFINED;
    if ((d->reg & 7) == 6)
        decode_emit_call(d, SOP_call_c, run_mfence);
    else
        decode_emit(d, SOP_nop);
    return SOFT_DECODED;
}

enum soft_decoded sse_decode_mxcsr(struct soft_decoder *d)
{
    bool is_load = (d->reg & 7) == 2;

    if (d->mode & SOFT_MODE_TS)
        return decode_emit_raise(d, SOFT_NM, 0);
    decode_emit_call_mem(d, SOP_call_c, is_load ? fxsave_run_ldmxcsr : fxsave_run_stmxcsr, 4,
                         is_load ? SOFT_READ : SOFT_WRITE);
    return SOFT_DECODED;
}

static enum soft_decoded decode_fxsave(struct soft_decoder *d)
{
    bool is_load = (d->reg & 7) == 1;
    struct soft_op *op;

    if (d->mode & (SOFT_MODE_EM | SOFT_MODE_TS))
        return decode_emit_raise(d, SOFT_NM, 0);
    op = decode_emit_call_mem(d, SOP_call_c, is_load ? fxsave_run_fxrstor : fxsave_run_fxsave, 512,
                              is_load ? SOFT_READ : SOFT_WRITE);
    op->aux = (d->rex & 8 ? FXSAVE_AUX_W : 0) | (decode_is_64bit(d) ? FXSAVE_AUX_LONG : 0);
    return SOFT_DECODED;
}

static enum soft_decoded decode_group_ae(struct soft_decoder *d)
{
    decode_modrm(d);
    if (!decode_is_mem(d))
        return decode_fence(d);
    if (decode_mandatory_prefix(d))
        return SOFT_UNDEFINED;
    switch (d->reg & 7) {
    case 0:
    case 1:
        return decode_fxsave(d);
    case 2:
    case 3:
        return d->mode & (SOFT_MODE_EM | SOFT_MODE_NO_SSE) ? SOFT_UNDEFINED : sse_decode_mxcsr(d);
    case 4:
    case 5:
    case 6:
        return xsave_decode_area(d, 0xae);
    case 7:
        decode_emit_call_mem(d, SOP_call_c, run_clflush, 1, SOFT_READ);
        return SOFT_DECODED;
    default:
        return SOFT_UNDEFINED;
    }
}

/* --- 0F 77 --- */

static enum soft_decoded decode_emms(struct soft_decoder *d)
{
    if (decode_mandatory_prefix(d) || d->mode & SOFT_MODE_EM)
        return SOFT_UNDEFINED;
    if (d->mode & SOFT_MODE_TS)
        return decode_emit_raise(d, SOFT_NM, 0);
    decode_emit_call(d, SOP_call_c, mmx_run_emms);
    return SOFT_DECODED;
}

/* --- 0F 38 F0 and F1 with F2: CRC32 --- */

static bool crc32(struct soft_cpu *cpu, const struct soft_op *op, uint64_t operand)
{
    uint32_t crc = (uint32_t)cpu->r[op->a];
    uint64_t wide = crc;

    switch (op->aux) {
    case 1:
        __asm__("crc32b %1, %0" : "+r"(crc) : "r"((uint8_t)operand));
        break;
    case 2:
        __asm__("crc32w %1, %0" : "+r"(crc) : "r"((uint16_t)operand));
        break;
    case 4:
        __asm__("crc32l %1, %0" : "+r"(crc) : "r"((uint32_t)operand));
        break;
    default:
        __asm__("crc32q %1, %0" : "+r"(wide) : "r"(operand));
        crc = (uint32_t)wide;
        break;
    }
    cpu->r[op->a] = crc;
    return true;
}

/* In `c`: the offset of the register, which may be AH and its like. */
static bool run_crc32_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t operand = 0;

    memcpy(&operand, (const char *)cpu->r + op->c, op->aux);
    return crc32(cpu, op, operand);
}

static bool run_crc32_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t operand = 0;

    return soft_load(cpu, soft_ea(cpu, op), &operand, op->aux) && crc32(cpu, op, operand);
}

static enum soft_decoded decode_crc32(struct soft_decoder *d, uint8_t opcode)
{
    unsigned size = opcode == 0xf0 ? 1 : d->operand_size;
    struct soft_op *op;
    uint8_t reg;

    if (d->repeat != 0xf2 || !has_feature(d, SSE_FEATURE_SSE4_2))
        return SOFT_UNDEFINED;
    decode_modrm(d);
    reg = d->reg;
    if (decode_is_mem(d)) {
        op = decode_emit_call_mem(d, SOP_call_c, run_crc32_mem, size, SOFT_READ);
    } else {
        op = decode_emit_call(d, SOP_call_c, run_crc32_reg);
        op->c = decode_gpr(d, d->rm, size);
    }
    op->a = reg;
    op->aux = size;
    return SOFT_DECODED;
}

static const struct sse_form *find_three_byte(struct soft_decoder *d, form_table *table,
                                              uint8_t opcode)
{
    const struct sse_form *form = &(*table)[prefix_of(d)][opcode];
    unsigned map = table == &sse4_forms_38 ? 2 : 3;

    return exists(form) ? form : crypto_find(map, prefix_of(d), opcode);
}

enum soft_decoded sse_decode(struct soft_decoder *d, uint8_t opcode)
{
    const struct sse_form *form;

    if (opcode == 0xae)
        return decode_group_ae(d);
    if (opcode == 0x77)
        return decode_emms(d);
    if (opcode == 0x38 || opcode == 0x3a) {
        form_table *table = opcode == 0x38 ? &sse4_forms_38 : &sse4_forms_3a;
        bool is_38 = opcode == 0x38;

        opcode = decode_u8(d);
        if (is_38 && (opcode == 0xf0 || opcode == 0xf1))
            return d->repeat ? decode_crc32(d, opcode) : bmi_decode_movbe(d, opcode);
        form = find_three_byte(d, table, opcode);
    } else {
        form = find(prefix_of(d), opcode);
    }
    if (!form)
        return SOFT_UNDEFINED;
    decode_modrm(d);
    if (!is_valid(d, form, opcode))
        return SOFT_UNDEFINED;
    if (d->mode & SOFT_MODE_TS)
        return decode_emit_raise(d, SOFT_NM, 0);
    return emit(d, form);
}
