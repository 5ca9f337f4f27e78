/* SPDX-License-Identifier: MIT */
/* soft: the software CPU as an accelerator: the life of machine and vCPUs, and the ops table. */
#include <errno.h>
#include <stdlib.h>

#include "vmm/soft/block.h"
#include "vmm/soft/clock.h"
#include "vmm/soft/cpuid.h"
#include "vmm/soft/exec.h"
#include "vmm/soft/fpu.h"
#include "vmm/soft/kvmclock.h"
#include "vmm/soft/mmu.h"
#include "vmm/soft/msr.h"
#include "vmm/soft/run.h"
#include "vmm/soft/state.h"
#include "vmm/soft/vm.h"

#define CPUID_1_ADDRESS_SIZES  0x80000008u
#define CPUID_EXT_FEATURES     0x80000001u
#define CPUID_EXT_EDX_1G_PAGES (1u << 26)
#define PHYSICAL_BITS_DEFAULT  40

struct soft_vcpu {
    struct accel_vcpu accel;
    struct soft_cpu cpu;
};

static struct soft_vm *vm_of(struct accel_vm *vm)
{
    return container_of(vm, struct soft_vm, accel);
}

static struct soft_cpu *cpu_of(struct accel_vcpu *vcpu)
{
    return &container_of(vcpu, struct soft_vcpu, accel)->cpu;
}

struct soft_cpu *soft_cpu_of(struct accel_vcpu *vcpu)
{
    return cpu_of(vcpu);
}

static int soft_probe(struct error *err)
{
    (void)err;
    return 0;
}

/* --- The LAPIC's view of its CPU --- */

static struct soft_cpu *lapic_cpu(struct lapic *lapic)
{
    return container_of(lapic, struct soft_cpu, lapic);
}

static void on_lapic_attention(struct lapic *lapic)
{
    soft_post(lapic_cpu(lapic), SOFT_REQUEST_IRQ);
}

static uint64_t lapic_now_ns(struct lapic *lapic)
{
    (void)lapic;
    return clock_now_ns();
}

uint64_t soft_tsc(const struct soft_cpu *cpu)
{
    return kvmclock_host_tsc() + cpu->tsc_offset;
}

static uint64_t lapic_tsc_to_ns(struct lapic *lapic, uint64_t tsc)
{
    uint64_t now = soft_tsc(lapic_cpu(lapic));

    return tsc <= now ? 0 : clock_now_ns() + kvmclock_ticks_to_ns(tsc - now);
}

static const struct lapic_ops soft_lapic_ops = {
    .on_attention = on_lapic_attention,
    .now_ns = lapic_now_ns,
    .tsc_to_ns = lapic_tsc_to_ns,
};

/* --- Machine --- */

static int soft_vm_create(unsigned vcpu_count, struct accel_vm **out, struct error *err)
{
    struct soft_vm *vm = calloc(1, sizeof(*vm));

    if (!vm || vcpu_count > VCPU_MAX || physmem_init(&vm->mem)) {
        free(vm);
        return error_set(err, ENOMEM, "no memory for the machine; free some or use less of it");
    }
    kvmclock_start();
    soft_exec_init();
    vm->accel.ops = &soft_accel_ops;
    ioevent_init(&vm->ioevents);
    pthread_mutex_init(&vm->split_lock, NULL);
    vm->tsc_base = kvmclock_host_tsc();
    int result = clock_create(vm, &vm->clock);

    if (result) {
        physmem_fini(&vm->mem);
        free(vm);
        return error_set_errno(err, -result, "cannot start the timer thread");
    }
    *out = &vm->accel;
    return 0;
}

static void soft_vm_destroy(struct accel_vm *accel)
{
    if (!accel)
        return;
    struct soft_vm *vm = vm_of(accel);

    clock_destroy(vm->clock);
    ioevent_fini(&vm->ioevents);
    physmem_fini(&vm->mem);
    pthread_mutex_destroy(&vm->split_lock);
    free(vm);
}

static int soft_set_memslot(struct accel_vm *accel, unsigned slot, uint64_t gpa, uint64_t size,
                            void *host, bool read_only)
{
    struct soft_vm *vm = vm_of(accel);
    int result = physmem_set_slot(&vm->mem, slot, gpa, size, host, read_only);

    for (unsigned i = 0; i < atomic_load(&vm->cpu_count); i++)
        soft_post(vm->cpus[i], SOFT_REQUEST_FLUSH);
    return result;
}

static void soft_ram_written(struct accel_vm *accel, uint64_t gpa, uint64_t length)
{
    struct soft_vm *vm = vm_of(accel);
    uint64_t end = gpa + length;

    while (gpa < end) {
        const struct physmem_slot *slot = physmem_find(&vm->mem, gpa);

        if (!slot)
            return;
        uint64_t here = MIN(end, slot->gpa + slot->size) - gpa;

        block_code_written(vm, NULL, slot, gpa, here);
        gpa += here;
    }
}

