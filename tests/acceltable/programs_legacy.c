/* SPDX-License-Identifier: MIT */
/* programs_legacy: guest programs in 32-bit protected, real and virtual-8086 mode. */
#include "tests/acceltable/program.h"

/* --- 32-bit protected mode without paging --- */

PROGRAM(MODE_PROTECTED, protected_ud2, "ud2")
PROGRAM(MODE_PROTECTED, protected_int3, "int3")
PROGRAM(MODE_PROTECTED, protected_limit, "mov $0xab, %eax\n mov %eax, %es\n mov %es:0xffd, %edx")
PROGRAM(MODE_PROTECTED, protected_stack_limit, "mov $0xa8, %eax\n mov %eax, %es\n mov %es:0x1000, %al")
PROGRAM(MODE_PROTECTED, protected_expand_down_inside, "mov $0x60, %eax\n mov %eax, %es\n mov %es:0x30000, %ebx\n" END)
PROGRAM(MODE_PROTECTED, protected_expand_down_outside, "mov $0x60, %eax\n mov %eax, %es\n mov %es:0x100, %ebx\n" END)
PROGRAM(MODE_PROTECTED, protected_write_read_only, "mov $0x68, %eax\n mov %eax, %es\n mov %es:0x30000, %ebx\n mov %ebx, %es:0x30000")
PROGRAM(MODE_PROTECTED, protected_write_code, "mov %eax, %cs:0x30000")
PROGRAM(MODE_PROTECTED, protected_read_execute_only, "mov $0x9b, %eax\n mov %eax, %es\n")
PROGRAM(MODE_PROTECTED, protected_absent, "mov $0x70, %eax\n mov %eax, %es\n")
PROGRAM(MODE_PROTECTED, protected_absent_ss, "mov $0x70, %eax\n mov %eax, %ss\n")
PROGRAM(MODE_PROTECTED, protected_null_use, "xor %eax, %eax\n mov %eax, %es\n mov %es:0x30000, %ebx\n")
PROGRAM(MODE_PROTECTED, protected_far_jump_bad, "ljmp $0x10, $0x20000")
PROGRAM(MODE_PROTECTED, protected_far_call, "lcall $0x18, $0x20000+(1f-program_protected_far_call)\n 1: pop %eax\n pop %ebx\n" END)
PROGRAM(MODE_PROTECTED, protected_call_gate, "lcall $0xb0, $0\n")
PROGRAM(MODE_PROTECTED, protected_sgdt, "sgdt 0x30000\n sidt 0x30010\n smsw %ebx\n" END)
PROGRAM(MODE_PROTECTED, protected_iret_same, "pushl $0x246\n pushl $0x18\n pushl $0x20000+(1f-program_protected_iret_same)\n iret\n 1: " END)
PROGRAM(MODE_PROTECTED, protected_iret_to_user,
        "pushl $0x2b\n pushl $0x3c000\n pushl $0x202\n pushl $0x23\n pushl $0x20000+(1f-program_protected_iret_to_user)\n iret\n 1: mov %cs, %ebx\n mov %ds, %ecx\n int $0x80")
PROGRAM(MODE_PROTECTED, protected_int_16_bit_gate, "movw $0xf4e6, 0xf000\n movw $0xf000, 0x9000+0x31*8\n movw $0, 0x9000+0x31*8+6\n movb $0x86, 0x9000+0x31*8+5\n int $0x31")
PROGRAM(MODE_PROTECTED, protected_to_real_like_16_bit,
        "ljmp $0x50, $(1f-program_protected_to_real_like_16_bit)\n 1: .code16\n mov %cs, %bx\n outb %al, $0xf4\n .code32\n")
