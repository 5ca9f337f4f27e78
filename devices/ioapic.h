/* SPDX-License-Identifier: MIT */
/*
 * ioapic: the I/O APIC: 24 pins, each with a redirection entry that says which message it sends.
 *
 * (Intel 82093AA datasheet, sections 2 and 3; the EOI register of the ICH9, section 13.5.) A pin
 * asserted means active whatever the polarity bit says. Messages go out by irq_hub's send_msi. A
 * level-triggered message is sent once until its EOI comes back by vector.
 */
#ifndef DEVICES_IOAPIC_H
#define DEVICES_IOAPIC_H

#include "base/limits.h"
#include "devices/bus.h"
#include "devices/device.h"
#include "devices/irq.h"

#define IOAPIC_BASE UINT64_C(0xfec00000)
#define IOAPIC_SIZE 0x1000

struct ioapic {
    struct device device;
    /* Private. */
    struct bus *bus;
    struct irq_hub *hub;
    void (*on_routes_changed)(void *opaque);
    void *opaque;
    struct bus_region region;
    uint8_t id;
    uint8_t selected;
    uint32_t levels;  /* pins asserted now */
    uint32_t pending; /* pins that have something to deliver */
    uint64_t entries[GSI_IOAPIC_PINS];
};

/*
 * on_routes_changed (may be NULL) is called, from inside the guest's write, whenever what
 * ioapic_get_route answers for some pin has changed, and before a message goes out by the new
 * entry: the accelerator must know by then which vectors' EOIs to report.
 */
int must_check ioapic_create(struct bus *bus, struct irq_hub *hub,
                             void (*on_routes_changed)(void *opaque), void *opaque,
                             struct ioapic **out, struct error *err);

/* The message of a pin. False while it can neither send one nor waits for an EOI. */
bool ioapic_get_route(const struct ioapic *ioapic, unsigned pin, uint64_t *address, uint32_t *data);

/* ISA interrupt 0 arrives at pin 2 (the MADT says so); the hub knows that, not the IOAPIC. */
void ioapic_set_pin(struct ioapic *ioapic, unsigned pin, bool level);

/* A local APIC has ended the level-triggered interrupt `vector`. */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);

#endif
