/* SPDX-License-Identifier: MIT */
/*
 * Encodings that once came out differently on the software CPU, each with many states against the
 * host's own CPU. New finds of soft_fuzz are added here.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "tests/softfuzz/fuzz_case.h"
#include "tests/softfuzz/fuzz_compare.h"
#include "tests/softfuzz/fuzz_native.h"
#include "tests/softfuzz/fuzz_soft_cpu.h"
#include "tests/unit/test.h"
#include "vmm/soft/cpuid.h"

#define STATES 200

struct pinned {
    const char *why;
    unsigned length;
    uint8_t bytes[FUZZ_INSTRUCTION_MAX];
};

static const struct pinned pinned[] = {
    {"PAUSE with any REX is not XCHG", 3, {0xf3, 0x4b, 0x90}},
    {"F3 before another XCHG means nothing", 3, {0xf3, 0x48, 0x91}},
    {"PUSH to a non-canonical stack is #SS", 1, {0x51}},
    {"POP from one, too", 2, {0x48, 0x5b}},
    {"and a base of RBP", 4, {0x48, 0x8b, 0x45, 0x10}},
    {"CMPS faults on its destination first", 1, {0xa6}},
    {"CMPS of quadwords", 2, {0x48, 0xa7}},
    {"REP INS checks the port though there is nothing to do", 2, {0xf2, 0x6c}},
    {"REP OUTS", 2, {0xf3, 0x6f}},
    {"FNINIT moves the top: ST is counted from there", 2, {0xdb, 0xe3}},
    {"FNSAVE as well", 3, {0xdd, 0x71, 0x2b}},
    {"REX.W beats 66 in FNSAVE's layout", 5, {0x66, 0x4e, 0xdd, 0x71, 0x2b}},
    {"FNSTENV of 14 bytes", 4, {0x66, 0xd9, 0x73, 0x10}},
    {"FST with an unmasked exception does not touch memory", 3, {0xd9, 0x5b, 0x10}},
    {"FISTP likewise", 3, {0xdf, 0x7b, 0x10}},
    {"FSTP of 80 bits", 3, {0xdb, 0x7b, 0x10}},
    {"an encoding of FCOM that no manual names", 2, {0xdc, 0xd3}},
    {"of FXCH", 2, {0xdd, 0xca}},
    {"of FSTP", 2, {0xdf, 0xd9}},
    {"CVTPI2PS from memory leaves the x87 alone", 4, {0x0f, 0x2a, 0x63, 0x10}},
    {"MASKMOVQ faults with an empty mask, too", 3, {0x0f, 0xf7, 0xcf}},
    {"MASKMOVDQU", 4, {0x66, 0x0f, 0xf7, 0xe2}},
    {"unmasked SIMD exceptions", 4, {0x66, 0x0f, 0x5a, 0xd4}},
    {"of a scalar", 5, {0xf3, 0x0f, 0x5e, 0x4b, 0x10}},
    {"DPPS traps in its products", 6, {0x66, 0x0f, 0x3a, 0x40, 0xfc, 0xf1}},
};

/* The same for hosts with AVX2, FMA and F16C. */
static const struct pinned pinned_avx2[] = {
    {"VCVTPS2PH has its source in ModRM.reg", 6, {0xc4, 0xc3, 0x7d, 0x1d, 0xd8, 0x21}},
    {"and stores half of it", 7, {0xc4, 0xe3, 0x79, 0x1d, 0x6b, 0x10, 0x03}},
    {"a gather's mask is ones or zeros after a fault",
     7,
     {0xc4, 0xe2, 0x7d, 0x92, 0x54, 0x1b, 0x23}},
    {"beyond the last element too", 7, {0xc4, 0xe2, 0x7d, 0x93, 0x4c, 0x99, 0x10}},
    {"of 128 bits the upper half goes", 7, {0xc4, 0xc2, 0x89, 0x90, 0x74, 0x52, 0x21}},
    {"but the destination's only with an element", 7, {0xc4, 0xc2, 0xd9, 0x90, 0x5c, 0x51, 0x4a}},
    {"VMASKMOVPS names any byte in its page", 6, {0xc4, 0x22, 0x79, 0x2e, 0x6b, 0x10}},
    {"VPMASKMOVD with nothing chosen faults nowhere", 6, {0xc4, 0xe2, 0x29, 0x8e, 0x6a, 0x74}},
    {"a scalar keeps the rest of its first source", 5, {0xc5, 0xea, 0x58, 0x4b, 0x10}},
    {"VCMPPS has 32 predicates", 6, {0xc5, 0xec, 0xc2, 0x43, 0x10, 0x1d}},
    {"VINSERTPS from a register chooses its element", 6, {0xc4, 0xe3, 0x69, 0x21, 0xcb, 0xd2}},
    {"VMOVHLPS takes the upper half", 4, {0xc5, 0xe8, 0x12, 0xcb}},
    {"BLSR writes VEX.vvvv", 5, {0xc4, 0xe2, 0xf8, 0xf3, 0xcb}},
    {"MULX into one register twice", 5, {0xc4, 0xe2, 0xfb, 0xf6, 0xc3}},
    {"unmasked exceptions of 256 bits", 4, {0xc5, 0xec, 0x5e, 0xcb}},
    {"and of FMA, whose destination is a source", 5, {0xc4, 0xe2, 0xed, 0xb8, 0xcb}},
};

