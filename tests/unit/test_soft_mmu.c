/* SPDX-License-Identifier: MIT */
/* Paging of the software CPU: rights, error codes, accessed and dirty bits, flushes, page edges. */
#include <errno.h>
#include <string.h>

#include "tests/unit/soft_fixture.h"
#include "tests/unit/test.h"

#define PTE_P  UINT64_C(1)
#define PTE_W  UINT64_C(2)
#define PTE_U  UINT64_C(4)
#define PTE_A  UINT64_C(0x20)
#define PTE_D  UINT64_C(0x40)
#define PTE_NX (UINT64_C(1) << 63)

#define END      0xe6, 0xf4       /* out 0xf4, al */
#define LOAD_RBX 0x48, 0x8b, 0x03 /* mov rax, [rbx] */
#define STORE    0x48, 0x89, 0x03 /* mov [rbx], rax */
#define CALL_RBX 0xff, 0xd3

static void set_rbx(uint64_t value)
{
    guest.state.regs.rbx = value;
    soft_guest_put_regs(&guest);
}

static void expect_page_fault(uint64_t address, uint64_t error_code, uint64_t rip)
{
    soft_guest_expect(&guest, SOFT_PF);
    assert_int_equal(guest.state.sregs.cr2, address);
    assert_int_equal(soft_guest_frame(&guest, 0), error_code);
    assert_int_equal(soft_guest_frame(&guest, 1), rip);
}

static void test_sets_accessed_and_dirty(void **state)
{
    (void)state;
    soft_guest_code(&guest, LOAD_RBX, END, STORE, END);
    set_rbx(SOFT_GUEST_DATA);
    uint64_t *pte = soft_guest_pte(&guest, SOFT_GUEST_DATA);

    assert_false(*pte & (PTE_A | PTE_D));
    soft_guest_run_to_end(&guest);
    assert_int_equal(*pte & (PTE_A | PTE_D), PTE_A);
    soft_guest_run_to_end(&guest);
    assert_int_equal(*pte & (PTE_A | PTE_D), PTE_A | PTE_D);
    /* The tables above have been used too. */
    assert_true(soft_guest_u64(&guest, SOFT_GUEST_TABLES) & PTE_A);
    assert_true(soft_guest_u64(&guest, SOFT_GUEST_TABLES + 0x2008) & PTE_A);
}

static void test_not_present(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x90, LOAD_RBX);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) = 0;
    set_rbx(SOFT_GUEST_DATA + 0x123);
    expect_page_fault(SOFT_GUEST_DATA + 0x123, 0, SOFT_GUEST_CODE + 1);

    soft_guest_code(&guest, STORE);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) = 0;
    set_rbx(SOFT_GUEST_DATA);
    expect_page_fault(SOFT_GUEST_DATA, 2, SOFT_GUEST_CODE);
}

static void test_write_protection(void **state)
{
    (void)state;
    soft_guest_code(&guest, STORE);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) &= ~PTE_W;
    set_rbx(SOFT_GUEST_DATA);
    expect_page_fault(SOFT_GUEST_DATA, 3, SOFT_GUEST_CODE);

    soft_guest_code(&guest, STORE, END); /* CR0.WP clear: the kernel may */
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) &= ~PTE_W;
    set_rbx(SOFT_GUEST_DATA);
    guest.state.sregs.cr0 &= ~CR0_WP;
    soft_guest_put_sregs(&guest);
    soft_guest_run_to_end(&guest);
}

static void test_user_rights(void **state)
{
    (void)state;
    soft_guest_code(&guest, LOAD_RBX);
    soft_guest_set_user(&guest);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) &= ~PTE_U;
    set_rbx(SOFT_GUEST_DATA);
    expect_page_fault(SOFT_GUEST_DATA, 5, SOFT_GUEST_CODE);

    soft_guest_code(&guest, STORE);
    soft_guest_set_user(&guest);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) &= ~PTE_W;
    set_rbx(SOFT_GUEST_DATA);
    expect_page_fault(SOFT_GUEST_DATA, 7, SOFT_GUEST_CODE);
}

static void test_no_execute(void **state)
{
    (void)state;
    soft_guest_code(&guest, CALL_RBX);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) |= PTE_NX;
    set_rbx(SOFT_GUEST_DATA);
    expect_page_fault(SOFT_GUEST_DATA, 0x11, SOFT_GUEST_DATA);

    soft_guest_code(&guest, LOAD_RBX); /* without EFER.NX the bit is reserved */
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) |= PTE_NX;
    set_rbx(SOFT_GUEST_DATA);
    guest.state.sregs.efer &= ~EFER_NX;
    soft_guest_put_sregs(&guest);
    expect_page_fault(SOFT_GUEST_DATA, 9, SOFT_GUEST_CODE);
}

