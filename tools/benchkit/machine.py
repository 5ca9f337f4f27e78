# SPDX-License-Identifier: MIT
"""
machine: start-up, port exits and memory of whole machines, beside QEMU's.

A tiny kernel (PVH) gives start-up and exits; a stock one gives boots.
"""

import pathlib
import re
import shutil
import struct
import subprocess
import time

from guestkit import rootfs
from guestkit.kernel import Kernel

from . import exits
from .figures import Figure, alternate, pick
from .peers import (BARE_EXIT, EVISOR_IMG, MICROVM, Lkvm, await_marks,
                    can_boot_stock_kernel, machines, running, time_marks)

READS, READS_MAX = 20000, 20000000
LONG_SECONDS = 0.2
SETTLE_SECONDS = 1
KERNEL_GPA = 0x100000
NO_MEMORY_GPA = 0xd0000000  # where BARs go, if there are any


def tiny_kernel(reads=READS):
    """An ELF by PVH: says '!', reads a port so often, '#', memory that is not there, '+', stops."""
    code = (b"\x66\xba\xf8\x03\xb0!\xee"              # mov dx, 0x3f8; mov al, '!'; out dx, al
            b"\xb9" + struct.pack("<I", reads) +       # mov ecx, READS
            b"\xe4\x80\x49\x75\xfb"                    # 1: in al, 0x80; dec ecx; jnz 1b
            b"\xb0#\xee"                              # mov al, '#'; out dx, al
            b"\xb9" + struct.pack("<I", reads) +       # mov ecx, READS
            b"\xa0" + struct.pack("<I", NO_MEMORY_GPA) +  # 1: mov al, [NO_MEMORY_GPA]
            b"\x49\x75\xf8"                            # dec ecx; jnz 1b
            b"\xb0+\xee\xfa\xf4\xeb\xfd")              # mov al, '+'; out dx, al; cli; hlt; jmp
    note = struct.pack("<III4sII", 4, 4, 18, b"Xen\0", KERNEL_GPA, 0)
    headers = 64 + 2 * 56
    note_at, code_at = headers, 4096
    elf = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, KERNEL_GPA, 64, 0, 0,
                      64, 56, 2, 0, 0, 0)
    elf += struct.pack("<IIQQQQQQ", 1, 5, code_at, KERNEL_GPA, KERNEL_GPA, len(code), len(code),
                       4096)
    elf += struct.pack("<IIQQQQQQ", 4, 4, note_at, 0, 0, len(note), len(note), 4)
    return (elf + note).ljust(code_at, b"\0") + code


def resident_mib(command, mark, ram_mib=256):
    """Resident memory without the guest's RAM, once the guest is up and starting is over."""
    with running(command) as process:
        if not await_marks(process, [mark]):
            return None
        time.sleep(SETTLE_SECONDS)
        return sum_smaps(process.pid, ram_mib)


def sum_smaps(pid, ram_mib):
    """RAM is what has its size; and what lies below it, left out of dumps as it is: its first part."""
    total, below = 0, None
    for piece in re.split(r"^(?=[0-9a-f]+-)", pathlib.Path(f"/proc/{pid}/smaps").read_text(),
                          flags=re.M)[1:]:
        start, end = (int(one, 16) for one in piece.split(" ", 1)[0].split("-"))
        rss = int(re.search(r"^Rss: +(\d+)", piece, re.M).group(1))
        if ram_mib << 19 <= end - start <= ram_mib << 20:
            if below and below[0] == start:
                total -= below[1]
        else:
            total += rss
            below = (end, rss) if re.search(r"^VmFlags:.* dd\b", piece, re.M) else None
    return total / 1024


def tiny_boot(folder, reads=READS):
    tiny = folder / f"tiny-{reads}.elf"
    tiny.write_bytes(tiny_kernel(reads))
    return ["-kernel", str(tiny)]


def stock_boot(kernel, folder):
    initrd = folder / "initrd"
    rootfs.make_initramfs(kernel, initrd, rootfs.DISKLESS_INIT, modules=[])
    return ["-kernel", str(kernel.image), "-initrd", str(initrd), "-append",
            "console=ttyS0 quiet reboot=t"]


def bare_exits_us():
    """[port, memory]: KVM_RUN in a loop with the handler in its thread; None if that does not run."""
    done = subprocess.run([BARE_EXIT], capture_output=True, text=True, check=False)
    return [float(ns) / 1000 for ns in done.stdout.split()] if done.returncode == 0 else None


