# SPDX-License-Identifier: MIT
"""
loops: the software CPU beside QEMU's translator: whole boots to power-off, and tight loops.

The loops also run natively, which tells how far from the hardware both are.
"""

import subprocess

from guestkit import packages, rootfs, userland
from guestkit.kernel import Kernel

from .figures import Figure, alternate, pick
from .peers import EVISOR_IMG, MICROVM, Peer, TOP, machines, run_to_end, time_marks

INIT = """#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
{command}
"""

APPEND = "console=ttyS0 quiet reboot=t"


def compile_loops(folder):
    program = folder / "loops"
    subprocess.run(["gcc", "-O2", "-static", "-o", str(program), str(TOP / "tools/bench/loops.c")],
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
    return Figure("exec to power-off, stock kernel with busybox", "s", "less",
                  pick(ended, lambda one: one[0]))


def measure_systemd(found, runs, kernel, folder):
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

    return Figure("exec to systemd's multi-user target, Debian 12 on a qcow2 disk", "s", "less",
                  alternate(found, runs, boot))


def parse(output):
    """{loop: nanoseconds} of what the program of loops printed."""
    lines = [line.split() for line in output.splitlines() if line.startswith("LOOP ")]
    return {words[1]: float(words[2]) for words in lines}


def measure_tight_loops(found, runs, kernel, folder):
    program = compile_loops(folder)
    boot = guest(kernel, folder / "loops.initrd", "/loops; poweroff -f",
                 {"loops": program.read_bytes()})
    native = Peer("native", [str(program)])

    def run(peer):
        ended = run_to_end(peer.command if peer is native else [*peer.command, *boot])
        return parse(ended[1]) if ended else None

    values = alternate([*found, native], runs, run)
    for loop in values["native"][0]:
        yield Figure(f"loop {loop}", "ns", "less",
                     {name: [one[loop] for one in got if loop in one]
                      for name, got in values.items()})


def measure_loops(options, folder):
    """The software CPU beside TCG: boots to power-off and to systemd, and tight loops."""
    packages.install(["gcc", "libc6-dev"], "the loops")
    kernel = Kernel()
    found = machines("soft", options.vs != "none")
    # QEMU's microvm has no PCI, where the disk is.
    with_disks = [peer for peer in found if peer.name != MICROVM]
    yield measure_power_off(found, options.runs, kernel, folder)
    if userland.cached().exists():
        yield measure_systemd(with_disks, options.runs, kernel, folder)
    else:
        print("systemd is left out: its image is not in the cache; "
              "`pytest-3 tests/guest/test_userland.py` makes it")
    yield from measure_tight_loops(with_disks, options.runs, kernel, folder)
