/* SPDX-License-Identifier: MIT */
/* syscall: fast system calls, the LDT and task registers, LAR, LSL, VERR and VERW. */
#include "vmm/soft/syscall.h"

#include "vmm/soft/exception.h"
#include "vmm/soft/stack.h"

#define REG_OFFSET(n) ((uint8_t)((n)*8))

#define FLAT_CODE   (SEG_P | SEG_S | SEG_CODE | SEG_WRITABLE | SEG_ACCESSED | SEG_G)
#define FLAT_DATA   (SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_G | SEG_D)
#define SYSRET_MASK UINT64_C(0x3c7fd7)

#define DR6_HITS UINT64_C(0x000f)
#define DR6_BS   UINT64_C(0x4000)

#define TYPE_LDT           2
#define TYPE_TSS_AVAILABLE 9
#define TYPE_TSS_BUSY      11

static void set_flat(struct soft_cpu *cpu, unsigned index, uint16_t selector, unsigned cpl,
                     uint16_t attributes)
{
    cpu->seg[index] = (struct soft_segment){
        .selector = selector, .limit = UINT32_MAX, .attributes = (uint16_t)(attributes | cpl << 5)};
}

static void set_both(struct soft_cpu *cpu, uint16_t code, uint16_t stack, unsigned cpl,
                     bool is_64bit)
{
    set_flat(cpu, SOFT_CS, code, cpl, FLAT_CODE | (is_64bit ? SEG_L : SEG_D));
    set_flat(cpu, SOFT_SS, stack, cpl, FLAT_DATA);
    cpu->cpl = (uint8_t)cpl;
}

/*
 * As AMD has them: SYSCALL and SYSRET exist in legacy mode too, SYSENTER and SYSEXIT only there.
 * (AMD APM volume 3, appendix on long-mode instruction behaviour, and the instructions' pages.)
 */
static void syscall_enter_legacy(struct soft_cpu *cpu, uint16_t selector)
{
    cpu->r[SOFT_RCX] = (uint32_t)cpu->rip;
    cpu->rip = (uint32_t)cpu->star;
    set_both(cpu, selector, (uint16_t)(selector + 8), 0, false);
    soft_set_rflags(cpu, soft_get_rflags(cpu) & ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF));
}

static void syscall_enter_long(struct soft_cpu *cpu, uint16_t selector)
{
    bool from_64bit = soft_is_64bit(cpu);

    cpu->r[SOFT_RCX] = cpu->rip;
    cpu->r[SOFT_R8 + 3] = soft_get_rflags(cpu) & ~RFLAGS_RF;
    cpu->rip = from_64bit ? cpu->lstar : cpu->cstar;
    set_both(cpu, selector, (uint16_t)(selector + 8), 0, true);
    soft_set_rflags(cpu, soft_get_rflags(cpu) & ~cpu->sfmask & ~RFLAGS_RF);
}

static bool syscall_enter(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t selector = (uint16_t)(cpu->star >> 32 & 0xfffc);

    (void)op;
    if (!(cpu->efer & EFER_SCE))
        return soft_raise(cpu, SOFT_UD, 0);
    if (soft_is_long_mode(cpu))
        syscall_enter_long(cpu, selector);
    else
        syscall_enter_legacy(cpu, selector);
    soft_update_mode(cpu);
    return true;
}

/* SYSRET that sets TF traps at once, unlike IRET and POPF (and no second time if it was set
 * before). */
static bool trap_after_return(struct soft_cpu *cpu)
{
    struct exception exception = {.vector = SOFT_DB, .source = EXCEPTION_TRAP, .rip = cpu->rip};

    cpu->dr[6] = (cpu->dr[6] & ~DR6_HITS) | DR6_BS;
    cpu->no_trap = true;
    return exception_enter(cpu, &exception);
}

static bool syscall_return(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t selector = (uint16_t)(cpu->star >> 48);
    bool to_64bit = op->c;

    if (!(cpu->efer & EFER_SCE))
        return soft_raise(cpu, SOFT_UD, 0);
    if (soft_is_real(cpu) || cpu->cpl || (to_64bit && !soft_is_canonical(cpu->r[SOFT_RCX])))
        return soft_raise(cpu, SOFT_GP, 0);
    cpu->rip = to_64bit ? cpu->r[SOFT_RCX] : (uint32_t)cpu->r[SOFT_RCX];
    set_both(cpu, (uint16_t)((selector + (to_64bit ? 16 : 0)) | 3), (uint16_t)((selector + 8) | 3),
             3, to_64bit);
    if (soft_is_long_mode(cpu))
        soft_set_rflags(cpu, cpu->r[SOFT_R8 + 3] & SYSRET_MASK);
    else
        soft_set_rflags(cpu, soft_get_rflags(cpu) | RFLAGS_IF);
    soft_update_mode(cpu);
    return cpu->rflags & RFLAGS_TF ? trap_after_return(cpu) : true;
}

