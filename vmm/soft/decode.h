/* SPDX-License-Identifier: MIT */
/*
 * decode: bytes to operations, one instruction at a time.
 *
 * The decoder reads a copy of the bytes, so the guest cannot change them under it. An instruction
 * that needs more bytes than there are sets `is_short` and is thrown away by the caller.
 */
#ifndef VMM_SOFT_DECODE_H
#define VMM_SOFT_DECODE_H

#include "vmm/soft/mem.h"
#include "vmm/soft/op.h"

#define SOFT_INSTRUCTION_MAX     15
#define SOFT_INSTRUCTION_OPS_MAX 6

enum soft_decoded {
    SOFT_DECODED,        /* go on with the next instruction */
    SOFT_DECODED_END,    /* the block ends here */
    SOFT_DECODED_SHADOW, /* the next instruction belongs to this one, then the block ends */
    SOFT_DECODED_STACK_SHADOW, /* likewise, and holds back debug traps */
    SOFT_UNDEFINED,      /* #UD */
};

struct soft_decoder {
    struct soft_cpu *cpu;
    uint8_t mode; /* enum soft_mode: size and the flags */

    const uint8_t *bytes;
    unsigned position, available;
    bool is_short;

    /* Prefixes. */
    uint8_t rex;    /* 0x40 to 0x4f, or 0 */
    uint8_t repeat; /* the last of 0xf2 and 0xf3, or 0 */
    bool has_66, has_67, has_lock;
    bool lock_used;       /* the instruction may have LOCK */
    int8_t segment;       /* enum soft_segment_index, or -1 */
    uint8_t operand_size; /* in bytes: 2, 4, 8 */
    uint8_t address_size; /* 2, 4, 8 */

    /* ModRM, with the REX bits; for a memory operand what it consists of. */
    uint8_t mod, reg, rm;
    uint8_t base, index, scale; /* byte offsets into soft_cpu.r */
    int32_t disp;
    bool is_rip_relative;
    uint8_t default_segment;

    struct soft_op *ops; /* room for SOFT_INSTRUCTION_OPS_MAX more */
    unsigned op_count;
    /* What still wants the instruction's end added: a disp, a branch's rel. */
    struct soft_op *rip_relative, *branch;
};

/* Decodes one instruction with its prefixes. */
enum soft_decoded soft_decode(struct soft_decoder *d);

/* --- For the rooms that decode parts of the opcode map --- */

uint8_t decode_u8(struct soft_decoder *d);
/* Sign-extended; 1, 2, 4 or 8 bytes. */
int64_t decode_imm(struct soft_decoder *d, unsigned size);
void decode_modrm(struct soft_decoder *d);

static inline bool decode_is_mem(const struct soft_decoder *d)
{
    return d->mod != 3;
}

static inline bool decode_is_64bit(const struct soft_decoder *d)
{
    return (d->mode & SOFT_MODE_SIZE_MASK) == SOFT_MODE_64;
}

/* 0xf3, 0xf2, 0x66 or 0: the prefix that selects an SSE instruction. */
static inline uint8_t decode_mandatory_prefix(const struct soft_decoder *d)
{
    return d->repeat ? d->repeat : d->has_66 ? 0x66 : 0;
}

/* The byte offset in soft_cpu.r of general register `n`; 8-bit ones know about AH to BH. */
uint8_t decode_gpr(const struct soft_decoder *d, unsigned n, unsigned size);

/* A new operation, zeroed but for the kind; the caller fills in operands. */
struct soft_op *decode_emit(struct soft_decoder *d, enum soft_op_kind kind);
/*
 * The same with the memory operand: b, index, scale and disp are taken. `size` in bytes and
 * `access` are for segment limits; size 0 means that only the address is wanted.
 */
struct soft_op *decode_emit_mem(struct soft_decoder *d, enum soft_op_kind kind, unsigned size,
                                enum soft_access access);
/*
 * SOP_call_c: helper(cpu, op) without RIP and flags in soft_cpu. SOP_call_flags: cpu->flags is true
 * and taken back. SOP_call_end: also cpu->rip is the next instruction's, may be changed, and the
 * block ends (return SOFT_DECODED_END).
 */
struct soft_op *decode_emit_call(struct soft_decoder *d, enum soft_op_kind kind,
                                 soft_helper *helper);
struct soft_op *decode_emit_call_mem(struct soft_decoder *d, enum soft_op_kind kind,
                                     soft_helper *helper, unsigned size, enum soft_access access);
/*
 * A step before the operation with the memory operand: the helper leaves the offset in its segment,
 * which it makes of the operand's terms, in SOFT_REG_TEMP.
 */
struct soft_op *decode_emit_address(struct soft_decoder *d, soft_helper *helper);
/* The address alone, without a segment. */
struct soft_op *decode_emit_lea(struct soft_decoder *d, enum soft_op_kind kind);
enum soft_decoded decode_emit_raise(struct soft_decoder *d, enum soft_vector vector,
                                    uint32_t error_code);

/* The maps; `opcode` is the byte after 0F in the second. */
enum soft_decoded decode_one_byte(struct soft_decoder *d, uint8_t opcode);
enum soft_decoded decode_two_byte(struct soft_decoder *d, uint8_t opcode);
enum soft_decoded decode_jcc(struct soft_decoder *d, uint8_t opcode, bool is_short_form);
/* Points a branch at `displacement` after the end of the instruction. */
void decode_set_target(struct soft_decoder *d, struct soft_op *op, int64_t displacement);

/*
 * sse.c: what follows 0F and no integer instruction claims (opcode 0x38 and 0x3a too: the next byte
 * is still to be read). x87.c: `opcode` 0xd8 to 0xdf and 0x9b (WAIT). Both read ModRM themselves
 * and look at d->mode for EM, TS, MP and OSFXSR.
 */
enum soft_decoded sse_decode(struct soft_decoder *d, uint8_t opcode);
/* LDMXCSR and STMXCSR, ModRM read and found to be one of them. */
enum soft_decoded sse_decode_mxcsr(struct soft_decoder *d);
enum soft_decoded x87_decode(struct soft_decoder *d, uint8_t opcode);

#endif
