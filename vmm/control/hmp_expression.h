/* SPDX-License-Identifier: MIT */
/*
 * hmp_expression: numbers as the human monitor takes them, as in QEMU: "$rip + 8".
 */
#ifndef VMM_CONTROL_HMP_EXPRESSION_H
#define VMM_CONTROL_HMP_EXPRESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/accel.h"

struct hmp_expression {
    const char *at;                       /* what is left of the text */
    const struct accel_vcpu_state *state; /* its regs and sregs; NULL: no registers are known */
    char error[64];
};

/*
 * Reads one expression: + and - of & | ^ of * / %, each level binding tighter, with + - ~ before a
 * number, a parenthesis, a 'c'haracter or a $register. `at` then stands behind it, and behind the
 * blanks that follow. False: `error` says why.
 */
bool hmp_expression_read(struct hmp_expression *expression, int64_t *out);

#endif
