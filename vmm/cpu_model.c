/* SPDX-License-Identifier: MIT */
/*
 * cpu_model: the table of CPU features by their usual names, and what switching them does to CPUID.
 */
#include "vmm/cpu_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/suggest.h"

/* Registers of CPUID that hold features. */
enum word { W_1_ECX, W_1_EDX, W_7_EBX, W_7_ECX, W_7_EDX, W_71_EAX, W_D1_EAX, W_EXT_ECX, W_EXT_EDX };

static const struct {
    uint32_t function, index;
    uint8_t reg; /* 0 EAX to 3 EDX */
} words[] = {
    [W_1_ECX] = {1, 0, 2},
    [W_1_EDX] = {1, 0, 3},
    [W_7_EBX] = {7, 0, 1},
    [W_7_ECX] = {7, 0, 2},
    [W_7_EDX] = {7, 0, 3},
    [W_71_EAX] = {7, 1, 0},
    [W_D1_EAX] = {0xd, 1, 0},
    [W_EXT_ECX] = {0x80000001, 0, 2},
    [W_EXT_EDX] = {0x80000001, 0, 3},
};

/* The level of the x86-64 psABI that has a feature; 0: no business of programs; 9: of no level. */
#define NO_LEVEL  0
#define ANY_LEVEL 9

