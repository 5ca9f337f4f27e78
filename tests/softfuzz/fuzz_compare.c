/* SPDX-License-Identifier: MIT */
/* fuzz_compare: what must agree between two runs of a case; undefined flags are let off by name. */
#include "tests/softfuzz/fuzz_compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/softfuzz/fuzz_parse.h"

#define FLAG_CF    0x001u
#define FLAG_PF    0x004u
#define FLAG_AF    0x010u
#define FLAG_ZF    0x040u
#define FLAG_SF    0x080u
#define FLAG_OF    0x800u
#define FLAGS_SEEN 0xcd5u /* arithmetic and DF */

#define MXCSR_OE    0x08u
#define MXCSR_UE    0x10u
#define MXCSR_PE    0x20u
#define MXCSR_FLAGS 0x3fu

#define FX_XMM 160
#define FX_END 416

struct difference {
    bool gpr, rflags, rip, fault, x87, mxcsr, xmm, ymm, data;
};

/* Where the opcode is, behind prefixes and 0F, or VEX. */
static const uint8_t *opcode_of(const struct fuzz_case *c, unsigned *map)
{
    struct fuzz_parsed p;

    fuzz_parse(c, &p);
    *map = p.map;
    return c->bytes + p.opcode_at;
}

/* Which instructions leave which flags undefined. */
struct undefined_flags {
    const char *name;
    uint8_t map; /* 0: one byte, 1: 0F */
    uint8_t first, last;
    uint8_t regs; /* ModRM.reg for which it holds, as bits */
    uint16_t flags;
};

/* The decimal ones are other instructions, or none, in 64-bit mode. */
static const struct undefined_flags undefined[] = {
    {"rol, ror, rcl, rcr by more than one", 0, 0xc0, 0xc1, 0x0f, FLAG_OF},
    {"the same by CL", 0, 0xd2, 0xd3, 0x0f, FLAG_OF},
    {"daa", 0, 0x27, 0x27, 0xff, FLAG_OF},
    {"das", 0, 0x2f, 0x2f, 0xff, FLAG_OF},
    {"aaa", 0, 0x37, 0x37, 0xff, FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF},
    {"aas", 0, 0x3f, 0x3f, 0xff, FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF},
    {"aam, aad", 0, 0xd4, 0xd5, 0xff, FLAG_OF | FLAG_AF | FLAG_CF},
    {"div, idiv", 0, 0xf6, 0xf7, 1 << 6 | 1 << 7,
     FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF},
};

static uint16_t undefined_of(const struct fuzz_case *c)
{
    unsigned map;
    const uint8_t *opcode = opcode_of(c, &map);

    for (unsigned i = 0; i < ARRAY_SIZE(undefined); i++)
        if (undefined[i].map == map && *opcode >= undefined[i].first &&
            *opcode <= undefined[i].last && undefined[i].regs >> (opcode[1] >> 3 & 7) & 1)
            return undefined[i].flags;
    return 0;
}

/* Ten bytes of each register count, the other six are reserved. */
static bool x87_differs(const uint8_t *a, const uint8_t *b)
{
    if (memcmp(a, b, 5))
        return true;
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(a + 32 + 16 * i, b + 32 + 16 * i, 10))
            return true;
    return false;
}

/* More than 15 bytes is #GP on a host even if the opcode is none: it counts the operands first. */
static bool may_be_too_long(const struct fuzz_case *c)
{
    unsigned map;

    return c->undefined && opcode_of(c, &map) - c->bytes >= 3;
}

/* The host kernel's half and the last page below it: some pages are there and others are not. */
static uint32_t error_code_bits(uint64_t address)
{
    return address >= UINT64_C(0x7ffffff00000) ? ~1u : ~0u;
}

static bool is_x87(const struct fuzz_case *c)
{
    unsigned map;
    const uint8_t *opcode = opcode_of(c, &map);

    return map == 0 && (*opcode & 0xf8) == 0xd8;
}

