# SPDX-License-Identifier: MIT
"""
hold_kvm: keeps machines of KVM open that never run, says so by an empty line, and sleeps.

The first machine and the last change the kernel's own code (its static keys: who is told when a
thread is switched, whether any vCPU lacks an APIC or has it off). QEMU's translator can miss such a
change while another CPU runs that code (seen with QEMU 7.2 in __schedule): both CPUs of the box
then take the breakpoint that stood there for a moment, for ever. While these machines are open,
those that come and go beside them change nothing.
"""

import fcntl
import os
import signal

# linux/kvm.h
KVM_CREATE_VM = 0xAE01
KVM_CREATE_VCPU = 0xAE41
KVM_CREATE_IRQCHIP = 0xAE60
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84
SREGS_BYTES = 312
APIC_BASE = slice(272, 280)  # of struct kvm_sregs
APIC_ENABLED = 1 << 11


def without_apic(kvm):
    machine = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    fcntl.ioctl(machine, KVM_CREATE_VCPU, 0)


def with_apic_off(kvm):
    machine = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    fcntl.ioctl(machine, KVM_CREATE_IRQCHIP, 0)
    vcpu = fcntl.ioctl(machine, KVM_CREATE_VCPU, 0)
    sregs = bytearray(SREGS_BYTES)
    fcntl.ioctl(vcpu, KVM_GET_SREGS, sregs)
    base = int.from_bytes(sregs[APIC_BASE], "little") & ~APIC_ENABLED
    sregs[APIC_BASE] = base.to_bytes(8, "little")
    fcntl.ioctl(vcpu, KVM_SET_SREGS, sregs)


if __name__ == "__main__":
    device = os.open("/dev/kvm", os.O_RDWR)
    without_apic(device)
    with_apic_off(device)
    print(flush=True)
    signal.pause()