/* X(name, word, bit, level, the feature without which it makes no sense) */
#define FEATURES(X)                                                                                \
    X("sse3", W_1_ECX, 0, 2, "")                                                                   \
    X("pclmulqdq", W_1_ECX, 1, 9, "")                                                              \
    X("monitor", W_1_ECX, 3, 0, "")                                                                \
    X("vmx", W_1_ECX, 5, 9, "")                                                                    \
    X("ssse3", W_1_ECX, 9, 2, "")                                                                  \
    X("fma", W_1_ECX, 12, 3, "avx")                                                                \
    X("cx16", W_1_ECX, 13, 2, "")                                                                  \
    X("pdcm", W_1_ECX, 15, 0, "")                                                                  \
    X("pcid", W_1_ECX, 17, 0, "")                                                                  \
    X("sse4-1", W_1_ECX, 19, 2, "")                                                                \
    X("sse4-2", W_1_ECX, 20, 2, "")                                                                \
    X("x2apic", W_1_ECX, 21, 0, "")                                                                \
    X("movbe", W_1_ECX, 22, 3, "")                                                                 \
    X("popcnt", W_1_ECX, 23, 2, "")                                                                \
    X("tsc-deadline", W_1_ECX, 24, 0, "")                                                          \
    X("aes", W_1_ECX, 25, 9, "")                                                                   \
    X("xsave", W_1_ECX, 26, 3, "")                                                                 \
    X("avx", W_1_ECX, 28, 3, "xsave")                                                              \
    X("f16c", W_1_ECX, 29, 3, "avx")                                                               \
    X("rdrand", W_1_ECX, 30, 9, "")                                                                \
    X("hypervisor", W_1_ECX, 31, 0, "")                                                            \
    X("fpu", W_1_EDX, 0, 1, "")                                                                    \
    X("vme", W_1_EDX, 1, 0, "")                                                                    \
    X("de", W_1_EDX, 2, 0, "")                                                                     \
    X("pse", W_1_EDX, 3, 0, "")                                                                    \
    X("tsc", W_1_EDX, 4, 0, "")                                                                    \
    X("msr", W_1_EDX, 5, 0, "")                                                                    \
    X("pae", W_1_EDX, 6, 0, "")                                                                    \
    X("mce", W_1_EDX, 7, 0, "")                                                                    \
    X("cx8", W_1_EDX, 8, 1, "")                                                                    \
    X("apic", W_1_EDX, 9, 0, "")                                                                   \
    X("sep", W_1_EDX, 11, 0, "")                                                                   \
    X("mtrr", W_1_EDX, 12, 0, "")                                                                  \
    X("pge", W_1_EDX, 13, 0, "")                                                                   \
    X("mca", W_1_EDX, 14, 0, "")                                                                   \
    X("cmov", W_1_EDX, 15, 1, "")                                                                  \
    X("pat", W_1_EDX, 16, 0, "")                                                                   \
    X("pse36", W_1_EDX, 17, 0, "")                                                                 \
    X("clflush", W_1_EDX, 19, 0, "")                                                               \
    X("mmx", W_1_EDX, 23, 1, "")                                                                   \
    X("fxsr", W_1_EDX, 24, 1, "")                                                                  \
    X("sse", W_1_EDX, 25, 1, "")                                                                   \
    X("sse2", W_1_EDX, 26, 1, "")                                                                  \
    X("ss", W_1_EDX, 27, 0, "")                                                                    \
    X("ht", W_1_EDX, 28, 0, "")                                                                    \
    X("fsgsbase", W_7_EBX, 0, 0, "")                                                               \
    X("tsc-adjust", W_7_EBX, 1, 0, "")                                                             \
    X("bmi1", W_7_EBX, 3, 3, "")                                                                   \
    X("hle", W_7_EBX, 4, 9, "")                                                                    \
    X("avx2", W_7_EBX, 5, 3, "avx")                                                                \
    X("smep", W_7_EBX, 7, 0, "")                                                                   \
    X("bmi2", W_7_EBX, 8, 3, "")                                                                   \
    X("erms", W_7_EBX, 9, 0, "")                                                                   \
    X("invpcid", W_7_EBX, 10, 0, "")                                                               \
    X("rtm", W_7_EBX, 11, 9, "")                                                                   \
    X("mpx", W_7_EBX, 14, 9, "xsave")                                                              \
    X("avx512f", W_7_EBX, 16, 4, "avx2")                                                           \
    X("avx512dq", W_7_EBX, 17, 4, "avx512f")                                                       \
    X("rdseed", W_7_EBX, 18, 9, "")                                                                \
    X("adx", W_7_EBX, 19, 9, "")                                                                   \
    X("smap", W_7_EBX, 20, 0, "")                                                                  \
    X("avx512ifma", W_7_EBX, 21, 9, "avx512f")                                                     \
    X("clflushopt", W_7_EBX, 23, 9, "")                                                            \
    X("clwb", W_7_EBX, 24, 9, "")                                                                  \
    X("avx512cd", W_7_EBX, 28, 4, "avx512f")                                                       \
    X("sha-ni", W_7_EBX, 29, 9, "")                                                                \
    X("avx512bw", W_7_EBX, 30, 4, "avx512f")                                                       \
    X("avx512vl", W_7_EBX, 31, 4, "avx512f")                                                       \
    X("avx512vbmi", W_7_ECX, 1, 9, "avx512f")                                                      \
    X("umip", W_7_ECX, 2, 0, "")                                                                   \
    X("pku", W_7_ECX, 3, 9, "xsave")                                                               \
    X("waitpkg", W_7_ECX, 5, 9, "")                                                                \
    X("avx512vbmi2", W_7_ECX, 6, 9, "avx512f")                                                     \
    X("gfni", W_7_ECX, 8, 9, "")                                                                   \
    X("vaes", W_7_ECX, 9, 9, "avx")                                                                \
    X("vpclmulqdq", W_7_ECX, 10, 9, "avx")                                                         \
    X("avx512vnni", W_7_ECX, 11, 9, "avx512f")                                                     \
    X("avx512bitalg", W_7_ECX, 12, 9, "avx512f")                                                   \
    X("avx512-vpopcntdq", W_7_ECX, 14, 9, "avx512f")                                               \
    X("la57", W_7_ECX, 16, 0, "")                                                                  \
    X("rdpid", W_7_ECX, 22, 9, "")                                                                 \
    X("cldemote", W_7_ECX, 25, 9, "")                                                              \
    X("movdiri", W_7_ECX, 27, 9, "")                                                               \
    X("movdir64b", W_7_ECX, 28, 9, "")                                                             \
    X("fsrm", W_7_EDX, 4, 0, "")                                                                   \
    X("md-clear", W_7_EDX, 10, 0, "")                                                              \
    X("serialize", W_7_EDX, 14, 9, "")                                                             \
    X("amx-bf16", W_7_EDX, 22, 9, "amx-tile")                                                      \
    X("avx512-fp16", W_7_EDX, 23, 9, "avx512f")                                                    \
    X("amx-tile", W_7_EDX, 24, 9, "xsave")                                                         \
    X("amx-int8", W_7_EDX, 25, 9, "amx-tile")                                                      \
    X("spec-ctrl", W_7_EDX, 26, 0, "")                                                             \
    X("stibp", W_7_EDX, 27, 0, "")                                                                 \
    X("arch-capabilities", W_7_EDX, 29, 0, "")                                                     \
    X("ssbd", W_7_EDX, 31, 0, "")                                                                  \
    X("avx-vnni", W_71_EAX, 4, 9, "avx2")                                                          \
    X("avx512-bf16", W_71_EAX, 5, 9, "avx512f")                                                    \
    X("xsaveopt", W_D1_EAX, 0, 3, "xsave")                                                         \
    X("xsavec", W_D1_EAX, 1, 3, "xsave")                                                           \
    X("xgetbv1", W_D1_EAX, 2, 3, "xsave")                                                          \
    X("xsaves", W_D1_EAX, 3, 3, "xsave")                                                           \
    X("lahf-lm", W_EXT_ECX, 0, 2, "")                                                              \
    X("cmp-legacy", W_EXT_ECX, 1, 0, "")                                                           \
    X("svm", W_EXT_ECX, 2, 9, "")                                                                  \
    X("cr8legacy", W_EXT_ECX, 4, 0, "")                                                            \
    X("abm", W_EXT_ECX, 5, 3, "")                                                                  \
    X("sse4a", W_EXT_ECX, 6, 9, "")                                                                \
    X("misalignsse", W_EXT_ECX, 7, 9, "")                                                          \
    X("3dnowprefetch", W_EXT_ECX, 8, 0, "")                                                        \
    X("osvw", W_EXT_ECX, 9, 0, "")                                                                 \
    X("xop", W_EXT_ECX, 11, 9, "avx")                                                              \
    X("fma4", W_EXT_ECX, 16, 9, "avx")                                                             \
    X("tbm", W_EXT_ECX, 21, 9, "")                                                                 \
    X("topoext", W_EXT_ECX, 22, 0, "")                                                             \
    X("perfctr-core", W_EXT_ECX, 23, 0, "")                                                        \
    X("syscall", W_EXT_EDX, 11, 1, "")                                                             \
    X("nx", W_EXT_EDX, 20, 0, "")                                                                  \
    X("pdpe1gb", W_EXT_EDX, 26, 0, "")                                                             \
    X("rdtscp", W_EXT_EDX, 27, 0, "")                                                              \
    X("lm", W_EXT_EDX, 29, 1, "")

