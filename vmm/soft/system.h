/* SPDX-License-Identifier: MIT */
/* system: flags, control and debug registers, interrupts by instruction, ports, and the like. */
#ifndef VMM_SOFT_SYSTEM_H
#define VMM_SOFT_SYSTEM_H

#include "vmm/soft/decode.h"

enum soft_decoded system_decode_one_byte(struct soft_decoder *d, uint8_t opcode);
enum soft_decoded system_decode_two_byte(struct soft_decoder *d, uint8_t opcode);

/* True if the vCPU may use ports [port, port + size); else #GP is raised. */
bool system_check_port(struct soft_cpu *cpu, uint16_t port, unsigned size);

/* Writes to control registers with their checks; false: the exception is raised. */
bool control_write(struct soft_cpu *cpu, unsigned index, uint64_t value);
bool control_read(struct soft_cpu *cpu, unsigned index, uint64_t *value);
/* The value is known to be right: for restoring and for reset. */
void control_set_cr0(struct soft_cpu *cpu, uint64_t value);

bool debug_write(struct soft_cpu *cpu, unsigned index, uint64_t value);
bool debug_read(struct soft_cpu *cpu, unsigned index, uint64_t *value);
/* Does DR7 watch this access? Then a #DB waits for the end of the instruction. */
void system_check_data_breakpoints(struct soft_cpu *cpu, uint64_t address, unsigned length,
                                   bool is_write);
/* The DR6 bits of instruction breakpoints at cpu->rip. */
uint64_t debug_instruction_hits(const struct soft_cpu *cpu);

#endif
