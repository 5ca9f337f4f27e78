/* SPDX-License-Identifier: MIT */
/*
 * XSAVE and VEX in the software CPU: layouts, and the rules that no comparison with the host's user
 * mode can show: who may, when there is #UD, #NM or #GP, and what goes on after a fault.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/unit/soft_fixture.h"
#include "tests/unit/test.h"
#include "vmm/soft/cpuid.h"
#include "vmm/soft/decode.h"
#include "vmm/soft/fpu.h"
#include "vmm/soft/xsave.h"

#define END 0xe6, 0xf4 /* out 0xf4, al */

#define XSETBV     0x0f, 0x01, 0xd1
#define XGETBV     0x0f, 0x01, 0xd0
#define XSAVE      0x0f, 0xae, 0x27 /* [rdi] */
#define XRSTOR     0x0f, 0xae, 0x2f
#define XSAVEOPT   0x0f, 0xae, 0x37
#define XSAVEC     0x0f, 0xc7, 0x27
#define VPADDD     0xc5, 0xf5, 0xfe, 0xc2 /* ymm0, ymm1, ymm2 */
#define VZEROUPPER 0xc5, 0xf8, 0x77
#define ANDN       0xc4, 0xe2, 0x70, 0xf2, 0xc2 /* eax, ecx, edx */

#define COMPACTED (UINT64_C(1) << 63)

/* After soft_guest_code: what an operating system has done. */
static void enable(uint64_t xcr0)
{
    guest.cpu->xcr0 = xcr0;
    guest.state.sregs.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    soft_guest_put_sregs(&guest);
}

static void set_mask(uint64_t mask)
{
    guest.state.regs.rax = (uint32_t)mask;
    guest.state.regs.rdx = mask >> 32;
    guest.state.regs.rdi = SOFT_GUEST_DATA;
    soft_guest_put_regs(&guest);
}

static void set_numbers(void)
{
    for (unsigned i = 0; i < 16; i++)
        for (unsigned at = 0; at < 32; at++)
            guest.cpu->ymm[i][at] = (uint8_t)(i * 32 + at + 1);
}

static uint8_t *area(void)
{
    return guest.ram + SOFT_GUEST_DATA;
}

/* AVX is offered only where the host has it. */
static bool has_avx(void)
{
    return xsave_supported(guest.cpu) & XCR0_AVX;
}

static bool skip_without_avx(void)
{
    if (!has_avx())
        print_message("this host has no AVX\n");
    return !has_avx();
}

/* --- XCR0 --- */

static void try_xsetbv(uint32_t index, uint64_t value, int vector)
{
    soft_guest_code(&guest, XSETBV, END);
    enable(XCR0_X87);
    guest.state.regs.rcx = index;
    set_mask(value);
    if (vector >= 0) {
        soft_guest_expect(&guest, (unsigned)vector);
        assert_int_equal(guest.cpu->xcr0, XCR0_X87);
    } else {
        soft_guest_run_to_end(&guest);
        assert_int_equal(guest.cpu->xcr0, value);
    }
}

static void test_xsetbv(void **state)
{
    (void)state;
    try_xsetbv(0, 1, -1);
    try_xsetbv(0, 3, -1);
    try_xsetbv(0, 0, SOFT_GP);
    try_xsetbv(0, 2, SOFT_GP);
    try_xsetbv(0, 5, SOFT_GP);
    try_xsetbv(0, 0x13, SOFT_GP);
    try_xsetbv(0, UINT64_C(0x100000003), SOFT_GP);
    try_xsetbv(1, 3, SOFT_GP);
    if (has_avx())
        try_xsetbv(0, 7, -1);
    soft_guest_code(&guest, XSETBV, END);
    set_mask(3);
    soft_guest_expect(&guest, SOFT_UD); /* without CR4.OSXSAVE */
    soft_guest_code(&guest, XSETBV, END);
    enable(XCR0_X87);
    soft_guest_set_user(&guest);
    set_mask(3);
    soft_guest_expect(&guest, SOFT_GP);
}

