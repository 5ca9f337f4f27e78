/* SPDX-License-Identifier: MIT */
/*
 * vex_decode: the VEX prefix, what it must not meet, and the emission of what it stands before.
 *
 * Instructions that write no vector register, and moves into one whose upper half is zeroed behind
 * them, are those of SSE; the others are in vex_stubs.c and vex_move.c.
 */
#include "vmm/soft/bmi.h"
#include "vmm/soft/vex.h"

#define CPUID_1_ECX_PCLMUL (1u << 1)
#define CPUID_1_ECX_AES    (1u << 25)
#define CPUID_1_ECX_FMA    (1u << 12)
#define CPUID_1_ECX_AVX    (1u << 28)
#define CPUID_1_ECX_F16C   (1u << 29)
#define CPUID_7_EBX_AVX2   (1u << 5)

/* --- Instructions that are SSE's --- */

enum clears { CLEARS_NOTHING, CLEARS_REG, CLEARS_RM, CLEARS_XMM0 };

struct borrowed {
    uint8_t map, pp, opcode;
    uint8_t clears; /* enum clears: whose upper half */
    bool is_lig;
};

static const struct borrowed borrowed_forms[] = {
    {1, SSE_NONE, 0x13, CLEARS_NOTHING, false}, /* MOVLPS and MOVHPS to memory */
    {1, SSE_NONE, 0x17, CLEARS_NOTHING, false},
    {1, SSE_66, 0x13, CLEARS_NOTHING, false},
    {1, SSE_66, 0x17, CLEARS_NOTHING, false},
    {1, SSE_NONE, 0x2e, CLEARS_NOTHING, true}, /* UCOMI and COMI */
    {1, SSE_NONE, 0x2f, CLEARS_NOTHING, true},
    {1, SSE_66, 0x2e, CLEARS_NOTHING, true},
    {1, SSE_66, 0x2f, CLEARS_NOTHING, true},
    {1, SSE_F3, 0x2c, CLEARS_NOTHING, true}, /* conversions to general registers */
    {1, SSE_F3, 0x2d, CLEARS_NOTHING, true},
    {1, SSE_F2, 0x2c, CLEARS_NOTHING, true},
    {1, SSE_F2, 0x2d, CLEARS_NOTHING, true},
    {1, SSE_66, 0x6e, CLEARS_REG, false}, /* MOVD and MOVQ */
    {1, SSE_66, 0x7e, CLEARS_NOTHING, false},
    {1, SSE_F3, 0x7e, CLEARS_REG, false},
    {1, SSE_66, 0xd6, CLEARS_RM, false},
    {1, SSE_66, 0xc5, CLEARS_NOTHING, false}, /* PEXTRW */
    {1, SSE_66, 0xf7, CLEARS_NOTHING, false}, /* MASKMOVDQU */
    {3, SSE_66, 0x14, CLEARS_NOTHING, false}, /* extracts */
    {3, SSE_66, 0x15, CLEARS_NOTHING, false},
    {3, SSE_66, 0x16, CLEARS_NOTHING, false},
    {3, SSE_66, 0x17, CLEARS_NOTHING, false},
    {3, SSE_66, 0x60, CLEARS_XMM0, false}, /* comparisons of strings */
    {3, SSE_66, 0x61, CLEARS_NOTHING, false},
    {3, SSE_66, 0x62, CLEARS_XMM0, false},
    {3, SSE_66, 0x63, CLEARS_NOTHING, false},
};

static const struct borrowed *find_borrowed(const struct vex_prefix *prefix, uint8_t opcode)
{
    for (unsigned i = 0; i < ARRAY_SIZE(borrowed_forms); i++) {
        const struct borrowed *form = &borrowed_forms[i];

        if (form->map == prefix->map && form->pp == prefix->pp && form->opcode == opcode)
            return form;
    }
    return NULL;
}

static void emit_clear_upper(struct soft_decoder *d, unsigned number)
{
    decode_emit_call(d, SOP_call_c, vex_run_clear_upper)->a = (uint8_t)number;
}

