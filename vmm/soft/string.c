/* SPDX-License-Identifier: MIT */
/*
 * string: the string instructions.
 *
 * A repeated one runs element by element, except that forward MOVS and STOS take all elements up to
 * the end of a page at once where both sides are plain RAM. Registers are up to date after every
 * element, so a fault or an interrupt in the middle finds the instruction where it must start
 * again.
 */
#include "vmm/soft/string.h"

#include "vmm/soft/mem.h"
#include "vmm/soft/mmio.h"
#include "vmm/soft/segment.h"
#include "vmm/soft/system.h"

#define REG_OFFSET(n) ((uint8_t)((n)*8))

/* Fields of the operation. c: element size; a: address size; b: source segment. */
#define REPEAT(op)    ((op)->index) /* 0, 0xf2, 0xf3 */
#define FAMILY(op)    ((op)->scale)
#define SOURCE(op)    ((op)->b)
#define ELEMENT(op)   ((op)->c)
#define ADDRESSES(op) ((op)->a)

enum family {
    FAMILY_INS,
    FAMILY_OUTS,
    FAMILY_MOVS,
    FAMILY_CMPS,
    FAMILY_STOS,
    FAMILY_LODS,
    FAMILY_SCAS,
};

static uint64_t address_mask(const struct soft_op *op)
{
    return ADDRESSES(op) == 8 ? UINT64_MAX : ADDRESSES(op) == 4 ? UINT32_MAX : UINT16_MAX;
}

static int64_t step(const struct soft_cpu *cpu, const struct soft_op *op)
{
    return cpu->rflags & RFLAGS_DF ? -(int64_t)ELEMENT(op) : ELEMENT(op);
}

static void advance(struct soft_cpu *cpu, const struct soft_op *op, enum soft_reg reg, int64_t by)
{
    uint64_t mask = address_mask(op);
    uint64_t moved = (cpu->r[reg] + (uint64_t)by) & mask;

    cpu->r[reg] = mask == UINT16_MAX ? (cpu->r[reg] & ~mask) | moved : moved;
}

/* The linear address of the source (DS:RSI or what overrides DS) or the destination (ES:RDI). */
static bool linear(struct soft_cpu *cpu, const struct soft_op *op, bool is_source, bool is_write,
                   uint64_t *out)
{
    uint64_t offset = cpu->r[is_source ? SOFT_RSI : SOFT_RDI] & address_mask(op);
    unsigned segment = is_source ? SOURCE(op) : SOFT_ES;

    if (!soft_is_64bit(cpu))
        return segment_check(cpu, segment, (uint32_t)offset, ELEMENT(op), is_write, out);
    *out = offset + (segment >= SOFT_FS ? segment_base(cpu, segment) : 0);
    return true;
}

/* --- One element each --- */

static bool one_movs(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t from, to, value;

    return linear(cpu, op, true, false, &from) && linear(cpu, op, false, true, &to) &&
           soft_load(cpu, from, &value, ELEMENT(op)) && soft_store(cpu, to, &value, ELEMENT(op));
}

static bool one_stos(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t to;

    return linear(cpu, op, false, true, &to) && soft_store(cpu, to, &cpu->r[SOFT_RAX], ELEMENT(op));
}

static bool one_lods(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t from, value = 0;

    if (!linear(cpu, op, true, false, &from) || !soft_load(cpu, from, &value, ELEMENT(op)))
        return false;
    memcpy(&cpu->r[SOFT_RAX], &value, ELEMENT(op) == 4 ? 8 : ELEMENT(op));
    return true;
}

/* Flags of left - right. */
static void compare(struct soft_cpu *cpu, const struct soft_op *op, uint64_t left, uint64_t right)
{
    unsigned shift = 64 - ELEMENT(op) * 8;
    uint64_t carry_of_low = (left ^ right ^ (left - right)) & 0x10; /* AF is of the low nibble */
    uint32_t flags;

    /* At the top of 64 bits the sizes differ only in AF and PF. */
    left <<= shift;
    right <<= shift;
    asm("cmpq %2, %1\n\tlahf\n\tseto %%al" : "=&a"(flags) : "r"(left), "r"(right) : "cc");
    uint8_t low = (uint8_t)((left - right) >> shift);

    flags &= ~(SOFT_FLAG_AF | SOFT_FLAG_PF);
    flags |= carry_of_low ? SOFT_FLAG_AF : 0;
    flags |= __builtin_parity(low) ? 0 : SOFT_FLAG_PF;
    cpu->flags = flags;
}

