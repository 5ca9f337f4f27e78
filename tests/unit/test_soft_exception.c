/* SPDX-License-Identifier: MIT */
/* Exceptions, interrupts, returns and system calls of the software CPU. */
#include <string.h>

#include "tests/unit/soft_fixture.h"
#include "tests/unit/test.h"

#define END   0xe6, 0xf4 /* out 0xf4, al */
#define HLT   0xf4
#define IRETQ 0x48, 0xcf

/* Changes a field of a gate: byte `at` of the 16. */
static void patch_gate(unsigned vector, unsigned at, uint8_t value)
{
    guest.ram[SOFT_GUEST_IDT + vector * 16 + at] = value;
}

static void test_divide_error(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x90, 0x31, 0xc9, 0xf7, 0xf1); /* xor ecx,ecx; div ecx */
    soft_guest_expect(&guest, SOFT_DE);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_CODE + 3);
    assert_int_equal(soft_guest_frame(&guest, 1), SEL_CODE64);
    assert_int_equal(soft_guest_frame(&guest, 3), SOFT_GUEST_STACK);
    assert_int_equal(soft_guest_frame(&guest, 4), SEL_DATA);

    soft_guest_code(&guest, 0x48, 0xf7, 0xf9); /* idiv rcx: INT64_MIN / -1 */
    guest.state.regs.rdx = UINT64_MAX;
    guest.state.regs.rax = UINT64_C(1) << 63;
    guest.state.regs.rcx = UINT64_MAX;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_DE);
}

static void test_undefined(void **state)
{
    static const uint8_t codes[][4] = {
        {0x0f, 0x0b},             /* ud2 */
        {0x06},                   /* push es */
        {0xf0, 0x90},             /* lock nop */
        {0xf0, 0x01, 0xc0},       /* lock add eax, eax */
        {0x8d, 0xc0},             /* lea with a register */
        {0x0f, 0xff, 0xc0},       /* ud0 */
        {0x0f, 0x20, 0xc8},       /* mov rax, cr1 */
        {0x0f, 0xc7, 0xc8},       /* cmpxchg8b with a register */
        {0xc4, 0xe2, 0x79, 0x18}, /* VEX */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        soft_guest_load(&guest, codes[i], sizeof(codes[i]));
        soft_guest_expect(&guest, SOFT_UD);
        assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_CODE);
    }
}

static void test_too_long(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                    0x66, 0x66, 0x66, 0x90);
    soft_guest_expect(&guest, SOFT_GP);
    assert_int_equal(soft_guest_frame(&guest, 1), SOFT_GUEST_CODE);
}

static void test_privileged_in_user_mode(void **state)
{
    static const uint8_t codes[][4] = {
        {HLT},
        {0xfa},             /* cli */
        {0x0f, 0x30},       /* wrmsr */
        {0x0f, 0x20, 0xc0}, /* mov rax, cr0 */
        {0x0f, 0x22, 0xd8}, /* mov cr3, rax */
        {0x0f, 0x01, 0x3b}, /* invlpg [rbx] */
        {0x0f, 0x01, 0xf8}, /* swapgs */
        {0x0f, 0x06},       /* clts */
        {0xec},             /* in al, dx */
        {0x0f, 0x00, 0xd8}, /* ltr ax */
        {0x48, 0x0f, 0x07}, /* sysretq */
        {0x0f, 0x09},       /* wbinvd */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        soft_guest_load(&guest, codes[i], sizeof(codes[i]));
        soft_guest_set_user(&guest);
        soft_guest_expect(&guest, SOFT_GP);
        assert_int_equal(soft_guest_frame(&guest, 0), 0);
        /* From user mode to RSP0. */
        assert_int_equal(soft_guest_frame(&guest, 2), SEL_USER64);
        assert_int_equal(guest.state.regs.rsp, SOFT_GUEST_KERNEL - 48);
        assert_int_equal(guest.state.sregs.ss.selector, 0);
    }
}

static void test_interrupt_stack_table(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x0f, 0x0b);
    patch_gate(SOFT_UD, 4, 1);
    soft_guest_expect(&guest, SOFT_UD);
    assert_int_equal(guest.state.regs.rsp, SOFT_GUEST_IST1 - 40);
}

