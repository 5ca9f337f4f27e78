# SPDX-License-Identifier: MIT
"""Stock kernels of other Debian suites, older and newer: they boot, compute, use a disk, go off."""

import hashlib

import pytest

from guestkit import packages, rootfs
from guestkit.kernel import Kernel

BLOCKS = 64
BLOCK_BYTES = 65536


@pytest.fixture(scope="module", params=["bullseye", "bookworm-backports", "trixie",
                                        "forky"])
def other_kernel(request):
    try:
        return Kernel(suite=request.param)
    except packages.Failure as failure:
        pytest.skip(str(failure))


@pytest.fixture
def guest(start, other_kernel, tmp_path):
    """A shell under that kernel, with a raw disk of known bytes as /dev/vda."""
    pattern = hashlib.shake_128(b"evisor").digest(BLOCKS * BLOCK_BYTES)
    path = tmp_path / "disk.raw"
    path.write_bytes(pattern + bytes(2 * len(pattern)))
    initrd = tmp_path / "initrd"
    rootfs.make_initramfs(other_kernel, initrd, rootfs.DISKLESS_INIT)
    machine = start(initrd, "-kernel", other_kernel.image, "-nic", "none", "-smp", "2",
                    "-drive", f"file={path},format=raw,if=virtio")
    machine.expect("GUEST-INIT", 180)
    machine.check("until [ -b /dev/vda ]; do sleep 0.1; done")
    return machine, path, pattern


def test_another_suites_kernel(guest, other_kernel):
    machine, path, pattern = guest
    assert machine.check("uname -r") == other_kernel.version
    assert machine.check("nproc") == "2"
    # What both sides can make alone: it shows that the guest computes as the host does.
    numbers = "".join(f"{number}\n" for number in range(1, 100001)).encode()
    assert machine.check("seq 100000 | sha256sum", 120).split()[0] == \
        hashlib.sha256(numbers).hexdigest()
    read = machine.check(f"dd if=/dev/vda bs={BLOCK_BYTES} count={BLOCKS} 2>/dev/null | sha256sum")
    assert read.split()[0] == hashlib.sha256(pattern).hexdigest()
    machine.check(f"dd if=/dev/vda of=/tmp/copy bs={BLOCK_BYTES} count={BLOCKS} 2>/dev/null")
    machine.check(f"dd if=/tmp/copy of=/dev/vda bs={BLOCK_BYTES} seek={BLOCKS} oflag=direct "
                  "2>/dev/null")
    log = machine.check("dmesg")
    for word in ("Call Trace", "BUG:", "WARNING:"):
        assert word not in log
    machine.type("poweroff -f\n")
    assert machine.wait() == 0
    assert path.read_bytes() == pattern * 2 + bytes(len(pattern))
