/* SPDX-License-Identifier: MIT */
/* vex_move: VEX instructions without a stub: loads, stores, merges, extracts, shifts by a number.
 */
#include "vmm/soft/vex.h"

#define HELPER(name) bool name(struct soft_cpu *cpu, const struct soft_op *op)

static unsigned width(const struct soft_op *op)
{
    return vex_is_256(op) ? 32 : 16;
}

/* --- Loads --- */

static bool load(struct soft_cpu *cpu, const struct soft_op *op, uint64_t address)
{
    uint8_t value[32] = {0};

    if (!soft_load(cpu, address, value, VEX_AUX_BYTES(op->aux)))
        return false;
    memcpy(cpu->ymm[op->a], value, 32);
    return true;
}

HELPER(vex_run_load)
{
    return load(cpu, op, soft_ea(cpu, op));
}

HELPER(vex_run_load_aligned)
{
    uint64_t address = soft_ea(cpu, op);

    if (address & (VEX_AUX_BYTES(op->aux) - 1))
        return soft_raise(cpu, SOFT_GP, 0);
    return load(cpu, op, address);
}

HELPER(vex_run_load_scalar)
{
    return load(cpu, op, soft_ea(cpu, op));
}

/* --- Stores --- */

HELPER(vex_run_store)
{
    return soft_store(cpu, soft_ea(cpu, op), cpu->ymm[op->a], VEX_AUX_BYTES(op->aux));
}

HELPER(vex_run_store_aligned)
{
    if (soft_ea(cpu, op) & (VEX_AUX_BYTES(op->aux) - 1))
        return soft_raise(cpu, SOFT_GP, 0);
    return vex_run_store(cpu, op);
}

/* --- Between registers --- */

HELPER(vex_run_move)
{
    vex_set(cpu, op->a, cpu->ymm[op->c], width(op));
    return true;
}

HELPER(vex_run_move_back)
{
    vex_set(cpu, op->c, cpu->ymm[op->a], width(op));
    return true;
}

/* The low `bytes` of `low` before the rest of XMM vvvv. */
static bool merge(struct soft_cpu *cpu, const struct soft_op *op, unsigned to, unsigned low,
                  unsigned bytes)
{
    uint8_t value[16];

    memcpy(value, cpu->ymm[VEX_AUX_VVVV(op->aux)], 16);
    memcpy(value, cpu->ymm[low], bytes);
    vex_set(cpu, to, value, 16);
    return true;
}

HELPER(vex_run_merge_4)
{
    return merge(cpu, op, op->a, op->c, 4);
}

HELPER(vex_run_merge_8)
{
    return merge(cpu, op, op->a, op->c, 8);
}

HELPER(vex_run_merge_4_back)
{
    return merge(cpu, op, op->c, op->a, 4);
}

HELPER(vex_run_merge_8_back)
{
    return merge(cpu, op, op->c, op->a, 8);
}

/* --- Signs --- */

static __m128i half(const struct soft_cpu *cpu, const struct soft_op *op, unsigned which)
{
    return *(const __m128i *)(const void *)(cpu->ymm[op->c] + 16 * which);
}

static bool signs(struct soft_cpu *cpu, const struct soft_op *op, int low, int high, unsigned count)
{
    cpu->r[op->a] = (uint32_t)low | (vex_is_256(op) ? (uint32_t)high << count : 0);
    return true;
}

HELPER(vex_run_movmskps)
{
    return signs(cpu, op, _mm_movemask_ps(_mm_castsi128_ps(half(cpu, op, 0))),
                 _mm_movemask_ps(_mm_castsi128_ps(half(cpu, op, 1))), 4);
}

HELPER(vex_run_movmskpd)
{
    return signs(cpu, op, _mm_movemask_pd(_mm_castsi128_pd(half(cpu, op, 0))),
                 _mm_movemask_pd(_mm_castsi128_pd(half(cpu, op, 1))), 2);
}

HELPER(vex_run_pmovmskb)
{
    return signs(cpu, op, _mm_movemask_epi8(half(cpu, op, 0)), _mm_movemask_epi8(half(cpu, op, 1)),
                 16);
}

/* --- Halves, and what is narrowed to one: the destination is ModRM.rm --- */

static const uint8_t *chosen_half(const struct soft_cpu *cpu, const struct soft_op *op)
{
    return cpu->ymm[op->a] + 16 * (VEX_AUX_IMM(op->aux) & 1);
}

HELPER(vex_run_extract_reg)
{
    vex_set(cpu, op->c, chosen_half(cpu, op), 16);
    return true;
}

HELPER(vex_run_extract_mem)
{
    return soft_store(cpu, soft_ea(cpu, op), chosen_half(cpu, op), 16);
}

