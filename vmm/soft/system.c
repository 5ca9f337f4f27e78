/* SPDX-License-Identifier: MIT */
/* system: the privileged and the merely special instructions. */
#include "vmm/soft/system.h"

#include "vmm/soft/cpuid.h"
#include "vmm/soft/exception.h"
#include "vmm/soft/mmio.h"
#include "vmm/soft/mmu.h"
#include "vmm/soft/msr.h"
#include "vmm/soft/stack.h"
#include "vmm/soft/syscall.h"
#include "vmm/soft/transfer.h"
#include "vmm/soft/xsave.h"

#define REG_OFFSET(n) ((uint8_t)((n)*8))

static unsigned iopl(const struct soft_cpu *cpu)
{
    return (unsigned)(cpu->rflags >> 12) & 3;
}

static bool require_cpl0(struct soft_cpu *cpu)
{
    return cpu->cpl == 0 || soft_raise(cpu, SOFT_GP, 0);
}

/* --- Flags --- */

static bool system_popf(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t rsp = cpu->r[SOFT_RSP], value;
    uint64_t mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC | RFLAGS_ID;

    if (cpu->rflags & RFLAGS_VM && iopl(cpu) < 3)
        return soft_raise(cpu, SOFT_GP, 0);
    if (!stack_pop(cpu, &rsp, &value, op->c))
        return false;
    if (cpu->cpl == 0)
        mask |= RFLAGS_IOPL;
    if (cpu->cpl <= iopl(cpu))
        mask |= RFLAGS_IF;
    if (op->c == 2)
        mask &= 0xffff;
    cpu->r[SOFT_RSP] = rsp;
    soft_set_rflags(cpu, (soft_get_rflags(cpu) & ~mask & ~RFLAGS_RF) | (value & mask));
    return true;
}

static bool system_cli(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    if (cpu->cpl > iopl(cpu))
        return soft_raise(cpu, SOFT_GP, 0);
    cpu->rflags &= ~RFLAGS_IF;
    return true;
}

static bool system_sti(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    if (cpu->cpl > iopl(cpu))
        return soft_raise(cpu, SOFT_GP, 0);
    cpu->rflags |= RFLAGS_IF;
    if (cpu->irq_waiting)
        atomic_store_explicit(&cpu->poll, 1, memory_order_relaxed);
    return true;
}

/* --- Interrupts by instruction --- */

static bool system_int(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct exception exception = {.vector = op->c, .source = EXCEPTION_SOFTWARE, .rip = cpu->rip};

    if (op->a && cpu->rflags & RFLAGS_VM && iopl(cpu) < 3)
        return soft_raise(cpu, SOFT_GP, 0);
    if (op->c == SOFT_BP && cpu->debug.control & KVM_GUESTDBG_USE_SW_BP) {
        cpu->pending = SOFT_PENDING_EXIT;
        cpu->exit = (struct accel_exit){.reason = ACCEL_EXIT_DEBUG};
        cpu->exit.debug.rip = cpu->rip - op->length;
        cpu->exit.debug.exception = SOFT_BP;
        return false;
    }
    cpu->no_trap = true;
    return exception_enter(cpu, &exception);
}

static bool system_icebp(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct exception exception = {.vector = SOFT_DB, .source = EXCEPTION_TRAP, .rip = cpu->rip};

    (void)op;
    cpu->no_trap = true;
    return exception_enter(cpu, &exception);
}

static bool system_hlt(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    if (!require_cpl0(cpu))
        return false;
    cpu->is_halted = true;
    atomic_store_explicit(&cpu->poll, 1, memory_order_relaxed);
    return true;
}

/* --- Ports --- */

bool system_check_port(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    uint16_t map_offset, bits;

    if (!(cpu->cr0 & CR0_PE) || (cpu->cpl <= iopl(cpu) && !(cpu->rflags & RFLAGS_VM)))
        return true;
    if (!(cpu->tr.attributes & SEG_P) || cpu->tr.limit < 103)
        return soft_raise(cpu, SOFT_GP, 0);
    if (!soft_load_system(cpu, cpu->tr.base + 102, &map_offset, 2))
        return false;
    if ((uint32_t)map_offset + port / 8 + 1 > cpu->tr.limit)
        return soft_raise(cpu, SOFT_GP, 0);
    if (!soft_load_system(cpu, cpu->tr.base + map_offset + port / 8, &bits, 2))
        return false;
    if (bits >> (port & 7) & ((1u << size) - 1))
        return soft_raise(cpu, SOFT_GP, 0);
    return true;
}

