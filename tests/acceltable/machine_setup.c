/* SPDX-License-Identifier: MIT */
/* machine_setup: the memory and the registers that a program of accel_table starts from. */
#include "tests/acceltable/machine_setup.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/descriptor.h"

#define TABLE_PML4 0x1000
#define TABLE_PDPT 0x2000
#define TABLE_PD   0x3000
#define TABLE_PT   0x4000

#define PTE_P   0x01u
#define PTE_W   0x02u
#define PTE_U   0x04u
#define PTE_PS  0x80u
#define PTE_NX  (UINT64_C(1) << 63)
#define PTE_BAD (UINT64_C(1) << 51) /* beyond every physical address here */
#define PTE_ALL (PTE_P | PTE_W | PTE_U)

#define RFLAGS_VM (1u << 17)
#define V86_STACK 0xfff0
#define V86_DATA  0x1000

#define EFER_SCE 0x001u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u

/* --- Descriptors --- */

#define FLAT(type_and_dpl, flags)                                                                  \
    (UINT64_C(0x000f00000000ffff) | (uint64_t)(type_and_dpl) << 40 | (uint64_t)(flags) << 52)
#define BASED(base, limit, access, flags)                                                          \
    (((uint64_t)(limit)&0xffff) | ((uint64_t)(base)&0xffffff) << 16 | (uint64_t)(access) << 40 |   \
     ((uint64_t)(limit) >> 16 & 0xf) << 48 | (uint64_t)(flags) << 52 |                             \
     ((uint64_t)(base) >> 24 & 0xff) << 56)
#define GATE(selector, offset, access)                                                             \
    (((uint64_t)(offset)&0xffff) | (uint64_t)(selector) << 16 | (uint64_t)(access) << 40 |         \
     ((uint64_t)(offset) >> 16 & 0xffff) << 48)

static const uint64_t gdt[SEL_END / 8] = {
    [SEL_CODE64 / 8] = FLAT(0x9b, 0xa),
    [SEL_DATA / 8] = FLAT(0x93, 0xc),
    [SEL_CODE32 / 8] = FLAT(0x9b, 0xc),
    [SEL_USER_CS32 / 8] = FLAT(0xfb, 0xc),
    [SEL_USER_DS / 8] = FLAT(0xf3, 0xc),
    [SEL_USER_CS64 / 8] = FLAT(0xfb, 0xa),
    [SEL_TSS64 / 8] = BASED(GUEST_TSS64, 0x88, 0x89, 0),
    [SEL_TSS32 / 8] = BASED(GUEST_TSS32, 0x88, 0x89, 0),
    [SEL_CODE16 / 8] = BASED(GUEST_CODE, 0xffff, 0x9b, 0),
    [SEL_DATA16 / 8] = BASED(GUEST_DATA, 0xffff, 0x93, 0),
    [SEL_EXPANDDOWN / 8] = BASED(0, 0xfff, 0x97, 4),
    [SEL_RDONLY / 8] = FLAT(0x91, 0xc),
    [SEL_ABSENT / 8] = FLAT(0x73, 0xc),
    [SEL_GATE64 / 8] = GATE(SEL_CODE64, GUEST_STUBS + 0xc0 * 16, 0xec),
    [SEL_LDT64 / 8] = BASED(GUEST_LDT, 0x1f, 0x82, 0),
    [SEL_EXECONLY / 8] = FLAT(0xf9, 0xc),
    [SEL_CONFORMING / 8] = FLAT(0x9f, 0xa),
    [SEL_SMALL / 8] = BASED(GUEST_DATA, 0xfff, 0xf3, 4),
    [SEL_GATE32 / 8] = GATE(SEL_CODE32, GUEST_STUBS + 0xc1 * 16, 0x8c),
    [SEL_LDT32 / 8] = BASED(GUEST_LDT, 0x1f, 0x82, 0),
};

