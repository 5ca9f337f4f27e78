/* SPDX-License-Identifier: MIT */
/*
 * hmp_registers: all of a CPU's registers as text, line by line as QEMU prints them.
 *
 * A segment's attributes stand where its descriptor has them (Intel SDM volume 3, 3.4.5); bits of
 * base and limit, which QEMU shows there under its translator but not under KVM, are left out.
 */
#include <cpuid.h>
#include <string.h>

#include "base/bytes.h"
#include "vmm/accel.h"
#include "vmm/control/hmp_private.h"

#define CR0_PE    1u
#define EFER_LMA  (1u << 10)
#define FLAG_VM   (1u << 17)
#define XCR0_AVX  UINT64_C(6)
#define XCR0_512  UINT64_C(0xe6)
#define NUMBER_64 "%016llx"

/* Parts of XSAVE's area; the later ones are where the CPU's own CPUID says. */
#define XSTATE_BV_OFFSET 512
#define XSTATE_YMM       2u
#define XSTATE_OPMASK    5u
#define XSTATE_ZMM_HIGH  6u
#define XSTATE_ZMM_16    7u
#define YMM_OFFSET       576

struct registers {
    FILE *out;
    struct accel_vcpu_state state;
    bool is_code64, is_long;
};

static unsigned long long wide(uint64_t value)
{
    return value;
}

static unsigned privilege(const struct accel_vcpu_state *state)
{
    if (!(state->sregs.cr0 & CR0_PE))
        return 0;
    return state->regs.rflags & FLAG_VM ? 3 : state->sregs.cs.selector & 3u;
}

static void print_general(const struct registers *all)
{
    const struct kvm_regs *r = &all->state.regs;
    if (all->is_code64)
        fprintf(all->out,
                "RAX=" NUMBER_64 " RBX=" NUMBER_64 " RCX=" NUMBER_64 " RDX=" NUMBER_64 "\r\n"
                "RSI=" NUMBER_64 " RDI=" NUMBER_64 " RBP=" NUMBER_64 " RSP=" NUMBER_64 "\r\n"
                "R8 =" NUMBER_64 " R9 =" NUMBER_64 " R10=" NUMBER_64 " R11=" NUMBER_64 "\r\n"
                "R12=" NUMBER_64 " R13=" NUMBER_64 " R14=" NUMBER_64 " R15=" NUMBER_64 "\r\n",
                wide(r->rax), wide(r->rbx), wide(r->rcx), wide(r->rdx), wide(r->rsi), wide(r->rdi),
                wide(r->rbp), wide(r->rsp), wide(r->r8), wide(r->r9), wide(r->r10), wide(r->r11),
                wide(r->r12), wide(r->r13), wide(r->r14), wide(r->r15));
    else
        fprintf(all->out,
                "EAX=%08x EBX=%08x ECX=%08x EDX=%08x\r\nESI=%08x EDI=%08x EBP=%08x ESP=%08x\r\n",
                (uint32_t)r->rax, (uint32_t)r->rbx, (uint32_t)r->rcx, (uint32_t)r->rdx,
                (uint32_t)r->rsi, (uint32_t)r->rdi, (uint32_t)r->rbp, (uint32_t)r->rsp);
}

static void print_flags(const struct registers *all)
{
    static const char letters[] = "DOSZAPC";
    static const uint8_t bits[] = {10, 11, 7, 6, 4, 2, 0};
    const struct accel_vcpu_state *state = &all->state;
    char shown[sizeof(letters)] = "";
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
        shown[i] = state->regs.rflags >> bits[i] & 1 ? letters[i] : '-';
    if (all->is_code64)
        fprintf(all->out, "RIP=" NUMBER_64 " RFL=%08x", wide(state->regs.rip),
                (uint32_t)state->regs.rflags);
    else
        fprintf(all->out, "EIP=%08x EFL=%08x", (uint32_t)state->regs.rip,
                (uint32_t)state->regs.rflags);
    fprintf(all->out, " [%s] CPL=%u II=%u A20=1 SMM=%u HLT=%u\r\n", shown, privilege(state),
            state->events.interrupt.shadow ? 1u : 0, state->events.smi.smm ? 1u : 0,
            state->mp_state.mp_state != KVM_MP_STATE_RUNNABLE ? 1u : 0);
}

/* --- segments --- */

