# SPDX-License-Identifier: MIT
"""Terminals by telnet, beside QEMU's: the same negotiation, and what a real client makes of it."""

import contextlib
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import time

import pytest

from conftest import BUILD
from test_monitor import QEMU, Monitor

IAC, BREAK, DO, WILL, ECHO, BINARY, SGA = 255, 243, 253, 251, 1, 0, 3
DEADLINE_S = 60
PROGRAMS = [BUILD / "evisor", *([QEMU] if QEMU else [])]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(params=PROGRAMS, ids=lambda path: os.path.basename(path))
def start(request, tmp_path):
    running = []

    def start_one(*options):
        path = tmp_path / "qmp"
        (tmp_path / "d.raw").write_bytes(bytes(1 << 20))
        accel = "soft" if request.param == PROGRAMS[0] else "tcg"
        running.append(subprocess.Popen(
            [str(request.param), "-accel", accel, "-S", "-nodefaults", "-display", "none", "-m", "64",
             "-drive", f"file={tmp_path}/d.raw,format=raw,if=virtio",
             "-qmp", f"unix:{path},server=on,wait=off", *options], stdin=subprocess.DEVNULL))
        return Monitor(path)
    yield start_one
    for process in running:
        process.kill()
        process.wait()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)


def read_until(stream, text):
    got = b""
    while text not in got:
        piece = stream.recv(4096)
        assert piece, got
        got += piece
    return got


def test_a_monitor_negotiates_and_echoes(start):
    port = free_port()
    start("-monitor", f"telnet:127.0.0.1:{port},server,nowait")
    with connect(port) as stream:
        greeting = read_until(stream, b"(qemu) ")
        assert greeting.startswith(bytes([IAC, WILL, ECHO, IAC, WILL, SGA, IAC, WILL, BINARY,
                                          IAC, DO, BINARY]))
        # What a client answers is no input; the end of its lines is CR NUL.
        stream.sendall(bytes([IAC, DO, ECHO, IAC, DO, SGA]) + b"info st" +
                       bytes([IAC, WILL, BINARY]) + b"atus\r")
        answer = read_until(stream, b")\r\n(qemu) ")
        # What was typed comes back.
        assert b"info status" in re.sub(rb"\x1b\[[0-9]*[A-Z]|[^ -~]", b"", answer)
        stream.sendall(b"quit\r\0")
        with contextlib.suppress(ConnectionError):
            while stream.recv(4096):
                pass


def test_a_chardev_takes_commands_out(start):
    port = free_port()
    monitor = start("-chardev", f"socket,id=c0,telnet=on,host=127.0.0.1,port={port},server=on,wait=off",
                    "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=c0,name=p")
    (entry,) = [entry for entry in monitor.ask("query-chardev")["return"] if entry["label"] == "c0"]
    assert f"telnet:127.0.0.1:{port},server=on" in entry["filename"]
    with connect(port) as stream:
        assert stream.recv(64) == bytes([IAC, WILL, ECHO, IAC, WILL, SGA, IAC, WILL, BINARY,
                                         IAC, DO, BINARY])


def test_a_chardev_of_qmp(start):
    monitor, port = start(), free_port()
    assert "return" in monitor.ask("chardev-add", id="late", backend={
        "type": "socket", "data": {"server": True, "wait": False, "telnet": True, "addr": {
            "type": "inet", "data": {"host": "127.0.0.1", "port": str(port)}}}})
    with connect(port) as stream:
        assert stream.recv(64)[:3] == bytes([IAC, WILL, ECHO])


@pytest.mark.skipif(not shutil.which("telnet"), reason="telnet missing: apt-get install inetutils-telnet")
def test_a_person_with_a_telnet_client(start):
    port = free_port()
    monitor = start("-monitor", f"telnet:localhost:{port},server,nowait")
    master, slave = pty.openpty()
    with subprocess.Popen(["telnet", "127.0.0.1", str(port)], stdin=slave, stdout=slave, stderr=slave,
                          env={**os.environ, "TERM": "dumb"}) as client:
        os.close(slave)
        seen = wait_text(master, b"(qemu) ")
        assert b"\xff" not in seen
        os.write(master, b"info nxme\x7f\x7f\x7fame\r")
        os.write(master, b"stop\r")
        wait_text(master, b"stop")
        os.write(master, b"info status\r")
        # Each key is shown once: the client itself has stopped to echo.
        seen = wait_text(master, b"VM status: paused")
        assert b"iinnffoo" not in seen
        client.kill()
    os.close(master)
    assert monitor.ask("query-status")["return"]["running"] is False


def wait_text(descriptor, text):
    got, deadline = b"", time.monotonic() + DEADLINE_S
    while text not in got:
        assert time.monotonic() < deadline, got
        if select.select([descriptor], [], [], 1)[0]:
            got += os.read(descriptor, 4096)
    return got
