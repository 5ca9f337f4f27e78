/* SPDX-License-Identifier: MIT */
/* control: control and debug registers, RFLAGS, and what the CPU's mode follows from. */
#include "vmm/soft/block.h"
#include "vmm/soft/mmu.h"
#include "vmm/soft/segment.h"
#include "vmm/soft/system.h"

#define RFLAGS_ALL                                                                                 \
    (RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM |         \
     RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID)
#define CR0_ALL                                                                                    \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD |     \
     CR0_PG)
#define CR4_ALL                                                                                    \
    (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE |      \
     CR4_OSFXSR | CR4_OSXMMEXCPT)
#define CPUID_1_ECX_XSAVE (1u << 26)
#define XCR0_FOR_AVX      (XCR0_SSE | XCR0_AVX)
#define DR6_FIXED   UINT64_C(0xffff0ff0)
#define DR7_FIXED   UINT64_C(0x400)
#define DR7_GD      UINT64_C(0x2000)
#define DR7_ENABLED UINT64_C(0xff)
#define DR6_BD      UINT64_C(0x2000)

uint64_t soft_get_rflags(const struct soft_cpu *cpu)
{
    uint32_t f = cpu->flags;

    return (f >> 8 & 0xd5) | (f & SOFT_FLAG_OF ? RFLAGS_OF : 0) | cpu->rflags | RFLAGS_FIXED;
}

void soft_set_rflags(struct soft_cpu *cpu, uint64_t value)
{
    uint64_t old = cpu->rflags;

    cpu->flags = (uint32_t)(value & 0xd5) << 8 | (value & RFLAGS_OF ? SOFT_FLAG_OF : 0) | 0x200;
    cpu->rflags = value & RFLAGS_ALL;
    if (cpu->rflags & RFLAGS_IF && cpu->irq_waiting)
        atomic_store_explicit(&cpu->poll, 1, memory_order_relaxed);
    if ((old ^ cpu->rflags) & (RFLAGS_TF | RFLAGS_AC | RFLAGS_VM))
        soft_update_mode(cpu);
}

/* --- The mode --- */

static uint8_t compute_mode(const struct soft_cpu *cpu)
{
    uint16_t attributes = cpu->seg[SOFT_CS].attributes;
    unsigned mode = SOFT_MODE_16;

    if (soft_is_long_mode(cpu) && attributes & SEG_L)
        mode = SOFT_MODE_64;
    else if (attributes & SEG_D)
        mode = SOFT_MODE_32;
    if (!(cpu->cr0 & CR0_PE) || cpu->rflags & RFLAGS_VM)
        mode |= SOFT_MODE_REAL;
    if (cpu->cr0 & CR0_EM)
        mode |= SOFT_MODE_EM;
    if (cpu->cr0 & CR0_TS)
        mode |= SOFT_MODE_TS;
    if (cpu->cr0 & CR0_MP)
        mode |= SOFT_MODE_MP;
    if (!(cpu->cr4 & CR4_OSFXSR))
        mode |= SOFT_MODE_NO_SSE;
    if (!(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & XCR0_FOR_AVX) != XCR0_FOR_AVX)
        mode |= SOFT_MODE_NO_AVX;
    return (uint8_t)mode;
}

/* Debug registers that ask for a look at every instruction or data access. */
static bool watches(const struct soft_cpu *cpu)
{
    return cpu->dr[7] & DR7_ENABLED || cpu->debug.control & KVM_GUESTDBG_USE_HW_BP;
}

