/* SPDX-License-Identifier: MIT */
/*
 * gdb_break: breakpoints: a byte of the guest's code replaced by INT3, or a debug register.
 *
 * The guest may change the code under a breakpoint, or be reset: the byte is put back only where
 * INT3 still stands.
 */
#include <errno.h>

#include "devices/guest_mem.h"
#include "vmm/gdb/gdb_private.h"

#define INT3 0xcc

static struct gdb_breakpoint *find(struct gdb *gdb, enum gdb_break_kind kind, uint64_t address,
                                   unsigned length)
{
    for (unsigned i = 0; i < gdb->breakpoint_count; i++) {
        struct gdb_breakpoint *point = &gdb->breakpoints[i];
        if (point->kind == kind && point->address == address && point->length == length)
            return point;
    }
    return NULL;
}

static unsigned count_hardware(const struct gdb *gdb)
{
    unsigned count = 0;
    for (unsigned i = 0; i < gdb->breakpoint_count; i++)
        count += gdb->breakpoints[i].kind != GDB_BREAK_SOFT;
    return count;
}

static int patch(struct gdb *gdb, struct gdb_breakpoint *point)
{
    static const uint8_t int3 = INT3;
    struct accel_vcpu *cpu = machine_accel_vcpu(gdb->machine, gdb->cpu_index);
    const struct guest_mem *mem = machine_guest_mem(gdb->machine);
    if (cpu->vm->ops->vcpu_translate(cpu, point->address, &point->gpa) ||
        !guest_mem_read(mem, point->gpa, &point->original, 1) ||
        !guest_mem_write(mem, point->gpa, &int3, 1))
        return -EFAULT;
    return 0;
}

static void unpatch(struct gdb *gdb, const struct gdb_breakpoint *point)
{
    const struct guest_mem *mem = machine_guest_mem(gdb->machine);
    uint8_t byte;
    if (guest_mem_read(mem, point->gpa, &byte, 1) && byte == INT3)
        unused_result(guest_mem_write(mem, point->gpa, &point->original, 1));
}

static bool fits_hardware(enum gdb_break_kind kind, uint64_t address, unsigned length)
{
    if (kind == GDB_BREAK_HARD)
        return true;
    return length && length <= 8 && !(length & (length - 1)) && !(address & (length - 1));
}

int gdb_break_insert(struct gdb *gdb, enum gdb_break_kind kind, uint64_t address, unsigned length)
{
    struct gdb_breakpoint point = {.kind = kind, .address = address, .length = length};
    int result = 0;
    if (find(gdb, kind, address, length))
        return 0;
    if (gdb->breakpoint_count == GDB_BREAKPOINT_MAX)
        return -ENOSPC;
    if (kind == GDB_BREAK_SOFT)
        result = patch(gdb, &point);
    else if (!fits_hardware(kind, address, length))
        result = -EINVAL;
    else if (count_hardware(gdb) == GDB_HW_BREAKPOINTS)
        result = -ENOSPC;
    if (!result)
        gdb->breakpoints[gdb->breakpoint_count++] = point;
    return result;
}

int gdb_break_remove(struct gdb *gdb, enum gdb_break_kind kind, uint64_t address, unsigned length)
{
    struct gdb_breakpoint *point = find(gdb, kind, address, length);
    if (!point)
        return -ENOENT;
    if (kind == GDB_BREAK_SOFT)
        unpatch(gdb, point);
    *point = gdb->breakpoints[--gdb->breakpoint_count];
    return 0;
}

void gdb_break_remove_all(struct gdb *gdb)
{
    while (gdb->breakpoint_count) {
        const struct gdb_breakpoint *last = &gdb->breakpoints[gdb->breakpoint_count - 1];
        if (last->kind == GDB_BREAK_SOFT)
            unpatch(gdb, last);
        gdb->breakpoint_count--;
    }
}

/* Debug register 7 (Intel SDM, volume 3, section 17.2): enable, type and length of each. */
static uint64_t debug_control_of(const struct gdb_breakpoint *point, unsigned slot)
{
    static const uint64_t lengths[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    uint64_t type = 0, length = 0;
    if (point->kind != GDB_BREAK_HARD) {
        type = point->kind == GDB_WATCH_WRITE ? 1 : 3;
        length = lengths[point->length];
    }
    return UINT64_C(2) << (2 * slot) | type << (16 + 4 * slot) | length << (18 + 4 * slot);
}

static void fill_debug(const struct gdb *gdb, struct kvm_guest_debug *debug)
{
    unsigned slot = 0;
    debug->arch.debugreg[7] = 0x600;
    for (unsigned i = 0; i < gdb->breakpoint_count; i++) {
        const struct gdb_breakpoint *point = &gdb->breakpoints[i];
        debug->control |= KVM_GUESTDBG_ENABLE;
        if (point->kind == GDB_BREAK_SOFT) {
            debug->control |= KVM_GUESTDBG_USE_SW_BP;
            continue;
        }
        debug->control |= KVM_GUESTDBG_USE_HW_BP;
        debug->arch.debugreg[slot] = point->address;
        debug->arch.debugreg[7] |= debug_control_of(point, slot);
        slot++;
    }
}

int gdb_break_arm(struct gdb *gdb)
{
    struct kvm_guest_debug debug = {0};
    fill_debug(gdb, &debug);
    int result = 0;
    unsigned count = machine_config(gdb->machine)->cpus;
    for (unsigned i = 0; i < count && !result; i++) {
        struct kvm_guest_debug own = debug;
        struct accel_vcpu *cpu = machine_accel_vcpu(gdb->machine, i);
        if (gdb->step_cpu == (int)i)
            own.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
        result = cpu->vm->ops->vcpu_set_debug(cpu, &own);
    }
    return result;
}

const struct gdb_breakpoint *gdb_break_find(const struct gdb *gdb, const struct accel_exit *exit)
{
    unsigned slot = 0;
    for (unsigned i = 0; i < gdb->breakpoint_count; i++) {
        const struct gdb_breakpoint *point = &gdb->breakpoints[i];
        bool is_soft = point->kind == GDB_BREAK_SOFT;
        if (is_soft && exit->debug.exception == 3 && exit->debug.rip == point->address)
            return point;
        if (!is_soft && exit->debug.exception == 1 && exit->debug.dr6 >> slot & 1)
            return point;
        slot += !is_soft;
    }
    return NULL;
}
