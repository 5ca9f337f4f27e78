/* SPDX-License-Identifier: MIT */
/* programs_long: guest programs in 64-bit and compatibility mode. */
#include "tests/acceltable/program.h"

/* --- Exceptions and their frames --- */

PROGRAM(MODE_KERNEL64, ud2, "ud2")
PROGRAM(MODE_KERNEL64, int3, "int3")
PROGRAM(MODE_KERNEL64, int_n, "int $0x30")
PROGRAM(MODE_KERNEL64, int_with_ist, "int $0x90")
PROGRAM(MODE_KERNEL64, int_trap_gate, "sti\n int $0x81")
PROGRAM(MODE_KERNEL64, int_clears_flags, "pushq $0x4202\n popfq\n int $0x30")
PROGRAM(MODE_KERNEL64, divide_by_zero, "xor %ecx, %ecx\n div %ecx")
PROGRAM(MODE_KERNEL64, divide_overflow, "mov $1, %edx\n mov $1, %ecx\n div %ecx")
PROGRAM(MODE_KERNEL64, idiv_overflow, "movabs $0x8000000000000000, %rax\n cqo\n mov $-1, %rcx\n idiv %rcx")
PROGRAM(MODE_KERNEL64, odd_stack_is_aligned, "sub $5, %rsp\n int $0x30")
PROGRAM(MODE_KERNEL64, read_absent, "mov 0x50008, %rax")
PROGRAM(MODE_KERNEL64, write_absent, "mov %rax, 0x50008")
PROGRAM(MODE_KERNEL64, write_read_only, "mov %rax, 0x51010")
PROGRAM(MODE_KERNEL64, write_read_only_without_wp,
        "mov %cr0, %rbx\n btr $16, %rbx\n mov %rbx, %cr0\n mov %rax, 0x51010\n mov 0x51010, %rcx\n" END)
PROGRAM(MODE_KERNEL64, read_reserved_bit, "mov 0x54000, %rax")
PROGRAM(MODE_KERNEL64, execute_nx, "jmp *%rbx\n")
PROGRAM(MODE_KERNEL64, execute_nx_page, "mov $0x53000, %ebx\n jmp *%rbx")
PROGRAM(MODE_KERNEL64, execute_absent, "mov $0x50ff0, %ebx\n jmp *%rbx")
PROGRAM(MODE_KERNEL64, execute_into_absent,
        "mov $0x4ffff, %ebx\n movb $0x0f, (%rbx)\n jmp *%rbx")
PROGRAM(MODE_KERNEL64, write_across_into_absent, "mov %rax, 0x4fffc")
PROGRAM(MODE_KERNEL64, noncanonical_data, "movabs $0x800000000000, %rbx\n mov (%rbx), %rax")
PROGRAM(MODE_KERNEL64, noncanonical_stack, "movabs $0x800000000000, %rsp\n push %rax")
PROGRAM(MODE_KERNEL64, noncanonical_rbp, "movabs $0x800000000000, %rbp\n mov (%rbp), %rax")
PROGRAM(MODE_KERNEL64, noncanonical_jump, "movabs $0x800000000000, %rbx\n jmp *%rbx")
PROGRAM(MODE_KERNEL64, noncanonical_return,
        "movabs $0x800000000000, %rbx\n push %rbx\n ret")
PROGRAM(MODE_KERNEL64, canonical_but_wraps, "mov $-4, %rbx\n mov (%rbx), %rax")
PROGRAM(MODE_KERNEL64, idt_limit, "sub $16, %rsp\n movw $0x7f, (%rsp)\n movq $0x9000, 2(%rsp)\n lidt (%rsp)\n ud2\n")
PROGRAM(MODE_KERNEL64, triple_fault, "sub $16, %rsp\n movw $0, (%rsp)\n movq $0, 2(%rsp)\n lidt (%rsp)\n ud2\n")
PROGRAM(MODE_KERNEL64, double_fault_by_stack, "mov $0x50000, %esp\n add $8, %rsp\n push %rax\n")
PROGRAM(MODE_KERNEL64, gate_not_present, "movb $0x0e, 0x9000+0x31*16+5\n int $0x31")
PROGRAM(MODE_KERNEL64, gate_of_wrong_type, "movb $0x8c, 0x9000+0x31*16+5\n int $0x31")
PROGRAM(MODE_KERNEL64, gate_to_data, "movw $0x10, 0x9000+0x31*16+2\n int $0x31")
PROGRAM(MODE_KERNEL64, gate_to_null, "movw $0, 0x9000+0x31*16+2\n int $0x31")
PROGRAM(MODE_KERNEL64, gate_to_32bit_code, "movw $0x18, 0x9000+0x31*16+2\n int $0x31")
PROGRAM(MODE_KERNEL64, general_protection_then_contributory,
        "movb $0x0e, 0x9000+13*16+5\n movabs $0x800000000000, %rbx\n mov (%rbx), %rax")
