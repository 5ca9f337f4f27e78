/* SPDX-License-Identifier: MIT */
/*
 * sse_move: SSE, SSE2 and SSE3 instructions that only move: loads, stores, shuffles, inserts and
 * extracts. They look at no MXCSR and raise nothing but memory faults.
 */
#include "vmm/soft/sse.h"

#define HELPER(name) static bool name(struct soft_cpu *cpu, const struct soft_op *op)

static inline uint64_t *quads(struct soft_cpu *cpu, unsigned n)
{
    return (uint64_t *)(void *)cpu->ymm[n];
}

static inline uint32_t *words32(struct soft_cpu *cpu, unsigned n)
{
    return (uint32_t *)(void *)cpu->ymm[n];
}

/* --- Between registers; "back" forms write ModRM.rm --- */

HELPER(move_16)
{
    *sse_xmm(cpu, op->a) = *sse_xmm(cpu, op->c);
    return true;
}

HELPER(move_16_back)
{
    *sse_xmm(cpu, op->c) = *sse_xmm(cpu, op->a);
    return true;
}

HELPER(move_8)
{
    quads(cpu, op->a)[0] = quads(cpu, op->c)[0];
    return true;
}

HELPER(move_8_back)
{
    quads(cpu, op->c)[0] = quads(cpu, op->a)[0];
    return true;
}

HELPER(move_4)
{
    words32(cpu, op->a)[0] = words32(cpu, op->c)[0];
    return true;
}

HELPER(move_4_back)
{
    words32(cpu, op->c)[0] = words32(cpu, op->a)[0];
    return true;
}

HELPER(move_8_zero)
{
    *sse_xmm(cpu, op->a) = _mm_move_epi64(*sse_xmm(cpu, op->c));
    return true;
}

HELPER(move_8_zero_back)
{
    *sse_xmm(cpu, op->c) = _mm_move_epi64(*sse_xmm(cpu, op->a));
    return true;
}

HELPER(movhlps)
{
    quads(cpu, op->a)[0] = quads(cpu, op->c)[1];
    return true;
}

HELPER(movlhps)
{
    quads(cpu, op->a)[1] = quads(cpu, op->c)[0];
    return true;
}

/* --- Loads --- */

/* A faulting load must not leave half of its bytes in the register. */

HELPER(load_16)
{
    __m128i value;

    if (!soft_load(cpu, soft_ea(cpu, op), &value, 16))
        return false;
    *sse_xmm(cpu, op->a) = value;
    return true;
}

HELPER(load_16_aligned)
{
    __m128i value;

    if (!sse_load(cpu, op, &value, 16))
        return false;
    *sse_xmm(cpu, op->a) = value;
    return true;
}

static bool load_half(struct soft_cpu *cpu, const struct soft_op *op, unsigned half)
{
    uint64_t value;

    if (!soft_load(cpu, soft_ea(cpu, op), &value, 8))
        return false;
    quads(cpu, op->a)[half] = value;
    return true;
}

HELPER(load_low_8)
{
    return load_half(cpu, op, 0);
}

HELPER(load_high_8)
{
    return load_half(cpu, op, 1);
}

HELPER(load_8_zero)
{
    uint64_t value;

    if (!soft_load(cpu, soft_ea(cpu, op), &value, 8))
        return false;
    *sse_xmm(cpu, op->a) = _mm_cvtsi64_si128((long long)value);
    return true;
}

HELPER(load_4_zero)
{
    uint32_t value;

    if (!soft_load(cpu, soft_ea(cpu, op), &value, 4))
        return false;
    *sse_xmm(cpu, op->a) = _mm_cvtsi32_si128((int)value);
    return true;
}

/* --- Stores --- */

HELPER(store_16)
{
    return soft_store(cpu, soft_ea(cpu, op), cpu->ymm[op->a], 16);
}

HELPER(store_16_aligned)
{
    uint64_t address = soft_ea(cpu, op);

    if (unlikely(address & 15))
        return soft_raise(cpu, SOFT_GP, 0);
    return soft_store(cpu, address, cpu->ymm[op->a], 16);
}

HELPER(store_low_8)
{
    return soft_store(cpu, soft_ea(cpu, op), cpu->ymm[op->a], 8);
}

HELPER(store_high_8)
{
    return soft_store(cpu, soft_ea(cpu, op), cpu->ymm[op->a] + 8, 8);
}

HELPER(store_4)
{
    return soft_store(cpu, soft_ea(cpu, op), cpu->ymm[op->a], 4);
}

/* The bytes whose mask bit is set, at DS:rDI. */
HELPER(maskmovdqu)
{
    uint64_t address = soft_ea(cpu, op);
    int mask = _mm_movemask_epi8(*sse_xmm(cpu, op->c));

    if (!soft_probe_write(cpu, address, 16))
        return false;
    for (unsigned i = 0; i < 16; i++)
        if (mask & 1 << i && !soft_store(cpu, address + i, &cpu->ymm[op->a][i], 1))
            return false;
    return true;
}