/* c: size, a: the port is in aux, b: it is a write. */
static bool system_port(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t port = op->a ? (uint16_t)op->aux : (uint16_t)cpu->r[SOFT_RDX];
    uint32_t value = (uint32_t)cpu->r[SOFT_RAX];

    if (!system_check_port(cpu, port, op->c) || !mmio_port(cpu, port, &value, op->c, op->b))
        return false;
    if (op->b)
        return true;
    if (op->c == 4)
        cpu->r[SOFT_RAX] = value;
    else
        memcpy(&cpu->r[SOFT_RAX], &value, op->c);
    return true;
}

static enum soft_decoded decode_port(struct soft_decoder *d, uint8_t opcode)
{
    struct soft_op *op = decode_emit_call(d, SOP_call_c, system_port);

    op->c = (uint8_t)(opcode & 1 ? MIN(d->operand_size, 4) : 1);
    op->b = opcode >> 1 & 1;
    op->a = !(opcode & 8);
    if (op->a)
        op->aux = decode_u8(d);
    return SOFT_DECODED;
}

enum soft_decoded system_decode_one_byte(struct soft_decoder *d, uint8_t opcode)
{
    struct soft_op *op;

    switch (opcode) {
    case 0x9d:
        op = decode_emit_call(d, SOP_call_end, system_popf);
        op->c = decode_is_64bit(d) && d->operand_size == 4 ? 8 : d->operand_size;
        return SOFT_DECODED_END;
    case 0xcc:
        decode_emit_call(d, SOP_call_end, system_int)->c = SOFT_BP;
        return SOFT_DECODED_END;
    case 0xcd:
        op = decode_emit_call(d, SOP_call_end, system_int);
        op->c = decode_u8(d);
        op->a = true;
        return SOFT_DECODED_END;
    case 0xcf:
        return transfer_decode_iret(d);
    case 0xf1:
        decode_emit_call(d, SOP_call_end, system_icebp);
        return SOFT_DECODED_END;
    case 0xf4:
        decode_emit_call(d, SOP_call_end, system_hlt);
        return SOFT_DECODED_END;
    case 0xfa:
        decode_emit_call(d, SOP_call_c, system_cli);
        return SOFT_DECODED;
    case 0xfb:
        decode_emit_call(d, SOP_call_c, system_sti);
        return SOFT_DECODED_SHADOW;
    default:
        return decode_port(d, opcode);
    }
}

/* --- Registers that are no operands elsewhere --- */

static bool system_read_control(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value;

    if (!require_cpl0(cpu) || !control_read(cpu, op->c, &value))
        return false;
    *soft_reg64(cpu, op->a) = soft_is_64bit(cpu) ? value : (uint32_t)value;
    return true;
}

static bool system_write_control(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value = *soft_reg64(cpu, op->a);

    if (!require_cpl0(cpu))
        return false;
    return control_write(cpu, op->c, soft_is_64bit(cpu) ? value : (uint32_t)value);
}

static bool system_read_debug(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value;

    if (!require_cpl0(cpu) || !debug_read(cpu, op->c, &value))
        return false;
    *soft_reg64(cpu, op->a) = soft_is_64bit(cpu) ? value : (uint32_t)value;
    return true;
}

static bool system_write_debug(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value = *soft_reg64(cpu, op->a);

    if (!require_cpl0(cpu))
        return false;
    return debug_write(cpu, op->c, soft_is_64bit(cpu) ? value : (uint32_t)value);
}

static bool system_clts(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    return require_cpl0(cpu) && control_write(cpu, 0, cpu->cr0 & ~CR0_TS);
}

static bool system_lmsw(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t value;

    if (!require_cpl0(cpu))
        return false;
    if (op->c)
        value = (uint16_t)*soft_reg64(cpu, op->a);
    else if (!soft_load(cpu, soft_ea(cpu, op), &value, 2))
        return false;
    /* PE can be set, not cleared. */
    return control_write(cpu, 0, (cpu->cr0 & ~UINT64_C(0xe)) | (value & 0xf));
}

