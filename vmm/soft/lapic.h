/* SPDX-License-Identifier: MIT */
/*
 * lapic: the local interrupt controller of each software vCPU: xAPIC and x2APIC registers,
 * priorities, inter-processor interrupts, messages from devices, and the timer.
 *
 * Threads: what a vCPU does to its own LAPIC (registers, ack, timer) runs on that vCPU's thread,
 * or on any while the vCPU is not running. lapic_msi and the IPIs of other vCPUs may come at any
 * time from any thread: they touch only the atomic part and then call ops->on_attention.
 */
#ifndef VMM_SOFT_LAPIC_H
#define VMM_SOFT_LAPIC_H

#include <linux/kvm.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"

#define LAPIC_DEFAULT_BASE   UINT64_C(0xfee00000)
#define LAPIC_MMIO_SIZE      UINT64_C(0x1000)
#define LAPIC_BASE_BSP       (UINT64_C(1) << 8)
#define LAPIC_BASE_X2APIC    (UINT64_C(1) << 10)
#define LAPIC_BASE_ENABLE    (UINT64_C(1) << 11)
#define LAPIC_REGISTER_COUNT 64 /* each 32 bits wide, 16 bytes apart */
#define LAPIC_NO_DEADLINE    UINT64_MAX

/* The MSRs of the LAPIC besides 0x800 to 0x8ff. */
#define LAPIC_MSR_BASE         0x1b
#define LAPIC_MSR_TSC_DEADLINE 0x6e0
#define LAPIC_MSR_X2APIC_FIRST 0x800
#define LAPIC_MSR_X2APIC_LAST  0x8ff

struct lapic;

struct lapic_ops {
    /* Something is pending that was not: make the vCPU look, wake it if it sleeps. Any thread. */
    void (*on_attention)(struct lapic *lapic);
    /* The clock of lapic_deadline_ns. */
    uint64_t (*now_ns)(struct lapic *lapic);
    /* When the guest's TSC will have this value, on that clock; a value in the past gives 0. */
    uint64_t (*tsc_to_ns)(struct lapic *lapic, uint64_t tsc);
};

/* The bus between the LAPICs of one machine. */
struct lapic_hub {
    struct lapic *lapics[VCPU_MAX]; /* by APIC id */
    unsigned count;
    _Atomic unsigned rotation; /* whose turn it is among equals of lowest priority */
};

enum lapic_event {
    LAPIC_EVENT_INIT = 1 << 0,
    LAPIC_EVENT_SIPI = 1 << 1,
    LAPIC_EVENT_NMI = 1 << 2,
    LAPIC_EVENT_SMI = 1 << 3,
};

struct lapic {
    struct lapic_hub *hub;
    const struct lapic_ops *ops;
    uint32_t id;
    /* Private. */
    _Atomic uint64_t base;                            /* IA32_APIC_BASE */
    _Atomic uint32_t registers[LAPIC_REGISTER_COUNT]; /* as the guest reads them, at offset / 16 */
    _Atomic uint32_t errors;                          /* ESR before the guest latches it */
    _Atomic unsigned events;                          /* enum lapic_event */
    _Atomic unsigned sipi_vector;
    int eoi_vector; /* level-triggered, acknowledged, not told yet; -1 */
    uint64_t deadline_ns;
    uint64_t period_ns;    /* of the periodic mode */
    uint64_t tsc_deadline; /* as the guest wrote it; 0 once it fired */
};

/* Adds a LAPIC to the hub, whose count becomes its id, in the state after power-on. */
void lapic_init(struct lapic *lapic, struct lapic_hub *hub, const struct lapic_ops *ops);
/* What INIT does; IA32_APIC_BASE stays. */
void lapic_reset(struct lapic *lapic);

/* MMIO: where it answers now; 4-byte accesses at 16-byte steps are what the hardware knows. */
bool lapic_covers(const struct lapic *lapic, uint64_t gpa);
uint32_t lapic_mmio_read(struct lapic *lapic, uint32_t offset);
void lapic_mmio_write(struct lapic *lapic, uint32_t offset, uint32_t value);

/* The MSRs named above. False: #GP. */
bool lapic_msr_read(struct lapic *lapic, uint32_t index, uint64_t *value);
bool lapic_msr_write(struct lapic *lapic, uint32_t index, uint64_t value);
/* IA32_APIC_BASE without the checks of a WRMSR, for restoring a vCPU. */
void lapic_set_base(struct lapic *lapic, uint64_t value);
uint64_t lapic_get_base(const struct lapic *lapic);

/* CR8: the priority class, 0 to 15. */
unsigned lapic_get_cr8(const struct lapic *lapic);
void lapic_set_cr8(struct lapic *lapic, unsigned value);

/* The vector that may interrupt now (above the processor priority), or -1. Leaves it pending. */
int lapic_pending(const struct lapic *lapic);
/* Takes that vector into service. -1 if there is none any more. */
int lapic_acknowledge(struct lapic *lapic);
/* True if the PIC's output reaches the CPU through LINT0, or past a LAPIC that is off. */
bool lapic_accepts_extint(const struct lapic *lapic);

/* Takes what INIT, SIPI, NMI and SMI messages left; bits of enum lapic_event. */
unsigned lapic_take_events(struct lapic *lapic, unsigned wanted);
bool lapic_has_events(const struct lapic *lapic, unsigned wanted);
unsigned lapic_sipi_vector(const struct lapic *lapic);

/* Once after each write to the LAPIC: the level-triggered vector just ended, for the IOAPIC; -1. */
int lapic_take_eoi(struct lapic *lapic);

/* When lapic_run_timer wants to be called, LAPIC_NO_DEADLINE if never. */
static inline uint64_t lapic_deadline_ns(const struct lapic *lapic)
{
    return lapic->deadline_ns;
}
void lapic_run_timer(struct lapic *lapic);
/* The guest's TSC was set to another value: the deadline moves. */
void lapic_tsc_changed(struct lapic *lapic);

/* One message from a device. Any thread. */
void lapic_msi(struct lapic_hub *hub, uint64_t address, uint32_t data);

/* As KVM_GET_LAPIC and KVM_SET_LAPIC: the id in bits 31..24 in both modes. */
void lapic_get_state(struct lapic *lapic, struct kvm_lapic_state *out);
void lapic_set_state(struct lapic *lapic, const struct kvm_lapic_state *state);

#endif