static void build_gates(uint8_t *ram, bool is_long)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        bool for_users = vector == 3 || vector == 4 || vector == 0x80;
        unsigned type = vector == 0x81 ? 0x8f : 0x8e;
        uint64_t gate = GATE(is_long ? SEL_CODE64 : SEL_CODE32, GUEST_STUBS + vector * 16,
                             type | (for_users ? 0x60 : 0));

        if (is_long && (vector == 8 || vector == 0x90))
            gate |= UINT64_C(1) << (vector == 8 ? 32 : 33);
        store_le64(ram + GUEST_IDT + vector * (is_long ? 16 : 8), gate);
    }
}

/* push $vector; jmp to: out %al, $port; hlt. The same bytes serve 32 and 64 bit. */
static void build_stubs(uint8_t *ram)
{
    uint8_t *common = ram + GUEST_STUBS + 256 * 16;

    memcpy(common, "\xe6\xf4\xf4", 3);
    for (unsigned vector = 0; vector < 256; vector++) {
        uint8_t *stub = ram + GUEST_STUBS + vector * 16;

        stub[0] = 0x68;
        store_le32(stub + 1, vector);
        stub[5] = 0xe9;
        store_le32(stub + 6, (uint32_t)(common - (stub + 10)));
    }
}

static void build_real_stubs(uint8_t *ram)
{
    uint8_t *common = ram + GUEST_STUBS_REAL + 256 * 8;

    memcpy(common, "\xe6\xf4\xf4", 3);
    for (unsigned vector = 0; vector < 256; vector++) {
        uint8_t *stub = ram + GUEST_STUBS_REAL + vector * 8;

        store_le16(ram + vector * 4, (uint16_t)(vector * 8));
        store_le16(ram + vector * 4 + 2, GUEST_STUBS_REAL >> 4);
        stub[0] = 0x68;
        store_le16(stub + 1, (uint16_t)vector);
        stub[3] = 0xe9;
        store_le16(stub + 4, (uint16_t)(common - (stub + 6)));
    }
}

/* All ports forbidden but the one that ends a program; the map ends after port 0xff. */
static void build_tss(uint8_t *ram)
{
    uint8_t *tss64 = ram + GUEST_TSS64, *tss32 = ram + GUEST_TSS32;

    store_le64(tss64 + 4, GUEST_STACK_RSP0);
    store_le64(tss64 + 36, GUEST_STACK_IST1);
    store_le64(tss64 + 44, GUEST_STACK_IST2);
    store_le16(tss64 + 102, 0x68);
    store_le32(tss32 + 4, GUEST_STACK_RSP0);
    store_le32(tss32 + 8, SEL_DATA);
    store_le16(tss32 + 102, 0x68);
    memset(tss64 + 0x68, 0xff, 0x21);
    memset(tss32 + 0x68, 0xff, 0x21);
    tss64[0x68 + GUEST_END_PORT / 8] = (uint8_t) ~(1u << GUEST_END_PORT % 8);
}

static uint64_t page_entry(uint64_t page)
{
    switch (page) {
    case GUEST_PAGE_ABSENT:
        return 0;
    case GUEST_PAGE_RDONLY:
        return page | PTE_P | PTE_U;
    case GUEST_PAGE_KERNEL:
        return page | PTE_P | PTE_W;
    case GUEST_PAGE_NX:
        return page | PTE_ALL | PTE_NX;
    case GUEST_PAGE_RESERVED:
        return page | PTE_ALL | PTE_BAD;
    default:
        return page | PTE_ALL;
    }
}

static void build_page_tables(uint8_t *ram)
{
    store_le64(ram + TABLE_PML4, TABLE_PDPT | PTE_ALL);
    store_le64(ram + TABLE_PDPT, TABLE_PD | PTE_ALL);
    store_le64(ram + TABLE_PD, TABLE_PT | PTE_ALL);
    store_le64(ram + TABLE_PD + 8, 0x200000 | PTE_ALL | PTE_PS);
    for (unsigned i = 0; i < 512; i++)
        store_le64(ram + TABLE_PT + 8 * i, page_entry((uint64_t)i << 12));
    store_le64(ram + GUEST_PAE_POINTERS, TABLE_PD | PTE_P);
}

/*
 * Programs that may change rings find the task register loaded by LTR, which alone tells a
 * translating CPU that the TSS is one: a prologue does it and goes on to the program by a frame.
 */