static const struct feature {
    const char *name;
    uint8_t word, bit, level;
    const char *needs;
} features[] = {
#define FEATURE(in_name, in_word, in_bit, in_level, in_needs)                                      \
    {.name = in_name, .word = in_word, .bit = in_bit, .level = in_level, .needs = in_needs},
    FEATURES(FEATURE)};

_Static_assert(ARRAY_SIZE(features) <= 64 * CPU_FEATURE_WORDS, "each has a bit");

static const struct {
    const char *name;
    uint8_t level;
    const char *with, *text; /* one feature more than the level has; for help */
} models[] = {
    {"host", 0, "", "everything that the accelerator can offer on this host (default)"},
    {"max", 0, "", "the same"},
    {"qemu64", 1, "sse3 cx16 lahf-lm", "x86-64 with SSE3 and CMPXCHG16B"},
    {"x86-64", 1, "", "what every 64-bit CPU has, and nothing newer for programs"},
    {"x86-64-v2", 2, "", "to SSE4.2 and POPCNT"},
    {"x86-64-v3", 3, "", "to AVX2, FMA and BMI"},
    {"x86-64-v4", 4, "", "to AVX-512, where the accelerator offers it"},
};

/* --- Names --- */

static bool is_same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        bool are_dashes = strchr("-_.", *a) && strchr("-_.", *b);

        if (*a != *b && !are_dashes)
            return false;
    }
    return *a == *b;
}

/* The place in the table, or -1. */
static int find_feature(const char *name)
{
    /* Names that QEMU knows for the same. */
    static const char *const aliases[][2] = {{"pni", "sse3"},           {"lzcnt", "abm"},
                                             {"pclmuldq", "pclmulqdq"}, {"ibrs", "spec-ctrl"},
                                             {"xsave-opt", "xsaveopt"}, {"i64", "lm"},
                                             {"ffxsr", "fxsr"},         {"xd", "nx"}};

    for (unsigned i = 0; i < ARRAY_SIZE(aliases); i++)
        if (is_same_name(name, aliases[i][0]))
            name = aliases[i][1];
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
        if (is_same_name(name, features[i].name))
            return (int)i;
    return -1;
}

