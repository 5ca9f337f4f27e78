/* SPDX-License-Identifier: MIT */
/*
 * acpi_hotplug: the registers through which the DSDT's methods learn what came and what shall go:
 * PCI slots (GPE 1) and processors (GPE 2).
 *
 * (ACPI 6.3, section 6.3; the register block is evisor's own, vmm/boot/acpi_hotplug_aml.c its only
 * reader.) Plugging or asking for a removal sets a bit and raises the GPE; the handler reads the
 * bits and notifies the guest's driver, which ends a removal with _EJ0, hence with a write here.
 */
#ifndef DEVICES_ACPI_HOTPLUG_H
#define DEVICES_ACPI_HOTPLUG_H

#include "devices/acpi_pm.h"

#define ACPI_HOTPLUG_BASE    0xae00
#define ACPI_HOTPLUG_SIZE    0x40
#define ACPI_HOTPLUG_PCI_GPE 1
#define ACPI_HOTPLUG_CPU_GPE 2

enum { /* registers of 4 bytes; CPU registers are pairs, low half first */
       ACPI_HOTPLUG_SLOTS_UP = 0x00,     /* read: slots that came; cleared by that */
       ACPI_HOTPLUG_SLOTS_DOWN = 0x04,   /* read: slots that shall go, until they are ejected */
       ACPI_HOTPLUG_SLOTS_EJECT = 0x08,  /* write: slots that the guest has let go */
       ACPI_HOTPLUG_CPUS_PRESENT = 0x10, /* read */
       ACPI_HOTPLUG_CPUS_UP = 0x18,      /* as for slots */
       ACPI_HOTPLUG_CPUS_DOWN = 0x20,
       ACPI_HOTPLUG_CPUS_EJECT = 0x28,
       ACPI_HOTPLUG_OST_CPU = 0x30, /* write: _OST's processor, its event, then its status */
       ACPI_HOTPLUG_OST_EVENT = 0x34,
       ACPI_HOTPLUG_OST_STATUS = 0x38,
};

/* Called from inside the guest's write, for what is there only. */
struct acpi_hotplug_ops {
    /* The guest has let go, whether it was asked to or not. */
    void (*on_slot_ejected)(void *opaque, unsigned slot);
    void (*on_cpu_ejected)(void *opaque, unsigned cpu);
    /* The guest's word on an event that was notified (ACPI 6.3, section 6.3.5). */
    void (*on_cpu_ost)(void *opaque, unsigned cpu, uint32_t event, uint32_t status);
};

struct acpi_hotplug {
    struct device device;
    /* Private. */
    struct bus *bus;
    struct acpi_pm *acpi_pm;
    const struct acpi_hotplug_ops *ops;
    void *opaque;
    struct bus_region region;
    uint32_t slots_up, slots_down;
    uint64_t cpus_present, cpus_up, cpus_down;
    uint32_t ost_cpu, ost_event;
};

int must_check acpi_hotplug_create(struct bus *bus, struct acpi_pm *acpi_pm,
                                   const struct acpi_hotplug_ops *ops, void *opaque,
                                   struct acpi_hotplug **out, struct error *err);

/* A device is in the slot: the guest is told. */
void acpi_hotplug_slot_added(struct acpi_hotplug *hotplug, unsigned slot);
/* The guest is asked to let the slot's device go; again, if it was asked before. */
void acpi_hotplug_slot_unplug(struct acpi_hotplug *hotplug, unsigned slot);
/* Nothing is left to say about the slot: its device has gone. */
void acpi_hotplug_slot_forget(struct acpi_hotplug *hotplug, unsigned slot);

/* The same for processors. A present one is told of only where `tells`. */
void acpi_hotplug_cpu_added(struct acpi_hotplug *hotplug, unsigned cpu, bool tells);
void acpi_hotplug_cpu_unplug(struct acpi_hotplug *hotplug, unsigned cpu);
/* It stays: the guest has refused. */
void acpi_hotplug_cpu_keeps(struct acpi_hotplug *hotplug, unsigned cpu);
void acpi_hotplug_cpu_removed(struct acpi_hotplug *hotplug, unsigned cpu);

#endif