class Exits:
    """A peer's exits, of each kind as many as take long beside the time that another program has a CPU."""

    def __init__(self, peer, folder):
        self.name, self.peer, self.folder, self.reads = peer.name, peer, folder, READS

    def _seconds(self):
        """For all reads of [port, memory]."""
        times = time_marks(self.peer.to_boot(tiny_boot(self.folder, self.reads)),
                           [b"!", b"#", b"+"])
        return times and [end - start for start, end in zip(times, times[1:])]

    def us(self):
        took = self._seconds()
        while took and min(took) < LONG_SECONDS and self.reads < READS_MAX:
            factor = LONG_SECONDS / max(min(took), LONG_SECONDS / READS_MAX)
            self.reads = min(int(self.reads * max(factor, 2)), READS_MAX)
            took = self._seconds()
        return took and [1e6 * one / self.reads for one in took]


class BareExits:
    name = "bare KVM_RUN"
    us = staticmethod(bare_exits_us)


def measure_exit(options, folder):
    """One port exit and one memory exit: from the guest through the loop and back."""
    peers = [Exits(peer, folder) for peer in machines(options.accel, options.vs != "none")]
    if options.accel == "kvm" and options.vs == "all" and bare_exits_us() is not None:
        peers.append(BareExits())
    found = alternate(peers, options.runs, lambda peer: peer.us())
    for index, kind in enumerate(("port", "memory")):
        yield Figure(f"one {kind} exit", "us", "less",
                     pick(found, lambda one, index=index: one[index]))


def to_first_instruction(options, accel, folder):
    tiny = tiny_boot(folder)
    marks = alternate(machines(accel, options.vs != "none"), options.runs,
                      lambda peer: time_marks(peer.to_boot(tiny), [b"!"]))
    yield Figure(f"exec to the first guest instruction's effect, {accel}", "ms", "less",
                 pick(marks, lambda times: 1000 * times[0]))


def to_init(options, accel, folder):
    kernel = Kernel()
    if not can_boot_stock_kernel(accel, kernel):
        return
    peers = machines(accel, options.vs != "none")
    if accel == "kvm" and options.vs == "all" and shutil.which("lkvm"):
        peers.append(Lkvm())
    boot = stock_boot(kernel, folder)
    marks = alternate(peers, options.runs,
                      lambda peer: time_marks(peer.to_boot(boot), [b"GUEST-INIT"]))
    yield Figure(f"exec to the guest's init, stock kernel, {accel}", "s", "less",
                 pick(marks, lambda times: times[0]))
    yield exits.measure(f"why the guest was left on the way to init, {accel}",
                        peers if accel == "kvm" else peers[:1], boot, b"GUEST-INIT", folder)


def measure_boot(options, folder):
    """exec to the guest's first instruction and to a stock kernel's init; why the guest was left."""
    for accel in ("soft", "kvm") if options.accel == "all" else (options.accel,):
        if options.to != "init":
            yield from to_first_instruction(options, accel, folder)
        if options.to != "first":
            yield from to_init(options, accel, folder)


def furnish(peer, folder):
    """With 1 GiB, a qcow2 disk and a NIC, as the peer has them: a microvm has no PCI."""
    disk = folder / f"{peer.name.split()[-1]}.qcow2"
    subprocess.run([EVISOR_IMG, "create", "-q", "-f", "qcow2", disk, "1G"], check=True)
    command = list(peer.command)
    if "-nic" in command:
        at = command.index("-nic")
        del command[at:at + 2]
    drive = ["-drive", f"file={disk},format=qcow2,if=none,id=d"]
    bus = "device" if peer.name == MICROVM else "pci"
    return [*command, "-m", "1024", *drive, "-device", f"virtio-blk-{bus},drive=d", "-netdev",
            "user,id=n", "-device", f"virtio-net-{bus},netdev=n"]


def measure_memory(options, folder):
    """Resident memory of the process without the guest's RAM, with a disk and a NIC."""
    boots = {"at the first instruction's effect": (tiny_boot(folder), b"!")}
    kernel = Kernel()
    if can_boot_stock_kernel(options.accel, kernel):
        boots["at a stock guest's init"] = (stock_boot(kernel, folder), b"GUEST-INIT")
    for when, (boot, mark) in boots.items():
        yield Figure(f"resident memory without guest RAM, 1 disk, 1 NIC, 1 GiB guest, {when}", "MiB",
                     "less", alternate(
                         machines(options.accel, options.vs != "none"), options.runs,
                         lambda peer, boot=boot, mark=mark: resident_mib(
                             [*furnish(peer, folder), *boot], mark, 1024)))