static enum soft_decoded decode_borrowed(struct soft_decoder *d, const struct vex_prefix *prefix,
                                         const struct borrowed *form)
{
    decode_modrm(d);
    uint8_t reg = d->reg, rm = d->rm;
    bool is_reg = !decode_is_mem(d);

    if (prefix->has_vvvv || (prefix->l && !form->is_lig))
        return SOFT_UNDEFINED;
    if (d->mode & SOFT_MODE_TS)
        return decode_emit_raise(d, SOFT_NM, 0);
    if (!sse_emit_borrowed(d, prefix->map, prefix->pp, form->opcode))
        return SOFT_UNDEFINED;
    if (form->clears == CLEARS_REG)
        emit_clear_upper(d, reg);
    else if (form->clears == CLEARS_RM && is_reg)
        emit_clear_upper(d, rm);
    else if (form->clears == CLEARS_XMM0)
        emit_clear_upper(d, 0);
    return SOFT_DECODED;
}

/* VLDMXCSR and VSTMXCSR. */
static enum soft_decoded decode_mxcsr(struct soft_decoder *d, const struct vex_prefix *prefix)
{
    decode_modrm(d);
    if (!decode_is_mem(d) || prefix->l || prefix->has_vvvv || (d->reg & 7) < 2 || (d->reg & 7) > 3)
        return SOFT_UNDEFINED;
    return sse_decode_mxcsr(d);
}

static enum soft_decoded decode_zero(struct soft_decoder *d, const struct vex_prefix *prefix)
{
    if (prefix->has_vvvv)
        return SOFT_UNDEFINED;
    if (d->mode & SOFT_MODE_TS)
        return decode_emit_raise(d, SOFT_NM, 0);
    decode_emit_call(d, SOP_call_c, prefix->l ? vex_run_zero_all : vex_run_zero_upper);
    return SOFT_DECODED;
}

/* --- The others --- */

static bool has_feature(const struct soft_cpu *cpu, unsigned feature, bool is_256)
{
    bool has_avx2 = cpu->cpuid_7_ebx & CPUID_7_EBX_AVX2;

    switch (feature) {
    case VEX_AVX_AVX2:
        return !is_256 || has_avx2;
    case VEX_AVX2:
        return has_avx2;
    case VEX_FMA:
        return cpu->cpuid_1_ecx & CPUID_1_ECX_FMA;
    case VEX_F16C:
        return cpu->cpuid_1_ecx & CPUID_1_ECX_F16C;
    case VEX_AES:
        return cpu->cpuid_1_ecx & CPUID_1_ECX_AES;
    case VEX_PCLMUL:
        return cpu->cpuid_1_ecx & CPUID_1_ECX_PCLMUL;
    default:
        return true;
    }
}

static bool is_valid(const struct soft_decoder *d, const struct vex_form *form,
                     const struct vex_prefix *prefix)
{
    bool is_mem = decode_is_mem(d);
    bool names_vvvv = form->flags & VEX_NDS || (form->flags & VEX_NDS_REGISTER && !is_mem);
    static const uint8_t shifts[3] = {1 << 2 | 1 << 4 | 1 << 6, 1 << 2 | 1 << 4 | 1 << 6,
                                      1 << 2 | 1 << 3 | 1 << 6 | 1 << 7};

    if (!(is_mem ? form->mem : form->reg) || (prefix->has_vvvv && !names_vvvv))
        return false;
    if ((form->flags & VEX_L0 && prefix->l) || (form->flags & VEX_L1 && !prefix->l))
        return false;
    if (form->flags & VEX_REGISTER_AVX2 && !is_mem && !has_feature(d->cpu, VEX_AVX2, false))
        return false;
    /* Of these the table has the three opcodes in a row of `bytes`. */
    if (form->flags & VEX_SHIFT_GROUP && !(shifts[form->bytes[0]] >> (d->reg & 7) & 1))
        return false;
    return has_feature(d->cpu, form->feature, prefix->l);
}

static struct soft_op *emit_memory(struct soft_decoder *d, const struct vex_form *form,
                                   enum soft_op_kind kind, unsigned bytes, uint32_t *aux)
{
    unsigned segment = d->segment >= 0 ? (unsigned)d->segment : d->default_segment;
    struct soft_op *op;

    if (!(form->flags & VEX_MASKED) || decode_is_64bit(d))
        return decode_emit_call_mem(d, kind, form->mem, bytes,
                                    form->flags & VEX_STORES ? SOFT_WRITE : SOFT_READ);
    op = decode_emit_lea(d, kind);
    op->helper = form->mem;
    *aux |= segment | VEX_AUX_SEGMENTED;
    return op;
}

