/* SPDX-License-Identifier: MIT */
/* state: registers, segments, events, debug registers and XCR0 as KVM_GET_* and KVM_SET_* know
 * them. */
#include "vmm/soft/state.h"

#include "vmm/soft/fpu.h"
#include "vmm/soft/mmio.h"
#include "vmm/soft/mmu.h"
#include "vmm/soft/segment.h"
#include "vmm/soft/system.h"
#include "vmm/soft/xsave.h"

/* --- General registers --- */

static void get_regs(const struct soft_cpu *cpu, struct kvm_regs *regs)
{
    const uint64_t *r = cpu->r;

    *regs = (struct kvm_regs){
        .rax = r[SOFT_RAX],
        .rbx = r[SOFT_RBX],
        .rcx = r[SOFT_RCX],
        .rdx = r[SOFT_RDX],
        .rsi = r[SOFT_RSI],
        .rdi = r[SOFT_RDI],
        .rsp = r[SOFT_RSP],
        .rbp = r[SOFT_RBP],
        .r8 = r[8],
        .r9 = r[9],
        .r10 = r[10],
        .r11 = r[11],
        .r12 = r[12],
        .r13 = r[13],
        .r14 = r[14],
        .r15 = r[15],
        .rip = cpu->rip,
        .rflags = soft_get_rflags(cpu),
    };
}

static void set_regs(struct soft_cpu *cpu, const struct kvm_regs *regs)
{
    const uint64_t values[16] = {regs->rax, regs->rcx, regs->rdx, regs->rbx, regs->rsp, regs->rbp,
                                 regs->rsi, regs->rdi, regs->r8,  regs->r9,  regs->r10, regs->r11,
                                 regs->r12, regs->r13, regs->r14, regs->r15};

    memcpy(cpu->r, values, sizeof(values));
    cpu->rip = regs->rip;
    cpu->pending = SOFT_PENDING_NONE;
    mmio_forget(cpu);
    soft_set_rflags(cpu, regs->rflags);
}

/* --- Segments and control registers --- */

static struct kvm_segment get_segment(const struct soft_segment *from, uint64_t base)
{
    uint16_t a = from->attributes;

    return (struct kvm_segment){
        .base = base,
        .limit = from->limit,
        .selector = from->selector,
        .type = a & SEG_TYPE,
        .present = !!(a & SEG_P),
        .dpl = SEG_DPL(a) & 3,
        .db = !!(a & SEG_D),
        .s = !!(a & SEG_S),
        .l = !!(a & SEG_L),
        .g = !!(a & SEG_G),
        .avl = a >> 12 & 1,
        .unusable = !(a & SEG_P),
    };
}

static struct soft_segment set_segment(const struct kvm_segment *from)
{
    unsigned attributes = (from->type & 15u) | (from->s & 1u) << 4 | (from->dpl & 3u) << 5 |
                          (from->present & 1u) << 7 | (from->avl & 1u) << 12 |
                          (from->l & 1u) << 13 | (from->db & 1u) << 14 | (from->g & 1u) << 15;

    if (from->unusable)
        attributes &= ~SEG_P;
    return (struct soft_segment){.base = from->base,
                                 .limit = from->limit,
                                 .selector = from->selector,
                                 .attributes = (uint16_t)attributes};
}

static struct kvm_segment *segment_field(struct kvm_sregs *sregs, unsigned index)
{
    struct kvm_segment *const fields[SOFT_SEG_COUNT] = {&sregs->es, &sregs->cs, &sregs->ss,
                                                        &sregs->ds, &sregs->fs, &sregs->gs};

    return fields[index];
}

