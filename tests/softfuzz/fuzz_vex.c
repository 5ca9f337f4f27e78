/* SPDX-License-Identifier: MIT */
/* fuzz_vex: random instructions with a VEX prefix. */
#include "tests/softfuzz/fuzz_vex.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"

#define FX_XMM 160

static uint8_t make_opcode(uint64_t *seed, unsigned map)
{
    static const struct {
        uint8_t map, first, last;
    } ranges[] = {
        {1, 0x10, 0x17}, {1, 0x28, 0x2f}, {1, 0x50, 0x7f}, {1, 0xc2, 0xc6}, {1, 0xd0, 0xff},
        {1, 0x51, 0x5f}, {2, 0x00, 0x1e}, {2, 0x20, 0x41}, {2, 0x45, 0x47}, {2, 0x58, 0x5a},
        {2, 0x78, 0x79}, {2, 0x8c, 0x93}, {2, 0x96, 0xbf}, {2, 0xf2, 0xf7}, {3, 0x00, 0x0f},
        {3, 0x14, 0x22}, {2, 0xdb, 0xdf}, {3, 0xdf, 0xdf}, {3, 0x38, 0x4c}, {3, 0x60, 0x63},
        {3, 0xf0, 0xf0},
    };
    uint64_t x = fuzz_random(seed);

    if (x % 16 == 0)
        return (uint8_t)(x >> 8);
    for (;;) {
        x = fuzz_random(seed);
        unsigned i = (unsigned)(x % ARRAY_SIZE(ranges));

        if (ranges[i].map == map)
            return (uint8_t)(ranges[i].first + (x >> 16) % (ranges[i].last - ranges[i].first + 1u));
    }
}

void fuzz_vex_make_bytes(struct fuzz_case *c, unsigned at, uint64_t *seed)
{
    static const uint8_t prefixes[] = {0, 1, 1, 1, 2, 3, 0, 1};
    uint64_t x = fuzz_random(seed);
    unsigned map = 1 + (unsigned)(x % 3);
    /* As the prefix has it: inverted. Most instructions without a second source want it so. */
    uint8_t vvvv = x >> 8 & 1 ? 15 : x >> 12 & 15;
    uint8_t last = (uint8_t)(vvvv << 3 | (x >> 16 & 1) << 2 | prefixes[x >> 20 & 7]);
    uint8_t opcode = make_opcode(seed, map);
    bool is_short = map == 1 && x >> 24 & 1;

    if (x >> 52 % 64 == 0)
        map = x >> 40 & 31;
    c->bytes[at++] = is_short ? 0xc5 : 0xc4;
    if (is_short) {
        c->bytes[at++] = (uint8_t)(last | (c->is_32 ? 0xc0 : x >> 32 & 0x80));
    } else {
        c->bytes[at++] = (uint8_t)(map | (c->is_32 ? 0xc0 | (x >> 32 & 0x20) : x >> 32 & 0xe0));
        c->bytes[at++] = (uint8_t)(last | (x >> 48 & 0x80));
    }
    c->bytes[at++] = opcode;
    x = fuzz_random(seed);
    c->bytes[at++] = (uint8_t)(x >> 8 | (x & 1 ? 0xc0 : 0));
    if ((opcode & 0xfc) == 0x90 && x & 6) /* gathers have a SIB byte */
        c->bytes[at - 1] = (uint8_t)((c->bytes[at - 1] & 0x78) | (x >> 16 & 0x80) | 4);
    while (at < FUZZ_INSTRUCTION_MAX)
        c->bytes[at++] = (uint8_t)fuzz_random(seed);
}

void fuzz_vex_make_indexes(struct fuzz_case *c, const struct fuzz_parsed *p, unsigned number)
{
    uint64_t seed = c->seed;
    bool is_long = p->opcode & 1;

    for (unsigned half = 0; half < 2; half++) {
        uint8_t *to = half ? c->in.ymm_high[number] : c->in.fx + FX_XMM + 16 * number;

        for (unsigned at = 0; at < 16; at += is_long ? 8 : 4) {
            int64_t index = (int64_t)(fuzz_random(&seed) & 0xff) - 0x80;

            if (fuzz_random(&seed) % 64 == 0)
                continue;
            if (is_long)
                store_le64(to + at, (uint64_t)index);
            else
                store_le32(to + at, (uint32_t)index);
        }
    }
}

/* The ranges that no feature offered has: AVX-512's mask registers, AMX, AES of 256 bits. */
bool fuzz_vex_is_safe(const struct fuzz_parsed *p)
{
    switch (p->map) {
    case 1:
        if (p->opcode == 0xae) /* VMX, and the like of XSAVE, are no VEX instructions */
            return (p->modrm >> 3 & 6) == 2;
        return !((p->opcode >= 0x41 && p->opcode <= 0x4b) ||
                 (p->opcode >= 0x90 && p->opcode <= 0x99));
    case 2:
        switch (p->opcode) {
        case 0x48 ... 0x57: /* AMX, VNNI */
        case 0x5b ... 0x77:
        case 0x7a ... 0x8b:
        case 0xb0 ... 0xb5:
        case 0xc0 ... 0xda: /* GFNI, SM3 */
        case 0xe0 ... 0xf1: /* CMPCCXADD */
            return false;
        case 0xdb ... 0xdf: /* AES */
            return !p->is_256;
        default:
            return true;
        }
    case 3:
        switch (p->opcode) {
        case 0x30 ... 0x33: /* KSHIFT */
        case 0xce ... 0xde:
            return false;
        case 0x44: /* PCLMULQDQ */
            return !p->is_256;
        default:
            return true;
        }
    default:
        return p->map == 0 || p->map > 7;
    }
}