/* --- General registers --- */

HELPER(movd_from_general)
{
    uint64_t value = op->aux & SSE_AUX_W ? cpu->r[op->c] : (uint32_t)cpu->r[op->c];

    *sse_xmm(cpu, op->a) = _mm_cvtsi64_si128((long long)value);
    return true;
}

HELPER(movd_load)
{
    return op->aux & SSE_AUX_W ? load_8_zero(cpu, op) : load_4_zero(cpu, op);
}

HELPER(movd_to_general)
{
    cpu->r[op->c] = op->aux & SSE_AUX_W ? quads(cpu, op->a)[0] : words32(cpu, op->a)[0];
    return true;
}

HELPER(movd_store)
{
    return op->aux & SSE_AUX_W ? store_low_8(cpu, op) : store_4(cpu, op);
}

HELPER(movmskps)
{
    cpu->r[op->a] = (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(*sse_xmm(cpu, op->c)));
    return true;
}

HELPER(movmskpd)
{
    cpu->r[op->a] = (uint32_t)_mm_movemask_pd(_mm_castsi128_pd(*sse_xmm(cpu, op->c)));
    return true;
}

HELPER(pmovmskb)
{
    cpu->r[op->a] = (uint32_t)_mm_movemask_epi8(*sse_xmm(cpu, op->c));
    return true;
}

HELPER(pinsrw)
{
    uint16_t value = (uint16_t)cpu->r[op->c];

    memcpy(cpu->ymm[op->a] + 2 * (op->aux & 7), &value, 2);
    return true;
}

HELPER(pinsrw_load)
{
    uint16_t value;

    if (!soft_load(cpu, soft_ea(cpu, op), &value, 2))
        return false;
    memcpy(cpu->ymm[op->a] + 2 * (op->aux & 7), &value, 2);
    return true;
}

HELPER(pextrw)
{
    uint16_t value;

    memcpy(&value, cpu->ymm[op->c] + 2 * (op->aux & 7), 2);
    cpu->r[op->a] = value;
    return true;
}

/* --- Shuffles; the immediate says which, so `from` is followed by it --- */

typedef void shuffle_fn(void *to, const void *from, unsigned order);

static bool shuffle_reg(struct soft_cpu *cpu, const struct soft_op *op, shuffle_fn *shuffle)
{
    __m128i operand = *sse_xmm(cpu, op->c);

    shuffle(cpu->ymm[op->a], &operand, op->aux & SSE_AUX_IMM);
    return true;
}

static bool shuffle_mem(struct soft_cpu *cpu, const struct soft_op *op, shuffle_fn *shuffle)
{
    __m128i operand;

    if (!sse_load(cpu, op, &operand, 16))
        return false;
    shuffle(cpu->ymm[op->a], &operand, op->aux & SSE_AUX_IMM);
    return true;
}

