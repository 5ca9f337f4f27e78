/* SPDX-License-Identifier: MIT */
/* fuzz_parse: a look at an instruction's bytes, independent of the decoder under test. */
#ifndef TESTS_SOFTFUZZ_FUZZ_PARSE_H
#define TESTS_SOFTFUZZ_FUZZ_PARSE_H

#include "tests/softfuzz/fuzz_case.h"

struct fuzz_parsed {
    unsigned opcode_at;
    unsigned map; /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A */
    uint8_t opcode;
    uint8_t rex, repeat; /* rex: VEX's bits as well */
    bool has_66, has_67, has_lock, has_cs;
    bool is_vex, is_256;
    uint8_t pp; /* VEX's: 0, 1 for 66, 2 for F3, 3 for F2 */
    uint8_t segment;
    bool has_modrm;
    unsigned modrm_at;
    uint8_t modrm;
};

void fuzz_parse(const struct fuzz_case *c, struct fuzz_parsed *p);
/* Whether what stands at that opcode has a ModRM byte. */
bool fuzz_parse_has_modrm(unsigned map, uint8_t opcode);
/* A gather: the index of its address is a vector. */
bool fuzz_parse_is_gather(const struct fuzz_parsed *p);

#endif
