# SPDX-License-Identifier: MIT
"""Stock 32-bit kernels and programs: without and with PAE, and under the 64-bit kernel."""

import hashlib

import pytest

from guestkit import packages, rootfs
from guestkit.kernel import Kernel

SUITE, ARCHITECTURE = "bookworm", "i386"


@pytest.fixture(scope="module")
def busybox():
    try:
        return packages.unpack("busybox-static", SUITE, ARCHITECTURE) / "bin/busybox"
    except packages.Failure as failure:
        pytest.skip(str(failure))


def compute(machine):
    """What needs the x87 (awk), many system calls, and signals; then off."""
    assert machine.check("seq 1 2000 | awk '{s += $1 / 4} END {printf \"%.3f\\n\", s}'", 120) == \
        "500250.000"
    numbers = "".join(f"{number}\n" for number in range(1, 5001)).encode()
    assert machine.check("seq 5000 | sha256sum", 120).split()[0] == \
        hashlib.sha256(numbers).hexdigest()
    assert machine.check("timeout -s KILL 1 sleep 100; echo $?", 60).split()[-1] == "137"
    log = machine.check("dmesg")
    for word in ("Call Trace", "BUG:", "WARNING:"):
        assert word not in log
    machine.type("poweroff -f\n")
    assert machine.wait() == 0


@pytest.mark.parametrize("package", ["linux-image-686", "linux-image-686-pae"])
def test_a_32_bit_kernel(start, busybox, package, tmp_path):
    kernel = Kernel(package, SUITE, ARCHITECTURE)
    initrd = tmp_path / "initrd"
    rootfs.make_initramfs(kernel, initrd, rootfs.DISKLESS_INIT, busybox=busybox)
    machine = start(initrd, "-kernel", kernel.image, "-nic", "none")
    machine.expect("GUEST-INIT", 300)
    assert machine.check("uname -m") == "i686"
    compute(machine)


def test_32_bit_programs_under_a_64_bit_kernel(start, kernel, busybox, tmp_path):
    initrd = tmp_path / "initrd"
    rootfs.make_initramfs(kernel, initrd, rootfs.DISKLESS_INIT, busybox=busybox)
    machine = start(initrd, "-nic", "none")
    machine.expect("GUEST-INIT", 180)
    assert machine.check("uname -m") == "x86_64"
    compute(machine)
