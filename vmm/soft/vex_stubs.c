/* SPDX-License-Identifier: MIT */
/*
 * vex_stubs: VEX instructions that the host's own do.
 *
 * Theory of operation. The assembler makes a stub of eight bytes for each instruction, for VEX.L 0
 * and 1, and for each value that its immediate can have: YMM0 = op(YMM1, memory at RDX). Where an
 * instruction has more operands, its old destination is in YMM0 and a fourth one in YMM2. One
 * routine loads the registers, calls the stub and stores the result. The operand is always in
 * memory: the guest's, or its register in struct soft_cpu. Upper halves are zeroed by the stub's
 * own VEX.L. None of this runs unless the guest's CPUID has the feature, and so the host.
 */
#include "vmm/soft/vex.h"
#include "vmm/soft/vex_list.h"

#define STUB_BYTES 8

#define W_BIT_0  0
#define W_BIT_1  1
#define W_BIT_IG 0

__asm__(".macro vex_stub map, pp, w, opcode, kind, count\n"
        ".set vex_vvvv, 14\n"
        ".ifc \\kind, N\n"
        ".set vex_vvvv, 15\n"
        ".endif\n"
        ".set vex_l, 0\n"
        ".rept 2\n"
        "    .set vex_n, 0\n"
        "    .rept \\count\n"
        "        .balign 8\n"
        "        .byte 0xc4, 0xe0 + \\map, \\w * 128 + vex_vvvv * 8 + vex_l * 4 + \\pp\n"
        "        .byte \\opcode, 0x02\n"
        "        .ifc \\kind, BLEND\n"
        "        .byte 0x20\n"
        "        .else\n"
        "        .if \\count > 1\n"
        "        .byte vex_n\n"
        "        .endif\n"
        "        .endif\n"
        "        ret\n"
        "        .set vex_n, vex_n + 1\n"
        "    .endr\n"
        "    .set vex_l, vex_l + 1\n"
        ".endr\n"
        ".endm\n"
#define TEXT_OF(x)  TEXT_OF_(x)
#define TEXT_OF_(x) #x
#define STUB(name, map, pp, w, opcode, modrm, count, ...)                                          \
    "vex_stub " #map ", " #pp ", " TEXT_OF(W_BIT_##w) ", \"" #opcode "\", " #modrm ", " #count "\n"
        ".pushsection .text\n"
        ".balign 64\n"
        "vex_stubs:\n" VEX_STUBS(STUB)
        /* VCVTPS2PH has its source in ModRM.reg: YMM1 to XMM0, with eight immediates. */
        ".balign 8\n"
        "vex_narrow_stubs:\n"
        ".set vex_l, 0\n"
        ".rept 2\n"
        "    .set vex_n, 0\n"
        "    .rept 8\n"
        "        .balign 8\n"
        "        .byte 0xc4, 0xe3, 0x79 + vex_l * 4, 0x1d, 0xc8, vex_n\n"
        "        ret\n"
        "        .set vex_n, vex_n + 1\n"
        "    .endr\n"
        "    .set vex_l, vex_l + 1\n"
        ".endr\n"
        ".balign 16\n"
        /* RDI: to, RSI: first, RDX: second, RCX: third, R8: stub */
        "vex_call:\n"
        "vmovdqu (%rdi), %ymm0\n"
        "vmovdqu (%rsi), %ymm1\n"
        "vmovdqu (%rcx), %ymm2\n"
        "call *%r8\n"
        "vmovdqu %ymm0, (%rdi)\n"
        "vzeroupper\n"
        "ret\n"
        ".balign 16\n"
        /* RDI: first, RDX: second, R8: stub; the flags as LAHF and SETO leave them */
        "vex_call_flags:\n"
        "vmovdqu (%rdi), %ymm0\n"
        "call *%r8\n"
        "lahf\n"
        "seto %al\n"
        "vzeroupper\n"
        "movzwl %ax, %eax\n"
        "ret\n"
        ".popsection\n");

extern const char vex_stubs[], vex_narrow_stubs[];
void vex_call(void *to, const void *first, const void *second, const void *third, const void *stub);
uint32_t vex_call_flags(const void *first, const void *unused, const void *second,
                        const void *unused_too, const void *stub);