/* And for those with AES, PCLMULQDQ and SHA: every form against the host. */
static const struct pinned pinned_crypto[] = {
    {"AESIMC", 5, {0x66, 0x0f, 0x38, 0xdb, 0xca}},
    {"AESENC", 5, {0x66, 0x0f, 0x38, 0xdc, 0xca}},
    {"AESENCLAST", 5, {0x66, 0x0f, 0x38, 0xdd, 0xca}},
    {"AESDEC", 5, {0x66, 0x0f, 0x38, 0xde, 0xca}},
    {"AESDECLAST from memory", 6, {0x66, 0x0f, 0x38, 0xdf, 0x4b, 0x10}},
    {"AESKEYGENASSIST", 6, {0x66, 0x0f, 0x3a, 0xdf, 0xca, 0x1b}},
    {"PCLMULQDQ of both halves", 6, {0x66, 0x0f, 0x3a, 0x44, 0xca, 0x10}},
    {"VAESENC", 5, {0xc4, 0xe2, 0x69, 0xdc, 0xcb}},
    {"VPCLMULQDQ from memory", 7, {0xc4, 0xe3, 0x69, 0x44, 0x4b, 0x10, 0x01}},
    {"SHA1NEXTE", 4, {0x0f, 0x38, 0xc8, 0xca}},
    {"SHA1MSG1", 4, {0x0f, 0x38, 0xc9, 0xca}},
    {"SHA1MSG2", 4, {0x0f, 0x38, 0xca, 0xca}},
    {"SHA256RNDS2 by XMM0", 4, {0x0f, 0x38, 0xcb, 0xca}},
    {"SHA256MSG1", 4, {0x0f, 0x38, 0xcc, 0xca}},
    {"SHA256MSG2 from memory", 5, {0x0f, 0x38, 0xcd, 0x4b, 0x10}},
    {"SHA1RNDS4 with two bits of its immediate", 5, {0x0f, 0x3a, 0xcc, 0xca, 0xf2}},
};

/* And with the one state of many that differed. */
static const struct {
    struct pinned pinned;
    uint64_t state;
} pinned_states_avx2[] = {
    {{"a gather in GS from RSP on is #GP, not #SS",
      9,
      {0x40, 0x2e, 0x65, 0xc4, 0xe2, 0xfd, 0x93, 0x0c, 0xec}},
     0xd39a567e75f21a84},
    {{"whatever segment was said before", 8, {0x36, 0x65, 0xc4, 0x22, 0x7d, 0x93, 0x04, 0xe4}},
     0x9385e4f29a50aa32},
};

static void check_state(const struct pinned *pinned_case, uint64_t state)
{
    static struct fuzz_case c;
    static struct fuzz_result native, soft;

    memset(c.bytes, 0x90, sizeof(c.bytes));
    memcpy(c.bytes, pinned_case->bytes, pinned_case->length);
    fuzz_case_make_state(&c, state);
    fuzz_soft_cpu_decode(&c);
    assert_int_equal(c.length, pinned_case->length + (c.has_branch ? FUZZ_BRANCH_BYTES : 0));
    assert_false(c.undefined);
    fuzz_native_run(&c, &native);
    fuzz_soft_cpu_run(&c, &soft);
    if (fuzz_compare(&c, &native, &soft))
        return;
    printf("%s:\n", pinned_case->why);
    fuzz_compare_report(&c, &native, &soft);
    fail();
}

