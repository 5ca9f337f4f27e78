/* SPDX-License-Identifier: MIT */
/* machine_setup: the memory and the registers that a program of accel_table starts from. */
#ifndef TESTS_ACCELTABLE_MACHINE_SETUP_H
#define TESTS_ACCELTABLE_MACHINE_SETUP_H

#include "tests/acceltable/program.h"
#include "vmm/accel.h"

void machine_setup_memory(uint8_t *ram, const struct program *program);
/* Changes what the program needs in a state read from a fresh vCPU. */
void machine_setup_state(struct accel_vcpu_state *state, enum guest_mode mode);
/* After that: starts with loading the task register, if programs in this mode need it. */
void machine_setup_prologue(struct accel_vcpu_state *state, enum guest_mode mode);

#endif