static void test_xgetbv(void **state)
{
    (void)state;
    soft_guest_code(&guest, XGETBV, END);
    soft_guest_expect(&guest, SOFT_UD);
    soft_guest_code(&guest, XGETBV, END);
    enable(XCR0_X87 | XCR0_SSE);
    guest.state.regs.rcx = 2;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_GP);
    soft_guest_code(&guest, XGETBV, END);
    soft_guest_set_user(&guest); /* anyone may */
    enable(XCR0_X87 | XCR0_SSE);
    guest.state.regs.rcx = 0;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_GP); /* the OUT at the end is what a user may not */
    assert_int_equal(guest.state.regs.rax, 3);
}

static void test_xgetbv_tells_what_is_in_use(void **state)
{
    (void)state;
    for (unsigned used = 0; used < 2; used++) {
        soft_guest_code(&guest, XGETBV, END);
        enable(XCR0_X87 | XCR0_SSE);
        fpu_reset(guest.cpu);
        guest.cpu->xcr0 = XCR0_X87 | XCR0_SSE;
        guest.cpu->ymm[3][5] = (uint8_t)used;
        guest.state.regs.rcx = 1;
        soft_guest_put_regs(&guest);
        soft_guest_run_to_end(&guest);
        assert_int_equal(guest.state.regs.rax, used ? XCR0_SSE : 0);
    }
}

static void test_cpuid_follows(void **state)
{
    uint32_t leaf[4];

    (void)state;
    soft_guest_code(&guest, END);
    soft_cpuid(guest.cpu, 1, 0, leaf);
    assert_true(leaf[2] & 1u << 26);
    assert_false(leaf[2] & 1u << 27);
    enable(XCR0_X87 | XCR0_SSE);
    soft_cpuid(guest.cpu, 1, 0, leaf);
    assert_true(leaf[2] & 1u << 27);
    soft_cpuid(guest.cpu, 0xd, 0, leaf);
    assert_int_equal(leaf[0], xsave_supported(guest.cpu));
    assert_int_equal(leaf[1], 576);
    assert_int_equal(leaf[2], has_avx() ? 832 : 576);
    enable(XCR0_X87 | XCR0_SSE | XCR0_AVX);
    soft_cpuid(guest.cpu, 0xd, 0, leaf);
    assert_int_equal(leaf[1], 832);
    soft_cpuid(guest.cpu, 0xd, 2, leaf);
    assert_int_equal(leaf[0], has_avx() ? 256 : 0);
    assert_int_equal(leaf[1], has_avx() ? 576 : 0);
}

/* mov cr4, rax */
static void test_osxsave_needs_xsave(void **state)
{
    struct accel_cpuid cpuid;

    (void)state;
    for (unsigned has_xsave = 0; has_xsave < 2; has_xsave++) {
        soft_supported_cpuid(&cpuid);
        for (uint32_t i = 0; i < cpuid.header.nent; i++)
            if (cpuid.entries[i].function == 1 && !has_xsave)
                cpuid.entries[i].ecx &= ~(1u << 26);
        soft_accel_ops.vcpu_set_cpuid(guest.vcpu, &cpuid);
        soft_guest_code(&guest, 0x0f, 0x22, 0xe0, END);
        guest.state.regs.rax = guest.state.sregs.cr4 | CR4_OSXSAVE;
        soft_guest_put_regs(&guest);
        if (has_xsave)
            soft_guest_run_to_end(&guest);
        else
            soft_guest_expect(&guest, SOFT_GP);
    }
}

/* --- The area --- */

static void assert_registers_at(unsigned offset, unsigned half)
{
    for (unsigned i = 0; i < 16; i++)
        assert_memory_equal(area() + offset + 16 * i, guest.cpu->ymm[i] + 16 * half, 16);
}

