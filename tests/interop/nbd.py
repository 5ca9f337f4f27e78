# SPDX-License-Identifier: MIT
"""Runs evisor-img serve, and looks at what NBD clients see of it."""
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest
from conftest import EVISOR_IMG, TIMEOUT_S, run

needs_libnbd = pytest.mark.skipif(not shutil.which("nbdinfo") or not shutil.which("nbdcopy"),
                                  reason="nbdinfo missing: apt-get install libnbd-bin")
needs_fio = pytest.mark.skipif(not shutil.which("fio"), reason="fio missing: apt-get install fio")


F_OFD_GETLK = 36  # Python's fcntl does not name it


class Server:
    def __init__(self, process, uri, path):
        self.process = process
        self.uri = uri
        self.path = path  # of the socket

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        self.process.wait(timeout=TIMEOUT_S)
        return self.process.returncode

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        connection.connect(self.path)
        return connection


@contextlib.contextmanager
def serving(command, path, name=""):
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        uri = f"nbd+unix:///{name}?socket={path}"
        wait_for_socket(process, path)
        yield Server(process, uri, path)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_socket(process, path):
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if os.path.exists(path):
            return
        time.sleep(0.01)
    raise AssertionError(f"no server: {process.communicate()}")


@contextlib.contextmanager
def serve(image, *options, name=""):
    """Our server, on a socket beside the image; it stays when a client leaves."""
    path = f"{image}.sock"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    command = [EVISOR_IMG, "serve", "-k", path, "-t", "-x", name, *options, image]
    with serving(command, path, name) as server:
        yield server


@contextlib.contextmanager
def qemu_nbd(image, *options):
    path = f"{image}.qemu.sock"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with serving(["qemu-nbd", "-k", path, "-t", *options, image], path) as server:
        yield server


def wait_until_unlocked(image):
    """The kernel ends the I/O of a killed process after it, and gives its locks back only then."""
    deadline = time.monotonic() + TIMEOUT_S
    with open(image, "rb") as file:
        while time.monotonic() < deadline:
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind = struct.unpack("hhqqi4x", fcntl.fcntl(file, F_OFD_GETLK, asked))[0]
            if kind == fcntl.F_UNLCK:
                return
            time.sleep(0.02)
    raise AssertionError(f"{image} is still locked")


def nbd_map(uri, context="base:allocation"):
    """[(offset, bytes, type)], neighbours of one type joined."""
    result = run("nbdinfo", "--json", f"--map={context}", uri)
    assert result.status == 0, result
    extents = []
    for extent in json.loads(result.out):
        if extents and extents[-1][2] == extent["type"]:
            extents[-1][1] += extent["length"]
        else:
            extents.append([extent["offset"], extent["length"], extent["type"]])
    return [tuple(extent) for extent in extents]


def dirty(uri, bitmap):
    return [(start, length) for start, length, kind in nbd_map(uri, f"qemu:dirty-bitmap:{bitmap}")
            if kind]
