/* SPDX-License-Identifier: MIT */
/* fuzz_case: makes random instructions and the states they start from. */
#include "tests/softfuzz/fuzz_case.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/softfuzz/fuzz_parse.h"
#include "tests/softfuzz/fuzz_vex.h"

uint64_t fuzz_random(uint64_t *seed)
{
    uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static bool one_in(uint64_t *seed, unsigned n)
{
    return fuzz_random(seed) % n == 0;
}

/* --- Bytes --- */

static uint8_t make_opcode(uint64_t *seed, enum fuzz_set set, unsigned *map)
{
    uint64_t x = fuzz_random(seed);

    switch (set) {
    case FUZZ_SET_INTEGER:
        *map = x & 1;
        break;
    case FUZZ_SET_SSE:
        *map = x % 16 == 0 ? 2 : x % 16 == 1 ? 3 : 1;
        break;
    case FUZZ_SET_X87:
        *map = 0;
        return (uint8_t)(0xd8 + (x >> 8 & 7));
    default:
        *map = x % 16 < 6 ? 0 : x % 16 < 14 ? 1 : x % 16 == 14 ? 2 : 3;
        if (*map == 0 && x >> 4 & 1 && x >> 5 & 1)
            return (uint8_t)(0xd8 + (x >> 8 & 7));
        break;
    }
    if (set == FUZZ_SET_SSE && *map == 1) {
        static const uint8_t ranges[][2] = {{0x10, 0x17}, {0x28, 0x2f}, {0x50, 0x7f},
                                            {0xc2, 0xc6}, {0xd0, 0xff}, {0x50, 0x5f}};
        const uint8_t *range = ranges[(x >> 16) % ARRAY_SIZE(ranges)];

        return (uint8_t)(range[0] + (x >> 24) % (range[1] - range[0] + 1u));
    }
    return (uint8_t)(x >> 8);
}

void fuzz_case_make_bytes(struct fuzz_case *c, uint64_t seed, enum fuzz_set set)
{
    static const uint8_t odd_prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x65, 0x66,
                                           0x67, 0xf0, 0xf2, 0xf3, 0x48, 0x40};
    unsigned at = 0, map;
    uint8_t opcode = make_opcode(&seed, set, &map);
    uint64_t x = fuzz_random(&seed);

    memset(c->bytes, 0, sizeof(c->bytes));
    if (x % 16 == 0)
        for (unsigned n = 1 + (unsigned)(x >> 4) % 3; n; n--)
            c->bytes[at++] = odd_prefixes[fuzz_random(&seed) % ARRAY_SIZE(odd_prefixes)];
    x >>= 8;
    if (set == FUZZ_SET_VEX || (set == FUZZ_SET_ALL && x >> 32 & 1)) {
        fuzz_vex_make_bytes(c, at, &seed);
        return;
    }
    if (map) {
        static const uint8_t mandatory[] = {0, 0x66, 0xf3, 0xf2};
        unsigned which = x & 7;

        which = which < 4 ? which : which < 6 ? 1 : 0;
        if (mandatory[which])
            c->bytes[at++] = mandatory[which];
    } else if (x % 8 == 0) {
        c->bytes[at++] = 0x66;
    } else if (x % 8 == 1) {
        c->bytes[at++] = x & 16 ? 0xf2 : 0xf3;
    }
    if (x >> 8 & 1 && !c->is_32)
        c->bytes[at++] = (uint8_t)(0x40 | (x >> 12 & 15));
    if (map)
        c->bytes[at++] = 0x0f;
    if (map > 1)
        c->bytes[at++] = map == 2 ? 0x38 : 0x3a;
    c->bytes[at++] = opcode;
    x = fuzz_random(&seed);
    if (fuzz_parse_has_modrm(map, opcode) && x & 3)
        c->bytes[at++] = (uint8_t)(x >> 8 | (x & 4 ? 0xc0 : 0));
    while (at < FUZZ_INSTRUCTION_MAX)
        c->bytes[at++] = (uint8_t)fuzz_random(&seed);
}