static void get_sregs(const struct soft_cpu *cpu, struct kvm_sregs *sregs)
{
    memset(sregs, 0, sizeof(*sregs));
    for (unsigned i = 0; i < SOFT_SEG_COUNT; i++)
        *segment_field(sregs, i) = get_segment(&cpu->seg[i], segment_base(cpu, i));
    sregs->ldt = get_segment(&cpu->ldt, cpu->ldt.base);
    sregs->tr = get_segment(&cpu->tr, cpu->tr.base);
    sregs->gdt.base = cpu->gdt_base;
    sregs->gdt.limit = cpu->gdt_limit;
    sregs->idt.base = cpu->idt_base;
    sregs->idt.limit = cpu->idt_limit;
    sregs->cr0 = cpu->cr0;
    sregs->cr2 = cpu->cr2;
    sregs->cr3 = cpu->cr3;
    sregs->cr4 = cpu->cr4;
    sregs->cr8 = lapic_get_cr8(&cpu->lapic);
    sregs->efer = cpu->efer;
    sregs->apic_base = lapic_get_base(&cpu->lapic);
    if (cpu->extint_vector >= 0)
        sregs->interrupt_bitmap[cpu->extint_vector / 64] = UINT64_C(1) << (cpu->extint_vector & 63);
}

static int bitmap_vector(const struct kvm_sregs *sregs)
{
    for (unsigned i = 0; i < ARRAY_SIZE(sregs->interrupt_bitmap); i++)
        if (sregs->interrupt_bitmap[i])
            return (int)(i * 64) + __builtin_ctzll(sregs->interrupt_bitmap[i]);
    return -1;
}

static void set_sregs(struct soft_cpu *cpu, const struct kvm_sregs *from)
{
    struct kvm_sregs sregs = *from;

    for (unsigned i = 0; i < SOFT_SEG_COUNT; i++) {
        cpu->seg[i] = set_segment(segment_field(&sregs, i));
        if (i >= SOFT_FS)
            cpu->r[SOFT_REG_FSBASE + i - SOFT_FS] = cpu->seg[i].base;
    }
    cpu->ldt = set_segment(&sregs.ldt);
    cpu->tr = set_segment(&sregs.tr);
    cpu->gdt_base = sregs.gdt.base;
    cpu->gdt_limit = sregs.gdt.limit;
    cpu->idt_base = sregs.idt.base;
    cpu->idt_limit = sregs.idt.limit;
    cpu->cr2 = sregs.cr2;
    cpu->cr3 = sregs.cr3;
    cpu->cr4 = sregs.cr4;
    cpu->efer = sregs.efer & (EFER_SCE | EFER_LME | EFER_NX);
    lapic_set_base(&cpu->lapic, sregs.apic_base);
    lapic_set_cr8(&cpu->lapic, (unsigned)sregs.cr8 & 15);
    cpu->extint_vector = bitmap_vector(&sregs);
    cpu->cpl = cpu->rflags & RFLAGS_VM ? 3 : SEG_DPL(cpu->seg[SOFT_SS].attributes);
    control_set_cr0(cpu, sregs.cr0);
    mmu_flush_all(cpu);
    if (cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE && !soft_is_long_mode(cpu) &&
        !mmu_load_pdptes(cpu, cpu->cr3))
        cpu->pending = SOFT_PENDING_NONE;
}

/* --- Events, debug registers, the run state --- */

static void get_events(const struct soft_cpu *cpu, struct kvm_vcpu_events *events)
{
    memset(events, 0, sizeof(*events));
    events->interrupt.shadow = cpu->inhibit ? KVM_X86_SHADOW_INT_STI : 0;
    events->nmi.pending = lapic_has_events(&cpu->lapic, LAPIC_EVENT_NMI);
    events->nmi.masked = cpu->nmi_blocked;
    events->sipi_vector = lapic_sipi_vector(&cpu->lapic);
    events->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
}

static void set_events(struct soft_cpu *cpu, const struct kvm_vcpu_events *events)
{
    cpu->nmi_blocked = events->nmi.masked;
    if (events->flags & KVM_VCPUEVENT_VALID_SHADOW)
        cpu->inhibit = events->interrupt.shadow;
    if (events->flags & KVM_VCPUEVENT_VALID_NMI_PENDING) {
        lapic_take_events(&cpu->lapic, LAPIC_EVENT_NMI);
        if (events->nmi.pending)
            atomic_fetch_or(&cpu->lapic.events, LAPIC_EVENT_NMI);
    }
}

