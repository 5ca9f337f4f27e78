/* SPDX-License-Identifier: MIT */
/*
 * guest_mem: the guest's RAM as devices may touch it.
 *
 * An address becomes a pointer only together with its length, and only if the whole range lies in
 * one RAM region. The guest runs meanwhile: copy once, then check, then use. Every write into guest
 * RAM, ours or the host kernel's on our behalf, is told with guest_mem_written after it is done, so
 * that the accelerator drops decoded code and the dirty log stays true.
 */
#ifndef DEVICES_GUEST_MEM_H
#define DEVICES_GUEST_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

#define GUEST_MEM_REGION_MAX 8

struct guest_mem_region {
    uint64_t gpa;
    uint64_t size;
    void *host;
    bool is_pluggable; /* a memory device's: the guest learns of it from that, not at boot */
    bool is_shared;    /* a mapping that others may have as well: of a file */
};

struct guest_mem {
    struct guest_mem_region regions[GUEST_MEM_REGION_MAX]; /* sorted by gpa, disjoint */
    unsigned region_count;
    /* Told of every write by a device; any thread; may be NULL. */
    void (*on_written)(void *opaque, uint64_t gpa, uint64_t length);
    void *opaque;
};

/* NULL unless [gpa, gpa + length) lies in one region. length 0: NULL. */
void *guest_mem_span(const struct guest_mem *mem, uint64_t gpa, uint64_t length);

/* True if it was all RAM (regions that touch are walked); otherwise nothing was copied. */
bool must_check guest_mem_read(const struct guest_mem *mem, uint64_t gpa, void *to, size_t length);
bool must_check guest_mem_write(const struct guest_mem *mem, uint64_t gpa, const void *from,
                                size_t length);

void guest_mem_written(const struct guest_mem *mem, uint64_t gpa, uint64_t length);
/* The same for memory that was found by guest_mem_span. */
void guest_mem_written_host(const struct guest_mem *mem, const void *host, uint64_t length);

/*
 * Gives whole pages that guest_mem_span found back to the host; they read as zero then, of which
 * this tells. -errno where they are as before: they are locked, or parts of larger pages.
 */
int must_check guest_mem_discard_host(const struct guest_mem *mem, void *host, uint64_t length);

#endif