/* --- Operands --- */

struct operands {
    const void *first, *second, *third, *stub;
};

static const void *stub_at(unsigned index)
{
    return vex_stubs + index * STUB_BYTES;
}

static struct operands operands_of(struct soft_cpu *cpu, const struct soft_op *op,
                                   const void *second)
{
    return (struct operands){.first = cpu->ymm[VEX_AUX_VVVV(op->aux)],
                             .second = second,
                             .third = cpu->ymm[VEX_AUX_IS4(op->aux)],
                             .stub = stub_at(VEX_AUX_STUB(op->aux))};
}

/* In guest memory itself where that is possible, or a copy in `buffer`; NULL after a fault. */
static inline const void *memory_operand(struct soft_cpu *cpu, const struct soft_op *op,
                                         uint8_t buffer[32])
{
    unsigned bytes = VEX_AUX_BYTES(op->aux);
    uint64_t address = soft_ea(cpu, op);
    const void *host = soft_fast_read(cpu, address, bytes);

    if (likely(host))
        return host;
    return soft_load_slow(cpu, address, buffer, bytes) ? buffer : NULL;
}

/* --- Integers: nothing but the operand's load can fail --- */

static bool run_integer(struct soft_cpu *cpu, const struct soft_op *op, const void *second)
{
    struct operands o = operands_of(cpu, op, second);

    vex_call(cpu->ymm[op->a], o.first, o.second, o.third, o.stub);
    return true;
}

static bool run_integer_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    return run_integer(cpu, op, cpu->ymm[op->c]);
}

static bool run_integer_general(struct soft_cpu *cpu, const struct soft_op *op)
{
    return run_integer(cpu, op, &cpu->r[op->c]);
}

static bool run_integer_high(struct soft_cpu *cpu, const struct soft_op *op)
{
    return run_integer(cpu, op, cpu->ymm[op->c] + 8);
}

static bool run_integer_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t buffer[32];
    const void *second = memory_operand(cpu, op, buffer);

    return second && run_integer(cpu, op, second);
}

/* --- Floating point --- */

static void call_with(void *to, const void *from)
{
    const struct operands *o = from;

    vex_call(to, o->first, o->second, o->third, o->stub);
}

static bool run_float_trapping(struct soft_cpu *cpu, unsigned to, const struct operands *o)
{
    uint8_t work[32];

    memcpy(work, cpu->ymm[to], 32);
    if (!sse_compute_trapping(cpu, call_with, work, sizeof(work), o))
        return false;
    memcpy(cpu->ymm[to], work, 32);
    return true;
}

static bool run_float(struct soft_cpu *cpu, const struct soft_op *op, const void *second)
{
    struct operands o = operands_of(cpu, op, second);

    if (unlikely(fpu_has_unmasked(cpu)))
        return run_float_trapping(cpu, op->a, &o);
    vex_call(cpu->ymm[op->a], o.first, o.second, o.third, o.stub);
    return true;
}

static bool run_float_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    return run_float(cpu, op, cpu->ymm[op->c]);
}

static bool run_float_general(struct soft_cpu *cpu, const struct soft_op *op)
{
    return run_float(cpu, op, &cpu->r[op->c]);
}

/* Two runs of the instruction must see the same operand: it is copied. */
static bool run_float_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t buffer[32];

    return soft_load(cpu, soft_ea(cpu, op), buffer, VEX_AUX_BYTES(op->aux)) &&
           run_float(cpu, op, buffer);
}

bool vex_narrow(struct soft_cpu *cpu, const struct soft_op *op, uint8_t to[32])
{
    unsigned index = (vex_is_256(op) ? 8 : 0) + (op->aux & 7);
    struct operands o = {.first = cpu->ymm[op->a],
                         .second = cpu->ymm[op->a],
                         .third = cpu->ymm[op->a],
                         .stub = vex_narrow_stubs + index * STUB_BYTES};

    if (unlikely(fpu_has_unmasked(cpu)))
        return sse_compute_trapping(cpu, call_with, to, 32, &o);
    call_with(to, &o);
    return true;
}

/* --- Flags --- */

