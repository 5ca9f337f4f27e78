# SPDX-License-Identifier: MIT
"""Each mistake ends in one clear line and exit status 1; nothing is left behind."""

import fcntl
import os
import socket
import struct
import subprocess

import pytest


@pytest.fixture
def refuse(evisor, kernel, tmp_path):
    """refuse(*arguments, words=...): evisor must end at once, with one line that has the words."""
    def check(*arguments, words=(), environment=None):
        done = subprocess.run([str(evisor), "-display", "none", "-serial", "null", "-nic", "none",
                               *map(str, arguments)], capture_output=True, text=True, timeout=120,
                              check=False, cwd=tmp_path, env={**os.environ, **(environment or {})})
        lines = done.stderr.strip().split("\n")
        assert done.returncode == 1, done
        assert len(lines) == 1, done.stderr
        for word in words:
            assert word in lines[0], lines[0]
        return lines[0]
    return check


def test_kernels(refuse, tmp_path, kernel):
    refuse(words=["-kernel"])
    refuse("-kernel", "/nonexistent", words=["/nonexistent", "No such file"])
    refuse("-kernel", tmp_path, words=[str(tmp_path), "directory"])
    foreign = tmp_path / "foreign"
    foreign.write_bytes(os.urandom(100000))
    refuse("-kernel", foreign, words=[str(foreign), "not a Linux kernel"])
    cut = tmp_path / "cut"
    cut.write_bytes(kernel.image.read_bytes()[:1 << 20])
    refuse("-kernel", cut, words=[str(cut), "cut short"])
    refuse("-kernel", kernel.image, "-m", "16", words=["-m"])
    refuse("-kernel", kernel.image, "-initrd", "/nonexistent", words=["/nonexistent"])


def test_images(refuse, tmp_path, kernel, evisor_img):
    base = ["-kernel", kernel.image]
    refuse(*base, "-drive", "file=/nonexistent,format=qcow2", words=["/nonexistent"])
    refuse(*base, "-drive", f"file={tmp_path},format=raw", words=[str(tmp_path), "directory"])
    wrong = tmp_path / "wrong"
    wrong.write_bytes(bytes(1 << 20))
    refuse(*base, "-drive", f"file={wrong},format=qcow2", words=[str(wrong), "qcow2"])
    refuse(*base, "-drive", f"file={wrong},format=vpc9", words=["vpc9"])
    refuse(*base, "-drive", f"file={wrong},format=raw,cache=lukewarm", words=["lukewarm"])
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refuse(*base, "-drive", f"file={fifo},format=raw", words=[str(fifo)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_image(refuse, tmp_path, kernel):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(512))
    secret.chmod(0)
    refuse("-kernel", kernel.image, "-drive", f"file={secret},format=raw", words=["Permission"])


def test_an_image_in_use_by_another_writer(refuse, tmp_path, kernel, evisor_img):
    image = tmp_path / "image.qcow2"
    evisor_img("create", "-f", "qcow2", image, "64M")
    with open(image, "r+b") as held:
        # As QEMU's writers do: byte 101 held, byte 201 not shared (an open file description lock).
        for byte in (101, 201):
            lock = struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
            fcntl.fcntl(held, 37, lock)
        refuse("-kernel", kernel.image, "-drive", f"file={image},format=qcow2",
               words=[str(image), 'Failed to get', '"write" lock'])


def test_kvm_that_is_not_there(refuse, kernel):
    if os.path.exists("/dev/kvm"):
        pytest.skip("this host has a /dev/kvm")
    refuse("-accel", "kvm", "-kernel", kernel.image, words=["/dev/kvm", "-accel soft"])


def test_options(refuse, kernel):
    base = ["-kernel", kernel.image]
    refuse(*base, "-kernal", "x", words=["-kernal", "-kernel"])
    refuse(*base, "-device", "virtio-blk-pic", words=["virtio-blk-pic", "virtio-blk-pci"])
    refuse(*base, "-device", "virtio-net-pci,netdev=n7", words=["n7"])
    refuse(*base, "-m", "lots", words=["-m", "lots"])
    refuse(*base, "-smp", "0", words=["-smp"])
    refuse(*base, "-smp", "1000", words=["-smp"])
    refuse(*base, "-accel", "hvf", words=["hvf"])
    refuse(*base, "-netdev", "user,id=n,hostfwd=nonsense", words=["nonsense"])
    refuse(*base, "-netdev", "user,id=n,net=10.0.0.0/99", words=["10.0.0.0/99"])


def test_a_port_already_forwarded(refuse, kernel):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        refuse("-kernel", kernel.image, "-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22",
               "-device", "virtio-net-pci,netdev=n", words=[str(port)])


def test_sockets(refuse, kernel, tmp_path):
    base = ["-kernel", kernel.image]
    refuse(*base, "-qmp", f"unix:{tmp_path}/{'x' * 120},server=on,wait=off", words=["107"])
    refuse(*base, "-qmp", "unix:/nonexistent/qmp,server=on,wait=off", words=["/nonexistent/qmp"])
    refuse(*base, "-qmp", "tcp:0.0.0.0:4444,server=on,wait=off", words=["0.0.0.0", "127.0.0.1"])


def test_a_pidfile_that_is_held(refuse, kernel, tmp_path):
    pidfile = tmp_path / "pid"
    with open(pidfile, "w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        refuse("-kernel", kernel.image, "-pidfile", pidfile, words=[str(pidfile)])


def test_version_and_help(evisor):
    version = subprocess.run([str(evisor), "-version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("evisor version ") or "version " in version.stdout
    shown = subprocess.run([str(evisor), "-help"], capture_output=True, text=True, check=True)
    for word in ("-kernel", "-drive", "-nic", "-qmp", "-accel", "Ctrl-a"):
        assert word in shown.stdout
