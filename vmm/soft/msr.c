/* SPDX-License-Identifier: MIT */
/*
 * msr: what RDMSR and WRMSR reach. Most are plain fields of the CPU in a table; the few with rules
 * of their own have functions. Some that Linux touches without asking read as zero.
 */
#include "vmm/soft/msr.h"

#include <stddef.h>

#include "vmm/soft/kvmclock.h"
#include "vmm/soft/mmu.h"
#include "vmm/soft/vm.h"

#define MSR_TSC            0x10u
#define MSR_TSC_ADJUST     0x3bu
#define MSR_MTRR_CAP       0xfeu
#define MSR_EFER           0xc0000080u
#define MSR_FS_BASE        0xc0000100u
#define MSR_GS_BASE        0xc0000101u
#define MSR_KVM_WALL_CLOCK 0x4b564d00u
#define MSR_KVM_CLOCK      0x4b564d01u
#define MTRR_CAP_VALUE     0x508u /* 8 variable ranges, fixed ranges, write-combining */
#define EFER_ALL           (EFER_SCE | EFER_LME | EFER_LMA | EFER_NX)

struct field {
    uint32_t first, last;
    size_t offset; /* in struct soft_cpu; consecutive registers are an array */
    bool is_address;
};

#define FIELD(at, name)                                                                            \
    {                                                                                              \
        at, at, offsetof(struct soft_cpu, name), false                                             \
    }
#define ADDRESS(at, name)                                                                          \
    {                                                                                              \
        at, at, offsetof(struct soft_cpu, name), true                                              \
    }
#define ARRAY(from, to, name)                                                                      \
    {                                                                                              \
        from, to, offsetof(struct soft_cpu, name), false                                           \
    }
#define REGISTER_FIELD(at, reg)                                                                    \
    {                                                                                              \
        at, at, offsetof(struct soft_cpu, r) + (reg)*8, true                                       \
    }

static const struct field fields[] = {
    FIELD(0xc0000081, star),
    ADDRESS(0xc0000082, lstar),
    ADDRESS(0xc0000083, cstar),
    FIELD(0xc0000084, sfmask),
    REGISTER_FIELD(MSR_FS_BASE, SOFT_REG_FSBASE),
    REGISTER_FIELD(MSR_GS_BASE, SOFT_REG_GSBASE),
    ADDRESS(0xc0000102, kernel_gs_base),
    FIELD(0xc0000103, tsc_aux),
    FIELD(0x174, sysenter_cs),
    ADDRESS(0x175, sysenter_esp),
    ADDRESS(0x176, sysenter_eip),
    FIELD(0x17a, mcg_status),
    FIELD(0x1a0, misc_enable),
    ARRAY(0x200, 0x20f, mtrr_variable),
    ARRAY(0x250, 0x250, mtrr_fixed[0]),
    ARRAY(0x258, 0x259, mtrr_fixed[1]),
    ARRAY(0x268, 0x26f, mtrr_fixed[3]),
    FIELD(0x2ff, mtrr_def_type),
};

/* Read as zero; writes are dropped. What Linux looks at without asking CPUID first. */
static const uint32_t quiet[] = {
    0x8b,                                                       /* microcode level */
    0x17,                                                       /* platform id */
    0x179,                                                      /* MCG_CAP: no banks */
    0xc0010010,                                                 /* SYSCFG */
    0xc0010015,                                                 /* HWCR */
    0xc001001f,                                                 /* NB_CFG */
    0xc0010055,                                                 /* interrupt pending message */
    0xc0010112, 0xc0010113, 0xc0010117,                         /* SMM addresses, VM_HSAVE */
    0xc0010140, 0xc0010141,                                     /* OS visible workarounds */
    0xc0011020, 0xc0011021, 0xc0011022, 0xc0011023, 0xc0011029, /* unit configurations */
    0x1d9,                                                      /* DEBUGCTL */
};

static uint64_t *find_field(struct soft_cpu *cpu, uint32_t index, bool *is_address)
{
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        if (index < fields[i].first || index > fields[i].last)
            continue;
        *is_address = fields[i].is_address;
        return (uint64_t *)(void *)((char *)cpu + fields[i].offset) + (index - fields[i].first);
    }
    return NULL;
}

static bool is_quiet(uint32_t index)
{
    for (size_t i = 0; i < ARRAY_SIZE(quiet); i++)
        if (quiet[i] == index)
            return true;
    return false;
}