static bool has_bit(const uint64_t *bits, unsigned n)
{
    return bits[n / 64] >> (n % 64) & 1;
}

static void set_bit(uint64_t *bits, unsigned n)
{
    bits[n / 64] |= UINT64_C(1) << (n % 64);
}

bool cpu_model_switch(struct cpu_model *model, const char *name, bool on)
{
    int n = find_feature(name);

    if (n < 0)
        return false;
    uint64_t *other = on ? model->off : model->on;

    set_bit(on ? model->on : model->off, (unsigned)n);
    other[n / 64] &= ~(UINT64_C(1) << (n % 64));
    return true;
}

static bool switch_all(struct cpu_model *model, const char *names)
{
    char name[32];
    int length;

    for (; sscanf(names, " %31s%n", name, &length) == 1; names += length)
        if (!cpu_model_switch(model, name, true))
            return false;
    return true;
}

bool cpu_model_find(const char *name, struct cpu_model *out)
{
    for (unsigned i = 0; i < ARRAY_SIZE(models); i++) {
        if (strcmp(models[i].name, name) != 0)
            continue;
        *out = (struct cpu_model){.level = models[i].level};
        CHECK(switch_all(out, models[i].with));
        return true;
    }
    return false;
}

const char *cpu_model_name(unsigned index)
{
    return index < ARRAY_SIZE(models) ? models[index].name : NULL;
}

const char *cpu_model_nearest_feature(const char *name)
{
    struct suggest suggest;

    suggest_init(&suggest, name);
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
        suggest_offer(&suggest, features[i].name);
    return suggest.best;
}

char *cpu_model_help(void)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    int column = 0;

    CHECK(out);
    fprintf(out, "Available CPUs:\n");
    for (unsigned i = 0; i < ARRAY_SIZE(models); i++)
        fprintf(out, "  %-11s %s\n", models[i].name, models[i].text);
    fprintf(out, "Features, to be switched with +NAME, -NAME, NAME=on and NAME=off:\n");
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        if (column + strlen(features[i].name) > 76) {
            fprintf(out, "\n");
            column = 0;
        }
        column += fprintf(out, "%s%s", column ? " " : "  ", features[i].name);
    }
    fprintf(out, "\n");
    CHECK(!fclose(out));
    return text;
}

/* --- CPUID --- */

static struct kvm_cpuid_entry2 *find_entry(struct accel_cpuid *cpuid, uint32_t function,
                                           uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->header.nent; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    return NULL;
}

static uint32_t *find_word(struct accel_cpuid *cpuid, enum word word)
{
    struct kvm_cpuid_entry2 *entry = find_entry(cpuid, words[word].function, words[word].index);

    if (!entry)
        return NULL;
    return (uint32_t *const[]){&entry->eax, &entry->ebx, &entry->ecx, &entry->edx}[words[word].reg];
}

static bool has_feature(struct accel_cpuid *cpuid, int n)
{
    const uint32_t *word = find_word(cpuid, features[n].word);

    return word && *word >> features[n].bit & 1;
}

static bool is_kept(const struct cpu_model *model, unsigned n)
{
    if (has_bit(model->off, n))
        return false;
    return !model->level || features[n].level <= model->level || has_bit(model->on, n);
}

/* Bits that the table does not know go as well if the model has a level. */
static uint32_t kept_bits(const struct cpu_model *model, enum word word)
{
    uint32_t known = 0, kept = 0;

    for (unsigned n = 0; n < ARRAY_SIZE(features); n++) {
        if (features[n].word != word)
            continue;
        known |= UINT32_C(1) << features[n].bit;
        if (is_kept(model, n))
            kept |= UINT32_C(1) << features[n].bit;
    }
    return model->level && word != W_1_EDX && word != W_EXT_EDX ? kept : kept | ~known;
}

/* AMD repeats some of leaf 1's bits in the extended leaf. */
static void mirror_leaf_1(struct accel_cpuid *cpuid)
{
    const uint32_t mirrored = 0x0183f3ff;
    const uint32_t *base = find_word(cpuid, W_1_EDX);
    uint32_t *extended = find_word(cpuid, W_EXT_EDX);

    if (base && extended)
        *extended &= *base | ~mirrored;
}

