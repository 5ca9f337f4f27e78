# SPDX-License-Identifier: MIT
"""What the human monitor tells of CPUs and memory while a small guest runs, beside QEMU's."""

import os
import pathlib
import re
import shutil
import subprocess
import time

import pytest

from conftest import BUILD
from test_human import say
from test_monitor import Monitor, QEMU, start

SOURCE = pathlib.Path(__file__).with_name("registers.S")
LOOKS = [
    "info registers", "info registers -a", "info registers 0", "info registers 1", "info registers 7",
    "info registers zz", "info mem", "info tlb", "print/x $cs.base", "print/x $pc", "print/x $esp",
    "print/x $esi+8*2", "print $ds", "x/4xb $pc", "x/2xg $esp - 0x100", "gva2gpa 0x200100",
    "gva2gpa 0x500000000"]


def accelerators(mode):
    """A host whose KVM only emulates does no floating point there: MODE 16 has none."""
    return ["soft", "kvm"] if mode == 16 else ["soft"]


def alike(text):
    """QEMU's translator shows bits of the limit among the attributes, never marks a TSS busy, and is
    another model of CPU, which EDX tells after a reset."""
    text = text.replace("EDX=00060fb1", "EDX=00000600")
    text = re.sub(r"00([0-9a-f])f(9[0-9a-f]00)", r"00\g<1>0\2", text)
    return re.sub(r"^(TR .*) 00008[9b]00( DPL=0 TSS\d\d-).*\r$", r"\1\2", text, flags=re.MULTILINE)


def until_it_circles(monitor):
    deadline = time.monotonic() + 120
    while "0xeb 0xfe" not in say(monitor, "x/2xb $pc"):
        assert time.monotonic() < deadline, say(monitor, "info registers")
        time.sleep(0.02)


@pytest.fixture(scope="module", params=[(mode, accel) for mode in (16, 32, 64)
                                        for accel in accelerators(mode)], ids=str)
def pair(request, tmp_path_factory):
    """evisor's monitor and QEMU's; both guests run."""
    mode, accel = request.param
    if not QEMU or not shutil.which("gcc") or not shutil.which("ld"):
        pytest.skip("there is no qemu-system-x86_64, or no gcc and ld")
    if accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/kvm")
    folder = tmp_path_factory.mktemp("bios")
    subprocess.run(["gcc", f"-DMODE={mode}", "-c", "-o", folder / "bios.o", SOURCE], check=True)
    subprocess.run(["ld", "-Ttext=0", "-N", "--oformat=binary", "-o", folder / "bios.bin",
                    folder / "bios.o"], check=True)
    processes, opened = [], []
    for program, name, more in ((BUILD / "evisor", "e", ["-accel", accel]),
                                (QEMU, "q", ["-accel", "tcg", "-machine", "q35"])):
        process, path = start(program, folder, name, *more, "-bios", folder / "bios.bin", "-cpu", "max",
                              "-smp", "2")
        processes.append(process)
        opened.append(Monitor(path))
    for monitor in opened:
        assert monitor.ask("cont") == {"return": {}}
        until_it_circles(monitor)
    yield opened
    for process in processes:
        process.kill()
        process.wait()


def test_the_same_registers_and_memory(pair):
    for line in LOOKS:
        ours, theirs = (alike(say(monitor, line)) for monitor in pair)
        assert ours == theirs, line


def test_a_look_is_no_event(pair):
    ours = pair[0]
    ours.ask("query-status")
    ours.events.clear()
    for _ in range(20):
        say(ours, "info registers")
    assert ours.ask("query-status")["return"]["status"] == "running" and not ours.events
    assert ours.ask("stop") == {"return": {}}
    stopped = say(ours, "info registers -a")
    assert say(ours, "info registers -a") == stopped and "CPU#1" in stopped
    assert ours.ask("cont") == {"return": {}}
    assert [event["event"] for event in ours.events] == ["STOP", "RESUME"]


def test_another_cpu_by_its_number(pair):
    for monitor in pair:
        text = monitor.ask("human-monitor-command", **{"command-line": "info registers",
                                                       "cpu-index": 1})["return"]
        assert text.lstrip() == say(monitor, "info registers 1") and "CPU#1" in text
        answer = monitor.ask("human-monitor-command", **{"command-line": "info cpus", "cpu-index": 9})
        assert answer["error"]["desc"] == "Parameter 'cpu-index' expects a CPU number"


def test_where_things_lie(pair):
    """Not the same machine: what both have is at the same places."""
    for line, wanted in (
            ("info mtree", [r"^address-space: memory", r"^address-space: I/O",
                            r"^  0000000000000000-ffffffffffffffff \(prio 0, i/o\): system",
                            r"\(prio 0, ram\): alias ram-below-4g @pc.ram 0000000000000000-000000000fffffff",
                            r" 00000000000003f8-00000000000003ff|00000000000000b2",
                            r"00000000ffff0000-00000000ffffffff \(prio 0, rom\): pc.bios"]),
            ("info mtree -f", [r"^FlatView #", r'^ AS "memory", root: system', r"\(prio 0, ram\): pc.ram"]),
            ("info qtree", [r"^bus: main-system-bus", r"^  type System", r"^  dev: q35-pcihost",
                            r"^    bus: pcie\.0", r"^      type PCIE",
                            r'^      dev: virtio-blk-pci, id "disk0"',
                            r'^      dev: virtio-net-pci, id "nic0"', r'^      dev: virtio-rng-pci, id "rng0"',
                            r'^      dev: virtio-mem-pci, id "vm0"', r'^      dev: virtio-serial-pci, id "vs0"',
                            r'^      dev: virtio-balloon-pci, id "b0"', r'^      dev: mch, id ""',
                            r'^      dev: ICH9-LPC, id ""',
                            r"^        class SCSI controller, addr 00:.*, pci id 1af4:1042 ",
                            r'^ +dev: virtserialport, id "p0"'])):
        for monitor in pair:
            text = say(monitor, line)
            for expression in wanted:
                if not (monitor is pair[1] and "1042" in expression):  # there it is the older device
                    assert re.search(expression, text, re.MULTILINE), (line, expression, text)
