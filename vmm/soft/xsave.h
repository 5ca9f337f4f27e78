/* SPDX-License-Identifier: MIT */
/* xsave: XSAVE, XSAVEOPT, XSAVEC, XRSTOR, XGETBV and XSETBV, and the state they know. */
#ifndef VMM_SOFT_XSAVE_H
#define VMM_SOFT_XSAVE_H

#include "vmm/soft/decode.h"

/* Offsets in the area, behind FXSAVE's image. There is only one component more, so the compacted
 * format looks like the standard one. */
enum {
    XSAVE_HEADER = 512,
    XSAVE_AVX = 576,
    XSAVE_BYTES = 832,
};

#define XCR0_ALL (XCR0_X87 | XCR0_SSE | XCR0_AVX)

/* CPUID leaf 0xD, index 1, EAX. */
#define CPUID_D1_XSAVEOPT (1u << 0)
#define CPUID_D1_XSAVEC   (1u << 1)
#define CPUID_D1_XGETBV1  (1u << 2)

/* Bytes of an area for the components that XCR0 enables. */
unsigned xsave_area_bytes(uint64_t xcr0);
/* Which components XCR0 may name, by what this vCPU's CPUID says. */
uint64_t xsave_supported(const struct soft_cpu *cpu);
/* False if XCR0 cannot have this value. */
bool xsave_is_valid_xcr0(const struct soft_cpu *cpu, uint64_t value);

/* 0F AE /4 to /6 and 0F C7 /4 with a memory operand, ModRM read; SOFT_UNDEFINED where CPUID lacks
 * them. */
enum soft_decoded xsave_decode_area(struct soft_decoder *d, uint8_t opcode);
/* 0F 01 D0 and D1. */
enum soft_decoded xsave_decode_control(struct soft_decoder *d);

/* KVM_GET_XSAVE and KVM_SET_XSAVE: the standard format. Set: false for what XRSTOR would refuse. */
void xsave_get_state(const struct soft_cpu *cpu, struct kvm_xsave *out);
bool xsave_set_state(struct soft_cpu *cpu, const struct kvm_xsave *state);

#endif