static bool has_prologue(enum guest_mode mode)
{
    return mode == MODE_USER64 || mode == MODE_USER32 || mode == MODE_PROTECTED || mode == MODE_V86;
}

static void build_user_frame(uint8_t *frame, enum guest_mode mode)
{
    store_le64(frame, GUEST_CODE);
    store_le64(frame + 8, mode == MODE_USER64 ? SEL_USER_CS64 : SEL_USER_CS32);
    store_le64(frame + 16, 2);
    store_le64(frame + 24, GUEST_STACK_USER);
    store_le64(frame + 32, SEL_USER_DS);
}

static void build_v86_frame(uint8_t *frame)
{
    store_le32(frame, 0);
    store_le32(frame + 4, GUEST_CODE >> 4);
    store_le32(frame + 8, RFLAGS_VM | 2);
    store_le32(frame + 12, V86_STACK);
    for (unsigned i = 0; i < 5; i++) /* SS ES DS FS GS */
        store_le32(frame + 16 + 4 * i, V86_DATA);
}

static void build_prologue(uint8_t *ram, enum guest_mode mode)
{
    uint8_t *code = ram + GUEST_PROLOGUE, *frame = ram + GUEST_PROLOGUE_STACK;

    store_le16(ram + GUEST_PROLOGUE_TR, mode <= MODE_USER32 ? SEL_TSS64 : SEL_TSS32);
    if (mode <= MODE_USER32) { /* ltr GUEST_PROLOGUE_TR; iretq */
        memcpy(code, "\x0f\x00\x1c\x25\0\0\0\0\x48\xcf", 10);
        store_le32(code + 4, GUEST_PROLOGUE_TR);
        build_user_frame(frame, mode);
        return;
    }
    memcpy(code, "\x0f\x00\x1d\0\0\0\0", 7);
    store_le32(code + 3, GUEST_PROLOGUE_TR);
    if (mode == MODE_V86) {
        code[7] = 0xcf; /* iret */
        build_v86_frame(frame);
    } else {
        code[7] = 0xea; /* ljmp */
        store_le32(code + 8, GUEST_CODE);
        store_le16(code + 12, SEL_CODE32);
    }
}

void machine_setup_memory(uint8_t *ram, const struct program *program)
{
    bool is_long = program->mode <= MODE_USER32;

    memset(ram, 0, GUEST_RAM_BYTES);
    for (unsigned i = 0; i < 0x2000; i++)
        ram[GUEST_DATA + i] = (uint8_t)(i * 7 + (i >> 8));
    memcpy(ram + GUEST_GDT, gdt, sizeof(gdt));
    store_le64(ram + GUEST_LDT + 8, FLAT(0xf3, 0xc));
    build_gates(ram, is_long);
    build_stubs(ram);
    build_tss(ram);
    build_page_tables(ram);
    if (program->mode == MODE_REAL)
        build_real_stubs(ram);
    if (has_prologue((enum guest_mode)program->mode))
        build_prologue(ram, (enum guest_mode)program->mode);
    memcpy(ram + GUEST_CODE, program->start, (size_t)(program->end - program->start));
}

/* --- Registers --- */

static struct kvm_segment segment_of(uint16_t selector)
{
    return descriptor_segment(selector, gdt[selector / 8]);
}

static struct kvm_segment real_segment(uint16_t selector, unsigned dpl)
{
    return (struct kvm_segment){.selector = selector,
                                .base = (uint64_t)selector << 4,
                                .limit = 0xffff,
                                .type = 3,
                                .s = 1,
                                .dpl = (uint8_t)dpl,
                                .present = 1};
}

static void set_segments(struct kvm_sregs *sregs, struct kvm_segment cs, struct kvm_segment data)
{
    sregs->cs = cs;
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
}

static void set_system_segments(struct kvm_sregs *sregs, bool is_long)
{
    sregs->tr = segment_of(is_long ? SEL_TSS64 : SEL_TSS32);
    sregs->tr.type = 11; /* busy */
    sregs->ldt = (struct kvm_segment){.unusable = 1};
    sregs->gdt.base = GUEST_GDT;
    sregs->gdt.limit = SEL_END - 1;
    sregs->idt.base = GUEST_IDT;
    sregs->idt.limit = is_long ? 0xfff : 0x7ff;
}

