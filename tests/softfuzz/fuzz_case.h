/* SPDX-License-Identifier: MIT */
/*
 * fuzz_case: one instruction with the state it starts from, and the state after it ran somewhere.
 *
 * Addresses are the same on the host and in the guest: a page of code whose last bytes are the
 * instruction, and four pages of data (nothing, two writable ones, a read-only one, nothing).
 */
#ifndef TESTS_SOFTFUZZ_FUZZ_CASE_H
#define TESTS_SOFTFUZZ_FUZZ_CASE_H

#include <stdbool.h>
#include <stdint.h>

#define FUZZ_STATE_BASE      0x10000000ul /* where the native side keeps its registers */
#define FUZZ_DATA_BASE       0x20001000ul
#define FUZZ_DATA_BYTES      0x2000u /* writable */
#define FUZZ_RDONLY_BYTES    0x1000u /* after them */
#define FUZZ_CODE_BASE       0x30000000ul
#define FUZZ_CODE_END        0x30001000ul /* the instruction ends here */
#define FUZZ_TAKEN           0x30001070ul /* where branches lead; near enough for the short ones */
#define FUZZ_INSTRUCTION_MAX 15
#define FUZZ_BRANCH_BYTES    2

struct fuzz_state {
    uint8_t fx[512] __attribute__((aligned(64))); /* FXSAVE's image: x87, MXCSR, XMM */
    uint8_t ymm_high[16][16];                     /* the upper halves of YMM */
    uint64_t gpr[16];
    uint64_t rflags;
    uint64_t rip;
};

struct fuzz_case {
    struct fuzz_state in;
    uint8_t bytes[16];
    unsigned length;  /* what the decoder under test says, with the branch */
    bool undefined;   /* the decoder refuses it */
    bool is_32;       /* in compatibility mode; set first of all */
    bool has_branch;  /* a conditional jump follows, which decoders may fuse with it */
    uint64_t seed;    /* of the state */
    uint64_t operand; /* the address of its memory operand, if it is a known one; 0 */
    uint8_t data[FUZZ_DATA_BYTES + FUZZ_RDONLY_BYTES];
};

struct fuzz_result {
    struct fuzz_state out;
    int vector; /* of the exception, -1 for none */
    uint32_t error_code;
    uint64_t cr2; /* of a page fault */
    uint8_t data[FUZZ_DATA_BYTES];
};

/* A splitmix64 step. */
uint64_t fuzz_random(uint64_t *seed);

/* Which instructions to make. */
enum fuzz_set {
    FUZZ_SET_ALL,
    FUZZ_SET_INTEGER,
    FUZZ_SET_SSE,
    FUZZ_SET_X87, /* and MMX */
    FUZZ_SET_VEX,
};

/* Random bytes of an instruction that may run on the host; prefixes, ModRM and all. */
void fuzz_case_make_bytes(struct fuzz_case *c, uint64_t seed, enum fuzz_set set);
/*
 * The state from `seed`, with registers and displacement such that a memory operand mostly lies in
 * the data. Patches the displacement in `bytes`, so it comes before decoding.
 */
void fuzz_case_make_state(struct fuzz_case *c, uint64_t seed);
/* Adds the branch to a decoded instruction if the case has one and there is room. */
void fuzz_case_append_branch(struct fuzz_case *c);
/* False if running these bytes on the host is not safe or not repeatable. */
bool fuzz_case_is_safe(const struct fuzz_case *c);

#endif