/* --- What must not run on the host --- */

static bool is_safe_one_byte(const struct fuzz_parsed *p)
{
    unsigned reg = p->modrm >> 3 & 7;

    switch (p->opcode) {
    case 0x8c: /* the host's selectors */
    case 0x8e: /* segment loads would break the host's thread pointer */
    case 0x62: /* EVEX */
    case 0xc2: /* far and near returns, calls through memory: they lead anywhere */
    case 0xc3:
    case 0xca:
    case 0xcb:
    case 0xcf:
    case 0xcc:
    case 0xcd: /* INT n is a system call */
    case 0xf1:
    case 0x9d: /* POPF could set TF */
        return false;
    case 0xc6: /* XABORT and XBEGIN exist on some hosts */
    case 0xc7:
        return reg == 0 || p->modrm < 0xc0;
    case 0xff:
        return reg < 2 || reg == 6 || reg == 7;
    case 0x8f: /* XOP on some */
        return reg == 0;
    case 0xd9: /* D9 D8 is FSTP on some, without its stack fault */
        return (p->modrm & 0xf8) != 0xd8;
    default:
        return true;
    }
}

static bool is_safe_0f01(const struct fuzz_parsed *p)
{
    /* Memory forms fault alike or store descriptor tables, which differ; few registers are known.
     */
    return p->modrm < 0xc0 && (p->modrm >> 3 & 7) != 0 && (p->modrm >> 3 & 7) != 1 &&
           (p->modrm >> 3 & 7) != 4 && (p->modrm >> 3 & 7) != 5;
}

static bool is_safe_0fae(const struct fuzz_parsed *p)
{
    unsigned reg = p->modrm >> 3 & 7;

    /* XSAVE and what hosts may have besides: FSGSBASE, CET, PTWRITE, CLWB, UMWAIT. */
    if (p->repeat || p->has_66)
        return false;
    return p->modrm >= 0xc0 ? reg >= 5 : reg < 4 || reg == 7;
}

static bool is_safe_two_byte(const struct fuzz_parsed *p)
{
    unsigned reg = p->modrm >> 3 & 7;

    switch (p->opcode) {
    case 0x00: /* SLDT and such: the host's tables; UMIP faults or not */
    case 0x05: /* SYSCALL, SYSENTER */
    case 0x34:
    case 0x35:
    case 0x07:
    case 0x31: /* RDTSC, RDPMC, CPUID: not repeatable */
    case 0x33:
    case 0xa2:
    case 0xa1: /* POP FS and GS, LSS and such */
    case 0xa9:
    case 0xb2:
    case 0xb4:
    case 0xb5:
    case 0xa0: /* the host's selectors */
    case 0xa8:
    case 0x02: /* LAR, LSL: the host's tables */
    case 0x03:
    case 0xa6: /* PadLock */
    case 0xa7:
    case 0x0e: /* 3DNow! */
    case 0x0f:
    case 0x0a:
    case 0x0c:
    case 0x04:
    case 0x24 ... 0x27:
    case 0x36 ... 0x37: /* GETSEC */
    case 0x39:
    case 0x3b ... 0x3f:
    case 0x78 ... 0x79: /* SSE4a, VMX */
    case 0x7a ... 0x7b:
        return false;
    case 0x01:
        return is_safe_0f01(p);
    case 0xae:
        return is_safe_0fae(p);
    case 0xc7: /* RDRAND, XSAVES, VMX */
        return reg == 1 && p->modrm < 0xc0;
    case 0xb8: /* POPCNT and friends are on or off by CPUID */
        return p->repeat == 0xf3 && !p->has_lock;
    case 0x1e: /* CET */
        return p->repeat != 0xf3;
    case 0x1a: /* MPX: NOPs with rules of their own */
    case 0x1b:
        return false;
    default:
        return true;
    }
}

