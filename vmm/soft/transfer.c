/* SPDX-License-Identifier: MIT */
/*
 * transfer: far control flow. Everything is read and checked before the first register changes.
 * Descriptors of tasks lead to task.c, outside long mode.
 */
#include "vmm/soft/transfer.h"

#include "vmm/soft/callgate.h"
#include "vmm/soft/stack.h"
#include "vmm/soft/task.h"

#define REG_OFFSET(n) ((uint8_t)((n)*8))

/* --- Segment registers as operands --- */

static bool transfer_mov_from(struct soft_cpu *cpu, const struct soft_op *op)
{
    return segment_store_selector(cpu, op, cpu->seg[op->c].selector);
}

static bool transfer_mov_to(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t selector = (uint16_t)*soft_reg64(cpu, op->a);

    if (!op->aux && !soft_load(cpu, soft_ea(cpu, op), &selector, 2))
        return false;
    return segment_load(cpu, op->c, selector);
}

enum soft_decoded transfer_decode_mov_from_segment(struct soft_decoder *d, uint8_t opcode)
{
    struct soft_op *op;

    (void)opcode;
    decode_modrm(d);
    if ((d->reg & 7) > SOFT_GS)
        return SOFT_UNDEFINED;
    if (decode_is_mem(d)) {
        op = decode_emit_call_mem(d, SOP_call_c, transfer_mov_from, 2, SOFT_WRITE);
        op->aux = 0;
    } else {
        op = decode_emit_call(d, SOP_call_c, transfer_mov_from);
        op->a = REG_OFFSET(d->rm);
        op->aux = d->operand_size;
    }
    op->c = d->reg & 7;
    return SOFT_DECODED;
}

enum soft_decoded transfer_decode_mov_to_segment(struct soft_decoder *d, uint8_t opcode)
{
    struct soft_op *op;

    (void)opcode;
    decode_modrm(d);
    unsigned index = d->reg & 7;

    if (index > SOFT_GS || index == SOFT_CS)
        return SOFT_UNDEFINED;
    if (decode_is_mem(d)) {
        op = decode_emit_call_mem(d, SOP_call_c, transfer_mov_to, 2, SOFT_READ);
        op->aux = 0;
    } else {
        op = decode_emit_call(d, SOP_call_c, transfer_mov_to);
        op->a = REG_OFFSET(d->rm);
        op->aux = 1;
    }
    op->c = (uint8_t)index;
    return index == SOFT_SS ? SOFT_DECODED_STACK_SHADOW : SOFT_DECODED;
}

static bool transfer_push_segment(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t rsp = cpu->r[SOFT_RSP];

    if (!stack_push(cpu, &rsp, cpu->seg[op->c].selector, op->a))
        return false;
    cpu->r[SOFT_RSP] = rsp;
    return true;
}

static bool transfer_pop_segment(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t rsp = cpu->r[SOFT_RSP], value;

    if (!stack_pop(cpu, &rsp, &value, op->a) || !segment_load(cpu, op->c, (uint16_t)value))
        return false;
    cpu->r[SOFT_RSP] = rsp;
    return true;
}

enum soft_decoded transfer_decode_segment_stack(struct soft_decoder *d, uint8_t opcode)
{
    bool is_pop = opcode & 1;
    struct soft_op *op =
        decode_emit_call(d, SOP_call_c, is_pop ? transfer_pop_segment : transfer_push_segment);

    op->c = opcode >> 3 & 7;
    if (opcode >= 0xa0)
        op->c = opcode < 0xa8 ? SOFT_FS : SOFT_GS;
    op->a = decode_is_64bit(d) && d->operand_size == 4 ? 8 : d->operand_size;
    return is_pop && op->c == SOFT_SS ? SOFT_DECODED_STACK_SHADOW : SOFT_DECODED;
}

/* A far pointer in memory: offset of `size` bytes, then the selector. */
static bool load_far_pointer(struct soft_cpu *cpu, const struct soft_op *op, unsigned size,
                             uint64_t *offset, uint16_t *selector)
{
    uint8_t bytes[10];

    if (!soft_load(cpu, soft_ea(cpu, op), bytes, size + 2))
        return false;
    *offset = 0;
    memcpy(offset, bytes, size);
    memcpy(selector, bytes + size, 2);
    return true;
}

