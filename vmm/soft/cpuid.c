/* SPDX-License-Identifier: MIT */
/*
 * cpuid: the CPU model of the software CPU. One table of leaves is the model; bits that need the
 * host are dropped where it lacks them, and CPUID patches in what depends on the vCPU's own state.
 */
#include "vmm/soft/cpuid.h"

#include <cpuid.h>
#include <linux/kvm_para.h>
#include <string.h>

#include "vmm/soft/xsave.h"

#define BIT(n) (UINT32_C(1) << (n))

/* Family 15, model 107: K8, which every guest knows and which has no errata that need MSRs. */
#define SIGNATURE 0x00060fb1u

/* FPU DE PSE TSC MSR PAE MCE CX8 APIC, MTRR PGE MCA CMOV PAT PSE36, MMX FXSR */
#define COMMON_EDX                                                                                 \
    (BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(9) | BIT(12) |    \
     BIT(13) | BIT(14) | BIT(15) | BIT(16) | BIT(17) | BIT(23) | BIT(24))
/* SEP CLFSH SSE SSE2 */
#define LEAF_1_EDX (COMMON_EDX | BIT(11) | BIT(19) | BIT(25) | BIT(26))
/* SSE3 SSSE3 SSE4.1 SSE4.2 POPCNT: executed by the host's own instructions */
#define LEAF_1_ECX_HOST (BIT(0) | BIT(9) | BIT(19) | BIT(20) | BIT(23))
/* CX16 x2APIC TSC-deadline XSAVE hypervisor */
#define LEAF_1_ECX   (BIT(13) | BIT(21) | BIT(24) | BIT(26) | BIT(31))
#define ECX_OSXSAVE  BIT(27)
#define EDX_APIC     BIT(9)
#define CLFLUSH_LINE (8u << 8) /* in units of 8 bytes */
/* SYSCALL NX LM */
#define EXTENDED_EDX   (COMMON_EDX | BIT(11) | BIT(20) | BIT(29))
#define EXTENDED_ECX   BIT(0) /* LAHF in 64-bit mode */
#define INVARIANT_TSC  BIT(8)
#define ADDRESS_WIDTHS 0x3028u /* 48 bits virtual, 40 physical */

#define TEXT(a, b, c, d)                                                                           \
    ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

static const struct kvm_cpuid_entry2 model[] = {
    {.function = 0,
     .eax = 0xd,
     .ebx = TEXT('A', 'u', 't', 'h'),
     .edx = TEXT('e', 'n', 't', 'i'),
     .ecx = TEXT('c', 'A', 'M', 'D')},
    {.function = 1,
     .eax = SIGNATURE,
     .ebx = CLFLUSH_LINE,
     .ecx = LEAF_1_ECX | LEAF_1_ECX_HOST,
     .edx = LEAF_1_EDX},
    {.function = 7, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX},
    {.function = 0xd,
     .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
     .eax = XCR0_X87 | XCR0_SSE,
     .ebx = XSAVE_AVX,
     .ecx = XSAVE_AVX},
    {.function = 0xd,
     .index = 1,
     .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
     .eax = CPUID_D1_XSAVEOPT | CPUID_D1_XSAVEC | CPUID_D1_XGETBV1},
    {.function = KVM_CPUID_SIGNATURE,
     .eax = KVM_CPUID_FEATURES,
     .ebx = TEXT('K', 'V', 'M', 'K'),
     .ecx = TEXT('V', 'M', 'K', 'V'),
     .edx = TEXT('M', 0, 0, 0)},
    {.function = KVM_CPUID_FEATURES,
     .eax = BIT(KVM_FEATURE_NOP_IO_DELAY) | BIT(KVM_FEATURE_CLOCKSOURCE2) |
            BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT)},
    {.function = 0x80000000,
     .eax = 0x80000008,
     .ebx = TEXT('A', 'u', 't', 'h'),
     .edx = TEXT('e', 'n', 't', 'i'),
     .ecx = TEXT('c', 'A', 'M', 'D')},
    {.function = 0x80000001, .eax = SIGNATURE, .ecx = EXTENDED_ECX, .edx = EXTENDED_EDX},
    {.function = 0x80000002,
     .eax = TEXT('e', 'v', 'i', 's'),
     .ebx = TEXT('o', 'r', ' ', 's'),
     .ecx = TEXT('o', 'f', 't', 'w'),
     .edx = TEXT('a', 'r', 'e', ' ')},
    {.function = 0x80000003, .eax = TEXT('C', 'P', 'U', 0)},
    {.function = 0x80000004},
    /* 64 KiB of L1 for instructions and data, 512 KiB of L2, 64-byte lines */
    {.function = 0x80000005,
     .eax = 0x01ff01ff,
     .ebx = 0x01ff01ff,
     .ecx = 0x40020140,
     .edx = 0x40020140},
    {.function = 0x80000006, .ebx = 0x42004200, .ecx = 0x02008140},
    {.function = 0x80000007, .edx = INVARIANT_TSC},
    {.function = 0x80000008, .eax = ADDRESS_WIDTHS},
};

static uint32_t host_leaf_1_ecx(void)
{
    uint32_t eax, ebx, ecx = 0, edx;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return 0;
    return ecx;
}

void soft_supported_cpuid(struct accel_cpuid *out)
{
    memset(out, 0, sizeof(*out));
    memcpy(out->entries, model, sizeof(model));
    out->header.nent = ARRAY_SIZE(model);
    for (uint32_t i = 0; i < out->header.nent; i++)
        if (out->entries[i].function == 1)
            out->entries[i].ecx &= ~LEAF_1_ECX_HOST | host_leaf_1_ecx();
}

static const struct kvm_cpuid_entry2 *find(const struct soft_cpu *cpu, uint32_t function,
                                           uint32_t index)
{
    for (uint32_t i = 0; i < cpu->cpuid.header.nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &cpu->cpuid.entries[i];

        if (entry->function == function &&
            (entry->index == index || !(entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
            return entry;
    }
    return NULL;
}

/* What follows the vCPU's own state instead of the model. */
static void patch(const struct soft_cpu *cpu, uint32_t function, uint32_t index, uint32_t out[4])
{
    bool has_apic = lapic_get_base(&cpu->lapic) & LAPIC_BASE_ENABLE;

    if (function == 1) {
        out[2] &= ~ECX_OSXSAVE;
        if (cpu->cr4 & CR4_OSXSAVE)
            out[2] |= ECX_OSXSAVE;
    }
    if (function == 0xd && index < 2 && out[0])
        out[1] = xsave_area_bytes(cpu->xcr0);
    if ((function == 1 || function == 0x80000001) && !has_apic)
        out[3] &= ~EDX_APIC;
}

void soft_cpuid(const struct soft_cpu *cpu, uint32_t function, uint32_t index, uint32_t out[4])
{
    const struct kvm_cpuid_entry2 *entry = find(cpu, function, index);

    memset(out, 0, 4 * sizeof(*out));
    if (!entry)
        return;
    out[0] = entry->eax;
    out[1] = entry->ebx;
    out[2] = entry->ecx;
    out[3] = entry->edx;
    patch(cpu, function, index, out);
}
