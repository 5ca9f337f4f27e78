/* SPDX-License-Identifier: MIT */
/* exchange: CMPXCHG8B and CMPXCHG16B. */
#ifndef VMM_SOFT_EXCHANGE_H
#define VMM_SOFT_EXCHANGE_H

#include "vmm/soft/op.h"

bool exchange_8(struct soft_cpu *cpu, const struct soft_op *op);
bool exchange_16(struct soft_cpu *cpu, const struct soft_op *op);

#endif
