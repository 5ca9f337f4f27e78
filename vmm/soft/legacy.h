/* SPDX-License-Identifier: MIT */
/* legacy: what exists, or works differently, outside 64-bit mode: stacks, BCD, far pointers. */
#ifndef VMM_SOFT_LEGACY_H
#define VMM_SOFT_LEGACY_H

#include "vmm/soft/decode.h"

/* The stack, with the stack segment's and the operand's size. `reg` is a byte offset. */
enum soft_decoded legacy_decode_push(struct soft_decoder *d, uint8_t reg);
enum soft_decoded legacy_decode_pop(struct soft_decoder *d, uint8_t reg);
enum soft_decoded legacy_decode_push_imm(struct soft_decoder *d, uint64_t imm);
enum soft_decoded legacy_decode_push_rm(struct soft_decoder *d);
enum soft_decoded legacy_decode_pop_rm(struct soft_decoder *d);
enum soft_decoded legacy_decode_pushf(struct soft_decoder *d);
enum soft_decoded legacy_decode_leave(struct soft_decoder *d);
enum soft_decoded legacy_decode_enter(struct soft_decoder *d, uint8_t opcode);
enum soft_decoded legacy_decode_ret(struct soft_decoder *d, uint16_t release);
enum soft_decoded legacy_decode_near_indirect(struct soft_decoder *d, bool is_call);
/* SOP_call_legacy; the caller sets its target. */
struct soft_op *legacy_emit_call(struct soft_decoder *d);
bool legacy_push_return(struct soft_cpu *cpu, const struct soft_op *op);

/* LOOPNE, LOOPE, LOOP, JCXZ (c 0 to 3), in all modes. */
bool legacy_loop(struct soft_cpu *cpu, const struct soft_op *op);

enum soft_decoded legacy_decode_arpl(struct soft_decoder *d);
/* The one-byte opcodes that 64-bit mode has not. */
enum soft_decoded legacy_decode(struct soft_decoder *d, uint8_t opcode);

#endif
