/* SPDX-License-Identifier: MIT */
/*
 * accel: what runs the guest's instructions: KVM (vmm/kvm) or evisor's own CPU (vmm/soft).
 *
 * Nothing outside vmm/ knows which one runs. State crosses in KVM's own layouts (<linux/kvm.h>), so
 * saving, comparing and debugging share code. The interrupt controller is split as with
 * KVM_CAP_SPLIT_IRQCHIP: the LAPICs are the accelerator's; IOAPIC, PIC and PIT are devices.
 *
 * Threads: vcpu_run on the vCPU's own thread; set_memslot, ioeventfd, irqfd and routes on the
 * loop's; get/set of vCPU state on any thread while that vCPU is not running; vcpu_kick,
 * ram_written, msi and set_extint from any thread at any time.
 */
#ifndef VMM_ACCEL_H
#define VMM_ACCEL_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"

/* Embedded as the first member of each accelerator's own struct. */
struct accel_vm {
    const struct accel_ops *ops;
};

struct accel_vcpu {
    struct accel_vm *vm;
    unsigned index; /* also its initial APIC id */
};

enum accel_exit_reason {
    ACCEL_EXIT_INTR,       /* vcpu_kick: nothing to answer */
    ACCEL_EXIT_PIO,        /* port I/O; answer by filling `data` on a read */
    ACCEL_EXIT_MMIO,       /* memory access outside RAM and ioeventfds; likewise */
    ACCEL_EXIT_IOAPIC_EOI, /* a level-triggered `vector` was acknowledged */
    ACCEL_EXIT_EXTINT,     /* ready for the PIC's interrupt: answer with vcpu_inject_extint */
    ACCEL_EXIT_SHUTDOWN,   /* triple fault */
    ACCEL_EXIT_DEBUG,      /* breakpoint or single step, for the GDB stub */
    ACCEL_EXIT_ERROR,      /* the accelerator cannot go on; `text` says why */
    ACCEL_EXIT_REASON_COUNT,
};

struct accel_exit {
    enum accel_exit_reason reason;
    union {
        struct {
            uint16_t port;
            uint8_t size; /* 1, 2 or 4 */
            bool is_write;
            uint32_t count; /* > 1 for string I/O: `count` elements of `size` bytes in a row */
            void *data;     /* in the accelerator's memory, valid until the next vcpu_run */
        } pio;
        struct {
            uint64_t gpa;
            uint8_t size; /* 1 to 8 */
            bool is_write;
            void *data;
        } mmio;
        uint8_t vector;
        struct {
            uint64_t rip;
            uint64_t dr6;
            uint32_t exception; /* 1 #DB, 3 #BP */
        } debug;
        const char *text;
    };
};

struct accel_route {
    uint32_t gsi;
    uint64_t address; /* MSI address and data */
    uint32_t data;
};

#define ACCEL_MSRS_MAX 128

struct accel_msrs {
    struct kvm_msrs header;
    struct kvm_msr_entry entries[ACCEL_MSRS_MAX];
};

#define ACCEL_CPUID_MAX 256

struct accel_cpuid {
    struct kvm_cpuid2 header;
    struct kvm_cpuid_entry2 entries[ACCEL_CPUID_MAX];
};

/* Groups of vCPU state that get_state and set_state move. */
struct accel_vcpu_state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_fpu fpu;
    struct kvm_debugregs debugregs;
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp_state;
    struct kvm_lapic_state lapic;
    struct kvm_xcrs xcrs; /* none where the host has no XSAVE: then xsave is nothing either */
    struct kvm_xsave xsave;
};

enum accel_state_group {
    ACCEL_STATE_REGS = 1 << 0,
    ACCEL_STATE_SREGS = 1 << 1,
    ACCEL_STATE_FPU = 1 << 2,
    ACCEL_STATE_DEBUGREGS = 1 << 3,
    ACCEL_STATE_EVENTS = 1 << 4,
    ACCEL_STATE_MP = 1 << 5,
    ACCEL_STATE_LAPIC = 1 << 6,
    ACCEL_STATE_XSAVE = 1 << 7, /* XCR0 and what it rules, FPU's part included */
    ACCEL_STATE_ALL = (1 << 8) - 1,
};