PROGRAM(MODE_PROTECTED, protected_bcd, "mov $0x99, %eax\n add $1, %al\n daa\n .byte 0xd6\n" END)
PROGRAM(MODE_PROTECTED, protected_pushad, "pushal\n popal\n" END)
PROGRAM(MODE_PROTECTED, protected_enter_long_mode,
        "mov $0x1000, %eax\n mov %eax, %cr3\n mov %cr4, %eax\n or $0x20, %eax\n mov %eax, %cr4\n"
        "mov $0xc0000080, %ecx\n rdmsr\n or $0x900, %eax\n wrmsr\n mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0\n"
        "rdmsr\n mov %eax, %esi\n ljmp $0x08, $0x20000+(1f-program_protected_enter_long_mode)\n 1: .code64\n mov $-1, %rbx\n mov %cs, %edx\n" END ".code32\n")
PROGRAM(MODE_PROTECTED, protected_enter_compatibility_mode,
        "mov $0x1000, %eax\n mov %eax, %cr3\n mov %cr4, %eax\n or $0x20, %eax\n mov %eax, %cr4\n"
        "mov $0xc0000080, %ecx\n rdmsr\n or $0x900, %eax\n wrmsr\n mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0\n"
        "rdmsr\n mov %cs, %edx\n" END)
PROGRAM(MODE_PROTECTED, protected_lme_without_pae,
        "mov $0xc0000080, %ecx\n rdmsr\n or $0x100, %eax\n wrmsr\n mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0\n" END)
PROGRAM(MODE_PROTECTED, protected_leaves_for_real_mode,
        "ljmp $0x50, $(1f-program_protected_leaves_for_real_mode)\n 1: .code16\n mov $0x58, %ax\n mov %ax, %ss\n mov %ax, %ds\n mov %cr0, %eax\n and $0xfe, %al\n mov %eax, %cr0\n"
        "ljmp $0x2000, $(2f-program_protected_leaves_for_real_mode)\n 2: mov $0x3000, %ax\n mov %ax, %ds\n mov %ax, %ss\n mov 8, %ebx\n mov %cs, %cx\n outb %al, $0xf4\n .code32\n")
PROGRAM(MODE_PROTECTED, protected_task_register, "andb $0xfd, 0x804d\n mov $0x48, %eax\n ltr %ax\n str %ebx\n" END)
PROGRAM(MODE_PROTECTED, protected_sysenter_off, "sysenter")
PROGRAM(MODE_PROTECTED, protected_sysenter,
        "mov $0x174, %ecx\n mov $0x18, %eax\n xor %edx, %edx\n wrmsr\n mov $0x175, %ecx\n mov $0x37000, %eax\n wrmsr\n mov $0x176, %ecx\n mov $0x20000+(1f-program_protected_sysenter), %eax\n wrmsr\n"
        "sti\n sysenter\n ud2\n 1: mov %cs, %ebx\n mov %ss, %edx\n pushf\n pop %esi\n" END)
PROGRAM(MODE_PROTECTED, protected_ldt, "mov $0xb8, %eax\n lldt %ax\n mov $0x0f, %eax\n mov %eax, %fs\n mov %fs, %ebx\n" END)
PROGRAM(MODE_PROTECTED, protected_lds, "movl $0x1234, 0x30000\n movw $0x10, 0x30004\n lds 0x30000, %esi\n mov %ds, %ebx\n lfs 0x30000, %edi\n" END)

/* --- Hardware task switches: to a second TSS at 0xd000, whose descriptor takes the place of 0x68 --- */

#define TASK(access, offset, cs)                                                                   \
    "movl $0xd0000067, 0x8068\n movl $" #access "00, 0x806c\n movl $0x20000+" offset ", 0xd020\n"  \
    "movl $0x8d7, 0xd024\n movl $0x1234, 0xd028\n movl $0x37000, 0xd038\n movl $0x10, 0xd048\n"    \
    "movl $" #cs ", 0xd04c\n movl $0x10, 0xd050\n movl $0x10, 0xd054\n movl $0x10, 0xd058\n"       \
    "movl $0x10, 0xd05c\n"