static bool one_cmps(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t from, to, left = 0, right = 0;

    /* In the order in which CPUs fault. */
    if (!linear(cpu, op, true, false, &from) || !linear(cpu, op, false, false, &to) ||
        !soft_load(cpu, to, &right, ELEMENT(op)) || !soft_load(cpu, from, &left, ELEMENT(op)))
        return false;
    compare(cpu, op, left, right);
    return true;
}

static bool one_scas(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t to, right = 0;

    if (!linear(cpu, op, false, false, &to) || !soft_load(cpu, to, &right, ELEMENT(op)))
        return false;
    compare(cpu, op, cpu->r[SOFT_RAX], right);
    return true;
}

static bool one_ins(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t port = (uint16_t)cpu->r[SOFT_RDX];
    uint64_t to;
    uint32_t value;

    return system_check_port(cpu, port, ELEMENT(op)) && linear(cpu, op, false, true, &to) &&
           soft_probe_write(cpu, to, ELEMENT(op)) &&
           mmio_port(cpu, port, &value, ELEMENT(op), false) &&
           soft_store(cpu, to, &value, ELEMENT(op));
}

static bool one_outs(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t port = (uint16_t)cpu->r[SOFT_RDX];
    uint64_t from;
    uint32_t value = 0;

    return system_check_port(cpu, port, ELEMENT(op)) && linear(cpu, op, true, false, &from) &&
           soft_load(cpu, from, &value, ELEMENT(op)) &&
           mmio_port(cpu, port, &value, ELEMENT(op), true);
}

static const struct {
    bool (*one)(struct soft_cpu *cpu, const struct soft_op *op);
    bool uses_source, uses_destination, compares;
} families[] = {
    [FAMILY_INS] = {one_ins, false, true, false},   [FAMILY_OUTS] = {one_outs, true, false, false},
    [FAMILY_MOVS] = {one_movs, true, true, false},  [FAMILY_CMPS] = {one_cmps, true, true, true},
    [FAMILY_STOS] = {one_stos, false, true, false}, [FAMILY_LODS] = {one_lods, true, false, false},
    [FAMILY_SCAS] = {one_scas, false, true, true},
};

static void move_on(struct soft_cpu *cpu, const struct soft_op *op, int64_t elements)
{
    int64_t by = step(cpu, op) * elements;

    if (families[FAMILY(op)].uses_source)
        advance(cpu, op, SOFT_RSI, by);
    if (families[FAMILY(op)].uses_destination)
        advance(cpu, op, SOFT_RDI, by);
}

static bool string_once(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (!families[FAMILY(op)].one(cpu, op))
        return false;
    move_on(cpu, op, 1);
    return true;
}

/* --- Many elements at once --- */

static uint64_t elements_in_page(uint64_t address, const struct soft_op *op, uint64_t limit)
{
    uint64_t count = (0x1000 - (address & 0xfff)) / ELEMENT(op);

    return MIN(count, limit);
}

static void fill(uint8_t *to, uint64_t value, unsigned size, uint64_t count)
{
    uint64_t pattern = size == 8   ? value
                       : size == 4 ? (uint32_t)value * UINT64_C(0x100000001)
                       : size == 2 ? (uint16_t)value * UINT64_C(0x1000100010001)
                                   : (uint8_t)value * UINT64_C(0x101010101010101);
    uint64_t bytes = count * size;

    if (pattern == (uint8_t)value * UINT64_C(0x101010101010101)) {
        memset(to, (uint8_t)value, bytes);
        return;
    }
    for (; bytes >= 8; bytes -= 8, to += 8)
        memcpy(to, &pattern, 8);
    memcpy(to, &pattern, bytes);
}

/* A copy onto itself a little further up repeats the bytes between. */
static void copy(uint8_t *to, const uint8_t *from, unsigned size, uint64_t count)
{
    uint64_t bytes = count * size, distance = (uint64_t)(to - from);

    if (to <= from || distance >= bytes) {
        memmove(to, from, bytes);
        return;
    }
    if (distance < size) { /* elements overlap themselves */
        for (uint64_t i = 0; i < count; i++)
            memmove(to + i * size, from + i * size, size);
        return;
    }
    while (bytes) {
        uint64_t chunk = MIN(bytes, distance);

        memcpy(to, from, chunk);
        to += chunk;
        from += chunk;
        bytes -= chunk;
    }
}