PROGRAM(MODE_KERNEL64, page_fault_then_page_fault,
        "movl $0x50000, %esp\n mov 0x50008, %rax")
PROGRAM(MODE_KERNEL64, lock_on_register, ".byte 0xf0, 0x01, 0xc0")
PROGRAM(MODE_KERNEL64, lock_on_mov, ".byte 0xf0, 0x89, 0x03")
PROGRAM(MODE_KERNEL64, too_long, ".rept 15\n .byte 0x66\n .endr\n nop")
PROGRAM(MODE_KERNEL64, invalid_in_long_mode, ".byte 0x37")
PROGRAM(MODE_KERNEL64, push_es_in_long_mode, ".byte 0x06")

/* --- Rings --- */

PROGRAM(MODE_USER64, user_end, END_USER)
PROGRAM(MODE_USER64, user_int_to_kernel_gate, "int $0x30")
PROGRAM(MODE_USER64, user_int3, "int3")
PROGRAM(MODE_USER64, user_hlt, "hlt")
PROGRAM(MODE_USER64, user_cli, "cli")
PROGRAM(MODE_USER64, user_out, "outb %al, $0x10")
PROGRAM(MODE_USER64, user_out_allowed, "outb %al, $0xf4")
PROGRAM(MODE_USER64, user_out_half_allowed, "outw %ax, $0xf4")
PROGRAM(MODE_USER64, user_out_beyond_bitmap, "mov $0x1000, %edx\n inb %dx, %al")
PROGRAM(MODE_USER64, user_rdmsr, "rdmsr")
PROGRAM(MODE_USER64, user_mov_cr, "mov %cr0, %rax")
PROGRAM(MODE_USER64, user_reads_kernel_page, "mov 0x52000, %rax")
PROGRAM(MODE_USER64, user_writes_kernel_page, "mov %rax, 0x52000")
PROGRAM(MODE_USER64, user_writes_read_only, "mov %rax, 0x51000")
PROGRAM(MODE_USER64, user_executes_kernel_page, "mov $0x52000, %eax\n jmp *%rax")
PROGRAM(MODE_USER64, user_single_step, "pushq $0x302\n popfq\n inc %eax\n inc %eax\n")
PROGRAM(MODE_USER64, user_popf, "pushq $0x47ed7\n popfq\n pushfq\n pop %rbx\n" END_USER)
PROGRAM(MODE_USER64, user_pushf, "pushfq\n pop %rbx\n pushfw\n pop %cx\n" END_USER)
PROGRAM(MODE_USER64, user_swapgs, "swapgs")
PROGRAM(MODE_USER64, user_lgdt, "lgdt 0x30000")
PROGRAM(MODE_USER64, user_sgdt, "sgdt 0x30000\n sidt 0x30010\n smsw %rbx\n str %ecx\n sldt %edx\n" END_USER)
PROGRAM(MODE_USER64, user_clts, "clts")
PROGRAM(MODE_USER64, user_invlpg, "invlpg 0x30000")
PROGRAM(MODE_USER64, user_wbinvd, "wbinvd")
PROGRAM(MODE_USER64, user_rdpmc, "rdpmc")
PROGRAM(MODE_USER64, user_alignment_off, "mov 0x30001, %eax\n" END_USER)
PROGRAM(MODE_USER64, user_call_gate, "sub $16, %rsp\n movl $0, (%rsp)\n movw $0x7b, 4(%rsp)\n lcall *(%rsp)")
PROGRAM(MODE_USER64, user_far_call_to_kernel, "sub $16, %rsp\n movl $0x20000, (%rsp)\n movw $0x8, 4(%rsp)\n lcall *(%rsp)")
PROGRAM(MODE_USER64, user_conforming, "sub $16, %rsp\n lea 1f(%rip), %rax\n mov %eax, (%rsp)\n movw $0xa3, 4(%rsp)\n ljmp *(%rsp)\n 1: mov %cs, %ebx\n" END_USER)
PROGRAM(MODE_USER64, user_far_jump_to_32,
        "sub $16, %rsp\n lea 1f(%rip), %rax\n mov %eax, (%rsp)\n movw $0x23, 4(%rsp)\n ljmp *(%rsp)\n"
        "1: .code32\n inc %eax\n mov %cs, %ebx\n int $0x80\n .code64\n")
