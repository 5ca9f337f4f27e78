/* SPDX-License-Identifier: MIT */
/* fxsave: FXSAVE, FXRSTOR, LDMXCSR and STMXCSR. */
#ifndef VMM_SOFT_FXSAVE_H
#define VMM_SOFT_FXSAVE_H

#include "vmm/soft/op.h"

/* In aux: REX.W (64-bit instruction pointers), 64-bit mode (16 XMM registers). */
#define FXSAVE_AUX_W    0x1u
#define FXSAVE_AUX_LONG 0x2u

/* Notes the exception of an address that is not aligned as it must be; false. */
bool fxsave_raise_misaligned(struct soft_cpu *cpu, uint64_t address);
/* The image's first FX_USED_BYTES. The state must be in cpu->fx and cpu->mxcsr. */
void fxsave_get_image(const struct soft_cpu *cpu, uint8_t *image, uint32_t aux);
/* The x87's part of an image. */
void fxsave_set_x87(struct soft_cpu *cpu, const uint8_t *image, uint32_t aux);

soft_helper fxsave_run_fxsave;
soft_helper fxsave_run_fxrstor;
soft_helper fxsave_run_ldmxcsr;
soft_helper fxsave_run_stmxcsr;

#endif