#define SHUFFLE(name)                                                                              \
    HELPER(name##_reg)                                                                             \
    {                                                                                              \
        return shuffle_reg(cpu, op, name);                                                         \
    }                                                                                              \
    HELPER(name##_mem)                                                                             \
    {                                                                                              \
        return shuffle_mem(cpu, op, name);                                                         \
    }

static void pshufd(void *to, const void *from, unsigned order)
{
    for (unsigned i = 0; i < 4; i++)
        memcpy((uint8_t *)to + 4 * i, (const uint8_t *)from + 4 * (order >> 2 * i & 3), 4);
}

static void pshuflw(void *to, const void *from, unsigned order)
{
    memcpy((uint8_t *)to + 8, (const uint8_t *)from + 8, 8);
    for (unsigned i = 0; i < 4; i++)
        memcpy((uint8_t *)to + 2 * i, (const uint8_t *)from + 2 * (order >> 2 * i & 3), 2);
}

static void pshufhw(void *to, const void *from, unsigned order)
{
    memcpy(to, from, 8);
    for (unsigned i = 0; i < 4; i++)
        memcpy((uint8_t *)to + 8 + 2 * i, (const uint8_t *)from + 8 + 2 * (order >> 2 * i & 3), 2);
}

static void shufps(void *to, const void *from, unsigned order)
{
    uint32_t out[4], first[4];
    const uint8_t *second = from;

    memcpy(first, to, 16);
    out[0] = first[order & 3];
    out[1] = first[order >> 2 & 3];
    memcpy(&out[2], second + 4 * (order >> 4 & 3), 4);
    memcpy(&out[3], second + 4 * (order >> 6 & 3), 4);
    memcpy(to, out, 16);
}

static void shufpd(void *to, const void *from, unsigned order)
{
    uint64_t out[2];

    memcpy(&out[0], (const uint8_t *)to + 8 * (order & 1), 8);
    memcpy(&out[1], (const uint8_t *)from + 8 * (order >> 1 & 1), 8);
    memcpy(to, out, 16);
}

static void movsldup(void *to, const void *from, unsigned order)
{
    (void)order;
    pshufd(to, from, 0xa0);
}

static void movshdup(void *to, const void *from, unsigned order)
{
    (void)order;
    pshufd(to, from, 0xf5);
}

SHUFFLE(pshufd)
SHUFFLE(pshuflw)
SHUFFLE(pshufhw)
SHUFFLE(shufps)
SHUFFLE(shufpd)
SHUFFLE(movsldup)
SHUFFLE(movshdup)

HELPER(movddup)
{
    quads(cpu, op->a)[1] = quads(cpu, op->c)[0];
    quads(cpu, op->a)[0] = quads(cpu, op->c)[0];
    return true;
}

HELPER(movddup_load)
{
    uint64_t value;

    if (!soft_load(cpu, soft_ea(cpu, op), &value, 8))
        return false;
    quads(cpu, op->a)[0] = quads(cpu, op->a)[1] = value;
    return true;
}

/* --- The table --- */

#define LOAD(in_reg, in_mem, bytes)                                                                \
    {                                                                                              \
        .reg = in_reg, .mem = in_mem, .size = bytes                                                \
    }
#define STORE(in_reg, in_mem, bytes)                                                               \
    {                                                                                              \
        .reg = in_reg, .mem = in_mem, .size = bytes, .flags = SSE_STORES                           \
    }
#define SHUFFLED(name)                                                                             \
    {                                                                                              \
        .reg = name##_reg, .mem = name##_mem, .size = 16, .flags = SSE_IMM8                        \
    }

const struct sse_form sse_move_forms[SSE_PREFIXES][256] =
    {
        [SSE_NONE] =
            {
                [0x10] = LOAD(move_16, load_16, 16),
                [0x11] = STORE(move_16_back, store_16, 16),
                [0x12] = LOAD(movhlps, load_low_8, 8),
                [0x13] = STORE(NULL, store_low_8, 8),
                [0x16] = LOAD(movlhps, load_high_8, 8),
                [0x17] = STORE(NULL, store_high_8, 8),
                [0x28] = LOAD(move_16, load_16_aligned, 16),
                [0x29] = STORE(move_16_back, store_16_aligned, 16),
                [0x2b] = STORE(NULL, store_16_aligned, 16),
                [0x50] = LOAD(movmskps, NULL, 0),
                [0xc6] = SHUFFLED(shufps),
            },
        [SSE_66] =
            {
                [0x10] = LOAD(move_16, load_16, 16),
                [0x11] = STORE(move_16_back, store_16, 16),
                [0x12] = LOAD(NULL, load_low_8, 8),
                [0x13] = STORE(NULL, store_low_8, 8),
                [0x16] = LOAD(NULL, load_high_8, 8),
                [0x17] = STORE(NULL, store_high_8, 8),
                [0x28] = LOAD(move_16, load_16_aligned, 16),
                [0x29] = STORE(move_16_back, store_16_aligned, 16),
                [0x2b] = STORE(NULL, store_16_aligned, 16),
                [0x50] = LOAD(movmskpd, NULL, 0),
                [0x6e] = {movd_from_general, movd_load, 4, SSE_WIDE_MEM, 0},
                [0x6f] = LOAD(move_16, load_16_aligned, 16),
                [0x70] = SHUFFLED(pshufd),
                [0x7e] = {movd_to_general, movd_store, 4, SSE_WIDE_MEM | SSE_STORES, 0},
                [0x7f] = STORE(move_16_back, store_16_aligned, 16),
                [0xc4] = {pinsrw, pinsrw_load, 2, SSE_IMM8, 0},
                [0xc5] = {pextrw, NULL, 0, SSE_IMM8, 0},
                [0xc6] = SHUFFLED(shufpd),
                [0xd6] = STORE(move_8_zero_back, store_low_8, 8),
                [0xd7] = LOAD(pmovmskb, NULL, 0),
                [0xe7] = STORE(NULL, store_16_aligned, 16),
                [0xf7] = {maskmovdqu, NULL, 16, SSE_STORES | SSE_AT_RDI, 0},
            },
        [SSE_F3] =
            {
                [0x10] = LOAD(move_4, load_4_zero, 4),
                [0x11] = STORE(move_4_back, store_4, 4),
                [0x12] = {movsldup_reg, movsldup_mem, 16, 0, SSE_FEATURE_SSE3},
                [0x16] = {movshdup_reg, movshdup_mem, 16, 0, SSE_FEATURE_SSE3},
                [0x6f] = LOAD(move_16, load_16, 16),
                [0x70] = SHUFFLED(pshufhw),
                [0x7e] = LOAD(move_8_zero, load_8_zero, 8),
                [0x7f] = STORE(move_16_back, store_16, 16),
            },
        [SSE_F2] =
            {
                [0x10] = LOAD(move_8, load_8_zero, 8),
                [0x11] = STORE(move_8_back, store_low_8, 8),
                [0x12] = {movddup, movddup_load, 8, 0, SSE_FEATURE_SSE3},
                [0x70] = SHUFFLED(pshuflw),
                [0xf0] = {NULL, load_16, 16, 0, SSE_FEATURE_SSE3},
            },
};