PROGRAM(MODE_USER64, user_mov_ss_kernel, "mov $0x10, %eax\n mov %eax, %ss")
PROGRAM(MODE_USER64, user_mov_ds_kernel, "mov $0x10, %eax\n mov %eax, %ds")
PROGRAM(MODE_USER64, user_mov_ds_null, "xor %eax, %eax\n mov %eax, %ds\n mov 0x30000, %ebx\n" END_USER)
PROGRAM(MODE_USER64, user_mov_ss_null, "xor %eax, %eax\n mov %eax, %ss")
PROGRAM(MODE_USER64, user_mov_fs, "mov $0x2b, %eax\n mov %eax, %fs\n mov %fs, %ebx\n" END_USER)
PROGRAM(MODE_USER64, user_mov_ds_absent, "mov $0x73, %eax\n mov %eax, %ds")
PROGRAM(MODE_USER64, user_mov_ds_execute_only, "mov $0x9b, %eax\n mov %eax, %ds")
PROGRAM(MODE_USER64, user_mov_ds_beyond, "mov $0xfffb, %eax\n mov %eax, %ds")
PROGRAM(MODE_USER64, user_lar,
        "mov $0x2b, %ecx\n lar %ecx, %eax\n setz %bl\n mov $0x08, %ecx\n lar %ecx, %edx\n setz %bh\n"
        "mov $0x10000, %esi\n mov $0xa0, %ecx\n lar %ecx, %esi\n lsl %ecx, %edi\n" END_USER)
PROGRAM(MODE_USER64, user_verr,
        "mov $0x2b, %ecx\n verr %cx\n setz %al\n verw %cx\n setz %ah\n mov $0x9b, %ecx\n verr %cx\n setz %bl\n"
        "verw %cx\n setz %bh\n mov $0x10, %ecx\n verr %cx\n setz %dl\n" END_USER)
PROGRAM(MODE_USER64, user_syscall, "lea 1f(%rip), %rax\n mov $7, %ebx\n syscall\n 1: " END_USER)
PROGRAM(MODE_USER32, compat_end, "mov %cs, %ebx\n" END_USER)
PROGRAM(MODE_USER32, compat_inc, "mov $-1, %eax\n inc %eax\n dec %ecx\n" END_USER)
PROGRAM(MODE_USER32, compat_wraps, "mov $-4, %ebx\n mov 0x30004(%ebx), %eax\n" END_USER)
PROGRAM(MODE_USER32, compat_bcd,
        "mov $0x38, %eax\n add $0x29, %al\n daa\n mov %eax, %ebx\n mov $0x19, %eax\n sub $0x2a, %al\n das\n mov %eax, %ecx\n"
        "mov $0x107, %eax\n add $9, %al\n aaa\n mov %eax, %edx\n mov $0x2305, %eax\n aad\n mov %eax, %esi\n mov $0x4f, %eax\n aam\n" END_USER)
PROGRAM(MODE_USER32, compat_aam_zero, "aam $0")
PROGRAM(MODE_USER32, compat_pusha, "pusha\n movl $5, (%esp)\n popa\n" END_USER)
PROGRAM(MODE_USER32, compat_into, "mov $0x7fffffff, %eax\n inc %eax\n into")
PROGRAM(MODE_USER32, compat_bound, "movl $1, 0x30000\n movl $5, 0x30004\n mov $5, %eax\n bound %eax, 0x30000\n inc %eax\n bound %eax, 0x30000")
PROGRAM(MODE_USER32, compat_les, "movl $0x12345, 0x30000\n movw $0x2b, 0x30004\n les 0x30000, %ebx\n mov %es, %ecx\n" END_USER)
PROGRAM(MODE_USER32, compat_small_limit, "mov $0xab, %eax\n mov %eax, %es\n mov %es:0xffc, %ecx\n mov %es:0xffd, %edx\n")
PROGRAM(MODE_USER32, compat_push_pop_seg, "push %ds\n pop %es\n push %es\n pop %ebx\n" END_USER)
PROGRAM(MODE_USER32, compat_arpl, "mov $0x10, %eax\n mov $3, %ebx\n arpl %bx, %ax\n setz %cl\n" END_USER)
PROGRAM(MODE_USER32, compat_far_jump_to_64,
        "ljmp $0x33, $0x20007\n .code64\n mov $-1, %rax\n mov %cs, %ebx\n" END_USER)