struct accel_ops {
    const char *name; /* "kvm", "soft" */

    /* 0 if it can be used on this host at all; -errno and a sentence with the remedy if not. */
    int (*probe)(struct error *err);

    int (*vm_create)(unsigned vcpu_count, struct accel_vm **out, struct error *err);
    void (*vm_destroy)(struct accel_vm *vm);

    /* size 0 removes the slot. Reads and runs at `host` for [gpa, gpa + size). 0 or -errno. */
    int (*set_memslot)(struct accel_vm *vm, unsigned slot, uint64_t gpa, uint64_t size, void *host,
                       bool read_only);
    /* A device wrote into RAM. After the write. */
    void (*ram_written)(struct accel_vm *vm, uint64_t gpa, uint64_t length);

    /* What the guest may be offered; the machine adapts topology and hands it to vcpu_set_cpuid. */
    int (*supported_cpuid)(struct accel_vm *vm, struct accel_cpuid *out);
    uint32_t (*tsc_khz)(struct accel_vm *vm);

    /* In the state after power-on: vCPU 0 at the reset vector, the others waiting for SIPI. */
    int (*vcpu_create)(struct accel_vm *vm, unsigned index, struct accel_vcpu **out,
                       struct error *err);
    void (*vcpu_destroy)(struct accel_vcpu *vcpu);
    int (*vcpu_set_cpuid)(struct accel_vcpu *vcpu, const struct accel_cpuid *cpuid);

    /*
     * Runs until an exit. The answer to the previous exit is taken from where its `data` pointed.
     * HLT, wait-for-SIPI and LAPIC timers are waited for inside.
     */
    void (*vcpu_run)(struct accel_vcpu *vcpu, struct accel_exit *exit);
    /* Makes the present or the next vcpu_run return soon (ACCEL_EXIT_INTR). Sticky until it does.
     */
    void (*vcpu_kick)(struct accel_vcpu *vcpu);

    int (*vcpu_get_state)(struct accel_vcpu *vcpu, unsigned groups, struct accel_vcpu_state *out);
    int (*vcpu_set_state)(struct accel_vcpu *vcpu, unsigned groups,
                          const struct accel_vcpu_state *state);
    /* As KVM_GET_MSRS and KVM_SET_MSRS: number of entries done, or -errno. */
    int (*vcpu_get_msrs)(struct accel_vcpu *vcpu, struct accel_msrs *msrs);
    int (*vcpu_set_msrs)(struct accel_vcpu *vcpu, const struct accel_msrs *msrs);
    /* As KVM_SET_GUEST_DEBUG: single step, software and hardware breakpoints. */
    int (*vcpu_set_debug)(struct accel_vcpu *vcpu, const struct kvm_guest_debug *debug);
    /* Guest virtual to physical through the vCPU's own page tables. 0 or -EFAULT. */
    int (*vcpu_translate)(struct accel_vcpu *vcpu, uint64_t address, uint64_t *gpa);

    /* The PIC's INTR output to the boot CPU. */
    void (*set_extint)(struct accel_vm *vm, bool level);
    int (*vcpu_inject_extint)(struct accel_vcpu *vcpu, uint8_t vector);

    /* Delivers one message to the LAPICs. */
    void (*msi)(struct accel_vm *vm, uint64_t address, uint32_t data);
    /* The whole table: GSIs below GSI_IOAPIC_PINS are the IOAPIC's (for EOI), the rest irqfds'. */
    int (*set_routes)(struct accel_vm *vm, const struct accel_route *routes, unsigned count);
    int (*irqfd_add)(struct accel_vm *vm, int fd, uint32_t gsi);
    void (*irqfd_del)(struct accel_vm *vm, int fd, uint32_t gsi);

    /* size 0: any size (MMIO only). -ENOSPC where there is no room. */
    int (*ioeventfd_add)(struct accel_vm *vm, int fd, bool is_pio, uint64_t address, unsigned size,
                         bool any, uint64_t value);
    void (*ioeventfd_del)(struct accel_vm *vm, int fd, bool is_pio, uint64_t address, unsigned size,
                          bool any, uint64_t value);
};

extern const struct accel_ops kvm_accel_ops;
extern const struct accel_ops soft_accel_ops;

#endif