static void test_xsave_layout(void **state)
{
    (void)state;
    soft_guest_code(&guest, XSAVE, END);
    enable(XCR0_ALL);
    set_numbers();
    guest.cpu->mxcsr = 0x1fa0;
    memset(area(), 0xee, 1024);
    store_le64(area() + XSAVE_HEADER, UINT64_C(0xf0));
    set_mask(UINT64_MAX);
    soft_guest_run_to_end(&guest);
    assert_int_equal(load_le16(area()), 0x37f);
    assert_int_equal(load_le32(area() + 24), 0x1fa0);
    assert_int_equal(load_le32(area() + 28), 0xffff);
    assert_registers_at(160, 0);
    assert_registers_at(576, 1);
    assert_int_equal(load_le64(area() + XSAVE_HEADER), 0xf0 | XCR0_SSE | XCR0_AVX);
    for (unsigned i = 416; i < 512; i++)
        assert_int_equal(area()[i], 0xee);
    for (unsigned i = XSAVE_HEADER + 8; i < XSAVE_AVX; i++)
        assert_int_equal(area()[i], 0xee);
    assert_int_equal(area()[832], 0xee);
}

static void test_xsave_writes_what_is_asked(void **state)
{
    (void)state;
    soft_guest_code(&guest, XSAVE, END);
    enable(XCR0_ALL);
    set_numbers();
    memset(area(), 0xee, 1024);
    store_le64(area() + XSAVE_HEADER, XCR0_X87 | XCR0_SSE);
    set_mask(XCR0_AVX);
    soft_guest_run_to_end(&guest);
    assert_int_equal(area()[0], 0xee);
    assert_int_equal(area()[160], 0xee);
    assert_int_equal(load_le32(area() + 24), 0x1f80); /* MXCSR goes with both */
    assert_registers_at(576, 1);
    assert_int_equal(load_le64(area() + XSAVE_HEADER), XCR0_X87 | XCR0_SSE | XCR0_AVX);
}

static void test_xsaveopt_and_xsavec_leave_initial_state_out(void **state)
{
    (void)state;
    soft_guest_code(&guest, XSAVEOPT, END);
    enable(XCR0_ALL);
    fpu_reset(guest.cpu);
    guest.cpu->xcr0 = XCR0_ALL;
    guest.cpu->ymm[2][20] = 1;
    memset(area(), 0xee, 1024);
    store_le64(area() + XSAVE_HEADER, XCR0_ALL);
    set_mask(UINT64_MAX);
    soft_guest_run_to_end(&guest);
    assert_int_equal(load_le64(area() + XSAVE_HEADER), XCR0_AVX);
    assert_int_equal(area()[160], 0xee);
    assert_registers_at(576, 1);
    soft_guest_code(&guest, XSAVEC, END);
    enable(XCR0_ALL);
    memset(area(), 0xee, 1024);
    set_mask(UINT64_MAX);
    soft_guest_run_to_end(&guest);
    assert_int_equal(load_le64(area() + XSAVE_HEADER), XCR0_AVX);
    assert_int_equal(load_le64(area() + XSAVE_HEADER + 8), COMPACTED | XCR0_ALL);
    assert_int_equal(area()[24], 0xee);
    assert_int_equal(area()[XSAVE_HEADER + 16], 0xee);
    assert_registers_at(576, 1);
}

static void try_xrstor(uint64_t mask, int vector)
{
    soft_guest_code(&guest, XRSTOR, END);
    enable(XCR0_ALL);
    set_numbers();
    guest.cpu->mxcsr = 0x1fa0;
    set_mask(mask);
    if (vector >= 0)
        soft_guest_expect(&guest, (unsigned)vector);
    else
        soft_guest_run_to_end(&guest);
}

/* An area with its own numbers. */
static void make_area(uint64_t xstate_bv, uint64_t xcomp_bv)
{
    memset(area(), 0, 1024);
    store_le16(area(), 0x27f);
    store_le32(area() + 24, 0x1f81);
    memset(area() + 160, 0xa5, 256);
    memset(area() + 576, 0x5a, 256);
    store_le64(area() + XSAVE_HEADER, xstate_bv);
    store_le64(area() + XSAVE_HEADER + 8, xcomp_bv);
}