static bool is_safe_0f38(const struct fuzz_parsed *p)
{
    switch (p->opcode) {
    case 0x00 ... 0x0b:
    case 0x1c ... 0x1e:
    case 0x10 ... 0x17:
    case 0x20 ... 0x25:
    case 0x28 ... 0x2b:
    case 0x30 ... 0x41:
        return true;
    case 0xc8 ... 0xcd: /* SHA */
        return true;
    case 0xdb ... 0xdf: /* AES; with F3 the Key Locker's */
        return !p->repeat;
    case 0xf0:
    case 0xf1:
        return true;
    default:
        return false;
    }
}

static bool is_safe_0f3a(const struct fuzz_parsed *p)
{
    switch (p->opcode) {
    case 0x08 ... 0x0f:
    case 0x14 ... 0x17:
    case 0x20 ... 0x22:
    case 0x40 ... 0x42:
    case 0x44: /* PCLMULQDQ */
    case 0x60 ... 0x63:
    case 0xcc: /* SHA1RNDS4 */
    case 0xdf: /* AESKEYGENASSIST */
        return true;
    default:
        return false;
    }
}

/* A locked access across cache lines may be punished by the host's kernel. */
static bool is_split_lock(const struct fuzz_case *c, const struct fuzz_parsed *p)
{
    bool is_locked = p->has_lock || (p->map == 0 && (p->opcode == 0x86 || p->opcode == 0x87));

    return is_locked && p->has_modrm && p->modrm < 0xc0 && (!c->operand || (c->operand & 63) > 48);
}

/* BT and its like with a register index reach far from their operand. */
static bool is_bit_string(const struct fuzz_parsed *p)
{
    return p->map == 1 && !p->is_vex &&
           (p->opcode == 0xa3 || p->opcode == 0xab || p->opcode == 0xb3 || p->opcode == 0xbb);
}

/* What only 32-bit code has: segment registers, far jumps, branches to 16-bit addresses. */
static bool is_safe_32(const struct fuzz_parsed *p)
{
    bool is_near = (p->map == 1 && (p->opcode & 0xf0) == 0x80) ||
                   (p->map == 0 && ((p->opcode & 0xf0) == 0x70 || (p->opcode & 0xf8) == 0xe8 ||
                                    (p->opcode & 0xfc) == 0xe0));

    /*
     * Let off by name: VCVTPS2PH has set its flags in MXCSR when a store is forbidden; LOCK MOV
     * CR0 is CR8 on some; the x87 may hold a store back before it is forbidden.
     */
    bool is_odd = (p->is_vex && p->has_cs && p->map == 3 && p->opcode == 0x1d) ||
                  (p->map == 1 && p->has_lock && (p->opcode & 0xfd) == 0x20) ||
                  (p->map == 0 && p->has_cs && (p->opcode & 0xf8) == 0xd8);

    if (p->segment || is_odd || (is_near && p->has_66))
        return false;
    if (p->map)
        return true;
    switch (p->opcode) {
    case 0x06:
    case 0x07:
    case 0x0e:
    case 0x16:
    case 0x17:
    case 0x1e:
    case 0x1f:
    case 0x9a:
    case 0xea:
    case 0xc4: /* LES and LDS, where they are not VEX */
    case 0xc5:
    case 0xce: /* INTO */
        return false;
    default:
        return true;
    }
}

bool fuzz_case_is_safe(const struct fuzz_case *c)
{
    struct fuzz_parsed p;

    fuzz_parse(c, &p);
    if (p.segment == 0x64 || is_split_lock(c, &p) || (c->is_32 && !is_safe_32(&p)))
        return false;
    if (p.is_vex)
        return fuzz_vex_is_safe(&p);
    switch (p.map) {
    case 0:
        return is_safe_one_byte(&p);
    case 1:
        return is_safe_two_byte(&p);
    case 2:
        return is_safe_0f38(&p);
    default:
        return is_safe_0f3a(&p);
    }
}

/* --- Values --- */

