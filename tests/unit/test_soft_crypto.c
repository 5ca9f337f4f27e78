/* SPDX-License-Identifier: MIT */
/* AES, PCLMULQDQ, SHA, RDRAND and RDSEED: who has them, and what random numbers leave behind. */
#include <string.h>

#include "tests/unit/soft_fixture.h"
#include "tests/unit/test.h"
#include "vmm/soft/decode.h"

#define END 0xe6, 0xf4 /* out 0xf4, al */

#define ECX_PCLMUL (1u << 1)
#define ECX_AES    (1u << 25)
#define ECX_AVX    (1u << 28)
#define ECX_RDRAND (1u << 30)
#define EBX_RDSEED (1u << 18)
#define EBX_SHA    (1u << 29)

static enum soft_decoded decode(const void *bytes, unsigned length)
{
    static struct soft_op ops[SOFT_INSTRUCTION_OPS_MAX];
    struct soft_decoder decoder = {.cpu = guest.cpu, .mode = SOFT_MODE_64, .ops = ops};

    decoder.bytes = bytes;
    decoder.available = length;
    return soft_decode(&decoder);
}

/* Each is there with its own feature, and with that alone (VEX forms: and AVX). */
static void test_each_needs_its_feature(void **state)
{
    static const struct {
        unsigned length;
        uint8_t bytes[6];
        uint32_t ecx, ebx;
    } cases[] = {
        {5, {0x66, 0x0f, 0x38, 0xdb, 0xc1}, ECX_AES, 0},
        {5, {0x66, 0x0f, 0x38, 0xdc, 0xc1}, ECX_AES, 0},
        {5, {0x66, 0x0f, 0x38, 0xdf, 0xc1}, ECX_AES, 0},
        {6, {0x66, 0x0f, 0x3a, 0xdf, 0xc1, 1}, ECX_AES, 0},
        {6, {0x66, 0x0f, 0x3a, 0x44, 0xc1, 1}, ECX_PCLMUL, 0},
        {4, {0x0f, 0x38, 0xc8, 0xc1}, 0, EBX_SHA},
        {4, {0x0f, 0x38, 0xcb, 0xc1}, 0, EBX_SHA},
        {5, {0x0f, 0x3a, 0xcc, 0xc1, 1}, 0, EBX_SHA},
        {5, {0xc4, 0xe2, 0x69, 0xdc, 0xc1}, ECX_AES | ECX_AVX, 0},
        {6, {0xc4, 0xe3, 0x69, 0x44, 0xc1, 1}, ECX_PCLMUL | ECX_AVX, 0},
        {3, {0x0f, 0xc7, 0xf0}, ECX_RDRAND, 0},
        {3, {0x0f, 0xc7, 0xf8}, 0, EBX_RDSEED},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        guest.cpu->cpuid_1_ecx = cases[i].ecx;
        guest.cpu->cpuid_7_ebx = cases[i].ebx;
        assert_int_equal(decode(cases[i].bytes, cases[i].length), SOFT_DECODED);
        guest.cpu->cpuid_1_ecx = ~(cases[i].ecx & ~ECX_AVX);
        guest.cpu->cpuid_7_ebx = ~cases[i].ebx;
        assert_int_equal(decode(cases[i].bytes, cases[i].length), SOFT_UNDEFINED);
    }
}

/* The same with prefixes and widths that name something else. */
static void test_other_forms_are_undefined(void **state)
{
    (void)state;
    guest.cpu->cpuid_1_ecx = guest.cpu->cpuid_7_ebx = UINT32_MAX;
    assert_int_equal(decode("\x0f\x38\xdc\xc1", 4), SOFT_UNDEFINED);
    assert_int_equal(decode("\xf3\x0f\x38\xdc\xc1", 5), SOFT_UNDEFINED);
    assert_int_equal(decode("\x66\x0f\x38\xcb\xc1", 5), SOFT_UNDEFINED);
    assert_int_equal(decode("\xc4\xe2\x6d\xdc\xc1", 5), SOFT_UNDEFINED); /* 256 bits */
    assert_int_equal(decode("\xc4\xe3\x6d\x44\xc1\x01", 6), SOFT_UNDEFINED);
    assert_int_equal(decode("\xc4\xe2\x69\xdb\xc1", 5), SOFT_UNDEFINED); /* has no VEX.vvvv */
    assert_int_equal(decode("\xf3\x0f\xc7\xf8", 4), SOFT_UNDEFINED);     /* RDPID */
    assert_int_equal(decode("\x0f\xc7\x37", 3), SOFT_UNDEFINED);         /* VMPTRLD */
}

/* CF: there was one, or the register is 0; the other flags are cleared; each width writes its own.
 */
static void check_random(bool is_there)
{
    const struct kvm_regs *regs = &guest.state.regs;

    if (!is_there) {
        print_message("this host has no such instruction\n");
        return;
    }
    soft_guest_run_to_end(&guest);
    assert_int_equal(regs->rflags & 0x8d5, regs->rflags & 1);
    assert_int_equal(regs->rax >> 16, 0x0101010101010101 >> 16);
    assert_int_equal(regs->rcx >> 32, 0);
    if (regs->rflags & 1)
        assert_int_not_equal(regs->rdx, 0x0303030303030303);
    else
        assert_int_equal(regs->rdx, 0);
}

static void fill_registers(void)
{
    guest.state.regs.rax = 0x0101010101010101;
    guest.state.regs.rcx = 0x0202020202020202;
    guest.state.regs.rdx = 0x0303030303030303;
    guest.state.regs.rflags |= 0x8d5;
    soft_guest_put_regs(&guest);
}

static void test_rdrand(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x66, 0x0f, 0xc7, 0xf0, 0x0f, 0xc7, 0xf1, 0x48, 0x0f, 0xc7, 0xf2, END);
    fill_registers();
    check_random(guest.cpu->cpuid_1_ecx & ECX_RDRAND);
}

static void test_rdseed(void **state)
{
    (void)state;
    soft_guest_code(&guest, 0x66, 0x0f, 0xc7, 0xf8, 0x0f, 0xc7, 0xf9, 0x48, 0x0f, 0xc7, 0xfa, END);
    fill_registers();
    check_random(guest.cpu->cpuid_7_ebx & EBX_RDSEED);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_needs_its_feature, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_forms_are_undefined, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rdrand, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rdseed, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
