# SPDX-License-Identifier: MIT
"""
kvmbox: a machine with a real KVM in it, on hosts that have none.

QEMU's translator (TCG) emulates AMD's virtualization; a stock Debian kernel under it has the real
kvm-amd. The host's / is shared read-only under a writable layer in memory, so a command runs in the
box as it would outside. Folders given as `writable` are the host's own.
"""

import os
import pathlib
import re
import selectors
import shlex
import subprocess
import sys
import tempfile

from . import packages
from .initramfs import Initramfs
from .kernel import QUICK, Kernel

# TCG's virtualization lets a guest set XCR0 without telling its KVM: guests would find their
# XSAVE area of another size than announced. So the box's CPU has none.
CPU = "max,xsave=off"

MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "kvm-amd", "tun"]

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /order); do insmod /modules/$module.ko; done
share='trans=virtio,version=9p2000.L,msize=512000'
mount -t 9p -o $share,cache=loose,ro hostroot /ro || exec reboot -f
mount -t tmpfs tmp /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work over /new || exec reboot -f
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/shm /new/dev/pts
for folder in tmp run dev/shm; do mount -t tmpfs tmp /new/$folder; done
mount -t devpts pts /new/dev/pts
index=0
while read -r folder; do
    mkdir -p "/new$folder"
    mount -t 9p -o $share,cache=none writable$index "/new$folder" || exec reboot -f
    index=$((index + 1))
done </writable
cp /command /hold_kvm.py /new/run/
chroot /new /bin/bash -c '
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
    export EVISOR_IN_KVM_BOX=1
    ip link set lo up 2>/dev/null
    ln -s /proc/self/fd /dev/fd
    while sleep 20; do echo KVM-BOX-LIVES; done &
    read -r held < <(python3 -IS /run/hold_kvm.py)
    . /run/command
    echo "KVM-BOX-EXIT $?"'
sync
reboot -f
"""

OWN_FOLDERS = ("/tmp/", "/run/", "/dev/shm/")  # the box's init mounts its own there

SILENCE_S = 300  # far more than a loaded host needs for what the box says every 20 s

APPLETS = ["sh", "mount", "insmod", "mkdir", "cat", "cp", "chroot", "reboot", "sync"]


def _initramfs(kernel, command, writable):
    image = Initramfs()
    for folder in ("proc", "sys", "dev", "new", "ro", "rw"):
        image.folder(folder)
    image.character_device("dev/console", 5, 1)
    image.file("bin/busybox", pathlib.Path("/bin/busybox").read_bytes(), 0o755)
    for applet in APPLETS:
        image.link(f"bin/{applet}", "busybox")
    order = kernel.loading_order(MODULES)
    for name in order:
        image.file(f"modules/{name}.ko", kernel.module(name))
    image.file("order", " ".join(order))
    image.file("writable", "".join(f"{folder}\n" for folder in writable))
    image.file("command", command)
    image.file("hold_kvm.py", pathlib.Path(__file__).with_name("hold_kvm.py").read_bytes())
    image.file("init", INIT, 0o755)
    return image.archive(compress=True)


def _host_khz():
    """Under load the box measures its clock wrongly, so it is told the host's."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    return int(float(re.search(r"cpu MHz\s*: ([0-9.]+)", text).group(1)) * 1000)


def shared(writable, current):
    """The folders that are the host's: the current one, too, where the box would hide it."""
    found = [os.path.realpath(folder) for folder in writable]
    current = os.path.realpath(current)
    if current.startswith(OWN_FOLDERS) and not any(f"{current}/".startswith(f"{folder}/") for folder in found):
        found.append(current)
    return found


def run(arguments, writable=(), environment=(), cpus=2, memory_mib=4096, timeout=None,
        output=sys.stdout):
    """Runs a command in the box and returns its exit status; its output goes to `output`."""
    packages.install(["qemu-system-x86", "busybox-static"], "the KVM box")
    kernel = Kernel("linux-image-amd64")
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment)
    command = f"cd {shlex.quote(os.getcwd())}\n{exports}{shlex.join(arguments)}\n"
    writable = shared(writable, os.getcwd())
    with tempfile.NamedTemporaryFile(suffix=".cpio.gz") as initrd:
        initrd.write(_initramfs(kernel, command, writable))
        initrd.flush()
        append = (f"console=ttyS0 reboot=t panic=-1 quiet mitigations=off {QUICK} "
                  f"tsc_early_khz={_host_khz()} clocksource=tsc tsc=reliable")
        qemu = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi",
                "-cpu", CPU,
                "-smp", str(cpus), "-m", str(memory_mib), "-kernel", str(kernel.image),
                "-initrd", initrd.name, "-append", append, "-nodefaults", "-no-user-config",
                "-display", "none", "-serial", "stdio", "-no-reboot", "-virtfs",
                "local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap"]
        for index, folder in enumerate(writable):
            qemu += ["-virtfs", f"local,path={folder},mount_tag=writable{index},"
                     "security_model=none,multidevs=remap"]
        return _watch(qemu, timeout, output)


def _pieces(stream):
    """What the box prints, as it comes. It tells every 20 s that it lives: silence is its end."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while selector.select(SILENCE_S):
            piece = stream.read1().decode(errors="replace")
            if not piece:
                return
            yield piece
    raise packages.Failure(f"the KVM box stood still for {SILENCE_S} s, and its clock with it; "
                           "run the command once more")


def _watch(qemu, timeout, output):
    process = subprocess.Popen(["timeout", "-k", "10", str(timeout or 3600), *qemu],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    status, rest = None, ""
    try:
        for piece in _pieces(process.stdout):
            rest = re.sub(r"KVM-BOX-LIVES\r?\n", "", rest + piece)
            match = re.search(r"KVM-BOX-EXIT (\d+)\r?\n", rest)
            end = match.start() if match else rest.rfind("\n") + 1
            if status is None:
                output.write(rest[:end])
                output.flush()
                status = int(match[1]) if match else None
            rest = rest[end:]
    finally:
        process.terminate()
        process.wait()
    if status is None:
        raise packages.Failure("the KVM box ended before its command did")
    return status
