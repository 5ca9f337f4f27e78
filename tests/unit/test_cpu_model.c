/* SPDX-License-Identifier: MIT */
/* What the models and switches of -cpu leave of an accelerator's CPUID. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/test.h"
#include "vmm/cpu_model.h"

#define BIT(n)   (UINT32_C(1) << (n))
#define SSE3     BIT(0)
#define FMA      BIT(12)
#define SSE4_2   BIT(20)
#define X2APIC   BIT(21)
#define AES      BIT(25)
#define XSAVE    BIT(26)
#define AVX      BIT(28)
#define F16C     BIT(29)
#define BMI1     BIT(3)
#define AVX2     BIT(5)
#define SMEP     BIT(7)
#define AVX512F  BIT(16)
#define AVX512VL BIT(31)
#define STRANGE  BIT(2) /* of leaf 7's EBX: no feature that the table knows */

enum { LEAF_1, LEAF_7, AREA, AREA_1, AREA_YMM, AREA_ZMM, EXTENDED };

static struct accel_cpuid cpuid;
static struct error err;

static void offer_all(void)
{
    static const struct kvm_cpuid_entry2 offered[] = {
        [LEAF_1] = {.function = 1,
                    .ecx = SSE3 | FMA | SSE4_2 | X2APIC | XSAVE | AVX | F16C,
                    .edx = BIT(0) | BIT(4) | BIT(23) | BIT(26)},
        [LEAF_7] = {.function = 7, .ebx = BMI1 | AVX2 | SMEP | AVX512F | AVX512VL | STRANGE},
        [AREA] = {.function = 0xd, .eax = 0xe7, .ebx = 576, .ecx = 2688},
        [AREA_1] = {.function = 0xd, .index = 1, .eax = 7},
        [AREA_YMM] = {.function = 0xd, .index = 2, .eax = 256, .ebx = 576},
        [AREA_ZMM] = {.function = 0xd, .index = 6, .eax = 512, .ebx = 1152},
        [EXTENDED] = {.function = 0x80000001, .ecx = BIT(0) | BIT(5), .edx = BIT(23) | BIT(29)},
    };

    cpuid.header.nent = ARRAY_SIZE(offered);
    memcpy(cpuid.entries, offered, sizeof(offered));
}

/* `switches`: "-avx2 +aes". */
static int apply(const char *name, const char *switches, bool enforce)
{
    struct cpu_model model;
    char word[32];
    int length;

    offer_all();
    assert_true(cpu_model_find(name, &model));
    model.enforce = enforce;
    for (; sscanf(switches, " %31s%n", word, &length) == 1; switches += length)
        assert_true(cpu_model_switch(&model, word + 1, word[0] == '+'));
    return cpu_model_apply(&model, "test", &cpuid, &err);
}

static void test_host_and_max_take_everything(void **state)
{
    struct accel_cpuid before;

    (void)state;
    offer_all();
    before = cpuid;
    assert_int_equal(apply("max", "", false), 0);
    assert_memory_equal(&cpuid, &before, sizeof(before));
    assert_int_equal(apply("host", "+avx2", true), 0);
    assert_memory_equal(&cpuid, &before, sizeof(before));
}

static void test_a_feature_off_takes_what_needs_it(void **state)
{
    (void)state;
    assert_int_equal(apply("max", "-avx2", false), 0);
    assert_int_equal(cpuid.entries[LEAF_7].ebx, BMI1 | SMEP | STRANGE);
    assert_true(cpuid.entries[LEAF_1].ecx & AVX);
    assert_int_equal(cpuid.entries[AREA].eax, 7);
    assert_int_equal(cpuid.entries[AREA].ecx, 832);
    assert_int_equal(cpuid.entries[AREA_ZMM].eax, 0);
    assert_int_equal(cpuid.entries[AREA_YMM].eax, 256);
    assert_int_equal(apply("max", "-avx", false), 0);
    assert_int_equal(cpuid.entries[LEAF_1].ecx, SSE3 | SSE4_2 | X2APIC | XSAVE);
    assert_int_equal(cpuid.entries[AREA].eax, 3);
    assert_int_equal(cpuid.entries[AREA].ecx, 576);
    assert_int_equal(apply("max", "-xsave", false), 0);
    assert_int_equal(cpuid.entries[LEAF_1].ecx, SSE3 | SSE4_2 | X2APIC);
    assert_int_equal(cpuid.entries[AREA].eax, 0);
    assert_int_equal(cpuid.entries[AREA].ecx, 0);
    assert_int_equal(cpuid.entries[AREA_1].eax, 0);
}