static uint64_t make_integer(uint64_t *seed)
{
    uint64_t x = fuzz_random(seed), v = fuzz_random(seed);

    switch (x & 15) {
    case 0:
        return (uint64_t)(int64_t)(int8_t)v;
    case 1:
        return (uint32_t)v;
    case 2:
        return UINT64_C(1) << (v & 63);
    case 3:
        return (UINT64_C(1) << (v & 63)) - 1;
    case 4:
        return (uint64_t)(int64_t)(int32_t)v;
    case 5:
        return v & 0xff;
    case 6:
        return 0;
    default:
        return v;
    }
}

static uint32_t make_single(uint64_t *seed)
{
    static const uint32_t special[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                       0xff800000, 0x7fc00000, 0x7f800001, 0x00000001, 0x007fffff,
                                       0x00800000, 0x7f7fffff, 0x4f000000, 0xcf000000, 0x3f000000};
    uint64_t x = fuzz_random(seed);

    if ((x & 3) == 0)
        return special[(x >> 8) % ARRAY_SIZE(special)];
    if ((x & 3) == 1) /* near one, so that exponents meet */
        return (uint32_t)(x >> 32 & 0x807fffff) | (uint32_t)(120 + (x >> 8 & 15)) << 23;
    return (uint32_t)(x >> 32);
}

static uint64_t make_double(uint64_t *seed)
{
    static const uint64_t special[] = {0,
                                       UINT64_C(1) << 63,
                                       0x3ff0000000000000,
                                       0xbff0000000000000,
                                       0x7ff0000000000000,
                                       0xfff0000000000000,
                                       0x7ff8000000000000,
                                       0x7ff0000000000001,
                                       1,
                                       0x000fffffffffffff,
                                       0x0010000000000000,
                                       0x7fefffffffffffff,
                                       0x43e0000000000000,
                                       0xc3e0000000000000,
                                       0x41e0000000000000};
    uint64_t x = fuzz_random(seed), v = fuzz_random(seed);

    if ((x & 3) == 0)
        return special[(x >> 8) % ARRAY_SIZE(special)];
    if ((x & 3) == 1)
        return (v & 0x800fffffffffffff) | (1016 + (x >> 8 & 15)) << 52;
    return v;
}

static void make_vector(uint64_t *seed, uint8_t to[16])
{
    uint64_t x = fuzz_random(seed);

    for (unsigned i = 0; i < 2; i++) {
        uint64_t value;

        switch (x & 3) {
        case 0:
            value = make_double(seed);
            break;
        case 1:
            value = (uint64_t)make_single(seed) << 32;
            value |= make_single(seed);
            break;
        case 2:
            value = make_integer(seed);
            break;
        default:
            value = fuzz_random(seed);
            break;
        }
        store_le64(to + 8 * i, value);
    }
}

static void make_extended(uint64_t *seed, uint8_t to[16])
{
    uint64_t x = fuzz_random(seed), mantissa = fuzz_random(seed) | UINT64_C(1) << 63;
    unsigned exponent = 0x3fff;

    memset(to, 0, 16);
    switch (x & 15) {
    case 0:
        exponent = 0, mantissa = 0;
        break;
    case 1:
        exponent = 0x7fff, mantissa = UINT64_C(1) << 63;
        break;
    case 2:
        exponent = 0x7fff;
        break;
    case 3:
        exponent = 0, mantissa >>= x >> 8 & 63;
        break;
    case 4: /* numbers that no FPU makes any more */
        mantissa = fuzz_random(seed), exponent = x >> 8 & 0x7fff;
        break;
    case 5:
        mantissa = UINT64_C(1) << 63;
        break;
    case 6:
        exponent = x >> 8 & 0x7fff;
        break;
    default:
        exponent = 0x3fff - 40 + (unsigned)(x >> 8) % 104;
        break;
    }
    store_le64(to, mantissa);
    store_le16(to + 8, (uint16_t)(exponent | (x >> 40 & 1) << 15));
}

/* --- State --- */

