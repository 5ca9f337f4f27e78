/* SPDX-License-Identifier: MIT */
/*
 * vex: what the rooms of AVX, AVX2, FMA and F16C share.
 *
 * Operands of an op: `a` is ModRM.reg, `c` ModRM.rm of a register form; the rest is in `aux`.
 */
#ifndef VMM_SOFT_VEX_H
#define VMM_SOFT_VEX_H

#include "vmm/soft/decode.h"
#include "vmm/soft/sse.h"

/* The number of the stub, or where there is none the immediate. */
#define VEX_AUX_STUB(aux)  ((aux)&0xffffu)
#define VEX_AUX_IMM(aux)   ((aux)&0xffu)
#define VEX_AUX_VVVV(aux)  ((aux) >> 16 & 15u)
#define VEX_AUX_IS4(aux)   ((aux) >> 20 & 15u)
#define VEX_AUX_BYTES(aux) ((aux) >> 24 & 63u) /* of the memory operand */
/* Masked moves outside 64-bit mode: the address has no segment yet. */
#define VEX_AUX_SEGMENT(aux) ((aux)&7u)
#define VEX_AUX_SEGMENTED    (1u << 3)
#define VEX_AUX_L            (1u << 30)
#define VEX_AUX_W            (1u << 31)

enum vex_form_flag {
    VEX_NDS = 1 << 0,            /* VEX.vvvv names an operand; otherwise it must be 1111 */
    VEX_L0 = 1 << 1,             /* exists with VEX.L clear only */
    VEX_L1 = 1 << 2,             /* with VEX.L set only */
    VEX_LIG = 1 << 3,            /* VEX.L means nothing */
    VEX_IS4 = 1 << 4,            /* a fourth register in bits 7 to 4 of the immediate */
    VEX_GENERAL = 1 << 5,        /* ModRM.rm names a general register */
    VEX_LONG = 1 << 6,           /* VEX.W is 0 outside 64-bit mode, whatever it says */
    VEX_MEMORY = 1 << 7,         /* has no register form */
    VEX_HIGH = 1 << 8,           /* the register form takes the upper half of XMM */
    VEX_ELEMENT = 1 << 9,        /* it takes the element that bits 7 and 6 of the immediate say */
    VEX_STORES = 1 << 10,        /* the memory operand is written */
    VEX_IMM8 = 1 << 11,          /* (where there is no stub) */
    VEX_VSIB = 1 << 12,          /* the index of the address is a vector */
    VEX_NDS_REGISTER = 1 << 13,  /* VEX_NDS for the register form only */
    VEX_REGISTER_AVX2 = 1 << 14, /* the register form came with AVX2 */
    VEX_MASKED = 1 << 16,        /* touches chosen elements of its memory operand only */
    VEX_SHIFT_GROUP = 1 << 15,   /* ModRM.reg says which shift */
};

enum vex_feature { VEX_AVX, VEX_AVX_AVX2 /* the latter with VEX.L */, VEX_AVX2, VEX_FMA, VEX_F16C, VEX_AES, VEX_PCLMUL };

/* One instruction; `reg` or `mem` is NULL where a form does not exist. */
struct vex_form {
    soft_helper *reg, *mem;
    uint16_t stub;       /* the first of its stubs */
    uint16_t stub_count; /* for each VEX.L: one, or as many as the immediate has values; or 0 */
    uint32_t flags;      /* enum vex_form_flag */
    uint8_t bytes[2];    /* of the memory operand, by VEX.L */
    uint8_t feature;     /* enum vex_feature */
    bool sets_flags;
};

/* What the prefix says. */
struct vex_prefix {
    uint8_t map, pp, vvvv;
    bool w, l;
    bool has_vvvv; /* the field is not 1111 */
};

/* C4 or C5 where it is VEX. */
enum soft_decoded vex_decode(struct soft_decoder *d, uint8_t opcode);

/* The forms with and without stubs; NULL where there is no such instruction. */
const struct vex_form *vex_find_stub(const struct vex_prefix *prefix, uint8_t opcode);
const struct vex_form *vex_find_other(const struct vex_prefix *prefix, uint8_t opcode);

static inline bool vex_is_256(const struct soft_op *op)
{
    return op->aux & VEX_AUX_L;
}

/* Writes a register as VEX instructions do: what lies above the result is zeroed. */
static inline void vex_set(struct soft_cpu *cpu, unsigned n, const void *from, unsigned bytes)
{
    uint8_t value[32] = {0};

    memcpy(value, from, bytes);
    memcpy(cpu->ymm[n], value, 32);
}

/* vex_stubs.c: shifts `from` by the low quadword of `count` as 66 0F `opcode` does. */
void vex_shift(struct soft_cpu *cpu, unsigned to, unsigned from, uint64_t count, uint8_t opcode,
               bool is_256);
/* vex_stubs.c: VCVTPS2PH into 16 bytes. False: #XM was raised. */
bool vex_narrow(struct soft_cpu *cpu, const struct soft_op *op, uint8_t to[32]);

/* vex_move.c */
soft_helper vex_run_load, vex_run_load_aligned, vex_run_move, vex_run_move_back;
soft_helper vex_run_store, vex_run_store_aligned;
soft_helper vex_run_load_scalar, vex_run_merge_4, vex_run_merge_8, vex_run_merge_4_back;
soft_helper vex_run_merge_8_back;
soft_helper vex_run_movmskps, vex_run_movmskpd, vex_run_pmovmskb;
soft_helper vex_run_extract_reg, vex_run_extract_mem, vex_run_narrow_reg, vex_run_narrow_mem;
soft_helper vex_run_shift_w, vex_run_shift_d, vex_run_shift_q;
soft_helper vex_run_zero_all, vex_run_zero_upper, vex_run_clear_upper;

/* vex_mask.c */
soft_helper vex_run_masked_load_4, vex_run_masked_load_8;
soft_helper vex_run_masked_store_4, vex_run_masked_store_8;
soft_helper vex_run_gather;
/* A gather whose elements lie in FS or GS, whatever its base register. */
bool vex_is_based_gather(const struct soft_op *op);
/* Emits a gather; `sib` is the byte after ModRM. */
enum soft_decoded vex_decode_gather(struct soft_decoder *d, const struct vex_prefix *prefix,
                                    uint8_t opcode, uint8_t sib);

#endif
