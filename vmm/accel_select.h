/* SPDX-License-Identifier: MIT */
/*
 * accel_select: which accelerator a machine gets, and whether the host's KVM runs guests natively.
 *
 * Some hosts have a /dev/kvm that only emulates instructions, a hundred times slower than real
 * hardware: a stock kernel never gets up on it. CPU flags do not tell; so a small guest is run and
 * timed, once per boot of the host, and the answer is kept in the user's cache folder.
 */
#ifndef VMM_ACCEL_SELECT_H
#define VMM_ACCEL_SELECT_H

#include <stdbool.h>

#include "base/error.h"
#include "vmm/accel.h"

/*
 * `wanted` is a list as in -accel: "kvm", "soft", "kvm:soft" (the first that serves). With a list,
 * a KVM that is missing or only emulates is passed over, and `why` (size bytes) says so in one
 * line; with "kvm" alone it is used if it can be opened at all. 0 or -errno.
 */
int must_check accel_select(const char *wanted, const struct accel_ops **out, char *why,
                            size_t size, struct error *err);

/* How fast `ops` runs a simple loop, in guest instructions a second; 0 if it could not be run. */
double accel_measure(const struct accel_ops *ops);

/* Measured now or remembered: does the host's KVM run guests natively? `why` as above. */
bool accel_kvm_is_native(char *why, size_t size);

#endif