static int soft_get_supported_cpuid(struct accel_vm *accel, struct accel_cpuid *out)
{
    (void)accel;
    soft_supported_cpuid(out);
    return 0;
}

static uint32_t soft_tsc_khz(struct accel_vm *accel)
{
    (void)accel;
    return kvmclock_tsc_khz();
}

/* --- vCPUs --- */

static const struct kvm_cpuid_entry2 *find_leaf(const struct accel_cpuid *cpuid, uint32_t function,
                                                uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->header.nent && i < ACCEL_CPUID_MAX; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    return NULL;
}

static int soft_vcpu_set_cpuid(struct accel_vcpu *vcpu, const struct accel_cpuid *cpuid)
{
    struct soft_cpu *cpu = cpu_of(vcpu);
    const struct kvm_cpuid_entry2 *leaf;

    cpu->cpuid = *cpuid;
    leaf = find_leaf(cpuid, 1, 0);
    cpu->cpuid_1_ecx = leaf ? leaf->ecx : 0;
    leaf = find_leaf(cpuid, 7, 0);
    cpu->cpuid_7_ebx = leaf ? leaf->ebx : 0;
    leaf = find_leaf(cpuid, 0xd, 1);
    cpu->cpuid_d1_eax = leaf ? leaf->eax : 0;
    leaf = find_leaf(cpuid, CPUID_EXT_FEATURES, 0);
    cpu->cpuid_ext_ecx = leaf ? leaf->ecx : 0;
    cpu->has_1g_pages = leaf && leaf->edx & CPUID_EXT_EDX_1G_PAGES;
    leaf = find_leaf(cpuid, CPUID_1_ADDRESS_SIZES, 0);
    unsigned bits = leaf ? leaf->eax & 0xff : 0;

    cpu->physical_bits = (uint8_t)(bits >= 32 && bits <= 52 ? bits : PHYSICAL_BITS_DEFAULT);
    mmu_flush_all(cpu);
    block_flush_all(cpu);
    return 0;
}

static void init_waiting(struct soft_cpu *cpu)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&cpu->mutex, NULL);
    pthread_mutex_init(&cpu->code_mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&cpu->wake, &attributes);
    pthread_condattr_destroy(&attributes);
}

static int soft_vcpu_create(struct accel_vm *accel, unsigned index, struct accel_vcpu **out,
                            struct error *err)
{
    struct soft_vm *vm = vm_of(accel);
    struct soft_vcpu *vcpu = aligned_alloc(64, align_up(sizeof(*vcpu), 64));

    if (!vcpu)
        return error_set(err, ENOMEM, "no memory for a vCPU; free some or use fewer of them");
    memset(vcpu, 0, sizeof(*vcpu));
    vcpu->accel = (struct accel_vcpu){.vm = accel, .index = index};
    struct soft_cpu *cpu = &vcpu->cpu;

    cpu->vm = vm;
    cpu->index = index;
    cpu->tsc_offset = -vm->tsc_base;
    if (block_cache_create(cpu)) {
        free(vcpu);
        return error_set(err, ENOMEM, "no memory for a vCPU; free some or use fewer of them");
    }
    init_waiting(cpu);
    lapic_init(&cpu->lapic, &vm->hub, &soft_lapic_ops);
    CHECK(cpu->lapic.id == index);
    struct accel_cpuid cpuid;

    soft_supported_cpuid(&cpuid);
    run_reset_registers(cpu);
    msr_reset(cpu);
    fpu_reset(cpu);
    soft_vcpu_set_cpuid(&vcpu->accel, &cpuid);
    cpu->wait_for_sipi = index != 0;
    vm->cpus[index] = cpu;
    atomic_store(&vm->cpu_count, index + 1);
    *out = &vcpu->accel;
    return 0;
}

static void soft_vcpu_destroy(struct accel_vcpu *vcpu)
{
    if (!vcpu)
        return;
    struct soft_cpu *cpu = cpu_of(vcpu);

    clock_arm(cpu->vm->clock, cpu->index, UINT64_MAX);
    block_cache_destroy(cpu);
    pthread_mutex_destroy(&cpu->mutex);
    pthread_mutex_destroy(&cpu->code_mutex);
    pthread_cond_destroy(&cpu->wake);
    free(container_of(vcpu, struct soft_vcpu, accel));
}

static void soft_vcpu_run(struct accel_vcpu *vcpu, struct accel_exit *exit)
{
    run_vcpu(cpu_of(vcpu), exit);
}

static void soft_vcpu_kick(struct accel_vcpu *vcpu)
{
    soft_post(cpu_of(vcpu), SOFT_REQUEST_KICK);
}

static int soft_vcpu_get_state(struct accel_vcpu *vcpu, unsigned groups,
                               struct accel_vcpu_state *out)
{
    state_get(cpu_of(vcpu), groups, out);
    return 0;
}

static int soft_vcpu_set_state(struct accel_vcpu *vcpu, unsigned groups,
                               const struct accel_vcpu_state *state)
{
    return state_set(cpu_of(vcpu), groups, state) ? 0 : -EINVAL;
}

