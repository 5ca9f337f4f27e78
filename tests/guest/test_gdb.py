# SPDX-License-Identifier: MIT
"""A debugger's conversation with a real guest: breakpoints in the kernel, steps, memory."""

import socket
import time

import pytest


class Debugger:
    """As much of gdb as the tests need: packets out, packets in."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.stream = self.socket.makefile("rb")
        assert self.ask("QStartNoAckMode") == "OK"

    def say(self, text):
        self.socket.sendall(f"${text}#{sum(text.encode()) & 255:02x}".encode())

    def hear(self):
        while self.stream.read(1) != b"$":
            pass
        text = b""
        while (byte := self.stream.read(1)) != b"#":
            text += byte
        assert int(self.stream.read(2), 16) == sum(text) & 255
        return text.decode()

    def ask(self, text):
        self.say(text)
        return self.hear()

    def interrupt(self):
        self.socket.sendall(b"\x03")
        return self.hear()

    def register(self, number):
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")

    def memory(self, address, length):
        return bytes.fromhex(self.ask(f"m{address:x},{length:x}"))

    def close(self):
        self.stream.close()
        self.socket.close()


RIP = 16


@pytest.fixture
def port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def machine(start, diskless, port):
    machine = start(diskless, "-nic", "none", "-smp", "2", "-gdb", f"tcp::{port}",
                    append="nokaslr")
    machine.expect("GUEST-INIT", 120)
    return machine


@pytest.fixture
def debugger(machine, port):
    debugger = Debugger(port)
    yield debugger
    debugger.close()


def symbol(machine, name):
    line = machine.check(f"mount -t proc proc /proc 2>/dev/null; grep -w {name} /proc/kallsyms")
    address = int(line.split()[0], 16)
    assert address
    return address


def is_nested_in_the_translator():
    with open("/proc/cpuinfo", encoding="ascii") as cpuinfo:
        return "QEMU TCG" in cpuinfo.read()


@pytest.mark.parametrize("kind, word", [(0, "swbreak"), (1, "hwbreak")])
def test_breakpoint_in_a_system_call(machine, port, kind, word):
    if machine.qmp.execute("query-kvm")["enabled"] and is_nested_in_the_translator():
        pytest.skip("QEMU's translator gives a KVM inside it neither INT3 nor debug registers")
    address = symbol(machine, "__x64_sys_sethostname")
    debugger = Debugger(port)
    code = debugger.memory(address, 16)
    assert debugger.ask(f"Z{kind},{address:x},1") == "OK"
    debugger.say("vCont;c")
    machine.type("hostname guest\n")
    reason = debugger.hear()
    assert reason.startswith("T05thread:") and word in reason
    thread = int(reason[10:12], 16)
    assert debugger.ask(f"Hg{thread:x}") == "OK"
    assert debugger.register(RIP) == address
    assert debugger.ask(f"z{kind},{address:x},1") == "OK"
    assert debugger.memory(address, 16) == code
    assert debugger.ask(f"vCont;s:{thread:x}").startswith(f"T05thread:{thread:02x}")
    assert debugger.register(RIP) != address
    debugger.close()
    assert machine.check("hostname") == "guest"


def test_interrupt_detach_and_the_machine_runs_on(machine, debugger):
    assert not machine.qmp.execute("query-status")["running"]
    debugger.say("c")
    assert machine.check("echo alive") == "alive"
    assert debugger.interrupt() == "T02thread:01;"
    assert not machine.qmp.execute("query-status")["running"]
    assert debugger.ask("D") == "OK"
    deadline = time.monotonic() + 120
    while not machine.qmp.execute("query-status")["running"]:
        assert time.monotonic() < deadline
    assert machine.check("echo alive") == "alive"


def test_before_the_first_instruction(start, diskless, port):
    machine = start(diskless, "-S", "-nic", "none", "-gdb", f"tcp::{port}")
    machine.qmp.execute("query-status")
    debugger = Debugger(port)
    assert debugger.ask("?") == "T05thread:01;"
    entry = debugger.register(RIP)
    assert debugger.ask("vCont;s").startswith("T05")
    assert debugger.register(RIP) > entry
    assert bytes.fromhex(debugger.ask("qRcmd," + b"info status".hex())[1:]) == \
        b"VM status: paused\r\n"
    assert debugger.hear() == "OK"
    assert debugger.ask("D") == "OK"
    machine.expect("GUEST-INIT", 120)
    debugger.close()
