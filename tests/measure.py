# SPDX-License-Identifier: MIT
"""
measure: start-up, memory and exit figures of evisor beside QEMU, in one run, in alternation.

Each figure is the median of several runs with its spread; the ratio is peer over ours, so more than
1 is better for evisor. A tiny kernel (PVH) gives start-up and exits; a stock one gives boots.
"""

import argparse
import os
import pathlib
import re
import struct
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
from guestkit import kvmbox, packages, rootfs  # noqa: E402
from guestkit.kernel import Kernel  # noqa: E402
from measure_soft import measure_soft  # noqa: E402
from measure_tools import alternate, peers, show, start, time_marks  # noqa: E402

PORT_READS = 20000
KERNEL_GPA = 0x100000


def tiny_kernel():
    """An ELF by PVH: says '!', reads a port PORT_READS times, says '#', stops."""
    code = (b"\x66\xba\xf8\x03\xb0!\xee"              # mov dx, 0x3f8; mov al, '!'; out dx, al
            b"\xb9" + struct.pack("<I", PORT_READS) +  # mov ecx, PORT_READS
            b"\xe4\x80\x49\x75\xfb"                    # 1: in al, 0x80; dec ecx; jnz 1b
            b"\xb0#\xee\xfa\xf4\xeb\xfd")              # mov al, '#'; out dx, al; cli; hlt; jmp
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
    """Resident memory without the guest's RAM, once the guest is up."""
    process = start(command)
    try:
        seen = b""
        while mark not in seen:
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                return None
            seen += piece
        total, is_ram = 0, False
        for line in pathlib.Path(f"/proc/{process.pid}/smaps").read_text().splitlines():
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
            if head:
                size = int(head.group(2), 16) - int(head.group(1), 16)
                is_ram = size >= ram_mib << 19 and size <= ram_mib << 20
            elif line.startswith("Rss:") and not is_ram:
                total += int(line.split()[1])
        return total / 1024
    finally:
        process.kill()
        process.wait()


def measure_all(accel, runs):
    found = peers(accel)
    print(f"accelerator {accel}; QEMU's is {'tcg' if accel == 'soft' else accel}; median of {runs} "
          "[least .. most]; ratio: peer over evisor")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tiny = folder / "tiny.elf"
        tiny.write_bytes(tiny_kernel())
        kernel = Kernel()
        initrd = folder / "initrd"
        rootfs.make_initramfs(kernel, initrd, rootfs.DISKLESS_INIT, modules=[])
        marks = alternate(found, runs,
                          lambda peer: time_marks([*peer.command, "-kernel", str(tiny)], [b"!", b"#"]))
        show("exec to the first guest instruction's effect", "ms",
             {name: [1000 * times[0] for times in got] for name, got in marks.items()})
        show(f"one port exit (of {PORT_READS})", "us",
             {name: [1e6 * (times[1] - times[0]) / PORT_READS for times in got]
              for name, got in marks.items()})
        boot = ["-kernel", str(kernel.image), "-initrd", str(initrd), "-append",
                "console=ttyS0 quiet reboot=t"]
        show("exec to the guest's init, stock kernel", "s", {
            name: [times[0] for times in got] for name, got in alternate(
                found, max(runs // 2, 3),
                lambda peer: time_marks([*peer.command, *boot], [b"GUEST-INIT"])).items()})
        show("resident memory without guest RAM, at the guest's init", "MiB", alternate(
            found, 3, lambda peer: resident_mib([*peer.command, *boot], b"GUEST-INIT")))
        if accel == "soft":
            measure_soft(found, max(runs // 2, 3), kernel, folder)


def main():
    parser = argparse.ArgumentParser(prog="tests/run --measure")
    parser.add_argument("--accel", choices=["kvm", "soft"])
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    if options.accel:
        measure_all(options.accel, options.runs)
        return 0
    measure_all("soft", options.runs)
    print("\nThe same under a real KVM, inside the KVM box:", flush=True)
    return kvmbox.run(["python3", "-B", "tests/measure.py", "--accel", "kvm", "--runs",
                       str(min(options.runs, 3))])


if __name__ == "__main__":
    packages.main(main)