static enum soft_decoded emit(struct soft_decoder *d, const struct vex_form *form,
                              const struct vex_prefix *prefix)
{
    enum soft_op_kind kind = form->sets_flags ? SOP_call_flags : SOP_call_c;
    bool l = prefix->l && !(form->flags & VEX_LIG);
    uint8_t reg = d->reg, rm = d->rm;
    unsigned bytes = form->bytes[l];
    uint32_t aux = (uint32_t)prefix->vvvv << 16 | (uint32_t)bytes << 24 | (l ? VEX_AUX_L : 0) |
                   (prefix->w ? VEX_AUX_W : 0);
    struct soft_op *op;

    if (decode_is_mem(d))
        op = emit_memory(d, form, kind, bytes, &aux);
    else
        op = decode_emit_call(d, kind, form->reg);
    op->a = reg;
    op->c = rm;
    if (form->stub_count > 1)
        aux |= form->stub + l * form->stub_count + (decode_u8(d) & (form->stub_count - 1u));
    else if (form->stub_count)
        aux |= form->stub + l;
    if (form->flags & VEX_IS4)
        aux |= (decode_u8(d) >> 4 & (decode_is_64bit(d) ? 15u : 7u)) << 20;
    else if (form->flags & VEX_IMM8)
        aux |= decode_u8(d);
    op->aux = aux;
    return SOFT_DECODED;
}

static enum soft_decoded decode_form(struct soft_decoder *d, const struct vex_prefix *prefix,
                                     uint8_t opcode)
{
    struct vex_prefix by_width = *prefix;
    const struct vex_form *form = vex_find_stub(prefix, opcode);

    if (form && form->flags & VEX_LONG && !decode_is_64bit(d)) {
        by_width.w = false;
        form = vex_find_stub(&by_width, opcode);
    }
    if (!form)
        form = vex_find_other(prefix, opcode);
    if (!form)
        return SOFT_UNDEFINED;
    uint8_t sib = d->position + 1 < d->available ? d->bytes[d->position + 1] : 0;

    decode_modrm(d);
    if (!is_valid(d, form, prefix))
        return SOFT_UNDEFINED;
    if (form->flags & VEX_VSIB)
        return vex_decode_gather(d, prefix, opcode, sib);
    if (d->mode & SOFT_MODE_TS)
        return decode_emit_raise(d, SOFT_NM, 0);
    return emit(d, form, prefix);
}

/* --- The prefix --- */

static void read_prefix(struct soft_decoder *d, uint8_t opcode, struct vex_prefix *prefix)
{
    uint8_t first = decode_u8(d), last = first;
    unsigned rex = first & 0x80 ? 0 : 4;

    *prefix = (struct vex_prefix){.map = 1};
    if (opcode == 0xc4) {
        last = decode_u8(d);
        rex |= ~first >> 5 & 3u;
        prefix->map = first & 31;
        prefix->w = last & 0x80;
        rex |= prefix->w ? 8 : 0;
    }
    prefix->vvvv = ~last >> 3 & 15;
    prefix->has_vvvv = prefix->vvvv;
    prefix->l = last & 4;
    prefix->pp = (const uint8_t[]){SSE_NONE, SSE_66, SSE_F3, SSE_F2}[last & 3];
    if (decode_is_64bit(d)) {
        d->rex = (uint8_t)(0x40 | rex);
    } else { /* there are eight registers, and W is not REX.W */
        d->rex = 0;
        prefix->vvvv &= 7;
    }
}

enum soft_decoded vex_decode(struct soft_decoder *d, uint8_t opcode)
{
    bool is_prefixed = d->has_66 || d->repeat || d->has_lock || d->rex;
    struct vex_prefix prefix;
    const struct borrowed *form;

    read_prefix(d, opcode, &prefix);
    opcode = decode_u8(d);
    if (is_prefixed || prefix.map < 1 || prefix.map > 3)
        return SOFT_UNDEFINED;
    if (bmi_is_vex(&prefix, opcode))
        return bmi_decode_vex(d, &prefix, opcode);
    if (d->mode & SOFT_MODE_NO_AVX || !(d->cpu->cpuid_1_ecx & CPUID_1_ECX_AVX))
        return SOFT_UNDEFINED;
    form = find_borrowed(&prefix, opcode);
    if (form)
        return decode_borrowed(d, &prefix, form);
    if (prefix.map == 1 && prefix.pp == SSE_NONE && opcode == 0x77)
        return decode_zero(d, &prefix);
    if (prefix.map == 1 && prefix.pp == SSE_NONE && opcode == 0xae)
        return decode_mxcsr(d, &prefix);
    return decode_form(d, &prefix, opcode);
}
