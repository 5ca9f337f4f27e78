/* SPDX-License-Identifier: MIT */
/*
 * xsave: the guest's saving and loading of its extended state (Intel SDM volume 1, chapter 13).
 *
 * Whether a component is in its initial configuration is found by looking at it. Whether it was
 * modified since the last XRSTOR is not tracked: XSAVEOPT takes everything for modified.
 */
#include "vmm/soft/xsave.h"

#include <string.h>

#include "vmm/soft/fpu.h"
#include "vmm/soft/fxsave.h"

#define CPUID_1_ECX_XSAVE (1u << 26)
#define CPUID_1_ECX_AVX   (1u << 28)

#define HEADER_BYTES    64
#define HEADER_XCOMP_BV 8
#define COMPACTED       (UINT64_C(1) << 63)
#define AREA_ALIGNMENT  64
#define YMM_HIGH_BYTES  (16 * 16)

enum area_instruction { AREA_XSAVE, AREA_XSAVEOPT, AREA_XSAVEC, AREA_XRSTOR };

unsigned xsave_area_bytes(uint64_t xcr0)
{
    return xcr0 & XCR0_AVX ? XSAVE_BYTES : XSAVE_AVX;
}

uint64_t xsave_supported(const struct soft_cpu *cpu)
{
    if (!(cpu->cpuid_1_ecx & CPUID_1_ECX_XSAVE))
        return XCR0_X87;
    return XCR0_X87 | XCR0_SSE | (cpu->cpuid_1_ecx & CPUID_1_ECX_AVX ? XCR0_AVX : 0);
}

bool xsave_is_valid_xcr0(const struct soft_cpu *cpu, uint64_t value)
{
    return value & XCR0_X87 && !(value & ~xsave_supported(cpu)) &&
           (value & XCR0_SSE || !(value & XCR0_AVX));
}

/* --- Components --- */

static unsigned register_count(const struct soft_op *op)
{
    return op->aux & FXSAVE_AUX_LONG ? 16 : 8;
}

static bool is_zero(const uint8_t *bytes, unsigned count)
{
    static const uint8_t zeros[FX_XMM];

    return !memcmp(bytes, zeros, count);
}

static bool is_x87_in_use(const struct soft_cpu *cpu)
{
    return fpu_word(cpu, FX_FCW) != FPU_FCW_DEFAULT ||
           !is_zero(cpu->fx + FX_FSW, FX_MXCSR - FX_FSW) ||
           !is_zero(cpu->fx + FX_ST, FX_XMM - FX_ST);
}

/* Of the first `count` registers. The x87 state must be in cpu->fx. */
static uint64_t components_in_use(const struct soft_cpu *cpu, unsigned count)
{
    uint64_t in_use = is_x87_in_use(cpu) ? XCR0_X87 : 0;

    for (unsigned i = 0; i < count; i++) {
        if (!is_zero(cpu->ymm[i], 16))
            in_use |= XCR0_SSE;
        if (!is_zero(cpu->ymm[i] + 16, 16))
            in_use |= XCR0_AVX;
    }
    return in_use;
}

static void get_ymm_high(const struct soft_cpu *cpu, uint8_t *to, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memcpy(to + 16 * i, cpu->ymm[i] + 16, 16);
}

/* NULL for zeros. */
static void set_ymm_high(struct soft_cpu *cpu, const uint8_t *from, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (from)
            memcpy(cpu->ymm[i] + 16, from + 16 * i, 16);
        else
            memset(cpu->ymm[i] + 16, 0, 16);
    }
}

static void set_xmm(struct soft_cpu *cpu, const uint8_t *from, unsigned count)
{
    static const uint8_t zeros[16 * 16];

    fpu_set_xmm(cpu, from ? from : zeros, count);
}

static void set_x87(struct soft_cpu *cpu, const uint8_t *legacy, uint32_t aux)
{
    cpu->x87_live = false;
    if (legacy)
        fxsave_set_x87(cpu, legacy, aux);
    else
        fpu_reset_x87(cpu);
}

/* --- Saving --- */

/* Which parts of the area an instruction writes, and what it puts into XSTATE_BV. */
struct save_plan {
    uint64_t components;
    bool with_mxcsr;
    uint64_t xstate_bv;
};

static struct save_plan plan_save(const struct soft_cpu *cpu, const struct soft_op *op,
                                  uint64_t wanted, uint64_t old_xstate_bv)
{
    uint64_t in_use = components_in_use(cpu, register_count(op));
    struct save_plan plan = {.components = wanted,
                             .with_mxcsr = wanted & (XCR0_SSE | XCR0_AVX),
                             .xstate_bv = (old_xstate_bv & ~wanted) | (in_use & wanted)};

    if (op->c == AREA_XSAVEOPT)
        plan.components = wanted & in_use;
    if (op->c == AREA_XSAVEC) {
        if (cpu->mxcsr != MXCSR_DEFAULT)
            in_use |= XCR0_SSE;
        plan.components = plan.xstate_bv = wanted & in_use;
        plan.with_mxcsr = plan.components & XCR0_SSE;
    }
    return plan;
}