static void check_pinned(const struct pinned *cases, unsigned count)
{
    fuzz_native_catch_signals();
    for (unsigned i = 0; i < count; i++)
        for (uint64_t seed = 1; seed <= STATES; seed++)
            check_state(&cases[i], seed);
}

static void test_pinned(void **state)
{
    (void)state;
    check_pinned(pinned, ARRAY_SIZE(pinned));
}

static void test_pinned_avx2(void **state)
{
    (void)state;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        skip();
    check_pinned(pinned_avx2, ARRAY_SIZE(pinned_avx2));
    for (unsigned i = 0; i < ARRAY_SIZE(pinned_states_avx2); i++)
        check_state(&pinned_states_avx2[i].pinned, pinned_states_avx2[i].state);
}

static void test_pinned_crypto(void **state)
{
    struct accel_cpuid cpuid;
    bool has_all = true;

    (void)state;
    soft_supported_cpuid(&cpuid);
    for (uint32_t i = 0; i < cpuid.header.nent; i++) {
        if (cpuid.entries[i].function == 1)
            has_all = has_all && !(~cpuid.entries[i].ecx & (1u << 1 | 1u << 25 | 1u << 28));
        else if (cpuid.entries[i].function == 7)
            has_all = has_all && cpuid.entries[i].ebx >> 29 & 1;
    }
    if (!has_all)
        skip();
    check_pinned(pinned_crypto, ARRAY_SIZE(pinned_crypto));
}

/* A little of everything, so that the harness itself stays alive. */
static void test_random(void **state)
{
    static struct fuzz_case c;
    static struct fuzz_result native, soft;
    uint64_t seed = 20;

    (void)state;
    fuzz_native_catch_signals();
    for (unsigned i = 0; i < 20000; i++) {
        fuzz_case_make_bytes(&c, fuzz_random(&seed), FUZZ_SET_ALL);
        fuzz_case_make_state(&c, fuzz_random(&seed));
        fuzz_soft_cpu_decode(&c);
        if (!fuzz_case_is_safe(&c))
            continue;
        fuzz_native_run(&c, &native);
        fuzz_soft_cpu_run(&c, &soft);
        if (!fuzz_compare(&c, &native, &soft)) {
            fuzz_compare_report(&c, &native, &soft);
            fail();
        }
    }
}

/* The comparison must be able to fail. */
static void test_notices_a_difference(void **state)
{
    static struct fuzz_case c;
    static struct fuzz_result native, soft;

    (void)state;
    fuzz_native_catch_signals();
    memcpy(c.bytes, "\x48\x01\xc8", 3);
    fuzz_case_make_state(&c, 1);
    fuzz_soft_cpu_decode(&c);
    fuzz_native_run(&c, &native);
    fuzz_soft_cpu_run(&c, &soft);
    assert_true(fuzz_compare(&c, &native, &soft));
    soft.out.gpr[0] ^= 1;
    assert_false(fuzz_compare(&c, &native, &soft));
    soft.out.gpr[0] ^= 1;
    soft.out.rflags ^= 0x10;
    assert_false(fuzz_compare(&c, &native, &soft));
    soft.out.rflags ^= 0x10;
    soft.data[100] ^= 1;
    assert_false(fuzz_compare(&c, &native, &soft));
    soft.data[100] ^= 1;
    soft.out.fx[200] ^= 1;
    assert_false(fuzz_compare(&c, &native, &soft));
    soft.out.fx[200] ^= 1;
    soft.out.ymm_high[15][15] ^= 1;
    assert_false(fuzz_compare(&c, &native, &soft));
    soft.out.ymm_high[15][15] ^= 1;
    soft.vector = 6;
    assert_false(fuzz_compare(&c, &native, &soft));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_pinned_avx2),
        cmocka_unit_test(test_pinned_crypto),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_notices_a_difference),
    };
    if (fuzz_native_init(false)) {
        fprintf(stderr, "test_soft_cases: the fixed addresses are taken\n");
        return 1;
    }
    fuzz_soft_cpu_init(false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