HELPER(vex_run_narrow_reg)
{
    uint8_t value[32] = {0};

    if (!vex_narrow(cpu, op, value))
        return false;
    memcpy(cpu->ymm[op->c], value, 32);
    return true;
}

HELPER(vex_run_narrow_mem)
{
    uint8_t value[32] = {0};

    return vex_narrow(cpu, op, value) &&
           soft_store(cpu, soft_ea(cpu, op), value, VEX_AUX_BYTES(op->aux));
}

/* --- Shifts by an immediate: VEX.vvvv is the destination, ModRM.reg says which shift --- */

static bool shift(struct soft_cpu *cpu, const struct soft_op *op, const uint8_t opcodes[8])
{
    vex_shift(cpu, VEX_AUX_VVVV(op->aux), op->c, VEX_AUX_IMM(op->aux), opcodes[op->a & 7],
              vex_is_256(op));
    return true;
}

HELPER(vex_run_shift_w)
{
    return shift(cpu, op, (const uint8_t[8]){[2] = 0xd1, [4] = 0xe1, [6] = 0xf1});
}

HELPER(vex_run_shift_d)
{
    return shift(cpu, op, (const uint8_t[8]){[2] = 0xd2, [4] = 0xe2, [6] = 0xf2});
}

/* Of whole bytes, in each half. */
static bool shift_bytes(struct soft_cpu *cpu, const struct soft_op *op, bool is_right)
{
    unsigned count = MIN(VEX_AUX_IMM(op->aux), 16u);
    uint8_t value[32] = {0};

    for (unsigned at = 0; at < width(op); at += 16) {
        const uint8_t *from = cpu->ymm[op->c] + at;

        if (is_right)
            memcpy(value + at, from + count, 16 - count);
        else
            memcpy(value + at + count, from, 16 - count);
    }
    memcpy(cpu->ymm[VEX_AUX_VVVV(op->aux)], value, 32);
    return true;
}

HELPER(vex_run_shift_q)
{
    if (op->a & 1)
        return shift_bytes(cpu, op, (op->a & 7) == 3);
    return shift(cpu, op, (const uint8_t[8]){[2] = 0xd3, [6] = 0xf3});
}

/* --- Zeroes --- */

static bool clear(struct soft_cpu *cpu, unsigned from)
{
    unsigned count = soft_is_64bit(cpu) ? 16 : 8;

    for (unsigned i = 0; i < count; i++)
        memset(cpu->ymm[i] + from, 0, 32 - from);
    return true;
}

HELPER(vex_run_zero_all)
{
    (void)op;
    return clear(cpu, 0);
}

HELPER(vex_run_zero_upper)
{
    (void)op;
    return clear(cpu, 16);
}

HELPER(vex_run_clear_upper)
{
    memset(cpu->ymm[op->a] + 16, 0, 16);
    return true;
}

/* --- The table --- */

/* X(map, pp, w, opcode, reg, mem, bytes0, bytes1, feature, flags) */
#define MOVES_OF(X, pp)                                                                            \
    X(1, pp, IG, 0x10, vex_run_move, vex_run_load, 16, 32, AVX, 0)                                 \
    X(1, pp, IG, 0x11, vex_run_move_back, vex_run_store, 16, 32, AVX, VEX_STORES)                  \
    X(1, pp, IG, 0x28, vex_run_move, vex_run_load_aligned, 16, 32, AVX, 0)                         \
    X(1, pp, IG, 0x29, vex_run_move_back, vex_run_store_aligned, 16, 32, AVX, VEX_STORES)          \
    X(1, pp, IG, 0x2b, NULL, vex_run_store_aligned, 16, 32, AVX, VEX_STORES)
#define SCALARS_OF(X, pp, size)                                                                    \
    X(1, pp, IG, 0x10, vex_run_merge_##size, vex_run_load_scalar, size, size, AVX,                 \
      VEX_LIG | VEX_NDS_REGISTER)                                                                  \
    X(1, pp, IG, 0x11, vex_run_merge_##size##_back, vex_run_store, size, size, AVX,                \
      VEX_LIG | VEX_NDS_REGISTER | VEX_STORES)
#define SHIFTS_OF(X, opcode, helper, row)                                                          \
    X(1, SSE_66, IG, opcode, helper, NULL, row, row, AVX_AVX2, VEX_NDS | VEX_IMM8 | VEX_SHIFT_GROUP)
#define MASKED_OF(X, w, load_at, store_at, size, feature)                                          \
    X(2, SSE_66, w, load_at, NULL, vex_run_masked_load_##size, 16, 32, feature,                    \
      VEX_NDS | VEX_MASKED)                                                                        \
    X(2, SSE_66, w, store_at, NULL, vex_run_masked_store_##size, 16, 32, feature,                  \
      VEX_NDS | VEX_MASKED | VEX_STORES)