static void test_software_interrupts(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xcd, 0x80);
    soft_guest_set_user(&guest);
    soft_guest_expect(&guest, 0x80);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_CODE + 2);

    soft_guest_code(&guest, 0xcd, 0x80); /* the gate is not for user code */
    patch_gate(0x80, 5, 0x8e);
    soft_guest_set_user(&guest);
    soft_guest_expect(&guest, SOFT_GP);
    assert_int_equal(soft_guest_frame(&guest, 0), 0x80 * 8 + 2);
    assert_int_equal(soft_guest_frame(&guest, 1), SOFT_GUEST_CODE);

    soft_guest_code(&guest, 0xcc);
    patch_gate(SOFT_BP, 5, 0x6e); /* not present */
    soft_guest_expect(&guest, SOFT_NP);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_BP * 8 + 2);
}

static void test_double_and_triple_faults(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x31, 0xc9, 0xf7, 0xf1);
    patch_gate(SOFT_DE, 5, 0x6e); /* #NP while delivering #DE: both contributory */
    soft_guest_expect(&guest, SOFT_DF);
    assert_int_equal(soft_guest_frame(&guest, 0), 0);

    soft_guest_code(&guest, 0x0f, 0x0b); /* #UD is benign: then #NP comes alone */
    patch_gate(SOFT_UD, 5, 0x6e);
    soft_guest_expect(&guest, SOFT_NP);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_UD * 8 + 3);

    soft_guest_code(&guest, 0x31, 0xc9, 0xf7, 0xf1);
    patch_gate(SOFT_DE, 5, 0x6e);
    patch_gate(SOFT_DF, 5, 0x6e);
    soft_guest_run(&guest);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_SHUTDOWN);

    soft_guest_code(&guest, 0x48, 0x8b, 0x03); /* #PF whose stack is not there */
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) = 0;
    guest.state.regs.rbx = SOFT_GUEST_DATA;
    guest.state.regs.rsp = SOFT_GUEST_DATA + 0x800;
    soft_guest_put_regs(&guest);
    patch_gate(SOFT_DF, 4, 1); /* on a stack of its own */
    soft_guest_expect(&guest, SOFT_DF);
}

static void test_stack_outside_ram(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x0f, 0x0b); /* the frame is lost, the handler runs */
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) = UINT64_C(0x40000007);
    guest.state.regs.rsp = SOFT_GUEST_DATA + 0x800;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_UD);
    assert_int_equal(guest.state.regs.rsp, SOFT_GUEST_DATA + 0x800 - 40);
}

static void test_idt_limit(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xcd, 0x80);
    guest.state.sregs.idt.limit = 0x80 * 16 - 1;
    soft_guest_put_sregs(&guest);
    soft_guest_expect(&guest, SOFT_GP);
    assert_int_equal(soft_guest_frame(&guest, 0), 0x80 * 8 + 2);
}

/* Pushes SS, RSP, RFLAGS, CS, RIP for IRETQ. */
static void put_return_frame(uint64_t ss, uint64_t rsp, uint64_t rflags, uint64_t cs, uint64_t rip)
{
    const uint64_t frame[] = {rip, cs, rflags, rsp, ss};

    guest.state.regs.rsp -= sizeof(frame);
    memcpy(guest.ram + guest.state.regs.rsp, frame, sizeof(frame));
    soft_guest_put_regs(&guest);
}

static void test_iretq_to_user(void **state)
{
    (void)state;
    soft_guest_code(&guest, IRETQ, 0xcd, 0x80);
    put_return_frame(SEL_USERDATA, 0x123450, RFLAGS_IF | RFLAGS_CF | RFLAGS_IOPL, SEL_USER64,
                     SOFT_GUEST_CODE + 2);
    soft_guest_expect(&guest, 0x80);
    assert_int_equal(soft_guest_frame(&guest, 1), SEL_USER64);
    assert_int_equal(soft_guest_frame(&guest, 2),
                     RFLAGS_IF | RFLAGS_CF | RFLAGS_IOPL | RFLAGS_FIXED);
    assert_int_equal(soft_guest_frame(&guest, 3), 0x123450);
    assert_int_equal(soft_guest_frame(&guest, 4), SEL_USERDATA);
}

static void test_iretq_to_compatibility_mode(void **state)
{
    (void)state;
    soft_guest_code(&guest, IRETQ, 0x40, 0xcd, 0x80); /* inc eax there, REX here */
    put_return_frame(SEL_USERDATA, 0x123450, 0, SEL_USER32, SOFT_GUEST_CODE + 2);
    soft_guest_expect(&guest, 0x80);
    assert_int_equal(guest.state.regs.rax & 0xff, 1);
    assert_int_equal(soft_guest_frame(&guest, 1), SEL_USER32);
}

