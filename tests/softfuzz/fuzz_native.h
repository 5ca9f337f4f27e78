/* SPDX-License-Identifier: MIT */
/*
 * fuzz_native: runs a case on the host's own CPU, in a page that is writable and executable: the
 * test's privilege, not evisor's.
 */
#ifndef TESTS_SOFTFUZZ_FUZZ_NATIVE_H
#define TESTS_SOFTFUZZ_FUZZ_NATIVE_H

#include "tests/softfuzz/fuzz_case.h"

/* 0, or -errno if the fixed addresses are not to be had. */
int fuzz_native_init(bool is_32);
/* Again, where somebody else took them over in between (as a test framework does). */
void fuzz_native_catch_signals(void);
void fuzz_native_run(const struct fuzz_case *c, struct fuzz_result *result);

#endif
