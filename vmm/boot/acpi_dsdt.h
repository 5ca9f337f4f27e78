/* SPDX-License-Identifier: MIT */
/*
 * acpi_dsdt: the content of the DSDT: what the machine has that cannot be found by looking. (ACPI
 * 6.3, sections 6 and 7; PCI Firmware 3.0, section 4 for the host bridge.)
 */
#ifndef VMM_BOOT_ACPI_DSDT_H
#define VMM_BOOT_ACPI_DSDT_H

#include "vmm/boot/acpi.h"
#include "vmm/boot/aml.h"

void acpi_dsdt_write(const struct acpi_config *config, struct aml *aml);

#endif
