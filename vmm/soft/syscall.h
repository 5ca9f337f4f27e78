/* SPDX-License-Identifier: MIT */
/* syscall: SYSCALL and SYSENTER with their returns, LDTR and TR, and the questions about selectors.
 */
#ifndef VMM_SOFT_SYSCALL_H
#define VMM_SOFT_SYSCALL_H

#include "vmm/soft/decode.h"

/* 0F 00, 02, 03, 05, 07, 34, 35. */
enum soft_decoded syscall_decode(struct soft_decoder *d, uint8_t opcode);

#endif
