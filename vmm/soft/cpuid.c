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
/* By the host's own instructions: SSE3 SSSE3 SSE4.1 SSE4.2 POPCNT, PCLMULQDQ AES RDRAND, FMA AVX
 * F16C */
#define LEAF_1_ECX_SSE    (BIT(0) | BIT(9) | BIT(19) | BIT(20) | BIT(23))
#define LEAF_1_ECX_CRYPTO (BIT(1) | BIT(25) | BIT(30))
#define LEAF_1_ECX_AVX    (BIT(12) | BIT(28) | BIT(29))
#define LEAF_1_ECX_HOST   (LEAF_1_ECX_SSE | LEAF_1_ECX_CRYPTO | LEAF_1_ECX_AVX)
/* CX16 x2APIC MOVBE TSC-deadline XSAVE hypervisor */
#define LEAF_1_ECX   (BIT(13) | BIT(21) | BIT(22) | BIT(24) | BIT(26) | BIT(31))
#define ECX_AVX      BIT(28)
#define ECX_OSXSAVE  BIT(27)
#define EDX_APIC     BIT(9)
#define CLFLUSH_LINE (8u << 8) /* in units of 8 bytes */
/* SYSCALL NX LM */
#define EXTENDED_EDX      (COMMON_EDX | BIT(11) | BIT(20) | BIT(29))
#define EXTENDED_ECX      BIT(0) /* LAHF in 64-bit mode */
#define EXTENDED_ECX_HOST BIT(5) /* LZCNT */
/* By the host, too: BMI1 BMI2, RDSEED SHA, and AVX2 */
#define LEAF_7_EBX_CRYPTO (BIT(18) | BIT(29))
#define LEAF_7_EBX_BMI    (BIT(3) | BIT(8))
#define LEAF_7_EBX_AVX2   BIT(5)
#define INVARIANT_TSC     BIT(8)
#define ADDRESS_WIDTHS    0x3028u /* 48 bits virtual, 40 physical */

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
    {.function = 7,
     .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
     .ebx = LEAF_7_EBX_BMI | LEAF_7_EBX_CRYPTO | LEAF_7_EBX_AVX2},
    {.function = 0xd,
     .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
     .eax = XCR0_ALL,
     .ebx = XSAVE_AVX,
     .ecx = XSAVE_BYTES},
    {.function = 0xd,
     .index = 1,
     .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
     .eax = CPUID_D1_XSAVEOPT | CPUID_D1_XSAVEC | CPUID_D1_XGETBV1},
    {.function = 0xd,
     .index = 2,
     .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
     .eax = XSAVE_BYTES - XSAVE_AVX,
     .ebx = XSAVE_AVX},
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
    {.function = 0x80000001,
     .eax = SIGNATURE,
     .ecx = EXTENDED_ECX | EXTENDED_ECX_HOST,
     .edx = EXTENDED_EDX},
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

/* What the host's own CPU has: registers of its CPUID leaves. */
struct host {
    uint32_t leaf_1_ecx, leaf_7_ebx, extended_ecx;
};

/* The host's kernel must save YMM for its processes, or AVX is not for us. */
static bool saves_ymm(uint32_t leaf_1_ecx)
{
    uint32_t low, high;

    if (!(leaf_1_ecx & ECX_OSXSAVE))
        return false;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & XCR0_ALL) == XCR0_ALL;
}

static struct host look_at_host(void)
{
    struct host host = {0};
    uint32_t eax, ebx, ecx, edx;

    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        host.leaf_1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        host.leaf_7_ebx = ebx;
    if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx))
        host.extended_ecx = ecx;
    if (!saves_ymm(host.leaf_1_ecx)) {
        host.leaf_1_ecx &= ~LEAF_1_ECX_AVX;
        host.leaf_7_ebx &= ~LEAF_7_EBX_AVX2;
    }
    return host;
}

static void drop_what_host_lacks(struct kvm_cpuid_entry2 *entry, const struct host *host)
{
    bool has_avx = host->leaf_1_ecx & ECX_AVX;

    switch (entry->function) {
    case 1:
        entry->ecx &= ~LEAF_1_ECX_HOST | host->leaf_1_ecx;
        break;
    case 7:
        entry->ebx &= host->leaf_7_ebx;
        break;
    case 0xd:
        if (!has_avx && entry->index == 0) {
            entry->eax &= ~(uint32_t)XCR0_AVX;
            entry->ecx = XSAVE_AVX;
        } else if (!has_avx && entry->index == 2) {
            entry->eax = entry->ebx = 0;
        }
        break;
    case 0x80000001:
        entry->ecx &= ~EXTENDED_ECX_HOST | host->extended_ecx;
        break;
    default:
        break;
    }
}

void soft_supported_cpuid(struct accel_cpuid *out)
{
    struct host host = look_at_host();

    memset(out, 0, sizeof(*out));
    memcpy(out->entries, model, sizeof(model));
    out->header.nent = ARRAY_SIZE(model);
    for (uint32_t i = 0; i < out->header.nent; i++)
        drop_what_host_lacks(&out->entries[i], &host);
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
