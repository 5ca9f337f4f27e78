/* SPDX-License-Identifier: MIT */
/*
 * acpi_hotplug_aml: what a guest's interpreter runs.
 *
 * PCNT and CCNT read which bits are set and notify each one's device: 1 (device check) for what
 * came, 3 (eject request) for what shall go. The guest ends a removal with _EJ0.
 */
#include "vmm/boot/acpi_hotplug_aml.h"

#include <stdio.h>

#include "base/limits.h"
#include "devices/acpi_hotplug.h"
#include "devices/pci_host.h"

enum { NOTIFY_DEVICE_CHECK = 1, NOTIFY_EJECT_REQUEST = 3 };

#define STA_ALL 0x0f /* present, enabled, shown, working */

struct field {
    const char *name;
    unsigned at; /* register */
};

/* Writes to registers with several meanings never read them first. */
static void write_registers(struct aml *aml, const char *region, const struct field *fields,
                            unsigned count)
{
    unsigned at = 0;
    aml_region(aml, region, ACPI_HOTPLUG_BASE, ACPI_HOTPLUG_SIZE);
    aml_field(aml, region);
    for (unsigned i = 0; i < count; i++) {
        aml_field_skip(aml, 8 * (fields[i].at - at));
        aml_field_unit(aml, fields[i].name, 32);
        at = fields[i].at + 4;
    }
    aml_end(aml);
}

static void slot_name(char name[static 8], unsigned slot)
{
    snprintf(name, 8, "S%02X", slot);
}

static void cpu_name(char name[static 8], unsigned cpu)
{
    snprintf(name, 8, "C%03X", cpu & 0xfff);
}

static void write_slot(struct aml *aml, unsigned slot)
{
    char name[8];
    slot_name(name, slot);
    aml_device(aml, name);
    aml_name(aml, "_ADR");
    aml_integer(aml, slot << 16);
    aml_name(aml, "_SUN");
    aml_integer(aml, slot);
    aml_method(aml, "_EJ0", 1);
    aml_store_integer(aml, UINT64_C(1) << slot, "PEJ");
    aml_end(aml);
    aml_end(aml);
}

static bool is_pluggable(unsigned slot)
{
    return slot != 0 && slot != PCI_HOST_LPC_SLOT;
}

/* If (Local0 & mask) Notify (name, value) */
static void write_notify(struct aml *aml, const char *name, uint64_t mask, unsigned value)
{
    aml_if(aml);
    aml_and_local(aml, 0, mask);
    aml_notify(aml, name, value);
    aml_end(aml);
}

static void write_slot_events(struct aml *aml, const char *reg, unsigned value)
{
    aml_store_to_local(aml, reg, 0);
    for (unsigned slot = 0; slot < PCI_SLOT_MAX; slot++) {
        char name[8];
        slot_name(name, slot);
        if (is_pluggable(slot))
            write_notify(aml, name, UINT64_C(1) << slot, value);
    }
}

void acpi_hotplug_write_slots(struct aml *aml)
{
    static const struct field fields[] = {{"PUP", ACPI_HOTPLUG_SLOTS_UP},
                                          {"PDN", ACPI_HOTPLUG_SLOTS_DOWN},
                                          {"PEJ", ACPI_HOTPLUG_SLOTS_EJECT}};
    write_registers(aml, "PHP", fields, ARRAY_SIZE(fields));
    for (unsigned slot = 0; slot < PCI_SLOT_MAX; slot++)
        if (is_pluggable(slot))
            write_slot(aml, slot);
    aml_serialized_method(aml, "PCNT");
    write_slot_events(aml, "PUP", NOTIFY_DEVICE_CHECK);
    write_slot_events(aml, "PDN", NOTIFY_EJECT_REQUEST);
    aml_end(aml);
}

/* The processor's entry of the MADT, as it is when it is there. */
static void write_mat(struct aml *aml, unsigned cpu)
{
    const uint8_t entry[8] = {0, sizeof(entry), (uint8_t)cpu, (uint8_t)cpu, 1};
    aml_name(aml, "_MAT");
    aml_buffer(aml, entry, sizeof(entry));
}