static void test_xrstor(void **state)
{
    (void)state;
    make_area(XCR0_ALL, 0);
    try_xrstor(UINT64_MAX, -1);
    assert_registers_at(160, 0);
    assert_registers_at(576, 1);
    assert_int_equal(guest.cpu->mxcsr, 0x1f81);
    assert_int_equal(fpu_word(guest.cpu, FX_FCW), 0x27f | 0x40);
    /* What is not in the area becomes as after reset; what is not asked for stays. */
    make_area(XCR0_SSE, 0);
    try_xrstor(XCR0_SSE | XCR0_AVX, -1);
    assert_registers_at(160, 0);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(load_le64(guest.cpu->ymm[i] + 16) | load_le64(guest.cpu->ymm[i] + 24), 0);
    make_area(XCR0_AVX, 0);
    try_xrstor(XCR0_AVX, -1);
    assert_int_equal(guest.cpu->ymm[1][0], 33);
    assert_int_equal(guest.cpu->ymm[1][16], 0x5a);
    assert_int_equal(guest.cpu->mxcsr, 0x1f81);
    /* In the compacted format MXCSR is SSE's alone, and initial with it. */
    make_area(XCR0_AVX, COMPACTED | XCR0_ALL);
    try_xrstor(XCR0_AVX, -1);
    assert_int_equal(guest.cpu->mxcsr, 0x1fa0);
    try_xrstor(XCR0_SSE, -1);
    assert_int_equal(guest.cpu->mxcsr, 0x1f80);
    assert_int_equal(guest.cpu->ymm[1][0], 0);
}

static void test_xrstor_refuses(void **state)
{
    (void)state;
    make_area(XCR0_ALL | 8, 0);
    try_xrstor(UINT64_MAX, SOFT_GP);
    assert_int_equal(guest.cpu->ymm[1][0], 33);
    make_area(XCR0_ALL, 1);
    try_xrstor(UINT64_MAX, SOFT_GP);
    make_area(XCR0_ALL, 0);
    area()[XSAVE_HEADER + 16] = 1;
    try_xrstor(UINT64_MAX, SOFT_GP);
    make_area(XCR0_ALL, 0);
    area()[XSAVE_HEADER + 24] = 1; /* the standard format does not care from here on */
    try_xrstor(UINT64_MAX, -1);
    make_area(XCR0_ALL, COMPACTED | XCR0_ALL);
    area()[XSAVE_HEADER + 63] = 1; /* the other does */
    try_xrstor(UINT64_MAX, SOFT_GP);
    make_area(XCR0_AVX, COMPACTED | XCR0_X87);
    try_xrstor(UINT64_MAX, SOFT_GP);
    make_area(XCR0_X87, COMPACTED | XCR0_X87 | 8);
    try_xrstor(UINT64_MAX, SOFT_GP);
    make_area(XCR0_ALL, 0);
    store_le32(area() + 24, 0x11f80);
    try_xrstor(UINT64_MAX, SOFT_GP);
    try_xrstor(XCR0_X87, -1);
    soft_guest_code(&guest, XRSTOR, END);
    enable(XCR0_ALL);
    set_mask(UINT64_MAX);
    guest.state.regs.rdi = SOFT_GUEST_DATA + 32;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_GP);
}

static void test_area_needs_osxsave_and_no_ts(void **state)
{
    (void)state;
    soft_guest_code(&guest, XSAVE, END);
    set_mask(3);
    soft_guest_expect(&guest, SOFT_UD);
    soft_guest_code(&guest, XSAVE, END);
    guest.state.sregs.cr0 |= CR0_TS;
    enable(XCR0_ALL);
    set_mask(3);
    soft_guest_expect(&guest, SOFT_NM);
}