static void test_reserved_bits(void **state)
{
    (void)state;
    soft_guest_code(&guest, LOAD_RBX);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) |= UINT64_C(1) << 51;
    set_rbx(SOFT_GUEST_DATA);
    expect_page_fault(SOFT_GUEST_DATA, 9, SOFT_GUEST_CODE);
}

static void test_tables_outside_ram(void **state)
{
    (void)state;
    soft_guest_code(&guest, LOAD_RBX);
    soft_guest_set_u64(&guest, SOFT_GUEST_TABLES + 0x2008, UINT64_C(0x3f00000007));
    set_rbx(SOFT_GUEST_DATA);
    expect_page_fault(SOFT_GUEST_DATA, 0, SOFT_GUEST_CODE);
}

static void test_non_canonical(void **state)
{
    (void)state;
    soft_guest_code(&guest, LOAD_RBX);
    set_rbx(UINT64_C(0x800000000000));
    soft_guest_expect(&guest, SOFT_GP);
    assert_int_equal(soft_guest_frame(&guest, 0), 0);
    soft_guest_code(&guest, 0x58); /* pop rax */
    guest.state.regs.rsp = UINT64_C(0x800000000000);
    soft_guest_put_regs(&guest);
    /* The handler's stack is bad too; then the double fault's. */
    soft_guest_run(&guest);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_SHUTDOWN);
}

static void test_crosses_pages(void **state)
{
    (void)state;
    soft_guest_code(&guest, STORE, 0x48, 0x8b, 0x0b, END); /* mov rcx, [rbx] */
    /* The second page is elsewhere. */
    *soft_guest_pte(&guest, SOFT_GUEST_DATA + 0x1000) = (SOFT_GUEST_DATA + 0x8000) | 7;
    guest.state.regs.rax = UINT64_C(0x1122334455667788);
    set_rbx(SOFT_GUEST_DATA + 0xffd);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rcx, UINT64_C(0x1122334455667788));
    assert_memory_equal(guest.ram + SOFT_GUEST_DATA + 0xffd, "\x88\x77\x66", 3);
    assert_memory_equal(guest.ram + SOFT_GUEST_DATA + 0x8000, "\x55\x44\x33\x22\x11", 5);
}

static void test_faults_on_the_second_page(void **state)
{
    (void)state;
    soft_guest_code(&guest, STORE);
    memset(guest.ram + SOFT_GUEST_DATA, 0, 0x1000);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA + 0x1000) = 0;
    guest.state.regs.rax = UINT64_MAX;
    set_rbx(SOFT_GUEST_DATA + 0xffd);
    expect_page_fault(SOFT_GUEST_DATA + 0x1000, 2, SOFT_GUEST_CODE);
    assert_int_equal(guest.ram[SOFT_GUEST_DATA + 0xffd], 0); /* nothing was written */
}

static void test_instruction_crosses_pages(void **state)
{
    static const uint8_t code[] = {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, END}; /* mov rax, imm64 */

    (void)state;
    for (unsigned before = 1; before < 10; before++) {
        soft_guest_code(&guest, 0xff, 0xe3); /* jmp rbx */
        /* The next page of code is at another physical address. */
        memcpy(guest.ram + SOFT_GUEST_DATA + 0x1000 - before, code, before);
        memcpy(guest.ram + SOFT_GUEST_DATA + 0x8000, code + before, sizeof(code) - before);
        *soft_guest_pte(&guest, SOFT_GUEST_DATA + 0x1000) = (SOFT_GUEST_DATA + 0x8000) | 7;
        soft_accel_ops.ram_written(guest.vm, SOFT_GUEST_DATA, 0x9000);
        set_rbx(SOFT_GUEST_DATA + 0x1000 - before);
        soft_guest_run_to_end(&guest);
        assert_int_equal(guest.state.regs.rax, UINT64_C(0x0807060504030201));
    }
    /* Not present: the fault names the second page, and RIP the instruction. */
    *soft_guest_pte(&guest, SOFT_GUEST_DATA + 0x1000) = 0;
    guest.state.regs.rip = guest.state.regs.rbx;
    soft_guest_put_regs(&guest);
    soft_guest_flush(&guest);
    expect_page_fault(SOFT_GUEST_DATA + 0x1000, 0x10, SOFT_GUEST_DATA + 0x1000 - 9);
}