static uint32_t attributes(const struct kvm_segment *segment)
{
    unsigned present = segment->present && !segment->unusable;
    return (uint32_t)(segment->type << 8 | segment->s << 12 | segment->dpl << 13 | present << 15 |
                      segment->avl << 20 | segment->l << 21 | segment->db << 22 | segment->g << 23);
}

static const char *system_type(const struct registers *all, unsigned type)
{
    static const char *const names[][16] = {
        {"Reserved", "TSS16-avl", "LDT", "TSS16-busy", "CallGate16", "TaskGate", "IntGate16",
         "TrapGate16", "Reserved", "TSS32-avl", "Reserved", "TSS32-busy", "CallGate32", "Reserved",
         "IntGate32", "TrapGate32"},
        {"<hiword>", "Reserved", "LDT", "Reserved", "Reserved", "Reserved", "Reserved", "Reserved",
         "Reserved", "TSS64-avl", "Reserved", "TSS64-busy", "CallGate64", "Reserved", "IntGate64",
         "TrapGate64"}};
    return names[all->is_long][type & 15];
}

/* What a descriptor of code, of data or of the system is. */
static void print_type(const struct registers *all, const struct kvm_segment *segment)
{
    const bool has_low = segment->type & 2, has_high = segment->type & 4;
    if (!segment->s)
        fprintf(all->out, "%s", system_type(all, segment->type));
    else if (segment->type & 8)
        fprintf(all->out, "%s [%c%c%c]",
                segment->l    ? "CS64"
                : segment->db ? "CS32"
                              : "CS16",
                has_high ? 'C' : '-', has_low ? 'R' : '-', segment->type & 1 ? 'A' : '-');
    else
        fprintf(all->out, "%s [%c%c%c]", segment->db || all->is_long ? "DS  " : "DS16",
                has_high ? 'E' : '-', has_low ? 'W' : '-', segment->type & 1 ? 'A' : '-');
}

static void print_segment(const struct registers *all, const char *name,
                          const struct kvm_segment *segment)
{
    const uint32_t flags = attributes(segment);
    if (all->is_code64)
        fprintf(all->out, "%-3s=%04x " NUMBER_64 " %08x %08x", name, segment->selector,
                wide(segment->base), segment->limit, flags);
    else
        fprintf(all->out, "%-3s=%04x %08x %08x %08x", name, segment->selector,
                (uint32_t)segment->base, segment->limit, flags);
    if (all->state.sregs.cr0 & CR0_PE && flags & 1u << 15) {
        fprintf(all->out, " DPL=%u ", segment->dpl);
        print_type(all, segment);
    }
    fprintf(all->out, "\r\n");
}

static void print_table(const struct registers *all, const char *name,
                        const struct kvm_dtable *table)
{
    if (all->is_long)
        fprintf(all->out, "%s=     " NUMBER_64 " %08x\r\n", name, wide(table->base), table->limit);
    else
        fprintf(all->out, "%s=     %08x %08x\r\n", name, (uint32_t)table->base, table->limit);
}

static void print_segments(const struct registers *all)
{
    const struct kvm_sregs *sregs = &all->state.sregs;
    print_segment(all, "ES", &sregs->es);
    print_segment(all, "CS", &sregs->cs);
    print_segment(all, "SS", &sregs->ss);
    print_segment(all, "DS", &sregs->ds);
    print_segment(all, "FS", &sregs->fs);
    print_segment(all, "GS", &sregs->gs);
    print_segment(all, "LDT", &sregs->ldt);
    print_segment(all, "TR", &sregs->tr);
    print_table(all, "GDT", &sregs->gdt);
    print_table(all, "IDT", &sregs->idt);
}

/* --- control and debug registers --- */

static void print_control(const struct registers *all)
{
    const struct kvm_sregs *sregs = &all->state.sregs;
    const struct kvm_debugregs *debug = &all->state.debugregs;
    const int digits = all->is_long ? 16 : 8;
    const uint64_t mask = all->is_long ? UINT64_MAX : UINT32_MAX;
    fprintf(all->out, "CR0=%08x CR2=%0*llx CR3=%0*llx CR4=%08x\r\n", (uint32_t)sregs->cr0, digits,
            wide(sregs->cr2 & mask), digits, wide(sregs->cr3 & mask), (uint32_t)sregs->cr4);
    for (unsigned i = 0; i < 4; i++)
        fprintf(all->out, "DR%u=" NUMBER_64 " ", i, wide(debug->db[i]));
    fprintf(all->out, "\r\nDR6=" NUMBER_64 " DR7=" NUMBER_64 "\r\nEFER=" NUMBER_64 "\r\n",
            wide(debug->dr6), wide(debug->dr7), wide(sregs->efer));
}

