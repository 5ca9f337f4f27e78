/* SPDX-License-Identifier: MIT */
/* fuzz_soft_cpu: runs a case in the software CPU, with the same addresses mapped. */
#ifndef TESTS_SOFTFUZZ_FUZZ_SOFT_CPU_H
#define TESTS_SOFTFUZZ_FUZZ_SOFT_CPU_H

#include "tests/softfuzz/fuzz_case.h"

void fuzz_soft_cpu_init(bool is_32);
/* Fills length and undefined. */
void fuzz_soft_cpu_decode(struct fuzz_case *c);
void fuzz_soft_cpu_run(const struct fuzz_case *c, struct fuzz_result *result);

#endif