static void make_fpu(uint64_t *seed, uint8_t *fx)
{
    uint64_t x = fuzz_random(seed);
    unsigned masks = 0x3f, status = (unsigned)(x >> 8 & 0x4700);

    memset(fx, 0, 512);
    if (x % 8 == 0)
        masks = x >> 32 & 0x3f;
    store_le16(fx, (uint16_t)(0x40 | masks | (x & 0xf00)));
    if (x >> 40 & 1)
        status |= (x >> 41 & 7) << 11;
    if ((x >> 44 & 31) == 0)
        status |= x >> 50 & 0x3f;
    if (status & ~masks & 0x3f)
        status |= 0x8080;
    store_le16(fx + 2, (uint16_t)status);
    fx[4] = x >> 60 & 1 ? 0xff : (uint8_t)fuzz_random(seed);
    x = fuzz_random(seed);
    masks = 0x1f80;
    if (x % 8 == 0)
        masks = x >> 8 & 0x1f80;
    store_le32(fx + 24,
               (uint32_t)(masks | (x & 0x10 ? x >> 16 & 0x6000 : 0) |
                          (x & 0x60 ? 0 : x >> 24 & 0x8040) | (x & 0x80 ? 0 : x >> 32 & 0x3f)));
    for (unsigned i = 0; i < 8; i++)
        make_extended(seed, fx + 32 + 16 * i);
    for (unsigned i = 0; i < 16; i++)
        make_vector(seed, fx + 160 + 16 * i);
}

static void make_upper_halves(uint64_t *seed, uint8_t ymm[16][16])
{
    for (unsigned i = 0; i < 16; i++)
        make_vector(seed, ymm[i]);
}

/* An address for an operand: mostly inside, sometimes at an edge, sometimes nowhere. */
static uint64_t make_address(uint64_t *seed)
{
    uint64_t x = fuzz_random(seed);
    uint64_t middle = FUZZ_DATA_BASE + 0x800 + (x >> 16 & 0xff0);

    switch (x & 63) {
    case 0:
        return FUZZ_DATA_BASE - (x >> 16 & 15);
    case 1: /* the last writable and the read-only page */
        return FUZZ_DATA_BASE + FUZZ_DATA_BYTES - (x >> 16 & 15);
    case 2:
        return FUZZ_DATA_BASE + FUZZ_DATA_BYTES + (x >> 16 & 0xff);
    case 3:
        return FUZZ_DATA_BASE + 0x1000 - (x >> 16 & 15); /* two pages */
    case 4:
        return x & 64 ? UINT64_C(0x800000000000) + (x >> 16 & 0xff) : x | UINT64_C(1) << 62;
    default:
        break;
    }
    return (x & 0xc0) == 0 ? middle + (x >> 32 & 15) : middle;
}

static uint64_t sign_extend_disp(const uint8_t *bytes, unsigned size)
{
    return size == 1 ? (uint64_t)(int8_t)bytes[0] : (uint64_t)(int64_t)(int32_t)load_le32(bytes);
}

/* Makes base or displacement such that the operand is at `address`. */
static void aim(struct fuzz_case *c, const struct fuzz_parsed *p, uint64_t address)
{
    unsigned mod = p->modrm >> 6, rm = p->modrm & 7, at = p->modrm_at + 1;
    unsigned base = rm | (p->rex & 1u) << 3, index = 4, scale = 0;
    uint64_t sum = 0;

    if (at + 5 > FUZZ_INSTRUCTION_MAX)
        return;
    if (rm == 4) {
        uint8_t sib = c->bytes[at++];

        base = (sib & 7) | (p->rex & 1u) << 3;
        index = (sib >> 3 & 7) | (p->rex & 2u) << 2;
        scale = sib >> 6;
        if (fuzz_parse_is_gather(p)) {
            fuzz_vex_make_indexes(c, p, index);
            index = 4;
        }
    }
    if (index != 4)
        sum = c->in.gpr[index] << scale;
    if (mod == 0 && (rm == 4 ? (base & 7) == 5 : rm == 5)) {
        if (rm == 5 && !c->is_32) /* RIP-relative; the instruction's end is fixed */
            sum = FUZZ_CODE_END - (c->has_branch ? FUZZ_BRANCH_BYTES : 0);
        else if (index != 4)
            c->in.gpr[index] = sum = 0;
        store_le32(c->bytes + at, (uint32_t)(address - sum));
        c->operand = sum + (uint64_t)(int64_t)(int32_t)(address - sum);
        return;
    }
    if (mod)
        sum += sign_extend_disp(c->bytes + at, mod == 1 ? 1 : 4);
    if (index != 4 && index == base) {
        uint64_t times = 1 + (UINT64_C(1) << scale), disp = sum - (c->in.gpr[index] << scale);

        c->in.gpr[base] = (address - disp) / times;
        c->operand = c->in.gpr[base] * times + disp;
        return;
    }
    c->in.gpr[base] = address - sum;
    c->operand = address;
}

