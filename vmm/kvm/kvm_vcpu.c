/* SPDX-License-Identifier: MIT */
/*
 * kvm_vcpu: one vCPU under KVM: KVM_RUN and its exits, kicks, the PIC's interrupt.
 *
 * Theory of operation. A kick sets run->immediate_exit, then signals the thread: if it was inside
 * KVM_RUN the signal ends it, if it was on its way in, immediate_exit does. KVM finishes
 * the I/O instruction of the previous exit before it honours either, so a vCPU that came back with
 * ACCEL_EXIT_INTR has no half-done instruction.
 *
 * The PIC's interrupt can be injected only when the guest takes interrupts. While its line is up
 * and the guest does not, KVM is asked to exit as soon as it does (request_interrupt_window).
 */
#include "vmm/kvm/kvm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct kvm_vcpu *to_kvm(struct accel_vcpu *vcpu)
{
    return (struct kvm_vcpu *)vcpu;
}

static void on_kick_signal(int number)
{
    (void)number;
}

static void install_kick_signal(void)
{
    struct sigaction action = {.sa_handler = on_kick_signal};
    sigemptyset(&action.sa_mask);
    CHECK(sigaction(KVM_KICK_SIGNAL, &action, NULL) == 0);
}

int kvm_vcpu_create(struct accel_vm *accel_vm, unsigned index, struct accel_vcpu **out,
                    struct error *err)
{
    struct kvm_vm *vm = (struct kvm_vm *)accel_vm;
    install_kick_signal();
    struct kvm_vcpu *vcpu = calloc(1, sizeof(*vcpu));
    CHECK(vcpu);
    vcpu->accel.vm = accel_vm;
    vcpu->accel.index = index;
    vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)index);
    if (vcpu->fd < 0) {
        free(vcpu);
        return error_set_errno(err, errno, "KVM cannot create CPU %u", index);
    }
    vcpu->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED) {
        int code = errno;
        close(vcpu->fd);
        free(vcpu);
        return error_set_errno(err, code, "cannot map CPU %u's area", index);
    }
    if (index == 0)
        vm->boot_vcpu = vcpu;
    *out = &vcpu->accel;
    return 0;
}

void kvm_vcpu_destroy(struct accel_vcpu *accel)
{
    if (!accel)
        return;
    struct kvm_vcpu *vcpu = to_kvm(accel);
    munmap(vcpu->run, ((struct kvm_vm *)accel->vm)->run_size);
    close(vcpu->fd);
    free(vcpu);
}

int kvm_vcpu_set_cpuid(struct accel_vcpu *vcpu, const struct accel_cpuid *cpuid)
{
    return ioctl(to_kvm(vcpu)->fd, KVM_SET_CPUID2, &cpuid->header) < 0 ? -errno : 0;
}

void kvm_vcpu_kick(struct accel_vcpu *accel)
{
    struct kvm_vcpu *vcpu = to_kvm(accel);
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    int thread_id = atomic_load(&vcpu->thread_id);
    if (thread_id)
        syscall(SYS_tgkill, getpid(), thread_id, KVM_KICK_SIGNAL);
}

void kvm_vcpu_set_extint(struct kvm_vcpu *vcpu, bool level)
{
    if (atomic_exchange(&vcpu->extint, level) != level && level)
        kvm_vcpu_kick(&vcpu->accel);
}

int kvm_vcpu_inject_extint(struct accel_vcpu *vcpu, uint8_t vector)
{
    struct kvm_interrupt interrupt = {.irq = vector};
    return ioctl(to_kvm(vcpu)->fd, KVM_INTERRUPT, &interrupt) < 0 ? -errno : 0;
}

static void pio_exit(struct kvm_run *run, struct accel_exit *exit)
{
    exit->reason = ACCEL_EXIT_PIO;
    exit->pio.port = run->io.port;
    exit->pio.size = run->io.size;
    exit->pio.is_write = run->io.direction == KVM_EXIT_IO_OUT;
    exit->pio.count = run->io.count;
    exit->pio.data = (char *)run + run->io.data_offset;
}

