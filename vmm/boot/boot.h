/* SPDX-License-Identifier: MIT */
/*
 * boot: puts a Linux kernel into guest RAM and the boot CPU at its entry.
 *
 * Two kinds are taken: a bzImage by its 64-bit entry, or by its 32-bit entry where that is all it
 * has (Documentation/arch/x86/boot.rst, "64-bit" and "32-bit boot protocol"), and an ELF vmlinux by
 * PVH (Xen's pvh.h: a note of type 18 names the 32-bit entry). The files are mapped when the machine
 * is built and copied at each reset, so a guest that overwrote its kernel still reboots.
 */
#ifndef VMM_BOOT_BOOT_H
#define VMM_BOOT_BOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/accel.h"
#include "vmm/memory.h"

enum boot_kind { BOOT_BZIMAGE, BOOT_BZIMAGE_32, BOOT_PVH };

struct decompressor;

struct boot_file {
    const uint8_t *bytes;
    size_t size;
};

struct boot {
    /* Set by the caller between boot_open and boot_load; both false by themselves. */
    bool guest_unpacks; /* a bzImage unpacks itself, which evisor does for it otherwise (unpack.h) */
    bool has_la57;      /* the CPU offers paging in 5 levels */

    enum boot_kind kind;
    struct boot_file kernel;
    struct boot_file initrd; /* size 0: none */
    const struct decompressor *decompressor; /* of the kernel's payload; NULL: none */
    char *cmdline;
    uint64_t entry; /* guest physical address of the first instruction, from boot_load on */
    bool uses_la57; /* the kernel starts in 5 levels, which its own first part would switch to */
    uint64_t load_gpa;
    uint64_t initrd_gpa;
    uint64_t kernel_end; /* first address that the kernel leaves alone while it unpacks itself */
    uint64_t initrd_limit;
};

/* Maps and checks the files; nothing is copied yet. `initrd` and `cmdline` may be NULL. */
int must_check boot_open(struct boot *boot, const struct memory *memory, const char *kernel,
                         const char *initrd, const char *cmdline, struct error *err);
void boot_close(struct boot *boot);

/* True if boot_load unpacks a kernel: it takes up to a second then, and belongs beside the loop. */
bool boot_is_long(const struct boot *boot);

/* Copies everything into RAM. `rsdp_gpa` 0: no ACPI. For power-on and every reset; any thread. */
void boot_load(struct boot *boot, const struct memory *memory, uint64_t rsdp_gpa);

/* Changes a power-on state into the one that the entry point wants. */
void boot_set_cpu(const struct boot *boot, struct accel_vcpu_state *state);

/* The kinds' own halves: boot_bzimage.c and boot_pvh.c. */
int must_check boot_bzimage_parse(struct boot *boot, const char *path, struct error *err);
void boot_bzimage_load(struct boot *boot, const struct memory *memory, uint64_t rsdp_gpa);
int must_check boot_pvh_parse(struct boot *boot, const struct memory *memory, const char *path,
                              struct error *err);
void boot_pvh_load(const struct boot *boot, const struct memory *memory, uint64_t rsdp_gpa);

/* Where things go below 640 KiB. */
#define BOOT_GDT_GPA         UINT64_C(0x500)
#define BOOT_PVH_INFO_GPA    UINT64_C(0x6000)
#define BOOT_ZERO_PAGE_GPA   UINT64_C(0x7000)
#define BOOT_STACK_GPA       UINT64_C(0x8ff0)
#define BOOT_PAGE_TABLES_GPA UINT64_C(0x9000) /* PML4, PDPT, four PDs: 6 pages */
#define BOOT_PML5_GPA        UINT64_C(0xf000)
#define BOOT_CMDLINE_GPA     UINT64_C(0x20000)
#define BOOT_LOW_RAM_END     UINT64_C(0x9fc00)
#define BOOT_HIGH_RAM        UINT64_C(0x100000)

#endif