static bool sysenter_enter(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t selector = (uint16_t)(cpu->sysenter_cs & 0xfffc);

    (void)op;
    if (soft_is_long_mode(cpu))
        return soft_raise(cpu, SOFT_UD, 0);
    if (!(cpu->cr0 & CR0_PE) || !selector)
        return soft_raise(cpu, SOFT_GP, 0);
    cpu->rip = (uint32_t)cpu->sysenter_eip;
    cpu->r[SOFT_RSP] = (uint32_t)cpu->sysenter_esp;
    set_both(cpu, selector, (uint16_t)(selector + 8), 0, false);
    soft_set_rflags(cpu, soft_get_rflags(cpu) & ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF));
    soft_update_mode(cpu);
    return true;
}

static bool sysenter_return(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t selector = (uint16_t)cpu->sysenter_cs;

    (void)op;
    if (soft_is_long_mode(cpu))
        return soft_raise(cpu, SOFT_UD, 0);
    if (soft_is_real(cpu) || cpu->cpl || !(selector & 0xfffc))
        return soft_raise(cpu, SOFT_GP, 0);
    cpu->rip = (uint32_t)cpu->r[SOFT_RDX];
    cpu->r[SOFT_RSP] = (uint32_t)cpu->r[SOFT_RCX];
    selector = (uint16_t)(selector + 16);
    set_both(cpu, selector | 3, (uint16_t)(selector + 8) | 3, 3, false);
    soft_update_mode(cpu);
    return true;
}

/* --- LDTR and TR --- */

static bool operand_selector(struct soft_cpu *cpu, const struct soft_op *op, uint16_t *selector)
{
    if (!(op->aux & 0xff))
        return soft_load(cpu, soft_ea(cpu, op), selector, 2);
    *selector = (uint16_t)*soft_reg64(cpu, op->a);
    return true;
}

static bool store_selector(struct soft_cpu *cpu, const struct soft_op *op)
{
    return segment_store_selector(cpu, op, op->c ? cpu->tr.selector : cpu->ldt.selector);
}

/* System descriptors have a second half in long mode. */
static bool read_system_descriptor(struct soft_cpu *cpu, uint16_t selector, uint64_t out[2])
{
    unsigned size = soft_is_long_mode(cpu) ? 16 : 8;

    out[1] = 0;
    if (selector & 4 || (selector & 0xfff8u) + size - 1 > cpu->gdt_limit)
        return soft_raise(cpu, SOFT_GP, SELECTOR_ERROR(selector));
    return soft_load_system(cpu, cpu->gdt_base + (selector & 0xfff8u), out, size);
}