static bool store_components(struct soft_cpu *cpu, const struct soft_op *op, uint64_t address,
                             const struct save_plan *plan)
{
    uint8_t image[FX_USED_BYTES], high[YMM_HIGH_BYTES];
    unsigned count = register_count(op);

    fxsave_get_image(cpu, image, op->aux);
    get_ymm_high(cpu, high, count);
    if (plan->components & XCR0_X87 &&
        !(soft_store(cpu, address, image, FX_MXCSR) &&
          soft_store(cpu, address + FX_ST, image + FX_ST, FX_XMM - FX_ST)))
        return false;
    if (plan->with_mxcsr && !soft_store(cpu, address + FX_MXCSR, image + FX_MXCSR, 8))
        return false;
    if (plan->components & XCR0_SSE &&
        !soft_store(cpu, address + FX_XMM, image + FX_XMM, 16 * count))
        return false;
    return !(plan->components & XCR0_AVX) || soft_store(cpu, address + XSAVE_AVX, high, 16 * count);
}

static bool save_area(struct soft_cpu *cpu, const struct soft_op *op, uint64_t address,
                      uint64_t wanted)
{
    bool is_compacted = op->c == AREA_XSAVEC;
    uint64_t header[2] = {0, wanted | COMPACTED};
    unsigned size = wanted & XCR0_AVX ? XSAVE_BYTES : XSAVE_AVX;

    fpu_unload(cpu);
    fpu_sync_mxcsr(cpu);
    if (!soft_probe_write(cpu, address, size) ||
        (!is_compacted && !soft_load(cpu, address + XSAVE_HEADER, header, 8)))
        return false;
    struct save_plan plan = plan_save(cpu, op, wanted, header[0]);

    header[0] = plan.xstate_bv;
    return store_components(cpu, op, address, &plan) &&
           soft_store(cpu, address + XSAVE_HEADER, header, is_compacted ? 16 : 8);
}

/* --- Loading --- */

static bool is_valid_header(const struct soft_cpu *cpu, const uint8_t *header)
{
    uint64_t xstate_bv = load_le64(header), xcomp_bv = load_le64(header + HEADER_XCOMP_BV);

    if (!(xcomp_bv & COMPACTED) || !(cpu->cpuid_d1_eax & CPUID_D1_XSAVEC))
        return !(xstate_bv & ~cpu->xcr0) && is_zero(header + HEADER_XCOMP_BV, 16);
    return !(xcomp_bv & ~(cpu->xcr0 | COMPACTED)) && !(xstate_bv & ~xcomp_bv) &&
           is_zero(header + 16, HEADER_BYTES - 16);
}

/* MXCSR goes with SSE in the compacted format; in the standard one no bit of XSTATE_BV rules it. */
static bool takes_mxcsr(const uint8_t *header, uint64_t wanted, bool *is_default)
{
    bool is_compacted = load_le64(header + HEADER_XCOMP_BV) & COMPACTED;

    *is_default = is_compacted && !(load_le64(header) & XCR0_SSE);
    return wanted & (is_compacted ? XCR0_SSE : XCR0_SSE | XCR0_AVX);
}

static void load_components(struct soft_cpu *cpu, uint64_t wanted, uint32_t aux, unsigned count,
                            const uint8_t *area)
{
    uint64_t present = load_le64(area + XSAVE_HEADER);
    bool is_default;

    if (wanted & XCR0_X87) {
        fpu_unload(cpu);
        set_x87(cpu, present & XCR0_X87 ? area : NULL, aux);
    }
    if (wanted & XCR0_SSE)
        set_xmm(cpu, present & XCR0_SSE ? area + FX_XMM : NULL, count);
    if (wanted & XCR0_AVX)
        set_ymm_high(cpu, present & XCR0_AVX ? area + XSAVE_AVX : NULL, count);
    if (takes_mxcsr(area + XSAVE_HEADER, wanted, &is_default))
        cpu->mxcsr = is_default ? MXCSR_DEFAULT : load_le32(area + FX_MXCSR);
}

static bool has_valid_mxcsr(const uint8_t *area, uint64_t wanted)
{
    bool is_default;

    return !takes_mxcsr(area + XSAVE_HEADER, wanted, &is_default) || is_default ||
           !(load_le32(area + FX_MXCSR) & ~MXCSR_WRITABLE);
}

static bool load_area(struct soft_cpu *cpu, const struct soft_op *op, uint64_t address,
                      uint64_t wanted)
{
    uint8_t area[XSAVE_BYTES];

    if (!soft_load(cpu, address, area, XSAVE_AVX))
        return false;
    if (!is_valid_header(cpu, area + XSAVE_HEADER) || !has_valid_mxcsr(area, wanted))
        return soft_raise(cpu, SOFT_GP, 0);
    if (wanted & load_le64(area + XSAVE_HEADER) & XCR0_AVX &&
        !soft_load(cpu, address + XSAVE_AVX, area + XSAVE_AVX, XSAVE_BYTES - XSAVE_AVX))
        return false;
    fpu_sync_mxcsr(cpu);
    load_components(cpu, wanted, op->aux, register_count(op), area);
    fpu_set_mxcsr(cpu, cpu->mxcsr);
    return true;
}

