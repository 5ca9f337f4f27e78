/* SPDX-License-Identifier: MIT */
/* clock: tells running vCPUs that their LAPIC timer is due; one thread for a machine. */
#ifndef VMM_SOFT_CLOCK_H
#define VMM_SOFT_CLOCK_H

#include <stdint.h>

#include "base/check.h"

struct clock;
struct soft_vm;

int must_check clock_create(struct soft_vm *vm, struct clock **out);
void clock_destroy(struct clock *clock);

/* CLOCK_MONOTONIC. */
uint64_t clock_now_ns(void);

/* vCPU `index` wants SOFT_REQUEST_IRQ at that moment; UINT64_MAX for never. Cheap if unchanged. */
void clock_arm(struct clock *clock, unsigned index, uint64_t deadline_ns);

#endif
