/* SPDX-License-Identifier: MIT */
/* fuzz_vex: random instructions with a VEX prefix. */
#ifndef TESTS_SOFTFUZZ_FUZZ_VEX_H
#define TESTS_SOFTFUZZ_FUZZ_VEX_H

#include "tests/softfuzz/fuzz_parse.h"

/* Fills the bytes from `at` on. */
void fuzz_vex_make_bytes(struct fuzz_case *c, unsigned at, uint64_t *seed);
/* Small numbers into the vector that a gather has for an index, mostly. */
void fuzz_vex_make_indexes(struct fuzz_case *c, const struct fuzz_parsed *p, unsigned number);
/* False for what hosts may have and the software CPU has not. */
bool fuzz_vex_is_safe(const struct fuzz_parsed *p);

#endif
