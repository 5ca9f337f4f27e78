/* SPDX-License-Identifier: MIT */
/*
 * x87: the instructions D8 to DF, executed by the host's FPU.
 *
 * Theory of operation. The guest's x87 registers are loaded into the host's FPU when they are first
 * needed and stay there (fpu.h). Each encoding has a stub in a table that the assembler makes: 512
 * with register operands, 64 with an operand in memory at RDI. The guest's control word is in force
 * too, unmasked exceptions included: those do not trap at once but set the error summary, and then
 * the state is taken out of the host before any instruction there could trip over it. The guest
 * gets its #MF at its next waiting instruction.
 */
#include "vmm/soft/decode.h"
#include "vmm/soft/fpu.h"
#include "vmm/soft/x87_env.h"

#define STUB_BYTES   32
#define FSW_NO_STORE 0x19u /* invalid, overflow, underflow */

/* RAX: the status word; RDX: what LAHF gives. RDI: flags for SAHF, or the operand. */
struct stub_result {
    uint64_t status;
    uint64_t flags;
};

extern const char x87_register_stubs[] __attribute__((visibility("hidden")));
extern const char x87_memory_stubs[] __attribute__((visibility("hidden")));

__asm__(".pushsection .text\n"
        ".balign 32\n"
        ".hidden x87_register_stubs\n"
        ".globl x87_register_stubs\n"
        "x87_register_stubs:\n"
        ".set x87_n, 0\n"
        ".rept 512\n"
        "    .balign 32\n"
        "    movl %edi, %eax\n"
        "    sahf\n"
        "    .byte 0xd8 + x87_n / 64, 0xc0 + x87_n % 64\n"
        "    lahf\n"
        "    movl %eax, %edx\n"
        "    fnstsw %ax\n"
        "    ret\n"
        "    .set x87_n, x87_n + 1\n"
        ".endr\n"
        ".balign 32\n"
        ".hidden x87_memory_stubs\n"
        ".globl x87_memory_stubs\n"
        "x87_memory_stubs:\n"
        ".set x87_n, 0\n"
        ".rept 64\n"
        "    .balign 32\n"
        "    .byte 0xd8 + x87_n / 8, (x87_n % 8) * 8 + 7\n"
        "    fnstsw %ax\n"
        "    ret\n"
        "    .set x87_n, x87_n + 1\n"
        ".endr\n"
        ".popsection\n");

typedef struct stub_result register_stub(uint64_t flags);
typedef uint64_t memory_stub(void *operand);

/* The instruction pointer, opcode and operand that FNSTENV and FXSAVE show. */
static void note_instruction(struct soft_cpu *cpu, const struct soft_op *op, unsigned modrm)
{
    store_le16(cpu->fx + FX_FOP, (uint16_t)((op->a & 7u) << 8 | modrm));
    store_le64(cpu->fx + FX_FIP, cpu->r[SOFT_REG_START] + op->offset);
}

static void check_error(struct soft_cpu *cpu, uint64_t status)
{
    if (unlikely(status & FSW_ERROR))
        fpu_unload(cpu);
}

/* `a`: opcode - 0xd8; `c`: ModRM. */
static bool run_register(struct soft_cpu *cpu, const struct soft_op *op)
{
    const char *stub = x87_register_stubs + (op->a * 64u + (op->c & 63u)) * STUB_BYTES;

    if (!fpu_load(cpu))
        return false;
    note_instruction(cpu, op, op->c);
    check_error(cpu, ((register_stub *)(uintptr_t)stub)(0).status);
    return true;
}

/* FCMOV reads the flags. */
static bool run_register_flags(struct soft_cpu *cpu, const struct soft_op *op)
{
    const char *stub = x87_register_stubs + (op->a * 64u + (op->c & 63u)) * STUB_BYTES;

    if (!fpu_load(cpu))
        return false;
    note_instruction(cpu, op, op->c);
    check_error(cpu, ((register_stub *)(uintptr_t)stub)(cpu->flags).status);
    return true;
}