static void test_xsave_faults_before_it_writes(void **state)
{
    (void)state;
    soft_guest_code(&guest, XSAVE, END);
    enable(XCR0_ALL);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA + 0x1000) = 0;
    soft_guest_flush(&guest);
    memset(area() + 0xe00, 0xee, 0x200);
    set_mask(UINT64_MAX);
    guest.state.regs.rdi = SOFT_GUEST_DATA + 0xe00;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_PF);
    assert_int_equal(guest.state.sregs.cr2, SOFT_GUEST_DATA + 0x1000);
    for (unsigned i = 0xe00; i < 0x1000; i++)
        assert_int_equal(area()[i], 0xee);
}

/* --- AVX and who may have it --- */

static void test_avx_needs_xcr0(void **state)
{
    (void)state;
    if (skip_without_avx())
        return;
    soft_guest_code(&guest, VPADDD, END);
    enable(XCR0_X87 | XCR0_SSE);
    soft_guest_expect(&guest, SOFT_UD);
    soft_guest_code(&guest, VPADDD, END);
    soft_guest_expect(&guest, SOFT_UD);
    soft_guest_code(&guest, VPADDD, END);
    guest.state.sregs.cr0 |= CR0_TS;
    enable(XCR0_ALL);
    soft_guest_expect(&guest, SOFT_NM);
    soft_guest_code(&guest, VPADDD, VZEROUPPER, END);
    guest.state.sregs.cr0 |= CR0_EM; /* which AVX does not look at */
    enable(XCR0_ALL);
    set_numbers();
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.cpu->ymm[0][0], (uint8_t)(33 + 65));
    assert_int_equal(guest.cpu->ymm[0][16], 0);
    assert_int_equal(guest.cpu->ymm[15][16], 0);
}

static void test_general_registers_need_no_xcr0(void **state)
{
    (void)state;
    if (!(guest.cpu->cpuid_7_ebx & 8)) {
        print_message("this host has no BMI1\n");
        return;
    }
    soft_guest_code(&guest, ANDN, END);
    guest.state.sregs.cr0 |= CR0_TS;
    soft_guest_put_sregs(&guest);
    guest.state.regs.rcx = 0xf0;
    guest.state.regs.rdx = 0xff;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax, 0x0f);
}

/* Encodings in a mode, as the decoder takes them. */
static enum soft_decoded decode(unsigned mode, const char *bytes, unsigned length)
{
    struct soft_op ops[SOFT_INSTRUCTION_OPS_MAX];
    uint8_t padded[SOFT_INSTRUCTION_MAX] = {0};
    struct soft_decoder d = {.cpu = guest.cpu,
                             .mode = (uint8_t)mode,
                             .bytes = padded,
                             .available = sizeof(padded),
                             .ops = ops};

    memcpy(padded, bytes, length);
    return soft_decode(&d);
}

