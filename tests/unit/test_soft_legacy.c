/* SPDX-License-Identifier: MIT */
/* Protected mode of the software CPU: task switches, virtual-8086 mode, fast system calls. */
#include <string.h>

#include "base/bytes.h"
#include "tests/unit/soft_fixture.h"
#include "tests/unit/test.h"

#define END 0xe6, 0xf4 /* out 0xf4, al */

#define IDT32     0x26000u
#define TSS_OLD   0x24000u
#define TSS_NEW   0x25000u
#define TSS_16    0x25800u
#define NEW_CODE  (SOFT_GUEST_CODE + 0x200) /* where the other task begins */
#define NEW_STACK 0x170000u

#define SEL_OLD    0x60
#define SEL_NEW    0x68
#define SEL_NEW_16 0x70
#define SEL_GATE   0x78 /* task gate to SEL_NEW */

static uint64_t tss_descriptor(uint32_t base, unsigned type, unsigned limit)
{
    return limit | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(0x80 | type) << 40;
}

static void set_gate32(unsigned vector, uint64_t low)
{
    soft_guest_set_u64(&guest, IDT32 + vector * 8, low);
}

static void build_tables(void)
{
    uint8_t *gdt = guest.ram + SOFT_GUEST_GDT;

    store_le64(gdt + SEL_OLD, tss_descriptor(TSS_OLD, 11, 0x67));
    store_le64(gdt + SEL_NEW, tss_descriptor(TSS_NEW, 9, 0x67));
    store_le64(gdt + SEL_NEW_16, tss_descriptor(TSS_16, 1, 0x2b));
    store_le64(gdt + SEL_GATE, (uint64_t)SEL_NEW << 16 | UINT64_C(0x85) << 40);
    memset(guest.ram + TSS_OLD, 0, 0x2000);
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t offset = SOFT_GUEST_STUBS + vector * 16;

        set_gate32(vector, (offset & 0xffff) | (uint64_t)SEL_CODE32 << 16 | UINT64_C(0xee) << 40 |
                               (offset & 0xffff0000) << 32);
    }
}

/* What a task's TSS says of its start. */
static void build_new_task(void)
{
    static const uint16_t selectors[6] = {SEL_DATA, SEL_CODE32, SEL_DATA, SEL_DATA, SEL_SMALL, 0};
    uint8_t *wide = guest.ram + TSS_NEW, *narrow = guest.ram + TSS_16;

    store_le32(wide + 0x20, NEW_CODE);
    store_le32(wide + 0x24, RFLAGS_FIXED | RFLAGS_CF);
    store_le32(wide + 0x38, NEW_STACK);
    store_le32(wide + 0x34, 0x12345678); /* EBX */
    for (unsigned i = 0; i < 6; i++)
        store_le16(wide + 0x48 + i * 4, selectors[i]);
    store_le16(narrow + 0x0e, 0x8000);
    store_le16(narrow + 0x10, RFLAGS_FIXED);
    store_le16(narrow + 0x1a, 0x7000); /* SP */
    store_le16(narrow + 0x18, 0x4321); /* BX */
    for (unsigned i = 0; i < 4; i++)
        store_le16(narrow + 0x22 + i * 2, i == SOFT_CS ? SEL_CODE16 : SEL_DATA);
}

/* 32-bit code in the old task, ring 0, without paging; `there` runs in the new one. */
static void load(const uint8_t *here, size_t length, const uint8_t *there, size_t there_length)
{
    struct kvm_sregs *sregs = &guest.state.sregs;

    soft_guest_load(&guest, here, length);
    soft_guest_set_protected(&guest, true);
    build_tables();
    build_new_task();
    memcpy(guest.ram + NEW_CODE, there, there_length);
    memcpy(guest.ram + 0x8000, there, there_length);
    soft_accel_ops.ram_written(guest.vm, 0, SOFT_GUEST_RAM);
    sregs->gdt.limit = SEL_GATE + 7;
    sregs->idt = (struct kvm_dtable){.base = IDT32, .limit = 256 * 8 - 1};
    sregs->tr = (struct kvm_segment){
        .selector = SEL_OLD, .base = TSS_OLD, .limit = 0x67, .type = 11, .present = 1};
    soft_guest_put_sregs(&guest);
    guest.state.regs.rax = 0x11111111;
    guest.state.regs.rbp = 0x22222222;
    soft_guest_put_regs(&guest);
}

