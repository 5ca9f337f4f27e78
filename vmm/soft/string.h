/* SPDX-License-Identifier: MIT */
/* string: MOVS, CMPS, STOS, LODS, SCAS, INS and OUTS, repeated or not. */
#ifndef VMM_SOFT_STRING_H
#define VMM_SOFT_STRING_H

#include "vmm/soft/decode.h"

enum soft_decoded string_decode(struct soft_decoder *d, uint8_t opcode);

#endif