static void test_where_vex_is_vex(void **state)
{
    static const struct {
        unsigned mode, length;
        const char *bytes;
        bool undefined;
    } cases[] = {
        {SOFT_MODE_64, 4, "\xc5\xf5\xfe\xc2", false},
        {SOFT_MODE_32, 4, "\xc5\xf5\xfe\xc2", false},
        {SOFT_MODE_16, 4, "\xc5\xf5\xfe\xc2", false},
        {SOFT_MODE_16 | SOFT_MODE_REAL, 4, "\xc5\xf5\xfe\xc2", true}, /* LDS with a register */
        {SOFT_MODE_32 | SOFT_MODE_REAL, 4, "\xc4\xe2\x70\xf2", true},
        {SOFT_MODE_32, 2, "\xc5\x06", false}, /* LDS and LES */
        {SOFT_MODE_32, 2, "\xc4\x06", false},
        {SOFT_MODE_64, 5, "\x66\xc5\xf5\xfe\xc2", true}, /* prefixes that VEX has in itself */
        {SOFT_MODE_64, 5, "\xf2\xc5\xf5\xfe\xc2", true},
        {SOFT_MODE_64, 5, "\xf3\xc5\xf5\xfe\xc2", true},
        {SOFT_MODE_64, 5, "\xf0\xc5\xf5\xfe\xc2", true},
        {SOFT_MODE_64, 5, "\x48\xc5\xf5\xfe\xc2", true},
        {SOFT_MODE_64, 5, "\x2e\xc5\xf5\xfe\xc2", false},
        {SOFT_MODE_64, 5, "\xc4\xe0\x75\xfe\xc2", true}, /* map 0 */
        {SOFT_MODE_64, 5, "\xc4\xe4\x75\xfe\xc2", true}, /* map 4 */
        {SOFT_MODE_64, 4, "\xc5\xf8\x51\xc1", false},    /* VSQRTPS: vvvv must be 1111 */
        {SOFT_MODE_64, 4, "\xc5\xf0\x51\xc1", true},
        {SOFT_MODE_32, 4, "\xc5\xb8\x51\xc1", false},         /* not VEX, but LDS with a base */
        {SOFT_MODE_32, 5, "\xc4\xe1\x38\x51\xc1", true},      /* all four bits of it */
        {SOFT_MODE_64, 6, "\xc4\xe3\xfd\x00\xc1\x1b", false}, /* VPERMQ: L1, W1 */
        {SOFT_MODE_64, 6, "\xc4\xe3\xf9\x00\xc1\x1b", true},
        {SOFT_MODE_64, 6, "\xc4\xe3\x7d\x00\xc1\x1b", true},
        {SOFT_MODE_64, 6, "\xc4\xe2\x7d\x90\x04\x11", false}, /* VPGATHERDD ymm0, [ymm2], ymm0 */
    };

    (void)state;
    if (skip_without_avx())
        return;
    for (unsigned i = 0; i + 1 < ARRAY_SIZE(cases); i++)
        assert_int_equal(decode(cases[i].mode, cases[i].bytes, cases[i].length) == SOFT_UNDEFINED,
                         cases[i].undefined);
    /* The gather's three registers must be three. */
    assert_int_equal(decode(SOFT_MODE_64, "\xc4\xe2\x7d\x90\x04\x11", 6), SOFT_UNDEFINED);
    assert_int_equal(decode(SOFT_MODE_64, "\xc4\xe2\x75\x90\x04\x11", 6), SOFT_DECODED);
    assert_int_equal(decode(SOFT_MODE_64, "\xc4\xe2\x75\x90\x01", 5), SOFT_UNDEFINED);
}

static void test_what_cpuid_hides_is_undefined(void **state)
{
    (void)state;
    guest.cpu->cpuid_1_ecx = guest.cpu->cpuid_7_ebx = 0;
    assert_int_equal(decode(SOFT_MODE_64, "\xc5\xf5\xfe\xc2", 4), SOFT_UNDEFINED);
    assert_int_equal(decode(SOFT_MODE_64, "\xc4\xe2\x70\xf2\xc2", 5), SOFT_UNDEFINED);
    assert_int_equal(decode(SOFT_MODE_64, "\x0f\x38\xf0\x07", 4), SOFT_UNDEFINED);
    assert_int_equal(decode(SOFT_MODE_64, "\x0f\xae\x27", 3), SOFT_UNDEFINED);
    assert_int_equal(decode(SOFT_MODE_64, "\x0f\x01\xd0", 3), SOFT_UNDEFINED);
    guest.cpu->cpuid_1_ecx = 1u << 28; /* AVX alone: 128 bits of integers, no FMA */
    assert_int_equal(decode(SOFT_MODE_64, "\xc5\xf1\xfe\xc2", 4), SOFT_DECODED);
    assert_int_equal(decode(SOFT_MODE_64, "\xc5\xf5\xfe\xc2", 4), SOFT_UNDEFINED);
    assert_int_equal(decode(SOFT_MODE_64, "\xc5\xf4\x58\xc2", 4), SOFT_DECODED);
    assert_int_equal(decode(SOFT_MODE_64, "\xc4\xe2\x75\x98\xc2", 5), SOFT_UNDEFINED);
    assert_int_equal(decode(SOFT_MODE_64, "\xc4\xe2\x7d\x13\xc2", 5), SOFT_UNDEFINED);
    assert_int_equal(decode(SOFT_MODE_64, "\xc4\xe2\x7d\x18\x07", 5), SOFT_DECODED);
    assert_int_equal(decode(SOFT_MODE_64, "\xc4\xe2\x7d\x18\xc7", 5), SOFT_UNDEFINED);
}

