/* SPDX-License-Identifier: MIT */
/*
 * irq: the machine's interrupt wiring: device lines to PIC and IOAPIC, messages to the LAPICs.
 *
 * Implements devices/irq.h over an accelerator. GSI 0 to 15 are the ISA interrupts: GSI n is PIC
 * input n and IOAPIC pin n, except GSI 0, which is IOAPIC pin 2 (the MADT's override says so to the
 * guest). GSI 16 to 23 are PCI INTx, on the IOAPIC only. GSIs from 24 on are routes of messages,
 * each with an irqfd where the accelerator has them.
 */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include "base/limits.h"
#include "base/loop.h"
#include "devices/irq.h"
#include "vmm/accel.h"

struct irq_pins {
    void (*set_pic)(void *opaque, unsigned input, bool level);
    void (*set_ioapic)(void *opaque, unsigned pin, bool level);
    void *opaque;
};

struct irq {
    struct irq_hub hub; /* first */
    struct accel_vm *vm;
    /* Private. */
    struct irq_pins pins;
    unsigned asserted[GSI_IOAPIC_PINS]; /* how many lines hold this GSI up */
    struct accel_route routes[GSI_MAX]; /* by GSI: below GSI_IOAPIC_PINS the IOAPIC's */
    bool used[GSI_MAX];
    bool routes_dirty;
    struct loop_task flush;
};

void irq_init(struct irq *irq, struct loop *loop, struct accel_vm *vm);
void irq_fini(struct irq *irq);

/* Once PIC and IOAPIC exist. */
void irq_set_pins(struct irq *irq, const struct irq_pins *pins);

/* The accelerator has the routes as they are: no message is about to get another. */
bool irq_is_settled(const struct irq *irq);

/* The IOAPIC's pin now sends this message (for the EOIs that KVM reports); address 0: none. */
void irq_set_ioapic_route(struct irq *irq, unsigned pin, uint64_t address, uint32_t data);

#endif