/* --- Instructions --- */

static bool run_area(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t address = soft_ea(cpu, op), wanted;

    if (!(cpu->cr4 & CR4_OSXSAVE))
        return soft_raise(cpu, SOFT_UD, 0);
    if (cpu->cr0 & CR0_TS)
        return soft_raise(cpu, SOFT_NM, 0);
    if (address & (AREA_ALIGNMENT - 1))
        return fxsave_raise_misaligned(cpu, address);
    wanted = cpu->xcr0 & ((uint32_t)cpu->r[SOFT_RAX] | cpu->r[SOFT_RDX] << 32);
    return op->c == AREA_XRSTOR ? load_area(cpu, op, address, wanted)
                                : save_area(cpu, op, address, wanted);
}

static bool run_xgetbv(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint32_t index = (uint32_t)cpu->r[SOFT_RCX];
    uint64_t value = cpu->xcr0;

    (void)op;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return soft_raise(cpu, SOFT_UD, 0);
    if (index > 1 || (index == 1 && !(cpu->cpuid_d1_eax & CPUID_D1_XGETBV1)))
        return soft_raise(cpu, SOFT_GP, 0);
    if (index == 1) {
        fpu_unload(cpu);
        fpu_sync_mxcsr(cpu);
        value &= components_in_use(cpu, soft_is_64bit(cpu) ? 16 : 8) |
                 (cpu->mxcsr != MXCSR_DEFAULT ? XCR0_SSE : 0);
    }
    cpu->r[SOFT_RAX] = (uint32_t)value;
    cpu->r[SOFT_RDX] = value >> 32;
    return true;
}

static bool run_xsetbv(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value = (uint32_t)cpu->r[SOFT_RAX] | cpu->r[SOFT_RDX] << 32;

    (void)op;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return soft_raise(cpu, SOFT_UD, 0);
    if (cpu->cpl || (uint32_t)cpu->r[SOFT_RCX] || !xsave_is_valid_xcr0(cpu, value))
        return soft_raise(cpu, SOFT_GP, 0);
    cpu->xcr0 = value;
    soft_update_mode(cpu);
    return true;
}

enum soft_decoded xsave_decode_area(struct soft_decoder *d, uint8_t opcode)
{
    enum area_instruction instruction = opcode == 0xc7      ? AREA_XSAVEC
                                        : (d->reg & 7) == 4 ? AREA_XSAVE
                                        : (d->reg & 7) == 5 ? AREA_XRSTOR
                                                            : AREA_XSAVEOPT;
    uint32_t needed = instruction == AREA_XSAVEC     ? CPUID_D1_XSAVEC
                      : instruction == AREA_XSAVEOPT ? CPUID_D1_XSAVEOPT
                                                     : 0;
    bool is_load = instruction == AREA_XRSTOR;

    if (!(d->cpu->cpuid_1_ecx & CPUID_1_ECX_XSAVE) || (d->cpu->cpuid_d1_eax & needed) != needed)
        return SOFT_UNDEFINED;
    struct soft_op *op =
        decode_emit_call_mem(d, SOP_call_c, run_area, XSAVE_AVX, is_load ? SOFT_READ : SOFT_WRITE);

    op->c = (uint8_t)instruction;
    op->aux = (d->rex & 8 ? FXSAVE_AUX_W : 0) | (decode_is_64bit(d) ? FXSAVE_AUX_LONG : 0);
    return SOFT_DECODED;
}

enum soft_decoded xsave_decode_control(struct soft_decoder *d)
{
    bool is_write = d->rm & 1;

    if (decode_mandatory_prefix(d) || !(d->cpu->cpuid_1_ecx & CPUID_1_ECX_XSAVE))
        return SOFT_UNDEFINED;
    decode_emit_call(d, is_write ? SOP_call_end : SOP_call_c, is_write ? run_xsetbv : run_xgetbv);
    return is_write ? SOFT_DECODED_END : SOFT_DECODED;
}

/* --- While the vCPU is not running --- */

void xsave_get_state(const struct soft_cpu *cpu, struct kvm_xsave *out)
{
    uint8_t *area = (uint8_t *)out->region;

    memset(out, 0, sizeof(*out));
    fxsave_get_image(cpu, area, FXSAVE_AUX_W);
    get_ymm_high(cpu, area + XSAVE_AVX, 16);
    store_le64(area + XSAVE_HEADER, components_in_use(cpu, 16) & xsave_supported(cpu));
}

bool xsave_set_state(struct soft_cpu *cpu, const struct kvm_xsave *state)
{
    const uint8_t *area = (const uint8_t *)state->region;
    uint64_t supported = xsave_supported(cpu);

    if (load_le64(area + XSAVE_HEADER) & ~supported ||
        !is_zero(area + XSAVE_HEADER + HEADER_XCOMP_BV, 16) || !has_valid_mxcsr(area, XCR0_SSE))
        return false;
    load_components(cpu, supported | XCR0_SSE, FXSAVE_AUX_W, 16, area);
    return true;
}