static bool is_lapic(uint32_t index)
{
    return index == LAPIC_MSR_BASE || index == LAPIC_MSR_TSC_DEADLINE ||
           (index >= LAPIC_MSR_X2APIC_FIRST && index <= LAPIC_MSR_X2APIC_LAST);
}

bool msr_read(struct soft_cpu *cpu, uint32_t index, uint64_t *value)
{
    bool is_address;
    const uint64_t *field = find_field(cpu, index, &is_address);

    if (field) {
        *value = *field;
        return true;
    }
    if (is_lapic(index))
        return lapic_msr_read(&cpu->lapic, index, value);
    switch (index) {
    case MSR_TSC:
        *value = soft_tsc(cpu);
        return true;
    case MSR_TSC_ADJUST:
        *value = cpu->tsc_adjust;
        return true;
    case MSR_MTRR_CAP:
        *value = MTRR_CAP_VALUE;
        return true;
    case 0x277:
        *value = cpu->pat;
        return true;
    case MSR_EFER:
        *value = cpu->efer;
        return true;
    case MSR_KVM_WALL_CLOCK:
        *value = cpu->kvm_wall_clock;
        return true;
    case MSR_KVM_CLOCK:
        *value = cpu->kvm_clock;
        return true;
    default:
        *value = 0;
        return is_quiet(index);
    }
}

static void set_tsc_offset(struct soft_cpu *cpu, uint64_t by)
{
    cpu->tsc_offset += by;
    cpu->tsc_adjust += by;
    lapic_tsc_changed(&cpu->lapic);
    kvmclock_update(cpu);
}

static bool write_efer(struct soft_cpu *cpu, uint64_t value)
{
    if (value & ~EFER_ALL || (cpu->cr0 & CR0_PG && (cpu->efer ^ value) & EFER_LME))
        return false;
    cpu->efer = (value & ~EFER_LMA) | (cpu->efer & EFER_LMA);
    mmu_flush_all(cpu);
    return true;
}

static bool write_pat(struct soft_cpu *cpu, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = value >> (8 * i) & 0xff;

        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    cpu->pat = value;
    return true;
}

bool msr_write(struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    bool is_address;
    uint64_t *field = find_field(cpu, index, &is_address);

    if (field) {
        if (is_address && !soft_is_canonical(value))
            return false;
        *field = value;
        return true;
    }
    if (is_lapic(index)) {
        bool done = lapic_msr_write(&cpu->lapic, index, value);

        soft_lapic_written(cpu);
        return done;
    }
    switch (index) {
    case MSR_TSC:
        set_tsc_offset(cpu, value - soft_tsc(cpu));
        return true;
    case MSR_TSC_ADJUST:
        set_tsc_offset(cpu, value - cpu->tsc_adjust);
        return true;
    case 0x277:
        return write_pat(cpu, value);
    case MSR_EFER:
        return write_efer(cpu, value);
    case MSR_KVM_WALL_CLOCK:
        cpu->kvm_wall_clock = value;
        kvmclock_write_wall_clock(cpu);
        return true;
    case MSR_KVM_CLOCK:
        cpu->kvm_clock = value;
        kvmclock_update(cpu);
        return true;
    default:
        return is_quiet(index);
    }
}

bool msr_restore(struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    if (index == MSR_EFER) {
        cpu->efer = value & EFER_ALL;
        mmu_flush_all(cpu);
        soft_update_mode(cpu);
        return true;
    }
    if (index == LAPIC_MSR_BASE) {
        lapic_set_base(&cpu->lapic, value);
        return true;
    }
    return msr_write(cpu, index, value);
}

void msr_reset(struct soft_cpu *cpu)
{
    cpu->pat = UINT64_C(0x0007040600070406);
    cpu->misc_enable = 1;
    cpu->star = cpu->lstar = cpu->cstar = cpu->sfmask = cpu->kernel_gs_base = cpu->tsc_aux = 0;
    cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
    cpu->mcg_status = cpu->mtrr_def_type = cpu->kvm_clock = cpu->kvm_wall_clock = 0;
    for (size_t i = 0; i < ARRAY_SIZE(cpu->mtrr_fixed); i++)
        cpu->mtrr_fixed[i] = 0;
    for (size_t i = 0; i < ARRAY_SIZE(cpu->mtrr_variable); i++)
        cpu->mtrr_variable[i] = 0;
}