PROGRAM(MODE_USER32, compat_loop, "mov $3, %ecx\n xor %eax, %eax\n 1: inc %eax\n loop 1b\n jcxz 2f\n inc %eax\n 2: " END_USER)
PROGRAM(MODE_USER32, compat_addr16, "mov $0x30, %ebx\n mov $0x12340000, %esi\n .byte 0x67, 0x8b, 0x00\n" END_USER)

/* --- Returning --- */

PROGRAM(MODE_KERNEL64, iret_to_user,
        "pushq $0x2b\n pushq $0x3c000\n pushq $0x202\n pushq $0x33\n lea 1f(%rip), %rax\n push %rax\n iretq\n 1: mov %cs, %ebx\n" END_USER)
PROGRAM(MODE_KERNEL64, iret_to_compat,
        "pushq $0x2b\n pushq $0x3c000\n pushq $0x202\n pushq $0x23\n lea 1f(%rip), %rax\n push %rax\n iretq\n"
        "1: .code32\n inc %eax\n int $0x80\n .code64\n")
PROGRAM(MODE_KERNEL64, iret_same_ring,
        "pushq $0x10\n pushq $0x37000\n pushq $0x8d7\n pushq $0x08\n lea 1f(%rip), %rax\n push %rax\n iretq\n 1: " END)
PROGRAM(MODE_KERNEL64, iret_null_ss,
        "pushq $0\n pushq $0x37000\n pushq $2\n pushq $0x08\n lea 1f(%rip), %rax\n push %rax\n iretq\n 1: mov %ss, %ebx\n" END)
PROGRAM(MODE_KERNEL64, iret_bad_cs, "pushq $0x2b\n pushq $0x3c000\n pushq $2\n pushq $0x2b\n pushq $0x20000\n iretq")
PROGRAM(MODE_KERNEL64, iret_null_cs, "pushq $0x2b\n pushq $0x3c000\n pushq $2\n pushq $0\n pushq $0x20000\n iretq")
PROGRAM(MODE_KERNEL64, iret_bad_ss, "pushq $0x10\n pushq $0x3c000\n pushq $2\n pushq $0x33\n pushq $0x20000\n iretq")
PROGRAM(MODE_KERNEL64, iret_noncanonical, "pushq $0x2b\n pushq $0x3c000\n pushq $2\n pushq $0x33\n movabs $0x800000000000, %rax\n push %rax\n iretq")
PROGRAM(MODE_KERNEL64, iret_with_nt, "pushq $0x4002\n popfq\n pushq $0x10\n pushq $0x37000\n pushq $2\n pushq $8\n pushq $0x20000\n iretq")
PROGRAM(MODE_KERNEL64, iret_32_bit_operand,
        "sub $20, %rsp\n lea 1f(%rip), %rax\n mov %eax, (%rsp)\n movl $8, 4(%rsp)\n movl $2, 8(%rsp)\n movl $0x37000, 12(%rsp)\n movl $0x10, 16(%rsp)\n iretl\n 1: " END)
PROGRAM(MODE_KERNEL64, far_return, "pushq $8\n lea 1f(%rip), %rax\n push %rax\n lretq\n 1: " END)
PROGRAM(MODE_KERNEL64, far_return_to_user,
        "pushq $0x2b\n pushq $0x3c000\n pushq $0x33\n lea 1f(%rip), %rax\n push %rax\n lretq\n 1: mov %ss, %ebx\n" END_USER)
PROGRAM(MODE_KERNEL64, sysret_64,
        "mov $0x20000, %ecx\n lea 1f(%rip), %rcx\n mov $0x3c6, %r11d\n sysretq\n 1: mov %cs, %ebx\n mov %ss, %edx\n" END_USER)