void acpi_hotplug_write_cpu(struct aml *aml, unsigned cpu)
{
    uint64_t mask = UINT64_C(1) << cpu % 32;
    write_mat(aml, cpu);
    aml_method(aml, "_STA", 0);
    aml_store_to_local(aml, cpu < 32 ? "\\_SB.CPR0" : "\\_SB.CPR1", 0);
    aml_if(aml);
    aml_and_local(aml, 0, mask);
    aml_return_integer(aml, STA_ALL);
    aml_end(aml);
    aml_return_integer(aml, 0);
    aml_end(aml);
    aml_method(aml, "_EJ0", 1);
    aml_store_integer(aml, mask, cpu < 32 ? "\\_SB.CEJ0" : "\\_SB.CEJ1");
    aml_end(aml);
    aml_method(aml, "_OST", 3);
    aml_store_integer(aml, cpu, "\\_SB.COSC");
    aml_store_argument(aml, 0, "\\_SB.COSE");
    aml_store_argument(aml, 1, "\\_SB.COSS");
    aml_end(aml);
}

/* Of processors [first, first + 32). */
static void write_cpu_events(const struct acpi_config *config, struct aml *aml, unsigned first,
                             const char *reg, unsigned value)
{
    aml_store_to_local(aml, reg, 0);
    for (unsigned cpu = MAX(first, config->cpus); cpu < MIN(first + 32, config->max_cpus); cpu++) {
        char name[8];
        cpu_name(name, cpu);
        write_notify(aml, name, UINT64_C(1) << (cpu - first), value);
    }
}

void acpi_hotplug_write_cpus(const struct acpi_config *config, struct aml *aml)
{
    static const struct field fields[] = {
        {"CPR0", ACPI_HOTPLUG_CPUS_PRESENT}, {"CPR1", ACPI_HOTPLUG_CPUS_PRESENT + 4},
        {"CUP0", ACPI_HOTPLUG_CPUS_UP},      {"CUP1", ACPI_HOTPLUG_CPUS_UP + 4},
        {"CDN0", ACPI_HOTPLUG_CPUS_DOWN},    {"CDN1", ACPI_HOTPLUG_CPUS_DOWN + 4},
        {"CEJ0", ACPI_HOTPLUG_CPUS_EJECT},   {"CEJ1", ACPI_HOTPLUG_CPUS_EJECT + 4},
        {"COSC", ACPI_HOTPLUG_OST_CPU},      {"COSE", ACPI_HOTPLUG_OST_EVENT},
        {"COSS", ACPI_HOTPLUG_OST_STATUS}};
    write_registers(aml, "CHP", fields, ARRAY_SIZE(fields));
    aml_serialized_method(aml, "CCNT");
    write_cpu_events(config, aml, 0, "CUP0", NOTIFY_DEVICE_CHECK);
    write_cpu_events(config, aml, 32, "CUP1", NOTIFY_DEVICE_CHECK);
    write_cpu_events(config, aml, 0, "CDN0", NOTIFY_EJECT_REQUEST);
    write_cpu_events(config, aml, 32, "CDN1", NOTIFY_EJECT_REQUEST);
    aml_end(aml);
}

static void write_event(struct aml *aml, unsigned event, const char *method)
{
    char name[8];
    snprintf(name, sizeof(name), "_E%02X", event);
    aml_method(aml, name, 0);
    aml_call(aml, method);
    aml_end(aml);
}

void acpi_hotplug_write_events(const struct acpi_config *config, struct aml *aml)
{
    aml_scope(aml, "\\_GPE");
    write_event(aml, ACPI_HOTPLUG_PCI_GPE, "\\_SB.PCI0.PCNT");
    if (config->max_cpus > config->cpus)
        write_event(aml, ACPI_HOTPLUG_CPU_GPE, "\\_SB.CCNT");
    aml_end(aml);
}