#define LOAD(here, there) load(here, sizeof(here), there, sizeof(there))

static unsigned tss_type(uint16_t selector)
{
    return guest.ram[SOFT_GUEST_GDT + selector + 5] & 15;
}

static void test_jump_to_a_task(void **state)
{
    static const uint8_t here[] = {0xea, 0, 0, 0, 0, SEL_NEW, 0};
    static const uint8_t there[] = {END};
    const uint8_t *old = guest.ram + TSS_OLD;

    (void)state;
    LOAD(here, there);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rbx, 0x12345678);
    assert_int_equal(guest.state.regs.rax, 0);
    assert_int_equal(guest.state.regs.rsp, NEW_STACK);
    assert_int_equal(guest.state.regs.rflags, RFLAGS_FIXED | RFLAGS_CF);
    assert_int_equal(guest.state.sregs.tr.selector, SEL_NEW);
    assert_int_equal(guest.state.sregs.fs.selector, SEL_SMALL);
    assert_true(guest.state.sregs.cr0 & CR0_TS);
    assert_int_equal(tss_type(SEL_OLD), 9);
    assert_int_equal(tss_type(SEL_NEW), 11);
    assert_int_equal(load_le32(old + 0x20), SOFT_GUEST_CODE + 7);
    assert_int_equal(load_le32(old + 0x28), 0x11111111);
    assert_int_equal(load_le32(old + 0x3c), 0x22222222);
    assert_int_equal(load_le16(old + 0x4c), SEL_CODE32);
    assert_int_equal(load_le16(guest.ram + TSS_NEW), 0); /* no link */
}

/* Call, and IRET back; the selector of what is called is in the code. */
static void check_call(uint16_t selector, uint16_t tss, unsigned free_type)
{
    uint8_t here[] = {0x9a, 0, 0, 0, 0, (uint8_t)selector, 0, END};
    static const uint8_t there[] = {0x89, 0xd9, 0xcf}; /* mov ecx, ebx; iret */
    uint32_t at = tss == SEL_NEW ? TSS_NEW : TSS_16;

    load(here, sizeof(here), there, sizeof(there));
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax, 0x11111111);
    assert_int_equal(guest.state.sregs.tr.selector, SEL_OLD);
    assert_int_equal(tss_type(SEL_OLD), 11);
    assert_int_equal(tss_type(tss), free_type);
    assert_int_equal(load_le16(guest.ram + at), SEL_OLD);
    assert_false(guest.state.regs.rflags & RFLAGS_NT);
    if (tss == SEL_NEW) {
        assert_int_equal(load_le32(guest.ram + at + 0x2c), 0x12345678); /* its ECX */
        assert_int_equal(load_le32(guest.ram + at + 0x20), NEW_CODE + sizeof(there));
        assert_false(load_le32(guest.ram + at + 0x24) & RFLAGS_NT);
    } else {
        assert_int_equal(load_le16(guest.ram + at + 0x14), 0x4321);
        assert_int_equal(load_le16(guest.ram + at + 0x0e), 0x8000 + sizeof(there));
    }
}

static void test_call_and_return(void **state)
{
    (void)state;
    check_call(SEL_NEW, SEL_NEW, 9);
    check_call(SEL_GATE, SEL_NEW, 9);
    check_call(SEL_NEW_16, SEL_NEW_16, 1);
}

static void test_exception_through_a_task_gate(void **state)
{
    static const uint8_t here[] = {0x90, 0x66, 0xb8, SEL_NP, 0, 0x8e, 0xd8}; /* mov ds, ax */
    static const uint8_t there[] = {0x5a, END};                              /* pop edx */

    (void)state;
    LOAD(here, there);
    set_gate32(SOFT_NP, (uint64_t)SEL_NEW << 16 | UINT64_C(0x85) << 40);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rdx, SEL_NP);
    assert_int_equal(guest.state.regs.rsp, NEW_STACK);
    assert_int_equal(load_le32(guest.ram + TSS_OLD + 0x20), SOFT_GUEST_CODE + 5);
    assert_true(guest.state.regs.rflags & RFLAGS_NT);
    assert_int_equal(tss_type(SEL_OLD), 11);

    static const uint8_t interrupt[] = {0xcd, 0x40, 0xff, 0xc0, END}; /* int 0x40; inc eax */
    static const uint8_t back[] = {0xcf};

    LOAD(interrupt, back);
    set_gate32(0x40, (uint64_t)SEL_NEW << 16 | UINT64_C(0xe5) << 40);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax, 0x11111112);
}