/* A fault of several bytes may be said to be at any of them: masked moves, FXSAVE, x87. */
static uint64_t address_bits(const struct fuzz_case *c)
{
    unsigned map;
    const uint8_t *opcode = opcode_of(c, &map);
    bool is_masked = map == 2 && ((*opcode & 0xfc) == 0x2c || *opcode == 0x8c || *opcode == 0x8e);
    bool is_long = is_x87(c) || is_masked || (map == 1 && (*opcode == 0xf7 || *opcode == 0xae));

    return is_long ? ~UINT64_C(0xfff) : ~UINT64_C(0);
}

/* The x87 stores in parts: the first may be done when the second faults. */
static bool has_partial_stores(const struct fuzz_case *c, const struct fuzz_result *native)
{
    return is_x87(c) && native->vector == 14;
}

static bool fault_differs(const struct fuzz_case *c, const struct fuzz_result *native,
                          const struct fuzz_result *soft)
{
    if (native->vector == 13 && soft->vector == 6 && may_be_too_long(c))
        return false;
    if (native->vector != soft->vector)
        return true;
    if (native->vector == 14)
        return ((native->error_code ^ soft->error_code) & error_code_bits(native->cr2)) ||
               ((native->cr2 ^ soft->cr2) & address_bits(c));
    return false;
}

/* A host may have put the top of the x87 stack to 0 before an MMX instruction faults. */
static bool is_mmx_fault(const struct fuzz_result *native)
{
    return native->vector >= 0 && !(native->out.fx[3] & 0x38);
}

/* With a trapping overflow or underflow, "inexact" is about an exponent that nobody sees. */
static bool mxcsr_differs(const struct fuzz_case *c, const struct fuzz_result *native,
                          const struct fuzz_result *soft)
{
    uint32_t n = load_le32(native->out.fx + 24), s = load_le32(soft->out.fx + 24);
    uint32_t seen = native->vector == 19 && n & (MXCSR_OE | MXCSR_UE) ? ~MXCSR_PE : ~0u;
    unsigned map;
    const uint8_t *opcode = opcode_of(c, &map);

    /* DPPS and DPPD: a trap in the products comes before the sums would raise anything. */
    if (native->vector == 19 && map == 3 && (*opcode == 0x40 || *opcode == 0x41))
        seen = ~MXCSR_FLAGS;
    return (n ^ s) & seen;
}

/* Repeated SCAS and CMPS that fault half-way: of which element the flags are, CPUs decide. */
static bool has_flags_of_any_element(const struct fuzz_case *c, const struct fuzz_result *native)
{
    unsigned map;
    uint8_t opcode = *opcode_of(c, &map) & 0xfe;

    return native->vector >= 0 && map == 0 && (opcode == 0xa6 || opcode == 0xae);
}

static struct difference differences(const struct fuzz_case *c, const struct fuzz_result *native,
                                     const struct fuzz_result *soft)
{
    const struct fuzz_state *n = &native->out, *s = &soft->out;
    uint64_t flags = FLAGS_SEEN & ~(uint64_t)undefined_of(c);

    if (has_flags_of_any_element(c, native))
        flags = 0;

    return (struct difference){
        .gpr = memcmp(n->gpr, s->gpr, sizeof(n->gpr)),
        .rflags = (n->rflags ^ s->rflags) & flags,
        .rip = n->rip != s->rip,
        .fault = fault_differs(c, native, soft),
        .x87 = x87_differs(n->fx, s->fx) && !is_mmx_fault(native),
        .mxcsr = mxcsr_differs(c, native, soft),
        .xmm = memcmp(n->fx + FX_XMM, s->fx + FX_XMM, FX_END - FX_XMM),
        .ymm = memcmp(n->ymm_high, s->ymm_high, sizeof(n->ymm_high)),
        .data = memcmp(native->data, soft->data, sizeof(native->data)) &&
                !has_partial_stores(c, native),
    };
}

