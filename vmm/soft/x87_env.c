/* SPDX-License-Identifier: MIT */
/* x87_env: the x87 environment in memory, and its reset. */
#include "vmm/soft/x87_env.h"

#include "vmm/soft/fpu.h"
#include "vmm/soft/mem.h"

#define FCW_DEFAULT  0x037fu
#define FCW_ALL_MASK 0x3fu
#define FSW_CLEARED  0x80ffu /* by FNCLEX: exceptions, stack fault, summary, busy */

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static void set_word(struct soft_cpu *cpu, unsigned offset, uint16_t value)
{
    store_le16(cpu->fx + offset, value);
}

/* --- The tag word, of which FXSAVE's image has only "empty or not" --- */

static unsigned tag_of(const uint8_t st[16])
{
    uint64_t mantissa = load_le64(st);
    unsigned exponent = load_le16(st + 8) & 0x7fff;

    if (exponent == 0)
        return mantissa ? TAG_SPECIAL : TAG_ZERO;
    if (exponent == 0x7fff || !(mantissa >> 63))
        return TAG_SPECIAL;
    return TAG_VALID;
}

static uint16_t full_tags(const struct soft_cpu *cpu)
{
    unsigned top = FSW_TOP(fpu_word(cpu, FX_FSW)), tags = 0;

    for (unsigned physical = 0; physical < 8; physical++) {
        unsigned tag = TAG_EMPTY;

        if (cpu->fx[FX_FTW] >> physical & 1)
            tag = tag_of(cpu->fx + FX_ST + 16 * ((physical - top) & 7));
        tags |= tag << (2 * physical);
    }
    return (uint16_t)tags;
}

static uint8_t short_tags(uint16_t tags)
{
    unsigned result = 0;

    for (unsigned physical = 0; physical < 8; physical++)
        if ((tags >> (2 * physical) & 3) != TAG_EMPTY)
            result |= 1u << physical;
    return (uint8_t)result;
}

/* --- The environment: 7 fields of 2 or 4 bytes --- */

static void put(uint8_t *to, unsigned index, bool is_16, uint32_t value)
{
    if (is_16)
        store_le16(to + 2 * index, (uint16_t)value);
    else
        /* The upper halves of the three words read as ones. */
        store_le32(to + 4 * index, value);
}

static void write_env(struct soft_cpu *cpu, unsigned layout, uint8_t *to)
{
    bool is_16 = layout & X87_LAYOUT_16;
    uint32_t upper = 0xffff0000;
    uint32_t ip = load_le32(cpu->fx + FX_FIP), dp = load_le32(cpu->fx + FX_FDP);
    uint32_t opcode = fpu_word(cpu, FX_FOP) & 0x7ff;

    put(to, 0, is_16, upper | fpu_word(cpu, FX_FCW));
    put(to, 1, is_16, upper | fpu_word(cpu, FX_FSW));
    put(to, 2, is_16, upper | full_tags(cpu));
    put(to, 3, is_16, ip);
    put(to, 5, is_16, dp);
    if (layout & X87_LAYOUT_REAL) {
        put(to, 4, is_16, is_16 ? (ip >> 4 & 0xf000) | opcode : (ip >> 4 & 0x0ffff000) | opcode);
        put(to, 6, is_16, is_16 ? dp >> 4 & 0xf000 : dp >> 4 & 0x0ffff000);
    } else {
        put(to, 4, is_16, is_16 ? 0 : opcode << 16);
        put(to, 6, is_16, is_16 ? 0 : upper);
    }
}

static void read_env(struct soft_cpu *cpu, unsigned layout, const uint8_t *from)
{
    bool is_16 = layout & X87_LAYOUT_16;
    unsigned step = is_16 ? 2 : 4;

    set_word(cpu, FX_FCW, load_le16(from));
    set_word(cpu, FX_FSW, load_le16(from + step));
    cpu->fx[FX_FTW] = short_tags(load_le16(from + 2 * step));
    store_le64(cpu->fx + FX_FIP, is_16 ? load_le16(from + 6) : load_le32(from + 12));
    store_le64(cpu->fx + FX_FDP, is_16 ? load_le16(from + 10) : load_le32(from + 20));
    if (layout == X87_LAYOUT_32)
        set_word(cpu, FX_FOP, load_le16(from + 18) & 0x7ff);
    fpu_normalise(cpu);
}

/* --- Instructions --- */

