/* SPDX-License-Identifier: MIT */
/* kvm: what the two rooms of the KVM accelerator (vm and vCPU) share. Private to vmm/kvm*.c. */
#ifndef VMM_KVM_KVM_H
#define VMM_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "vmm/accel.h"

struct kvm_vcpu;

struct kvm_vm {
    struct accel_vm accel; /* first */
    int kvm_fd;            /* /dev/kvm */
    int fd;
    size_t run_size; /* bytes of a vCPU's shared page(s) */
    struct kvm_vcpu *boot_vcpu;
};

struct kvm_vcpu {
    struct accel_vcpu accel; /* first */
    int fd;
    struct kvm_run *run;
    /* The PIC's INTR output; boot CPU only. */
    atomic_bool extint;
    /* The thread inside vcpu_run, for the kick's signal; 0 before the first run. */
    atomic_int thread_id;
};

/* The signal that takes a vCPU thread out of KVM_RUN. Its handler does nothing. */
#define KVM_KICK_SIGNAL SIGUSR1

int kvm_vcpu_create(struct accel_vm *vm, unsigned index, struct accel_vcpu **out,
                    struct error *err);
void kvm_vcpu_destroy(struct accel_vcpu *vcpu);
int kvm_vcpu_set_cpuid(struct accel_vcpu *vcpu, const struct accel_cpuid *cpuid);
void kvm_vcpu_run(struct accel_vcpu *vcpu, struct accel_exit *exit);
void kvm_vcpu_kick(struct accel_vcpu *vcpu);
void kvm_vcpu_set_extint(struct kvm_vcpu *vcpu, bool level);
int kvm_vcpu_inject_extint(struct accel_vcpu *vcpu, uint8_t vector);

/* kvm_state.c */
int kvm_vcpu_get_state(struct accel_vcpu *vcpu, unsigned groups, struct accel_vcpu_state *out);
int kvm_vcpu_set_state(struct accel_vcpu *vcpu, unsigned groups,
                       const struct accel_vcpu_state *state);
int kvm_vcpu_get_msrs(struct accel_vcpu *vcpu, struct accel_msrs *msrs);
int kvm_vcpu_set_msrs(struct accel_vcpu *vcpu, const struct accel_msrs *msrs);
int kvm_vcpu_set_debug(struct accel_vcpu *vcpu, const struct kvm_guest_debug *debug);
int kvm_vcpu_translate(struct accel_vcpu *vcpu, uint64_t address, uint64_t *gpa);

#endif
