/* SPDX-License-Identifier: MIT */
/*
 * unpack: does for the guest what a bzImage's own first part does: it decompresses the kernel,
 * chooses where it lies (KASLR: at random, both in physical and in virtual memory) and moves it
 * there; the guest then starts at the kernel's own 64-bit entry (Documentation/arch/x86/boot.rst,
 * "64-bit boot protocol", and "payload_offset" of the setup header). Libraries do this faster than
 * the guest could, above all where the guest's CPU is software.
 *
 * What this does not know is left to the guest's own code: it is told by false, and the guest's
 * memory may have been written by then.
 */
#ifndef VMM_BOOT_UNPACK_H
#define VMM_BOOT_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "devices/guest_mem.h"
#include "vmm/boot/decompress.h"

struct unpack_source {
    const uint8_t *payload; /* of the bzImage: compressed, its size when decompressed behind it */
    size_t payload_size;
    const struct decompressor *decompressor;
    /* From the setup header. */
    uint64_t link_gpa;  /* pref_address */
    uint64_t alignment; /* kernel_alignment */
    uint64_t size;      /* init_size: memory in which the kernel unpacks itself and starts */
    bool is_movable;    /* relocatable_kernel */
    const char *cmdline;
    uint64_t limit_gpa; /* the kernel stays below: the initrd, or the end of low RAM */
};

struct unpacked {
    uint64_t entry_gpa;
    bool is_randomized; /* to be told to the kernel in the setup header's loadflags */
};

/*
 * True if the command line has the word `word`, or one that begins with it where that ends in '='.
 */
bool unpack_has_word(const char *cmdline, const char *word);

/* False for what is to be left to the guest; writes nothing. */
bool must_check unpack_is_possible(const struct unpack_source *source);
bool must_check unpack(const struct unpack_source *source, const struct guest_mem *mem,
                       struct unpacked *out);

#endif
