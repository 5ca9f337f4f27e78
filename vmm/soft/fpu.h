/* SPDX-License-Identifier: MIT */
/*
 * fpu: where the guest's floating point state is: MXCSR and, while it is being used, the x87
 * registers live in the host's own FPU during vcpu_run; the rest of the time in struct soft_cpu.
 *
 * The x87 control word in cpu->fx is true at any time. The host's MXCSR has all exceptions masked,
 * whatever the guest masks. An x87 state with an unmasked exception pending is never left in the
 * host, so no host instruction can trip over it.
 */
#ifndef VMM_SOFT_FPU_H
#define VMM_SOFT_FPU_H

#include "base/bytes.h"
#include "vmm/soft/cpu.h"

/* Offsets in FXSAVE's image. */
enum {
    FX_FCW = 0,
    FX_FSW = 2,
    FX_FTW = 4, /* a bit per physical register: not empty */
    FX_FOP = 6,
    FX_FIP = 8,
    FX_FCS = 12,
    FX_FDP = 16,
    FX_FDS = 20,
    FX_MXCSR = 24,
    FX_MXCSR_MASK = 28,
    FX_ST = 32, /* eight times 16 bytes, from the top of the stack on */
    FX_XMM = 160,
    FX_USED_BYTES = 416,
};

#define FSW_EXCEPTIONS 0x3fu
#define FSW_STACK      0x40u
#define FSW_ERROR      0x80u /* an unmasked exception is pending */
#define FSW_BUSY       0x8000u
#define FSW_TOP(fsw)   ((fsw) >> 11 & 7)

#define MXCSR_FLAGS    0x003fu
#define MXCSR_MASKS    0x1f80u
#define MXCSR_FTZ      0x8000u
#define MXCSR_WRITABLE 0xffffu
#define MXCSR_DEFAULT  0x1f80u

#define FPU_FCW_DEFAULT 0x037fu

/* The state after power-on, which is also FNINIT's and MXCSR's default. */
void fpu_reset(struct soft_cpu *cpu);
/* Of the x87 alone. */
void fpu_reset_x87(struct soft_cpu *cpu);
/* At the start of vcpu_run, and before it returns. */
void fpu_enter(struct soft_cpu *cpu);
void fpu_leave(struct soft_cpu *cpu);

/* The first `count` XMM registers, in a row. Setting them leaves the upper halves of YMM alone. */
void fpu_get_xmm(const struct soft_cpu *cpu, uint8_t *to, unsigned count);
void fpu_set_xmm(struct soft_cpu *cpu, const uint8_t *from, unsigned count);

/* While the vCPU is not running. */
void fpu_get_state(const struct soft_cpu *cpu, struct kvm_fpu *out);
void fpu_set_state(struct soft_cpu *cpu, const struct kvm_fpu *state);

/* Brings cpu->mxcsr up to date / takes it over, between enter and leave. */
void fpu_sync_mxcsr(struct soft_cpu *cpu);
void fpu_set_mxcsr(struct soft_cpu *cpu, uint32_t value);

/* True if the guest wants to see at least one SIMD exception. */
static inline bool fpu_has_unmasked(const struct soft_cpu *cpu)
{
    return (cpu->mxcsr & MXCSR_MASKS) != MXCSR_MASKS;
}

/* The x87 state into the host's FPU. False: an exception was pending, #MF is raised. */
bool fpu_load(struct soft_cpu *cpu);
/* The x87 state into cpu->fx, if it is not there. */
void fpu_unload(struct soft_cpu *cpu);

static inline uint16_t fpu_word(const struct soft_cpu *cpu, unsigned offset)
{
    return load_le16(cpu->fx + offset);
}

/* Makes the summary bits of cpu->fx agree with its flags and masks, as loading it does. */
void fpu_normalise(struct soft_cpu *cpu);

/* True if the FSW and FCW of cpu->fx have an exception that is not masked. */
static inline bool fpu_is_pending(const struct soft_cpu *cpu)
{
    return fpu_word(cpu, FX_FSW) & ~fpu_word(cpu, FX_FCW) & FSW_EXCEPTIONS;
}

#endif