static bool transfer_load_far(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t offset;
    uint16_t selector;

    if (!load_far_pointer(cpu, op, op->aux, &offset, &selector) ||
        !segment_load(cpu, op->c, selector))
        return false;
    memcpy(soft_reg64(cpu, op->a), &offset, op->aux == 4 ? 8 : op->aux);
    return true;
}

enum soft_decoded transfer_decode_load_far(struct soft_decoder *d, uint8_t opcode)
{
    unsigned index = opcode == 0xc4   ? SOFT_ES
                     : opcode == 0xc5 ? SOFT_DS
                     : opcode == 0xb2 ? SOFT_SS
                     : opcode == 0xb4 ? SOFT_FS
                                      : SOFT_GS;

    decode_modrm(d);
    if (!decode_is_mem(d))
        return SOFT_UNDEFINED;
    struct soft_op *op =
        decode_emit_call_mem(d, SOP_call_c, transfer_load_far, d->operand_size + 2u, SOFT_READ);

    op->a = REG_OFFSET(d->reg);
    op->c = (uint8_t)index;
    op->aux = d->operand_size;
    return index == SOFT_SS ? SOFT_DECODED_STACK_SHADOW : SOFT_DECODED;
}

/* --- Far jumps and calls --- */

static bool check_code_target(struct soft_cpu *cpu, uint16_t selector, uint64_t descriptor)
{
    uint32_t error = SELECTOR_ERROR(selector);
    unsigned dpl = DESCRIPTOR_DPL(descriptor);
    bool is_code = descriptor & DESCRIPTOR_S && descriptor & DESCRIPTOR_CODE;
    bool is_conforming = descriptor & DESCRIPTOR_EXPAND;

    if (!is_code || (is_conforming ? dpl > cpu->cpl : dpl != cpu->cpl || (selector & 3) > cpu->cpl))
        return soft_raise(cpu, SOFT_GP, error);
    if (soft_is_long_mode(cpu) && descriptor & DESCRIPTOR_L && descriptor & DESCRIPTOR_D)
        return soft_raise(cpu, SOFT_GP, error);
    if (!(descriptor & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, error);
    return true;
}

/* RIP must be in the new segment's reach. */
static bool check_target_rip(struct soft_cpu *cpu, uint64_t descriptor, uint64_t rip)
{
    struct soft_segment segment;

    segment_set(&segment, 0, descriptor);
    if (soft_is_long_mode(cpu) && segment.attributes & SEG_L)
        return soft_is_canonical(rip) || soft_raise(cpu, SOFT_GP, 0);
    return rip <= segment.limit || soft_raise(cpu, SOFT_GP, 0);
}

static bool enter_code(struct soft_cpu *cpu, uint16_t selector, uint64_t descriptor, uint64_t rip)
{
    if (!segment_set_accessed(cpu, selector, &descriptor))
        return false;
    segment_install(cpu, SOFT_CS, (uint16_t)((selector & 0xfffc) | cpu->cpl), descriptor);
    cpu->rip = rip;
    soft_update_mode(cpu);
    return true;
}

/* `size`: operand size; a call pushes CS and the address of the next instruction. */
static bool far_branch(struct soft_cpu *cpu, uint16_t selector, uint64_t rip, unsigned size,
                       bool is_call)
{
    uint64_t rsp = cpu->r[SOFT_RSP], descriptor = 0;

    if (!soft_is_real(cpu)) {
        if (!(selector & 0xfffc))
            return soft_raise(cpu, SOFT_GP, 0);
        if (!segment_read(cpu, selector, SOFT_GP, &descriptor))
            return false;
        if (callgate_is_one(cpu, descriptor))
            return callgate_enter(cpu, selector, descriptor, is_call);
        if (!soft_is_long_mode(cpu) && (task_is_gate(descriptor) || task_is_tss(descriptor)))
            return task_branch(cpu, selector, descriptor, is_call);
        if (!check_code_target(cpu, selector, descriptor) ||
            !check_target_rip(cpu, descriptor, rip))
            return false;
    }
    if (is_call && (!stack_push(cpu, &rsp, cpu->seg[SOFT_CS].selector, size) ||
                    !stack_push(cpu, &rsp, cpu->rip, size)))
        return false;
    if (soft_is_real(cpu)) {
        segment_install_real(cpu, SOFT_CS, selector);
        cpu->rip = rip;
        soft_update_mode(cpu);
    } else if (!enter_code(cpu, selector, descriptor, rip)) {
        return false;
    }
    cpu->r[SOFT_RSP] = rsp;
    return true;
}

static bool transfer_far_indirect(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t offset;
    uint16_t selector;

    return load_far_pointer(cpu, op, op->aux, &offset, &selector) &&
           far_branch(cpu, selector, offset, op->aux, op->c);
}

/* The pointer is in the instruction: offset in disp, selector in aux. */
static bool transfer_far_direct(struct soft_cpu *cpu, const struct soft_op *op)
{
    return far_branch(cpu, (uint16_t)op->aux, (uint32_t)op->disp, op->a, op->c);
}

enum soft_decoded transfer_decode_far_indirect(struct soft_decoder *d, bool is_call)
{
    if (!decode_is_mem(d))
        return SOFT_UNDEFINED;
    struct soft_op *op = decode_emit_call_mem(d, SOP_call_end, transfer_far_indirect,
                                              d->operand_size + 2u, SOFT_READ);

    op->c = is_call;
    op->aux = d->operand_size;
    return SOFT_DECODED_END;
}

enum soft_decoded transfer_decode_far_direct(struct soft_decoder *d, bool is_call)
{
    struct soft_op *op = decode_emit_call(d, SOP_call_end, transfer_far_direct);

    op->c = is_call;
    op->a = d->operand_size;
    op->disp = (int32_t)decode_imm(d, d->operand_size);
    if (d->operand_size == 2)
        op->disp &= 0xffff;
    op->aux = (uint16_t)decode_imm(d, 2);
    return SOFT_DECODED_END;
}

/* --- Far returns --- */

struct far_frame {
    uint64_t rip, cs, rflags, rsp, ss;
};

static bool check_return_code(struct soft_cpu *cpu, const struct far_frame *frame,
                              uint64_t *descriptor)
{
    uint16_t selector = (uint16_t)frame->cs;
    uint32_t error = SELECTOR_ERROR(selector);
    unsigned rpl = selector & 3;

    if (!(selector & 0xfffc))
        return soft_raise(cpu, SOFT_GP, 0);
    if (!segment_read(cpu, selector, SOFT_GP, descriptor))
        return false;
    unsigned dpl = DESCRIPTOR_DPL(*descriptor);
    bool is_code = *descriptor & DESCRIPTOR_S && *descriptor & DESCRIPTOR_CODE;
    bool is_conforming = *descriptor & DESCRIPTOR_EXPAND;

    if (!is_code || rpl < cpu->cpl || (is_conforming ? dpl > rpl : dpl != rpl))
        return soft_raise(cpu, SOFT_GP, error);
    if (soft_is_long_mode(cpu) && *descriptor & DESCRIPTOR_L && *descriptor & DESCRIPTOR_D)
        return soft_raise(cpu, SOFT_GP, error);
    if (!(*descriptor & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, error);
    return check_target_rip(cpu, *descriptor, frame->rip) &&
           segment_set_accessed(cpu, selector, descriptor);
}

/* *descriptor 0: a null SS, which 64-bit code below CPL 3 may have. */
static bool check_return_stack(struct soft_cpu *cpu, const struct far_frame *frame, uint64_t code,
                               uint64_t *descriptor)
{
    uint16_t selector = (uint16_t)frame->ss;
    unsigned rpl = (unsigned)frame->cs & 3;
    bool to_64bit = soft_is_long_mode(cpu) && code & DESCRIPTOR_L;

    *descriptor = 0;
    if (!(selector & 0xfffc))
        return (to_64bit && rpl != 3 && (selector & 3u) == rpl) || soft_raise(cpu, SOFT_GP, 0);
    if (!segment_read(cpu, selector, SOFT_GP, descriptor))
        return false;
    if ((selector & 3u) != rpl || !(*descriptor & DESCRIPTOR_S) || *descriptor & DESCRIPTOR_CODE ||
        !(*descriptor & DESCRIPTOR_WRITE) || DESCRIPTOR_DPL(*descriptor) != rpl)
        return soft_raise(cpu, SOFT_GP, SELECTOR_ERROR(selector));
    if (!(*descriptor & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_SS_FAULT, SELECTOR_ERROR(selector));
    return segment_set_accessed(cpu, selector, descriptor);
}

/* Data segments that the outer level must not have become null. */
static void drop_inner_segments(struct soft_cpu *cpu)
{
    static const uint8_t checked[] = {SOFT_ES, SOFT_DS, SOFT_FS, SOFT_GS};

    for (unsigned i = 0; i < ARRAY_SIZE(checked); i++) {
        const struct soft_segment *segment = &cpu->seg[checked[i]];
        bool is_conforming =
            (segment->attributes & (SEG_CODE | SEG_EXPAND)) == (SEG_CODE | SEG_EXPAND);

        if (segment->attributes & SEG_P && !is_conforming &&
            SEG_DPL(segment->attributes) < cpu->cpl)
            segment_install_null(cpu, checked[i], 0);
    }
}

static void install_stack(struct soft_cpu *cpu, const struct far_frame *frame, uint64_t descriptor)
{
    uint16_t selector = (uint16_t)frame->ss;

    if (descriptor) {
        segment_install(cpu, SOFT_SS, selector, descriptor);
    } else {
        segment_install_null(cpu, SOFT_SS, selector);
        cpu->seg[SOFT_SS].attributes = (uint16_t)((selector & 3) << 5);
    }
}

/* The frame is read. with_stack: RSP and SS come from it, as they do for an outer level. */
static bool finish_return(struct soft_cpu *cpu, const struct far_frame *frame, bool with_stack)
{
    uint64_t code, stack = 0;
    unsigned rpl = (unsigned)frame->cs & 3;
    bool is_outer = rpl > cpu->cpl;

    if (!check_return_code(cpu, frame, &code) ||
        (with_stack && !check_return_stack(cpu, frame, code, &stack)))
        return false;
    segment_install(cpu, SOFT_CS, (uint16_t)frame->cs, code);
    cpu->rip = frame->rip;
    cpu->cpl = (uint8_t)rpl;
    if (with_stack)
        install_stack(cpu, frame, stack);
    uint64_t mask = soft_is_long_mode(cpu) && code & DESCRIPTOR_L ? UINT64_MAX
                    : cpu->seg[SOFT_SS].attributes & SEG_D        ? UINT32_MAX
                                                                  : UINT16_MAX;

    if (mask == UINT16_MAX)
        cpu->r[SOFT_RSP] = (cpu->r[SOFT_RSP] & ~mask) | (frame->rsp & mask);
    else
        cpu->r[SOFT_RSP] = frame->rsp & mask;
    if (is_outer)
        drop_inner_segments(cpu);
    soft_update_mode(cpu);
    return true;
}

static bool return_real(struct soft_cpu *cpu, const struct far_frame *frame)
{
    segment_install_real(cpu, SOFT_CS, (uint16_t)frame->cs);
    cpu->rip = frame->rip;
    cpu->r[SOFT_RSP] = frame->rsp;
    soft_update_mode(cpu);
    return true;
}

static bool transfer_far_return(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct far_frame frame;
    uint64_t rsp = cpu->r[SOFT_RSP];
    unsigned size = op->c;

    if (!stack_pop(cpu, &rsp, &frame.rip, size) || !stack_pop(cpu, &rsp, &frame.cs, size))
        return false;
    frame.rsp = stack_move(cpu, rsp, (int64_t)op->aux);
    if (soft_is_real(cpu))
        return return_real(cpu, &frame);
    bool is_outer = (frame.cs & 3) > cpu->cpl;

    if (is_outer) {
        rsp = frame.rsp;
        if (!stack_pop(cpu, &rsp, &frame.rsp, size) || !stack_pop(cpu, &rsp, &frame.ss, size))
            return false;
        frame.rsp += op->aux;
    }
    return finish_return(cpu, &frame, is_outer);
}

enum soft_decoded transfer_decode_far_return(struct soft_decoder *d, uint8_t opcode)
{
    uint32_t release = opcode == 0xca ? (uint16_t)decode_imm(d, 2) : 0;
    struct soft_op *op = decode_emit_call(d, SOP_call_end, transfer_far_return);

    op->aux = release;
    op->c = d->operand_size;
    return SOFT_DECODED_END;
}

/* --- IRET --- */

static uint64_t iret_mask(const struct soft_cpu *cpu, unsigned size)
{
    uint64_t mask =
        RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;

    if (cpu->cpl <= (cpu->rflags >> 12 & 3))
        mask |= RFLAGS_IF;
    if (cpu->cpl == 0)
        mask |= RFLAGS_IOPL | RFLAGS_VIF | RFLAGS_VIP;
    return size == 2 ? mask & 0xffff : mask;
}

static void set_iret_flags(struct soft_cpu *cpu, uint64_t value, uint64_t mask)
{
    soft_set_rflags(cpu, (soft_get_rflags(cpu) & ~mask) | (value & mask));
    cpu->nmi_blocked = false;
}

static bool iret_real(struct soft_cpu *cpu, struct far_frame *frame, unsigned size)
{
    uint64_t mask = iret_mask(cpu, size) | (size == 2 ? 0 : RFLAGS_RF);

    if (cpu->rflags & RFLAGS_VM) {
        if ((cpu->rflags & RFLAGS_IOPL) != RFLAGS_IOPL)
            return soft_raise(cpu, SOFT_GP, 0);
        mask &= ~RFLAGS_IOPL;
    }
    return_real(cpu, frame);
    set_iret_flags(cpu, frame->rflags, mask);
    return true;
}

static bool iret_to_virtual_8086(struct soft_cpu *cpu, struct far_frame *frame, uint64_t rsp)
{
    static const uint8_t order[] = {SOFT_ES, SOFT_DS, SOFT_FS, SOFT_GS};
    uint64_t selectors[4];

    if (!stack_pop(cpu, &rsp, &frame->rsp, 4) || !stack_pop(cpu, &rsp, &frame->ss, 4))
        return false;
    for (unsigned i = 0; i < 4; i++)
        if (!stack_pop(cpu, &rsp, &selectors[i], 4))
            return false;
    soft_set_rflags(cpu, frame->rflags);
    cpu->cpl = 3;
    for (unsigned i = 0; i < 4; i++)
        segment_install_real(cpu, order[i], (uint16_t)selectors[i]);
    segment_install_real(cpu, SOFT_SS, (uint16_t)frame->ss);
    segment_install_real(cpu, SOFT_CS, (uint16_t)frame->cs);
    cpu->rip = (uint16_t)frame->rip;
    cpu->r[SOFT_RSP] = frame->rsp;
    cpu->nmi_blocked = false;
    soft_update_mode(cpu);
    return true;
}

static bool transfer_iret(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct far_frame frame;
    uint64_t rsp = cpu->r[SOFT_RSP];
    unsigned size = op->c;

    if (cpu->rflags & RFLAGS_NT && !soft_is_real(cpu))
        return soft_is_long_mode(cpu) ? soft_raise(cpu, SOFT_GP, 0) : task_return(cpu);
    if (!stack_pop(cpu, &rsp, &frame.rip, size) || !stack_pop(cpu, &rsp, &frame.cs, size) ||
        !stack_pop(cpu, &rsp, &frame.rflags, size))
        return false;
    frame.rsp = rsp;
    if (soft_is_real(cpu))
        return iret_real(cpu, &frame, size);
    if (frame.rflags & RFLAGS_VM && cpu->cpl == 0 && !soft_is_long_mode(cpu) && size == 4)
        return iret_to_virtual_8086(cpu, &frame, rsp);
    bool with_stack = soft_is_64bit(cpu) || (frame.cs & 3) > cpu->cpl;

    if (with_stack &&
        (!stack_pop(cpu, &rsp, &frame.rsp, size) || !stack_pop(cpu, &rsp, &frame.ss, size)))
        return false;
    uint64_t mask = iret_mask(cpu, size);

    if (!finish_return(cpu, &frame, with_stack))
        return false;
    set_iret_flags(cpu, frame.rflags, mask);
    return true;
}

enum soft_decoded transfer_decode_iret(struct soft_decoder *d)
{
    decode_emit_call(d, SOP_call_end, transfer_iret)->c = d->operand_size;
    return SOFT_DECODED_END;
}
