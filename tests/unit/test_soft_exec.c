/* SPDX-License-Identifier: MIT */
/* Execution in the software CPU: self-modifying code, strings, exits and their answers, old modes.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit/soft_fixture.h"
#include "tests/unit/test.h"

#define END  0xe6, 0xf4 /* out 0xf4, al */
#define MMIO UINT64_C(0x40000000)

/* --- Code that changes --- */

static void test_modifies_the_next_instruction(void **state)
{
    (void)state;
    /* mov byte [rip + 1], 0x12; mov al, 0x34 */
    soft_guest_code(&guest, 0xc6, 0x05, 0x01, 0, 0, 0, 0x12, 0xb0, 0x34, END);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax & 0xff, 0x12);
}

static void test_modifies_a_loop(void **state)
{
    (void)state;
    /* mov ecx, 5; 1: add eax, 1; add byte [rip - 7] (the immediate), 1; dec ecx; jnz 1b */
    soft_guest_code(&guest, 0xb9, 5, 0, 0, 0, 0x83, 0xc0, 1, 0x80, 0x05, 0xf8, 0xff, 0xff, 0xff, 1,
                    0xff, 0xc9, 0x75, 0xf2, END);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax, 1 + 2 + 3 + 4 + 5);
}

static void test_modifies_through_another_mapping(void **state)
{
    (void)state;
    /* mov byte [rbx], 0x12; jmp next; next: mov al, 0x34 */
    soft_guest_code(&guest, 0xc6, 0x03, 0x12, 0xeb, 0, 0xb0, 0x34, END);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) = SOFT_GUEST_CODE | 7;
    guest.state.regs.rbx = SOFT_GUEST_DATA + 6;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax & 0xff, 0x12);
}

static void test_sees_writes_of_devices(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xb0, 1, END, 0xeb, 0xfa); /* mov al, 1; out; jmp back */
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax & 0xff, 1);
    guest.ram[SOFT_GUEST_CODE + 1] = 2;
    soft_accel_ops.ram_written(guest.vm, SOFT_GUEST_CODE + 1, 1);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax & 0xff, 2);
}

/* --- Strings --- */

static void test_rep_movs_with_a_fault(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xf3, 0xa4, END);
    for (unsigned i = 0; i < 0x3000; i++)
        guest.ram[SOFT_GUEST_DATA + i] = (uint8_t)(i * 7);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA + 0x12000) = 0;
    guest.state.regs.rsi = SOFT_GUEST_DATA;
    guest.state.regs.rdi = SOFT_GUEST_DATA + 0x10800;
    guest.state.regs.rcx = 0x3000;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_PF);
    assert_int_equal(guest.state.sregs.cr2, SOFT_GUEST_DATA + 0x12000);
    assert_int_equal(guest.state.regs.rcx, 0x3000 - 0x1800);
    assert_int_equal(guest.state.regs.rsi, SOFT_GUEST_DATA + 0x1800);
    assert_int_equal(guest.state.regs.rdi, SOFT_GUEST_DATA + 0x12000);
    assert_int_equal(soft_guest_frame(&guest, 1), SOFT_GUEST_CODE);
    assert_memory_equal(guest.ram + SOFT_GUEST_DATA, guest.ram + SOFT_GUEST_DATA + 0x10800, 0x1800);
}

static void test_rep_movs_overlaps(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xf3, 0xa4, END); /* repeats the first byte */
    guest.ram[SOFT_GUEST_DATA] = 0xab;
    guest.state.regs.rsi = SOFT_GUEST_DATA;
    guest.state.regs.rdi = SOFT_GUEST_DATA + 1;
    guest.state.regs.rcx = 0x1800;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    for (unsigned i = 0; i <= 0x1800; i++)
        assert_int_equal(guest.ram[SOFT_GUEST_DATA + i], 0xab);
}

