/* SPDX-License-Identifier: MIT */
/* transfer: segment register moves, far jumps, calls and returns, and the system calls. */
#ifndef VMM_SOFT_TRANSFER_H
#define VMM_SOFT_TRANSFER_H

#include "vmm/soft/decode.h"

enum soft_decoded transfer_decode_mov_from_segment(struct soft_decoder *d, uint8_t opcode);
enum soft_decoded transfer_decode_mov_to_segment(struct soft_decoder *d, uint8_t opcode);
/* PUSH and POP of `opcode`'s segment register. */
enum soft_decoded transfer_decode_segment_stack(struct soft_decoder *d, uint8_t opcode);
/* LDS, LES, LSS, LFS, LGS. */
enum soft_decoded transfer_decode_load_far(struct soft_decoder *d, uint8_t opcode);
enum soft_decoded transfer_decode_far_indirect(struct soft_decoder *d, bool is_call);
enum soft_decoded transfer_decode_far_direct(struct soft_decoder *d, bool is_call);
enum soft_decoded transfer_decode_far_return(struct soft_decoder *d, uint8_t opcode);
enum soft_decoded transfer_decode_iret(struct soft_decoder *d);

#endif