static bool system_smsw(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t *to = soft_reg64(cpu, op->a);

    if (!op->c)
        return soft_store(cpu, soft_ea(cpu, op), &cpu->cr0, 2);
    if (op->c == 2)
        memcpy(to, &cpu->cr0, 2);
    else
        *to = op->c == 8 ? cpu->cr0 : (uint32_t)cpu->cr0;
    return true;
}

static bool system_invlpg(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (!require_cpl0(cpu))
        return false;
    mmu_flush_page(cpu, soft_ea(cpu, op));
    return true;
}

static bool system_swapgs(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t base = cpu->r[SOFT_REG_GSBASE];

    (void)op;
    if (!require_cpl0(cpu))
        return false;
    cpu->r[SOFT_REG_GSBASE] = cpu->kernel_gs_base;
    cpu->kernel_gs_base = base;
    return true;
}

static bool system_wbinvd(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    return require_cpl0(cpu);
}

static bool system_cpuid(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint32_t out[4];

    (void)op;
    soft_cpuid(cpu, (uint32_t)cpu->r[SOFT_RAX], (uint32_t)cpu->r[SOFT_RCX], out);
    cpu->r[SOFT_RAX] = out[0];
    cpu->r[SOFT_RBX] = out[1];
    cpu->r[SOFT_RCX] = out[2];
    cpu->r[SOFT_RDX] = out[3];
    return true;
}

static bool system_rdtsc(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (cpu->cr4 & CR4_TSD && cpu->cpl)
        return soft_raise(cpu, SOFT_GP, 0);
    uint64_t tsc = soft_tsc(cpu);

    cpu->r[SOFT_RAX] = (uint32_t)tsc;
    cpu->r[SOFT_RDX] = tsc >> 32;
    if (op->c)
        cpu->r[SOFT_RCX] = (uint32_t)cpu->tsc_aux;
    return true;
}

static bool system_rdmsr(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value;

    (void)op;
    if (!require_cpl0(cpu))
        return false;
    if (!msr_read(cpu, (uint32_t)cpu->r[SOFT_RCX], &value))
        return soft_raise(cpu, SOFT_GP, 0);
    cpu->r[SOFT_RAX] = (uint32_t)value;
    cpu->r[SOFT_RDX] = value >> 32;
    return true;
}

static bool system_wrmsr(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value = (uint32_t)cpu->r[SOFT_RAX] | cpu->r[SOFT_RDX] << 32;

    (void)op;
    if (!require_cpl0(cpu))
        return false;
    return msr_write(cpu, (uint32_t)cpu->r[SOFT_RCX], value) || soft_raise(cpu, SOFT_GP, 0);
}

static bool system_rdpmc(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    return soft_raise(cpu, SOFT_GP, 0); /* there are no counters */
}

/* --- Descriptor tables --- */

static bool system_store_table(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t image[10];
    uint16_t limit = op->c ? cpu->idt_limit : cpu->gdt_limit;
    uint64_t base = op->c ? cpu->idt_base : cpu->gdt_base;

    memcpy(image, &limit, 2);
    memcpy(image + 2, &base, 8);
    return soft_store(cpu, soft_ea(cpu, op), image, soft_is_64bit(cpu) ? 10 : 6);
}

static bool system_load_table(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t image[10] = {0};
    uint64_t base;

    if (!require_cpl0(cpu) || !soft_load(cpu, soft_ea(cpu, op), image, soft_is_64bit(cpu) ? 10 : 6))
        return false;
    memcpy(&base, image + 2, 8);
    if (op->a == 2)
        base &= 0xffffff;
    if (soft_is_64bit(cpu) && !soft_is_canonical(base))
        return soft_raise(cpu, SOFT_GP, 0);
    memcpy(op->c ? &cpu->idt_limit : &cpu->gdt_limit, image, 2);
    *(op->c ? &cpu->idt_base : &cpu->gdt_base) = base;
    return true;
}

static enum soft_decoded decode_table(struct soft_decoder *d, unsigned digit)
{
    unsigned size = decode_is_64bit(d) ? 10 : 6;
    struct soft_op *op;