static void test_iretq_refuses(void **state)
{
    static const struct {
        uint64_t ss, cs, rip;
        unsigned vector, error_code;
    } cases[] = {
        {SEL_USERDATA, 0, SOFT_GUEST_CODE, SOFT_GP, 0},
        {SEL_USERDATA, SEL_DATA, SOFT_GUEST_CODE, SOFT_GP, SEL_DATA},
        {SEL_USERDATA, 0x1000, SOFT_GUEST_CODE, SOFT_GP, 0x1000},
        {0, SEL_USER64, SOFT_GUEST_CODE, SOFT_GP, 0},
        {SEL_DATA, SEL_USER64, SOFT_GUEST_CODE, SOFT_GP, SEL_DATA},
        {SEL_NP, SEL_CODE64, SOFT_GUEST_CODE, SOFT_SS_FAULT, SEL_NP},
        {SEL_USERDATA, SEL_USER64, UINT64_C(1) << 47, SOFT_GP, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        soft_guest_code(&guest, IRETQ);
        put_return_frame(cases[i].ss, SOFT_GUEST_STACK, 0, cases[i].cs, cases[i].rip);
        soft_guest_expect(&guest, cases[i].vector);
        assert_int_equal(soft_guest_frame(&guest, 0), cases[i].error_code);
        assert_int_equal(soft_guest_frame(&guest, 1), SOFT_GUEST_CODE);
    }
}

static void test_syscall_and_sysret(void **state)
{
    struct accel_msrs msrs = {.header.nmsrs = 3};

    (void)state;
    soft_guest_code(&guest, 0x0f, 0x05, 0xcd, 0x80); /* syscall; int 0x80 */
    msrs.entries[0] =
        (struct kvm_msr_entry){.index = 0xc0000081, .data = UINT64_C(0x001b0008) << 32 | 0};
    msrs.entries[1] = (struct kvm_msr_entry){.index = 0xc0000082, .data = SOFT_GUEST_CODE + 0x100};
    msrs.entries[2] = (struct kvm_msr_entry){.index = 0xc0000084, .data = RFLAGS_IF | RFLAGS_DF};
    assert_int_equal(soft_accel_ops.vcpu_set_msrs(guest.vcpu, &msrs), 3);
    memcpy(guest.ram + SOFT_GUEST_CODE + 0x100, "\x9c\x5b\x48\x0f\x07",
           5); /* pushf;pop rbx;sysret */
    soft_guest_set_user(&guest);
    guest.state.regs.rflags = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_DF | RFLAGS_CF;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, 0x80);
    assert_int_equal(guest.state.regs.rcx, SOFT_GUEST_CODE + 2);
    assert_int_equal(guest.state.regs.rbx, RFLAGS_FIXED | RFLAGS_CF);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_CODE + 4);
    assert_int_equal(soft_guest_frame(&guest, 1), SEL_USER64);
    assert_int_equal(soft_guest_frame(&guest, 2), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_DF | RFLAGS_CF);
    assert_int_equal(soft_guest_frame(&guest, 4), SEL_USERDATA);
}

static void test_selectors(void **state)
{
    static const struct {
        uint16_t selector;
        unsigned vector, error_code;
    } cases[] = {
        {SEL_NP, SOFT_NP, SEL_NP},
        {SEL_TSS, SOFT_GP, SEL_TSS},
        {0x1000, SOFT_GP, 0x1000},
        {0x0c, SOFT_GP, 0x0c}, /* of the LDT, which is not there */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        soft_guest_code(&guest, 0x8e, 0xd8); /* mov ds, ax */
        guest.state.regs.rax = cases[i].selector;
        soft_guest_put_regs(&guest);
        soft_guest_expect(&guest, cases[i].vector);
        assert_int_equal(soft_guest_frame(&guest, 0), cases[i].error_code);
    }
    soft_guest_code(&guest, 0x8e, 0xd0, END); /* mov ss, ax: null is allowed in ring 0 */
    soft_guest_run_to_end(&guest);
    soft_guest_code(&guest, 0x8e, 0xd0, END);
    soft_guest_set_user(&guest);
    soft_guest_expect(&guest, SOFT_GP);
}

