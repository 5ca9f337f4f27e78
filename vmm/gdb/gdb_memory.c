/* SPDX-License-Identifier: MIT */
/* gdb_memory: guest memory by virtual address, page by page through the CPU's own tables. */
#include <errno.h>

#include "devices/guest_mem.h"
#include "vmm/gdb/gdb_private.h"

#define PAGE_BYTES 4096u

static bool translate(struct gdb *gdb, uint64_t address, uint64_t *gpa)
{
    struct accel_vcpu *cpu = machine_accel_vcpu(gdb->machine, gdb->cpu_index);
    return cpu->vm->ops->vcpu_translate(cpu, address, gpa) == 0;
}

static size_t piece_length(uint64_t address, size_t length)
{
    return MIN(length, PAGE_BYTES - (size_t)(address % PAGE_BYTES));
}

bool gdb_read(struct gdb *gdb, uint64_t address, void *to, size_t length)
{
    const struct guest_mem *mem = machine_guest_mem(gdb->machine);
    for (char *at = to; length;) {
        size_t piece = piece_length(address, length);
        uint64_t gpa;
        if (!translate(gdb, address, &gpa) || !guest_mem_read(mem, gpa, at, piece))
            return false;
        at += piece, address += piece, length -= piece;
    }
    return true;
}

bool gdb_write(struct gdb *gdb, uint64_t address, const void *from, size_t length)
{
    const struct guest_mem *mem = machine_guest_mem(gdb->machine);
    for (const char *at = from; length;) {
        size_t piece = piece_length(address, length);
        uint64_t gpa;
        if (!translate(gdb, address, &gpa) || !guest_mem_write(mem, gpa, at, piece))
            return false;
        at += piece, address += piece, length -= piece;
    }
    return true;
}