/* Until nothing stands without what it needs. */
static void drop_dependents(struct accel_cpuid *cpuid)
{
    bool has_changed = true;

    while (has_changed) {
        has_changed = false;
        for (unsigned n = 0; n < ARRAY_SIZE(features); n++) {
            if (!features[n].needs[0] || !has_feature(cpuid, (int)n) ||
                has_feature(cpuid, find_feature(features[n].needs)))
                continue;
            *find_word(cpuid, features[n].word) &= ~(UINT32_C(1) << features[n].bit);
            has_changed = true;
        }
    }
}

/* The components of XCR0 that the features left have use for. */
static uint32_t xcr0_of(struct accel_cpuid *cpuid)
{
    static const struct {
        const char *feature;
        uint32_t bits;
    } users[] = {{"xsave", 0x3},    {"avx", 0x4},   {"mpx", 0x18},
                 {"avx512f", 0xe0}, {"pku", 0x200}, {"amx-tile", 0x60000}};
    uint32_t xcr0 = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(users); i++)
        if (has_feature(cpuid, find_feature(users[i].feature)))
            xcr0 |= users[i].bits;
    return xcr0;
}

/* Leaf 0xD without the components that nobody uses, and the area's size without them. */
static void shrink_state(struct accel_cpuid *cpuid)
{
    struct kvm_cpuid_entry2 *all = find_entry(cpuid, 0xd, 0);
    uint32_t bytes = 576, gone;

    if (!all)
        return;
    gone = all->eax & ~xcr0_of(cpuid);
    all->eax &= ~gone;
    for (uint32_t i = 0; i < cpuid->header.nent; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];

        if (entry->function != 0xd || entry->index < 2 || entry->index > 31)
            continue;
        if (gone >> entry->index & 1)
            entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
        else if (all->eax >> entry->index & 1 && entry->ebx + entry->eax > bytes)
            bytes = entry->ebx + entry->eax;
    }
    all->ecx = all->eax ? bytes : 0;
    all->ebx = all->eax ? MIN(all->ebx, bytes) : 0;
}

static int check_wishes(const struct cpu_model *model, const char *accel, struct accel_cpuid *cpuid,
                        struct error *err)
{
    for (unsigned n = 0; n < ARRAY_SIZE(features); n++) {
        if (!has_bit(model->on, n) || has_feature(cpuid, (int)n))
            continue;
        if (model->enforce)
            return error_set(err, ENOTSUP,
                             "-cpu: %s does not offer %s on this host; leave it or enforce out",
                             accel, features[n].name);
        log_warn("-cpu: %s does not offer %s on this host; the guest goes without", accel,
                 features[n].name);
    }
    return 0;
}

/* What programs count on at its level, and what is switched on. Other ways to save the state of AVX
 * come with the level, but nobody counts on them. */
static bool is_part(const struct cpu_model *model, unsigned n)
{
    bool is_of_level = features[n].level != NO_LEVEL && features[n].level <= model->level &&
                       features[n].word != W_D1_EAX;
    return !has_bit(model->off, n) && (is_of_level || has_bit(model->on, n));
}

void cpu_model_missing(const struct cpu_model *model, struct accel_cpuid *cpuid,
                       void (*tell)(void *opaque, const char *feature), void *opaque)
{
    for (unsigned n = 0; n < ARRAY_SIZE(features); n++)
        if (is_part(model, n) && !has_feature(cpuid, (int)n))
            tell(opaque, features[n].name);
}

static bool is_everything(const struct cpu_model *model)
{
    static const uint64_t nothing[CPU_FEATURE_WORDS];

    return !model->level && !memcmp(model->off, nothing, sizeof(nothing));
}

int cpu_model_apply(const struct cpu_model *model, const char *accel, struct accel_cpuid *cpuid,
                    struct error *err)
{
    int result = check_wishes(model, accel, cpuid, err);

    if (result || is_everything(model))
        return result;
    for (enum word word = 0; word < ARRAY_SIZE(words); word++) {
        uint32_t *bits = find_word(cpuid, word);

        if (bits)
            *bits &= kept_bits(model, word);
    }
    mirror_leaf_1(cpuid);
    drop_dependents(cpuid);
    shrink_state(cpuid);
    return 0;
}

bool cpu_model_has(struct accel_cpuid *cpuid, const char *feature)
{
    int n = find_feature(feature);
    CHECK(n >= 0);
    return has_feature(cpuid, n);
}