/* The error code that the fault's handler finds on the stack. */
static uint32_t error_code(void)
{
    return load_le32(guest.ram + guest.state.regs.rsp);
}

static void test_refused_switches(void **state)
{
    static const uint8_t here[] = {0xea, 0, 0, 0, 0, SEL_NEW, 0};
    static const uint8_t there[] = {END};
    uint8_t *gdt = guest.ram + SOFT_GUEST_GDT;

    (void)state;
    LOAD(here, there); /* busy */
    store_le64(gdt + SEL_NEW, tss_descriptor(TSS_NEW, 11, 0x67));
    soft_guest_expect(&guest, SOFT_GP);
    assert_int_equal(error_code(), SEL_NEW);
    assert_int_equal(guest.state.sregs.tr.selector, SEL_OLD);

    LOAD(here, there); /* too short */
    store_le64(gdt + SEL_NEW, tss_descriptor(TSS_NEW, 9, 0x66));
    soft_guest_expect(&guest, SOFT_TS);
    assert_int_equal(error_code(), SEL_NEW);
    assert_int_equal(tss_type(SEL_OLD), 11);

    LOAD(here, there); /* not present */
    gdt[SEL_NEW + 5] &= 0x7f;
    soft_guest_expect(&guest, SOFT_NP);
    assert_int_equal(load_le32(guest.ram + guest.state.regs.rsp + 4), SOFT_GUEST_CODE);

    static const uint8_t iret[] = {0x9c, 0x80, 0x4c, 0x24, 1, 0x40, 0x9d, 0xcf}; /* set NT; iret */

    LOAD(iret, there);
    store_le16(guest.ram + TSS_OLD, SEL_NEW); /* which is not busy */
    soft_guest_expect(&guest, SOFT_TS);
    assert_int_equal(error_code(), SEL_NEW);
}

/* What is wrong with the new task is its own exception, on its own stack. */
static void test_faults_of_the_new_task(void **state)
{
    static const uint8_t here[] = {0xea, 0, 0, 0, 0, SEL_NEW, 0};
    static const uint8_t there[] = {END};

    (void)state;
    LOAD(here, there);
    store_le16(guest.ram + TSS_NEW + 0x54, SEL_NP); /* DS */
    soft_guest_expect(&guest, SOFT_NP);
    assert_int_equal(guest.state.sregs.tr.selector, SEL_NEW);
    assert_int_equal(guest.state.regs.rsp, NEW_STACK - 16);
    assert_int_equal(error_code(), SEL_NP);
    assert_int_equal(load_le32(guest.ram + guest.state.regs.rsp + 4), NEW_CODE);

    LOAD(here, there);
    store_le16(guest.ram + TSS_NEW + 0x54, SEL_GATE); /* no segment at all */
    soft_guest_expect(&guest, SOFT_TS);
    assert_int_equal(error_code(), SEL_GATE);

    LOAD(here, there);
    store_le16(guest.ram + TSS_NEW + 0x60, SEL_DATA); /* LDT; nothing else is loaded: shutdown */
    soft_guest_run(&guest);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_SHUTDOWN);

    LOAD(here, there);
    guest.ram[TSS_NEW + 0x64] = 1; /* T */
    soft_guest_expect(&guest, SOFT_DB);
    assert_int_equal(load_le32(guest.ram + guest.state.regs.rsp), NEW_CODE);
}

static void test_switch_into_virtual_8086_mode(void **state)
{
    static const uint8_t here[] = {0xea, 0, 0, 0, 0, SEL_NEW, 0};
    static const uint8_t there[] = {0x8c, 0xd8, 0xcd, 0x21}; /* mov ax, ds; int 0x21 */
    uint8_t *tss = guest.ram + TSS_NEW;

    (void)state;
    LOAD(here, there);
    store_le32(tss + 4, SOFT_GUEST_KERNEL);
    store_le16(tss + 8, SEL_DATA);
    store_le32(tss + 0x20, 0);
    store_le32(tss + 0x24, RFLAGS_FIXED | RFLAGS_VM);
    for (unsigned i = 0; i < 6; i++)
        store_le16(tss + 0x48 + i * 4, i == SOFT_CS ? 0x800 : 0x3000);
    soft_guest_expect(&guest, SOFT_GP); /* INT with IOPL 0: for the monitor */
    assert_int_equal(guest.state.regs.rax & 0xff, 0);
    assert_int_equal(guest.state.regs.rsp, SOFT_GUEST_KERNEL - 40);
    assert_int_equal(load_le32(guest.ram + guest.state.regs.rsp + 4), 2);     /* EIP */
    assert_int_equal(load_le32(guest.ram + guest.state.regs.rsp + 8), 0x800); /* CS */
    assert_true(load_le32(guest.ram + guest.state.regs.rsp + 12) & RFLAGS_VM);
    assert_int_equal(load_le32(guest.ram + guest.state.regs.rsp + 28), 0x3000); /* DS */
}

