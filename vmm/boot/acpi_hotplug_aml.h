/* SPDX-License-Identifier: MIT */
/*
 * acpi_hotplug_aml: the DSDT's part of hot-plug: slots and processors that may be ejected, and the
 * handlers of the events by which devices/acpi_hotplug tells of them.
 */
#ifndef VMM_BOOT_ACPI_HOTPLUG_AML_H
#define VMM_BOOT_ACPI_HOTPLUG_AML_H

#include "vmm/boot/acpi.h"
#include "vmm/boot/aml.h"

/* Inside the PCI host bridge: a device for each slot that is not the chipset's. */
void acpi_hotplug_write_slots(struct aml *aml);
/* Inside the device of processor `cpu`, which may come and go. */
void acpi_hotplug_write_cpu(struct aml *aml, unsigned cpu);
/* Beside the processors: their registers, and who is told of what. */
void acpi_hotplug_write_cpus(const struct acpi_config *config, struct aml *aml);
/* At the root: the general purpose events. */
void acpi_hotplug_write_events(const struct acpi_config *config, struct aml *aml);

#endif