void soft_update_mode(struct soft_cpu *cpu)
{
    unsigned privilege = cpu->cpl == 3;
    bool checks_alignment = privilege && cpu->cr0 & CR0_AM && cpu->rflags & RFLAGS_AC;

    cpu->mode = compute_mode(cpu);
    cpu->cs_base = soft_is_64bit(cpu) ? 0 : cpu->seg[SOFT_CS].base;
    cpu->tlb = cpu->tlbs[watches(cpu) || checks_alignment ? SOFT_TLB_SLOW
                         : privilege                      ? SOFT_TLB_USER
                                                          : SOFT_TLB_KERNEL];
    cpu->jumps = cpu->jump_sets[privilege];
    if (cpu->jump_mode[privilege] != cpu->mode || cpu->jump_base[privilege] != cpu->cs_base) {
        block_flush_jumps(cpu);
        cpu->jump_mode[privilege] = cpu->mode;
        cpu->jump_base[privilege] = cpu->cs_base;
    }
    cpu->is_stepping =
        cpu->rflags & RFLAGS_TF || watches(cpu) || (cpu->debug.control & KVM_GUESTDBG_SINGLESTEP);
    if (cpu->is_stepping)
        atomic_store_explicit(&cpu->poll, 1, memory_order_relaxed);
}

/* --- Control registers --- */

void control_set_cr0(struct soft_cpu *cpu, uint64_t value)
{
    uint64_t changed = cpu->cr0 ^ value;

    cpu->cr0 = (value & CR0_ALL) | CR0_ET;
    if (cpu->cr0 & CR0_PG && cpu->efer & EFER_LME)
        cpu->efer |= EFER_LMA;
    else
        cpu->efer &= ~EFER_LMA;
    if (changed & (CR0_PG | CR0_WP | CR0_PE))
        mmu_flush_all(cpu);
    soft_update_mode(cpu);
}

static bool write_cr0(struct soft_cpu *cpu, uint64_t value)
{
    bool turns_paging_on = value & CR0_PG && !(cpu->cr0 & CR0_PG);

    if (value >> 32 || (value & CR0_PG && !(value & CR0_PE)) ||
        (value & CR0_NW && !(value & CR0_CD)))
        return soft_raise(cpu, SOFT_GP, 0);
    if (!(value & CR0_PG) && soft_is_64bit(cpu))
        return soft_raise(cpu, SOFT_GP, 0);
    if (turns_paging_on && cpu->efer & EFER_LME &&
        (!(cpu->cr4 & CR4_PAE) || cpu->seg[SOFT_CS].attributes & SEG_L))
        return soft_raise(cpu, SOFT_GP, 0);
    if (turns_paging_on && cpu->cr4 & CR4_PAE && !(cpu->efer & EFER_LME) &&
        !mmu_load_pdptes(cpu, cpu->cr3))
        return false;
    if (!(value & CR0_PE) && cpu->cr0 & CR0_PE)
        cpu->cpl = 0;
    control_set_cr0(cpu, value);
    return true;
}

static bool write_cr3(struct soft_cpu *cpu, uint64_t value)
{
    if (soft_is_long_mode(cpu)) {
        if (value >> cpu->physical_bits)
            return soft_raise(cpu, SOFT_GP, 0);
    } else if (cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE && !mmu_load_pdptes(cpu, value)) {
        return false;
    }
    cpu->cr3 = value;
    mmu_flush_non_global(cpu);
    return true;
}

static bool write_cr4(struct soft_cpu *cpu, uint64_t value)
{
    uint64_t changed = cpu->cr4 ^ value;
    uint64_t known = CR4_ALL | (cpu->cpuid_1_ecx & CPUID_1_ECX_XSAVE ? CR4_OSXSAVE : 0);

    if (value & ~known || (soft_is_long_mode(cpu) && !(value & CR4_PAE)))
        return soft_raise(cpu, SOFT_GP, 0);
    if (cpu->cr0 & CR0_PG && !soft_is_long_mode(cpu) && value & CR4_PAE && changed & CR4_PAE &&
        !mmu_load_pdptes(cpu, cpu->cr3))
        return false;
    cpu->cr4 = value;
    if (changed & (CR4_PSE | CR4_PAE | CR4_PGE))
        mmu_flush_all(cpu);
    soft_update_mode(cpu);
    return true;
}

