# SPDX-License-Identifier: MIT
"""
guest: fio and iperf3 in a stock Linux guest, beside QEMU's q35 with the same disk and network.

The guest says on its serial line when a measurement begins and ends; the CPU time of loop, vCPUs
and other threads is read at these moments.
"""

import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time

from guestkit import packages, rootfs
from guestkit.kernel import Kernel

from . import path, storage_daemon
from .figures import Figure, alternate
from .peers import (BOOT_TIMEOUT, EVISOR, Peer, await_end, can_boot_stock_kernel, check_accel,
                    print_end)

MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "ext4", "crc32c_generic"]
PATTERNS = ("randread", "randwrite")
FIO_ERROR = 4  # its place in the terse form

INIT = """#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in $(cat /order); do insmod /modules/$module.ko; done
while [ ! -b /dev/vda ] || [ ! -b /dev/vdb ]; do sleep 0.05; done
mount -t ext4 /dev/vda /root
mount --move /dev /root/dev
mount --move /proc /root/proc
exec chroot /root /bin/sh /bench.sh
"""

SCRIPT = """mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
until ping -c 1 -W 1 10.0.2.2 >/dev/null 2>&1; do sleep 0.2; done
for kind in {patterns}; do
  echo BEGIN $kind
  echo RESULT $kind $(fio --name=job --filename=/dev/vdb --rw=$kind --bs={block} --iodepth={depth} \
    --ioengine=io_uring --direct=1 --time_based --runtime={seconds} --norandommap --minimal 2>&1)
  echo END $kind
done
for way in up down; do
  reverse=; [ $way = down ] && reverse=-R
  echo BEGIN net-$way
  echo RESULT net-$way $(iperf3 -c 10.0.2.2 -p {port} -t {seconds} -f m $reverse | grep receiver)
  echo END net-$way
done
echo FINISHED
poweroff -f
"""