static uint32_t get_run_state(const struct soft_cpu *cpu)
{
    if (cpu->wait_for_sipi)
        return KVM_MP_STATE_INIT_RECEIVED;
    return cpu->is_halted ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE;
}

static void set_run_state(struct soft_cpu *cpu, uint32_t run_state)
{
    cpu->wait_for_sipi =
        run_state == KVM_MP_STATE_UNINITIALIZED || run_state == KVM_MP_STATE_INIT_RECEIVED;
    cpu->is_halted = run_state == KVM_MP_STATE_HALTED;
}

static void get_debug_registers(const struct soft_cpu *cpu, struct kvm_debugregs *regs)
{
    memset(regs, 0, sizeof(*regs));
    memcpy(regs->db, cpu->dr, sizeof(regs->db));
    regs->dr6 = cpu->dr[6];
    regs->dr7 = cpu->dr[7];
}

static void set_debug_registers(struct soft_cpu *cpu, const struct kvm_debugregs *regs)
{
    memcpy(cpu->dr, regs->db, sizeof(regs->db));
    cpu->dr[6] = regs->dr6;
    cpu->dr[7] = regs->dr7;
    soft_update_mode(cpu);
}

/* --- XCR0 and its state --- */

static void get_extended(const struct soft_cpu *cpu, struct accel_vcpu_state *out)
{
    memset(&out->xcrs, 0, sizeof(out->xcrs));
    out->xcrs.nr_xcrs = 1;
    out->xcrs.xcrs[0].value = cpu->xcr0;
    xsave_get_state(cpu, &out->xsave);
}

static bool set_extended(struct soft_cpu *cpu, const struct accel_vcpu_state *state)
{
    const struct kvm_xcrs *xcrs = &state->xcrs;

    if (!xcrs->nr_xcrs)
        return true;
    if (xcrs->nr_xcrs != 1 || xcrs->xcrs[0].xcr ||
        !xsave_is_valid_xcr0(cpu, xcrs->xcrs[0].value) || !xsave_set_state(cpu, &state->xsave))
        return false;
    cpu->xcr0 = xcrs->xcrs[0].value;
    soft_update_mode(cpu);
    return true;
}

void state_get(struct soft_cpu *cpu, unsigned groups, struct accel_vcpu_state *out)
{
    if (groups & ACCEL_STATE_REGS)
        get_regs(cpu, &out->regs);
    if (groups & ACCEL_STATE_SREGS)
        get_sregs(cpu, &out->sregs);
    if (groups & ACCEL_STATE_FPU)
        fpu_get_state(cpu, &out->fpu);
    if (groups & ACCEL_STATE_DEBUGREGS)
        get_debug_registers(cpu, &out->debugregs);
    if (groups & ACCEL_STATE_EVENTS)
        get_events(cpu, &out->events);
    if (groups & ACCEL_STATE_MP)
        out->mp_state.mp_state = get_run_state(cpu);
    if (groups & ACCEL_STATE_LAPIC)
        lapic_get_state(&cpu->lapic, &out->lapic);
    if (groups & ACCEL_STATE_XSAVE)
        get_extended(cpu, out);
}

bool state_set(struct soft_cpu *cpu, unsigned groups, const struct accel_vcpu_state *state)
{
    if (groups & ACCEL_STATE_XSAVE && !set_extended(cpu, state))
        return false;
    if (groups & ACCEL_STATE_REGS)
        set_regs(cpu, &state->regs);
    if (groups & ACCEL_STATE_SREGS)
        set_sregs(cpu, &state->sregs);
    if (groups & ACCEL_STATE_FPU)
        fpu_set_state(cpu, &state->fpu);
    if (groups & ACCEL_STATE_DEBUGREGS)
        set_debug_registers(cpu, &state->debugregs);
    if (groups & ACCEL_STATE_EVENTS)
        set_events(cpu, &state->events);
    if (groups & ACCEL_STATE_MP)
        set_run_state(cpu, state->mp_state.mp_state);
    if (groups & ACCEL_STATE_LAPIC)
        lapic_set_state(&cpu->lapic, &state->lapic);
    atomic_store(&cpu->poll, 1);
    return true;
}
