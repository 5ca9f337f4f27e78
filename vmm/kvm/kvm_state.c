/* SPDX-License-Identifier: MIT */
/* kvm_state: moves a vCPU's state in and out of KVM. */
#include <errno.h>
#include <sys/ioctl.h>

#include "vmm/kvm/kvm.h"

/* In an order that KVM accepts for setting: special registers before what depends on modes. */
#define FOR_EACH_GROUP(X, state)                                                                   \
    X(ACCEL_STATE_SREGS, KVM_GET_SREGS, KVM_SET_SREGS, &(state)->sregs)                            \
    X(ACCEL_STATE_REGS, KVM_GET_REGS, KVM_SET_REGS, &(state)->regs)                                \
    X(ACCEL_STATE_FPU, KVM_GET_FPU, KVM_SET_FPU, &(state)->fpu)                                    \
    X(ACCEL_STATE_DEBUGREGS, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, &(state)->debugregs)            \
    X(ACCEL_STATE_LAPIC, KVM_GET_LAPIC, KVM_SET_LAPIC, &(state)->lapic)                            \
    X(ACCEL_STATE_MP, KVM_GET_MP_STATE, KVM_SET_MP_STATE, &(state)->mp_state)                      \
    X(ACCEL_STATE_EVENTS, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, &(state)->events)

/* KVM has these ioctls where the host has XSAVE. */
static int get_extended(int fd, struct accel_vcpu_state *out)
{
    out->xcrs.nr_xcrs = 0;
    if (ioctl(fd, KVM_GET_XCRS, &out->xcrs) < 0)
        return errno == EINVAL ? 0 : -errno;
    return ioctl(fd, KVM_GET_XSAVE, &out->xsave) < 0 ? -errno : 0;
}

static int set_extended(int fd, const struct accel_vcpu_state *state)
{
    if (!state->xcrs.nr_xcrs)
        return 0;
    if (ioctl(fd, KVM_SET_XCRS, &state->xcrs) < 0 || ioctl(fd, KVM_SET_XSAVE, &state->xsave) < 0)
        return -errno;
    return 0;
}

/*
 * KVM_GET_FPU and KVM_SET_FPU leave MXCSR out. It stands in the FXSAVE part of XSAVE's area, which
 * KVM gives and takes without XSAVE as well.
 */
#define XSAVE_WORD_MXCSR    (24 / 4)
#define XSAVE_WORD_FEATURES (512 / 4)
#define XSAVE_FPU_AND_SSE   3u

static int get_mxcsr(int fd, struct kvm_fpu *fpu)
{
    struct kvm_xsave area;

    if (ioctl(fd, KVM_GET_XSAVE, &area) < 0)
        return -errno;
    fpu->mxcsr = area.region[XSAVE_WORD_MXCSR];
    return 0;
}

static int set_mxcsr(int fd, const struct kvm_fpu *fpu)
{
    struct kvm_xsave area;

    if (ioctl(fd, KVM_GET_XSAVE, &area) < 0)
        return -errno;
    area.region[XSAVE_WORD_MXCSR] = fpu->mxcsr;
    area.region[XSAVE_WORD_FEATURES] |= XSAVE_FPU_AND_SSE;
    return ioctl(fd, KVM_SET_XSAVE, &area) < 0 ? -errno : 0;
}

int kvm_vcpu_get_state(struct accel_vcpu *vcpu, unsigned groups, struct accel_vcpu_state *out)
{
    int fd = ((struct kvm_vcpu *)vcpu)->fd;
#define GET(group, get, set, field)                                                                \
    if ((groups & (group)) && ioctl(fd, get, field) < 0)                                           \
        return -errno;
    FOR_EACH_GROUP(GET, out)
#undef GET
    int result = groups & ACCEL_STATE_FPU ? get_mxcsr(fd, &out->fpu) : 0;
    if (result)
        return result;
    return groups & ACCEL_STATE_XSAVE ? get_extended(fd, out) : 0;
}

int kvm_vcpu_set_state(struct accel_vcpu *vcpu, unsigned groups,
                       const struct accel_vcpu_state *state)
{
    int fd = ((struct kvm_vcpu *)vcpu)->fd;
    /* FPU's part of it may be older than FPU. */
    int result = groups & ACCEL_STATE_XSAVE ? set_extended(fd, state) : 0;
    if (result)
        return result;
#define SET(group, get, set, field)                                                                \
    if ((groups & (group)) && ioctl(fd, set, field) < 0)                                           \
        return -errno;
    FOR_EACH_GROUP(SET, state)
#undef SET
    return groups & ACCEL_STATE_FPU ? set_mxcsr(fd, &state->fpu) : 0;
}

int kvm_vcpu_get_msrs(struct accel_vcpu *vcpu, struct accel_msrs *msrs)
{
    int done = ioctl(((struct kvm_vcpu *)vcpu)->fd, KVM_GET_MSRS, &msrs->header);
    return done < 0 ? -errno : done;
}

int kvm_vcpu_set_msrs(struct accel_vcpu *vcpu, const struct accel_msrs *msrs)
{
    int done = ioctl(((struct kvm_vcpu *)vcpu)->fd, KVM_SET_MSRS, &msrs->header);
    return done < 0 ? -errno : done;
}

int kvm_vcpu_set_debug(struct accel_vcpu *vcpu, const struct kvm_guest_debug *debug)
{
    return ioctl(((struct kvm_vcpu *)vcpu)->fd, KVM_SET_GUEST_DEBUG, debug) < 0 ? -errno : 0;
}

int kvm_vcpu_translate(struct accel_vcpu *vcpu, uint64_t address, uint64_t *gpa)
{
    struct kvm_translation translation = {.linear_address = address};
    if (ioctl(((struct kvm_vcpu *)vcpu)->fd, KVM_TRANSLATE, &translation) < 0)
        return -errno;
    if (!translation.valid)
        return -EFAULT;
    *gpa = translation.physical_address;
    return 0;
}