bool control_write(struct soft_cpu *cpu, unsigned index, uint64_t value)
{
    switch (index) {
    case 0:
        return write_cr0(cpu, value);
    case 2:
        cpu->cr2 = value;
        return true;
    case 3:
        return write_cr3(cpu, value);
    case 4:
        return write_cr4(cpu, value);
    default:
        if (value >> 4)
            return soft_raise(cpu, SOFT_GP, 0);
        lapic_set_cr8(&cpu->lapic, (unsigned)value);
        soft_lapic_written(cpu);
        return true;
    }
}

bool control_read(struct soft_cpu *cpu, unsigned index, uint64_t *value)
{
    switch (index) {
    case 0:
        *value = cpu->cr0;
        break;
    case 2:
        *value = cpu->cr2;
        break;
    case 3:
        *value = cpu->cr3;
        break;
    case 4:
        *value = cpu->cr4;
        break;
    default:
        *value = lapic_get_cr8(&cpu->lapic);
        break;
    }
    return true;
}

/* --- Debug registers --- */

/* DR4 and DR5 are other names for DR6 and DR7, unless CR4.DE says that they do not exist. */
static bool debug_index(struct soft_cpu *cpu, unsigned *index)
{
    if (*index == 4 || *index == 5) {
        if (cpu->cr4 & CR4_DE)
            return soft_raise(cpu, SOFT_UD, 0);
        *index += 2;
    }
    if (!(cpu->dr[7] & DR7_GD))
        return true;
    cpu->dr[6] |= DR6_BD;
    cpu->dr[7] &= ~DR7_GD;
    return soft_raise(cpu, SOFT_DB, 0);
}

bool debug_read(struct soft_cpu *cpu, unsigned index, uint64_t *value)
{
    if (!debug_index(cpu, &index))
        return false;
    *value = cpu->dr[index];
    return true;
}

bool debug_write(struct soft_cpu *cpu, unsigned index, uint64_t value)
{
    if (!debug_index(cpu, &index))
        return false;
    if (index >= 6 && value >> 32)
        return soft_raise(cpu, SOFT_GP, 0);
    if (index == 6)
        value = (value & 0xe00f) | DR6_FIXED;
    if (index == 7)
        value = (value & UINT64_C(0xffff2bff)) | DR7_FIXED;
    cpu->dr[index] = value;
    soft_update_mode(cpu);
    return true;
}

static uint64_t breakpoint_length(uint64_t dr7, unsigned n)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};

    return lengths[dr7 >> (18 + n * 4) & 3];
}

/* The debugger's own breakpoints count instead of the guest's. */
static const uint64_t *active_breakpoints(const struct soft_cpu *cpu)
{
    if (cpu->debug.control & KVM_GUESTDBG_USE_HW_BP)
        return (const uint64_t *)(const void *)cpu->debug.arch.debugreg;
    return cpu->dr;
}

void system_check_data_breakpoints(struct soft_cpu *cpu, uint64_t address, unsigned length,
                                   bool is_write)
{
    const uint64_t *dr = active_breakpoints(cpu);

    for (unsigned n = 0; n < 4; n++) {
        unsigned kind = dr[7] >> (16 + n * 4) & 3;
        uint64_t size = breakpoint_length(dr[7], n);
        uint64_t start = dr[n] & ~(size - 1);

        if (!(dr[7] >> (2 * n) & 3) || !(kind == 3 || (kind == 1 && is_write)))
            continue;
        if (address < start + size && start < address + length) {
            cpu->db_bits |= UINT64_C(1) << n;
            cpu->db_pending = true;
        }
    }
}

uint64_t debug_instruction_hits(const struct soft_cpu *cpu)
{
    const uint64_t *dr = active_breakpoints(cpu);
    uint64_t hits = 0;

    for (unsigned n = 0; n < 4; n++)
        if (dr[7] >> (2 * n) & 3 && !(dr[7] >> (16 + n * 4) & 3) &&
            dr[n] == cpu->rip + cpu->cs_base)
            hits |= UINT64_C(1) << n;
    return hits;
}
