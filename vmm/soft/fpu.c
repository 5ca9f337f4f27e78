/* SPDX-License-Identifier: MIT */
/*
 * fpu: moves the guest's floating point state between struct soft_cpu and the host's FPU.
 *
 * The instruction and data pointers of the host's FPU are evisor's own addresses and must not reach
 * a guest: x87.c keeps the guest's in cpu->fx, and fpu_unload leaves them alone.
 */
#include "vmm/soft/fpu.h"

#include <string.h>
#include <xmmintrin.h>

#define FCW_WRITABLE 0x1f3fu
#define FCW_FIXED    0x0040u

struct fx_image {
    uint8_t bytes[512] __attribute__((aligned(16)));
};

void fpu_reset_x87(struct soft_cpu *cpu)
{
    memset(cpu->fx, 0, sizeof(cpu->fx));
    store_le16(cpu->fx + FX_FCW, FPU_FCW_DEFAULT);
    cpu->x87_live = false;
}

void fpu_reset(struct soft_cpu *cpu)
{
    fpu_reset_x87(cpu);
    memset(cpu->ymm, 0, sizeof(cpu->ymm));
    cpu->mxcsr = MXCSR_DEFAULT;
    cpu->xcr0 = XCR0_X87;
}

static void apply_mxcsr(const struct soft_cpu *cpu)
{
    _mm_setcsr(cpu->mxcsr | MXCSR_MASKS);
}

void fpu_sync_mxcsr(struct soft_cpu *cpu)
{
    cpu->mxcsr = (cpu->mxcsr & ~MXCSR_FLAGS) | (_mm_getcsr() & MXCSR_FLAGS);
}

void fpu_set_mxcsr(struct soft_cpu *cpu, uint32_t value)
{
    cpu->mxcsr = value;
    apply_mxcsr(cpu);
}

void fpu_enter(struct soft_cpu *cpu)
{
    apply_mxcsr(cpu);
}

void fpu_leave(struct soft_cpu *cpu)
{
    fpu_unload(cpu);
    fpu_sync_mxcsr(cpu);
    _mm_setcsr(MXCSR_DEFAULT);
}

void fpu_normalise(struct soft_cpu *cpu)
{
    uint16_t fsw = fpu_word(cpu, FX_FSW) & (uint16_t) ~(FSW_ERROR | FSW_BUSY);

    store_le16(cpu->fx + FX_FCW, (fpu_word(cpu, FX_FCW) & FCW_WRITABLE) | FCW_FIXED);
    if (fpu_is_pending(cpu))
        fsw |= FSW_ERROR | FSW_BUSY;
    store_le16(cpu->fx + FX_FSW, fsw);
}

bool fpu_load(struct soft_cpu *cpu)
{
    struct fx_image image;

    if (cpu->x87_live)
        return true;
    if (fpu_is_pending(cpu))
        return soft_raise(cpu, SOFT_MF, 0);
    memcpy(image.bytes, cpu->fx, sizeof(image.bytes));
    memset(image.bytes + FX_FOP, 0, FX_MXCSR - FX_FOP);
    /* MXCSR is live already. */
    store_le32(image.bytes + FX_MXCSR, _mm_getcsr());
    __asm__ volatile("fxrstor64 %0" : : "m"(image) : "memory");
    cpu->x87_live = true;
    return true;
}

void fpu_unload(struct soft_cpu *cpu)
{
    struct fx_image image;

    if (!cpu->x87_live)
        return;
    __asm__ volatile("fxsave64 %0\n\tfninit" : "=m"(image) : : "memory");
    memcpy(cpu->fx, image.bytes, FX_FOP);
    memcpy(cpu->fx + FX_ST, image.bytes + FX_ST, FX_XMM - FX_ST);
    cpu->x87_live = false;
}

void fpu_get_xmm(const struct soft_cpu *cpu, uint8_t *to, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memcpy(to + 16 * i, cpu->ymm[i], 16);
}

void fpu_set_xmm(struct soft_cpu *cpu, const uint8_t *from, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memcpy(cpu->ymm[i], from + 16 * i, 16);
}

void fpu_get_state(const struct soft_cpu *cpu, struct kvm_fpu *out)
{
    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < 8; i++)
        memcpy(out->fpr[i], cpu->fx + FX_ST + 16 * i, 16);
    out->fcw = fpu_word(cpu, FX_FCW);
    out->fsw = fpu_word(cpu, FX_FSW);
    out->ftwx = cpu->fx[FX_FTW];
    out->last_opcode = fpu_word(cpu, FX_FOP);
    out->last_ip = load_le64(cpu->fx + FX_FIP);
    out->last_dp = load_le64(cpu->fx + FX_FDP);
    fpu_get_xmm(cpu, out->xmm[0], 16);
    out->mxcsr = cpu->mxcsr;
}

void fpu_set_state(struct soft_cpu *cpu, const struct kvm_fpu *state)
{
    for (unsigned i = 0; i < 8; i++)
        memcpy(cpu->fx + FX_ST + 16 * i, state->fpr[i], 10);
    store_le16(cpu->fx + FX_FCW, state->fcw);
    store_le16(cpu->fx + FX_FSW, state->fsw);
    cpu->fx[FX_FTW] = state->ftwx;
    store_le16(cpu->fx + FX_FOP, state->last_opcode);
    store_le64(cpu->fx + FX_FIP, state->last_ip);
    store_le64(cpu->fx + FX_FDP, state->last_dp);
    fpu_set_xmm(cpu, state->xmm[0], 16);
    cpu->mxcsr = state->mxcsr & MXCSR_WRITABLE;
    cpu->x87_live = false;
    fpu_normalise(cpu);
}
