/* SPDX-License-Identifier: MIT */
/* crypto: AES, carry-less multiplication, SHA and random numbers, all by the host's instructions.
 */
#ifndef VMM_SOFT_CRYPTO_H
#define VMM_SOFT_CRYPTO_H

#include "vmm/soft/decode.h"
#include "vmm/soft/sse.h"

/* Of maps 2 (0F 38) and 3 (0F 3A), without VEX; NULL where there is no such form. */
const struct sse_form *crypto_find(unsigned map, enum sse_prefix prefix, uint8_t opcode);
/* RDRAND and RDSEED: 0F C7 with ModRM read, a register form of /6 or /7. */
enum soft_decoded crypto_decode_random(struct soft_decoder *d);

#endif