static void mmio_exit(struct kvm_run *run, struct accel_exit *exit)
{
    exit->reason = ACCEL_EXIT_MMIO;
    exit->mmio.gpa = run->mmio.phys_addr;
    exit->mmio.size = (uint8_t)run->mmio.len;
    exit->mmio.is_write = run->mmio.is_write;
    exit->mmio.data = run->mmio.data;
}

static void debug_exit(struct kvm_run *run, struct accel_exit *exit)
{
    exit->reason = ACCEL_EXIT_DEBUG;
    exit->debug.rip = run->debug.arch.pc;
    exit->debug.dr6 = run->debug.arch.dr6;
    exit->debug.exception = run->debug.arch.exception;
}

static void error_exit(struct kvm_vcpu *vcpu, struct accel_exit *exit)
{
    static __thread char text[160];
    const struct kvm_run *run = vcpu->run;
    if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
        snprintf(
            text, sizeof(text), "KVM could not enter the guest on CPU %u (hardware reason 0x%llx)",
            vcpu->accel.index, (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
    else if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
        snprintf(text, sizeof(text),
                 "KVM met an instruction it cannot emulate on CPU %u (suberror %u)",
                 vcpu->accel.index, run->internal.suberror);
    else
        snprintf(text, sizeof(text), "KVM left CPU %u for the unknown reason %u", vcpu->accel.index,
                 run->exit_reason);
    exit->reason = ACCEL_EXIT_ERROR;
    exit->text = text;
}

static void translate_exit(struct kvm_vcpu *vcpu, struct accel_exit *exit)
{
    struct kvm_run *run = vcpu->run;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        pio_exit(run, exit);
        break;
    case KVM_EXIT_MMIO:
        mmio_exit(run, exit);
        break;
    case KVM_EXIT_IOAPIC_EOI:
        exit->reason = ACCEL_EXIT_IOAPIC_EOI;
        exit->vector = run->eoi.vector;
        break;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
        exit->reason = ACCEL_EXIT_INTR;
        break;
    case KVM_EXIT_SHUTDOWN:
        exit->reason = ACCEL_EXIT_SHUTDOWN;
        break;
    case KVM_EXIT_DEBUG:
        debug_exit(run, exit);
        break;
    default:
        error_exit(vcpu, exit);
    }
}

/* True if the PIC's vector should be asked for now; otherwise arranges to be told when. */
static bool extint_is_due(struct kvm_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    bool wanted = atomic_load(&vcpu->extint);
    bool ready = run->ready_for_interrupt_injection && run->if_flag;
    run->request_interrupt_window = wanted && !ready;
    return wanted && ready;
}

/* The thread that runs the vCPU is the only one that takes the kick's signal. */
static void adopt_thread(struct kvm_vcpu *vcpu)
{
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, KVM_KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    atomic_store(&vcpu->thread_id, (int)syscall(SYS_gettid));
}

void kvm_vcpu_run(struct accel_vcpu *accel, struct accel_exit *exit)
{
    struct kvm_vcpu *vcpu = to_kvm(accel);
    if (unlikely(!atomic_load(&vcpu->thread_id)))
        adopt_thread(vcpu);
    if (unlikely(extint_is_due(vcpu))) {
        exit->reason = ACCEL_EXIT_EXTINT;
        return;
    }
    int result = ioctl(vcpu->fd, KVM_RUN, 0);
    if (likely(result == 0)) {
        translate_exit(vcpu, exit);
        return;
    }
    if (errno == EINTR || errno == EAGAIN) {
        __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        exit->reason = ACCEL_EXIT_INTR;
        return;
    }
    vcpu->run->exit_reason = KVM_EXIT_UNKNOWN;
    error_exit(vcpu, exit);
}
