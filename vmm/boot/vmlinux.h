/* SPDX-License-Identifier: MIT */
/*
 * vmlinux: the ELF file inside a bzImage: puts its segments where they run, and moves the kernel to
 * another virtual address by the relocations that Linux's build appends to the file
 * (arch/x86/tools/relocs.c; Documentation/arch/x86/boot.rst, "relocatable_kernel").
 *
 * The relocations are three tables of 32-bit words behind the end of the ELF file, each behind a
 * word of zero: places of 64-bit addresses, of 32-bit addresses to be taken away from (only up to
 * Linux 6.14), and of 32-bit addresses to be added to. A place is a kernel's virtual address, of
 * which the upper 32 bits are ones.
 */
#ifndef VMM_BOOT_VMLINUX_H
#define VMM_BOOT_VMLINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

#define VMLINUX_SEGMENT_MAX 16 /* Linux has 4 */

struct vmlinux_segment {
    uint64_t offset, file_bytes; /* in the file */
    uint64_t at, memory_bytes;   /* from `to` on */
};

/* A table of relocations, in words. */
struct vmlinux_table {
    const uint8_t *words;
    size_t count;
};

struct vmlinux {
    uint8_t *file; /* decompressed: the ELF file and the relocations; hostile */
    size_t file_size;
    uint8_t *to; /* where `link_gpa` goes, above `file` in the same memory */
    size_t to_size;
    uint64_t link_gpa; /* physical address it was linked for */
    /* From vmlinux_parse on. */
    uint64_t entry; /* 64-bit, from `to` on */
    struct vmlinux_segment segments[VMLINUX_SEGMENT_MAX];
    unsigned segment_count;
    struct vmlinux_table add64, subtract32, add32; /* empty: the virtual address is fixed */
};

/* False if it is no vmlinux of this shape. Nothing is written. */
bool must_check vmlinux_parse(struct vmlinux *vmlinux);
bool vmlinux_is_relocatable(const struct vmlinux *vmlinux);

/* Moves the segments to their places: over the file, but for the relocations. */
void vmlinux_place(const struct vmlinux *vmlinux);
/* After vmlinux_place. False, half done, if a place is outside of the kernel. */
bool must_check vmlinux_relocate(const struct vmlinux *vmlinux, uint64_t distance);
/* At last: the rest of each segment's memory reads as zero. */
void vmlinux_clear(const struct vmlinux *vmlinux);

#endif
