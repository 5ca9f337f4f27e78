/* SPDX-License-Identifier: MIT */
/* Floats of every kind with their flags and roundings, printed to the last digit. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <emmintrin.h>

static uint64_t state = 88172645463325252U;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* Mostly ordinary, at times tiny, huge, subnormal or not a number. */
static double any_double(void)
{
    uint64_t bits = next();
    double value;
    if (bits & 7)
        return (double)(int64_t)next() / (double)((next() >> 20) + 1);
    bits = next();
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t mix(uint64_t sum, const void *data, size_t length)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < length; i++)
        sum = (sum ^ bytes[i]) * 0x100000001b3U;
    return sum;
}

static void doubles(int rounding, const char *name)
{
    uint64_t sum = 0;
    fesetround(rounding);
    feclearexcept(FE_ALL_EXCEPT);
    for (int i = 0; i < 20000; i++) {
        volatile double a = any_double(), b = any_double();
        double results[] = {a + b, a - b, a * b, a / b, sqrt(fabs(a)), (double)(float)a, rint(b)};
        for (unsigned j = 0; j < sizeof results / sizeof *results; j++)
            if (!isnan(results[j]))
                sum = mix(sum, &results[j], sizeof results[j]);
    }
    printf("double-%s %016llx %x\n", name, (unsigned long long)sum,
           (unsigned)fetestexcept(FE_ALL_EXCEPT));
    fesetround(FE_TONEAREST);
}

static void long_doubles(int rounding, const char *name)
{
    uint64_t sum = 0;
    fesetround(rounding);
    feclearexcept(FE_ALL_EXCEPT);
    for (int i = 0; i < 20000; i++) {
        volatile long double a = any_double(), b = any_double() * 1e-300L;
        long double results[] = {
            a + b, a - b, a * b, a / b, sqrtl(fabsl(a)), rintl(b), (long double)(double)(a * 3)};
        for (unsigned j = 0; j < sizeof results / sizeof *results; j++)
            if (!isnan(results[j]))
                sum = mix(sum, &results[j], 10);
    }
    printf("long-double-%s %016llx %x\n", name, (unsigned long long)sum,
           (unsigned)fetestexcept(FE_ALL_EXCEPT));
    fesetround(FE_TONEAREST);
}

static void conversions(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 20000; i++) {
        volatile double a = (double)(int64_t)next() / 1024.0;
        volatile int64_t whole = (int64_t)a;
        volatile uint64_t magnitude = (uint64_t)fabs(a);
        volatile int32_t small = (int32_t)(a / 4294967296.0);
        volatile long double back = (long double)whole + (long double)magnitude + small;
        int64_t nearest = llrintl(back);
        sum = mix(mix(mix(sum, (const void *)&whole, 8), (const void *)&magnitude, 8), &nearest, 8);
    }
    printf("conversions %016llx\n", (unsigned long long)sum);
}

static void vectors(void)
{
    __m128i a = _mm_set_epi32(1, 2, 3, 4), b = _mm_set_epi32(0x12345, -7, 0x7fffffff, -1);
    for (int i = 0; i < 50000; i++) {
        a = _mm_add_epi32(_mm_madd_epi16(a, b), _mm_shuffle_epi32(b, 0x1b));
        b = _mm_xor_si128(_mm_packs_epi32(b, a), _mm_unpackhi_epi8(a, b));
        b = _mm_sub_epi64(_mm_srli_epi16(b, 3), _mm_mul_epu32(a, b));
        a = _mm_or_si128(_mm_cmpgt_epi16(a, b),
                         _mm_sad_epu8(_mm_avg_epu8(a, b), _mm_slli_epi64(a, 5)));
    }
    uint64_t words[4];
    memcpy(words, &a, 16);
    memcpy(words + 2, &b, 16);
    printf("vectors %016llx%016llx%016llx%016llx\n", (unsigned long long)words[0],
           (unsigned long long)words[1], (unsigned long long)words[2],
           (unsigned long long)words[3]);
}

int main(void)
{
    static const struct {
        int rounding;
        const char *name;
    } modes[] = {{FE_TONEAREST, "nearest"},
                 {FE_DOWNWARD, "down"},
                 {FE_UPWARD, "up"},
                 {FE_TOWARDZERO, "zero"}};
    for (int i = 0; i < 4; i++) {
        doubles(modes[i].rounding, modes[i].name);
        long_doubles(modes[i].rounding, modes[i].name);
    }
    conversions();
    vectors();
    long double pi = 0;
    for (int i = 4000; i > 0; i--)
        pi = (long double)i / (2 * i + 1) * (2 + pi);
    printf("pi %.20Lg %La %.17g\n", pi, sqrtl(pi), sin(1e6) * pow(1.7, 300.5) + lgamma(4.3));
    return 0;
}