PROGRAM(MODE_KERNEL64, sysret_32,
        "lea 1f(%rip), %rcx\n mov $0x2, %r11d\n sysretl\n 1: .code32\n mov %cs, %ebx\n int $0x80\n .code64\n")
PROGRAM(MODE_KERNEL64, call_gate_from_kernel, "sub $16, %rsp\n movl $0, (%rsp)\n movw $0x78, 4(%rsp)\n lcall *(%rsp)")

/* --- Control and debug registers, MSRs --- */

PROGRAM(MODE_KERNEL64, cr0_pg_without_pe, "mov %cr0, %rax\n and $~1, %eax\n mov %rax, %cr0")
PROGRAM(MODE_KERNEL64, cr0_nw_without_cd, "mov %cr0, %rax\n or $0x20000000, %eax\n mov %rax, %cr0")
PROGRAM(MODE_KERNEL64, cr0_high_bits, "mov %cr0, %rax\n bts $32, %rax\n mov %rax, %cr0")
PROGRAM(MODE_KERNEL64, cr0_paging_off_in_long_mode, "mov %cr0, %rax\n btr $31, %rax\n mov %rax, %cr0")
PROGRAM(MODE_KERNEL64, cr4_reserved, "mov %cr4, %rax\n bts $63, %rax\n mov %rax, %cr4")
PROGRAM(MODE_KERNEL64, cr4_pae_off, "mov %cr4, %rax\n btr $5, %rax\n mov %rax, %cr4")
PROGRAM(MODE_KERNEL64, cr3_reserved, "mov %cr3, %rax\n bts $60, %rax\n mov %rax, %cr3")
PROGRAM(MODE_KERNEL64, cr1_read, ".byte 0x0f, 0x20, 0xc8")
PROGRAM(MODE_KERNEL64, cr8_round_trip, "mov $5, %eax\n mov %rax, %cr8\n mov %cr8, %rbx\n" END)
PROGRAM(MODE_KERNEL64, cr8_reserved, "mov $0x10, %eax\n mov %rax, %cr8")
PROGRAM(MODE_KERNEL64, lmsw, "smsw %rbx\n mov $0x3f, %eax\n lmsw %ax\n mov %cr0, %rcx\n clts\n mov %cr0, %rdx\n mov $0, %eax\n lmsw %ax\n mov %cr0, %rsi\n" END)
PROGRAM(MODE_KERNEL64, dr7_round_trip, "mov $0x30000, %eax\n mov %rax, %dr0\n mov $0x400, %eax\n mov %rax, %dr7\n mov %dr0, %rbx\n mov %dr7, %rcx\n mov %dr6, %rdx\n" END)
PROGRAM(MODE_KERNEL64, dr7_high_bits, "bts $32, %rax\n mov %rax, %dr7")
PROGRAM(MODE_KERNEL64, dr4_aliases, "mov %dr4, %rbx\n mov %dr5, %rcx\n" END)
PROGRAM(MODE_KERNEL64, dr4_with_de, "mov %cr4, %rax\n bts $3, %rax\n mov %rax, %cr4\n mov %dr4, %rbx")
PROGRAM(MODE_KERNEL64, dr7_gd, "mov $0x2400, %eax\n mov %rax, %dr7\n mov %dr0, %rbx")
PROGRAM(MODE_KERNEL64, breakpoint_on_write, "mov $0x30010, %eax\n mov %rax, %dr0\n mov $0x10401|0xd0000, %eax\n mov %rax, %dr7\n movl $1, 0x30008\n movl $1, 0x30010\n nop\n" END)
PROGRAM(MODE_KERNEL64, breakpoint_on_read, "mov $0x30010, %eax\n mov %rax, %dr1\n mov $0x400404|0xf00000, %eax\n mov %rax, %dr7\n mov 0x30010, %ebx\n nop\n" END)
PROGRAM(MODE_KERNEL64, breakpoint_on_fetch, "lea 1f(%rip), %rax\n mov %rax, %dr2\n mov $0x420, %eax\n mov %rax, %dr7\n inc %ebx\n 1: inc %ebx\n" END)
PROGRAM(MODE_KERNEL64, breakpoint_skipped_by_rf,
        "lea 1f(%rip), %rax\n mov %rax, %dr2\n mov $0x420, %eax\n mov %rax, %dr7\n pushq $0x10\n pushq $0x37000\n pushq $0x10002\n pushq $8\n lea 1f(%rip), %rax\n push %rax\n iretq\n 1: inc %ebx\n" END)