static bool run_flags_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    cpu->flags = vex_call_flags(cpu->ymm[op->a], NULL, cpu->ymm[op->c], NULL,
                                stub_at(VEX_AUX_STUB(op->aux)));
    return true;
}

static bool run_flags_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t buffer[32];
    const void *second = memory_operand(cpu, op, buffer);

    if (!second)
        return false;
    cpu->flags =
        vex_call_flags(cpu->ymm[op->a], NULL, second, NULL, stub_at(VEX_AUX_STUB(op->aux)));
    return true;
}

/* --- The table --- */

/* Numbers of the stubs: as many for each instruction as the assembly above makes. */
enum stub_number {
#define NUMBER(name, map, pp, w, opcode, modrm, count, ...)                                        \
    STUB_##name, STUB_LAST_##name = STUB_##name + 2 * (count)-1,
    VEX_STUBS(NUMBER)
};

enum form_number {
#define FORM_NUMBER(name, ...) FORM_##name,
    VEX_STUBS(FORM_NUMBER) FORM_COUNT
};

/* VINSERTPS takes its operand from memory, where the immediate does not choose the element. */
static bool run_element_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    unsigned immediate = VEX_AUX_STUB(op->aux) - STUB_vinsertps;

    return run_integer(cpu, op, cpu->ymm[op->c] + 4 * (immediate >> 6 & 3));
}

void vex_shift(struct soft_cpu *cpu, unsigned to, unsigned from, uint64_t count, uint8_t opcode,
               bool is_256)
{
    const struct vex_prefix prefix = {.map = 1, .pp = 1};
    unsigned stub = vex_find_stub(&prefix, opcode)->stub + is_256;
    uint64_t operand[2] = {count, 0};

    vex_call(cpu->ymm[to], cpu->ymm[from], operand, operand, stub_at(stub));
}

#define REG_INTEGER(flags)                                                                         \
    ((flags)&VEX_MEMORY    ? NULL                                                                  \
     : (flags)&VEX_GENERAL ? run_integer_general                                                   \
     : (flags)&VEX_HIGH    ? run_integer_high                                                      \
     : (flags)&VEX_ELEMENT ? run_element_reg                                                       \
                           : run_integer_reg)
#define REG_FLOAT(flags)   ((flags)&VEX_GENERAL ? run_float_general : run_float_reg)
#define REG_FLAGS(flags)   run_flags_reg
#define MEM_INTEGER        run_integer_mem
#define MEM_FLOAT          run_float_mem
#define MEM_FLAGS          run_flags_mem
#define SETS_FLAGS_INTEGER false
#define SETS_FLAGS_FLOAT   false
#define SETS_FLAGS_FLAGS   true

static const struct vex_form forms[] = {
#define FORM(name, map, pp, w, opcode, modrm, count, size0, size1, needs, kind, form_flags)        \
    {.reg = REG_##kind(form_flags),                                                                \
     .mem = MEM_##kind,                                                                            \
     .stub = STUB_##name,                                                                          \
     .stub_count = count,                                                                          \
     .flags = form_flags,                                                                          \
     .bytes = {size0, size1},                                                                      \
     .feature = VEX_##needs,                                                                       \
     .sets_flags = SETS_FLAGS_##kind},
    VEX_STUBS(FORM)};

#define INDEX_0(name, map, pp, opcode) [0][(map)-1][pp][opcode] = FORM_##name + 1,
#define INDEX_1(name, map, pp, opcode) [1][(map)-1][pp][opcode] = FORM_##name + 1,
#define INDEX_IG(name, map, pp, opcode)                                                            \
    INDEX_0(name, map, pp, opcode) INDEX_1(name, map, pp, opcode)

/* By VEX.W, map, prefix and opcode: the form's number plus one. */
static const uint16_t form_index[2][3][SSE_PREFIXES][256] = {
#define INDEX(name, map, pp, w, opcode, ...) INDEX_##w(name, map, pp, opcode)
    VEX_STUBS(INDEX)};

const struct vex_form *vex_find_stub(const struct vex_prefix *prefix, uint8_t opcode)
{
    unsigned number = form_index[prefix->w][prefix->map - 1][prefix->pp][opcode];

    return number ? &forms[number - 1] : NULL;
}