/* Both TSSs, the descriptors and TS come into the result. */
#define TASK_END                                                                                   \
    "str %ebx\n mov %cr0, %edx\n clts\n mov $0xc400, %esi\n mov $0x30100, %edi\n mov $26, %ecx\n"  \
    "rep movsl\n mov $0xd000, %esi\n mov $26, %ecx\n rep movsl\n pushf\n pop %esi\n" END

PROGRAM(MODE_PROTECTED, task_jump, TASK(0x89, "(1f-program_task_jump)", 0x18) "ljmp $0x68, $0\n ud2\n 1: " TASK_END)
PROGRAM(MODE_PROTECTED, task_call, TASK(0x89, "(1f-program_task_call)", 0x18) "lcall $0x68, $0\n ud2\n 1: " TASK_END)
PROGRAM(MODE_PROTECTED, task_call_and_return, TASK(0x89, "(1f-program_task_call_and_return)", 0x18) "lcall $0x68, $0\n jmp 2f\n 1: inc %eax\n iret\n ud2\n 2: " TASK_END)
PROGRAM(MODE_PROTECTED, task_gate, TASK(0x89, "(1f-program_task_gate)", 0x18) "movl $0x680000, 0x9188\n movl $0x8500, 0x918c\n int $0x31\n ud2\n 1: " TASK_END)
PROGRAM(MODE_PROTECTED, task_gate_of_fault, TASK(0x89, "(1f-program_task_gate_of_fault)", 0x18) "movl $0x680000, 0x9000+13*8\n movl $0x8500, 0x9004+13*8\n mov $0xfff8, %eax\n mov %eax, %fs\n ud2\n 1: pop %ecx\n mov %ecx, 0x30000\n " TASK_END)
PROGRAM(MODE_PROTECTED, task_busy, TASK(0x8b, "0", 0x18) "ljmp $0x68, $0\n")
PROGRAM(MODE_PROTECTED, task_absent, TASK(0x09, "0", 0x18) "ljmp $0x68, $0\n")
PROGRAM(MODE_PROTECTED, task_too_short, TASK(0x89, "0", 0x18) "movw $0x66, 0x8068\n ljmp $0x68, $0\n")
PROGRAM(MODE_PROTECTED, task_data_as_code, TASK(0x89, "0", 0x10) "ljmp $0x68, $0\n")
PROGRAM(MODE_PROTECTED, task_return_to_idle, "pushl $0x4002\n popf\n movw $0x48, 0xc400\n andb $0xfd, 0x804d\n iret\n")

/* --- PAE paging --- */

PROGRAM(MODE_PAE, pae_read, "mov 0x30000, %eax\n mov %eax, 0x30008\n" END)
PROGRAM(MODE_PAE, pae_absent, "mov 0x50000, %eax")
PROGRAM(MODE_PAE, pae_read_only, "mov %eax, 0x51000")
PROGRAM(MODE_PAE, pae_nx, "mov $0x53000, %eax\n jmp *%eax")
PROGRAM(MODE_PAE, pae_bad_pdpte, "movl $0x1e7, 0x6000\n mov %cr3, %eax\n mov %eax, %cr3\n")
PROGRAM(MODE_PAE, pae_pdpte_is_cached, "movl $0, 0x6000\n mov 0x30000, %eax\n mov 0x31000, %ebx\n" END)

/* --- Real mode --- */

