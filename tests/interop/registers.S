/* SPDX-License-Identifier: MIT */
/*
 * A BIOS of 64 KiB that fills a CPU's registers and then runs in a circle, for the test of what a
 * monitor tells of them. MODE is 16, 32 (protected, no paging) or 64 (four levels of page tables).
 */
.code16
.globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ss
    mov %ax, %es
    mov $0x6000, %sp
#if MODE == 16
    mov $0x1234, %ax
    mov %ax, %ds
    mov $0xdeadbeef, %ebx
    mov $0x4321, %edx
    std
    stc
circle:
    jmp circle
#else
    lgdtl %cs:gdt_register
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $0x8, $(0xf0000 + protected)

.code32
protected:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    mov $0x28, %eax
    ltr %ax
    mov %cr4, %eax
    or $0x600, %eax             /* OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    fninit
    fld1
    fldpi
    movl $0x1fc0, 0x5000
    ldmxcsr 0x5000
    mov $0xcafe0000, %eax
    movd %eax, %xmm3
    mov $0x11223344, %eax
    mov %eax, %dr1
#if MODE == 64
    /* 0x1000 -> 0x2000 -> 0x3000: one page of 2 MiB, and a table at 0x4000 with two of 4 KiB. */
    mov $0x1000, %edi
    xor %eax, %eax
    mov $0x1000, %ecx
    cld
    rep stosl
    movl $0x2007, 0x1000
    movl $0x3007, 0x2000
    movl $0x00000083, 0x3000
    movl $0x4007, 0x3008
    movl $0x00005107, 0x4000
    movl $0x00006001, 0x4008
    movl $0x1003, 0x1ff8        /* the tables themselves, as kernels do */
    mov $0x1000, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax              /* PAE */
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax             /* LME */
    wrmsr
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    ljmp $0x18, $(0xf0000 + long)

.code64
long:
    mov %cr4, %rax
    or $0x40000, %rax           /* OSXSAVE */
    mov %rax, %cr4
    xor %ecx, %ecx
    xor %edx, %edx
    mov $7, %eax
    xsetbv
    mov $0x123456789abcdef0, %rax
    movq %rax, %xmm9
    vinsertf128 $1, %xmm9, %ymm9, %ymm9
    mov $0x0123456789abcdef, %r8
    mov $-1, %r15
    mov $0x200100, %rsp
#endif
    mov $0x55667788, %ebp
    mov $0x5000, %esi
    mov $0x77, %edi
    mov $0x99, %ecx
    mov $0x88, %edx
    mov $0, %eax
    cmp %eax, %eax
    mov $0x1, %ebx
circle:
    jmp circle

.balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    /* code of 32 bits; all are marked as accessed already */
    .quad 0x00cf93000000ffff    /* data */
    .quad 0x00af9b000000ffff    /* code of 64 bits */
    .quad 0
    .quad 0x0000890050000067    /* a TSS */
    .quad 0
gdt_register:
    .word 55
    .long 0xf0000 + gdt
#endif

.org 0xfff0
.code16
    ljmp $0xf000, $_start
.org 0x10000
