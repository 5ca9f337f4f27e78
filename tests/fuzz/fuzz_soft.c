/* SPDX-License-Identifier: MIT */
/*
 * fuzz_soft: a libFuzzer target: a hostile guest on the software CPU.
 *
 * The input chooses a mode, registers, places in memory to overwrite (page tables, descriptor
 * tables, task state) and the code. Whatever it does must end in an exception or an exit: no crash,
 * no access outside guest RAM (which ASan watches), no hang.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/acceltable/machine_setup.h"
#include "vmm/accel.h"

#define CR4_OSXSAVE 0x40000u

#define EXITS_MAX   32
#define PATCHES_MAX 32
#define KICK_MS     4
#define MODES       7

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *bytes;
    size_t left;
};

static struct {
    struct accel_vm *vm;
    struct accel_vcpu *vcpu;
    uint8_t *ram;
    struct accel_vcpu_state fresh;
    pthread_t kicker;
    pthread_mutex_t mutex; /* the kicker's use of vcpu */
} machine = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static uint8_t take(struct input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->bytes++;
}

static uint64_t take_word(struct input *in, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)take(in) << 8 * i;
    return value;
}

/* Ends endless loops and HLTs. */
static void *kick(void *opaque)
{
    const struct timespec pause = {.tv_nsec = KICK_MS * 1000000};

    (void)opaque;
    for (;;) {
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&machine.mutex);
        if (machine.vcpu)
            soft_accel_ops.vcpu_kick(machine.vcpu);
        pthread_mutex_unlock(&machine.mutex);
    }
    return NULL;
}

/* A new one for each input, so that an input alone decides what happens. */
static void create_machine(void)
{
    const struct accel_ops *ops = &soft_accel_ops;
    static struct accel_cpuid cpuid;
    struct accel_vcpu *vcpu;
    struct error err = {0};

    if (!machine.ram) {
        machine.ram = aligned_alloc(4096, GUEST_RAM_BYTES);
        CHECK(machine.ram);
        CHECK(!pthread_create(&machine.kicker, NULL, kick, NULL));
    }
    CHECK(!ops->vm_create(1, &machine.vm, &err));
    CHECK(!ops->set_memslot(machine.vm, 0, 0, GUEST_RAM_BYTES, machine.ram, false));
    CHECK(!ops->vcpu_create(machine.vm, 0, &vcpu, &err));
    CHECK(!ops->supported_cpuid(machine.vm, &cpuid));
    CHECK(!ops->vcpu_set_cpuid(vcpu, &cpuid));
    CHECK(!ops->vcpu_get_state(vcpu, ACCEL_STATE_ALL, &machine.fresh));
    pthread_mutex_lock(&machine.mutex);
    machine.vcpu = vcpu;
    pthread_mutex_unlock(&machine.mutex);
}

static void destroy_machine(void)
{
    struct accel_vcpu *vcpu = machine.vcpu;

    pthread_mutex_lock(&machine.mutex);
    machine.vcpu = NULL;
    pthread_mutex_unlock(&machine.mutex);
    soft_accel_ops.vcpu_destroy(vcpu);
    soft_accel_ops.vm_destroy(machine.vm);
}

/* Small addresses mostly, and sometimes any. */
static uint64_t take_register(struct input *in)
{
    uint8_t kind = take(in);

    if (kind < 0x60)
        return GUEST_DATA + take_word(in, 2);
    if (kind < 0xc0)
        return (uint64_t)(int64_t)(int8_t)take(in);
    return take_word(in, 8);
}

static void patch_memory(struct input *in)
{
    static const uint32_t regions[] = {0x1000,      0x2000,      0x3000,           0x4000,
                                       0x6000,      GUEST_GDT,   GUEST_IDT,        GUEST_LDT,
                                       GUEST_TSS64, GUEST_TSS32, GUEST_DATA,       GUEST_STACK - 64,
                                       GUEST_CODE,  0,           0x400000 - 0x1000};
    unsigned count = take(in) % PATCHES_MAX;

    for (unsigned i = 0; i < count; i++) {
        uint32_t at =
            regions[take(in) % ARRAY_SIZE(regions)] + ((uint32_t)take_word(in, 2) & 0xfff);
        uint64_t value = take_word(in, 1 + take(in) % 8);

        if (at + 8 <= GUEST_RAM_BYTES)
            store_le64(machine.ram + at, value);
    }
}

static void set_state(struct input *in, enum guest_mode mode)
{
    static struct accel_vcpu_state state;
    uint64_t *registers = (uint64_t *)(void *)&state.regs;

    state = machine.fresh;
    machine_setup_state(&state, mode);
    for (unsigned i = 0; i < 16; i++)
        if (i != 6 || take(in) & 1)
            registers[i] = take_register(in);
    state.regs.rflags |= take_word(in, 3) & 0x247fd5;
    state.sregs.cr4 ^= (take(in) & 1) ? take_word(in, 3) & 0x7df : 0;
    state.sregs.cr0 ^= (take(in) & 1) ? take_word(in, 4) & 0x5005003e : 0;
    if (mode == MODE_V86)
        state.regs.rflags |= 1 << 17;
    if (take(in) & 1) {
        state.sregs.cr4 |= CR4_OSXSAVE;
        state.xcrs.xcrs[0].value = __builtin_cpu_supports("avx") ? 7 : 3;
    }
    unused_result(soft_accel_ops.vcpu_set_state(machine.vcpu, ACCEL_STATE_ALL, &state));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct accel_exit exit;

    create_machine();
    struct program program = {.mode = take(&in) % MODES, .start = (const uint8_t *)"", .name = ""};

    program.end = program.start;
    machine_setup_memory(machine.ram, &program);
    set_state(&in, (enum guest_mode)program.mode);
    patch_memory(&in);
    size_t code = in.left < 0x1000 ? in.left : 0x1000;

    memcpy(machine.ram + GUEST_CODE, in.bytes, code);
    soft_accel_ops.ram_written(machine.vm, 0, GUEST_RAM_BYTES);
    for (unsigned i = 0; i < EXITS_MAX; i++) {
        soft_accel_ops.vcpu_run(machine.vcpu, &exit);
        if (exit.reason == ACCEL_EXIT_PIO && !exit.pio.is_write)
            memset(exit.pio.data, 0x5a, (size_t)exit.pio.size * exit.pio.count);
        else if (exit.reason == ACCEL_EXIT_MMIO && !exit.mmio.is_write)
            memset(exit.mmio.data, 0x5a, exit.mmio.size);
        else if (exit.reason == ACCEL_EXIT_EXTINT)
            unused_result(soft_accel_ops.vcpu_inject_extint(machine.vcpu, 0x20));
        else if (exit.reason == ACCEL_EXIT_INTR || exit.reason == ACCEL_EXIT_SHUTDOWN ||
                 exit.reason == ACCEL_EXIT_ERROR)
            break;
    }
    destroy_machine();
    return 0;
}
