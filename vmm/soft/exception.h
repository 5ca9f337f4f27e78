/* SPDX-License-Identifier: MIT */
/* exception: delivery of exceptions and interrupts through the IDT, in all modes. */
#ifndef VMM_SOFT_EXCEPTION_H
#define VMM_SOFT_EXCEPTION_H

#include "vmm/soft/cpu.h"

enum exception_source {
    EXCEPTION_FAULT,     /* the CPU's own */
    EXCEPTION_TRAP,      /* likewise, after the instruction: #DB, ICEBP */
    EXCEPTION_SOFTWARE,  /* INT n, INT3, INTO: the gate's DPL counts */
    EXCEPTION_INTERRUPT, /* from outside */
};

struct exception {
    uint8_t vector;
    enum exception_source source;
    bool has_error_code;
    uint32_t error_code;
    uint64_t rip; /* to come back to */
};

/* One attempt. False: another exception is noted. */
bool exception_enter(struct soft_cpu *cpu, const struct exception *exception);

/* As exception_enter, then the double fault rules. False: triple fault. */
bool exception_deliver(struct soft_cpu *cpu, struct exception exception);

/* Delivers what an instruction has noted. False: triple fault. */
bool exception_deliver_pending(struct soft_cpu *cpu);

/* exception_legacy.c: outside long mode. */
bool exception_enter_real(struct soft_cpu *cpu, const struct exception *exception);
bool exception_enter_protected(struct soft_cpu *cpu, const struct exception *exception);

/* Error code for a fault about the IDT entry itself, and about a selector on the way. */
uint32_t exception_gate_error(const struct exception *exception);
uint32_t exception_selector_error(const struct exception *exception, uint16_t selector);
/* The handler's code segment, checked and marked as accessed; 64-bit code in long mode. */
bool exception_read_code(struct soft_cpu *cpu, const struct exception *exception, uint16_t selector,
                         uint64_t *descriptor);
/* RFLAGS as it is pushed. */
uint64_t exception_rflags(const struct soft_cpu *cpu, const struct exception *exception);

#endif