static void test_control_registers(void **state)
{
    static const struct {
        uint8_t code[4];
        uint64_t rax;
    } cases[] = {
        {{0x0f, 0x22, 0xc0}, CR0_PE | CR0_PG | CR0_NW}, /* cr0: NW without CD */
        {{0x0f, 0x22, 0xc0}, CR0_PG},                   /* PG without PE */
        {{0x0f, 0x22, 0xc0}, CR0_PE},                   /* paging off in 64-bit mode */
        {{0x0f, 0x22, 0xc0}, UINT64_C(1) << 40 | CR0_PE | CR0_PG},
        {{0x0f, 0x22, 0xe0}, 0}, /* cr4: PAE off in long mode */
        {{0x0f, 0x22, 0xe0}, CR4_PAE | UINT64_C(1) << 31},
        {{0x0f, 0x22, 0xd8}, UINT64_C(1) << 60}, /* cr3 */
        {{0x44, 0x0f, 0x22, 0xc0}, 16},          /* cr8 */
        {{0x0f, 0x23, 0xf8}, UINT64_C(1) << 40}, /* dr7 */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        soft_guest_load(&guest, cases[i].code, 4);
        guest.state.regs.rax = cases[i].rax;
        soft_guest_put_regs(&guest);
        soft_guest_expect(&guest, SOFT_GP);
    }
    soft_guest_code(&guest, 0x0f, 0x32); /* rdmsr of what there is not */
    guest.state.regs.rcx = 0x12345678;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_GP);
}

static void test_trap_flag(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x9d, 0xff, 0xc0, 0xff, 0xc0); /* popf; inc eax; inc eax */
    guest.state.regs.rsp -= 8;
    soft_guest_set_u64(&guest, guest.state.regs.rsp, RFLAGS_TF | RFLAGS_FIXED);
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_DB);
    assert_int_equal(guest.state.regs.rax & 0xff, 1);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_CODE + 3);
    assert_int_equal(soft_guest_frame(&guest, 2) & RFLAGS_TF, RFLAGS_TF);
    assert_false(guest.state.regs.rflags & RFLAGS_TF);
    struct accel_vcpu_state state_now;
    soft_accel_ops.vcpu_get_state(guest.vcpu, ACCEL_STATE_DEBUGREGS, &state_now);
    assert_true(state_now.debugregs.dr6 & 0x4000);
}

static void set_breakpoint(uint64_t address, uint64_t dr7)
{
    guest.state.debugregs =
        (struct kvm_debugregs){.db = {address}, .dr6 = UINT64_C(0xffff0ff0), .dr7 = dr7 | 0x400};
    soft_accel_ops.vcpu_set_state(guest.vcpu, ACCEL_STATE_DEBUGREGS, &guest.state);
}

static void test_breakpoints(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x90, 0x90, 0xff, 0xc0, END);
    set_breakpoint(SOFT_GUEST_CODE + 2, 1);
    soft_guest_expect(&guest, SOFT_DB);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_CODE + 2);
    assert_true(soft_guest_frame(&guest, 2) & RFLAGS_RF);

    soft_guest_code(&guest, 0x48, 0x89, 0x03, 0x90, END); /* a write of part of what is watched */
    set_breakpoint(SOFT_GUEST_DATA + 4, UINT64_C(0xd0001));
    guest.state.regs.rbx = SOFT_GUEST_DATA;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_DB);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_CODE + 3); /* a trap */
    set_breakpoint(0, 0);
}

/* Nothing comes between a new SS and the new RSP. */
static void test_traps_wait_for_the_stack_pointer(void **state)
{
    (void)state;
    /* popf; mov ss, ecx; inc eax; inc eax */
    soft_guest_code(&guest, 0x9d, 0x8e, 0xd1, 0xff, 0xc0, 0xff, 0xc0, END);
    guest.state.regs.rsp -= 8;
    guest.state.regs.rcx = SEL_DATA;
    soft_guest_set_u64(&guest, guest.state.regs.rsp, RFLAGS_TF | RFLAGS_FIXED);
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_DB);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_CODE + 5);
    assert_int_equal(guest.state.regs.rax & 0xff, 1);

    /* mov ss, [rbx]; inc eax; inc eax, and the selector is watched */
    soft_guest_code(&guest, 0x8e, 0x13, 0xff, 0xc0, 0xff, 0xc0, END);
    set_breakpoint(SOFT_GUEST_DATA, UINT64_C(0x30001));
    soft_guest_set_u64(&guest, SOFT_GUEST_DATA, SEL_DATA);
    guest.state.regs.rbx = SOFT_GUEST_DATA;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_DB);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_CODE + 4);
    set_breakpoint(0, 0);
}