static bool is_string(const struct fuzz_parsed *p)
{
    return p->map == 0 &&
           ((p->opcode >= 0xa4 && p->opcode <= 0xa7) || (p->opcode >= 0xaa && p->opcode <= 0xaf));
}

static void make_registers(struct fuzz_case *c, const struct fuzz_parsed *p, uint64_t *seed)
{
    for (unsigned i = 0; i < 16; i++)
        c->in.gpr[i] = make_integer(seed);
    c->in.gpr[4] = make_address(seed) & ~UINT64_C(7);
    if (is_bit_string(p))
        for (unsigned i = 0; i < 16; i++)
            if (i != 4)
                c->in.gpr[i] = (uint64_t)((int64_t)(fuzz_random(seed) & 0x1fff) - 0x1000);
    if (is_string(p)) {
        c->in.gpr[6] = make_address(seed);
        c->in.gpr[7] = make_address(seed);
        c->in.gpr[1] = fuzz_random(seed) & (p->repeat ? 31 : 0xff);
        /* When upper halves that 32-bit addresses do not use are cleared, CPUs decide. */
        if (p->has_67)
            c->in.gpr[6] = (uint32_t)c->in.gpr[6], c->in.gpr[7] = (uint32_t)c->in.gpr[7];
    }
    if (p->map == 1 && p->opcode == 0xf7) /* MASKMOV */
        c->in.gpr[7] = make_address(seed);
    if (p->map == 0 && p->opcode == 0xd7) {
        c->in.gpr[0] &= 0xff;
        c->in.gpr[3] = make_address(seed);
    }
    if (p->map == 0 && (p->opcode == 0xc8 || p->opcode == 0xc9))
        c->in.gpr[5] = make_address(seed);
    if (p->map == 1 && p->opcode == 0xc7 && fuzz_random(seed) & 1) /* CMPXCHG8B that matches */
        c->in.gpr[0] = c->in.gpr[2] = 0;
    if (p->map == 3 && p->opcode >= 0x60 && p->opcode < 0x64) { /* string lengths */
        c->in.gpr[0] = fuzz_random(seed) % 24;
        c->in.gpr[2] = fuzz_random(seed) % 24;
    }
}

/* Rotates, divisions, decimal arithmetic. */
static bool leaves_flags_undefined(const struct fuzz_parsed *p)
{
    return p->map == 0 &&
           ((p->opcode & 0xfe) == 0xc0 || (p->opcode & 0xfc) == 0xd0 ||
            (p->opcode & 0xfe) == 0xf6 || (p->opcode & 0xe7) == 0x27 || (p->opcode & 0xfe) == 0xd4);
}

/* Branches lead to FUZZ_TAKEN, which ends the run as well. */
static void aim_branch(struct fuzz_case *c, const struct fuzz_parsed *p)
{
    bool is_near = (p->map == 1 && !p->is_vex && (p->opcode & 0xf0) == 0x80) ||
                   (p->map == 0 && (p->opcode == 0xe8 || p->opcode == 0xe9));
    bool is_short = p->map == 0 && ((p->opcode & 0xf0) == 0x70 || p->opcode == 0xeb ||
                                    (p->opcode >= 0xe0 && p->opcode <= 0xe3));

    /* Nor after instructions that leave flags undefined. */
    if (is_near || is_short || leaves_flags_undefined(p))
        c->has_branch = false;
    if (is_near && p->opcode_at + 5 <= FUZZ_INSTRUCTION_MAX)
        store_le32(c->bytes + p->opcode_at + 1, FUZZ_TAKEN - FUZZ_CODE_END);
    if (is_short)
        c->bytes[p->opcode_at + 1] = FUZZ_TAKEN - FUZZ_CODE_END;
}