static void test_rep_stos_backwards(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xfd, 0xf3, 0x66, 0xab, 0xfc, END); /* std; rep stosw; cld */
    memset(guest.ram + SOFT_GUEST_DATA, 0, 0x2000);
    guest.state.regs.rdi = SOFT_GUEST_DATA + 0x1001; /* crosses the page in its first element */
    guest.state.regs.rax = 0x1234;
    guest.state.regs.rcx = 0x10;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rdi, SOFT_GUEST_DATA + 0xfe1);
    assert_int_equal(guest.ram[SOFT_GUEST_DATA + 0xfe2], 0);
    assert_int_equal(guest.ram[SOFT_GUEST_DATA + 0xfe3], 0x34);
    assert_int_equal(guest.ram[SOFT_GUEST_DATA + 0x1002], 0x12);
}

static void test_repe_cmps_and_repne_scas(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xf3, 0xa6, 0x9c, 0x5b, END); /* repe cmpsb; pushf; pop rbx */
    memset(guest.ram + SOFT_GUEST_DATA, 5, 0x3000);
    guest.ram[SOFT_GUEST_DATA + 0x1ffe] = 4;
    guest.state.regs.rsi = SOFT_GUEST_DATA;
    guest.state.regs.rdi = SOFT_GUEST_DATA + 0x1000;
    guest.state.regs.rcx = 0x2000;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rcx, 0x2000 - 0xfff);
    assert_false(guest.state.regs.rbx & (RFLAGS_ZF | RFLAGS_CF)); /* 5 - 4 */

    soft_guest_code(&guest, 0xf2, 0xae, 0x9c, 0x5b, END); /* repne scasb */
    guest.state.regs.rdi = SOFT_GUEST_DATA;
    guest.state.regs.rcx = UINT64_MAX;
    guest.state.regs.rax = 4;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(~guest.state.regs.rcx, 0x1fff);
    assert_true(guest.state.regs.rbx & RFLAGS_ZF);
}

/* --- Exits --- */

static void map_mmio(void)
{
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) = MMIO | 7;
}

static void expect_mmio(uint64_t offset, unsigned size, bool is_write)
{
    soft_guest_run(&guest);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_MMIO);
    assert_int_equal(guest.exit.mmio.gpa, MMIO + offset);
    assert_int_equal(guest.exit.mmio.size, size);
    assert_int_equal(guest.exit.mmio.is_write, is_write);
}

static void test_read_modify_write_of_mmio(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x81, 0x03, 0x05, 0, 0, 0, END); /* add dword [rbx], 5 */
    map_mmio();
    guest.state.regs.rbx = SOFT_GUEST_DATA + 8;
    soft_guest_put_regs(&guest);
    expect_mmio(8, 4, false);
    memcpy(guest.exit.mmio.data, &(uint32_t){0xfffffffe}, 4);
    expect_mmio(8, 4, true);
    assert_int_equal(*(uint32_t *)guest.exit.mmio.data, 3);
    soft_guest_run_to_end(&guest);
    assert_true(guest.state.regs.rflags & RFLAGS_CF);
}

static void test_mmio_to_mmio_copy(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xf3, 0xa5, END); /* rep movsd */
    map_mmio();
    guest.state.regs.rsi = SOFT_GUEST_DATA;
    guest.state.regs.rdi = SOFT_GUEST_DATA + 0x100;
    guest.state.regs.rcx = 2;
    soft_guest_put_regs(&guest);
    for (uint32_t i = 0; i < 2; i++) {
        expect_mmio(i * 4, 4, false);
        memcpy(guest.exit.mmio.data, &(uint32_t){i + 100}, 4);
        expect_mmio(0x100 + i * 4, 4, true);
        assert_int_equal(*(uint32_t *)guest.exit.mmio.data, i + 100);
    }
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rcx, 0);
}

static void test_mmio_and_ram_in_one_access(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x48, 0x8b, 0x03, END); /* mov rax, [rbx] over the page's end */
    map_mmio();
    soft_guest_set_u64(&guest, SOFT_GUEST_DATA + 0x1000, 0x1122334455667788);
    guest.state.regs.rbx = SOFT_GUEST_DATA + 0xffd;
    soft_guest_put_regs(&guest);
    expect_mmio(0xffd, 3, false);
    memcpy(guest.exit.mmio.data, "abc", 3);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax, UINT64_C(0x4455667788636261));
}

