# SPDX-License-Identifier: MIT
"""A Debian with systemd computes under evisor, line by line, what it computes under QEMU's TCG."""

import os
import pathlib
import shutil
import tarfile

import pytest

from guestkit import userland
from guestkit.kernel import QUICK
from guestkit.machine import Machine

WORKLOAD = pathlib.Path(__file__).resolve().parent / "workload"
FEWEST_LINES = 40

TCG = ["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults",
       "-no-user-config", "-no-reboot"]


def host_has(*features):
    flags = pathlib.Path("/proc/cpuinfo").read_text().split("flags")[1].split("\n")[0].split()
    return set(features) <= set(flags)

@pytest.fixture(scope="module")
def image(evisor):
    if os.geteuid() != 0 and not userland.cached().exists():
        pytest.skip("only root can make the guest's userland with mmdebstrap")
    return userland.make(evisor.with_name("evisor-img"))


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    """The scripts in a tar archive, which the guest reads as its second disk."""
    path = tmp_path_factory.mktemp("workload") / "workload.tar"
    with tarfile.open(path, "w") as archive:
        for script in sorted(WORKLOAD.glob("work.*")) + [WORKLOAD / "floats.c"]:
            archive.add(script, script.name)
    return path


@pytest.fixture(scope="module")
def run(image, workload, initrd, kernel, evisor_img, tmp_path_factory):
    """run(program, arguments): boots, works, powers off; the work's lines and glibc's levels."""
    def begin(program, arguments, cpus):
        overlay = tmp_path_factory.mktemp("overlay") / "disk.qcow2"
        evisor_img("create", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay)
        with Machine(program, [
                *arguments, "-m", "1024", "-smp", cpus, "-nic", "none", "-kernel", kernel.image,
                "-initrd", initrd, "-append", f"console=ttyS0 quiet root=/dev/vda panic=-1 {QUICK}",
                "-drive", f"file={overlay},format=qcow2,if=virtio",
                "-drive", f"file={workload},format=raw,if=virtio,readonly=on"]) as machine:
            result = work(machine)
        overlay.unlink()
        return result
    return begin


def work(machine):
    machine.wait_shell(300)
    # A prompt that comes late would stand among a command's output.
    machine.check("PS1=")
    state = machine.check("systemctl is-system-running --wait || systemctl --failed", 300)
    assert state == "running"
    assert machine.check("systemctl is-active multi-user.target") == "active"
    levels = machine.check("/lib64/ld-linux-x86-64.so.2 --help | grep 'x86-64-v.'")
    machine.check("mkdir work && tar -x -f /dev/vdb -C work")
    lines = machine.check("sh work/work.sh 2>&1", 600).splitlines()
    machine.type("poweroff\n")
    assert machine.wait(120) == 0
    return lines, levels


@pytest.fixture(scope="module")
def expected(run):
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        pytest.skip("there is no qemu-system-x86_64 to compare with")
    lines, _ = run(qemu, TCG, "2")
    assert len(lines) >= FEWEST_LINES and "busybox-bits 32" in lines
    return lines


@pytest.mark.parametrize("cpus", ["1", "4"])
def test_work_comes_out_as_under_tcg(run, expected, evisor, accel, cpus):
    # With FMA, glibc's sin() and the like may differ in the last digit from those without.
    cpu = [] if host_has("fma") else ["-cpu", "max,-fma"]
    lines, levels = run(evisor, [*accel, *cpu, "-no-reboot"], cpus)
    assert lines == expected
    if host_has("avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm"):
        assert "x86-64-v3 (supported, searched)" in levels