PROGRAM(MODE_KERNEL64, single_step, "pushq $0x102\n popfq\n inc %eax\n inc %eax\n")
PROGRAM(MODE_KERNEL64, single_step_over_mov_ss, "mov %ss, %ecx\n pushq $0x102\n popfq\n mov %ecx, %ss\n inc %eax\n inc %eax\n")
PROGRAM(MODE_KERNEL64, single_step_rep, "mov $0x30000, %edi\n mov $3, %ecx\n pushq $0x102\n popfq\n rep stosb\n nop\n")
PROGRAM(MODE_KERNEL64, single_step_int, "pushq $0x102\n popfq\n int $0x30\n")
PROGRAM(MODE_KERNEL64, icebp, ".byte 0xf1")
PROGRAM(MODE_KERNEL64, rdmsr_unknown, "mov $0x12345, %ecx\n rdmsr")
PROGRAM(MODE_KERNEL64, wrmsr_unknown, "mov $0x12345, %ecx\n wrmsr")
PROGRAM(MODE_KERNEL64, wrmsr_fs_base, "mov $0xc0000100, %ecx\n mov $0x30000, %eax\n xor %edx, %edx\n wrmsr\n mov %fs:8, %rbx\n rdmsr\n" END)
PROGRAM(MODE_KERNEL64, wrmsr_fs_base_noncanonical, "mov $0xc0000100, %ecx\n xor %eax, %eax\n mov $0x8000, %edx\n wrmsr")
PROGRAM(MODE_KERNEL64, wrmsr_lstar_noncanonical, "mov $0xc0000082, %ecx\n xor %eax, %eax\n mov $0x8000, %edx\n wrmsr")
PROGRAM(MODE_KERNEL64, wrmsr_efer_reserved, "mov $0xc0000080, %ecx\n rdmsr\n bts $9, %eax\n wrmsr")
PROGRAM(MODE_KERNEL64, wrmsr_efer_lme_off, "mov $0xc0000080, %ecx\n rdmsr\n btr $8, %eax\n wrmsr")
PROGRAM(MODE_KERNEL64, wrmsr_pat_bad, "mov $0x277, %ecx\n mov $0x02020202, %eax\n mov %eax, %edx\n wrmsr")
PROGRAM(MODE_KERNEL64, wrmsr_pat, "mov $0x277, %ecx\n mov $0x00010406, %eax\n mov $0x07050100, %edx\n wrmsr\n rdmsr\n" END)
PROGRAM(MODE_KERNEL64, swapgs, "mov $0xc0000102, %ecx\n mov $0x30000, %eax\n xor %edx, %edx\n wrmsr\n swapgs\n mov %gs:8, %rbx\n rdmsr\n" END)
PROGRAM(MODE_KERNEL64, syscall_disabled, "mov $0xc0000080, %ecx\n rdmsr\n btr $0, %eax\n wrmsr\n syscall")
PROGRAM(MODE_KERNEL64, x2apic_id, "mov $0x802, %ecx\n rdmsr\n mov %eax, %ebx\n mov $0x803, %ecx\n rdmsr\n" END)
PROGRAM(MODE_KERNEL64, x2apic_reserved, "mov $0x80f, %ecx\n mov $0xffffffff, %eax\n xor %edx, %edx\n wrmsr")
PROGRAM(MODE_KERNEL64, x2apic_read_eoi, "mov $0x80b, %ecx\n rdmsr")
PROGRAM(MODE_KERNEL64, x2apic_self_ipi,
        "mov $0x80f, %ecx\n mov $0x1ff, %eax\n xor %edx, %edx\n wrmsr\n mov $0x83f, %ecx\n mov $0x55, %eax\n wrmsr\n inc %ebx\n sti\n nop\n inc %ebx\n inc %ebx\n" END)
PROGRAM(MODE_KERNEL64, x2apic_masked_by_cr8,
        "mov $0x80f, %ecx\n mov $0x1ff, %eax\n xor %edx, %edx\n wrmsr\n mov $5, %edi\n mov %rdi, %cr8\n sti\n mov $0x83f, %ecx\n mov $0x55, %eax\n wrmsr\n nop\n nop\n xor %edi, %edi\n mov %rdi, %cr8\n nop\n" END)
