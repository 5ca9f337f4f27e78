/* SPDX-License-Identifier: MIT */
/* bmi: BMI1 and BMI2 behind VEX, and MOVBE. (TZCNT, LZCNT and POPCNT are in exec_bits.inc.) */
#ifndef VMM_SOFT_BMI_H
#define VMM_SOFT_BMI_H

#include "vmm/soft/vex.h"

bool bmi_is_vex(const struct vex_prefix *prefix, uint8_t opcode);
enum soft_decoded bmi_decode_vex(struct soft_decoder *d, const struct vex_prefix *prefix,
                                 uint8_t opcode);
/* 0F 38 F0 and F1 without F2 or F3; ModRM is still to be read. */
enum soft_decoded bmi_decode_movbe(struct soft_decoder *d, uint8_t opcode);

#endif
