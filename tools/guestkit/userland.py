# SPDX-License-Identifier: MIT
"""
userland: a Debian 12 with systemd, a compiler and a 32-bit busybox, in a qcow2 image.

It is made by mmdebstrap, which takes minutes, and kept in the cache under its recipe's digest. Its
kernel comes from outside; root is logged in on ttyS0, with guestkit.machine's prompt.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import tempfile

from . import packages

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
SIZE_MIB = 1536

# The 32-bit busybox is static, so that it is all of i386 that comes along.
INCLUDE = ["systemd-sysv", "udev", "dbus", "python3", "gcc", "libc6-dev", "mawk",
           "busybox-static:i386"]

LEAVE_OUT = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"]

FILES = {
    "etc/hostname": "guest\n",
    "etc/machine-id": "65766973" * 4 + "\n",
    "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf": (
        "[Service]\nExecStart=\n"
        "ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %I dumb\n"),
    "root/.hushlogin": "",
    "root/.profile": "PS1='guest# '\n",
}


def _recipe():
    parts = [SUITE, SIZE_MIB, INCLUDE, LEAVE_OUT, FILES]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def cached():
    """Where the image is kept, whether it is there or not."""
    return packages.cache_folder() / f"userland-{_recipe()}.qcow2"


def _run(command, what):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise packages.Failure(f"{what}: {command[0]} ended with {done.returncode}: {last}")


def _bootstrap(folder):
    command = ["mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase",
               "--architectures=amd64,i386", "--include=" + ",".join(INCLUDE)]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEAVE_OUT]
    _run([*command, SUITE, folder, MIRROR], "the guest's userland")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    passwd = folder / "etc/passwd"
    passwd.write_text(passwd.read_text().replace("/root:/bin/bash", "/root:/bin/sh"))


def make(evisor_img):
    """The image's path, made first if need be. Never write to it: use it as a backing file."""
    with packages.locked("userland"):
        return _make_now(evisor_img)


def _make_now(evisor_img):
    final = cached()
    if final.exists():
        return final
    if os.geteuid() != 0:
        raise packages.Failure("only root can make the guest's userland with mmdebstrap")
    packages.install(["mmdebstrap", "e2fsprogs"], "the guest's userland")
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".userland-") as name:
        folder = pathlib.Path(name)
        root, raw, image = folder / "root", folder / "raw", folder / "qcow2"
        _bootstrap(root)
        with open(raw, "wb") as file:
            file.truncate(SIZE_MIB << 20)
        _run(["/sbin/mkfs.ext4", "-q", "-F", "-L", "userland", "-d", root, raw],
             "the guest's userland")
        _run([evisor_img, "convert", "-f", "raw", "-O", "qcow2", raw, image],
             "the guest's userland")
        image.rename(final)
    return final