static bool load_ldt(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t selector;
    uint64_t descriptor[2];

    if (cpu->cpl)
        return soft_raise(cpu, SOFT_GP, 0);
    if (!operand_selector(cpu, op, &selector))
        return false;
    if (!(selector & 0xfffc)) {
        cpu->ldt = (struct soft_segment){.selector = selector};
        return true;
    }
    if (!read_system_descriptor(cpu, selector, descriptor))
        return false;
    if (descriptor[0] & DESCRIPTOR_S || DESCRIPTOR_TYPE(descriptor[0]) != TYPE_LDT)
        return soft_raise(cpu, SOFT_GP, SELECTOR_ERROR(selector));
    if (!(descriptor[0] & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, SELECTOR_ERROR(selector));
    segment_set(&cpu->ldt, selector, descriptor[0]);
    cpu->ldt.base |= descriptor[1] << 32;
    return true;
}

static bool load_task(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t selector;
    uint64_t descriptor[2];

    if (cpu->cpl)
        return soft_raise(cpu, SOFT_GP, 0);
    if (!operand_selector(cpu, op, &selector))
        return false;
    if (!(selector & 0xfffc))
        return soft_raise(cpu, SOFT_GP, 0);
    if (!read_system_descriptor(cpu, selector, descriptor))
        return false;
    unsigned type = DESCRIPTOR_TYPE(descriptor[0]);

    if (descriptor[0] & DESCRIPTOR_S ||
        (type != TYPE_TSS_AVAILABLE && (type != 1 || soft_is_long_mode(cpu))))
        return soft_raise(cpu, SOFT_GP, SELECTOR_ERROR(selector));
    if (!(descriptor[0] & DESCRIPTOR_P))
        return soft_raise(cpu, SOFT_NP, SELECTOR_ERROR(selector));
    descriptor[0] |= UINT64_C(2) << 40; /* busy */
    if (!soft_store_system(cpu, cpu->gdt_base + (selector & 0xfff8u), descriptor, 8))
        return false;
    segment_set(&cpu->tr, selector, descriptor[0]);
    cpu->tr.base |= descriptor[1] << 32;
    return true;
}

/* --- LAR, LSL, VERR, VERW: answers in ZF, no faults about the selector --- */

static void set_zero_flag(struct soft_cpu *cpu, bool value)
{
    cpu->flags = (cpu->flags & ~SOFT_FLAG_ZF) | (value ? SOFT_FLAG_ZF : 0);
}

/* False: an exception. *valid: the descriptor exists and may be seen from here. */
static bool look_up(struct soft_cpu *cpu, uint16_t selector, uint64_t *descriptor, bool *valid)
{
    *valid = false;
    if (!(selector & 0xfffc))
        return true;
    if (!segment_read(cpu, selector, SOFT_GP, descriptor)) {
        if (cpu->exception != SOFT_GP || cpu->error_code != SELECTOR_ERROR(selector))
            return false;
        cpu->pending = SOFT_PENDING_NONE;
        return true;
    }
    bool is_conforming = *descriptor & DESCRIPTOR_S && *descriptor & DESCRIPTOR_CODE &&
                         *descriptor & DESCRIPTOR_EXPAND;
    unsigned dpl = DESCRIPTOR_DPL(*descriptor);

    *valid = is_conforming || (cpu->cpl <= dpl && (selector & 3u) <= dpl);
    return true;
}

/* Which system descriptors LAR (first bits) and LSL know, by type. */
static bool is_known_system(const struct soft_cpu *cpu, unsigned type, bool for_limit)
{
    unsigned legacy = for_limit ? 0x0a0e : 0x1a3e;
    unsigned in_long = for_limit ? 0x0a04 : 0x1a04;

    return (soft_is_long_mode(cpu) ? in_long : legacy) >> type & 1;
}

static bool load_about(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t selector;
    uint64_t descriptor = 0, value;
    bool valid, for_limit = op->c & 1;
    unsigned size = op->c & ~1u;

    if (!operand_selector(cpu, op, &selector) || !look_up(cpu, selector, &descriptor, &valid))
        return false;
    if (valid && !(descriptor & DESCRIPTOR_S))
        valid = is_known_system(cpu, DESCRIPTOR_TYPE(descriptor), for_limit);
    set_zero_flag(cpu, valid);
    if (!valid)
        return true;
    struct soft_segment segment;

    segment_set(&segment, selector, descriptor);
    value = for_limit ? segment.limit : descriptor >> 32 & 0xf0ff00;
    uint64_t *to = soft_reg64(cpu, (uint8_t)(op->aux >> 8));

    if (size == 2)
        memcpy(to, &value, 2);
    else
        *to = value;
    return true;
}

static bool verify(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t selector;
    uint64_t descriptor = 0;
    bool valid;

    if (!operand_selector(cpu, op, &selector) || !look_up(cpu, selector, &descriptor, &valid))
        return false;
    bool is_code = descriptor & DESCRIPTOR_CODE, bit = descriptor & DESCRIPTOR_WRITE;

    valid = valid && descriptor & DESCRIPTOR_S && (op->c ? !is_code && bit : !is_code || bit);
    set_zero_flag(cpu, valid);
    return true;
}

/* --- Decoding --- */

static struct soft_op *emit_selector(struct soft_decoder *d, enum soft_op_kind kind,
                                     soft_helper *helper, bool is_write)
{
    struct soft_op *op;

    if (decode_is_mem(d)) {
        op = decode_emit_call_mem(d, kind, helper, 2, is_write ? SOFT_WRITE : SOFT_READ);
        op->aux = 0;
    } else {
        op = decode_emit_call(d, kind, helper);
        op->a = REG_OFFSET(d->rm);
        op->aux = d->operand_size;
    }
    return op;
}

static enum soft_decoded decode_group6(struct soft_decoder *d)
{
    decode_modrm(d);
    unsigned digit = d->reg & 7;

    if (d->mode & SOFT_MODE_REAL || digit > 5)
        return SOFT_UNDEFINED;
    if (digit < 2)
        emit_selector(d, SOP_call_c, store_selector, true)->c = (uint8_t)digit;
    else if (digit == 2)
        emit_selector(d, SOP_call_c, load_ldt, false);
    else if (digit == 3)
        emit_selector(d, SOP_call_c, load_task, false);
    else
        emit_selector(d, SOP_call_flags, verify, false)->c = digit == 5;
    return SOFT_DECODED;
}

static enum soft_decoded decode_about(struct soft_decoder *d, uint8_t opcode)
{
    if (d->mode & SOFT_MODE_REAL)
        return SOFT_UNDEFINED;
    decode_modrm(d);
    struct soft_op *op = emit_selector(d, SOP_call_flags, load_about, false);

    op->c = (uint8_t)(d->operand_size | (opcode == 3));
    op->aux |= (uint32_t)REG_OFFSET(d->reg) << 8;
    return SOFT_DECODED;
}

static enum soft_decoded decode_end(struct soft_decoder *d, soft_helper *helper)
{
    decode_emit_call(d, SOP_call_end, helper)->c = d->operand_size == 8;
    return SOFT_DECODED_END;
}

enum soft_decoded syscall_decode(struct soft_decoder *d, uint8_t opcode)
{
    switch (opcode) {
    case 0x00:
        return decode_group6(d);
    case 0x02:
    case 0x03:
        return decode_about(d, opcode);
    case 0x05:
        return decode_end(d, syscall_enter);
    case 0x07:
        return decode_end(d, syscall_return);
    case 0x34:
        return decode_end(d, sysenter_enter);
    case 0x35:
        return decode_end(d, sysenter_return);
    default:
        return SOFT_UNDEFINED;
    }
}