/* The frame is pushed downwards: the first word that cannot be written is the one that faults. */
static void test_fault_of_a_push(void **state)
{
    static const struct {
        uint64_t rsp, absent, cr2;
    } cases[] = {
        {0x182000, 0x181000, 0x181ff8},
        {0x182010, 0x181000, 0x181ff8},
        {0x182010, 0x182000, 0x182008},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        soft_guest_code(&guest, 0x0f, 0x0b);
        patch_gate(SOFT_PF, 4, 1); /* on another stack */
        *soft_guest_pte(&guest, cases[i].absent) &= ~UINT64_C(1);
        soft_guest_flush(&guest);
        guest.state.regs.rsp = cases[i].rsp;
        soft_guest_put_regs(&guest);
        soft_guest_expect(&guest, SOFT_PF);
        assert_int_equal(guest.state.sregs.cr2, cases[i].cr2);
        assert_int_equal(soft_guest_frame(&guest, 0), 2);
    }
}

/* Where there is no memory there is no code. */
static void test_fetch_outside_memory(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xff, 0xe3); /* jmp rbx */
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) = UINT64_C(0xfed00007);
    guest.state.regs.rbx = SOFT_GUEST_DATA + 0x10;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_UD);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_DATA + 0x10);
}

static void test_interrupt_waits_for_sti_and_one_more(void **state)
{
    (void)state;
    /* sti; inc eax; inc eax */
    soft_guest_code(&guest, 0x90, 0xfb, 0xff, 0xc0, 0xff, 0xc0, END);
    struct accel_msrs msrs = {.header.nmsrs = 1};
    msrs.entries[0] = (struct kvm_msr_entry){.index = 0x1b, .data = 0xfee00d00};
    soft_accel_ops.vcpu_set_msrs(guest.vcpu, &msrs);
    msrs.entries[0] = (struct kvm_msr_entry){.index = 0x80f, .data = 0x1ff};
    assert_int_equal(soft_accel_ops.vcpu_set_msrs(guest.vcpu, &msrs), 1);
    soft_accel_ops.msi(guest.vm, 0xfee00000, 0x55);
    soft_guest_expect(&guest, 0x55);
    assert_int_equal(guest.state.regs.rax & 0xff, 1);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_CODE + 4);
}

/* MSR 0x4b564d00: a guest that names no place gets no clock written anywhere. */
static void test_wall_clock(void **state)
{
    (void)state;
    static const uint8_t none[12];
    uint64_t place = SOFT_GUEST_DATA;
    struct accel_msrs msrs = {.header.nmsrs = 1};
    msrs.entries[0] = (struct kvm_msr_entry){.index = 0x4b564d00};
    memset(guest.ram, 0, sizeof(none));
    assert_int_equal(soft_accel_ops.vcpu_set_msrs(guest.vcpu, &msrs), 1);
    assert_memory_equal(guest.ram, none, sizeof(none));
    msrs.entries[0].data = place;
    assert_int_equal(soft_accel_ops.vcpu_set_msrs(guest.vcpu, &msrs), 1);
    assert_memory_not_equal(guest.ram + place, none, sizeof(none));
}

static void test_alignment_check(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x48, 0x8b, 0x03);
    soft_guest_set_user(&guest);
    guest.state.sregs.cr0 |= CR0_AM;
    soft_guest_put_sregs(&guest);
    guest.state.regs.rflags |= RFLAGS_AC;
    guest.state.regs.rbx = SOFT_GUEST_DATA + 1;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_AC);
    assert_int_equal(soft_guest_frame(&guest, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_divide_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_undefined, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_privileged_in_user_mode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_interrupt_stack_table, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_software_interrupts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_double_and_triple_faults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stack_outside_ram, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_idt_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_iretq_to_user, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_iretq_to_compatibility_mode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_iretq_refuses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_syscall_and_sysret, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_selectors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_control_registers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wall_clock, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_trap_flag, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_breakpoints, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_traps_wait_for_the_stack_pointer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_fault_of_a_push, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_fetch_outside_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_interrupt_waits_for_sti_and_one_more, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_alignment_check, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