#define GATHER_OF(X, opcode)                                                                       \
    X(2, SSE_66, IG, opcode, NULL, vex_run_gather, 16, 32, AVX2, VEX_NDS | VEX_VSIB)

#define OTHERS(X)                                                                                  \
    MOVES_OF(X, SSE_NONE)                                                                          \
    MOVES_OF(X, SSE_66)                                                                            \
    SCALARS_OF(X, SSE_F3, 4)                                                                       \
    SCALARS_OF(X, SSE_F2, 8)                                                                       \
    X(1, SSE_NONE, IG, 0x50, vex_run_movmskps, NULL, 0, 0, AVX, 0)                                 \
    X(1, SSE_66, IG, 0x50, vex_run_movmskpd, NULL, 0, 0, AVX, 0)                                   \
    X(1, SSE_66, IG, 0x6f, vex_run_move, vex_run_load_aligned, 16, 32, AVX, 0)                     \
    X(1, SSE_F3, IG, 0x6f, vex_run_move, vex_run_load, 16, 32, AVX, 0)                             \
    X(1, SSE_66, IG, 0x7f, vex_run_move_back, vex_run_store_aligned, 16, 32, AVX, VEX_STORES)      \
    X(1, SSE_F3, IG, 0x7f, vex_run_move_back, vex_run_store, 16, 32, AVX, VEX_STORES)              \
    SHIFTS_OF(X, 0x71, vex_run_shift_w, 0)                                                         \
    SHIFTS_OF(X, 0x72, vex_run_shift_d, 1)                                                         \
    SHIFTS_OF(X, 0x73, vex_run_shift_q, 2)                                                         \
    X(1, SSE_66, IG, 0xd7, vex_run_pmovmskb, NULL, 0, 0, AVX_AVX2, 0)                              \
    X(1, SSE_66, IG, 0xe7, NULL, vex_run_store_aligned, 16, 32, AVX, VEX_STORES)                   \
    X(1, SSE_F2, IG, 0xf0, NULL, vex_run_load, 16, 32, AVX, 0)                                     \
    X(2, SSE_66, IG, 0x2a, NULL, vex_run_load_aligned, 16, 32, AVX_AVX2, 0)                        \
    MASKED_OF(X, 0, 0x2c, 0x2e, 4, AVX)                                                            \
    MASKED_OF(X, 0, 0x2d, 0x2f, 8, AVX)                                                            \
    MASKED_OF(X, 0, 0x8c, 0x8e, 4, AVX2)                                                           \
    MASKED_OF(X, 1, 0x8c, 0x8e, 8, AVX2)                                                           \
    GATHER_OF(X, 0x90)                                                                             \
    GATHER_OF(X, 0x91)                                                                             \
    GATHER_OF(X, 0x92)                                                                             \
    GATHER_OF(X, 0x93)                                                                             \
    X(3, SSE_66, 0, 0x19, vex_run_extract_reg, vex_run_extract_mem, 16, 16, AVX,                   \
      VEX_L1 | VEX_IMM8 | VEX_STORES)                                                              \
    X(3, SSE_66, 0, 0x39, vex_run_extract_reg, vex_run_extract_mem, 16, 16, AVX2,                  \
      VEX_L1 | VEX_IMM8 | VEX_STORES)                                                              \
    X(3, SSE_66, 0, 0x1d, vex_run_narrow_reg, vex_run_narrow_mem, 8, 16, F16C,                     \
      VEX_IMM8 | VEX_STORES)

#define W_ANY -1
#define W_IG  W_ANY
#define W_0   0
#define W_1   1

static const struct {
    struct vex_form form;
    uint8_t map, pp, opcode;
    int8_t w;
} others[] = {
#define OTHER(in_map, in_pp, in_w, at, in_reg, in_mem, bytes0, bytes1, needs, form_flags)          \
    {.form = {.reg = in_reg,                                                                       \
              .mem = in_mem,                                                                       \
              .flags = form_flags,                                                                 \
              .bytes = {bytes0, bytes1},                                                           \
              .feature = VEX_##needs},                                                             \
     .map = in_map,                                                                                \
     .pp = in_pp,                                                                                  \
     .opcode = at,                                                                                 \
     .w = W_##in_w},
    OTHERS(OTHER)};

const struct vex_form *vex_find_other(const struct vex_prefix *prefix, uint8_t opcode)
{
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
        if (others[i].opcode == opcode && others[i].map == prefix->map &&
            others[i].pp == prefix->pp && (others[i].w == W_ANY || others[i].w == prefix->w))
            return &others[i].form;
    return NULL;
}
