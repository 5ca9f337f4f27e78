/* SPDX-License-Identifier: MIT */
/* soft_guest: tables for a guest of a few instructions. */
#include "tests/soft_guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/descriptor.h"
#include "tests/unit/test.h"

#define GROUPS (ACCEL_STATE_REGS | ACCEL_STATE_SREGS)

static const uint64_t descriptors[] = {
    0,
    UINT64_C(0x00af9b000000ffff),                                  /* 64-bit code */
    UINT64_C(0x00cf93000000ffff),                                  /* data */
    UINT64_C(0x00cffb000000ffff),                                  /* user 32-bit code */
    UINT64_C(0x00cff3000000ffff),                                  /* user data */
    UINT64_C(0x00affb000000ffff),                                  /* user 64-bit code */
    UINT64_C(0x0000890000000067) | (uint64_t)SOFT_GUEST_TSS << 16, /* TSS, and its upper half */
    0,
    UINT64_C(0x00cf9b000000ffff), /* 32-bit code */
    UINT64_C(0x00009b000000ffff), /* 16-bit code */
    UINT64_C(0x00409300000000ff), /* data of 256 bytes */
    UINT64_C(0x00cf13000000ffff), /* data, not present */
};

uint64_t soft_guest_u64(const struct soft_guest *guest, uint64_t gpa)
{
    uint64_t value;

    memcpy(&value, guest->ram + gpa, sizeof(value));
    return value;
}

void soft_guest_set_u64(struct soft_guest *guest, uint64_t gpa, uint64_t value)
{
    memcpy(guest->ram + gpa, &value, sizeof(value));
}

uint64_t *soft_guest_pte(struct soft_guest *guest, uint64_t address)
{
    return (uint64_t *)(void *)(guest->ram + SOFT_GUEST_PTES) + address / 4096;
}

void soft_guest_flush(struct soft_guest *guest)
{
    soft_guest_put_sregs(guest);
}

static void build_page_tables(struct soft_guest *guest)
{
    soft_guest_set_u64(guest, SOFT_GUEST_TABLES, (SOFT_GUEST_TABLES + 0x1000) | 7);
    soft_guest_set_u64(guest, SOFT_GUEST_TABLES + 0x1000, (SOFT_GUEST_TABLES + 0x2000) | 7);
    for (unsigned i = 0; i < SOFT_GUEST_RAM >> 21; i++)
        soft_guest_set_u64(guest, SOFT_GUEST_TABLES + 0x2000 + i * 8,
                           (SOFT_GUEST_PTES + i * 0x1000) | 7);
    for (unsigned page = 0; page < SOFT_GUEST_RAM >> 12; page++)
        *soft_guest_pte(guest, (uint64_t)page << 12) = (uint64_t)page << 12 | 7;
}

/* Each stub: OUT DX, AL with the vector in DX; then HLT for ever. */
static void build_stub(struct soft_guest *guest, unsigned vector)
{
    uint8_t *stub = guest->ram + SOFT_GUEST_STUBS + vector * 16;
    uint16_t port = (uint16_t)(SOFT_GUEST_VECTOR_PORT + vector);
    static const uint8_t code[] = {0x66, 0xba, 0, 0, 0xee, 0xf4, 0xeb, 0xfd};

    memcpy(stub, code, sizeof(code));
    memcpy(stub + 2, &port, 2);
}

static void build_gate(struct soft_guest *guest, unsigned vector)
{
    uint64_t offset = SOFT_GUEST_STUBS + vector * 16;
    /* Interrupt gates that user code may call. */
    uint64_t low = (offset & 0xffff) | (uint64_t)SEL_CODE64 << 16 | UINT64_C(0xee) << 40 |
                   (offset & 0xffff0000) << 32;

    soft_guest_set_u64(guest, SOFT_GUEST_IDT + vector * 16, low);
    soft_guest_set_u64(guest, SOFT_GUEST_IDT + vector * 16 + 8, 0);
}