static void set_control(struct kvm_sregs *sregs, enum guest_mode mode)
{
    sregs->cr0 = mode == MODE_REAL ? 0x30 : 0x33; /* PE MP ET NE */
    sregs->cr4 = 0x600;                           /* OSFXSR OSXMMEXCPT */
    sregs->efer = 0;
    if (mode <= MODE_USER32 || mode == MODE_PAE) {
        sregs->cr0 |= 0x80010000; /* PG WP */
        sregs->cr4 |= 0x20;
        sregs->cr3 = mode == MODE_PAE ? GUEST_PAE_POINTERS : TABLE_PML4;
        sregs->efer = EFER_NXE;
    }
    if (mode <= MODE_USER32)
        sregs->efer |= EFER_LME | EFER_LMA | EFER_SCE;
}

static void set_mode_segments(struct kvm_sregs *sregs, enum guest_mode mode)
{
    switch (mode) {
    case MODE_KERNEL64:
        set_segments(sregs, segment_of(SEL_CODE64), segment_of(SEL_DATA));
        break;
    case MODE_USER64:
        set_segments(sregs, segment_of(SEL_USER_CS64), segment_of(SEL_USER_DS));
        break;
    case MODE_USER32:
        set_segments(sregs, segment_of(SEL_USER_CS32), segment_of(SEL_USER_DS));
        break;
    case MODE_PROTECTED:
    case MODE_PAE:
        set_segments(sregs, segment_of(SEL_CODE32), segment_of(SEL_DATA));
        break;
    case MODE_REAL:
        set_segments(sregs, real_segment(GUEST_CODE >> 4, 0), real_segment(V86_DATA, 0));
        sregs->cs.type = 11;
        sregs->idt.base = 0;
        sregs->idt.limit = 0x3ff;
        break;
    case MODE_V86:
        set_segments(sregs, real_segment(GUEST_CODE >> 4, 3), real_segment(V86_DATA, 3));
        break;
    }
}

void machine_setup_state(struct accel_vcpu_state *state, enum guest_mode mode)
{
    struct kvm_regs *regs = &state->regs;
    uint64_t pattern =
        mode == MODE_USER64 || mode == MODE_KERNEL64 ? UINT64_C(0x0101010101010101) : 0x01010101;
    uint64_t *first = (uint64_t *)(void *)regs;

    /* rax rbx rcx rdx rsi rdi rsp rbp r8 ... */
    for (unsigned i = 0; i < 16; i++)
        first[i] = pattern * (i + 1);
    regs->rsp = mode == MODE_USER64 || mode == MODE_USER32 ? GUEST_STACK_USER : GUEST_STACK;
    regs->rip = GUEST_CODE;
    regs->rflags = 2;
    set_system_segments(&state->sregs, mode <= MODE_USER32);
    set_control(&state->sregs, mode);
    set_mode_segments(&state->sregs, mode);
    state->fpu.fcw = 0x37f;
    state->fpu.mxcsr = 0x1f80;
    state->sregs.apic_base |= 0xc00; /* x2APIC */
    if (mode == MODE_REAL || mode == MODE_V86) {
        regs->rip = 0;
        regs->rsp = V86_STACK;
    }
    if (mode == MODE_V86)
        regs->rflags |= RFLAGS_VM;
}

void machine_setup_prologue(struct accel_vcpu_state *state, enum guest_mode mode)
{
    bool is_long = mode <= MODE_USER32;

    if (!has_prologue(mode))
        return;
    state->regs.rip = GUEST_PROLOGUE;
    if (mode == MODE_PROTECTED)
        return;
    state->regs.rsp = GUEST_PROLOGUE_STACK;
    state->regs.rflags = 2;
    set_segments(&state->sregs, segment_of(is_long ? SEL_CODE64 : SEL_CODE32),
                 segment_of(is_long ? SEL_USER_DS : SEL_DATA));
    state->sregs.ss = segment_of(SEL_DATA);
}
