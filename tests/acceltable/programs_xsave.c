/* SPDX-License-Identifier: MIT */
/* programs_xsave: guest programs about XCR0, XSAVE's area and who may execute AVX. */
#include "tests/acceltable/program.h"

#define OSXSAVE "mov %cr4, %rax\n or $0x40000, %eax\n mov %rax, %cr4\n"
#define XCR0(value) "xor %ecx, %ecx\n xor %edx, %edx\n mov $" #value ", %eax\n xsetbv\n"
#define TASK_SWITCHED "mov %cr0, %rax\n or $8, %eax\n mov %rax, %cr0\n"
#define ALL "mov $-1, %eax\n mov $-1, %edx\n"

/* --- XCR0 --- */

PROGRAM(MODE_KERNEL64, xsetbv_without_osxsave, XCR0(3))
PROGRAM(MODE_KERNEL64, xgetbv_without_osxsave, "xor %ecx, %ecx\n xgetbv")
PROGRAM(MODE_KERNEL64, xsetbv_all, OSXSAVE XCR0(7) "xor %eax, %eax\n xgetbv\n" END)
PROGRAM(MODE_KERNEL64, xsetbv_sse, OSXSAVE XCR0(3) "xor %eax, %eax\n xgetbv\n" END)
PROGRAM(MODE_KERNEL64, xsetbv_without_x87, OSXSAVE XCR0(2))
PROGRAM(MODE_KERNEL64, xsetbv_nothing, OSXSAVE XCR0(0))
PROGRAM(MODE_KERNEL64, xsetbv_avx_without_sse, OSXSAVE XCR0(5))
PROGRAM(MODE_KERNEL64, xsetbv_reserved, OSXSAVE XCR0(0x40000003))
PROGRAM(MODE_KERNEL64, xsetbv_reserved_high, OSXSAVE "xor %ecx, %ecx\n mov $3, %eax\n mov $0x80000000, %edx\n xsetbv")
PROGRAM(MODE_KERNEL64, xsetbv_of_another, OSXSAVE "mov $1, %ecx\n xor %edx, %edx\n mov $3, %eax\n xsetbv")
PROGRAM(MODE_KERNEL64, xgetbv_of_another, OSXSAVE "mov $2, %ecx\n xgetbv")
PROGRAM(MODE_USER64, user_xsetbv, XCR0(3))
PROGRAM(MODE_KERNEL64, osxsave_shows, OSXSAVE "mov $1, %eax\n cpuid\n shr $26, %ecx\n and $7, %ecx\n xor %eax, %eax\n xor %ebx, %ebx\n xor %edx, %edx\n" END)
PROGRAM(MODE_KERNEL64, area_follows_xcr0, OSXSAVE XCR0(3) "mov $0xd, %eax\n xor %ecx, %ecx\n cpuid\n mov %ebx, %esi\n" XCR0(7) "mov $0xd, %eax\n xor %ecx, %ecx\n cpuid\n" END)

/* --- The area --- */

PROGRAM(MODE_KERNEL64, xsave_without_osxsave, ALL "xsave 0x30000")
PROGRAM(MODE_KERNEL64, xsave_misaligned, OSXSAVE XCR0(7) ALL "xsave 0x30020")
PROGRAM(MODE_KERNEL64, xsave_with_ts, OSXSAVE XCR0(7) TASK_SWITCHED ALL "xsave 0x30000")
PROGRAM(MODE_KERNEL64, xsave_to_read_only, OSXSAVE XCR0(7) ALL "xsave 0x51000")
PROGRAM(MODE_KERNEL64, xsave_locked, OSXSAVE XCR0(7) ALL ".byte 0xf0, 0x0f, 0xae, 0x24, 0x25, 0, 0, 3, 0")
PROGRAM(MODE_KERNEL64, xrstor_reserved_component, OSXSAVE XCR0(7) "movq $15, 0x30200\n" ALL "xrstor 0x30000")
PROGRAM(MODE_KERNEL64, xrstor_reserved_header, OSXSAVE XCR0(7) "movq $1, 0x30210\n" ALL "xrstor 0x30000")
PROGRAM(MODE_KERNEL64, xrstor_bad_mxcsr, OSXSAVE XCR0(7) "movq $0, 0x30200\n movq $0, 0x30208\n movq $0, 0x30210\n movl $0x10000, 0x30018\n" ALL "xrstor 0x30000")
PROGRAM(MODE_KERNEL64, xsave_and_back, OSXSAVE XCR0(7) "mov $0x11223344, %eax\n movd %eax, %xmm5\n vinsertf128 $1, %xmm5, %ymm5, %ymm5\n movq $0, 0x30200\n movq $0, 0x30208\n movq $0, 0x30210\n mov $6, %eax\n xor %edx, %edx\n xsave 0x30000\n vxorps %ymm5, %ymm5, %ymm5\n xrstor 0x30000\n vextractf128 $1, %ymm5, %xmm6\n" END)

/* --- AVX --- */

PROGRAM(MODE_KERNEL64, avx_without_osxsave, "vxorps %ymm0, %ymm0, %ymm0")
PROGRAM(MODE_KERNEL64, avx_without_xcr0, OSXSAVE XCR0(3) "vxorps %ymm0, %ymm0, %ymm0")
PROGRAM(MODE_KERNEL64, avx_with_ts, OSXSAVE XCR0(7) TASK_SWITCHED "vxorps %ymm0, %ymm0, %ymm0")
PROGRAM(MODE_KERNEL64, avx_misaligned, OSXSAVE XCR0(7) "vmovaps 0x30010, %ymm0")
PROGRAM(MODE_KERNEL64, avx_unaligned, OSXSAVE XCR0(7) "vaddps 0x30004, %ymm0, %ymm0\n vpxor %xmm0, %xmm0, %xmm0\n" END)
PROGRAM(MODE_KERNEL64, avx_divide_unmasked, OSXSAVE XCR0(7) "movl $0x1d80, 0x30000\n vldmxcsr 0x30000\n vxorps %ymm1, %ymm1, %ymm1\n vpcmpeqd %ymm0, %ymm0, %ymm0\n vpsrld $25, %ymm0, %ymm0\n vpslld $23, %ymm0, %ymm0\n vdivps %ymm1, %ymm0, %ymm2\n")
PROGRAM(MODE_KERNEL64, gather_fault, OSXSAVE XCR0(7) "vpcmpeqd %xmm1, %xmm1, %xmm1\n vpxor %xmm2, %xmm2, %xmm2\n vpgatherdd %xmm1, 0x50000(,%xmm2,4), %xmm0\n")
PROGRAM(MODE_KERNEL64, general_bmi_with_ts, TASK_SWITCHED "andn %rbx, %rcx, %rax\n pdep %rbx, %rcx, %rdx\n test %eax, %eax\n" END)
PROGRAM(MODE_REAL, vex_in_real_mode, ".byte 0xc5, 0xf8, 0x77")
PROGRAM(MODE_V86, vex_in_v86, ".byte 0xc5, 0xf8, 0x77")
PROGRAM(MODE_PROTECTED, vex_in_protected_mode, ".byte 0xc5, 0xf8, 0x77")