void fuzz_case_append_branch(struct fuzz_case *c)
{
    if (c->undefined || c->length + FUZZ_BRANCH_BYTES > FUZZ_INSTRUCTION_MAX)
        c->has_branch = false;
    if (!c->has_branch)
        return;
    c->bytes[c->length] = (uint8_t)(0x70 | (c->seed >> 12 & 15));
    c->bytes[c->length + 1] = FUZZ_TAKEN - FUZZ_CODE_END;
    c->length += FUZZ_BRANCH_BYTES;
}

/* What the operand holds should be as telling as the registers. */
static void make_data(struct fuzz_case *c, const struct fuzz_parsed *p, uint64_t *seed)
{
    static uint8_t noise[sizeof(c->data)];
    uint64_t at = c->operand - FUZZ_DATA_BASE;

    if (!noise[0])
        for (unsigned i = 0; i < sizeof(noise); i += 8) {
            static uint64_t noise_seed = 1;

            store_le64(noise + i, i % 64 ? fuzz_random(&noise_seed) | 1 : 1);
        }
    memcpy(c->data, noise, sizeof(noise));
    if (!range_fits(at, 512, FUZZ_DATA_BYTES))
        return;
    make_vector(seed, c->data + at);
    make_vector(seed, c->data + at + 16);
    if (p->map == 0 && (p->opcode & 0xf8) == 0xd8) {
        if (one_in(seed, 2))
            make_extended(seed, c->data + at);
        else if (one_in(seed, 4))
            for (unsigned i = 0; i < 10; i++) /* decimal digits */
                c->data[at + i] = (uint8_t)((fuzz_random(seed) % 10) << 4 | fuzz_random(seed) % 10);
    }
    if (p->map == 1 && p->opcode == 0xae) {
        make_fpu(seed, c->data + at);
        if (one_in(seed, 8))
            store_le32(c->data + at + 24, (uint32_t)fuzz_random(seed));
        if ((p->modrm >> 3 & 7) == 2)
            store_le32(c->data + at,
                       (uint32_t)(fuzz_random(seed) & (one_in(seed, 8) ? ~0u : 0xffff)));
    }
    if (p->map == 1 && p->opcode == 0xc7 && c->in.gpr[0] == 0)
        memset(c->data + at, 0, 16);
}

static void narrow(struct fuzz_case *c)
{
    for (unsigned i = 0; i < 16; i++)
        c->in.gpr[i] = i < 8 ? (uint32_t)c->in.gpr[i] : 0;
    memset(c->in.fx + 160 + 8 * 16, 0, 8 * 16);
    memset(c->in.ymm_high[8], 0, 8 * 16);
    c->operand = (uint32_t)c->operand;
}

void fuzz_case_make_state(struct fuzz_case *c, uint64_t seed)
{
    struct fuzz_parsed p;

    fuzz_parse(c, &p);
    c->seed = seed;
    c->operand = 0;
    c->has_branch = (seed >> 8 & 7) == 0;
    make_fpu(&seed, c->in.fx);
    make_upper_halves(&seed, c->in.ymm_high);
    make_registers(c, &p, &seed);
    if (p.has_modrm && p.modrm < 0xc0 && !(c->is_32 && p.has_67))
        aim(c, &p, make_address(&seed));
    aim_branch(c, &p);
    if (c->is_32)
        narrow(c);
    c->in.rflags = (fuzz_random(&seed) & 0x8d5) | 2 | (one_in(&seed, 8) ? 0x400 : 0) | 0x200;
    make_data(c, &p, &seed);
}