/* --- Fast system calls as AMD has them --- */

static void set_msr(uint32_t index, uint64_t data)
{
    struct accel_msrs msrs = {.header.nmsrs = 1};

    msrs.entries[0] = (struct kvm_msr_entry){.index = index, .data = data};
    assert_int_equal(soft_accel_ops.vcpu_set_msrs(guest.vcpu, &msrs), 1);
}

static void load_compatibility(const uint8_t *code, size_t length)
{
    struct kvm_sregs *sregs = &guest.state.sregs;

    soft_guest_load(&guest, code, length);
    soft_guest_set_user(&guest);
    sregs->cs.selector = SEL_USER32;
    sregs->cs.l = 0;
    sregs->cs.db = 1;
    soft_guest_put_sregs(&guest);
}

static void test_sysenter_in_long_mode(void **state)
{
    static const uint8_t enter[] = {0x0f, 0x34}, leave[] = {0x0f, 0x35};

    (void)state;
    set_msr(0x174, SEL_CODE64);
    soft_guest_load(&guest, enter, 2);
    soft_guest_expect(&guest, SOFT_UD);
    soft_guest_load(&guest, leave, 2);
    soft_guest_expect(&guest, SOFT_UD);
    load_compatibility(enter, 2);
    soft_guest_expect(&guest, SOFT_UD);
}

static void test_syscall_from_compatibility_mode(void **state)
{
    static const uint8_t code[] = {0x0f, 0x05, 0xff, 0xc0, 0xcd, 0x80}; /* syscall; inc; int 0x80 */
    static const uint8_t kernel[] = {0x89, 0xcb, 0x0f, 0x07};           /* mov ebx, ecx; sysretl */

    (void)state;
    load_compatibility(code, sizeof(code));
    memcpy(guest.ram + NEW_CODE, kernel, sizeof(kernel));
    soft_accel_ops.ram_written(guest.vm, NEW_CODE, sizeof(kernel));
    set_msr(0xc0000081, (uint64_t)SEL_USER32 << 48 | (uint64_t)SEL_CODE64 << 32);
    set_msr(0xc0000082, 0);
    set_msr(0xc0000083, NEW_CODE);
    set_msr(0xc0000084, RFLAGS_IF);
    soft_guest_expect(&guest, 0x80);
    assert_int_equal(guest.state.regs.rbx, SOFT_GUEST_CODE + 2);
    assert_int_equal(guest.state.regs.rax & 0xff, 1);
    assert_int_equal(soft_guest_frame(&guest, 1), SEL_USER32);
    assert_int_equal(soft_guest_frame(&guest, 4), SEL_USERDATA);
}

static void test_syscall_in_legacy_mode(void **state)
{
    static const uint8_t here[] = {0x0f, 0x05};
    static const uint8_t there[] = {END};

    (void)state;
    LOAD(here, there);
    soft_guest_expect(&guest, SOFT_UD); /* without EFER.SCE */
    LOAD(here, there);
    guest.state.sregs.efer = EFER_SCE;
    soft_guest_put_sregs(&guest);
    set_msr(0xc0000081, (uint64_t)SEL_CODE32 << 32 | NEW_CODE);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rcx, SOFT_GUEST_CODE + 2);
    assert_int_equal(guest.state.sregs.cs.selector, SEL_CODE32);
    assert_int_equal(guest.state.sregs.ss.selector, SEL_CODE32 + 8);
}

/* --- Operands --- */