static void test_ports(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xed, 0x66, 0xef, 0xe4, 0x70,
                    END); /* in eax,dx; out dx,ax; in al,0x70 */
    guest.state.regs.rdx = 0xcf8;
    guest.state.regs.rax = UINT64_MAX;
    soft_guest_put_regs(&guest);
    soft_guest_run(&guest);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_PIO);
    assert_int_equal(guest.exit.pio.port, 0xcf8);
    assert_int_equal(guest.exit.pio.size, 4);
    assert_false(guest.exit.pio.is_write);
    memcpy(guest.exit.pio.data, &(uint32_t){0x80001234}, 4);
    soft_guest_run(&guest);
    assert_true(guest.exit.pio.is_write);
    assert_int_equal(guest.exit.pio.size, 2);
    assert_int_equal(*(uint16_t *)guest.exit.pio.data, 0x1234);
    soft_guest_run(&guest);
    assert_int_equal(guest.exit.pio.port, 0x70);
    *(uint8_t *)guest.exit.pio.data = 0x56;
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax, UINT64_C(0x80001256));
}

static void test_string_ports(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xf3, 0x6c, END); /* rep insb */
    guest.state.regs.rdx = 0x1f0;
    guest.state.regs.rdi = SOFT_GUEST_DATA;
    guest.state.regs.rcx = 3;
    soft_guest_put_regs(&guest);
    uint8_t next = 1;
    for (;;) {
        soft_guest_run(&guest);
        assert_int_equal(guest.exit.reason, ACCEL_EXIT_PIO);
        if (guest.exit.pio.port == SOFT_GUEST_DONE_PORT)
            break;
        for (uint32_t i = 0; i < guest.exit.pio.count; i++)
            ((uint8_t *)guest.exit.pio.data)[i] = next++;
    }
    assert_memory_equal(guest.ram + SOFT_GUEST_DATA, "\1\2\3", 3);
    assert_int_equal(guest.state.regs.rdi, SOFT_GUEST_DATA + 3);
}

static void test_doorbells(void **state)
{
    int fd = eventfd(0, EFD_NONBLOCK);
    uint64_t count;

    (void)state;
    soft_guest_code(&guest, 0x66, 0x89, 0x03, 0x89, 0x03, END); /* 2 bytes; 4 bytes */
    map_mmio();
    guest.state.regs.rbx = SOFT_GUEST_DATA + 0x10;
    guest.state.regs.rax = 7;
    soft_guest_put_regs(&guest);
    assert_int_equal(soft_accel_ops.ioeventfd_add(guest.vm, fd, false, MMIO + 0x10, 2, false, 7),
                     0);
    expect_mmio(0x10, 4, true);
    assert_int_equal(read(fd, &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 1);
    soft_accel_ops.ioeventfd_del(guest.vm, fd, false, MMIO + 0x10, 2, false, 7);
    close(fd);
}

static void test_kick_is_sticky(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xeb, 0xfe); /* for ever */
    soft_accel_ops.vcpu_kick(guest.vcpu);
    soft_guest_run(&guest);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_INTR);
    assert_int_equal(guest.state.regs.rip, SOFT_GUEST_CODE);
}

static void test_fetch_outside_ram(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0xff, 0xe3); /* jmp rbx */
    map_mmio();
    guest.state.regs.rbx = SOFT_GUEST_DATA;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_UD);
    assert_int_equal(soft_guest_frame(&guest, 0), SOFT_GUEST_DATA);
}

/* --- The debugger --- */

static void test_single_step_and_breakpoint(void **state)
{
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};

    (void)state;
    soft_guest_code(&guest, 0xff, 0xc0, 0xff, 0xc0, 0xcc, END);
    soft_accel_ops.vcpu_set_debug(guest.vcpu, &debug);
    for (unsigned i = 1; i <= 2; i++) {
        soft_guest_run(&guest);
        assert_int_equal(guest.exit.reason, ACCEL_EXIT_DEBUG);
        assert_int_equal(guest.exit.debug.rip, SOFT_GUEST_CODE + i * 2);
        assert_int_equal(guest.state.regs.rax, i);
    }
    debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
    soft_accel_ops.vcpu_set_debug(guest.vcpu, &debug);
    soft_guest_run(&guest);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_DEBUG);
    assert_int_equal(guest.exit.debug.exception, SOFT_BP);
    assert_int_equal(guest.exit.debug.rip, SOFT_GUEST_CODE + 4);
}