def with_libraries(program):
    """{path in the guest: bytes} of a program of the host and all that it is linked with."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    files = [program, *re.findall(r"(/\S+) \(0x", listed)]
    return {name.lstrip("/"): pathlib.Path(name).read_bytes() for name in files}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_root(folder, options, port):
    image = folder / "root.raw"
    script = SCRIPT.format(patterns=" ".join(PATTERNS), block=options.block,
                           depth=options.depth[0], seconds=options.seconds, port=port)
    rootfs.make_raw(image, 320, {**with_libraries(shutil.which("fio")),
                                 **with_libraries(shutil.which("iperf3")),
                                 "bench.sh": script.encode()})
    # What ran once must find the same disk again.
    image.chmod(0o444)
    return image


def thread_kinds(pid):
    """{kind: nanoseconds of CPU} by what a thread does: loop, vCPU, other."""
    found = {"loop": 0, "vcpu": 0, "pool": 0}
    for thread, used_ns in storage_daemon.thread_cpu_ns(pid).items():
        try:
            name = pathlib.Path(f"/proc/{pid}/task/{thread}/comm").read_text()
        except OSError:
            continue
        kind = "vcpu" if name.startswith(("vcpu", "CPU ")) else "loop" if thread == pid else "pool"
        found[kind] += used_ns
    return found


class Run:
    """One boot of one peer: {measurement: (value, seconds, {kind of thread: ns})}."""

    def __init__(self, command, timeout):
        self.results, self.begun = {}, {}
        with tempfile.TemporaryFile() as said:
            self._follow(command, timeout, said)
            if self.process.returncode > 0:
                print_end(command, said)

    def _follow(self, command, timeout, said):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=said, text=True, errors="replace")
        watchdog = threading.Timer(timeout, self.process.kill)
        watchdog.start()
        try:
            self.ends = any(map(self.take, self.process.stdout))
            await_end(self.process, not self.ends)
        finally:
            watchdog.cancel()
            self.process.kill()
            self.process.wait()

    def complete(self):
        """Itself; None if the guest did not get to its end in time."""
        return self if self.ends else None

    def take(self, line):
        """True at the last line."""
        words = line.strip().split(" ", 2)
        if words[0] == "BEGIN":
            self.begun[words[1]] = (time.monotonic(), thread_kinds(self.process.pid))
        elif words[0] == "RESULT" and len(words) == 3:
            self.results[words[1]] = [value_of(words[1], words[2])]
        elif words[0] == "END" and words[1] in self.results:
            began, before = self.begun[words[1]]
            after = thread_kinds(self.process.pid)
            self.results[words[1]] += [time.monotonic() - began,
                                       {kind: after[kind] - before[kind] for kind in after}]
        return words[0] == "FINISHED"


def value_of(what, text):
    """Operations a second of fio's terse form, or Mbit/s of iperf3's summary; None if it failed."""
    if what.startswith("net"):
        found = re.search(r"([\d.]+) Mbits/sec", text)
        return float(found.group(1)) if found else None
    fields = text.split(";")
    column = {"randread": 7, "randwrite": 48}[what]
    has_run = len(fields) > column and fields[FIO_ERROR] == "0"
    return float(fields[column]) if has_run else None


def commands(options, root, data, boot):
    """evisor and q35, told the same."""
    machine = ["-m", "512", "-smp", str(options.cpus), "-display", "none", "-serial", "stdio",
               "-no-reboot", *boot, "-drive", f"file={root},format=raw,if=virtio,readonly=on",
               "-drive", f"file={data},format={options.format},if=virtio"]
    nic = "user,model=virtio-net-pci"
    yield Peer("evisor", [str(EVISOR), "-accel", options.accel, *machine, "-nic",
                          nic + ",host-loopback=on"])  # where iperf3 listens; QEMU always has it
    qemu = shutil.which("qemu-system-x86_64")
    if qemu and path.wants(options, "qemu"):
        accel = {"soft": "tcg"}.get(options.accel, options.accel)
        yield Peer("QEMU q35", [qemu, "-M", "q35", "-accel", accel, "-cpu", "max", "-nodefaults",
                                "-no-user-config", "-name", "guest,debug-threads=on", *machine,
                                "-nic", nic])


def one_figure(title, results, what, unit, scale, share):
    costs = split(results, what)
    return Figure(title, unit, "more", {
        name: [run.results[what][0] / scale for run in runs
               if run.results.get(what) and run.results[what][0] is not None]
        for name, runs in results.items()}, remarks=[
            f"  {name:16} CPU time for {share[1]}: "
            + ", ".join(f"{kind} {cost:.0f} ns" for kind, cost in parts.items())
            for name, parts in costs.items()], details={
                name: {f"cpu-ns-per-{share[0]}": parts} for name, parts in costs.items()})


def split(results, what):
    """{peer: {kind of thread: nanoseconds of CPU for an operation or a Mbit}}, medians."""
    found = {}
    for name, runs in results.items():
        full = [run.results[what] for run in runs if len(run.results.get(what, ())) == 3]
        full = [one for one in full if one[0]]
        if full:
            found[name] = {kind: statistics.median([one[2][kind] / (one[0] * one[1])
                                                    for one in full])
                           for kind in ("loop", "vcpu", "pool")}
    return found


def measure_guest(options, folder):
    """fio and iperf3 in a stock Linux guest."""
    packages.install(["fio", "iperf3", "busybox-static", "e2fsprogs"], "the guest's programs")
    check_accel(options.accel)
    port = free_port()
    kernel, initrd = Kernel(), folder / "initrd"
    if not can_boot_stock_kernel(options.accel, kernel):
        return
    rootfs.make_initramfs(kernel, initrd, INIT, modules=MODULES)
    data = path.make_images(options, folder)[0]
    boot = ["-kernel", str(kernel.image), "-initrd", str(initrd), "-append",
            "console=ttyS0 quiet reboot=t"]
    peers = list(commands(options, make_root(folder, options, port), data, boot))
    with subprocess.Popen(["iperf3", "-s", "-p", str(port)], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as server:
        try:
            results = alternate(peers, options.runs, lambda peer: Run(
                peer.command, BOOT_TIMEOUT + 10 * (options.seconds + 10)).complete())
        finally:
            server.terminate()
    for what in PATTERNS:
        title = (f"fio {what} of {options.block} bytes at depth {options.depth[0]} in the guest, "
                 f"{options.format}")
        yield one_figure(title, results, what, "kop/s", 1000, ("operation", "an operation"))
    for way in ("up", "down"):
        yield one_figure(f"iperf3 {way} through the user network", results, f"net-{way}", "Mbit/s",
                         1, ("mbit", "a Mbit"))