bool fuzz_compare(const struct fuzz_case *c, const struct fuzz_result *native,
                  const struct fuzz_result *soft)
{
    struct difference d = differences(c, native, soft);

    return !(d.gpr || d.rflags || d.rip || d.fault || d.x87 || d.mxcsr || d.xmm || d.ymm || d.data);
}

/* --- Reporting --- */

static void print_bytes(const char *label, const uint8_t *bytes, unsigned length)
{
    printf("%s", label);
    for (unsigned i = 0; i < length; i++)
        printf("%02x", bytes[i]);
    printf("\n");
}

static void print_words(const char *name, unsigned n, uint64_t in, uint64_t native, uint64_t soft)
{
    printf("  %s%-2u before %016" PRIx64 " native %016" PRIx64 " soft %016" PRIx64 "\n", name, n,
           in, native, soft);
}

static void report_fx(const char *name, const uint8_t *in, const uint8_t *native,
                      const uint8_t *soft, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (!memcmp(native + 16 * i, soft + 16 * i, count == 8 ? 10 : 16))
            continue;
        print_words(name, i, load_le64(in + 16 * i), load_le64(native + 16 * i),
                    load_le64(soft + 16 * i));
        print_words("  high", i, load_le64(in + 16 * i + 8), load_le64(native + 16 * i + 8),
                    load_le64(soft + 16 * i + 8));
    }
}

static void report_data(const struct fuzz_case *c, const struct fuzz_result *native,
                        const struct fuzz_result *soft)
{
    unsigned shown = 0;

    for (unsigned i = 0; i < sizeof(native->data) && shown < 4; i += 8) {
        if (!memcmp(native->data + i, soft->data + i, 8))
            continue;
        print_words("data+", i, load_le64(c->data + i), load_le64(native->data + i),
                    load_le64(soft->data + i));
        shown++;
    }
}

void fuzz_compare_report(const struct fuzz_case *c, const struct fuzz_result *native,
                         const struct fuzz_result *soft)
{
    const struct fuzz_state *in = &c->in, *n = &native->out, *s = &soft->out;
    struct difference d = differences(c, native, soft);

    print_bytes("bytes ", c->bytes, c->length);
    printf("  length %u%s, state seed 0x%" PRIx64 ", operand at 0x%" PRIx64 "\n", c->length,
           c->undefined ? " (undefined)" : "", c->seed, c->operand);
    if (d.fault || d.rip)
        printf("  vector native %d soft %d, error code %x %x, cr2 %" PRIx64 " %" PRIx64
               ", rip %" PRIx64 " %" PRIx64 "\n",
               native->vector, soft->vector, native->error_code, soft->error_code, native->cr2,
               soft->cr2, n->rip, s->rip);
    for (unsigned i = 0; i < 16; i++)
        if (n->gpr[i] != s->gpr[i])
            print_words("r", i, in->gpr[i], n->gpr[i], s->gpr[i]);
    if (d.rflags)
        print_words("flags", 0, in->rflags & FLAGS_SEEN, n->rflags & FLAGS_SEEN,
                    s->rflags & FLAGS_SEEN);
    if (d.x87) {
        print_words("fcw fsw ftw", 0, load_le64(in->fx) & 0xffffffffff,
                    load_le64(n->fx) & 0xffffffffff, load_le64(s->fx) & 0xffffffffff);
        report_fx("st", in->fx + 32, n->fx + 32, s->fx + 32, 8);
    }
    if (d.mxcsr)
        print_words("mxcsr", 0, load_le32(in->fx + 24), load_le32(n->fx + 24),
                    load_le32(s->fx + 24));
    if (d.xmm)
        report_fx("xmm", in->fx + FX_XMM, n->fx + FX_XMM, s->fx + FX_XMM, 16);
    if (d.ymm)
        report_fx("ymm", in->ymm_high[0], n->ymm_high[0], s->ymm_high[0], 16);
    if (d.data)
        report_data(c, native, soft);
}
