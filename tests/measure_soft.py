# SPDX-License-Identifier: MIT
"""
measure_soft: the soft CPU beside QEMU's translator: whole boots to power-off, and tight loops.

The loops also run natively, which tells how far from the hardware both are.
"""

import subprocess

from guestkit import packages, rootfs, userland
from measure_tools import EVISOR_IMG, MICROVM, Peer, TOP, alternate, run_to_end, show, time_marks

INIT = """#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
{command}
"""

APPEND = "console=ttyS0 quiet reboot=t"
SYSTEMD_RUNS = 3


def compile_loops(folder):
    program = folder / "loops"
    subprocess.run(["gcc", "-O2", "-static", "-o", str(program), str(TOP / "tests/measure_loops.c")],
                   check=True)
    return program


def guest(kernel, initrd, command, extra=None):
    """Arguments to boot the stock kernel into busybox and to run a command there."""
    rootfs.make_initramfs(kernel, initrd, INIT.format(command=command), modules=[], extra=extra)
    return ["-kernel", str(kernel.image), "-initrd", str(initrd), "-append", APPEND]


def measure_power_off(found, runs, kernel, folder):
    work = "seq 1000 | sha256sum; "
    boot = guest(kernel, folder / "off", work + "poweroff -f")
    # A microvm without ACPI ends by a reset only.
    boot_microvm = guest(kernel, folder / "reset", work + "reboot -f")
    ended = alternate(found, runs, lambda peer: run_to_end(
        [*peer.command, *(boot_microvm if peer.name == MICROVM else boot)]))
    show("exec to power-off, stock kernel with busybox", "s",
         {name: [seconds for seconds, _ in got] for name, got in ended.items()})


def measure_systemd(found, kernel, folder):
    if not userland.cached().exists():
        print("\nsystemd to multi-user: the image is not in the cache; "
              "`pytest-3 tests/guest/test_userland.py` makes it")
        return
    initrd, overlay = folder / "root", folder / "overlay"
    rootfs.make_initramfs(kernel, initrd)

    def boot(peer):
        overlay.unlink(missing_ok=True)
        subprocess.run([EVISOR_IMG, "create", "-q", "-f", "qcow2", "-b", userland.cached(), "-F",
                        "qcow2", overlay], check=True)
        times = time_marks([
            *peer.command, "-m", "1024", "-kernel", str(kernel.image), "-initrd", str(initrd),
            "-append", APPEND + " root=/dev/vda systemd.show_status=1",
            "-drive", f"file={overlay},format=qcow2,if=virtio"], [b"multi-user.target"], 300)
        return times and times[0]

    # QEMU's microvm has no PCI, where the disk is.
    with_disks = [peer for peer in found if peer.name != MICROVM]
    show("exec to systemd's multi-user target, Debian 12 on a qcow2 disk", "s",
         alternate(with_disks, SYSTEMD_RUNS, boot))


def parse(output):
    """{loop: nanoseconds} of what measure_loops printed."""
    lines = [line.split() for line in output.splitlines() if line.startswith("LOOP ")]
    return {words[1]: float(words[2]) for words in lines}


def measure_loops(found, runs, kernel, folder):
    program = compile_loops(folder)
    boot = guest(kernel, folder / "loops.initrd", "/loops; poweroff -f",
                 {"loops": program.read_bytes()})
    native = Peer("native", [str(program)])

    def run(peer):
        ended = run_to_end(peer.command if peer is native else [*peer.command, *boot])
        return parse(ended[1]) if ended else None

    values = alternate([*(peer for peer in found if peer.name != MICROVM), native], runs, run)
    for loop in values["native"][0]:
        show(f"loop {loop}", "ns", {name: [one[loop] for one in got if loop in one]
                                    for name, got in values.items()})


def measure_soft(found, runs, kernel, folder):
    packages.install(["gcc", "libc6-dev"], "the loops")
    measure_power_off(found, runs, kernel, folder)
    measure_systemd(found, kernel, folder)
    measure_loops(found, runs, kernel, folder)
