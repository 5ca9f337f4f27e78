/* SPDX-License-Identifier: MIT */
/* fxsave: the guest's own saving and loading of its floating point state. */
#include "vmm/soft/fxsave.h"

#include <string.h>

#include "vmm/soft/fpu.h"
#include "vmm/soft/mem.h"

/* Unlike other SSE instructions these look first whether the address is one at all. */
static bool raise_misaligned(struct soft_cpu *cpu, uint64_t address)
{
    uint8_t byte;

    if (!soft_is_canonical(address))
        return soft_load(cpu, address, &byte, 1);
    return soft_raise(cpu, SOFT_GP, 0);
}

static unsigned xmm_bytes(const struct soft_op *op)
{
    return op->aux & FXSAVE_AUX_LONG ? 16 * 16 : 8 * 16;
}

bool fxsave_run_fxsave(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t address = soft_ea(cpu, op);
    uint8_t image[FX_USED_BYTES];
    unsigned length = FX_XMM + xmm_bytes(op);

    if (address & 15)
        return raise_misaligned(cpu, address);
    fpu_unload(cpu);
    fpu_sync_mxcsr(cpu);
    memcpy(image, cpu->fx, FX_XMM);
    memcpy(image + FX_XMM, cpu->xmm, sizeof(cpu->xmm));
    image[FX_FTW + 1] = 0;
    if (!(op->aux & FXSAVE_AUX_W)) {
        /* 32-bit pointers with selectors, which current CPUs leave zero. */
        memset(image + FX_FCS, 0, 4);
        memset(image + FX_FDS, 0, 4);
    }
    store_le32(image + FX_MXCSR, cpu->mxcsr);
    store_le32(image + FX_MXCSR_MASK, MXCSR_WRITABLE);
    return soft_store(cpu, address, image, length);
}

bool fxsave_run_fxrstor(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t address = soft_ea(cpu, op);
    uint8_t image[FX_USED_BYTES];

    if (address & 15)
        return raise_misaligned(cpu, address);
    if (!soft_load(cpu, address, image, sizeof(image)))
        return false;
    if (load_le32(image + FX_MXCSR) & ~MXCSR_WRITABLE)
        return soft_raise(cpu, SOFT_GP, 0);
    fpu_unload(cpu);
    if (!(op->aux & FXSAVE_AUX_W)) {
        memset(image + FX_FCS, 0, 4);
        memset(image + FX_FDS, 0, 4);
    }
    memcpy(cpu->fx, image, FX_XMM);
    for (unsigned i = 0; i < 8; i++)
        memset(cpu->fx + FX_ST + 16 * i + 10, 0, 6);
    memcpy(cpu->xmm, image + FX_XMM, xmm_bytes(op));
    fpu_set_mxcsr(cpu, load_le32(image + FX_MXCSR));
    fpu_normalise(cpu);
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
