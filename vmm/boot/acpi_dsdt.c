/* SPDX-License-Identifier: MIT */
/* acpi_dsdt: the PCI host bridge and the devices behind it that have no means to name themselves.
 */
#include "vmm/boot/acpi_dsdt.h"

#include <stdio.h>

#include "base/limits.h"
#include "devices/acpi_hotplug.h"
#include "devices/pci_host.h"
#include "devices/pvpanic.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "vmm/boot/acpi_hotplug_aml.h"

#define PCI_PINS 4

static void name_integer(struct aml *aml, const char *name, uint64_t value)
{
    aml_name(aml, name);
    aml_integer(aml, value);
}

static void name_eisa_id(struct aml *aml, const char *name, const char *id)
{
    aml_name(aml, name);
    aml_eisa_id(aml, id);
}

static void begin_resources(struct aml *aml)
{
    aml_name(aml, "_CRS");
    aml_resources(aml);
}

/* Soft-off: the sleep types to write to PM1a and PM1b. */
static void write_s5(struct aml *aml)
{
    aml_name(aml, "\\_S5");
    aml_package(aml, 4);
    aml_integer(aml, ACPI_SLEEP_TYPE_S5);
    for (int i = 0; i < 3; i++)
        aml_integer(aml, 0);
    aml_end(aml);
}

static void write_processors(const struct acpi_config *config, struct aml *aml)
{
    for (unsigned i = 0; i < config->max_cpus; i++) {
        char name[8];
        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        aml_device(aml, name);
        aml_name(aml, "_HID");
        aml_string(aml, "ACPI0007");
        name_integer(aml, "_UID", i);
        if (i >= config->cpus)
            acpi_hotplug_write_cpu(aml, i);
        aml_end(aml);
    }
    if (config->max_cpus > config->cpus)
        acpi_hotplug_write_cpus(config, aml);
}

static void write_bridge_windows(const struct acpi_config *config, struct aml *aml)
{
    begin_resources(aml);
    aml_resource_bus_window(aml, 0, PCI_HOST_LAST_BUS);
    aml_resource_io(aml, 0xcf8, 8);
    aml_resource_io_window(aml, 0, 0xcf7);
    aml_resource_io_window(aml, 0xd00, 0xffff);
    aml_resource_memory_window(aml, config->pci_hole_gpa, config->pci_hole_size);
    if (config->pci_hole64_size)
        aml_resource_memory_window(aml, config->pci_hole64_gpa, config->pci_hole64_size);
    aml_end(aml);
}

/* Which GSI each pin of each slot asserts. */
static void write_interrupt_routing(struct aml *aml)
{
    aml_name(aml, "_PRT");
    aml_package(aml, PCI_SLOT_MAX * PCI_PINS);
    for (unsigned slot = 0; slot < PCI_SLOT_MAX; slot++) {
        for (unsigned pin = 0; pin < PCI_PINS; pin++) {
            aml_package(aml, 4);
            aml_integer(aml, slot << 16 | 0xffff);
            aml_integer(aml, pin);
            aml_integer(aml, 0);
            aml_integer(aml, pci_host_intx_gsi(slot, pin));
            aml_end(aml);
        }
    }
    aml_end(aml);
}

static void write_serial(struct aml *aml, unsigned index, uint16_t port, unsigned irq)
{
    aml_device(aml, index == 0 ? "COM1" : "COM2");
    name_eisa_id(aml, "_HID", "PNP0501");
    name_integer(aml, "_UID", index + 1);
    begin_resources(aml);
    aml_resource_io(aml, port, 8);
    aml_resource_irq(aml, irq);
    aml_end(aml);
    aml_end(aml);
}

static void write_rtc(struct aml *aml)
{
    aml_device(aml, "RTC");
    name_eisa_id(aml, "_HID", "PNP0B00");
    begin_resources(aml);
    aml_resource_io(aml, 0x70, 2);
    aml_resource_irq(aml, RTC_GSI);
    aml_end(aml);
    aml_end(aml);
}

static void write_lpc_bridge(const struct acpi_config *config, struct aml *aml)
{
    aml_device(aml, "LPC");
    name_integer(aml, "_ADR", PCI_HOST_LPC_SLOT << 16);
    write_rtc(aml);
    if (config->has_serial[0])
        write_serial(aml, 0, SERIAL_COM1_PORT, SERIAL_COM1_GSI);
    if (config->has_serial[1])
        write_serial(aml, 1, SERIAL_COM2_PORT, SERIAL_COM2_GSI);
    aml_end(aml);
}

/* Addresses that no driver of a device claims; a guest trusts ECAM only where it is listed here. */
static void write_board_resources(const struct acpi_config *config, struct aml *aml)
{
    aml_device(aml, "BRD");
    name_eisa_id(aml, "_HID", "PNP0C02");
    begin_resources(aml);
    aml_resource_memory32(aml, (uint32_t)config->ecam_gpa, (uint32_t)PCI_HOST_ECAM_SIZE);
    aml_resource_io(aml, ACPI_PM_BASE, ACPI_PM_SIZE);
    aml_resource_io(aml, ACPI_SMI_CMD, 2);
    aml_resource_io(aml, 0x4d0, 2);
    aml_resource_io(aml, 0x92, 1);
    aml_resource_io(aml, ACPI_HOTPLUG_BASE, ACPI_HOTPLUG_SIZE);
    aml_end(aml);
    aml_end(aml);
}

/* The guest asks which PCI Express features it may run itself: all that it asks for. */
static void write_osc(struct aml *aml)
{
    aml_method(aml, "_OSC", 4);
    aml_return_argument(aml, 3);
    aml_end(aml);
}

static void write_pci(const struct acpi_config *config, struct aml *aml)
{
    aml_device(aml, "PCI0");
    name_eisa_id(aml, "_HID", "PNP0A08");
    name_eisa_id(aml, "_CID", "PNP0A03");
    name_integer(aml, "_UID", 0);
    name_integer(aml, "_SEG", 0);
    name_integer(aml, "_BBN", 0);
    write_bridge_windows(config, aml);
    write_interrupt_routing(aml);
    write_osc(aml);
    write_lpc_bridge(config, aml);
    write_board_resources(config, aml);
    acpi_hotplug_write_slots(aml);
    aml_end(aml);
}

static void write_pvpanic(struct aml *aml)
{
    aml_device(aml, "PEVT");
    aml_name(aml, "_HID");
    aml_string(aml, "QEMU0001"); /* the id by which guests' drivers know this port */
    begin_resources(aml);
    aml_resource_io(aml, PVPANIC_PORT, 1);
    aml_end(aml);
    name_integer(aml, "_STA", 0x0f);
    aml_end(aml);
}

void acpi_dsdt_write(const struct acpi_config *config, struct aml *aml)
{
    write_s5(aml);
    aml_scope(aml, "\\_SB");
    write_processors(config, aml);
    write_pci(config, aml);
    if (config->has_pvpanic)
        write_pvpanic(aml);
    aml_end(aml);
    acpi_hotplug_write_events(config, aml);
}
