/* SPDX-License-Identifier: MIT */
/*
 * soft_guest: a tiny guest under the software CPU, for tests of single instructions: RAM, page and
 * descriptor tables, and an IDT whose stubs report their vector.
 *
 * Exceptions end a run: each stub writes AL to the port of the vector's number plus
 * SOFT_GUEST_VECTOR_PORT. Code ends with HLT_PORT's OUT. Addresses below 4 MiB are mapped to
 * themselves for user and supervisor, with 4 KiB pages.
 */
#ifndef TESTS_SOFT_GUEST_H
#define TESTS_SOFT_GUEST_H

#include "vmm/soft/cpu.h"
#include "vmm/soft/vm.h"

#define SOFT_GUEST_RAM         (4u << 20)
#define SOFT_GUEST_CODE        0x100000u
#define SOFT_GUEST_STACK       0x180000u /* top, of the code under test */
#define SOFT_GUEST_KERNEL      0x190000u /* top, RSP0 */
#define SOFT_GUEST_IST1        0x1a0000u /* top */
#define SOFT_GUEST_DATA        0x200000u /* two pages, and whatever follows */
#define SOFT_GUEST_TABLES      0x10000u  /* PML4, PDPT, PD, then page tables */
#define SOFT_GUEST_PTES        0x13000u
#define SOFT_GUEST_GDT         0x20000u
#define SOFT_GUEST_IDT         0x21000u
#define SOFT_GUEST_TSS         0x22000u
#define SOFT_GUEST_STUBS       0x30000u
#define SOFT_GUEST_REAL_CODE   0x40000u /* where set_real copies the code to */
#define SOFT_GUEST_VECTOR_PORT 0x1000u
#define SOFT_GUEST_DONE_PORT   0xf4u

/* Selectors. */
#define SEL_CODE64   0x08
#define SEL_DATA     0x10
#define SEL_USER32   0x1b
#define SEL_USERDATA 0x23
#define SEL_USER64   0x2b
#define SEL_TSS      0x30
#define SEL_CODE32   0x40
#define SEL_CODE16   0x48
#define SEL_SMALL    0x50 /* data, limit 0xff */
#define SEL_NP       0x58 /* data, not present */

struct soft_guest {
    uint8_t *ram;
    struct accel_vm *vm;
    struct accel_vcpu *vcpus[4];
    struct accel_vcpu *vcpu; /* the first */
    struct soft_cpu *cpu;
    struct accel_exit exit;
    struct accel_vcpu_state state; /* regs and sregs, as of the last soft_guest_run */
};

void soft_guest_create(struct soft_guest *guest, unsigned vcpu_count);
void soft_guest_destroy(struct soft_guest *guest);

/* Puts code at SOFT_GUEST_CODE and the vCPU there, in 64-bit mode at CPL 0; tables as new. */
void soft_guest_load(struct soft_guest *guest, const void *code, size_t length);
#define soft_guest_code(guest, ...)                                                                \
    do {                                                                                           \
        static const uint8_t code_bytes[] = {__VA_ARGS__};                                         \
        soft_guest_load(guest, code_bytes, sizeof(code_bytes));                                    \
    } while (0)

/* The other modes, after soft_guest_load. */
void soft_guest_set_user(struct soft_guest *guest);
void soft_guest_set_protected(struct soft_guest *guest, bool is_32bit);
void soft_guest_set_real(struct soft_guest *guest);

/* Writes state.regs back; for changing registers before a run. */
void soft_guest_put_regs(struct soft_guest *guest);
void soft_guest_put_sregs(struct soft_guest *guest);

/* Until an exit; `state` is fresh afterwards. */
void soft_guest_run(struct soft_guest *guest);
/* The same, and the exit must be the end of the code. */
void soft_guest_run_to_end(struct soft_guest *guest);
/* The same, and it must be that exception. */
void soft_guest_expect(struct soft_guest *guest, unsigned vector);

/* The frame that the last 64-bit exception pushed: 0 error code, or RIP if there is none. */
uint64_t soft_guest_frame(const struct soft_guest *guest, unsigned index);

uint64_t soft_guest_u64(const struct soft_guest *guest, uint64_t gpa);
void soft_guest_set_u64(struct soft_guest *guest, uint64_t gpa, uint64_t value);
uint64_t *soft_guest_pte(struct soft_guest *guest, uint64_t address);
/* After changing tables from outside: as a CR3 load does. */
void soft_guest_flush(struct soft_guest *guest);

#endif
