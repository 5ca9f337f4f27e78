/* SPDX-License-Identifier: MIT */
/* fuzz_compare: what must agree between two runs of a case, and how to say that it does not. */
#ifndef TESTS_SOFTFUZZ_FUZZ_COMPARE_H
#define TESTS_SOFTFUZZ_FUZZ_COMPARE_H

#include "tests/softfuzz/fuzz_case.h"

bool fuzz_compare(const struct fuzz_case *c, const struct fuzz_result *native,
                  const struct fuzz_result *soft);
/* Prints the case and every difference to stdout. */
void fuzz_compare_report(const struct fuzz_case *c, const struct fuzz_result *native,
                         const struct fuzz_result *soft);

#endif