    if (digit < 2)
        op = decode_emit_call_mem(d, SOP_call_c, system_store_table, size, SOFT_WRITE);
    else
        op = decode_emit_call_mem(d, SOP_call_c, system_load_table, size, SOFT_READ);
    op->c = digit & 1;
    op->a = d->operand_size;
    return SOFT_DECODED;
}

static enum soft_decoded decode_machine_status(struct soft_decoder *d, bool is_load)
{
    struct soft_op *op;
    enum soft_op_kind kind = is_load ? SOP_call_end : SOP_call_c;
    soft_helper *helper = is_load ? system_lmsw : system_smsw;

    if (decode_is_mem(d)) {
        decode_emit_call_mem(d, kind, helper, 2, is_load ? SOFT_READ : SOFT_WRITE);
    } else {
        op = decode_emit_call(d, kind, helper);
        op->a = REG_OFFSET(d->rm);
        op->c = d->operand_size;
    }
    return is_load ? SOFT_DECODED_END : SOFT_DECODED;
}

/* 0F 01 */
static enum soft_decoded decode_group7(struct soft_decoder *d)
{
    decode_modrm(d);
    unsigned digit = d->reg & 7;

    if (digit == 4 || digit == 6)
        return decode_machine_status(d, digit == 6);
    if (!decode_is_mem(d)) {
        if (digit == 2 && (d->rm & 7) < 2)
            return xsave_decode_control(d);
        if (digit != 7 || (d->rm & 7) != 0 || !decode_is_64bit(d))
            return SOFT_UNDEFINED;
        decode_emit_call(d, SOP_call_c, system_swapgs);
        return SOFT_DECODED;
    }
    if (digit < 4)
        return decode_table(d, digit);
    if (digit != 7)
        return SOFT_UNDEFINED;
    decode_emit_call_mem(d, SOP_call_end, system_invlpg, 0, SOFT_READ);
    return SOFT_DECODED_END;
}

/* MOV to and from CRn and DRn: always registers, whatever mod says. */
static enum soft_decoded decode_move(struct soft_decoder *d, uint8_t opcode)
{
    static soft_helper *const helpers[4] = {system_read_control, system_read_debug,
                                            system_write_control, system_write_debug};
    bool is_write = opcode & 2;
    uint8_t modrm = decode_u8(d);
    unsigned index = (modrm >> 3 & 7u) | ((d->rex & 4u) << 1);

    if (!(opcode & 1) && d->has_lock && !decode_is_64bit(d) && index == 0) {
        index = 8; /* AMD's way to CR8 */
        d->lock_used = true;
    }
    if (!(opcode & 1) && index != 0 && index != 2 && index != 3 && index != 4 && index != 8)
        return SOFT_UNDEFINED;
    if (opcode & 1 && index > 7)
        return SOFT_UNDEFINED;
    struct soft_op *op =
        decode_emit_call(d, is_write ? SOP_call_end : SOP_call_c, helpers[opcode & 3]);

    op->a = REG_OFFSET((modrm & 7u) | ((d->rex & 1u) << 3));
    op->c = (uint8_t)index;
    return is_write ? SOFT_DECODED_END : SOFT_DECODED;
}

static enum soft_decoded decode_plain(struct soft_decoder *d, soft_helper *helper, bool ends)
{
    decode_emit_call(d, ends ? SOP_call_end : SOP_call_c, helper);
    return ends ? SOFT_DECODED_END : SOFT_DECODED;
}

enum soft_decoded system_decode_two_byte(struct soft_decoder *d, uint8_t opcode)
{
    switch (opcode) {
    case 0x01:
        return decode_group7(d);
    case 0x06:
        return decode_plain(d, system_clts, true);
    case 0x08:
    case 0x09:
        return decode_plain(d, system_wbinvd, true);
    case 0x20 ... 0x23:
        return decode_move(d, opcode);
    case 0x30:
        return decode_plain(d, system_wrmsr, true);
    case 0x31:
        return decode_plain(d, system_rdtsc, false);
    case 0x32:
        return decode_plain(d, system_rdmsr, false);
    case 0x33:
        return decode_plain(d, system_rdpmc, false);
    case 0xa2:
        return decode_plain(d, system_cpuid, true);
    case 0xaa: /* RSM outside SMM */
        return SOFT_UNDEFINED;
    default:
        return syscall_decode(d, opcode);
    }
}