static void test_levels(void **state)
{
    (void)state;
    assert_int_equal(apply("x86-64-v3", "", false), 0);
    assert_int_equal(cpuid.entries[LEAF_7].ebx, BMI1 | AVX2 | SMEP);
    assert_int_equal(cpuid.entries[LEAF_1].ecx, SSE3 | FMA | SSE4_2 | X2APIC | XSAVE | AVX | F16C);
    assert_int_equal(cpuid.entries[EXTENDED].ecx, BIT(0) | BIT(5));
    assert_int_equal(apply("x86-64-v2", "", false), 0);
    assert_int_equal(cpuid.entries[LEAF_7].ebx, SMEP);
    assert_int_equal(cpuid.entries[LEAF_1].ecx, SSE3 | SSE4_2 | X2APIC);
    assert_int_equal(cpuid.entries[EXTENDED].ecx, BIT(0));
    assert_int_equal(apply("qemu64", "", false), 0);
    assert_int_equal(cpuid.entries[LEAF_1].ecx, SSE3 | X2APIC);
    assert_int_equal(apply("x86-64", "+bmi1", false), 0);
    assert_int_equal(cpuid.entries[LEAF_1].ecx, X2APIC);
    assert_int_equal(cpuid.entries[LEAF_7].ebx, BMI1 | SMEP);
}

static void test_what_is_not_offered(void **state)
{
    (void)state;
    assert_int_equal(apply("max", "+aes", false), 0);
    assert_false(cpuid.entries[LEAF_1].ecx & AES);
    assert_int_equal(apply("max", "+aes", true), -ENOTSUP);
    assert_non_null(strstr(err.text, "aes"));
    assert_int_equal(apply("max", "+aes -aes", true), 0);
}

static void test_the_mirrored_bits_follow(void **state)
{
    (void)state;
    assert_int_equal(apply("max", "-mmx", false), 0);
    assert_int_equal(cpuid.entries[LEAF_1].edx, BIT(0) | BIT(4) | BIT(26));
    assert_int_equal(cpuid.entries[EXTENDED].edx, BIT(29));
}

static void test_names(void **state)
{
    struct cpu_model model = {0}, other = {0};

    (void)state;
    assert_false(cpu_model_find("Skylake", &model));
    assert_true(cpu_model_switch(&model, "sse4_2", true));
    assert_true(cpu_model_switch(&other, "sse4.2", true));
    assert_memory_equal(&model, &other, sizeof(model));
    assert_true(cpu_model_switch(&model, "pni", false));
    assert_true(cpu_model_switch(&model, "lzcnt", false));
    assert_false(cpu_model_switch(&model, "sse4", true));
    assert_false(cpu_model_switch(&model, "", true));
    assert_string_equal(cpu_model_nearest_feature("avz2"), "avx2");
}

#define MISSING_BYTES 1024

static void on_missing(void *opaque, const char *feature)
{
    char *text = opaque;
    size_t length = strlen(text);
    snprintf(text + length, MISSING_BYTES - length, "%s ", feature);
}

static void test_what_a_model_lacks(void **state)
{
    struct cpu_model model;
    char missing[MISSING_BYTES] = "";

    (void)state;
    offer_all();
    assert_true(cpu_model_find("max", &model));
    cpu_model_missing(&model, &cpuid, on_missing, missing);
    assert_string_equal(missing, "");
    assert_true(cpu_model_find("x86-64-v2", &model));
    assert_true(cpu_model_switch(&model, "aes", true));
    assert_true(cpu_model_switch(&model, "fxsr", false));
    cpu_model_missing(&model, &cpuid, on_missing, missing);
    assert_string_equal(missing, "ssse3 cx16 sse4-1 popcnt aes cx8 cmov sse syscall ");
    for (unsigned i = 0; cpu_model_name(i); i++)
        assert_true(cpu_model_find(cpu_model_name(i), &model));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host_and_max_take_everything),
        cmocka_unit_test(test_a_feature_off_takes_what_needs_it),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_what_is_not_offered),
        cmocka_unit_test(test_the_mirrored_bits_follow),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_what_a_model_lacks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