static void build_tables(struct soft_guest *guest)
{
    uint64_t rsp0 = SOFT_GUEST_KERNEL, ist1 = SOFT_GUEST_IST1;

    memset(guest->ram, 0, 0x100000);
    build_page_tables(guest);
    memcpy(guest->ram + SOFT_GUEST_GDT, descriptors, sizeof(descriptors));
    for (unsigned vector = 0; vector < 256; vector++) {
        build_stub(guest, vector);
        build_gate(guest, vector);
    }
    memcpy(guest->ram + SOFT_GUEST_TSS + 4, &rsp0, 8);
    memcpy(guest->ram + SOFT_GUEST_TSS + 36, &ist1, 8);
    memset(guest->ram + SOFT_GUEST_TSS + 102, 0xff, 2); /* no I/O map */
}

void soft_guest_create(struct soft_guest *guest, unsigned vcpu_count)
{
    struct error err = {0};

    memset(guest, 0, sizeof(*guest));
    guest->ram =
        mmap(NULL, SOFT_GUEST_RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(guest->ram != MAP_FAILED);
    assert_int_equal(soft_accel_ops.vm_create(vcpu_count, &guest->vm, &err), 0);
    assert_int_equal(soft_accel_ops.set_memslot(guest->vm, 0, 0, SOFT_GUEST_RAM, guest->ram, false),
                     0);
    for (unsigned i = 0; i < vcpu_count; i++)
        assert_int_equal(soft_accel_ops.vcpu_create(guest->vm, i, &guest->vcpus[i], &err), 0);
    guest->vcpu = guest->vcpus[0];
    guest->cpu = soft_cpu_of(guest->vcpu);
}

void soft_guest_destroy(struct soft_guest *guest)
{
    for (unsigned i = 0; i < ARRAY_SIZE(guest->vcpus); i++)
        soft_accel_ops.vcpu_destroy(guest->vcpus[i]);
    soft_accel_ops.vm_destroy(guest->vm);
    munmap(guest->ram, SOFT_GUEST_RAM);
}

void soft_guest_put_regs(struct soft_guest *guest)
{
    soft_accel_ops.vcpu_set_state(guest->vcpu, ACCEL_STATE_REGS, &guest->state);
}

void soft_guest_put_sregs(struct soft_guest *guest)
{
    soft_accel_ops.vcpu_set_state(guest->vcpu, ACCEL_STATE_SREGS, &guest->state);
}

static void set_segments(struct kvm_sregs *sregs, uint16_t code, uint16_t data)
{
    sregs->cs = descriptor_segment(code, descriptors[code >> 3]);
    sregs->ds = sregs->es = sregs->ss = sregs->fs = sregs->gs =
        descriptor_segment(data, descriptors[data >> 3]);
}

void soft_guest_load(struct soft_guest *guest, const void *code, size_t length)
{
    struct accel_vcpu_state *state = &guest->state;
    struct kvm_sregs *sregs = &state->sregs;

    build_tables(guest);
    soft_accel_ops.ram_written(guest->vm, 0, SOFT_GUEST_RAM);
    memset(guest->ram + SOFT_GUEST_CODE, 0xf4, 0x1000);
    memcpy(guest->ram + SOFT_GUEST_CODE, code, length);
    soft_accel_ops.ram_written(guest->vm, SOFT_GUEST_CODE, 0x1000 + length);
    soft_accel_ops.vcpu_get_state(guest->vcpu, GROUPS | ACCEL_STATE_EVENTS | ACCEL_STATE_MP, state);
    memset(&state->regs, 0, sizeof(state->regs));
    set_segments(sregs, SEL_CODE64, SEL_DATA);
    sregs->tr = descriptor_segment(SEL_TSS, descriptors[SEL_TSS >> 3]);
    sregs->tr.type = 11;
    sregs->gdt = (struct kvm_dtable){.base = SOFT_GUEST_GDT, .limit = sizeof(descriptors) - 1};
    sregs->idt = (struct kvm_dtable){.base = SOFT_GUEST_IDT, .limit = 256 * 16 - 1};
    sregs->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET | CR0_NE;
    sregs->cr3 = SOFT_GUEST_TABLES;
    sregs->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    sregs->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NX;
    state->regs.rip = SOFT_GUEST_CODE;
    state->regs.rsp = SOFT_GUEST_STACK;
    state->regs.rflags = 2;
    state->events.flags = KVM_VCPUEVENT_VALID_SHADOW;
    state->events.interrupt.shadow = 0;
    state->events.nmi.masked = 0;
    state->mp_state.mp_state = KVM_MP_STATE_RUNNABLE;
    soft_accel_ops.vcpu_set_state(guest->vcpu, GROUPS | ACCEL_STATE_EVENTS | ACCEL_STATE_MP, state);
}

void soft_guest_set_user(struct soft_guest *guest)
{
    set_segments(&guest->state.sregs, SEL_USER64, SEL_USERDATA);
    soft_guest_put_sregs(guest);
}

void soft_guest_set_protected(struct soft_guest *guest, bool is_32bit)
{
    struct kvm_sregs *sregs = &guest->state.sregs;

    set_segments(sregs, is_32bit ? SEL_CODE32 : SEL_CODE16, SEL_DATA);
    /* The gates of 64-bit mode are none here: faults become triple faults. */
    sregs->efer = 0;
    sregs->cr0 = CR0_PE | CR0_ET | CR0_NE;
    sregs->cr4 = 0;
    sregs->idt.limit = 0;
    soft_guest_put_sregs(guest);
}

void soft_guest_set_real(struct soft_guest *guest)
{
    struct kvm_sregs *sregs = &guest->state.sregs;
    memcpy(guest->ram + SOFT_GUEST_REAL_CODE, guest->ram + SOFT_GUEST_CODE, 0x1000);
    soft_accel_ops.ram_written(guest->vm, SOFT_GUEST_REAL_CODE, 0x1000);
    struct kvm_segment segment = {.limit = 0xffff, .type = 3, .s = 1, .present = 1};

    sregs->ds = sregs->es = sregs->ss = sregs->fs = sregs->gs = segment;
    segment.type = 11;
    segment.base = SOFT_GUEST_REAL_CODE;
    segment.selector = SOFT_GUEST_REAL_CODE >> 4;
    sregs->cs = segment;
    sregs->efer = sregs->cr4 = 0;
    sregs->cr0 = CR0_ET;
    sregs->idt = (struct kvm_dtable){.base = 0, .limit = 0x3ff};
    guest->state.regs.rip = 0;
    guest->state.regs.rsp = 0x8000;
    soft_guest_put_sregs(guest);
    soft_guest_put_regs(guest);
}

void soft_guest_run(struct soft_guest *guest)
{
    soft_accel_ops.vcpu_run(guest->vcpu, &guest->exit);
    soft_accel_ops.vcpu_get_state(guest->vcpu, GROUPS, &guest->state);
}

void soft_guest_run_to_end(struct soft_guest *guest)
{
    soft_guest_run(guest);
    assert_int_equal(guest->exit.reason, ACCEL_EXIT_PIO);
    assert_int_equal(guest->exit.pio.port, SOFT_GUEST_DONE_PORT);
}

void soft_guest_expect(struct soft_guest *guest, unsigned vector)
{
    soft_guest_run(guest);
    assert_int_equal(guest->exit.reason, ACCEL_EXIT_PIO);
    assert_int_equal(guest->exit.pio.port, SOFT_GUEST_VECTOR_PORT + vector);
}

uint64_t soft_guest_frame(const struct soft_guest *guest, unsigned index)
{
    return soft_guest_u64(guest, guest->state.regs.rsp + index * 8);
}
