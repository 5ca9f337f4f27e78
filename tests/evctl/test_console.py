# SPDX-License-Identifier: MIT
"""evctl console on a real terminal (a pty), with a machine that is played."""
import fcntl
import json
import os
import pty
import select
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest


class Played:
    """Says it runs by the lock on its pid file, answers QMP, and has consoles."""

    def __init__(self, folder):
        self.commands = []
        self.pid = open(folder / "pid", "w+", encoding="ascii")
        # Whoever ends the machine by its number must not end the test.
        self.process = subprocess.Popen(["sleep", "1000"])
        self.pid.write(str(self.process.pid))
        self.pid.flush()
        # An open file description's lock, as evisor's: the kernel's struct flock.
        fcntl.fcntl(self.pid, 37, struct.pack("hhlli4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        self.sockets = {name: self.listen(folder / name) for name in ("qmp", "console", "hvc")}
        threading.Thread(target=self.serve_qmp, daemon=True).start()

    @staticmethod
    def listen(path):
        listener = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(path.parent)
        listener.bind(path.name)
        os.chdir(here)
        listener.listen()
        return listener

    def serve_qmp(self):
        while True:
            try:
                client, _ = self.sockets["qmp"].accept()
            except OSError:
                return
            client.sendall(b'{"QMP": {"capabilities": []}}\r\n')
            decoder, text = json.JSONDecoder(), ""
            while piece := client.recv(4096):
                text += piece.decode()
                while text:
                    message, end = decoder.raw_decode(text)
                    text = text[end:].lstrip()
                    self.commands.append(message)
                    client.sendall(b'{"return": {}}\r\n')

    def end(self):
        self.process.kill()
        self.process.wait()
        self.pid.close()
        for listener in self.sockets.values():
            listener.close()

    def accept(self, name):
        self.sockets[name].settimeout(120)
        connection = self.sockets[name].accept()[0]
        connection.settimeout(120)
        return connection

    def sizes(self):
        return [(one["arguments"]["cols"], one["arguments"]["rows"]) for one in self.commands
                if one["execute"] == "chardev-resize" and one["arguments"]["id"] == "hvc"]


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def play(evctl):
    """play(name): a machine of that name that is played; it ends before evctl clears up."""
    played = []

    def begin(name):
        played.append(Played(evctl.store / name))
        return played[-1]

    yield begin
    for machine in played:
        machine.end()


@pytest.fixture
def terminal():
    """(master, slave) of a terminal of 100 columns and 30 rows."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    yield master, slave
    os.close(master)
    os.close(slave)


def open_console(evctl, terminal, *words):
    def become_its_process():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    return subprocess.Popen(evctl.command("console", *words), env=evctl.environment,
                            stdin=terminal[1], stdout=terminal[1], stderr=subprocess.DEVNULL,
                            preexec_fn=become_its_process)


def read_all(master, until):
    shown = b""
    while until not in shown:
        assert select.select([master], [], [], 30)[0], shown
        shown += os.read(master, 4096)
    return shown


def test_a_virtio_console_follows_the_window(evctl, play, terminal):
    evctl("create", "web", "--console", "hvc")
    machine = play("web")
    console = open_console(evctl, terminal, "web")
    line = machine.accept("hvc")
    wait_until(lambda: machine.sizes() == [(100, 30)])
    for columns, rows in ((120, 50), (80, 24)):
        fcntl.ioctl(terminal[0], termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        wait_until(lambda size=(columns, rows): machine.sizes()[-1] == size)
    # It is a terminal all the while: each key at once, as it is, and what comes, as it is.
    os.write(terminal[0], b"a\x03\x1a")
    heard = b""
    while len(heard) < 3:
        heard += line.recv(10)
    assert heard == b"a\x03\x1a"
    line.sendall(b"\x1b[31mred\n")
    assert b"\x1b[31mred\n" in read_all(terminal[0], b"red\n")
    os.write(terminal[0], b"bye\x1dnot this")
    assert console.wait(120) == 0
    assert line.recv(10) == b"bye" and line.recv(10) == b""
    # The terminal is as it was.
    assert termios.tcgetattr(terminal[1])[3] & termios.ECHO


def test_the_serial_console_has_no_size(evctl, play, terminal):
    evctl("create", "web")
    evctl("create", "both", "--console", "hvc")
    for words in (("web",), ("both", "--serial")):
        machine = play(words[0])
        console = open_console(evctl, terminal, *words)
        machine.accept("console")
        os.write(terminal[0], b"\x1d")
        assert console.wait(120) == 0 and machine.sizes() == []


def test_what_a_machine_with_a_virtio_console_has(evctl, guest):
    evctl.fails(2, ["serial or hvc"], "create", "web", "--console", "tty")
    evctl("create", "web", *guest.diskless, "--console", "hvc")
    evctl("start", "web", "--paused")
    assert evctl("qmp", "web", "chardev-resize", "id=hvc", "cols=80", "rows=24").json() == {}
    evctl.fails(1, ["no virtconsole"], "qmp", "web", "chardev-resize", "id=console", "cols=80",
                "rows=24")
    evctl.fails(1, ["from 1 to 65535"], "qmp", "web", "chardev-resize", "id=hvc", "cols=0", "rows=24")
