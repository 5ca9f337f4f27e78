# SPDX-License-Identifier: MIT
"""
Fixtures of the guest tests: a kernel, an initramfs, a disk made once, machines to start.

EVISOR_ACCEL names the accelerator (default: what evisor chooses); EVISOR_BUILD the build folder.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tools"))
from guestkit import rootfs  # noqa: E402
from guestkit.kernel import QUICK, Kernel  # noqa: E402
from guestkit.machine import Machine  # noqa: E402

BUILD = pathlib.Path(os.environ.get("EVISOR_BUILD", TOP / "build"))


def pytest_configure(config):
    config.addinivalue_line("markers", "box: runs in the KVM box too, where all is slow")


def pytest_collection_modifyitems(items):
    """The longest file first, so that no worker is left alone with it."""
    items.sort(key=lambda item: item.path.stem != "test_userland")


@pytest.fixture(scope="session")
def evisor():
    return BUILD / "evisor"


@pytest.fixture(scope="session")
def evisor_img():
    def run(*arguments, check=True):
        return subprocess.run([str(BUILD / "evisor-img"), *map(str, arguments)],
                              capture_output=True, text=True, check=check)
    return run


@pytest.fixture(scope="session")
def accel():
    name = os.environ.get("EVISOR_ACCEL")
    return ["-accel", name] if name else []


@pytest.fixture(scope="session")
def kernel():
    return Kernel()


@pytest.fixture(scope="session")
def initrd(kernel, tmp_path_factory):
    """Loads the modules and goes on from /dev/vda."""
    path = tmp_path_factory.mktemp("initrd") / "initrd"
    rootfs.make_initramfs(kernel, path)
    return path


@pytest.fixture(scope="session")
def diskless(kernel, tmp_path_factory):
    """Loads the modules and gives a shell, without a disk."""
    path = tmp_path_factory.mktemp("diskless") / "initrd"
    rootfs.make_initramfs(kernel, path, rootfs.DISKLESS_INIT)
    return path


@pytest.fixture(scope="session")
def root_image(tmp_path_factory, evisor_img):
    """A qcow2 image with the busybox system; copy it before use."""
    folder = tmp_path_factory.mktemp("root")
    rootfs.make_raw(folder / "root.raw", 96)
    evisor_img("convert", "-f", "raw", "-O", "qcow2", folder / "root.raw", folder / "root.qcow2")
    (folder / "root.raw").unlink()
    return folder / "root.qcow2"


@pytest.fixture
def disk(root_image, tmp_path):
    path = tmp_path / "disk.qcow2"
    shutil.copy(root_image, path)
    return path


@pytest.fixture
def start(evisor, accel, kernel):
    """start(initrd, *arguments, append=): a machine; all of them end with the test. `quick` is for
    the kernel's line; "" boots as stock kernels do."""
    machines = []

    def begin(initrd, *arguments, append="", memory="256", quick=QUICK):
        machine = Machine(evisor, [*accel, "-m", memory, "-kernel", kernel.image, "-initrd", initrd,
                                   "-append", f"console=ttyS0 quiet panic=-1 {quick} {append}",
                                   *arguments])
        machines.append(machine)
        return machine

    yield begin
    for machine in machines:
        machine.__exit__(None, None, None)


@pytest.fixture
def boot(start, initrd, disk):
    """boot(*arguments): a machine with the disk as /dev/vda, at its shell."""
    def begin(*arguments, append="", **options):
        machine = start(initrd, "-drive", f"file={disk},format=qcow2,if=virtio,discard=unmap",
                        *arguments, append=f"root=/dev/vda {append}", **options)
        machine.wait_shell()
        return machine
    return begin