/* vpgatherdd ymm0, [rdi + ymm2 * 4], ymm1: the sixth element's page comes later. */
static void test_gather_goes_on_after_a_fault(void **state)
{
    (void)state;
    if (skip_without_avx())
        return;
    soft_guest_code(&guest, 0xc4, 0xe2, 0x75, 0x90, 0x04, 0x97, END);
    enable(XCR0_ALL);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA + 0x1000) = 0;
    soft_guest_flush(&guest);
    memset(guest.cpu->ymm, 0, sizeof(guest.cpu->ymm));
    for (uint32_t i = 0; i < 8; i++) {
        store_le32(guest.cpu->ymm[1] + 4 * i, i == 3 ? 0 : 0x80000000);
        store_le32(guest.cpu->ymm[2] + 4 * i, i == 5 ? 0x400 : i);
        store_le32(area() + 4 * i, 100 + i);
    }
    store_le32(area() + 0x1000, 999);
    guest.state.regs.rdi = SOFT_GUEST_DATA;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_PF);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(load_le32(guest.cpu->ymm[1] + 4 * i), i < 5 ? 0 : UINT32_MAX);
        assert_int_equal(load_le32(guest.cpu->ymm[0] + 4 * i), i < 5 && i != 3 ? 100 + i : 0);
    }
    store_le32(area(), 555); /* the first will not be read again */
    guest.state.sregs.cs.selector = SEL_CODE64;
    *soft_guest_pte(&guest, SOFT_GUEST_DATA + 0x1000) = (SOFT_GUEST_DATA + 0x1000) | 7;
    soft_guest_flush(&guest);
    guest.state.regs.rip = SOFT_GUEST_CODE;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(load_le32(guest.cpu->ymm[0]), 100);
    assert_int_equal(load_le32(guest.cpu->ymm[0] + 12), 0);
    assert_int_equal(load_le32(guest.cpu->ymm[0] + 20), 999);
    assert_int_equal(load_le32(guest.cpu->ymm[0] + 28), 107);
    assert_int_equal(load_le64(guest.cpu->ymm[1] + 24), 0);
}

/* vmaskmovps [rdi], ymm1, ymm0: what the mask leaves out may be missing. */
static void test_masked_store_touches_only_its_elements(void **state)
{
    (void)state;
    if (skip_without_avx())
        return;
    soft_guest_code(&guest, 0xc4, 0xe2, 0x75, 0x2e, 0x07, END);
    enable(XCR0_ALL);
    *soft_guest_pte(&guest, SOFT_GUEST_DATA + 0x1000) = 0;
    soft_guest_flush(&guest);
    memset(guest.cpu->ymm, 0, sizeof(guest.cpu->ymm));
    memset(guest.cpu->ymm[0], 0x11, 32);
    memset(guest.cpu->ymm[1], 0xff, 8);
    memset(area() + 0xff0, 0, 16);
    guest.state.regs.rdi = SOFT_GUEST_DATA + 0xff0;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(load_le64(area() + 0xff0), UINT64_C(0x1111111111111111));
    assert_int_equal(load_le64(area() + 0xff8), 0);
    soft_guest_code(&guest, 0xc4, 0xe2, 0x75, 0x2e, 0x07, END);
    enable(XCR0_ALL);
    memset(guest.cpu->ymm[1], 0xff, 32);
    memset(area() + 0xff0, 0, 16);
    guest.state.regs.rdi = SOFT_GUEST_DATA + 0xff0;
    *soft_guest_pte(&guest, SOFT_GUEST_DATA + 0x1000) = 0;
    soft_guest_flush(&guest);
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_PF);
    assert_int_equal(load_le64(area() + 0xff0), 0); /* all or nothing */
}