/* How many elements were done; 0: take the slow way for one. */
static uint64_t bulk(struct soft_cpu *cpu, const struct soft_op *op, uint64_t limit)
{
    uint64_t to = cpu->r[SOFT_RDI], from = cpu->r[SOFT_RSI];

    if (FAMILY(op) != FAMILY_MOVS && FAMILY(op) != FAMILY_STOS)
        return 0;
    if (!soft_is_64bit(cpu) || ADDRESSES(op) != 8 || cpu->rflags & RFLAGS_DF)
        return 0;
    uint64_t count = elements_in_page(to, op, limit);
    uint8_t *host_to = soft_fast_write(cpu, to, 1);

    if (!host_to || !count)
        return 0;
    if (FAMILY(op) == FAMILY_STOS) {
        fill(host_to, cpu->r[SOFT_RAX], ELEMENT(op), count);
        return count;
    }
    if (SOURCE(op) >= SOFT_FS)
        from += segment_base(cpu, SOURCE(op));
    count = elements_in_page(from, op, count);
    const uint8_t *host_from = soft_fast_read(cpu, from, 1);

    if (!host_from || !count)
        return 0;
    copy(host_to, host_from, ELEMENT(op), count);
    return count;
}

static bool ends_comparison(const struct soft_cpu *cpu, const struct soft_op *op)
{
    bool is_equal = cpu->flags & SOFT_FLAG_ZF;

    return families[FAMILY(op)].compares && is_equal != (REPEAT(op) == 0xf3);
}

/* RIP is after the instruction; goes back to it if there is more to do. */
static bool string_repeat(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t mask = address_mask(op);
    uint64_t start = cpu->r[SOFT_REG_START] + op->offset;

    /* The port's permission counts even if there is nothing to do. */
    if (FAMILY(op) <= FAMILY_OUTS &&
        !system_check_port(cpu, (uint16_t)cpu->r[SOFT_RDX], ELEMENT(op)))
        return false;
    /* Without a single element a 32-bit address still loses its upper half. */
    if (!(cpu->r[SOFT_RCX] & mask) && ADDRESSES(op) == 4)
        move_on(cpu, op, 0);
    while (cpu->r[SOFT_RCX] & mask) {
        uint64_t done = bulk(cpu, op, cpu->r[SOFT_RCX] & mask);

        if (!done) {
            if (!families[FAMILY(op)].one(cpu, op))
                return false;
            done = 1;
        }
        move_on(cpu, op, (int64_t)done);
        advance(cpu, op, SOFT_RCX, -(int64_t)done);
        if (ends_comparison(cpu, op))
            break;
        if (cpu->r[SOFT_RCX] & mask && atomic_load_explicit(&cpu->poll, memory_order_relaxed)) {
            cpu->rip = soft_is_64bit(cpu) ? start : (uint32_t)start;
            break;
        }
    }
    return true;
}

enum soft_decoded string_decode(struct soft_decoder *d, uint8_t opcode)
{
    static const uint8_t by_opcode[] = {
        [0x6c - 0x6c] = FAMILY_INS,  [0x6e - 0x6c] = FAMILY_OUTS, [0xa4 - 0x6c] = FAMILY_MOVS,
        [0xa6 - 0x6c] = FAMILY_CMPS, [0xaa - 0x6c] = FAMILY_STOS, [0xac - 0x6c] = FAMILY_LODS,
        [0xae - 0x6c] = FAMILY_SCAS,
    };
    bool is_repeated = d->repeat;
    struct soft_op *op = decode_emit_call(d, is_repeated ? SOP_call_end : SOP_call_flags,
                                          is_repeated ? string_repeat : string_once);

    FAMILY(op) = by_opcode[(opcode & 0xfe) - 0x6c];
    REPEAT(op) = d->repeat;
    SOURCE(op) = d->segment >= 0 ? (uint8_t)d->segment : SOFT_DS;
    ADDRESSES(op) = d->address_size;
    ELEMENT(op) = opcode & 1 ? d->operand_size : 1;
    if (FAMILY(op) <= FAMILY_OUTS && ELEMENT(op) == 8)
        ELEMENT(op) = 4;
    return is_repeated ? SOFT_DECODED_END : SOFT_DECODED;
}
