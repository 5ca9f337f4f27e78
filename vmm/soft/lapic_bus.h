/* SPDX-License-Identifier: MIT */
/*
 * lapic_bus: the messages between LAPICs, and what lapic.c shares with them: the register file.
 * Private to the two.
 */
#ifndef VMM_SOFT_LAPIC_BUS_H
#define VMM_SOFT_LAPIC_BUS_H

#include "vmm/soft/lapic.h"

/* Register offsets. */
enum {
    REG_ID = 0x20,
    REG_VERSION = 0x30,
    REG_TPR = 0x80,
    REG_APR = 0x90,
    REG_PPR = 0xa0,
    REG_EOI = 0xb0,
    REG_RRD = 0xc0,
    REG_LDR = 0xd0,
    REG_DFR = 0xe0,
    REG_SVR = 0xf0,
    REG_ISR = 0x100,
    REG_TMR = 0x180,
    REG_IRR = 0x200,
    REG_ESR = 0x280,
    REG_ICR = 0x300,
    REG_ICR2 = 0x310,
    REG_LVT_TIMER = 0x320,
    REG_LVT_THERMAL = 0x330,
    REG_LVT_PERF = 0x340,
    REG_LVT_LINT0 = 0x350,
    REG_LVT_LINT1 = 0x360,
    REG_LVT_ERROR = 0x370,
    REG_INITIAL_COUNT = 0x380,
    REG_CURRENT_COUNT = 0x390,
    REG_DIVIDE = 0x3e0,
    REG_SELF_IPI = 0x3f0,
};

enum delivery_mode {
    DELIVERY_FIXED = 0,
    DELIVERY_LOWEST = 1,
    DELIVERY_SMI = 2,
    DELIVERY_NMI = 4,
    DELIVERY_INIT = 5,
    DELIVERY_SIPI = 6,
    DELIVERY_EXTINT = 7,
};

#define SVR_ENABLE        (1u << 8)
#define LVT_MASKED        (1u << 16)
#define VECTOR_LOWEST     16 /* the vectors below are the CPU's own */
#define ERROR_SEND_VECTOR (1u << 5)
#define ERROR_RECV_VECTOR (1u << 6)
#define ERROR_REGISTER    (1u << 7)

static inline uint32_t lapic_get(const struct lapic *lapic, unsigned offset)
{
    return atomic_load_explicit(&lapic->registers[offset >> 4], memory_order_relaxed);
}

static inline void lapic_set(struct lapic *lapic, unsigned offset, uint32_t value)
{
    atomic_store_explicit(&lapic->registers[offset >> 4], value, memory_order_relaxed);
}

static inline _Atomic uint32_t *lapic_vector_word(struct lapic *lapic, unsigned offset,
                                                  unsigned vector)
{
    return &lapic->registers[(offset >> 4) + vector / 32];
}

static inline uint32_t lapic_vector_bit(unsigned vector)
{
    return 1u << (vector % 32);
}

static inline bool lapic_is_x2apic(const struct lapic *lapic)
{
    uint64_t both = LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC;

    return (atomic_load(&lapic->base) & both) == both;
}

static inline bool lapic_is_on(const struct lapic *lapic)
{
    return atomic_load(&lapic->base) & LAPIC_BASE_ENABLE;
}

static inline bool lapic_is_software_enabled(const struct lapic *lapic)
{
    return lapic_is_on(lapic) && lapic_get(lapic, REG_SVR) & SVR_ENABLE;
}

/* TPR or the class in service, whichever is higher: PPR. */
uint32_t lapic_priority(const struct lapic *lapic);

/* Any thread, to any LAPIC. */
void lapic_bus_accept(struct lapic *lapic, uint8_t vector, bool is_level);
void lapic_bus_error(struct lapic *lapic, uint32_t error);
/* LDR, which x2APIC derives from the id. */
uint32_t lapic_bus_logical_id(const struct lapic *lapic);
/* What writing the interrupt command register does; the sender's thread. */
void lapic_bus_send(struct lapic *lapic, uint32_t icr, uint32_t icr2);

#endif
