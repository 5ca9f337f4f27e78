/* SPDX-License-Identifier: MIT */
/*
 * x87_env: the x87 instructions that save, load or reset the environment: FNINIT, FNCLEX, FNSTCW,
 * FNSTSW, FLDENV, FNSTENV, FRSTOR, FNSAVE. They work on cpu->fx, never on the host's FPU.
 */
#ifndef VMM_SOFT_X87_ENV_H
#define VMM_SOFT_X87_ENV_H

#include "vmm/soft/op.h"

/* In `c`: how FLDENV, FNSTENV, FRSTOR and FNSAVE lay out the environment. */
enum x87_layout {
    X87_LAYOUT_32 = 0,
    X87_LAYOUT_16 = 1 << 0,
    X87_LAYOUT_REAL = 1 << 1, /* linear pointers instead of selectors and offsets */
};

#define X87_ENV_BYTES_16 14u
#define X87_ENV_BYTES_32 28u
#define X87_STACK_BYTES  80u

static inline unsigned x87_env_bytes(unsigned layout)
{
    return layout & X87_LAYOUT_16 ? X87_ENV_BYTES_16 : X87_ENV_BYTES_32;
}

soft_helper x87_run_fninit;
soft_helper x87_run_fnclex;
soft_helper x87_run_fnstcw;
soft_helper x87_run_fnstsw;
soft_helper x87_run_fnstsw_ax;
soft_helper x87_run_fldenv;
soft_helper x87_run_fnstenv;
soft_helper x87_run_frstor;
soft_helper x87_run_fnsave;

#endif