PROGRAM(MODE_KERNEL64, nmi_to_self, "mov $0x830, %ecx\n mov $0x44400, %eax\n xor %edx, %edx\n wrmsr\n nop\n nop\n" END)

/* --- Descriptors --- */

PROGRAM(MODE_KERNEL64, ltr, "mov $0x38, %eax\n ltr %ax\n str %ebx\n mov 0x803c, %ecx\n" END)
PROGRAM(MODE_KERNEL64, ltr_busy, "mov $0x38, %eax\n ltr %ax\n ltr %ax\n")
PROGRAM(MODE_KERNEL64, ltr_null, "xor %eax, %eax\n ltr %ax\n")
PROGRAM(MODE_KERNEL64, ltr_data, "mov $0x10, %eax\n ltr %ax\n")
PROGRAM(MODE_KERNEL64, lldt, "mov $0x88, %eax\n lldt %ax\n mov $0x07, %eax\n mov %eax, %ds\n sldt %ebx\n" END)
PROGRAM(MODE_KERNEL64, lldt_then_ldt_selector, "mov $0x88, %eax\n lldt %ax\n mov $0x0f, %eax\n mov %eax, %es\n mov %es, %ebx\n" END)
PROGRAM(MODE_KERNEL64, ldt_selector_without_ldt, "xor %eax, %eax\n lldt %ax\n mov $0x0f, %eax\n mov %eax, %es\n")
PROGRAM(MODE_KERNEL64, accessed_bit, "andb $0xfe, 0x8015\n mov $0x10, %eax\n mov %eax, %es\n movzbl 0x8015, %ebx\n" END)
PROGRAM(MODE_KERNEL64, lgdt_noncanonical, "movabs $0x800000000000, %rax\n mov %rax, 0x30002\n lgdt 0x30000\n")
PROGRAM(MODE_KERNEL64, mov_to_cs, ".byte 0x8e, 0xc8")
PROGRAM(MODE_KERNEL64, fs_load_resets_base, "mov $0xc0000100, %ecx\n mov $0x30000, %eax\n xor %edx, %edx\n wrmsr\n mov $0x10, %eax\n mov %eax, %fs\n rdmsr\n" END)

/* --- Paging --- */

PROGRAM(MODE_KERNEL64, accessed_and_dirty, "mov 0x31000, %eax\n mov %eax, 0x30000\n mov 0x4000+0x30*8, %rbx\n mov 0x4000+0x31*8, %rcx\n mov 0x4000+0x32*8, %rdx\n" END)
PROGRAM(MODE_KERNEL64, invlpg_after_change,
        "mov 0x30000, %eax\n movq $0x31067, 0x4000+0x30*8\n invlpg 0x30000\n movl $7, 0x30000\n mov 0x31000, %ebx\n" END)
PROGRAM(MODE_KERNEL64, large_page, "mov 0x200000, %eax\n mov %eax, 0x200008\n mov 0x3000+8, %rbx\n" END)
PROGRAM(MODE_KERNEL64, rep_movs_into_absent, "mov $0x30000, %esi\n mov $0x4fff0, %edi\n mov $32, %ecx\n rep movsb\n")
PROGRAM(MODE_KERNEL64, rep_movs_backwards, "std\n mov $0x30020, %esi\n mov $0x30028, %edi\n mov $4, %ecx\n rep movsq\n cld\n" END)
PROGRAM(MODE_KERNEL64, rep_cmps, "mov $0x30000, %esi\n mov $0x30008, %edi\n mov $16, %ecx\n repe cmpsb\n" END)
PROGRAM(MODE_KERNEL64, cmpxchg16b_unaligned, "cmpxchg16b 0x30008")
PROGRAM(MODE_KERNEL64, push_to_absent, "mov $0x51000, %esp\n push %rax\n")
PROGRAM(MODE_KERNEL64, pop_to_absent, "pop 0x50000\n")
PROGRAM(MODE_KERNEL64, pop_rsp_memory, "mov $0x37000, %esp\n movq $0x30000, (%rsp)\n pop 8(%rsp)\n mov 0x37010, %rbx\n" END)
PROGRAM(MODE_KERNEL64, enter_leave, "enter $16, $2\n mov %rsp, %rbx\n leave\n" END)
PROGRAM(MODE_KERNEL64, xlat_and_bits, "mov $0x30000, %ebx\n mov $3, %eax\n xlat\n bts $100, %rcx\n mov $300, %ecx\n bts %rcx, 0x30000\n" END)