/* --- floating point and vectors --- */

/* By the places of the register file, not from the top of the stack on. */
static void print_x87(const struct registers *all)
{
    const struct kvm_fpu *fpu = &all->state.fpu;
    const unsigned top = fpu->fsw >> 11 & 7;
    fprintf(all->out, "FCW=%04x FSW=%04x [ST=%u] FTW=%02x MXCSR=%08x\r\n", fpu->fcw, fpu->fsw, top,
            fpu->ftwx, fpu->mxcsr);
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *at = (const uint8_t *)fpu->fpr[(i - top) & 7];
        fprintf(all->out, "FPR%u=" NUMBER_64 " %04x%s", i, wide(load_le64(at)), load_le16(at + 8),
                i & 1 ? "\r\n" : " ");
    }
}

/* `length` bytes of component `number`, at `offset` in it; zeroes where it was never used. */
static void read_component(const struct registers *all, unsigned number, size_t offset, void *to,
                           size_t length)
{
    const uint8_t *area = (const uint8_t *)all->state.xsave.region;
    unsigned eax, start = YMM_OFFSET, ecx, edx;
    memset(to, 0, length);
    if (!(area[XSTATE_BV_OFFSET] >> number & 1))
        return;
    if (number != XSTATE_YMM && !__get_cpuid_count(0xd, number, &eax, &start, &ecx, &edx))
        return;
    if (start + offset + length <= sizeof(all->state.xsave.region))
        memcpy(to, area + start + offset, length);
}

/* 512 bits of register `index`, the low part first. */
static void read_vector(const struct registers *all, unsigned index, uint64_t out[8])
{
    if (index >= 16) {
        read_component(all, XSTATE_ZMM_16, 64 * (size_t)(index - 16), out, 64);
        return;
    }
    memcpy(out, all->state.fpu.xmm[index], 16);
    read_component(all, XSTATE_YMM, 16 * (size_t)index, out + 2, 16);
    read_component(all, XSTATE_ZMM_HIGH, 32 * (size_t)index, out + 4, 32);
}

static void print_vector(const struct registers *all, const char *name, unsigned index,
                         unsigned words, const char *end)
{
    uint64_t value[8];
    read_vector(all, index, value);
    fprintf(all->out, "%s%02u=", name, index);
    for (unsigned i = words; i-- > 0;)
        fprintf(all->out, NUMBER_64 "%s", wide(value[i]), i ? " " : end);
}

static void print_vectors(const struct registers *all)
{
    const uint64_t xcr0 = all->state.xcrs.nr_xcrs ? all->state.xcrs.xcrs[0].value : 0;
    const unsigned count = all->is_code64 ? 16 : 8;
    if ((xcr0 & XCR0_512) == XCR0_512) {
        for (unsigned i = 0; i < 8; i++) {
            uint64_t mask;
            read_component(all, XSTATE_OPMASK, 8 * (size_t)i, &mask, 8);
            fprintf(all->out, "Opmask%02u=" NUMBER_64 "%s", i, wide(mask),
                    i % 4 == 3 ? "\r\n" : " ");
        }
        for (unsigned i = 0; i < (all->is_code64 ? 32 : 8); i++)
            print_vector(all, "ZMM", i, 8, "\r\n");
    } else if ((xcr0 & XCR0_AVX) == XCR0_AVX) {
        for (unsigned i = 0; i < count; i++)
            print_vector(all, "YMM", i, 4, "\r\n");
    } else {
        for (unsigned i = 0; i < count; i++)
            print_vector(all, "XMM", i, 2, i & 1 ? "\r\n" : " ");
    }
}

void hmp_print_registers(FILE *out, struct accel_vcpu *cpu)
{
    struct registers all = {.out = out};
    fprintf(out, "\r\nCPU#%u\r\n", cpu->index);
    int result = cpu->vm->ops->vcpu_get_state(cpu, ACCEL_STATE_ALL, &all.state);
    if (result) {
        fprintf(out, "Error: CPU %u does not tell its registers: %s\r\n", cpu->index,
                strerror(-result));
        return;
    }
    all.is_long = all.state.sregs.efer & EFER_LMA;
    all.is_code64 = all.is_long && all.state.sregs.cs.l;
    print_general(&all);
    print_flags(&all);
    print_segments(&all);
    print_control(&all);
    print_x87(&all);
    print_vectors(&all);
}
