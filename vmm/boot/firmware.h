/* SPDX-License-Identifier: MIT */
/*
 * firmware: a BIOS image such as SeaBIOS, which starts the machine from its disks.
 *
 * The image ends at 4 GiB, as read-only memory; its last 128 KiB are also RAM below 1 MiB, fresh at
 * every reset, so that the firmware finds its shadow memory already filled. What it must know it
 * reads from fw_cfg (QEMU's docs/specs/fw_cfg; the names are SeaBIOS's docs/Runtime_config.md).
 */
#ifndef VMM_BOOT_FIRMWARE_H
#define VMM_BOOT_FIRMWARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "devices/fw_cfg.h"
#include "vmm/accel.h"
#include "vmm/boot/acpi.h"
#include "vmm/config.h"
#include "vmm/memory.h"

struct firmware {
    uint8_t *bytes; /* page-aligned; NULL: the machine has no firmware */
    size_t size;
};

/* `path` NULL: SeaBIOS where its package puts it. */
int must_check firmware_open(struct firmware *firmware, const char *path, struct error *err);
void firmware_close(struct firmware *firmware);

/* As read-only memory that ends at 4 GiB. */
int must_check firmware_map(const struct firmware *firmware, struct accel_vm *vm, unsigned slot,
                            struct error *err);

/* For power-on and every reset. */
void firmware_load(const struct firmware *firmware, const struct memory *memory);

/* Where ACPI's tables lie with firmware: at the end of low RAM, which the guest is told to leave.
 */
uint64_t firmware_acpi_gpa(const struct memory *memory);

struct firmware_facts {
    const struct memory *memory;
    const struct vm_config *config;
    const uint8_t *rsdp; /* ACPI_RSDP_BYTES */
};

/* Fills fw_cfg but for the boot order; once. */
int must_check firmware_describe(struct fw_cfg *fw_cfg, const struct firmware_facts *facts,
                                 struct error *err);

/* The PCI slots of disks in the order in which to try them; others follow unless `is_strict`. */
int must_check firmware_set_boot_order(struct fw_cfg *fw_cfg, const unsigned slots[],
                                       unsigned count, bool is_strict, struct error *err);

#endif