/* --- Self-modifying code --- */

PROGRAM(MODE_KERNEL64, modifies_itself, "movb $0x90, 1f(%rip)\n movb $0x90, 1f+1(%rip)\n 1: ud2\n mov $1, %eax\n" END)
PROGRAM(MODE_KERNEL64, modifies_itself_in_a_loop,
        "xor %ebx, %ebx\n mov $3, %ecx\n 1: add $1, %ebx\n incb 1b+2(%rip)\n dec %ecx\n jnz 1b\n" END)

/* --- Floating point and its exceptions --- */

PROGRAM(MODE_KERNEL64, fpu_with_ts, "mov %cr0, %rax\n or $8, %eax\n mov %rax, %cr0\n fld1\n")
PROGRAM(MODE_KERNEL64, sse_with_ts, "mov %cr0, %rax\n or $8, %eax\n mov %rax, %cr0\n xorps %xmm0, %xmm0\n")
PROGRAM(MODE_KERNEL64, fwait_with_ts, "mov %cr0, %rax\n or $8, %eax\n mov %rax, %cr0\n fwait\n")
PROGRAM(MODE_KERNEL64, fpu_with_em, "mov %cr0, %rax\n or $4, %eax\n mov %rax, %cr0\n fld1\n")
PROGRAM(MODE_KERNEL64, sse_with_em, "mov %cr0, %rax\n or $4, %eax\n mov %rax, %cr0\n xorps %xmm0, %xmm0\n")
PROGRAM(MODE_KERNEL64, mmx_with_em, "mov %cr0, %rax\n or $4, %eax\n mov %rax, %cr0\n pxor %mm0, %mm0\n")
PROGRAM(MODE_KERNEL64, sse_without_osfxsr, "mov %cr4, %rax\n btr $9, %rax\n mov %rax, %cr4\n xorps %xmm0, %xmm0\n")
PROGRAM(MODE_KERNEL64, sse_misaligned, "movaps 0x30008, %xmm0")
PROGRAM(MODE_KERNEL64, sse_divide_unmasked, "movl $0x1d80, 0x30000\n ldmxcsr 0x30000\n xorps %xmm1, %xmm1\n mov $0x3f800000, %eax\n movd %eax, %xmm0\n divss %xmm1, %xmm0\n")
PROGRAM(MODE_KERNEL64, sse_unmasked_without_osxmmexcpt, "mov %cr4, %rax\n btr $10, %rax\n mov %rax, %cr4\n movl $0x1d80, 0x30000\n ldmxcsr 0x30000\n xorps %xmm1, %xmm1\n mov $0x3f800000, %eax\n movd %eax, %xmm0\n divss %xmm1, %xmm0\n")
PROGRAM(MODE_KERNEL64, ldmxcsr_reserved, "movl $0x10000, 0x30000\n ldmxcsr 0x30000\n")
PROGRAM(MODE_KERNEL64, x87_divide_unmasked, "movw $0x37b, 0x30000\n fninit\n fldcw 0x30000\n fld1\n fldz\n fdivrp\n fnstsw %ax\n nop\n fwait\n")
PROGRAM(MODE_KERNEL64, x87_stack_fault, "fninit\n faddp\n fnstsw %ax\n" END)
PROGRAM(MODE_KERNEL64, x87_sums, "fninit\n fld1\n fldpi\n fadd %st(1)\n fstpt 0x30000\n fistpl 0x30010\n fnstenv 0x30020\n movl $0, 0x3002c\n movl $0, 0x30030\n movl $0, 0x30034\n movl $0, 0x30038\n" END)
PROGRAM(MODE_KERNEL64, fxsave_misaligned, "fxsave 0x30008")
PROGRAM(MODE_KERNEL64, fxrstor_bad_mxcsr, "fninit\n fxsave 0x30000\n movl $0x10000, 0x30018\n fxrstor 0x30000")
PROGRAM(MODE_KERNEL64, mmx_aliases_x87, "fninit\n fld1\n mov $0x1234, %eax\n movd %eax, %mm3\n fnstsw %ax\n emms\n fnstenv 0x30000\n movw 0x30008, %bx\n movq $0, 0x3000c\n movq $0, 0x30014\n" END)