/* --- Protected and real mode --- */

static void test_32_bit_code(void **state)
{
    (void)state;
    /* push 7; call +1; hlt; pop ecx (return address); pop eax; inc eax */
    soft_guest_code(&guest, 0x6a, 7, 0xe8, 1, 0, 0, 0, 0xf4, 0x59, 0x58, 0x40, END);
    soft_guest_set_protected(&guest, true);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax, 8);
    assert_int_equal(guest.state.regs.rcx, SOFT_GUEST_CODE + 7);
    assert_int_equal(guest.state.regs.rsp, SOFT_GUEST_STACK);
}

static void test_segment_limit(void **state)
{
    (void)state;
    /* mov ax, SEL_SMALL; mov ds, ax; mov al, [0xff]; mov ax, [0xff] */
    soft_guest_code(&guest, 0x66, 0xb8, SEL_SMALL, 0, 0x8e, 0xd8, 0xa0, 0xff, 0, 0, 0, 0x66, 0xa1,
                    0xff, 0, 0, 0);
    soft_guest_set_protected(&guest, true);
    soft_guest_run(&guest);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_SHUTDOWN); /* no IDT: #GP, #DF, and out */
    assert_int_equal(guest.state.regs.rip, SOFT_GUEST_CODE + 11);
}

static void test_decimal(void **state)
{
    (void)state;
    /* mov al, 0x19; add al, 0x28; daa; aam */
    soft_guest_code(&guest, 0xb0, 0x19, 0x04, 0x28, 0x27, 0x88, 0xc3, 0xd4, 0x0a, END);
    soft_guest_set_protected(&guest, true);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rbx & 0xff, 0x47);
    assert_int_equal(guest.state.regs.rax & 0xffff, 0x0701); /* 0x47 = 71 */
}

static void test_real_mode(void **state)
{
    (void)state;
    /* mov ax, 0x5000; mov ds, ax; mov word [0x10], 0x1234; mov bx, [0x10]; int 0x20 */
    soft_guest_code(&guest, 0xb8, 0, 0x50, 0x8e, 0xd8, 0xc7, 0x06, 0x10, 0, 0x34, 0x12, 0x8b, 0x1e,
                    0x10, 0, 0xcd, 0x20, END);
    soft_guest_set_real(&guest);
    memcpy(guest.ram + 0x20 * 4, "\x00\x01\x00\x06", 4);       /* 0600:0100 */
    memcpy(guest.ram + 0x6100, "\x89\xe5\xb9\x05\x00\xcf", 6); /* mov bp,sp; mov cx,5; iret */
    soft_accel_ops.ram_written(guest.vm, 0, 0x7000);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rbx & 0xffff, 0x1234);
    assert_int_equal(guest.state.regs.rcx & 0xffff, 5);
    assert_int_equal(guest.state.regs.rbp & 0xffff, 0x8000 - 6);
    assert_int_equal(guest.state.regs.rsp & 0xffff, 0x8000);
    assert_memory_equal(guest.ram + 0x50010, "\x34\x12", 2);
    assert_int_equal(soft_guest_u64(&guest, 0x7ffa) & 0xffff, 17); /* IP pushed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_modifies_the_next_instruction, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_modifies_a_loop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_modifies_through_another_mapping, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sees_writes_of_devices, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rep_movs_with_a_fault, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rep_movs_overlaps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rep_stos_backwards, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_repe_cmps_and_repne_scas, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_read_modify_write_of_mmio, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mmio_to_mmio_copy, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mmio_and_ram_in_one_access, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ports, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_string_ports, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_doorbells, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kick_is_sticky, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_fetch_outside_ram, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_single_step_and_breakpoint, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_32_bit_code, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_segment_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_decimal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_real_mode, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