/* A bit number moves the address within 64 KiB where addresses have 16 bits. */
static void test_bit_number_wraps_the_address(void **state)
{
    static const uint8_t code[] = {0x67, 0x0f, 0xa3, 0x4f, 0x10,    /* bt [bx+0x10], ecx */
                                   0x0f, 0x92, 0xc2, END};          /* setc dl */
    static const uint8_t far_off[] = {0x67, 0x0f, 0xab, 0x0f, END}; /* bts [bx], ecx */

    (void)state;
    LOAD(code, code);
    guest.ram[0xfffc] = 0x02;
    guest.state.regs.rbx = 0x8;
    guest.state.regs.rcx = (uint64_t)(uint32_t)(-0x1c * 8 + 1);
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rdx & 0xff, 1);

    LOAD(far_off, far_off);
    guest.ram[4] = guest.ram[0x10004] = 0;
    guest.state.regs.rbx = 0xfffc;
    guest.state.regs.rcx = 8 * 8;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.ram[4], 1);
    assert_int_equal(guest.ram[0x10004], 0);
}

/* It is where the bit is that must lie within the segment, not the operand it is counted from. */
static void test_bit_number_and_limit(void **state)
{
    static const uint8_t code[] = {0x8e, 0xc0, 0x26, 0x0f, 0xa3, 0x0b, END}; /* bt es:[ebx], ecx */

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        LOAD(code, code);
        guest.state.regs.rax = SEL_SMALL;
        guest.state.regs.rbx = i ? 0x80 : 0x200;
        guest.state.regs.rcx = i ? 0x200 * 8 : (uint64_t)(uint32_t)(-0x180 * 8);
        soft_guest_put_regs(&guest);
        if (i)
            soft_guest_expect(&guest, SOFT_GP);
        else
            soft_guest_run_to_end(&guest);
    }
}

/* The last byte of 4 GiB and the first are neighbours; the limit forbids nothing there. */
static void test_operand_around_the_end(void **state)
{
    static const uint8_t code[] = {0x66, 0x8b, 0x03, END}; /* mov ax, [ebx] */

    (void)state;
    LOAD(code, code);
    assert_int_equal(soft_accel_ops.set_memslot(guest.vm, 1, UINT64_C(0xfffff000), 0x1000,
                                                guest.ram + SOFT_GUEST_DATA, true),
                     0);
    guest.ram[SOFT_GUEST_DATA + 0xfff] = 0x34;
    guest.ram[0] = 0x12;
    guest.state.regs.rbx = UINT32_MAX;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(guest.state.regs.rax, 0x11111234);
}

/* Firmware leaves a code segment's attributes behind; boot loaders write through CS all the same. */
static void test_real_mode_writes_through_cs(void **state)
{
    static const uint8_t code[] = {0x2e, 0xa3, 0x80, 0x00, END}; /* mov cs:[0x80], ax */

    (void)state;
    soft_guest_load(&guest, code, sizeof(code));
    soft_guest_set_real(&guest);
    guest.state.regs.rax = 0x1234;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_int_equal(load_le16(guest.ram + SOFT_GUEST_REAL_CODE + 0x80), 0x1234);
}

static void test_arpl_through_code_segment(void **state)
{
    static const uint8_t code[] = {0x2e, 0x63, 0x03, END}; /* arpl cs:[ebx], ax */

    (void)state;
    LOAD(code, code);
    store_le16(guest.ram + SOFT_GUEST_DATA, 3);
    guest.state.regs.rax = 2; /* nothing to raise */
    guest.state.regs.rbx = SOFT_GUEST_DATA;
    soft_guest_put_regs(&guest);
    soft_guest_run_to_end(&guest);
    assert_false(guest.state.regs.rflags & RFLAGS_ZF);

    LOAD(code, code);
    store_le16(guest.ram + SOFT_GUEST_DATA, 1);
    guest.state.regs.rax = 2;
    guest.state.regs.rbx = SOFT_GUEST_DATA;
    soft_guest_put_regs(&guest);
    soft_guest_expect(&guest, SOFT_GP);
    assert_int_equal(load_le16(guest.ram + SOFT_GUEST_DATA), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_jump_to_a_task),
        TEST(test_call_and_return),
        TEST(test_exception_through_a_task_gate),
        TEST(test_refused_switches),
        TEST(test_faults_of_the_new_task),
        TEST(test_switch_into_virtual_8086_mode),
        TEST(test_sysenter_in_long_mode),
        TEST(test_syscall_from_compatibility_mode),
        TEST(test_syscall_in_legacy_mode),
        TEST(test_bit_number_wraps_the_address),
        TEST(test_bit_number_and_limit),
        TEST(test_arpl_through_code_segment),
        TEST(test_operand_around_the_end),
        TEST(test_real_mode_writes_through_cs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