/* FCOMI and its like set them, OF to 0. */
static bool run_compare_flags(struct soft_cpu *cpu, const struct soft_op *op)
{
    const char *stub = x87_register_stubs + (op->a * 64u + (op->c & 63u)) * STUB_BYTES;
    struct stub_result result;

    if (!fpu_load(cpu))
        return false;
    note_instruction(cpu, op, op->c);
    result = ((register_stub *)(uintptr_t)stub)(cpu->flags);
    cpu->flags = (uint32_t)result.flags & 0xff00;
    check_error(cpu, result.status);
    return true;
}

/* --- Operands in memory; `c`: ModRM.reg, `aux`: bytes --- */

static uint64_t run_memory_stub(const struct soft_op *op, void *operand)
{
    const char *stub = x87_memory_stubs + (op->a * 8u + op->c) * STUB_BYTES;

    return ((memory_stub *)(uintptr_t)stub)(operand);
}

static void note_operand(struct soft_cpu *cpu, const struct soft_op *op, uint64_t address)
{
    note_instruction(cpu, op, op->c * 8u);
    store_le64(cpu->fx + FX_FDP, address);
}

static bool run_load(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t operand[16] __attribute__((aligned(16)));
    uint64_t address = soft_ea(cpu, op);

    if (!fpu_load(cpu) || !soft_load(cpu, address, operand, op->aux))
        return false;
    note_operand(cpu, op, address);
    check_error(cpu, run_memory_stub(op, operand));
    return true;
}

static bool run_fldcw(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t value;

    uint64_t status;

    if (!fpu_load(cpu) || !soft_load(cpu, soft_ea(cpu, op), &value, 2))
        return false;
    status = run_memory_stub(op, &value);
    /* The control word in cpu->fx is always the present one. */
    __asm__ volatile("fnstcw %0" : "=m"(value));
    store_le16(cpu->fx + FX_FCW, value);
    check_error(cpu, status);
    return true;
}

/* Unmasked exceptions that leave memory as it is. */
static bool is_store_held_back(const struct soft_cpu *cpu, uint64_t status)
{
    return status & ~(uint64_t)fpu_word(cpu, FX_FCW) & FSW_NO_STORE;
}

/* A store that pops must not run twice: where it may yet fail, the state before it is kept. */
static bool run_careful_store(struct soft_cpu *cpu, const struct soft_op *op, uint64_t address)
{
    uint8_t operand[16] __attribute__((aligned(16)));
    uint8_t before[FX_XMM];
    uint64_t status;

    fpu_unload(cpu);
    memcpy(before, cpu->fx, sizeof(before));
    if (!fpu_load(cpu))
        return false;
    note_operand(cpu, op, address);
    status = run_memory_stub(op, operand);
    check_error(cpu, status);
    if (is_store_held_back(cpu, status))
        return true;
    if (soft_store(cpu, address, operand, op->aux))
        return true;
    fpu_unload(cpu);
    memcpy(cpu->fx, before, sizeof(before));
    return false;
}

static bool run_store(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t operand[16] __attribute__((aligned(16)));
    uint64_t address = soft_ea(cpu, op);
    uint64_t status;
    void *host;

    if (!fpu_load(cpu))
        return false;
    host = soft_fast_write(cpu, address, op->aux);
    if (unlikely(!host))
        return run_careful_store(cpu, op, address);
    note_operand(cpu, op, address);
    status = run_memory_stub(op, operand);
    check_error(cpu, status);
    if (likely(!is_store_held_back(cpu, status)))
        memcpy(host, operand, op->aux);
    return true;
}

static bool run_wait(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    /* A live state has nothing pending. */
    if (!cpu->x87_live && fpu_is_pending(cpu))
        return soft_raise(cpu, SOFT_MF, 0);
    return true;
}

/* --- Which encodings exist --- */

