/* SPDX-License-Identifier: MIT */
/*
 * callgate: call gates of 16, 32 and 64 bits. A call to a more privileged segment takes its stack
 * from the TSS and, outside long mode, copies parameters from the caller's.
 */
#include "vmm/soft/callgate.h"

#include "vmm/soft/mem.h"
#include "vmm/soft/segment.h"
#include "vmm/soft/stack.h"

#define TYPE_CALL_16 4
#define TYPE_CALL_32 12 /* in long mode: 64 bits */

struct gate {
    uint16_t selector;
    uint64_t offset;
    unsigned parameters;
    unsigned size; /* of what is pushed, in bytes */
};

/* The stack of the inner level. */
struct inner {
    struct soft_segment ss;
    uint64_t rsp;
};

bool callgate_is_one(const struct soft_cpu *cpu, uint64_t descriptor)
{
    unsigned type = DESCRIPTOR_TYPE(descriptor);

    if (descriptor & DESCRIPTOR_S)
        return false;
    return type == TYPE_CALL_32 || (type == TYPE_CALL_16 && !soft_is_long_mode(cpu));
}

static bool read_gate(struct soft_cpu *cpu, uint16_t selector, uint64_t low, struct gate *gate)
{
    uint32_t error = SELECTOR_ERROR(selector);
    uint64_t address = (selector & 4 ? cpu->ldt.base : cpu->gdt_base) + (selector & 0xfff8u) + 8;
    uint32_t limit = selector & 4 ? cpu->ldt.limit : cpu->gdt_limit;
    uint64_t high = 0;

    if (DESCRIPTOR_DPL(low) < cpu->cpl || DESCRIPTOR_DPL(low) < (selector & 3u))
        return soft_raise(cpu, SOFT_GP, error);
    if (soft_is_long_mode(cpu)) {
        if ((selector & 0xfff8u) + 15 > limit)
            return soft_raise(cpu, SOFT_GP, error);
        if (!soft_load_system(cpu, address, &high, 8))
            return false;
        if (high & UINT64_C(0x1f0000000000))
            return soft_raise(cpu, SOFT_GP, error);
    }
    if (!(low & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, error);
    bool is_16 = DESCRIPTOR_TYPE(low) == TYPE_CALL_16;

    gate->selector = (uint16_t)(low >> 16);
    gate->offset = (low & 0xffff) | (is_16 ? 0 : low >> 32 & 0xffff0000) | high << 32;
    gate->parameters = soft_is_long_mode(cpu) ? 0 : low >> 32 & 31;
    gate->size = soft_is_long_mode(cpu) ? 8 : is_16 ? 2 : 4;
    return true;
}

static bool read_code(struct soft_cpu *cpu, const struct gate *gate, bool is_call, uint64_t *code)
{
    uint32_t error = SELECTOR_ERROR(gate->selector);
    unsigned dpl;

    if (!(gate->selector & 0xfffc))
        return soft_raise(cpu, SOFT_GP, 0);
    if (!segment_read(cpu, gate->selector, SOFT_GP, code))
        return false;
    dpl = DESCRIPTOR_DPL(*code);
    bool is_conforming = *code & DESCRIPTOR_EXPAND;
    bool is_reachable = is_call || is_conforming ? dpl <= cpu->cpl : dpl == cpu->cpl;

    if (!(*code & DESCRIPTOR_S) || !(*code & DESCRIPTOR_CODE) || !is_reachable)
        return soft_raise(cpu, SOFT_GP, error);
    if (soft_is_long_mode(cpu) && (!(*code & DESCRIPTOR_L) || *code & DESCRIPTOR_D))
        return soft_raise(cpu, SOFT_GP, error);
    if (!(*code & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, error);
    if (soft_is_long_mode(cpu) && !soft_is_canonical(gate->offset))
        return soft_raise(cpu, SOFT_GP, 0);
    return segment_set_accessed(cpu, gate->selector, code);
}

static bool find_inner_long(struct soft_cpu *cpu, unsigned cpl, struct inner *inner)
{
    if (4 + cpl * 8 + 7 > cpu->tr.limit)
        return soft_raise(cpu, SOFT_TS, SELECTOR_ERROR(cpu->tr.selector));
    inner->ss =
        (struct soft_segment){.selector = (uint16_t)cpl, .attributes = (uint16_t)(cpl << 5)};
    return soft_load_system(cpu, cpu->tr.base + 4 + cpl * 8, &inner->rsp, 8);
}

static bool find_inner_legacy(struct soft_cpu *cpu, unsigned cpl, struct inner *inner)
{
    bool is_32 = cpu->tr.attributes & 8;
    unsigned size = is_32 ? 4 : 2, offset = is_32 ? 4 + cpl * 8 : 2 + cpl * 4;
    uint16_t selector;

    inner->rsp = 0;
    if (offset + size + 1 > cpu->tr.limit)
        return soft_raise(cpu, SOFT_TS, SELECTOR_ERROR(cpu->tr.selector));
    if (!soft_load_system(cpu, cpu->tr.base + offset, &inner->rsp, size) ||
        !soft_load_system(cpu, cpu->tr.base + offset + size, &selector, 2))
        return false;
    return segment_read_inner_stack(cpu, selector, cpl, &inner->ss);
}

static bool push_inner(struct soft_cpu *cpu, struct inner *inner, uint64_t value, unsigned size)
{
    uint64_t mask = soft_is_long_mode(cpu)         ? UINT64_MAX
                    : inner->ss.attributes & SEG_D ? UINT32_MAX
                                                   : UINT16_MAX;

    inner->rsp = (inner->rsp & ~mask) | ((inner->rsp - size) & mask);
    if (soft_is_long_mode(cpu) && !soft_is_canonical(inner->rsp))
        return soft_raise(cpu, SOFT_SS_FAULT, 0);
    return soft_store_system(cpu, inner->ss.base + (inner->rsp & mask), &value, size);
}

/* Copies the caller's parameters, first pushed first. */
static bool copy_parameters(struct soft_cpu *cpu, const struct gate *gate, struct inner *inner)
{
    uint64_t mask = segment_stack_mask(cpu);

    for (unsigned i = gate->parameters; i-- > 0;) {
        uint64_t at = (cpu->r[SOFT_RSP] + i * gate->size) & mask, linear, value = 0;

        if (!stack_linear(cpu, at, gate->size, false, &linear) ||
            !soft_load(cpu, linear, &value, gate->size) ||
            !push_inner(cpu, inner, value, gate->size))
            return false;
    }
    return true;
}

static bool call_inner(struct soft_cpu *cpu, const struct gate *gate, unsigned cpl)
{
    struct inner inner = {0};
    bool found = soft_is_long_mode(cpu) ? find_inner_long(cpu, cpl, &inner)
                                        : find_inner_legacy(cpu, cpl, &inner);

    if (!found || !push_inner(cpu, &inner, cpu->seg[SOFT_SS].selector, gate->size) ||
        !push_inner(cpu, &inner, cpu->r[SOFT_RSP], gate->size) ||
        !copy_parameters(cpu, gate, &inner) ||
        !push_inner(cpu, &inner, cpu->seg[SOFT_CS].selector, gate->size) ||
        !push_inner(cpu, &inner, cpu->rip, gate->size))
        return false;
    cpu->seg[SOFT_SS] = inner.ss;
    cpu->r[SOFT_RSP] = inner.rsp;
    cpu->cpl = (uint8_t)cpl;
    return true;
}

static bool call_same(struct soft_cpu *cpu, const struct gate *gate)
{
    uint64_t rsp = cpu->r[SOFT_RSP];

    if (!stack_push(cpu, &rsp, cpu->seg[SOFT_CS].selector, gate->size) ||
        !stack_push(cpu, &rsp, cpu->rip, gate->size))
        return false;
    cpu->r[SOFT_RSP] = rsp;
    return true;
}

bool callgate_enter(struct soft_cpu *cpu, uint16_t selector, uint64_t low, bool is_call)
{
    struct gate gate = {0};
    uint64_t code;

    if (!read_gate(cpu, selector, low, &gate) || !read_code(cpu, &gate, is_call, &code))
        return false;
    unsigned dpl = DESCRIPTOR_DPL(code);
    bool is_inner = is_call && !(code & DESCRIPTOR_EXPAND) && dpl < cpu->cpl;

    if (is_call && !(is_inner ? call_inner(cpu, &gate, dpl) : call_same(cpu, &gate)))
        return false;
    segment_install(cpu, SOFT_CS, (uint16_t)((gate.selector & 0xfffc) | cpu->cpl), code);
    cpu->rip = gate.offset;
    soft_update_mode(cpu);
    return true;
}