/* --- State from outside --- */

static void test_state_moves(void **state)
{
    static struct kvm_xsave saved, again;
    uint8_t *bytes = (uint8_t *)saved.region;

    (void)state;
    soft_guest_code(&guest, END);
    set_numbers();
    xsave_get_state(guest.cpu, &saved);
    assert_int_equal(load_le64(bytes + XSAVE_HEADER) & XCR0_SSE, XCR0_SSE);
    assert_int_equal(bytes[160 + 16], 33);
    assert_int_equal(bytes[576 + 16], 33 + 16);
    memset(guest.cpu->ymm, 0, sizeof(guest.cpu->ymm));
    assert_true(xsave_set_state(guest.cpu, &saved));
    assert_int_equal(guest.cpu->ymm[1][0], 33);
    assert_int_equal(guest.cpu->ymm[1][16], has_avx() ? 33 + 16 : 0);
    xsave_get_state(guest.cpu, &again);
    if (has_avx())
        assert_memory_equal(&saved, &again, sizeof(saved));
    store_le64(bytes + XSAVE_HEADER, 0x100);
    assert_false(xsave_set_state(guest.cpu, &saved));
    store_le64(bytes + XSAVE_HEADER, 3);
    store_le32(bytes + 24, 0x10000);
    assert_false(xsave_set_state(guest.cpu, &saved));
    assert_int_equal(guest.cpu->ymm[1][0], 33);
}

/* What a reset puts back. */
static void test_xcr0_is_state(void **state)
{
    static struct accel_vcpu_state fresh;
    const struct accel_ops *ops = &soft_accel_ops;

    (void)state;
    assert_int_equal(ops->vcpu_get_state(guest.vcpu, ACCEL_STATE_ALL, &fresh), 0);
    assert_int_equal(fresh.xcrs.nr_xcrs, 1);
    assert_int_equal(fresh.xcrs.xcrs[0].value, XCR0_X87);
    soft_guest_code(&guest, END);
    enable(XCR0_X87 | XCR0_SSE);
    set_numbers();
    assert_int_equal(ops->vcpu_set_state(guest.vcpu, ACCEL_STATE_ALL, &fresh), 0);
    assert_int_equal(guest.cpu->xcr0, XCR0_X87);
    assert_int_equal(guest.cpu->ymm[3][3], 0);
    assert_int_equal(guest.cpu->ymm[3][19], has_avx() ? 0 : 3 * 32 + 19 + 1);
    fresh.xcrs.xcrs[0].value = XCR0_SSE;
    assert_int_equal(ops->vcpu_set_state(guest.vcpu, ACCEL_STATE_XSAVE, &fresh), -EINVAL);
    assert_int_equal(guest.cpu->xcr0, XCR0_X87);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(test_xsetbv),
        TEST(test_xgetbv),
        TEST(test_xgetbv_tells_what_is_in_use),
        TEST(test_cpuid_follows),
        TEST(test_osxsave_needs_xsave),
        TEST(test_xsave_layout),
        TEST(test_xsave_writes_what_is_asked),
        TEST(test_xsaveopt_and_xsavec_leave_initial_state_out),
        TEST(test_xrstor),
        TEST(test_xrstor_refuses),
        TEST(test_area_needs_osxsave_and_no_ts),
        TEST(test_xsave_faults_before_it_writes),
        TEST(test_avx_needs_xcr0),
        TEST(test_general_registers_need_no_xcr0),
        TEST(test_where_vex_is_vex),
        TEST(test_what_cpuid_hides_is_undefined),
        TEST(test_gather_goes_on_after_a_fault),
        TEST(test_masked_store_touches_only_its_elements),
        TEST(test_state_moves),
        TEST(test_xcr0_is_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