/* Bit n: the group of eight encodings from C0 + 8n on is there, for each n % 8 alike. */
static const uint8_t register_groups[8] = {0xff, 0x03, 0x0f, 0xef, 0xff, 0x3f, 0xf7, 0x60};
/* Single encodings D9 C0 + n, as bits; the rest of D9. */
#define D9_SINGLES                                                                                 \
    (UINT64_C(1) << 0x10 | UINT64_C(0x33) << 0x20 | UINT64_C(0x7f) << 0x28 |                       \
     UINT64_C(0xffff) << 0x30)

static bool register_exists(uint8_t opcode, uint8_t modrm)
{
    unsigned n = modrm & 63u;

    switch (opcode) {
    case 0xd9:
        return n < 0x10 || D9_SINGLES >> n & 1;
    case 0xda:
        return n < 0x20 || modrm == 0xe9;
    case 0xdb:
        /* E0, E1, E4: FENI, FDISI, FSETPM, which do nothing. */
        return n < 0x20 || (n >= 0x28 && n < 0x38) || (n >= 0x20 && n < 0x25);
    case 0xde:
        return (n < 0x18 || n >= 0x20) || modrm == 0xd9;
    case 0xdf:
        return n < 0x20 || modrm == 0xe0 || (n >= 0x28 && n < 0x38);
    default:
        return register_groups[opcode - 0xd8] >> (n / 8) & 1;
    }
}

/* Bytes of a memory operand, by opcode and ModRM.reg; 0: not there or not a plain operand. */
static const uint8_t memory_sizes[8][8] = {
    {4, 4, 4, 4, 4, 4, 4, 4},   {4, 0, 4, 4, 0, 2, 0, 2},   {4, 4, 4, 4, 4, 4, 4, 4},
    {4, 4, 4, 4, 0, 10, 0, 10}, {8, 8, 8, 8, 8, 8, 8, 8},   {8, 8, 8, 8, 0, 0, 0, 2},
    {2, 2, 2, 2, 2, 2, 2, 2},   {2, 2, 2, 2, 10, 8, 10, 8},
};
/* Which of them store, as bits by ModRM.reg. */
static const uint8_t memory_stores[8] = {0, 0x0c, 0, 0x8e, 0, 0x0e, 0, 0xce};
#define FISTTP_GROUPS (1u << 3 | 1u << 5 | 1u << 7) /* DB, DD, DF /1 came with SSE3 */

/* --- Decoding --- */

static enum soft_decoded emit_env(struct soft_decoder *d, soft_helper *helper, unsigned extra,
                                  enum soft_access access)
{
    unsigned layout = d->operand_size == 2 ? X87_LAYOUT_16 : X87_LAYOUT_32;

    if (d->mode & SOFT_MODE_REAL)
        layout |= X87_LAYOUT_REAL;
    decode_emit_call_mem(d, SOP_call_c, helper, x87_env_bytes(layout) + extra, access)->c =
        (uint8_t)layout;
    return SOFT_DECODED;
}

static enum soft_decoded emit_simple(struct soft_decoder *d, soft_helper *helper, unsigned size,
                                     enum soft_access access)
{
    if (size)
        decode_emit_call_mem(d, SOP_call_c, helper, size, access);
    else
        decode_emit_call(d, SOP_call_c, helper);
    return SOFT_DECODED;
}

static enum soft_decoded decode_memory(struct soft_decoder *d, uint8_t opcode)
{
    unsigned group = opcode - 0xd8u, reg = d->reg & 7;
    unsigned size = memory_sizes[group][reg];
    bool is_store = memory_stores[group] >> reg & 1;
    soft_helper *helper = is_store ? run_store : run_load;
    struct soft_op *op;

