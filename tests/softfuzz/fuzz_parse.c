/* SPDX-License-Identifier: MIT */
/* fuzz_parse: a look at an instruction's bytes, independent of the decoder under test. */
#include "tests/softfuzz/fuzz_parse.h"

#include <string.h>

bool fuzz_parse_has_modrm(unsigned map, uint8_t opcode)
{
    if (map > 1)
        return true;
    if (map == 1) {
        switch (opcode) {
        case 0x05 ... 0x0c:
        case 0x0e:
        case 0x30 ... 0x37:
        case 0x77:
        case 0x80 ... 0x8f:
        case 0xa0 ... 0xa2:
        case 0xa8 ... 0xaa:
        case 0xc8 ... 0xcf:
            return false;
        default:
            return true;
        }
    }
    switch (opcode) {
    case 0x00 ... 0x3f:
        return (opcode & 7) < 4;
    case 0x62:
    case 0x63:
    case 0x69:
    case 0x6b:
    case 0x80 ... 0x8f:
    case 0xc0:
    case 0xc1:
    case 0xc4 ... 0xc7:
    case 0xd0 ... 0xd3:
    case 0xd8 ... 0xdf:
    case 0xf6:
    case 0xf7:
    case 0xfe:
    case 0xff:
        return true;
    default:
        return false;
    }
}

static bool parse_prefix(struct fuzz_parsed *p, uint8_t byte)
{
    switch (byte) {
    case 0x66:
        p->has_66 = true;
        break;
    case 0x67:
        p->has_67 = true;
        break;
    case 0xf0:
        p->has_lock = true;
        break;
    case 0xf2:
    case 0xf3:
        p->repeat = byte;
        break;
    case 0x64:
    case 0x65:
        p->segment = byte;
        break;
    case 0x2e:
        p->has_cs = true;
        break;
    case 0x26:
    case 0x36:
    case 0x3e:
        break;
    case 0x40 ... 0x4f:
        p->rex = byte;
        return true;
    default:
        return false;
    }
    p->rex = 0;
    return true;
}

/* C4 and C5 with what follows them, in 32-bit code only where LES and LDS would be senseless. */
static bool parse_vex(const struct fuzz_case *c, struct fuzz_parsed *p, unsigned at)
{
    const uint8_t *bytes = c->bytes + at;
    bool is_long = bytes[0] == 0xc4;
    uint8_t last = bytes[is_long ? 2 : 1];

    if ((bytes[0] & 0xfe) != 0xc4 || (c->is_32 && bytes[1] < 0xc0))
        return false;
    p->is_vex = true;
    p->map = is_long ? bytes[1] & 31 : 1;
    p->rex = (uint8_t)(0x40 | (~bytes[1] >> 5 & 4) | (is_long ? ~bytes[1] >> 5 & 3 : 0));
    p->rex |= is_long && last & 0x80 ? 8 : 0;
    if (c->is_32)
        p->rex = 0;
    p->is_256 = last & 4;
    p->pp = last & 3;
    p->opcode_at = at + (is_long ? 3 : 2);
    return true;
}

bool fuzz_parse_is_gather(const struct fuzz_parsed *p)
{
    return p->is_vex && p->map == 2 && p->opcode >= 0x90 && p->opcode <= 0x93;
}

void fuzz_parse(const struct fuzz_case *c, struct fuzz_parsed *p)
{
    const uint8_t *bytes = c->bytes;
    unsigned at = 0;

    memset(p, 0, sizeof(*p));
    while (at < 14 && !(c->is_32 && (bytes[at] & 0xf0) == 0x40) && parse_prefix(p, bytes[at]))
        at++;
    if (parse_vex(c, p, at)) {
        at = p->opcode_at;
    } else if (bytes[at] == 0x0f) {
        at++;
        p->map = bytes[at] == 0x38 ? 2 : bytes[at] == 0x3a ? 3 : 1;
        if (p->map > 1)
            at++;
    }
    p->opcode_at = at;
    p->opcode = bytes[at];
    p->has_modrm = fuzz_parse_has_modrm(p->map, p->opcode);
    p->modrm_at = at + 1;
    p->modrm = at + 1 < 15 ? bytes[at + 1] : 0xc0;
}
