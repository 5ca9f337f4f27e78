# SPDX-License-Identifier: MIT
"""rootfs: the small Linux that evisor's guests run: busybox on ext4, and an initramfs before it."""

import pathlib
import subprocess
import tempfile

from . import packages
from .initramfs import Initramfs

MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "button", "evdev",
           "pvpanic-mmio"]

INITRAMFS_INIT = """#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in $(cat /order); do insmod /modules/$module.ko; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
[ -b /dev/vda ] || { echo "no disk: /dev/vda is not there; a shell instead of the system"; exec sh; }
mount -t ext4 /dev/vda /root || exec sh
umount /proc
mount --move /dev /root/dev
exec switch_root /root /sbin/init
"""

# Without a disk: what the fastest boot and the stress tests need.
DISKLESS_INIT = """#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in $(cat /order); do insmod /modules/$module.ko; done
stty cols 4000 </dev/ttyS0
echo GUEST-INIT
exec setsid cttyhack sh
"""

FILES = {
    "etc/inittab": ("::sysinit:/etc/init.d/rcS\n"
                    "ttyS0::respawn:-/bin/sh\n"
                    "::ctrlaltdel:/sbin/reboot\n"
                    "::shutdown:/bin/sync\n"
                    "::shutdown:/bin/umount -a -r\n", 0o644),
    "etc/init.d/rcS": ("#!/bin/sh\n"
                       "mount -t proc proc /proc\n"
                       "mount -t sysfs sys /sys\n"
                       "mount -t tmpfs tmp /tmp\n"
                       "mount -t tmpfs run /run\n"
                       "mount -o remount,rw /\n"
                       "hostname guest\n"
                       "ip link set lo up\n"
                       "acpid\n", 0o755),
    "etc/profile": ("PATH=/sbin:/bin:/usr/sbin:/usr/bin\nexport PATH\n"
                    "stty cols 4000\nPS1='guest# '\n", 0o644),
    "etc/passwd": ("root::0:0:root:/root:/bin/sh\n", 0o644),
    "etc/group": ("root:x:0:\n", 0o644),
    "etc/acpi/PWRF/00000080": ("#!/bin/sh\nexec poweroff\n", 0o755),
    "etc/udhcpc/default.script": (
        "#!/bin/sh\n"
        "case $1 in\n"
        "deconfig)\n"
        "  ip link set $interface up;;\n"
        "bound|renew)\n"
        "  ip addr flush dev $interface\n"
        "  ip addr add $ip/${mask:-24} dev $interface\n"
        "  [ -n \"$router\" ] && ip route add default via $router dev $interface\n"
        "  : >/etc/resolv.conf\n"
        "  for server in $dns; do echo nameserver $server >>/etc/resolv.conf; done;;\n"
        "esac\n", 0o755),
}

FOLDERS = ["dev", "proc", "sys", "tmp", "run", "root", "mnt", "var/log", "var/run", "bin", "sbin", "usr/bin",
           "usr/sbin"]


def _applets():
    listing = subprocess.run(["busybox", "--list-full"], capture_output=True, text=True, check=True)
    return [path for path in listing.stdout.split() if path not in ("bin/busybox", "linuxrc")]


def make_initramfs(kernel, path, init=INITRAMFS_INIT, modules=None, extra=None,
                   busybox="/bin/busybox"):
    """Writes the initramfs; `extra` maps further paths to bytes."""
    image = Initramfs()
    for folder in ("dev", "proc", "sys", "root", "tmp", "run", "mnt"):
        image.folder(folder)
    image.character_device("dev/console", 5, 1)
    image.file("bin/busybox", pathlib.Path(busybox).read_bytes(), 0o755)
    for applet in _applets():
        image.link(f"bin/{applet.rpartition('/')[2]}", "/bin/busybox")
    order = kernel.loading_order(MODULES if modules is None else modules)
    for name in order:
        image.file(f"modules/{name}.ko", kernel.module(name))
    image.file("order", " ".join(order))
    image.file("init", init, 0o755)
    for name, content in (extra or {}).items():
        image.file(name, content, 0o755)
    path.write_bytes(image.archive())


def _populate(folder):
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "bin/busybox").write_bytes(pathlib.Path("/bin/busybox").read_bytes())
    (folder / "bin/busybox").chmod(0o755)
    for applet in _applets():
        link = folder / applet
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("/bin/busybox")
    for name, (text, mode) in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)


def make_raw(path, size_mib, extra=None):
    """Writes an ext4 file system with busybox into the raw image `path`; `extra`: path to bytes."""
    packages.install(["busybox-static", "e2fsprogs"], "the guest's root file system")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        _populate(folder)
        for name, content in (extra or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o755)
        with open(path, "wb") as image:
            image.truncate(size_mib << 20)
        mkfs = ["/sbin/mkfs.ext4", "-q", "-F", "-L", "guest", "-E", "root_owner=0:0",
                "-d", str(folder), str(path)]
        made = subprocess.run(mkfs, capture_output=True, text=True, check=False)
        if made.returncode:
            raise packages.Failure(f"mkfs.ext4 failed: {made.stderr.strip()}")


def read_file(raw_image, path):
    """The bytes of a file inside an ext4 image, without mounting it."""
    command = ["/sbin/debugfs", "-R", f"cat {path}", str(raw_image)]
    return subprocess.run(command, capture_output=True, check=True).stdout
