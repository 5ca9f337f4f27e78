/* SPDX-License-Identifier: MIT */
/* acpi_dsdt: the content of the DSDT: what the machine has that cannot be found by looking. */
#ifndef VMM_ACPI_DSDT_H
#define VMM_ACPI_DSDT_H

#include "vmm/acpi.h"
#include "vmm/aml.h"

void acpi_dsdt_write(const struct acpi_config *config, struct aml *aml);

#endif
