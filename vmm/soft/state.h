/* SPDX-License-Identifier: MIT */
/* state: the vCPU's registers to and from KVM's layouts. */
#ifndef VMM_SOFT_STATE_H
#define VMM_SOFT_STATE_H

#include "vmm/soft/cpu.h"

void state_get(struct soft_cpu *cpu, unsigned groups, struct accel_vcpu_state *out);
/* False, with nothing changed: XCR0 or the area of XSAVE could not be so. */
bool state_set(struct soft_cpu *cpu, unsigned groups, const struct accel_vcpu_state *state);

#endif