    switch (opcode << 4 | reg) {
    case 0xd94:
        return emit_env(d, x87_run_fldenv, 0, SOFT_READ);
    case 0xd95:
        helper = run_fldcw;
        break;
    case 0xd96:
        return emit_env(d, x87_run_fnstenv, 0, SOFT_WRITE);
    case 0xd97:
        return emit_simple(d, x87_run_fnstcw, 2, SOFT_WRITE);
    case 0xdd4:
        return emit_env(d, x87_run_frstor, X87_STACK_BYTES, SOFT_READ);
    case 0xdd6:
        return emit_env(d, x87_run_fnsave, X87_STACK_BYTES, SOFT_WRITE);
    case 0xdd7:
        return emit_simple(d, x87_run_fnstsw, 2, SOFT_WRITE);
    default:
        break;
    }
    if (!size || (reg == 1 && FISTTP_GROUPS >> group & 1 && !(d->cpu->cpuid_1_ecx & 1)))
        return SOFT_UNDEFINED;
    op = decode_emit_call_mem(d, SOP_call_c, helper, size, is_store ? SOFT_WRITE : SOFT_READ);
    op->a = (uint8_t)group;
    op->c = (uint8_t)reg;
    op->aux = size;
    return SOFT_DECODED;
}

static struct soft_op *emit_register(struct soft_decoder *d, uint8_t opcode, uint8_t modrm)
{
    bool is_cmov = (opcode == 0xda || opcode == 0xdb) && modrm < 0xe0;
    bool is_compare = (opcode == 0xdb || opcode == 0xdf) && modrm >= 0xe8;

    if (is_compare)
        return decode_emit_call(d, SOP_call_flags, run_compare_flags);
    if (is_cmov)
        return decode_emit_call(d, SOP_call_flags, run_register_flags);
    return decode_emit_call(d, SOP_call_c, run_register);
}

/*
 * Encodings that no manual names but all CPUs know: they do what another one does, which is sure to
 * be there on every host.
 */
static uint8_t documented_opcode(uint8_t opcode, uint8_t *modrm)
{
    switch ((unsigned)opcode << 8 | (*modrm & 0xf8u)) {
    case 0xdcd0: /* FCOM */
    case 0xdcd8: /* FCOMP */
        return 0xd8;
    case 0xded0:
        *modrm |= 8;
        return 0xd8;
    case 0xddc8: /* FXCH */
    case 0xdfc8:
        return 0xd9;
    case 0xdfd0: /* FSTP */
    case 0xdfd8:
        *modrm |= 8;
        return 0xdd;
    default:
        return opcode;
    }
}

static enum soft_decoded decode_register(struct soft_decoder *d, uint8_t opcode)
{
    uint8_t modrm = (uint8_t)(0xc0 | (d->reg & 7) << 3 | (d->rm & 7));
    struct soft_op *op;

    if (!register_exists(opcode, modrm))
        return SOFT_UNDEFINED;
    switch (opcode << 8 | modrm) {
    case 0xdbe2:
        return emit_simple(d, x87_run_fnclex, 0, SOFT_READ);
    case 0xdbe3:
        return emit_simple(d, x87_run_fninit, 0, SOFT_READ);
    case 0xdfe0:
        return emit_simple(d, x87_run_fnstsw_ax, 0, SOFT_READ);
    case 0xdbe0:
    case 0xdbe1:
    case 0xdbe4:
        decode_emit(d, SOP_nop);
        return SOFT_DECODED;
    default:
        break;
    }
    op = emit_register(d, opcode, modrm);
    op->a = (uint8_t)(documented_opcode(opcode, &modrm) - 0xd8);
    op->c = modrm;
    return SOFT_DECODED;
}

static enum soft_decoded decode_wait(struct soft_decoder *d)
{
    if (d->mode & SOFT_MODE_MP && d->mode & SOFT_MODE_TS)
        return decode_emit_raise(d, SOFT_NM, 0);
    decode_emit_call(d, SOP_call_c, run_wait);
    return SOFT_DECODED;
}

enum soft_decoded x87_decode(struct soft_decoder *d, uint8_t opcode)
{
    if (opcode == 0x9b)
        return decode_wait(d);
    decode_modrm(d);
    if (d->mode & (SOFT_MODE_EM | SOFT_MODE_TS))
        return decode_emit_raise(d, SOFT_NM, 0);
    return decode_is_mem(d) ? decode_memory(d, opcode) : decode_register(d, opcode);
}
