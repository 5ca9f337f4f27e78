/* SPDX-License-Identifier: MIT */
/* fxsave: FXSAVE, FXRSTOR, LDMXCSR and STMXCSR. */
#ifndef VMM_SOFT_FXSAVE_H
#define VMM_SOFT_FXSAVE_H

#include "vmm/soft/op.h"

/* In aux: REX.W (64-bit instruction pointers), 64-bit mode (16 XMM registers). */
#define FXSAVE_AUX_W    0x1u
#define FXSAVE_AUX_LONG 0x2u

soft_helper fxsave_run_fxsave;
soft_helper fxsave_run_fxrstor;
soft_helper fxsave_run_ldmxcsr;
soft_helper fxsave_run_stmxcsr;

#endif