static void test_invlpg(void **state)
{
    (void)state;
    /* mov rax,[rbx]; mov rcx,[rdx]; mov [rdi],rsi; mov rcx,[rdx]... ; invlpg [rbx]; load */
    soft_guest_code(&guest, LOAD_RBX, 0x48, 0x89, 0x37, 0x0f, 0x01, 0x3b, LOAD_RBX, END);
    soft_guest_set_u64(&guest, SOFT_GUEST_DATA, 111);
    soft_guest_set_u64(&guest, SOFT_GUEST_DATA + 0x5000, 222);
    guest.state.regs.rdi = SOFT_GUEST_PTES + SOFT_GUEST_DATA / 4096 * 8;
    guest.state.regs.rsi = (SOFT_GUEST_DATA + 0x5000) | 7;
    set_rbx(SOFT_GUEST_DATA);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax, 222);
}

static void test_invlpg_of_a_large_page(void **state)
{
    (void)state;
    /* Loads through two 4 KiB parts of a 2 MiB page; INVLPG of one drops both. */
    soft_guest_code(&guest, LOAD_RBX, 0x48, 0x89, 0x37, 0x0f, 0x01, 0xba, 0, 0x30, 0, 0, LOAD_RBX,
                    END); /* invlpg [rdx + 0x3000] */
    soft_guest_set_u64(&guest, SOFT_GUEST_TABLES + 0x2008, SOFT_GUEST_DATA | 0x87);
    soft_guest_set_u64(&guest, SOFT_GUEST_DATA + 0x8000, 333);
    soft_guest_set_u64(&guest, 0x8000, 444);
    guest.state.regs.rdx = SOFT_GUEST_DATA;
    guest.state.regs.rdi = SOFT_GUEST_TABLES + 0x2008;
    guest.state.regs.rsi = 0x87; /* to physical 0 */
    set_rbx(SOFT_GUEST_DATA + 0x8000);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax, 444);
}

static void test_cr3_keeps_global_pages(void **state)
{
    (void)state;
    /* rax=[rbx]; rcx=[rdx]; both PTEs to 0; mov cr3, r8; rax=[rbx] (global): still; [rdx]: #PF */
    soft_guest_code(&guest, LOAD_RBX, 0x48, 0x8b, 0x0a, 0x48, 0xc7, 0x07, 0, 0, 0, 0, 0x48, 0xc7,
                    0x47, 0x08, 0, 0, 0, 0, 0x41, 0x0f, 0x22, 0xd8, LOAD_RBX, 0x48, 0x8b, 0x0a);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) |= 0x100;
    guest.state.sregs.cr4 |= CR4_PGE;
    soft_guest_put_sregs(&guest);
    guest.state.regs.rdi = SOFT_GUEST_PTES + SOFT_GUEST_DATA / 4096 * 8;
    guest.state.regs.rdx = SOFT_GUEST_DATA + 0x1000;
    guest.state.regs.r8 = SOFT_GUEST_TABLES;
    set_rbx(SOFT_GUEST_DATA);
    expect_page_fault(SOFT_GUEST_DATA + 0x1000, 0, SOFT_GUEST_CODE + 28);
}

static void test_read_only_slot(void **state)
{
    static uint8_t rom[0x1000] __attribute__((aligned(4096)));

    (void)state;
    rom[8] = 7;
    soft_guest_code(&guest, LOAD_RBX, STORE, END);
    assert_int_equal(soft_accel_ops.set_memslot(guest.vm, 1, 0x10000000, 0x1000, rom, true), 0);
    /* Map it over the data page. */
    *soft_guest_pte(&guest, SOFT_GUEST_DATA) = 0x10000007;
    set_rbx(SOFT_GUEST_DATA + 8);
    soft_guest_run(&guest);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_MMIO);
    assert_true(guest.exit.mmio.is_write);
    assert_int_equal(guest.exit.mmio.gpa, 0x10000008);
    soft_guest_run_to_end(&guest);
    assert_int_equal(rom[8], 7);
    assert_int_equal(soft_accel_ops.set_memslot(guest.vm, 1, 0, 0, NULL, false), 0);
}

static void test_slots_are_checked(void **state)
{
    (void)state;
    uint8_t *ram = guest.ram;

    assert_int_equal(soft_accel_ops.set_memslot(guest.vm, 2, 0x1000, 0x1000, ram, false), -EEXIST);
    assert_int_equal(soft_accel_ops.set_memslot(guest.vm, 2, 0x10000800, 0x1000, ram, false),
                     -EINVAL);
    assert_int_equal(
        soft_accel_ops.set_memslot(guest.vm, 2, UINT64_MAX - 0xfff, 0x2000, ram, false), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sets_accessed_and_dirty, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_not_present, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_write_protection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_user_rights, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_execute, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reserved_bits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tables_outside_ram, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_non_canonical, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_crosses_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_faults_on_the_second_page, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_instruction_crosses_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_invlpg, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_invlpg_of_a_large_page, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cr3_keeps_global_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_read_only_slot, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slots_are_checked, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
