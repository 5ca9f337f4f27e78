/* SPDX-License-Identifier: MIT */
/* fxsave: the guest's own saving and loading of its floating point state. */
#include "vmm/soft/fxsave.h"

#include <string.h>

#include "vmm/soft/fpu.h"
#include "vmm/soft/mem.h"

/* Unlike other SSE instructions these look first whether the address is one at all. */
bool fxsave_raise_misaligned(struct soft_cpu *cpu, uint64_t address)
{
    uint8_t byte;

    if (!soft_is_canonical(address))
        return soft_load(cpu, address, &byte, 1);
    return soft_raise(cpu, SOFT_GP, 0);
}

static unsigned xmm_count(const struct soft_op *op)
{
    return op->aux & FXSAVE_AUX_LONG ? 16 : 8;
}

/* 32-bit pointers come with selectors, which current CPUs leave zero. */
static void clear_selectors(uint8_t *image, uint32_t aux)
{
    if (aux & FXSAVE_AUX_W)
        return;
    memset(image + FX_FCS, 0, 4);
    memset(image + FX_FDS, 0, 4);
}

void fxsave_get_image(const struct soft_cpu *cpu, uint8_t *image, uint32_t aux)
{
    memcpy(image, cpu->fx, FX_XMM);
    fpu_get_xmm(cpu, image + FX_XMM, 16);
    image[FX_FTW + 1] = 0;
    clear_selectors(image, aux);
    store_le32(image + FX_MXCSR, cpu->mxcsr);
    store_le32(image + FX_MXCSR_MASK, MXCSR_WRITABLE);
}

void fxsave_set_x87(struct soft_cpu *cpu, const uint8_t *image, uint32_t aux)
{
    memcpy(cpu->fx, image, FX_XMM);
    clear_selectors(cpu->fx, aux);
    memset(cpu->fx + FX_MXCSR, 0, FX_ST - FX_MXCSR);
    for (unsigned i = 0; i < 8; i++)
        memset(cpu->fx + FX_ST + 16 * i + 10, 0, 6);
    fpu_normalise(cpu);
}

bool fxsave_run_fxsave(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t address = soft_ea(cpu, op);
    uint8_t image[FX_USED_BYTES];

    if (address & 15)
        return fxsave_raise_misaligned(cpu, address);
    fpu_unload(cpu);
    fpu_sync_mxcsr(cpu);
    fxsave_get_image(cpu, image, op->aux);
    return soft_store(cpu, address, image, FX_XMM + 16 * xmm_count(op));
}

bool fxsave_run_fxrstor(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t address = soft_ea(cpu, op);
    uint8_t image[FX_USED_BYTES];

    if (address & 15)
        return fxsave_raise_misaligned(cpu, address);
    if (!soft_load(cpu, address, image, sizeof(image)))
        return false;
    if (load_le32(image + FX_MXCSR) & ~MXCSR_WRITABLE)
        return soft_raise(cpu, SOFT_GP, 0);
    fpu_unload(cpu);
    fxsave_set_x87(cpu, image, op->aux);
    fpu_set_xmm(cpu, image + FX_XMM, xmm_count(op));
    fpu_set_mxcsr(cpu, load_le32(image + FX_MXCSR));
    return true;
}

bool fxsave_run_ldmxcsr(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint32_t value;

    if (!soft_load(cpu, soft_ea(cpu, op), &value, 4))
        return false;
    if (value & ~MXCSR_WRITABLE)
        return soft_raise(cpu, SOFT_GP, 0);
    fpu_set_mxcsr(cpu, value);
    return true;
}

bool fxsave_run_stmxcsr(struct soft_cpu *cpu, const struct soft_op *op)
{
    fpu_sync_mxcsr(cpu);
    return soft_store(cpu, soft_ea(cpu, op), &cpu->mxcsr, 4);
}
