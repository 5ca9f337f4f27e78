/* SPDX-License-Identifier: MIT */
/* Several vCPUs of the software CPU on real threads: atomics, changed code, SIPI, HLT. */
#include <pthread.h>
#include <string.h>

#include "tests/soft_guest.h"
#include "tests/unit/test.h"

#define END 0xe6, 0xf4 /* out 0xf4, al */

#define COUNTER    SOFT_GUEST_DATA
#define ITERATIONS 20000

static struct soft_guest guest;

static int set_up(void **state)
{
    (void)state;
    soft_guest_create(&guest, 2);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    soft_guest_destroy(&guest);
    return 0;
}

static void *run_until_port(void *opaque)
{
    struct accel_vcpu *vcpu = opaque;
    struct accel_exit exit;

    soft_accel_ops.vcpu_run(vcpu, &exit);
    assert_int_equal(exit.reason, ACCEL_EXIT_PIO);
    assert_int_equal(exit.pio.port, SOFT_GUEST_DONE_PORT);
    return NULL;
}

/* The second vCPU like the first, but at `rip` and with its own stack. */
static void start_second_at(uint64_t rip)
{
    struct accel_vcpu_state state = guest.state;

    state.regs.rip = rip;
    state.regs.rsp -= 0x8000;
    state.mp_state.mp_state = KVM_MP_STATE_RUNNABLE;
    soft_accel_ops.vcpu_set_state(guest.vcpus[1],
                                  ACCEL_STATE_REGS | ACCEL_STATE_SREGS | ACCEL_STATE_MP, &state);
}

static void run_both(void)
{
    pthread_t threads[2];

    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_until_port, guest.vcpus[i]), 0);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void count_with(const void *code, size_t length, uint64_t address)
{
    soft_guest_load(&guest, code, length);
    memset(guest.ram + COUNTER, 0, 0x2000);
    guest.state.regs.rbx = address;
    guest.state.regs.rcx = ITERATIONS;
    guest.state.regs.rdx = 1;
    soft_guest_put_regs(&guest);
    start_second_at(SOFT_GUEST_CODE);
    run_both();
    uint64_t sum;

    memcpy(&sum, guest.ram + address, sizeof(sum));
    assert_int_equal(sum, 2 * ITERATIONS);
}

static void test_locked_counters(void **state)
{
    /* 1: lock inc qword [rbx]; dec ecx; jnz 1b */
    static const uint8_t increment[] = {0xf0, 0x48, 0xff, 0x03, 0xff, 0xc9, 0x75, 0xf8, END};
    /* 1: mov edx, 1; lock xadd [rbx], rdx; dec ecx; jnz 1b */
    static const uint8_t exchange_add[] = {0xba, 1,    0,    0,    0,    0xf0, 0x48, 0x0f,
                                           0xc1, 0x13, 0xff, 0xc9, 0x75, 0xf2, END};
    /* 1: mov rax, [rbx]; 2: lea rdx, [rax + 1]; lock cmpxchg [rbx], rdx; jnz 2b; dec ecx; jnz 1b */
    static const uint8_t compare[] = {0x48, 0x8b, 0x03, 0x48, 0x8d, 0x50, 0x01, 0xf0, 0x48, 0x0f,
                                      0xb1, 0x13, 0x75, 0xf5, 0xff, 0xc9, 0x75, 0xee, END};

    (void)state;
    count_with(increment, sizeof(increment), COUNTER);
    count_with(exchange_add, sizeof(exchange_add), COUNTER);
    count_with(compare, sizeof(compare), COUNTER);
}

static void test_exchange_as_a_lock(void **state)
{
    /* 1: mov eax, 1; 2: xchg [rbx + 64], eax; test eax, eax; jnz 2b; inc qword [rbx];
       mov dword [rbx + 64], 0; dec ecx; jnz 1b */
    static const uint8_t code[] = {0xb8, 1,    0,    0,    0,    0x87, 0x43, 0x40, 0x85,
                                   0xc0, 0x75, 0xf9, 0x48, 0xff, 0x03, 0xc7, 0x43, 0x40,
                                   0,    0,    0,    0,    0xff, 0xc9, 0x75, 0xe6, END};

    (void)state;
    count_with(code, sizeof(code), COUNTER);
}

