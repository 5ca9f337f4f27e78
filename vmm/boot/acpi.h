/* SPDX-License-Identifier: MIT */
/*
 * acpi: the tables that tell the guest what the machine is: RSDP, XSDT, FADT, MADT, MCFG, DSDT.
 *
 * (ACPI 6.3, section 5.2; PCI Firmware 3.0 for MCFG.) Everything lies in one area. Without firmware
 * that is ACPI_AREA_GPA to 1 MiB, where a guest scans for the RSDP by itself; with firmware it is
 * elsewhere, and the firmware copies the RSDP. E820 says that the area is reserved.
 */
#ifndef VMM_BOOT_ACPI_H
#define VMM_BOOT_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "devices/guest_mem.h"

#define ACPI_AREA_GPA  0xe0000u
#define ACPI_AREA_SIZE 0x20000u
#define ACPI_RSDP_BYTES 36 /* at the start of the area */

struct acpi_config {
    uint64_t area_gpa;
    unsigned cpus;     /* there from the start; APIC ids are 0 to max_cpus - 1 */
    unsigned max_cpus; /* the others come and go */
    uint64_t cpus_present;
    /* The holes from which the guest gives addresses to BARs; 64-bit size 0: none. */
    uint64_t pci_hole_gpa, pci_hole_size;
    uint64_t pci_hole64_gpa, pci_hole64_size;
    uint64_t ecam_gpa;
    bool has_serial[2]; /* COM1, COM2 */
    bool has_pvpanic;
};

/* Writes the tables into guest RAM and returns where the RSDP is. -ENOSPC: they do not fit. */
int must_check acpi_build(const struct acpi_config *config, const struct guest_mem *mem,
                          uint64_t *rsdp_gpa, struct error *err);

#endif