PROGRAM(MODE_REAL, real_int, "int $0x30")
PROGRAM(MODE_REAL, real_ud, ".byte 0x0f, 0x0b")
PROGRAM(MODE_REAL, real_divide, "xor %cx, %cx\n div %cx")
PROGRAM(MODE_REAL, real_segments, "mov $0x3000, %ax\n mov %ax, %ds\n mov 0x10, %bx\n mov %ax, %es\n movw $0x1234, %es:0x20\n mov %ds, %cx\n" END)
PROGRAM(MODE_REAL, real_wraps, "mov $0x3000, %ax\n mov %ax, %ds\n mov $0xffff, %bx\n mov (%bx), %al\n mov (%bx), %cx\n")
PROGRAM(MODE_REAL, real_stack, "push %ax\n pushl %ebx\n pusha\n mov %sp, %bx\n popa\n" END)
PROGRAM(MODE_REAL, real_far_call, "lcall $0x2000, $(1f-program_real_far_call)\n 1: pop %ax\n pop %bx\n" END)
PROGRAM(MODE_REAL, real_iret, "pushf\n push $0x2000\n push $(1f-program_real_iret)\n iret\n 1: " END)
PROGRAM(MODE_REAL, real_popf, "pushw $0x7fd7\n popf\n pushf\n pop %bx\n" END)
PROGRAM(MODE_REAL, real_strings, "mov $0x3000, %ax\n mov %ax, %ds\n mov %ax, %es\n xor %si, %si\n mov $0x100, %di\n mov $5, %cx\n cld\n rep movsw\n mov $0x200, %di\n mov $3, %cx\n rep stosl\n" END)
PROGRAM(MODE_REAL, real_addresses, "mov $0x3000, %ax\n mov %ax, %ds\n mov $8, %bx\n mov $8, %si\n mov (%bx,%si), %ax\n mov 4(%bx), %cx\n mov %bx, %bp\n lea 2(%bp,%si), %dx\n" END)
PROGRAM(MODE_REAL, real_32_bit_address_above_limit, "mov $0x10000, %ebx\n movb (%ebx), %al\n")
PROGRAM(MODE_REAL, real_lgdt_and_protect,
        "mov $0, %ax\n mov %ax, %ds\n mov $0x3000, %ax\n mov %ax, %es\n movw $0xbf, %es:0\n movl $0x8000, %es:2\n lgdtl %es:0\n mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n"
        "ljmpl $0x18, $0x20000+(1f-program_real_lgdt_and_protect)\n 1: .code32\n mov $0x10, %eax\n mov %eax, %ds\n mov 0x30008, %ebx\n outb %al, $0xf4\n .code16\n")
PROGRAM(MODE_REAL, real_sgdt, "mov $0x3000, %ax\n mov %ax, %ds\n sgdt 0\n sidt 8\n smsw %bx\n" END)
PROGRAM(MODE_REAL, real_no_lldt, ".byte 0x0f, 0x00, 0xd0")
PROGRAM(MODE_REAL, real_no_arpl, ".byte 0x63, 0xc3")
PROGRAM(MODE_REAL, real_les, "mov $0x3000, %ax\n mov %ax, %ds\n movl $0x12345678, 0\n les 0, %bx\n mov %es, %cx\n" END)
PROGRAM(MODE_REAL, real_loop, "mov $4, %cx\n xor %ax, %ax\n 1: inc %ax\n loop 1b\n" END)
PROGRAM(MODE_REAL, real_jump_wide, "jmp 1f\n .fill 300, 1, 0xf4\n 1: mov $7, %ax\n" END)
PROGRAM(MODE_REAL, real_aam, "mov $99, %ax\n aam\n aad\n" END)
PROGRAM(MODE_REAL, real_single_step, "pushw $0x102\n popf\n inc %ax\n inc %ax\n")

/* --- Virtual-8086 mode --- */

PROGRAM(MODE_V86, v86_segments, "mov $0x3000, %ax\n mov %ax, %ds\n mov 0x10, %bx\n mov %cs, %cx\n .byte 0x0f, 0x0b\n")
PROGRAM(MODE_V86, v86_int, "int $0x30")
PROGRAM(MODE_V86, v86_int3, "int3")
PROGRAM(MODE_V86, v86_cli, "cli")
PROGRAM(MODE_V86, v86_pushf, "pushf")
PROGRAM(MODE_V86, v86_hlt, "hlt")
PROGRAM(MODE_V86, v86_out, "outb %al, $0xf4")
PROGRAM(MODE_V86, v86_no_lldt, ".byte 0x0f, 0x00, 0xd0")
PROGRAM(MODE_V86, v86_mov_cr, "mov %cr0, %eax")