/* One changes the other's code, then tells it by a flag; the other must run what is new. */
static void test_cross_modifying_code(void **state)
{
    /* First: mov ecx, 2000; 1: mov [rdi + 1], cl (the immediate); mov [rbx], ecx (the flag);
       2: cmp [rbx + 64], ecx (the answer); jne 2b; dec ecx; jnz 1b */
    static const uint8_t writer[] = {0xb9, 0xd0, 0x07, 0,    0,    0x88, 0x4f, 0x01, 0x89, 0x0b,
                                     0x39, 0x4b, 0x40, 0x75, 0xfb, 0xff, 0xc9, 0x75, 0xf2, END};
    /* Second: mov esi, 2000; 1: cmp [rbx], esi; jne 1b; call rdi; cmp al, sil; jne wrong;
       mov [rbx + 64], esi; dec esi; jnz 1b; out 0xf4; wrong: ud2 */
    static const uint8_t reader[] = {0xbe, 0xd0, 0x07, 0,    0,    0x39, 0x33, 0x75, 0xfc,
                                     0xff, 0xd7, 0x40, 0x38, 0xf0, 0x75, 0x09, 0x89, 0x73,
                                     0x40, 0xff, 0xce, 0x75, 0xee, END,  0x0f, 0x0b};

    (void)state;
    soft_guest_load(&guest, writer, sizeof(writer));
    memcpy(guest.ram + SOFT_GUEST_CODE + 0x1000, reader, sizeof(reader));
    memcpy(guest.ram + SOFT_GUEST_DATA + 0x1000, "\xb0\x00\xc3", 3); /* mov al, 0; ret */
    memset(guest.ram + SOFT_GUEST_DATA, 0, 0x1000);
    guest.state.regs.rbx = SOFT_GUEST_DATA;
    guest.state.regs.rdi = SOFT_GUEST_DATA + 0x1000;
    soft_guest_put_regs(&guest);
    start_second_at(SOFT_GUEST_CODE + 0x1000);
    run_both();
}

static void test_sipi_starts_in_real_mode(void **state)
{
    /* The boot CPU sends INIT and SIPI (vector 8) by x2APIC, and waits for the word at 0x500. */
    static const uint8_t boot[] = {
        0xb9, 0x30, 0x08, 0,    0,                           /* mov ecx, 0x830 */
        0xba, 1,    0,    0,    0,                           /* mov edx, 1 */
        0xb8, 0,    0x45, 0,    0,                           /* mov eax, 0x4500: INIT */
        0x0f, 0x30, 0xb8, 8,    0x46, 0,    0,               /* wrmsr; mov eax, 0x4608: SIPI */
        0x0f, 0x30,                                          /* wrmsr */
        0x81, 0x3b, 0x78, 0x56, 0x34, 0x12, 0x75, 0xf8, END, /* 1: cmp dword [rbx], ...; jne 1b */
    };
    /* At 0800:0000: mov ax, cs; mov ds, 0; mov dword [0x500], 0x12345678; hlt */
    static const uint8_t trampoline[] = {0x31, 0xc0, 0x8e, 0xd8, 0x66, 0xc7, 0x06,
                                         0x00, 0x05, 0x78, 0x56, 0x34, 0x12, END};
    struct accel_msrs msrs = {.header.nmsrs = 1};

    (void)state;
    soft_guest_load(&guest, boot, sizeof(boot));
    memcpy(guest.ram + 0x8000, trampoline, sizeof(trampoline));
    memset(guest.ram + 0x500, 0, 4);
    soft_accel_ops.ram_written(guest.vm, 0x8000, sizeof(trampoline));
    for (unsigned i = 0; i < 2; i++) {
        msrs.entries[0] =
            (struct kvm_msr_entry){.index = 0x1b, .data = 0xfee00c00 | (i ? 0 : 0x100)};
        assert_int_equal(soft_accel_ops.vcpu_set_msrs(guest.vcpus[i], &msrs), 1);
    }
    guest.state.sregs.apic_base = 0xfee00d00;
    guest.state.regs.rbx = 0x500;
    soft_guest_put_regs(&guest);
    run_both();
}

static void *wait_in_halt(void *opaque)
{
    (void)opaque;
    soft_accel_ops.vcpu_run(guest.vcpu, &guest.exit);
    return NULL;
}

static void test_halt_is_left_by_kick_and_interrupt(void **state)
{
    pthread_t thread;
    struct accel_msrs msrs = {.header.nmsrs = 1};

    (void)state;
    soft_guest_code(&guest, 0xfb, 0xf4, 0xeb, 0xfd); /* sti; hlt; jmp to hlt */
    msrs.entries[0] = (struct kvm_msr_entry){.index = 0x1b, .data = 0xfee00d00};
    soft_accel_ops.vcpu_set_msrs(guest.vcpu, &msrs);
    msrs.entries[0] = (struct kvm_msr_entry){.index = 0x80f, .data = 0x1ff};
    assert_int_equal(soft_accel_ops.vcpu_set_msrs(guest.vcpu, &msrs), 1);
    assert_int_equal(pthread_create(&thread, NULL, wait_in_halt, NULL), 0);
    soft_accel_ops.vcpu_kick(guest.vcpu);
    pthread_join(thread, NULL);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_INTR);
    assert_int_equal(pthread_create(&thread, NULL, wait_in_halt, NULL), 0);
    soft_accel_ops.msi(guest.vm, 0xfee00000, 0x55);
    pthread_join(thread, NULL);
    assert_int_equal(guest.exit.reason, ACCEL_EXIT_PIO);
    assert_int_equal(guest.exit.pio.port, SOFT_GUEST_VECTOR_PORT + 0x55);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_locked_counters, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_exchange_as_a_lock, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cross_modifying_code, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sipi_starts_in_real_mode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_halt_is_left_by_kick_and_interrupt, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