static int soft_vcpu_get_msrs(struct accel_vcpu *vcpu, struct accel_msrs *msrs)
{
    unsigned count = MIN(msrs->header.nmsrs, ACCEL_MSRS_MAX);

    for (unsigned i = 0; i < count; i++) {
        uint64_t value;

        if (!msr_read(cpu_of(vcpu), msrs->entries[i].index, &value))
            return (int)i;
        msrs->entries[i].data = value;
    }
    return (int)count;
}

static int soft_vcpu_set_msrs(struct accel_vcpu *vcpu, const struct accel_msrs *msrs)
{
    unsigned count = MIN(msrs->header.nmsrs, ACCEL_MSRS_MAX);

    for (unsigned i = 0; i < count; i++)
        if (!msr_restore(cpu_of(vcpu), msrs->entries[i].index, msrs->entries[i].data))
            return (int)i;
    return (int)count;
}

static int soft_vcpu_set_debug(struct accel_vcpu *vcpu, const struct kvm_guest_debug *debug)
{
    struct soft_cpu *cpu = cpu_of(vcpu);

    cpu->debug = *debug;
    if (!(debug->control & KVM_GUESTDBG_ENABLE))
        cpu->debug.control = 0;
    soft_update_mode(cpu);
    return 0;
}

static int soft_vcpu_translate(struct accel_vcpu *vcpu, uint64_t address, uint64_t *gpa)
{
    return mmu_peek(cpu_of(vcpu), address, gpa) ? 0 : -EFAULT;
}

/* --- Interrupts and doorbells --- */

static void soft_set_extint(struct accel_vm *accel, bool level)
{
    struct soft_vm *vm = vm_of(accel);

    atomic_store(&vm->extint, level);
    if (level && atomic_load(&vm->cpu_count))
        soft_post(vm->cpus[0], SOFT_REQUEST_IRQ);
}

static int soft_vcpu_inject_extint(struct accel_vcpu *vcpu, uint8_t vector)
{
    cpu_of(vcpu)->extint_vector = vector;
    return 0;
}

static void soft_msi(struct accel_vm *accel, uint64_t address, uint32_t data)
{
    lapic_msi(&vm_of(accel)->hub, address, data);
}

/* There is no kernel to hand interrupts to: whoever has one calls msi. */
static int soft_set_routes(struct accel_vm *accel, const struct accel_route *routes, unsigned count)
{
    (void)accel;
    (void)routes;
    (void)count;
    return 0;
}

static int soft_irqfd_add(struct accel_vm *accel, int fd, uint32_t gsi)
{
    (void)accel;
    (void)fd;
    (void)gsi;
    return -ENOSYS;
}

static void soft_irqfd_del(struct accel_vm *accel, int fd, uint32_t gsi)
{
    (void)accel;
    (void)fd;
    (void)gsi;
}

static int soft_ioeventfd_add(struct accel_vm *accel, int fd, bool is_pio, uint64_t address,
                              unsigned size, bool any, uint64_t value)
{
    struct ioevent event = {
        .fd = fd, .is_pio = is_pio, .any = any, .size = size, .address = address, .value = value};

    return ioevent_add(&vm_of(accel)->ioevents, &event);
}

static void soft_ioeventfd_del(struct accel_vm *accel, int fd, bool is_pio, uint64_t address,
                               unsigned size, bool any, uint64_t value)
{
    struct ioevent event = {
        .fd = fd, .is_pio = is_pio, .any = any, .size = size, .address = address, .value = value};

    ioevent_del(&vm_of(accel)->ioevents, &event);
}

const struct accel_ops soft_accel_ops = {
    .name = "soft",
    .probe = soft_probe,
    .vm_create = soft_vm_create,
    .vm_destroy = soft_vm_destroy,
    .set_memslot = soft_set_memslot,
    .ram_written = soft_ram_written,
    .supported_cpuid = soft_get_supported_cpuid,
    .tsc_khz = soft_tsc_khz,
    .vcpu_create = soft_vcpu_create,
    .vcpu_destroy = soft_vcpu_destroy,
    .vcpu_set_cpuid = soft_vcpu_set_cpuid,
    .vcpu_run = soft_vcpu_run,
    .vcpu_kick = soft_vcpu_kick,
    .vcpu_get_state = soft_vcpu_get_state,
    .vcpu_set_state = soft_vcpu_set_state,
    .vcpu_get_msrs = soft_vcpu_get_msrs,
    .vcpu_set_msrs = soft_vcpu_set_msrs,
    .vcpu_set_debug = soft_vcpu_set_debug,
    .vcpu_translate = soft_vcpu_translate,
    .set_extint = soft_set_extint,
    .vcpu_inject_extint = soft_vcpu_inject_extint,
    .msi = soft_msi,
    .set_routes = soft_set_routes,
    .irqfd_add = soft_irqfd_add,
    .irqfd_del = soft_irqfd_del,
    .ioeventfd_add = soft_ioeventfd_add,
    .ioeventfd_del = soft_ioeventfd_del,
};