/* The registers stay where they are when the top moves: the image, which begins there, turns. */
static void turn_stack(struct soft_cpu *cpu, unsigned top_before)
{
    unsigned turn = FSW_TOP(fpu_word(cpu, FX_FSW)) - top_before;
    uint8_t stack[8 * 16];

    memcpy(stack, cpu->fx + FX_ST, sizeof(stack));
    for (unsigned i = 0; i < 8; i++)
        memcpy(cpu->fx + FX_ST + 16 * i, stack + 16 * ((i + turn) & 7), 16);
}

static void reset(struct soft_cpu *cpu)
{
    unsigned top = FSW_TOP(fpu_word(cpu, FX_FSW));

    set_word(cpu, FX_FCW, FCW_DEFAULT);
    set_word(cpu, FX_FSW, 0);
    turn_stack(cpu, top);
    cpu->fx[FX_FTW] = 0;
    memset(cpu->fx + FX_FOP, 0, FX_MXCSR - FX_FOP);
}

bool x87_run_fninit(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    fpu_unload(cpu);
    reset(cpu);
    return true;
}

bool x87_run_fnclex(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    fpu_unload(cpu);
    set_word(cpu, FX_FSW, fpu_word(cpu, FX_FSW) & (uint16_t)~FSW_CLEARED);
    return true;
}

bool x87_run_fnstcw(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t value = fpu_word(cpu, FX_FCW);

    return soft_store(cpu, soft_ea(cpu, op), &value, 2);
}

static uint16_t status(const struct soft_cpu *cpu)
{
    uint16_t value;

    if (!cpu->x87_live)
        return fpu_word(cpu, FX_FSW);
    __asm__ volatile("fnstsw %0" : "=m"(value));
    return value;
}

bool x87_run_fnstsw(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t value = status(cpu);

    return soft_store(cpu, soft_ea(cpu, op), &value, 2);
}

bool x87_run_fnstsw_ax(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    cpu->r[SOFT_RAX] = (cpu->r[SOFT_RAX] & ~UINT64_C(0xffff)) | status(cpu);
    return true;
}

/* A waiting instruction, as FRSTOR is. */
static bool check_pending(struct soft_cpu *cpu)
{
    fpu_unload(cpu);
    return fpu_is_pending(cpu) ? soft_raise(cpu, SOFT_MF, 0) : true;
}

bool x87_run_fldenv(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t bytes[X87_ENV_BYTES_32];

    if (!check_pending(cpu) || !soft_load(cpu, soft_ea(cpu, op), bytes, x87_env_bytes(op->c)))
        return false;
    unsigned before = FSW_TOP(fpu_word(cpu, FX_FSW));

    read_env(cpu, op->c, bytes);
    turn_stack(cpu, before);
    return true;
}

bool x87_run_fnstenv(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t bytes[X87_ENV_BYTES_32];

    fpu_unload(cpu);
    write_env(cpu, op->c, bytes);
    if (!soft_store(cpu, soft_ea(cpu, op), bytes, x87_env_bytes(op->c)))
        return false;
    set_word(cpu, FX_FCW, fpu_word(cpu, FX_FCW) | FCW_ALL_MASK);
    fpu_normalise(cpu);
    return true;
}

bool x87_run_frstor(struct soft_cpu *cpu, const struct soft_op *op)
{
    unsigned env_bytes = x87_env_bytes(op->c);
    uint8_t bytes[X87_ENV_BYTES_32 + X87_STACK_BYTES];

    if (!check_pending(cpu) ||
        !soft_load(cpu, soft_ea(cpu, op), bytes, env_bytes + X87_STACK_BYTES))
        return false;
    read_env(cpu, op->c, bytes);
    for (unsigned i = 0; i < 8; i++)
        memcpy(cpu->fx + FX_ST + 16 * i, bytes + env_bytes + 10 * i, 10);
    return true;
}

bool x87_run_fnsave(struct soft_cpu *cpu, const struct soft_op *op)
{
    unsigned env_bytes = x87_env_bytes(op->c);
    uint8_t bytes[X87_ENV_BYTES_32 + X87_STACK_BYTES];

    fpu_unload(cpu);
    write_env(cpu, op->c, bytes);
    for (unsigned i = 0; i < 8; i++)
        memcpy(bytes + env_bytes + 10 * i, cpu->fx + FX_ST + 16 * i, 10);
    if (!soft_store(cpu, soft_ea(cpu, op), bytes, env_bytes + X87_STACK_BYTES))
        return false;
    reset(cpu);
    return true;
}
